"""Homeservers that mirror each other, in histories that are told one by one. Seeded ones: `test_simulation.py`."""

from random import Random
from typing import Any

import pytest
import pytest_twisted

from pkarr.keys import Keypair
from pubky_homeserver.core.peers import ALL
from pubky_homeserver.core.quotas import ENTRY_OVERHEAD
from pubky_homeserver.core.records import Entry
from pubky_homeserver.core.shelf import Reason, Shelved
from pubky_homeserver.peers.following import AT_ONCE, Follower
from pubky_homeserver.peers.peering import EPOCH
from tests.peers.backups import back_up
from tests.peers.judge import check_copy, entries
from tests.peers.worlds import User, World, mutual, run

REST = 700.0
"""Seconds after which everybody has tried again: twice the longest pause, and some."""


@pytest.mark.parametrize("most", [0, 5000, 20_000, 1 << 20])
def test_a_budget(most: int) -> None:
    """Copies take no more than they may, but for bodies on their way; the others come when there is room (I15)."""
    failure = run(_budget(most))
    assert failure is None, repr(failure)


async def _budget(most: int) -> None:
    world = World(Random(1), {"a": {"b": {"follow": ALL, "max_bytes": most}}, "b": {"a": {"offer": ALL}}})
    user = User(Keypair(bytes([1]) * 32))
    await world.sign_up(user, "b")
    for number in range(20):
        await world.put(user, f"/pub/{number}", bytes([number]) * 3000)
    for name in ("a", "b"):
        await world.start(name)
    world.pass_time(REST)
    copy = await world.nodes["a"].store.copies.copy(user.pubky)
    assert copy is not None
    files = await entries(world.nodes["a"], user.pubky, "/pub/")
    here = [entry for entry in files if entry.blob is not None]
    assert copy.used == sum(entry.length + ENTRY_OVERHEAD for entry in files)
    assert copy.missing == len(files) - len(here)
    assert copy.absent == 3000 * copy.missing
    assert copy.public.is_whole is (most >= 20 * ENTRY_OVERHEAD)
    room = max(0, most - 20 * ENTRY_OVERHEAD) // 3000
    assert min(room, 20) <= len(here) <= min(room + AT_ONCE, 20) * copy.public.is_whole
    for name in ("a", "b"):
        await world.kill(name)


@pytest_twisted.ensureDeferred
async def test_a_log_takes_room_too() -> None:
    """Files without bodies, and events, are not followed without end; what waits on the shelf takes room as well."""
    world = World(Random(1), {"a": {"b": {"follow": ALL, "max_bytes": 10_000}}, "b": {"a": {"offer": ALL}}})
    user = User(Keypair(bytes([1]) * 32))
    await world.sign_up(user, "b")
    for name in ("a", "b"):
        await world.start(name)
    world.pass_time(10)
    node, peer = world.nodes["a"], world.nodes["b"].key
    assert node.peering is not None
    follower = node.peering.neighbours[peer].follower
    assert isinstance(follower, Follower)
    assert follower.may_keep(8000)
    thing = Shelved(user.pubky, "id", Reason.LATE, peer, "/pub/x", Entry("/pub/x", bytes(32), 5000, "", 1), None, 1, 1)
    await node.store.shelf.shelve(thing)
    await world.put(user, "/pub/first", b"x")
    world.pass_time(10)
    assert not follower.may_keep(8000)
    for number in range(2500):
        await world.put(user, f"/pub/{number % 1250:04}", b"")
    world.pass_time(REST)
    copy = await node.store.copies.copy(user.pubky)
    assert copy is not None
    assert copy.public.position is not None
    assert 1 < copy.public.position.seq < 1100
    peers: Any = node.peering.overview.status()["peers"]
    assert "max_bytes" in str(peers[0]["trouble"])
    for name in ("a", "b"):
        await world.kill(name)


@pytest_twisted.ensureDeferred
async def test_a_peer_that_is_back() -> None:
    """Who was away for long and asks us something is followed again within seconds, not when the long wait is over.

    However often it asks, it is not asked back without end while it answers nothing.
    """
    world = World(Random(1), mutual("a", "b"))
    user = User(Keypair(b"\x01" * 32))
    await world.sign_up(user, "a")
    await world.start("a")
    await world.start("b")
    assert await world.put(user, "/pub/a", b"one")
    world.pass_time(5)
    await world.kill("a")
    world.pass_time(3600)
    peering = world.nodes["b"].peering
    assert peering is not None
    (mirror,), traffic = peering.mirrors, peering._traffic[world.nodes["a"].key]
    assert mirror.failure
    before = traffic.requests
    for _ in range(600):
        peering.site.notice(world.nodes["a"].key)
        world.pass_time(0.1)
    assert 20 < traffic.requests - before < 200
    world.pass_time(3600)
    await world.start("a")
    assert await world.put(user, "/pub/a", b"two")
    world.pass_time(4)
    await check_copy(world.nodes["a"], world.nodes["b"], user.pubky)
    assert not mirror.failure
    for name in world.nodes:
        await world.kill(name)


@pytest_twisted.ensureDeferred
async def test_a_copy_whose_store_lost_it() -> None:
    """A homeserver whose store went back under it, as by a failover, has its copies whole again without a hint."""
    for is_blank in (True, False):
        world = World(Random(1), mutual("a", "b"))
        user = User(Keypair(b"\x01" * 32))
        await world.sign_up(user, "a")
        backup = back_up(world.nodes["b"].store)
        for name in world.nodes:
            await world.start(name)
        assert await world.put(user, "/pub/a", b"one")
        world.pass_time(5)
        if not is_blank:
            backup = back_up(world.nodes["b"].store)
        assert await world.put(user, "/pub/b", b"two")
        world.pass_time(5)
        world.rewind("b", backup)
        world.pass_time(EPOCH + 5)
        await check_copy(world.nodes["a"], world.nodes["b"], user.pubky)
        for name in world.nodes:
            await world.kill(name)
        assert not world.clock.getDelayedCalls()
