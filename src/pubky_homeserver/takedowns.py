"""Which accounts are taken down: asked at every request, and so kept in memory.

The operator takes an account down, or the copy of one; from then on nobody reads its files here, by whatever way, and
nobody adds to them. They stay as they are, and their owner may still delete. Copies of an account that was taken down
where it lives obey: its log says so.
"""

from collections.abc import Callable
from typing import ClassVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pubky_homeserver.copies import Copies
from pubky_homeserver.core.errors import StoreAway
from pubky_homeserver.interfaces import IHints, ITakedownStore


@define(eq=False)
class Takedowns:
    """What this process knows of them. `begin` it before use."""

    store: ITakedownStore
    hints: IHints
    clock: IReactorTime
    copies: Copies | None = None
    known: dict[str, int] = field(factory=dict, init=False)
    """What was taken down here → since when (microseconds)."""
    log: ClassVar[Logger] = Logger()

    async def begin(self) -> Callable[[], None]:
        """Read what is taken down, and hear of changes from now on; returns the way to stop. Raises `StoreAway`."""
        self.known = await self.store.taken_down()
        return self.hints.hear_hints(self._hear)

    def has(self, pubky: str | None) -> bool:
        """Whether nobody may read an account, or a copy, here."""
        if pubky in self.known:
            return True
        copy = None if self.copies is None else self.copies.of(pubky)
        return copy is not None and copy.taken_down

    async def take_down(self, pubky: str) -> bool:
        """Take an account or a copy down; False if it was already. Raises `NotFound`."""
        changed = await self.store.take_down(pubky, int(self.clock.seconds() * 1_000_000))
        await self._read()
        if changed:
            self.log.info("{pubky} is taken down", pubky=pubky)
        return changed

    async def lift(self, pubky: str) -> bool:
        """Show it again; False if it was not taken down here."""
        changed = await self.store.lift(pubky)
        await self._read()
        if changed:
            self.log.info("{pubky} is not taken down any more", pubky=pubky)
        return changed

    async def _read(self) -> None:
        self.known = await self.store.taken_down()

    def _hear(self, hint: str | None) -> None:
        if hint is None or hint.startswith("takedown "):
            reading = Deferred.fromCoroutine(self._read())
            reading.addErrback(lambda failure: failure.trap(StoreAway))  # there is a hint when it is back
            reading.addErrback(lambda failure: self.log.failure("Takedowns cannot be read", failure))
