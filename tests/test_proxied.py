"""Behind a proxy: who may connect, whom a connection is from, and what becomes of the others."""

from ipaddress import ip_network
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure

from pubky_homeserver.proxied import PATIENCE, ProxiedFactory
from pubky_homeserver.web.channel import HTTPFactory
from pubky_homeserver.web.request import Request

reactor: Any = _reactor

GET = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
LINE = b"PROXY TCP4 192.0.2.7 127.0.0.1 50000 443\r\n"


class Client(Protocol):
    """Keeps what comes until the connection ends."""

    def __init__(self) -> None:
        self.received = b""
        self.ended: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It has ended."""
        self.ended.callback(self.received)


async def say_who(request: Request) -> None:
    """Answer with the client's address."""
    request.finish_with(request.client_address.encode())


async def exchange(pieces: list[bytes], proxies: str = "127.0.0.0/8", clock: Any = reactor, wait: float = 0) -> bytes:
    """What a connection gets that sends these pieces, one after the other."""
    factory = HTTPFactory(say_who, reactor)
    port = reactor.listenTCP(0, ProxiedFactory(factory, [ip_network(proxies)], clock), interface="127.0.0.1")
    client = Client()
    connecting: Any = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
    quiet = Factory.forProtocol(lambda: client)
    quiet.noisy = False
    try:
        await connecting.connect(quiet)
        for piece in pieces:
            assert client.transport is not None
            client.transport.write(piece)
            await deferLater(reactor, 0.01)
        if wait:
            clock.advance(wait)
        return await client.ended
    finally:
        await port.stopListening()
        await factory.drain(1)


@pytest.mark.parametrize(
    "pieces",
    [[LINE + GET], [LINE, GET], [LINE[:3], LINE[3:] + GET[:5], GET[5:]], [bytes((one,)) for one in LINE + GET]],
)
@pytest_twisted.ensureDeferred
async def test_a_connection_is_from_whom_the_preface_names(pieces: list[bytes]) -> None:
    """However the bytes come, the request is from the named address, and is answered."""
    assert (await exchange(pieces)).endswith(b"\r\n\r\n192.0.2.7")


@pytest.mark.parametrize(
    ("pieces", "proxies"),
    [([GET], "127.0.0.0/8"), ([b"PROXY UNKNOWN\r\n" + GET], "127.0.0.0/8"), ([LINE + GET], "192.0.2.0/24")],
)
@pytest_twisted.ensureDeferred
async def test_everybody_else_is_cut_off(pieces: list[bytes], proxies: str) -> None:
    """Without a preface, with one that names nobody, or from somewhere else: closed without a byte."""
    assert await exchange(pieces, proxies) == b""


@pytest_twisted.ensureDeferred
async def test_the_preface_has_a_second() -> None:
    """A preface that is not complete within a second ends the connection, also one that began in time."""
    assert await exchange([LINE[:-1]], clock=Clock(), wait=PATIENCE) == b""
    assert (await exchange([LINE, GET], clock=Clock(), wait=PATIENCE)).endswith(b"192.0.2.7")
