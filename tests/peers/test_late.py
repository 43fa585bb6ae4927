"""Late writes between homeservers: real client and real site, with the wire between them simulated."""

from random import Random
from typing import Any

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred

from pkarr.keys import Keypair
from pubky_homeserver.conflicts import Conflicts
from pubky_homeserver.core.capabilities import parse_capabilities
from pubky_homeserver.core.copies import LoggedEvent
from pubky_homeserver.core.errors import GrantRevoked, PeerAway, PeerError, PeerRefused
from pubky_homeserver.core.peers import ALL, NONE
from pubky_homeserver.core.records import Event, Grant, KeptGrant, Operation
from pubky_homeserver.core.shelf import Reason, Shelved
from pubky_homeserver.peers import messages, reading
from pubky_homeserver.peers.client import PeerClient
from pubky_homeserver.peers.late import MOST
from pubky_homeserver.peers.messages import MAX_LATE
from pubky_homeserver.peers.shapes import Malformed, to_json
from tests.peers.backups import back_up
from tests.peers.judge import check_copy, files
from tests.peers.simulated import hash_of
from tests.peers.test_moving import begin, claim, lives_at, wait
from tests.peers.worlds import NOW, Node, User, World, mutual, run

REST = 60.0


async def forked(
    trust: dict[str, dict[str, dict[str, Any]]], split: frozenset[str] = frozenset()
) -> tuple[World, User]:
    """A world in which `a`, the primary, lost its newest writes, and `b` has them. `split`: several processes each."""
    world = World(Random(7), trust, split)
    user = User(Keypair(bytes([1]) * 32))
    await world.sign_up(user, "a")
    for name in world.nodes:
        await world.start(name)
    for number in range(30):
        await world.put(user, f"/pub/{number:02}", b"%d" % number)
    world.pass_time(REST)
    home = world.nodes["a"]
    backup = back_up(home.store)
    await world.put(user, "/pub/00", b"changed")
    await world.put(user, "/pub/large", b"x" * 3000)
    await world.put(user, "/priv/secret", b"y" * 3000)
    await world.delete(user, "/pub/01")
    world.pass_time(REST)
    await world.kill("a")
    world.rewind("a", backup)
    await world.start("a")
    return world, user


async def shelf(node: Node, user: User) -> dict[str, Shelved]:
    """What lies there, by paths."""
    return {one.path: one for one in await node.store.shelf.shelf(user.pubky, "", 100)}


async def stop(world: World) -> None:
    """All processes end."""
    for name in world.nodes:
        await world.kill(name)
    assert not world.wires.faults


@pytest.mark.parametrize("split", [frozenset(), frozenset({"a", "b"})])
@pytest.mark.parametrize("private", [False, True])
@pytest_twisted.ensureDeferred
async def test_over_the_wire(private: bool, split: frozenset[str]) -> None:
    """The primary has on its shelf what it lost, with large bodies fetched; private files by consent only (I14).

    Whichever process is told of it: each can fetch bodies.
    """
    world, user = await forked(mutual("a", "b", private=private), split)
    world.pass_time(REST)
    home, other = world.nodes["a"], world.nodes["b"]
    lost = await shelf(home, user)
    assert lost.keys() == {"/pub/00", "/pub/large", "/pub/01"} | ({"/priv/secret"} if private else set())
    assert all(one.reason is Reason.LATE and one.origin == other.key for one in lost.values())
    entry = lost["/pub/large"].entry
    assert entry is not None
    assert entry.blob is not None
    reader = await home.blobs.open(entry.blob)
    assert reader is not None
    assert await reader.read(0, reader.length) == b"x" * 3000
    assert await shelf(other, user) == {}, "what the primary keeps need not lie here"
    assert other.peering is not None
    assert home.peering is not None
    await world.kill("b")
    await world.start("b")  # it is known as long as what was lost waits
    world.pass_time(1)
    for node, peer in ((home, other), (other, home)):
        assert node.peering is not None
        (fork,) = node.peering.chronicle.forks()
        assert (fork.pubky, fork.peer) == (user.pubky, peer.key)
        assert world.clock.seconds() - REST - 2 < fork.at / 1_000_000 <= world.clock.seconds()
    told: Any = other.peering.overview.status()
    assert told["copies"][0]["forked"] == int(told["forks"][0]["at"]) > 0
    await check_copy(home, other, user.pubky, private)
    await stop(world)


