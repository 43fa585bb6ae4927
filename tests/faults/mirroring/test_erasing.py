"""A primary orders its mirrors to erase a copy while one is down: nothing of the account is left there in the end."""

import random
from pathlib import Path
from typing import Any

from tests.faults.mirroring.world import World, world
from tests.process import until

GRACE = {"blobs": {"erased_grace": 2, "sweep_interval": 60}}
SECRET = b"what nobody shall find any more " * 200


def receipts(here: World) -> list[dict[str, Any]]:
    """The orders of the primary, as its operator sees them."""
    found: list[dict[str, Any]] = here.operator("alice", "/mirrors")["orders"]
    return found


def bodies(here: World) -> int:
    """How many bodies of the account lie at the mirror."""
    folder = here.nodes["bob"].data / "blobs"
    return sum(SECRET in file.read_bytes() for file in folder.rglob("*") if file.is_file())


def test_an_order_that_waits(tmp_path: Path, chance: random.Random) -> None:
    """I11: the order is given when the mirror is back, is obeyed at once, and after its grace no body is left.

    The other mirror, which was there, has obeyed long before.
    """
    with world(tmp_path, chance, {("bob", "alice"): {}, ("carol", "alice"): {}}, changes={"bob": GRACE}) as here:
        user = here.somebody("alice")
        client = here.client(user, "alice")
        for number in range(3):
            assert client.put(f"/pub/{number}", SECRET + b"%d" % number) == 201
        here.until_equal(user, "alice", "bob", "carol")
        assert bodies(here) == 3
        here.nodes["bob"].kill()
        assert here.operator("alice", f"/mirrors/erase?pubky={user.pubky}", "POST")["ordered"] == 2
        until(lambda: {one["peer"] for one in receipts(here) if one["receipt"]} == {"carol"}, 30)
        assert here.copy("carol", user) is None
        assert {one["peer"] for one in receipts(here) if not one["receipt"]} == {"bob"}
        here.nodes["bob"].start()
        until(lambda: all(one["receipt"] for one in receipts(here)), 60)
        path = f"/storage/{user.pubky}/pub/0"
        assert here.nodes["bob"].ask("GET", path)[0].status == 404
        assert here.copy("bob", user) is None
        until(lambda: bodies(here) == 0, 60)
        assert here.nodes["bob"].ask("GET", path)[0].status == 404
        assert here.nodes["alice"].ask("GET", path)[1] == SECRET + b"0"
        here.nodes["bob"].stop()
        here.nodes["bob"].start()
        assert client.put("/pub/more", b"x") == 201
        until(lambda: here.operator("bob", "/mirrors")["peers"][0]["heard"], 30)
        assert here.copy("bob", user) is None, "what was erased is not followed again"
