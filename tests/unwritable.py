"""A real place where nothing can be written."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REFUSED = "(Read-only file system|Permission denied|Operation not permitted)"
"""What the system says there."""


@contextmanager
def unwritable(folder: Path) -> Iterator[Path]:
    """A folder, made if it is missing, as one that refuses writes.

    For root, whom no mode stops, it is mounted read-only; where root may not mount, as in a container, it is a folder
    of the kernel's instead.
    """
    folder.mkdir(exist_ok=True)
    if os.geteuid() != 0:
        folder.chmod(0o500)
        yield folder
        folder.chmod(0o700)
    elif subprocess.run(["mount", "--bind", str(folder), str(folder)], check=False).returncode == 0:
        try:
            subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
    else:
        yield Path("/sys/kernel")
