"""Whatever an earlier run left behind, there are never two Redis servers on one directory."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from glob import glob
from pathlib import Path

import pytest
import pytest_twisted

from pubky_homeserver.core.errors import CannotStart
from pubky_homeserver.store.leftover import Lock, holders
from tests.store.embedded import PROGRAM, answers, ask, is_alive, listens, process_of, reactor

ANOTHER_LOCK = """
import fcntl, signal, sys
fcntl.lockf(sys.stdin, fcntl.LOCK_EX)
print("locked", flush=True)
signal.pause()
"""
# Holds a lock of the other kind (POSIX), which has nothing to do with ours.


class LeftOver:
    """A Redis that has the lock on a directory, and nobody who looks after it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = str(directory / "redis.sock")
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, *options: str, program: str = PROGRAM, place: Path | None = None) -> "subprocess.Popen[bytes]":
        """Start it on its directory, or on another `place`, with the lock on its own."""
        lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        words = [program, "--port", "0", "--unixsocket", self.socket, "--dir", str(place or self.directory)]
        words += ["--appendonly", "yes", "--save", "", *options]
        process = subprocess.Popen(words, pass_fds=[lock], stdout=subprocess.DEVNULL, start_new_session=True)
        os.close(lock)
        self.running.append(process)
        return process

    def end(self) -> None:
        """Leave none behind."""
        for process in self.running:
            process.kill()
            process.wait()


@pytest.fixture
def left(tmp_path: Path) -> Iterator[LeftOver]:
    """What an earlier run may leave."""
    left = LeftOver(tmp_path)
    yield left
    left.end()


def is_same(one: str, other: Path) -> bool:
    """Whether these are the same file, and there at all."""
    return os.path.exists(one) and os.path.samefile(one, other)


async def take(left: LeftOver, polite: float = 15.0) -> None:
    """Take the lock and give it back."""
    os.close(await Lock(reactor, left.directory, polite).take(left.socket))


@pytest_twisted.ensureDeferred
async def test_nobody(left: LeftOver) -> None:
    """A free lock is taken at once, and nobody else has it then; files of a socket mean nothing."""
    Path(left.socket).touch()
    descriptor = await Lock(reactor, left.directory).take(left.socket)
    assert os.stat(left.directory / "lock").st_mode & 0o777 == 0o600
    other = os.open(left.directory / "lock", os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert holders(other) == []  # itself apart
    os.close(other)
    os.close(descriptor)


@pytest_twisted.ensureDeferred
async def test_stopped_politely(left: LeftOver) -> None:
    """A left-over Redis is told to stop, ends by itself with its log flushed, and the lock changes hands after that."""
    process = left.start("--appendfsync", "no")
    await answers(left.socket)
    await ask(left.socket, "SET", "key", "value")
    await take(left)
    assert process.wait() == 0
    left.start()
    await answers(left.socket)
    assert await ask(left.socket, "GET", "key") == b"value"


@pytest_twisted.ensureDeferred
async def test_stopped_while_it_loads(left: LeftOver) -> None:
    """A left-over Redis that still loads its log is stopped as well, and loses nothing."""
    process = left.start()
    await answers(left.socket)
    for start in range(0, 5000, 1000):
        pairs = [part for number in range(start, start + 1000) for part in (f"key{number}", "value")]
        await ask(left.socket, "MSET", *pairs)
    await ask(left.socket, "BGREWRITEAOF")  # what loads slowly on request is a snapshot
    while b"aof_rewrite_in_progress:0\r\n" not in (state := await ask(left.socket, "INFO", "persistence")):
        pass
    assert b"aof_last_bgrewrite_status:ok" in state
    process.kill()
    process.wait()
    slow = left.start("--key-load-delay", "10000", "--loading-process-events-interval-bytes", "1024")
    while not await listens(left.socket):
        assert slow.poll() is None
    assert b"loading:1" in await ask(left.socket, "INFO", "persistence")
    await take(left)
    assert slow.wait() == 0
    left.start()
    await answers(left.socket)
    assert await ask(left.socket, "DBSIZE") == 5000


@pytest.mark.parametrize("harm", ["stopped", "no socket"])
@pytest_twisted.ensureDeferred
async def test_killed(harm: str, left: LeftOver) -> None:
    """A left-over Redis that does not hear is found by its lock and killed; what it acknowledged is there."""
    process = left.start("--appendfsync", "always")
    await answers(left.socket)
    await ask(left.socket, "SET", "key", "value")
    if harm == "stopped":
        process.send_signal(signal.SIGSTOP)
    else:
        os.unlink(left.socket)
    await take(left, polite=0.1)
    assert process.wait() == -signal.SIGKILL
    left.start()
    await answers(left.socket)
    assert await ask(left.socket, "GET", "key") == b"value"


@pytest_twisted.ensureDeferred
async def test_not_begun(left: LeftOver) -> None:
    """The parent was killed before its Redis began to listen: it is asked as soon as it does."""
    slow = left.directory / "slow-redis"
    slow.write_text(f'#!/bin/bash\nread -t 1 nothing <> "{left.directory}/never"\nexec {PROGRAM} "$@"\n')
    slow.chmod(0o755)
    os.mkfifo(left.directory / "never")
    process = left.start(program=str(slow))
    await take(left)
    assert process.wait() == 0


@pytest_twisted.ensureDeferred
async def test_the_redis_of_another_directory(left: LeftOver, tmp_path: Path) -> None:
    """Whoever answers at the socket but keeps another directory is not told to stop; the holder of the lock is."""
    other = LeftOver(tmp_path / "other")
    other.directory.mkdir()
    other.socket = left.socket
    stranger = other.start()
    await answers(left.socket)
    lock = os.open(left.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    sleeper = subprocess.Popen(["sleep", "60"], pass_fds=[lock])
    os.close(lock)
    try:
        await take(left, polite=0.1)
        assert sleeper.wait() == -signal.SIGKILL
        assert stranger.poll() is None
        assert await ask(left.socket, "PING") == b"PONG"
    finally:
        sleeper.kill()
        other.end()


@pytest_twisted.ensureDeferred
async def test_holders(left: LeftOver) -> None:
    """Only who has the lock counts, not who merely has the file open, such as a backup, or has another kind of lock."""
    process = left.start()
    await answers(left.socket)
    with open(left.directory / "lock", "r+") as file:
        readers = [
            subprocess.Popen(["sleep", "60"], stdin=file, stdout=subprocess.PIPE, text=True),
            subprocess.Popen([sys.executable, "-c", ANOTHER_LOCK], stdin=file, stdout=subprocess.PIPE, text=True),
        ]
        try:
            assert readers[1].stdout is not None
            assert readers[1].stdout.readline() == "locked\n"
            assert holders(file.fileno()) == [process.pid]
        finally:
            for reader in readers:
                reader.kill()
                reader.communicate()
    assert await process_of(left.socket) == process.pid
    assert is_alive(process.pid)


@pytest_twisted.ensureDeferred
async def test_a_holder_that_cannot_be_found(left: LeftOver) -> None:
    """A lock that somebody out of reach has, in another container perhaps: one line says how to find him."""
    lock = os.open(left.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)  # by this process, which does not count itself
    with pytest.raises(CannotStart, match="fuser"):
        await Lock(reactor, left.directory, polite=0.1, final=0.1).take(left.socket)
    assert len([entry for entry in glob("/proc/self/fd/*") if is_same(entry, left.directory / "lock")]) == 1
    os.close(lock)
    assert not await listens(left.socket)
