"""Whom a node knows: many nodes near itself, few far away (BEP 5), so that each step of a search halves the way.

Ids and targets are numbers of 160 bits, and their distance is their XOR. A bucket holds the nodes that share exactly
so many leading bits with us; half of the network falls into the first, a quarter into the second, and so on. So half
of all searches begin in the first, and the more nodes we know there, the nearer they begin: the farthest three buckets
are larger than the others, as in libtorrent.

Only nodes that answered us are known, because anybody can claim to be anywhere; and of one owner of addresses only
one, because whoever has many addresses is rarer than who makes up many ids. A node that is silent again and again is
forgotten, but not while nobody at all answers: then it is our own network that is away.

An id can be bound to its host's address (BEP 42): who wants to sit next to a certain key then needs many addresses.
Such ids are preferred, others are tolerated, for much of the network has them.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from attrs import define, evolve, field

from pkarr.dht.contacts import ID_LENGTH, Address, Contact, family, is_public, owner, packed_host

K = 20  # nodes in most buckets, and nodes that keep an item: as the official programs (BEP 5 says 8)
FARTHEST = 8 * K  # nodes in the first bucket; the second has half of it, until K is left: three bits saved on the way
SPARES = 8  # further nodes of a bucket, remembered for when one of it falls silent
MAX_FAILURES = 3  # unanswered queries in a row: two can be bad luck

_BITS = 8 * ID_LENGTH
_V4_MASK, _V6_MASK = bytes.fromhex("030f3fff"), bytes.fromhex("0103070f1f3f7fff")  # of an address in an id (BEP 42)
_SECURED = 21  # bits of an id that follow from the address
_POLYNOMIAL = 0x82F63B78  # of CRC-32C, reflected (RFC 3720, 12.1)


def distance(left: bytes, right: bytes) -> int:
    """How far two ids are from each other."""
    return int.from_bytes(left) ^ int.from_bytes(right)


def shared_bits(left: bytes, right: bytes) -> int:
    """How many leading bits two ids share."""
    return _BITS - distance(left, right).bit_length()


def room_in(index: int) -> int:
    """How many nodes are known of those that share exactly so many leading bits with us."""
    return max(K, FARTHEST >> index)


def id_near(base: bytes, shared: int, noise: bytes) -> bytes:
    """An id that shares exactly so many leading bits, below 160, with another; the rest is taken from 20 bytes."""
    rest = _BITS - shared - 1
    number = (int.from_bytes(base) >> rest ^ 1) << rest | int.from_bytes(noise) & ((1 << rest) - 1)
    return number.to_bytes(ID_LENGTH)


def secure_id(host: str, noise: bytes) -> bytes:
    """An id for a node at an address (BEP 42); what the address leaves open is taken from 20 bytes."""
    prefix = _prefix(host, noise[-1])
    open_bits = _BITS - _SECURED
    number = (prefix >> (32 - _SECURED)) << open_bits | int.from_bytes(noise) & ((1 << open_bits) - 1)
    return number.to_bytes(ID_LENGTH)


def is_secure(contact: Contact) -> bool:
    """Whether an id is one that a node at this address can have; in private networks every id is (BEP 42)."""
    host = contact.address[0]
    if not is_public(host):
        return True
    shift = 32 - _SECURED
    return int.from_bytes(contact.id[:4]) >> shift == _prefix(host, contact.id[-1]) >> shift


def _prefix(host: str, number: int) -> int:
    """The first 32 bits of an id, as BEP 42 computes them from an address and a number, of which 3 bits count."""
    mask = _V4_MASK if family(host) == 4 else _V6_MASK
    masked = bytearray(a & b for a, b in zip(packed_host(host), mask, strict=False))
    masked[0] |= (number & 7) << 5
    return _crc32c(masked)


def _crc32c(message: bytes | bytearray) -> int:
    crc = 0xFFFFFFFF
    for byte in message:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _crc_of_byte(crc: int) -> int:
    for _ in range(8):
        crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
    return crc


_TABLE = [_crc_of_byte(byte) for byte in range(256)]


@define(eq=False)
class _Known:
    """A node that answered: when it last did, in seconds, and how many queries it has left unanswered since."""

    contact: Contact
    seen: float
    failures: int = 0
    is_bound: bool = field(init=False)
    # Whether the id is one that goes with the address.

    @is_bound.default
    def _compute_is_bound(self) -> bool:
        return is_secure(self.contact)


@define(eq=False)
class _Bucket:
    """At most `room` nodes of one distance. `spares` are those that found no room, the latest last."""

    room: int
    nodes: dict[bytes, _Known] = field(factory=dict)
    # Maps ids to nodes.
    spares: dict[bytes, _Known] = field(factory=dict)
    touched: float = 0.0

    @property
    def is_full(self) -> bool:
        """Whether somebody must go before somebody comes."""
        return len(self.nodes) >= self.room

    def victim(self, newcomer: Contact) -> _Known | None:
        """Who goes for a newcomer: one whose id is not bound to its address, if the newcomer's is."""
        if not is_secure(newcomer):
            return None
        return next((known for known in self.nodes.values() if not known.is_bound), None)


