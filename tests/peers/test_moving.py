"""Accounts that move between homeservers: nothing is lost, no two take writes, no crash leaves an account nowhere.

A move is what users of today do: they sign up at the new homeserver, and publish a record that names it.
"""

from collections.abc import Coroutine
from inspect import iscoroutinefunction
from random import Random
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from pkarr.builder import Builder
from pkarr.keys import Keypair
from pubky_homeserver.accounts import Accounts
from pubky_homeserver.core.errors import InvalidRequest, NotHereYet, NotPrimary, Refused, StoreAway, UserExists
from pubky_homeserver.core.peers import Claim
from pubky_homeserver.core.records import Operation
from pubky_homeserver.peers.moving import VOID
from tests.peers.fuses import Fuse, Fused
from tests.peers.judge import check_copy, files
from tests.peers.worlds import Node, User, World, mutual, run

REST = 700.0
"""Seconds after which everybody has tried again."""

SEEDS, CHUNKS = 40, 4


async def claim(world: World, user: User, name: str, is_root: bool = True, token: str | None = None) -> None:
    """Somebody signs up where a copy may be. Raises what that raises."""
    node = world.nodes[name]
    assert node.peering is not None
    claims = node.peering.claims
    rule = await claims.rule(user.pubky, is_root)
    if rule not in (None, Claim.DENY):
        await claims.show(user.pubky)
    accounts = Accounts(node.store, world.clock, False)
    await accounts.sign_up(user.pubky, user.session, token, rule)
    await claims.begin(user.pubky)


def wait(world: World, work: Coroutine[Deferred[Any], Any, Any], seconds: float = 60) -> Any:
    """Let time pass until something has ended; its result."""
    results: list[Any] = []
    failures: list[BaseException] = []
    running = Deferred.fromCoroutine(work)
    running.addCallbacks(results.append, lambda failure: failures.append(failure.value))
    for _ in range(int(seconds * 4)):
        if results or failures:
            break
        world.pass_time(0.25)
    if failures:
        raise failures[0]
    return results[0]


async def lives_at(node: Node, user: User) -> bool:
    """Whether an account is open somewhere."""
    has_account = await node.store.account(user.pubky) is not None
    return has_account and await node.store.copies.copy(user.pubky) is None


async def check_writes(world: World, user: User, private: bool = True) -> None:
    """I6, I9: what was acknowledged is what the account's homeserver has, the newest write of each path."""
    wanted: dict[str, bytes] = {}
    for write in world.acknowledged:
        if write.pubky != user.pubky or (write.path.startswith("/priv/") and not private):
            continue
        if write.operation is Operation.PUT:
            assert write.body is not None
            wanted[write.path] = write.body
        else:
            wanted.pop(write.path, None)
    node = world.nodes[user.home]
    found = {
        path: file.body
        for folder in ("/pub/", "/priv/")
        for path, file in (await files(node, user.pubky, folder)).items()
    }
    if not private:
        found = {path: body for path, body in found.items() if not path.startswith("/priv/")}
    assert found == wanted


async def begin(*names: str, seed: int = 1, split: frozenset[str] = frozenset(), **settings: Any) -> tuple[World, User]:
    """Homeservers that mirror each other, and a user of the first one, with files."""
    world = World(Random(seed), mutual(*names, **settings), split)
    user = User(Keypair(b"\x01" * 32))
    await world.sign_up(user, names[0])
    for name in names:
        await world.start(name)
    for _ in range(20):
        await world.act(user)
        world.pass_time(0.25)
    world.pass_time(5)
    return world, user


async def end(world: World) -> None:
    """All processes stop, and leave nothing behind."""
    assert not world.wires.faults
    for name in world.nodes:
        await world.kill(name)
    world.pass_time(1)
    assert not world.clock.getDelayedCalls()


@pytest_twisted.ensureDeferred
async def test_a_move() -> None:
    """Sign-up and record are all it takes: all files, private ones too, are at the new homeserver then."""
    world, user = await begin("a", "b", "c")
    await claim(world, user, "b")
    assert not await lives_at(world.nodes["b"], user), "the record rules"
    assert await world.put(user, "/pub/late", b"while it is claimed")
    await world.point(user, "b")
    world.pass_time(10)
    assert await lives_at(world.nodes["b"], user)
    assert not await lives_at(world.nodes["a"], user)
    await check_writes(world, user)
    assert await world.put(user, "/pub/late", b"there")
    assert await world.delete(user, "/pub/late")
    world.pass_time(5)
    await check_writes(world, user)
    await check_copy(world.nodes["b"], world.nodes["c"], user.pubky)
    await end(world)


