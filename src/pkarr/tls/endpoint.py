"""TLS by public key around any stream: a factory for servers, an endpoint and an agent for clients.

The protocol inside is built when the handshake is done, and not before: a scanner meets no application, and a client's
protocol talks to nobody but the key that it was meant for. Reading stops where the protocol inside stops it, with what
was received and not yet decrypted kept; writing is encrypted at once, and its producer is the transport's own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    ISSLTransport,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from pkarr.keys import PublicKey
from pkarr.tls.session import IEngine, ISession, TlsFailed

DEADLINE = 10.0
"""Seconds that a handshake may take."""

MAX_HELLO = 98_304
"""Bytes that a peer may send before its handshake is done."""

MAX_SHAKING = 512
"""Handshakes that a server is in at once; it closes the connections beyond."""


class WrongKey(ConnectError):
    """Somebody answered who does not hold the key."""


@implementer(ISSLTransport)
@define(eq=False)
class _Tls(Protocol):
    """One connection: the protocol of the stream below, and the transport of the protocol inside."""

    begin: Callable[[], ISession]
    """A session for this connection."""
    clock: IReactorTime
    build: Callable[[], IProtocol | None]
    """The protocol inside; None closes."""
    expected: bytes | None = None
    """The key that the peer must show; None for a server, whose peers show none."""
    settled: Callable[[BaseException | None], None] = lambda _: None
    """Called once, with what went wrong or None, when the handshake is over."""
    session: ISession = field(init=False)
    inside: Any = field(default=None, init=False)
    """The protocol inside, once there is one."""
    disconnecting: bool = field(default=False, init=False)
    _received: int = field(default=0, init=False)
    _deadline: IDelayedCall | None = field(default=None, init=False)
    _soon: IDelayedCall | None = field(default=None, init=False)
    _is_busy: bool = field(default=False, init=False)
    _is_over: bool = field(default=False, init=False)
    _is_paused: bool = field(default=False, init=False)
    _is_producing: bool = field(default=False, init=False)
    _said_goodbye: bool = field(default=False, init=False)
    # The peer did: what came is whole.
    _is_freed: bool = field(default=False, init=False)

    # --- the stream below -----------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Begin the handshake."""
        self.session = self.begin()
        self._deadline = self.clock.callLater(DEADLINE, self._too_late)
        self._advance()

    def dataReceived(self, data: bytes) -> None:
        """Some of the handshake, or records."""
        if self._is_over:
            return
        self._received += len(data)
        if self.inside is None and self._received > MAX_HELLO:
            self._give_up(TlsFailed("the handshake has no end"))
            return
        self.session.feed(data)
        self._advance()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The stream below has ended. Without a goodbye what came may not be all."""
        self._is_over = True
        self._settle(ConnectionLost("the connection ended in its handshake") if self.inside is None else None)
        if not self._is_busy:
            self._free()
        if self.inside is not None:
            if not self._said_goodbye and not self.disconnecting and reason.check(ConnectionDone):
                reason = Failure(ConnectionLost("the peer did not say goodbye"))
            inside, self.inside = self.inside, None
            inside.connectionLost(reason)

    # --- what comes -----------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        if self._is_busy or self._is_over:
            return
        self._is_busy = True
        try:
            if self._is_shaken():
                self._deliver()
        except TlsFailed as error:
            self._flush()
            self._give_up(error)
        finally:
            self._is_busy = False
            if self._has_ended():
                self._free()

    def _has_ended(self) -> bool:
        return self._is_over

    def _is_shaken(self) -> bool:
        """Go on with the handshake; whether it is done, and there is a protocol inside."""
        if self.inside is not None:
            return True
        done = self.session.handshake()
        if done and self.expected is not None and self.session.peer_key() != self.expected:
            self.session.refuse()
            self._flush()
            self._give_up(WrongKey(string="the server does not hold the key"))
            return False
        self._flush()
        if not done:
            return False
        inside: Any = self.build()
        if inside is None:
            self._give_up(ConnectError(string="not wanted"))
            return False
        self.inside = inside
        inside.makeConnection(self)
        self._settle(None)
        return True

    def _deliver(self) -> None:
        """Give the protocol inside what can be decrypted, until it wants no more."""
        while self.inside is not None and not self._is_paused and not self._is_over:
            data = self.session.receive()
            if data is None:
                break
            if not data:
                self._said_goodbye = True
                self._lower().loseConnection()
                break
            self.inside.dataReceived(data)
        if not self._is_over:
            self._flush()

    def _flush(self) -> None:
        if data := self.session.take():
            self._lower().write(data)

    def _too_late(self) -> None:
        self._give_up(TlsFailed("the handshake took too long"))

    def _give_up(self, error: BaseException) -> None:
        self._settle(error)
        self._is_over = True
        self._lower().loseConnection()  # not cut, so that the alert arrives

    def _settle(self, error: BaseException | None) -> None:
        if self._deadline is not None:
            if self._deadline.active():
                self._deadline.cancel()
            self._deadline = None
            self.settled(error)

    def _free(self) -> None:
        if self._soon is not None and self._soon.active():
            self._soon.cancel()
        if not self._is_freed:
            self._is_freed = True
            self.session.close()

    def _lower(self) -> Any:
        return self.transport

    # --- the transport of the protocol inside ---------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Encrypt and send."""
        if self._is_over or (self.disconnecting and not self._is_producing) or not data:
            return
        try:
            self.session.send(data)
        except TlsFailed:
            self._lower().abortConnection()
            return
        self._flush()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Encrypt and send."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Close when everything is written; nobody waits for the peer's goodbye."""
        self.disconnecting = True
        if not self._is_producing and not self._is_over:
            self._say_goodbye()

    def abortConnection(self) -> None:
        """Close at once."""
        self.disconnecting = True
        self._lower().abortConnection()

    def _say_goodbye(self) -> None:
        self.session.bye()
        self._flush()
        self._lower().loseConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """The stream below pushes back: everything that it holds was encrypted already."""
        self._is_producing = True
        self._lower().registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """The protocol inside writes no more by itself."""
        self._is_producing = False
        self._lower().unregisterProducer()
        if self.disconnecting and not self._is_over:
            self._say_goodbye()

    def pauseProducing(self) -> None:
        """Deliver nothing more, and read nothing more below."""
        self._is_paused = True
        self._lower().pauseProducing()

    def resumeProducing(self) -> None:
        """Deliver what is left, in a turn of its own, and read on."""
        if not self._is_paused:
            return
        self._is_paused = False
        if not self._is_over:
            self._lower().resumeProducing()
            if self._soon is None or not self._soon.active():
                self._soon = self.clock.callLater(0, self._advance)

    def stopProducing(self) -> None:
        """Close."""
        self.loseConnection()

    def loseWriteConnection(self) -> None:
        """Half of a connection is not closed over TLS: all of it is."""
        self.loseConnection()

    def getPeer(self) -> Any:
        """The address of the peer."""
        return self._lower().getPeer()

    def getHost(self) -> Any:
        """The address here."""
        return self._lower().getHost()

    def getPeerCertificate(self) -> object:
        """There are no certificates."""
        return None

    def setTcpNoDelay(self, enabled: bool) -> None:
        """As of the stream below."""
        self._lower().setTcpNoDelay(enabled)

    def getTcpNoDelay(self) -> Any:
        """As of the stream below."""
        return self._lower().getTcpNoDelay()

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """As of the stream below."""
        self._lower().setTcpKeepAlive(enabled)

    def getTcpKeepAlive(self) -> Any:
        """As of the stream below."""
        return self._lower().getTcpKeepAlive()