@pytest_twisted.ensureDeferred
async def test_a_body_that_needs_longer_than_anybody_waits() -> None:
    """It is fetched once, to its end, though who offered it gives up; then the old homeserver follows again."""
    world, user = await forked(mutual("a", "b"))
    home, other = world.nodes["a"], world.nodes["b"]
    world.wires.weather.pace = 120  # 3000 bytes are 25 s
    world.pass_time(REST)
    assert "/pub/large" in await shelf(home, user)
    world.pass_time(REST)
    fetched = [what for who, _, what in world.wires.asked if who == "a" and what.endswith("/body")]
    assert len(fetched) == 1
    await world.put(user, "/pub/new", b"new")
    world.pass_time(REST)
    assert await other.store.entry(user.pubky, "/pub/new") is not None
    assert await shelf(other, user) == {}
    await stop(world)


@pytest_twisted.ensureDeferred
async def test_a_process_that_ends_while_it_takes() -> None:
    """What is under way ends with it, and leaves no body behind; the next one takes it."""
    world, user = await forked(mutual("a", "b"))
    home = world.nodes["a"]
    world.wires.weather.pace = 120
    world.pass_time(10)
    blobs = set(home.blobs._kept)
    await world.kill("a")
    assert "/pub/large" not in await shelf(home, user)
    assert set(home.blobs._kept) == blobs
    world.wires.calm()
    await world.start("a")
    world.pass_time(REST)
    assert "/pub/large" in await shelf(home, user)
    await stop(world)


@pytest_twisted.ensureDeferred
async def test_no_more_at_a_time_than_is_good() -> None:
    """Who offers ever more, and hangs up, is asked to come again: what is under way for nobody is bounded."""
    world, user = await begin("a", "b")
    await world.put(user, "/pub/large", b"x" * 3000)
    world.pass_time(REST)
    peering = world.nodes["b"].peering
    assert peering is not None
    source = peering.neighbours[world.nodes["a"].key].source
    world.wires.weather.pace = 1
    await world.put(user, "/pub/large", b"y" * 3000)  # the copy has the old one until it has all of this
    wanted = Event(
        1, Operation.PUT, user.pubky, "/pub/large", 1, b"\0" * 16, hash_of(b"x" * 3000), 3000, "text/plain", 1
    )
    for number in range(MOST + 3):
        one = LoggedEvent(evolve(wanted, seq=100 + number, id=100 + number))
        offering = Deferred.fromCoroutine(source.late(user.pubky, False, [one]))
        world.pass_time(0.1)
        assert offering.called == (number >= MOST)
        offering.cancel()
        with pytest.raises(CancelledError if number < MOST else PeerAway):
            await offering
    fetched = [what for who, _, what in world.wires.asked if who == "a" and what.endswith("/body")]
    assert len(fetched) == MOST
    await stop(world)


@pytest_twisted.ensureDeferred
async def test_a_copy_that_is_one_sided() -> None:
    """A homeserver that offers nothing itself is still asked for the bodies of what it is late with."""
    world, user = await forked({"a": {"b": {"offer": ALL}}, "b": {"a": {"follow": ALL}}})
    world.pass_time(REST)
    assert (await shelf(world.nodes["a"], user)).keys() == {"/pub/00", "/pub/large", "/pub/01"}
    await stop(world)


