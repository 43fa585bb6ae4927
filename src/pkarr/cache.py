"""The newest packets that were seen, for as long as their records may be kept.

A cache never goes back in time: a packet is replaced by a more recent one of its key and by nothing else. One that is
no longer fresh stays, for it tells which packets are older still.
"""

from __future__ import annotations

from collections import OrderedDict

from attrs import define, evolve, field, frozen

from pkarr.keys import PublicKey
from pkarr.packet import SignedPacket

CAPACITY = 1000  # packets, as in the official clients; one takes 5 KB, or 60 KB if it is made to be large


@frozen
class Seen:
    """A packet, and when a network last had it: seconds of the clock that the cache's owner reads."""

    packet: SignedPacket
    at: float

    def is_fresh(self, now: float) -> bool:
        """Whether it may be used without a new look at the network: for the shortest time to live of its records."""
        return now < self.at + self.packet.ttl()


@define(eq=False)
class Cache:
    """The newest packet of each key; the longest unused ones make room for others."""

    capacity: int = CAPACITY
    _seen: OrderedDict[bytes, Seen] = field(init=False, factory=OrderedDict)
    # Maps keys to packets, the longest unused first.

    def __len__(self) -> int:
        return len(self._seen)

    def get(self, key: PublicKey) -> Seen | None:
        """What was seen of a key."""
        seen = self._seen.get(key.raw)
        if seen is not None:
            self._seen.move_to_end(key.raw)
        return seen

    def keep(self, packet: SignedPacket, now: float) -> bool:
        """Keep a packet, or see the same one again. False, and nothing happens, if a more recent one is here."""
        raw = packet.public_key.raw
        seen = self._seen.get(raw)
        if seen is not None and seen.packet.more_recent_than(packet):
            return False
        self._seen[raw] = Seen(packet, now)
        self._seen.move_to_end(raw)
        if len(self._seen) > self.capacity:
            self._seen.popitem(last=False)
        return True

    def outdate(self, key: PublicKey) -> None:
        """Count what was seen of a key as no longer fresh: something newer is there that is no packet."""
        seen = self._seen.get(key.raw)
        if seen is not None:
            self._seen[key.raw] = evolve(seen, at=float("-inf"))
