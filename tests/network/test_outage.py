"""Redis goes away under a running homeserver, and comes back: refusals that say so, and nothing lost or skipped."""

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path

import pytest
from attrs import define, field

from tests.process import START, TICK, Node, Person, node_in, until
from tests.store.server import RedisServer

LAST = "/pub/last"
"""The file whose event ends a reader's work."""

WITHIN = 10.0
"""Seconds in which a homeserver works again once its Redis does: it connects again every second."""

ORIGIN = "https://app.example"
"""A page, which can only read an answer that allows it to."""

NOTICED = 15.0
"""Seconds in which a Redis that is silent, not gone, is taken for gone: the store looks every five."""


@contextmanager
def outside_redis(folder: Path) -> Iterator[RedisServer]:
    """A Redis that is not the homeserver's own; whatever becomes of it, it is gone at the end."""
    redis = RedisServer(folder)
    redis.start()
    try:
        yield redis
    finally:
        redis.kill()


def at(redis: RedisServer) -> dict[str, dict[str, object]]:
    """The settings of a homeserver on a Redis."""
    return {"redis": {"url": f"unix://{redis.socket}"}}


@define
class Outage:
    """A running homeserver, and how its Redis goes and comes."""

    node: Node
    go: Callable[[], None]
    come: Callable[[], None]


@pytest.fixture(params=["private", "outside"])
def outage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Outage]:
    """One with its private Redis, which is started again by itself, and one with an outside Redis."""
    if request.param == "private":
        with node_in(tmp_path / "node") as node:
            node.start()
            yield Outage(node, lambda: os.kill(node.redis(), signal.SIGKILL), lambda: None)
            node.stop()
        return
    with outside_redis(tmp_path) as redis, node_in(tmp_path / "node", at(redis)) as node:
        node.start()
        yield Outage(node, redis.kill, redis.start)
        node.stop()


def works(node: Node, person: Person) -> bool:
    """Whether a write is taken."""
    return node.put(person, "/pub/probe", b"?") == 201


def is_ready(node: Node) -> tuple[int, bool]:
    """What `/readyz` says: its status, and of the store."""
    answer, body = node.ask("GET", "/readyz", service="admin API")
    said = json.loads(body)
    assert said["ready"] is (answer.status == 200)
    assert (answer.getheader("Retry-After") is None) is (answer.status == 200)
    return answer.status, said["checks"]["store"]["ok"]


def refusals(node: Node, person: Person) -> Iterator[HTTPResponse]:
    """Answers to a page that writes, reads and follows, one after the other, for as long as anybody wants them."""
    headers = {**person.headers, "Origin": ORIGIN}
    while True:
        for method, target in (
            ("PUT", person.path("/pub/during")),
            ("GET", person.path("/pub/before")),
            ("GET", person.path("/pub/")),
            ("DELETE", person.path("/pub/absent")),
            ("GET", "/session?pubky-host=" + person.pubky),
            ("GET", "/events/"),
            ("GET", f"/events-stream?user={person.pubky}"),
        ):
            yield node.ask(method, target, b"x" if method == "PUT" else None, headers)[0]


def test_requests_are_refused_and_served_again(outage: Outage) -> None:
    """Whoever needs the store reads 503 and when to try again; after that all is as before, without a restart."""
    node = outage.node
    person = node.sign_up()
    assert node.put(person, "/pub/before", b"kept") == 201
    assert is_ready(node) == (200, True)
    outage.go()
    refused = 0
    deadline = time.monotonic() + WITHIN
    for answer in refusals(node, person):
        assert answer.status in (200, 201, 204, 404, 503), answer.status
        if answer.status == 503:
            assert answer.getheader("Retry-After") == "1"
            assert answer.getheader("Access-Control-Allow-Origin") == ORIGIN
            refused += 1
        if refused == 7:
            outage.come()  # a private one has come already, or is about to
        if refused >= 7 and answer.status != 503:
            break
        assert time.monotonic() < deadline
    until(lambda: works(node, person), WITHIN, node.written)
    assert node.get(person, "/pub/before") == b"kept"
    assert until(lambda: is_ready(node) == (200, True), WITHIN)


