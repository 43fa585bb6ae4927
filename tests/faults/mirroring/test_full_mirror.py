"""A mirror whose disk is full: it serves on, tells what it lacks, and catches up when there is room."""

import os
import random
import time
from pathlib import Path

import pytest

from tests.faults.mirroring.checker import check_at_rest
from tests.faults.mirroring.world import Reader, world
from tests.small_disk import free, small_disk

MB = 1 << 20
DISK, RESERVE = 40 * MB, 8 * MB


@pytest.mark.parametrize("left", [RESERVE // 2, 0], ids=["below the reserve", "to the last byte"])
def test_a_full_disk(tmp_path: Path, chance: random.Random, left: int) -> None:
    """I2, I15, I16: what was there is read on and nothing is said that is not true; with room again all of it comes."""
    with small_disk(tmp_path / "disk", DISK) as disk:
        (tmp_path / "bob").mkdir()
        (tmp_path / "bob" / "data").symlink_to(disk, target_is_directory=True)
        changes = {"bob": {"storage": {"reserve_mb": RESERVE // MB}}}
        with world(tmp_path, chance, {("bob", "alice"): {}, ("bob", "carol"): {}}, changes=changes) as here:
            user = here.somebody("alice")
            client, at_bob = here.client(user, "alice"), here.client(user, "bob")
            paths = [f"/pub/{number}" for number in range(6)]
            for path in paths:
                assert client.put(path, chance.randbytes(chance.randrange(300_000))) == 201
            here.until_equal(user, "alice", "bob")
            ballast = disk / "ballast"
            with ballast.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, free(disk) - left)
            with Reader(here.client(user, "bob"), random.Random(chance.random()), tuple(paths), 0.02):
                for number in range(10):
                    assert client.put(f"/pub/more/{number}", chance.randbytes(300_000)) == 201
                assert client.put(paths[0], b"small, and new") == 201
                assert client.delete(paths[1]) == 204
                time.sleep(3)  # that long its disk stays full
            assert all(at_bob.get(path).status == 200 for path in paths[2:])
            refused = [at_bob.get(f"/pub/more/{number}").status for number in range(10)]
            assert {*refused} <= {200, 404, 503}
            assert refused.count(200) * 300_000 <= left
            told = here.copy("bob", user)
            assert told is not None
            assert told["missing"] or told["state"] == "stale" or told["seq"] < 18
            ballast.unlink()
            primary, copy = here.until_equal(user, "alice", "bob")
            check_at_rest(primary, [copy], here.history.of(user.pubky))
