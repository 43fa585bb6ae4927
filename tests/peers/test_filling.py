"""Bodies that a copy lacks are fetched besides its log, which waits neither for large ones nor for bad ones."""

from collections.abc import Callable
from random import Random

import pytest
import pytest_twisted
from twisted.internet.task import deferLater

from pkarr.keys import Keypair
from pubky_homeserver.core.copies import Copy
from pubky_homeserver.web.request import Request
from tests.peers.judge import check_copy
from tests.peers.test_moving import begin, end
from tests.peers.worlds import User, World, mutual


def slow_down(world: World, name: str, seconds: float) -> Callable[[], None]:
    """Each body that a node gives takes a while, from now on; returns what ends that."""
    site = world.wires.sites[name]

    async def answer(request: Request) -> None:
        if request.path.endswith(b"/body"):
            await deferLater(world.clock, seconds)
        await site(request)

    world.wires.sites[name] = answer
    return lambda: world.wires.sites.update({name: site})


def fetched(world: World) -> int:
    """How many bodies were asked for so far."""
    return len([what for _, _, what in world.wires.asked if what.endswith("/body")])


async def copy_of(world: World, name: str, user: User) -> Copy:
    """What a node has of a user."""
    copy = await world.nodes[name].store.copies.copy(user.pubky)
    assert copy is not None
    return copy


@pytest_twisted.ensureDeferred
async def test_the_log_goes_on_while_bodies_are_filled() -> None:
    """The bodies of a new copy take minutes: what its user writes meanwhile is here within a second all the same.

    Nobody else fetches the same ones meanwhile: each comes once.
    """
    world = World(Random(3), mutual("a", "b", private=True))
    user = User(Keypair(b"\x01" * 32))
    await world.sign_up(user, "a")
    await world.start("a")
    for number in range(60):
        assert await world.put(user, f"/pub/large/{number:02}", b"%03d" % number * 1000)
    assert await world.put(user, "/priv/large", b"private" * 1000)
    slow_down(world, "a", 15)
    await world.start("b")
    world.pass_time(5)
    for number in range(12):
        assert await world.put(user, "/pub/small", b"%d" % number)
        world.pass_time(1)
        copy, standing = await copy_of(world, "b", user), await world.nodes["a"].store.logs.standing(user.pubky, False)
        assert standing is not None
        assert copy.public.position == standing.position
        assert copy.missing
        world.pass_time(2)
    world.pass_time(300)
    await check_copy(world.nodes["a"], world.nodes["b"], user.pubky, private=True)
    assert fetched(world) == 61
    await end(world)


@pytest_twisted.ensureDeferred
async def test_a_copy_that_opens_while_it_is_filled() -> None:
    """An account that opens here is not filled as a copy any more, and gets its bodies all the same."""
    world, user = await begin("a", "b", private=True)
    calm = slow_down(world, "a", 15)
    b = world.nodes["b"]
    await world.kill("b")
    for number in range(20):
        assert await world.put(user, f"/pub/large/{number:02}", b"%03d" % number * 1000)
    for entry in await b.store.integrity.held(user.pubky, "", 500):
        assert await b.store.integrity.lose(user.pubky, entry)
    await world.start("b")
    world.pass_time(3)
    assert b.peering is not None
    (mirror,) = b.peering.mirrors
    assert mirror.filling.is_busy(user.pubky)
    assert await world.claim(user, "b")
    await world.point(user, "b")
    world.pass_time(10)
    assert mirror.filling.is_quiet
    calm()
    world.pass_time(120)
    assert await b.store.copies.copy(user.pubky) is None, "it lives at b"
    assert await b.store.copies.missing(user.pubky, "", 500) == []
    await check_copy(b, world.nodes["a"], user.pubky, private=True, was_home=True)
    await end(world)


@pytest.mark.parametrize("length", [3000, 200_000])
@pytest_twisted.ensureDeferred
async def test_the_log_goes_on_after_a_body_that_breaks_off(length: int) -> None:
    """The primary's disk has lost the end of a file: the copy goes without that body, and takes all that follows."""
    world, user = await begin("a", "b")
    a, b = world.nodes["a"], world.nodes["b"]
    body = b"x" * length
    world.wires.cut_off("a", "b")
    assert await world.put(user, "/pub/bad", body)
    entry = await a.store.entry(user.pubky, "/pub/bad")
    assert entry is not None
    assert entry.blob is not None
    a.blobs.spoil(entry.blob, body[: length * 9 // 10])
    for number in range(5):
        assert await world.put(user, f"/pub/after{number}", b"small")
    world.wires.calm()
    world.pass_time(60)
    copy, standing = await copy_of(world, "b", user), await a.store.logs.standing(user.pubky, False)
    assert standing is not None
    assert copy.public.position == standing.position
    assert copy.missing == 1
    a.blobs.spoil(entry.blob, body)
    world.pass_time(3600)
    await check_copy(a, b, user.pubky)
    assert {str(one.value) for one in world.wires.faults} == {"The body is shorter than announced."}
    world.wires.faults.clear()
    await end(world)


@pytest_twisted.ensureDeferred
async def test_a_body_that_is_wrong_for_good() -> None:
    """It is asked for ever more seldom, however much else is written; written once more it is here at once."""
    world, user = await begin("a", "b")
    a, b = world.nodes["a"], world.nodes["b"]
    body = b"x" * 3000
    world.wires.cut_off("a", "b")
    assert await world.put(user, "/pub/bad", body)
    entry = await a.store.entry(user.pubky, "/pub/bad")
    assert entry is not None
    assert entry.blob is not None
    a.blobs.spoil(entry.blob, body[:-1] + b"?")
    world.wires.calm()
    before = fetched(world)
    world.pass_time(3000)  # until its own homeserver looks
    first = fetched(world)
    assert 3 < first - before < 12
    for number in range(100):
        assert await world.put(user, "/pub/small", b"%d" % number)
        world.pass_time(1)
    assert fetched(world) - first <= 1
    assert (await copy_of(world, "b", user)).missing == 1
    world.pass_time(1)
    assert await world.put(user, "/pub/bad", body)
    world.pass_time(1)
    await check_copy(a, b, user.pubky)
    await end(world)