@pytest_twisted.ensureDeferred
async def test_who_may_be_late() -> None:
    """Only who may have the log is heard, of accounts that live here, and no more at a time than is allowed."""
    trust = mutual("a", "b", "c")
    trust["a"]["c"] = evolve_trust(trust["a"]["c"])
    world, user = await forked(trust)
    event = Event(
        5, Operation.PUT, user.pubky, "/pub/z", 9, b"\0" * 16, hash_of(b"z"), 1, "text/plain", world.microseconds
    )
    late = LoggedEvent(event, b"z")

    async def offer(name: str, pubky: str, private: bool, events: list[LoggedEvent]) -> set[int]:
        peering = world.nodes[name].peering
        assert peering is not None
        source = peering.neighbours[world.nodes["a"].key].source
        assert isinstance(source, PeerClient)
        offering = Deferred.fromCoroutine(source.late(pubky, private, events))
        world.pass_time(5)
        assert offering.called
        return await offering

    stranger = evolve(event, pubky=Keypair(b"\7" * 32).public_key.z32)
    for pubky, private, name in ((user.pubky, True, "b"), (user.pubky, False, "c"), (stranger.pubky, False, "b")):
        path = "/priv/z" if private else "/pub/z"
        with pytest.raises(PeerRefused):
            await offer(name, pubky, private, [LoggedEvent(evolve(event, path=path), b"z")])
    with pytest.raises(PeerError):
        await offer("b", user.pubky, False, [late] * (MAX_LATE + 1))
    for _ in range(2):
        assert await offer("b", user.pubky, False, [late]) == {event.id}
    wrong = LoggedEvent(evolve(event, id=6, path="/pub/w", content_hash=hash_of(b"w")), b"z")
    assert await offer("b", user.pubky, False, [wrong]) == set(), "it has no body of that hash"
    assert (await shelf(world.nodes["a"], user))["/pub/z"].entry is not None
    assert "/pub/w" not in await shelf(world.nodes["a"], user)
    await stop(world)


def evolve_trust(settings: dict[str, Any]) -> dict[str, Any]:
    """A peer that may not follow, and is not followed."""
    return {**settings, "offer": NONE, "follow": NONE}


def test_messages() -> None:
    """Offers and receipts are read as they were written, and nothing else is: no more than is allowed, of one log."""
    pubky = Keypair(b"\1" * 32).public_key.z32
    put = Event(5, Operation.PUT, pubky, "/pub/z", 9, b"\0" * 16, hash_of(b"z"), 1, "text/plain", 7)
    gone = Event(6, Operation.DEL, pubky, "/pub/y", 10, b"\1" * 16)
    offered = [LoggedEvent(put, b"z"), LoggedEvent(put), LoggedEvent(gone)]
    assert reading.read_late(to_json(messages.pack_late(offered)), pubky, False) == offered
    assert reading.read_kept(to_json(messages.pack_kept({6, 5}))) == {5, 6}
    long = to_json(messages.pack_late([offered[1]] * (MAX_LATE + 1)))
    for said, private in ((b"", False), (b"{}", False), (b'{"events":[1]}', False), (long, False)):
        with pytest.raises(Malformed):
            reading.read_late(said, pubky, private)
    with pytest.raises(Malformed):
        reading.read_late(to_json(messages.pack_late(offered)), pubky, True)
    for said in (b"", b"{}", b'{"kept":{}}', b'{"kept":["5"]}', b'{"kept":[-1]}', b'{"kept":[true]}'):
        with pytest.raises(Malformed):
            reading.read_kept(said)


async def moved(world: World, user: User, name: str) -> None:
    """The user signs up at another homeserver, and publishes a record that names it."""
    await claim(world, user, name)
    await world.point(user, name)
    world.pass_time(120)
    assert await lives_at(world.nodes[name], user)


def granted(user: User, grant_id: str) -> KeptGrant:
    """A grant of the user."""
    capabilities = tuple(parse_capabilities("/:rw"))
    expires = int(NOW) + 10**6
    return KeptGrant(Grant(user.pubky, "app.example", capabilities, "k" * 52, grant_id, int(NOW), expires), 1)


