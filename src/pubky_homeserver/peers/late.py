"""Late writes: what one homeserver acknowledged, and the log of the account's primary lacks.

They turn up when a copy asks for the events after its own and learns that its history is no beginning of the
primary's: the primary was rewound to an old state, or was fenced late, or a copy that was less far was chosen. Where
both histories still agree is found by halving, for what the primary lacks is the end of ours. Of each path only the
newest of our events counts: it superseded the others, here as there.

The primary applies none of it: whose term is over has no say. It keeps both bodies on its shelf, and its receipt says
that it does. What it began to take it takes to the end, though who offered it hangs up: a large body may need longer
than anybody waits, and who offers it again finds it there.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, ClassVar

from attrs import define, evolve, field, frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from pubky_homeserver.core.copies import LoggedEvent, LogStanding, Position, Reign
from pubky_homeserver.core.errors import (
    LogCompacted,
    LogForked,
    PeerBroken,
    PeerError,
    PeerRefused,
    Refused,
    StorageFull,
    TooManyRequests,
)
from pubky_homeserver.core.paths import TAKEDOWN, revoked_by
from pubky_homeserver.core.records import Entry, Event, Operation
from pubky_homeserver.core.shelf import Reason, Shelved, id_of
from pubky_homeserver.interfaces import IEntryStore, IGrantStore, ILogStore, IPeer, IShelfStore
from pubky_homeserver.peers.bodies import Bodies
from pubky_homeserver.peers.messages import MAX_LATE

LATE = "late"
"""What a homeserver says that takes late writes."""

MAX_BODIES = 1 << 20
"""Bytes of small bodies in one request, and one body more; larger ones are fetched."""

MAX_FETCHED = 8 << 20
"""Bytes of larger bodies in one request, and one body more: they are fetched while it waits for its answer."""

MOST = 32
"""Late writes of one peer that are taken at a time: of those to whose end nobody waits, too."""

AGAIN = 10
"""Seconds until a peer that offers more than that should ask again."""

PAGE = 250
"""Events that are read of our own log at a time."""

PIECE = 65_536
"""Bytes of a body that are copied at a time."""


@frozen
class Tail:
    """The end of our copies' logs, as far as a peer lacks it. `key` is our own."""

    peer: IPeer
    logs: ILogStore
    shelf: IShelfStore
    key: str
    clock: IReactorTime
    log: ClassVar[Logger] = Logger()

    async def offer(self, pubky: str, private: bool, reigns: Sequence[Reign]) -> set[str]:
        """Offer what a log with these reigns lacks; what it took, by the ids on its shelf.

        What it did not take of what we hold is left to the comparison that comes; a DEL that it did not take is
        shelved here. Raises `PeerAway`, `StorageFull`.
        """
        standing = await self.logs.standing(pubky, private)
        if standing is None or set(standing.reigns).isdisjoint(reigns):
            return set()
        common = await self._common(pubky, private, standing)
        newest = {event.path: event.seq async for event, _ in self._after(pubky, private, common)}
        return await self._offer(pubky, private, common, newest)

    async def hand_over(self, pubky: str) -> tuple[set[str], bool]:
        """Offer a whole private log: what it took, by the ids on its shelf, and whether that is all of it.

        That is each file, and what was removed in the last reign, which was ours. What it took need not lie here.
        Raises as `offer`.
        """
        standing = await self.logs.standing(pubky, True)
        first = 0 if standing is None else standing.reigns[-1].first
        newest: dict[str, int] = {}
        async for event, _ in self._after(pubky, True, 0):
            newest.pop(event.path, None)
            if event.operation is Operation.PUT or event.seq >= first:
                newest[event.path] = event.seq
        taken = await self._offer(pubky, True, 0, newest)
        for one in taken:
            await self.shelf.drop(pubky, one)
        return taken, len(taken) >= len(newest)

    async def _offer(self, pubky: str, private: bool, since: int, newest: Mapping[str, int]) -> set[str]:
        """Offer those of our events after one that `newest` names, by path and number; what it took."""
        taken: set[str] = set()
        page: list[LoggedEvent] = []
        inline = fetched = 0
        async for event, body in self._after(pubky, private, since):
            if newest.get(event.path) != event.seq:
                continue
            page.append(LoggedEvent(event, body))
            inline += len(body or b"")
            fetched += event.length if body is None else 0
            if len(page) >= MAX_LATE or inline >= MAX_BODIES or fetched >= MAX_FETCHED:
                taken |= await self._tell(pubky, private, page)
                page, inline, fetched = [], 0, 0
        if page:
            taken |= await self._tell(pubky, private, page)
        self.log.warn(
            "{peer} lacks the last changes of {pubky}, {count} files of ours; it keeps {taken} of them on its shelf",
            peer=self.peer.key,
            pubky=pubky,
            count=len(newest),
            taken=len(taken),
        )
        return taken

    async def has_common(self, pubky: str, private: bool, reigns: Sequence[Reign]) -> bool:
        """Whether our log has one of these reigns."""
        standing = await self.logs.standing(pubky, private)
        return standing is not None and not set(standing.reigns).isdisjoint(reigns)

    async def removals(self, pubky: str, private: bool) -> dict[str, Event]:
        """The paths that our log says are gone, with the event that says so."""
        newest = {event.path: event async for event, _ in self._after(pubky, private, 0)}
        return {path: one for path, one in newest.items() if one.operation is Operation.DEL and path != TAKEDOWN}

    async def shelve(self, removal: Event) -> None:
        """Keep a removal here that the peer does not have. Raises `StorageFull`."""
        await self.shelf.shelve(late_one(removal, self.key, None, None, self._now()))

    async def _common(self, pubky: str, private: bool, standing: LogStanding) -> int:
        """The id of our last event that the peer has too, as far down as our log is complete; 0 if it has none."""
        low, high, found = standing.floor, standing.position.seq, 0
        while high - low > 1:
            middle = (low + high) // 2
            event = await self.logs.event_numbered(pubky, private, middle)
            if event is None:
                low = middle  # no log that is complete lacks it: it has changed meanwhile
            elif await self._has(event, private, standing.reigns):
                low, found = middle, event.id
            else:
                high = middle
        return found

    async def _has(self, event: Event, private: bool, reigns: Sequence[Reign]) -> bool:
        """Whether an event of ours is one of the peer's."""
        log_id = next((one.log_id for one in reversed(reigns) if one.first <= event.seq), reigns[0].log_id)
        try:
            await self.peer.events(event.pubky, private, Position(log_id, event.seq, event.id, event.digest))
        except LogForked:
            return False
        except LogCompacted:
            return True  # its log was complete there once, and the end of ours is what it lacks
        return True

    async def _after(
        self, pubky: str, private: bool, event_id: int
    ) -> AsyncGenerator[tuple[Event, bytes | None], None]:
        """Our events after one, with their bodies where those are small and still what the path holds."""
        while page := await self.logs.logged(pubky, private, event_id, PAGE):
            for one in page:
                yield one.event, one.body
            event_id = page[-1].event.id

    async def _tell(self, pubky: str, private: bool, page: Sequence[LoggedEvent]) -> set[str]:
        """Offer some; those that were taken."""
        try:
            kept = await self.peer.late(pubky, private, page)
        except (PeerRefused, PeerBroken) as error:
            self.log.warn(
                "{peer} takes no late changes of {pubky}: {error}", peer=self.peer.key, pubky=pubky, error=error
            )
            kept = set()
        for one in page:
            event = one.event
            if event.id not in kept and event.operation is Operation.DEL:
                await self.shelve(event)
        return {id_of_event(one.event) for one in page if one.event.id in kept}

    def _now(self) -> int:
        return int(self.clock.seconds() * 1_000_000)


