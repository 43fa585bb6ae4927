"""One search through the DHT, and one put at its end, as arithmetic: what came in says whom to ask next.

A search asks the nearest nodes it knows for nodes that are nearer still, until the nearest K have answered. It asks all
of the nearest K it knows at once, and who turns out to be nearer as soon as somebody names it: the first answers come
from near by, and lead on while the others are awaited. Who is slow is left aside, so one silent node costs no more
than one short wait; if the network is so small, or so bad, that K answers cannot be had otherwise, who was slow is
asked once more.

Answers may be lies. A node counts under the id that it answers with, not under the one that others claimed for it;
one owner of addresses counts once; items must be signed; of several the newest is taken. What a liar can still do is
to name nodes that do not exist, and those cost a short wait each, up to a fixed number of queries.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Container, Iterable
from enum import Enum

from attrs import define, evolve, field, frozen

from pkarr.dht.contacts import Address, Contact, owner
from pkarr.dht.items import Item, MutableItem
from pkarr.dht.krpc import CAS_MISMATCH, SEQ_TOO_OLD
from pkarr.dht.routing import K, distance

PARALLEL = 40  # queries at a time on the way: fewer find it later, more ask more nodes in vain (tests/bench/dht.py)
MAX_QUERIES = 250  # in one search; an honest network of 1000 nodes needs 50, of 4000 70
MAX_TRIES = 2  # queries to one node
ENOUGH = 3  # nodes with the same newest item, for those who need not be sure


class _State(Enum):
    NEW = "not asked"
    ASKED = "asked"
    SLOW = "has not answered in time"
    REPLIED = "answered"
    OUT = "wrong answer or given up"


@define(eq=False)
class _Candidate:
    contact: Contact
    distance: int
    state: _State = _State.NEW
    tries: int = 0
    token: bytes | None = None


@frozen
class Holder:
    """A node near the target, and what it wants to see with a put."""

    contact: Contact
    token: bytes = field(repr=False)


@define(eq=False)
class Lookup:
    """One search for the nodes nearest to a target.

    `own` is the id of the node that searches, which never asks itself. With `for_put` only nodes that gave a token
    count as found. `several_per_owner`: nodes may share an address.
    """

    target: bytes
    own: bytes
    for_put: bool = False
    several_per_owner: bool = False
    parallel: int = PARALLEL
    asked: int = field(default=0, init=False)
    replied: int = field(default=0, init=False)
    _candidates: list[_Candidate] = field(factory=list, init=False)
    # All, nearest first.
    _places: dict[Address, _Candidate] = field(factory=dict, init=False)

    def add(self, contacts: Iterable[Contact]) -> None:
        """Nodes that somebody named."""
        for contact in contacts:
            if contact.id != self.own and contact.address not in self._places:
                candidate = _Candidate(contact, distance(contact.id, self.target))
                self._places[contact.address] = candidate
                insort(self._candidates, candidate, key=_by_distance)

    def ask(self) -> list[Contact]:
        """Whom to ask now. They count as asked."""
        window = self._window()
        if all(candidate.state is _State.REPLIED for candidate in window) and len(window) < K:
            window = self._revived()
        fresh = [candidate for candidate in window if candidate.state is _State.NEW]
        waiting = sum(candidate.state is _State.ASKED for candidate in self._candidates)
        chosen = fresh[: max(0, min(self.parallel - waiting, MAX_QUERIES - self.asked))]
        for candidate in chosen:
            candidate.state = _State.ASKED
            candidate.tries += 1
        self.asked += len(chosen)
        return [candidate.contact for candidate in chosen]

    def take(self, contact: Contact, sender: bytes, nodes: Iterable[Contact], token: bytes | None) -> None:
        """An answer to what a contact was asked: who says to be there, the nodes it names, its token."""
        candidate = self._places.get(contact.address)
        if candidate is None or candidate.state in (_State.REPLIED, _State.OUT):
            return
        if sender != candidate.contact.id:
            self._candidates.remove(candidate)
            candidate.contact = evolve(candidate.contact, id=sender)
            candidate.distance = distance(sender, self.target)
            insort(self._candidates, candidate, key=_by_distance)
        candidate.state, candidate.token = _State.REPLIED, token
        if sender == self.own:
            candidate.state = _State.OUT
        self.replied += 1
        self.add(nodes)

    def slow(self, contact: Contact) -> None:
        """A node has not answered as fast as nodes do. It still may."""
        candidate = self._places.get(contact.address)
        if candidate is not None and candidate.state is _State.ASKED:
            candidate.state = _State.SLOW

    def drop(self, contact: Contact) -> None:
        """A node answered with an error or a lie: it is not near anything."""
        candidate = self._places.get(contact.address)
        if candidate is not None:
            candidate.state = _State.OUT

    @property
    def is_done(self) -> bool:
        """Whether nobody is left to ask or to wait for. True only when `ask` has been called after the last answer."""
        window = self._window()
        over = self.asked >= MAX_QUERIES
        return not any(
            candidate.state is _State.ASKED or (candidate.state is _State.NEW and not over) for candidate in window
        ) and (len(window) >= K or over or not any(self._may_be_revived(candidate) for candidate in self._candidates))

    def holders(self) -> list[Holder]:
        """The K nearest nodes that gave a token."""
        return [
            Holder(candidate.contact, candidate.token)
            for candidate in self._window()
            if candidate.state is _State.REPLIED and candidate.token is not None
        ]

    def nearest(self) -> list[Contact]:
        """The K nearest nodes that answered."""
        return [candidate.contact for candidate in self._window() if candidate.state is _State.REPLIED]

    def _window(self) -> list[_Candidate]:
        """The nearest K that answered or still may soon, one of each owner."""
        window: list[_Candidate] = []
        owners: set[bytes] = set()
        for candidate in self._candidates:
            if candidate.state in (_State.SLOW, _State.OUT):
                continue
            if candidate.state is _State.REPLIED and self.for_put and candidate.token is None:
                continue
            if not self.several_per_owner:
                whose = owner(candidate.contact.address[0])
                if whose in owners:
                    continue
                owners.add(whose)
            window.append(candidate)
            if len(window) == K:
                break
        return window

    def _may_be_revived(self, candidate: _Candidate) -> bool:
        return candidate.state is _State.SLOW and candidate.tries < MAX_TRIES

    def _revived(self) -> list[_Candidate]:
        """Give those a second chance who were slow, as many as are missing."""
        missing = K - len(self._window())
        again = [candidate for candidate in self._candidates if self._may_be_revived(candidate)][:missing]
        for candidate in again:
            candidate.state = _State.NEW
        return again


def _by_distance(candidate: _Candidate) -> int:
    return candidate.distance


@define(eq=False)
class Newest:
    """The newest of the mutable items under one target, and how many nodes have it."""

    target: bytes
    salt: bytes = b""
    item: MutableItem | None = field(default=None, init=False)
    count: int = field(default=0, init=False)

    def offer(self, item: Item) -> bool:
        """Look at an item that a node has. False if it is none that can be under the target: the node lies."""
        if not isinstance(item, MutableItem):
            return False
        item = evolve(item, salt=self.salt)
        if item == self.item:
            self.count += 1
            return True
        if item.target != self.target or not item.is_valid():
            return False
        if self.item is None or item.is_newer_than(self.item):
            self.item, self.count = item, 1
        return True

    @property
    def is_likely(self) -> bool:
        """Whether enough nodes have it for those who need not be sure."""
        return self.count >= ENOUGH


@define
class Tally:
    """What nodes answered to a put: how many keep the item, and the codes of the others' errors."""

    stored: int = 0
    codes: list[int] = field(factory=list)

    def count(self, code: int | None) -> None:
        """One answer; None means that the item is kept."""
        if code is None:
            self.stored += 1
        else:
            self.codes.append(code)

    @property
    def refusal(self) -> int | None:
        """The code with which more than half of those that answered say that another item is known; else None."""
        answers = self.stored + len(self.codes)
        for code in (SEQ_TOO_OLD, CAS_MISMATCH):
            if self.codes.count(code) * 2 > answers:
                return code
        return None


