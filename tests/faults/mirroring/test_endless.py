"""Peers with a million files, or a million events: what they may take they take, and nobody else waits for them."""

import random
import time
from pathlib import Path

from attrs import define, field

from pkarr.keys import Keypair
from pubky_homeserver.peers.following import AT_ONCE
from tests.faults.mirroring.checker import OVERHEAD, check_at_rest
from tests.faults.mirroring.endless import PAGE, Endless, endless
from tests.faults.mirroring.test_floods import MB, lag, memory, resident
from tests.faults.mirroring.world import Somebody, World, world

MUCH, LITTLE = 1024 * MB, 2 * MB  # bytes that copies of the peer's accounts may take
FOR = 18.0  # seconds in which it is followed; a quiet machine takes some ten thousand events in them
GROWTH = 64 * MB  # bytes that either process may grow by; all that it is told would take a gigabyte


@define
class Honest:
    """Somebody at another peer, whose writes are looked for at the copy; and what Bob's two processes take."""

    here: World
    user: Somebody = field(init=False)
    lags: list[float] = field(factory=list)
    _before: int = 0
    _redis: int = 0

    def __attrs_post_init__(self) -> None:
        self.user = self.here.somebody("carol")
        assert self.here.client(self.user, "carol").put("/pub/first", b"x") == 201
        self.here.until_equal(self.user, "carol", "bob")
        bob = self.here.nodes["bob"]
        self._before, self._redis = memory(bob), resident(bob.redis())

    def write_for(self, seconds: float) -> None:
        """Write now and then, and see what it takes until it is there."""
        writer, reader = self.here.client(self.user, "carol"), self.here.client(self.user, "bob")
        bob, began = self.here.nodes["bob"], time.monotonic()
        while time.monotonic() - began < seconds:
            path = f"/pub/{len(self.lags)}"
            self.lags.append(lag(self.here, writer.put, lambda one: reader.get(one).status, path))
            assert memory(bob) - self._before < GROWTH
            assert resident(bob.redis()) - self._redis < GROWTH
            time.sleep(0.2)  # the pace of the writes

    def check(self) -> None:
        """Nobody was late, and at rest all is there."""
        assert sorted(self.lags)[-2] < 1, self.lags
        primary, copy = self.here.until_equal(self.user, "carol", "bob")
        check_at_rest(primary, [copy], self.here.history.of(self.user.pubky))


def test_a_million_events(tmp_path: Path, chance: random.Random) -> None:
    """I18: logs that hardly end are followed at a steady pace; an honest peer's writes are here within a second."""
    with world(tmp_path, chance, {("bob", "alice"): {"max_bytes": MUCH}, ("bob", "carol"): {}}) as here:
        honest, way = Honest(here), here.ways["bob", "alice"]
        users = [Somebody(Keypair.random()) for _ in range(2)]
        logs = [Endless(user.pubky, kind) for user, kind in zip(users, ("versions", "names"), strict=True)]
        for user in users:
            here.publish(user, "alice")

        def events() -> int:
            return sum(one.asked for one in logs)

        with endless({one.pubky: one for one in logs}) as port:
            way.target = lambda: port
            way.reset()
            here.until(lambda: all(one.asked for one in logs))
            paces = []
            for _ in range(2):
                at_first = events()
                honest.write_for(FOR / 2)
                paces.append(events() - at_first)
            assert paces[1] > paces[0] / 3 > 0, paces
        way.reset()
        honest.check()


def test_more_than_there_is_room_for(tmp_path: Path, chance: random.Random) -> None:
    """I15, I18: names and events take room, too; when there is none, the operator is told so, and others go on."""
    with world(tmp_path, chance, {("bob", "alice"): {"max_bytes": LITTLE}, ("bob", "carol"): {}}) as here:
        honest, way = Honest(here), here.ways["bob", "alice"]
        users = [Somebody(Keypair.random()) for _ in range(3)]
        kinds = zip(users, ("versions", "names", "list"), strict=True)
        for user in users:
            here.publish(user, "alice")
        with endless({user.pubky: Endless(user.pubky, kind) for user, kind in kinds}) as port:
            way.target = lambda: port
            way.reset()

            def trouble() -> str:
                (told,) = [one for one in here.operator("bob", "/mirrors")["peers"] if one["name"] == "alice"]
                return str(told["trouble"])

            here.until(lambda: "max_bytes" in trouble())
            honest.write_for(FOR / 3)
            copies = [copy for user in users if (copy := here.copy("bob", user)) is not None]
            assert copies[-1]["state"] == "bootstrapping"
            most = LITTLE + (PAGE + AT_ONCE) * OVERHEAD
            assert sum(copy["missing"] for copy in copies) * OVERHEAD <= most
        way.reset()
        honest.check()
