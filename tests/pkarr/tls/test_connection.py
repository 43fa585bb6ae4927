"""The transport that a protocol over TLS gets: as that of TCP, with ends that cannot be forged."""

from itertools import product
from typing import Any

import pytest
import pytest_twisted
from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IPushProducer, ISSLTransport
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from pkarr.tls.connection import DEADLINE, MAX_ANSWERED, WrongKey
from pkarr.tls.session import TlsFailed

from .installed import NAMES, installed
from .over import LARGE, OTHER, Half, Only, Peer, connect, joined, listening, reactor, turns, until
from .test_engines import renew

PAIRS = pytest.mark.parametrize(("server", "client"), list(product(NAMES, NAMES)))
EACH = pytest.mark.parametrize("name", NAMES)


@EACH
@pytest_twisted.ensureDeferred
async def test_the_transport(name: str) -> None:
    """It has what a transport has, and knows where both ends are."""
    server, client = Peer(), Peer()
    async with joined(installed(name), installed(name), server, client):
        for peer in (server, client):
            for port in (ISSLTransport, IPushProducer, IConsumer):
                verifyObject(port, peer.above)
            peer.above.setTcpNoDelay(True)
            peer.above.setTcpKeepAlive(1)
            assert (peer.above.getTcpNoDelay(), peer.above.getTcpKeepAlive()) == (1, 1)
            assert peer.above.getPeerCertificate() is None
        assert client.above.getPeer().port == server.above.getHost().port


@PAIRS
@pytest_twisted.ensureDeferred
async def test_much_both_ways(server: str, client: str) -> None:
    """10 MB go each way at once and arrive whole; who closes ends well on both sides."""
    here, there = Peer(), Peer()
    async with joined(installed(server), installed(client), here, there):
        here.above.writeSequence([LARGE[:1], LARGE[1:]])
        there.above.write(LARGE)
        await until(lambda: len(here.received) == len(there.received) == len(LARGE))
        assert here.received == there.received == LARGE
        here.above.loseConnection()
        here.above.write(b"too late")
        await until(lambda: here.ended and there.ended)
        assert here.ended_by(ConnectionDone)
        assert there.ended_by(ConnectionDone)
        assert there.received == LARGE


@PAIRS
@pytest_twisted.ensureDeferred
async def test_a_peer_that_pauses(server: str, client: str) -> None:
    """While the protocol inside wants nothing it gets nothing; afterwards it gets all of it, in order."""
    here, there = Peer(), Peer()
    async with joined(installed(server), installed(client), here, there):
        here.above.write(LARGE)
        here.above.loseConnection()
        for _ in range(30):
            there.above.pauseProducing()
            before = len(there.received)
            await turns(0.004)
            assert len(there.received) == before
            there.above.resumeProducing()
            there.above.resumeProducing()
            await turns(0.001)
        await until(lambda: there.ended)
        assert there.received == LARGE
        assert there.ended_by(ConnectionDone)


@EACH
@pytest_twisted.ensureDeferred
async def test_pausing_within(name: str) -> None:
    """A protocol that pauses as it gets something gets no more of what has come; it is delivered when it resumes."""

    @define(eq=False)
    class Sipping(Peer):
        pieces: int = 0

        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            self.pieces += 1
            self.above.pauseProducing()

    here, there = Peer(), Sipping()
    async with joined(installed(name), installed(name), here, there):
        for _ in range(5):
            here.above.write(b"x" * 100)
        for number in range(1, 6):
            await turns(0.01)
            assert (there.pieces, len(there.received)) == (number, number * 100)
            there.above.resumeProducing()


@define(eq=False)
class Source:
    """A producer that counts how often it is told what."""

    to: Any
    piece: bytes
    left: int
    is_streaming: bool
    paused: int = 0
    asked: int = 0
    stopped: bool = False
    is_paused: bool = False

    def start(self) -> None:
        """Begin."""
        self.to.registerProducer(self, self.is_streaming)
        if self.is_streaming:
            self._go()

    def resumeProducing(self) -> None:
        """Go on."""
        self.asked += 1
        self.is_paused = False
        self._go()

    def _go(self) -> None:
        while not self.is_paused and self.left:
            self.left -= 1
            self.to.write(self.piece)
            if not self.is_streaming:
                break
        if not self.left:
            self.to.unregisterProducer()

    def pauseProducing(self) -> None:
        """Wait."""
        self.paused += 1
        self.is_paused = True

    def stopProducing(self) -> None:
        """There is nobody to produce for."""
        self.stopped = True
        self.left = 0


