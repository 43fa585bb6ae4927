"""Accounts that move between homeservers under load, with and without the help of the old one."""

import random
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.faults.mirroring.checker import Violation, check_equal, check_fence, check_kept, check_primary
from tests.faults.mirroring.history import Call
from tests.faults.mirroring.world import Link, Load, Somebody, World, world
from tests.process import until

PATHS = tuple(f"/pub/{number}" for number in range(12))
MUTUAL: dict[Link, dict[str, object]] = {("bob", "alice"): {}, ("alice", "bob"): {}}
PROMOTION = 20.0  # seconds; the goal of five is measured on a quiet machine, by the bench


@pytest.fixture
def both(tmp_path: Path, chance: random.Random) -> Iterator[World]:
    """Alice's and Bob's homeservers mirror each other."""
    with world(tmp_path, chance, MUTUAL) as here:
        yield here


def load(here: World, user: Somebody, node: str) -> Load:
    """Writes at one of them."""
    return Load(here.client(user, node), random.Random(here.random.random()), PATHS, 0.005)


def until_it_writes(here: World, user: Somebody, node: str) -> float:
    """Wait until a homeserver accepts writes of a user; the seconds that it took."""
    began, client = time.monotonic(), here.client(user, node)
    here.until(lambda: client.put("/pub/first", b"first at " + node.encode()) in (200, 201), PROMOTION)
    return time.monotonic() - began


def judge(here: World, user: Somebody, home: str, copy: str) -> Sequence[Call]:
    """Wait until it is quiet at its new home; no acknowledged write is missing, and nobody wrote after the fence."""
    primary, other = here.until_equal(user, home, copy, moved=True)
    check_primary(primary, moved=True)
    check_equal(primary, other, moved=True)
    calls = here.history.of(user.pubky)
    check_kept(calls, primary, ())
    assert not here.shelf(home, user)
    assert not here.shelf(copy, user)
    return calls


def until_copied(here: World, user: Somebody, node: str) -> None:
    """Wait until a copy has all files: a user whose account nobody has copied yet begins anew elsewhere."""
    here.until(lambda: (here.copy(node, user) or {}).get("state") == "current")


def test_a_planned_move_under_load(both: World) -> None:
    """I6, I8, I9: while both run and the user writes on, nothing is lost, and the old home becomes the copy."""
    user = both.somebody("alice")
    with load(both, user, "alice"):
        until_copied(both, user, "bob")
        time.sleep(1)  # that long the load runs
        assert both.sign_up(user, "bob") == 200
        time.sleep(0.3)  # that long a claim waits for its record
        both.publish(user, "bob")
        until_it_writes(both, user, "bob")
        with load(both, user, "bob"):
            time.sleep(1)  # that long the load runs
    calls = judge(both, user, "bob", "alice")
    check_fence([call for call in calls if call.node == "alice"])


def test_a_planned_move_from_one_who_is_slow(both: World) -> None:
    """I6, I8, I9: the same while the old home stands still for a while; it is waited for."""
    user = both.somebody("alice")
    with load(both, user, "alice"):
        until_copied(both, user, "bob")
        assert both.sign_up(user, "bob") == 200
        time.sleep(0.3)  # that long a claim waits for its record
        both.nodes["alice"].signal(signal.SIGSTOP)
        try:
            both.publish(user, "bob")
            time.sleep(1.5)  # that long it stands still
        finally:
            both.nodes["alice"].signal(signal.SIGCONT)
        until_it_writes(both, user, "bob")
        with load(both, user, "bob"):
            time.sleep(0.5)  # that long the load runs
    calls = judge(both, user, "bob", "alice")
    check_fence([call for call in calls if call.node == "alice"])


def test_a_move_when_the_primary_burned(both: World) -> None:
    """I6: a copy that was up to date opens with all of it."""
    user = both.somebody("alice")
    with load(both, user, "alice"):
        time.sleep(0.7)  # that long the load runs
    both.until_equal(user, "alice", "bob")
    both.nodes["alice"].kill()
    assert both.sign_up(user, "bob") == 200
    both.publish(user, "bob")
    until_it_writes(both, user, "bob")
    both.start("alice")
    judge(both, user, "bob", "alice")
    assert both.client(user, "alice").put("/pub/first", b"too late") == 421


def judge_late(here: World, user: Somebody) -> None:
    """Wait until every acknowledged write is at Bob's, superseded, or on a shelf; and both show the same."""
    said: list[str] = []

    def look() -> bool:
        time.sleep(0.1)  # how often it is asked again
        shelf = here.shelf("bob", user) | here.shelf("alice", user)
        try:
            check_kept(here.history.of(user.pubky), here.dump("bob", user), shelf)
        except Violation as violation:
            said[:] = [str(violation)]
            return False
        return True

    until(look, 60, lambda: f"{said} {here.nodes['alice'].log()[-3000:]} {here.nodes['bob'].log()[-3000:]}")
    primary, _ = here.until_equal(user, "bob", "alice", moved=True)
    check_primary(primary, moved=True)
    calls = here.history.of(user.pubky)
    check_kept(calls, primary, here.shelf("bob", user) | here.shelf("alice", user))
    check_fence([call for call in calls if call.node == "alice"])


def test_a_tail_that_nobody_had(both: World) -> None:
    """I9: what the old primary took alone before it burned is on a shelf when it is back."""
    user = both.somebody("alice")
    client = both.client(user, "alice")
    client.put("/pub/start", b"at alice")
    both.until_equal(user, "alice", "bob")
    both.ways["bob", "alice"].split()
    both.ways["alice", "bob"].split()
    for number in range(10):
        assert client.put(f"/pub/tail/{number}", b"%d" % number * 1000 * number) == 201
    assert client.delete("/pub/start") == 204
    both.nodes["alice"].kill()
    both.heal()
    assert both.sign_up(user, "bob") == 200
    both.publish(user, "bob")
    until_it_writes(both, user, "bob")
    assert both.client(user, "bob").put("/pub/tail/3", b"at bob") == 201
    both.start("alice")
    judge_late(both, user)
    assert len(both.shelf("bob", user)) >= 10


def test_both_accept_writes(both: World) -> None:
    """I8, I9: while the old primary cannot learn of the record it writes on: its writes wait on the new one's shelf."""
    user = both.somebody("alice")
    with load(both, user, "alice"):
        time.sleep(0.5)  # that long the load runs
    both.until_equal(user, "alice", "bob")
    for way in (("bob", "alice"), ("alice", "bob"), ("alice", "relay")):
        both.ways[way].split()
        both.ways[way].reset()
    assert both.sign_up(user, "bob") == 200
    both.publish(user, "bob")
    with load(both, user, "alice"):
        until_it_writes(both, user, "bob")
        with load(both, user, "bob"):
            time.sleep(0.5)  # that long the load runs
        both.heal()
        time.sleep(2)  # that long both write, and hear of each other
    judge_late(both, user)


def test_there_and_back_again(both: World) -> None:
    """I3, I9, I12: from one to the other and back, and last to the other: each time the newest record rules."""
    user = both.somebody("alice")
    both.client(user, "alice").put("/pub/start", b"at alice")
    both.until_equal(user, "alice", "bob")
    for home, copy in (("bob", "alice"), ("alice", "bob"), ("bob", "alice")):
        assert both.sign_up(user, home) == 200
        both.publish(user, home)
        until_it_writes(both, user, home)
        with load(both, user, home):
            time.sleep(0.3)  # that long the load runs
        judge(both, user, home, copy)
