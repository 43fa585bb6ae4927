"""Both ends of real connections over loopback: a served channel, and a client that can be as odd as a test needs."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Any

from attrs import define, field, frozen
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from pubky_homeserver.web.channel import HTTPFactory, Limits
from pubky_homeserver.web.request import Request

reactor: Any = _reactor
PATIENCE = 20.0  # seconds after which a test that waits has failed

Handler = Callable[[Request], Coroutine[Deferred[Any], Any, None]]


async def until(true: Callable[[], object]) -> None:
    """Let the reactor turn until this holds."""
    deadline = reactor.seconds() + PATIENCE
    while not true():
        assert reactor.seconds() < deadline, "it never came true"
        await deferLater(reactor, 0)


async def turns(number: int = 20) -> None:
    """Let the reactor turn that often: for what must not happen."""
    for _ in range(number):
        await deferLater(reactor, 0)


class Gate:
    """Opens once; whoever waits goes on."""

    def __init__(self) -> None:
        self.is_open = False
        self._waiting: list[Deferred[None]] = []

    def open(self) -> None:
        """Let everybody through."""
        self.is_open = True
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(None)

    async def passed(self) -> None:
        """Wait until it is open."""
        if not self.is_open:
            one: Deferred[None] = Deferred()
            self._waiting.append(one)
            await one


@frozen
class Answer:
    """One parsed answer."""

    code: int
    fields: list[tuple[bytes, bytes]]
    body: bytes

    def __getitem__(self, name: bytes) -> bytes | None:
        return dict(self.fields).get(name)


@implementer(IHalfCloseableProtocol)
class Client(Protocol):
    """A client that sends what it is told, byte for byte."""

    transport: Any

    def __init__(self) -> None:
        self.received = bytearray()
        self.ended = False  # the server has closed its half
        self.closed: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self.received += data

    def readConnectionLost(self) -> None:
        """Stay able to write."""
        self.ended = True

    def writeConnectionLost(self) -> None:
        """As wished."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Remember why."""
        self.ended = True
        self.closed = reason

    def send(self, data: bytes) -> None:
        """Send now."""
        self.transport.write(data)

    def half_close(self) -> None:
        """Send no more."""
        self.transport.loseWriteConnection()

    def vanish(self) -> None:
        """Reset the connection, as a crashed machine does in the end."""
        self.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abortConnection()

    async def until_closed(self) -> bytes:
        """All that was not taken by `answer`, when the server has closed its half."""
        await until(lambda: self.ended)
        return bytes(self.received)

    async def take(self, length: int) -> bytes:
        """The next bytes."""
        await until(lambda: len(self.received) >= length or self.ended)
        taken = bytes(self.received[:length])
        del self.received[:length]
        return taken

    async def head(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Status and fields of the next answer."""
        await until(lambda: b"\r\n\r\n" in self.received or self.ended)
        head, end, rest = bytes(self.received).partition(b"\r\n\r\n")
        assert end, f"no head in {head!r}"
        self.received[:] = rest
        status, *lines = head.split(b"\r\n")
        match = re.fullmatch(rb"HTTP/1\.1 (\d\d\d) [A-Za-z -]+", status)
        assert match, status
        fields = [line.split(b": ", 1) for line in lines]
        return int(match[1]), [(name.lower(), value) for name, value in fields]

    async def answer(self, to: bytes = b"GET") -> Answer:
        """The next answer, with its body as its framing says; `to` is the method of the request."""
        code, fields = await self.head()
        names = dict(fields)
        body = b""
        if to == b"HEAD" or code in (100, 204, 304):
            pass
        elif b"content-length" in names:
            body = await self.take(int(names[b"content-length"]))
            assert len(body) == int(names[b"content-length"])
        elif names.get(b"transfer-encoding") == b"chunked":
            body = await self._chunks()
        else:
            body = await self.until_closed()
            self.received.clear()
        return Answer(code, fields, body)

    async def _chunks(self) -> bytes:
        body = b""
        while True:
            await until(lambda: b"\r\n" in self.received or self.ended)
            line, end, _ = bytes(self.received).partition(b"\r\n")
            assert end, "the body was cut"
            del self.received[: len(line) + 2]
            length = int(line, 16)
            body += await self.take(length)
            assert await self.take(2) == b"\r\n"
            if not length:
                return body


@define
class Served:
    """A channel factory on a loopback port, with a clock that stands still."""

    answer: Handler
    limits: Limits = field(factory=Limits)
    clock: Clock = field(factory=Clock)
    factory: HTTPFactory = field(init=False)
    port: Any = field(init=False)
    clients: list[Client] = field(init=False, factory=list)

    def __attrs_post_init__(self) -> None:
        self.factory = HTTPFactory(self.answer, self.clock, self.limits)
        self.port = reactor.listenTCP(0, self.factory, interface="127.0.0.1")

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return "127.0.0.1", self.port.getHost().port

    async def client(self, data: bytes = b"") -> Client:
        """A new connection, on which this was sent."""
        client = Client()
        factory = ClientFactory.forProtocol(lambda: client)
        factory.noisy = False
        reactor.connectTCP(*self.address, factory)
        await until(lambda: client.transport is not None)
        self.clients.append(client)
        client.send(data)
        return client

    async def pass_time(self, seconds: int) -> None:
        """Move the clock, second by second, letting the network keep up."""
        for _ in range(seconds):
            await turns(3)
            self.clock.advance(1)
        await turns(3)

    async def stop(self) -> None:
        """Cut everything."""
        await self.port.stopListening()
        for client in self.clients:
            if client.closed is None:
                client.transport.abortConnection()
        await until(lambda: all(client.closed is not None for client in self.clients))
        await until(lambda: self.factory.open_connections == 0)
