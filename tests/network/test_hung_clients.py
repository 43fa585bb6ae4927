"""Clients that hang, hundreds of them, beside one that works."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hanging import Hanging, hanging_at
from tests.process import Node, Person, node_in, until

EACH = 125  # of each of the four kinds
ROUNDS = 8
BOUND = 1.0  # seconds that a request may take beside them
MEBIBYTE = 1 << 20
LARGE = "/pub/large"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A homeserver that runs, and that stops in order when all have left."""
    with node_in(tmp_path / "node") as node:
        node.start()
        yield node
        node.stop()


@pytest.fixture
def person(node: Node) -> Person:
    """Somebody with a small file, a middling one, a large one that no socket buffers, and a folder of some more."""
    person = node.sign_up()
    for number in range(100):
        assert node.put(person, f"/pub/folder/{number}", b"x") == 201
    assert node.put(person, "/pub/small", b"x" * 300) == 201
    assert node.put(person, "/pub/middling", os.urandom(MEBIBYTE)) == 201
    assert node.put(person, LARGE, os.urandom(32 * MEBIBYTE)) == 201
    return person


@pytest.fixture
def hanging(node: Node, person: Person) -> Iterator[Hanging]:
    """Clients that hang at it, none so far."""
    with hanging_at(node.ports["client API"], person.pubky, person.cookie, LARGE) as hanging:
        yield hanging


def requests(node: Node, person: Person) -> dict[str, Callable[[], int]]:
    """One request of each kind, each on a connection of its own; they return the status."""

    def get(target: str) -> int:
        return node.ask("GET", target, headers={**person.headers, "pubky-host": person.pubky})[0].status

    return {
        "a small file": lambda: get(person.path("/pub/small")),
        "a body from the disk": lambda: get(person.path("/pub/middling")),
        "a listing": lambda: get(person.path("/pub/folder/")),
        "events": lambda: get("/events/?limit=100"),
        "the session": lambda: get("/session"),
        "a small write": lambda: node.put(person, "/pub/written", b"x" * 300),
        "a write of 1 MiB": lambda: node.put(person, "/pub/written", os.urandom(MEBIBYTE)),
    }


def test_nobody_waits_for_them(node: Node, person: Person, hanging: Hanging) -> None:
    """Beside 500 clients that are idle, send byte by byte or do not read, each request is answered within a second."""
    hanging.gather(EACH)
    assert hanging.number == 4 * EACH
    late = {}
    for _ in range(ROUNDS):
        hanging.tend()
        for name, request in requests(node, person).items():
            began = time.monotonic()
            assert request() in (200, 201), name
            took = time.monotonic() - began
            if took >= BOUND:
                late[name] = took
    assert not late
    assert len(open_bodies(node)) >= EACH  # uploads, and downloads that do not move


def test_stalled_downloads_hold_nobody(node: Node, person: Person, hanging: Hanging) -> None:
    """640 clients that asked for a large file and do not read it all have it open; the next ones get theirs at once,
    and may write.
    """
    hanging.stall(640)
    until(lambda: len(open_bodies(node)) >= 640, why=node.written)
    for name, request in requests(node, person).items():
        began = time.monotonic()
        assert request() in (200, 201), name
        assert time.monotonic() - began < BOUND, name
    assert len(open_bodies(node)) == 640


def open_bodies(node: Node) -> list[str]:
    """The bodies that it has open."""
    assert node.process is not None
    folder, blobs = Path(f"/proc/{node.process.pid}/fd"), str(node.data / "blobs")
    opened = []
    for name in os.listdir(folder):
        try:
            opened.append(os.readlink(folder / name))
        except FileNotFoundError:
            pass  # closed meanwhile
    return [place for place in opened if place.startswith(blobs)]
