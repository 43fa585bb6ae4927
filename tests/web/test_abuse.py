"""Odd requests, ten thousand of them: whatever a client says, the answer is one of the protocol's, and nothing breaks.

What must hold after each is in `siege`, what is said in `odd`.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_twisted
from hypothesis import strategies as st
from twisted.logger import globalLogPublisher

from pubky_homeserver.store.redis import RedisStore
from pubky_homeserver.store.remembered import Remembered
from tests.store.server import RedisServer
from tests.web.keeping import KeptInMemory, KeptInRedis
from tests.web.odd import files, notes, wire
from tests.web.odd.parts import Draw, Known, Odd, spelled
from tests.web.served import served
from tests.web.siege import Siege, besieged
from tests.web.sockets import reactor, until

SUBJECTS: list[Callable[[Draw, Known], Odd]] = [
    wire.heads,
    wire.paths,
    wire.fields,
    wire.framings,
    notes.tokens,
    notes.grants,
    notes.impostors,
    files.locks,
    files.queries,
    files.conditions,
]

_ANY = st.sampled_from(SUBJECTS)


def anything(draw: Draw, known: Known) -> Odd:
    """An odd request of any kind."""
    return draw(_ANY)(draw, known)


@contextmanager
def watched(siege: Siege) -> Iterator[None]:
    """Let a siege see the log."""
    globalLogPublisher.addObserver(siege)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(siege)


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest_twisted.ensureDeferred
async def test_a_thousand_odd_requests(subject: Callable[[Draw, Known], Odd]) -> None:
    """No request is answered with a 5xx, leaves a traceback or memory behind, or changes what is not its own."""
    async with served() as server:
        siege = await besieged(server, KeptInMemory(server.store, server.blobs))
        with watched(siege):
            await siege.play(subject)


@pytest_twisted.async_yield_fixture
async def redis(tmp_path: Path) -> AsyncIterator[tuple[RedisServer, RedisStore]]:
    """A redis-server and a store on it, which remembers as a node's does."""
    server = RedisServer(tmp_path, ("--save", ""))
    server.start()
    store = RedisStore(server.address, reactor, remembered=Remembered(max_bytes=20_000))
    try:
        await until(server.answers)
        await store.start()
        yield server, store
        await store.stop()
    finally:
        server.kill()


@pytest_twisted.ensureDeferred
async def test_a_thousand_odd_requests_over_redis(redis: tuple[RedisServer, RedisStore]) -> None:
    """The same holds where commands and scripts of Redis see what clients say."""
    async with served(store=redis[1]) as server:
        siege = await besieged(server, KeptInRedis(redis[0], server.blobs))
        with watched(siege):
            await siege.play(anything)


# --- the siege itself ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "whose", "claims", "complaint"),
    [
        ("GET", "/priv/a.txt", "witness", {}, "something private"),
        ("GET", "/priv/", "witness", {}, "something private"),
        ("HEAD", "/priv/a.txt", "witness", {}, "something private"),
        ("PUT", "/pub/a.txt", "witness", {"trusted": True}, "the witness was changed"),
        ("DELETE", "/pub/a.txt", "witness", {"trusted": True}, "the witness was changed"),
        ("PUT", "/pub/a.txt", "mallory", {}, "a stranger changed something"),
        ("GET", "/pub/a.txt", "mallory", {"refused": True}, "200 OK"),
        ("PUT", "/pub/large", "mallory", {"trusted": True}, "507"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_siege_sees_what_must_not_be(
    method: str, path: str, whose: str, claims: dict[str, bool], complaint: str
) -> None:
    """A private byte shown, a change that is nobody's right, a failure: each ends the siege."""
    async with served() as server:
        siege = await besieged(server, KeptInMemory(server.store, server.blobs))
        user = siege.witness if whose == "witness" else siege.mallory
        server.blobs.room = "507" not in complaint
        target = f"/storage/{user.pubky}{path}".encode()
        body = b"changed" if method == "PUT" else None
        whole = spelled(method.encode(), target, [(b"Host", b"x"), (b"Cookie", user.cookie.encode())], body)
        with pytest.raises(AssertionError, match=complaint):
            await siege.send(Odd((whole,), (method.encode(),), **claims))


@pytest_twisted.ensureDeferred
async def test_pages_of_no_events_take_no_memory() -> None:
    """Asking for empty pages of the feed, each after another cursor, leaves nothing behind."""
    async with served() as server:
        siege = await besieged(server, KeptInMemory(server.store, server.blobs))
        asked = [spelled(b"GET", b"/events/?limit=0&cursor=%d" % at, [(b"Host", b"x")]) for at in range(1000)]
        await siege.replay([Odd((one,), (b"GET",)) for one in asked])
