"""Connections that come through a proxy, which says in a preface whom they are from.

Nobody but the proxies in the settings may connect, and each of their connections must begin with a preface, complete
within a second. Whatever else comes is closed without a byte: whose it is cannot be known.
"""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

from attrs import define, field
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from pubky_homeserver.core.prefaces import InvalidPreface, Preface, plain_ip, read_preface

PATIENCE = 1.0
"""Seconds in which a preface must be complete (the protocol's)."""

Network = IPv4Network | IPv6Network


@define(eq=False)
class ProxiedFactory(Factory):
    """Reads the preface of each connection, and then builds the protocol of `factory` for whom it names."""

    noisy = False

    factory: Factory
    proxies: Sequence[Network]
    """Who may connect."""
    clock: IReactorTime

    def buildProtocol(self, addr: IAddress | None) -> "Protocol | None":
        """A reader of a preface for a proxy; None, which closes, for anybody else."""
        host = getattr(addr, "host", "")
        try:
            peer = ip_address(plain_ip(host))
        except ValueError:
            return None
        return _Prefaced(self) if any(peer in network for network in self.proxies) else None

    def doStart(self) -> None:
        """The port is open."""
        self.factory.doStart()

    def doStop(self) -> None:
        """The port is closed."""
        self.factory.doStop()


@define(eq=False)
class _Prefaced(Protocol):
    """Gathers the preface; the protocol that follows takes the transport over."""

    proxied: ProxiedFactory
    _data: bytes = b""
    _deadline: IDelayedCall | None = field(default=None, init=False)

    def connectionMade(self) -> None:
        """Wait a second for the preface, no longer."""
        self._deadline = self.proxied.clock.callLater(PATIENCE, self._refuse)

    def dataReceived(self, data: bytes) -> None:
        """Some of the preface, or of what follows it."""
        self._data += data
        try:
            preface = read_preface(self._data)
        except InvalidPreface:
            self._refuse()
            return
        if preface is not None:
            self._give_way(preface)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It ended before its preface did."""
        self._rest()

    def _give_way(self, preface: Preface) -> None:
        self._rest()
        kind = IPv6Address if ":" in preface.source else IPv4Address
        protocol: Any = self.proxied.factory.buildProtocol(kind("TCP", preface.source, preface.port))
        transport: Any = self.transport
        if protocol is None:
            transport.abortConnection()
            return
        transport.protocol = protocol
        protocol.makeConnection(transport)
        if rest := self._data[preface.length :]:
            protocol.dataReceived(rest)

    def _refuse(self) -> None:
        self._rest()
        transport: Any = self.transport
        transport.abortConnection()

    def _rest(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
