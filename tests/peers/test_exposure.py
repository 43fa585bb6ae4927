"""What would be lost if a machine died: what its peers do not have of its accounts."""

import pytest_twisted
from twisted.internet.task import deferLater

from pkarr.keys import Keypair
from pubky_homeserver.peers.exposure import PATIENCE, Loss
from pubky_homeserver.web.request import Request
from tests.peers.test_moving import begin, end, wait
from tests.peers.worlds import User, World


def lost(world: World, name: str) -> Loss:
    """What the operator of a node is told."""
    peering = world.nodes[name].peering
    assert peering is not None
    return Loss(**wait(world, peering.overview.exposure()))


@pytest_twisted.ensureDeferred
async def test_what_would_be_lost() -> None:
    """Nothing while a mirror has all; else the changes, bodies and accounts that no mirror has, and who is silent."""
    world, user = await begin("a", "b", "c", private=True)
    assert await world.put(user, "/priv/secret", b"s")
    world.pass_time(10)
    assert lost(world, "a") == Loss(accounts=1)
    assert lost(world, "b") == Loss(), "no account lives there"

    world.wires.broken |= {("a", "b"), ("b", "a")}
    for number in range(5):
        assert await world.put(user, f"/pub/new/{number}", b"x")
    world.pass_time(10)
    assert lost(world, "a") == Loss(accounts=1, silent=["b"]), "c has it all"

    world.wires.broken |= {("c", "a")}
    for number in range(3):
        assert await world.put(user, f"/pub/newer/{number}", b"x")
    assert lost(world, "a") == Loss(accounts=1, behind=1, changes=3, silent=["b"])
    world.wires.calm()
    world.pass_time(60)
    assert lost(world, "a") == Loss(accounts=1)
    await end(world)


@pytest_twisted.ensureDeferred
async def test_accounts_that_nobody_mirrors() -> None:
    """An account that no peer has yet is named; private files that are not mirrored are told of."""
    world, user = await begin("a", "b")
    assert await world.put(user, "/priv/secret", b"s")
    world.pass_time(10)
    assert lost(world, "a") == Loss(accounts=1, private=1)
    await world.kill("b")
    other = User(Keypair(b"\x02" * 32))
    await world.sign_up(other, "a")
    found = lost(world, "a")
    assert (found.accounts, found.alone, found.silent) == (2, 2, ["b"])
    assert sorted(found.named) == sorted([user.pubky, other.pubky])
    await world.start("b")
    world.pass_time(60)
    assert lost(world, "a") == Loss(accounts=2, private=1)
    await end(world)


@pytest_twisted.ensureDeferred
async def test_a_peer_without_an_end() -> None:
    """Who always has one more page is silent to us, and holds up no answer for long."""
    world, _ = await begin("a", "b", "c", private=True)
    site = world.wires.sites["b"]

    async def answer(request: Request) -> None:
        if not request.path.endswith(b"/copies"):
            await site(request)
            return
        await deferLater(world.clock, 10)
        request.finish_with(b'{"copies": [], "next": "again"}')

    world.wires.sites["b"] = answer
    peering = world.nodes["a"].peering
    assert peering is not None
    assert Loss(**wait(world, peering.overview.exposure(), PATIENCE + 5)) == Loss(accounts=1, silent=["b"])
    await end(world)
