"""Nodes of the DHT on real sockets: ten of them on the loopback."""

from collections.abc import Callable

import pytest
import pytest_twisted
from attrs import define, evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import deferLater
from zope.interface.verify import verifyObject

from pkarr.dht.contacts import Address
from pkarr.dht.items import MutableItem, mutable_target, signable
from pkarr.dht.krpc import Error, Put, Query, Reply, decode, encode
from pkarr.dht.node import Dht, Settings
from pkarr.interfaces import Conflict, ICounting, NotMostRecent, PacketRefused, Policy, Unavailable, UnreadableItem
from pkarr.keys import Keypair
from pkarr.packet import SignedPacket

from .swarm import BOTH, LOOPBACK, LOOPBACK_V6, joining, keypair, packet, port, reactor, running, swarm

KEY = keypair(1)


def item(seq: int, v: bytes = b"5:hello", salt: bytes = b"", key: Keypair = KEY) -> MutableItem:
    """A valid item."""
    return MutableItem(key.public_key.raw, seq, v, key.sign(signable(seq, v, salt)), salt)


def test_port() -> None:
    """A node is a network for packets."""
    verifyObject(ICounting, Dht(reactor, LOOPBACK))


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
async def test_on_how_many_nodes() -> None:
    """Who looks for a packet can learn how many nodes have just that one; those with an older one do not count."""
    async with swarm(10) as nodes:
        kept = await nodes[1].publish(packet(KEY, 1000))
        assert await nodes[7].count(KEY.public_key) == (packet(KEY, 1000), kept)
        newer = item(1001, b"%d:%b" % (len(packet(KEY, 1001).dns), packet(KEY, 1001).dns))
        nodes[4].stored.put(newer, None, reactor.seconds())
        assert await nodes[7].count(KEY.public_key) == (packet(KEY, 1001), 1)
        assert await nodes[7].count(keypair(2).public_key) == (None, 0)


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


@pytest_twisted.ensureDeferred
async def test_ties() -> None:
    """Of two items of one number the larger stays, and who put the other is told."""
    async with swarm(10) as nodes:
        await nodes[1].put(item(5, b"5:hellp"))
        with pytest.raises(NotMostRecent):
            await nodes[2].put(item(5, b"5:hella"))
        assert await nodes[2].get(KEY.public_key.raw) == item(5, b"5:hellp")


@pytest_twisted.ensureDeferred
async def test_nodes_that_keep_nothing() -> None:
    """Nodes that give no token cannot be asked to keep anything; nodes that refuse all are told apart from silence."""
    for answer in (no_token, only_errors):
        stranger = Stranger(answer)
        listening = reactor.listenUDP(0, stranger, "127.0.0.1")
        there = ("127.0.0.1", listening.getHost().port)
        async with running(Dht(reactor, evolve(LOOPBACK, serves=False, bootstrap=(there,)))) as dht:
            with pytest.raises(Unavailable, match="No responded DHT nodes returned usable response"):
                await dht.publish(packet(KEY, 1))
        await listening.stopListening()


def no_token(query: Query) -> Reply | Error:
    """What an old node answers."""
    return Reply(query.transaction, bytes(20))


def only_errors(query: Query) -> Reply | Error:
    """What a node answers that lets nobody put anything."""
    if isinstance(query.request, Put):
        return Error(query.transaction, 202, b"Server Error")
    return Reply(query.transaction, bytes(20), token=b"token")


@define(eq=False)
class Stranger(DatagramProtocol):
    """A node with answers of its own."""

    answer: Callable[[Query], Reply | Error]
    noisy = False

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Answer."""
        query = decode(datagram)
        assert isinstance(query, Query)
        assert self.transport is not None
        self.transport.write(encode(self.answer(query)), addr)


@pytest_twisted.ensureDeferred
async def test_the_other_network_is_found() -> None:
    """Who joins over IPv4 only hears of nodes with IPv6 addresses, and joins them too (BEP 32)."""
    async with swarm(10, BOTH) as nodes:
        v4_only = tuple(address for address in nodes[0].addresses if ":" not in address[0])
        async with running(Dht(reactor, evolve(BOTH, bootstrap=v4_only))) as late:
            for _ in range(500):
                if {contact.family for contact in late.save().nodes} == {4, 6}:
                    break
                await deferLater(reactor, 0.01)
            assert {contact.family for contact in late.save().nodes} == {4, 6}


@pytest_twisted.ensureDeferred
async def test_ports() -> None:
    """A node takes another port if its own is taken, unless it insists; without IPv6 it does without."""
    async with running(Dht(reactor, LOOPBACK)) as first:
        taken = evolve(LOOPBACK, port=port(first)[1])
        async with running(Dht(reactor, taken)) as second:
            assert port(second)[1] not in (0, port(first)[1])
        with pytest.raises(CannotListenError):
            Dht(reactor, evolve(taken, insists=True)).startService()
        async with running(Dht(reactor, evolve(LOOPBACK, ipv6="2001:db8::1"))) as without:
            assert len(without.addresses) == 1
        with pytest.raises(CannotListenError):
            Dht(reactor, evolve(LOOPBACK_V6, ipv6="2001:db8::1")).startService()


@pytest_twisted.ensureDeferred
async def test_names_of_helpers() -> None:
    """Nodes that help to join may be named; a name that means nothing is passed over."""
    async with running(Dht(reactor, LOOPBACK)) as first:
        names = (("nobody.invalid", 1), ("localhost", port(first)[1]))
        async with running(Dht(reactor, evolve(LOOPBACK, bootstrap=names))) as second:
            await second.when_joined()
            assert (second.known, first.counts["received"] > 0) == (1, True)
            await second.when_joined()