@define(eq=False)
class RoutingTable:
    """The nodes known to the node with the id `own`. Times are seconds of any clock.

    `several_per_owner` lets nodes in that share an address, as they do in a network on one machine.
    """

    own: bytes
    several_per_owner: bool = False
    _buckets: dict[int, _Bucket] = field(factory=dict, init=False)
    # Maps numbers of leading bits shared with us to buckets.
    _places: dict[Address, bytes] = field(factory=dict, init=False)
    # Maps addresses of nodes in buckets to their ids; spares are not here.
    _owners: set[bytes] = field(factory=set, init=False)
    # Who has a node in a bucket.
    _heard: float = field(default=float("-inf"), init=False)
    # When anybody last answered.

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Contact]:
        """All nodes, from far to near."""
        for index in sorted(self._buckets):
            yield from (known.contact for known in self._buckets[index].nodes.values())

    def replied(self, contact: Contact, now: float) -> None:
        """A node answered a query of ours: know it."""
        self._heard = now
        if contact.id == self.own:
            return
        before = self._places.get(contact.address)
        if before is not None and before != contact.id:
            self._remove(before)  # another program at the same address
        bucket = self._bucket(contact.id)
        known = bucket.nodes.get(contact.id)
        if known is not None:
            if known.contact.address == contact.address:
                known.seen, known.failures = now, 0
                bucket.touched = now
            return  # else somebody took the id of a node that answers
        if not self.several_per_owner and owner(contact.address[0]) in self._owners:
            return
        self._welcome(bucket, _Known(contact, now))

    def _welcome(self, bucket: _Bucket, newcomer: _Known) -> None:
        if bucket.is_full:
            victim = bucket.victim(newcomer.contact)
            if victim is None:
                bucket.spares.pop(newcomer.contact.id, None)
                bucket.spares[newcomer.contact.id] = newcomer
                if len(bucket.spares) > SPARES:
                    del bucket.spares[next(iter(bucket.spares))]
                return
            self._take_out(bucket, victim)
        self._put_in(bucket, newcomer)
        bucket.touched = newcomer.seen

    def failed(self, contact: Contact, asked: float) -> None:
        """A node did not answer what it was asked at a time. Counts only if somebody was heard since."""
        bucket = self._bucket(contact.id)
        known = bucket.nodes.get(contact.id)
        if known is None or known.contact.address != contact.address or self._heard <= asked or known.seen > asked:
            return
        known.failures += 1
        if known.failures >= MAX_FAILURES:
            self._remove(contact.id)

    def has_room_for(self, contact: Contact) -> bool:
        """Whether a node would be let in if it answered."""
        if contact.id == self.own or contact.address in self._places:
            return False
        if not self.several_per_owner and owner(contact.address[0]) in self._owners:
            return False
        bucket = self._bucket(contact.id)
        return contact.id not in bucket.nodes and (not bucket.is_full or bucket.victim(contact) is not None)

    def closest(self, target: bytes, count: int = K) -> list[Contact]:
        """The nodes nearest to a target, nearest first, without those that left the last query unanswered twice.

        The bucket of the target is nearest; then come all that are nearer to us, then those farther, one by one.
        """
        index, found = shared_bits(self.own, target), list[Contact]()
        nearer = [other for other in self._buckets if other > index]
        farther = sorted((other for other in self._buckets if other < index), reverse=True)
        for group in ([index], nearer, *([other] for other in farther)):
            nodes = [
                known for other in group if other in self._buckets for known in self._buckets[other].nodes.values()
            ]
            good = [known.contact for known in nodes if known.failures < MAX_FAILURES - 1]
            found += heapq.nsmallest(count - len(found), good, lambda contact: distance(contact.id, target))
            if len(found) >= count:
                break
        return found

    def silent_since(self, time: float, most: int) -> list[Contact]:
        """The first few nodes that have not answered since a time, longest silence first."""
        known = [known for bucket in self._buckets.values() for known in bucket.nodes.values() if known.seen <= time]
        return [old.contact for old in heapq.nsmallest(most, known, lambda old: old.seen)]

    def untouched_since(self, time: float) -> list[int]:
        """The buckets whose nodes have all been silent since a time, as numbers of bits shared with us."""
        return [index for index, bucket in self._buckets.items() if bucket.touched <= time and bucket.nodes]

    def moved(self, own: bytes) -> RoutingTable:
        """The same nodes as seen from another id."""
        table = evolve(self, own=own)
        for known in self._all():
            table.replied(known.contact, known.seen)
        return table

    def _all(self) -> Iterable[_Known]:
        return [known for bucket in self._buckets.values() for known in bucket.nodes.values()]

    def _bucket(self, id: bytes) -> _Bucket:
        index = shared_bits(self.own, id)
        bucket = self._buckets.get(index)
        if bucket is None:
            bucket = self._buckets[index] = _Bucket(room_in(index))
        return bucket

    def _remove(self, id: bytes) -> None:
        """Forget a node. A spare takes its place."""
        bucket = self._bucket(id)
        self._take_out(bucket, bucket.nodes[id])
        while bucket.spares and not bucket.is_full:
            spare = bucket.spares.popitem()[1]
            if self.has_room_for(spare.contact):
                self._put_in(bucket, spare)

    def _put_in(self, bucket: _Bucket, known: _Known) -> None:
        contact = known.contact
        bucket.nodes[contact.id] = known
        self._places[contact.address] = contact.id
        self._owners.add(owner(contact.address[0]))

    def _take_out(self, bucket: _Bucket, known: _Known) -> None:
        contact = known.contact
        del bucket.nodes[contact.id]
        del self._places[contact.address]
        self._owners.discard(owner(contact.address[0]))
