"""A primary whose Redis was restored from an old backup, and a mirror that has what it lost, as real processes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet.threads import deferToThread

from tests.network.test_mirrors import BOB, friends
from tests.process import Node

PASSWORD = {"X-Admin-Password": "open sesame"}


def admin(node: Node, method: str, target: str) -> Any:
    """What the admin port says."""
    answer, body = node.ask(method, target, None, PASSWORD, "admin API")
    assert answer.status == 200, body
    return json.loads(body)


@pytest_twisted.ensureDeferred
async def test_a_restored_backup(tmp_path: Path) -> None:
    """The mirror heals it: what was lost lies on the primary's shelf, and `apply` brings it back everywhere."""
    async with friends(tmp_path, mutual=True) as both:
        alice, redis = both.alice, both.alice.data / "redis"
        large = bytes(range(256)) * 400
        for number in range(30):
            await both.put(f"/pub/{number:02}", b"%d" % number)
        await both.until_bob_has("/pub/29", b"29")
        port = alice.ports["client API"]
        fixed = f'icann_listen_socket = "127.0.0.1:{port}"'
        alice.settings.write_text(alice.settings.read_text().replace('icann_listen_socket = "127.0.0.1:0"', fixed))
        await deferToThread(alice.stop)
        shutil.copytree(redis, tmp_path / "backup")
        await deferToThread(alice.start)
        await both.put("/pub/00", b"changed")
        await both.delete("/pub/01")
        await both.put("/pub/large", large)
        await both.until_bob_has("/pub/large", large)
        await both.until(lambda: both.status()["copies"][0]["missing"] == 0)
        await deferToThread(alice.stop)
        shutil.rmtree(redis)
        shutil.copytree(tmp_path / "backup", redis)
        await deferToThread(alice.start)
        asked = f"/conflicts?pubky={both.person.pubky}"

        def lost() -> list[dict[str, Any]]:
            items: list[dict[str, Any]] = admin(alice, "GET", asked)["items"]
            return items if len(items) == 3 else []

        items = {item["path"]: item for item in await both.until(lost)}
        assert items.keys() == {"/pub/00", "/pub/01", "/pub/large"}
        assert {item["origin"] for item in items.values()} == {BOB.public_key.z32}
        assert all(item["untouched"] for item in items.values())
        await both.until_bob_has("/pub/01", b"1")
        await both.until_bob_has("/pub/large", 404)
        done = await deferToThread(admin, alice, "POST", f"/conflicts/apply?pubky={both.person.pubky}&untouched=true")
        assert (len(done["applied"]), done["left"]) == (3, [])
        await both.until_bob_has("/pub/large", large)
        await both.until_bob_has("/pub/00", b"changed")
        await both.until_bob_has("/pub/01", 404)
        assert await deferToThread(alice.get, both.person, "/pub/large") == large
        for node in (alice, both.bob):
            assert (await deferToThread(admin, node, "GET", "/conflicts"))["accounts"] == []
