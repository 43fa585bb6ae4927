"""Fifty nodes of the DHT on the loopback: 30 % of the datagrams are lost, a fifth of the nodes are dead or lie."""

import random
from typing import Any

import pytest_twisted
from attrs import define, evolve, field
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import deferLater

from pkarr.dht.contacts import Address, Contact
from pkarr.dht.items import MutableItem
from pkarr.dht.krpc import Get, Message, Put, Query, Reply, decode, encode
from pkarr.dht.node import Dht
from pkarr.interfaces import NetworkError, Policy
from tests.pkarr.dht.swarm import LOOPBACK, joining, keypair, packet

reactor: Any = _reactor

NODES, DEAD, LIARS = 50, 5, 5
LOSS = 0.3  # of datagrams, whichever way they go
PAIRS = 500
AT_A_TIME = 40  # pairs; each waits for silent nodes most of the time
SEED = 20


@define
class Lossy:
    """A reactor whose sockets lose what arrives, by chance."""

    chance: random.Random
    loss: float

    def listenUDP(self, port: int, protocol: DatagramProtocol, interface: str, size: int) -> IListeningPort:
        """Listen, and hear only some."""
        received = protocol.datagramReceived

        def hear(datagram: bytes, addr: Address) -> None:
            if self.chance.random() >= self.loss:
                received(datagram, addr)

        protocol.datagramReceived = hear  # type: ignore[method-assign]  # what a bad line does
        listening: IListeningPort = reactor.listenUDP(port, protocol, interface, size)
        return listening

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


@define(eq=False)
class Liar(DatagramProtocol):
    """A node that says it keeps everything, and keeps what it gets to give it back spoilt or long after its time.

    The nodes that it names are next to every target, and are not there, or are others under a wrong id.
    """

    chance: random.Random
    victims: list[Address]
    id: bytes = b""
    kept: dict[bytes, list[MutableItem]] = field(factory=dict)
    asked: int = 0
    noisy = False

    def introduce(self, victim: Address) -> None:
        """Ask a node something, so that it gets to know us."""
        self._send(Query(b"aa", self.id, Get(self.id)), victim)

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Answer with a lie."""
        query = decode(datagram)
        if isinstance(query, Query):
            self.asked += 1
            self._send(self._lie(query), addr)

    def _send(self, message: Message, address: Address) -> None:
        assert self.transport is not None
        self.transport.write(encode(message), address)

    def _lie(self, query: Query) -> Reply:
        target = getattr(query.request, "target", self.id)
        if isinstance(query.request, Put) and isinstance(query.request.item, MutableItem):
            item = query.request.item
            self.kept.setdefault(item.target, []).append(item)
        reply = Reply(query.transaction, self.id, self._nobody(target), token=b"lie")
        known = self.kept.get(target)
        if isinstance(query.request, Get) and known:
            oldest = known[0]
            spoilt = [
                oldest,
                evolve(oldest, seq=oldest.seq + 1000),
                evolve(oldest, v=b"3:lie"),
                evolve(oldest, sig=bytes(64)),
                evolve(oldest, k=keypair(77).public_key.raw),
            ]
            item = self.chance.choice(spoilt)
            return evolve(reply, item=item, seq=item.seq)
        return reply

    def _nobody(self, target: bytes) -> tuple[Contact, ...]:
        return tuple(
            Contact(target[:18] + self.chance.randbytes(2), self.chance.choice([*self.victims, ("127.0.0.1", 9)]))
            for _ in range(8)
        )


@define
class Network:
    """The nodes that are good, the liars, and where the dead were."""

    nodes: list[Dht]
    liars: list[Liar]
    ports: list[IListeningPort]

    async def stop(self) -> None:
        """Stop all."""
        await gatherResults([node.stopService() for node in self.nodes])
        await gatherResults([maybeDeferred(port.stopListening) for port in self.ports])


async def start(chance: random.Random) -> Network:
    """All nodes, joined; then some die, and the liars come and make themselves known."""
    lossy = Lossy(chance, LOSS)
    first = Dht(lossy, LOOPBACK)
    first.startService()
    nodes = [first, *(Dht(lossy, joining(first)) for _ in range(NODES - LIARS - 1))]
    for node in nodes[1:]:
        node.startService()
    await gatherResults([node.when_joined() for node in nodes])
    liars = [Liar(chance, [node.addresses[0] for node in nodes], chance.randbytes(20)) for _ in range(LIARS)]
    ports = [reactor.listenUDP(0, liar, "127.0.0.1", 4096) for liar in liars]
    for liar in liars:
        for victim in liar.victims:
            liar.introduce(victim)
    dead = chance.sample(nodes[1:], DEAD)
    network = Network([node for node in nodes if node not in dead], liars, ports)
    await deferLater(reactor, 0.5)  # the liars get known
    await gatherResults([node.stopService() for node in dead])
    return network


async def publish_and_resolve(network: Network, chance: random.Random, number: int) -> str:
    """Publish by one node, twice for every third key; resolve by another. Says how it went."""
    key = keypair(1000 + number)
    writer, second, reader = chance.sample(network.nodes, 3)
    expected = packet(key, 1000)
    await writer.publish(expected)
    if number % 3 == 0:
        expected = packet(key, 1001, "newer")
        await second.publish(expected)
    found = await reader.resolve(key.public_key, Policy.NETWORK_ONLY)
    if found is None:
        return "missing"
    return "found" if found == expected else "old"


@pytest_twisted.ensureDeferred
async def test_a_bad_network() -> None:
    """Nearly all that is published is found; never something old; and no node keeps anything invalid."""
    chance = random.Random(SEED)
    network = await start(chance)
    slots = DeferredSemaphore(AT_A_TIME)

    async def pair(number: int) -> str:
        await slots.acquire()
        try:
            return await publish_and_resolve(network, chance, number)
        except NetworkError as error:
            return type(error).__name__
        finally:
            slots.release()

    try:
        outcomes = await gatherResults([Deferred.fromCoroutine(pair(number)) for number in range(PAIRS)])
        kept = [item for node in network.nodes for item in node.stored]
    finally:
        await network.stop()
    assert outcomes.count("old") == 0
    assert outcomes.count("found") >= 0.99 * PAIRS, {outcome: outcomes.count(outcome) for outcome in set(outcomes)}
    assert len(kept) > 10 * PAIRS
    assert all(isinstance(item, MutableItem) and item.is_valid() and item.seq in (1000, 1001) for item in kept)
    assert sum(liar.asked for liar in network.liars) > PAIRS, "the liars were part of it"
