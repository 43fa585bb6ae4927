"""An operator takes an account down: where it lives, or where it is copied, and what becomes of that when it moves."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.mirroring.test_moves import MUTUAL, until_it_writes
from tests.faults.mirroring.world import Somebody, World, world

PATHS = ("/pub/one", "/pub/two")
SECRET = b"what nobody shall read " * 400


@pytest.fixture
def both(tmp_path: Path, chance: random.Random) -> Iterator[World]:
    """Alice's and Bob's homeservers mirror each other, private files too."""
    links = {link: {"private": True} for link in MUTUAL}
    with world(tmp_path, chance, links) as here:
        yield here


def begin(here: World) -> Somebody:
    """A user of Alice's, whose files Bob has."""
    user = here.somebody("alice")
    client = here.client(user, "alice")
    for path in (*PATHS, "/priv/three"):
        assert client.put(path, SECRET + path.encode()) == 201
    here.until_equal(user, "alice", "bob")
    return user


def statuses(here: World, node: str, user: Somebody) -> set[int]:
    """What comes of all ways to read at a homeserver, with a session that the user has or had at Alice's; no word."""
    found = set()
    for target in ("/pub/one", "/pub/two", "/pub/", "/priv/three", "/priv/", "/pub/no"):
        for headers in ({}, {"Cookie": user.cookies["alice"]}):
            answer, body = here.nodes[node].ask("GET", f"/storage/{user.pubky}{target}", None, headers)
            assert answer.status == 200 or SECRET not in body
            found.add(answer.status)
    return found


def decide(here: World, node: str, user: Somebody, method: str = "POST") -> None:
    """The operator takes an account down, or lifts that."""
    assert here.operator(node, f"/takedowns?pubky={user.pubky}", method)["changed"]


def test_where_it_lives(both: World) -> None:
    """I14: nobody reads it there from that moment on, nor at the mirror a moment later, nor after restarts; I1 holds.

    It comes back whole where it is lifted. What burns is the account of its user all the same: at Bob's, who decides
    for himself, it opens with all of it, while Alice's decision stays with Alice.
    """
    user = begin(both)
    decide(both, "alice", user)
    assert statuses(both, "alice", user) == {451}
    both.until(lambda: statuses(both, "bob", user) == {451}, 5)
    copy = both.copy("bob", user)
    assert copy is not None
    assert copy["taken_down"]
    assert both.client(user, "alice").put("/pub/more", b"x") == 451
    for name in ("alice", "bob"):
        both.nodes[name].stop()
        both.start(name)
        assert statuses(both, name, user) == {451}
    assert both.client(user, "alice").delete("/pub/two") == 204
    decide(both, "alice", user, "DELETE")
    both.until_equal(user, "alice", "bob", unseen=2)
    assert both.nodes["bob"].ask("GET", f"/storage/{user.pubky}/pub/one")[1] == SECRET + b"/pub/one"
    decide(both, "alice", user)
    both.until(lambda: statuses(both, "bob", user) == {451}, 5)
    both.nodes["alice"].kill()
    assert both.sign_up(user, "bob") == 200
    both.publish(user, "bob")
    until_it_writes(both, user, "bob")
    at_bob = both.client(user, "bob")
    both.until(lambda: at_bob.get("/pub/one").status == 200)
    assert at_bob.get("/priv/three").status == 200
    both.start("alice")
    both.until(lambda: (copy := both.copy("alice", user)) and copy["state"] == "current" and not copy["taken_down"])
    assert statuses(both, "alice", user) == {451}
    decide(both, "alice", user, "DELETE")
    both.until_equal(user, "bob", "alice", moved=True)


def test_where_it_is_copied(both: World) -> None:
    """I14: a mirror's operator decides for the mirror alone; and for the account, should that come there."""
    user = begin(both)
    decide(both, "bob", user)
    assert statuses(both, "bob", user) == {451}
    assert both.client(user, "bob").put("/pub/one", b"x") == 421
    assert both.client(user, "alice").put("/pub/one", b"goes on") == 201
    both.until(lambda: (copy := both.copy("bob", user)) and not copy["lag"] and copy["state"] == "current")
    both.nodes["bob"].stop()
    both.start("bob")
    time.sleep(1)  # time for what must not come
    assert statuses(both, "bob", user) == {451}
    assert both.nodes["alice"].ask("GET", f"/storage/{user.pubky}/pub/one")[1] == b"goes on"
    assert both.sign_up(user, "bob") == 200
    both.publish(user, "bob")
    both.until(lambda: both.copy("alice", user), 30)
    both.until(lambda: statuses(both, "alice", user) == {451}, 30)
    assert statuses(both, "bob", user) == {451}
    assert both.client(user, "bob").put("/pub/one", b"x") == 451
    decide(both, "bob", user, "DELETE")
    until_it_writes(both, user, "bob")
    both.until_equal(user, "bob", "alice", moved=True)
