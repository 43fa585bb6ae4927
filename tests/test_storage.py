"""Writes and their locks, without HTTP."""

from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from pubky_homeserver.core.capabilities import parse_capabilities
from pubky_homeserver.core.errors import LockLost, StoreAway
from pubky_homeserver.core.locks import HOLD_INTERVAL
from pubky_homeserver.core.records import Account, Lock, Session
from pubky_homeserver.interfaces import ILockStore
from pubky_homeserver.storage import Conditions, Storage
from pubky_homeserver.store.locks import MemoryLocks
from pubky_homeserver.store.memory import MemoryStore
from pubky_homeserver.testing import MemoryBlobs

ALICE = "a" * 52
PATH = "/pub/a"
TOKEN = "opaquelocktoken:one"
SESSION = Session("0" * 64, ALICE, parse_capabilities("/:rw"), 0)


@implementer(ILockStore)
@define
class LameLocks:
    """Locks whose store is away at some moments."""

    locks: MemoryLocks
    clock: Clock
    away: set[float]
    """Seconds at which holding a lock fails."""
    held: list[float] = field(factory=list)
    """When somebody tried."""

    async def lock(self, pubky: str, path: str, lock: Lock) -> None:
        """See `ILockStore`."""
        await self.locks.lock(pubky, path, lock)

    async def refresh(self, pubky: str, path: str, tokens: Sequence[str], seconds: int) -> Lock:
        """See `ILockStore`."""
        return await self.locks.refresh(pubky, path, tokens, seconds)

    async def hold(self, pubky: str, path: str, tokens: Sequence[str]) -> None:
        """See `ILockStore`."""
        self.held.append(self.clock.seconds())
        if self.clock.seconds() in self.away:
            raise StoreAway
        await self.locks.hold(pubky, path, tokens)

    async def unlock(self, pubky: str, path: str, token: str) -> None:
        """See `ILockStore`."""
        await self.locks.unlock(pubky, path, token)


@pytest.mark.parametrize(("away", "lost"), [({10.0}, False), ({10.0, 30.0}, False), ({10.0, 20.0}, True)])
@pytest_twisted.ensureDeferred
async def test_a_slow_write_goes_on_holding_its_lock(away: set[float], lost: bool) -> None:
    """A store that is away for a moment does not end the care for a lock; if it is away too long the lock is lost."""
    clock = Clock()
    store = MemoryStore(clock)
    locks = LameLocks(store.locks, clock, away)
    storage = Storage(store, locks, MemoryBlobs(clock), clock)
    await store.sign_up(Account(ALICE, 1), None, None, False)
    await locks.lock(ALICE, PATH, Lock(TOKEN, 1))
    more: Deferred[bytes] = Deferred()

    async def body() -> AsyncIterator[bytes]:
        yield await more

    writing = Deferred.fromCoroutine(storage.put(SESSION, ALICE, PATH, body(), 5, Conditions(tokens=[TOKEN])))
    for _ in range(4):
        clock.advance(HOLD_INTERVAL)
    assert locks.held == [10, 20, 30, 40]
    more.callback(b"hello")
    if lost:
        with pytest.raises(LockLost):
            await writing
    else:
        await writing
    assert (await store.entry(ALICE, PATH) is None) == lost
    clock.advance(60)
    assert len(locks.held) == 4, "it ends with the write"
