"""Copies whose primary orders that they be erased.

The order is obeyed at once, as far as it can be undone: the copy is hidden. It is wiped when a grace is over, for the
primary may not be the user's friend: whoever finds that it has their account forgotten everywhere can still sign a
record that names us, and has everything again.

    record names us                    the copy is shown, and stays
    the user signs up here             shown, as a copy that is claimed; without a record it is hidden again
    the grace is over                  files, bodies, shelf and packet go, unless the network cannot be asked

It is all the same whether the account lived here once: who has left can have all of it erased here. It is an account
that lives elsewhere as long as its files are hidden, and with them it goes. Who signs up afterwards begins anew, but
under the limits that the operator had set for them.

Of what was erased a keyed hash stays, with the id of its log: a primary that was restored from a backup may offer the
account again, and is not followed. The key comes from the homeserver's own, so nobody who reads the store can tell by
the hash whose it is. An account that begins anew has another log id.
"""

from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

from attrs import define, field
from blake3 import blake3
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from pkarr.interfaces import INetwork, NetworkError, Policy, UnreadableItem
from pkarr.keys import InvalidPublicKey, Keypair, PublicKey
from pkarr.packet import SignedPacket, newest_of
from pubky_homeserver.copies import Copies
from pubky_homeserver.core.copies import Copy
from pubky_homeserver.core.erasing import Doomed, Erased, Obeyed
from pubky_homeserver.core.errors import PeerRefused, Refused
from pubky_homeserver.interfaces import IErasureStore, IPeer
from pubky_homeserver.packets import Packets, home_of

ERASE = "erase"
"""What a homeserver says that obeys orders to erase."""

ROUND = 60.0
"""Seconds, at most, from one look at what is hidden to the next."""

LOOK = 600.0
"""Seconds from one look for the record of a hidden account to the next."""

PATIENCE = 5.0
"""Seconds that an order waits for the network to say where the account lives."""

PART = 500
"""Things that are wiped in one step."""

MOST = 500
"""Hidden copies that are looked at in one round, those first that are wiped the soonest."""

_CONTEXT = "pubky-homeserver 2026 names of erased copies"


def naming(keypair: Keypair) -> Callable[[str], str]:
    """What makes the names of erased copies: BLAKE3 of a pubky, with a key that is derived from the homeserver's."""
    key = blake3(keypair.seed, derive_key_context=_CONTEXT).digest()
    return lambda pubky: blake3(pubky.encode(), key=key).hexdigest()


