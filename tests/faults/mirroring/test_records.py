"""Records that change faster than homeservers hear of them, that name strangers, or that are renewed for nothing."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pkarr.keys import Keypair
from tests.faults.mirroring.checker import check_at_rest, check_fence
from tests.faults.mirroring.test_lost_time import judge
from tests.faults.mirroring.world import Link, Load, Somebody, World, world

PATHS = tuple(f"/pub/{number}" for number in range(12))
MUTUAL: dict[Link, dict[str, object]] = {("bob", "alice"): {}, ("alice", "bob"): {}}


@pytest.fixture
def both(tmp_path: Path, chance: random.Random) -> Iterator[World]:
    """Alice's and Bob's homeservers mirror each other."""
    with world(tmp_path, chance, MUTUAL) as here:
        yield here


def load(here: World, user: Somebody, node: str) -> Load:
    """Writes at one of them."""
    return Load(here.client(user, node), random.Random(here.random.random()), PATHS, 0.005)


def until_it_writes(here: World, user: Somebody, node: str) -> None:
    """Wait until a homeserver accepts writes of a user, who signs in again where the session has ended."""

    def writes() -> bool:
        if here.client(user, node).put("/pub/first", b"first at " + node.encode()) in (200, 201):
            return True
        if here.sign_in(user, node) != 200:
            here.sign_up(user, node)
        time.sleep(0.1)  # how often it is asked again
        return False

    here.until(writes)


def test_a_record_that_goes_there_and_back(both: World) -> None:
    """I3, I9, I12: five records within seconds, and writes at both all the time: the newest rules, and nothing is lost.

    Neither homeserver need have seen each of them, nor in time.
    """
    user = both.somebody("alice")
    with load(both, user, "alice"):
        time.sleep(0.4)  # that long the load runs
    both.until_equal(user, "alice", "bob")
    assert both.sign_up(user, "bob") == 200
    with load(both, user, "alice"), load(both, user, "bob"):
        for home in ("bob", "alice", "bob", "alice", "bob"):
            both.publish(user, home)
            time.sleep(both.random.uniform(0.05, 0.8))  # that long a record rules
    until_it_writes(both, user, "bob")
    with load(both, user, "bob"):
        time.sleep(0.3)  # that long the load runs
    judge(both, user, "bob", "alice")
    assert both.client(user, "alice").put("/pub/first", b"too late") in (401, 421)


def test_a_record_that_names_a_stranger(both: World) -> None:
    """I8, I9, I12: an account whose record names somebody unknown takes no writes anywhere, is read on, and comes back.

    The mirror does not open it, though its user signed up there before.
    """
    both.keys["stranger"] = Keypair.random()
    user = both.somebody("alice")
    with load(both, user, "alice"):
        time.sleep(0.4)  # that long the load runs
    before, _ = both.until_equal(user, "alice", "bob")
    assert both.sign_up(user, "bob") == 200
    both.publish(user, "stranger")
    client = both.client(user, "alice")
    both.until(lambda: client.put("/pub/first", b"x") in (401, 421))
    time.sleep(1)  # time for what must not come
    assert both.client(user, "bob").put("/pub/first", b"y") in (401, 421, 503)
    for node in ("alice", "bob"):
        shown = both.dump(node, user).files
        assert {path: shown[path] for path in before.files if path != "/pub/first"}.items() <= before.files.items()
    check_fence([call for call in both.history.of(user.pubky) if call.node == "alice"])
    both.publish(user, "alice")
    until_it_writes(both, user, "alice")
    judge(both, user, "alice", "bob")


def test_a_record_of_a_stale_device(both: World) -> None:
    """I3, I8, I9, I12: a device that remembers the old home signs for it again: that rules, and nothing is lost by it.

    Nobody signs up or in there; the old home knows its user. Its operator sees that the account went back and forth,
    and the user's next record takes it away again.
    """
    user = both.somebody("alice")
    with load(both, user, "alice"):
        time.sleep(0.3)  # that long the load runs
    both.until_equal(user, "alice", "bob")
    assert both.sign_up(user, "bob") == 200
    both.publish(user, "bob")
    until_it_writes(both, user, "bob")
    both.until_equal(user, "bob", "alice", moved=True)
    with load(both, user, "bob"):
        time.sleep(0.3)  # that long the load runs
        both.publish(user, "alice")
        both.until(lambda: both.copy("bob", user))
        time.sleep(0.3)  # that long the load runs
    both.until(lambda: both.copy("alice", user) is None)
    judge(both, user, "alice", "bob")
    check_fence([call for call in both.history.of(user.pubky) if call.node == "bob"])
    moved = [one for one in both.operator("alice", "/mirrors")["moves"] if one["pubky"] == user.pubky]
    assert any(one["is_back"] for one in moved), moved
    both.publish(user, "bob")
    until_it_writes(both, user, "bob")
    judge(both, user, "bob", "alice")


def test_a_move_by_way_of_a_stale_copy(tmp_path: Path, chance: random.Random) -> None:
    """I9, I12: from one home to the next, and to a third whose copy is old while nobody can tell it the rest.

    It opens with what it has. When the others are back, what they took is there, was superseded, or is on a shelf.
    """
    names = ("alice", "bob", "carol")
    links: dict[Link, dict[str, object]] = {(copy, home): {} for copy in names for home in names if copy != home}
    with world(tmp_path, chance, links) as here:
        user = here.somebody("alice")
        with load(here, user, "alice"):
            time.sleep(0.3)  # that long the load runs
        here.until_equal(user, "alice", "bob", "carol")
        for way in [("carol", "alice"), ("carol", "bob"), ("alice", "carol"), ("bob", "carol")]:
            here.ways[way].split()
            here.ways[way].reset()
        for home in ("alice", "bob"):
            if home == "bob":
                assert here.sign_up(user, home) == 200
                here.publish(user, home)
                until_it_writes(here, user, home)
            with load(here, user, home):
                time.sleep(0.3)  # that long the load runs
        here.until_equal(user, "bob", "alice", moved=True)
        for home in ("alice", "bob"):
            here.nodes[home].kill()
        here.heal()
        assert here.sign_up(user, "carol") == 200
        here.publish(user, "carol")
        until_it_writes(here, user, "carol")
        with load(here, user, "carol"):
            time.sleep(0.3)  # that long the load runs
        for home in ("alice", "bob"):
            here.start(home)
        judge(here, user, "carol", "alice", "bob")
        for home in ("alice", "bob"):
            assert here.client(user, home).put("/pub/first", b"too late") in (401, 421)


def test_a_record_that_is_renewed(both: World) -> None:
    """I3, I12: fifty newer records that name the same homeserver change nothing: no reign, no fence, no doubt."""
    user = both.somebody("alice")
    with load(both, user, "alice"):
        for _ in range(50):
            both.publish(user, "alice")
            time.sleep(0.02)  # the pace of the records
    primary, copy = both.until_equal(user, "alice", "bob")
    check_at_rest(primary, [copy], both.history.of(user.pubky))
    told = both.copy("bob", user)
    assert told is not None
    assert not told["forked"]
    assert not both.shelf("alice", user) | both.shelf("bob", user)
    assert user.cookies.keys() == {"alice"}
    assert both.client(user, "alice").put("/pub/after", b"x") == 201, "the session goes on"
