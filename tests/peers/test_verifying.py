"""What rots here is found and fetched again: at a copy from its primary, at a primary from its copies."""

import json
from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from typing import Any

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet.task import deferLater

from pkarr.keys import Keypair
from pubky_homeserver.core.errors import InvalidRequest, NotFound, NotHereYet
from pubky_homeserver.core.records import Entry
from pubky_homeserver.core.verification import Verification
from pubky_homeserver.peers.healing import LOOK as HEAL
from pubky_homeserver.peers.healing import SOON
from pubky_homeserver.peers.tally import Counted
from pubky_homeserver.peers.verifying import LOOK
from pubky_homeserver.store.files import Blobs, mark_of
from pubky_homeserver.web.request import ClientGone, Request
from tests.peers.judge import check_copy, check_nothing_lost
from tests.peers.peering import hash_of
from tests.peers.test_moving import begin, claim, end, wait
from tests.peers.worlds import Node, User, World

LARGE = b"large " * 500


async def held(node: Node, user: User) -> list[Entry]:
    """The files of an account with their bodies."""
    return await node.store.integrity.held(user.pubky, "", 500)


async def spoil(node: Node, user: User, path: str) -> None:
    """The disk has other bytes than were written."""
    entry = await node.store.entry(user.pubky, path)
    assert entry is not None
    assert entry.blob is not None
    node.blobs.spoil(entry.blob, LARGE[:-1] + b"?")


async def burn(node: Node, user: User, path: str) -> None:
    """The disk has a file no more."""
    entry = await node.store.entry(user.pubky, path)
    assert entry is not None
    assert entry.blob is not None
    await node.blobs.remove([entry.blob])


async def verify(world: World, name: str, pubky: str | None = None, seconds: float = 120) -> Verification:
    """The operator has it verified; what was found."""
    peering = world.nodes[name].peering
    assert peering is not None
    assert peering.verifier is not None
    one = await peering.verifier.begin(pubky)
    for _ in range(int(seconds * 4)):
        if one.ended:
            break
        world.pass_time(0.25)
    assert one.ended
    return one


async def with_files(*names: str, **settings: Any) -> tuple[World, User]:
    """Homeservers that mirror each other, and a user of the first one, with two large files, one small, one private."""
    world, user = await begin(*names, **settings)
    for path in ("/pub/one", "/pub/two", "/priv/three"):
        assert await world.put(user, path, LARGE + path.encode())
    assert await world.put(user, "/pub/small", b"small")
    world.pass_time(5)
    return world, user


@pytest_twisted.ensureDeferred
async def test_all_is_well() -> None:
    """Where nothing rots nothing is found, and the day is noted, of copies and of accounts."""
    world, user = await with_files("a", "b", private=True)
    for name in ("a", "b"):
        found = await verify(world, name)
        assert (found.accounts, found.of, found.faults) == (1, 1, {})
        assert found.files == len(await held(world.nodes[name], user)) > 3
        assert found.bytes > 3 * len(LARGE)
        assert (found.wrong, found.different, found.missing) == (0, 0, 0)
        assert await world.nodes[name].store.integrity.verified(user.pubky) > 0
    await end(world)


@pytest_twisted.ensureDeferred
async def test_a_copy_that_rots() -> None:
    """A copy's wrong bytes and lost files are found and come again from its primary; nothing else changes."""
    world, user = await with_files("a", "b", private=True)
    a, b = world.nodes["a"], world.nodes["b"]
    await spoil(b, user, "/pub/one")
    await burn(b, user, "/pub/two")
    await spoil(b, user, "/priv/three")
    found = await verify(world, "b")
    assert (found.wrong, found.different, found.missing) == (3, 0, 0)
    assert list(found.faults) == [user.pubky]
    await check_copy(a, b, user.pubky, private=True)
    assert await b.store.integrity.verified(user.pubky) > 0
    again = await verify(world, "b")
    assert (again.wrong, again.faults) == (0, {})
    await end(world)


