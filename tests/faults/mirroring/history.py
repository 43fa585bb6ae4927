"""What clients asked, and what they were told: written down as it happens, judged later."""

import threading
import time
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPException
from math import inf
from urllib.parse import quote

from attrs import define, field, frozen
from blake3 import blake3

NO_ANSWER = 0  # the status of a call whose connection broke


@frozen
class Call:
    """One request of a client."""

    node: str
    """The name of the homeserver that was asked."""
    pubky: str
    method: str
    path: str
    sent: bytes | None
    """The hash of the body that was sent."""
    start: float
    """Monotonic seconds."""
    end: float
    """Infinite if there was no answer: it may still have its effect."""
    status: int
    found: bytes | None = None
    """The hash of the body of an answer 200 to a GET of a file."""
    lines: tuple[str, ...] = ()
    """The paths that a listing named."""
    headers: Mapping[str, str] = field(factory=dict)
    """By their names in small letters."""

    @property
    def is_write(self) -> bool:
        """Whether it is to change something."""
        return self.method in ("PUT", "DELETE")

    @property
    def is_acknowledged(self) -> bool:
        """Whether it changed what it was to change."""
        return self.is_write and 200 <= self.status < 300


@define(eq=False)
class History:
    """All calls of a test, in the order of their ends."""

    calls: list[Call] = field(factory=list)
    _lock: threading.Lock = field(factory=threading.Lock)

    def add(self, call: Call) -> Call:
        """Write one down."""
        with self._lock:
            self.calls.append(call)
        return call

    def of(self, pubky: str) -> list[Call]:
        """All about one account."""
        with self._lock:
            return [call for call in self.calls if call.pubky == pubky]


@define(eq=False)
class Client:
    """Asks one homeserver about one account, one request after the other, and writes everything down."""

    history: History
    node: str
    port: Callable[[], int]
    """Where it is, which may change with each start."""
    pubky: str
    cookie: str = ""
    patience: float = 30.0
    _connection: HTTPConnection | None = None

    def put(self, path: str, body: bytes) -> int:
        """Write a file; the status."""
        return self.call("PUT", path, body).status

    def delete(self, path: str) -> int:
        """Delete a file; the status."""
        return self.call("DELETE", path).status

    def get(self, path: str) -> Call:
        """Read a file, or a listing if the path ends with a slash."""
        return self.call("GET", path, query="?limit=1000" if path.endswith("/") else "")

    def call(self, method: str, path: str, body: bytes | None = None, query: str = "") -> Call:
        """One request to a path as it is stored. A connection that breaks is an answer too."""
        sent = None if body is None else blake3(body).digest()
        start = time.monotonic()
        try:
            connection = self._connected()
            headers = {"Cookie": self.cookie} if self.cookie else {}
            connection.request(method, f"/storage/{self.pubky}{quote(path)}{query}", body, headers)
            answer = connection.getresponse()
            read = answer.read()
        except (OSError, HTTPException):
            self.close()
            return self.history.add(Call(self.node, self.pubky, method, path, sent, start, inf, NO_ANSWER))
        end, headers = time.monotonic(), {name.lower(): value for name, value in answer.getheaders()}
        found: bytes | None = None
        lines: tuple[str, ...] = ()
        if method == "GET" and answer.status == 200:
            if path.endswith("/"):
                lines = tuple(line.removeprefix(f"pubky://{self.pubky}") for line in read.decode().splitlines())
            else:
                found = blake3(read).digest()
        return self.history.add(
            Call(self.node, self.pubky, method, path, sent, start, end, answer.status, found, lines, headers)
        )

    def _connected(self) -> HTTPConnection:
        if self._connection is None:
            self._connection = HTTPConnection("127.0.0.1", self.port(), timeout=self.patience)
        return self._connection

    def close(self) -> None:
        """End the connection; the next request begins another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
