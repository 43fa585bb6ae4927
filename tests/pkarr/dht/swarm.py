"""DHTs on the loopback: real nodes on real sockets."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from attrs import evolve
from twisted.internet import reactor as _reactor
from twisted.internet.defer import DeferredList, gatherResults

from pkarr.dht.contacts import Address
from pkarr.dht.node import Dht, Settings
from pkarr.keys import Keypair
from pkarr.packet import SignedPacket
from pkarr.records import txt

reactor: Any = _reactor

LOOPBACK = Settings(
    port=0, ipv4="127.0.0.1", ipv6=None, bootstrap=(), serves=True, is_private=True, rate=1e6, total_rate=1e6
)
LOOPBACK_V6 = evolve(LOOPBACK, ipv4=None, ipv6="::1")
BOTH = evolve(LOOPBACK, ipv6="::1")


@asynccontextmanager
async def swarm(count: int, settings: Settings = LOOPBACK, net: Any = reactor) -> AsyncIterator[list[Dht]]:
    """So many nodes that have joined the first of them."""
    nodes = [Dht(net, settings)]
    nodes[0].startService()
    settings = joining(nodes[0], settings)
    nodes += [Dht(net, settings) for _ in range(count - 1)]
    try:
        for node in nodes[1:]:
            node.startService()
        await gatherResults([node.when_joined() for node in nodes])
        yield nodes
    finally:
        await DeferredList([node.stopService() for node in nodes])


@asynccontextmanager
async def running(dht: Dht) -> AsyncIterator[Dht]:
    """One more node."""
    dht.startService()
    try:
        yield dht
    finally:
        await dht.stopService()


def joining(first: Dht, settings: Settings = LOOPBACK) -> Settings:
    """Settings of nodes that know one."""
    return evolve(settings, bootstrap=tuple(first.addresses))


def keypair(number: int) -> Keypair:
    """One of many keys."""
    return Keypair(number.to_bytes(32, "big"))


def packet(key: Keypair, timestamp: int, text: str = "hello") -> SignedPacket:
    """A packet with one record."""
    return SignedPacket.sign(key, [txt("x", text)], timestamp)


def port(dht: Dht) -> Address:
    """Where a node is."""
    (address,) = dht.addresses
    return address
