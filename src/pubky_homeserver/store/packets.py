"""Signed packets in Redis and in memory: of each account the newest one that was seen."""

from collections.abc import Callable

from attrs import define, field, frozen
from zope.interface import implementer

from pubky_homeserver.core.errors import NotFound
from pubky_homeserver.interfaces import IPacketStore
from pubky_homeserver.store import schema
from pubky_homeserver.store.connection import Commands

SIGNATURE = 64
"""Bytes of a packet that say nothing about its age; the rest sorts as packets do."""


@implementer(IPacketStore)
@frozen
class RedisPackets:
    """Packets as strings. `redis` is the live connection."""

    redis: Callable[[], Commands]

    async def packet(self, pubky: str) -> bytes | None:
        """See `IPacketStore`."""
        found: bytes | None = await self.redis().call("GET", schema.packet(pubky))
        return found

    async def keep_packet(self, pubky: str, packet: bytes) -> bool:
        """See `IPacketStore`."""
        keys = schema.account(pubky), schema.packet(pubky)
        kept = await self.redis().run("keep_packet", keys, (packet, SIGNATURE))
        if kept is None:
            raise NotFound
        return bool(kept)


@implementer(IPacketStore)
@define(eq=False)
class MemoryPackets:
    """Packets in a dictionary. `has_account` tells who lives here."""

    has_account: Callable[[str], bool]
    _packets: dict[str, bytes] = field(factory=dict, init=False)
    # Pubky → packet.

    async def packet(self, pubky: str) -> bytes | None:
        """See `IPacketStore`."""
        return self._packets.get(pubky)

    async def keep_packet(self, pubky: str, packet: bytes) -> bool:
        """See `IPacketStore`."""
        if not self.has_account(pubky):
            raise NotFound
        kept = self._packets.get(pubky)
        if kept is not None and kept[SIGNATURE:] >= packet[SIGNATURE:]:
            return False
        self._packets[pubky] = packet
        return True
