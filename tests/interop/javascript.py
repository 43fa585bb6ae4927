"""The official JavaScript client, installed from npm as its lock file says."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).with_name("js")
CLIENT = FOLDER / "node_modules" / "@synonymdev" / "pubky"


def install_client() -> None:
    """Install the client into `node_modules`. No code of any package runs for it."""
    run("npm", "ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund", seconds=300)


def run(program: str, *arguments: str, seconds: float) -> str:
    """What a program prints in the folder of the JavaScript tests; fails with all of it unless the program succeeds."""
    path = shutil.which(program)
    if path is None:
        pytest.fail(f"{program} is missing. `script/test tests/interop` installs it on Debian, as root.")
    environment = {**os.environ, "NO_COLOR": "1"}
    environment.pop("NODE_OPTIONS", None)
    try:
        done = subprocess.run(
            [path, *arguments],
            cwd=FOLDER,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        pytest.fail(f"{program} did not end within {seconds} s:\n{late.output}")
    if done.returncode:
        pytest.fail(f"{program} {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}", pytrace=False)
    return done.stdout
