"""Homeservers that end at every step of mirroring, with their Redis or a moment before it: nobody has to help.

Where they end is known here, unlike in `test_kills`: before, within and after each step that leaves something behind.
Several ends come in a row, each while the homeserver still recovers from the one before.
"""

import random
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.faults.mirroring.checker import check_at_rest, check_equal, check_fence, check_kept, check_primary
from tests.faults.mirroring.failpoints import PROGRAM, Point, is_armed
from tests.faults.mirroring.test_lost_time import back_up, rewind
from tests.faults.mirroring.test_lost_time import judge as judge_shelved
from tests.faults.mirroring.test_records import until_it_writes
from tests.faults.mirroring.world import Link, Load, Reader, Somebody, World, world
from tests.process import STOP, until

PATHS = tuple(f"/pub/{number}" for number in range(12))
MUTUAL: dict[Link, dict[str, object]] = {("bob", "alice"): {}, ("alice", "bob"): {}}
REACHED = 60.0  # seconds for a point; most need one, but a peer that died may be waited for, 20 at a time
FILES = 550  # of a list: the store takes them in three parts

End = tuple[str, Point]
"""Which homeserver ends, and where."""


def ends(name: str, chance: random.Random, *points: str) -> list[End]:
    """Ends of a homeserver: each point as `when step`, or `when step time`; Redis lives on or not by chance."""
    found = []
    for one in points:
        when, step, *times = one.split()
        count = int(times[0]) if times else 1
        found.append((name, Point(step, when, count, chance.choice(("alone", "together")))))
    return found


def chain(here: World, row: Iterable[End], begin: Callable[[], object] = lambda: None) -> None:
    """One end after the other of each homeserver; `begin` is called when the first ones are set. At last all run."""
    left: dict[str, list[Point]] = {}
    for name, point in row:
        left.setdefault(name, []).append(point)
    for name, points in left.items():
        points[0].arm(here.nodes[name].folder)
    with suppress(OSError, HTTPException):  # the end may come while a client waits
        begin()
    while left:
        name = until(partial(ended, here, left), REACHED, partial(not_reached, here, left))
        node, points = here.nodes[name], left[name]
        assert node.process is not None
        assert node.process.wait(STOP) == -signal.SIGKILL
        if points.pop(0).redis == "together":
            node.kill()
        if points:
            points[0].arm(node.folder)
        else:
            del left[name]
        try:
            here.start(name)
        except AssertionError:
            if name not in left or is_armed(node.folder):
                raise  # else it has come to the next point while it started


def ended(here: World, left: Mapping[str, Sequence[Point]]) -> str | None:
    """A homeserver that has come to its point; None if none has."""
    return next((name for name in left if not is_armed(here.nodes[name].folder)), None)


def not_reached(here: World, left: Mapping[str, Sequence[Point]]) -> str:
    """What is waited for in vain."""
    return " ".join(f"{name} never came to: {points[0]}{here.nodes[name].written()}" for name, points in left.items())


@contextmanager
def trying(act: Callable[[], bool]) -> Iterator[Callable[[], object]]:
    """Try something in the background, from when it is called until it is done or nobody wants it any more."""
    begun, over = threading.Event(), threading.Event()

    def go_on() -> None:
        begun.wait()
        while not over.wait(0.05):
            with suppress(OSError, HTTPException, KeyError):
                if act():
                    return

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield begun.set
    finally:
        over.set()
        begun.set()
        thread.join(60)


def load(here: World, user: Somebody, node: str = "alice") -> Load:
    """Writes of all kinds."""
    return Load(here.client(user, node), random.Random(here.random.random()), PATHS, 0.004, longest=20_000)


def reader(here: World, user: Somebody, paths: tuple[str, ...] = PATHS) -> Reader:
    """Reads at Bob's."""
    return Reader(here.client(user, "bob"), random.Random(here.random.random()), paths, 0.01)


