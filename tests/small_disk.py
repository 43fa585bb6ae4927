"""A real disk that is small enough to be filled."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
LARGEST = 256 << 20  # bytes; a shared memory of this size or less may be filled


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[Path]:
    """A folder on a file system of its own with `size` free bytes.

    It is a tmpfs, which root may mount. Where root may not, as in a container, the container's own shared memory is
    small and is filled up to that size.
    """
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=False)
    if mounted.returncode == 0:
        try:
            yield place
        finally:
            subprocess.run(["umount", "--lazy", str(place)], check=True)
        return
    room = free(SHARED_MEMORY)
    assert room <= LARGEST, "needs root: neither can a file system be mounted nor is /dev/shm small"
    ballast, folder = SHARED_MEMORY / f"ballast-{os.getpid()}", SHARED_MEMORY / f"disk-{os.getpid()}"
    try:
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, room - size)
        folder.mkdir()
        yield folder
    finally:
        ballast.unlink(missing_ok=True)
        subprocess.run(["rm", "-rf", str(folder)], check=True)


def free(place: Path) -> int:
    """Free bytes on the file system of a folder."""
    state = os.statvfs(place)
    return state.f_bavail * state.f_frsize
