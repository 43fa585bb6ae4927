"""Private files of accounts that left us, handed over to the homeservers where they live now.

The user's record entitles the new homeserver to all of the account, whatever the operators agreed on private files. One
that reaches us when an account moves reads our private log to its end, and we see that. If it could not, the account
opened there with an empty log, and nobody else has what we acknowledged: so it is offered, as late writes are, until it
lies on the shelf there.
"""

from collections.abc import Mapping
from typing import ClassVar

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pkarr.keys import PublicKey
from pubky_homeserver.copies import Copies
from pubky_homeserver.core.copies import Copy
from pubky_homeserver.core.errors import LogCompacted, LogForked, PeerError, PeerRefused
from pubky_homeserver.interfaces import ILogStore, IShelfStore
from pubky_homeserver.peers.exchange import FEATURE
from pubky_homeserver.peers.late import Tail
from pubky_homeserver.peers.neighbours import Neighbour
from pubky_homeserver.rounds import Rounds

EVERY = 60.0
"""Seconds from one look at what is to be handed over to the next."""

SOON = 10.0
"""Seconds from a reason to look to the look: a homeserver that is about to open an account reads our log by itself."""

LONGEST = 3600.0
"""Seconds, at most, from one offer that was not taken to the next; the first is `EVERY`, and each one twice as long."""


@define(eq=False)
class Handover:
    """Offers private logs. `neighbours`: by their keys; `homeserver`: our own."""

    homeserver: str
    neighbours: Mapping[str, Neighbour]
    copies: Copies
    logs: ILogStore
    shelf: IShelfStore
    clock: IReactorTime
    rounds: Rounds = field(init=False)
    """What offers them, again and again."""
    _waiting: dict[str, tuple[float, float]] = field(factory=dict, init=False)
    # Account → when it is offered again (seconds), and how long it waits after that.
    log: ClassVar[Logger] = Logger()

    @rounds.default
    def _make_rounds(self) -> Rounds:
        return Rounds(self.look, "The handing over of private files", EVERY, self.clock)

    def soon(self) -> None:
        """Look soon: somebody left, or is back."""
        self.rounds.soon(SOON)

    async def look(self) -> None:
        """Offer what is due. Raises `StoreAway`, `StorageFull`."""
        for copy in self.copies.owing():
            neighbour = self.neighbours.get(copy.primary)
            due, delay = self._waiting.get(copy.pubky, (0.0, EVERY))
            if neighbour is None or neighbour.peer.official or due > self.clock.seconds():
                continue
            try:
                is_done = await self._hand_over(neighbour, copy)
            except PeerError as error:
                self.log.info("Private files of {pubky} wait: {reason}", pubky=copy.pubky, reason=str(error))
                is_done = False
            if is_done:
                await self.copies.hand_over(copy.pubky)
                self._waiting.pop(copy.pubky, None)
            else:
                self._waiting[copy.pubky] = self.clock.seconds() + delay, min(2 * delay, LONGEST)

    async def note(self, pubky: str, key: str) -> None:
        """A homeserver has read the private log of an account to its end."""
        copy = self.copies.of(pubky)
        if copy is not None and copy.owes and copy.primary == key:
            await self.copies.hand_over(pubky)

    async def _introduce(self, neighbour: Neighbour, pubky: str) -> None:
        """Show the record that named us: it need not have met that. Raises `PeerError`."""
        payload = await self.copies.store.named(pubky)
        if payload is not None and FEATURE in (await neighbour.source.greet()).features:
            await neighbour.source.show([PublicKey.from_z32(pubky).raw + payload])

    async def _hand_over(self, neighbour: Neighbour, copy: Copy) -> bool:
        """Offer the private log of a copy, if its primary lacks it; whether nothing of it is left to do."""
        position = copy.private.position
        if position is None or not copy.private.is_whole:
            return True
        tail = Tail(neighbour.source, self.logs, self.shelf, self.homeserver, self.clock)
        try:
            await neighbour.source.events(copy.pubky, True, position)
        except LogCompacted:
            return True  # its log went on from ours
        except LogForked as fork:
            if set(fork.reigns) & set(copy.private.reigns):
                await tail.offer(copy.pubky, True, fork.reigns)
                return True
        except PeerRefused:
            await self._introduce(neighbour, copy.pubky)  # what is there it does not tell
        else:
            return True
        return (await tail.hand_over(copy.pubky))[1]
