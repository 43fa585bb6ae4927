"""How many connections each client has, by its address."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

from attrs import define, field
from twisted.internet.interfaces import IAddress

Network = IPv4Network | IPv6Network


@define
class Crowd:
    """Counts open connections by IP address; loopback, unix sockets and exempt networks are never too many."""

    limit: int
    exempt: tuple[Network, ...]
    _connections: Counter[str] = field(init=False, factory=Counter)  # IP address to its open connections

    def is_full_for(self, address: str) -> bool:
        """Whether this address has all the connections it may have."""
        return self._connections[address] >= self.limit and not self._is_exempt(address)

    def enter(self, address: str) -> None:
        """One more."""
        self._connections[address] += 1

    def leave(self, address: str) -> None:
        """One less."""
        self._connections[address] -= 1
        if not self._connections[address]:
            del self._connections[address]

    def _is_exempt(self, address: str) -> bool:
        if not address:
            return True  # a unix socket
        ip = ip_address(address)
        return ip.is_loopback or any(ip in network for network in self.exempt)


def ip_of(address: IAddress | None) -> str:
    """The IP address as text, an IPv4 one in its own form; empty for what is no IP address."""
    host = str(getattr(address, "host", ""))
    if ":" in host:
        mapped = IPv6Address(host).ipv4_mapped
        if mapped is not None:
            return str(mapped)
    return host
