"""Signed packets in Redis and in memory: of each key the newest one that was seen."""

from collections.abc import Callable, Mapping

from attrs import Factory, define, field, frozen
from zope.interface import implementer

from pubky_homeserver.core.errors import NotFound
from pubky_homeserver.core.moves import Kept
from pubky_homeserver.interfaces import IPacketStore
from pubky_homeserver.store import schema
from pubky_homeserver.store.connection import Commands, Word
from pubky_homeserver.store.copied import MemoryCopies
from pubky_homeserver.store.files import Home
from pubky_homeserver.store.moves import end_sessions, ending_words
from pubky_homeserver.store.packing import SIGNATURE
from pubky_homeserver.store.remembered import Remembered


@implementer(IPacketStore)
@frozen
class RedisPackets:
    """Packets as strings. `redis` is the live connection."""

    redis: Callable[[], Commands]
    remembered: Remembered | None

    async def packet(self, pubky: str) -> bytes | None:
        """See `IPacketStore`."""
        found: bytes | None = await self.redis().call("GET", schema.packet(pubky))
        return found

    async def keep_packet(self, pubky: str, packet: bytes, elsewhere: str | None = None, is_peer: bool = False) -> Kept:
        """See `IPacketStore`."""
        keys = (
            *(schema.account(pubky), schema.packet(pubky), schema.copy(pubky), schema.COPIES, schema.SHARD),
            *(schema.sessions(pubky), schema.grants(pubky)),
        )
        words: tuple[Word, ...] = packet, SIGNATURE, pubky, elsewhere or "", int(is_peer), *ending_words()
        kept = await self.redis().run("keep_packet", keys, words)
        if kept is None:
            raise NotFound
        kept, _, more = kept.decode().partition(" ")
        if kept == "fenced":
            await end_sessions(self.redis(), self.remembered, pubky, bool(more))
        return Kept(kept)


@implementer(IPacketStore)
@define(eq=False)
class MemoryPackets:
    """Packets in a dictionary."""

    homes: Mapping[str, Home]
    copies: MemoryCopies
    fence: Callable[[str, str, bytes | None], bool]
    """Shuts an account that is open here, for it lives at another homeserver; whether it was."""
    _packets: dict[str, bytes] = field(default=Factory(lambda self: self.copies.packets, takes_self=True), init=False)
    # Pubky → packet; whether a copy may begin depends on it.

    def kept(self, pubky: str) -> bytes | None:
        """The packet of a key."""
        return self._packets.get(pubky)

    def forget(self, pubky: str) -> None:
        """Forget the packet of a key, if there is one."""
        self._packets.pop(pubky, None)

    async def packet(self, pubky: str) -> bytes | None:
        """See `IPacketStore`."""
        return self.kept(pubky)

    async def keep_packet(self, pubky: str, packet: bytes, elsewhere: str | None = None, is_peer: bool = False) -> Kept:
        """See `IPacketStore`."""
        home = self.homes.get(pubky)
        if home is None and self.copies.copied(pubky) is None and not is_peer:
            raise NotFound
        kept = self._packets.get(pubky)
        if kept is not None and kept[SIGNATURE:] >= packet[SIGNATURE:]:
            return Kept.OLD
        self._packets[pubky] = packet
        if elsewhere is None:
            return Kept.KEPT
        self.copies.point(pubky, elsewhere)
        if home is None or (kept is None and int.from_bytes(packet[SIGNATURE:][:8], "big") < home.admitted):
            return Kept.KEPT
        return Kept.FENCED if self.fence(pubky, elsewhere, kept) else Kept.KEPT