@define(eq=False)
class TlsFactory(Factory):
    """Serves the protocols of `factory` under a key: any client may connect, by whatever name."""

    noisy = False

    factory: IProtocolFactory
    engine: IEngine
    seed: bytes = field(repr=False)
    clock: IReactorTime
    shaking: int = field(default=0, init=False)
    """Handshakes under way."""
    shaken: int = field(default=0, init=False)
    """Handshakes that were done, since the start."""
    failed: int = field(default=0, init=False)
    """Handshakes that were not."""
    _shared: object = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._shared = self.engine.server(self.seed)

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """A connection; None, which closes, while too many are in their handshake."""
        if self.shaking >= MAX_SHAKING:
            return None
        self.shaking += 1
        build: Any = self.factory.buildProtocol
        begin = partial(self.engine.accept, self._shared)
        return _Tls(begin, self.clock, lambda: build(addr), None, self._settled)

    def doStart(self) -> None:
        """The port is open."""
        self.factory.doStart()

    def doStop(self) -> None:
        """The port is closed."""
        self.factory.doStop()

    def _settled(self, error: BaseException | None) -> None:
        self.shaking -= 1
        if error is None:
            self.shaken += 1
        else:
            self.failed += 1


@implementer(IStreamClientEndpoint)
@frozen
class TlsClientEndpoint:
    """Connects through another endpoint to whoever holds a key there. Fails with `WrongKey` for anybody else."""

    endpoint: IStreamClientEndpoint
    key: PublicKey
    host: str
    """The name to ask for."""
    engine: IEngine
    clock: IReactorTime

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Fires with the protocol when the handshake is done."""
        return Deferred.fromCoroutine(self._connect(factory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        done: Deferred[None] = Deferred()

        def settled(error: BaseException | None) -> None:
            if not done.called:
                done.callback(None) if error is None else done.errback(Failure(error))

        def build() -> IProtocol | None:
            # Whom the protocol inside is for is known: the peer showed the key.
            return factory.buildProtocol(tls.getPeer())

        tls = _Tls(partial(self.engine.connect, self.host), self.clock, build, self.key.raw, settled)
        below = Factory.forProtocol(lambda: tls)
        below.noisy = False
        await self.endpoint.connect(below)
        await done
        inside: IProtocol = tls.inside
        return inside


Resolve = Callable[[str], Awaitable[tuple[PublicKey, Sequence[tuple[str, int]]]]]
"""From a host name such as `_pubky.<key>` to the key that must answer, and addresses and ports, the best first."""


@implementer(IStreamClientEndpoint)
@frozen
class _Resolving:
    """An endpoint that finds out where it leads when it connects."""

    host: str
    resolve: Resolve
    engine: IEngine
    reactor: Any
    log = Logger()

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Try one address after the other."""
        return Deferred.fromCoroutine(self._connect(factory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        key, addresses = await self.resolve(self.host)
        failure: Exception = ConnectError(string=f"no address of {self.host} is known")
        for address, port in addresses:
            below = HostnameEndpoint(self.reactor, address, port)
            try:
                return await TlsClientEndpoint(below, key, self.host, self.engine, self.reactor).connect(factory)
            except Exception as error:
                failure = error
        raise failure


@implementer(IAgentEndpointFactory)
@frozen
class KeyEndpoints:
    """Endpoints for URLs whose host is a key, or ends in one. Give it to `Agent.usingEndpointFactory`."""

    resolve: Resolve
    engine: IEngine
    reactor: Any

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """The endpoint of a URL."""
        return _Resolving(uri.host.decode("ascii"), self.resolve, self.engine, self.reactor)


def agent(resolve: Resolve, engine: IEngine, reactor: Any, pool: HTTPConnectionPool | None = None) -> Agent:
    """An HTTP client for `https://<key>/…`: it finds addresses by `resolve` and believes nobody but the key."""
    found: Agent = Agent.usingEndpointFactory(reactor, KeyEndpoints(resolve, engine, reactor), pool)
    return found
