"""The log of a private Redis is written anew when that helps and fits; nearly without room Redis takes only deletes."""

import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet.task import deferLater
from twisted.logger import LogLevel, capturedLogs

from pubky_homeserver.store.asking import Refusal, converse
from pubky_homeserver.store.process import EmbeddedRedis
from pubky_homeserver.store.rewriting import LONG, WORTH, LogState, Rewriting, limits
from tests.small_disk import free, small_disk
from tests.store.embedded import PATIENCE, ask, process_of, reactor, until

Watch = Callable[[float], Rewriting]
MB = 1 << 20
RESERVE = 256 * MB
CALM = LogState(size=500 * MB, data=300 * MB, written=0, free=10_000 * MB)
TIGHT = evolve(CALM, free=556 * MB)


# --- when ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "is_due"),
    [
        (CALM, False),
        (evolve(CALM, size=600 * MB - 1), False),
        (evolve(CALM, size=600 * MB), True),
        (evolve(CALM, size=LONG, data=LONG // 2), True),
        (evolve(CALM, size=LONG - 1, data=0), False),
        (TIGHT, True),
        (evolve(TIGHT, free=556 * MB + 1), False),
        (evolve(TIGHT, size=375 * MB), True),
        (evolve(TIGHT, size=375 * MB - 1), False),
        (evolve(TIGHT, size=100 * MB), False),
        (evolve(TIGHT, data=0, size=WORTH, free=RESERVE), True),
        (evolve(TIGHT, data=0, size=WORTH - 1, free=RESERVE), False),
        (evolve(TIGHT, is_busy=True), False),
        (evolve(CALM, size=10_000 * MB, is_busy=True), False),
    ],
)
def test_when_it_is_due(state: LogState, is_due: bool) -> None:
    """A long log when it is twice what it says; any log when room is short and a quarter can be won; not twice."""
    assert state.is_due(RESERVE) is is_due


@pytest.mark.parametrize(
    ("free", "reserve", "fits"),
    [(428, 256, True), (427, 256, False), (300, 0, True), (299, 0, False)],
)
def test_whether_it_fits(free: int, reserve: int, fits: bool) -> None:
    """The new log and half of the reserve have room beside the old one."""
    assert evolve(CALM, free=free * MB).fits(reserve * MB) is fits


@pytest.mark.parametrize(
    ("free", "written", "reserve", "has_room"),
    [
        (557, 0, 256, True),
        (556, 0, 256, False),
        (457, 100, 256, True),
        (456, 100, 256, False),
        (257, 500, 256, True),
        (256, 500, 256, False),
        (301, 0, 0, True),
        (300, 0, 0, False),
    ],
)
def test_what_stays_free(free: int, written: int, reserve: int, has_room: bool) -> None:
    """The reserve stays free, and what a new log takes, less what is written of it already."""
    assert evolve(CALM, free=free * MB, written=written * MB).has_room(reserve * MB) is has_room


@pytest.mark.parametrize(
    ("free", "reserve", "refused"),
    [
        (64 * MB, 256 * MB, (0, 0)),
        (64 * MB - 1, 256 * MB, (1, 0)),
        (MB, 256 * MB, (1, 0)),
        (MB - 1, 256 * MB, (1, 1)),
        (MB - 1, 2 * MB, (0, 0)),
        (MB // 2 - 1, 2 * MB, (1, 1)),
        (0, 0, (0, 0)),
    ],
)
def test_what_is_refused_when_most_of_the_reserve_is_gone(free: int, reserve: int, refused: tuple[int, int]) -> None:
    """A quarter of the reserve is kept for deletes, and a megabyte for what Redis writes by itself."""
    assert tuple(limits(free, reserve).values()) == refused


# --- with a Redis -------------------------------------------------------------------------------------------------


async def start_redis(directory: Path) -> EmbeddedRedis:
    """A private Redis that is ready."""
    directory.mkdir(mode=0o700)
    redis = EmbeddedRedis.prepare(reactor, directory)
    redis.startService()
    await redis.whenReady()
    return redis


@pytest_twisted.async_yield_fixture
async def redis(tmp_path: Path) -> AsyncIterator[EmbeddedRedis]:
    """A private Redis."""
    redis = await start_redis(tmp_path / "redis")
    yield redis
    await redis.stopService()


@pytest_twisted.async_yield_fixture
async def small_redis(tmp_path: Path) -> AsyncIterator[EmbeddedRedis]:
    """A private Redis on a disk of 16 MiB."""
    with small_disk(tmp_path / "disk", 16 * MB) as disk:
        redis = await start_redis(disk / "redis")
        yield redis
        await redis.stopService()


@pytest.fixture
def watch(redis: EmbeddedRedis) -> Iterator[Watch]:
    """Makes what looks after the log, with so many times the free space as its reserve; stops it at the end."""
    made: list[Rewriting] = []

    def make(share: float) -> Rewriting:
        made.append(Rewriting(reactor, redis, int(share * free(redis.directory))))
        return made[-1]

    yield make
    for rewriting in made:
        if rewriting.running:
            rewriting.stopService()


async def looked(rewriting: Rewriting) -> None:
    """Wait until a look is over."""
    looking = rewriting._looking
    assert looking is not None
    await until(lambda: looking.called)


def started_again(redis: EmbeddedRedis, before: int) -> bool:
    """Whether it was started once more often than before, and is ready."""
    return redis.ready and redis.restarts == before + 1


async def overwrite(redis: EmbeddedRedis, times: int) -> None:
    """Write a megabyte so many times."""
    for _ in range(times):
        await ask(redis.socket, "SET", "key", "x" * MB)


async def log_size(redis: EmbeddedRedis) -> int:
    """Bytes of its log; 0 while it is written anew."""
    conversation = await converse(reactor, redis.socket)
    state = await conversation.info("persistence")
    conversation.close()
    return 0 if state["aof_rewrite_in_progress"] == "1" else int(state["aof_current_size"])


@pytest_twisted.ensureDeferred
async def test_written_anew_where_room_is_short(redis: EmbeddedRedis, watch: Watch) -> None:
    """Without room a log with much that was overwritten becomes short, and what was to be kept is kept."""
    await overwrite(redis, 5)
    rewriting = watch(1.2)
    rewriting.startService()
    end = reactor.seconds() + PATIENCE
    while not 0 < await log_size(redis) < 2 * MB:
        assert reactor.seconds() < end, "it is not written anew"
        await deferLater(reactor, 0.01)
    assert not rewriting.has_room()
    assert list(redis.directory.glob("temp*")) == []
    assert await ask(redis.socket, "STRLEN", "key") == MB


@pytest_twisted.ensureDeferred
async def test_left_as_it_is_where_there_is_room(redis: EmbeddedRedis, watch: Watch) -> None:
    """A short log is left alone, and Redis has no will of its own."""
    await overwrite(redis, 5)
    rewriting = watch(0)
    assert rewriting.has_room()
    await rewriting.look()
    assert rewriting.has_room()
    assert await log_size(redis) > 5 * MB
    assert await ask(redis.socket, "CONFIG", "GET", "auto-aof-rewrite-percentage") == [
        b"auto-aof-rewrite-percentage",
        b"0",
    ]


@pytest_twisted.ensureDeferred
async def test_no_room_for_a_new_log(redis: EmbeddedRedis, watch: Watch) -> None:
    """Where a new log does not fit none is begun, and the operator is told, once."""
    await overwrite(redis, 5)
    rewriting = watch(3)
    with capturedLogs() as logs:
        for _ in range(3):
            await rewriting.look()
    assert await log_size(redis) > 5 * MB
    (told,) = [event for event in logs if event["log_level"] == LogLevel.error]
    assert "should be written anew" in told["log_format"]


@pytest_twisted.ensureDeferred
async def test_nearly_nothing_free(redis: EmbeddedRedis, watch: Watch) -> None:
    """Redis takes nothing but deletes when most of the reserve is gone, and everything again when it is back."""
    await ask(redis.socket, "SET", "key", "value")
    rewriting = watch(8)
    with capturedLogs() as logs:
        for _ in range(2):
            await rewriting.look()
        with pytest.raises(Refusal, match="OOM"):
            await ask(redis.socket, "SET", "other", "value")
        assert await ask(redis.socket, "GET", "key") == b"value"
        assert await ask(redis.socket, "DEL", "key") == 1
        rewriting.reserve = 0
        for _ in range(2):
            await rewriting.look()
    assert await ask(redis.socket, "SET", "other", "value") == b"OK"
    assert [event["log_level"] for event in logs if event["log_namespace"].endswith("Rewriting")] == [
        LogLevel.error,
        LogLevel.warn,
    ]


@pytest_twisted.ensureDeferred
async def test_nothing_free(small_redis: EmbeddedRedis) -> None:
    """On a disk that is full to its end Redis takes no writes and answers reads, also when it was started again."""
    redis, rewriting = small_redis, Rewriting(reactor, small_redis, 4 * MB)
    await ask(redis.socket, "SET", "key", "value")
    ballast = redis.directory.parent / "ballast"
    ballast.write_bytes(bytes(free(redis.directory)))
    await rewriting.look()
    for restarts in range(2):
        for words in (("SET", "other", "value"), ("DEL", "key")):
            with pytest.raises(Refusal, match=r"OOM|NOREPLICAS"):
                await ask(redis.socket, *words)
        assert await ask(redis.socket, "GET", "key") == b"value"
        os.kill(await process_of(redis.socket), signal.SIGKILL)
        await until(partial(started_again, redis, restarts))
    ballast.unlink()
    await rewriting.look()
    assert await ask(redis.socket, "SET", "other", "value") == b"OK"
    assert await ask(redis.socket, "DEL", "key") == 1


@pytest_twisted.ensureDeferred
async def test_redis_is_away(redis: EmbeddedRedis, watch: Watch) -> None:
    """While Redis is away nothing happens and nothing is logged; the looks go on."""
    rewriting = watch(1.2)
    await redis.stopService()
    with capturedLogs() as logs:
        rewriting.startService()
        await looked(rewriting)
        assert [event for event in logs if event["log_level"] > LogLevel.debug] == []
        assert rewriting.has_room()
    redis.startService()
    await redis.whenReady()
    await until(lambda: not rewriting.has_room())


@pytest_twisted.ensureDeferred
async def test_what_a_killed_redis_left(redis: EmbeddedRedis) -> None:
    """Half a log, whose Redis was killed, is removed at the next start."""
    await redis.stopService()
    left = [redis.directory / f"temp-rewriteaof-{name}.aof" for name in ("17", "bg-17")]
    for file in left:
        file.write_bytes(bytes(1000))
    redis.startService()
    await redis.whenReady()
    assert not any(file.exists() for file in left)
