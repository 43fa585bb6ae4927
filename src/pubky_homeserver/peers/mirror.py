"""Follows one homeserver: every account that it offers and we want, each log on its own.

One connection brings hints: a log has changed. What a hint says is not believed but asked for, so hints may be lost,
late or doubled. A log that has changed is **due**; a few hands take one log after the other, and a log is never in two
of them. Whenever the stream of hints begins, all accounts are gone through once: so what changed while nobody listened
is found, and a quiet account costs nothing.

A log that fails waits, twice as long after each failure, and holds up no other one; a peer that fails waits alike, but
not much longer once it asks us something.
"""

import random
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from pkarr.interfaces import INetwork
from pkarr.packet import SignedPacket
from pubky_homeserver.copies import Copies
from pubky_homeserver.core.copies import Hint, LogStanding, Offered
from pubky_homeserver.core.erasing import NEVER, Erased
from pubky_homeserver.core.errors import BudgetSpent, PeerBroken, PeerError, PeerRefused, Refused, UserExists
from pubky_homeserver.core.peers import Peer
from pubky_homeserver.interfaces import IFollower, IPeer
from pubky_homeserver.packets import Packets
from pubky_homeserver.peers.filling import Filling
from pubky_homeserver.peers.lookups import LookUps, NotItsTurn

AT_ONCE = 8
"""Logs of one peer that are worked on at a time."""

FIRST_DELAY = 1.0
"""Seconds that a peer, or a log, waits after its first failure; doubled after each further one."""

LONGEST_DELAY = 300.0

MOST = 100_000
"""Accounts of one peer that are known here at most, in memory and as copies: a peer can offer any number, and its hints
can name any. Of those beyond, nothing is followed."""

RARELY = 3600.0
"""Seconds, at most, that an account waits which we may not follow: it may be offered one day, or get its record."""

Log = tuple[str, bool]
"""An account, and whether it is its private log."""


async def _allow_all(_pubky: str, _source: IPeer) -> Erased:
    """Copies of all accounts may begin."""
    return NEVER


