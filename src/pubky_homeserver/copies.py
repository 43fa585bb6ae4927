"""Which accounts are copies of other homeservers' accounts, and how far: asked at every read, and so kept in memory.

A copy is an account's files without the account. It shows the public ones to everybody, with a word of how new they
are; it takes no writes, for only the primary knows what the user said last.
"""

from typing import ClassVar

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pubky_homeserver.core.copies import Copy
from pubky_homeserver.core.records import Entry
from pubky_homeserver.interfaces import ICopyStore

STALE = 600.0
"""Seconds without a word of the primary after which a copy says so."""

PAGE = 500


@define(eq=False)
class Copies:
    """The copies of this process. Whoever changes one in the store tells it here (`refresh`)."""

    store: ICopyStore
    clock: IReactorTime
    _known: dict[str, Copy] = field(factory=dict, init=False)
    # Pubky → copy.
    log: ClassVar[Logger] = Logger()

    async def load(self) -> None:
        """Read all that are there. Raises `StoreAway`."""
        after = ""
        while page := await self.store.copies(after, PAGE):
            self._known.update((copy.pubky, copy) for copy in page)
            after = page[-1].pubky

    async def refresh(self, pubky: str) -> Copy | None:
        """Read one again, or learn that it is gone. Raises `StoreAway`."""
        copy = await self.store.copy(pubky)
        if copy is None:
            self._known.pop(pubky, None)
        else:
            self._known[pubky] = copy
        return copy

    def of(self, pubky: str | None) -> Copy | None:
        """The copy of an account; None if there is none."""
        return self._known.get(pubky) if pubky is not None else None

    def all(self) -> list[Copy]:
        """Every one."""
        return list(self._known.values())

    def state(self, copy: Copy) -> str:
        """`bootstrapping` while its list is not whole, `stale` without a word of the primary, else `current`."""
        if not copy.public.is_whole:
            return "bootstrapping"
        age = self.clock.seconds() - copy.public.confirmed / 1_000_000
        return "stale" if age > STALE else "current"


def has_body(entry: Entry) -> bool:
    """Whether the body of an entry is here."""
    return entry.body is not None or entry.blob is not None