async def check_nothing_is_lost(world: World, user: User) -> None:
    """I9: each acknowledged write is at the account's homeserver, superseded by a later one, or on a shelf."""
    home = world.nodes[user.home]
    there = {
        path: file.body
        for folder in ("/pub/", "/priv/")
        for path, file in (await files(home, user.pubky, folder)).items()
    }
    newest = {one.path: one.body for one in world.acknowledged}
    for path, body in newest.items():
        if there.get(path) == body:
            continue
        hashes = [
            None if one.entry is None else one.entry.content_hash
            for node in world.nodes.values()
            for one in await _things(node, user)
            if one.path == path
        ]
        assert (None if body is None else hash_of(body)) in hashes, f"{path} is lost"


async def _things(node: Node, user: User) -> list[Shelved]:
    return await node.store.shelf.shelf(user.pubky, "", 100)


@pytest_twisted.ensureDeferred
async def test_an_old_primary_with_a_tail() -> None:
    """What the old homeserver acknowledged until it learned of the move lies on the new one's shelf, and is applied."""
    world, user = await begin("a", "b", private=True)
    old, new = world.nodes["a"], world.nodes["b"]
    world.pass_time(REST)
    await world.kill("a")  # nobody reaches it, but its users
    await moved(world, user, "b")
    assert await world.put(user, "/pub/tail", b"t" * 3000, "a")
    assert await world.put(user, "/priv/tail", b"tail", "a")
    assert await world.put(user, "/pub/both", b"old", "a")
    world.pass_time(1)
    assert await world.put(user, "/pub/both", b"new", "b")
    await world.start("a")
    world.pass_time(REST)
    assert not await world.put(user, "/pub/more", b"x", "a")
    assert {path: one.reason for path, one in (await shelf(new, user)).items()} == {
        "/pub/tail": Reason.LATE,
        "/priv/tail": Reason.LATE,
        "/pub/both": Reason.LATE,
    }
    await check_nothing_is_lost(world, user)
    await check_copy(new, old, user.pubky, True)
    outcomes = await Conflicts(new.store.shelf, new.storage, new.store.grants).apply_untouched(user.pubky)
    assert {one.shelved.path for one in outcomes if one.failure is None} == {"/pub/tail", "/priv/tail"}
    world.pass_time(REST)
    assert (await files(old, user.pubky, "/pub/"))["/pub/tail"].body == b"t" * 3000
    await check_copy(new, old, user.pubky, True)
    await stop(world)


async def left_behind(private: bool = False) -> tuple[World, User]:
    """A user moved to `b` while `a` was away, with private files that `b` does not have."""
    world, user = await begin("a", "b", private=private)
    world.pass_time(REST)
    for path, body in (
        ("/priv/large", b"p" * 3000),
        ("/priv/small", b"small"),
        ("/priv/gone", b"x"),
        ("/priv/same", b"s"),
    ):
        assert await world.put(user, path, body)
    assert await world.delete(user, "/priv/gone")
    await world.kill("a")
    await moved(world, user, "b")
    assert await world.put(user, "/priv/same", b"s")
    assert await world.put(user, "/priv/small", b"newer")
    assert await world.put(user, "/pub/after", b"x")
    return world, user


