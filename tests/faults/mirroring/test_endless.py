"""A peer with a million files, of a million events: what it may take it takes, and nobody else waits for it."""

import random
import time
from pathlib import Path

from pkarr.keys import Keypair
from tests.faults.mirroring.checker import OVERHEAD, check_at_rest
from tests.faults.mirroring.endless import PAGE, Endless, endless
from tests.faults.mirroring.test_floods import MB, lag, memory, resident
from tests.faults.mirroring.world import Somebody, world

MAX_BYTES = 2 * MB
FOR = 18.0  # seconds in which it is followed; a quiet machine takes some ten thousand events in them
GROWTH = 64 * MB  # bytes that either process may grow by; all that it is told would take a gigabyte


def test_a_million_events(tmp_path: Path, chance: random.Random) -> None:
    """I15, I18: memory stays bounded, its pace is steady, and an honest peer's writes are here within a second."""
    with world(tmp_path, chance, {("bob", "alice"): {"max_bytes": MAX_BYTES}, ("bob", "carol"): {}}) as here:
        honest = here.somebody("carol")
        writer, reader = here.client(honest, "carol"), here.client(honest, "bob")
        assert writer.put("/pub/first", b"x") == 201
        here.until_equal(honest, "carol", "bob")
        users = [Somebody(Keypair.random()) for _ in range(3)]
        versions, names, listed = (
            Endless(user.pubky, kind) for user, kind in zip(users, ("versions", "names", "list"), strict=True)
        )
        for user in users:
            here.publish(user, "alice")
        bob, way = here.nodes["bob"], here.ways["bob", "alice"]
        before, redis = memory(bob), resident(bob.redis())
        lags: dict[str, float] = {}
        with endless({one.pubky: one for one in (versions, names, listed)}) as port:
            way.target = lambda: port
            way.reset()
            here.until(lambda: versions.asked and names.asked)
            began, paces = time.monotonic(), []
            for half in (1, 2):
                at_first = versions.asked + names.asked
                while time.monotonic() - began < half * FOR / 2:
                    path = f"/pub/{len(lags)}"
                    lags[path] = lag(here, writer.put, lambda one: reader.get(one).status, path)
                    assert memory(bob) - before < GROWTH
                    assert resident(bob.redis()) - redis < GROWTH
                    time.sleep(0.2)  # the pace of the writes
                paces.append(versions.asked + names.asked - at_first)
            assert sorted(lags.values())[-2] < 1, lags
            assert paces[1] > paces[0] / 3 > 0, paces
            *_, copy = [here.copy("bob", user) for user in users]
            assert copy is not None
            assert copy["state"] == "bootstrapping"
            assert copy["missing"] * OVERHEAD < MAX_BYTES + PAGE * OVERHEAD, "names take room, too"
            (told,) = [one for one in here.operator("bob", "/mirrors")["peers"] if one["name"] == "alice"]
            assert "max_bytes" in told["trouble"]
        way.reset()
        primary, honest_copy = here.until_equal(honest, "carol", "bob")
        check_at_rest(primary, [honest_copy], here.history.of(honest.pubky))
