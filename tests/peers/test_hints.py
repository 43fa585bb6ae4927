"""When logs are asked for: what a peer hints at, and what the store may have forgotten.

What it says of accounts that do not live there is looked up, and changes nothing till then.
"""

from copy import deepcopy
from random import Random

import pytest
import pytest_twisted
from attrs import evolve

from pkarr.builder import Builder
from pkarr.keys import Keypair
from pkarr.packet import SignedPacket
from pubky_homeserver.core.copies import Copy, Hint, Offered
from pubky_homeserver.core.errors import StoreAway
from pubky_homeserver.core.records import Account
from pubky_homeserver.packets import Packets
from pubky_homeserver.peers.lookups import AT_FIRST, PACE
from pubky_homeserver.peers.mirror import Mirror
from tests.peers.judge import check_copy
from tests.peers.test_moving import begin, claim, end
from tests.peers.worlds import Node, User, World, mutual

USERS = [Keypair(bytes([number]) * 32) for number in (8, 9)]


def mirror_of(node: Node, other: Node) -> Mirror:
    """Who follows one homeserver at another one."""
    assert node.peering is not None
    mirror = node.peering.neighbours[other.key].mirror
    assert mirror is not None
    return mirror


def copy_of(node: Node, user: User) -> tuple[Copy, str, int, int]:
    """A copy as its homeserver shows it: with its state, how far it is behind, and when it was confirmed."""
    assert node.peering is not None
    copies = node.peering.copies
    copy = copies.of(user.pubky)
    assert copy is not None
    return copy, copies.state(copy), copies.lag(copy), copies.confirmed(copy)


async def offered(world: World, user: User) -> Offered:
    """An account as its copy would have it."""
    standing = await world.nodes["b"].store.logs.standing(user.pubky, False)
    assert standing is not None
    return Offered(user.pubky, 0, standing, None)


@pytest_twisted.ensureDeferred
async def test_a_peer_that_is_not_the_primary() -> None:
    """I12: neither its hints nor its list of accounts make a copy stale, late, or as good as new."""
    world, user = await begin("a", "b", "c")
    node, liar = world.nodes["b"], mirror_of(world.nodes["b"], world.nodes["c"])
    world.pass_time(60)
    for number in (2**53 - 1, None):
        liar._hear(Hint(user.pubky, False, number))
        world.pass_time(700)
        copy, state, lag, _ = copy_of(node, user)
        assert (copy.primary, state, lag) == (world.nodes["a"].key, "current", 0)
    one = await offered(world, user)
    far = evolve(one, public=evolve(one.public, position=evolve(one.public.position, seq=2**40)))
    await world.kill("a")
    world.pass_time(700)
    *_, confirmed = copy_of(node, user)
    for said in (one, far):
        await liar._compare(said)
        world.pass_time(60)
        copy, state, lag, now = copy_of(node, user)
        assert (copy.primary, state, lag, now) == (world.nodes["a"].key, "stale", 0, confirmed)
    await world.start("a")
    world.pass_time(10)
    assert copy_of(node, user)[1] == "current"
    await end(world)


@pytest_twisted.ensureDeferred
async def test_a_store_that_forgot_something() -> None:
    """After a failover of our own store copies are what it says they are, and all are asked for again (I10)."""
    world, user = await begin("a", "b")
    node = world.nodes["b"]
    assert node.peering is not None
    world.pass_time(60)
    before = deepcopy(node.store.copies._copies[user.pubky])
    await world.put(user, "/pub/new", b"new")
    world.pass_time(10)
    node.store.copies._copies[user.pubky] = before  # rewound
    await world.kill("a")  # and nobody there to say so
    node.epoch += 1
    world.pass_time(6)
    copy, *_, confirmed = copy_of(node, user)
    assert copy.public.position == before.logs[False].state.position
    assert confirmed < world.clock.seconds() - 10
    await world.start("a")
    world.pass_time(60)
    await check_copy(world.nodes["a"], node, user.pubky)
    node.store.copies._copies.pop(user.pubky)  # it never was
    node.epoch += 1
    world.pass_time(6)
    assert node.peering.copies.of(user.pubky) == await node.store.copies.copy(user.pubky)
    world.pass_time(60)
    assert await node.store.copies.copy(user.pubky) is not None
    assert copy_of(node, user)[1] == "current"
    await end(world)


@pytest_twisted.ensureDeferred
async def test_hints_at_any_keys() -> None:
    """A peer that names ever other keys costs few look-ups in a second, and its accounts are followed on."""
    world, user = await begin("a", "b")
    node, liar = world.nodes["b"], mirror_of(world.nodes["b"], world.nodes["a"])
    world.pass_time(60)
    keys = [Keypair(number.to_bytes(32, "big")).public_key.z32 for number in range(1, 181)]
    before = world.network.resolved
    for key in keys:
        liar._hear(Hint(key, False, 1))
    world.pass_time(10)
    assert AT_FIRST + 5 * PACE < world.network.resolved - before <= AT_FIRST + 10 * PACE + 1
    await world.put(user, "/pub/new", b"new")
    world.pass_time(30)
    assert await node.store.entry(user.pubky, "/pub/new") is not None
    await end(world)


