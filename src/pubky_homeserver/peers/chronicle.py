"""What happened to accounts between homeservers, as the operator sees it: it outlives this process.

Accounts moved; and of some accounts two homeservers had different histories, so that one of the two has lost something.
Both of them note that: who has the copy, when its primary's log does not go on from there, and the primary, when it
tells it so, or is offered what its log lacks.
"""

from collections import deque
from typing import ClassVar

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pubky_homeserver.core.errors import Refused
from pubky_homeserver.core.moves import Fork, Move
from pubky_homeserver.interfaces import IChronicleStore

BACK = 3600.0
"""Seconds: who moves again within that time may not have meant it."""

AGAIN = 60.0
"""Seconds for which a fork that was noted is not noted again: one that is looked for is met many times."""

SHOWN = 30 * 86_400
"""Seconds for which a fork is shown: as long as what was lost lies on the shelf."""

MOVES = 100


@define(eq=False)
class Chronicle:
    """What is remembered, as it was at the last look. Nothing that is noted here fails: it is only told."""

    store: IChronicleStore
    clock: IReactorTime
    moves: deque[Move] = field(factory=lambda: deque(maxlen=MOVES), init=False)
    """The newest ones, the newest last."""
    _forks: dict[tuple[str, str], Fork] = field(factory=dict, init=False)
    # Account and homeserver → when their histories were last found to differ.
    _is_read: bool = field(default=False, init=False)
    # Whether the moves were.
    log: ClassVar[Logger] = Logger()

    async def look(self) -> None:
        """Read what is remembered; another process may have noted something. Raises `StoreAway`."""
        await self._read_moves()
        self._forks = {(one.pubky, one.peer): one for one in await self.store.forks()}

    async def note_move(self, pubky: str, what: str, other: str) -> None:
        """An account moved, or a claim was void."""
        now, before = self._now(), {"opened": "fenced", "fenced": "opened"}.get(what)
        try:
            if not self._is_read:
                await self._read_moves()
            since = now - BACK * 1_000_000
            is_back = any(one.pubky == pubky and one.what == before and one.at > since for one in self.moves)
            if is_back:
                self.log.warn("{pubky} has moved back and forth: its newest record rules", pubky=pubky)
            move = Move(pubky, what, other, now, is_back)
            self.moves.append(move)
            await self.store.note_move(move)
        except Refused as error:
            self.log.warn("The move of {pubky} is not remembered: {reason}", pubky=pubky, reason=str(error))

    async def note_fork(self, pubky: str, peer: str) -> None:
        """Our history of an account is another one than that of a homeserver."""
        now, known = self._now(), self._forks.get((pubky, peer))
        if known is not None and known.at + AGAIN * 1_000_000 > now:
            return
        fork = self._forks[pubky, peer] = Fork(pubky, peer, now)
        self.log.warn(
            "Our history of {pubky} is not that of {peer}: one of us has lost something", pubky=pubky, peer=peer
        )
        try:
            await self.store.note_fork(fork)
        except Refused as error:
            self.log.warn("That is not remembered: {reason}", reason=str(error))

    async def _read_moves(self) -> None:
        self.moves = deque(await self.store.moves(), maxlen=MOVES)
        self._is_read = True

    def forks(self) -> list[Fork]:
        """Those of the last thirty days, by account and homeserver."""
        since = self._now() - SHOWN * 1_000_000
        return [self._forks[who] for who in sorted(self._forks) if self._forks[who].at > since]

    def forked(self) -> dict[str, int]:
        """When accounts were last found to have two histories (Unix seconds): those that were of late."""
        found: dict[str, int] = {}
        for one in self.forks():
            found[one.pubky] = max(found.get(one.pubky, 0), one.at // 1_000_000)
        return found

    def _now(self) -> int:
        return int(self.clock.seconds() * 1_000_000)
