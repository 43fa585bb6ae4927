"""Where an embedded Redis listens: a unix socket in its directory, or elsewhere if that path is too long.

A socket's path is short by the system's decree. Then a folder for temporary files holds it, made for this purpose and
for nobody else's eyes, and the link `socket` in the directory says where: so the next start finds a Redis that the last
one left behind.
"""

import os
import stat
import sys
import tempfile
from pathlib import Path

from pubky_homeserver.core.errors import CannotStart

MAX_PATH = 107 if sys.platform == "linux" else 103
"""Bytes of a socket's path (`sun_path` without the zero at its end)."""

_NAME = "redis.sock"


def place_socket(directory: Path) -> str:
    """The path of the socket for a Redis on a directory. Raises `CannotStart`."""
    here = directory.absolute() / _NAME
    if _fits(here):
        return str(here)
    link = directory / "socket"
    elsewhere = Path(os.readlink(link)) if link.is_symlink() else None
    if elsewhere is None or not _is_private(elsewhere):
        elsewhere = Path(tempfile.mkdtemp(prefix="homeserver-"))
        link.unlink(missing_ok=True)
        link.symlink_to(elsewhere)
    if not _fits(elsewhere / _NAME):
        raise CannotStart(f"the paths of {directory} and of {elsewhere} are too long for a socket: set TMPDIR to /tmp")
    return str(elsewhere / _NAME)


def remove_socket(directory: Path) -> None:
    """Leave nothing outside of the directory, once Redis has ended."""
    link = directory / "socket"
    if not link.is_symlink():
        return
    elsewhere = Path(os.readlink(link))
    if _is_private(elsewhere):
        (elsewhere / _NAME).unlink(missing_ok=True)
        elsewhere.rmdir()
    link.unlink()


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= MAX_PATH


def _is_private(folder: Path) -> bool:
    """Whether a folder is there, and ours alone."""
    try:
        state = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid() and not state.st_mode & 0o077
