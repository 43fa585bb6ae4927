"""A mirror that lost time, among four: its database is an old one, or a byte of a body has changed on its disk."""

import random
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.mirroring.checker import check_at_rest
from tests.faults.mirroring.test_lost_time import back_up, rewind
from tests.faults.mirroring.world import Link, Load, Somebody, World, world

PATHS = tuple(f"/pub/{number}" for number in range(20))
LINKS: dict[Link, dict[str, object]] = {
    **{("bob", "alice"): {}, ("carol", "bob"): {}, ("alice", "carol"): {}},
    **{("dave", home): {} for home in ("alice", "bob", "carol")},
}
"""Three in a ring, and a fourth that follows all of them."""

BOUND = 30.0  # seconds until a mirror that lost time is right again; on a quiet machine it takes one


def write(here: World, users: dict[str, Somebody], seconds: float) -> None:
    """Everybody writes."""
    with ExitStack() as stack:
        for home, user in users.items():
            stack.enter_context(Load(here.client(user, home), random.Random(here.random.random()), PATHS, pause=0.02))
        time.sleep(seconds)  # that long the load runs


def judge(here: World, users: dict[str, Somebody]) -> None:
    """All copies are right, and nothing was taken for late or lost."""
    for home, user in users.items():
        copies = [copy for copy, followed in LINKS if followed == home]
        primary, *rest = here.until_equal(user, home, *copies)
        check_at_rest(primary, rest, [call for call in here.history.of(user.pubky) if call.node != "dave"])
        for name in here.nodes:
            assert not here.shelf(name, user), name


def test_a_mirror_that_was_rewound(tmp_path: Path, chance: random.Random) -> None:
    """I1, I20: a mirror with yesterday's database finds the events since, and nobody loses anything by it."""
    with world(tmp_path, chance, LINKS) as here:
        users = {home: here.somebody(home) for home in ("alice", "bob", "carol")}
        write(here, users, 1)
        judge(here, users)
        backup = back_up(here, "dave")
        write(here, users, 1)
        judge(here, users)
        rewind(here, "dave", backup)
        began = time.monotonic()
        for home, user in users.items():
            here.until_equal(user, home, "dave")
        assert time.monotonic() - began < BOUND
        write(here, users, 0.5)
        judge(here, users)


def flip(here: World, node: str, chance: random.Random) -> None:
    """A bit of the largest body on a disk changes."""
    blobs = [file for file in (here.nodes[node].data / "blobs").rglob("*") if file.is_file()]
    broken = max(blobs, key=lambda file: file.stat().st_size)
    data = bytearray(broken.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    broken.chmod(0o600)
    broken.write_bytes(data)


@pytest.mark.parametrize("node", ["dave", "bob"])
def test_a_disk_that_forgets(tmp_path: Path, chance: random.Random, node: str) -> None:
    """I1: a byte that changed in a body is found by `mirror verify`, fetched again, and nobody reads it meanwhile.

    At the fourth homeserver it is that of a copy; at one of the ring it may be that of its own user, whose body comes
    back from a copy.
    """
    with world(tmp_path, chance, LINKS) as here:
        users = {home: here.somebody(home) for home in ("alice", "bob", "carol")}
        write(here, users, 1)
        for home, user in users.items():
            size = 50_000 if home == "alice" else 60_000 if home == "bob" else 40_000
            assert here.client(user, home).put("/pub/large", chance.randbytes(size)) == 201
        judge(here, users)
        flip(here, node, chance)
        here.operator(node, "/mirrors/verify", "POST")
        told = here.until(lambda: (now := here.operator(node, "/mirrors/verify")) and now["ended"] and now)
        assert (told["wrong"], told["missing"], told["different"]) == (1, 0, 0)
        judge(here, users)
        write(here, users, 0.5)
        judge(here, users)
