"""One of the two networks: the nodes with IPv4 addresses or those with IPv6 ones (BEP 32), seen from our socket there.

It joins by asking whom it is told of, or knew before, for its own neighbours. It keeps its routing table fresh by
asking those who were silent for long, and looks for nodes where it knows only old ones. Who asks us something is asked
back and so gets known, if there is room.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from pkarr.dht.contacts import ID_LENGTH, Address, Contact, family, is_public
from pkarr.dht.krpc import Error, FindNode, Ping, Query, Reply, Request
from pkarr.dht.lookup import Lookup
from pkarr.dht.routing import K, RoutingTable, id_near, is_secure, secure_id
from pkarr.dht.server import Limits, Server
from pkarr.dht.standing import Standing
from pkarr.dht.udp import Pace, Silence, Socket
from pkarr.dht.walks import Delivery, Search

UPKEEP = 60.0  # seconds between two rounds
FIRST_RETRY = 1.0  # seconds after which joining is tried again; doubled up to UPKEEP
QUESTIONABLE = 900.0  # seconds of silence after which a node is asked whether it is there (BEP 5)
PINGS = 20  # such questions in one round: a table of 600 nodes is through in half an hour
MAX_CHECKS = 16  # newcomers that are asked back at the same time
MAX_SEEDS = 40  # addresses of nodes that help to join
FEW = 8  # known nodes, below which those are asked too who only help to join


@define(eq=False)
class Family:
    """Our node in one network. `kind` is 4 or 6; `tables` maps kinds to routing tables, ours and perhaps the other.

    `is_private`: the network is one of private addresses, of which several may be the same. `helpers` finds out
    addresses of nodes that help to join. `serves`: None to serve when strangers reach us, else whether to.
    `elsewhere` gets the nodes with addresses of the other kind that somebody names.
    """

    kind: int
    clock: IReactorTime
    tables: dict[int, RoutingTable]
    server: Server
    limits: Limits
    timeout: float
    is_private: bool
    serves: bool | None
    helpers: Callable[[], Deferred[list[Address]]]
    elsewhere: Callable[[list[Contact]], None] = lambda contacts: None
    socket: Socket = field(init=False)
    standing: Standing = field(factory=Standing, init=False)
    joined: Deferred[None] = field(factory=Deferred, init=False)
    _seeds: list[Address] = field(factory=list, init=False)
    # Where nodes are that help to join.
    _retry: float = field(default=FIRST_RETRY, init=False)
    _next: IDelayedCall | None = field(default=None, init=False)
    _round: Deferred[None] | None = field(default=None, init=False)
    _walks: set[Deferred[None]] = field(factory=set, init=False)
    # The ends of searches and puts under way.
    _checking: set[Address] = field(factory=set, init=False)
    # Newcomers that have been asked back.
    log = Logger()

    @socket.default
    def _make_socket(self) -> Socket:
        own = self.tables[self.kind].own
        return Socket(own, self.clock, self.limits, self._answer, Pace(self.timeout), not self.serves)

    @property
    def table(self) -> RoutingTable:
        """The nodes known here."""
        return self.tables[self.kind]

    def start(self, known: Iterable[Contact]) -> None:
        """Join, with the help of nodes known in an earlier life, and keep up from now on."""
        for contact in known:
            self.ask(contact, Ping()).addErrback(lambda failure: None)
            self._seeds.append(contact.address)
        self._begin_round()

    def stop(self) -> None:
        """Leave: ends all searches and puts."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        for walk in list(self._walks):
            walk.cancel()
        if self._round is not None:
            self._round.cancel()
        self.socket.close()

    def hear_of(self, contacts: list[Contact]) -> None:
        """Nodes that were named in the other network: they help to join, if we know hardly anybody here."""
        if len(self.table) < FEW:
            new = [contact.address for contact in self.usable(contacts) if contact.address not in self._seeds]
            self._seeds = [*self._seeds, *new][:MAX_SEEDS]
            if new and not len(self.table) and self._next is not None:
                self._next.reset(0)

    def usable(self, contacts: Iterable[Contact]) -> list[Contact]:
        """Those of the nodes that somebody named which may be written to from here."""
        return [
            contact
            for contact in contacts
            if contact.family == self.kind and contact.address[1] and (self.is_private or is_public(contact.address[0]))
        ]

    def ask(self, contact: Contact, request: Request, on_slow: Callable[[], None] = lambda: None) -> Deferred[Reply]:
        """Ask a node, and learn from its answer or silence whether it is there."""
        asked = self.clock.seconds()
        answer = self.socket.query(contact.address, request, on_slow)
        answer.addCallbacks(self._heard, self._unheard, callbackArgs=(contact,), errbackArgs=(contact, asked))
        return answer

    def lookup(self, target: bytes, for_put: bool = False) -> Lookup:
        """A new lookup that knows the nodes nearest to its target."""
        lookup = Lookup(target, self.table.own, for_put, self.is_private)
        lookup.add(self.table.closest(target, K))
        if len(self.table) < FEW:
            nowhere = bytes(byte ^ 0xFF for byte in target)  # as far as can be; their answers tell their ids
            lookup.add(Contact(nowhere, address) for address in self._seeds)
        return lookup

    async def search(self, search: Search) -> None:
        """Run a search to its end."""
        self._walks.add(search.done)
        try:
            search.step()
            await search.done
        finally:
            self._walks.discard(search.done)

    async def deliver(self, delivery: Delivery) -> None:
        """Run a put to its end."""
        self._walks.add(delivery.done)
        try:
            delivery.start()
            await delivery.done
        finally:
            self._walks.discard(delivery.done)

    def _heard(self, reply: Reply, contact: Contact) -> Reply:
        host = contact.address[0]
        self.table.replied(Contact(reply.sender, contact.address), self.clock.seconds())
        if reply.receiver is not None and not self.is_private:
            self._see(host, reply.receiver)
        others = [node for node in reply.nodes if node.family != self.kind]
        if others:
            self.elsewhere(others)
        if not self.joined.called and self._next is not None:
            self._next.reset(0)  # the first that answers: look around from there
        return reply

    def _see(self, voter: str, seen: Address) -> None:
        """Somebody says where it sees us."""
        if family(seen[0]) == self.kind and is_public(seen[0]) and self.standing.vote(voter, seen):
            self._move(seen)

    def _unheard(self, failure: Failure, contact: Contact, asked: float) -> Failure:
        if failure.check(Silence):
            self.table.failed(contact, asked)
        return failure

    def _move(self, address: Address) -> None:
        """Take an id that is bound to the address where we were found to be (BEP 42)."""
        self.log.info("Others see this node at {host} port {port}", host=address[0], port=address[1])
        if not is_secure(Contact(self.table.own, address)):
            own = secure_id(address[0], secrets.token_bytes(ID_LENGTH))
            self.tables[self.kind] = self.table.moved(own)
            self.socket.own = own

    def _answer(self, query: Query, address: Address) -> Reply | Error | None:
        if query.sender == self.table.own and self.socket.has_asked(query.transaction):
            self.standing.prove(self.clock.seconds())
        elif not query.read_only:
            self._ask_back(Contact(query.sender, address))
        if self.socket.is_read_only:
            return None
        return self.server.answer(query, address, self.kind, self.clock.seconds())

    def _ask_back(self, newcomer: Contact) -> None:
        """See whether one who asked us is a node that could be known."""
        address = newcomer.address
        if len(self._checking) >= MAX_CHECKS or address in self._checking or not self.table.has_room_for(newcomer):
            return
        if self.usable([newcomer]):
            self._checking.add(address)
            answer = self.ask(newcomer, Ping())
            answer.addErrback(lambda failure: None)
            answer.addBoth(lambda _result: self._checking.discard(address))

    def _begin_round(self) -> None:
        self._next = None
        self._round = Deferred.fromCoroutine(self._keep_up())
        self._round.addErrback(self._forgive)
        self._round.addCallback(self._end_round)

    def _forgive(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("A round of the DHT's upkeep failed", failure)

    def _end_round(self, _result: None) -> None:
        if self.socket.transport is None:
            return  # it was the last
        if len(self.table):
            if not self.joined.called:
                self.joined.callback(None)
            self._retry, delay = FIRST_RETRY, UPKEEP
        else:
            delay = self._retry
            self._retry = min(2 * self._retry, UPKEEP)
        self._next = self.clock.callLater(delay, self._begin_round)

    async def _keep_up(self) -> None:
        """One round: join or look around, ask the silent, see whether strangers reach us."""
        now, own = self.clock.seconds(), self.table.own
        for contact in self.table.silent_since(now - QUESTIONABLE, PINGS):
            self.ask(contact, Ping()).addErrback(lambda failure: None)
        untouched = self.table.untouched_since(now - QUESTIONABLE)
        if len(self.table) < FEW:
            self._seeds = list(dict.fromkeys([*await self.helpers(), *self._seeds]))[:MAX_SEEDS]
            await self._look_around(own)
        elif untouched:
            await self._look_around(id_near(own, max(untouched), secrets.token_bytes(ID_LENGTH)))
        if self.serves is None and self.standing.address is not None:
            await self._try_own_door(self.standing.address)

    async def _look_around(self, target: bytes) -> None:
        want = tuple(self.tables) if len(self.tables) > 1 else ()
        await self.search(Search(self.lookup(target), FindNode(target, want), self.ask, self.usable))

    async def _try_own_door(self, address: Address) -> None:
        """Ping ourselves where strangers would."""
        asked = self.clock.seconds()
        try:
            await self.socket.query(address, Ping())
        except Silence:
            pass  # we do not answer as long as we are read-only
        self.standing.judge(asked)
        self.socket.is_read_only = not self.standing.is_reachable
