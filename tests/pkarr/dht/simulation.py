"""A network of nodes without sockets and clocks, for searches as arithmetic: some are away, some lie, answers are lost.

Time is the order in which things happen. What is under way is kept in a list, from which chance picks.
"""

import random

from attrs import define, field

from pkarr.dht.contacts import Contact
from pkarr.dht.items import MutableItem
from pkarr.dht.lookup import Lookup, Newest, Storing
from pkarr.dht.routing import RoutingTable


@define(eq=False)
class SimulatedNode:
    """One node. A `liar` answers with nodes that do not exist, near the target, and with damaged or old items."""

    contact: Contact
    table: RoutingTable
    is_away: bool = False
    is_liar: bool = False
    has_tokens: bool = True
    items: dict[bytes, MutableItem] = field(factory=dict)


@define(eq=False)
class Simulation:
    """Nodes that know each other, by chance, as Kademlia wants it."""

    chance: random.Random
    loss: float = 0.0
    nodes: list[SimulatedNode] = field(factory=list)
    queries: int = 0
    _by_address: dict[tuple[str, int], SimulatedNode] = field(factory=dict)

    def grow(self, count: int, away: float = 0.0, lying: float = 0.0) -> None:
        """Make nodes and let each hear of some others."""
        for number in range(count):
            contact = Contact(self.chance.randbytes(20), (f"9.{number >> 8}.{number & 255}.1", 6881))
            node = SimulatedNode(contact, RoutingTable(contact.id))
            node.is_away = self.chance.random() < away
            node.is_liar = not node.is_away and self.chance.random() < lying
            self.nodes.append(node)
            self._by_address[contact.address] = node
        for node in self.nodes:
            for other in self.chance.sample(self.nodes, min(count, 150)):
                node.table.replied(other.contact, 0.0)

    def honest(self) -> list[SimulatedNode]:
        """Those that are there and say the truth."""
        return [node for node in self.nodes if not node.is_away and not node.is_liar]

    def start(self, target: bytes, for_put: bool = False) -> Lookup:
        """A search that knows three nodes."""
        lookup = Lookup(target, bytes(20), for_put)
        lookup.add(node.contact for node in self.chance.sample(self.nodes, 3))
        return lookup

    def run(self, lookup: Lookup, newest: Newest | None = None) -> None:
        """Search to the end. Every query is answered, or its asker told that it is slow; sometimes both, late."""
        under_way = lookup.ask()
        late: list[Contact] = []
        while not lookup.is_done:
            assert under_way, "a search that is not done waits for somebody"
            contact = under_way.pop(self.chance.randrange(len(under_way)))
            node = self._by_address.get(contact.address)
            self.queries += 1
            if node is None or node.is_away or self.chance.random() < self.loss:
                lookup.slow(contact)
            elif self.chance.random() < 0.05:
                lookup.slow(contact)
                late.append(contact)
            else:
                self._answer(node, contact, lookup, newest)
            if late and self.chance.random() < 0.5:
                delayed = late.pop()
                self._answer(self._by_address[delayed.address], delayed, lookup, newest)
            under_way += lookup.ask()

    def _answer(self, node: SimulatedNode, asked: Contact, lookup: Lookup, newest: Newest | None) -> None:
        nodes = self._lies(lookup.target) if node.is_liar else node.table.closest(lookup.target)
        token = b"token" if node.has_tokens else None
        item = node.items.get(lookup.target)
        lookup.take(asked, node.contact.id, nodes, token)
        if item is not None and newest is not None and not newest.offer(item):
            lookup.drop(asked)

    def _lies(self, target: bytes) -> list[Contact]:
        """Nodes next to the target: some at addresses where nobody is, some at those of others."""
        ids = [target[:18] + self.chance.randbytes(2) for _ in range(8)]
        victims = [self.chance.choice(self.nodes).contact.address for _ in range(4)]
        nowhere = [(f"77.{self.chance.randrange(256)}.{self.chance.randrange(256)}.1", 1) for _ in range(4)]
        return [Contact(id, address) for id, address in zip(ids, victims + nowhere, strict=True)]

    def put(self, lookup: Lookup, item: MutableItem) -> int:
        """Put an item to where a search ended. Returns how many say that they keep it."""
        storing = Storing(lookup.holders())
        under_way = list(storing.ask())
        while not storing.is_done:
            holder = under_way.pop(0)
            node = self._by_address[holder.contact.address]
            if node.is_away or self.chance.random() < self.loss:
                if storing.slow(holder):
                    under_way.append(holder)
                continue
            if not node.is_liar:
                known = node.items.get(item.target)
                if known is not None and known.is_newer_than(item):
                    storing.take(holder, 302)
                    continue
                node.items[item.target] = item
            storing.take(holder, None)
        return storing.tally.stored
