"""What a primary orders to be erased: hidden at once, wiped later, and not before the user had their say."""

import pytest
import pytest_twisted
from attrs import define, evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from zope.interface import implementer

from pkarr.interfaces import INetwork, Policy, Unavailable
from pkarr.keys import Keypair, PublicKey
from pkarr.packet import SignedPacket
from pubky_homeserver.core.erasing import Obeyed, Order
from pubky_homeserver.core.errors import InvalidRequest, PeerBroken, PeerRefused
from pubky_homeserver.core.peers import NONE
from pubky_homeserver.peers.erasing import ERASE, Erasures, naming
from pubky_homeserver.peers.ordering import Orders
from tests.peers.judge import check_copy
from tests.peers.peering import FOLLOWER, peering
from tests.peers.test_moving import begin as begin_world
from tests.peers.test_moving import check_writes, claim, end, lives_at, wait
from tests.peers.worlds import User, World

GRACE = 1800.0
"""Seconds: with three days the heartbeats of the simulated homeservers would take minutes."""


def orders(world: World, name: str) -> Orders:
    """What a node orders."""
    peering = world.nodes[name].peering
    assert peering is not None
    return peering.orders


def erasures(world: World, name: str) -> Erasures:
    """What a node was ordered."""
    peering = world.nodes[name].peering
    assert peering is not None
    return peering.erasures


async def begin(*names: str, split: frozenset[str] = frozenset()) -> tuple[World, User]:
    """Homeservers that mirror each other with a short grace, and a user of the first one, with files."""
    world, user = await begin_world(*names, split=split)
    for name in names:
        erasures(world, name).grace = GRACE
        for web in world.nodes[name].webs:
            web.erasures.grace = GRACE
    return world, user


async def is_hidden(world: World, name: str, user: User) -> bool:
    """Whether nothing of an account can be read at a node."""
    store = world.nodes[name].store
    copies = world.nodes[name].peering.copies  # type: ignore[union-attr]  # it runs
    assert (copies.of(user.pubky) is None) == (await store.copies.copy(user.pubky) is None)
    return copies.of(user.pubky) is None and await store.logs.standing(user.pubky, False) is None


async def bodies(world: World, name: str) -> int:
    """How many blobs are kept for something at a node, but for those whose grace is over."""
    node = world.nodes[name]
    kept = {blob for blob in node.blobs._kept}  # noqa: C416  # no port tells all that is there
    gone = set(await node.store.expired_blobs(world.microseconds, 500))
    return len(await node.store.known_blobs(kept - gone))


def receipts(world: World, name: str) -> list[bool]:
    """Which orders of a node are obeyed."""
    return [bool(one["receipt"]) for one in orders(world, name).status()]


SPLIT = [frozenset(), frozenset({"a", "b", "c"})]
"""Which homeservers are several processes."""


@pytest.mark.parametrize("split", SPLIT)
@pytest_twisted.ensureDeferred
async def test_copies_are_hidden_at_once_and_wiped_later(split: frozenset[str]) -> None:
    """Each peer gives its receipt when nothing can be read there; after the grace no byte is left, and none comes."""
    world, user = await begin("a", "b", "c", split=split)
    assert not await is_hidden(world, "b", user)
    assert len(wait(world, orders(world, "a").erase(user.pubky))) == 2
    world.pass_time(10)
    assert receipts(world, "a") == [True, True]
    for name in ("b", "c"):
        assert await is_hidden(world, name, user)
        assert await world.nodes[name].store.packets.packet(user.pubky) is not None
    await world.put(user, "/pub/later", b"x" * 100)
    world.pass_time(GRACE + 100)
    for name in ("b", "c"):
        assert await is_hidden(world, name, user)
        assert await world.nodes[name].store.erasures.doomed(9) == []
        assert await world.nodes[name].store.packets.packet(user.pubky) is None
    await check_writes(world, user)
    world.pass_time(3600)  # bodies that were replaced before have a grace of their own
    for name in ("b", "c"):
        assert await bodies(world, name) == 0
    await end(world)