@pytest_twisted.ensureDeferred
async def test_a_deposed_primary_stays_deposed() -> None:
    """I12: what the old homeserver tells in the moment in which a newer record is learned does not make it primary."""
    world, user = await begin("a", "b")
    node, stranger = world.nodes["b"], Keypair(b"\x77" * 32).public_key.z32
    assert node.peering is not None
    mirror = node.peering.neighbours[world.nodes["a"].key].mirror
    assert mirror is not None
    packet = Builder().https("_pubky", 0, stranger).sign(user.keypair, world.microseconds + 5)
    await node.peering.packets.learn(packet)
    mirror.hint(user.pubky, False)
    await world.network.publish(packet)
    world.pass_time(600)
    copy = await node.store.copies.copy(user.pubky)
    assert copy is not None
    assert copy.primary == stranger
    await end(world)


@pytest_twisted.ensureDeferred
async def test_no_write_after_the_fence() -> None:
    """I8: from the moment in which the old homeserver knows it takes no write, and its sessions count for nothing."""
    world, user = await begin("a", "b", private=True)
    old = world.nodes["a"]
    await old.store.sign_in(user.session)
    await claim(world, user, "b")
    await world.point(user, "b")
    world.pass_time(10)
    for work in (world.put(user, "/pub/x", b"x", "a"), world.delete(user, "/pub/x", "a")):
        assert not await work
    with pytest.raises(NotPrimary):
        await old.store.sign_in(user.session)
    assert await old.store.session(user.session.id) is None
    world.pass_time(REST)
    await check_copy(world.nodes["b"], old, user.pubky, private=True)
    await end(world)


@pytest_twisted.ensureDeferred
async def test_a_writer_is_looked_up() -> None:
    """Who writes is looked up: a homeserver that no peer tells anything shuts the account soon after the move."""
    world, user = await begin("a", "b")
    world.wires.cut_off("a", "b")
    await claim(world, user, "b")
    await world.point(user, "b")
    assert await world.put(user, "/pub/too-late", b"x", "a")
    world.pass_time(15)
    assert not await world.put(user, "/pub/too-late", b"y", "a")
    await end(world)


@pytest_twisted.ensureDeferred
async def test_there_and_back() -> None:
    """A newer record that names the first homeserver again rules as well, and both tell the operator."""
    world, user = await begin("a", "b")
    await claim(world, user, "b")
    for name in ("b", "a", "b", "a"):
        await world.point(user, name)
        world.pass_time(20)
        assert await lives_at(world.nodes[name], user), name
        assert await world.put(user, f"/pub/at-{name}", name.encode())
        assert await world.put(user, f"/priv/at-{name}", name.encode())
    world.pass_time(5)
    await check_writes(world, user)
    for node in world.nodes.values():
        assert node.peering is not None
        assert node.peering.moving is not None
        assert any(move.is_back for move in node.peering.chronicle.moves), node.name
        await world.kill(node.name)
        await world.start(node.name)
        world.pass_time(1)
        told: Any = node.peering.overview.status()["moves"]
        assert len(told) == 4, "it is known after a restart"
    await end(world)


@pytest.mark.parametrize("becomes", ["removed", "paused"])
@pytest_twisted.ensureDeferred
async def test_back_from_a_peer_that_is_no_more(becomes: str) -> None:
    """Who left for a peer that was removed, or is left alone, comes back by a record; who leaves then is fenced."""
    world, user = await begin("a", "b")
    await claim(world, user, "b")
    await world.point(user, "b")
    world.pass_time(20)
    assert await lives_at(world.nodes["b"], user)
    await world.kill("a")
    world.trust["a"] = {} if becomes == "removed" else {"b": {**world.trust["a"]["b"], "paused": True}}
    await world.start("a")
    world.pass_time(60)
    home = world.nodes["a"]
    assert not await world.put(user, "/pub/at-a", b"x", "a")
    await world.point(user, "a")
    assert home.peering is not None
    assert home.peering.watch is not None
    home.peering.watch.look_soon(user.pubky)
    world.pass_time(20)
    assert await lives_at(home, user)
    assert await world.put(user, "/pub/at-a", b"x", "a")
    for owner in (user, other := User(Keypair(b"\x08" * 32))):
        if owner is other:
            await world.sign_up(other, "a")
        await world.point(owner, "b")
        assert await world.put(owner, "/pub/later", b"x", "a")  # it is seen by that
        world.pass_time(20)
        assert not await world.put(owner, "/pub/too-late", b"x", "a")
    assert home.peering.overview.status()["peers"] == [] or becomes == "paused"
    await end(world)


