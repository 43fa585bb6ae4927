"""Host names of nodes that help to join, as addresses."""

from __future__ import annotations

import ipaddress

from attrs import define, field
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IAddress, IHostnameResolver, IHostResolution, IResolutionReceiver
from zope.interface import implementer

from pkarr.dht.contacts import Address, family

_TYPES: dict[int, type[IPv4Address | IPv6Address]] = {4: IPv4Address, 6: IPv6Address}


@implementer(IResolutionReceiver)
@define(eq=False)
class _Addresses:
    """Collects the addresses of a name; a name without any is no error."""

    found: list[Address] = field(factory=list)
    done: Deferred[list[Address]] = field(factory=Deferred)

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Nothing to do."""

    def addressResolved(self, address: IAddress) -> None:
        """Keep one."""
        if isinstance(address, IPv4Address | IPv6Address):
            self.found.append((address.host, address.port))

    def resolutionComplete(self) -> None:
        """Tell all."""
        if not self.done.called:
            self.done.callback(self.found)


def addresses_of(resolver: IHostnameResolver, names: tuple[tuple[str, int], ...], kind: int) -> Deferred[list[Address]]:
    """The addresses of one kind, 4 or 6, of hosts and ports. Names that cannot be resolved now are left out."""
    return gatherResults([_addresses(resolver, host, port, kind) for host, port in names]).addCallback(
        lambda several: [address for one in several for address in one]
    )


def _addresses(resolver: IHostnameResolver, host: str, port: int, kind: int) -> Deferred[list[Address]]:
    try:
        literal = str(ipaddress.ip_address(host))
    except ValueError:
        receiver = _Addresses()
        resolver.resolveHostName(receiver, host, port, [_TYPES[kind]], "UDP")
        return receiver.done
    return succeed([(literal, port)] if family(literal) == kind else [])