@pytest_twisted.ensureDeferred
async def test_a_primary_that_rots() -> None:
    """What an account's own homeserver lost comes from who follows it, private files too if those are mirrored."""
    world, user = await with_files("a", "b", private=True)
    a, b = world.nodes["a"], world.nodes["b"]
    for path in ("/pub/one", "/priv/three"):
        await spoil(a, user, path)
    before = await a.store.logs.standing(user.pubky, False)
    found = await verify(world, "a", user.pubky)
    assert (found.wrong, found.missing) == (2, 0)
    assert await a.store.logs.standing(user.pubky, False) == before, "nothing was written"
    await check_nothing_lost([a, b], a, world.acknowledged)
    await end(world)


@pytest_twisted.ensureDeferred
async def test_a_body_that_is_missed_when_it_is_read() -> None:
    """Whoever reads a file that the disk has lost is told to come back, and soon finds it: here as at a copy."""
    world, user = await with_files("a", "b")
    for name in ("a", "b"):
        node = world.nodes[name]
        assert node.peering is not None
        before = node.peering.tally.of(Counted.ROTTEN)
        await burn(node, user, "/pub/one")
        entry = await node.store.entry(user.pubky, "/pub/one")
        assert entry is not None
        with pytest.raises(NotFound):
            await node.storage.open(entry)  # nobody says whose it is
        for _ in range(2):
            with pytest.raises(NotHereYet):
                await node.storage.open(entry, user.pubky)
        assert node.peering.tally.of(Counted.ROTTEN) == before + 1
        world.pass_time(SOON + 5)
        healed = await node.store.entry(user.pubky, "/pub/one")
        assert healed is not None
        reader = await node.storage.open(healed, user.pubky)
        assert await reader.read(0, reader.length) == LARGE + b"/pub/one"
    await check_copy(world.nodes["a"], world.nodes["b"], user.pubky)
    await end(world)


@pytest_twisted.ensureDeferred
async def test_what_nobody_has() -> None:
    """A private body of a primary whose mirrors have public files only stays missing, and that is told; not noted."""
    world, user = await with_files("a", "b")
    a = world.nodes["a"]
    await spoil(a, user, "/priv/three")
    await spoil(a, user, "/pub/one")
    found = await verify(world, "a")
    assert (found.wrong, found.missing) == (2, 1)
    assert "1 bodies are missing" in found.faults[user.pubky]
    missing = await a.store.entry(user.pubky, "/priv/three")
    assert missing is not None
    assert (missing.body, missing.blob) == (None, None), "nobody gets wrong bytes"
    assert await a.store.integrity.verified(user.pubky) == 0
    assert not [one for one in world.wires.asked if "/priv/" in str(one)]
    await end(world)


@pytest_twisted.ensureDeferred
async def test_another_mirror_heals_a_copy() -> None:
    """While its primary is away a copy's public bodies come from any peer; lists unknown, the day is not noted."""
    world, user = await with_files("a", "b", "c")
    b = world.nodes["b"]
    await world.kill("a")
    await spoil(b, user, "/pub/one")
    found = await verify(world, "b")
    assert (found.wrong, found.missing) == (1, 0)
    assert "not compared" in found.faults[user.pubky]
    healed = await b.store.entry(user.pubky, "/pub/one")
    assert healed is not None
    assert healed.blob is not None
    reader = await b.blobs.open(healed.blob)
    assert reader is not None
    assert await reader.read(0, 9000) == LARGE + b"/pub/one"
    assert await b.store.integrity.verified(user.pubky) == 0
    await end(world)


def unseen(changes: Sequence[int]) -> list[int]:
    """Some of these numbers, by their places, whose XOR is 0: among 129 of 128 bits there are always some."""
    basis: dict[int, tuple[int, int]] = {}
    for place, change in enumerate(changes):
        made = 1 << place
        while change and change.bit_length() in basis:
            other, of = basis[change.bit_length()]
            change, made = change ^ other, made ^ of
        if not change:
            return [one for one in range(len(changes)) if made >> one & 1]
        basis[change.bit_length()] = change, made
    raise AssertionError("they are independent")


