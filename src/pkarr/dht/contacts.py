"""Where nodes are: contacts in the compact form of messages, and the addresses that may be written to.

Whoever answers us can name any address as that of a node. If we wrote to all of them, a liar could make us knock at
the doors of our own network, or of a whole multicast group. So what a node names counts only if it is an address of
the public internet, unless the node is meant for a private network.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from attrs import frozen

ID_LENGTH = 20  # bytes of a node's id and of a target (BEP 5)
IPV4, IPV6 = 4, 6

Address = tuple[str, int]
"""A host's address as text, IPv4 or IPv6, in the system's own spelling, and a UDP port."""

_FAMILIES = {IPV4: AF_INET, IPV6: AF_INET6}
_LENGTHS = {IPV4: 4, IPV6: 16}  # bytes of an address
_PORT = 2  # bytes
_CACHED = 4096  # addresses whose kind is remembered; ipaddress needs 10 µs for one
_V6_GROUP = 8  # bytes of an IPv6 address that one customer has at the least (RFC 6177)


class InvalidContact(ValueError):
    """Bytes that are no contacts, or no address."""


@frozen
class Contact:
    """A node: its id of 20 bytes and where it is."""

    id: bytes
    address: Address

    @property
    def family(self) -> int:
        """4 or 6."""
        return family(self.address[0])


def family(host: str) -> int:
    """4 or 6: the kind of an address."""
    return IPV6 if ":" in host else IPV4


def pack_address(address: Address) -> bytes:
    """An address in compact form: 4 or 16 bytes and the port (BEP 5, BEP 32)."""
    host, port = address
    return inet_pton(_FAMILIES[family(host)], host) + port.to_bytes(_PORT, "big")


def unpack_address(raw: bytes) -> Address:
    """Read a compact address of 6 or 18 bytes. InvalidContact for another length."""
    for kind, length in _LENGTHS.items():
        if len(raw) == length + _PORT:
            return inet_ntop(_FAMILIES[kind], raw[:length]), int.from_bytes(raw[length:], "big")
    raise InvalidContact("no address")


def pack_contacts(contacts: tuple[Contact, ...]) -> bytes:
    """Contacts of one kind of address in compact form: 26 or 38 bytes each."""
    return b"".join(contact.id + pack_address(contact.address) for contact in contacts)


def unpack_contacts(raw: bytes, kind: int, most: int) -> tuple[Contact, ...]:
    """Read compact contacts of one kind of address, the first few of them. InvalidContact if the length is wrong."""
    step = ID_LENGTH + _LENGTHS[kind] + _PORT
    if len(raw) % step:
        raise InvalidContact("not a whole number of contacts")
    end = min(len(raw), most * step)
    return tuple(
        Contact(raw[at : at + ID_LENGTH], unpack_address(raw[at + ID_LENGTH : at + step])) for at in range(0, end, step)
    )


def packed_host(host: str) -> bytes:
    """The 4 or 16 bytes of a host's address."""
    return inet_pton(_FAMILIES[family(host)], host)


@lru_cache(_CACHED)
def is_public(host: str) -> bool:
    """Whether an address belongs to one host of the public internet, as far as its number tells."""
    ip = ipaddress.ip_address(host)
    if isinstance(ip, ipaddress.IPv6Address) and (ip.ipv4_mapped or ip.sixtofour or ip.teredo):
        return False  # these lead to IPv4 addresses, which may be of any kind
    return ip.is_global and not ip.is_multicast


@lru_cache(_CACHED)
def owner(host: str) -> bytes:
    """What one owner has at the least: an IPv4 address, the first half of an IPv6 address."""
    return packed_host(host)[:_V6_GROUP]
