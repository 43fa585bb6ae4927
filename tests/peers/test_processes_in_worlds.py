"""Homeservers that are several processes each, in fair weather and in foul: at rest all know what one does.

Histories are those of `test_simulation.py`, only simpler: what they show is that processes hear of each other.
"""

from random import Random

import pytest
from twisted.internet.defer import Deferred

from pkarr.keys import Keypair
from pubky_homeserver.peers.changes import BEAT
from pubky_homeserver.peers.mirror import RARELY
from tests.peers.judge import check_copy, check_nothing_lost
from tests.peers.worlds import Node, User, World, mutual, run

REST = 700.0
"""Seconds after which everybody has tried again: twice the longest pause, and some."""

SPLIT, CHUNKS = 20, 5


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_several_processes(chunk: int) -> None:
    """Copies, moves and late writes where homeservers are three processes each, which come and go."""
    for seed in range(1000 + chunk * SPLIT // CHUNKS, 1000 + (chunk + 1) * SPLIT // CHUNKS):
        split = frozenset(Random(seed).choice([("a",), ("a", "b"), ("a", "b", "c")]))
        for history in (_following, _moving):
            failure = run(history(seed, split))
            assert failure is None, f"{history.__name__}, seed {seed}: {failure!r}"


async def _following(seed: int, split: frozenset[str]) -> None:
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


async def _moving(seed: int, split: frozenset[str]) -> None:
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
