"""Peers and clocks that are not as they should be: replays, wrong receivers, slow wires, limits, other clocks."""

import json
import random
import re
import time
from base64 import b64encode
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from urllib.error import HTTPError

import pytest

from pkarr.builder import Builder
from pkarr.packet import SignedPacket
from pubky_homeserver.peers.signatures import sign
from tests.faults.mirroring.checker import check_at_rest
from tests.faults.mirroring.history import Client
from tests.faults.mirroring.world import Link, Load, World, world

AHEAD = 600.0  # seconds that a user's clock is
LATER = 400.0  # seconds: a signature is good for 300
AT_ONCE = 8  # bodies of a log that are fetched at the same time
PATHS = tuple(f"/pub/{number}" for number in range(12))

_FIELDS = re.compile(rb"\r\n([\w-]+): ([^\r\n]*)")


def test_requests_that_somebody_took_down(tmp_path: Path, chance: random.Random) -> None:
    """I12, I14: what a peer has signed is good for its receiver, target, method, body and time alone."""
    with world(tmp_path, chance, {("bob", "alice"): {}, ("bob", "carol"): {}}) as here:
        user = here.somebody("alice")
        here.client(user, "alice").put("/pub/a", b"one")
        here.until_equal(user, "alice", "bob")
        heads = [head for _, head in here.ways["bob", "alice"].requests if b"/pub/events?" in head]
        target = heads[-1].split()[1].decode()
        fields = {name.decode(): value.decode() for name, value in _FIELDS.findall(heads[-1])}

        def ask(node: str, method: str, place: str, body: bytes | None = None) -> int:
            connection = HTTPConnection("127.0.0.1", here.nodes[node].ports["client API"], timeout=10)
            connection.request(method, place, body, headers=fields)
            status = connection.getresponse().status
            connection.close()
            return status

        assert ask("alice", "GET", target) == 200  # every request is safe to repeat
        assert ask("carol", "GET", target) == 403
        assert ask("alice", "HEAD", target) == 403
        assert ask("alice", "GET", target + "&x=1") == 403
        assert ask("alice", "GET", target.replace("/pub/", "/priv/")) == 403
        assert ask("alice", "GET", "/peer/v1/accounts?after=") == 403
        (told,) = [head for _, head in here.ways["bob", "alice"].requests if b"POST /peer/v1/packets " in head][-1:]
        posted = {name.decode(): value.decode() for name, value in _FIELDS.findall(told)}
        own = told.partition(b"\r\n\r\n")[2]
        assert len(own) == int(posted["Content-Length"])
        fields = posted
        assert ask("alice", "POST", "/peer/v1/packets", own) == 200
        assert ask("alice", "POST", "/peer/v1/packets", own.replace(b"A", b"B", 1)) == 403
        here.nodes["alice"].stop()
        here.start("alice", shift=LATER)
        assert ask("alice", "POST", "/peer/v1/packets", own) == 403


@pytest.mark.parametrize("shift", [-240.0, 240.0])
def test_clocks_apart(tmp_path: Path, chance: random.Random, shift: float) -> None:
    """I1: four minutes either way, which is within the window of signatures, change nothing."""
    with world(tmp_path, chance, {("bob", "alice"): {}}, shifts={"bob": shift}) as here:
        user = here.somebody("alice")
        with Load(here.client(user, "alice"), random.Random(chance.random()), PATHS, 0.01):
            time.sleep(1)  # that long the load runs
        primary, copy = here.until_equal(user, "alice", "bob")
        check_at_rest(primary, [copy], here.history.of(user.pubky))


def test_clocks_an_hour_apart(tmp_path: Path, chance: random.Random) -> None:
    """I1, I12: no signature is good then, and the operator is told why; when the clock is right, the copy is, too."""
    with world(tmp_path, chance, {("bob", "alice"): {}}, shifts={"bob": 3600}) as here:
        user = here.somebody("alice")
        assert here.client(user, "alice").put("/pub/a", b"x") == 201

        def apart() -> int | None:
            (peer,) = here.operator("bob", "/mirrors")["peers"]
            said = re.search(r"it is (\d+) s behind ours", str(peer["failure"]))
            return None if said is None else int(said[1])

        assert 3595 <= here.until(apart) <= 3605
        assert here.copy("bob", user) is None
        here.nodes["bob"].stop()
        here.start("bob")
        primary, copy = here.until_equal(user, "alice", "bob")
        check_at_rest(primary, [copy], here.history.of(user.pubky))


def test_a_record_from_a_clock_that_is_ahead(tmp_path: Path, chance: random.Random) -> None:
    """I3, I12: the newest record rules, however wrong its clock was; an older one that comes later changes nothing.

    Not even if a peer shows it that both trust.
    """
    links: dict[Link, dict[str, object]] = {("bob", "alice"): {}, ("alice", "bob"): {}}
    with world(tmp_path, chance, links) as here:
        user = here.somebody("alice")
        assert here.client(user, "alice").put("/pub/a", b"x") == 201
        here.until_equal(user, "alice", "bob")
        assert here.sign_up(user, "bob") == 200
        here.publish(user, "bob", ahead=AHEAD)
        at_bob = here.client(user, "bob")
        here.until(lambda: at_bob.put("/pub/b", b"y") == 201)
        with pytest.raises(HTTPError, match="409"):
            here.publish(user, "alice", ahead=60)
        older = Builder().https("_pubky", 0, here.keys["alice"].public_key.z32)
        packet = older.sign(user.keypair, time.time_ns() // 1000 + 60_000_000)
        for sender, receiver in (("alice", "bob"), ("bob", "alice")):
            assert show(here, sender, receiver, packet) == "old"
        assert at_bob.put("/pub/c", b"z") == 201
        assert here.client(user, "alice").put("/pub/c", b"no") == 421
        here.until_equal(user, "bob", "alice", moved=True)
        assert not here.shelf("alice", user) | here.shelf("bob", user)
        here.publish(user, "alice", ahead=AHEAD + 1)
        assert here.sign_up(user, "alice") in (200, 409)
        here.until(lambda: here.sign_in(user, "alice") == 200 and here.client(user, "alice").put("/pub/d", b"x") == 201)
        here.until_equal(user, "alice", "bob", moved=True)


def show(here: World, sender: str, receiver: str, packet: SignedPacket) -> str:
    """A homeserver shows another one a packet; what became of it there."""
    body = json.dumps({"packets": [b64encode(bytes(packet)).decode()]}).encode()
    target, key = "/peer/v1/packets", here.keys[receiver].public_key.z32
    fields = sign(here.keys[sender], key, "POST", target, time.time(), body)
    answer, said = here.nodes[receiver].ask("POST", target, body, fields)
    assert answer.status == 200, said
    (told,) = json.loads(said)["packets"]
    return str(told["kept"])


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
