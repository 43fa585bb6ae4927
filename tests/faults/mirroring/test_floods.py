"""A peer that answers with anything but answers: bytes without end, heads without end, or hardly anything at all.

What an answer may say wrongly is tested elsewhere, lie by lie; here it is about time and memory, with real sockets.
"""

import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from attrs import field, frozen

from tests.faults.mirroring.checker import check_at_rest
from tests.faults.mirroring.history import Client
from tests.faults.mirroring.world import World, world
from tests.process import Node

MB = 1 << 20
GROWTH = 120 * MB  # bytes that a homeserver may grow by while it is flooded; the floods of a run would take gigabytes
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
FOR = 1.2  # seconds of each flood, once it is noticed

FLOODS: dict[str, tuple[bytes, bytes, float]] = {
    "a head without end": (b"HTTP/1.1 200 OK\r\n", b"X-More: " + b"x" * 1000 + b"\r\n", 0),
    "a line without end": (b"HTTP/1.1 200 OK\r\nX-More: ", b"x" * 65536, 0),
    "a body without end": (HEAD + b"\r\n", b" " * 65536, 0),
    "a terabyte": (HEAD + b"Content-Length: 1000000000000\r\n\r\n", b"[" * 65536, 0),
    "chunks without end": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"{" * 65536 + b"\r\n", 0),
    "chunks of a byte": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 2000, 0),
    "a size without end": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0" * 65536, 0),
    "answers nobody asked for": (b"", HEAD + b"Content-Length: 2\r\n\r\n{}", 0),
    "a drip": (HEAD + b"Content-Length: 1000000\r\n\r\n", b" ", 0.3),
    "a drip of a head": (b"HTTP/1.1 200 OK\r\n", b"X", 0.3),
    "silence": (b"", b"", 0.3),
    "no HTTP": (b"", b"\x16\x03\x01\x02\x00\x01" * 1000, 0),
}
"""What begins each answer, what goes on and on, and the seconds in between."""


@frozen
class Flood:
    """A server that answers so, whatever it is asked."""

    port: int
    is_asked: threading.Event = field(factory=threading.Event)
    """Set when it was asked something."""


@contextmanager
def flood(kind: str) -> Iterator[Flood]:
    """Such a server, for a while."""
    begin, more, pause = FLOODS[kind]
    over = threading.Event()

    def pour(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65536)
            here.is_asked.set()
            connection.sendall(begin)
            while not over.wait(pause):
                connection.sendall(more)

    def listen(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=pour, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        here = Flood(server.getsockname()[1])
        threading.Thread(target=listen, args=(server,), daemon=True).start()
        try:
            yield here
        finally:
            over.set()
            server.shutdown(socket.SHUT_RDWR)


def memory(node: Node) -> int:
    """Bytes of memory that the process of a homeserver takes."""
    assert node.process is not None
    return resident(node.process.pid)


def resident(process: int) -> int:
    """Bytes of memory that a process takes."""
    pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    return int(pages) * 4096


def lag(here: World, write: Callable[[str, bytes], int], read: Callable[[str], int], path: str) -> float:
    """Seconds from a write at one homeserver until its mirror shows it."""
    assert write(path, path.encode() * 100) == 201
    began = time.monotonic()
    here.until(lambda: read(path) == 200)
    return time.monotonic() - began


def call(caller: Client, pouring: Flood) -> bool:
    """Write something that Alice asks for, for who is heard of is tried again at once; whether she was asked."""
    assert caller.put("/pub/a", os.urandom(10)) == 201
    return pouring.is_asked.wait(0.5)


def test_floods(tmp_path: Path, chance: random.Random) -> None:
    """I18: whatever a peer pours out, writes at another one are here within a second, and memory stays bounded.

    When it answers again it is followed again, by itself.
    """
    with world(tmp_path, chance, {("bob", "alice"): {}, ("bob", "carol"): {}, ("alice", "bob"): {}}) as here:
        users = {home: here.somebody(home) for home in ("alice", "carol", "bob")}
        for home, copy in (("alice", "bob"), ("carol", "bob"), ("bob", "alice")):
            assert here.client(users[home], home).put("/pub/a", b"x") == 201
            here.until_equal(users[home], home, copy)
        writer, reader = here.client(users["carol"], "carol"), here.client(users["carol"], "bob")
        caller, way = here.client(users["bob"], "bob"), here.ways["bob", "alice"]
        honest, before, lags = way.target, memory(here.nodes["bob"]), {}
        for kind in FLOODS:
            with flood(kind) as pouring:
                way.target = partial(int, pouring.port)
                way.reset()
                here.until(partial(call, caller, pouring))
                began, number = time.monotonic(), 0
                while time.monotonic() - began < FOR:
                    path = f"/pub/{kind.replace(' ', '-')}/{number}"
                    lags[path] = lag(here, writer.put, lambda one: reader.get(one).status, path)
                    number += 1
                    time.sleep(0.1)  # the pace of the writes
                assert here.dump("bob", users["alice"]).files.keys() == {"/pub/a"}
            assert memory(here.nodes["bob"]) - before < GROWTH, kind
        assert sorted(lags.values())[-2] < 1, lags
        way.target = honest
        way.reset()
        assert here.client(users["alice"], "alice").put("/pub/b", b"y") == 201
        assert caller.put("/pub/a", b"over") == 201
        for home in ("alice", "carol"):
            primary, copy_there = here.until_equal(users[home], home, "bob")
            check_at_rest(primary, [copy_there], here.history.of(users[home].pubky))