@pytest_twisted.ensureDeferred
async def test_a_key_that_is_named_again_and_again() -> None:
    """Nobody's key is looked up when its time has come, not whenever it is named."""
    world, _ = await begin("a", "b")
    liar = mirror_of(world.nodes["b"], world.nodes["a"])
    world.pass_time(60)
    before = world.network.resolved
    for _ in range(200):
        liar._hear(Hint(USERS[0].public_key.z32, False, 1))
        world.pass_time(0.5)
    assert 5 <= world.network.resolved - before <= 10
    await end(world)


@pytest_twisted.ensureDeferred
async def test_an_account_that_has_its_record_later() -> None:
    """Who is named before there is a record is followed soon after there is one."""
    world, _ = await begin("a", "b")
    node = world.nodes["b"]
    late = User(USERS[1], "a")
    world.users[late.pubky] = late
    await world.nodes["a"].store.sign_up(Account(late.pubky, world.microseconds), None, None, False)
    for number in range(10):
        await world.put(late, "/pub/a", b"%d" % number)
        world.pass_time(10)
    assert await node.store.copies.copy(late.pubky) is None
    await world.point(late, "a")
    world.pass_time(200)
    await check_copy(world.nodes["a"], node, late.pubky)
    await end(world)


@pytest_twisted.ensureDeferred
async def test_accounts_whose_records_are_shown_begin_at_once() -> None:
    """Where the peer shows what a user signed, and it names the peer, nobody waits until the networks were asked."""
    world = World(Random(1), mutual("a", "b"))
    store = world.nodes["a"].store
    many = AT_FIRST + int(10 * PACE)
    for number in range(1, many + 1):
        user = User(Keypair(number.to_bytes(32, "big")))
        await world.sign_up(user, "a")
        packet = world.network.packets[user.keypair.public_key.raw]
        await store.packets.keep_packet(user.pubky, packet.relay_payload)
    for name in world.nodes:
        await world.start(name)
    world.pass_time(3)
    assert len(await world.nodes["b"].store.copies.copies("", 500)) == many
    assert world.network.resolved <= AT_FIRST + 4 * PACE
    await end(world)


@pytest_twisted.ensureDeferred
async def test_networks_that_are_slow_delay_no_copy() -> None:
    """I18: after a restart a copy goes on at once; what the networks say is learned when they say it."""
    world, user = await begin("a", "b", "c")
    world.network.latency = 20.0
    await world.kill("b")
    await world.start("b")
    world.pass_time(1)
    assert await world.put(user, "/pub/soon", b"x")
    world.pass_time(1)
    await check_copy(world.nodes["a"], world.nodes["b"], user.pubky)
    for one, other in (("a", "c"), ("b", "c"), ("a", "b")):
        world.wires.cut_off(one, other)
    await claim(world, user, "c")
    await world.kill("b")
    world.wires.broken.discard(("b", "a"))
    world.wires.broken.discard(("a", "b"))
    node = world.nodes["c"]
    packet = Builder().https("_pubky", 0, node.key).sign(user.keypair, world.microseconds)
    world.network.packets[user.keypair.public_key.raw] = packet
    await world.start("b")
    world.pass_time(10)
    assert copy_of(world.nodes["b"], user)[0].primary == world.nodes["a"].key
    world.pass_time(15)
    assert copy_of(world.nodes["b"], user)[0].primary == node.key, "it has not learned what the networks say"
    world.wires.calm()
    await end(world)


@pytest_twisted.ensureDeferred
async def test_a_look_up_that_fails_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found is not learned while the store is away; and nothing is left of it when the process stops."""
    world, user = await begin("a", "b")
    world.network.latency = 3.0
    await world.kill("b")
    await world.start("b")
    world.pass_time(1)
    look_ups = mirror_of(world.nodes["b"], world.nodes["a"])._look_ups

    async def learn(_packets: Packets, _packet: SignedPacket) -> None:
        raise StoreAway

    with monkeypatch.context() as away:
        away.setattr(Packets, "learn", learn)
        await world.put(user, "/pub/x", b"x")
        world.pass_time(1)
        assert len(look_ups._beside) == 1
        world.pass_time(3)
        assert not look_ups._beside
        assert user.pubky not in look_ups._seen
    await world.put(user, "/pub/x", b"y")
    world.pass_time(1)
    assert len(look_ups._beside) == 1
    await end(world)
    assert not look_ups._beside
