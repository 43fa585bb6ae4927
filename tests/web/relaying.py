"""A relay behind a real socket, its time in the test's hands, and the recorded answers of the official ones."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionClosed
from twisted.internet.protocol import ClientFactory
from twisted.internet.task import Clock

from pubky_homeserver.web.channel import HTTPFactory
from pubky_homeserver.web.http_relay import HttpRelay
from pubky_homeserver.web.pkarr_relay import PkarrRelay
from tests.web import client
from tests.web.client import Answer
from tests.web.sockets import PATIENCE, Client, reactor, until

VECTORS = Path(__file__).parent.parent / "vectors"


def recorded(file: str) -> list[dict[str, Any]]:
    """The transcripts of a file, in order."""
    transcripts: list[dict[str, Any]] = json.loads((VECTORS / file).read_text())["transcripts"]
    return transcripts


def body_of(request: dict[str, Any]) -> bytes | None:
    """What a recorded request sends."""
    if request.get("body_hex") is not None:
        return bytes.fromhex(request["body_hex"])
    return None if request.get("body_text") is None else str(request["body_text"]).encode()


def compare(record: dict[str, Any], answer: Answer, different: dict[str, str]) -> None:
    """Status, every header and the body are the recorded ones, but for the headers that differ."""
    expected = record["response"]
    ours = sorted(pair for pair in answer.headers if pair[0] not in ("date", "connection"))
    theirs = sorted((name, different.get(name, value)) for name, value in expected["headers"])
    body = bytes.fromhex(expected["body_hex"]) if expected["body_hex"] else expected["body_text"].encode()
    assert (answer.status, ours, answer.body) == (expected["status"], theirs, body), record["name"]


Relay = HttpRelay | PkarrRelay


@define
class Relaying:
    """One relay on a port, and its time; that of its sockets is real."""

    relay: Relay
    clock: Clock
    port: int
    waiting: list[Deferred[Answer]] = field(init=False, factory=list)

    async def ask(
        self, method: str, target: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """One request, answered at once."""
        asked = Deferred.fromCoroutine(client.ask(reactor, self.port, method, target, headers, body))
        return await asked.addTimeout(PATIENCE, reactor)

    async def begin(
        self, method: str, target: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Deferred[Answer]:
        """One request that may have to wait: returns when it is answered or waits for the relay's time to pass."""
        timers = self._timers
        answer = Deferred.fromCoroutine(self.ask(method, target, body, headers))
        self.waiting.append(answer)
        await until(lambda: answer.called or self._timers > timers)
        return answer

    async def connect(self, data: bytes) -> Client:
        """A connection on which a request was sent that waits for the relay's time to pass."""
        timers = self._timers
        connection = Client()
        factory = ClientFactory.forProtocol(lambda: connection)
        factory.noisy = False
        reactor.connectTCP("127.0.0.1", self.port, factory)
        await until(lambda: connection.transport is not None)
        connection.send(data)
        await until(lambda: self._timers > timers)
        return connection

    async def vanish(self, connection: Client) -> None:
        """Cut a connection whose request waits."""
        timers = self._timers
        connection.vanish()
        await until(lambda: self._timers < timers and connection.closed is not None)

    @property
    def _timers(self) -> int:
        return len(self.clock.getDelayedCalls())


@asynccontextmanager
async def relaying(relay: Relay) -> AsyncIterator[Relaying]:
    """Serve a relay; what still waits in the end is cut."""
    assert isinstance(relay.clock, Clock)
    factory = HTTPFactory(relay.answer, reactor)
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    served = Relaying(relay, relay.clock, port.getHost().port)
    try:
        yield served
    finally:
        await port.stopListening()
        await factory.drain(0)
        for answer in served.waiting:
            answer.addErrback(lambda reason: reason.trap(ConnectionClosed))
        await until(lambda: all(answer.called for answer in served.waiting))
