"""From a host that ends in a key to the places where it is served: a walk over HTTPS and SVCB records.

A record leads to the key's own addresses (target `.`), to a name of the ordinary DNS, or to another key, whose packet
is looked up and walked over next, before the records that are left. So `_pubky.<user>` leads to the user's homeserver
and on to its address. Of the records of one name the lowest priority number comes first, and among equals chance
decides. As in the official clients nothing sets a record of priority 0 apart.

Who answers at a place must hold the key in whose packet the place stands; that is what makes the walk safe. What it
may cost has a limit: a walk ends with the seventh packet, and with the first key that has none or cannot be asked.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, MutableSequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from attrs import frozen
from twisted.logger import Logger

from pkarr.interfaces import INetwork, NetworkError, Policy
from pkarr.keys import InvalidPublicKey, PublicKey
from pkarr.packet import SignedPacket, absolute_name
from pkarr.records import HTTPS, IPV4HINT, IPV6HINT, PORT, Service
from pkarr.tls.agent import Place

MAX_PACKETS = 7  # of one walk, the first included, as in the official clients
OWN = "."  # the target that means the key's own addresses

_LENGTHS = {IPV4HINT: 4, IPV6HINT: 16}  # bytes of an address in a hint


@frozen
class Endpoint:
    """Where a host is served."""

    key: PublicKey
    """Who answers there."""
    service: Service
    addresses: tuple[IPv4Address | IPv6Address, ...] = ()
    """Where; none if `domain` says it."""

    @property
    def domain(self) -> str | None:
        """The name of the ordinary DNS where it is; None if it is at the addresses."""
        return None if self.service.target == OWN else self.service.target

    @property
    def port(self) -> int | None:
        """The port; None if the record leaves it to the protocol."""
        port = self.service.parameters.get(PORT)
        return None if port is None else int.from_bytes(port[:2], "big")


@frozen
class Endpoints:
    """The walk. `record_type` is HTTPS or SVCB."""

    network: INetwork
    policy: Policy = Policy.CACHE_FIRST
    record_type: int = HTTPS
    shuffle: Callable[[MutableSequence[Any]], None] = random.shuffle
    log = Logger()

    async def walk(self, host: str) -> AsyncIterator[Endpoint]:
        """The endpoints of `<key>`, `_pubky.<key>` or any other name under a key, the best first.

        Raises `InvalidPublicKey` if the host does not end in a key, `NetworkError` if its key cannot be asked for.
        """
        packet = await self.network.resolve(PublicKey.parse(host), self.policy)
        remaining = [] if packet is None else self._named(packet, host)
        packets = 1
        while remaining:
            endpoint = remaining.pop()
            key = _key_in(endpoint.service.target)
            if key is None:
                yield endpoint
                continue
            packets += 1
            following = None if packets > MAX_PACKETS else await self._follow(key)
            if following is None:
                return
            remaining += self._named(following, endpoint.service.target)

    async def find(self, host: str) -> list[Endpoint]:
        """All endpoints, the best first. Raises as `walk`."""
        return [endpoint async for endpoint in self.walk(host)]

    async def places(self, host: str) -> list[Place]:
        """Where a host answers to its key alone, the best first: what `pkarr.tls.agent` needs. Raises as `walk`."""
        return [
            Place(endpoint.key, str(address), endpoint.port)
            for endpoint in await self.find(host)
            if endpoint.port
            for address in endpoint.addresses
        ]

    async def _follow(self, key: PublicKey) -> SignedPacket | None:
        try:
            return await self.network.resolve(key, self.policy)
        except NetworkError as error:
            self.log.debug("A walk ends at {key}: {error}", key=key, error=error)
            return None

    def _named(self, packet: SignedPacket, name: str) -> list[Endpoint]:
        """What a packet says of a name, the best last."""
        name = absolute_name(name, packet.public_key)
        named = [one for one in packet.records if one.name == name and one.type == self.record_type]
        services = [service for one in named if (service := one.service) is not None]
        self.shuffle(services)
        services.sort(key=lambda service: service.priority, reverse=True)
        return [Endpoint(packet.public_key, service, _addresses(packet, service)) for service in services]


def _addresses(packet: SignedPacket, service: Service) -> tuple[IPv4Address | IPv6Address, ...]:
    """Those of the key itself; a service's hints only if there are none. A service elsewhere has none here."""
    if service.target != OWN:
        return ()
    found = [record.address for record in packet.lookup(OWN)]
    return tuple(address for address in found if address is not None) or _hinted(service)


def _hinted(service: Service) -> tuple[IPv4Address | IPv6Address, ...]:
    hints: list[IPv4Address | IPv6Address] = []
    for parameter, length in _LENGTHS.items():
        raw = service.parameters.get(parameter, b"")
        packed = [raw[start : start + length] for start in range(0, len(raw), length)]
        hints += [IPv4Address(one) if length == 4 else IPv6Address(one) for one in packed]
    return tuple(hints)


def _key_in(target: str) -> PublicKey | None:
    """The key that a target ends in; None for a name of the ordinary DNS."""
    try:
        return PublicKey.parse(target)
    except InvalidPublicKey:
        return None
