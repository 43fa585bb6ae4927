"""A thousand live event streams on one homeserver, while people write: nobody misses, doubles or holds up anything."""

import re
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from attrs import define, field

from tests.process import Node, Person, node_in, until

STREAMS = 1000
PEOPLE = 20
WRITES = 15
"""Files of each person that are written while all streams are open."""

EVENT = re.compile(rb"^event: PUT\ndata: pubky://(\w{52})(/\S+)\ndata: cursor: (\d+)\n", re.MULTILINE)


@define(eq=False)
class Stream:
    """One client, its socket open, its bytes kept."""

    people: list[Person]
    socket: socket.socket
    received: bytearray = field(factory=bytearray)
    ended: bool = False

    @property
    def is_open(self) -> bool:
        """Whether its answer has begun."""
        return b"\r\n\r\n" in self.received

    def events(self) -> list[tuple[str, str, int]]:
        """Account, path and cursor of all events that came, in their order."""
        rest = bytes(self.received).partition(b"\r\n\r\n")[2]
        text = b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            text, rest = text + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        return [(who.decode(), path.decode(), int(cursor)) for who, path, cursor in EVENT.findall(text)]


@define(eq=False)
class Crowd:
    """Reads all streams in one thread."""

    node: Node
    streams: list[Stream] = field(factory=list)
    _selector: selectors.BaseSelector = field(factory=selectors.DefaultSelector)
    _done: threading.Event = field(factory=threading.Event)

    def follow(self, *people: Person, reads: bool = True) -> Stream:
        """Open a live stream of some people's public files."""
        connection = socket.socket()
        if not reads:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", self.node.ports["client API"]))
        users = "&".join(f"user={person.pubky}" for person in people)
        connection.sendall(f"GET /events-stream?live=true&{users} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        stream = Stream(list(people), connection)
        self.streams.append(stream)
        if reads:
            connection.setblocking(False)
            self._selector.register(connection, selectors.EVENT_READ, stream)
        return stream

    def run(self) -> None:
        """Read until told to stop."""
        while not self._done.is_set():
            for key, _ in self._selector.select(0.1):
                stream: Stream = key.data
                try:
                    data = stream.socket.recv(65536)
                except OSError:
                    data = b""
                stream.received += data
                if not data:
                    stream.ended = True
                    self._selector.unregister(stream.socket)

    @contextmanager
    def reading(self) -> Iterator["Crowd"]:
        """While this lasts all streams are read."""
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            yield self
        finally:
            self._done.set()
            thread.join()
            for stream in self.streams:
                stream.socket.close()
            self._selector.close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A running homeserver; at the end it stops in order."""
    with node_in(tmp_path, {"metrics": {"enabled": True, "listen_socket": "127.0.0.1:0"}}) as node:
        node.start()
        yield node
        node.stop()


def write(node: Node, person: Person, paths: list[str]) -> None:
    """Write files, one after the other on one connection."""
    connection = node.connect()
    for path in paths:
        connection.request("PUT", person.path(path), b"x", person.headers)
        answer = connection.getresponse()
        assert answer.status == 201, answer.read()
        answer.read()
    connection.close()


def in_parallel(node: Node, people: list[Person], paths: list[str]) -> None:
    """All people write the same paths at the same time."""
    threads = [threading.Thread(target=write, args=(node, person, paths)) for person in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_thousand_streams(node: Node) -> None:
    """Each gets every event of whom it follows, once, in order, also what came while its history was still read."""
    people = [node.sign_up() for _ in range(PEOPLE)]
    in_parallel(node, people, [f"/pub/old/{number}" for number in range(WRITES)])
    with Crowd(node).reading() as crowd:
        for number in range(STREAMS - 100):
            crowd.follow(*(people[(number + step) % PEOPLE] for step in range(1 + number % 3)))
        until(lambda: all(stream.is_open for stream in crowd.streams), within=60)
        writers = threading.Thread(
            target=in_parallel, args=(node, people, [f"/pub/new/{number}" for number in range(WRITES)])
        )
        writers.start()
        for number in range(100):  # these begin with history in the middle of the writes
            crowd.follow(people[number % PEOPLE])
        writers.join()

        def has_all(stream: Stream) -> bool:
            return stream.received.count(b"event: PUT") == 2 * WRITES * len(stream.people)

        until(lambda: all(map(has_all, crowd.streams)), within=30)
        for stream in crowd.streams:
            events = stream.events()
            assert [event[2] for event in events] == sorted({event[2] for event in events})
            for person in stream.people:
                mine = [path for who, path, _ in events if who == person.pubky]
                assert mine == [f"/pub/{age}/{number}" for age in ("old", "new") for number in range(WRITES)]
        one = people[0]
        followers = [stream for stream in crowd.streams if one in stream.people]
        began = time.monotonic()
        assert node.put(one, "/pub/last", b"x") == 201
        until(lambda: all(b"/pub/last\n" in stream.received for stream in followers), within=10)
        assert time.monotonic() - began < 5, "one write reaches everybody soon"
        assert not any(stream.ended for stream in crowd.streams)


def test_who_does_not_read_is_cut_off_and_nobody_else(node: Node) -> None:
    """Streams that are not read end when they are a thousand events behind; those beside them get everything."""
    person = node.sign_up()
    with Crowd(node).reading() as crowd:
        idle = [crowd.follow(person, reads=False) for _ in range(5)]
        reader = crowd.follow(person)
        until(lambda: reader.is_open)
        long = "/".join("x" * 200 for _ in range(4))
        paths = [f"/pub/{long}/{number}" for number in range(2000)]
        written = 0
        for batch in range(8):
            in_parallel(node, [person] * 4, paths[batch % 4 * 500 : batch % 4 * 500 + 500])
            written += 2000
            if _lagged(node) == len(idle):
                break
        assert _lagged(node) == len(idle)
        until(lambda: reader.received.count(b"event: PUT") == written, within=30)
        assert not reader.ended
        for stream in idle:
            stream.socket.settimeout(10)
            with suppress(ConnectionError):
                while not stream.received.endswith(b"\r\n0\r\n\r\n") and (data := stream.socket.recv(1 << 20)):
                    stream.received += data


def _lagged(node: Node) -> int:
    """How many streams the homeserver has cut off."""
    text = node.ask("GET", "/metrics", service="metrics")[1].decode()
    found = re.search(r"event_stream_broadcast_lagged_count_total\{.*\} (\d+)", text)
    return int(found[1]) if found else 0
