"""Homeservers that mirror each other, in fair weather and in foul: seeded histories, judged at rest."""

from random import Random

import pytest

from pkarr.keys import Keypair
from tests.peers.judge import check_copy, check_prefix
from tests.peers.worlds import User, World, mutual, run

REST = 700.0
"""Seconds after which everybody has tried again: twice the longest pause, and some."""

SEEDS, CHUNKS = 200, 5


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_following(chunk: int) -> None:
    """Three nodes in a ring, users at each: at rest every copy is its primary, and nobody asks anything any more."""
    for seed in range(chunk * SEEDS // CHUNKS, (chunk + 1) * SEEDS // CHUNKS):
        failure = run(_following(seed))
        assert failure is None, f"seed {seed}: {failure!r}"


async def _following(seed: int) -> None:
    random = Random(seed)
    world = World(random, mutual("a", "b", "c"))
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
    asked = len(world.wires.asked)
    world.pass_time(60)
    assert world.wires.asked[asked:] == []
    assert not world.wires.faults
    for name in names:
        await world.kill(name)
