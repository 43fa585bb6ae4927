"""What a node answers: nodes near a target, and the items that it keeps for others (BEP 5, BEP 44).

Who wants to put something must show a token that was sent to its address shortly before: so nobody can put in the
name of others. A mutable item is replaced by a newer one only, and never without its key's signature. Everything that
is kept for others has a bound: the items that were asked for or refreshed longest ago go first.
"""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from hashlib import blake2b

from attrs import define, evolve, field

from pkarr.dht.contacts import IPV4, IPV6, Address, Contact, owner, packed_host
from pkarr.dht.items import MAX_SALT, MAX_VALUE, ImmutableItem, Item, MutableItem, length_of
from pkarr.dht.krpc import (
    CAS_MISMATCH,
    INVALID_SIGNATURE,
    PROTOCOL,
    SALT_TOO_BIG,
    SEQ_TOO_OLD,
    TOO_BIG,
    Error,
    FindNode,
    Get,
    GetPeers,
    Ping,
    Put,
    Query,
    Reply,
)
from pkarr.dht.routing import K, RoutingTable

TOKEN_LIFETIME = 300.0  # seconds after which a token is renewed; it is taken twice as long (BEP 5)
ITEM_LIFETIME = 86_400.0  # seconds without a put, after which an item goes. BEP 44: not before 2 hours
MAX_ITEMS = 1000  # of each kind, 1.5 KB each at most: as the official programs
FEWEST = 8  # nodes in any answer (BEP 5's K)

_PACKET = 1400  # bytes that go through the network in one piece, nearly everywhere
_FRAME = 260  # bytes of an answer with an item, but for the value and the nodes
_CONTACT = {IPV4: 26, IPV6: 38}  # bytes

_TOKEN_LENGTH = 8  # bytes

_TEXTS = {
    PROTOCOL: b"Bad token",
    TOO_BIG: b"Message (v field) too big.",
    INVALID_SIGNATURE: b"Invalid signature",
    SALT_TOO_BIG: b"salt (salt field) too big.",
    CAS_MISMATCH: b"CAS mismatched, re-read value and try again.",
    SEQ_TOO_OLD: b"Sequence number less than current.",
}