def test_what_needs_no_store_is_served(tmp_path: Path) -> None:
    """The homeserver itself lives on: it says so, and that it is not ready."""
    with outside_redis(tmp_path) as redis, node_in(tmp_path / "node", at(redis)) as node:
        node.start()
        redis.kill()
        until(lambda: is_ready(node) == (503, False), WITHIN, node.written)
        assert node.ask("GET", "/")[1] == b"Pubky Homeserver"
        assert node.ask("GET", "/info")[0].status == 200
        assert node.ask("GET", "/healthz", service="admin API")[1] == b"ok"
        node.stop()  # also without a store


def test_a_silent_redis(tmp_path: Path) -> None:
    """A Redis that hangs is taken for gone after some seconds, so nobody waits for ever; `/readyz` knows sooner."""
    with outside_redis(tmp_path) as redis, node_in(tmp_path / "node", at(redis)) as node:
        node.start()
        person = node.sign_up()
        redis.signal(signal.SIGSTOP)
        began = time.monotonic()
        assert is_ready(node) == (503, False)
        assert time.monotonic() - began < 5
        answer, _ = node.ask("PUT", person.path("/pub/file"), b"x", person.headers)
        assert (answer.status, answer.getheader("Retry-After")) == (503, "1")
        assert time.monotonic() - began < NOTICED
        redis.signal(signal.SIGCONT)
        until(lambda: works(node, person), WITHIN, node.written)
        node.stop()


@define(eq=False)
class Reader:
    """Follows a person's events as a client does: when its stream ends, it comes back with its last cursor."""

    node: Node
    person: Person
    seen: list[str] = field(factory=list)
    """Paths of the events, in order."""
    streams: int = 0
    cursor: str = ""
    done: threading.Event = field(factory=threading.Event)

    def run(self) -> None:
        """Follow until told otherwise."""
        while not self.done.is_set():
            try:
                self._follow()
            except (OSError, HTTPException):
                pass  # cut: a client comes back
            self.done.wait(0.05)

    def _follow(self) -> None:
        connection = self.node.connect()
        user = self.person.pubky + (f":{self.cursor}" if self.cursor else "")
        connection.request("GET", f"/events-stream?user={user}&live=true")
        answer = connection.getresponse()
        if answer.status != 200:
            assert answer.status == 503
            return
        self.streams += 1
        path = ""
        while line := answer.readline().decode():
            if found := re.match(r"data: pubky://\w+(/\S+)", line):
                path = found[1]
            elif found := re.match(r"data: cursor: (\d+)", line):
                self.cursor = found[1]
                self.seen.append(path)
                if path == LAST:
                    self.done.set()
                    return


def write_through(outage: Outage, person: Person, writes: int) -> list[str]:
    """Write that many files, with two outages on the way, each until it is acknowledged; their paths."""
    written: list[str] = []
    refused = 0
    for number in range(writes):
        if number in (writes // 3, 2 * writes // 3):
            outage.go()
        path = f"/pub/{number}"
        while (status := outage.node.put(person, path, b"x" * (number % 3 * 3000))) != 201:
            assert status == 503
            refused += 1
            if refused % 5 == 1:
                outage.come()
            time.sleep(TICK)
        written.append(path)
    assert refused > 1, "the writes met both outages"
    return written


def test_no_event_is_skipped(outage: Outage) -> None:
    """Live streams go on or end; whoever follows sees every acknowledged write, once and in order."""
    person = outage.node.sign_up()
    reader = Reader(outage.node, person)
    following = threading.Thread(target=reader.run, daemon=True)
    following.start()
    try:
        written = write_through(outage, person, 300)
        assert outage.node.put(person, LAST, b"") == 201
        following.join(START)
        assert not following.is_alive(), (len(reader.seen), outage.node.written())
    finally:
        reader.done.set()
    once = list(dict.fromkeys(reader.seen))  # a write that was refused may have happened, and then happens again
    assert once == [*written, LAST]
