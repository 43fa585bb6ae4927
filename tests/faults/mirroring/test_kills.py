"""A primary, its mirror, or the Redis of one is killed at random moments: nothing acknowledged is lost, unaided."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.faults.mirroring.checker import check_at_rest
from tests.faults.mirroring.world import Load, Reader, world
from tests.faults.test_kill import is_ready

PATHS = tuple(f"/pub/{number}" for number in range(12))


@pytest.mark.parametrize("victims", [("alice",), ("bob",), ("alice", "bob")], ids="-".join)
def test_killed_under_load(tmp_path: Path, chance: random.Random, victims: tuple[str, ...]) -> None:
    """I3, I5, I11, I24: killed with its Redis, started again, three times; then both show the same."""
    with world(tmp_path, chance, {("bob", "alice"): {}}) as here:
        user = here.somebody("alice")
        load = Load(here.client(user, "alice"), random.Random(chance.random()), PATHS, 0.004, longest=30_000)
        reader = Reader(here.client(user, "bob"), random.Random(chance.random()), PATHS, 0.01)
        with load, reader:
            for _ in range(3):
                time.sleep(chance.uniform(0.3, 1.2))  # so long between two kills
                for name in victims:
                    here.nodes[name].kill()
                for name in victims:
                    here.start(name)
        primary, copy = here.until_equal(user, "alice", "bob")
        check_at_rest(primary, [copy], here.history.of(user.pubky))


@pytest.mark.parametrize("victim", ["alice", "bob"])
def test_a_redis_killed_under_load(tmp_path: Path, chance: random.Random, victim: str) -> None:
    """I3, I5, I11, I24: while its homeserver lives on, which starts another one; then both show the same."""
    with world(tmp_path, chance, {("bob", "alice"): {}}) as here:
        user = here.somebody("alice")
        load = Load(here.client(user, "alice"), random.Random(chance.random()), PATHS, 0.004, longest=30_000)
        reader = Reader(here.client(user, "bob"), random.Random(chance.random()), PATHS, 0.01)
        node = here.nodes[victim]
        with load, reader:
            for _ in range(3):
                time.sleep(chance.uniform(0.3, 1.2))  # so long between two kills
                os.kill(node.redis(), signal.SIGKILL)
                here.until(lambda: len(node.processes()) == 2 and is_ready(node))
        primary, copy = here.until_equal(user, "alice", "bob")
        check_at_rest(primary, [copy], here.history.of(user.pubky))