@define(eq=False)
class Storing:
    """A put to the nodes that a search found: who is silent is asked a second time. Answers go into `tally`.

    `keepers` are where the very same item was found. Some programs refuse to take that again, as if it were older.
    """

    holders: list[Holder]
    tally: Tally = field(factory=Tally)
    keepers: Container[Address] = ()
    _waiting: dict[Address, int] = field(factory=dict, init=False)
    # Maps addresses to how often they were asked; those that answered are not here.

    def ask(self) -> list[Holder]:
        """Whom to ask at first: all."""
        self._waiting = {holder.contact.address: 1 for holder in self.holders}
        return self.holders

    def take(self, holder: Holder, code: int | None) -> None:
        """An answer: None that it is kept, or the code of an error. The first of each node counts."""
        if self._waiting.pop(holder.contact.address, None) is not None:
            is_kept = code == SEQ_TOO_OLD and holder.contact.address in self.keepers
            self.tally.count(None if is_kept else code)

    def slow(self, holder: Holder) -> bool:
        """A node has not answered in time. Whether to ask it again."""
        tries = self._waiting.get(holder.contact.address, MAX_TRIES)
        if tries >= MAX_TRIES:
            self._waiting.pop(holder.contact.address, None)
            return False
        self._waiting[holder.contact.address] = tries + 1
        return True

    @property
    def is_done(self) -> bool:
        """Whether all have answered or been given up."""
        return not self._waiting
