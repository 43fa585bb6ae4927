"""Bodies that are missing, fetched from whoever has them.

A copy's bodies come from its primary; an account's own, lost with a disk or not copied yet when the account opened
here, from the homeservers that follow it. What is public any peer may have. A body has the hash of its entry or is no
body, so it does not matter who gives it.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

from attrs import define, evolve, frozen
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pkarr.asking import all_of
from pubky_homeserver.copies import Copies
from pubky_homeserver.core.copies import Copy
from pubky_homeserver.core.errors import PeerError
from pubky_homeserver.core.paths import is_private
from pubky_homeserver.core.records import Entry
from pubky_homeserver.interfaces import IIntegrityStore
from pubky_homeserver.peers.bodies import Bodies
from pubky_homeserver.peers.filling import Filling
from pubky_homeserver.peers.neighbours import Neighbour
from pubky_homeserver.peers.tally import Counted, Tally

AT_ONCE = 4
"""Bodies that are fetched at the same time."""

LOOK = 600.0
"""Seconds from one look for what is missing to the next."""

SOON = 1.0
"""Seconds from a reason to look to the look: several reasons come together."""

PATIENCE = 60.0
"""Seconds that any peer has to give a body, besides those that it takes at `PACE`."""

PACE = 32e3
"""Bytes a second: who is slower is not asked again in the same round, for somebody else may have it too."""

FILL = 600.0
"""Seconds that a copy is waited for to be filled by its primary."""

PAGE = 500
"""Accounts that are looked at in one step."""


@frozen
class Losses:
    """Notes bodies that are not on the disk when somebody wants to read them."""

    copies: Copies
    integrity: IIntegrityStore
    tally: Tally
    heal_soon: Callable[[], None]

    async def note(self, pubky: str, entry: Entry) -> None:
        """One of them, of an account or a copy; if it is what the path still holds it is looked for. `StoreAway`."""
        if not await self.integrity.lose(pubky, entry):
            return
        self.tally.count(Counted.ROTTEN)
        if self.copies.of(pubky) is not None:
            await self.copies.refresh(pubky)
        self.heal_soon()


@define(eq=False)
class Healer:
    """Looks whether bodies are missing, and fetches them."""

    copies: Copies
    integrity: IIntegrityStore
    neighbours: Mapping[str, Neighbour]
    bodies: Mapping[str, Bodies]
    """By the keys of the same peers: as those that copies are made with, but without bounds."""
    tally: Tally
    clock: IReactorTime
    log: ClassVar[Logger] = Logger()

    async def heal(self, pubky: str, slow: set[str]) -> int:
        """Fetch what is missing of an account or a copy; how many bodies are still. As `ICopyStore.fill`.

        A copy is filled from its primary first. Peers that are `slow` are not waited for; who is found so is added.
        """
        copy = self.copies.of(pubky)
        filling = None if copy is None else self._filling(copy)
        if copy is not None and filling is not None:
            filling.begin(pubky)
            await self._wait_for(filling, copy, slow)
            if filling.is_busy(pubky):
                return copy.missing
        return await self._gather(pubky, slow)

    async def _wait_for(self, filling: Filling, copy: Copy, slow: set[str]) -> None:
        """Wait until a copy is filled, unless that takes long, or did for another one of the same primary."""

        def give_up(_result: object, _seconds: float) -> None:
            slow.add(copy.primary)

        if copy.primary not in slow:
            await filling.ended(copy.pubky).addTimeout(FILL, self.clock, give_up)

    async def _gather(self, pubky: str, slow: set[str]) -> int:
        """Fetch what is missing from others than a copy's primary; how many bodies are still."""
        copy = self.copies.of(pubky)
        if copy is not None and not copy.missing:
            return 0
        silent: set[str] = set()
        after, left = "", 0
        while page := await self.copies.store.missing(pubky, after, AT_ONCE):
            after = page[-1].path
            left += (await all_of(self._fetch(pubky, copy, one, silent, slow) for one in page)).count(False)
        if copy is not None:
            await self.copies.refresh(pubky)
            if (primary := self.neighbours.get(copy.primary)) is not None:
                primary.bodies.underway.settle(pubky)
        return left

    def _filling(self, copy: Copy) -> Filling | None:
        """What fills a copy from its primary; None if nobody follows that."""
        primary = self.neighbours.get(copy.primary)
        return None if primary is None or primary.mirror is None else primary.mirror.filling

    def _is_tried(self, copy: Copy) -> bool:
        """Whether its primary does not have what a copy lacks, or cannot be asked; else it is filled from there."""
        filling = self._filling(copy)
        if filling is None or not filling.running or filling.is_waiting(copy.pubky):
            return True
        filling.begin(copy.pubky)
        return False

    async def _fetch(self, pubky: str, copy: Copy | None, entry: Entry, silent: set[str], slow: set[str]) -> bool:
        """Fetch one body from whoever has it; whether it is here now. Who cannot be asked is asked no more."""
        private = is_private(entry.path)
        for key in self._who(pubky, copy, entry):
            if key in silent or key in slow:
                continue
            fetching = Deferred.fromCoroutine(self._bodies(key, copy).fetched(pubky, private, entry))
            try:
                whole = await fetching.addTimeout(PATIENCE + entry.length / PACE, self.clock)
            except TimeoutError:
                self.log.info("{key} is too slow to give a body of {pubky}", key=key, pubky=pubky)
                slow.add(key)
                continue
            except PeerError as error:
                self.log.debug("{key} has no bodies of {pubky}: {reason}", key=key, pubky=pubky, reason=str(error))
                silent.add(key)
                continue
            if whole.body is None and whole.blob is None:
                continue
            if not await self.copies.store.fill(pubky, whole):
                await self.bodies[key].leave([whole])
            self.tally.count(Counted.HEALED)
            return True
        return False

    def _who(self, pubky: str, copy: Copy | None, entry: Entry) -> Iterator[str]:
        """The peers that may have a body, and give it to us."""
        for key, neighbour in self.neighbours.items():
            if copy is not None and key == copy.primary:
                continue  # it was asked
            if not is_private(entry.path) or (copy is None and neighbour.peer.may_read(pubky, True)):
                yield key

    def _bodies(self, key: str, copy: Copy | None) -> Bodies:
        """What fetches from a peer: for a copy within the bounds of its primary, for an account without."""
        primary = None if copy is None else self.neighbours.get(copy.primary)
        if primary is None:
            return self.bodies[key]
        return evolve(self.bodies[key], may_keep=primary.may_keep, underway=primary.bodies.underway)

    async def look(self) -> None:
        """Heal every account that lives here, and every copy, of which a body is missing. Raises as `heal`.

        Copies that are filled from their primaries are left out.
        """
        slow: set[str] = set()
        place: int | None = 0
        while place is not None:
            lacking, place = await self.integrity.lacking(place, PAGE)
            for pubky in lacking:
                await self._heal(pubky, slow)
        for copy in self.copies.all():
            if copy.missing and copy.public.is_whole and self._is_tried(copy):
                await self._heal(copy.pubky, slow)

    async def _heal(self, pubky: str, slow: set[str]) -> None:
        try:
            left = await self._gather(pubky, slow)
        except PeerError as error:
            self.log.warn("Bodies of {pubky} stay missing: {reason}", pubky=pubky, reason=str(error))
            return
        if left and self.copies.of(pubky) is None:
            self.log.error("{left} bodies of {pubky} are missing, and no peer has them", left=left, pubky=pubky)