def judge(here: World, user: Somebody) -> None:
    """Wait until both show the same, and check everything."""
    primary, copy = here.until_equal(user, "alice", "bob")
    check_at_rest(primary, [copy], here.history.of(user.pubky))


@pytest.fixture
def both(tmp_path: Path, chance: random.Random) -> Iterator[World]:
    """Alice's and Bob's homeservers mirror each other."""
    with world(tmp_path, chance, MUTUAL, program=PROGRAM) as here:
        yield here


def test_a_primary_that_ends_while_it_writes(both: World, chance: random.Random) -> None:
    """I3, I5, I11, I24: no acknowledged write is missing, at whatever step of a write the end came."""
    user = both.somebody("alice")
    points = ["before put", "in put", "after put", "before delete", "in delete", "after delete"]
    points += ["before flush", "after flush", "before name", "after name"]
    for point in points:
        row = ends("alice", chance, f"{point} {chance.randrange(1, 8)}")
        with reader(both, user), load(both, user):
            chain(both, row)
        judge(both, user)
    with load(both, user):
        chain(both, ends("alice", chance, "before keep_packet"), lambda: both.publish(user, "alice"))
        chain(both, ends("alice", chance, "after keep_packet"), lambda: both.publish(user, "alice"))
    judge(both, user)


def test_a_mirror_that_ends_while_it_follows(both: World, chance: random.Random) -> None:
    """I2, I3, I11, I24: a copy goes on where it stood, at whatever step of an event the end came."""
    user = both.somebody("alice")
    points = ["before apply", "in apply", "after apply", "before flush", "after flush", "before name", "after name"]
    for point in points:
        row = ends("bob", chance, f"{point} {chance.randrange(1, 8)}")
        with reader(both, user), load(both, user):
            chain(both, row)
        judge(both, user)
    with reader(both, user), load(both, user):
        chain(both, ends("bob", chance, "before confirm", "in confirm", "after confirm", "in apply 2", "after name"))
    judge(both, user)


@pytest.mark.parametrize("when", ["before", "in", "after"])
def test_a_mirror_that_ends_while_a_copy_begins(both: World, chance: random.Random, when: str) -> None:
    """I2, I10, I11, I24: a list goes on where it was left, and nothing is called missing until it is whole."""
    both.nodes["bob"].stop()
    user = both.somebody("alice")
    client = both.client(user, "alice")
    names = [f"/pub/{number:04}" for number in range(FILES)]
    for name in names:
        assert client.put(name, name.encode() * 300 if chance.random() < 0.05 else name.encode()) == 201
    steps = ["begin_copy", "begin_list", "keep_listed 2", "keep_listed", "end_list", "fill 3", "fill 20"]
    row = ends("bob", chance, *(f"{when} {step}" for step in steps))
    with reader(both, user, tuple(names)):
        chain(both, row, lambda: both.start("bob"))
        client.delete(names[0])
    judge(both, user)


def test_ends_while_histories_are_compared(both: World, chance: random.Random) -> None:
    """I9, I20, I24: a primary lost time, and both end while its tail is rescued and the copy is repaired."""
    user = both.somebody("alice")
    client = both.client(user, "alice")
    for path in PATHS:
        assert client.put(path, chance.randbytes(chance.randrange(9000))) == 201
    both.until_equal(user, "alice", "bob")
    backup = back_up(both, "alice")
    for row in (
        [
            *ends("alice", chance, "before shelve 2", "in shelve", "after shelve"),
            *ends("bob", chance, "before begin_list"),
        ],
        [*ends("bob", chance, "after begin_list", "before keep_listed", "in keep_listed")],
        [*ends("bob", chance, "after keep_listed", "before end_list"), *ends("bob", chance, "after end_list")],
    ):
        client = both.client(user, "alice")
        for number in range(4):
            assert client.put(f"/pub/late/{number}", chance.randbytes(chance.randrange(9000))) == 201
        assert client.put(PATHS[0], chance.randbytes(6000)) == 201
        assert client.delete(PATHS[1]) == 204
        both.until_equal(user, "alice", "bob", moved=True)
        chain(both, row, lambda: rewind(both, "alice", backup))
        judge_shelved(both, user, "alice", "bob")


