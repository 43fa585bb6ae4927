"""Our DHT and those of others: what one puts the other gets, on nodes of either kind."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet.task import deferLater

from pkarr.dht.items import MutableItem, signable
from pkarr.dht.node import Dht
from pkarr.interfaces import Conflict, NotMostRecent, PacketRefused, Policy
from tests.pkarr.dht.swarm import LOOPBACK, keypair, packet, port, reactor, running, swarm

from .dht_javascript import JavaScript
from .dht_libtorrent import Libtorrent

PATIENCE = 20.0  # seconds
NODES = 8
KEY, OTHER = keypair(1), keypair(2)

Foreign = Libtorrent | JavaScript
Started = Callable[[type[Foreign]], AbstractAsyncContextManager[tuple[Dht, Foreign]]]


@asynccontextmanager
async def theirs(kind: type[Foreign]) -> AsyncIterator[tuple[Dht, Foreign]]:
    """Nodes of somebody else, and one of ours that answers but keeps nothing.

    It is no read-only node, for libtorrent asks those too and would wait 15 s for their answers.
    """
    foreign = kind()
    settings = evolve(LOOPBACK, max_items=0, bootstrap=(("127.0.0.1", await foreign.start(NODES, None)),))
    try:
        async with running(Dht(reactor, settings)) as dht:
            await meet(dht)
            yield dht, foreign
            assert len(dht.stored) == 0
    finally:
        await foreign.stop()


async def meet(dht: Dht) -> None:
    """Wait until all nodes have found each other."""
    for attempt in range(int(PATIENCE / 0.1)):
        if await dht.publish(packet(keypair(99), attempt)) > NODES:
            return
        await deferLater(reactor, 0.1)
    pytest.fail("they never found each other")


@asynccontextmanager
async def ours(kind: type[Foreign]) -> AsyncIterator[tuple[Dht, Foreign]]:
    """Nodes of ours, and one of somebody else."""
    foreign = kind()
    async with swarm(NODES) as nodes:
        await foreign.start(1, port(nodes[0])[1])
        try:
            yield nodes[3], foreign
        finally:
            await foreign.stop()


KINDS = pytest.mark.parametrize("kind", [Libtorrent, JavaScript], ids=["libtorrent", "bittorrent-dht"])
NETWORKS = pytest.mark.parametrize("started", [ours, theirs], ids=["our nodes", "their nodes"])


@KINDS
@NETWORKS
@pytest_twisted.ensureDeferred
async def test_packets(started: Started, kind: type[Foreign]) -> None:
    """What we publish they get, the newest; publishing the same again keeps it on as many nodes."""
    async with started(kind) as (dht, foreign):
        for timestamp in (1000, 2000):
            published = packet(KEY, timestamp, f"at {timestamp}")
            assert await dht.publish(published) >= NODES
            assert await foreign.get(KEY) == (timestamp, published.dns)
            assert await dht.publish(published) >= NODES
            assert await dht.resolve(KEY.public_key, Policy.NETWORK_ONLY) == published


@KINDS
@NETWORKS
@pytest_twisted.ensureDeferred
async def test_their_items(started: Started, kind: type[Foreign]) -> None:
    """What they put we get, the newest, with salt and without."""
    async with started(kind) as (dht, foreign):
        for seq, value in ((1, b"first"), (2, b"second")):
            for salt in (b"", b"salt"):
                assert await foreign.put(OTHER, seq, value, salt) >= NODES - 1
                item = await dht.get(OTHER.public_key.raw, salt)
                assert item is not None
                assert item.v == b"%d:%b" % (len(value), value)


@KINDS
@NETWORKS
@pytest_twisted.ensureDeferred
async def test_rules(started: Started, kind: type[Foreign]) -> None:
    """Old, unsigned and too large items are refused by both."""
    async with started(kind) as (dht, foreign):
        await dht.publish(packet(KEY, 1000))
        with pytest.raises(NotMostRecent):
            await dht.publish(packet(KEY, 999))
        with pytest.raises(Conflict):
            await dht.publish(packet(KEY, 1001), replaces=998)
        assert await dht.publish(packet(KEY, 1001), replaces=1000) >= NODES
        for wrong in (signed(1002, b"1001:" + bytes(1001)), evolve(signed(1002, b"1:x"), seq=1003)):
            with pytest.raises(PacketRefused):
                await dht.put(wrong)
        assert await foreign.get(KEY) == (1001, packet(KEY, 1001).dns)


def signed(seq: int, v: bytes) -> MutableItem:
    """An item."""
    return MutableItem(KEY.public_key.raw, seq, v, KEY.sign(signable(seq, v)))
