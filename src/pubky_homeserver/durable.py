"""Files that are whole and on disk, or not there: what a power cut must not undo.

A rename is atomic, but until its folder is flushed as well it may be forgotten (POSIX promises no more); so each of
the steps here ends with an fsync of the folder.
"""

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk. Raises `OSError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(file: Path, content: bytes, like: os.stat_result | None = None) -> None:
    """Make `content` what a file holds, in one step. One writer at a time. Raises `OSError`.

    Its mode is 0600; or mode and owner are those of `like`.
    """
    fresh = file.with_name(file.name + ".new")
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as stream:
            if like is not None:
                os.fchown(stream.fileno(), like.st_uid, like.st_gid)
                os.fchmod(stream.fileno(), like.st_mode & 0o777)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.rename(file)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    sync_folder(file.parent)
