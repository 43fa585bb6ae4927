"""Accounts move: those that come here are opened, those that leave are seen to have left.

What is done, says the newest record of an account alone: whoever learns of one tells it here. A record that names us
opens a copy whose user is admitted: one who signed up, now or earlier, or any, if the operator allows that. While
nobody has it yet the record of a claimed copy is looked for. One that names another homeserver has shut the account
already when it comes here, in the step of the store that kept it; from then on the account is followed like any other.

Nothing that is under way lasts in memory only: a process that begins goes through all copies.
"""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, ClassVar

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from pkarr.packet import SignedPacket
from pubky_homeserver.claims import Claims
from pubky_homeserver.core.copies import Copy
from pubky_homeserver.core.errors import InvalidRequest, NotHereYet, PeerError, Refused
from pubky_homeserver.core.moves import Kept
from pubky_homeserver.core.peers import Claim
from pubky_homeserver.interfaces import IMoveStore
from pubky_homeserver.packets import home_of
from pubky_homeserver.peers.chronicle import Chronicle
from pubky_homeserver.peers.neighbours import Neighbour
from pubky_homeserver.peers.opening import Opening

LOOK = 5.0
"""Seconds from one look for the record of a claimed copy to the next."""

VOID = 600.0
"""Seconds after which a claim that no record followed is void."""

ANNOUNCED = 250
"""Files and removed paths that are put into the feed in one step of the store."""

PAGE = 500
"""Accounts that are read at a time, of those whose files are not in the feed yet."""

FILL_FIRST = 60.0
"""Seconds that bodies have to come before the files are told in the feed."""

FILL_AGAIN = 30.0
"""Seconds until the bodies that an account lacks are fetched again."""

FILLS = 20
"""Times that they are."""


