"""A copy and its primary under load and faults: after each scenario both show the same, and never showed anything else.

The seed decides what is written and what goes wrong; a failed test prints it. More rounds: `MIRROR_ROUNDS`.
"""

import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.mirroring.checker import check_at_rest
from tests.faults.mirroring.world import Load, Reader, Somebody, World, world

PATHS = tuple(f"/pub/{name}" for name in ("a", "b", "c/d", "c/e", "f g", "z"))
SMALL, WRITERS = (
    2500,
    4,
)  # small files, three pages of a list, that several clients write at once, each a large one, too


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Bob follows Alice."""
    with world(tmp_path_factory.mktemp("pair"), random.Random(0), {("bob", "alice"): {}}) as here:
        yield here


@pytest.fixture
def pair(running: World, chance: random.Random) -> Iterator[World]:
    """The same two for many scenarios; each has users of its own, and ways that work."""
    running.random = chance
    running.heal()
    yield running
    running.heal()


def judge(here: World, user: Somebody) -> None:
    """Wait until it is quiet, and check everything."""
    primary, copy = here.until_equal(user, "alice", "bob")
    check_at_rest(primary, [copy], here.history.of(user.pubky))


def load(here: World, user: Somebody, **rest: Any) -> Load:
    """Writes at Alice's."""
    return Load(here.client(user, "alice"), random.Random(here.random.random()), PATHS, **rest)


def reader(here: World, user: Somebody) -> Reader:
    """Reads at Bob's."""
    return Reader(here.client(user, "bob"), random.Random(here.random.random()), PATHS)


def test_a_copy_that_begins_while_files_are_written(pair: World) -> None:
    """I1, I2, I10: a list is read while it changes; until it is whole nothing is said to be missing."""
    way = pair.ways["bob", "alice"]
    way.refuses = True
    way.reset()
    user = pair.somebody("alice")
    writer = load(pair, user)
    client = pair.client(user, "alice")
    for number in range(700):
        client.put(f"/pub/many/{number}", b"%d" % number)
    way.latency = 0.05
    way.refuses = False
    with reader(pair, user), writer:  # it never rests: it is whole all the same
        pair.until(lambda: (copy := pair.copy("bob", user)) and copy["state"] != "bootstrapping")
        way.latency = 0.0
        time.sleep(0.5)  # that long the load runs
    judge(pair, user)