@pytest_twisted.ensureDeferred
async def test_two_claims() -> None:
    """Of two claims the user's record makes one real; the other is void after ten minutes, and can be made again."""
    world, user = await begin("a", "b", "c")
    await claim(world, user, "b")
    await claim(world, user, "c")
    with pytest.raises(UserExists):
        await claim(world, user, "c")
    await world.point(user, "c")
    world.pass_time(10)
    assert await lives_at(world.nodes["c"], user)
    world.pass_time(VOID)
    assert not await lives_at(world.nodes["b"], user)
    assert await world.nodes["b"].store.account(user.pubky) is None
    await world.put(user, "/pub/new", b"new")
    world.pass_time(5)
    await check_copy(world.nodes["c"], world.nodes["b"], user.pubky)
    await claim(world, user, "b")
    await end(world)


@pytest_twisted.ensureDeferred
async def test_a_claim_that_no_record_follows() -> None:
    """Without record nothing moves: the old homeserver goes on, the copy follows, and the claim's session ends."""
    world, user = await begin("a", "b")
    await claim(world, user, "b")
    store = world.nodes["b"].store
    assert await store.session(user.session.id) is not None
    world.pass_time(VOID / 2)
    assert await world.put(user, "/pub/still", b"here")
    assert not await world.put(user, "/pub/still", b"there", "b")
    world.pass_time(VOID / 2 + 10)
    assert await store.session(user.session.id) is None
    assert await store.account(user.pubky) is None
    await check_copy(world.nodes["a"], world.nodes["b"], user.pubky)
    await end(world)


@pytest_twisted.ensureDeferred
async def test_who_may_claim() -> None:
    """The operator says who may come; a session for less than everything never makes a claim."""
    for setting, token, works in ((Claim.ALLOW, None, True), (Claim.DENY, None, False), (Claim.TOKEN, None, False)):
        world, user = await begin("a", "b", claim=setting)
        with pytest.raises(UserExists):
            await claim(world, user, "b", is_root=False)
        if works:
            await claim(world, user, "b", token=token)
        else:
            with pytest.raises(Refused):
                await claim(world, user, "b", token=token)
        await end(world)


@pytest_twisted.ensureDeferred
async def test_a_record_is_enough_where_anybody_may_come() -> None:
    """With claim = "allow" a copy opens for a record alone; else its user must have signed up, now or earlier."""
    for setting in (Claim.ALLOW, Claim.TOKEN):
        world, user = await begin("a", "b", claim=setting)
        await world.point(user, "b")
        node = world.nodes["b"]
        assert node.peering is not None
        await node.peering.claims.look(user.pubky)
        world.pass_time(10)
        assert await lives_at(node, user) is (setting is Claim.ALLOW)
        await end(world)


@pytest_twisted.ensureDeferred
async def test_the_old_homeserver_is_gone() -> None:
    """If nobody answers the account opens with what is here."""
    world, user = await begin("a", "b")
    await world.kill("a")
    await claim(world, user, "b")
    await world.point(user, "b")
    world.pass_time(20)
    assert await lives_at(world.nodes["b"], user)
    await check_writes(world, user, private=False)
    await end(world)


@pytest_twisted.ensureDeferred
async def test_a_tail_that_was_not_copied_yet() -> None:
    """I6: what the old homeserver wrote while it was not reached is fetched from it before the account opens."""
    world, user = await begin("a", "b", private=True)
    world.wires.cut_off("a", "b")
    for number in range(30):
        assert await world.put(user, f"/pub/tail{number}", b"x" * 100)
        assert await world.put(user, f"/priv/tail{number}", b"y" * 100)
    world.pass_time(200)
    await claim(world, user, "b")
    world.wires.calm()
    await world.point(user, "b")
    world.pass_time(30)
    assert await lives_at(world.nodes["b"], user)
    await check_writes(world, user)
    await end(world)


