"""HTTP answers whose heads end.

Twisted's client bounds each line of a head, but not how many there are: who is asked could fill our memory with fields
until somebody loses patience. So between the connection and the client stands something that counts, from one request
to the next blank line; a connection with too long a head is cut.
"""

import re
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.client import URI, Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool
from twisted.web.error import SchemeNotSupported
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

MAX_HEAD = 65_536
"""Bytes of the head of an answer, with all that come before it and say "wait" (100 to 199). Ours have some hundred."""

_END = re.compile(rb"\n\r?\n")

_INTERIM = re.compile(rb"HTTP/\d\.\d 1")


class _Counted(ProtocolWrapper):
    """A connection of a client whose answers are counted up to the end of their heads."""

    _head = bytearray()
    _bytes = 0
    _is_over = True

    def write(self, data: bytes) -> None:
        """A request begins, or goes on: what comes next begins with a head."""
        if self._is_over:
            self._head, self._bytes, self._is_over = bytearray(), 0, False
        super().write(data)

    def writeSequence(self, data: Any) -> None:
        """As `write`."""
        self.write(b"".join(data))

    def dataReceived(self, data: bytes) -> None:
        """Count, and pass on."""
        if not self._is_over and not self._fits(data):
            self.abortConnection()  # of the transport: see `ProtocolWrapper`
            return
        super().dataReceived(data)

    def _fits(self, data: bytes) -> bool:
        """Whether the head, with these bytes of it or after it, is no longer than it may be."""
        self._head += data
        while end := _END.search(self._head):
            is_interim = _INTERIM.match(self._head) is not None
            self._bytes += end.end()
            if not is_interim:
                self._is_over, self._head = True, bytearray()
                return self._bytes <= MAX_HEAD
            del self._head[: end.end()]
        return self._bytes + len(self._head) <= MAX_HEAD


class _CountedFactory(WrappingFactory[_Counted]):
    """Makes counted connections of ordinary ones."""

    protocol = _Counted
    noisy = False
    made: IProtocol | None = None
    """The one that was wrapped; the wrapper forgets it when the connection ends."""

    def buildProtocol(self, addr: IAddress | None) -> _Counted:
        """Wrap a new one."""
        self.made = self.wrappedFactory.buildProtocol(addr)
        return _Counted(self, self.made)


@implementer(IStreamClientEndpoint)
@frozen
class _CountedEndpoint:
    """Connects as another endpoint does."""

    endpoint: IStreamClientEndpoint

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect; what comes of it is the protocol of that factory."""
        if isinstance(factory, Factory):
            factory.noisy = False  # each connection would be two lines in the operator's log
        return Deferred.fromCoroutine(self._connect(_CountedFactory(factory)))

    async def _connect(self, factory: _CountedFactory) -> IProtocol:
        await self.endpoint.connect(factory)
        assert factory.made is not None  # it is connected
        return factory.made


@implementer(IAgentEndpointFactory)
@frozen
class CountedEndpoints:
    """Endpoints of another factory, whose answers have bounded heads."""

    factory: IAgentEndpointFactory

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """The endpoint of a URL. Raises what that factory raises."""
        return _CountedEndpoint(self.factory.endpointForURI(uri))


@implementer(IAgentEndpointFactory)
@frozen
class WebEndpoints:
    """Endpoints of the ordinary web, with the certificates that it trusts."""

    reactor: Any
    _policy: BrowserLikePolicyForHTTPS = field(factory=BrowserLikePolicyForHTTPS, init=False)

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """The endpoint of a URL. Raises `SchemeNotSupported`."""
        if uri.scheme not in (b"http", b"https"):
            raise SchemeNotSupported(f"neither http nor https: {uri.scheme!r}")
        endpoint = HostnameEndpoint(self.reactor, uri.host.decode("ascii"), uri.port)
        if uri.scheme == b"http":
            return endpoint
        return wrapClientTLS(self._policy.creatorForNetloc(uri.host, uri.port), endpoint)


def bounded_agent(
    reactor: Any, endpoints: IAgentEndpointFactory | None = None, pool: HTTPConnectionPool | None = None
) -> Agent:
    """An `IAgent` for the ordinary web, or for other endpoints, that cuts connections with too long a head."""
    made: Agent = Agent.usingEndpointFactory(reactor, CountedEndpoints(endpoints or WebEndpoints(reactor)), pool)
    return made
