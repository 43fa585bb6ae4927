"""Routing tables: who is known, who is forgotten, who is nearest."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkarr.dht.contacts import Contact
from pkarr.dht.routing import (
    FARTHEST,
    MAX_FAILURES,
    SPARES,
    K,
    RoutingTable,
    distance,
    id_near,
    is_secure,
    room_in,
    secure_id,
    shared_bits,
)

OWN = bytes(20)
IDS = st.binary(min_size=20, max_size=20)

# The examples of BEP 42: address, last byte of the id, first three bytes. Of the third byte, five bits are bound.
SECURE = [
    ("124.31.75.21", 1, "5fbfbf"),
    ("21.75.31.124", 86, "5a3ce9"),
    ("65.23.51.170", 22, "a5d432"),
    ("84.124.73.14", 65, "1b0321"),
    ("43.213.53.83", 90, "e56f6c"),
]


def node(number: int, shared: int = 0, host: str | None = None) -> Contact:
    """The contact of one of many nodes that share so many leading bits with us, each on a public host of its own.

    No such id is bound to its address.
    """
    noise = number.to_bytes(20) if shared > 140 else (number << 8 | 0xFF << 100).to_bytes(20)
    return Contact(id_near(OWN, shared, noise), (host or f"9.{number >> 8}.{number & 255}.1", 6881))


def secure_node(number: int) -> Contact:
    """One whose id is bound to its address and shares three bits with us. `number` is below 64."""
    for host in (f"{first}.2.{number}.3" for first in range(11, 100)):
        for last in range(8):
            id = secure_id(host, bytes(19) + bytes([last]))
            if shared_bits(OWN, id) == 3:
                return Contact(id, (host, 6881))
    raise AssertionError


@pytest.mark.parametrize(("host", "last", "prefix"), SECURE)
def test_secure_ids_of_the_standard(host: str, last: int, prefix: str) -> None:
    """Ids are bound to addresses as BEP 42 computes it."""
    raw = bytearray(bytes.fromhex(prefix) + bytes(17))
    raw[-1] = last
    assert is_secure(Contact(bytes(raw), (host, 1)))
    assert not is_secure(Contact(bytes([raw[0] ^ 1]) + bytes(raw[1:]), (host, 1)))
    assert not is_secure(Contact(bytes(raw), ("8.8.8.8", 1)))
    made = secure_id(host, bytes(19) + bytes([last]))
    assert made[:2] == raw[:2]
    assert made[2] & 0xF8 == raw[2] & 0xF8


@given(st.ip_addresses().map(str), IDS)
def test_own_ids_are_secure(host: str, noise: bytes) -> None:
    """An id made for an address passes the test for it, for both kinds of addresses."""
    assert is_secure(Contact(secure_id(host, noise), (host, 1)))


@given(IDS, st.integers(0, 159), IDS)
def test_ids_near(base: bytes, shared: int, noise: bytes) -> None:
    """A target for a bucket lies in that bucket."""
    assert shared_bits(base, id_near(base, shared, noise)) == shared


def test_private_networks_have_no_rule_for_ids() -> None:
    """In a network of one's own any id is fine."""
    assert is_secure(Contact(bytes(20), ("127.0.0.1", 1)))
    assert is_secure(Contact(bytes(20), ("192.168.7.7", 1)))


def test_known_after_an_answer() -> None:
    """Who answered is known, once."""
    table = RoutingTable(OWN)
    table.replied(node(1), 0.0)
    table.replied(node(1), 1.0)
    table.replied(Contact(OWN, ("9.9.9.9", 1)), 1.0)
    assert list(table) == [node(1)]


def test_an_id_stays_with_who_answers() -> None:
    """Nobody takes over the id of a node by claiming it."""
    table = RoutingTable(OWN)
    table.replied(node(1), 0.0)
    table.replied(Contact(node(1).id, ("9.9.9.9", 1)), 1.0)
    assert list(table) == [node(1)]


def test_an_address_has_one_id() -> None:
    """A program that was started anew under another id replaces itself."""
    table = RoutingTable(OWN)
    table.replied(node(1), 0.0)
    again = Contact(node(2).id, node(1).address)
    table.replied(again, 1.0)
    assert list(table) == [again]


def test_one_node_of_one_owner() -> None:
    """Many ids on one host get one place, but in a network that is on one host."""
    many = [node(number, host="9.9.9.9") for number in range(5)]
    many = [Contact(contact.id, ("9.9.9.9", 1000 + number)) for number, contact in enumerate(many)]
    strict, loose = RoutingTable(OWN), RoutingTable(OWN, several_per_owner=True)
    for contact in many:
        strict.replied(contact, 0.0)
        loose.replied(contact, 0.0)
    assert list(strict) == many[:1]
    assert len(loose) == 5
    assert not strict.has_room_for(Contact(node(7).id, ("9.9.9.9", 7)))
    assert loose.has_room_for(Contact(node(7).id, ("9.9.9.9", 7)))


