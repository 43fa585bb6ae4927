"""Keeps the records of our users alive: the network forgets what nobody publishes again.

Only its owner can change a record, and nobody needs the owner to pass it on: the same bytes are published again. So
every few hours each account's newest packet is looked for, in the store and in every network; if it says that its
owner lives here it is published, and read back. What was found is kept in the store, so that a record survives when
the whole network forgot it, or when it could not be reached for a day. Somebody who moved away is left alone, and
that is kept too, or their old record would be the newest one known here.

A round is spread over time, for relays count the requests of an address, and it begins at any account, for a server
that is started again and again must not always serve the same ones first. If a round takes longer than the interval,
the log, `/readyz` and the metrics say so.
"""

import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from enum import Enum
from typing import ClassVar

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from pkarr.client import Client
from pkarr.interfaces import INetwork, NetworkError, Policy, Unavailable, UnreadableItem
from pkarr.keys import PublicKey
from pkarr.packet import SignedPacket, newest_of
from pubky_homeserver.core.authority import homeserver_of
from pubky_homeserver.core.errors import StorageFull, StoreAway
from pubky_homeserver.core.health import Republication
from pubky_homeserver.interfaces import IAccountStore
from pubky_homeserver.metrics import ServerMetrics
from pubky_homeserver.packets import Packets

INTERVAL = 14_400.0
"""Seconds from one round to the next: the protocol's four hours."""

FIRST = 60.0
"""Seconds from the start to the first round: who starts has other things to do."""

AT_ONCE = 12
"""Accounts that are looked after at a time."""

SPACING = 2.0
"""Seconds from one account to the next, at most: relays allow an address two requests a second."""

ENOUGH = 10
"""Nodes of the DHT that must keep a record; fewer are lost too easily."""

TRIES = 4
FIRST_DELAY = 0.2
"""Seconds to the second try; doubled after each further failure up to `LONGEST_DELAY`."""
LONGEST_DELAY = 5.0

RETRY = 300.0
"""Seconds, at most, after which the records that failed in a round are tried again."""

MOST_FAILED = 100_000
"""Accounts that are noted for that; the others wait for the next round."""

STORE_DELAY = 5.0
"""Seconds after which a store that was away is asked again."""

PAGE = 100
"""Accounts that are read at once."""


class Outcome(Enum):
    """What became of one account's record."""

    PUBLISHED = "published"
    MISSING = "missing"  # nobody has one
    MOVED = "moved"  # it names another homeserver, or none
    UNREADABLE = "unreadable"  # what its owner signed last is no packet
    FAILED = "failed"


@define(eq=False)
class _Round:
    """All accounts once."""

    began: float
    users: int
    outcomes: Counter[Outcome] = field(factory=Counter)
    failed: list[str] = field(factory=list)
    """Accounts whose record is to be tried again."""
    is_late: bool = False

    @property
    def done(self) -> int:
        """How many accounts were looked after."""
        return self.outcomes.total()

    def summary(self) -> str:
        """What became of them, in a line."""
        counted = ", ".join(f"{self.outcomes[outcome]} {outcome.value}" for outcome in Outcome)
        return f"{self.done} of {self.users}: {counted}"


