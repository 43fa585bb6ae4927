"""Homeservers that lost time: a mirror that was away for long, and databases that were restored from old backups."""

import random
import shutil
import time
from pathlib import Path

import pytest

from tests.faults.mirroring.checker import Dump, Violation, check_equal, check_kept, check_primary
from tests.faults.mirroring.world import Link, Load, Somebody, World, world
from tests.process import until

PATHS = tuple(f"/pub/{number}" for number in range(12))
MUTUAL: dict[Link, dict[str, object]] = {("bob", "alice"): {}, ("alice", "bob"): {}}


def back_up(here: World, name: str) -> Path:
    """A copy of a homeserver's database, taken while it rests."""
    node = here.nodes[name]
    node.stop()
    backup = node.folder / "backup"
    shutil.rmtree(backup, ignore_errors=True)
    shutil.copytree(node.data / "redis", backup)
    here.start(name)
    return backup


def rewind(here: World, name: str, backup: Path) -> None:
    """Kill a homeserver, and start it with an old database; its blobs are those of today."""
    node = here.nodes[name]
    node.kill()
    shutil.rmtree(node.data / "redis")
    shutil.copytree(backup, node.data / "redis")
    here.start(name)


def judge(here: World, user: Somebody, home: str, *copies: str) -> list[Dump]:
    """Wait until all show the same, and no acknowledged write is missing: it is there, superseded, or on a shelf."""
    said: list[str] = []

    def look() -> bool:
        time.sleep(0.1)  # how often it is asked again
        shelves = set().union(*(here.shelf(name, user) for name in here.nodes))
        try:
            check_kept(here.history.of(user.pubky), here.dump(home, user), shelves)
        except Violation as violation:
            said[:] = [str(violation)]
            return False
        return True

    until(look, 60, lambda: f"{said} " + "\n".join(node.log()[-3000:] for node in here.nodes.values()))
    dumps = here.until_equal(user, home, *copies, moved=True)
    check_primary(dumps[0], moved=True)
    for copy in dumps[1:]:
        check_equal(dumps[0], copy, moved=True)
    return dumps


def test_away_beyond_the_floor(tmp_path: Path, chance: random.Random) -> None:
    """I11: a mirror whose position is older than all that the primary's log still tells does not bring back deletes.

    The new home has read the list when much was deleted already, so it knows of none of the old deletes.
    """
    links: dict[Link, dict[str, object]] = {**MUTUAL, ("carol", "alice"): {}, ("carol", "bob"): {}}
    with world(tmp_path, chance, links) as here:
        for way in (("bob", "alice"), ("alice", "bob")):
            here.ways[way].split()
            here.ways[way].reset()
        user = here.somebody("alice")
        client = here.client(user, "alice")
        for number in range(40):
            assert client.put(f"/pub/{number:02}", b"%d" % number * chance.randrange(1, 900)) == 201
        here.until_equal(user, "alice", "carol")
        before = here.copy("carol", user)
        for way in (("carol", "alice"), ("carol", "bob")):
            here.ways[way].split()
            here.ways[way].reset()
        for number in range(0, 40, 5):
            assert client.delete(f"/pub/{number:02}") == 204
        assert client.put("/pub/01", b"another") == 201
        here.ways["bob", "alice"].heal()
        here.ways["alice", "bob"].heal()
        here.until_equal(user, "alice", "bob")
        here.nodes["alice"].kill()
        assert here.sign_up(user, "bob") == 200
        here.publish(user, "bob")
        at_bob = here.client(user, "bob")
        here.until(lambda: at_bob.put("/pub/02", b"at bob") in (200, 201))
        assert at_bob.delete("/pub/03") == 204
        here.heal()
        primary, copy = here.until_equal(user, "bob", "carol", moved=True)
        check_primary(primary, moved=True)
        assert before is not None
        assert before["seq"] == 40
        gone = {f"/pub/{number:02}" for number in (*range(0, 40, 5), 3)}
        assert len(copy.paths) == 40 - len(gone)
        assert not gone & {*copy.paths}
        assert {path for path, _ in here.shelf("carol", user)} >= gone - {"/pub/03"}
        here.start("alice")
        judge(here, user, "bob", "alice", "carol")


def test_a_primary_rewound_under_load(tmp_path: Path, chance: random.Random) -> None:
    """I9, I20: a primary whose database forgets some seconds gets them back from its mirror, on its shelf."""
    with world(tmp_path, chance, MUTUAL) as here:
        user = here.somebody("alice")
        with Load(here.client(user, "alice"), random.Random(chance.random()), PATHS, 0.004, longest=9000):
            time.sleep(0.7)  # that long the load runs
        backup = back_up(here, "alice")
        with Load(here.client(user, "alice"), random.Random(chance.random()), PATHS, 0.004, longest=9000):
            time.sleep(0.7)  # that long the load runs
        here.until_equal(user, "alice", "bob")
        rewind(here, "alice", backup)
        with Load(here.client(user, "alice"), random.Random(chance.random()), PATHS, 0.004, longest=9000):
            time.sleep(0.3)  # that long the load runs
        judge(here, user, "alice", "bob")
        copy = here.copy("bob", user)
        assert copy is not None
        assert copy["forked"], "the operator is told"


@pytest.mark.parametrize("has_log", [True, False], ids=["with the tail", "with a list"])
def test_an_old_backup_as_primary(tmp_path: Path, chance: random.Random, has_log: bool) -> None:
    """I9, I20, I21: a primary that lacks most files makes its mirror wait for the operator; nothing goes until then.

    A mirror that has seen the lost writes happen gives them to the primary's shelf meanwhile. One that began when they
    were there already knows files only: those go to its own shelf, when the operator lets them go.
    """
    with world(tmp_path, chance, MUTUAL) as here:
        user = here.somebody("alice")
        client = here.client(user, "alice")
        if not has_log:
            here.ways["bob", "alice"].split()
            here.ways["bob", "alice"].reset()
        for number in range(10):
            assert client.put(f"/pub/old/{number}", b"%d" % number) == 201
        if has_log:
            here.until_equal(user, "alice", "bob")
        backup = back_up(here, "alice")
        client = here.client(user, "alice")
        for number in range(40):
            assert client.put(f"/pub/new/{number}", chance.randbytes(chance.randrange(9000))) == 201
        here.heal()
        _, before = here.until_equal(user, "alice", "bob")
        rewind(here, "alice", backup)
        here.until(lambda: (copy := here.copy("bob", user)) and copy["braked"] == 40)
        client = here.client(user, "alice")
        assert client.put("/pub/new/0", b"goes on") == 201
        time.sleep(2)  # time for what must not come
        after = here.dump("bob", user)
        assert (after.paths, after.files, after.refused) == (before.paths, before.files, {})
        assert len(here.shelf("alice", user)) == (40 if has_log else 0)
        assert here.operator("bob", f"/mirrors/repair?pubky={user.pubky}", "POST")["permitted"] == 40
        judge(here, user, "alice", "bob")
        assert len(here.shelf("alice", user) | here.shelf("bob", user)) == 40
        assert len(here.dump("bob", user).paths) == 11
