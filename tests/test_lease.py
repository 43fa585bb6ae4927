"""Of several processes one works in the background; when it is gone the next one does."""

from collections.abc import Iterator

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from pubky_homeserver.core.errors import StoreAway
from pubky_homeserver.interfaces import ILeaseStore
from pubky_homeserver.lease import EVERY, LASTS, Lease
from pubky_homeserver.store.leases import MemoryLease


@implementer(ILeaseStore)
@define(eq=False)
class Moody:
    """A store that may be away."""

    store: MemoryLease
    is_away: bool = False

    async def take(self, holder: str, seconds: float) -> int | None:
        """See `ILeaseStore`."""
        if self.is_away:
            raise StoreAway
        return await self.store.take(holder, seconds)

    async def leave(self, holder: str) -> None:
        """See `ILeaseStore`."""
        if self.is_away:
            raise StoreAway
        await self.store.leave(holder)


@define(eq=False)
class Office:
    """A store, and two who want to work."""

    clock: Clock = field(factory=Clock)
    store: Moody = field(init=False)
    lost: list[str] = field(factory=list)
    one: Lease = field(init=False)
    other: Lease = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.store = Moody(MemoryLease(lambda: int(self.clock.seconds() * 1_000_000)))
        self.one = Lease(self.store, self.clock, lambda: self.lost.append("one"), "one")
        self.other = Lease(self.store, self.clock, lambda: self.lost.append("other"), "other")

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        for _ in range(int(seconds)):
            self.clock.advance(1)


@pytest.fixture
def office() -> Iterator[Office]:
    """Nobody works yet."""
    office = Office()
    yield office
    assert not office.clock.getDelayedCalls()


def is_over(wait: "Deferred[None]") -> bool:
    """Whether it has come true."""
    return wait.called


def waiting(lease: Lease) -> "Deferred[None]":
    """Wait for it."""
    return Deferred.fromCoroutine(lease.wait())


@pytest_twisted.ensureDeferred
async def test_the_second_waits(office: Office) -> None:
    """However long the first one works; when it stops the second one has it a moment later."""
    assert is_over(waiting(office.one))
    office.one.startService()
    second = waiting(office.other)
    office.wait(20 * LASTS)
    assert not is_over(second)
    await office.one.stopService()
    office.wait(EVERY)
    assert is_over(second)
    office.other.startService()
    await office.other.stopService()
    assert office.lost == []


@pytest_twisted.ensureDeferred
async def test_one_that_is_killed(office: Office) -> None:
    """The second one has it when the lease is over. The first, if it was only frozen, learns that it is out of it."""
    assert is_over(waiting(office.one))
    second = waiting(office.other)
    office.wait(LASTS - 1)
    assert not is_over(second)
    office.wait(1 + EVERY)
    assert is_over(second)
    office.other.startService()
    office.one.startService()
    office.wait(EVERY)
    assert office.lost == ["one"]
    await office.other.stopService()
    await office.one.stopService()


@pytest_twisted.ensureDeferred
async def test_a_store_that_is_away(office: Office) -> None:
    """Nobody can take the lease then, so its holder goes on, and has it still when the store is back."""
    office.store.is_away = True
    first = waiting(office.one)
    office.wait(60)
    assert not is_over(first)
    office.store.is_away = False
    office.wait(EVERY)
    assert is_over(first)
    office.one.startService()
    office.store.is_away = True
    office.wait(10 * LASTS)
    office.store.is_away = False
    office.wait(EVERY)
    second = waiting(office.other)
    assert not is_over(second)
    assert office.lost == []
    office.store.is_away = True
    await office.one.stopService()
    second.addErrback(lambda _failure: None)
    second.cancel()
