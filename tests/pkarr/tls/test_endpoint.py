"""TLS by public key around real sockets: HTTP over it, wrong keys, slow and silent peers, and closing."""

import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_twisted
import treq
from attrs import define, field
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.web.client import HTTPConnectionPool

from pkarr.keys import Keypair, PublicKey
from pkarr.tls import gnutls
from pkarr.tls.endpoint import DEADLINE, TlsClientEndpoint, TlsFactory, WrongKey, agent
from pubky_homeserver.web.channel import HTTPFactory
from pubky_homeserver.web.request import Request

reactor: Any = _reactor
KEY, OTHER = Keypair(bytes([1]) * 32), Keypair(bytes([2]) * 32)
LARGE = bytes(range(256)) * 40_000


async def until(true: Any) -> None:
    """Let the reactor turn until this holds."""
    for _ in range(5000):
        if true():
            return
        await deferLater(reactor, 0.002)
    pytest.fail("it never came true")


@define
class Listening:
    """A TLS port."""

    port: int
    tls: TlsFactory


@asynccontextmanager
async def listening(factory: Any, clock: Any = reactor) -> AsyncIterator[Listening]:
    """A port that serves a factory's protocols under `KEY`."""
    tls = TlsFactory(factory, gnutls.load(), KEY.seed, clock)
    port = reactor.listenTCP(0, tls, interface="127.0.0.1")
    try:
        yield Listening(port.getHost().port, tls)
    finally:
        await maybeDeferred(port.stopListening)


async def answer(request: Request) -> None:
    """`/large` is large, a body comes back, everything else is a word."""
    if request.method == b"PUT":
        request.finish_with(await request.read(len(LARGE)))
    else:
        request.finish_with(LARGE if request.path == b"/large" else b"over tls" if request.is_tls else b"plain")


@define(eq=False)
class Peer(Protocol):
    """Keeps what comes, and how it ended."""

    received: bytes = b""
    ended: Failure | None = None
    lost: Deferred[Failure] = field(factory=Deferred)

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It has ended."""
        self.ended = reason


async def connect(port: int, key: PublicKey, protocol: Protocol, host: str = "") -> None:
    """Connect a protocol to a key."""
    below: Any = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
    factory = Factory.forProtocol(lambda: protocol)
    factory.noisy = False
    await TlsClientEndpoint(below, key, host, gnutls.load(), reactor).connect(factory)


@pytest.mark.parametrize("host", [KEY.public_key.z32, f"_pubky.{OTHER.public_key.z32}"])
@pytest_twisted.ensureDeferred
async def test_http(host: str) -> None:
    """An agent reaches a server by its key, or by a user's name that leads there, on one kept connection."""

    async def resolve(asked: str) -> tuple[PublicKey, list[tuple[str, int]]]:
        assert asked == host
        return KEY.public_key, [("127.0.0.1", 1), ("127.0.0.1", here.port)]

    factory = HTTPFactory(answer, reactor)
    async with listening(factory) as here:
        pool = HTTPConnectionPool(reactor)
        client = agent(resolve, gnutls.load(), reactor, pool)
        for path, expected in ((b"/", b"over tls"), (b"/large", LARGE), (b"/", b"over tls")):
            response: Any = await client.request(b"GET", b"https://" + host.encode() + path)
            assert await treq.content(response) == expected
        assert here.tls.shaken == 1
        await pool.closeCachedConnections()
        await factory.drain(1)


@pytest_twisted.ensureDeferred
async def test_a_wrong_key() -> None:
    """Somebody without the key is not talked to: the client's protocol is never built, the server's sees the end."""
    factory = HTTPFactory(answer, reactor)
    async with listening(factory) as here:
        peer = Peer()
        with pytest.raises(WrongKey):
            await connect(here.port, OTHER.public_key, peer)
        assert peer.transport is None
        await until(lambda: factory.open_connections == 0)