@pytest_twisted.ensureDeferred
async def test_private_files_that_were_left_behind() -> None:
    """A homeserver that was away when its user left hands all private files over, agreed on or not, and only once."""
    world, user = await left_behind()
    old, new = world.nodes["a"], world.nodes["b"]
    assert [*await files(new, user.pubky, "/priv/")] == ["/priv/same", "/priv/small"]
    await world.start("a")
    world.pass_time(2 * REST)
    things = await shelf(new, user)
    had = [path for path in await files(old, user.pubky, "/priv/") if path != "/priv/same"]
    assert sorted(things) == sorted(had)
    assert {"/priv/large", "/priv/small"} <= things.keys()
    assert {(one.reason, one.origin) for one in things.values()} == {(Reason.LATE, old.key)}
    ours = things["/priv/small"].ours
    assert ours is not None
    assert ours.content_hash == hash_of(b"newer")
    await check_nothing_is_lost(world, user)
    await check_copy(new, old, user.pubky, False, was_home=True)
    copy = await old.store.copies.copy(user.pubky)
    assert copy is not None
    assert not copy.owes
    assert new.peering is not None
    conflicts = Conflicts(new.store.shelf, new.storage, new.store.grants)
    outcomes = await conflicts.apply_untouched(user.pubky)
    assert "/priv/large" in {one.shelved.path for one in outcomes if one.failure is None}
    await conflicts.drop_all(user.pubky)
    world.pass_time(2 * REST)
    assert await shelf(new, user) == {}
    await stop(world)


@pytest_twisted.ensureDeferred
async def test_private_files_that_were_left_behind_as_agreed() -> None:
    """Where private files are mirrored too, and the copy had not begun, the primary gets them on its shelf as well."""
    world, user = await begin("a", "b")
    world.pass_time(REST)
    for number in range(5):
        assert await world.put(user, f"/priv/{number}", b"%d" % number)
    await world.kill("a")
    await moved(world, user, "b")
    assert await world.put(user, "/priv/after", b"x")
    for name, other in (("a", "b"), ("b", "a")):
        world.trust[name][other] = {**world.trust[name][other], "private": True}
    await world.kill("b")
    for name in ("b", "a"):
        await world.start(name)
    world.pass_time(3 * REST)
    assert {f"/priv/{number}" for number in range(5)} <= (await shelf(world.nodes["b"], user)).keys()
    await check_nothing_is_lost(world, user)
    await stop(world)


@pytest_twisted.ensureDeferred
async def test_a_home_that_nobody_met() -> None:
    """Where the new homeserver knows nothing of one in between, that shows the user's record which named it."""
    world, user = await begin("a", "b", "c")
    world.pass_time(REST)
    await world.kill("c")
    await world.kill("a")
    await moved(world, user, "b")
    assert await world.put(user, "/priv/between", b"p" * 3000)
    await world.kill("b")
    await world.point(user, "c")  # before it has seen any other
    await world.start("c")
    await moved(world, user, "c")
    new = world.nodes["c"]
    assert await new.store.moves.lived_at(user.pubky) == [world.nodes["a"].key]
    for name in ("a", "b"):
        await world.start(name)
    world.pass_time(5 * REST)
    assert "/priv/between" in await shelf(new, user)
    assert world.nodes["b"].key in await new.store.moves.lived_at(user.pubky)
    await check_nothing_is_lost(world, user)
    await stop(world)


@pytest_twisted.ensureDeferred
async def test_who_may_hand_over() -> None:
    """Only where the account lived; and of what is private there now the answers tell it nothing (I14)."""
    world, user = await left_behind()
    new = world.nodes["b"]
    assert await new.store.moves.lived_at(user.pubky) == [world.nodes["a"].key]
    await world.start("a")
    world.pass_time(2 * REST)
    peering = world.nodes["a"].peering
    assert peering is not None
    source = peering.neighbours[new.key].source

    async def offer(path: str, body: bytes, inline: bool) -> set[int]:
        event = Event(
            *(7, Operation.PUT, user.pubky, path, 99, b"\0" * 16, hash_of(body), len(body)),
            content_type="text/plain",
            modified=1,
        )
        late = LoggedEvent(event, body if inline else None)
        return set(wait(world, source.late(user.pubky, True, [late])))

    assert await world.put(user, "/priv/now", b"a word")
    for body in (b"a word", b"another one"):
        assert await offer("/priv/now", body, inline=False) == set(), "whoever has no body learns nothing"
        assert await offer("/priv/now", body, inline=True) == {7}
    assert [
        one.entry.content_hash for one in (await shelf(new, user)).values() if one.entry and one.path == "/priv/now"
    ] == [hash_of(b"another one")]
    stranger = User(Keypair(b"\x09" * 32))
    await world.sign_up(stranger, "b")
    world.pass_time(5)
    event = Event(7, Operation.DEL, stranger.pubky, "/priv/now", 99, b"\0" * 16)
    with pytest.raises(PeerRefused):
        wait(world, source.late(stranger.pubky, True, [LoggedEvent(event)]))
    await stop(world)