@define(eq=False)
class Erasures(Service):
    """Obeys orders; from its start on also looks after what is hidden. `network` finds packets."""

    homeserver: str
    """Our own key."""
    store: IErasureStore
    copies: Copies
    packets: Packets
    name: Callable[[str], str]
    network: INetwork
    look: Callable[[str], Coroutine[Deferred[Any], Any, None]]
    """Looks up the newest record of an account, and learns it; never fails."""
    leave: Callable[[str], None]
    """Lets nobody work on a copy any more, until the next hint."""
    clock: IReactorTime
    come: Callable[[str], None] = lambda _pubky: None
    """Lets an account open here that has a copy, if its record says so."""
    grace: float = 259_200.0
    """Seconds from an order until the copy is wiped."""
    waiting: tuple[Doomed, ...] = field(default=(), init=False)
    """What is to be wiped, as it was at the last look."""
    _looked: dict[str, float] = field(factory=dict, init=False)
    # Hidden account → when its record was looked for (seconds).
    _seen: set[str] = field(factory=set, init=False)
    # Copies that were shown, and not claimed, at the last look.
    _resting: Deferred[None] | None = field(default=None, init=False)
    _running: Deferred[None] = field(factory=lambda: succeed(None), init=False)
    log: ClassVar[Logger] = Logger()

    # --- orders ---------------------------------------------------------------------------------------------------

    async def obey(self, sender: str, pubky: str, log_id: str, seq: int) -> Obeyed:
        """Hide a copy, if its account lives at the sender; it is durable when this returns."""
        copy = await self.copies.refresh(pubky)
        if copy is not None:
            is_within = copy.public.position is None or copy.public.position.seq <= seq
            looking = Deferred.fromCoroutine(self.look(pubky))
            await looking.addTimeout(PATIENCE, self.clock, lambda _result, _seconds: None)
            packet = await self.packets.of(pubky)
            if packet is None or home_of(packet) != sender:
                return Obeyed.ELSEWHERE
            self.leave(pubky)
            copy = await self.copies.refresh(pubky)
            if is_within and copy is not None and copy.public.position is not None:
                seq = max(seq, copy.public.position.seq)  # what came while we looked came from the sender
        until = int((self.clock.seconds() + self.grace) * 1_000_000)
        obeyed = await self.store.hide(pubky, sender, log_id, seq, until, self.name(pubky))
        if copy is not None and obeyed is Obeyed.HIDDEN:
            self.leave(pubky)
            await self.copies.refresh(pubky)
            self.log.info("{pubky} is erased: {sender} orders it", pubky=pubky, sender=sender)
            self.look_soon()
        return obeyed

    async def check(self, pubky: str, source: IPeer) -> Erased:
        """Raise `PeerRefused` if what a peer offers was erased here; what was. Raises what `IPeer.entries` raises."""
        name = self.name(pubky)
        erased = await self.store.erased(name)
        if erased and (await source.entries(pubky, False, "")).standing.position.log_id in erased:
            raise PeerRefused("this account was erased here, by order of its homeserver")
        return name, erased

    def look_again(self, pubky: str) -> None:
        """Look at a copy at once, if it is hidden: a record names us."""
        if self._looked.pop(pubky, None) is not None:
            self.look_soon()

    async def show(self, pubky: str) -> bool:
        """Show a hidden copy to its user, who signs up here. Whether there is one now."""
        shown = await self.store.show(pubky)
        if shown:
            self._seen.discard(pubky)
            await self.copies.refresh(pubky)
        return shown

    # --- what is hidden -------------------------------------------------------------------------------------------

    def startService(self) -> None:
        """Begin to look after it."""
        super().startService()
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addErrback(self._end)

    def stopService(self) -> Deferred[None]:
        """Stop; fires when nothing is under way any more."""
        super().stopService()
        self._running.cancel()
        return self._running

    async def _run(self) -> None:
        while True:
            try:
                self.waiting = tuple(await self.store.doomed(MOST))
                for one in self.waiting:
                    await self._look_after(one)
                self.waiting = tuple(await self.store.doomed(MOST))
            except Refused as error:
                self.log.debug("What is hidden cannot be looked after: {reason}", reason=str(error))
            except CancelledError:
                raise
            except Exception:  # a fault with one must not end it for all
                self.log.failure("What is hidden cannot be looked after")
            await self._rest()

    async def _look_after(self, one: Doomed) -> None:
        pubky, now = one.pubky, self.clock.seconds()
        is_due = one.until <= now * 1_000_000
        if not one.is_hidden:
            await self._watch_shown(pubky, await self.copies.refresh(pubky))
            return
        if is_due or self._looked.get(pubky, -LOOK) + LOOK <= now:
            self._looked[pubky] = now
            try:
                if await self._names_us(pubky):
                    return
            except NetworkError as error:
                self.log.info("{pubky} is not wiped before it is looked up: {error}", pubky=pubky, error=error)
                return
        if is_due:
            self.log.info("{pubky} is wiped: the grace of its erasure is over", pubky=pubky)
            while not await self.store.wipe(pubky, PART):
                pass
            self._looked.pop(pubky, None)

    async def _names_us(self, pubky: str) -> bool:
        """Let a copy stay whose user's newest record names us; whether it does.

        Raises `NetworkError` if that cannot be known.
        """
        kept = await self.packets.of(pubky)
        try:
            newest = newest_of([kept, await self._resolve(pubky)])
        except NetworkError:
            if kept is None or home_of(kept) != self.homeserver:
                raise
            newest = kept
        if newest is None or home_of(newest) != self.homeserver or not await self.show(pubky):
            return False
        self.log.info("{pubky} is not erased: the user's record names this homeserver", pubky=pubky)
        await self.store.lift(pubky, self.name(pubky))
        await self.packets.learn(newest)
        self.come(pubky)  # who lived here is known by that record already
        return True

    async def _watch_shown(self, pubky: str, copy: Copy | None) -> None:
        """A copy that was shown for its user stays once it is open here; a claim that came to nothing hides it."""
        packet = await self.packets.of(pubky)
        if copy is None or (packet is not None and home_of(packet) == self.homeserver):
            await self.store.lift(pubky, self.name(pubky))
        elif copy.claimed or pubky not in self._seen:
            self._seen.add(pubky)
        elif await self.store.hide_again(pubky):
            self._seen.discard(pubky)
            self.leave(pubky)
            await self.copies.refresh(pubky)

    async def _resolve(self, pubky: str) -> SignedPacket | None:
        try:
            return await self.network.resolve(PublicKey.from_z32(pubky), Policy.NETWORK_ONLY)
        except (UnreadableItem, InvalidPublicKey):
            return None

    async def _rest(self) -> None:
        left = (one.until / 1_000_000 - self.clock.seconds() for one in self.waiting)
        soonest = min((seconds for seconds in left if seconds > 0), default=ROUND)  # the others have to wait
        resting = self._resting = Deferred()
        resting.addTimeout(min(max(soonest, 1.0), ROUND), self.clock, lambda _result, _seconds: None)
        try:
            await resting
        finally:
            self._resting = None

    def look_soon(self) -> None:
        """Look after what is hidden now: there is more of it."""
        if self._resting is not None and not self._resting.called:
            self._resting.callback(None)

    def _end(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("What is hidden is not looked after any more", failure)
