"""The sweep, over the twins in memory."""

import os
from collections.abc import Iterable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs

from pubky_homeserver.core.errors import StoreAway
from pubky_homeserver.core.records import Account, Entry
from pubky_homeserver.store.memory import MemoryStore
from pubky_homeserver.sweep import FEW, LOOK, ORPHAN_AGE, PAGE, Sweep
from pubky_homeserver.testing import MemoryBlobs

PUBKY = "8pinxxgqs41n4aididenw5apqp1urfmzdztr8jt4abrkdn435ewo"
INTERVAL = 3600
GRACE = 60


class House:
    """A store, its bodies and their sweep, on one clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.store = MemoryStore(self.clock, grace=GRACE)
        self.blobs = MemoryBlobs(self.clock)
        self.sweep = Sweep(self.blobs, self.store, self.clock, INTERVAL)

    async def put(self, path: str) -> str:
        """Keep a body as a file of the account; returns its id."""
        blob = self.blobs.add(b"body")
        await self.store.put(PUBKY, Entry(path, os.urandom(32), 4, "text/plain", 1, blob=blob), None, True)
        return blob

    async def bodies(self) -> set[str]:
        """The ids of all bodies."""
        return set(await self.blobs.older_than(0, "", 1_000_000))


@pytest_twisted.async_fixture
async def house() -> House:
    """A house with an account."""
    house = House()
    await house.store.sign_up(Account(PUBKY, 1), None, None, False)
    return house


@pytest_twisted.ensureDeferred
async def test_grace(house: House) -> None:
    """A replaced or deleted body stays for its grace, then its file and its mention go; what is in use stays."""
    replaced, deleted = await house.put("/pub/a"), await house.put("/pub/b")
    current = await house.put("/pub/a")
    await house.store.delete(PUBKY, "/pub/b")
    house.clock.advance(GRACE - 1)
    await house.sweep.sweep()
    assert await house.bodies() == {replaced, deleted, current}
    house.clock.advance(2)
    await house.sweep.sweep()
    assert await house.bodies() == {current}
    assert await house.store.known_blobs([replaced, deleted, current]) == {current}


@pytest_twisted.ensureDeferred
async def test_grace_of_many(house: House) -> None:
    """However many graces are over, one sweep ends them all."""
    for _ in range(2 * PAGE + 1):
        last = await house.put("/pub/a")
    house.clock.advance(GRACE + 1)
    await house.sweep.sweep()
    assert await house.bodies() == {last}


@pytest_twisted.ensureDeferred
async def test_orphan(house: House) -> None:
    """An orphan goes when it is older than a day and two sweeps in a row found it unknown, not before."""
    used = {await house.put(f"/pub/{number}") for number in range(20)}
    orphan = house.blobs.add(b"orphan")
    house.clock.advance(ORPHAN_AGE - 1)
    for _ in range(3):
        await house.sweep.sweep()
    house.clock.advance(2)
    await house.sweep.sweep()
    assert await house.bodies() == used | {orphan}
    await house.sweep.sweep()
    assert await house.bodies() == used


@pytest_twisted.ensureDeferred
async def test_orphan_that_becomes_known(house: House) -> None:
    """A body that the store knows at the second look stays: one listing alone proves nothing."""
    used = {await house.put(f"/pub/{number}") for number in range(20)}
    late = house.blobs.add(b"late")
    house.clock.advance(ORPHAN_AGE + 1)
    await house.sweep.sweep()
    await house.store.put(PUBKY, Entry("/pub/late", os.urandom(32), 4, "text/plain", 1, blob=late), None, True)
    await house.sweep.sweep()
    await house.sweep.sweep()
    assert await house.bodies() == used | {late}


@pytest.mark.parametrize(("used", "orphans", "removed"), [(9, 1, True), (8, 1, False), (0, 1, False), (900, 100, True)])
@pytest_twisted.ensureDeferred
async def test_a_tenth(house: House, used: int, orphans: int, removed: bool) -> None:
    """Up to a tenth of the bodies goes; when more are unknown, none goes, and the operator can see it and allow it."""
    for number in range(used):
        await house.put(f"/pub/{number}")
    for _ in range(orphans):
        house.blobs.add(b"orphan")
    house.clock.advance(ORPHAN_AGE + 1)
    with capturedLogs() as logs:
        for _ in range(3):
            await house.sweep.sweep()
    complaints = [event for event in logs if event["log_level"] == LogLevel.error]
    assert len(await house.bodies()) == (used if removed else used + orphans)
    assert house.sweep.held == (0 if removed else orphans)
    assert len(complaints) == (0 if removed else 1)
    house.sweep.allow()
    await house.sweep.sweep()
    assert len(await house.bodies()) == used
    assert house.sweep.held == 0


@pytest_twisted.ensureDeferred
async def test_the_word_is_for_once(house: House) -> None:
    """What the operator allowed is done once; the next time the sweep asks again."""
    for expected in (0, 1):
        house.blobs.add(b"orphan")
        house.clock.advance(ORPHAN_AGE + 1)
        if not expected:
            house.sweep.allow()
        await house.sweep.sweep()
        await house.sweep.sweep()
        assert len(await house.bodies()) == expected


class Failing(MemoryStore):
    """A store that is away, or broken, now and then."""

    failures: list[Exception]

    async def expired_blobs(self, now: int, limit: int) -> list[str]:
        """Fail as told."""
        if self.failures:
            raise self.failures.pop()
        return await super().expired_blobs(now, limit)


@pytest_twisted.ensureDeferred
async def test_goes_on(house: House) -> None:
    """A sweep that fails is logged, and the next one comes after the interval; none comes after the stop."""
    store = Failing(house.clock)
    store.failures = [StoreAway(), RuntimeError("broken")]
    await store.sign_up(Account(PUBKY, 1), None, None, False)
    sweep = Sweep(house.blobs, store, house.clock, INTERVAL)
    sweep.startService()
    with capturedLogs() as logs:
        house.clock.advance(INTERVAL - 1)
        assert len(store.failures) == 2
        house.clock.advance(1)
        house.clock.advance(INTERVAL)
    assert [event["log_level"] for event in logs] == [LogLevel.critical, LogLevel.warn]
    assert isinstance(logs[0]["log_failure"].value, RuntimeError)
    blob = house.blobs.add(b"body")
    await store.put(PUBKY, Entry("/pub/a", os.urandom(32), 4, "text/plain", 1, blob=blob), None, True)
    await store.delete(PUBKY, "/pub/a")
    house.clock.advance(INTERVAL + 1)
    assert await house.bodies() == set()
    store.failures = [RuntimeError("nobody calls")]
    sweep.stopService()
    house.clock.advance(10 * INTERVAL)
    assert len(store.failures) == 1
    assert not house.clock.getDelayedCalls()


def test_stops_in_the_middle(house: House) -> None:
    """A sweep that waits for the store ends with the service."""
    cancelled: list[Any] = []
    waiting: Deferred[list[str]] = Deferred(cancelled.append)

    class Slow(MemoryStore):
        async def expired_blobs(self, now: int, limit: int) -> list[str]:
            return await waiting

    sweep = Sweep(house.blobs, Slow(house.clock), house.clock, INTERVAL)
    sweep.startService()
    house.clock.advance(INTERVAL)
    assert cancelled == []
    sweep.stopService()
    assert cancelled == [waiting]
    assert not house.clock.getDelayedCalls()


@pytest_twisted.ensureDeferred
async def test_a_full_disk_ends_the_grace(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room bodies in grace go before their time, the oldest first, and no more than needed; the others stay."""
    old = [await house.put("/pub/a") for _ in range(3 * FEW)]
    current = old.pop()
    house.blobs.room = False
    removed: list[str] = []
    remove = house.blobs.remove

    async def counted(blobs: Iterable[str]) -> None:
        page = list(blobs)
        removed.extend(page)
        house.blobs.room = len(removed) >= 2 * FEW
        await remove(page)

    monkeypatch.setattr(MemoryBlobs, "remove", lambda _, blobs: counted(blobs))
    house.sweep.startService()
    house.clock.advance(LOOK)
    assert removed == old[: 2 * FEW]
    assert await house.bodies() == {*old[2 * FEW :], current}
    house.clock.advance(LOOK)
    assert len(removed) == 2 * FEW
    house.sweep.stopService()
