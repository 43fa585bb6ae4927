"""The lease of who works in the background, in Redis and in memory."""

from collections.abc import Callable

from attrs import define, field, frozen
from zope.interface import implementer

from pubky_homeserver.interfaces import ILeaseStore
from pubky_homeserver.store import schema
from pubky_homeserver.store.connection import Commands


@implementer(ILeaseStore)
@frozen
class RedisLease:
    """The lease in Redis. `redis` is the live connection."""

    redis: Callable[[], Commands]

    async def take(self, holder: str, seconds: float) -> int | None:
        """See `ILeaseStore`."""
        number = await self.redis().run("take_lease", (schema.LEASE,), (holder, int(seconds * 1_000_000)))
        return None if number is None else int(number)

    async def leave(self, holder: str) -> None:
        """See `ILeaseStore`."""
        await self.redis().run("leave_lease", (schema.LEASE,), (holder,))


@implementer(ILeaseStore)
@define(eq=False)
class MemoryLease:
    """The lease in memory. `now`: the time in microseconds."""

    now: Callable[[], int]
    _holder: str | None = field(default=None, init=False)
    _until: int = field(default=0, init=False)
    _number: int = field(default=0, init=False)

    async def take(self, holder: str, seconds: float) -> int | None:
        """See `ILeaseStore`."""
        if self._holder not in (None, holder) and self._until > self.now():
            return None
        self._number += self._holder != holder
        self._holder, self._until = holder, self.now() + int(seconds * 1_000_000)
        return self._number

    async def leave(self, holder: str) -> None:
        """See `ILeaseStore`."""
        if self._holder == holder:
            self._holder = None