@define(eq=False)
class Moving(Service):
    """Opens accounts, and ends claims. `neighbours`: by their keys."""

    opening: Opening
    store: IMoveStore
    claims: Claims
    neighbours: Mapping[str, Neighbour]
    look: Callable[[str], None]
    """Look up an account soon."""
    clock: IReactorTime
    chronicle: Chronicle
    _unweighed: set[str] = field(factory=set, init=False)
    # Copies of which it is to be seen whether they are to open.
    _due: set[str] = field(factory=set, init=False)
    # Accounts that are to open and did not yet.
    _working: "dict[str, Deferred[None]]" = field(factory=dict, init=False)
    # Account → what is done for it.
    _waiting: set[Deferred[None]] = field(factory=set, init=False)
    # Other work in the background.
    _loop: LoopingCall = field(init=False)
    log: ClassVar[Logger] = Logger()

    @_loop.default
    def _make_loop(self) -> LoopingCall:
        loop = LoopingCall(lambda: Deferred.fromCoroutine(self._tick()))
        loop.clock = self.clock
        return loop

    def startService(self) -> None:
        """Begin where the last process ended."""
        super().startService()
        self._loop.start(LOOK, now=False)
        self._later(self._resume())

    def stopService(self) -> Deferred[None]:
        """Stop; fires when nothing is under way any more."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        ending = [*self._working.values(), *self._waiting]
        for one in ending:
            one.cancel()
        return DeferredList(ending, consumeErrors=True).addCallback(lambda _results: None)

    def learn(self, packet: SignedPacket, kept: Kept) -> None:
        """A packet was kept: open, or note that somebody left."""
        pubky, home = packet.public_key.z32, home_of(packet)
        if kept is Kept.FENCED:
            self._later(self.chronicle.note_move(pubky, "fenced", home or ""))
        if home == self.opening.homeserver:
            self.weigh_soon(pubky)

    def weigh_soon(self, pubky: str) -> None:
        """Open a copy, if its record says so and its user is admitted; as soon as the store can say that."""
        self._unweighed.add(pubky)
        self._later(self._weigh_some())

    async def open(self, pubky: str, incomplete: bool = False) -> bool:
        """Open an account now, for the operator. Whether it lives here then.

        Raises `InvalidRequest` if it has no copy here, or if its newest record does not name us; `NotHereYet`.
        """
        if await self.claims.copies.refresh(pubky) is None:
            raise InvalidRequest("There is no copy of this account")
        await self.claims.look(pubky)
        if not await self.opening.is_ours(pubky):
            raise InvalidRequest("The newest record of the account does not name this homeserver: nothing can move")
        if (working := self._working.get(pubky)) is not None:
            working.cancel()
        return await self._open(pubky, incomplete)

    async def weigh_all(self) -> None:
        """Open what may open of all copies, as soon as the store can say which."""
        self._unweighed.update(copy.pubky for copy in self.claims.copies.all())
        await self._weigh_some()

    async def check(self, pubky: str | None) -> list[dict[str, object]]:
        """What would become of a copy, or of all, if its user came here now. For the operator."""
        copies = self.claims.copies
        chosen = copies.all() if pubky is None else [one for one in [await copies.refresh(pubky)] if one is not None]
        return [await self._check(copy) for copy in sorted(chosen, key=lambda one: one.pubky)]

    async def _check(self, copy: Copy) -> dict[str, object]:
        copies, position = self.claims.copies, copy.public.position
        packet = await self.claims.packets.of(copy.pubky)
        state, claim = copies.state(copy), self.claims.setting(copy)
        is_admitted = await self.store.is_admitted(copy.pubky)
        why = "its user may move here now, and nothing is lost"
        if state == "bootstrapping":
            why = (
                "its list of files is not whole: it would open when it is, or by `homeserver mirror open --incomplete`"
            )
        elif claim is Claim.DENY and not is_admitted:
            why = "its user may not move here: the setting claim of its homeserver is deny"
        elif state == "stale":
            why = "its homeserver has not confirmed it lately: what was written there since would be lost if it is away"
        elif copy.missing:
            why = f"{copy.missing} bodies are not here yet: they would come from its homeserver later"
        return {
            "pubky": copy.pubky,
            "primary": copy.primary,
            "names": None if packet is None else home_of(packet),
            "state": state,
            "seq": 0 if position is None else position.seq,
            "confirmed": copies.confirmed(copy),
            "missing": copy.missing,
            "claim": claim.value,
            "admitted": is_admitted,
            "claimed": copy.claimed > 0,
            "ready": state == "current" and not copy.missing and (is_admitted or claim is not Claim.DENY),
            "why": why,
        }

    # --- what is to be done ---------------------------------------------------------------------------------------

    async def _resume(self) -> None:
        """Go on with what the last process left; a store that is away is asked again."""
        await self.weigh_all()
        last = ""
        while True:
            try:
                page = await self.store.announcing(last, PAGE)
            except Refused as error:
                self.log.info("What is to be told in the feed waits: {reason}", reason=str(error))
                await deferLater(self.clock, LOOK)
                continue
            if not page:
                return
            for pubky in page:
                self._later(self._finish(pubky, ""))
            last = page[-1]

    async def _weigh_some(self) -> None:
        """Weigh what is to be weighed; if the store is away the rest is for the next time."""
        for pubky in [*self._unweighed]:
            self._unweighed.discard(pubky)
            try:
                await self._weigh(pubky)
            except Refused as error:
                self._unweighed.add(pubky)
                self.log.debug("Whether {pubky} opens is seen later: {reason}", pubky=pubky, reason=str(error))
                return

    async def _weigh(self, pubky: str) -> None:
        """Open a copy if its record says so and its user is admitted."""
        copy = await self.claims.copies.refresh(pubky)
        if copy is None:
            return
        packet = await self.claims.packets.of(pubky)
        if packet is not None and home_of(packet) == self.opening.homeserver and await self.claims.is_admitted(copy):
            self._due.add(pubky)
            self._work(pubky)

    async def _tick(self) -> None:
        """Look for the records of claimed copies, and try again what did not open."""
        try:
            await self._weigh_some()
            for copy in self.claims.copies.claimed():
                await self._look_at(copy)
            for pubky in [*self._due]:
                self._work(pubky)
        except Refused as error:
            self.log.debug("Claims wait: {reason}", reason=str(error))
        except Exception:  # the loop would end for good
            self.log.failure("Claims are not looked at")

    async def _look_at(self, copy: Copy) -> None:
        if copy.pubky in self._due:
            return
        await self._weigh(copy.pubky)
        if copy.pubky in self._due:
            return
        if copy.claimed / 1_000_000 + VOID > self.clock.seconds():
            self.look(copy.pubky)
        elif await self.store.void_claim(copy.pubky):
            self.log.info("No record followed the claim of {pubky}: it is void", pubky=copy.pubky)
            await self.chronicle.note_move(copy.pubky, "voided", copy.primary)
            await self.claims.copies.refresh(copy.pubky)

    # --- opening --------------------------------------------------------------------------------------------------

    def _work(self, pubky: str) -> None:
        """Open an account, unless somebody does."""
        if pubky in self._working or not self.running:
            return
        working = Deferred.fromCoroutine(self._try(pubky))
        if not working.called:
            self._working[pubky] = working
            working.addBoth(self._give_back, pubky)

    def _give_back(self, _result: object, pubky: str) -> None:
        self._working.pop(pubky, None)

    async def _try(self, pubky: str) -> None:
        try:
            if await self._open(pubky, False) or not await self.opening.is_ours(pubky):
                self._due.discard(pubky)
        except CancelledError:
            pass
        except (NotHereYet, PeerError, Refused) as error:
            self.log.info("{pubky} does not open yet: {reason}", pubky=pubky, reason=str(error))
        except Exception:
            self.log.failure("{pubky} does not open", pubky=pubky)

    async def _open(self, pubky: str, incomplete: bool) -> bool:
        copy = self.claims.copies.of(pubky)
        opened = await self.opening.open(pubky, incomplete)
        if opened and copy is not None:
            self.log.info("{pubky} lives here now; it lived at {home}", pubky=pubky, home=copy.primary)
            await self.chronicle.note_move(pubky, "opened", copy.primary)
            self._later(self._finish(pubky, copy.primary))
        return opened

    async def _finish(self, pubky: str, before: str) -> None:
        """What may come after an account opened: bodies that are missing, and its files in the feed.

        Who reads the feed wants the bodies, so they have a minute to come first; but they are not waited for.
        """
        filling = Deferred.fromCoroutine(self._fill_all(pubky, before))
        left = await filling.addTimeout(FILL_FIRST, self.clock, lambda _result, _seconds: 1)
        while not await self._announce(pubky):
            pass
        for _ in range(FILLS):
            if not left:
                return
            await deferLater(self.clock, FILL_AGAIN)
            left = await self._fill_all(pubky, before)

    async def _fill_all(self, pubky: str, before: str) -> int:
        """Fetch missing bodies from the homeserver where the account lived; from any peer if that is not known."""
        left = 0
        for key, neighbour in self.neighbours.items():
            if key == before or not before:
                left = await self._fill(neighbour, pubky)
        return left

    async def _announce(self, pubky: str) -> bool:
        """One page. Whether it was the last one."""
        try:
            return await self.store.announce(pubky, ANNOUNCED)
        except Refused as error:
            self.log.info("{pubky} is not announced: {reason}", pubky=pubky, reason=str(error))
            await deferLater(self.clock, LOOK)
            return False

    async def _fill(self, neighbour: Neighbour, pubky: str) -> int:
        try:
            return await neighbour.follower.fill(pubky)
        except (PeerError, Refused) as error:
            self.log.info("Bodies of {pubky} wait: {reason}", pubky=pubky, reason=str(error))
            return 1

    # --- the rest -------------------------------------------------------------------------------------------------

    def _later(self, work: Coroutine[Deferred[Any], Any, None]) -> None:
        """Do something in the background."""
        waiting = Deferred.fromCoroutine(work)
        self._waiting.add(waiting)
        waiting.addErrback(self._end)
        waiting.addBoth(lambda _result: self._waiting.discard(waiting))

    def _end(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("A move was left half done", failure)
