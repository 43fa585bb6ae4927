"""Records of others: published where the network has forgotten them, or their homeserver is silent; else left alone."""

from collections.abc import AsyncIterator

import pytest
import pytest_twisted
from attrs import define
from twisted.internet.task import Clock

from pkarr.builder import Builder
from pkarr.interfaces import NotMostRecent
from pkarr.keys import Keypair
from pkarr.packet import SignedPacket
from pubky_homeserver.copies import Copies
from pubky_homeserver.packets import Packets
from pubky_homeserver.peers.reminding import FIRST, INTERVAL, SILENT, Reminder
from pubky_homeserver.peers.tally import Counted
from pubky_homeserver.store.memory import MemoryStore
from tests.pkarr.networks import Simulated

NOW = 1_795_387_747.0
US, PEER, USER = (Keypair(bytes([number]) * 32) for number in (1, 2, 3))


def record(timestamp: int, keypair: Keypair = USER, homeserver: Keypair = PEER) -> SignedPacket:
    """What somebody says of where they live."""
    return Builder().https("_pubky", 0, homeserver.public_key.z32).sign(keypair, timestamp)


@define
class Stage:
    """A homeserver with a copy from a peer, and a network."""

    clock: Clock
    store: MemoryStore
    copies: Copies
    packets: Packets
    network: Simulated
    reminder: Reminder

    def published(self) -> list[int]:
        """The times that stand in the packets that were published, since the last look."""
        found = [packet.timestamp for _, packet in self.network.published]
        self.network.published.clear()
        return found

    def pass_time(self, seconds: float) -> None:
        """Let time pass; the peer is heard all the while unless it is silent."""
        self.clock.pump([1.0] * int(seconds))


@pytest_twisted.async_yield_fixture
async def stage() -> AsyncIterator[Stage]:
    """A reminder that runs, over a copy of one user."""
    clock = Clock()
    clock.advance(NOW)
    store, network = MemoryStore(clock), Simulated(clock)
    peer, user = PEER.public_key.z32, USER.public_key.z32
    await store.copies.begin(user, peer, 1)
    copies = Copies(store.copies, clock)
    await copies.load()
    packets = Packets(store.packets, US.public_key.z32, frozenset([peer]))
    await packets.learn(record(10))
    reminder = Reminder(packets, copies, frozenset([peer]), network, clock)
    reminder.startService()
    yield Stage(clock, store, copies, packets, network, reminder)
    await reminder.stopService()
    assert not clock.getDelayedCalls()


@pytest_twisted.ensureDeferred
async def test_what_the_network_has_forgotten(stage: Stage) -> None:
    """A record that nobody has any more, or only an older one, is published; one that is there is not."""
    stage.pass_time(FIRST + 10)
    assert stage.published() == [10]
    stage.copies.hear(PEER.public_key.z32)
    stage.pass_time(1)
    stage.network.packets[USER.public_key.raw] = record(9)
    for _ in range(int(INTERVAL / 600)):
        stage.copies.hear(PEER.public_key.z32)
        stage.pass_time(600)
    stage.pass_time(10)
    assert stage.published() == [10]
    for _ in range(int(INTERVAL / 600)):
        stage.copies.hear(PEER.public_key.z32)
        stage.pass_time(600)
    assert stage.published() == []


@pytest_twisted.ensureDeferred
async def test_a_newer_one_is_learned(stage: Stage) -> None:
    """Nobody is led back in time: what the network has newer is kept here."""
    stage.network.packets[USER.public_key.raw] = record(11)
    stage.pass_time(FIRST + 10)
    assert stage.published() == []
    newest = await stage.packets.of(USER.public_key.z32)
    assert newest == record(11)


@pytest_twisted.ensureDeferred
async def test_a_silent_homeserver(stage: Stage) -> None:
    """After hours without a word of the homeserver its users' records are published, and its own."""
    await stage.packets.learn(record(20, PEER, US))
    stage.network.packets[USER.public_key.raw] = record(10)
    stage.network.packets[PEER.public_key.raw] = record(20, PEER, US)
    stage.pass_time(FIRST + 10)
    assert stage.published() == []
    stage.pass_time(max(SILENT, INTERVAL) + 10)
    assert sorted(stage.published()) == [10, 20]


@pytest_twisted.ensureDeferred
async def test_a_network_that_is_away(stage: Stage) -> None:
    """It is tried again in the next round."""
    stage.network.is_away = True
    stage.pass_time(FIRST + 10)
    stage.network.is_away = False
    assert stage.published() == []
    stage.pass_time(INTERVAL)
    assert stage.published() == [10]


@define(eq=False)
class Crossed(Simulated):
    """A network in which something else is there after a record was published."""

    instead: SignedPacket | None = None
    is_newest: bool = False
    """Whether it says so when it is given an older one."""

    async def publish(self, packet: SignedPacket, replaces: int | None = None) -> int:
        """See `INetwork`."""
        if self.instead is None:
            return 20
        self.packets[packet.public_key.raw] = self.instead
        if self.is_newest:
            raise NotMostRecent("a newer one is here")
        return 20


@pytest.mark.parametrize("is_newest", [False, True])
@pytest_twisted.ensureDeferred
async def test_what_was_published_is_read_back(stage: Stage, is_newest: bool) -> None:
    """What crossed it is learned."""
    stage.reminder.network = Crossed(stage.clock, instead=record(12), is_newest=is_newest)
    stage.pass_time(FIRST + 10)
    assert await stage.packets.of(USER.public_key.z32) == record(12)


@pytest_twisted.ensureDeferred
async def test_what_nobody_keeps_is_not_published(stage: Stage) -> None:
    """A record that is not there afterwards does not count, and is published again in the next round."""
    stage.reminder.network = Crossed(stage.clock)
    stage.pass_time(FIRST + 10)
    assert stage.reminder.tally.of(Counted.REMINDED) == 0
    stage.reminder.network = stage.network
    stage.pass_time(INTERVAL)
    assert stage.reminder.tally.of(Counted.REMINDED) == 1
    assert stage.published() == [10]
