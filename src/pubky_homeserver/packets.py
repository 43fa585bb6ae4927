"""What users say of where they live: the newest signed packet of each key that matters here.

A packet proves itself, so it does not matter who brings it: the network, a peer, or somebody who signs up. Whoever
meets one brings it here. What is newer than what was known is kept, and may shut an account that was open here; whoever
cares is told at once.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import ClassVar

from attrs import define, field
from twisted.logger import Logger

from pkarr.keys import InvalidPublicKey, PublicKey
from pkarr.packet import InvalidSignedPacket, SignedPacket
from pubky_homeserver.core.authority import homeserver_of
from pubky_homeserver.core.errors import NotFound
from pubky_homeserver.core.moves import Kept
from pubky_homeserver.interfaces import IPacketStore

REMEMBERED = 200
"""Packets that are not verified again: some 5 kB each, with their records."""

Hear = Callable[[SignedPacket, Kept], None]
"""Is told of a packet that was kept, and whether it shut an account."""


@define(eq=False)
class Packets:
    """The newest packets of accounts, copies, peers, and of this homeserver itself.

    Where there never were peers nobody is fenced: who moves away takes nothing along, and there is nobody to follow.
    """

    store: IPacketStore
    homeserver: str
    """This homeserver's own key."""
    peers: frozenset[str] = frozenset()
    """The keys of those whom it trusts."""
    fences: bool = field()
    """Whether an account is shut by a packet that names another homeserver; by default if there are peers."""
    _hearing: list[Hear] = field(factory=list, init=False)
    _verified: "OrderedDict[str, tuple[bytes, SignedPacket]]" = field(factory=OrderedDict, init=False)
    # Key → what the store had of it, and the packet that this is; the one that was asked for the longest ago first.
    log: ClassVar[Logger] = Logger()

    @fences.default
    def _has_peers(self) -> bool:
        return bool(self.peers)

    async def of(self, pubky: str) -> SignedPacket | None:
        """The newest packet of a key that is known here, verified once more: it may come from a backup."""
        return self.verified(pubky, await self.store.packet(pubky))

    def verified(self, pubky: str, payload: bytes | None) -> SignedPacket | None:
        """What the store has as the packet of a key, if it is one."""
        if payload is None:
            return None
        known = self._verified.pop(pubky, None)
        if known is None or known[0] != payload:
            try:
                known = payload, SignedPacket.from_relay_payload(PublicKey.from_z32(pubky), payload)
            except InvalidSignedPacket as error:
                self.log.error("The packet of {pubky} in the store is none: {error}", pubky=pubky, error=error)
                return None
        self._verified[pubky] = known
        if len(self._verified) > REMEMBERED:
            self._verified.popitem(last=False)
        return known[1]

    async def learn(self, packet: SignedPacket) -> Kept | None:
        """Keep a packet if it is news; None if the key is nobody's who matters here.

        Raises `StorageFull` and `StoreAway`.
        """
        pubky, named = packet.public_key.z32, home_of(packet)
        elsewhere = named if self.fences and named != self.homeserver else None
        is_peer = pubky == self.homeserver or pubky in self.peers
        try:
            kept = await self.store.keep_packet(pubky, packet.relay_payload, elsewhere, is_peer)
        except NotFound:
            return None
        if kept is Kept.FENCED:
            self.log.info("{pubky} lives at {home} from now on", pubky=pubky, home=named)
        if kept is not Kept.OLD:
            for hear in [*self._hearing]:
                hear(packet, kept)
        return kept

    def listen(self, hear: Hear) -> Callable[[], None]:
        """Call `hear` with each packet that was news; returns the way to stop."""
        self._hearing.append(hear)
        return lambda: self._hearing.remove(hear)


def home_of(packet: SignedPacket) -> str | None:
    """The key of the homeserver that a packet names; None if it names none, or what is no key."""
    named = homeserver_of(packet)
    try:
        return None if named is None else PublicKey.from_z32(named).z32
    except InvalidPublicKey:
        return None