def move(here: World, user: Somebody, old: str, new: str, begins: Iterable[str], goes_on: Iterable[str]) -> None:
    """Move an account; the new home ends while its user signs up, then both end at each step on the way."""
    chance, began = here.random, time.monotonic()
    user.cookies.pop(new, None)  # a session from before it was fenced counts for nothing
    with trying(lambda: 200 in (here.sign_up(user, new), here.sign_in(user, new))) as begin:
        for point in begins:
            chain(here, ends(new, chance, point), begin)
        begin()
        here.until(lambda: new in user.cookies)
    early, late = goes_on
    row = [*ends(old, chance, f"{early} keep_packet", f"{late} keep_packet")]
    row += ends(new, chance, *(f"{when} {step}" for step in ("open_account", "announce") for when in (early, late)))
    writer = here.client(user, new)
    with load(here, user, old), trying(lambda: writer.put("/pub/first", b"x") == 201) as begin:
        begin()
        chain(here, row, lambda: here.publish(user, new))
    until_it_writes(here, user, new)
    primary, copy = here.until_equal(user, new, old, moved=True)
    check_primary(primary, moved=True)
    check_equal(primary, copy, moved=True)
    calls = here.history.of(user.pubky)
    check_fence([call for call in calls if call.node == old and call.start > began])
    check_kept(calls, primary, here.shelf(new, user) | here.shelf(old, user))


def test_ends_while_an_account_moves(both: World, chance: random.Random) -> None:
    """I6, I8, I9, I24: there and back, and both homes end at each step on the way."""
    user = both.somebody("alice")
    client = both.client(user, "alice")
    for number in range(300):
        assert client.put(f"/pub/many/{number}", b"%d" % number) == 201
    both.until_equal(user, "alice", "bob")
    move(both, user, "alice", "bob", ("before sign_up", "after sign_up"), ("before", "after"))
    move(both, user, "bob", "alice", (), ("before", "in"))


def test_ends_while_a_copy_is_erased(tmp_path: Path, chance: random.Random) -> None:
    """I11, I24: an order that was given is obeyed in the end, and nothing of the account comes back."""
    links: dict[Link, dict[str, object]] = {("bob", "alice"): {}}
    changes = {"bob": {"blobs": {"erased_grace": 4}}}
    with world(tmp_path, chance, links, changes=changes, program=PROGRAM) as here:
        user, other = here.somebody("alice"), here.somebody("alice")
        for one in (user, other):
            client = here.client(one, "alice")
            for path in PATHS:
                assert client.put(path, chance.randbytes(9000)) == 201
            here.until_equal(one, "alice", "bob")

        def order() -> bool:
            return bool(here.operator("alice", f"/mirrors/erase?pubky={user.pubky}", "POST")["ordered"] == 1)

        with trying(order) as begin:
            chain(here, ends("alice", chance, "before HSET", "after HSET"), begin)
        row = [
            *ends("bob", chance, "before hide_copy", "after hide_copy"),
            *ends("alice", chance, "before settle_order", "in settle_order"),
            *ends("bob", chance, "before wipe_copy", "after wipe_copy"),
        ]
        with trying(order) as begin:
            chain(here, row, begin)
        here.until(lambda: all(one["receipt"] for one in here.operator("alice", "/mirrors")["orders"]))
        assert here.client(other, "alice").put("/pub/more", b"x") == 201
        judge(here, other)
        assert here.copy("bob", user) is None
        assert here.nodes["bob"].ask("GET", f"/storage/{user.pubky}/pub/1")[0].status == 404
        assert len(here.dump("alice", user).files) == len(PATHS)