@pytest_twisted.ensureDeferred
async def test_nobody_is_compared_with_who_is_about_to_open() -> None:
    """I6: the old homeserver does not take the new one's copy, to which its tail is on the way, for its primary's."""
    world, user = await begin("a", "b", "c", private=True)
    world.wires.cut_off("a", "b")
    for number in range(30):
        assert await world.put(user, f"/pub/tail{number}", b"x" * 100)
        assert await world.put(user, f"/priv/tail{number}", b"y" * 100)
    await claim(world, user, "b")
    world.wires.calm()
    world.wires.cut_off("b", "c")  # who opens waits for what all peers say, some seconds
    await world.point(user, "b")
    world.pass_time(30)
    assert await lives_at(world.nodes["b"], user)
    await check_writes(world, user)
    for node in world.nodes.values():
        assert node.peering is not None
        assert await node.store.shelf.shelf(user.pubky, "", 10) == [], node.name
        assert node.peering.chronicle.forks() == [], node.name
    world.wires.calm()
    await end(world)


@pytest_twisted.ensureDeferred
async def test_waiting_for_the_record() -> None:
    """A write to a claimed account waits for its record, and goes through when that comes."""
    world, user = await begin("a", "b")
    await claim(world, user, "b")
    node = world.nodes["b"]
    assert node.peering is not None
    claims = node.peering.claims
    with pytest.raises(Refused, match="about to move"):
        wait(world, claims.settle(user.pubky))
    await world.point(user, "b")
    wait(world, claims.settle(user.pubky), 6)
    assert await world.put(user, "/pub/x", b"x")
    other = world.nodes["a"].peering
    assert other is not None
    with pytest.raises(NotPrimary):
        wait(world, other.claims.settle(user.pubky))
    await end(world)


@pytest_twisted.ensureDeferred
async def test_the_operator_opens() -> None:
    """What the record does not say nobody can do; what says it, and waits, the operator may hurry."""
    world, user = await begin("a", "b", claim=Claim.DENY)
    node = world.nodes["b"]
    assert node.peering is not None
    moving = node.peering.moving
    assert moving is not None
    (told,) = await moving.check(user.pubky)
    assert (told["ready"], told["names"], told["admitted"]) == (False, world.nodes["a"].key, False)
    with pytest.raises(InvalidRequest):
        wait(world, moving.open(user.pubky))
    await world.point(user, "b")
    assert wait(world, moving.open(user.pubky))
    assert await lives_at(node, user)
    assert await moving.check(None) == []
    with pytest.raises(InvalidRequest):
        wait(world, moving.open(user.pubky))
    await end(world)


@pytest_twisted.ensureDeferred
async def test_a_list_that_will_never_be_whole() -> None:
    """An account of which not even the list is here opens when that is whole, or when the operator says so."""
    world = World(Random(1), mutual("a", "b"))
    user = User(Keypair(b"\x01" * 32))
    await world.sign_up(user, "a")
    await world.put(user, "/pub/one", b"one")
    here, there = world.nodes["b"].store, world.nodes["a"].store
    listed = await there.logs.listed(user.pubky, False, "", 10)
    assert listed is not None
    await here.copies.begin(user.pubky, world.nodes["a"].key, world.microseconds)
    await here.copies.begin_list(user.pubky, False, listed.standing)
    await here.copies.keep_listed(user.pubky, False, listed.entries, "/pub/one")
    await world.start("b")
    peering = world.nodes["b"].peering
    assert peering is not None
    assert peering.moving is not None
    await claim(world, user, "b")
    await world.point(user, "b")
    world.pass_time(200)
    assert not await lives_at(world.nodes["b"], user)
    with pytest.raises(NotHereYet):
        wait(world, peering.moving.open(user.pubky), 100)
    assert wait(world, peering.moving.open(user.pubky, incomplete=True), 100)
    assert await lives_at(world.nodes["b"], user)
    assert await world.put(user, "/pub/two", b"two")
    await end(world)


@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
def test_a_crash_at_any_step(is_done: bool) -> None:
    """I24: whichever step of the store is the last one of a process, the next one opens the account, with all files."""
    for step in range(1, 400):
        reached: list[bool] = []
        failure = run(_crash(step, is_done, reached))
        assert failure is None, f"step {step}: {failure!r}"
        if not reached[0]:
            assert step > 30, "a move has more steps than that"
            return
    raise AssertionError("it does not end")