@pytest_twisted.ensureDeferred
async def test_private_files_that_were_read_are_not_offered() -> None:
    """A move with both homeservers there leaves nothing to hand over, and lays nothing on a shelf."""
    world, user = await begin("a", "b")
    world.pass_time(REST)
    assert await world.put(user, "/priv/large", b"p" * 3000)
    await moved(world, user, "b")
    copy = await world.nodes["a"].store.copies.copy(user.pubky)
    assert copy is not None
    assert not copy.owes
    world.pass_time(REST)
    assert await shelf(world.nodes["b"], user) == {}
    assert "/priv/large" in await files(world.nodes["b"], user.pubky, "/priv/")
    await stop(world)


@pytest_twisted.ensureDeferred
async def test_a_copy_ahead_of_the_claimed_one() -> None:
    """What only another copy had of the lost homeserver's writes lies on the shelf of the one that was chosen."""
    world, user = await begin("a", "b", "c", private=True)
    world.pass_time(REST)
    world.wires.cut_off("a", "b")
    assert await world.put(user, "/pub/ahead", b"a" * 3000)
    assert await world.put(user, "/pub/0", b"changed")
    world.pass_time(REST)
    await world.kill("a")
    await moved(world, user, "b")
    assert await world.put(user, "/pub/after", b"x")
    world.pass_time(REST)
    assert (await shelf(world.nodes["b"], user)).keys() == {"/pub/ahead", "/pub/0"}
    assert {one.origin for one in (await shelf(world.nodes["b"], user)).values()} == {world.nodes["c"].key}
    await check_nothing_is_lost(world, user)
    await check_copy(world.nodes["b"], world.nodes["c"], user.pubky, True)
    await stop(world)


@pytest.mark.parametrize("chunk", range(2))
def test_histories(chunk: int) -> None:
    """Moves while homeservers are cut off or gone: every acknowledged write is somewhere (I9); the seed is told."""
    for seed in range(chunk * 12, chunk * 12 + 12):
        failure = run(_history(seed))
        assert failure is None, f"seed {seed}: {failure!r}"


async def _history(seed: int) -> None:
    world, user = await begin("a", "b", "c", seed=seed, private=True)
    random, names = world.random, ["a", "b", "c"]
    for _ in range(random.randrange(1, 3)):
        world.pass_time(REST)
        if random.random() < 0.5:
            world.wires.cut_off(*random.sample(names, 2))
        for _ in range(random.randrange(10)):
            await world.act(user)
        world.pass_time(random.choice([0.25, 5]))
        old = user.home
        await world.kill(old)
        await moved(world, user, random.choice([name for name in names if name != old]))
        for _ in range(random.randrange(10)):
            await world.act(user, random.choice([old, user.home]))
            world.pass_time(0.25)
        world.wires.calm()
        await world.start(old)
        world.pass_time(700)
        await check_nothing_is_lost(world, user)
        for name in names:
            if name != user.home:
                await check_copy(world.nodes[user.home], world.nodes[name], user.pubky, True)
    await stop(world)