@pytest.mark.parametrize("split", SPLIT)
@pytest_twisted.ensureDeferred
async def test_a_peer_that_was_down_gets_the_order_when_it_is_back(split: frozenset[str]) -> None:
    """The order waits for days, over a restart of who gave it too, and is given as soon as the peer calls."""
    world, user = await begin("a", "b", "c", split=split)
    await world.kill("c")
    wait(world, orders(world, "a").erase(user.pubky))
    world.pass_time(10)
    assert receipts(world, "a") == [True, False]
    await world.kill("a")
    world.pass_time(3600)
    await world.start("a")
    world.pass_time(400)
    assert receipts(world, "a") == [True, False]
    assert orders(world, "a").status()[1]["failure"]
    await world.start("c")
    world.pass_time(10)
    assert receipts(world, "a") == [True, True]
    assert await is_hidden(world, "c", user)
    await end(world)


@pytest_twisted.ensureDeferred
async def test_an_order_that_another_process_obeyed() -> None:
    """Who works on the copy in that moment, and does not know yet that it is hidden, begins none in its place."""
    world, user = await begin("a", "b")
    standing = await world.nodes["a"].store.logs.standing(user.pubky, False)
    assert standing is not None
    position, store, hidden = standing.position, world.nodes["b"].store, erasures(world, "b")
    until, name = int(world.microseconds + GRACE * 1_000_000), hidden.name(user.pubky)
    obeyed = await store.erasures.hide(user.pubky, world.nodes["a"].key, position.log_id, position.seq, until, name)
    assert obeyed is Obeyed.HIDDEN
    await world.put(user, "/pub/later", b"x")
    world.pass_time(700)
    assert await is_hidden(world, "b", user)
    await end(world)


@pytest_twisted.ensureDeferred
async def test_who_is_not_the_primary_orders_nothing() -> None:
    """I12: an order from a peer whom the newest record does not name changes nothing, whatever it says."""
    world, user = await begin("a", "b", "c")
    standing = await world.nodes["a"].store.logs.standing(user.pubky, False)
    assert standing is not None
    with pytest.raises(InvalidRequest):
        await orders(world, "c").erase(user.pubky)
    key, position = world.nodes["b"].key, standing.position
    hostile = orders(world, "c")
    await hostile.store.order(Order(key, user.pubky, position.log_id, position.seq, world.microseconds))
    wait(world, deferred_look(hostile))
    hostile.begin(key)
    world.pass_time(10)
    assert "403" in str(hostile.status()[0]["failure"])
    assert not await is_hidden(world, "b", user)
    await check_copy(world.nodes["a"], world.nodes["b"], user.pubky)
    await end(world)


async def deferred_look(one: Orders) -> None:
    """Let it read its orders."""
    await one._look()  # orders are only given by `erase`, which refuses this one


@pytest_twisted.ensureDeferred
async def test_an_order_that_does_not_fit_is_not_obeyed() -> None:
    """A primary that lost the end of its log gets no receipt from a copy that has it: the operators must look."""
    world, user = await begin("a", "b")
    standing = await world.nodes["a"].store.logs.standing(user.pubky, False)
    assert standing is not None
    position, source = standing.position, orders(world, "a").sources[world.nodes["b"].key]
    for log_id, seq in ((position.log_id, position.seq - 1), ("12" * 16, position.seq)):
        with pytest.raises(PeerRefused, match="409"):
            wait(world, source.erase(user.pubky, log_id, seq))
        assert not await is_hidden(world, "b", user)
    wait(world, orders(world, "a").erase(user.pubky))
    world.pass_time(10)
    assert receipts(world, "a") == [True]
    await end(world)


@pytest_twisted.ensureDeferred
async def test_what_is_written_after_an_order_does_not_hold_it_up() -> None:
    """An order that could not be given at once is given for what the copy may have by then."""
    world, user = await begin("a", "b")
    one, key = orders(world, "a"), world.nodes["b"].key
    standing = await world.nodes["a"].store.logs.standing(user.pubky, False)
    assert standing is not None
    await one.store.order(Order(key, user.pubky, standing.position.log_id, standing.position.seq, world.microseconds))
    await world.put(user, "/pub/after", b"x")
    world.pass_time(10)
    wait(world, deferred_look(one))
    one.begin(key)
    world.pass_time(10)
    assert receipts(world, "a") == [True]
    assert await is_hidden(world, "b", user)
    await end(world)


@pytest_twisted.ensureDeferred
async def test_what_is_written_while_an_order_is_obeyed_does_not_hold_it_up() -> None:
    """The peer looks for the newest record first, and the copy goes on meanwhile."""
    world, user = await begin("a", "b")
    erasing = erasures(world, "b")
    look = erasing.look

    async def take_time(pubky: str) -> None:
        await deferLater(world.clock, 2.0)
        await look(pubky)

    erasing.look = take_time
    giving = Deferred.fromCoroutine(orders(world, "a").erase(user.pubky))
    for number in range(4):
        world.pass_time(0.5)
        await world.put(user, f"/pub/meanwhile{number}", b"x")
    world.pass_time(2)
    assert receipts(world, "a") == [True]
    assert await is_hidden(world, "b", user)
    await giving
    await end(world)


