"""Searches as arithmetic, in a simulated network with losses and liars."""

import random

import pytest
from attrs import evolve

from pkarr.dht.contacts import Contact
from pkarr.dht.items import ImmutableItem, MutableItem, mutable_target, signable
from pkarr.dht.lookup import ENOUGH, MAX_QUERIES, PARALLEL, Holder, Lookup, Newest, Storing, Tally
from pkarr.dht.routing import K, distance
from pkarr.keys import Keypair

from .simulation import Simulation

KEYPAIR = Keypair(b"\x05" * 32)
TARGET = mutable_target(KEYPAIR.public_key.raw)
SEEDS = range(10)


def item(seq: int, text: bytes = b"hello") -> MutableItem:
    """A valid item."""
    v = b"%d:%b" % (len(text), text)
    return MutableItem(KEYPAIR.public_key.raw, seq, v, KEYPAIR.sign(signable(seq, v)))


def contacts(count: int) -> list[Contact]:
    """Contacts, nearest to TARGET first."""
    return [
        Contact((int.from_bytes(TARGET) ^ number + 1 << 8).to_bytes(20), (f"9.9.{number}.1", 1))
        for number in range(count)
    ]


@pytest.mark.parametrize("seed", SEEDS)
def test_finds_the_nearest(seed: int) -> None:
    """In a network of honest nodes a search ends at the K nearest of all, and asks few others."""
    network = Simulation(random.Random(seed))
    network.grow(500)
    lookup = network.start(TARGET)
    network.run(lookup)
    everybody = sorted((node.contact for node in network.nodes), key=lambda node: distance(node.id, TARGET))
    assert len(set(everybody[:K]) & set(lookup.nearest())) >= K - 4, "slow ones may be missing"
    assert network.queries < 60


@pytest.mark.parametrize("seed", SEEDS)
def test_put_and_get_among_liars(seed: int) -> None:
    """With 30 % of answers lost, a tenth of the nodes away and a tenth lying, what is put last is found."""
    network = Simulation(random.Random(seed), loss=0.3)
    network.grow(300, away=0.1, lying=0.1)
    stored = []
    for seq in (1, 2):
        lookup = network.start(TARGET, for_put=True)
        network.run(lookup)
        stored.append(network.put(lookup, item(seq)))
    for node in network.nodes:
        if node.is_liar:
            node.items[TARGET] = network.chance.choice([item(1), evolve(item(2), seq=9)])
    newest = Newest(TARGET)
    network.run(network.start(TARGET), newest)
    assert min(stored) >= K // 2
    assert newest.item == item(2)
    assert newest.count >= ENOUGH


def test_small_network_with_losses() -> None:
    """Where fewer than K nodes are, everybody is asked, and who was silent twice."""
    network = Simulation(random.Random(3), loss=0.5)
    network.grow(12)
    lookup = network.start(TARGET)
    network.run(lookup)
    assert len(lookup.nearest()) >= 6
    assert lookup.asked > 12


def test_nobody_there() -> None:
    """A search without anybody to ask is done; one whose nodes are all away ends after two queries to each."""
    lookup = Lookup(TARGET, bytes(20))
    assert lookup.ask() == []
    assert lookup.is_done
    network = Simulation(random.Random(1))
    network.grow(5, away=1.0)
    lookup = network.start(TARGET)
    network.run(lookup)
    assert (lookup.nearest(), lookup.asked, lookup.replied) == ([], 6, 0)


def test_a_sea_of_invented_nodes() -> None:
    """Liars who invent nodes without end get a bounded number of queries out of us."""
    network = Simulation(random.Random(1))
    network.grow(50, lying=1.0)
    lookup = network.start(TARGET)
    network.run(lookup)
    assert lookup.asked <= MAX_QUERIES


