"""A copy that its primary's log does not go on from is compared with it: first looked at, then repaired.

The primary is right, whatever it lacks. But what it lacks may be its loss, so nothing that is here goes unshelved: what
the primary can still take is offered to it (`late.py`), and the store shelves what the list replaces or removes. A
primary that lacks much of what is here has more likely lost it than deleted it: then the comparison **brakes**, and
waits for the operator. Deletes that come as events, in their order, are the user's own and are not counted.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import ClassVar

from attrs import field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pubky_homeserver.core.copies import Reign
from pubky_homeserver.core.errors import ComparisonBraked, NotFound, PeerBroken
from pubky_homeserver.interfaces import ICopyStore, ILogStore, IPeer, IShelfStore
from pubky_homeserver.peers.late import Tail

FEW = 10
"""Files that a comparison may remove whatever share of all they are."""

SHARE = 0.3
"""Of all files, what it may remove without the operator's word."""

PAGE = 250
"""Files of ours that are read at a time."""

END = "\U0010ffff"
"""No path is above it, and no other name either."""


async def _tell_nobody(_pubky: str) -> None:
    """Nobody wants to see that."""


@frozen
class Comparing:
    """Prepares comparisons of a peer's accounts. `key` is our own; `may_keep` as in `Follower`, of the shelf too."""

    peer: IPeer
    store: ICopyStore
    logs: ILogStore
    shelf: IShelfStore
    key: str
    clock: IReactorTime
    may_keep: Callable[[int], bool] = lambda _length: True
    fork: Callable[[str], Awaitable[None]] = _tell_nobody
    """Called with each account whose two histories differ: who looks after the homeserver has to see that."""
    names: Callable[[str, bool, str], Awaitable[Sequence[str]]] = field()
    """The paths of a page of the peer's list, as `IPeer.entries` gives it."""
    log: ClassVar[Logger] = Logger()

    @names.default
    def _read_entries(self) -> Callable[[str, bool, str], Awaitable[Sequence[str]]]:
        async def names(pubky: str, private: bool, after: str) -> list[str]:
            return [entry.path for entry in (await self.peer.entries(pubky, private, after)).entries]

        return names

    @property
    def shelve(self) -> tuple[str, int]:
        """Who shelves, and when."""
        return self.key, int(self.clock.seconds() * 1_000_000)

    async def prepare(self, pubky: str, private: bool, reigns: Sequence[Reign] = ()) -> set[str]:
        """Return if a log may be compared now: its tail is offered, if there are reigns in common, and little goes.

        Without any in common nothing can be offered: then our removals of what the primary has are shelved here.

        What the primary took, by the ids on its shelf. Raises `ComparisonBraked`, `PeerError`, `StorageFull`.
        """
        copy = await self.store.copy(pubky)
        if copy is None:
            raise NotFound
        if copy.braked:
            raise ComparisonBraked(copy.braked)
        if reigns:
            await self.fork(pubky)
        tail = Tail(self.peer, self.logs, self.shelf, self.key, self.clock)
        taken = await tail.offer(pubky, private, reigns)
        is_other = bool(reigns) and not await tail.has_common(pubky, private, reigns)
        if is_other and private and copy.owes:
            taken, _ = await tail.hand_over(pubky)
        gone = await tail.removals(pubky, private) if is_other else {}
        removed, total, back = await self._count(pubky, private, gone)
        is_much = removed > max(FEW, SHARE * total) or not self.may_keep(await self.shelf.shelf_used(self.key))
        if is_much and not 0 < removed <= copy.permitted:
            await self.store.brake(pubky, max(removed, 1))
            self.log.error(
                "The primary of {pubky} lacks {removed} of its {total} files here; nothing is removed before you say "
                "so (homeserver mirror repair)",
                pubky=pubky,
                removed=removed,
                total=total,
            )
            raise ComparisonBraked(max(removed, 1))
        for path in back:
            await tail.shelve(gone[path])
        return taken

    async def settle(self, pubky: str, taken: Iterable[str]) -> None:
        """Forget here what the primary keeps; the comparison is over."""
        for one in taken:
            await self.shelf.drop(pubky, one)

    async def _count(self, pubky: str, private: bool, gone: Collection[str]) -> tuple[int, int, set[str]]:
        """How many files of ours the primary's list lacks, of how many; and which it has of those `gone` here."""
        removed = total = 0
        back: set[str] = set()
        after = seen = ""
        while True:
            there = set(await self.names(pubky, private, after))
            back |= there.intersection(gone)
            upto = max(there, default=END)
            if upto <= after:
                raise PeerBroken("its list is not in order")
            while ours := [one.path for one in await self.store.own(pubky, private, seen, PAGE)]:
                within = [path for path in ours if path <= upto]
                total += len(within)
                removed += sum(path not in there for path in within)
                seen = within[-1] if within else seen
                if len(within) < len(ours):
                    break
            if not there or not (ours or any(path > upto for path in gone)):
                return removed, total, back  # what comes after our last file need not have an end
            after = upto
