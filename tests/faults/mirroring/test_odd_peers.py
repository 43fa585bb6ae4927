"""Peers and clocks that are not as they should be: replays, wrong receivers, slow wires, limits, other clocks."""

import random
import re
import time
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.faults.mirroring.checker import check_at_rest
from tests.faults.mirroring.history import Client
from tests.faults.mirroring.world import Load, world

AT_ONCE = 8  # bodies of a log that are fetched at the same time
PATHS = tuple(f"/pub/{number}" for number in range(12))

_FIELDS = re.compile(rb"\r\n([\w-]+): ([^\r\n]*)")


def test_requests_that_somebody_took_down(tmp_path: Path, chance: random.Random) -> None:
    """I12, I14: what a peer has signed is good for its receiver, its target and its method alone."""
    with world(tmp_path, chance, {("bob", "alice"): {}, ("bob", "carol"): {}}) as here:
        user = here.somebody("alice")
        here.client(user, "alice").put("/pub/a", b"one")
        here.until_equal(user, "alice", "bob")
        heads = [head for _, head in here.ways["bob", "alice"].requests if b"/pub/events?" in head]
        target = heads[-1].split()[1].decode()
        fields = {name.decode(): value.decode() for name, value in _FIELDS.findall(heads[-1])}

        def ask(node: str, method: str, place: str) -> int:
            connection = HTTPConnection("127.0.0.1", here.nodes[node].ports["client API"], timeout=10)
            connection.request(method, place, headers=fields)
            status = connection.getresponse().status
            connection.close()
            return status

        assert ask("alice", "GET", target) == 200  # every request is safe to repeat
        assert ask("carol", "GET", target) == 403
        assert ask("alice", "HEAD", target) == 403
        assert ask("alice", "GET", target + "&x=1") == 403
        assert ask("alice", "GET", target.replace("/pub/", "/priv/")) == 403
        assert ask("alice", "GET", "/peer/v1/accounts?after=") == 403


@pytest.mark.parametrize("shift", [-240.0, 240.0])
def test_clocks_apart(tmp_path: Path, chance: random.Random, shift: float) -> None:
    """I1: four minutes either way, which is within the window of signatures, change nothing."""
    with world(tmp_path, chance, {("bob", "alice"): {}}, shifts={"bob": shift}) as here:
        user = here.somebody("alice")
        with Load(here.client(user, "alice"), random.Random(chance.random()), PATHS, 0.01):
            time.sleep(1)  # that long the load runs
        primary, copy = here.until_equal(user, "alice", "bob")
        check_at_rest(primary, [copy], here.history.of(user.pubky))


def _is_there(reader: Client, path: str) -> bool:
    return reader.get(path).status == 200


def test_a_slow_peer_delays_nobody_else(tmp_path: Path, chance: random.Random) -> None:
    """I18: while one peer's bodies drip, a write at another one is at the copy within a second."""
    with world(tmp_path, chance, {("bob", "alice"): {}, ("bob", "carol"): {}}) as here:
        slow, quick = here.somebody("alice"), here.somebody("carol")
        writer, reader = here.client(quick, "carol"), here.client(quick, "bob")
        writer.put("/pub/first", b"x")
        here.until_equal(quick, "carol", "bob")
        here.ways["bob", "alice"].rate = 20_000
        for number in range(30):
            here.client(slow, "alice").put(f"/pub/{number}", chance.randbytes(100_000))
        lags = []
        for number in range(20):
            assert writer.put(f"/pub/{number}", b"%d" % number * 3000) == 201
            began = time.monotonic()
            here.until(partial(_is_there, reader, f"/pub/{number}"))
            lags.append(time.monotonic() - began)
        assert sorted(lags)[-2] < 1, lags
        here.heal()
        here.ways["bob", "alice"].reset()
        here.until_equal(slow, "alice", "bob")


def test_a_copy_without_room(tmp_path: Path, chance: random.Random) -> None:
    """I15, I10: bodies above `max_bytes` stay away; their names are there, and nothing is said not to exist."""
    with world(tmp_path, chance, {("bob", "alice"): {"max_bytes": 200_000}}) as here:
        user = here.somebody("alice")
        client, at_bob = here.client(user, "alice"), here.client(user, "bob")
        for number in range(20):
            assert client.put(f"/pub/{number}", chance.randbytes(50_000)) == 201
            if number == 1:
                here.until_equal(user, "alice", "bob")
        here.until(lambda: (copy := here.copy("bob", user)) and copy["seq"] == 20 and copy["missing"])
        assert len(at_bob.get("/pub/").lines) == 20
        statuses = [at_bob.get(f"/pub/{number}").status for number in range(20)]
        assert {*statuses} == {200, 503}
        assert statuses[:2] == [200, 200]
        assert statuses.count(200) <= 4 + AT_ONCE, "what was under way when the room ended"
