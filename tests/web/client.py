"""A raw HTTP client for tests: sends a target as it is and shows every header line."""

from typing import Any

import httptools
from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IReactorTCP
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure


@frozen
class Answer:
    """What came back."""

    status: int
    headers: list[tuple[str, str]]
    """Lower-case names, in order."""
    body: bytes

    def header(self, name: str) -> str | None:
        """The first value of a field."""
        return next((value for key, value in self.headers if key == name), None)

    def all(self, name: str) -> list[str]:
        """Every value of a field."""
        return [value for key, value in self.headers if key == name]

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


@define(eq=False)
class _Reader(Protocol):
    """Reads one answer."""

    request: bytes
    head_only: bool
    done: Deferred[Answer] = field(factory=Deferred)
    headers: list[tuple[str, str]] = field(factory=list)
    body: bytearray = field(factory=bytearray)

    def connectionMade(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        assert self.transport is not None
        self.transport.write(self.request)

    def dataReceived(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode().lower(), value.decode()))

    def on_headers_complete(self) -> None:
        if self.head_only:
            self._finish()

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        if self.parser.get_status_code() >= 200:
            self._finish()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.done.called:
            self.done.errback(reason)

    def _finish(self) -> None:
        if not self.done.called:
            self.done.callback(Answer(self.parser.get_status_code(), self.headers, bytes(self.body)))
        assert self.transport is not None
        self.transport.loseConnection()


async def ask(
    reactor: IReactorTCP,
    port: int,
    method: str,
    target: str,
    headers: dict[str, str] | list[tuple[str, str]] | None = None,
    body: bytes | None = None,
    host: str | None = "127.0.0.1",
) -> Answer:
    """One request on a connection of its own."""
    fields = list(headers.items()) if isinstance(headers, dict) else list(headers or [])
    if host is not None:
        fields.insert(0, ("Host", host))
    if body is not None and "transfer-encoding" not in {name.lower() for name, _ in fields}:
        fields.append(("Content-Length", str(len(body))))
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields), "", ""]
    reader = _Reader("\r\n".join(lines).encode("latin-1") + (body or b""), head_only=method == "HEAD")
    endpoint: Any = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
    factory = Factory.forProtocol(lambda: reader)
    factory.noisy = False
    await endpoint.connect(factory)
    return await reader.done
