"""Relays and the DHT as one network, with a memory.

Every network is asked at once and none is trusted more than another, for packets prove themselves: the newest one
wins. Who is content with a packet that may be a little old (`CACHE_FIRST`) gets the first that is not older than what
is known here; the other answers are still waited for, and move the memory on. Who must know (`NETWORK_ONLY`) gets the
newest of all, when all have answered. Nobody is ever led back in time: a network that has only an older packet than
the one known here counts as one that has none.

Whoever asks what is being asked already waits for the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TypeVar

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pkarr.asking import all_of, attempt
from pkarr.cache import CAPACITY, Cache, Seen
from pkarr.interfaces import (
    Conflict,
    INetwork,
    NetworkError,
    NotMostRecent,
    PacketRefused,
    Policy,
    Unavailable,
    UnexpectedAnswer,
    UnreadableItem,
)
from pkarr.keys import PublicKey
from pkarr.packet import SignedPacket

T = TypeVar("T")


@frozen
class Outcome:
    """What one network did with a packet: kept it on so many nodes, or failed."""

    network: INetwork
    nodes: int = 0
    failure: NetworkError | None = None


@frozen
class Spread:
    """What every network did with a packet."""

    outcomes: tuple[Outcome, ...]

    @property
    def nodes(self) -> int:
        """On how many nodes the packet is, as far as one network knows."""
        return max((one.nodes for one in self.outcomes if one.failure is None), default=0)

    @property
    def failure(self) -> NetworkError | None:
        """Why the packet does not count as published; None if it does.

        It is not the most recent one if as many networks say so as took it.
        """
        failures = [(one.network, one.failure) for one in self.outcomes if one.failure is not None]
        outdated = [failure for _, failure in failures if isinstance(failure, NotMostRecent)]
        taken = len(self.outcomes) - len(failures)
        if outdated and len(outdated) >= taken:
            return outdated[0]
        return None if taken else _together(failures)


@define(eq=False)
class _Lookup:
    """One question, and all who wait for its answer."""

    key: PublicKey
    policy: Policy
    waiting: list[Deferred[SignedPacket | None]] = field(factory=list, init=False)
    running: Deferred[None] | None = field(default=None, init=False)
    is_over: bool = field(default=False, init=False)
    best: SignedPacket | None = field(default=None, init=False)
    _unreadable: UnreadableItem | None = field(default=None, init=False)
    _failures: list[tuple[INetwork, NetworkError]] = field(factory=list, init=False)
    _has_answers: bool = field(default=False, init=False)

    def take(self, packet: SignedPacket | None) -> None:
        """What a network has that is not older than what is known."""
        self._has_answers = True
        if packet is not None and (self.best is None or packet.more_recent_than(self.best)):
            self.best = packet

    def fail(self, network: INetwork, error: NetworkError) -> None:
        """What a network says instead."""
        if not isinstance(error, UnreadableItem):
            self._failures.append((network, error))
        elif self._unreadable is None or error.seq > self._unreadable.seq:
            self._unreadable = error

    @property
    def is_content(self) -> bool:
        """Whether the answer is good enough before all networks have given theirs."""
        return self.policy is Policy.CACHE_FIRST and self.best is not None and self.newer_item is None

    @property
    def newer_item(self) -> UnreadableItem | None:
        """What lies under the key and is newer than the newest packet, but no packet."""
        item = self._unreadable
        return item if item is None or self.best is None or item.seq > self.best.timestamp else None

    def end(self) -> None:
        """Give the answer to all who wait for it."""
        if self.is_over:
            return
        self.is_over = True
        error: NetworkError | None = self.newer_item
        if error is None and self.best is None and self._failures and not self._has_answers:
            error = _together(self._failures)
        waiting, self.waiting = self.waiting, []
        for waiter in waiting:
            if not waiter.called:  # one who got the answer may have cancelled another
                waiter.callback(self.best) if error is None else waiter.errback(error)


@implementer(INetwork)
@define(eq=False)
class Client:
    """Relays and the DHT as one network. `close` it at the end. Times are seconds of `clock`."""

    clock: IReactorTime
    relays: Sequence[INetwork] = ()
    dht: INetwork | None = None
    capacity: int = CAPACITY
    _cache: Cache = field(init=False)
    _lookups: dict[tuple[bytes, Policy], _Lookup] = field(init=False, factory=dict)
    # Maps keys and policies to what is being asked and has no answer yet.
    _running: set[_Lookup] = field(init=False, factory=set)
    # All that wait for networks, also those that have given their answer.
    log = Logger()

    @_cache.default
    def _make_cache(self) -> Cache:
        return Cache(self.capacity)

    @property
    def networks(self) -> tuple[INetwork, ...]:
        """Relays and DHT."""
        return (*self.relays, *([] if self.dht is None else [self.dht]))

    async def publish(self, packet: SignedPacket, replaces: int | None = None) -> int:
        """Publish at every network; returns on how many nodes the packet is."""
        spread = await self.spread(packet, replaces)
        if spread.failure is not None:
            raise spread.failure
        return spread.nodes

    async def spread(self, packet: SignedPacket, replaces: int | None = None) -> Spread:
        """Publish at every network at once, and tell what each did.

        Raises `NotMostRecent` or `Conflict`, and asks nobody, if what is known here says so.
        """
        seen = self._cache.get(packet.public_key)
        if seen is not None and seen.packet.more_recent_than(packet):
            raise NotMostRecent(f"a packet of {seen.packet.timestamp} is known here")
        if seen is not None and replaces is not None and seen.packet.timestamp not in (replaces, packet.timestamp):
            raise Conflict(f"a packet of {seen.packet.timestamp} is known here")
        spread = Spread(tuple(await all_of(self._publish(network, packet, replaces) for network in self.networks)))
        if spread.failure is None:
            self._cache.keep(packet, self.clock.seconds())
        return spread

    async def resolve(self, key: PublicKey, policy: Policy = Policy.CACHE_FIRST) -> SignedPacket | None:
        """Find the newest packet of a key.

        CACHE_ONLY: what is known here, else what relays have in their caches. CACHE_FIRST: what is known here if it
        is fresh, else the first good answer. NETWORK_ONLY: the newest that any network has.
        """
        seen = self._cache.get(key)
        if seen is not None and self._is_enough(seen, policy):
            return seen.packet
        lookup = self._lookups.get((key.raw, policy))
        is_new = lookup is None
        lookup = lookup or _Lookup(key, policy)
        waiter: Deferred[SignedPacket | None] = Deferred(partial(self._leave, lookup))
        lookup.waiting.append(waiter)
        if is_new:
            self._begin(lookup)
        return await waiter

    def close(self) -> None:
        """Leave all questions; who waits for an answer gets CancelledError."""
        for lookup in [*self._running]:
            for waiter in [*lookup.waiting]:
                waiter.cancel()
            self._cancel(lookup)  # also if it has given its answer

    def _is_enough(self, seen: Seen, policy: Policy) -> bool:
        """Whether no network need be asked."""
        if policy is Policy.CACHE_FIRST:
            return seen.is_fresh(self.clock.seconds())
        return policy is Policy.CACHE_ONLY

    def _begin(self, lookup: _Lookup) -> None:
        self._lookups[lookup.key.raw, lookup.policy] = lookup
        self._running.add(lookup)
        running = lookup.running = Deferred.fromCoroutine(self._run(lookup))
        running.addErrback(self._lose, lookup)

    async def _run(self, lookup: _Lookup) -> None:
        """Ask all networks; ends when all have answered."""
        networks = self.relays if lookup.policy is Policy.CACHE_ONLY else self.networks
        try:
            await all_of(self._ask(network, lookup) for network in networks)
        finally:
            self._running.discard(lookup)
            self._settle(lookup)

    async def _ask(self, network: INetwork, lookup: _Lookup) -> None:
        try:
            packet = await attempt(network, network.resolve(lookup.key, lookup.policy), self.clock)
            if packet is not None and packet.public_key != lookup.key:
                raise UnexpectedAnswer("a packet of another key")
        except UnreadableItem as error:
            seen = self._cache.get(lookup.key)
            if seen is None or seen.packet.timestamp < error.seq:
                lookup.fail(network, error)
        except NetworkError as error:
            lookup.fail(network, error)
        else:
            is_news = packet is not None and self._cache.keep(packet, self.clock.seconds())
            lookup.take(packet if is_news else None)
        if lookup.newer_item is not None:
            self._cache.outdate(lookup.key)
        if lookup.is_content:
            self._settle(lookup)

    async def _publish(self, network: INetwork, packet: SignedPacket, replaces: int | None) -> Outcome:
        try:
            return Outcome(network, await attempt(network, network.publish(packet, replaces), self.clock))
        except NetworkError as error:
            return Outcome(network, failure=error)

    def _settle(self, lookup: _Lookup) -> None:
        """Answer; who asks from now on asks anew."""
        self._forget(lookup)
        seen = self._cache.get(lookup.key)
        if lookup.best is not None and seen is not None and seen.packet.more_recent_than(lookup.best):
            lookup.best = seen.packet  # which became known meanwhile
        lookup.end()

    def _forget(self, lookup: _Lookup) -> None:
        if self._lookups.get((lookup.key.raw, lookup.policy)) is lookup:
            del self._lookups[lookup.key.raw, lookup.policy]

    def _leave(self, lookup: _Lookup, waiter: Deferred[SignedPacket | None]) -> None:
        """Somebody stopped waiting. What nobody waits for is not asked any longer."""
        if waiter in lookup.waiting:
            lookup.waiting.remove(waiter)
            if not lookup.waiting:
                self._cancel(lookup)

    def _cancel(self, lookup: _Lookup) -> None:
        lookup.is_over = True
        self._forget(lookup)
        if lookup.running is not None:
            lookup.running.cancel()

    def _lose(self, failure: Failure, lookup: _Lookup) -> None:
        if not failure.check(CancelledError):
            self.log.failure("Unexpected failure of a lookup of {key}", failure, key=lookup.key)


def _together(failures: Sequence[tuple[INetwork, NetworkError]]) -> NetworkError:
    """One error for those of all networks: final only if all are."""
    text = "; ".join(f"{network}: {error}" for network, error in failures) or "there is no network"
    if failures and all(isinstance(error, PacketRefused) for _, error in failures):
        return PacketRefused(text)
    return Unavailable(text)
