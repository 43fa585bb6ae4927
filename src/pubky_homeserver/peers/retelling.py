"""The public log of an account that lives at an official homeserver, retold as a log of our own.

An official homeserver counts the events of all its users together, and knows no digest of an account's files. So this
log is ours: its name and numbers are given here, and its digests are folded here from the files that the copy has. The
cursor of an event there is its id here. That suffices to go on after it, and to see whether it is still there: the
first thing that is asked for is the last event that we have, again. If that does not come, the homeserver was put back
to an older state, or is another one than that which wrote the event, and the copy is compared with its list.

Not every event is retold. Of a path, only one counts whose file is still there: a file is asked for when the newest
event of its path is known, so it is that event's, or that of an event which is on its way. What comes in between is
superseded. So what readers of the copy see at each moment are files that were there, in the order of their writing.

Only one process follows (`Peering`), and it has each log in one hand: two would give the same number twice, and the
store would refuse the second one.
"""

from collections.abc import Sequence
from secrets import token_hex
from typing import ClassVar, Self

from attrs import define, evolve, field, frozen
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from pkarr.asking import all_of
from pubky_homeserver.core.copies import CopiedLog, LogStanding, Position, Reign
from pubky_homeserver.core.digests import EMPTY, fold, mark
from pubky_homeserver.core.errors import (
    BudgetSpent,
    DigestMismatch,
    LogForked,
    NotFound,
    PeerAway,
    PeerBroken,
    PeerRefused,
    StorageFull,
)
from pubky_homeserver.core.paths import is_name
from pubky_homeserver.core.records import Entry, Event, Operation
from pubky_homeserver.interfaces import IEntryStore, IFollower, ILogStore
from pubky_homeserver.peers.bodies import TRIES
from pubky_homeserver.peers.comparing import END
from pubky_homeserver.peers.following import AHEAD, LISTS, Follower
from pubky_homeserver.peers.official import PAGE, UNKNOWN, Official, Told, give_up
from pubky_homeserver.peers.tally import Counted

AT_ONCE = 4
"""Files of one account that are asked for at the same time: it may count what we ask, and owes us nothing."""

NAMES = 200
"""Files of a page of its list: each is asked for by itself, and after each page the copy is where it can go on."""

OWN = 500
"""Files of ours that are read at a time."""

BEYOND = "/" + END
"""No path is above it; what is no file is."""

LOOKS = 3
"""Times that a file which differs is looked at again, before it is a difference."""

SETTLE = 2.0
"""Seconds between two of these looks."""

HELD = 1000
"""Files that are kept for an event which is on its way."""


@frozen
class _Hand:
    """An account that is worked on, and what it may forget."""

    pubky: str
    held: dict[str, Entry] = field(factory=dict)
    # Path → what was there when an event was told that was not its: a later one will be.
    waits: set[str] = field(factory=set)
    # Paths of which a later event must come, for the newest that we know is not what is there.


@define
class _Place:
    """Where our log is."""

    seq: int
    digest: bytes


