"""Wires that change single bytes of what peers say: in JSON and the heads around it, and within TLS.

A changed byte of a body is found by its hash, which another test shows. Here it is about everything else: what files
there are, what has happened to them, and where logs stand.
"""

import random
from pathlib import Path

import pytest

from tests.faults.mirroring.checker import check_at_rest, check_equal, check_primary
from tests.faults.mirroring.world import Load, Reader, world

PATHS = tuple(f"/pub/{number}" for number in range(12))
WRONG = 12  # pieces that are changed, at least


def flip(data: bytes, chance: random.Random) -> bytes:
    """These bytes with one bit changed."""
    place = chance.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :]


@pytest.mark.parametrize("by_key", [False, True], ids=["plain", "TLS"])
def test_flipped_bytes(tmp_path: Path, chance: random.Random, by_key: bool) -> None:
    """I1, I2, I12: a copy never shows what was not there, and when the wire is right again both are the same."""
    with world(tmp_path, chance, {("bob", "alice"): {}}, by_key=by_key) as here:
        way, user = here.ways["bob", "alice"], here.somebody("alice")
        client = here.client(user, "alice")
        for path in PATHS:
            assert client.put(path, chance.randbytes(chance.randrange(6000))) == 201
        here.until_equal(user, "alice", "bob")
        wrong = 0

        def alter(data: bytes) -> bytes:
            nonlocal wrong
            if chance.random() < 0.85 or (b"{" not in data and not by_key):
                return data
            wrong += 1
            return flip(data, chance)

        writer = Load(here.client(user, "alice"), random.Random(chance.random()), PATHS, 0.02)
        reader = Reader(here.client(user, "bob"), random.Random(chance.random()), PATHS, 0.01)
        with writer, reader:
            way.alter = alter
            here.until(lambda: wrong >= WRONG)
            way.heal()
            way.reset()
        primary, copy = here.until_equal(user, "alice", "bob")
        if here.shelf("bob", user):  # a history that seemed to be another one was compared: nothing is lost by that
            check_primary(primary)
            check_equal(primary, copy)
        else:
            check_at_rest(primary, [copy], here.history.of(user.pubky))
