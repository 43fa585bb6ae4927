"""Networks that do as a test says, for those that speak to several."""

from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from zope.interface import implementer

from pkarr.interfaces import INetwork, NotMostRecent, Policy, Unavailable
from pkarr.keys import PublicKey
from pkarr.packet import SignedPacket

Found = SignedPacket | Exception | None


@implementer(INetwork)
@define(eq=False)
class Scripted:
    """Finds `found` and keeps what it is given on `nodes` nodes; an exception is raised, a Deferred waited for."""

    name: str = "network"
    found: "Found | Deferred[Found]" = None
    nodes: "int | Exception | Deferred[int]" = 20
    asked: list[Policy] = field(factory=list)
    published: list[tuple[SignedPacket, int | None]] = field(factory=list)
    cancelled: int = 0

    async def publish(self, packet: SignedPacket, replaces: int | None = None) -> int:
        """As told."""
        self.published.append((packet, replaces))
        nodes: int | Exception = await self._waited(self.nodes) if isinstance(self.nodes, Deferred) else self.nodes
        if isinstance(nodes, Exception):
            raise nodes
        return nodes

    async def resolve(self, key: PublicKey, policy: Policy = Policy.CACHE_FIRST) -> SignedPacket | None:
        """As told."""
        self.asked.append(policy)
        found: Found = await self._waited(self.found) if isinstance(self.found, Deferred) else self.found
        if isinstance(found, Exception):
            raise found
        return found

    async def _waited(self, answer: "Deferred[Any]") -> Any:
        """The answer when it comes; several may wait for one, and stop without spoiling it for the others."""
        own: Deferred[Any] = Deferred()

        def pass_on(result: Any) -> Any:
            if not own.called:
                own.callback(result)
            return result

        answer.addCallback(pass_on)
        try:
            return await own
        except CancelledError:
            self.cancelled += 1
            raise

    def __str__(self) -> str:
        return self.name


@implementer(INetwork)
@define(eq=False)
class Simulated:
    """A network that keeps the newest packets, answers after `latency` seconds of a clock, and can be away."""

    clock: IReactorTime
    name: str = "network"
    latency: float = 0.0
    nodes: int = 20
    is_away: bool = False
    packets: dict[bytes, SignedPacket] = field(factory=dict)
    caches: dict[bytes, SignedPacket] = field(factory=dict)
    """What it has for those who ask for its cache only."""
    resolved: int = 0
    published: list[tuple[float, SignedPacket]] = field(factory=list)
    """What it took, and when."""
    busy: int = 0
    busiest: int = 0

    async def publish(self, packet: SignedPacket, replaces: int | None = None) -> int:
        """Keep a packet unless a newer one is here."""
        await self._work()
        known = self.packets.get(packet.public_key.raw)
        if known is not None and known.more_recent_than(packet):
            raise NotMostRecent("a newer one is here")
        self.packets[packet.public_key.raw] = packet
        self.published.append((self.clock.seconds(), packet))
        return self.nodes

    async def resolve(self, key: PublicKey, policy: Policy = Policy.CACHE_FIRST) -> SignedPacket | None:
        """Find a packet."""
        await self._work()
        self.resolved += 1
        return (self.caches if policy is Policy.CACHE_ONLY else self.packets).get(key.raw)

    async def _work(self) -> None:
        self.busy += 1
        self.busiest = max(self.busy, self.busiest)
        try:
            if self.latency:
                await deferLater(self.clock, self.latency)
        finally:
            self.busy -= 1
        if self.is_away:
            raise Unavailable("away")

    def __str__(self) -> str:
        return self.name
