"""TLS by public key around any stream endpoint: a factory and an endpoint for servers, an endpoint for clients."""

from __future__ import annotations

from functools import partial
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from pkarr.keys import PublicKey
from pkarr.tls.connection import DEADLINE, MAX_HELLO, Connection, WrongKey
from pkarr.tls.session import IEngine, TlsFailed

__all__ = ["DEADLINE", "MAX_HELLO", "MAX_SHAKING", "TlsClientEndpoint", "TlsFactory", "TlsServerEndpoint", "WrongKey"]

MAX_SHAKING = 512
"""Handshakes that a server is in at once, if it is not told otherwise. One takes as long as the client is far away; who
is silent fills the places, so the oldest gives way to the newest."""


@define(eq=False)
class TlsFactory(Factory):
    """Serves the protocols of `factory` under a key: any client may connect, by whatever name."""

    noisy = False

    factory: IProtocolFactory
    engine: IEngine
    seed: bytes = field(repr=False)
    clock: IReactorTime
    places: int = MAX_SHAKING
    """Handshakes at once."""
    shaken: int = field(default=0, init=False)
    """Handshakes that were done, since the start."""
    failed: int = field(default=0, init=False)
    """Handshakes that were not."""
    _shared: object = field(init=False, repr=False)
    _shaking: dict[Connection, None] = field(factory=dict, init=False, repr=False)
    # Those in their handshake, the oldest first.

    def __attrs_post_init__(self) -> None:
        self._shared = self.engine.server(self.seed)

    @property
    def shaking(self) -> int:
        """Handshakes under way."""
        return len(self._shaking)

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """A connection. It builds the protocol inside when its handshake is done."""
        build: Any = self.factory.buildProtocol  # some take None for an address that nobody knows
        begin = partial(self.engine.accept, self._shared)
        connection = Connection(begin, partial(build, addr), self.clock, None, self._settled)
        if len(self._shaking) >= self.places:
            next(iter(self._shaking)).give_up(TlsFailed("too many are shaking hands"))
        self._shaking[connection] = None
        return connection

    def startFactory(self) -> None:
        """The first port is open."""
        self.factory.doStart()

    def stopFactory(self) -> None:
        """The last port is closed, and who is in a handshake is not waited for."""
        for connection in tuple(self._shaking):
            connection.give_up(TlsFailed("the server stops"))
        self.factory.doStop()

    def _settled(self, connection: Connection, error: Exception | None) -> None:
        self._shaking.pop(connection, None)
        if error is None:
            self.shaken += 1
        else:
            self.failed += 1


@implementer(IStreamServerEndpoint)
@frozen
class TlsServerEndpoint:
    """Listens where another endpoint does, and serves under a key."""

    endpoint: IStreamServerEndpoint
    engine: IEngine
    seed: bytes = field(repr=False)
    clock: IReactorTime

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Fires with the port."""
        return self.endpoint.listen(TlsFactory(factory, self.engine, self.seed, self.clock))


@define(eq=False)
class _Below(Factory):
    """Builds the connections of a client; a name with several addresses may be connected to more than once."""

    noisy = False

    key: PublicKey
    host: str
    engine: IEngine
    clock: IReactorTime
    factory: IProtocolFactory

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """A connection to one address."""
        build: Any = self.factory.buildProtocol
        begin = partial(self.engine.connect, self.host)
        return Connection(begin, partial(build, addr), self.clock, self.key.raw)


@implementer(IStreamClientEndpoint)
@frozen
class TlsClientEndpoint:
    """Connects through another endpoint to whoever holds a key there."""

    endpoint: IStreamClientEndpoint
    key: PublicKey
    host: str
    """The name to ask for; empty for none."""
    engine: IEngine
    clock: IReactorTime

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Fires with the protocol when the handshake is done.

        Fails with `WrongKey` if somebody else answers, with `TlsFailed` if the handshake does, and as the endpoint.
        """
        return Deferred.fromCoroutine(self._connect(factory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        connection = await self.endpoint.connect(_Below(self.key, self.host, self.engine, self.clock, factory))
        assert isinstance(connection, Connection)
        return await connection.shaken()
