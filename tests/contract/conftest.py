"""The stores that every contract holds for: the one in memory, one on each redis-server here, one that remembers."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from pubky_homeserver.store.memory import MemoryStore
from pubky_homeserver.store.redis import RedisStore
from pubky_homeserver.store.remembered import Remembered
from tests.contract.store import Store
from tests.store.server import PROGRAMS, RedisServer


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RedisServer]]:
    """A durable server for each program, all running."""
    running = {}
    for program in PROGRAMS:
        running[program] = RedisServer(Path(tmp_path_factory.mktemp("redis")), program=program)
        running[program].start()
    yield running
    for server in running.values():
        server.kill()


async def empty_store(server: RedisServer, remembered: Remembered | None = None) -> RedisStore:
    """A started store on a server that has nothing else."""
    store = RedisStore(server.address, reactor)
    await store._connection.start(10)
    server.ask("FLUSHALL")
    await store.stop()
    store = RedisStore(server.address, reactor, remembered=remembered)
    await store.start()
    return store


@pytest_twisted.async_yield_fixture(params=["memory", *PROGRAMS, "remembering"])
async def store(request: Any, servers: dict[str, RedisServer]) -> AsyncIterator[Store]:
    """An empty store."""
    if request.param == "memory":
        yield MemoryStore(reactor)
    else:
        remembered = Remembered(max_bytes=20_000) if request.param == "remembering" else None
        redis = await empty_store(servers[PROGRAMS[0] if remembered else request.param], remembered)
        yield redis
        await redis.stop()


@pytest_twisted.async_yield_fixture(params=PROGRAMS)
async def redis(request: Any, servers: dict[str, RedisServer]) -> AsyncIterator[RedisStore]:
    """One store for all examples, on a server that need not sync each write: the examples are many."""
    server = servers[request.param]
    store = await empty_store(server, Remembered(max_bytes=20_000))
    server.ask("CONFIG", "SET", "appendfsync", "everysec")
    yield store
    server.ask("CONFIG", "SET", "appendfsync", "always")
    server.ask("FLUSHALL")
    await store.stop()
