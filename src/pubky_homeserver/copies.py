"""Which accounts are copies of other homeservers' accounts, and how far: asked at every read, and so kept in memory.

A copy is an account's files without the account. It shows the public ones to everybody, with a word of how new they
are; it takes no writes, for only the primary knows what the user said last.
"""

from collections import Counter
from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from pubky_homeserver.core.copies import Copy
from pubky_homeserver.interfaces import ICopyStore

STALE = 600.0
"""Seconds without a word of the primary after which a copy says so."""

PAGE = 500


@define(eq=False)
class Copies:
    """The copies of this process. Whoever changes one in the store tells it here (`refresh`).

    Other processes of the homeserver have their own. Who tells them is told of what they cannot see, by its key.
    """

    store: ICopyStore
    clock: IReactorTime
    changed: Callable[[str], None] | None = field(default=None, init=False)
    """Is told of a copy that is another one in the store than it was."""
    flagged: Callable[[str], None] | None = field(default=None, init=False)
    """Is told of a copy that fell behind, or is up to date again."""
    beaten: Callable[[str], None] | None = field(default=None, init=False)
    """Is told of a homeserver that has told of all changes until now."""
    _known: dict[str, Copy] = field(factory=dict, init=False)
    # Pubky → copy.
    _heard: dict[str, float] = field(factory=dict, init=False)
    # Homeserver → when it last said (seconds) that it has told of all changes.
    _behind: dict[str, float] = field(factory=dict, init=False)
    # Copies of which we know that they are not up to date, or do not know that they are → since when (seconds).
    _told: dict[tuple[str, bool], int] = field(factory=dict, init=False)
    # A log of a copy that is not up to date → the number of its newest event, as its primary said.
    _used: Counter[str] = field(factory=Counter, init=False)
    # Homeserver → bytes that copies of its accounts take.
    _claimed: set[str] = field(factory=set, init=False)
    # Copies at which their users signed up.
    _owing: set[str] = field(factory=set, init=False)
    # Copies with private files that their primaries may lack.
    _held: Counter[str] = field(factory=Counter, init=False)
    # Homeserver → bytes of them that are here.
    _count: Counter[str] = field(factory=Counter, init=False)
    # Homeserver → copies of its accounts.

    async def load(self) -> None:
        """Read all that are there, and forget those that are not. Raises `StoreAway`."""
        after, gone = "", {*self._known}
        while page := await self.store.copies(after, PAGE):
            for copy in page:
                self._note(copy.pubky, copy)
                gone.discard(copy.pubky)
            after = page[-1].pubky
        for pubky in gone:
            await self.read(pubky)

    async def refresh(self, pubky: str) -> Copy | None:
        """Read one again, or learn that it is gone. Raises `StoreAway`."""
        before = self._known.get(pubky)
        copy = await self.read(pubky)
        if self.changed is not None and copy != before:
            self.changed(pubky)
        return copy

    async def read(self, pubky: str) -> Copy | None:
        """The same, when other processes know already."""
        copy = await self.store.copy(pubky)
        self._note(pubky, copy)
        return copy

    def of(self, pubky: str | None) -> Copy | None:
        """The copy of an account; None if there is none."""
        return self._known.get(pubky) if pubky is not None else None

    def all(self) -> list[Copy]:
        """Every one."""
        return list(self._known.values())

    def claimed(self) -> list[Copy]:
        """Those at which their users signed up."""
        return [self._known[pubky] for pubky in self._claimed]

    def owing(self) -> list[Copy]:
        """Those of accounts that left us, whose private files their new primaries may lack."""
        return [self._known[pubky] for pubky in self._owing]

    async def hand_over(self, pubky: str) -> None:
        """Note that the primary of one of those has them, or keeps them. Raises `StoreAway`."""
        await self.store.hand_over(pubky)
        await self.refresh(pubky)

    def heard(self, primary: str) -> float:
        """When a homeserver last told of all that changed (seconds); 0 if it did not since we began."""
        return self._heard.get(primary, 0.0)

    def used_by(self, primary: str) -> int:
        """Bytes that the copies of a homeserver's accounts take, as quotas count them."""
        return self._used.get(primary, 0)

    def held_by(self, primary: str) -> int:
        """Bytes of them that are here: without the bodies that are not, but with events, and what is no file."""
        return self._held.get(primary, 0)

    def count_of(self, primary: str) -> int:
        """How many accounts of a homeserver have a copy here."""
        return self._count[primary]

    def hear(self, primary: str) -> None:
        """Note that a homeserver has told of all that changed until now."""
        self._heard[primary] = self.clock.seconds()
        if self.beaten is not None:
            self.beaten(primary)

    def fall_behind(self, pubky: str) -> None:
        """Note that a copy is not up to date, or may not be."""
        if pubky in self._known and pubky not in self._behind:
            self._behind[pubky] = self.clock.seconds()
            if self.flagged is not None:
                self.flagged(pubky)

    def doubt(self) -> None:
        """Note that of no copy it is known that it is up to date."""
        now = self.clock.seconds()
        for pubky in self._known:
            self._behind.setdefault(pubky, now)

    def hear_of(self, pubky: str, private: bool, seq: int) -> None:
        """Note the number of a log's newest event, as the primary says; what it was before counts no more."""
        copy = self._known.get(pubky)
        if copy is not None:
            log = copy.private if private else copy.public
            self._told.pop((pubky, private), None)
            if seq > (0 if log.position is None else log.position.seq):
                self._told[copy.pubky, private] = seq

    def keep_up(self, pubky: str) -> None:
        """Note that a copy is where its primary said that it stands."""
        for private in (False, True):
            self._told.pop((pubky, private), None)
        if self._behind.pop(pubky, None) is not None and self.flagged is not None:
            self.flagged(pubky)

    def is_behind(self, pubky: str) -> bool:
        """Whether a copy is not up to date, or may not be."""
        return pubky in self._behind

    def behind_for(self, copy: Copy) -> float:
        """Seconds for which a copy has not been where its primary is, or it is not known to be; 0 if it is there."""
        since = self._behind.get(copy.pubky)
        return 0.0 if since is None else max(0.0, self.clock.seconds() - since)

    def lag(self, copy: Copy) -> int:
        """Events that its primary has and a copy has not, as far as the primary has said."""
        lag = 0
        for private, log in ((False, copy.public), (True, copy.private)):
            told = self._told.get((copy.pubky, private), 0)
            lag += max(0, told - (0 if log.position is None else log.position.seq))
        return lag

    def confirmed(self, copy: Copy) -> int:
        """When the primary last said that it has nothing newer (Unix seconds, by our clock); 0 if it never did."""
        heard = 0.0 if copy.pubky in self._behind else self._heard.get(copy.primary, 0.0)
        return int(max(copy.public.confirmed / 1_000_000, heard if copy.public.confirmed else 0.0))

    def state(self, copy: Copy) -> str:
        """`bootstrapping` while its list is not whole, `stale` without a word of the primary, else `current`."""
        if not copy.public.is_whole:
            return "bootstrapping"
        return "stale" if self.clock.seconds() - self.confirmed(copy) > STALE else "current"

    def _note(self, pubky: str, copy: Copy | None) -> None:
        """Keep what is known of a copy, or that it is gone."""
        old = self._known.pop(pubky, None)
        if old is not None:
            self._used[old.primary] -= old.used
            self._held[old.primary] -= old.held
            self._count[old.primary] -= 1
        self._claimed.discard(pubky)
        self._owing.discard(pubky)
        if copy is None:
            self._behind.pop(pubky, None)
            for private in (False, True):
                self._told.pop((pubky, private), None)
            return
        pubky = copy.pubky  # so that it lies in memory once
        if old is None or old.primary != copy.primary:
            self._behind[pubky] = self.clock.seconds()  # until somebody says that it is not
        if copy.claimed:
            self._claimed.add(pubky)
        if copy.owes:
            self._owing.add(pubky)
        self._known[pubky] = copy
        self._used[copy.primary] += copy.used
        self._held[copy.primary] += copy.held
        self._count[copy.primary] += 1
