"""Mutable items got from the DHT and put there, in both networks at once (BEP 44)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from attrs import define, evolve, field
from twisted.internet.defer import DeferredSemaphore
from twisted.internet.interfaces import IReactorTime

from pkarr.asking import all_of
from pkarr.dht.contacts import Address, Contact
from pkarr.dht.family import Family
from pkarr.dht.items import MIN_SEQ, MutableItem, mutable_target
from pkarr.dht.krpc import CAS_MISMATCH, INVALID_SIGNATURE, SALT_TOO_BIG, TOO_BIG, Get, Reply
from pkarr.dht.lookup import Lookup, Newest, Storing, Tally
from pkarr.dht.routing import K, distance
from pkarr.dht.server import Stored
from pkarr.dht.walks import Delivery, Search
from pkarr.interfaces import Conflict, NotMostRecent, PacketRefused, Policy, Unavailable

MAX_SEARCHES = 64  # at a time; more wait

_NEVER_TAKEN = (TOO_BIG, INVALID_SIGNATURE, SALT_TOO_BIG)  # errors that will be the same elsewhere and later


@define(eq=False)
class Exchange:
    """Gets and puts items. `families` are the networks, `stored` what we keep for others ourselves."""

    clock: IReactorTime
    families: Mapping[int, Family]
    stored: Stored
    _slots: DeferredSemaphore = field(factory=lambda: DeferredSemaphore(MAX_SEARCHES), init=False)

    async def get(self, k: bytes, salt: bytes, policy: Policy) -> MutableItem | None:
        """The newest item under a key and a salt; None if there is none."""
        return (await self.find(k, salt, policy)).item

    async def find(self, k: bytes, salt: bytes, policy: Policy) -> Newest:
        """The newest item under a key and a salt, and how many of the nodes that were asked have it."""
        target = mutable_target(k, salt)
        newest = Newest(target, salt)
        own = self.stored.get(target, self.clock.seconds())
        if isinstance(own, MutableItem):
            newest.item, newest.count = own, 1
        if policy is not Policy.CACHE_ONLY:
            try:
                await self._search(newest, Get(target), may_guess=policy is Policy.CACHE_FIRST)
            except Unavailable:
                if newest.item is None:
                    raise
        return newest

    async def put(self, item: MutableItem, cas: int | None) -> int:
        """Put an item to the nodes nearest to its target, ourselves included; returns how many keep it."""
        newest = Newest(item.target, item.salt)
        before = max(item.seq - 1, MIN_SEQ)  # so items of the same number are sent, which may have another value
        known = before if cas is None else min(cas, before)
        sent, keepers = evolve(item, salt=b""), set[Address]()

        def note(contact: Contact, reply: Reply) -> None:
            if reply.item == sent:
                keepers.add(contact.address)

        try:
            found = await self._search(newest, Get(item.target, known), for_put=True, note=note)
        except Unavailable:
            if not any(family.is_private for family in self._serving()):
                raise  # else we may be the first node of a network of our own
            found = []
        if newest.item is not None and newest.item != item:
            _compare(newest.item, item, cas)
        tally = self._put_here(item, cas, [lookup for _family, lookup in found])
        deliveries = [
            family.deliver(Delivery(Storing(lookup.holders(), tally, keepers), item, cas, family.ask))
            for family, lookup in found
        ]
        await all_of(deliveries)
        return _outcome(tally)

    async def _search(
        self,
        newest: Newest,
        request: Get,
        *,
        for_put: bool = False,
        may_guess: bool = False,
        note: Callable[[Contact, Reply], None] = lambda contact, reply: None,
    ) -> list[tuple[Family, Lookup]]:
        """Search in all networks where we know somebody, at once. With `may_guess` a likely item is enough."""
        families = [family for family in self.families.values() if len(family.table)] or self.families.values()
        lookups = [family.lookup(newest.target, for_put) for family in families]

        def heard(contact: Contact, reply: Reply) -> bool:
            note(contact, reply)
            believed = reply.item is None or newest.offer(reply.item)
            if is_enough():
                for search in searches:
                    search.step()
            return believed

        def is_enough() -> bool:
            return may_guess and newest.is_likely

        searches = [
            Search(lookup, request, family.ask, family.usable, heard, is_enough)
            for family, lookup in zip(families, lookups, strict=True)
        ]
        await self._slots.acquire()
        try:
            await all_of([family.search(search) for family, search in zip(families, searches, strict=True)])
        finally:
            self._slots.release()
        if not any(lookup.asked for lookup in lookups):
            raise Unavailable("No DHT nodes were queried")
        if not any(lookup.replied for lookup in lookups):
            raise Unavailable("No queried DHT nodes responded")
        return list(zip(families, lookups, strict=True))

    def _put_here(self, item: MutableItem, cas: int | None, lookups: list[Lookup]) -> Tally:
        """Keep an item ourselves, if we are one of the nearest nodes that serve."""
        tally = Tally()
        nearest = [contact.id for lookup in lookups for contact in lookup.nearest()]
        for family in self._serving()[:1]:
            own = distance(family.table.own, item.target)
            if len(nearest) < K or any(own < distance(id, item.target) for id in nearest):
                tally.count(self.stored.put(item, cas, self.clock.seconds()))
        return tally

    def _serving(self) -> list[Family]:
        return [family for family in self.families.values() if not family.socket.is_read_only]


def _compare(known: MutableItem, item: MutableItem, cas: int | None) -> None:
    """Refuse to put an item in place of one that is newer, or is not the one it is meant for."""
    if known.is_newer_than(item):
        raise NotMostRecent(f"a node keeps number {known.seq}")
    if cas is not None and known.seq != cas:
        raise Conflict(f"a node keeps number {known.seq}")


def _outcome(tally: Tally) -> int:
    """How many nodes keep the item, or the error that most gave."""
    refusal = tally.refusal
    if refusal is not None:
        kind = Conflict if refusal == CAS_MISMATCH else NotMostRecent
        raise kind(f"{tally.codes.count(refusal)} nodes answered {refusal}")
    if tally.stored:
        return tally.stored
    counted = Counter(tally.codes)
    if counted and counted.most_common(1)[0][0] in _NEVER_TAKEN:
        raise PacketRefused(f"no node keeps it; errors {dict(counted)}")
    raise Unavailable("No responded DHT nodes returned usable response")
