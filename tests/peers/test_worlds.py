"""Homeservers that mirror each other, in fair weather and in foul: seeded histories, judged at rest."""

from random import Random
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from pkarr.keys import Keypair
from pubky_homeserver.core.peers import ALL
from pubky_homeserver.core.quotas import ENTRY_OVERHEAD
from pubky_homeserver.core.records import Entry
from pubky_homeserver.core.shelf import Reason, Shelved
from pubky_homeserver.peers.changes import BEAT
from pubky_homeserver.peers.following import AT_ONCE, Follower
from pubky_homeserver.peers.mirror import RARELY
from tests.peers.judge import check_copy, check_nothing_lost, check_prefix, entries
from tests.peers.worlds import Node, User, World, mutual, run

REST = 700.0
"""Seconds after which everybody has tried again: twice the longest pause, and some."""

SEEDS, MOVES, SPLIT, CHUNKS = 100, 120, 20, 5


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_following(chunk: int) -> None:
    """Three nodes in a ring, users at each: at rest every copy is its primary, and nobody asks anything any more."""
    for seed in range(chunk * SEEDS // CHUNKS, (chunk + 1) * SEEDS // CHUNKS):
        failure = run(_following(seed))
        assert failure is None, f"seed {seed}: {failure!r}"


async def _following(seed: int, split: frozenset[str] = frozenset()) -> None:
    random = Random(seed)
    world = World(random, mutual("a", "b", "c"), split)
    weather = world.wires.weather
    weather.refused, weather.unanswered = random.choice([0, 0, 0.2]), random.choice([0, 0, 0.1])
    weather.cut, weather.doubled = random.choice([0, 0, 0.2]), random.choice([0, 0, 0.2])
    weather.late = random.choice([0.0, 0.0, 1.0])
    names = [*world.nodes]
    users = [User(Keypair(bytes([1 + number]) * 32)) for number in range(random.randrange(1, 4))]
    for user in users:
        await world.sign_up(user, random.choice(names))
    for name in names:
        await world.start(name)
    for _ in range(random.randrange(10, 40)):
        await world.act(random.choice(users))
        if random.random() < 0.5:
            world.pass_time(random.choice([0.25, 1, 10]))
        if random.random() < 0.1:
            name = random.choice(names)
            await world.kill(name)
            await world.start(name)
        for user in users:
            for name in sorted({*names} - {user.home}):
                await check_prefix(world.nodes[user.home], world.nodes[name], user.pubky)
    world.wires.calm()
    world.pass_time(REST)
    for user in users:
        for name in sorted({*names} - {user.home}):
            await check_copy(world.nodes[user.home], world.nodes[name], user.pubky)
    await check_webs(world)
    asked = len(world.wires.asked)
    world.pass_time(60)
    assert world.wires.asked[asked:] == []
    assert not world.wires.faults
    for name in names:
        await world.kill(name)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_moving(chunk: int) -> None:
    """Users move between nodes in any weather: at rest one is primary, all others are its copies, nothing is lost."""
    for seed in range(chunk * MOVES // CHUNKS, (chunk + 1) * MOVES // CHUNKS):
        failure = run(_moving(seed))
        assert failure is None, f"seed {seed}: {failure!r}"


async def _moving(seed: int, split: frozenset[str] = frozenset()) -> None:
    random = Random(seed)
    world = World(random, mutual("a", "b", "c"), split)
    weather, names = world.wires.weather, [*world.nodes]
    weather.refused, weather.unanswered = random.choice([0, 0, 0.1]), random.choice([0, 0, 0.1])
    weather.cut, weather.doubled = random.choice([0, 0, 0.1]), random.choice([0, 0, 0.1])
    weather.late = random.choice([0.0, 0.0, 0.5])
    user = User(Keypair(bytes([1]) * 32))
    await world.sign_up(user, "a")
    for name in names:
        await world.start(name)
    for _ in range(random.randrange(8)):
        await world.act(user)
    world.pass_time(random.choice([1, 30, 600]))
    for _ in range(random.randrange(10, 30)):
        await _happen(world, user)
    world.network.is_away = False
    world.wires.calm()
    for name in names:
        if world.nodes[name].peering is None:
            await world.start(name)
    world.pass_time(60)
    home = world.nodes[user.home]
    if await home.store.copies.copy(user.pubky) is not None:  # the claim was void before anybody found the record
        await world.claim(user, user.home)
        await world.point(user, user.home)
    world.pass_time(3 * REST)
    copy = await home.store.copies.copy(user.pubky)
    if copy is not None:  # nobody ever had the whole list but who lost it: then the operator says so
        assert not copy.public.is_whole, f"{home.name} is not open"
        assert home.peering is not None
        assert home.peering.moving is not None
        opening = Deferred.fromCoroutine(home.peering.moving.open(user.pubky, incomplete=True))
        world.pass_time(RARELY + REST)
        assert await opening
    for name in names:
        if name != user.home:
            await check_copy(home, world.nodes[name], user.pubky, was_home=name in user.been)
    await check_nothing_lost([*world.nodes.values()], home, world.acknowledged)
    await check_webs(world)
    assert not world.wires.faults
    for name in names:
        await world.kill(name)


async def _happen(world: World, user: User) -> None:
    """Something happens: mostly a write, at home or where it was; now and then a move, a crash, or bad luck."""
    random, names = world.random, [*world.nodes]
    chance = random.random()
    if chance < 0.5:
        await world.act(user)
    elif chance < 0.6:
        await world.act(user, random.choice(names))
    elif chance < 0.75:
        name = random.choice(names)
        if name == user.home or await world.claim(user, name):
            if random.random() < 0.5:
                world.pass_time(random.choice([1, 10, 60]))
            await world.point(user, name)
    elif chance < 0.8:
        name = random.choice(names)
        if world.nodes[name].peering is None:
            await world.start(name)
        elif name in world.split and random.random() < 0.7:
            await (world.restart_web(name) if random.random() < 0.5 else world.kill_background(name))
        else:
            await world.kill(name)
    elif chance < 0.85:
        world.network.is_away = not world.network.is_away
    elif chance < 0.9:
        one, other = random.sample(names, 2)
        world.wires.cut_off(one, other)
    elif chance < 0.95:
        world.wires.broken.clear()
    world.pass_time(random.choice([0.25, 1, 10, 300]))


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_several_processes(chunk: int) -> None:
    """The same where homeservers are three processes each, which come and go; at rest all know what one does."""
    for seed in range(1000 + chunk * SPLIT // CHUNKS, 1000 + (chunk + 1) * SPLIT // CHUNKS):
        split = frozenset(Random(seed).choice([("a",), ("a", "b"), ("a", "b", "c")]))
        for history in (_following, _moving):
            failure = run(history(seed, split))
            assert failure is None, f"{history.__name__}, seed {seed}: {failure!r}"


async def check_webs(world: World) -> None:
    """What the web processes of homeservers know is what their store and their process in the background know."""
    for name in sorted(world.split):
        for _ in range(5):
            world.pass_time(1)  # what has just come is told a moment later
            differences = await _differences(world.nodes[name])
            if not differences:
                break
        assert not differences, "\n".join(differences)


async def _differences(node: Node) -> list[str]:
    assert node.peering is not None
    known, found = node.peering.copies, list[str]()
    stored = await node.store.copies.copies("", 500)
    for copies in (known, *(web.copies for web in node.webs)):
        if sorted(copies.all(), key=lambda copy: copy.pubky) != stored:
            found.append("a copy is not as it is in the store")
        for copy in stored:
            told = [(one.is_behind(copy.pubky), one.state(copy), one.confirmed(copy)) for one in (copies, known)]
            if told[0][:2] != told[1][:2] or abs(told[0][2] - told[1][2]) > BEAT + 1:
                found.append(f"{told[0]} is told of {copy.pubky}, and {told[1]} is known")
    return found


@pytest.mark.parametrize("most", [0, 5000, 20_000, 1 << 20])
def test_a_budget(most: int) -> None:
    """Copies take no more than they may, but for bodies on their way; the others come when there is room (I15)."""
    failure = run(_budget(most))
    assert failure is None, repr(failure)


async def _budget(most: int) -> None:
    world = World(Random(1), {"a": {"b": {"follow": ALL, "max_bytes": most}}, "b": {"a": {"offer": ALL}}})
    user = User(Keypair(bytes([1]) * 32))
    await world.sign_up(user, "b")
    for number in range(20):
        await world.put(user, f"/pub/{number}", bytes([number]) * 3000)
    for name in ("a", "b"):
        await world.start(name)
    world.pass_time(REST)
    copy = await world.nodes["a"].store.copies.copy(user.pubky)
    assert copy is not None
    files = await entries(world.nodes["a"], user.pubky, "/pub/")
    here = [entry for entry in files if entry.blob is not None]
    assert copy.used == sum(entry.length + ENTRY_OVERHEAD for entry in files)
    assert copy.missing == len(files) - len(here)
    assert copy.absent == 3000 * copy.missing
    assert copy.public.is_whole is (most >= 20 * ENTRY_OVERHEAD)
    room = max(0, most - 20 * ENTRY_OVERHEAD) // 3000
    assert min(room, 20) <= len(here) <= min(room + AT_ONCE, 20) * copy.public.is_whole
    for name in ("a", "b"):
        await world.kill(name)


@pytest_twisted.ensureDeferred
async def test_a_log_takes_room_too() -> None:
    """Files without bodies, and events, are not followed without end; what waits on the shelf takes room as well."""
    world = World(Random(1), {"a": {"b": {"follow": ALL, "max_bytes": 10_000}}, "b": {"a": {"offer": ALL}}})
    user = User(Keypair(bytes([1]) * 32))
    await world.sign_up(user, "b")
    for name in ("a", "b"):
        await world.start(name)
    world.pass_time(10)
    node, peer = world.nodes["a"], world.nodes["b"].key
    assert node.peering is not None
    follower = node.peering.neighbours[peer].follower
    assert isinstance(follower, Follower)
    assert follower.may_keep(8000)
    thing = Shelved(user.pubky, "id", Reason.LATE, peer, "/pub/x", Entry("/pub/x", bytes(32), 5000, "", 1), None, 1, 1)
    await node.store.shelf.shelve(thing)
    await world.put(user, "/pub/first", b"x")
    world.pass_time(10)
    assert not follower.may_keep(8000)
    for number in range(2500):
        await world.put(user, f"/pub/{number % 1250:04}", b"")
    world.pass_time(REST)
    copy = await node.store.copies.copy(user.pubky)
    assert copy is not None
    assert copy.public.position is not None
    assert 1 < copy.public.position.seq < 1100
    peers: Any = node.peering.overview.status()["peers"]
    assert "max_bytes" in str(peers[0]["trouble"])
    for name in ("a", "b"):
        await world.kill(name)


@pytest_twisted.ensureDeferred
async def test_a_peer_that_is_back() -> None:
    """Who was away for long and asks us something is followed again within seconds, not when the long wait is over.

    However often it asks, it is not asked back without end while it answers nothing.
    """
    world = World(Random(1), mutual("a", "b"))
    user = User(Keypair(b"\x01" * 32))
    await world.sign_up(user, "a")
    await world.start("a")
    await world.start("b")
    assert await world.put(user, "/pub/a", b"one")
    world.pass_time(5)
    await world.kill("a")
    world.pass_time(3600)
    peering = world.nodes["b"].peering
    assert peering is not None
    (mirror,), traffic = peering.mirrors, peering._traffic[world.nodes["a"].key]
    assert mirror.failure
    before = traffic.requests
    for _ in range(600):
        peering.site.notice(world.nodes["a"].key)
        world.pass_time(0.1)
    assert 20 < traffic.requests - before < 200
    world.pass_time(3600)
    await world.start("a")
    assert await world.put(user, "/pub/a", b"two")
    world.pass_time(4)
    await check_copy(world.nodes["a"], world.nodes["b"], user.pubky)
    assert not mirror.failure
    for name in world.nodes:
        await world.kill(name)