@pytest_twisted.ensureDeferred
async def test_a_peer_that_pauses() -> None:
    """While the protocol inside wants nothing it gets nothing; afterwards it gets all of it, in order."""

    class Sender(Protocol):
        def connectionMade(self) -> None:
            assert self.transport is not None
            self.transport.write(LARGE)
            self.transport.loseConnection()

    async with listening(Factory.forProtocol(Sender)) as here:
        peer = Peer()
        await connect(here.port, KEY.public_key, peer)
        transport: Any = peer.transport
        for _ in range(50):
            transport.pauseProducing()
            before = len(peer.received)
            await deferLater(reactor, 0.002)
            assert len(peer.received) == before
            transport.resumeProducing()
            await deferLater(reactor, 0.001)
        await until(lambda: peer.ended is not None)
        assert peer.received == LARGE
        assert peer.ended is not None
        assert peer.ended.check(ConnectionDone), "they said goodbye"


@pytest_twisted.ensureDeferred
async def test_an_end_without_a_goodbye() -> None:
    """A stream that is cut is told apart from one that ended."""

    class Cutter(Protocol):
        def connectionMade(self) -> None:
            assert self.transport is not None
            self.transport.write(b"some")
            transport: Any = self.transport
            reactor.callLater(0.05, transport.transport.loseConnection)

    async with listening(Factory.forProtocol(Cutter)) as here:
        peer = Peer()
        await connect(here.port, KEY.public_key, peer)
        await until(lambda: peer.ended is not None)
        assert (peer.received, bool(peer.ended and peer.ended.check(ConnectionLost))) == (b"some", True)


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01", b"\x16\x03\x01\x40\x00" + bytes(9000)])
@pytest_twisted.ensureDeferred
async def test_a_handshake_without_an_end(said: bytes) -> None:
    """Who is silent, or stops in the middle, is closed when the time is over; no protocol was ever built for it."""
    clock = Clock()
    built: list[Protocol] = []

    def build() -> Protocol:
        built.append(Peer())
        return built[-1]

    async with listening(Factory.forProtocol(build), clock) as here:
        with socket.create_connection(("127.0.0.1", here.port)) as client:
            client.sendall(said)
            await until(lambda: here.tls.shaking == 1)
            await deferLater(reactor, 0.05)
            clock.advance(DEADLINE)
            await until(lambda: here.tls.shaking == 0)
        assert (here.tls.failed, built) == (1, [])


@pytest.mark.parametrize(
    "said", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes(100), b"\x16\x03\x01" + b"\xff" * 200_000]
)
@pytest_twisted.ensureDeferred
async def test_what_is_no_tls(said: bytes) -> None:
    """Bytes that begin no handshake end the connection, and cost nothing afterwards."""
    async with listening(Factory.forProtocol(Peer)) as here:

        def talk() -> None:
            with socket.create_connection(("127.0.0.1", here.port), timeout=DEADLINE + 5) as client:
                try:
                    client.sendall(said)
                    while client.recv(4096):
                        pass
                except ConnectionError:
                    pass

        await deferToThread(talk)
        await until(lambda: here.tls.shaking == 0)
        assert here.tls.failed == 1


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest_twisted.ensureDeferred
async def test_a_client_that_wants_certificates() -> None:
    """A client of the ordinary web is refused in the handshake, and its connection ends."""
    async with listening(Factory.forProtocol(Peer)) as here:
        command = ["curl", "-sS", "--max-time", "10", f"https://127.0.0.1:{here.port}/"]
        result = await deferToThread(subprocess.run, command, capture_output=True, check=False)
        assert result.returncode == 35, result
        await until(lambda: here.tls.shaking == 0)
        assert (here.tls.failed, here.tls.shaken) == (1, 0)


@pytest_twisted.ensureDeferred
async def test_closing_from_within() -> None:
    """A protocol that cuts its connection while it receives frees everything, once."""

    class Cutting(Protocol):
        def dataReceived(self, data: bytes) -> None:
            transport: Any = self.transport
            transport.abortConnection()

    async with listening(Factory.forProtocol(Cutting)) as here:
        peers = [Peer() for _ in range(20)]
        for peer in peers:
            await connect(here.port, KEY.public_key, peer)
            assert peer.transport is not None
            peer.transport.write(b"x" * 100_000)
        await until(lambda: all(peer.ended is not None for peer in peers))
        engine = gnutls.load()
        await until(lambda: not engine._calls.sessions)