@pytest_twisted.ensureDeferred
async def test_who_is_offered_nothing_any_more_is_ordered_too() -> None:
    """The operator takes an offer back and then has the copies erased: the one that was made before goes as well."""
    world, user = await begin("a", "b")
    one = orders(world, "a")
    one.peers = {key: evolve(peer, offer=NONE) for key, peer in one.peers.items()}
    assert len(wait(world, one.erase(user.pubky))) == 1
    world.pass_time(10)
    assert receipts(world, "a") == [True]
    assert await is_hidden(world, "b", user)
    await end(world)


@pytest_twisted.ensureDeferred
async def test_the_users_record_lifts_it() -> None:
    """A primary that turned hostile erases all copies: the record that names one of them brings all back."""
    world, user = await begin("a", "b")
    wait(world, orders(world, "a").erase(user.pubky))
    world.pass_time(10)
    assert await is_hidden(world, "b", user)
    await world.kill("a")
    await world.point(user, "b")
    world.pass_time(1500)
    assert await lives_at(world.nodes["b"], user)
    await check_writes(world, user, private=False)
    world.pass_time(GRACE)
    await check_writes(world, user, private=False)
    assert await world.nodes["b"].store.erasures.doomed(9) == []
    await end(world)


async def moved() -> tuple[World, User]:
    """Somebody who moved from the first homeserver to the second, which orders that all be erased at the first."""
    world, user = await begin("a", "b")
    await world.nodes["a"].store.grants.forbid(user.pubky, "one")  # the log has what is no file, too
    await claim(world, user, "b")
    user.been.add("b")
    await world.point(user, "b")
    world.pass_time(100)
    assert await lives_at(world.nodes["b"], user)
    assert not await is_hidden(world, "a", user)
    wait(world, orders(world, "b").erase(user.pubky))
    world.pass_time(10)
    assert receipts(world, "b") == [True]
    assert await is_hidden(world, "a", user)
    return world, user


@pytest_twisted.ensureDeferred
async def test_a_former_home_erases_too() -> None:
    """Where the account lived nothing is left after the grace; who comes back later begins anew."""
    world, user = await moved()
    world.pass_time(2 * GRACE + 100)  # what was replaced while they lived there is kept for an hour
    home = world.nodes["a"]
    assert await home.store.account(user.pubky) is None
    assert await home.store.packets.packet(user.pubky) is None
    assert (await home.store.totals()).users == 0
    assert await home.store.erasures.doomed(9) == []
    assert await bodies(world, "a") == 0
    assert home.peering is not None
    assert [one for one in home.peering.chronicle.moves if one.pubky == user.pubky] == []
    await world.kill("b")
    await claim(world, user, "a")
    await world.point(user, "a")
    world.pass_time(100)
    assert await lives_at(home, user)
    assert await world.put(user, "/pub/anew", b"x")
    assert await home.store.entry(user.pubky, "/pub/0") is None
    await end(world)


@pytest_twisted.ensureDeferred
async def test_a_record_in_time_opens_the_former_home() -> None:
    """Who comes back within the grace finds everything, without signing up: they lived here."""
    world, user = await moved()
    await world.kill("b")
    await world.point(user, "a")
    home = world.nodes["a"]
    assert home.peering is not None
    assert home.peering.watch is not None
    home.peering.watch.look_soon(user.pubky)  # as when somebody writes
    world.pass_time(100)
    assert await lives_at(home, user)
    await check_writes(world, user)
    world.pass_time(GRACE + 100)
    await check_writes(world, user)
    assert await home.store.erasures.doomed(9) == []
    assert await home.store.account(user.pubky) is not None
    await end(world)


@pytest_twisted.ensureDeferred
async def test_nothing_is_wiped_as_long_as_nobody_can_be_asked() -> None:
    """Without the network a record that names us may be out there: the copy stays hidden until it can be looked for."""
    world, user = await begin("a", "b")
    wait(world, orders(world, "a").erase(user.pubky))
    world.pass_time(10)
    erasing, away = erasures(world, "b"), Away()
    network, erasing.network = erasing.network, away
    await world.kill("a")
    await world.point(user, "b")
    world.pass_time(GRACE + 300)
    assert away.asked < GRACE / 600 + 300 / 60 + 3
    assert await is_hidden(world, "b", user)
    assert [one.is_hidden for one in await world.nodes["b"].store.erasures.doomed(9)] == [True]
    erasing.network = network
    world.pass_time(200)
    assert await lives_at(world.nodes["b"], user)
    await check_writes(world, user, private=False)
    await end(world)


