"""Accounts that are about to come here.

A user who signs up where a copy of the account is **claims** it. That moves nothing yet: the sign-up may come from a
thief of a token, and at two homeservers at once. Only the user's record makes it real; until it is here the copy stays
a copy, and who wants to write waits a moment.
"""

from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from itertools import islice
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from pubky_homeserver.copies import Copies
from pubky_homeserver.core.copies import Copy
from pubky_homeserver.core.errors import NotOpenYet, NotPrimary
from pubky_homeserver.core.peers import Claim, Peer
from pubky_homeserver.interfaces import IMoveStore
from pubky_homeserver.packets import Packets, home_of

WAIT = 5.0
"""Seconds that a write to an account that is about to come waits for it."""

POLL = 0.25
"""Seconds from one look at the store to the next, while somebody waits: another process may be the one that opens."""

RECENT = 60.0
"""Seconds for which it is believed what the network said of an account, before a write is sent elsewhere."""

LOOKS_A_SECOND = 5
"""Looks, at most: anybody may send a write to any copy, and the network is everybody's."""

MOST_LOOKS = 10_000
"""Accounts of which it is remembered when they were looked up."""


async def _never(_pubky: str) -> None:
    """Look nothing up: another process does."""


async def _show_nothing(_pubky: str) -> bool:
    """Nothing is hidden."""
    return False


async def _hide_nothing(_pubky: str) -> str | None:
    """Nothing is hidden."""
    return None


@define(eq=False)
class Claims:
    """What users of copies may do here. `peers`: by their keys."""

    copies: Copies
    store: IMoveStore
    packets: Packets
    peers: Mapping[str, Peer]
    clock: IReactorTime
    look: Callable[[str], Coroutine[Deferred[Any], Any, None]] = _never
    """Look up the newest record of an account, and learn it; never fails."""
    look_soon: Callable[[str], None] = lambda _pubky: None
    """The same, while others go on."""
    show: Callable[[str], Coroutine[Deferred[Any], Any, bool]] = _show_nothing
    """Show the copy of an account that is hidden, for it was to be erased; whether there was one."""
    hidden: Callable[[str], Coroutine[Deferred[Any], Any, str | None]] = _hide_nothing
    """The homeserver that such a copy comes from; None if there is none."""
    turn_away: Callable[[], None] = lambda: None
    """Is called for each request that is refused because its account lives elsewhere."""
    _looked: "OrderedDict[str, float]" = field(factory=OrderedDict, init=False)
    # Account → when it was looked up (seconds); the longest ago first.

    async def rule(self, pubky: str, is_root: bool) -> Claim | None:
        """How somebody may sign up whose account is a copy here; None if there is none.

        `is_root`: whether they show that they may do everything. Who lived here before may come back. A copy that is
        hidden counts as well; it has to be shown before somebody signs up.
        """
        copy = await self.copies.refresh(pubky)
        primary = await self.hidden(pubky) if copy is None else copy.primary
        if primary is None:
            return None
        if not is_root:
            return Claim.DENY
        return Claim.ALLOW if await self.store.is_admitted(pubky) else self._setting_of(primary)

    async def is_admitted(self, copy: Copy) -> bool:
        """Whether the account of a copy may open here once its record says so."""
        return self.setting(copy) is Claim.ALLOW or await self.store.is_admitted(copy.pubky)

    async def has_lived_here(self, pubky: str) -> bool:
        """Whether an account was open here, now or earlier."""
        return await self.store.has_lived_here(pubky)

    async def begin(self, pubky: str) -> Copy | None:
        """Somebody has signed up at a copy: their record may be here already. Returns the copy."""
        copy = await self.copies.refresh(pubky)
        if copy is not None:
            self.look_soon(pubky)
        return copy

    async def settle(self, pubky: str) -> None:
        """Return if an account that was a copy lives here by now.

        Raises `NotPrimary` if it lives elsewhere, and `NotOpenYet` if it is about to open here.
        """
        copy = self.copies.of(pubky)
        if copy is not None and not copy.claimed and self._may_look(pubky):
            looking = Deferred.fromCoroutine(self._look(pubky))
            await looking.addTimeout(WAIT, self.clock, lambda _result, _seconds: None)
        elif copy is not None and copy.claimed:
            self.look_soon(pubky)
        end = self.clock.seconds() + WAIT
        while (copy := await self.copies.refresh(pubky)) is not None:
            if not await self.is_coming(copy):
                self.turn_away()
                raise NotPrimary(copy.primary)
            if self.clock.seconds() >= end:
                raise NotOpenYet
            await deferLater(self.clock, POLL)

    async def is_coming(self, copy: Copy) -> bool:
        """Whether a copy is about to become an account: it is claimed, or its record says so."""
        if copy.claimed:
            return True
        packet = await self.packets.of(copy.pubky)
        return packet is not None and home_of(packet) == self.packets.homeserver and await self.is_admitted(copy)

    def _may_look(self, pubky: str) -> bool:
        """Whether the last look at an account is long ago, and there were not too many at others just now."""
        now = self.clock.seconds()
        if self._looked.get(pubky, -RECENT) + RECENT > now:
            return False
        newest = islice(reversed(self._looked.values()), LOOKS_A_SECOND)
        return sum(looked + 1 > now for looked in newest) < LOOKS_A_SECOND

    async def _look(self, pubky: str) -> None:
        self._looked[pubky] = self.clock.seconds()
        self._looked.move_to_end(pubky)
        while len(self._looked) > MOST_LOOKS:
            self._looked.popitem(last=False)
        await self.look(pubky)

    def setting(self, copy: Copy) -> Claim:
        """How users of copies from this one's homeserver may come here."""
        return self._setting_of(copy.primary)

    def _setting_of(self, primary: str) -> Claim:
        peer = self.peers.get(primary)
        return Claim.DENY if peer is None else peer.claim
