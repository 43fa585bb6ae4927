"""Where packets are published and found: the port that relays, the DHT and a client over both implement."""

# mypy: disable-error-code="empty-body"

from __future__ import annotations

from enum import Enum

from zope.interface import Interface

from pkarr.keys import PublicKey
from pkarr.packet import SignedPacket


class Policy(Enum):
    """How hard to look for a packet. The values are words of the relay protocol."""

    CACHE_ONLY = "CacheOnly"  # what is at hand, however old
    CACHE_FIRST = "CacheFirst"  # what is at hand if its time to live is not over, else ask the DHT
    NETWORK_ONLY = "NetworkOnly"  # ask the DHT


class NetworkError(Exception):
    """A network that did not do what it was asked. The text says why, for a log."""


class Unavailable(NetworkError):
    """It could not be reached, or cannot serve anybody now: try again later."""


class NotMostRecent(NetworkError):
    """It knows a newer packet of the key, so it did not keep this one."""


class Conflict(NotMostRecent):
    """It keeps another packet than the one that this one was to replace."""


class PacketRefused(NetworkError):
    """It does not take this packet, and will not later."""


class UnexpectedAnswer(NetworkError):
    """It answered something that the protocol does not foresee, or a packet that is none."""


class UnreadableItem(NetworkError):
    """The newest thing under the key is signed by it but is no packet; older packets do not count any more."""

    def __init__(self, seq: int) -> None:
        super().__init__(f"DHT mutable item at seq {seq} is not a valid signed packet")
        self.seq = seq


class INetwork(Interface):
    """A place that keeps the newest signed packet of every key. Whatever goes wrong is a `NetworkError`."""

    async def publish(packet: SignedPacket, replaces: int | None = None) -> int:
        """Keep a packet; returns how many nodes of the DHT keep it now.

        Publishing the same packet again refreshes it. `replaces`: the timestamp of the packet that this one takes the
        place of, so that of two who change a key's records at once one is told; a network that cannot compare ignores
        it. Raises `NotMostRecent`, `Conflict`, `PacketRefused` and the others.
        """

    async def resolve(key: PublicKey, policy: Policy = Policy.CACHE_FIRST) -> SignedPacket | None:
        """Find the newest packet of a key, verified; None if there is none. Raises `UnreadableItem` and the others."""


class ICounting(INetwork):
    """A network that can tell on how many nodes a packet is."""

    async def count(key: PublicKey) -> tuple[SignedPacket | None, int]:
        """Find the newest packet of a key, as `resolve` with NETWORK_ONLY, and on how many nodes it was found."""