@implementer(INetwork)
@define
class Away:
    """A network that answers nothing."""

    asked: int = 0

    async def publish(self, packet: SignedPacket, replaces: int | None = None) -> int:
        """See `INetwork`."""
        raise Unavailable("nobody is there")

    async def resolve(self, key: PublicKey, policy: Policy = Policy.CACHE_FIRST) -> SignedPacket | None:
        """See `INetwork`."""
        self.asked += 1
        raise Unavailable("nobody is there")


@pytest.mark.parametrize("is_signed", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_sign_up_finds_the_hidden_copy(is_signed: bool) -> None:
    """What clients do to move works with a hidden copy too; without a record it is hidden again, and wiped in time."""
    world, user = await begin("a", "b")
    wait(world, orders(world, "a").erase(user.pubky))
    world.pass_time(10)
    await world.kill("a")
    await claim(world, user, "b")
    assert not await is_hidden(world, "b", user)
    user.been.add("b")
    if is_signed:
        await world.point(user, "b")
        world.pass_time(200)
        assert await lives_at(world.nodes["b"], user)
        await check_writes(world, user, private=False)
    else:
        world.pass_time(1000)
        assert await is_hidden(world, "b", user)
    world.pass_time(GRACE)
    assert await world.nodes["b"].store.erasures.doomed(9) == []
    assert await is_hidden(world, "b", user) is not is_signed
    await end(world)


@pytest_twisted.ensureDeferred
async def test_a_crash_forgets_no_erasure() -> None:
    """A peer that dies after the receipt wipes when its time has come; one that dies while it wipes goes on."""
    world, user = await begin("a", "b")
    wait(world, orders(world, "a").erase(user.pubky))
    world.pass_time(10)
    await world.kill("b")
    await world.nodes["b"].store.erasures.wipe(user.pubky, 1)
    world.pass_time(GRACE)
    assert await world.nodes["b"].store.erasures.doomed(9) != []
    await world.start("b")
    world.pass_time(100)
    assert await world.nodes["b"].store.erasures.doomed(9) == []
    assert await is_hidden(world, "b", user)
    assert await bodies(world, "b") == 0
    await end(world)


def test_names_tell_nothing_without_the_key() -> None:
    """The same key always gives the same name, and another homeserver's another one."""
    names = [naming(Keypair(bytes([one]) * 32)) for one in (1, 1, 2)]
    first, again, other = (name("somebody") for name in names)
    assert first == again != other
    assert naming(Keypair(b"\x01" * 32))("somebody else") != first
    assert len(first) == 64


@pytest_twisted.ensureDeferred
async def test_what_an_order_looks_like() -> None:
    """Orders are features, signed with their bodies, and bounded; what is no receipt is none."""
    told: list[tuple[str, str, str, int]] = []
    answers = [Obeyed.HIDDEN, Obeyed.ELSEWHERE, Obeyed.CLAIMED, Obeyed.NOTHING]

    async def obey(*order: object) -> Obeyed:
        told.append(order)  # type: ignore[arg-type]  # the site sends no other
        return answers[len(told) - 1]

    async with peering() as pair:
        pair.site.obey = obey
        pubky, client = pair.owner.pubky, pair.client
        assert ERASE in (await client.greet()).features
        assert await client.erase(pubky, "ab" * 16, 7) is Obeyed.HIDDEN
        for status in ("403", "409"):
            with pytest.raises(PeerRefused, match=status):
                await client.erase(pubky, "ab" * 16, 7)
        assert await client.erase(pubky, "ab" * 16, 7) is Obeyed.NOTHING
        assert told == [(FOLLOWER.public_key.z32, pubky, "ab" * 16, 7)] * 4
        with pytest.raises(PeerBroken, match="400"):
            await client.erase(pubky, "no log id", 7)
        target = f"/peer/v1/accounts/{pubky}/erase"
        assert (await pair.ask(target)).status == 405
        assert (await pair.ask(target, "POST")).status == 400
        assert (await pair.ask(target, "POST", keypair=None)).status == 403
    assert len(told) == 4