@pytest_twisted.ensureDeferred
async def test_another_list_with_the_same_digest() -> None:
    """A copy that was shown other files under the same digest is found by its list, and repaired with its shelf.

    129 files in two versions are enough to choose some of which the other version changes no bit of the digest.
    """
    world, user = await with_files("a", "b")
    a, b = world.nodes["a"], world.nodes["b"]
    for number in range(129):
        assert await world.put(user, f"/pub/many/{number}", b"")
    world.pass_time(5)
    copied = b.store.copies.copied(user.pubky)
    assert copied is not None
    digest = copied.logs[False].digest
    shown = [copied.files.entries[f"/pub/many/{number}"] for number in range(129)]
    others = [evolve(one, content_hash=hash_of(b"?"), length=1, body=b"?") for one in shown]
    marks = [[int.from_bytes(mark_of(one), "big") for one in pair] for pair in zip(shown, others, strict=True)]
    chosen = unseen([one ^ other for one, other in marks])
    for number in chosen:
        copied.replace(others[number].path, others[number], Blobs(lambda: 0, 0), user.pubky)
    assert copied.logs[False].digest == digest, "nobody sees a difference"
    found = await verify(world, "b")
    assert found.different == len(chosen) > 0
    assert "differ" in found.faults[user.pubky]
    world.pass_time(30)
    found = await verify(world, "b")
    assert (found.different, found.faults) == (0, {})
    await check_copy(a, b, user.pubky)
    page = await b.store.shelf.shelf(user.pubky, "", 500)
    assert {one.path for one in page} == {shown[number].path for number in chosen}
    await end(world)


@pytest_twisted.ensureDeferred
async def test_while_files_are_written() -> None:
    """A verification of a copy whose user writes all the time finds no difference that is none."""
    world, user = await with_files("a", "b", private=True)
    peering = world.nodes["b"].peering
    assert peering is not None
    assert peering.verifier is not None
    for _ in range(20):
        one = await peering.verifier.begin(None)
        while not one.ended:
            await world.act(user)
            world.pass_time(0.05)
        assert (one.wrong, one.different, one.missing, one.faults) == (0, 0, 0, {})
    await end(world)


@pytest_twisted.ensureDeferred
async def test_one_at_a_time() -> None:
    """A second verification while one is under way is refused, and so is one of nobody."""
    world, user = await with_files("a", "b")
    peering = world.nodes["a"].peering
    assert peering is not None
    assert peering.verifier is not None
    with pytest.raises(InvalidRequest, match="Neither"):
        await peering.verifier.begin("y" * 52)
    await burn(world.nodes["a"], user, "/pub/one")
    world.wires.weather.late = 5
    one = await peering.verifier.begin(user.pubky)
    assert one.ended == 0
    with pytest.raises(InvalidRequest, match="under way"):
        await peering.verifier.begin(None)
    world.wires.calm()
    world.pass_time(60)
    assert one.ended
    await end(world)


@pytest_twisted.ensureDeferred
async def test_by_itself() -> None:
    """What was never looked at is, within an hour; a rotten body is healed without the operator."""
    world, user = await with_files("a", "b")
    a, b = world.nodes["a"], world.nodes["b"]
    await spoil(b, user, "/pub/one")
    world.pass_time(LOOK + 60)
    await check_copy(a, b, user.pubky)
    assert await b.store.integrity.verified(user.pubky) > 0
    assert await a.store.integrity.verified(user.pubky) > 0
    await end(world)


@pytest_twisted.ensureDeferred
async def test_what_a_crash_left_missing() -> None:
    """An account that opened while bodies were missing, on a node that died then, gets them when it starts again."""
    world, user = await with_files("a", "b", private=True)
    a, b = world.nodes["a"], world.nodes["b"]
    wait(world, claim(world, user, "b"))
    await world.point(user, "b")
    world.pass_time(30)
    assert await b.store.copies.copy(user.pubky) is None, "it lives at b"
    await world.kill("b")
    for entry in await held(b, user):
        assert await b.store.integrity.lose(user.pubky, entry)
    await world.start("b")
    world.pass_time(60)
    assert await b.store.copies.missing(user.pubky, "", 500) == []
    await check_copy(b, a, user.pubky, private=True, was_home=True)
    await end(world)


