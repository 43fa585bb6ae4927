"""Whether those who write here still live here: their newest records are looked up.

A user who moves tells no homeserver, but publishes a record. The peers that keep copies pass it on; for all others it
must be looked for, and most of all for those who write: every write that the old homeserver takes after the move is one
that the new one lacks. So whoever wrote since the last look is looked up, a few in a second.

What was looked up before it began a process does not know. So it looks up, where it has hands free, all who wrote in
the hours before, who wrote last first.
"""

from collections import OrderedDict
from heapq import heappop, heappush
from typing import ClassVar

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from pkarr.interfaces import INetwork, NetworkError, Policy
from pkarr.keys import PublicKey
from pubky_homeserver.core.errors import Refused
from pubky_homeserver.interfaces import IEntryStore, ILogStore
from pubky_homeserver.packets import Packets

EACH = 1.0
"""Seconds from one handful of look-ups to the next."""

HANDFUL = 5
"""Look-ups that are begun at a time."""

AT_ONCE = 12
"""Look-ups under way, at most: as many as the republisher has."""

AGAIN = 10.0
"""Seconds, at least, between two look-ups of an account."""

PAGE = 500
"""Events read at a time."""

BEFORE = 14_400.0
"""Seconds before the start: who wrote earlier was looked up since, when their record was published again."""

ACCOUNTS = 250
"""Accounts that are read at a time, for when they were written last."""

SCANNED = 100
"""Accounts that wait, and are looked at for whether it is their turn, at a time."""

MOST = 100_000
"""Accounts that wait, and accounts of which it is known when they were looked up."""


@define(eq=False)
class Watch(Service):
    """Looks up those who write, from its start on."""

    entries: IEntryStore
    logs: ILogStore
    packets: Packets
    network: INetwork
    clock: IReactorTime
    _due: "OrderedDict[str, None]" = field(factory=OrderedDict, init=False)
    # Accounts that were written since they were looked up, the first ones first.
    _looked: "OrderedDict[str, float]" = field(factory=OrderedDict, init=False)
    # Account → when it was looked up (seconds), the longest ago first.
    _working: set[Deferred[None]] = field(factory=set, init=False)
    _last: int | None = field(default=None, init=False)
    # The newest event that was seen; None before the first.
    _earlier: list[tuple[int, str]] = field(factory=list, init=False)
    # Accounts that were written before the start, as a heap: their last event, negative, and who.
    _place: int | None = field(default=0, init=False)
    # How far those were looked for; None if that is done.
    _since: float = field(default=0.0, init=False)
    # When to be among them they must have been written (seconds).
    _loop: LoopingCall = field(init=False)
    log: ClassVar[Logger] = Logger()

    @_loop.default
    def _make_loop(self) -> LoopingCall:
        loop = LoopingCall(lambda: Deferred.fromCoroutine(self._tick()))
        loop.clock = self.clock
        return loop

    def startService(self) -> None:
        """Begin."""
        super().startService()
        self._since = self.clock.seconds() - BEFORE
        self._loop.start(EACH, now=False)

    def stopService(self) -> Deferred[None]:
        """Stop; fires when nothing is under way any more."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        ending = [*self._working]
        for one in ending:
            one.cancel()
        return DeferredList(ending, consumeErrors=True).addCallback(lambda _results: None)

    async def look(self, pubky: str) -> None:
        """Look up one account now, and learn what is found; never fails."""
        self._looked[pubky] = self.clock.seconds()
        self._looked.move_to_end(pubky)
        while len(self._looked) > MOST:
            self._looked.popitem(last=False)
        try:
            packet = await self.network.resolve(PublicKey.from_z32(pubky), Policy.NETWORK_ONLY)
            if packet is not None:
                await self.packets.learn(packet)
        except (NetworkError, Refused) as error:
            self.log.debug("{pubky} could not be looked up: {error}", pubky=pubky, error=error)
        except CancelledError:
            raise
        except Exception:
            self.log.failure("{pubky} could not be looked up", pubky=pubky)

    def look_soon(self, pubky: str) -> None:
        """Begin to."""
        working = Deferred.fromCoroutine(self.look(pubky))
        self._working.add(working)
        working.addErrback(lambda failure: failure.trap(CancelledError) and None)
        working.addBoth(self._finish, working)

    async def _tick(self) -> None:
        try:
            await self._read()
            await self._read_earlier()
        except Refused as error:
            self.log.debug("What was written cannot be read: {reason}", reason=str(error))
        except Exception:  # the loop would end for good
            self.log.failure("Nobody sees who writes")
        hands = min(HANDFUL, AT_ONCE - len(self._working))
        for _ in range(min(SCANNED, len(self._due))):
            pubky, _none = self._due.popitem(last=False)
            if not hands or self._looked.get(pubky, -AGAIN) + AGAIN > self.clock.seconds():
                self._due[pubky] = None
                continue
            hands -= 1
            self.look_soon(pubky)
        while hands and self._earlier:
            _, pubky = heappop(self._earlier)
            if pubky not in self._looked and pubky not in self._due:
                hands -= 1
                self.look_soon(pubky)

    async def _read(self) -> None:
        """See who wrote."""
        if self._last is None:
            self._last = await self.entries.last_event_id()
        changes, further = await self.logs.changed(self._last, PAGE, True)
        self._last = further or max([self._last, *(one.event_id for one in changes)])
        for one in changes:
            if len(self._due) < MOST:
                self._due[one.pubky] = None

    async def _read_earlier(self) -> None:
        """See who wrote before we began: one page of the accounts."""
        if self._place is None:
            return
        page, self._place = await self.logs.standings(self._place, ACCOUNTS)
        for pubky, *logs in page:
            last = max(log.position.event_id for log in logs)
            if last / 1_000_000 > self._since and len(self._earlier) < MOST:
                heappush(self._earlier, (-last, pubky))

    def _finish(self, _result: object, working: Deferred[None]) -> None:
        self._working.discard(working)
