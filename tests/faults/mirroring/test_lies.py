"""A mirror that alters what it keeps, and a primary that tells two mirrors two histories: both come to light."""

import random
from pathlib import Path

from pubky_homeserver.core.digests import fold
from pubky_homeserver.store import schema
from pubky_homeserver.store.files import mark_of
from pubky_homeserver.store.packing import unpack_entry
from tests.faults.mirroring.checker import OVERHEAD, check_at_rest
from tests.faults.mirroring.test_lost_time import back_up, judge, rewind
from tests.faults.mirroring.world import Link, World, world
from tests.faults.test_kill import redis_of


def alter(here: World, name: str, body: bytes) -> None:
    """Change a byte of a body on a homeserver's disk."""
    files = [file for file in (here.nodes[name].data / "blobs").rglob("*") if file.is_file()]
    (found,) = [file for file in files if file.read_bytes() == body]
    found.chmod(0o600)
    found.write_bytes(body[:100] + bytes([body[100] ^ 1]) + body[101:])


def test_an_altered_body(tmp_path: Path, chance: random.Random) -> None:
    """I1, I12: bytes that a mirror altered are taken by nobody, not even by a primary that asks for what it lost.

    Who reads them from that mirror can tell: they have another hash than their tag says.
    """
    links: dict[Link, dict[str, object]] = {("bob", "alice"): {}, ("carol", "alice"): {}}
    mutual: dict[Link, dict[str, object]] = {(other, name): {"follow": "none"} for name, other in links}
    with world(tmp_path, chance, links | mutual) as here:
        user = here.somebody("alice")
        client, body = here.client(user, "alice"), chance.randbytes(50_000)
        for path in ("/pub/a", "/pub/b"):
            assert client.put(path, body if path == "/pub/a" else chance.randbytes(9000)) == 201
        primary, copy, _ = here.until_equal(user, "alice", "bob", "carol")
        alter(here, "bob", body)
        shown = here.dump("bob", user).files["/pub/a"]
        assert shown.content_hash != copy.files["/pub/a"].content_hash
        assert shown.head == copy.files["/pub/a"].head, "the tag tells"
        alter(here, "alice", body)
        here.operator("alice", f"/mirrors/verify?pubky={user.pubky}", "POST")
        told = here.until(lambda: (now := here.operator("alice", "/mirrors/verify")) and now["ended"] and now)
        assert (told["wrong"], told["missing"]) == (1, 0)
        assert here.dump("alice", user).files == primary.files
        here.operator("bob", f"/mirrors/verify?pubky={user.pubky}", "POST")
        primary, *copies = here.until_equal(user, "alice", "bob", "carol")
        check_at_rest(primary, copies, [call for call in here.history.of(user.pubky) if call.node == "alice"])


def test_an_altered_list_and_an_altered_head(tmp_path: Path, chance: random.Random) -> None:
    """I1, I12: what a mirror says of files and of its position is compared with its primary, and nobody believes it.

    A file that is gone from its list and one under another name, with the digest that fits; a position that never was.
    """
    links: dict[Link, dict[str, object]] = {("bob", "alice"): {}, ("carol", "alice"): {}, ("carol", "bob"): {}}
    with world(tmp_path, chance, links) as here:
        user = here.somebody("alice")
        client = here.client(user, "alice")
        for number in range(20):
            assert client.put(f"/pub/{number:02}", chance.randbytes(chance.randrange(9000))) == 201
        primary, *_ = here.until_equal(user, "alice", "bob", "carol")
        redis, entries, facts = redis_of(here.nodes["bob"]), schema.entries(user.pubky), schema.copy(user.pubky)
        members = redis.ask("ZRANGE", entries, 0, -1)
        gone, moved, fresh = members[3], members[7], members[7].replace(b"/pub/07", b"/pub/77")
        head, digest = redis.ask("HMGET", facts, "pub.seq", "pub.digest")
        assert redis.ask("ZREM", entries, gone, moved) == 2
        assert redis.ask("ZADD", entries, 0, fresh) == 1
        assert redis.ask("HSET", facts, "pub.digest", fold(digest, mark_of(unpack_entry(gone)))) == 0
        redis.ask("HINCRBY", facts, "used", -unpack_entry(gone).length - OVERHEAD)
        here.nodes["bob"].stop()  # it remembers what it has shown
        here.ways["bob", "alice"].split()
        here.start("bob")
        assert {*here.client(user, "bob").get("/pub/").lines} ^ {*primary.paths} == {"/pub/03", "/pub/07", "/pub/77"}
        here.heal()
        here.until_equal(user, "alice", "bob", "carol")
        assert redis.ask("HGET", facts, "pub.digest") == digest
        assert redis.ask("HSET", facts, "pub.seq", int(head) + 5) == 0
        assert client.put("/pub/next", chance.randbytes(100)) == 201
        here.until_equal(user, "alice", "bob", "carol")
        primary, *copies = here.until_equal(user, "alice", "bob", "carol")
        check_at_rest(primary, copies, [call for call in here.history.of(user.pubky) if call.node == "alice"])
        assert not here.shelf("alice", user) | here.shelf("carol", user)


def test_two_histories(tmp_path: Path, chance: random.Random) -> None:
    """I9, I20: a primary that told each of two mirrors another story, under the same numbers, is found out by a move.

    The user moves to one of the mirrors. The other one's story is late there, and its operator sees that they differ.
    """
    links: dict[Link, dict[str, object]] = {("bob", "alice"): {}, ("carol", "alice"): {}}
    with world(tmp_path, chance, {**links, ("carol", "bob"): {}, ("bob", "carol"): {}}) as here:
        user = here.somebody("alice")
        assert here.client(user, "alice").put("/pub/start", b"both know it") == 201
        here.until_equal(user, "alice", "bob", "carol")
        backup = back_up(here, "alice")
        for hears, not_heard in (("bob", "carol"), ("carol", "bob")):
            here.ways[hears, "alice"].heal()
            here.ways[not_heard, "alice"].split()
            here.ways[not_heard, "alice"].reset()
            client = here.client(user, "alice")
            for number in range(5):
                assert client.put(f"/pub/{number}", f"{number} for {hears}".encode()) == 201
            assert client.put(f"/pub/only/{hears}", b"x") == 201
            here.until_equal(user, "alice", hears)
            rewind(here, "alice", backup)
        here.nodes["alice"].kill()
        here.heal()
        assert here.sign_up(user, "bob") == 200
        here.publish(user, "bob")
        at_bob = here.client(user, "bob")
        here.until(lambda: at_bob.put("/pub/after", b"the move") in (200, 201))
        here.nodes["alice"].start()
        judge(here, user, "bob", "carol")
        assert {path for path, _ in here.shelf("bob", user)} >= {*(f"/pub/{n}" for n in range(5)), "/pub/only/carol"}
        told = here.copy("carol", user)
        assert told is not None
        assert told["forked"]
        assert here.dump("bob", user).paths == here.dump("carol", user).paths
