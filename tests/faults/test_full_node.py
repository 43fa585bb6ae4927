"""A homeserver on a disk that fills up: it refuses writes, serves on, and works again when there is room."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.process import Node, Person, node_in, until
from tests.small_disk import free, small_disk

DISK = 96 << 20
RESERVE = 24 << 20
SMALL, LARGE = b"x" * 100, 1 << 20  # a body in its entry, and bytes of one in a file


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system."""
    with small_disk(tmp_path / "disk", DISK) as disk:
        yield disk


def refused(node: Node, person: Person, body: bytes) -> bool:
    """Whether a write is refused for want of room, with the protocol's words."""
    answer, text = node.ask("PUT", person.path("/pub/more"), body, person.headers)
    assert answer.status in (201, 507), text
    assert answer.status == 201 or text == b"Server storage full"
    return answer.status == 507


def serves(node: Node, person: Person, files: dict[str, bytes]) -> None:
    """Reading, listing, events and sessions work, and every file is whole."""
    for path, body in files.items():
        assert node.get(person, path) == body
    listing, names = node.ask("GET", person.path("/pub/?limit=1000"))
    assert (listing.status, {name.partition(person.pubky)[2] for name in names.decode().split()}) == (200, set(files))
    for target in ("/events/", f"/events-stream?user={person.pubky}"):
        assert node.ask("GET", target)[0].status == 200
    assert node.ask("GET", "/session", headers={**person.headers, "pubky-host": person.pubky})[0].status == 200
    ready, _ = node.ask("GET", "/readyz", service="admin API")
    assert ready.status in (200, 503)


def fill(node: Node, person: Person) -> dict[str, bytes]:
    """Write large files until one is refused; what was acknowledged."""
    files: dict[str, bytes] = {}
    for number in range(DISK // LARGE):
        body = os.urandom(LARGE)
        status = node.put(person, f"/pub/{number}", body)
        if status == 507:
            return files
        assert status == 201
        files[f"/pub/{number}"] = body
    pytest.fail("the disk took more than it has")


def test_a_full_disk(disk: Path) -> None:
    """Filled by its users: 507 for writes of every size, all else goes on, what they delete gives room."""
    settings = {"storage": {"reserve_mb": RESERVE >> 20}}
    (disk / "node").mkdir()
    with node_in(disk / "node", settings) as node:
        node.start()
        person = node.sign_up()
        files = fill(node, person)
        assert len(files) > 20
        assert free(disk) > RESERVE // 2, "the reserve is there for Redis"
        for body in (SMALL, bytes(LARGE)):
            until(partial(refused, node, person, body))
        serves(node, person, files)
        node.stop()
        node.start()
        serves(node, person, files)
        for path in [*files][:10]:
            assert node.ask("DELETE", person.path(path), headers=person.headers)[0].status == 204
            del files[path]
        until(lambda: not refused(node, person, bytes(LARGE)))
        files["/pub/more"] = bytes(LARGE)
        serves(node, person, files)
        node.stop()


def test_somebody_else_fills_the_disk(disk: Path) -> None:
    """Filled by something else: the same, and when that is gone writing works again without a restart."""
    settings = {"storage": {"reserve_mb": RESERVE >> 20}}
    (disk / "node").mkdir()
    with node_in(disk / "node", settings) as node:
        node.start()
        person = node.sign_up()
        files = {"/pub/small": SMALL, "/pub/large": os.urandom(LARGE)}
        for path, body in files.items():
            assert node.put(person, path, body) == 201
        ballast = disk / "ballast"
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free(disk) - RESERVE // 2)
        for body in (SMALL, bytes(LARGE)):
            until(partial(refused, node, person, body))
        files["/pub/more"] = node.get(person, "/pub/more") or b""
        if not files["/pub/more"]:
            del files["/pub/more"]
        serves(node, person, files)
        ballast.unlink()
        until(lambda: not refused(node, person, bytes(LARGE)))
        files["/pub/more"] = bytes(LARGE)
        serves(node, person, files)
        node.stop()
