"""An HTTP client for `https://<key>/…` and `https://_pubky.<key>/…`.

Who looks up where a key answers is its caller's business; it believes nobody there but the holder of the key. Kept
connections are of a host, as everywhere: a host that leads to another key now keeps its old connections until they end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.web.client import URI, Agent, HTTPConnectionPool
from twisted.web.error import SchemeNotSupported
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from pkarr.keys import PublicKey
from pkarr.tls.endpoint import TlsClientEndpoint
from pkarr.tls.session import IEngine

MOST_PLACES = 8
"""Places of a host that are tried: a record may name many, and each costs time."""

PATIENCE = 5.0
"""Seconds that one place may take to be connected to; the handshake has its own."""


@frozen
class Place:
    """Where a key answers."""

    key: PublicKey
    address: str
    """An IP address, or a name of the ordinary DNS."""
    port: int


Resolve = Callable[[str], Awaitable[Sequence[Place]]]
"""From a host such as `_pubky.<key>` to the places where it is served, the best first; it may raise."""


@implementer(IStreamClientEndpoint)
@frozen
class _Resolving:
    """An endpoint that finds out where it leads when it connects."""

    host: str
    resolve: Resolve
    engine: IEngine
    reactor: Any

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Try one place after the other; fails as the last one did."""
        return Deferred.fromCoroutine(self._connect(factory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        failure: Exception = ConnectError(string=f"no place of {self.host} is known")
        for place in (await self.resolve(self.host))[:MOST_PLACES]:
            below = HostnameEndpoint(self.reactor, place.address.encode("ascii"), place.port, timeout=PATIENCE)
            endpoint = TlsClientEndpoint(below, place.key, self.host, self.engine, self.reactor)
            try:
                return await endpoint.connect(factory)
            except CancelledError:
                raise
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
        """The endpoint of a URL. Raises `SchemeNotSupported` for any but `https`."""
        if uri.scheme != b"https":
            raise SchemeNotSupported(f"a key is asked over https, not {uri.scheme!r}")
        return _Resolving(uri.host.decode("ascii"), self.resolve, self.engine, self.reactor)


def agent(resolve: Resolve, engine: IEngine, reactor: Any, pool: HTTPConnectionPool | None = None) -> Agent:
    """An `IAgent` for URLs with keys. Give `request` bytes: `treq` refuses hosts with an underscore."""
    made: Agent = Agent.usingEndpointFactory(reactor, KeyEndpoints(resolve, engine, reactor), pool)
    return made
