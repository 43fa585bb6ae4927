"""The Rust programs of `rust`: the official client in scenarios and on a move, the official relay and DHT client."""

import os
import shutil
import subprocess
from pathlib import Path

from attrs import frozen

FOLDER = Path(__file__).with_name("rust")
TARGET = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "pubky-homeserver-interop" / "target"
"""Outside of the tree, so that a fresh clone builds the dependencies only once on a machine."""


@frozen
class Programs:
    """Where they are."""

    scenarios: Path = TARGET / "release" / "homeserver-interop"
    relay: Path = TARGET / "release" / "official-relay"
    mainline: Path = TARGET / "release" / "mainline-client"
    mover: Path = TARGET / "release" / "mover"


def build_programs() -> Programs:
    """Build them; the first time takes some minutes."""
    cargo = shutil.which("cargo") or str(Path("~/.cargo/bin/cargo").expanduser())
    environment = {**os.environ, "CARGO_TARGET_DIR": str(TARGET)}
    command = [cargo, "build", "--release", "--locked", "--manifest-path", str(FOLDER / "Cargo.toml")]
    subprocess.run(command, check=True, env=environment)
    return Programs()