async def _crash(step: int, is_done: bool, reached: list[bool]) -> None:
    world, user = await begin("a", "b", seed=2, private=True)
    await world.kill("b")
    store, fuse = world.nodes["b"].store, Fuse(step - 1, is_done)
    whole = store.copies, store.moves, store.packets
    stores: Any = store
    stores.copies, stores.moves, stores.packets = (Fused(one, fuse) for one in whole)
    starting = Deferred.fromCoroutine(world.start("b"))
    claiming: Deferred[None] = Deferred()
    if starting.called:
        claiming = Deferred.fromCoroutine(claim(world, user, "b"))
    await world.put(user, "/pub/late", b"late", "a")
    await world.point(user, "b")
    world.pass_time(20)
    reached.append(fuse.is_blown)
    fuse.is_over = True
    claiming.addErrback(lambda _failure: None).cancel()
    starting.addErrback(lambda _failure: None).cancel()
    await world.kill("b")
    store.copies, store.moves, store.packets = whole
    await world.start("b")
    peering = world.nodes["b"].peering
    assert peering is not None
    peering.claims.look_soon(user.pubky)
    world.pass_time(100)
    assert await lives_at(world.nodes["b"], user)
    assert not await lives_at(world.nodes["a"], user)
    assert await store.moves.announcing("", 10) == []
    await check_writes(world, user)
    await check_copy(world.nodes["b"], world.nodes["a"], user.pubky, private=True)
    await end(world)


class Away:
    """A store that does not answer until some time (seconds)."""

    def __init__(self, store: Any, clock: Clock, until: float) -> None:
        self._store, self._clock, self._until = store, clock, until

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if not iscoroutinefunction(method):
            return method

        async def ask(*arguments: Any, **more: Any) -> Any:
            if self._clock.seconds() < self._until:
                raise StoreAway
            return await method(*arguments, **more)

        return ask


@pytest.mark.parametrize("is_open", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_store_that_is_away_at_the_start(is_open: bool) -> None:
    """What the last process left is gone on with when the store is back: accounts open, and the feed tells of them."""
    world, user = await begin("a", "b", private=True)
    await world.kill("a")
    await world.kill("b")
    stores: Any = world.nodes["b"].store
    await world.point(user, "b")
    payload = world.network.packets[user.keypair.public_key.raw].relay_payload
    await stores.packets.keep_packet(user.pubky, payload)
    if is_open:
        assert await stores.moves.open(user.pubky, payload, world.microseconds)
    whole = stores.moves, stores.packets
    stores.moves, stores.packets = (Away(one, world.clock, world.clock.seconds() + 30) for one in whole)
    await world.start("b")
    world.pass_time(29)
    assert await lives_at(world.nodes["b"], user) is is_open
    assert await whole[0].announcing("", 10) == ([user.pubky] if is_open else [])
    world.pass_time(80)
    assert await lives_at(world.nodes["b"], user)
    assert await whole[0].announcing("", 10) == []
    await end(world)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_histories(chunk: int) -> None:
    """Moves in any weather, and crashes at any time: at rest the account is open where its record says, and whole."""
    for seed in range(chunk * SEEDS // CHUNKS, (chunk + 1) * SEEDS // CHUNKS):
        failure = run(_history(seed))
        assert failure is None, f"seed {seed}: {failure!r}"


async def _history(seed: int) -> None:
    world, user = await begin("a", "b", "c", seed=seed, private=True)
    random, weather = world.random, world.wires.weather
    for _ in range(random.randrange(1, 4)):
        world.wires.calm()
        for _ in range(random.randrange(10)):
            await world.act(user)
        world.pass_time(REST)
        weather.unanswered, weather.doubled = random.choice([0, 0, 0.2]), random.choice([0, 0, 0.2])
        weather.late, weather.cut = random.choice([0.0, 0.0, 1.0]), random.choice([0, 0, 0.2])
        new = random.choice(sorted({*world.nodes} - {user.home}))
        if random.random() < 0.7:
            await claim(world, user, new)
        await world.point(user, new)
        node = world.nodes[new].peering
        assert node is not None
        node.claims.look_soon(user.pubky)
        for _ in range(random.randrange(4)):
            world.pass_time(random.choice([0.25, 0.25, 0.5, 1, 3]))
            if random.random() < 0.5:
                name = random.choice(sorted(world.nodes))
                await world.kill(name)
                await world.start(name)
            await world.act(user)
        world.wires.calm()
        world.pass_time(REST)
        for name, one in world.nodes.items():
            assert await lives_at(one, user) is (name == new), name
    for name in sorted({*world.nodes} - {user.home}):
        await check_copy(world.nodes[user.home], world.nodes[name], user.pubky, private=True)
    await check_writes(world, user)
    await end(world)
