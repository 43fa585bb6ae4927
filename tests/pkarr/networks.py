"""A network that does as a test says, for those that speak to several."""

from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from zope.interface import implementer

from pkarr.interfaces import INetwork, Policy
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
