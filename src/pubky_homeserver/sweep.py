"""The sweep: removes bodies that nobody refers to any more, and never one that somebody does.

Two kinds. Bodies of overwritten and deleted files have a **grace**, so that a follower can still fetch what an event
named; the store knows them, and when their grace is over they go. **Orphans** are bodies that the store does not know:
their writer died between keeping the body and telling the store. They go when they are older than a day, far longer
than any commit takes, and when two sweeps in a row found them unknown.

When the disk's reserve is reached, the grace ends early, the oldest first, until there is room: what somebody deleted
to make room has to go, and a follower that misses a body asks again.

Many orphans at once mean something else: a Redis that was restored from an old backup knows few of the bodies. So when
more than a tenth of all are unknown the sweep removes none of them, says so, and waits for the operator's word.
"""

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from pubky_homeserver.core.errors import StoreAway
from pubky_homeserver.interfaces import IBlobStore, IEntryStore

ORPHAN_AGE = 86_400
"""Seconds: no commit takes a day, and an operator has that long to notice a mistake."""

LARGEST_SHARE = 10
"""More orphans than one in so many of the bodies that are old enough are not removed without the operator's word."""

LOOK = 5.0
"""Seconds between two looks whether the disk has room."""

_FOREVER = 1 << 62
# Microseconds: when every grace is over.

FEW = 20
"""Bodies that go at once where room has to be made: not many more than needed."""

PAGE = 500
"""Bodies that one question to the store is about (the store's own bound)."""

MAX_SUSPECTS = 100_000
"""Orphans that are remembered from one sweep to the next, about 10 MB; the others have to wait."""


@define(eq=False)
class Sweep(Service):
    """Sweeps at intervals, whatever happens to a single sweep."""

    blobs: IBlobStore
    entries: IEntryStore
    clock: IReactorTime
    interval: float
    """Seconds from the end of one sweep to the next."""
    held: int = field(default=0, init=False)
    """Orphans that are too many to be removed without the operator's word; 0 if all is well."""
    _suspects: frozenset[str] = field(default=frozenset(), init=False)
    # Orphans of the last look.
    _allowed: bool = field(default=False, init=False)
    _life: Deferred[None] | None = field(default=None, init=False)
    _looks: LoopingCall | None = field(default=None, init=False)
    _sweeping: bool = field(default=False, init=False)

    log = Logger()

    def startService(self) -> None:
        """Sweep from now on; the first time after one interval."""
        super().startService()
        self._life = Deferred.fromCoroutine(self._live())
        self._life.addErrback(_stopped)
        self._looks = LoopingCall(self._look)
        self._looks.clock = self.clock
        self._looks.start(LOOK, now=False)

    def stopService(self) -> None:
        """Stop at once. A sweep may end anywhere: the next one does what is left."""
        super().stopService()
        if self._looks is not None and self._looks.running:
            self._looks.stop()
        if self._life is not None:
            self._life.cancel()
            self._life = None

    def allow(self) -> None:
        """The operator's word: the held orphans may go with the next sweep."""
        self._allowed = True

    async def _live(self) -> None:
        while True:
            await deferLater(self.clock, self.interval)
            try:
                await self.sweep()
            except CancelledError:
                raise
            except StoreAway:
                self.log.warn("The sweep waits for the store")
            except Exception:
                self.log.failure("A sweep failed; the next one is in {interval} s", interval=self.interval)

    def _look(self) -> Deferred[None] | None:
        """Make room if there is none, and none is being made."""
        if self._sweeping or self.blobs.has_room():
            return None
        making = Deferred.fromCoroutine(self.make_room())
        making.addErrback(lambda failure: self.log.failure("No room could be made", failure=failure))
        return making

    async def make_room(self) -> None:
        """Remove bodies in grace, the oldest first, until the disk has room again."""
        removed = 0
        try:
            while not self.blobs.has_room() and (page := await self.entries.expired_blobs(_FOREVER, FEW)):
                await self._remove(page)
                removed += len(page)
        except StoreAway:
            pass  # the next look tries again
        if removed:
            self.log.warn("The disk was full: removed {removed} old bodies before their time", removed=removed)

    async def sweep(self) -> None:
        """Sweep once."""
        self._sweeping = True
        try:
            expired = await self._remove_expired()
            orphans = await self._remove_orphans()
        finally:
            self._sweeping = False
        if expired or orphans:
            self.log.info("Removed {expired} old bodies and {orphans} orphans", expired=expired, orphans=orphans)

    async def _remove_expired(self) -> int:
        """Remove the bodies whose grace is over: first the file, then its mention in the store."""
        now, removed = int(self.clock.seconds() * 1_000_000), 0
        while page := await self.entries.expired_blobs(now, PAGE):
            await self._remove(page)
            removed += len(page)
        return removed

    async def _remove(self, page: list[str]) -> None:
        await self.blobs.remove(page)
        await self.entries.forget_blobs(page)

    async def _remove_orphans(self) -> int:
        """Remove the orphans of this look that were orphans at the last one."""
        seen, unknown, suspects = 0, 0, set[str]()
        after = ""
        while page := await self.blobs.older_than(ORPHAN_AGE, after, PAGE):
            orphans = set(page) - await self.entries.known_blobs(page)
            seen, unknown, after = seen + len(page), unknown + len(orphans), page[-1]
            suspects.update(sorted(orphans)[: MAX_SUSPECTS - len(suspects)])
        confirmed, self._suspects = sorted(suspects & self._suspects), frozenset(suspects)
        if unknown * LARGEST_SHARE > seen and not self._allowed:
            self._hold(unknown, seen)
            return 0
        self.held = 0
        if confirmed:
            self._allowed = False
        for start in range(0, len(confirmed), PAGE):
            await self.blobs.remove(confirmed[start : start + PAGE])
        return len(confirmed)

    def _hold(self, unknown: int, seen: int) -> None:
        if unknown != self.held:
            self.log.error(
                "{unknown} of {seen} bodies older than a day are unknown to Redis, too many to be left-overs of broken "
                "writes. None is removed. If Redis was restored from an old backup, restore a newer one",
                unknown=unknown,
                seen=seen,
            )
        self.held = unknown


def _stopped(failure: Failure) -> None:
    failure.trap(CancelledError)
