"""Clients that hang: connections that hold what they can of a server, and give it nothing to do.

Four kinds, as many of each: those that say nothing; those that send a head byte by byte; those that send a body byte
by byte; and those that asked for a large file, or to be told of events, and do not read the answer.
"""

import selectors
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import define, field

BEGUN = 300 * 1024  # bytes of a slow body that come at once: it is in a file then, and not in memory any more
ANNOUNCED = 1 << 30  # bytes that such a body will have
SMALL_WINDOW = 4096  # bytes that the kernel of a client that does not read takes for it


@define(eq=False)
class Hanging:
    """Some of them, at one homeserver."""

    port: int
    pubky: str
    cookie: str
    large: str
    """The path of a large file there."""
    _idle: list[socket.socket] = field(factory=list, init=False)
    _heads: list[socket.socket] = field(factory=list, init=False)
    _bodies: list[socket.socket] = field(factory=list, init=False)
    _readers: list[socket.socket] = field(factory=list, init=False)

    def gather(self, each: int) -> None:
        """Connect so many of each kind. All of them have got as far as they mean to get."""
        for number in range(each):
            self._idle.append(self._connect(b""))
            self._heads.append(self._begin_head())
            self._bodies.append(self._begin_body(number))
            self._readers.append(self._ask(number))
        for reader in self._readers:  # its answer has begun
            reader.settimeout(30)
            assert reader.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 200"
        for body in self._bodies:
            body.setblocking(False)

    def tend(self) -> None:
        """Send one more byte of each head and each body. A head that was refused, as it took too long, begins anew."""
        with selectors.DefaultSelector() as answered:
            for number, head in enumerate(self._heads):
                answered.register(head, selectors.EVENT_READ, number)
            for key, _ in answered.select(0):
                self._heads[key.data].close()
                self._heads[key.data] = self._begin_head()
        for slow in (*self._heads, *self._bodies):
            slow.send(b"x")

    @property
    def number(self) -> int:
        """How many they are."""
        return sum(map(len, (self._idle, self._heads, self._bodies, self._readers)))

    def close(self) -> None:
        """Leave, all of them."""
        for hanging in (*self._idle, *self._heads, *self._bodies, *self._readers):
            hanging.close()

    def stall(self, number: int) -> None:
        """So many more that asked for the large file and do not read."""
        self._readers += [self._ask(0) for _ in range(number)]

    def _begin_head(self) -> socket.socket:
        return self._connect(b"GET /info HTTP/1.1\r\nX-Slow: ")

    def _begin_body(self, number: int) -> socket.socket:
        head = (
            f"PUT /storage/{self.pubky}/pub/slow/{number} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Cookie: {self.cookie}\r\nContent-Length: {ANNOUNCED}\r\n\r\n"
        )
        return self._connect(head.encode() + bytes(BEGUN))

    def _ask(self, number: int) -> socket.socket:
        target = f"/events-stream?user={self.pubky}&live=true" if number % 2 else f"/storage/{self.pubky}{self.large}"
        return self._connect(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())

    def _connect(self, data: bytes) -> socket.socket:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_WINDOW)
        connection.settimeout(30)
        connection.connect(("127.0.0.1", self.port))
        connection.sendall(data)
        return connection


@contextmanager
def hanging_at(port: int, pubky: str, cookie: str, large: str) -> Iterator[Hanging]:
    """Clients that hang, and leave in the end."""
    clients = Hanging(port, pubky, cookie, large)
    try:
        yield clients
    finally:
        clients.close()
