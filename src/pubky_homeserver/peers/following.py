"""One log of one account, brought to where its primary stands.

Three ways lead there. The ordinary one is **steady**: the events after ours, in their order, each applied in one step
with the body that it brought. A copy that begins, or that the primary's log does not go back to, reads the **list** of
files instead: page after page, and then the events that happened meanwhile; at the end the digest of our files must be
the primary's, or we begin again. What was missing on the way is **filled** in afterwards.

Nothing that a peer says is believed that can be checked: a body must have the hash of its event, an event the next
number and a time that our clock could have, the files the digest.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar

from attrs import evolve, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from pkarr.asking import all_of
from pubky_homeserver.core.copies import CopiedLog, Copy, Logged, LoggedEvent, LogStanding, Position, Reign
from pubky_homeserver.core.errors import (
    BudgetSpent,
    DigestMismatch,
    LogCompacted,
    LogForked,
    NotFound,
    PeerBroken,
)
from pubky_homeserver.core.paths import is_private
from pubky_homeserver.core.records import Entry, Operation
from pubky_homeserver.interfaces import IBlobStore, ICopyStore, IFollower, IPeer
from pubky_homeserver.peers.bodies import Bodies, Underway
from pubky_homeserver.peers.comparing import END, Comparing
from pubky_homeserver.peers.lists import Lists
from pubky_homeserver.peers.tally import Counted, Tally

AT_ONCE = 8
"""Bodies of one log that are fetched at the same time."""

LISTS = 5
"""Times that a list is read again because the digest at its end was another one, before somebody should look."""

AHEAD = 3600
"""Seconds that an event may be ahead of our clock: should the account open here, its events go on above these."""

BEGINNING, OFTEN = 1_577_836_800, 1000
"""No log has had more events than so many a second since then (2020). Who escapes from a homeserver that counts in
billions has room for their own events, here and at those who follow us: the bound grows faster than they write."""

MOST_BYTES = 1 << 52
"""Bytes of an account, more than anybody has: numbers stay exact, in Lua, too, and fit into Redis' when it opens."""

_REASONS: dict[type[Exception], Counted] = {
    LogForked: Counted.FORKED,
    LogCompacted: Counted.COMPACTED,
    DigestMismatch: Counted.DIGEST,
}


