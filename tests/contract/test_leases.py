"""What every store does with the lease: one holder at a time, and a number that grows when it is another one."""

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater
from zope.interface.verify import verifyObject

from pubky_homeserver.interfaces import ILeaseStore
from tests.contract.store import Store

SHORT = 0.05  # seconds


def test_keeps_the_port(store: Store) -> None:
    """The store has every method of the port, with its arguments."""
    verifyObject(ILeaseStore, store.lease)


@pytest_twisted.ensureDeferred
async def test_one_at_a_time(store: Store) -> None:
    """Nobody else has it while it lasts; who has it may have it longer, and leaves it to the next one."""
    assert await store.lease.take("one", 60) == 1
    assert await store.lease.take("other", 60) is None
    assert await store.lease.take("one", 60) == 1
    await store.lease.leave("other")
    assert await store.lease.take("other", 60) is None
    await store.lease.leave("one")
    assert await store.lease.take("other", 60) == 2
    assert await store.lease.take("one", 60) is None
    await store.lease.leave("other")
    assert await store.lease.take("other", 60) == 3, "somebody may have had it in between"


@pytest_twisted.ensureDeferred
async def test_it_ends(store: Store) -> None:
    """Whoever comes after its end has it; until then its holder may go on, without another number."""
    assert await store.lease.take("one", SHORT) == 1
    await deferLater(reactor, 2 * SHORT)  # time is what it is about
    assert await store.lease.take("one", SHORT) == 1
    await deferLater(reactor, 2 * SHORT)  # time is what it is about
    assert await store.lease.take("other", 60) == 2
    assert await store.lease.take("one", 60) is None