@define(eq=False)
class Tokens:
    """Tokens for addresses. They need no memory: a token is a keyed hash of the address and the time."""

    _secret: bytes = field(factory=lambda: secrets.token_bytes(32), repr=False)

    def make(self, host: str, now: float) -> bytes:
        """The token of a host."""
        return self._at(host, int(now // TOKEN_LIFETIME))

    def is_good(self, token: bytes, host: str, now: float) -> bool:
        """Whether a token was made for this host, in this period or the one before."""
        period = int(now // TOKEN_LIFETIME)
        return any(hmac.compare_digest(token, self._at(host, past)) for past in (period, period - 1))

    def _at(self, host: str, period: int) -> bytes:
        message = period.to_bytes(8, "big", signed=True) + packed_host(host)
        return blake2b(message, key=self._secret, digest_size=_TOKEN_LENGTH).digest()


@define(eq=False)
class _Shelf:
    """Items of one kind, at most so many."""

    capacity: int
    _items: OrderedDict[bytes, tuple[Item, float]] = field(factory=OrderedDict)
    # Maps targets to items and the times of their last put; what was used last is last.

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return (item for item, _kept in self._items.values())

    def get(self, target: bytes, now: float) -> Item | None:
        found = self._items.get(target)
        if found is None:
            return None
        item, kept = found
        if now - kept > ITEM_LIFETIME:
            del self._items[target]
            return None
        self._items.move_to_end(target)
        return item

    def keep(self, item: Item, now: float) -> None:
        self._items[item.target] = item, now
        self._items.move_to_end(item.target)
        if len(self._items) > self.capacity:
            self._items.popitem(last=False)


@define(eq=False)
class Stored:
    """The items that a node keeps, at most `capacity` of each kind."""

    capacity: int = MAX_ITEMS
    _mutable: _Shelf = field(init=False)
    _immutable: _Shelf = field(init=False)

    @_mutable.default
    def _make_mutable(self) -> _Shelf:
        return _Shelf(self.capacity)

    @_immutable.default
    def _make_immutable(self) -> _Shelf:
        return _Shelf(self.capacity)

    def __len__(self) -> int:
        return len(self._mutable) + len(self._immutable)

    def __iter__(self) -> Iterator[Item]:
        yield from self._mutable
        yield from self._immutable

    def get(self, target: bytes, now: float) -> Item | None:
        """What is kept under a target."""
        return self._mutable.get(target, now) or self._immutable.get(target, now)

    def put(self, item: Item, cas: int | None, now: float) -> int | None:
        """Keep an item; the code of an error if not. The signature is looked at last, for it costs most."""
        if length_of(item.v) > MAX_VALUE:
            return TOO_BIG
        if isinstance(item, ImmutableItem):
            self._immutable.keep(item, now)
            return None
        if len(item.salt) > MAX_SALT:
            return SALT_TOO_BIG
        known = self._mutable.get(item.target, now)
        if isinstance(known, MutableItem):
            if cas is not None and cas != known.seq:
                return CAS_MISMATCH
            if known.is_newer_than(item):
                return SEQ_TOO_OLD
        if item != known and not item.is_valid():
            return INVALID_SIGNATURE
        self._mutable.keep(item, now)
        return None


@define(eq=False)
class Limits:
    """How many datagrams are looked at: so many a second from one owner of addresses, and from all together.

    Each may save up for `burst` seconds. Of owners that came last at most `remembered` are known; the limit for all
    bounds what those cost who are forgotten.
    """

    rate: float
    total_rate: float
    burst: float = 2.0
    remembered: int = 4096
    _buckets: OrderedDict[bytes, tuple[float, float]] = field(factory=OrderedDict, init=False)
    # Maps owners to what they have left and when that was.
    _total: tuple[float, float] = field(default=(0.0, float("-inf")), init=False)

    def allow(self, host: str, now: float) -> bool:
        """Whether to look at one more datagram from a host."""
        whose = owner(host)
        left = _refilled(self._buckets.get(whose, (0.0, float("-inf"))), self.rate, self.burst, now)
        if left < 1:
            return False
        total = _refilled(self._total, self.total_rate, self.burst, now)
        if total < 1:
            return False
        self._total = total - 1, now
        self._buckets[whose] = left - 1, now
        self._buckets.move_to_end(whose)
        if len(self._buckets) > self.remembered:
            self._buckets.popitem(last=False)
        return True


def _refilled(bucket: tuple[float, float], rate: float, burst: float, now: float) -> float:
    left, then = bucket
    return min(rate * burst, left + (now - then) * rate)


@define(eq=False)
class Server:
    """The answers of a node. `tables` maps kinds of addresses to routing tables."""

    tables: Mapping[int, RoutingTable]
    stored: Stored
    tokens: Tokens = field(factory=Tokens)

    def answer(self, query: Query, address: Address, kind: int, now: float) -> Reply | Error:
        """What a query from an address gets, over a socket of a kind of addresses."""
        own = self.tables[kind].own
        reply = Reply(query.transaction, own, receiver=address)
        match query.request:
            case Ping():
                return reply
            case FindNode(target, want):
                return evolve(reply, nodes=self._nodes(target, want or (kind,), K))
            case GetPeers(info_hash, want):
                nodes = self._nodes(info_hash, want or (kind,), K)
                return evolve(reply, nodes=nodes, token=self.tokens.make(address[0], now))
            case Get(target, seq, want):
                return self._get(
                    evolve(reply, token=self.tokens.make(address[0], now)), target, seq, want or (kind,), now
                )
            case Put(token, item, cas):
                good = self.tokens.is_good(token, address[0], now)
                code = self.stored.put(item, cas, now) if good else PROTOCOL
                return reply if code is None else Error(query.transaction, code, _TEXTS[code], address)

    def _get(self, reply: Reply, target: bytes, seq: int | None, want: tuple[int, ...], now: float) -> Reply:
        """The item, without its value if the asker has that (BEP 44), and as many nodes as fit beside it."""
        item = self.stored.get(target, now)
        if item is None:
            return evolve(reply, nodes=self._nodes(target, want, K))
        if isinstance(item, MutableItem):
            reply = evolve(reply, seq=item.seq)
            if seq is not None and item.seq <= seq:
                return evolve(reply, nodes=self._nodes(target, want, K))
        room = (_PACKET - _FRAME - len(item.v)) // sum(_CONTACT[kind] for kind in want)
        return evolve(reply, item=item, nodes=self._nodes(target, want, max(FEWEST, min(K, room))))

    def _nodes(self, target: bytes, want: tuple[int, ...], count: int) -> tuple[Contact, ...]:
        return tuple(
            contact for kind in want if kind in self.tables for contact in self.tables[kind].closest(target, count)
        )
