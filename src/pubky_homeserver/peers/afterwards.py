"""What is still written at an official homeserver after its user moved here.

It knows nothing of fences: whoever holds an old record, or an old session, writes there as before, and hears that
all is well. So for a day after the newest record its stream is read on, from where the account came away, and what it
tells lies on our shelf: nothing is applied, and nothing is lost.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from attrs import define, evolve, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pkarr.asking import all_of
from pubky_homeserver.copies import Copies
from pubky_homeserver.core.copies import LoggedEvent
from pubky_homeserver.core.digests import EMPTY
from pubky_homeserver.core.errors import PeerError
from pubky_homeserver.core.records import Event, Operation
from pubky_homeserver.interfaces import IEntryStore, ILogStore, IShelfStore
from pubky_homeserver.packets import Packets, home_of
from pubky_homeserver.peers.bodies import Underway
from pubky_homeserver.peers.late import LateWrites
from pubky_homeserver.peers.neighbours import Neighbour
from pubky_homeserver.peers.official import UNKNOWN, Official, Told

EVERY = 30.0
"""Seconds from one look to the next."""

DAY = 86_400
"""Seconds after the newest record for which it is looked: clients remember records for an hour, and sessions longer."""

PAGE = 100
"""Events that are read at once."""

AT_ONCE = 4
"""Files that are asked for at the same time."""


@define(eq=False)
class Afterwards:
    """Reads on the streams of the official homeservers among the peers."""

    neighbours: Mapping[str, Neighbour]
    officials: Mapping[str, Official]
    """By the keys of those of the peers that are."""
    copies: Copies
    packets: Packets
    logs: ILogStore
    entries: IEntryStore
    shelf: IShelfStore
    clock: IReactorTime
    _seen: dict[tuple[str, str], int] = field(factory=dict, init=False)
    # Homeserver and account → the cursor of the last event that was read on.
    log: ClassVar[Logger] = Logger()

    async def look(self) -> None:
        """Look once at all accounts that came here lately. Raises `StoreAway`, `StorageFull`."""
        for key, official in self.officials.items():
            for pubky in sorted(official.peer.follow.keys):
                try:
                    await self._read_on(key, official, pubky)
                except PeerError as error:
                    self.log.info("What is written there of {pubky} waits: {error}", pubky=pubky, error=str(error))

    async def _read_on(self, key: str, official: Official, pubky: str) -> None:
        """Shelve what happened there since the account came here. Raises `PeerError`, `Refused`."""
        after = await self._since(key, pubky)
        while after is not None and (page := await official.events(pubky, after, PAGE)):
            neighbour = self.neighbours[key]
            bodies = evolve(neighbour.bodies, underway=Underway())
            late = LateWrites(bodies, self.logs, self.entries, self.shelf, self.clock, neighbour.may_keep)
            events = await self._described(official, pubky, page)
            try:
                taken = await late.take(pubky, False, events)
            finally:
                late.stop()
            if len(taken) < len(events):
                return  # the rest is for the next time
            after = self._seen[key, pubky] = page[-1].id

    async def _since(self, key: str, pubky: str) -> int | None:
        """The cursor from which on events are late; None if the account did not come here lately."""
        packet = await self.packets.of(pubky)
        is_ours = packet is not None and home_of(packet) == self.packets.homeserver
        if packet is None or not is_ours or self.clock.seconds() - packet.timestamp / 1_000_000 > DAY:
            self._seen.pop((key, pubky), None)
            return None
        standing = await self.logs.standing(pubky, False)
        if standing is None or len(standing.reigns) < 2 or self.copies.of(pubky) is not None:
            return None
        if (seen := self._seen.get((key, pubky))) is not None:
            return seen
        last = await self.logs.event_numbered(pubky, False, standing.reigns[-1].first - 1)
        return None if last is None else last.id

    async def _described(self, official: Official, pubky: str, page: Sequence[Told]) -> list[LoggedEvent]:
        """The newest events of their paths; those whose file is another one meanwhile are superseded."""
        newest = {told.path: told for told in page}
        chosen = [told for told in page if newest[told.path] is told]
        found: list[LoggedEvent] = []
        for start in range(0, len(chosen), AT_ONCE):
            chunk = chosen[start : start + AT_ONCE]
            found += [one for one in await all_of(self._describe(official, pubky, told) for told in chunk) if one]
        return found

    async def _describe(self, official: Official, pubky: str, told: Told) -> LoggedEvent | None:
        if told.operation is Operation.DEL:
            return LoggedEvent(Event(told.id, told.operation, pubky, told.path, told.id, EMPTY))
        entry = await official.head(pubky, told.path)
        if entry is None or told.content_hash not in (entry.content_hash, UNKNOWN):
            return None
        return LoggedEvent(
            Event(
                told.id,
                told.operation,
                pubky,
                told.path,
                told.id,
                EMPTY,
                content_hash=entry.content_hash,
                length=entry.length,
                content_type=entry.content_type,
                modified=entry.modified,
            )
        )
