"""What follows from a packet that was news, whoever brought it: peers are shown it, and copies follow another one."""

from collections.abc import Callable, Mapping
from typing import ClassVar

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from pkarr.packet import SignedPacket
from pubky_homeserver.core.moves import Kept
from pubky_homeserver.packets import home_of
from pubky_homeserver.peers.exchange import Knowledge
from pubky_homeserver.peers.neighbours import Neighbour
from pubky_homeserver.peers.tally import Counted, Tally


@define(eq=False)
class News(Service):
    """Hears of packets from its start on. `neighbours`: whom it concerns, by their keys."""

    knowledge: Knowledge
    neighbours: Mapping[str, Neighbour]
    learn: Callable[[SignedPacket, Kept], None]
    """Is told of each packet, when the copy is as it says."""
    tally: Tally
    clock: IReactorTime
    _following_up: set[Deferred[None]] = field(factory=set, init=False)
    # What is done about packets.
    _deaf: Callable[[], None] | None = field(default=None, init=False)
    # How to hear of packets no more.
    log: ClassVar[Logger] = Logger()

    def startService(self) -> None:
        """Begin to hear."""
        super().startService()
        self._deaf = self.knowledge.packets.listen(self.hear)

    def stopService(self) -> Deferred[None]:
        """Stop; fires when nothing is under way any more."""
        super().stopService()
        if self._deaf is not None:
            self._deaf()
        ending = [*self._following_up]
        for one in ending:
            one.cancel()
        return DeferredList(ending, consumeErrors=True).addCallback(lambda _results: None)

    def hear(self, packet: SignedPacket, kept: Kept) -> None:
        """A packet was news: in the next turn, for who brought it may be the one that has to stop."""
        if kept is Kept.FENCED:
            self.tally.count(Counted.FENCED)
        following = Deferred.fromCoroutine(self._follow_up(packet, kept))
        self._following_up.add(following)
        following.addErrback(self._end)
        following.addBoth(lambda _none: self._following_up.discard(following))

    async def _follow_up(self, packet: SignedPacket, kept: Kept) -> None:
        await deferLater(self.clock, 0)
        pubky, home = packet.public_key.z32, home_of(packet)
        copy = await self.knowledge.copies.refresh(pubky)
        for key, neighbour in self.neighbours.items():
            if self.knowledge.may_know(neighbour.peer, packet, pubky):
                neighbour.exchange.tell(pubky)
            if neighbour.mirror is None or home is None:
                continue
            if key != home:
                neighbour.mirror.leave(pubky)
            elif copy is not None and neighbour.peer.follows(pubky):
                neighbour.mirror.hint(pubky, False)
                if neighbour.peer.private:
                    neighbour.mirror.hint(pubky, True)
        self.learn(packet, kept)

    def _end(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("A packet was not followed", failure)