def test_the_nearest_come_first() -> None:
    """So many are asked at a time; each answer makes room for the nearest that is known then."""
    lookup = Lookup(TARGET, bytes(20), parallel=5)
    nodes = contacts(30)
    lookup.add(nodes[10:])
    first = lookup.ask()
    assert first == nodes[10:15]
    assert lookup.ask() == []
    lookup.take(first[0], first[0].id, nodes[:5], None)
    assert lookup.ask() == nodes[:1], "the nearest that is known next"
    for contact in first[1:]:
        lookup.take(contact, contact.id, [], None)
    assert lookup.ask() == nodes[1:5]
    lookup.take(nodes[0], nodes[0].id, [], None)
    assert lookup.ask() == nodes[15:16], "the nearest that is left"


def test_all_of_the_nearest_at_once() -> None:
    """A search begins with K queries, and asks who is nearer without waiting for the others; there is a limit."""
    lookup = Lookup(TARGET, bytes(20))
    nodes = contacts(3 * K)
    near, middle, far = nodes[:K], nodes[K : 2 * K], nodes[2 * K :]
    lookup.add(far)
    assert lookup.ask() == far
    lookup.take(far[0], far[0].id, middle, None)
    assert lookup.ask() == middle
    lookup.take(middle[0], middle[0].id, near, None)
    waited_for = len(far) - 1 + len(middle) - 1
    assert lookup.ask() == near[: PARALLEL - waited_for]
    lookup.slow(far[1])
    lookup.take(middle[1], middle[1].id, [], None)
    assert lookup.ask() == near[PARALLEL - waited_for :][:2]


def test_slow_nodes_hold_nobody_up() -> None:
    """Who is slow makes room for others at once; a late answer still counts."""
    lookup = Lookup(TARGET, bytes(20), parallel=5)
    nodes = contacts(K + 5)
    lookup.add(nodes)
    for contact in lookup.ask():
        lookup.slow(contact)
    for _ in range(K):
        for contact in lookup.ask():
            lookup.take(contact, contact.id, [], None)
    assert lookup.is_done
    assert lookup.nearest() == nodes[5:]
    lookup.take(nodes[0], nodes[0].id, [], None)
    assert lookup.nearest() == [nodes[0], *nodes[5:-1]]


def test_a_node_counts_under_its_own_id() -> None:
    """Who is named under an id near the target, but answers under another, is where its answer says."""
    lookup = Lookup(TARGET, bytes(20))
    near, far = contacts(1)[0], Contact(bytes(19) + b"\1", ("9.9.9.9", 1))
    lookup.add([Contact(near.id, far.address), Contact(contacts(2)[1].id, near.address)])
    for contact in lookup.ask():
        lookup.take(contact, far.id if contact.address == far.address else near.id, [], None)
    assert lookup.nearest() == [near, far]


def test_our_own_node_is_not_found() -> None:
    """We are not asked, and who answers as us is not believed."""
    own = bytes(20)
    lookup = Lookup(TARGET, own)
    lookup.add([Contact(own, ("9.9.9.9", 1)), contacts(1)[0]])
    (contact,) = lookup.ask()
    lookup.take(contact, own, [], None)
    assert lookup.nearest() == []
    assert lookup.is_done


def test_one_owner_counts_once() -> None:
    """Many ids at one host are asked one at a time, the next only if the one before is none; unless allowed."""
    nodes = [Contact(contact.id, ("9.9.9.9", 1000 + number)) for number, contact in enumerate(contacts(5))]
    strict, loose = Lookup(TARGET, bytes(20)), Lookup(TARGET, bytes(20), several_per_owner=True)
    for lookup in (strict, loose):
        lookup.add(nodes)
    assert strict.ask() == nodes[:1]
    assert loose.ask() == nodes
    strict.drop(nodes[0])
    assert strict.ask() == nodes[1:2]
    strict.take(nodes[1], nodes[1].id, [], None)
    assert strict.ask() == []
    assert strict.is_done


