"""An event stream as a client sees it: what came, and whether it has ended."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from attrs import define, field
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from tests.web.sockets import reactor, until


@define(eq=False)
class Follower(Protocol):
    """Reads a stream until it ends."""

    request: bytes
    received: bytes = b""
    ended: bool = field(default=False, init=False)

    def connectionMade(self) -> None:
        """Ask."""
        assert self.transport is not None
        self.transport.write(self.request)

    def dataReceived(self, data: bytes) -> None:
        """Keep what comes."""
        self.received += data
        if self.received.endswith(b"0\r\n\r\n"):
            self.ended = True

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It has ended."""
        self.ended = True

    @property
    def status(self) -> int:
        """Of the answer; 0 before there is one."""
        return int(self.received[9:12] or 0)

    def has(self, path: str) -> bool:
        """Whether an event of this path came."""
        return f"{path}\n".encode() in self.received


async def sending(port: int, method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> Follower:
    """A request that is sent and not waited for."""
    fields = {"Host": "127.0.0.1", **headers} | ({"Content-Length": str(len(body))} if body else {})
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    follower = Follower("\r\n".join((*lines, "", "")).encode() + body)
    factory = Factory.forProtocol(lambda: follower)
    factory.noisy = False
    endpoint: Any = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
    await endpoint.connect(factory)
    return follower


@asynccontextmanager
async def following(port: int, query: str, headers: Mapping[str, str]) -> AsyncIterator[Follower]:
    """An open stream; its answer has begun."""
    follower = await sending(port, "GET", f"/events-stream?{query}", headers)
    try:
        await until(lambda: b"\r\n\r\n" in follower.received)
        yield follower
    finally:
        if follower.transport is not None:
            follower.transport.loseConnection()