@implementer(IFollower)
@frozen
class Retelling:
    """Brings copies of an official homeserver's accounts up to date. `follower` has what both kinds need."""

    source: Official
    follower: Follower
    logs: ILogStore
    entries: IEntryStore
    page: int = PAGE
    """Events that are read at once."""
    log: ClassVar[Logger] = Logger()

    @classmethod
    def of(cls, source: Official, follower: Follower, logs: ILogStore, entries: IEntryStore, page: int = PAGE) -> Self:
        """One whose comparisons read the list of an official homeserver."""
        retelling = cls(source, follower, logs, entries, page)
        comparing = evolve(follower.comparing, names=retelling.names)
        return evolve(retelling, follower=evolve(follower, comparing=comparing))

    async def catch_up(self, pubky: str, private: bool) -> None:
        """See `IFollower`; there is no private log."""
        if private:
            raise PeerRefused("an official homeserver shows nobody what is private")
        store, comparing = self.follower.store, self.follower.comparing
        for _ in range(LISTS):
            state = await self._state(pubky)
            try:
                if not state.is_whole:
                    await self._read_list(pubky, state)
                await self.advance(pubky, private)
                state = await self._state(pubky)
                assert state.position is not None
                if await store.confirm(pubky, private, state.position, self._now()):
                    return
            except (LogForked, DigestMismatch) as reason:
                self.log.warn("{pubky} is compared with its homeserver: {reason}", pubky=pubky, reason=str(reason))
                is_forked = isinstance(reason, LogForked)
                self.follower.tally.count(Counted.FORKED if is_forked else Counted.DIGEST)
                newest = await self.source.newest(pubky)  # an unknown user has no list, and loses nothing here
                state = await self._state(pubky)
                if state.is_whole or state.is_compared:
                    await comparing.prepare(pubky, private)
                await self._begin_list(pubky, newest)
        raise PeerBroken(f"its list of {pubky} does not become whole")

    async def advance(self, pubky: str, private: bool) -> None:
        """See `IFollower`."""
        state = await self._state(pubky)
        if private or not state.is_whole or state.position is None:
            return
        newest = await self.logs.event_numbered(pubky, False, state.position.seq)
        place = _Place(state.position.seq, state.position.digest)
        if newest is None:
            if state.position.event_id:
                raise LogForked
            await self._retell(pubky, place, 0)
            return
        await self._retell(pubky, place, newest.id - 1, newest.id, newest)

    async def verify(self, pubky: str, private: bool) -> int:
        """See `IFollower`: names and hashes. What only differs while an event is on its way is looked at again."""
        if private:
            return 0
        suspects = await self._suspects(pubky)
        for _ in range(LOOKS):
            if not suspects:
                return 0
            await deferLater(self.follower.clock, SETTLE)
            suspects = [path for path in suspects if await self._differs(pubky, path)]
        if suspects:
            newest = await self.source.newest(pubky)
            await self.follower.comparing.prepare(pubky, private)
            await self._begin_list(pubky, newest)
        return len(suspects)

    async def names(self, pubky: str, _private: bool, after: str) -> list[str]:
        """The paths of a page of its list above `after`; none at the end.

        After them come, as if they were there, the names of ours that are no files.
        """
        names = await self.source.names(pubky, after) if after < BEYOND else []
        return names or [one.path for one in await self.follower.store.own(pubky, False, max(after, BEYOND), OWN)]

    async def fill(self, pubky: str, private: bool = True) -> int:
        """See `IFollower`."""
        return await self.follower.fill(pubky, private)

    async def _suspects(self, pubky: str) -> list[str]:
        """The files of which copy and list have not the same."""
        after, found = "", list[str]()
        while True:
            names = await self.source.names(pubky, after, NAMES)
            upto = names[-1] if names else BEYOND
            page, seen = list[str](), after
            while own := await self.follower.store.own(pubky, False, seen, OWN):
                page += [one.path for one in own if one.path <= upto and not is_name(one.path)]
                seen = own[-1].path
                if seen > upto:
                    break
            paths = sorted({*names, *page})
            for start in range(0, len(paths), AT_ONCE):
                chunk = paths[start : start + AT_ONCE]
                differ = await all_of(self._differs(pubky, path) for path in chunk)
                found += [path for path, is_other in zip(chunk, differ, strict=True) if is_other]
            if not names:
                return found
            after = upto

    async def _differs(self, pubky: str, path: str) -> bool:
        """Whether a path has another body there, or only one of the two has one."""
        there, ours = await self.source.head(pubky, path), await self.entries.entry(pubky, path)
        return _named(there) != _named(ours)

    # --- lists ----------------------------------------------------------------------------------------------------

    async def _begin_list(self, pubky: str, newest: Told | None) -> None:
        """Begin a reign with all that is there. Its first number is where we begin, before the newest event."""
        position = (await self._state(pubky)).position
        number = 1 if position is None else position.seq + 1
        before = 0 if newest is None else newest.id - 1
        log_id = token_hex(16)
        start = LogStanding(Position(log_id, number, before, EMPTY), (Reign(log_id, number),), number)
        await self.follower.store.begin_list(pubky, False, start)

    async def _read_list(self, pubky: str, state: CopiedLog) -> None:
        """Read the list from where it was left, and tell what happened since it was begun."""
        if state.start is None:
            await self._begin_list(pubky, await self.source.newest(pubky))
            state = await self._state(pubky)
        assert state.start is not None
        assert state.position is not None
        await self._read_names(pubky, state)
        place = _Place(state.position.seq, await self._digest(pubky))
        last = state.position.event_id
        if last == state.start.event_id:  # nothing was told yet: the next one must be the one that was the newest
            await self._retell(pubky, place, last, last + 1 if last else None)
        else:
            await self._retell(pubky, place, last - 1, last, is_told=True)
        state = await self._state(pubky)
        assert state.position is not None
        standing = LogStanding(evolve(state.position, digest=place.digest), state.reigns, place.seq)
        if not await self.follower.store.end_list(pubky, False, standing):
            raise LogForked  # somebody else has written: begin again

    async def _read_names(self, pubky: str, state: CopiedLog) -> None:
        after, store = state.listed, self.follower.store
        shelve = self.follower.comparing.shelve if state.is_compared else None
        number = state.start.seq if state.start is not None else 0
        while after < BEYOND:
            if not self.follower.may_keep(0):
                raise BudgetSpent
            names = await self.source.names(pubky, after, NAMES)
            found: list[Entry] = []
            for start in range(0, len(names), AT_ONCE):
                heads = await all_of(self.source.head(pubky, path) for path in names[start : start + AT_ONCE])
                found += [evolve(one, seq=number) for one in heads if one is not None]  # else a DEL is coming
            after = names[-1] if names else BEYOND
            await store.keep_listed(pubky, False, found, after, shelve)
            await self.follower.read(pubky)
        while ours := await store.own(pubky, False, after, OWN):  # not files: what only we know, it cannot lack
            after = ours[-1].path
            await store.keep_listed(pubky, False, ours, after, shelve)
        await store.keep_listed(pubky, False, (), END, shelve)

    async def _digest(self, pubky: str) -> bytes:
        """The digest of the files that are here."""
        digest, after = EMPTY, ""
        while page := await self.follower.store.own(pubky, False, after, OWN):
            digest = fold(digest, *map(_mark, page))
            after = page[-1].path
        return digest

    # --- events ---------------------------------------------------------------------------------------------------

    async def _retell(
        self,
        pubky: str,
        place: _Place,
        after: int,
        first: int | None = None,
        ours: Event | None = None,
        is_told: bool = False,
    ) -> None:
        """Retell the events after a cursor; `place` moves along.

        The first one must have the id `first`, if that is given; it is not retold if it is `ours`, which it must be
        then, or `is_told`. Raises `LogForked` if it is another one.
        """
        hand = _Hand(pubky)
        try:
            while True:
                await self.follower.read(pubky)
                if not self.follower.may_keep(0):
                    raise BudgetSpent
                page = await self._page(pubky, after, first)
                is_last = len(page) < self.page
                if page:
                    after = page[-1].id
                if first is not None and ours is not None and not _is_same(page[0], ours):
                    raise LogForked
                if first is not None and (ours is not None or is_told):
                    page = page[1:]
                first = None
                await self._retell_page(hand, place, page)
                if is_last and not hand.waits:
                    return
                if not page:
                    raise PeerBroken("its files are not those of its events")
        finally:
            await self.follower.bodies.leave([*hand.held.values()])

    async def _page(self, pubky: str, after: int, first: int | None) -> list[Told]:
        """Events after a cursor. Raises `LogForked` if the first one must be there and is not.

        One that is silent about an event may have lost its database for a moment, so it is asked in another way.
        """
        page = await self.source.events(pubky, after, self.page)
        if first is not None and (not page or page[0].id != first):
            newest = await self.source.newest(pubky)
            if newest is not None and newest.id >= first:
                page = await self.source.events(pubky, after, self.page)
            if not page or page[0].id != first:
                raise LogForked
        if page and page[-1].id > self._now() + AHEAD * 1_000_000:
            raise PeerBroken("its cursors are times, and more than an hour ahead of our clock")
        return page

    async def _retell_page(self, hand: _Hand, place: _Place, page: Sequence[Told]) -> None:
        last = {told.path: told.id for told in page}
        hand.waits.difference_update(last)
        for start in range(0, len(page), AT_ONCE):
            chunk = page[start : start + AT_ONCE]
            wanted = [one for one in chunk if last[one.path] == one.id and self._is_wanted(hand, one)]
            found = dict(zip((one.path for one in wanted), await self._get_all(hand, wanted), strict=True))
            try:
                for told in chunk:
                    await self._retell_one(hand, place, told, found if last[told.path] == told.id else {})
            finally:
                await self.follower.bodies.leave([*found.values()])

    def _is_wanted(self, hand: _Hand, told: Told) -> bool:
        held = hand.held.get(told.path)
        return told.operation is Operation.PUT and (held is None or held.content_hash != told.content_hash)

    async def _retell_one(self, hand: _Hand, place: _Place, told: Told, found: dict[str, Entry | None]) -> None:
        """Retell an event, if what it left was found; what was found besides is held for a later one."""
        if told.operation is Operation.DEL:
            await self._apply(hand.pubky, place, told, None)
            return
        held = hand.held.get(told.path)
        if held is not None and held.content_hash == told.content_hash:
            del hand.held[told.path]
            await self._apply(hand.pubky, place, told, held)
            return
        if told.path not in found:
            return  # a later one is in sight
        entry = found.pop(told.path)
        if entry is None:
            hand.waits.add(told.path)
        elif told.content_hash in (entry.content_hash, UNKNOWN):
            await self._apply(hand.pubky, place, told, entry)
        else:
            hand.waits.add(told.path)
            await self._hold(hand, entry)

    async def _hold(self, hand: _Hand, entry: Entry) -> None:
        """Keep what was found for the event that it is of."""
        before = hand.held.pop(entry.path, None)
        hand.held[entry.path] = entry
        gone = [before] if before is not None else []
        if len(hand.held) > HELD:
            gone.append(hand.held.pop(next(iter(hand.held))))
        await self.follower.bodies.leave(gone)

    async def _apply(self, pubky: str, place: _Place, told: Told, entry: Entry | None) -> None:
        """One event of our log: it has the next number, and the digest after it."""
        before = await self.entries.entry(pubky, told.path)
        digest = fold(place.digest, *(_mark(one) for one in (before, entry) if one is not None))
        event = Event(told.id, told.operation, pubky, told.path, place.seq + 1, digest)
        if entry is not None:
            entry = evolve(entry, seq=event.seq)
            event = evolve(
                event,
                content_hash=entry.content_hash,
                length=entry.length,
                content_type=entry.content_type,
                modified=entry.modified,
            )
        if not await self.follower.store.apply(pubky, False, event, entry):
            raise PeerBroken(f"event {told.id} does not follow ours")
        place.seq, place.digest = event.seq, digest
        self.follower.tally.count(Counted.DEL if entry is None else Counted.PUT)

    # --- bodies ---------------------------------------------------------------------------------------------------

    async def _get_all(self, hand: _Hand, wanted: Sequence[Told]) -> list[Entry | None]:
        return await all_of(self._get(hand.pubky, one.path) for one in wanted)

    async def _get(self, pubky: str, path: str) -> Entry | None:
        """What a path holds there, with its body if that can be had; None for nothing: a DEL is coming."""
        bodies, entry = self.follower.bodies, None
        for _ in range(TRIES):
            found = await self.source.get(pubky, path)
            if found is None:
                return None
            entry, pieces = found
            if not self.follower.may_keep(entry.length):
                await give_up(pieces)
                return entry
            try:
                whole = await bodies.keep(entry, pieces)
            except StorageFull:
                await give_up(pieces)
                return entry
            except PeerAway:
                await self.source.features()  # if it does not answer either, it is not this file's fault
                whole = None
            finally:
                await pieces.aclose()
            if whole is not None:
                return whole
            self.follower.tally.count(
                Counted.WRONG_BODY
            )  # it was replaced while it was read, or is rotten or cut there
        return entry

    async def _state(self, pubky: str) -> CopiedLog:
        copy = await self.follower.read(pubky)
        if copy is None:
            raise NotFound
        return copy.public

    def _now(self) -> int:
        return int(self.follower.clock.seconds() * 1_000_000)


def _is_same(told: Told, event: Event) -> bool:
    """Whether an event of theirs is this one of ours."""
    if (told.id, told.operation, told.path) != (event.id, event.operation, event.path):
        return False
    return told.content_hash in (event.content_hash, UNKNOWN)


def _named(entry: Entry | None) -> tuple[bytes, int] | None:
    return None if entry is None else (entry.content_hash, entry.length)


def _mark(entry: Entry) -> bytes:
    return mark(entry.path, entry.content_hash, entry.length, entry.modified, entry.content_type)
