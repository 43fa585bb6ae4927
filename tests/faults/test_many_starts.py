"""Several homeservers that start on one data directory at the same moment."""

import os
import subprocess
import sys
from pathlib import Path

from pubky_homeserver.directory import DataDirectory

START = """
import signal
import sys
from pathlib import Path
from pubky_homeserver.core.errors import CannotStart
from pubky_homeserver.directory import DataDirectory

print("waiting", flush=True)
sys.stdin.buffer.raw.read(1)
try:
    directory = DataDirectory.open(Path(sys.argv[1]))
    directory.keypair()
    directory.folder("blobs", "bodies")
    directory.folder("redis", "accounts")
    directory.confirm()
    print("won", flush=True)
except CannotStart as error:
    print(error, flush=True)
signal.pause()
"""
ROUNDS, STARTS = 3, 5


def race(path: Path) -> list[str]:
    """What each of several says that start at once; all are killed when all have spoken."""
    begin, end = os.pipe()
    racing = [
        subprocess.Popen(
            [sys.executable, "-c", START, str(path)], stdin=begin, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        for _ in range(STARTS)
    ]
    os.close(begin)
    try:
        assert [one.stdout.readline() for one in racing if one.stdout] == ["waiting\n"] * STARTS
        os.write(end, b"." * STARTS)
        return [one.stdout.readline().strip() for one in racing if one.stdout]
    finally:
        for one in racing:
            one.kill()
            one.communicate()
        os.close(end)


def test_one_wins(tmp_path: Path) -> None:
    """Exactly one gets the directory, new or used, though the winner before was killed; the others say who has it."""
    keys = set()
    for _ in range(ROUNDS):
        told = race(tmp_path / "data")
        assert told.count("won") == 1
        assert len([line for line in told if "is in use by process" in line]) == STARTS - 1
        directory = DataDirectory.open(tmp_path / "data")
        assert not directory.is_new
        keys.add(directory.keypair().public_key)
        directory.close()
    assert len(keys) == 1