@pytest.mark.parametrize("seed", SEEDS)
def test_only_nodes_with_tokens_take_a_put(seed: int) -> None:
    """For a put, who gives no token is passed over, and others are found instead.

    The network is so large that not everybody knows, and names, the very same twenty.
    """
    network = Simulation(random.Random(seed))
    network.grow(400)
    for node in network.nodes[::2]:
        node.has_tokens = False
    lookup = network.start(TARGET, for_put=True)
    network.run(lookup)
    assert len(lookup.holders()) == K
    lookup = network.start(TARGET)
    network.run(lookup)
    assert 0 < len(lookup.holders()) < K


def test_answers_count_once() -> None:
    """A second answer of a node changes nothing, nor does one of a node that was dropped or never asked."""
    lookup = Lookup(TARGET, bytes(20))
    nodes = contacts(3)
    lookup.add(nodes[:1])
    (contact,) = lookup.ask()
    lookup.take(nodes[2], nodes[2].id, [], b"token")
    lookup.take(contact, contact.id, [], b"token")
    lookup.take(contact, nodes[2].id, [nodes[1]], b"other")
    assert lookup.holders() == [Holder(nodes[0], b"token")]
    lookup.drop(contact)
    lookup.take(contact, contact.id, [], b"token")
    assert lookup.holders() == []
    lookup.slow(contact)
    lookup.slow(nodes[2])
    lookup.drop(nodes[2])
    assert lookup.is_done


def test_newest() -> None:
    """The highest number wins, then the larger value; what is not signed for the target does not count."""
    newest = Newest(TARGET)
    assert not newest.offer(ImmutableItem(b"1:x"))
    assert not newest.offer(evolve(item(5), seq=6))
    assert not newest.offer(evolve(item(5), k=bytes(32)))
    assert not newest.count
    for offered, best, count in [
        (item(3), item(3), 1),
        (item(2), item(3), 1),
        (item(3), item(3), 2),
        (item(3, b"hella"), item(3), 2),
        (item(3, b"hellp"), item(3, b"hellp"), 1),
        (item(4, b""), item(4, b""), 1),
    ]:
        assert newest.offer(offered)
        assert (newest.item, newest.count) == (best, count)
    assert not newest.is_likely
    newest.offer(item(4, b""))
    newest.offer(item(4, b""))
    assert newest.is_likely


def test_salted_items() -> None:
    """Nodes do not send the salt; who asks knows it."""
    v, salt = b"5:hello", b"salt"
    sig = KEYPAIR.sign(signable(1, v, salt))
    sent = MutableItem(KEYPAIR.public_key.raw, 1, v, sig)
    newest = Newest(mutable_target(sent.k, salt), salt)
    assert newest.offer(sent)
    assert newest.item == evolve(sent, salt=salt)
    assert not Newest(mutable_target(sent.k, b"other"), b"other").offer(sent)


def test_storing() -> None:
    """A put counts answers once, asks the silent twice, and knows why a majority refused."""
    holders = [Holder(contact, b"token") for contact in contacts(4)]
    storing = Storing(holders)
    assert storing.ask() == holders
    storing.take(holders[0], None)
    storing.take(holders[0], None)
    storing.take(holders[1], 302)
    assert [storing.slow(holder) for holder in (holders[2], holders[2], holders[1])] == [True, False, False]
    assert (storing.is_done, storing.tally.refusal) == (False, None)
    storing.take(holders[3], 302)
    assert (storing.is_done, storing.tally.refusal) == (True, 302)
    assert storing.tally == Tally(1, [302, 302])


def test_keepers() -> None:
    """A node that has the very same item keeps it, also if it calls it too old."""
    holders = [Holder(contact, b"token") for contact in contacts(3)]
    storing = Storing(holders, keepers={holders[0].contact.address, holders[1].contact.address})
    for holder, code in zip(storing.ask(), (302, 206, 302), strict=True):
        storing.take(holder, code)
    assert storing.tally == Tally(1, [206, 302])


def test_storing_nowhere() -> None:
    """A put to nobody is done and refused by nobody."""
    storing = Storing([])
    assert storing.ask() == []
    assert storing.is_done
    assert storing.tally.refusal is None