@pytest_twisted.ensureDeferred
async def test_revocations_and_takedowns_that_come_late() -> None:
    """A grant that is known here ends at once; an unknown one waits on the shelf; a takedown is nobody's loss."""
    world, user = await begin("a", "b")
    old, new = world.nodes["a"], world.nodes["b"]
    world.pass_time(REST)
    await world.kill("a")
    await moved(world, user, "b")
    for grant_id in ("used", "unused"):
        await old.store.grants.exchange(granted(user, grant_id), f"old {grant_id}", int(NOW), 3600)
        await old.store.grants.revoke(grant_id)
    await old.store.takedowns.take_down(user.pubky, 1)
    await new.store.grants.exchange(granted(user, "used"), "new", int(NOW), 3600)
    assert await new.store.grants.bearer("new") is not None
    await world.start("a")
    world.pass_time(REST)
    assert await new.store.grants.bearer("new") is None
    assert [path for path in await shelf(new, user) if not path.startswith("/priv/")] == ["revoked:unused"]
    assert await new.store.entry(user.pubky, "takedown") is None
    with pytest.raises(GrantRevoked):
        await new.store.grants.exchange(granted(user, "used"), "again", int(NOW), 3600)
    outcomes = await Conflicts(new.store.shelf, new.storage, new.store.grants).apply_untouched(user.pubky)
    assert {one.failure for one in outcomes} == {None}
    assert await shelf(new, user) == {}
    with pytest.raises(GrantRevoked):
        await new.store.grants.exchange(granted(user, "unused"), "again", int(NOW), 3600)
    world.pass_time(REST)
    state, copy = await new.store.log_state(user.pubky, False), await old.store.copies.copy(user.pubky)
    assert state is not None
    assert copy is not None
    assert copy.public.position is not None
    assert (copy.public.position.seq, copy.public.position.digest) == (state.seq, state.digest)
    assert not copy.taken_down
    await stop(world)


@pytest_twisted.ensureDeferred
async def test_who_may_end_a_grant() -> None:
    """What a mere follower says is revoked waits for the operator; what a former home of the account says ends."""
    world, user = await begin("a", "b", "c")
    new = world.nodes["b"]
    world.pass_time(REST)
    await moved(world, user, "b")
    await new.store.grants.exchange(granted(user, "used"), "new", int(NOW), 3600)
    revoked = Event(
        2**40, Operation.PUT, user.pubky, "revoked:used", 2**30, b"\0" * 16, hash_of(b""), 0, "", world.microseconds
    )
    for name, is_believed in (("c", False), ("a", True)):
        peering = world.nodes[name].peering
        assert peering is not None
        source = peering.neighbours[new.key].source
        offering = source.late(user.pubky, False, [LoggedEvent(revoked, b"")])
        assert wait(world, offering) == {revoked.id}
        assert [*await shelf(new, user)] == ["revoked:used"]
        assert (await new.store.grants.bearer("new") is None) is is_believed
    await stop(world)


@pytest_twisted.ensureDeferred
async def test_removals_of_another_history() -> None:
    """A homeserver where the account began anew keeps what was removed there if the primary has it; all else goes."""
    world = World(Random(1), mutual("a", "b"))
    user = User(Keypair(b"\x01" * 32))
    await world.sign_up(user, "a")
    for name in world.nodes:
        await world.start(name)
    world.wires.cut_off("a", "b")
    for path in ("/pub/both", "/pub/kept"):
        assert await world.put(user, path, b"first", "a")
    assert await world.claim(user, "b")  # it has no copy, so this is somebody new
    for path in ("/pub/both", "/pub/there"):
        assert await world.put(user, path, b"second", "b")
        assert await world.delete(user, path, "b")
    await world.point(user, "a")
    world.wires.calm()
    world.pass_time(700)
    assert {path: one.entry for path, one in (await shelf(world.nodes["b"], user)).items()} == {"/pub/both": None}
    assert (await shelf(world.nodes["a"], user)) == {}
    await check_nothing_is_lost(world, user)
    await check_copy(world.nodes["a"], world.nodes["b"], user.pubky)
    await stop(world)