@pytest.mark.parametrize("is_streaming", [True, False])
@PAIRS
@pytest_twisted.ensureDeferred
async def test_a_producer(server: str, client: str, is_streaming: bool) -> None:
    """Who produces is stopped while the peer does not read, push and pull alike, so that next to nothing waits here.

    The connection that is to close meanwhile closes behind the last byte.
    """
    here, there = Peer(), Peer()
    piece, count = bytes(65_536), 400
    async with joined(installed(server), installed(client), here, there):
        there.above.pauseProducing()
        source = Source(here.above, piece, count, is_streaming)
        source.start()
        await turns(0.1)
        assert source.left > count / 2, "the kernel has some megabytes, we have none"
        waiting = here.above.transport
        assert len(waiting.dataBuffer) + waiting._tempDataLen < 4 * len(piece)
        here.above.loseConnection()
        await turns(0.01)
        assert here.ended is None
        there.above.resumeProducing()
        await until(lambda: there.ended)
        assert len(there.received) == count * len(piece)
        assert source.asked > 0
        assert there.ended_by(ConnectionDone)


@EACH
@pytest_twisted.ensureDeferred
async def test_a_producer_whose_peer_goes(name: str) -> None:
    """When the connection is gone its producer is told."""
    here, there = Peer(), Peer()
    async with joined(installed(name), installed(name), here, there):
        there.above.pauseProducing()
        source = Source(here.above, bytes(65_536), 400, True)
        source.start()
        there.above.abortConnection()
        await until(lambda: here.ended)
        assert source.stopped
        assert here.ended_by(ConnectionLost)
        assert there.ended_by(ConnectionAborted)


@PAIRS
@pytest_twisted.ensureDeferred
async def test_half_closed(server: str, client: str) -> None:
    """A goodbye ends one direction: who said it hears the answer, and then the goodbye of the other."""
    here, there = Half(), Half()
    async with joined(installed(server), installed(client), here, there):
        there.above.write(b"question")
        there.above.loseWriteConnection()
        there.above.write(b"too late")
        await until(lambda: here.heard_all)
        assert here.received == b"question"
        here.above.write(LARGE)
        await until(lambda: len(there.received) == len(LARGE))
        assert (here.ended, there.ended) == (None, None)
        assert there.said_all == 1
        here.above.loseConnection()
        await until(lambda: there.heard_all)
        there.above.loseConnection()
        await until(lambda: there.ended and here.ended)
        assert there.ended_by(ConnectionDone)
        assert here.ended_by(ConnectionDone)
        assert (here.heard_all, there.heard_all) == (1, 1)


@PAIRS
@pytest_twisted.ensureDeferred
async def test_half_closed_while_paused(server: str, client: str) -> None:
    """What came before the goodbye is delivered before it, however late it is wanted."""
    here, there = Half(), Half()
    async with joined(installed(server), installed(client), here, there):
        here.above.pauseProducing()
        there.above.write(LARGE[:300_000])
        there.above.loseWriteConnection()
        await turns()
        assert not here.received
        assert not here.heard_all
        here.above.resumeProducing()
        await until(lambda: here.heard_all)
        assert here.received == LARGE[:300_000]


@EACH
@pytest_twisted.ensureDeferred
async def test_half_is_too_little(name: str) -> None:
    """A protocol that knows no halves is closed when the peer says goodbye; both ends end well."""
    here, there = Peer(), Half()
    async with joined(installed(name), installed(name), here, there):
        there.above.loseWriteConnection()
        await until(lambda: here.ended)
        assert here.ended_by(ConnectionDone)
        await until(lambda: there.heard_all)


@pytest.mark.parametrize("kind", [Peer, Half])
@EACH
@pytest_twisted.ensureDeferred
async def test_an_end_without_a_goodbye(name: str, kind: type[Peer]) -> None:
    """A stream that was cut is told apart from one that ended, for it may not be whole."""
    here, there = Peer(), kind()
    async with joined(installed(name), installed(name), here, there):
        here.above.write(b"some")
        await until(lambda: there.received)
        here.above.transport.loseConnection()
        await until(lambda: there.ended)
        assert there.ended_by(ConnectionLost)
        assert there.received == b"some"


@PAIRS
@pytest_twisted.ensureDeferred
async def test_a_forged_byte(server: str, client: str) -> None:
    """Bytes that no session made end the connection as an error, at both ends; nothing of them is delivered."""
    here, there = Peer(), Half()
    async with joined(installed(server), installed(client), here, there):
        here.above.transport.write(b"\x17\x03\x03\x00\x20" + bytes(32))
        await until(lambda: there.ended and here.ended)
        assert there.ended_by(ConnectionLost)
        assert here.ended_by(ConnectionLost)
        assert there.received == b""