@define(eq=False)
class Mirror(Service):
    """Keeps copies of one peer's accounts up to date, from its start on."""

    peer: Peer
    source: IPeer
    follower: IFollower
    copies: Copies
    packets: Packets
    network: INetwork
    clock: IReactorTime
    begun: Callable[[], None] = lambda: None
    """Is called when the peer begins to tell of changes: it may have forgotten some that it told."""
    check: Callable[[str, IPeer], Coroutine[Deferred[Any], Any, Erased]] = _allow_all
    """Raises `PeerRefused` for an account of which no copy may begin here; returns what was erased of it."""
    jitter: Callable[[], float] = random.random
    """A number from 0 to 1."""
    failure: str | None = field(default=None, init=False)
    """Why the peer cannot be followed at the moment; None if it can."""
    trouble: str | None = field(default=None, init=False)
    """What it said last that cannot be, and of which account; None if all was in order."""
    _due: "OrderedDict[Log, None]" = field(factory=OrderedDict, init=False)
    # Logs that have changed, and nobody works on; the first ones first.
    _working: "dict[Log, Deferred[None]]" = field(factory=dict, init=False)
    _again: set[Log] = field(factory=set, init=False)
    # Logs that changed while they were worked on.
    _look_ups: LookUps = field(init=False)
    _unsure: set[str] = field(factory=set, init=False)
    # Accounts that wait, for no record said yet that they live at the peer.
    _failures: dict[Log, int] = field(factory=dict, init=False)
    # How often a log failed in a row.
    _running: Deferred[None] | None = field(default=None, init=False)
    _looking: Deferred[None] | None = field(default=None, init=False)
    # Going through all accounts.
    _failed: int = field(default=0, init=False)
    # How often the peer failed in a row.
    _rests: list[IDelayedCall] = field(factory=list, init=False)
    # The ends of waits for the peer.
    _waiting: "dict[Log, Deferred[None]]" = field(factory=dict, init=False)
    # Logs that wait after a failure, each once.
    _is_taking: bool = field(default=False, init=False)
    filling: Filling = field(init=False)
    """What brings the bodies that copies lack."""
    log: ClassVar[Logger] = Logger()

    @filling.default
    def _make_filling(self) -> Filling:
        return Filling(self.follower, self.peer.private, self.copies, self.clock, self._delay)

    @_look_ups.default
    def _make_look_ups(self) -> LookUps:
        return LookUps(self.peer, self.source, self.packets, self.network, self.clock)

    def startService(self) -> None:
        """Begin to listen."""
        super().startService()
        self.filling.startService()
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addErrback(self._end)

    def stopService(self) -> Deferred[None]:
        """Stop; fires when nothing is under way any more."""
        super().stopService()
        self._due.clear()
        ending = [one for one in (self._running, self._looking) if one is not None]
        ending += [*self._working.values(), *self._waiting.values()]
        for one in ending:
            one.cancel()
        ending += [self.filling.stopService(), self._look_ups.stop()]
        return DeferredList(ending, consumeErrors=True).addCallback(lambda _results: None)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is under way or due."""
        return not (self._due or self._working or self._waiting or self._looking) and self.filling.is_quiet

    def hint(self, pubky: str, private: bool) -> None:
        """A log may have changed."""
        one = pubky, private
        if self._is_primary(pubky):
            self.copies.fall_behind(pubky)
        if one in self._working:
            self._again.add(one)
        else:
            self._due[one] = None
            self._work()

    def notice(self) -> None:
        """The peer asks us something: it is there, so it is tried again soon, not minutes later."""
        self._failed = 0
        for rest in self._rests:
            if rest.active() and rest.getTime() - self.clock.seconds() > FIRST_DELAY:
                rest.reset(FIRST_DELAY)

    def leave(self, pubky: str) -> "Deferred[None]":
        """Do nothing more for an account, until the next hint; fires when nothing is under way."""
        self._look_ups.forget(pubky)
        ending = [self.filling.leave(pubky)]
        for one in ((pubky, False), (pubky, True)):
            self._due.pop(one, None)
            self._again.discard(one)
            self._failures.pop(one, None)
            if (working := self._working.get(one)) is not None:
                working.cancel()
                ending.append(working)
        left: Deferred[None] = Deferred()  # who gives up waiting for the list of them would not learn it
        DeferredList(ending, consumeErrors=True).addCallback(lambda _results: left.callback(None))
        return left

    # --- the peer -------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Listen, and begin again when it ends."""
        while True:
            began = self.clock.seconds()
            try:
                await self.source.changes(self._hear, self._beat)
                self.failure = "the stream of changes ended"
            except PeerError as error:
                self.failure = str(error)
            except CancelledError:
                raise
            except Exception:  # a fault with one peer must not end following it for good
                self.log.failure("{peer} cannot be followed", peer=self.peer.name)
                self.failure = "failed; the log tells why"
            self._failed = 0 if self.clock.seconds() - began > LONGEST_DELAY else self._failed + 1
            await self._rest(self._failed)

    async def _rest(self, failures: int) -> None:
        """Wait after a failure."""
        resting: Deferred[None] = Deferred()
        end = self.clock.callLater(self._delay(failures), resting.callback, None)
        self._rests.append(end)
        try:
            await resting
        finally:
            self._rests.remove(end)
            if end.active():
                end.cancel()

    def _beat(self) -> None:
        self.copies.hear(self.peer.key)

    def _hear(self, hint: Hint | None) -> None:
        if hint is not None:
            self._weigh(hint)
            return
        self.failure = None
        self.begun()
        self.look_again()

    def look_again(self) -> None:
        """Go through all that the peer offers: it, or our own store, may have forgotten something."""
        self._look_ups.forget_all()
        if self._looking is not None:
            self._looking.cancel()
        looking = self._looking = Deferred.fromCoroutine(self._look())
        looking.addErrback(self._end)
        looking.addBoth(self._stop_looking, looking)

    def _stop_looking(self, _result: object, looking: Deferred[None]) -> None:
        if self._looking is looking:
            self._looking = None

    def _weigh(self, hint: Hint) -> None:
        """Whether a hint is news about a log that we follow, or would begin to."""
        if not self.peer.follows(hint.pubky) or (hint.private and not self.peer.private):
            return
        if hint.pubky in self._unsure and (hint.pubky, hint.private) in self._waiting:
            return  # it is looked up again when its time has come, or at once if somebody shows its record
        copy = self.copies.of(hint.pubky)
        if copy is None and len(self._due) + len(self._waiting) >= MOST:
            return  # it can name accounts without end; one that is real is found when all are gone through
        if hint.seq is None or (copy is not None and copy.primary != self.peer.key):
            self.hint(
                hint.pubky, hint.private
            )  # where it lives is looked up first; till then only its primary is heard
            return
        self.copies.hear_of(hint.pubky, hint.private, hint.seq)
        log = None if copy is None else copy.private if hint.private else copy.public
        has_opened = hint.seq == 0 and (hint.pubky, hint.private) in self._waiting  # it waits for that, perhaps
        if has_opened or log is None or log.position is None or log.position.seq < hint.seq:
            self.hint(hint.pubky, hint.private)

    async def _look(self) -> None:
        """Go through all that the peer offers, once; a page that does not come is asked for again."""
        after: str | None = ""
        failures = found = 0
        while after is not None:
            if found > MOST:
                self.failure = f"it offers more than {MOST} accounts"
                return
            try:
                page, after = await self.source.offered(after)
            except PeerError as error:
                self.failure = str(error)
                failures += 1
                await self._rest(failures)
                continue
            self.failure, failures = None, 0
            found += max(len(page), 1)  # pages without accounts can be without end, too
            for offered in page:
                if self.peer.follows(offered.pubky):
                    await self._compare(offered)

    async def _compare(self, offered: Offered) -> None:
        """Confirm the logs that stand where the peer says, and follow the others."""
        for private, standing in ((False, offered.public), (True, offered.private)):
            if standing is None or (private and not self.peer.private):
                continue
            copy = self.copies.of(offered.pubky)
            if copy is not None and copy.primary == self.peer.key:
                self.copies.hear_of(offered.pubky, private, standing.position.seq)
                if not copy.missing and await self._confirm(offered.pubky, private, standing):
                    continue
            self.hint(offered.pubky, private)

    async def _confirm(self, pubky: str, private: bool, standing: LogStanding) -> bool:
        if not await self.copies.store.confirm(pubky, private, standing.position, self._now(), self.peer.key):
            return False
        await self.copies.refresh(pubky)
        self.copies.keep_up(pubky)
        return True

    def _is_primary(self, pubky: str) -> bool:
        """Whether there is a copy of an account, and the peer is its primary, as far as is known."""
        copy = self.copies.of(pubky)
        return copy is not None and copy.primary == self.peer.key

    # --- the logs -------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Take logs that are due, as long as there are hands."""
        if self._is_taking:
            return  # one of them ended at once
        self._is_taking = True
        while self._due and len(self._working) < AT_ONCE and self.running:
            one, _ = self._due.popitem(last=False)
            self._working[one] = succeed(None)  # a hint that comes before the first wait must see it
            work = Deferred.fromCoroutine(self._take(one))
            if one in self._working:
                self._working[one] = work
        self._is_taking = False

    async def _take(self, one: Log) -> None:
        """Work on one log; whatever happens, it is given back."""
        try:
            await self._follow(*one)
        except CancelledError:
            pass
        except Exception as error:  # whatever it is, the log is given back
            self._fail(one, error)
        self._working.pop(one, None)
        if one in self._again:
            self._again.discard(one)
            self._due[one] = None
        self._work()

    async def _follow(self, pubky: str, private: bool) -> None:
        """Bring one log up to date; the bodies that it lacks then come by themselves."""
        newest = await self._look_up(pubky)
        copy = await self.copies.refresh(pubky)
        if copy is None and self.copies.count_of(self.peer.key) >= MOST:
            raise PeerRefused(f"more than {MOST} of its accounts are not followed")
        if copy is None or copy.primary != self.peer.key or newest is not None:
            await self._begin(pubky, newest)
        try:
            await self.follower.catch_up(pubky, private)
        finally:
            await self.copies.refresh(pubky)
        self._failures.pop((pubky, private), None)
        if not self._behind_elsewhere(pubky, private):
            self.copies.keep_up(pubky)
        self.filling.begin(pubky)

    async def _begin(self, pubky: str, newest: SignedPacket | None) -> None:
        """Have a copy that follows the peer. Raises `PeerRefused` if that is not right any more, or was erased."""
        erased = await self.check(pubky, self.source) if self.copies.of(pubky) is None else None
        kept = None if newest is None else await self.packets.learn(newest)
        packet = None if newest is None else newest.relay_payload
        has_begun = await self.copies.store.begin(pubky, self.peer.key, self._now(), packet, erased)
        await self.copies.refresh(pubky)  # from now on what is not here yet is not said to be missing
        if not has_begun:
            self._look_ups.forget(pubky)
            raise PeerRefused("the account does not live there any more, or was erased")
        if newest is not None and kept is None:
            await self.packets.learn(newest)  # nobody cared for it before

    async def _look_up(self, pubky: str) -> SignedPacket | None:
        """See that an account lives at the peer; one that does not, or waits for its turn, is not hurried by hints.

        Returns the newest packet, if it was looked for. Raises `PeerRefused`, `NotItsTurn`.
        """
        try:
            return await self._look_ups.check(pubky, self._is_primary(pubky))
        except (PeerRefused, NotItsTurn):
            if len(self._unsure) >= MOST:
                self._unsure.clear()
            self._unsure.add(pubky)
            raise

    def _behind_elsewhere(self, pubky: str, private: bool) -> bool:
        """Whether the account's other log is due or worked on, or this one is again."""
        other = pubky, not private
        return other in self._due or other in self._working or (pubky, private) in self._again

    def _fail(self, one: Log, error: Exception) -> None:
        """Let a log that failed wait."""
        pubky, _ = one
        if isinstance(error, NotItsTurn):
            self._wait_for(one, error.seconds)
            return
        if isinstance(error, UserExists):
            self.log.warn("{pubky} lives here and at {peer}", pubky=pubky, peer=self.peer.name)
            return
        peer = self.peer.name
        if isinstance(error, PeerBroken | BudgetSpent):
            self.trouble = f"{pubky}: {error}"
            self.log.warn("A copy of {pubky} from {peer} stops: {reason}", peer=peer, pubky=pubky, reason=str(error))
        elif isinstance(error, PeerError | Refused):
            self.log.info("A copy of {pubky} from {peer} waits: {reason}", peer=peer, pubky=pubky, reason=str(error))
        else:
            self.log.failure("A copy of {pubky} from {peer} failed", peer=peer, pubky=pubky)
        self._wait(one, RARELY if isinstance(error, PeerRefused) else LONGEST_DELAY)

    def _wait(self, one: Log, longest: float) -> None:
        """Try a log again after a while, `longest` at most."""
        if one in self._waiting:
            return  # it was tried in between, for there was a hint
        failures = self._failures[one] = self._failures.get(one, 0) + 1
        self._wait_for(one, self._delay(failures, longest))

    def _wait_for(self, one: Log, seconds: float) -> None:
        if one in self._waiting or not self.running:
            return  # or nobody follows any more
        if len(self._waiting) >= MOST:
            self._failures.pop(one, None)
            return
        waiting: Deferred[None] = deferLater(self.clock, seconds)
        self._waiting[one] = waiting
        waiting.addBoth(self._stop_waiting, one)

    def _stop_waiting(self, result: object, one: Log) -> None:
        del self._waiting[one]
        self._unsure.discard(one[0])
        if not isinstance(result, Failure):
            self.hint(*one)

    def _delay(self, failures: int, longest: float = LONGEST_DELAY) -> float:
        delay: float = min(FIRST_DELAY * 2.0 ** min(max(failures - 1, 0), 20), longest)
        return delay * (1 + self.jitter()) / 2

    def _now(self) -> int:
        return int(self.clock.seconds() * 1_000_000)

    def _end(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("{peer} is not followed any more", failure, peer=self.peer.name)
