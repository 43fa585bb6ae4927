"""A search and a put on their way: the arithmetic of `lookup`, moved on by answers and by their absence."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from pkarr.dht.contacts import Contact
from pkarr.dht.items import Item
from pkarr.dht.krpc import Put, Reply, Request
from pkarr.dht.lookup import Holder, Lookup, Storing
from pkarr.dht.udp import Refusal, Silence

Ask = Callable[[Contact, Request, Callable[[], None]], Deferred[Reply]]
"""Asks a node; the last argument is called when the answer is late. Fails with `Silence` or `Refusal`."""


@define(eq=False)
class Search:
    """Asks `request` of one node after another. `done` fires at the end; cancelled, it ends the search.

    Each answer goes to `heard`, which says whether it is believed; `is_enough` ends the search early. Of the nodes
    that an answer names, `usable` says which may be asked.
    """

    lookup: Lookup
    request: Request
    ask: Ask
    usable: Callable[[Iterable[Contact]], Iterable[Contact]]
    heard: Callable[[Contact, Reply], bool] = lambda contact, reply: True
    is_enough: Callable[[], bool] = lambda: False
    done: Deferred[None] = field(factory=Deferred, init=False)

    def step(self) -> None:
        """Ask whom the lookup names; end if it is done."""
        if self.done.called:
            return
        for contact in self.lookup.ask():
            answer = self.ask(contact, self.request, partial(self._slow, contact))
            answer.addCallbacks(self._take, self._fail, callbackArgs=(contact,), errbackArgs=(contact,))
        if self.lookup.is_done or self.is_enough():
            self.done.callback(None)

    def _slow(self, contact: Contact) -> None:
        self.lookup.slow(contact)
        self.step()

    def _take(self, reply: Reply, contact: Contact) -> None:
        if self.done.called:
            return
        self.lookup.take(contact, reply.sender, self.usable(reply.nodes), reply.token)
        if not self.heard(contact, reply):
            self.lookup.drop(contact)
        self.step()

    def _fail(self, failure: Failure, contact: Contact) -> None:
        if failure.trap(Silence, Refusal) is Refusal:
            self.lookup.drop(contact)
        self.step()


@define(eq=False)
class Delivery:
    """Puts an item to the nodes that a search found. `done` fires at the end; cancelled, it ends the put."""

    storing: Storing
    item: Item
    cas: int | None
    ask: Ask
    done: Deferred[None] = field(factory=Deferred, init=False)

    def start(self) -> None:
        """Ask all nodes to keep the item."""
        for holder in self.storing.ask():
            self._put(holder)
        self._end_if_done()

    def _put(self, holder: Holder) -> None:
        request = Put(holder.token, self.item, self.cas)
        answer = self.ask(holder.contact, request, partial(self._slow, holder))
        answer.addCallbacks(self._take, self._fail, callbackArgs=(holder,), errbackArgs=(holder,))

    def _slow(self, holder: Holder) -> None:
        if not self.done.called and self.storing.slow(holder):
            self._put(holder)
        self._end_if_done()

    def _take(self, _reply: Reply, holder: Holder) -> None:
        self.storing.take(holder, None)
        self._end_if_done()

    def _fail(self, failure: Failure, holder: Holder) -> None:
        if failure.trap(Silence, Refusal) is Refusal:
            assert isinstance(failure.value, Refusal)
            self.storing.take(holder, failure.value.code)
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self.storing.is_done and not self.done.called:
            self.done.callback(None)