def test_more_are_known_of_the_far_half() -> None:
    """Where most searches begin there is more room."""
    table = RoutingTable(OWN)
    for shared in range(6):
        for number in range(200):
            table.replied(node(200 * shared + number, shared), 0.0)
    rooms = [sum(shared_bits(OWN, contact.id) == shared for contact in table) for shared in range(6)]
    assert rooms == [160, 80, 40, 20, 20, 20]
    assert [room_in(index) for index in (0, 1, 2, 3, 159)] == [FARTHEST, FARTHEST // 2, FARTHEST // 4, K, K]


@pytest.mark.parametrize("shared", [0, 1, 7])
def test_full_buckets_keep_the_old(shared: int) -> None:
    """A node that has answered for long stays; newcomers are spares, and the latest replaces one that falls silent."""
    table, room = RoutingTable(OWN), room_in(shared)
    for number in range(room + SPARES + 5):
        table.replied(node(number, shared), float(number))
    assert list(table) == [node(number, shared) for number in range(room)]
    for failure in range(MAX_FAILURES):
        table.failed(node(3, shared), 10.0 + failure)
    assert node(3, shared) not in set(table)
    assert node(room + SPARES + 4, shared) in set(table)
    assert len(table) == room


def test_secure_nodes_are_preferred() -> None:
    """In a full bucket a node whose id is bound to its address replaces one that could be anybody."""
    table = RoutingTable(OWN)
    for number in range(K):
        table.replied(node(number, 3), 0.0)
    for number in range(K):
        assert table.has_room_for(secure_node(number))
        table.replied(secure_node(number), 1.0)
    assert set(table) == {secure_node(number) for number in range(K)}
    assert not table.has_room_for(secure_node(K))
    assert not table.has_room_for(node(K, 3))


def test_silent_nodes_are_forgotten() -> None:
    """Several failures in a row, and a node is gone; an answer in between forgives."""
    table = RoutingTable(OWN)
    table.replied(node(1), 0.0)
    table.replied(node(2), 100.0)
    for time in (1.0, 2.0):
        table.failed(node(1), time)
    assert table.closest(OWN) == [node(2)], "who failed twice is not named to others"
    table.replied(node(1), 101.0)
    table.replied(node(2), 200.0)
    for time in (102.0, 103.0):
        table.failed(node(1), time)
    assert node(1) in set(table)
    table.failed(node(1), 104.0)
    assert list(table) == [node(2)]


def test_an_outage_of_our_own_forgets_nobody() -> None:
    """While nobody answers, all the nodes are kept: it is we who are away."""
    table = RoutingTable(OWN)
    for number in range(10):
        table.replied(node(number), 0.0)
    for time in range(1, 100):
        for number in range(10):
            table.failed(node(number), float(time))
    assert len(table) == 10


def test_failures_of_strangers_are_ignored() -> None:
    """Only the node at its own address can fail."""
    table = RoutingTable(OWN)
    table.replied(node(1), 0.0)
    table.replied(node(2), 100.0)
    for time in range(10):
        table.failed(Contact(node(1).id, ("9.9.9.9", 1)), time + 1.0)
        table.failed(node(77), time + 1.0)
    assert len(table) == 2


@given(st.integers(0, 2**32), IDS, st.integers(0, 160))
def test_closest(seed: int, target: bytes, shared: int) -> None:
    """The nearest nodes are found, as sorting all of them finds them."""
    chance = random.Random(seed)
    own = id_near(target, shared, chance.randbytes(20)) if shared < 160 else target
    table = RoutingTable(own)
    for number in range(120):
        id = id_near(chance.choice([own, target]), chance.randrange(12), chance.randbytes(20))
        table.replied(Contact(id, (f"9.9.{number}.1", 1)), 0.0)
    for count in (1, 8, K):
        expected = sorted(table, key=lambda contact: distance(contact.id, target))[:count]
        assert table.closest(target, count) == expected


def test_what_needs_attention() -> None:
    """Silent nodes come with the longest silence first; buckets where nothing happened are named."""
    table = RoutingTable(OWN)
    table.replied(node(1, 0), 5.0)
    table.replied(node(2, 3), 3.0)
    table.replied(node(3, 3), 9.0)
    assert table.silent_since(5.0, 10) == [node(2, 3), node(1, 0)]
    assert table.silent_since(5.0, 1) == [node(2, 3)]
    assert table.untouched_since(5.0) == [0]
    assert sorted(table.untouched_since(9.0)) == [0, 3]


def test_moving() -> None:
    """With another id of our own the same nodes are known."""
    table = RoutingTable(OWN)
    for number in range(30):
        table.replied(node(number, number % 5), float(number))
    own = b"\x55" * 20
    moved = table.moved(own)
    assert set(moved) == set(table)
    assert moved.own == own
    assert moved.silent_since(0.0, 9) == [node(0)]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3), st.integers(0, 6)), max_size=200))
def test_bookkeeping(steps: list[tuple[int, int, int]]) -> None:
    """Whatever happens, no address and no owner is there twice, and no bucket is too full."""
    table, now = RoutingTable(OWN), 0.0
    for number, shared, action in steps:
        now += 1
        contact = Contact(node(number, shared).id, (f"9.9.9.{number % 30}", 6881 + action % 2))
        if action < 5:
            table.replied(contact, now)
        else:
            table.failed(contact, now - 1.5)
        hosts = [known.address[0] for known in table]
        assert len(set(hosts)) == len(hosts) == len(table)
        assert all(table.has_room_for(known) is False for known in table)
        assert len([known for known in table if shared_bits(OWN, known.id) == shared]) <= room_in(shared)
