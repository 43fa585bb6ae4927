"""A homeserver on a disk that fills up: it refuses writes, serves on, and works again when there is room."""

import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from attrs import define, field
from blake3 import blake3

from tests.faults.answers import listed, told
from tests.process import Node, Person, node_in, sign_up_token, until
from tests.small_disk import free, small_disk

MB = 1 << 20
DISK, RESERVE = 40 * MB, 8 * MB
INLINE, LARGE = 60_000, MB  # bytes of a body that lives in Redis, and of one that is a file
FULL = b"Server storage full"
SETTINGS = {"storage": {"reserve_mb": RESERVE // MB, "inline_limit": 65536}}
"""Large inline bodies fill the log of Redis with few requests."""

COMMON = ("/pub/first", "/pub/second", "/priv/third")
"""Files that everybody has, one of them small, before the disk is full."""


@define(eq=False)
class House:
    """A homeserver on a small disk, and somebody's files: what was acknowledged."""

    node: Node
    person: Person
    disk: Path
    hashes: dict[str, bytes] = field(factory=dict)

    @property
    def ballast(self) -> Path:
        """What somebody else keeps on the disk."""
        return self.disk / "ballast"

    def load(self, left: int) -> None:
        """Let somebody else fill the disk, but so many bytes."""
        with self.ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free(self.disk) - left)

    def put(self, path: str, length: int) -> bool:
        """Write a file of so many bytes; whether there was room for it."""
        body = os.urandom(length)
        answer, text = self.node.ask("PUT", self.person.path(path), body, self.person.headers)
        assert (answer.status, text) in ((201, b""), (507, FULL))
        if answer.status == 201:
            self.hashes[path] = blake3(body).digest()
        return answer.status == 201

    def delete(self, path: str) -> None:
        """Remove a file."""
        answer, text = self.node.ask("DELETE", self.person.path(path), headers=self.person.headers)
        assert answer.status == 204, (answer.status, text)
        del self.hashes[path]

    def fill(self, length: int) -> None:
        """Write files until there is no room for large or small ones."""
        for one in (length, LARGE, INLINE, 1):
            while self.put(f"/pub/{one}/{len(self.hashes)}", one):
                assert len(self.hashes) * INLINE < DISK, "the disk took more than it has"

    def check(self, is_full: bool | None = None) -> None:
        """Reading, listing, events, sessions work; every acknowledged file is there, whole, and there is no other."""
        for path, content_hash in self.hashes.items():
            answer, body = self.node.ask("GET", self.person.path(path), headers=self.person.headers)
            assert (answer.status, blake3(body).digest()) == (200, content_hash)
        assert listed(self.node, self.person) == self.hashes.keys()
        assert told(self.node, self.person) == self.hashes
        headers = {**self.person.headers, "pubky-host": self.person.pubky}
        assert self.node.ask("GET", "/session", headers=headers)[0].status == 200
        assert self.node.ask("GET", "/events/")[0].status == 200
        ready, facts = self.node.ask("GET", "/readyz", service="admin API")
        assert ready.status == 200
        assert json.loads(facts)["checks"]["disk"]["ok"] is not is_full or is_full is None

    def restart(self) -> None:
        """Stop it in order and start it again."""
        self.node.stop()
        self.node.start()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A homeserver with a few files, its data on a small disk of its own, its log elsewhere."""
    with small_disk(tmp_path / "disk", DISK) as disk, node_in(tmp_path / "node", SETTINGS) as node:
        node.data = disk / "data"
        node.start()
        house = House(node, node.sign_up(), disk)
        for path, length in zip(COMMON, (100, INLINE, LARGE), strict=True):
            assert house.put(path, length)
        yield house
        node.stop()


def test_full_of_large_files(house: House) -> None:
    """Bodies fill the disk: writes of any size get 507, all else goes on, and what is deleted gives room at once,
    though the bodies of deleted files have an hour of grace as long as there is room.
    """
    house.fill(LARGE)
    assert free(house.disk) > RESERVE - LARGE
    house.check(is_full=True)
    house.restart()
    house.check()
    house.fill(LARGE)
    house.check(is_full=True)
    for path in [*house.hashes][:10]:
        house.delete(path)
    until(lambda: house.put("/pub/again", LARGE))
    house.check(is_full=False)
    assert "Redis ended" not in house.node.log()


def test_full_of_small_files(house: House) -> None:
    """The log of Redis fills the disk: the same. Deletes make it longer, and still there is room to write again, as
    long as the disk holds what there is: the log is written anew.
    """
    house.fill(INLINE)
    house.check(is_full=True)
    house.restart()
    house.check()
    house.fill(INLINE)
    house.check(is_full=True)
    for path in [*house.hashes][10:]:
        house.delete(path)
    for number in range(2 * DISK // INLINE):
        until(partial(house.put, f"/pub/again/{number % 5}", INLINE))
    house.check()
    log = house.node.log()
    assert "is written anew" in log
    assert "Redis ended" not in log
    house.restart()
    house.check()


@pytest.mark.parametrize("left", [RESERVE // 2, 0])
def test_filled_by_somebody_else(house: House, left: int) -> None:
    """Something else fills the disk, even to its last byte: all goes on but writes, and when it is gone they do too."""
    house.load(left)
    house.fill(1)
    house.check(is_full=True)
    house.restart()
    house.check(is_full=True)
    if left:
        house.delete(COMMON[0])
    else:
        answer, _ = house.node.ask("DELETE", house.person.path(COMMON[0]), headers=house.person.headers)
        assert answer.status == 503
        answer, text = house.node.ask("POST", "/signup", sign_up_token())
        assert (answer.status, text) == (507, FULL)
    house.check(is_full=True)
    house.ballast.unlink()
    until(lambda: house.put("/pub/again", LARGE))
    house.check(is_full=False)