@pytest_twisted.ensureDeferred
async def test_a_peer_that_is_left_alone() -> None:
    """A paused peer is asked nothing; resumed it is followed from where it was left."""
    world, user = await with_files("a", "b")
    a, b = world.nodes["a"], world.nodes["b"]
    assert b.peering is not None
    wait(world, b.peering.overview.pause("a", True))
    world.pass_time(1)
    asked = len([one for one in world.wires.asked if one[0] == "b" and "/accounts" in one[2]])
    assert await world.put(user, "/pub/meanwhile", b"x")
    world.pass_time(60)
    assert len([one for one in world.wires.asked if one[0] == "b" and "/accounts" in one[2]]) == asked
    assert await b.store.entry(user.pubky, "/pub/meanwhile") is None
    wait(world, b.peering.overview.pause("a", False))
    world.pass_time(10)
    await check_copy(a, b, user.pubky)
    with pytest.raises(InvalidRequest):
        await b.peering.overview.pause("nobody", True)
    await end(world)


def dripping(world: World, name: str, what: bytes) -> None:
    """A node answers some requests with a byte now and then, from now on."""
    site = world.wires.sites[name]

    async def answer(request: Request) -> None:
        if not request.path.endswith(what):
            await site(request)
            return
        request.stream(3000)
        with suppress(ClientGone):
            for _ in range(3000):
                await request.write(b" ")
                await deferLater(world.clock, 25)

    world.wires.sites[name] = answer


@pytest_twisted.ensureDeferred
async def test_a_mirror_that_drips() -> None:
    """Who gives a byte now and then is not waited for: what another mirror has is here soon, of all accounts."""
    world, user = await with_files("a", "b", "c")
    other = User(Keypair(b"\x02" * 32))
    await world.sign_up(other, "a")
    assert await world.put(other, "/pub/one", LARGE)
    world.pass_time(60)
    a = world.nodes["a"]
    dripping(world, "b", b"/body")
    for one in (user, other):
        entry = await a.store.entry(one.pubky, "/pub/one")
        assert entry is not None
        assert await a.store.integrity.lose(one.pubky, entry)
    world.pass_time(HEAL + 200)
    for one in (user, other):
        healed = await a.store.entry(one.pubky, "/pub/one")
        assert healed is not None
        assert healed.blob is not None
    await end(world)


@pytest_twisted.ensureDeferred
async def test_a_primary_whose_list_has_no_end() -> None:
    """The verification of one copy whose primary tells names without end holds up no other one for long."""
    world, user = await with_files("a", "b", "c")
    others = [User(Keypair(bytes([number]) * 32)) for number in (2, 3)]
    for other, home in zip(others, ("a", "c"), strict=True):
        await world.sign_up(other, home)
        assert await world.put(other, "/pub/one", LARGE)
    world.pass_time(60)
    site, numbers = world.wires.sites["a"], count(1)

    async def answer(request: Request) -> None:
        if not request.path.endswith(b"/entries"):
            await site(request)
            return
        await deferLater(world.clock, 10)
        named = {"path": f"/pub/{next(numbers):012}", "hash": b64encode(bytes(32)).decode(), "length": 1}
        log = {"log_id": "ab" * 16, "seq": 0, "id": 0, "digest": b64encode(bytes(16)).decode()}
        standing = log | {"reigns": [["ab" * 16, 1]], "floor": 0, "used": 0}
        page = {"standing": standing, "entries": [named | {"type": "text/plain", "modified": 5, "seq": 1}]}
        request.finish_with(json.dumps(page).encode())

    world.wires.sites["a"] = answer
    found = await verify(world, "b", seconds=1200)
    assert found.accounts == 3
    assert {found.faults[one.pubky] for one in (user, others[0])} == {"not compared: its primary is too slow"}
    assert others[1].pubky not in found.faults
    await end(world)
