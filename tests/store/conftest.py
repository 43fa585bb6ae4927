"""Servers and stores that a test may break."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from pubky_homeserver.store.redis import RedisStore
from tests.store.server import DURABLE, PROGRAMS, RedisServer

StartServer = Callable[..., RedisServer]
OpenStore = Callable[..., Awaitable[RedisStore]]


@pytest.fixture(params=PROGRAMS)
def start_server(request: Any, tmp_path: Path) -> Iterator[StartServer]:
    """Starts a server of each version, durable unless told otherwise; more options may be given."""
    servers: list[RedisServer] = []

    def start(*options: str, durable: bool = True) -> RedisServer:
        folder = tmp_path / f"redis{len(servers)}"
        folder.mkdir()
        server = RedisServer(folder, (*(DURABLE if durable else ("--save", "")), *options), request.param)
        server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def server(start_server: StartServer) -> RedisServer:
    """A durable server of one's own."""
    return start_server()


@pytest_twisted.async_yield_fixture
async def open_store() -> AsyncIterator[OpenStore]:
    """Opens a store, which is closed at the end."""
    stores: list[RedisStore] = []

    async def start(server: RedisServer, **options: Any) -> RedisStore:
        store = RedisStore(options.pop("address", server.address), reactor, **options)
        stores.append(store)
        await store.start()
        return store

    yield start
    for store in stores:
        await store.stop()
