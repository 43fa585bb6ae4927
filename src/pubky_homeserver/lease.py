"""Who works in the background, where a homeserver is several processes: there must be one, and only one.

A lease in the store says who. Its holder takes it again and again; when that one is gone for good the next one, which
waits, has it some seconds later. While the store is away nobody else can take it either, so its holder goes on. What
two do at once in between harms nothing, for each step of the store looks whether it is the next one; but who was out of
it does not know any more what is true, and has to begin anew.
"""

from collections.abc import Callable
from secrets import token_hex
from typing import ClassVar

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from pubky_homeserver.core.errors import StoreAway
from pubky_homeserver.interfaces import ILeaseStore
from pubky_homeserver.rounds import Rounds

LASTS = 15.0
"""Seconds that a lease lasts: so long nobody works in the background when its holder dies."""

EVERY = 4.0
"""Seconds from one time that it is taken to the next; three of them may fail."""


@define(eq=False)
class Lease(Service):
    """The lease of this process. `wait` for it, then start it; while it runs it is kept, and left at the end."""

    store: ILeaseStore
    clock: IReactorTime
    lost: Callable[[], None]
    """Is told that another process has had it meanwhile."""
    holder: str = field(factory=lambda: token_hex(8))
    """What this process is called there."""
    _number: int | None = field(default=None, init=False)
    _rounds: Rounds = field(init=False)
    log: ClassVar[Logger] = Logger()

    @_rounds.default
    def _make_rounds(self) -> Rounds:
        return Rounds(self._keep, "The lease of the background work", EVERY, self.clock)

    async def wait(self) -> None:
        """Have the lease, or wait until it is free."""
        is_told = False
        while (number := await self._try()) is None:
            if not is_told:
                self.log.info("Another process works in the background: this one waits until it is gone")
                is_told = True
            await deferLater(self.clock, EVERY)
        self._number = number

    def startService(self) -> None:
        """Keep it from now on."""
        super().startService()
        self._rounds.startService()

    def stopService(self) -> Deferred[None]:
        """Leave it; fires when the next one may have it."""
        super().stopService()
        return Deferred.fromCoroutine(self._leave())

    async def _try(self) -> int | None:
        try:
            return await self.store.take(self.holder, LASTS)
        except StoreAway:
            return None

    async def _keep(self) -> None:
        number = await self.store.take(self.holder, LASTS)
        if number != self._number and self.running:
            self.lost()

    async def _leave(self) -> None:
        await self._rounds.stopService()
        try:
            await self.store.leave(self.holder)
        except StoreAway:
            pass  # it ends by itself