@define(eq=False)
class Republisher(Service):
    """Publishes the records of all accounts again, every `interval` seconds."""

    homeserver: PublicKey
    accounts: IAccountStore
    packets: Packets
    relays: Sequence[INetwork]
    dht: INetwork | None
    clock: IReactorTime
    metrics: ServerMetrics = field(factory=ServerMetrics)
    interval: float = INTERVAL
    enough: int = ENOUGH
    """Nodes that must keep a record, if there are so many."""
    jitter: Callable[[], float] = random.random
    """A number from 0 to 1 that spreads the work of many homeservers."""
    oldest: float | None = field(default=None, init=False)
    """When the newest round began (seconds) after which no record was left to be published; None before the first."""
    _running: Deferred[None] | None = field(default=None, init=False)
    _round: _Round | None = field(default=None, init=False)
    # The one that runs, or the last one.
    _working: set[Deferred[None]] = field(factory=set, init=False)
    # One for each account that is looked after.
    log: ClassVar[Logger] = Logger()

    def startService(self) -> None:
        """Begin; the first round comes a little later."""
        super().startService()
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addErrback(self._end)

    def stopService(self) -> Deferred[None]:
        """Stop; fires when nothing is under way any more."""
        super().stopService()
        ending = [] if self._running is None else [self._running]
        for deferred in ending:
            deferred.cancel()  # first, or it begins with the next account as soon as one ends
        ending += self._working
        for deferred in ending:
            deferred.cancel()
        return DeferredList(ending, consumeErrors=True).addCallback(lambda _results: None)

    def republication(self) -> Republication | None:
        """How the newest round goes, or went; None before the first one."""
        if self._round is None:
            return None
        tried = self._round.done - self._round.outcomes[Outcome.MISSING]
        return Republication(
            began=self._round.began,
            is_late=self._round.is_late or self._is_over(self._round),
            is_failing=self._round.outcomes[Outcome.FAILED] * 10 > tried,
            summary=self._round.summary(),
        )

    def _end(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("The records of users are not published any more", failure)

    async def _run(self) -> None:
        await deferLater(self.clock, FIRST)
        while True:
            began = self.clock.seconds()
            this = await self._republish_all()
            await self._catch_up(this, began + self.interval)
            await deferLater(self.clock, max(0.0, began + self.interval - self.clock.seconds()))

    async def _republish_all(self) -> _Round:
        """One round."""
        users = await self._count()
        this = self._round = _Round(self.clock.seconds(), users)
        spacing = min(SPACING, self.interval / 2 / max(users, 1))
        slots = DeferredSemaphore(AT_ONCE)
        async for pubky in self._all_accounts(int(self.jitter() * users)):
            await self._begin(pubky, this, slots)
            self._look_at_time(this)
            await deferLater(self.clock, spacing * (0.5 + self.jitter()))
        await DeferredList([*self._working])
        self._look_at_time(this)
        self._note_oldest(this)
        self.metrics.user_records_round(self.clock.seconds() - this.began)
        log = self.log.warn if this.outcomes[Outcome.FAILED] else self.log.info
        log("The records of users were published again, {summary}", summary=this.summary())
        return this

    async def _catch_up(self, this: _Round, end: float) -> None:
        """Try what failed in a round until it works, or the round's time is over."""
        while this.failed and self.clock.seconds() + RETRY < end:
            await deferLater(self.clock, RETRY * (1 + self.jitter()) / 2)
            again, this.failed = this.failed, []
            self.log.info("The records of {count} users are tried again", count=len(again))
            slots = DeferredSemaphore(AT_ONCE)
            for pubky in again:
                await self._begin(pubky, this, slots, again=True)
            await DeferredList([*self._working])
            self._note_oldest(this)

    async def _begin(self, pubky: str, this: _Round, slots: DeferredSemaphore, again: bool = False) -> None:
        """Look after one account as soon as there is a slot."""
        await slots.acquire()
        working = Deferred.fromCoroutine(self._look_after(pubky, this, again))
        self._working.add(working)
        working.addBoth(self._finish, working, slots)

    def _finish(self, _result: object, working: Deferred[None], slots: DeferredSemaphore) -> None:
        self._working.discard(working)
        slots.release()

    def _note_oldest(self, this: _Round) -> None:
        """See whether a round has brought all records out that it could."""
        if not this.outcomes[Outcome.FAILED]:
            self.oldest = this.began

    def _is_over(self, this: _Round) -> bool:
        """Whether a round has accounts left though its time is over."""
        return self.clock.seconds() > this.began + self.interval and this.done < this.users

    def _look_at_time(self, this: _Round) -> None:
        """Say it once if a round takes too long."""
        if not this.is_late and self.clock.seconds() > this.began + self.interval:
            this.is_late = True
            self.metrics.user_records_late()
            self.log.warn(
                "The records of users are not published every {interval:g} s: {done} of {users} in that time. The "
                "network is slow or away, or there are more accounts than one process can look after.",
                interval=self.interval,
                done=this.done,
                users=this.users,
            )

    async def _all_accounts(self, start: int) -> AsyncIterator[str]:
        """Every account once, beginning at one in the middle."""
        place: int | None = start
        while place is not None:
            page, place = await self._page(place, PAGE)
            for pubky in page:
                yield pubky
        place = 0
        while place is not None and place < start:
            page, place = await self._page(place, min(PAGE, start - place))
            for pubky in page:
                yield pubky

    async def _page(self, after: int, limit: int) -> tuple[list[str], int | None]:
        while True:
            try:
                return await self.accounts.accounts(after, limit)
            except StoreAway:
                await deferLater(self.clock, STORE_DELAY)

    async def _count(self) -> int:
        while True:
            try:
                return (await self.accounts.totals()).users
            except StoreAway:
                await deferLater(self.clock, STORE_DELAY)

    async def _look_after(self, pubky: str, this: _Round, again: bool) -> None:
        """One account, to its end. Raises nothing but CancelledError."""
        client = Client(self.clock, self.relays, self.dht)
        try:
            outcome = await self._try(client, PublicKey.from_z32(pubky))
        except CancelledError:
            raise
        except Exception:  # a fault with one account must not end the round of all
            self.log.failure("Unexpected failure with the record of {pubky}", pubky=pubky)
            outcome = Outcome.FAILED
        finally:
            client.close()
        if again:
            this.outcomes[Outcome.FAILED] -= 1
        this.outcomes[outcome] += 1
        if outcome is Outcome.FAILED and len(this.failed) < MOST_FAILED:
            this.failed.append(pubky)
        self.metrics.user_record(outcome.value)

    async def _try(self, client: Client, key: PublicKey) -> Outcome:
        """Try until it works, a few times."""
        delay = FIRST_DELAY
        for left in reversed(range(TRIES)):
            try:
                return await self._republish(client, key)
            except (NetworkError, StoreAway) as error:
                self.log.debug("The record of {key}: {error}; {left} tries left", key=key, error=error, left=left)
            if left:
                await deferLater(self.clock, delay * (1 + self.jitter()) / 2)
                delay = min(2 * delay, LONGEST_DELAY)
        return Outcome.FAILED

    async def _republish(self, client: Client, key: PublicKey) -> Outcome:
        """One try. Raises `NetworkError` and `StoreAway`."""
        stored = await self.packets.of(key.z32)
        try:
            packet = await _find(client, key, stored)
        except UnreadableItem:
            return Outcome.UNREADABLE
        if packet is None:
            return Outcome.MISSING
        if stored is None or packet.more_recent_than(stored):
            await self._keep(packet)
        if homeserver_of(packet) != self.homeserver.z32:
            return Outcome.MOVED
        spread = await client.spread(packet)
        if spread.failure is not None:
            raise spread.failure
        if spread.nodes < self.enough:
            raise Unavailable(f"only {spread.nodes} nodes keep it")
        seen = await client.resolve(key, Policy.NETWORK_ONLY)
        if seen is None:
            raise Unavailable("it is not found after it was published")
        if seen.more_recent_than(packet):
            await self._keep(seen)
        return Outcome.PUBLISHED

    async def _keep(self, packet: SignedPacket) -> None:
        try:
            await self.packets.learn(packet)
        except StorageFull:
            pass  # it is published nevertheless


async def _find(client: Client, key: PublicKey, stored: SignedPacket | None) -> SignedPacket | None:
    """The newest packet of a key, in the store or anywhere. Raises `UnreadableItem` if something else is newer.

    The relays' caches are asked too: they remember what the DHT has forgotten.
    """
    found = [stored]
    try:
        found.append(await client.resolve(key, Policy.CACHE_ONLY))
    except NetworkError:
        pass
    unreadable: UnreadableItem | None = None
    try:
        found.append(await client.resolve(key, Policy.NETWORK_ONLY))
    except UnreadableItem as error:
        unreadable = error
    newest = newest_of(found)
    if unreadable is not None and (newest is None or unreadable.seq > newest.timestamp):
        raise unreadable
    return newest