@implementer(IFollower)
@frozen
class Follower:
    """Brings copies of a peer's accounts up to date. `may_keep`: whether so many more bytes are allowed."""

    peer: IPeer
    store: ICopyStore
    blobs: IBlobStore
    clock: IReactorTime
    inline_limit: int = 4096
    may_keep: Callable[[int], bool] = lambda _length: True
    read: Callable[[str], Awaitable[Copy | None]] = field()
    """Reads a copy from the store; whoever shows copies looks along, so that a log that never rests is shown too."""
    comparing: Comparing = field(kw_only=True)
    tally: Tally = field(factory=Tally, kw_only=True)
    underway: Underway = field(factory=Underway, kw_only=True)
    bodies: Bodies = field(init=False)
    log: ClassVar[Logger] = Logger()

    @read.default
    def _read_store(self) -> Callable[[str], Awaitable[Copy | None]]:
        return self.store.copy

    @bodies.default
    def _make_bodies(self) -> Bodies:
        facts = self.peer, self.blobs, self.inline_limit, self.may_keep, self.tally, self.underway
        return Bodies(*facts, clock=self.clock)

    async def catch_up(self, pubky: str, private: bool) -> None:
        """Be where the primary stands, and know it.

        A whole copy whose history is no beginning of the primary's is compared with it: see `comparing.py`.

        Raises what `IPeer` raises, `ComparisonBraked`, `BudgetSpent`, `StoreAway`, `StorageFull`; and `NotFound` if the
        copy is gone.
        """
        comparisons, taken = 0, set[str]()
        while comparisons < LISTS:
            state = await self._state(pubky, private)
            if not state.is_whole or state.position is None:
                await self._read_list(pubky, private, state)
                continue
            try:
                page = await self._events(pubky, private, state.position, state.reigns)
                if page.events:
                    await self._apply(pubky, private, page.events)
                    if page.end is None or page.events[-1].event.seq < page.end:
                        continue
                    state = await self._state(pubky, private)
                assert state.position is not None
                if await self.store.confirm(pubky, private, state.position, self._now()):
                    await self.comparing.settle(pubky, taken)
                    return
            except (LogCompacted, LogForked, DigestMismatch) as reason:
                self.log.warn("{pubky} is compared with its primary: {reason}", pubky=pubky, reason=str(reason))
                self.tally.count(_REASONS[type(reason)])
                comparisons += 1
                reigns = reason.reigns if isinstance(reason, LogForked) else ()
                taken |= await self.comparing.prepare(pubky, private, reigns)
                await self._begin_list(pubky, private)
        raise PeerBroken(f"its log of {pubky} does not fit its list")

    async def advance(self, pubky: str, private: bool) -> None:
        """Take the events after ours, as far as the peer has some, and compare nothing. Raises as `catch_up`."""
        while True:
            state = await self._state(pubky, private)
            if not state.is_whole or state.position is None:
                return
            page = await self._events(pubky, private, state.position, state.reigns)
            if page.events:
                await self._apply(pubky, private, page.events)
            if not page.events or (page.end is not None and page.events[-1].event.seq >= page.end):
                return

    async def verify(self, pubky: str, private: bool) -> int:
        """How many files of a whole copy differ from its primary's; if some do, `catch_up` compares the copy with it.

        Raises as `catch_up`.
        """
        different = await Lists(self.peer, self.store, self.comparing.logs, self.clock).differences(pubky, private)
        if different:
            await self.comparing.prepare(pubky, private)
            await self._begin_list(pubky, private)
        return different

    async def fill(self, pubky: str, private: bool = True) -> int:
        """Fetch the bodies that are missing, `private` ones or not; returns how many of those are still."""
        after, left = "", 0
        while page := await self.store.missing(pubky, after, AT_ONCE):
            after = page[-1].path
            page = [entry for entry in page if private or not is_private(entry.path)]
            filled = await all_of(self._fill(pubky, entry) for entry in page)
            await self.read(pubky)  # what they take counts for the next ones
            left += filled.count(False)
        return left

    async def _events(self, pubky: str, private: bool, position: Position, reigns: tuple[Reign, ...]) -> Logged:
        """The events after ours; the log's reigns are noted, for some of the events may be of a new one."""
        page = await self.peer.events(pubky, private, position)
        if page.reigns != reigns:
            try:
                if not await self.store.keep_reigns(pubky, private, position, page.reigns):
                    return evolve(page, events=())  # somebody else was faster
            except ValueError:
                raise PeerBroken("its reigns are not those of a log that goes on where ours ends") from None
        return page

    # --- events ---------------------------------------------------------------------------------------------------

    async def _apply(self, pubky: str, private: bool, events: Sequence[LoggedEvent], upto: int | None = None) -> None:
        """Apply events in their order, up to a number; bodies are fetched ahead, a few at a time.

        What a later event replaces needs no body.
        """
        if not self.may_keep(0):
            raise BudgetSpent  # events take room, too, and a log need not have an end
        self._must_be_past(max(one.event.id for one in events))
        last = {one.event.path: one.event.seq for one in events}
        for start in range(0, len(events), AT_ONCE):
            chunk = [one for one in events[start : start + AT_ONCE] if upto is None or one.event.seq <= upto]
            entries = await all_of(self._entry(pubky, private, one, last[one.event.path]) for one in chunk)
            for number, (one, entry) in enumerate(zip(chunk, entries, strict=True)):
                try:
                    applied = await self.store.apply(pubky, private, one.event, entry)
                except BaseException:  # this one may have been applied: the sweep will know
                    await self.bodies.leave(entries[number + 1 :])
                    raise
                if not applied:
                    await self.bodies.leave(entries[number:])
                    raise PeerBroken(f"event {one.event.seq} does not follow ours")
                self.tally.count(Counted.PUT if one.event.operation is Operation.PUT else Counted.DEL)

    async def _entry(self, pubky: str, private: bool, one: LoggedEvent, last: int) -> Entry | None:
        """The entry that an event leaves, with its body if that can be had; None for a DEL."""
        event = one.event
        if event.operation is Operation.DEL:
            return None
        assert event.content_hash is not None
        entry = Entry(event.path, event.content_hash, event.length, event.content_type, event.modified, seq=event.seq)
        if event.seq < last:
            return entry
        return await self.bodies.given(pubky, private, entry, one.body)

    # --- lists ----------------------------------------------------------------------------------------------------

    async def _begin_list(self, pubky: str, private: bool) -> None:
        page = await self.peer.entries(pubky, private, "")
        self._must_be_past(page.standing.position.event_id)
        if page.standing.position.seq > (self.clock.seconds() - BEGINNING) * OFTEN:
            raise PeerBroken("its log has more events than there can have been")
        await self.store.begin_list(pubky, private, page.standing)

    async def _read_list(self, pubky: str, private: bool, state: CopiedLog) -> None:
        """Read the list from where it was left, and the events since it was begun."""
        for _ in range(LISTS):
            if state.start is None:
                await self._begin_list(pubky, private)
                state = await self._state(pubky, private)
            try:
                standing = await self._read_pages(pubky, private, state)
                await self._replay(pubky, private, standing.position)
                if await self.store.end_list(pubky, private, standing):
                    return
                reason = "the digest at its end is another one"
            except (LogForked, LogCompacted) as error:
                reason = str(error)
            self.log.warn("The list of {pubky} is read again: {reason}", pubky=pubky, reason=reason)
            await self._begin_list(pubky, private)
            state = await self._state(pubky, private)
        raise PeerBroken(f"its list of {pubky} does not become whole")

    async def _read_pages(self, pubky: str, private: bool, state: CopiedLog) -> LogStanding:
        """Keep the pages of a list; returns where the log stood at the last one."""
        after, shelve = state.listed, self.comparing.shelve if state.is_compared else None
        while True:
            if not self.may_keep(0):
                raise BudgetSpent  # files take room without their bodies too, and a list need not have an end
            page = await self.peer.entries(pubky, private, after)
            if not page.entries:
                await self.store.keep_listed(pubky, private, (), END, shelve)
                return page.standing
            last = page.entries[-1].path
            if [one.path for one in page.entries] != sorted({one.path for one in page.entries}) or last <= after:
                raise PeerBroken("its list is not in order")
            await self.store.keep_listed(pubky, private, page.entries, last, shelve)
            await self._state(pubky, private)
            after = last

    async def _replay(self, pubky: str, private: bool, end: Position) -> None:
        """Apply what happened while the list was read."""
        while True:
            state = await self._state(pubky, private)
            assert state.position is not None
            if state.position.seq >= end.seq:
                return
            page = await self._events(pubky, private, state.position, state.reigns)
            if not page.events:
                raise LogForked
            await self._apply(pubky, private, page.events, upto=end.seq)

    # --- bodies ---------------------------------------------------------------------------------------------------

    async def _fill(self, pubky: str, entry: Entry) -> bool:
        whole = await self.bodies.fetched(pubky, is_private(entry.path), entry)
        if whole.body is None and whole.blob is None:
            return False
        if not await self.store.fill(pubky, whole):
            await self.bodies.leave([whole])
        return True

    async def _state(self, pubky: str, private: bool) -> CopiedLog:
        copy = await self.read(pubky)
        if copy is None:
            raise NotFound
        if copy.used > MOST_BYTES:
            raise PeerBroken("its files are larger than files can be")
        return copy.private if private else copy.public

    def _must_be_past(self, event_id: int) -> None:
        """Raise `PeerBroken` if a time is far ahead of our clock."""
        if event_id > self._now() + AHEAD * 1_000_000:
            raise PeerBroken("its events are more than an hour ahead of our clock")

    def _now(self) -> int:
        return int(self.clock.seconds() * 1_000_000)
