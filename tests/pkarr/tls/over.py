"""Both ends of real connections over TLS on the loopback."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from attrs import define, field, frozen
from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from pkarr.keys import Keypair, PublicKey
from pkarr.tls.endpoint import TlsClientEndpoint, TlsFactory
from pkarr.tls.session import IEngine

reactor: Any = _reactor
KEY, OTHER = Keypair(bytes([1]) * 32), Keypair(bytes([2]) * 32)
LARGE = bytes(range(256)) * 40_000  # 10 MB


async def until(true: Callable[[], object]) -> None:
    """Let the reactor turn until this holds."""
    for _ in range(5000):
        if true():
            return
        await deferLater(reactor, 0.002)
    pytest.fail("it never came true")


async def turns(seconds: float = 0.05) -> None:
    """Let the reactor turn, so that what must not happen had its chance."""
    await deferLater(reactor, seconds)


@define(eq=False)
class Peer(Protocol):
    """Keeps what comes, and how it ended."""

    received: bytearray = field(factory=bytearray)
    ended: Failure | None = None
    above: Any = field(default=None, init=False)
    """What it writes to."""

    def connectionMade(self) -> None:
        """It has begun."""
        self.above = self.transport

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It has ended."""
        assert self.ended is None, "it ends once"
        self.ended = reason

    def ended_by(self, kind: type[BaseException]) -> bool:
        """Whether it ended, by this."""
        return self.ended is not None and self.ended.check(kind) is not None


@implementer(IHalfCloseableProtocol)
@define(eq=False)
class Half(Peer):
    """One that can do with half of a connection."""

    heard_all: int = 0
    said_all: int = 0

    def readConnectionLost(self) -> None:
        """Nothing more comes."""
        self.heard_all += 1

    def writeConnectionLost(self) -> None:
        """Nothing more goes."""
        self.said_all += 1


@frozen
class Listening:
    """A TLS port."""

    port: int
    tls: TlsFactory


@asynccontextmanager
async def listening(factory: Any, engine: IEngine, clock: Any = reactor) -> AsyncIterator[Listening]:
    """A port that serves a factory's protocols under `KEY`."""
    tls = TlsFactory(factory, engine, KEY.seed, clock)
    port: Any = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(tls)
    try:
        yield Listening(port.getHost().port, tls)
    finally:
        await port.stopListening()


@define(eq=False)
class Only(Factory):
    """Builds this one protocol."""

    noisy = False

    one: Protocol

    def buildProtocol(self, addr: object) -> Protocol:
        """It."""
        return self.one


async def connect(
    engine: IEngine, port: int, protocol: Protocol, key: PublicKey = KEY.public_key, clock: Any = reactor
) -> None:
    """Connect a protocol to a key."""
    below: Any = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
    await TlsClientEndpoint(below, key, key.z32, engine, clock).connect(Only(protocol))


@asynccontextmanager
async def joined(server_engine: IEngine, client_engine: IEngine, server: Peer, client: Peer) -> AsyncIterator[None]:
    """Two protocols that are connected. At the end both must be, or come, to theirs."""
    async with listening(Only(server), server_engine) as here:
        await connect(client_engine, here.port, client)
        await until(lambda: server.above is not None)
        yield
        for peer in (client, server):
            if peer.ended is None:
                peer.above.abortConnection()
        await until(lambda: client.ended is not None and server.ended is not None)
