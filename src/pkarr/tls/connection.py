"""One connection over TLS by public key: a protocol to the stream below, a transport to the protocol inside.

The protocol inside is built when the handshake is done, and not before: a scanner meets no application, and a client's
protocol talks to nobody but the key that it was meant for. Reading stops where the protocol inside stops it, with what
was received and not yet decrypted kept (one read of the stream at most). Writing is encrypted at once, and whoever
produces it is paused by the stream below, which holds all that waits.

Each direction ends by itself (RFC 8446, 6.1): a peer's goodbye ends what it sends, and a protocol that can do with
half of a connection may still answer. A stream that ends without a goodbye was cut, by whomever: that is a
`ConnectionLost`, so that nobody takes a part for the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IHalfCloseableProtocol,
    IProtocol,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from pkarr.tls.session import ISession, TlsFailed

DEADLINE = 10.0
"""Seconds that a handshake may take; and that a peer gets to take the alert when a connection has failed."""

MAX_HELLO = 98_304
"""Bytes that a peer may send before its handshake is done. A hello has some hundred, seldom two thousand."""

MAX_ANSWERED = 65_536
"""Bytes that a session may send by itself: it answers each request for a new key (RFC 8446, 4.6.3), of which an honest
peer makes one in many gigabytes. Who makes more, and does not read, would fill the memory."""


class WrongKey(ConnectError):
    """Somebody answered who does not hold the key."""


@implementer(ISSLTransport, IHalfCloseableProtocol, IPushProducer, IConsumer)
@define(eq=False)
class Connection(Protocol):
    """See the module."""

    begin: Callable[[], ISession]
    """A session for this connection."""
    build: Callable[[], IProtocol | None]
    """The protocol inside; None if it is not wanted."""
    clock: IReactorTime
    expected: bytes | None = None
    """The key that the peer must show; None for a server, whose peers show none."""
    settled: Callable[[Connection, Exception | None], None] = lambda _connection, _error: None
    """Called once, with what went wrong or None, when the handshake is over."""
    inside: Any = field(default=None, init=False)
    """The protocol inside, while there is one."""
    disconnecting: bool = field(default=False, init=False)
    """Whether the protocol inside wants no more."""
    _session: ISession | None = field(default=None, init=False)
    # None before there is a stream, and when it was freed.
    _received: int = field(default=0, init=False)
    _answered: int = field(default=0, init=False)
    # Bytes of the handshake that came; bytes that went and nobody inside wrote.
    _timer: IDelayedCall | None = field(default=None, init=False)
    _soon: IDelayedCall | None = field(default=None, init=False)
    # When to cut it: the handshake's deadline, or that of a farewell; when to deliver what is left over.
    _waiting: Deferred[IProtocol] | None = field(default=None, init=False)
    # Who wants to know how the handshake ends.
    _is_settled: bool = field(default=False, init=False)
    _error: Exception | None = field(default=None, init=False)
    # What the connection, or its handshake, failed of.
    _is_busy: bool = field(default=False, init=False)
    _is_over: bool = field(default=False, init=False)
    # What came is being delivered; the session is of no use any more.
    _is_paused: bool = field(default=False, init=False)
    _is_producing: bool = field(default=False, init=False)
    _has_peer_ended: bool = field(default=False, init=False)
    _has_stream_ended: bool = field(default=False, init=False)
    # The peer said goodbye, so what came is whole; nothing more comes from below.
    _has_ended: bool = field(default=False, init=False)
    _has_left: bool = field(default=False, init=False)
    # We said goodbye; the stream below was told to end.

    # The stream below.

    @property
    def _below(self) -> Any:
        return self.transport

    def connectionMade(self) -> None:
        """Begin the handshake. What is sent is whole: the kernel need not wait for more."""
        if ITCPTransport.providedBy(self.transport):
            self._below.setTcpNoDelay(True)
        self._timer = self.clock.callLater(DEADLINE, self._too_late)
        self._session = self.begin()
        self._advance()

    def dataReceived(self, data: bytes) -> None:
        """Some of the handshake, or records."""
        if self._session is None or self._is_over or self._has_peer_ended:
            return
        if self.inside is None:
            self._received += len(data)
            if self._received > MAX_HELLO:
                self._fail(TlsFailed("the handshake has no end"))
                return
        self._session.feed(data)
        self._advance()

    def readConnectionLost(self) -> None:
        """Nothing more comes. Without a goodbye that is the end of everything."""
        self._advance()
        if not self._has_stream_ended and not self._is_over:
            self._has_stream_ended = True
            if not self._has_peer_ended:
                self.give_up(ConnectionLost("the peer closed without a goodbye"))

    def writeConnectionLost(self) -> None:
        """Our half is closed."""
        if IHalfCloseableProtocol.providedBy(self.inside):
            self.inside.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The stream has ended."""
        self._is_over = True
        self._stop_timer()
        self._settle(self._error or ConnectionLost("the connection ended in its handshake"))
        if not self._is_busy:
            self._free()
        inside, self.inside = self.inside, None
        if inside is not None:
            inside.connectionLost(self._explained(reason))

    def _explained(self, reason: Failure) -> Failure:
        """Why it ended, for the protocol inside: well only if somebody said goodbye."""
        if self._error is not None:
            return Failure(ConnectionLost(str(self._error)))
        if reason.check(ConnectionDone) and not self._has_peer_ended and not self.disconnecting:
            return Failure(ConnectionLost("the peer closed without a goodbye"))
        return reason

    # What comes.

    def _advance(self) -> None:
        """Go as far as the bytes allow."""
        session = self._session
        if session is None or self._is_busy or self._is_over:
            return
        self._is_busy = True
        try:
            if self.inside is not None or self._shake(session):
                self._deliver(session)
        except TlsFailed as error:
            self._flush()
            self._fail(error)
        finally:
            self._is_busy = False
            if self._is_lost():
                self._free()

    def _is_lost(self) -> bool:
        return self._is_over

    def _shake(self, session: ISession) -> bool:
        """Go on with the handshake; whether it is done, and there is a protocol inside."""
        is_done = session.handshake()
        is_right = not is_done or self.expected is None or session.peer_key() == self.expected
        if not is_right:
            session.refuse()
        self._flush()
        if not is_right:
            self._fail(WrongKey(string="the server does not hold the key"))
        if not is_done or not is_right:
            return False
        inside: Any = self.build()
        if inside is None:
            self._settle(ConnectError(string="nobody is inside"))
            self.loseConnection()
            return False
        self.inside = inside
        self._stop_timer()
        inside.makeConnection(self)
        self._settle(None)
        return True

    def _deliver(self, session: ISession) -> None:
        """Give the protocol inside what can be decrypted, until it wants no more."""
        while self._wants_more():
            data = session.receive()
            if answer := session.take():
                self._answered += len(answer)
                if self._answered > MAX_ANSWERED:
                    raise TlsFailed("the peer asks for new keys without end")
                self._below.write(answer)
            if data:
                self.inside.dataReceived(data)
            else:
                if data is not None:
                    self._end_of_peer()
                break

    def _wants_more(self) -> bool:
        return self.inside is not None and not (
            self._is_paused or self._is_over or self.disconnecting or self._has_peer_ended
        )

    def _end_of_peer(self) -> None:
        self._has_peer_ended = True
        if IHalfCloseableProtocol.providedBy(self.inside):
            self.inside.readConnectionLost()
        else:
            self.loseConnection()

    # The end.

    def give_up(self, error: Exception) -> None:
        """Cut the connection: this went wrong."""
        if not self._is_over:
            self._error = error
            self._is_over = self._has_left = True
            self._settle(error)
            self._below.abortConnection()

    def shaken(self) -> Deferred[IProtocol]:
        """Fires with the protocol inside when the handshake is done; cancelling it cuts the connection."""
        waiting: Deferred[IProtocol] = Deferred(lambda _: self.abortConnection())
        if self._is_settled:
            self._tell(waiting)
        else:
            self._waiting = waiting
        return waiting

    def _tell(self, waiting: Deferred[IProtocol]) -> None:
        if self.inside is not None:
            waiting.callback(self.inside)
        else:
            waiting.errback(self._error or ConnectionLost())

    def _settle(self, error: Exception | None) -> None:
        """The handshake is over."""
        if not self._is_settled:
            self._is_settled = True
            self._error = error
            self.settled(self, error)
            if self._waiting is not None and not self._waiting.called:
                self._tell(self._waiting)

    def _too_late(self) -> None:
        self._timer = None
        if self._is_over:
            self._below.abortConnection()
        else:
            self.give_up(TlsFailed("the handshake took too long"))

    def _fail(self, error: Exception) -> None:
        """Close as soon as the peer has the alert, which is on its way."""
        if self._is_over:
            return
        self._error = error
        self._is_over = self._has_left = True
        self._stop_timer()
        self._timer = self.clock.callLater(DEADLINE, self._too_late)
        self._settle(error)
        self._below.unregisterProducer()  # a paused one would keep the stream open
        self._below.loseConnection()

    def _stop_timer(self) -> None:
        for call in (self._timer, self._soon):
            if call is not None and call.active():
                call.cancel()
        self._timer = self._soon = None

    def _free(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    # The transport of the protocol inside.

    def write(self, data: bytes) -> None:
        """Encrypt and send."""
        is_deaf = self._is_over or self._has_ended or (self.disconnecting and not self._is_producing)
        if self._session is None or is_deaf or not data:
            return
        try:
            self._session.send(data)
        except TlsFailed as error:
            self._fail(error)
        else:
            self._flush()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Encrypt and send."""
        self.write(b"".join(data))

    def _flush(self) -> None:
        if self._session is not None and (data := self._session.take()):
            self._below.write(data)

    def loseConnection(self) -> None:
        """Close when everything is written; nobody waits for the peer's goodbye."""
        if self.disconnecting:
            return
        self.disconnecting = True
        if self._is_producing:
            self._below.pauseProducing()
        else:
            self._leave()

    def loseWriteConnection(self) -> None:
        """End what goes to the peer, and go on listening to it."""
        if not self._is_over and not self._has_left:
            self._say_goodbye()
            self._below.loseWriteConnection()

    def abortConnection(self) -> None:
        """Close at once."""
        self.disconnecting = self._has_left = True
        self._below.abortConnection()

    def _leave(self) -> None:
        if not self._has_left:
            self._has_left = True
            self._say_goodbye()
            self._below.loseConnection()

    def _say_goodbye(self) -> None:
        if self._session is not None and not self._has_ended:
            self._has_ended = True
            self._session.bye()
            self._flush()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """The stream below pauses and resumes it: all that waits was encrypted and is there."""
        self._is_producing = True
        self._below.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """The protocol inside writes no more by itself."""
        self._is_producing = False
        self._below.unregisterProducer()
        if self.disconnecting:
            self._leave()

    def pauseProducing(self) -> None:
        """Deliver nothing more, and read nothing more below."""
        self._is_paused = True
        self._below.pauseProducing()

    def resumeProducing(self) -> None:
        """Read on below, and deliver what is left in a turn of its own."""
        if not self._is_paused:
            return
        self._is_paused = False
        if self._is_over or self.disconnecting:
            return
        if not self._has_stream_ended:
            self._below.resumeProducing()
        if self._soon is None or not self._soon.active():
            self._soon = self.clock.callLater(0, self._advance)

    def stopProducing(self) -> None:
        """Close."""
        self.loseConnection()

    def getPeer(self) -> Any:
        """The address of the peer."""
        return self._below.getPeer()

    def getHost(self) -> Any:
        """The address here."""
        return self._below.getHost()

    def getPeerCertificate(self) -> object:
        """There are no certificates."""
        return None

    def setTcpNoDelay(self, enabled: bool) -> None:
        """As of the stream below."""
        self._below.setTcpNoDelay(enabled)

    def getTcpNoDelay(self) -> Any:
        """As of the stream below."""
        return self._below.getTcpNoDelay()

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """As of the stream below."""
        self._below.setTcpKeepAlive(enabled)

    def getTcpKeepAlive(self) -> Any:
        """As of the stream below."""
        return self._below.getTcpKeepAlive()
