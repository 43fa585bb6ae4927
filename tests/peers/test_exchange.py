"""Packets that homeservers show each other: who may know of them, and that everybody ends with the newest."""

from collections.abc import AsyncIterator
from random import Random

import pytest
import pytest_twisted

from pkarr.builder import Builder
from pkarr.keys import Keypair
from pkarr.packet import SignedPacket
from pubky_homeserver.core.errors import PeerBroken
from pubky_homeserver.core.moves import Kept
from pubky_homeserver.core.peers import NONE
from tests.peers.peering import OWNER, Peering, peering
from tests.peers.worlds import User, World, mutual
from tests.web.served import HOMESERVER

STRANGER = Keypair(b"\x0e" * 32)


@pytest_twisted.async_yield_fixture
async def pair() -> AsyncIterator[Peering]:
    """A homeserver and its peer."""
    async with peering() as both:
        yield both


def record(timestamp: int, homeserver: str = HOMESERVER, user: Keypair = OWNER) -> SignedPacket:
    """What somebody says of where they live."""
    return Builder().https("_pubky", 0, homeserver).sign(user, timestamp)


@pytest_twisted.ensureDeferred
async def test_newer_and_older(pair: Peering) -> None:
    """What is newer is kept; who shows what is older is shown the newer one."""
    assert "exchange" in (await pair.client.greet()).features
    first, second = record(10), record(11)
    (shown,) = await pair.client.show([bytes(second)])
    assert (shown.kept, shown.packet) == (Kept.KEPT, None)
    (shown,) = await pair.client.show([bytes(first)])
    assert (shown.kept, shown.packet) == (Kept.OLD, bytes(second))
    (shown,) = await pair.client.show([bytes(second)])
    assert (shown.kept, shown.packet) == (Kept.OLD, None)


@pytest_twisted.ensureDeferred
async def test_what_is_not_offered_is_not_known(pair: Peering) -> None:
    """Of an account that the peer may not read it learns nothing, though what it shows is taken."""
    pair.set(offer=NONE)
    for user in (OWNER, STRANGER):
        (shown,) = await pair.client.show([bytes(record(10, user=user))])
        assert (shown.kept, shown.packet, shown.public) == (None, None, None)
    kept = await pair.home.store.packets.packet(OWNER.public_key.z32)
    assert kept == record(10).relay_payload
    assert await pair.home.store.packets.packet(STRANGER.public_key.z32) is None


@pytest_twisted.ensureDeferred
async def test_what_is_no_packet(pair: Peering) -> None:
    """Another signature, or no packet at all: nothing of the request counts."""
    good = bytes(record(10))
    for spoilt in (good[:-1], good[:40] + bytes([good[40] ^ 1]) + good[41:]):
        with pytest.raises(PeerBroken):
            await pair.client.show([spoilt])
    assert await pair.home.store.packets.packet(OWNER.public_key.z32) is None


@pytest_twisted.ensureDeferred
async def test_the_body_is_signed_too(pair: Peering) -> None:
    """A request whose body is not the one that was signed is refused."""
    answer = await pair.ask("/peer/v1/packets", "POST")
    assert answer.status == 400
    assert (await pair.ask("/peer/v1/packets", "GET")).status == 405


@pytest_twisted.ensureDeferred
async def test_everybody_ends_with_the_newest() -> None:
    """A record that one homeserver learned reaches its peers, and one that was restored without it."""
    world = World(Random(1), mutual("a", "b", "c"))
    user = User(Keypair(b"\x01" * 32))
    await world.sign_up(user, "a")
    for name in world.nodes:
        await world.start(name)
    await world.put(user, "/pub/file", b"x")
    world.pass_time(5)
    newest = Builder().https("_pubky", 0, world.nodes["a"].key).sign(user.keypair, user.signed + 7)
    node = world.nodes["b"]
    assert node.peering is not None
    await node.peering.packets.learn(newest)
    world.pass_time(5)
    for node in world.nodes.values():
        assert await node.store.packets.packet(user.pubky) == newest.relay_payload, node.name
    await world.kill("c")
    world.nodes["c"].epoch += 1
    world.nodes["c"].store.packets._packets.clear()
    await world.start("c")
    world.pass_time(5)
    assert await world.nodes["c"].store.packets.packet(user.pubky) == newest.relay_payload
    asked = len(world.wires.asked)
    world.pass_time(600)
    assert not [one for one in world.wires.asked[asked:] if "packets" in one[2]], "it comes to rest"
    for name in world.nodes:
        await world.kill(name)
