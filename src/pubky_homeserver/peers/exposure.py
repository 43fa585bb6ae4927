"""What would be lost if this machine died now: what no other homeserver has, as far as they say.

The peers are asked which copies they have of our accounts, and how far those are; what they say is compared with our
own logs. That is true for the moment in which it was asked, and of a peer that does not answer nothing is known.
"""

from collections.abc import Mapping

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from pkarr.asking import all_of
from pubky_homeserver.copies import Copies
from pubky_homeserver.core.copies import Held
from pubky_homeserver.core.digests import EMPTY
from pubky_homeserver.core.errors import PeerError
from pubky_homeserver.core.peers import NONE
from pubky_homeserver.interfaces import IAccountStore, ILogStore
from pubky_homeserver.peers.mirror import MOST
from pubky_homeserver.peers.neighbours import Neighbour

PAGE = 100
"""Accounts that are looked at in one step."""

PATIENCE = 60.0
"""Seconds that a peer has to say what copies it has."""

SHOWN = 10
"""Accounts that are told by name."""


@define
class Loss:
    """What would be lost."""

    accounts: int = 0
    """Accounts that live here."""
    alone: int = 0
    """Those of which no peer has a copy."""
    behind: int = 0
    """Those of which the best copy lacks something."""
    changes: int = 0
    """Events that the best copies lack in all."""
    bodies: int = 0
    """Bodies that they lack."""
    private: int = 0
    """Accounts whose public files have a copy, and whose private ones have none."""
    named: list[str] = field(factory=list)
    """Some accounts without a copy."""
    silent: list[str] = field(factory=list)
    """Peers that may have copies, and do not answer."""


@frozen
class Exposure:
    """Finds out what would be lost."""

    neighbours: Mapping[str, Neighbour]
    accounts: IAccountStore
    logs: ILogStore
    copies: Copies
    clock: IReactorTime

    async def measure(self) -> Loss:
        """Ask all peers, and look at all accounts. Raises `StoreAway`."""
        loss = Loss()
        held: dict[str, list[Held]] = {}
        asked = [neighbour for neighbour in self.neighbours.values() if neighbour.peer.offer != NONE]
        answered = await all_of(self._is_told(neighbour, held) for neighbour in asked)
        loss.silent += [one.peer.name for one, is_told in zip(asked, answered, strict=True) if not is_told]
        place: int | None = 0
        while place is not None:
            page, place = await self.accounts.accounts(place, PAGE)
            for pubky in page:
                if self.copies.of(pubky) is None:
                    await self._weigh(pubky, held.get(pubky, []), loss)
        return loss

    async def _is_told(self, neighbour: Neighbour, held: dict[str, list[Held]]) -> bool:
        """Whether a peer says all, and in time."""
        asking = Deferred.fromCoroutine(self._ask(neighbour, held))
        return await asking.addTimeout(PATIENCE, self.clock, lambda _result, _seconds: False)

    async def _ask(self, neighbour: Neighbour, held: dict[str, list[Held]]) -> bool:
        """Note what copies a peer has; whether it says so."""
        after: str | None = ""
        found = 0
        try:
            while after is not None and found < MOST:
                page, after = await neighbour.source.held(after)
                found += max(len(page), 1)
                for one in page:
                    held.setdefault(one.pubky, []).append(one)
        except PeerError:
            return False
        return True

    async def _weigh(self, pubky: str, held: list[Held], loss: Loss) -> None:
        """Count what the best copy of an account lacks."""
        public, private = await self.logs.standing(pubky, False), await self.logs.standing(pubky, True)
        if public is None or private is None:
            return
        loss.accounts += 1
        if not held:
            loss.alone += 1
            if len(loss.named) < SHOWN:
                loss.named.append(pubky)
            return
        best = min(held, key=lambda one: (max(0, public.position.seq - one.public), one.missing))
        lacks = max(0, public.position.seq - best.public)
        if private.position.digest != EMPTY and all(one.private is None for one in held):
            loss.private += 1
        lacks += min((max(0, private.position.seq - one.private) for one in held if one.private is not None), default=0)
        loss.behind += bool(lacks or best.missing)
        loss.changes += lacks
        loss.bodies += best.missing
