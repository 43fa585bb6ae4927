"""A Redis that Sentinel watches over: the store finds the master, and the next one after a failover."""

import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater

from pubky_homeserver.core.errors import CannotStart, Refused
from pubky_homeserver.core.records import Account
from pubky_homeserver.store.address import RedisAddress
from pubky_homeserver.store.redis import RedisStore
from pubky_homeserver.store.sentinel import SentinelEndpoint
from tests.store.server import DURABLE, PROGRAMS, RedisServer
from tests.web.sockets import reactor, until

SERVICE = "pubky"
PATIENCE = 90.0
"""Seconds after which a test that waits has failed."""


def free_port() -> int:
    """A port of loopback that nobody had a moment ago."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


async def eventually(attempt: Callable[[], Awaitable[object]]) -> None:
    """Try until it says yes."""
    deadline = reactor.seconds() + PATIENCE
    while not await attempt():
        assert reactor.seconds() < deadline, "it never did"
        await deferLater(reactor, 0.05)


@contextmanager
def sentinel(folder: Path, master: int) -> Iterator[int]:
    """One sentinel that decides alone, and soon; its port."""
    folder.mkdir()
    port = free_port()
    (folder / "sentinel.conf").write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor {SERVICE} 127.0.0.1 {master} 1\n"
        f"sentinel down-after-milliseconds {SERVICE} 1000\nsentinel failover-timeout {SERVICE} 3000\n"
    )
    words = [PROGRAMS[0], str(folder / "sentinel.conf"), "--sentinel"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.kill()
        process.wait()


async def knows_replica(port: int) -> bool:
    """Whether a sentinel has found the master's replica, and seen that it has caught up: before, it elects nobody."""
    with socket.create_connection(("127.0.0.1", port), 5) as asking:
        asking.sendall(f"SENTINEL REPLICAS {SERVICE}\r\n".encode())
        return b"master-link-status\r\n$2\r\nok\r\n" in asking.recv(65536)


def a_server(folder: Path, port: int, *options: str) -> RedisServer:
    """A server that others can reach by its port."""
    folder.mkdir()
    server = RedisServer(folder, (*DURABLE, "--bind", "127.0.0.1", *options, "--port", str(port)))
    server.start()
    return server


@pytest_twisted.async_yield_fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[RedisServer, int, int]]:
    """A master with a replica that has caught up, and a sentinel that knows both: master, its port, the sentinel's."""
    first, second = free_port(), free_port()
    master = a_server(tmp_path / "first", first)
    replica = a_server(tmp_path / "second", second, "--replicaof", f"127.0.0.1 {first}")
    await until(lambda: master.answers() and replica.answers())
    await until(lambda: b"master_link_status:up" in replica.ask("INFO", "replication"))
    with sentinel(tmp_path / "sentinel", first) as port:
        watcher = SentinelEndpoint(reactor, [("127.0.0.1", port)], SERVICE, 5)

        async def knows() -> bool:
            try:
                return await watcher._ask("127.0.0.1", port) == ("127.0.0.1", first)
            except ConnectError:
                return False

        await eventually(knows)
        await eventually(lambda: knows_replica(port))
        yield master, first, port
    master.kill()
    replica.kill()


async def outcome(store: RedisStore, pubky: str) -> bool:
    """Whether an account could be made."""
    try:
        await store.sign_up(Account(pubky, 1), None, None, False)
    except Refused:
        return False
    return True


@pytest_twisted.ensureDeferred
async def test_failover(pair: tuple[RedisServer, int, int]) -> None:
    """The store works on the master that the sentinels name; when that dies it goes on at the next one by itself."""
    master, _, port = pair
    unused = free_port()
    store = RedisStore(RedisAddress.parse(f"sentinel://127.0.0.1:{unused},127.0.0.1:{port}/{SERVICE}"), reactor)
    await store.start()
    try:
        assert await outcome(store, "a" * 52)
        assert master.ask("WAIT", 1, 5000) == 1
        master.kill()
        numbers = count()
        await eventually(lambda: outcome(store, f"{next(numbers):052}"))
        assert await store.account("a" * 52) is not None
    finally:
        await store.stop()


@pytest_twisted.ensureDeferred
async def test_nobody_knows_a_master(tmp_path: Path) -> None:
    """A start without a sentinel that names a master fails with a sentence that tells why."""
    port, unused = free_port(), free_port()
    with sentinel(tmp_path / "sentinel", port) as watching:
        store = RedisStore(RedisAddress.parse(f"sentinel://127.0.0.1:{unused},127.0.0.1:{watching}/other"), reactor)
        with pytest.raises(CannotStart, match=r"no sentinel names a master: .*"):
            await store._connection.start(1.5)
        endpoint = SentinelEndpoint(reactor, [("127.0.0.1", unused)], SERVICE, 5)
        with pytest.raises(ConnectError, match=str(unused)):
            await endpoint.connect(Factory())
