"""Three homeservers in a ring, each a copy of the next one's accounts: no write runs in circles."""

import random
import time
from contextlib import ExitStack
from pathlib import Path

from tests.faults.mirroring.checker import check_at_rest
from tests.faults.mirroring.world import SETTLED, Link, Load, world

RING: dict[Link, dict[str, object]] = {("bob", "alice"): {}, ("carol", "bob"): {}, ("alice", "carol"): {}}
"""Who follows whom."""

PATHS = tuple(f"/pub/{number}" for number in range(20))
LISTENING = 6.0  # seconds: more than from one beat to the next


def test_a_ring_goes_quiet(tmp_path: Path, chance: random.Random) -> None:
    """I13, I1: under load at all three, nobody asks anybody anything 2 s after the last write, and copies are equal."""
    with world(tmp_path, chance, RING) as here:
        users = {home: [here.somebody(home) for _ in range(3)] for home in here.nodes}
        with ExitStack() as stack:
            for home, living in users.items():
                for user in living:
                    load = Load(here.client(user, home), random.Random(chance.random()), PATHS, pause=0.02)
                    stack.enter_context(load)
            time.sleep(4)  # that long the load runs
        last = max(call.start for call in here.history.calls)
        time.sleep(SETTLED + LISTENING)  # nothing may be asked in the last part of it
        between = {way: proxy.asked(last + SETTLED) for way, proxy in here.ways.items() if way[1] != "relay"}
        assert not any(between.values()), between
        for copy, home in RING:
            for user in users[home]:
                found = here.until_equal(user, home, copy)
                check_at_rest(found[0], found[1:], here.history.of(user.pubky))
        assert all(proxy.asked(0) for way, proxy in here.ways.items() if way in RING)