@EACH
@pytest_twisted.ensureDeferred
async def test_cutting_from_within(name: str) -> None:
    """A protocol that cuts its connection as it receives gets nothing more."""

    @define(eq=False)
    class Cutting(Peer):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            self.above.abortConnection()

    here, there = Cutting(), Peer()
    async with joined(installed(name), installed(name), here, there):
        there.above.write(bytes(100_000))
        await until(lambda: here.ended and there.ended)
        assert len(here.received) <= 16_384


@EACH
@pytest_twisted.ensureDeferred
async def test_leaving_from_within(name: str) -> None:
    """A protocol that closes as it receives gets nothing more, as over TCP."""

    @define(eq=False)
    class Leaving(Peer):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            self.above.write(b"bye")
            self.above.loseConnection()

    here, there = Leaving(), Peer()
    async with joined(installed(name), installed(name), here, there):
        there.above.writeSequence([b"a" * 16_384, b"b" * 16_384])
        await until(lambda: here.ended)
        assert here.received == b"a" * 16_384


@PAIRS
@pytest_twisted.ensureDeferred
async def test_new_keys_without_end(server: str, client: str) -> None:
    """Who asks for new keys again and again, and never reads what it gets for it, is cut off."""
    here, there = Peer(), Peer()
    async with joined(installed(server), installed(client), here, there):
        session: Any = there.above._session
        there.above.pauseProducing()
        for _ in range(MAX_ANSWERED // 22 + 1000):
            renew(client, session)
            there.above.write(b"-")
            if len(there.above.transport._tempDataBuffer) > 100:
                await turns(0)
            if here.ended:
                break
        await until(lambda: here.ended)
        assert here.ended_by(ConnectionLost)


@EACH
@pytest_twisted.ensureDeferred
async def test_a_failed_connection_waits_for_nobody(name: str) -> None:
    """A connection that failed while its peer does not read is cut after a while, whatever waits to be written."""
    here, there, clock = Peer(), Peer(), Clock()
    async with listening(Only(here), installed(name), clock) as port:
        await connect(installed(name), port.port, there)
        await until(lambda: here.above)
        there.above.pauseProducing()
        source = Source(here.above, bytes(65_536), 400, True)
        source.start()
        await turns(0.2)  # until the kernel takes no more
        assert source.is_paused
        there.above.transport.write(b"\x17\x03\x03\x00\x20" + bytes(32))
        await until(lambda: clock.getDelayedCalls())
        await turns()
        assert here.ended is None
        clock.advance(DEADLINE)
        await until(lambda: here.ended)
        assert here.ended_by(ConnectionLost)
        there.above.abortConnection()
        await until(lambda: there.ended)


@EACH
@pytest_twisted.ensureDeferred
async def test_sessions_are_freed(name: str) -> None:
    """However connections end, the library's sessions are freed."""
    engine: Any = installed(name)
    closed: list[object] = []
    accept = engine.accept

    class Counting:
        name = engine.name
        server = staticmethod(engine.server)

        def accept(self, shared: object) -> object:
            session = accept(shared)
            close = session.close

            class Watched:
                def __getattr__(self, name: str) -> object:
                    return getattr(session, name)

                def close(self) -> None:
                    closed.append(session)
                    close()

            return Watched()

    counting: Any = Counting()
    peers = [Peer() for _ in range(3)]
    async with listening(Factory.forProtocol(Peer), counting) as port:
        for peer, way in zip(peers, ("loseConnection", "abortConnection", "loseWriteConnection"), strict=True):
            await connect(engine, port.port, peer)
            getattr(peer.above, way)()
        await until(lambda: all(peer.ended for peer in peers))
        with pytest.raises(WrongKey):
            await connect(engine, port.port, Peer(), OTHER.public_key)
        await until(lambda: len(closed) == 4)
    assert len(set(map(id, closed))) == 4


@EACH
@pytest_twisted.ensureDeferred
async def test_a_server_without_an_answer(name: str) -> None:
    """A client whose server takes the connection and says nothing gives up when the time is over."""
    clock, silent = Clock(), Peer()
    port = reactor.listenTCP(0, Only(silent), interface="127.0.0.1")
    try:
        connecting = Deferred.fromCoroutine(connect(installed(name), port.getHost().port, Peer(), clock=clock))
        await until(lambda: silent.received)
        clock.advance(DEADLINE)
        with pytest.raises(TlsFailed, match="too long"):
            await connecting
        await until(lambda: silent.ended)
    finally:
        await port.stopListening()