@frozen
class LateWrites:
    """Takes late writes of a peer onto our shelf. `may_keep`: whether it may lay so many more bytes there."""

    bodies: Bodies
    logs: ILogStore
    entries: IEntryStore
    shelf: IShelfStore
    clock: IReactorTime
    may_keep: Callable[[int], bool] = field(default=lambda _length: True)
    grants: IGrantStore | None = None
    """The grants that have a bearer here; None if late revocations wait on the shelf like all else."""
    _taking: "dict[tuple[str, str], _Taking]" = field(factory=dict, init=False)
    # Account and id on the shelf → what is on its way there.
    log: ClassVar[Logger] = Logger()

    async def take(
        self,
        pubky: str,
        private: bool,
        events: Sequence[LoggedEvent],
        is_told: bool = True,
        lived_there: bool = False,
    ) -> set[int]:
        """Those of the events (by their ids) that are in our history, make no difference, or lie on our shelf now.

        `is_told`: whether the peer may know what our log has. If not, the answer depends on what it brings alone.
        `lived_there`: whether the account did: then what was revoked there ends at once.
        Whoever gives up waiting stops nothing. Raises `TooManyRequests`.
        """
        kept = set()
        for one in events:
            try:
                if await self._finish(pubky, private, one, is_told, lived_there):
                    kept.add(one.event.id)
            except StorageFull:
                break
            except PeerError as error:  # who asks us does not answer: it will ask again
                self.log.info("Late writes of {pubky} wait: {reason}", pubky=pubky, reason=str(error))
                break
        return kept

    def stop(self) -> Deferred[None]:
        """End what is under way; fires when nothing is any more."""
        ending = [one.running for one in self._taking.values()]
        for running in ending:
            running.cancel()
        return DeferredList(ending, consumeErrors=True).addCallback(lambda _results: None)

    def _finish(self, pubky: str, private: bool, one: LoggedEvent, is_told: bool, lived_there: bool) -> Deferred[bool]:
        """Take one to its end, whatever happens to who waits for it; who offers it meanwhile waits for the same."""
        name = pubky, id_of_event(one.event)
        taking = self._taking.get(name)
        if taking is not None:
            return taking.wait()
        if len(self._taking) >= MOST:
            raise TooManyRequests(AGAIN)
        taking = self._taking[name] = _Taking()
        waiting = taking.wait()

        def end(result: bool | Failure) -> None:
            del self._taking[name]
            self.bodies.underway.settle(pubky)
            if isinstance(result, Failure) and not result.check(Refused, PeerError, CancelledError):
                self.log.failure("A late write of {pubky} failed", result, pubky=pubky)
            taking.end(result)

        taking.running = Deferred.fromCoroutine(self._take(pubky, private, one, is_told, lived_there)).addBoth(end)
        return waiting

    async def _take(self, pubky: str, private: bool, one: LoggedEvent, is_told: bool, lived_there: bool) -> bool:
        """Take one. What makes no difference is shelved all the same if it supersedes something that lies there."""
        event, origin = one.event, self.bodies.peer.key
        if event.path == TAKEDOWN:
            return True  # what an operator decided there; here ours does
        if lived_there and await self._is_ended(pubky, event):
            return True
        if not is_told:
            return await self._take_blindly(pubky, private, one)
        own = await self.logs.event(pubky, private, event.id)
        if own is not None and (own.path, own.content_hash) == (event.path, event.content_hash):
            return True
        if await self.shelf.shelved(pubky, id_of_event(event)) is not None:
            return True
        ours = await self.entries.entry(pubky, event.path)
        is_same = (None if ours is None else ours.content_hash) == event.content_hash
        if is_same and not await self.shelf.is_disputed(pubky, event.path):
            return True
        late = late_one(event, origin, _named(event), None if ours is None else _bare(ours), self._now())
        if not self.may_keep(await self.shelf.shelf_used(origin) + late.bytes):
            return False
        entry = await self._with_body(pubky, private, late.entry, one.body)
        if late.entry is not None and entry is None:
            return False
        await self._shelve(evolve(late, entry=entry), ours)
        return True

    async def _take_blindly(self, pubky: str, private: bool, one: LoggedEvent) -> bool:
        """Take one of who must not learn what we have: first its body is had, and nothing is compared before."""
        event, origin = one.event, self.bodies.peer.key
        known = await self.shelf.shelved(pubky, id_of_event(event))
        if known is not None and known.origin == origin:
            return True
        late = late_one(event, origin, _named(event), None, self._now())
        if not self.may_keep(await self.shelf.shelf_used(origin) + late.bytes):
            return False
        entry = await self._with_body(pubky, private, late.entry, one.body)
        if late.entry is not None and entry is None:
            return False
        own = await self.logs.event(pubky, private, event.id)
        ours = await self.entries.entry(pubky, event.path)
        is_known = own is not None and (own.path, own.content_hash) == (event.path, event.content_hash)
        is_disputed = await self.shelf.is_disputed(pubky, event.path)
        is_same = not is_disputed and (None if ours is None else ours.content_hash) == event.content_hash
        if is_known or is_same:
            await self.bodies.leave([entry])
        else:
            await self._shelve(evolve(late, entry=entry, ours=ours), ours)
        return True

    async def _with_body(self, pubky: str, private: bool, entry: Entry | None, body: bytes | None) -> Entry | None:
        """An entry with its body; None if that cannot be had, or if there is no entry."""
        if entry is None:
            return None
        entry = await self.bodies.given(pubky, private, entry, body)
        return None if entry.body is None and entry.blob is None else entry

    async def _shelve(self, late: Shelved, ours: Entry | None) -> None:
        """Lay something on the shelf beside what its path holds here, with both bodies."""
        kept = None if ours is None else await self._duplicate(ours)
        if not await self.shelf.shelve(evolve(late, ours=kept)):
            await self.bodies.leave([late.entry, kept])

    async def _is_ended(self, pubky: str, event: Event) -> bool:
        """End the grant that an event says is revoked, if it is known here; whether it was.

        That opens nothing for anybody, and waits for no operator: whoever has it may be who it was taken from. But whom
        the account was never entrusted to could shut its user out by it.
        """
        grant_id = revoked_by(event.path)
        if self.grants is None or grant_id is None or event.operation is Operation.DEL:
            return False
        known = await self.grants.grant(grant_id)
        if known is None or known.grant.pubky != pubky:
            return False
        await self.grants.forbid(pubky, grant_id)
        self.log.info("A grant of {pubky} ends: it was revoked where the account lived", pubky=pubky)
        return True

    async def _duplicate(self, entry: Entry) -> Entry:
        """An entry with a body of its own; without one if that is not here."""
        reader = None if entry.blob is None else await self.bodies.blobs.open(entry.blob)
        if reader is None:
            return evolve(entry, blob=None)
        writer = await self.bodies.blobs.create()
        try:
            for at in range(0, reader.length, PIECE):
                await writer.write(await reader.read(at, min(PIECE, reader.length - at)))
            return evolve(entry, blob=await writer.keep())
        except BaseException:
            await writer.discard()
            raise
        finally:
            reader.close()

    def _now(self) -> int:
        return int(self.clock.seconds() * 1_000_000)


@define(eq=False)
class _Taking:
    """A late write on its way to the shelf, and who waits for it."""

    running: Deferred[Any] = field(factory=lambda: succeed(None), init=False)
    _waiting: list[Deferred[bool]] = field(factory=list, init=False)

    def wait(self) -> Deferred[bool]:
        """Fires with what became of it; whoever cancels that waits no more."""
        waiting: Deferred[bool] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def end(self, result: bool | Failure) -> None:
        """Tell all who wait."""
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(result)


def id_of_event(event: Event) -> str:
    """What an event is called on a shelf."""
    return id_of(event.path, event.seq, event.content_hash)


def late_one(event: Event, origin: str, entry: Entry | None, ours: Entry | None, now: int) -> Shelved:
    """A late event as it lies on a shelf."""
    return Shelved(event.pubky, id_of_event(event), Reason.LATE, origin, event.path, entry, ours, now, event.id)


def _named(event: Event) -> Entry | None:
    """The entry that an event leaves, without body; None for a DEL."""
    if event.content_hash is None:
        return None
    return Entry(event.path, event.content_hash, event.length, event.content_type, event.modified, seq=event.seq)


def _bare(entry: Entry) -> Entry:
    return evolve(entry, body=None, blob=None)
