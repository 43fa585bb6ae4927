"""Answers whose heads are as long as they may be, or longer."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import capturedLogs, formatEvent
from twisted.web.client import HTTPConnectionPool, ResponseFailed

from pubky_homeserver.heads import MAX_HEAD, bounded_agent
from pubky_homeserver.peers.answers import read

reactor: Any = _reactor

OK, WAIT = b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 102 Processing\r\nX: y\r\n\r\n"


class Server(Protocol):
    """Answers each request with the next of its answers, in pieces of some bytes."""

    answers: list[bytes]
    piece: int

    def dataReceived(self, data: bytes) -> None:
        """A request is here: all of them are short."""
        assert self.transport is not None
        answer = self.answers.pop(0)
        for at in range(0, len(answer), self.piece):
            self.transport.write(answer[at : at + self.piece])


Ask = Callable[[], Awaitable[bytes]]


@asynccontextmanager
async def served(*answers: bytes, piece: int = 10_000) -> AsyncIterator[Ask]:
    """How to ask a server that answers so, over a connection that is kept."""
    connections: list[Server] = []

    def build() -> Server:
        made = Server()
        made.answers, made.piece = [*answers], piece
        connections.append(made)
        return made

    listening = reactor.listenTCP(0, Factory.forProtocol(build), interface="127.0.0.1")
    pool = HTTPConnectionPool(reactor)
    pool.retryAutomatically = False
    agent = bounded_agent(reactor, pool=pool)
    place = f"http://127.0.0.1:{listening.getHost().port}/".encode()

    async def ask() -> bytes:
        return await read(await agent.request(b"GET", place), reactor, 10, lambda _length: None, 1 << 20)

    try:
        yield ask
        assert len(connections) == 1
    finally:
        await pool.closeCachedConnections()
        await listening.stopListening()


def answer(head: int, body: bytes, wait: bytes = b"") -> bytes:
    """An answer whose head, with all that come before it, has so many bytes."""
    end = b"Content-Length: %d\r\n\r\n" % len(body)
    lines = wait + OK
    while (left := head - len(lines) - len(end)) > 0:
        size = left if left < 2000 else 1000
        lines += b"X: " + b"x" * (size - 5) + b"\r\n"
    assert len(lines + end) == head
    return lines + end + body


@pytest.mark.parametrize("piece", [1000, 65_536])
@pytest_twisted.ensureDeferred
async def test_heads_that_end(piece: int) -> None:
    """Heads of the longest length are read, one after the other on one connection, and bodies are of any length."""
    body = b"\n\n" + b"y" * 500_000
    async with served(
        answer(MAX_HEAD, body), answer(MAX_HEAD, b"two", WAIT * 3), answer(MAX_HEAD, b"three"), piece=piece
    ) as ask:
        assert [await ask(), await ask(), await ask()] == [body, b"two", b"three"]


@pytest.mark.parametrize("wait", [b"", WAIT, WAIT * 2000], ids=["a head", "one before it", "thousands before it"])
@pytest.mark.parametrize("piece", [1000, 1 << 20])
@pytest_twisted.ensureDeferred
async def test_heads_that_are_too_long(wait: bytes, piece: int) -> None:
    """One byte more is too much, in one head or in many, and the connection is cut before the rest."""
    long = answer(MAX_HEAD + 1, b"one", wait) if len(wait) < MAX_HEAD else wait
    async with served(long, piece=piece) as ask:
        with pytest.raises(ResponseFailed):
            await ask()


@pytest_twisted.ensureDeferred
async def test_connections_are_no_news() -> None:
    """Who reads the log of a homeserver does not read of each connection that it makes."""
    with capturedLogs() as events:
        async with served(answer(100, b"x")) as ask:
            assert await ask() == b"x"
    said = [formatEvent(event) for event in events]
    assert not [text for text in said if "_HTTP11ClientFactory" in text], said
