"""Who writes is looked up: a few in a second, each not too often, and nobody else."""

import pytest_twisted
from twisted.internet.task import Clock

from pkarr.builder import Builder
from pkarr.keys import Keypair
from pubky_homeserver.core.records import Account
from pubky_homeserver.packets import Packets
from pubky_homeserver.peers.watching import AGAIN, BEFORE, HANDFUL, Watch
from pubky_homeserver.store.memory import MemoryStore
from tests.contract.store import entry
from tests.pkarr.networks import Simulated

US, THEM = (Keypair(bytes([number]) * 32).public_key.z32 for number in (101, 102))
USERS = [Keypair(bytes([number]) * 32) for number in range(1, 21)]


@pytest_twisted.ensureDeferred
async def test_who_is_looked_up() -> None:
    """Twenty who write take four seconds; who does not write is never looked up, who goes on each ten seconds."""
    clock = Clock()
    clock.advance(1_795_387_747)
    store, network = MemoryStore(clock), Simulated(clock)
    for user in USERS:
        await store.sign_up(Account(user.public_key.z32, 1), None, None, False)
    watch = Watch(store, store.logs, Packets(store.packets, US, frozenset([THEM])), network, clock)
    watch.startService()
    clock.advance(1)
    assert network.resolved == 0
    for user in USERS:
        await store.put(user.public_key.z32, entry("/pub/a"), None, True)
    for second in range(1, 5):
        clock.advance(1)
        assert network.resolved == second * HANDFUL
    clock.pump([1.0] * 60)
    assert network.resolved == len(USERS)
    for number in range(30):
        await store.put(USERS[0].public_key.z32, entry("/pub/a", b"%d" % number), None, True)
        clock.advance(1)
    assert network.resolved - len(USERS) == 30 / AGAIN
    await watch.stopService()
    assert not clock.getDelayedCalls()


@pytest_twisted.ensureDeferred
async def test_who_moved_is_shut_out() -> None:
    """What is found is learned; a network that fails, or something that nobody expected, ends nothing."""
    clock = Clock()
    clock.advance(1_795_387_747)
    store, network = MemoryStore(clock), Simulated(clock)
    user = USERS[0]
    await store.sign_up(Account(user.public_key.z32, 1), None, None, False)
    watch = Watch(store, store.logs, Packets(store.packets, US, frozenset([THEM])), network, clock)
    watch.startService()
    clock.advance(1)
    network.is_away = True
    await store.put(user.public_key.z32, entry("/pub/a"), None, True)
    clock.advance(1)
    network.is_away = False
    network.packets[user.public_key.raw] = Builder().https("_pubky", 0, THEM).sign(user, 10)
    await store.put(user.public_key.z32, entry("/pub/a", b"two"), None, True)
    clock.pump([1.0] * int(AGAIN + 1))
    copy = await store.copies.copy(user.public_key.z32)
    assert copy is not None
    assert copy.primary == THEM
    await watch.stopService()


@pytest_twisted.ensureDeferred
async def test_who_wrote_before_the_start() -> None:
    """They are looked up too, who wrote last first; but first those who write now, and nobody who wrote long ago."""
    clock = Clock()
    clock.advance(1_795_387_747)
    store, network = MemoryStore(clock), Simulated(clock)
    pubkys = [user.public_key.z32 for user in USERS]
    for pubky in pubkys:
        await store.sign_up(Account(pubky, 1), None, None, False)
    await store.put(pubkys[0], entry("/pub/a"), None, True)
    clock.advance(BEFORE)
    for pubky in pubkys[1:14]:
        clock.advance(1)
        await store.put(pubky, entry("/priv/a"), None, True)
    watch = Watch(store, store.logs, Packets(store.packets, US, frozenset([THEM])), network, clock)
    watch.startService()
    clock.advance(1)
    assert network.resolved == HANDFUL
    assert set(watch._looked) == set(pubkys[9:14])
    for pubky in pubkys[14:]:
        await store.put(pubky, entry("/pub/a"), None, True)
    clock.advance(1)
    assert set(watch._looked) == set(pubkys[9:19])
    clock.pump([1.0] * 20)
    assert set(watch._looked) == set(pubkys[1:])
    assert network.resolved == len(USERS) - 1
    await watch.stopService()
    assert not clock.getDelayedCalls()
