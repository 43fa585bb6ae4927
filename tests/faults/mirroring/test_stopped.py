"""Homeservers that stand still: they hold their connections, answer nothing, and go on as if nothing had been."""

import random
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from tests.faults.mirroring.checker import check_at_rest
from tests.faults.mirroring.history import Client
from tests.faults.mirroring.world import Load, Reader, world

PATHS = tuple(f"/pub/{number}" for number in range(12))


def is_there(reader: Client, path: str) -> bool:
    """Whether a reader is shown a file."""
    return reader.get(path).status == 200


@pytest.mark.parametrize("name", ["alice", "bob"], ids=["primary", "mirror"])
def test_stopped_under_load(tmp_path: Path, chance: random.Random, name: str) -> None:
    """I1, I2, I3, I18: who stands still for seconds delays nobody else, and its copies are right when it goes on."""
    with world(tmp_path, chance, {("bob", "alice"): {}, ("bob", "carol"): {}, ("carol", "alice"): {}}) as here:
        user, other = here.somebody("alice"), here.somebody("carol")
        elsewhere = here.client(other, "carol") if name == "alice" else here.client(user, "alice")
        witness = here.client(other, "bob") if name == "alice" else here.client(user, "carol")
        for one, home in ((user, "alice"), (other, "carol")):
            assert here.client(one, home).put("/pub/first", b"x") == 201
        here.until(lambda: witness.get("/pub/first").status == 200)
        load = Load(here.client(user, "alice"), random.Random(chance.random()), PATHS, 0.005, longest=20_000)
        reader = Reader(here.client(user, "bob"), random.Random(chance.random()), PATHS, 0.01)
        lags = []
        with load, reader:
            time.sleep(0.5)  # that long the load runs
            here.nodes[name].signal(signal.SIGSTOP)
            try:
                for number in range(20):
                    assert elsewhere.put(f"/pub/meanwhile/{number}", b"x" * 5000) == 201
                    began = time.monotonic()
                    here.until(partial(is_there, witness, f"/pub/meanwhile/{number}"))
                    lags.append(time.monotonic() - began)
                    time.sleep(0.1)  # the pace of the writes
            finally:
                here.nodes[name].signal(signal.SIGCONT)
            time.sleep(0.5)  # that long the load runs
        assert sorted(lags)[-2] < 1, lags
        for one, home, copies in ((user, "alice", ("bob", "carol")), (other, "carol", ("bob",))):
            primary, *rest = here.until_equal(one, home, *copies)
            check_at_rest(primary, rest, here.history.of(one.pubky))
