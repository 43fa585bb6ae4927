"""What an official homeserver says is bounded and checked before anybody uses it."""

from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.task import Clock
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http import Request

from pubky_homeserver.core.errors import PeerBroken, PeerRefused
from pubky_homeserver.core.peers import Peer
from pubky_homeserver.peers.official import MAX_FIELDS, MAX_LINE, Official
from tests.peers import official as fake
from tests.peers.test_retelling import THERE, USER

reactor: Any = _reactor

HASH = b64encode(bytes(31) + b"x")
PUT = b"event: PUT\ndata: pubky://%b/pub/a\ndata: cursor: 5\ndata: content_hash: %b\n\n" % (USER.encode(), HASH)


class Liar(fake.Official):
    """Answers whatever a test says."""

    says: Callable[[Request], bytes]

    def answer(self, request: Request) -> Any:
        """As told."""
        return self.says(request)


@pytest_twisted.async_yield_fixture
async def liar() -> AsyncIterator[tuple[Liar, Official]]:
    """One who says what a test wants, and who asks."""
    said, pool = Liar(), HTTPConnectionPool(reactor)
    async with fake.serving(said) as port:
        peer = Peer("there", THERE, f"http://127.0.0.1:{port}", official=True)
        yield said, Official(peer, Agent(reactor, pool=pool), Clock())
        await pool.closeCachedConnections()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    "said",
    [
        PUT.replace(b"PUT", b"MOVE"),
        PUT.replace(b"event: PUT\n", b""),
        PUT.replace(b"cursor: 5", b"cursor: -5"),
        PUT.replace(b"cursor: 5", b"cursor: 0"),
        PUT.replace(b"cursor: 5", b"cursor: 9007199254740992"),
        PUT.replace(b"cursor: 5", b"cursor: 12345678901234567"),
        PUT.replace(HASH, HASH[:-4]),
        PUT.replace(HASH, b"*" * 44),
        PUT.replace(b"data: content_hash", b"data: hash"),
        PUT.replace(b"PUT", b"DEL"),
        PUT.replace(USER.encode(), THERE.encode()),
        PUT.replace(b"/pub/a", b"/priv/a"),
        PUT.replace(b"/pub/a", b"/pub/"),
        PUT.replace(b"/pub/a", b"/pub/a/../b"),
        PUT.replace(b"/pub/a", b"/pub/\xff"),
        PUT.replace(b"/pub/a", b"/pub/" + b"a" * MAX_LINE),
        b"data: " + b"x" * MAX_LINE,
        b"data: x\n" * (MAX_FIELDS + 1) + PUT,
        PUT + PUT,
        PUT + PUT.replace(b"5", b"4"),
        PUT + PUT.replace(b"5", b"6") + PUT.replace(b"5", b"7"),
    ],
)
async def test_events(liar: tuple[Liar, Official], said: bytes) -> None:
    """Names, numbers, hashes, order, how many there are, and how long a line is."""
    homeserver, official = liar
    homeserver.says = lambda _request: said
    with pytest.raises(PeerBroken):
        await official.events(USER, 0, 2)


@pytest_twisted.ensureDeferred
async def test_what_may_be_said_besides(liar: tuple[Liar, Official]) -> None:
    """Comments, and lines that nobody knows, are skipped."""
    homeserver, official = liar
    homeserver.says = lambda _request: (
        b":\n\n: hello\n\n" + PUT.replace(b"data: cursor", b":\ndata: more\ndata: cursor")
    )
    (told,) = await official.events(USER, 0, 2)
    assert (told.id, told.path) == (5, "/pub/a")


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("names", [["b", "a"], ["a", "a"], ["a", "b", "c"], ["../a"], [""], ["a\\b"], ["x" * 2000]])
async def test_lists(liar: tuple[Liar, Official], names: list[str]) -> None:
    """Names in byte order, each once, no more than were asked for."""
    homeserver, official = liar
    homeserver.says = lambda _request: "\n".join(f"pubky://{USER}/pub/{name}" for name in names).encode()
    with pytest.raises(PeerBroken):
        await official.names(USER, "", 2)


@pytest_twisted.ensureDeferred
async def test_a_list_that_goes_back(liar: tuple[Liar, Official]) -> None:
    """A page that does not lie after the one before would have no end."""
    homeserver, official = liar
    homeserver.says = lambda _request: f"pubky://{USER}/pub/a".encode()
    with pytest.raises(PeerBroken):
        await official.names(USER, "/pub/a", 2)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("method", ["head", "get"])
@pytest.mark.parametrize(
    ("name", "value"),
    [("etag", 'W/"x"'), ("etag", '"x"'), ("etag", ""), ("last-modified", "yesterday"), ("last-modified", "")],
)
async def test_files(liar: tuple[Liar, Official], method: str, name: str, value: str) -> None:
    """A file has a hash and a time."""
    homeserver, official = liar

    def say(request: Request) -> bytes:
        request.setHeader("etag", b'"' + HASH + b'"')
        request.setHeader("last-modified", fake.MODIFIED)
        request.setHeader(name, value)
        request.setHeader("content-length", "5")
        return b"" if request.method == b"HEAD" else b"hello"

    homeserver.says = say
    with pytest.raises(PeerBroken):
        await getattr(official, method)(USER, "/pub/a")


@pytest_twisted.ensureDeferred
async def test_a_type_that_is_none(liar: tuple[Liar, Official]) -> None:
    """A content type that nobody could be sent is the one of any bytes."""
    homeserver, official = liar

    def say(request: Request) -> bytes:
        request.setHeader("etag", b'"' + HASH + b'"')
        request.setHeader("last-modified", fake.MODIFIED)
        request.setHeader("content-type", "text/" + "x" * 300)
        request.setHeader("content-length", "0")
        return b""

    homeserver.says = say
    entry = await official.head(USER, "/pub/a")
    assert entry is not None
    assert entry.content_type == "application/octet-stream"


@pytest_twisted.ensureDeferred
async def test_redirects_are_not_followed(liar: tuple[Liar, Official]) -> None:
    """Nobody is asked but whom the operator named."""
    homeserver, official = liar

    def say(request: Request) -> bytes:
        request.setResponseCode(302)
        request.setHeader("location", "http://127.0.0.1:1/")
        return b""

    homeserver.says = say
    with pytest.raises(PeerBroken, match="302"):
        await official.features()


@pytest_twisted.ensureDeferred
async def test_refusals(liar: tuple[Liar, Official]) -> None:
    """Whom it does not let in, or does not know, is refused."""
    homeserver, official = liar

    def say(request: Request) -> bytes:
        request.setResponseCode(403)
        return b"no"

    homeserver.says = say
    with pytest.raises(PeerRefused, match="403: no"):
        await official.events(USER, 0)
