"""What happened to accounts between homeservers, in Redis and in memory.

A move is the text `what pubky other time back`, with `-` for no other homeserver; a fork the text `pubky peer`, with
its time as the score. Times are microseconds.
"""

from collections.abc import Callable

from attrs import define, field, frozen
from zope.interface import implementer

from pubky_homeserver.core.moves import Fork, Move
from pubky_homeserver.interfaces import IChronicleStore
from pubky_homeserver.store import schema
from pubky_homeserver.store.connection import Commands

MOVES = 100
FORKS = 1000
"""How many are remembered: an operator looks at the newest, and a peer may claim forks of every account."""


@implementer(IChronicleStore)
@frozen
class RedisChronicle:
    """The chronicle in Redis. `redis` is the live connection."""

    redis: Callable[[], Commands]

    async def note_move(self, move: Move) -> None:
        """See `IChronicleStore`."""
        text = f"{move.what} {move.pubky} {move.other or '-'} {move.at} {int(move.is_back)}"
        await self.redis().pipeline([("RPUSH", schema.MOVES, text), ("LTRIM", schema.MOVES, -MOVES, -1)])

    async def moves(self) -> list[Move]:
        """See `IChronicleStore`."""
        return [_unpack(text.decode()) for text in await self.redis().call("LRANGE", schema.MOVES, 0, -1)]

    async def note_fork(self, fork: Fork) -> None:
        """See `IChronicleStore`."""
        noted = "ZADD", schema.FORKS, fork.at, f"{fork.pubky} {fork.peer}"
        await self.redis().pipeline([noted, ("ZREMRANGEBYRANK", schema.FORKS, 0, -FORKS - 1)])

    async def forks(self) -> list[Fork]:
        """See `IChronicleStore`."""
        flat = await self.redis().call("ZRANGE", schema.FORKS, 0, -1, "WITHSCORES")
        found = zip(flat[::2], flat[1::2], strict=True)
        return [Fork(pubky, peer, int(at)) for who, at in found for pubky, peer in [who.decode().split(" ")]]


@implementer(IChronicleStore)
@define(eq=False)
class MemoryChronicle:
    """The same in memory."""

    _moves: list[Move] = field(factory=list, init=False)
    _forks: list[Fork] = field(factory=list, init=False)

    async def note_move(self, move: Move) -> None:
        """See `IChronicleStore`."""
        self._moves = [*self._moves, move][-MOVES:]

    async def moves(self) -> list[Move]:
        """See `IChronicleStore`."""
        return [*self._moves]

    async def note_fork(self, fork: Fork) -> None:
        """See `IChronicleStore`."""
        others = [one for one in self._forks if (one.pubky, one.peer) != (fork.pubky, fork.peer)]
        self._forks = sorted([*others, fork], key=lambda one: (one.at, one.pubky, one.peer))[-FORKS:]

    async def forks(self) -> list[Fork]:
        """See `IChronicleStore`."""
        return [*self._forks]

    def forget(self, pubky: str) -> None:
        """Forget what happened to an account."""
        self._moves = [one for one in self._moves if one.pubky != pubky]
        self._forks = [one for one in self._forks if one.pubky != pubky]


def _unpack(text: str) -> Move:
    what, pubky, other, at, is_back = text.split(" ")
    return Move(pubky, what, "" if other == "-" else other, int(at), is_back == "1")