def test_answers_that_are_cut(pair: World) -> None:
    """I1, I15: many small files and some large ones over connections that are reset at any byte."""
    way, user = pair.ways["bob", "alice"], pair.somebody("alice")
    way.refuses = True
    way.reset()

    def write(first: int, seed: float) -> None:
        client, chance = pair.client(user, "alice"), random.Random(seed)
        for number in range(first, SMALL, WRITERS):
            client.put(f"/pub/many/{number}", chance.randbytes(chance.randrange(300)))
        client.put(f"/pub/large/{first}", chance.randbytes(3_000_000))

    threads = [threading.Thread(target=write, args=(first, pair.random.random())) for first in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([call for call in pair.history.of(user.pubky) if call.status == 201]) == SMALL + WRITERS
    way.cut = lambda: pair.random.randrange(1_000_000)
    way.refuses = False
    pair.until(lambda: way.cuts > 3)
    way.heal()
    way.reset()  # who is heard of again is asked at once
    judge(pair, user)


def test_one_path_overwritten_again_and_again(pair: World) -> None:
    """I2: a reader of the copy sees versions in their order, whole."""
    user = pair.somebody("alice")
    writer = Load(pair.client(user, "alice"), pair.random, ("/pub/a",), longest=9000, deletes=0)
    with writer, reader(pair, user):
        time.sleep(2)  # that long the load runs
    judge(pair, user)


def test_files_that_come_and_go(pair: World) -> None:
    """I11: what is deleted while its body is on its way does not come back."""
    way, user = pair.ways["bob", "alice"], pair.somebody("alice")
    way.latency = 0.02
    with load(pair, user, deletes=0.5, longest=50_000), reader(pair, user):
        time.sleep(3)  # that long the load runs
    way.heal()
    judge(pair, user)


def test_a_file_becomes_a_folder(pair: World) -> None:
    """I1: and a folder a file, again and again."""
    user = pair.somebody("alice")
    client = pair.client(user, "alice")
    with reader(pair, user):
        for _ in range(30):
            assert client.put("/pub/c", b"file") == 201
            assert client.delete("/pub/c") == 204
            assert client.put("/pub/c/d", b"in a folder") == 201
            assert client.delete("/pub/c/d") == 204
    client.put("/pub/c/e", b"in the end")
    judge(pair, user)


def test_odd_names(pair: World) -> None:
    """I1: names of any letters arrive as they are."""
    user = pair.somebody("alice")
    client = pair.client(user, "alice")
    names = ["ä", "😀", "a b", "a+b", "a%25b", "%2F", "l" * 200, "q?x", "h#x", "..a", "a/b/.c", "~", "e\u0301"]
    for name in names:
        assert client.put(f"/pub/odd/{name}", name.encode()) == 201
    judge(pair, user)
    assert len(pair.dump("bob", user).paths) == len(names)


def test_a_wire_that_flips_bytes_of_bodies(pair: World) -> None:
    """I1, I2: a body with a wrong byte is never shown, and fetched again."""
    way, user = pair.ways["bob", "alice"], pair.somebody("alice")
    flipped = 0

    def flip(data: bytes) -> bytes:
        nonlocal flipped
        if b"\r\n\r\n" in data or len(data) < 2000 or pair.random.random() < 0.5:
            return data
        flipped += 1
        place = pair.random.randrange(len(data))
        return data[:place] + bytes([data[place] ^ 1 << pair.random.randrange(8)]) + data[place + 1 :]

    way.alter = flip
    client = pair.client(user, "alice")
    with reader(pair, user):
        for path in PATHS:
            client.put(path, pair.random.randbytes(100_000))
        pair.until(lambda: flipped > 2)
    way.heal()
    client.put("/pub/after", b"x")
    judge(pair, user)


def test_a_wire_that_doubles_requests(pair: World) -> None:
    """I1: every request of the follower arrives twice."""
    way, user = pair.ways["bob", "alice"], pair.somebody("alice")
    way.doubles = True
    way.reset()
    with load(pair, user), reader(pair, user):
        time.sleep(3)  # that long the load runs
    way.heal()
    way.reset()
    judge(pair, user)


@pytest.mark.parametrize("direction", ["up", "down", "both"])
def test_a_partition(pair: World, direction: str) -> None:
    """I1, I2: while nothing passes, one way or both, the copy shows an old state; afterwards it catches up."""
    way, user = pair.ways["bob", "alice"], pair.somebody("alice")
    with load(pair, user, pause=0.005), reader(pair, user):
        time.sleep(0.5)  # that long the load runs
        way.holds_up, way.holds_down = direction != "down", direction != "up"
        time.sleep(2)  # that long nothing passes
        way.heal()
        time.sleep(0.5)  # that long the load runs
    judge(pair, user)


def test_a_wire_that_is_slow_and_broken(pair: World) -> None:
    """I1, I2: latency, and connections that are reset now and then."""
    way, user = pair.ways["bob", "alice"], pair.somebody("alice")
    way.latency = 0.03
    with load(pair, user, pause=0.005, longest=20_000), reader(pair, user):
        for _ in range(4):
            time.sleep(pair.random.uniform(0.1, 0.8))  # so long between two cuts
            way.reset()
    way.heal()
    judge(pair, user)


def test_writes_at_a_copy(pair: World) -> None:
    """I10: no mutation is accepted, whoever asks."""
    user = pair.somebody("alice")
    client = pair.client(user, "alice")
    client.put("/pub/a", b"one")
    pair.until_equal(user, "alice", "bob")
    at_bob = pair.client(user, "bob")
    at_bob.cookie = user.cookies["alice"]
    for method in ("PUT", "DELETE", "POST", "PATCH", "LOCK"):
        call = at_bob.call(method, "/pub/a", b"x")
        assert call.status not in range(200, 300), call
    judge(pair, user)


def test_many_accounts(pair: World) -> None:
    """I1: twenty accounts at once, each with a writer of its own."""
    users = [pair.somebody("alice") for _ in range(20)]

    def write(user: Somebody, seed: float) -> None:
        writer = Load(pair.client(user, "alice"), random.Random(seed), PATHS)
        for _ in range(20):
            writer.write()

    threads = [threading.Thread(target=write, args=(user, pair.random.random())) for user in users]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for user in users:
        judge(pair, user)
