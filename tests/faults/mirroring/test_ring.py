"""Three homeservers that mirror each other, a fourth that follows all of them, and a fifth that follows the fourth.

No write runs in circles, and copies of copies do not come about. What the fourth has lost, a byte or a day, it finds
and fetches again, and the three do not ask each other about any account because of that.
"""

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from pubky_homeserver.store import schema
from tests.faults.mirroring.checker import check_at_rest
from tests.faults.mirroring.test_lost_time import back_up, rewind
from tests.faults.mirroring.world import SETTLED, Link, Load, Somebody, World, world
from tests.faults.test_kill import redis_of

RING = ("alice", "bob", "carol")
LINKS: dict[Link, dict[str, object]] = {
    **{(copy, home): {} for home in RING for copy in RING if copy != home},
    **{("dave", home): {} for home in RING},
    ("erin", "dave"): {},
}
"""Who follows whom."""

PATHS = tuple(f"/pub/{number}" for number in range(20))
LISTENING = 6.0  # seconds: more than from one beat to the next
BOUND = 30.0  # seconds until a mirror that lost time is right again; on a quiet machine it takes one


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """They run."""
    with world(tmp_path_factory.mktemp("ring"), random.Random(0), LINKS) as here:
        yield here


@pytest.fixture
def ring(five: World, chance: random.Random) -> World:
    """The same five for each test, which has users of its own."""
    five.random = chance
    return five


def people(here: World, each: int = 1) -> dict[str, list[Somebody]]:
    """New users of each of the three."""
    return {home: [here.somebody(home) for _ in range(each)] for home in RING}


def write(here: World, users: dict[str, list[Somebody]], seconds: float) -> None:
    """Everybody writes."""
    with ExitStack() as stack:
        for home, living in users.items():
            for user in living:
                load = Load(here.client(user, home), random.Random(here.random.random()), PATHS, pause=0.02)
                stack.enter_context(load)
        time.sleep(seconds)  # that long the load runs


def judge_quiet(here: World) -> None:
    """Nobody of the three asks another one anything from 2 s after the last write on."""
    last = max(call.start for call in here.history.calls if call.is_write)
    time.sleep(max(0.0, last + SETTLED + LISTENING - time.monotonic()))  # nothing may be asked in the last part of it
    between = asked(here, last + SETTLED)
    assert len(between) == 6
    assert not any(between.values()), between


def asked(here: World, since: float) -> dict[Link, list[str]]:
    """What the three have asked each other since then."""
    return {way: proxy.asked(since) for way, proxy in here.ways.items() if {*way} <= {*RING}}


def check_undisturbed(here: World, since: float) -> None:
    """Nobody of the three has asked another one about any account since then.

    Who starts has a new record, which its peers tell each other, once.
    """
    for way, targets in asked(here, since).items():
        assert {*targets} <= {"/peer/v1/hello", "/peer/v1/packets"}, (way, targets)
        assert len(targets) <= 2, (way, targets)


def judge(here: World, users: dict[str, list[Somebody]], *others: str) -> None:
    """All copies are right, with the same digests, and nothing was taken for late or lost."""
    for home, living in users.items():
        copies = [name for name in (*RING, *others) if name != home]
        for user in living:
            primary, *rest = here.until_equal(user, home, *copies)
            check_at_rest(primary, rest, [call for call in here.history.of(user.pubky) if call.node in RING])
            digests = [redis_of(here.nodes[home]).ask("HGET", schema.account(user.pubky), "pub.digest")]
            digests += [
                redis_of(here.nodes[name]).ask("HGET", schema.copy(user.pubky), "pub.digest") for name in copies
            ]
            assert len(digests[0]) == 16
            assert len({*digests}) == 1
            for name in (home, *copies):
                assert not here.shelf(name, user), name
    assert here.operator("erin", "/mirrors")["copies"] == [], "of a copy there are no copies"


def flip(here: World, node: str) -> None:
    """A bit of the largest body on a disk changes."""
    blobs = [file for file in (here.nodes[node].data / "blobs").rglob("*") if file.is_file()]
    broken = max(blobs, key=lambda file: file.stat().st_size)
    data = bytearray(broken.read_bytes())
    data[here.random.randrange(len(data))] ^= 1 << here.random.randrange(8)
    broken.chmod(0o600)
    broken.write_bytes(data)


def verify(here: World, node: str) -> None:
    """The operator has everything verified: one body is wrong, and is right again."""
    here.operator(node, "/mirrors/verify", "POST")
    told = here.until(lambda: (now := here.operator(node, "/mirrors/verify")) and now["ended"] and now)
    assert (told["wrong"], told["missing"], told["different"]) == (1, 0, 0)


def test_a_ring_goes_quiet_and_a_fourth_joins(ring: World) -> None:
    """I13, I1: 2 s after the last write nobody asks anybody anything, and copies are equal; so it is with one more.

    A byte of a body changes on the disk of the fourth: it is found, and fetched again.
    """
    ring.nodes["dave"].stop()
    users = people(ring, 3)
    write(ring, users, 4)
    judge_quiet(ring)
    judge(ring, users)
    assert all(asked(ring, 0).values())
    began = time.monotonic()
    ring.start("dave")
    judge(ring, users, "dave")
    check_undisturbed(ring, began)
    assert ring.client(users["alice"][0], "alice").put("/pub/large", ring.random.randbytes(70_000)) == 201
    judge(ring, users, "dave")
    time.sleep(SETTLED)  # then the three are quiet again
    began = time.monotonic()
    flip(ring, "dave")
    verify(ring, "dave")
    judge(ring, users, "dave")
    check_undisturbed(ring, began)
    write(ring, users, 0.5)
    judge_quiet(ring)
    judge(ring, users, "dave")


def test_a_body_that_a_primary_lost(ring: World) -> None:
    """I1: a byte that changed in a body is found by `mirror verify` and comes back from a copy."""
    users = people(ring)
    write(ring, users, 1)
    assert ring.client(users["bob"][0], "bob").put("/pub/large", ring.random.randbytes(200_000)) == 201
    judge(ring, users, "dave")
    flip(ring, "bob")
    verify(ring, "bob")
    judge(ring, users, "dave")


def test_a_mirror_that_was_rewound(ring: World) -> None:
    """I1, I13, I20: a mirror with yesterday's database finds the events since, and nobody loses anything by it."""
    users = people(ring)
    write(ring, users, 1)
    judge(ring, users, "dave")
    backup = back_up(ring, "dave")
    write(ring, users, 1)
    judge_quiet(ring)
    judge(ring, users, "dave")
    began = time.monotonic()
    rewind(ring, "dave", backup)
    for home, living in users.items():
        ring.until_equal(living[0], home, "dave")
    assert time.monotonic() - began < BOUND
    check_undisturbed(ring, began)
    write(ring, users, 0.5)
    judge_quiet(ring)
    judge(ring, users, "dave")
