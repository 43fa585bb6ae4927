"""Nodes of the DHT on real sockets: ten of them on the loopback."""

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from zope.interface.verify import verifyObject

from pkarr.dht.items import MutableItem, mutable_target, signable
from pkarr.dht.node import Dht, Settings
from pkarr.interfaces import Conflict, INetwork, NotMostRecent, PacketRefused, Policy, Unavailable, UnreadableItem
from pkarr.keys import Keypair
from pkarr.packet import SignedPacket

from .swarm import BOTH, LOOPBACK, LOOPBACK_V6, joining, keypair, packet, reactor, running, swarm

KEY = keypair(1)


def item(seq: int, v: bytes = b"5:hello", salt: bytes = b"", key: Keypair = KEY) -> MutableItem:
    """A valid item."""
    return MutableItem(key.public_key.raw, seq, v, key.sign(signable(seq, v, salt)), salt)


def test_port() -> None:
    """A node is a network for packets."""
    verifyObject(INetwork, Dht(reactor, LOOPBACK))


@pytest.mark.parametrize("settings", [LOOPBACK, LOOPBACK_V6, BOTH], ids=["IPv4", "IPv6", "both"])
@pytest_twisted.ensureDeferred
async def test_publish_and_resolve(settings: Settings) -> None:
    """What one node publishes, every other one finds; with the number of nodes that keep it."""
    async with swarm(10, settings) as nodes:
        published = packet(KEY, 1000)
        assert await nodes[3].publish(published) >= 9
        for node in nodes:
            for policy in (Policy.NETWORK_ONLY, Policy.CACHE_FIRST):
                assert await node.resolve(KEY.public_key, policy) == published
        assert await nodes[5].resolve(keypair(2).public_key) is None


@pytest_twisted.ensureDeferred
async def test_newest_wins() -> None:
    """A newer packet replaces an older one; an older one is refused and spreads no further."""
    async with swarm(10) as nodes:
        await nodes[1].publish(packet(KEY, 1000))
        newer = packet(KEY, 1001, "newer")
        await nodes[2].publish(newer)
        with pytest.raises(NotMostRecent):
            await nodes[3].publish(packet(KEY, 1000))
        assert await nodes[4].publish(newer) >= 9, "publishing the same again refreshes it"
        assert await nodes[5].resolve(KEY.public_key, Policy.NETWORK_ONLY) == newer
        target = mutable_target(KEY.public_key.raw)
        kept = [node.stored.get(target, reactor.seconds()) for node in nodes]
        assert {kept_item.seq for kept_item in kept if isinstance(kept_item, MutableItem)} == {1001}


@pytest_twisted.ensureDeferred
async def test_replacing() -> None:
    """Of two who change a record at once, one is told."""
    async with swarm(10) as nodes:
        await nodes[1].publish(packet(KEY, 1000))
        await nodes[2].publish(packet(KEY, 1001), replaces=1000)
        with pytest.raises(Conflict):
            await nodes[3].publish(packet(KEY, 1002), replaces=1000)
        assert await nodes[4].put(item(1003), cas=1001) >= 9


@pytest_twisted.ensureDeferred
async def test_items_that_are_no_packets() -> None:
    """Who signs something that is no packet has no older packet any more; anything else can be stored too."""
    async with swarm(10) as nodes:
        await nodes[1].publish(packet(KEY, 1000))
        await nodes[1].put(item(1001))
        with pytest.raises(UnreadableItem) as unreadable:
            await nodes[2].resolve(KEY.public_key)
        assert unreadable.value.seq == 1001
        await nodes[1].put(item(1, b"d1:ali1ei2eee", b"salt"))
        assert await nodes[2].get(KEY.public_key.raw, b"salt") == item(1, b"d1:ali1ei2eee", b"salt")
        assert await nodes[2].get(KEY.public_key.raw, b"other") is None


@pytest_twisted.ensureDeferred
async def test_refused_items() -> None:
    """What no node ever keeps is said to be refused."""
    async with swarm(5) as nodes:
        for wrong in (item(1, b"1001:" + bytes(1001)), item(1, salt=bytes(65)), evolve(item(1), seq=2)):
            with pytest.raises(PacketRefused):
                await nodes[1].put(wrong)
        largest = SignedPacket.parse(bytes(packet(KEY, 1)))
        with pytest.raises(PacketRefused):
            await nodes[1].publish(evolve_timestamp(largest, 2**63))
        assert sum(len(node.stored) for node in nodes) == 0


def evolve_timestamp(old: SignedPacket, timestamp: int) -> SignedPacket:
    """The packet of KEY, signed anew for another time."""
    return SignedPacket.sign(KEY, old.records, timestamp)


@pytest_twisted.ensureDeferred
async def test_nobody_there() -> None:
    """Without anybody to ask, and without an answer, a node says so; it keeps nothing for itself alone."""
    async with running(Dht(reactor, evolve(LOOPBACK, serves=False))) as lonely:
        with pytest.raises(Unavailable, match="No DHT nodes were queried"):
            await lonely.publish(packet(KEY, 1))
    nowhere = evolve(LOOPBACK, serves=False, timeout=0.05, bootstrap=(("127.0.0.1", 9),))
    async with running(Dht(reactor, nowhere)) as lonely:
        with pytest.raises(Unavailable, match="No queried DHT nodes responded"):
            await lonely.resolve(KEY.public_key)


@pytest_twisted.ensureDeferred
async def test_first_node_of_a_network() -> None:
    """A network of one's own works from the first node on."""
    async with running(Dht(reactor, LOOPBACK)) as first:
        assert await first.publish(packet(KEY, 1)) == 1
        assert await first.resolve(KEY.public_key) == packet(KEY, 1)
        assert await first.resolve(KEY.public_key, Policy.CACHE_ONLY) == packet(KEY, 1)
        async with running(Dht(reactor, evolve(joining(first), serves=False))) as client:
            assert await client.resolve(KEY.public_key) == packet(KEY, 1)
            assert await client.resolve(KEY.public_key, Policy.CACHE_ONLY) is None
            assert await client.publish(packet(KEY, 2)) == 1


@pytest_twisted.ensureDeferred
async def test_kept_over_a_restart() -> None:
    """A node that knew others finds back to them without help, under its old id."""
    async with swarm(10) as nodes:
        saved = nodes[4].save()
        await nodes[4].stopService()
        async with running(Dht(reactor, LOOPBACK, type(saved).parse(bytes(saved)))) as again:
            await again.when_joined()
            assert again.save().ids == saved.ids
            assert again.known >= 8


@pytest_twisted.ensureDeferred
async def test_cancelled() -> None:
    """Whoever no longer wants an answer can say so, and a node that stops leaves nobody waiting."""
    async with running(Dht(reactor, evolve(LOOPBACK, bootstrap=(("127.0.0.1", 9),)))) as node:
        unwanted = Deferred.fromCoroutine(node.resolve(KEY.public_key))
        unwanted.cancel()
        waiting = Deferred.fromCoroutine(node.resolve(KEY.public_key))
    for answer in (unwanted, waiting):
        with pytest.raises(CancelledError):
            await answer
