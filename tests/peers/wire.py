"""HTTP between homeservers in one process: the real client, the real site, and a wire between that does as it likes.

A request is signed, sent as bytes, parsed, answered and read as over a socket; only the socket is missing, and time is
a test's. So a thousand histories take a minute, and each can be told again from its seed.
"""

from collections.abc import Callable, Coroutine
from email.utils import formatdate
from random import Random
from typing import Any
from urllib.parse import urlsplit

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, ConnectionLost
from twisted.internet.interfaces import IConsumer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.client import FileBodyProducer, ResponseDone, ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from pubky_homeserver.web.request import BodyBroken, ClientGone, Request

Answerer = Callable[[Request], Coroutine[Deferred[Any], Any, None]]


@define
class Weather:
    """What happens to requests: of all, the part that is refused, that loses its answer, or whose answer is cut."""

    random: Random
    refused: float = 0.0
    unanswered: float = 0.0
    """Done there, and not heard of here."""
    doubled: float = 0.0
    """Arrives twice; the second answer is nobody's."""
    cut: float = 0.0
    reach: int = 400
    """Bytes of a body, less than which come before it is cut."""
    spoilt: float = 0.0
    """Of the files' bodies, those that have another byte. All else that is spoilt, TLS would cut."""
    late: float = 0.0
    """Seconds, at most, that a request is on its way."""
    pace: int = 0
    """Bytes of a body from a file that pass in a second; 0: all at once."""

    def clear(self) -> None:
        """Fair from now on."""
        self.refused = self.unanswered = self.doubled = self.cut = self.spoilt = self.late = 0.0
        self.pace = 0

    def happens(self, part: float) -> bool:
        """Whether something of that likelihood happens now."""
        return part > 0 and self.random.random() < part


@define
class Wires:
    """All that lies between some homeservers. `sites` has who answers, by the host of its URL."""

    clock: IReactorTime
    weather: Weather
    sites: dict[str, Answerer] = field(factory=dict)
    broken: set[tuple[str, str]] = field(factory=set)
    """Who does not reach whom, by their hosts."""
    asked: list[tuple[str, str, str]] = field(factory=list)
    """Each request: from whom, to whom, method and path."""
    faults: list[Failure] = field(factory=list)
    """What handlers raised, which they never should."""
    listen: Callable[[str, str, bytes], None] | None = None
    """Is told all that passes: from whom, to whom, what."""
    _open: "dict[_Line, tuple[str, str]]" = field(factory=dict, init=False)

    def calm(self) -> None:
        """Fair weather and whole wires, from now on."""
        self.weather.clear()
        self.broken.clear()
        for line in self._open:
            line.heal()

    def agent(self, sender: str) -> "WireAgent":
        """The way out of one homeserver."""
        return WireAgent(self, sender)

    def _forget(self, line: "_Line") -> None:
        self._open.pop(line, None)

    def hang_up(self, *hosts: str) -> None:
        """Break every connection of these homeservers."""
        for line, ends in [*self._open.items()]:
            if {*ends} & {*hosts}:
                line.lose()

    def cut_off(self, one: str, other: str) -> None:
        """Neither reaches the other from now on."""
        self.block(one, other)
        self.block(other, one)

    def block(self, one: str, other: str) -> None:
        """Whatever one asks the other gets lost from now on."""
        self.broken.add((one, other))
        for line, ends in [*self._open.items()]:
            if ends == (one, other):
                line.lose()


@implementer(IAgent)
@define(eq=False)
class WireAgent:
    """What a client of peers asks for its requests."""

    wires: Wires
    sender: str

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> "Deferred[IResponse]":
        """See `IAgent`."""
        wires, parts = self.wires, urlsplit(uri.decode("ascii"))
        host, target = parts.netloc, parts.path + (f"?{parts.query}" if parts.query else "")
        wires.asked.append((self.sender, host, f"{method.decode('ascii')} {parts.path}"))
        weather = wires.weather
        site = wires.sites.get(host)
        if site is None or (self.sender, host) in wires.broken or weather.happens(weather.refused):
            failed: Deferred[IResponse] = Deferred()
            failed.errback(ConnectError())
            return failed
        body = _body_of(bodyProducer)
        fields = [
            (name.lower(), value) for name, values in (headers or Headers()).getAllRawHeaders() for value in values
        ]
        fields.append((b"host", host.encode("ascii")))
        if body:
            fields.append((b"content-length", b"%d" % len(body)))
        if wires.listen is not None:
            wires.listen(self.sender, host, target.encode("ascii") + body)
        if weather.happens(weather.doubled):
            double = _Line(wires, method, target, fields, body, wires.faults, wires._forget)
            double.answered.addErrback(lambda _failure: None)
            wires._open[double] = (self.sender, host)
            double.begin(site)
        line = _Line(wires, method, target, fields, body, wires.faults, wires._forget)
        wires._open[line] = (self.sender, host)
        line.begin(site)
        return line.answered


def _body_of(producer: IBodyProducer | None) -> bytes:
    """What a request brings, which is at hand."""
    if producer is None:
        return b""
    if isinstance(producer, FileBodyProducer):  # it would wait for the reactor between its pieces
        return bytes(producer._inputFile.read())
    whole = _Whole()
    producer.startProducing(whole)
    return bytes(whole.data)


@implementer(IConsumer)
@define(eq=False)
class _Whole:
    """Takes all that a producer has."""

    data: bytearray = field(factory=bytearray)

    def write(self, data: bytes) -> None:
        """See `IConsumer`."""
        self.data += data

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """See `IConsumer`."""

    def unregisterProducer(self) -> None:
        """See `IConsumer`."""


@define(eq=False)
class _Line:
    """One connection with one request: both its ends."""

    wires: Wires
    method: bytes
    target: str
    fields: list[tuple[bytes, bytes]]
    body: bytes
    faults: list[Failure]
    ended: "Callable[[_Line], None]"
    answered: "Deferred[IResponse]" = field(init=False)
    client_address: str = "127.0.0.1"
    is_tls: bool = False
    choked: bool = False
    pending: int = 0
    _request: Request | None = field(default=None, init=False)
    _running: "Deferred[None] | None" = field(default=None, init=False)
    _response: "_Response | None" = field(default=None, init=False)
    _left: int | None = field(default=None, init=False)
    # Bytes of the answer's body until it is cut.
    _spoils: bool = field(default=False, init=False)
    # Whether another byte will be in it.
    _over: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.answered = Deferred(lambda _deferred: self.lose())

    def begin(self, site: Answerer) -> None:
        """Let the request arrive."""
        weather = self.wires.weather
        if weather.late:
            self.wires.clock.callLater(weather.random.random() * weather.late, self._arrive, site)
        else:
            self._arrive(site)

    def _arrive(self, site: Answerer) -> None:
        if self._over:
            return
        weather = self.wires.weather
        if weather.happens(weather.cut):
            self._left = weather.random.randrange(weather.reach)
        self._spoils = "/body?" in self.target and weather.happens(weather.spoilt)
        is_heard = not weather.happens(weather.unanswered)
        self._request = request = Request(self, self.method, self.target.encode("ascii"), self.fields, False, True)
        if self.body:
            request.body.feed(self.body)
            request.body.complete = True
        if not is_heard:
            self._left = -1
        self._running = Deferred.fromCoroutine(site(request))
        self._running.addErrback(self._fail)

    def _fail(self, failure: Failure) -> None:
        request = self._request
        assert request is not None
        if not failure.check(CancelledError, *((ClientGone, BodyBroken) if request.gone else ())):
            self.faults.append(failure)
        self.lose()

    # --- what a request needs of its connection -----------------------------------------------------------------------

    @property
    def date_line(self) -> bytes:
        """See `Connection`."""
        return b"Date: %b\r\n" % formatdate(self.wires.clock.seconds(), usegmt=True).encode("ascii")

    def write(self, data: bytes | bytearray) -> None:
        """See `Connection`."""
        if self._over:
            return
        if self._response is None:
            head, _, rest = bytes(data).partition(b"\r\n\r\n")
            if self._left == -1:
                self.lose()
                return
            self._response = _Response(self, head)
            self.answered.callback(self._response)
            data = rest
        if data and self._response is not None:
            self._pass_on(self._response, bytes(data))
        if self._request is not None and self._response is not None:
            self.wires.clock.callLater(0, self._see_end)

    def _pass_on(self, response: "_Response", data: bytes) -> None:
        if response.is_chunked:
            size, _, data = data.partition(b"\r\n")
            data = data[: int(size, 16)]
        if self.wires.listen is not None and self in self.wires._open:
            sender, host = self.wires._open[self]
            self.wires.listen(host, sender, data)
        if self._spoils and data:
            data, self._spoils = bytes([data[0] ^ 1]) + data[1:], False
        if self._left is not None and len(data) > self._left:
            response.feed(data[: self._left])
            self.lose()
        else:
            if self._left is not None:
                self._left -= len(data)
            response.feed(data)

    def _see_end(self) -> None:
        if self._over or self._request is None or not self._request.finished:
            return
        self._over = True
        self.ended(self)
        if self._response is not None:
            self._response.end(Failure(ResponseDone()))

    def offer(self, data: memoryview) -> int:
        """See `Connection`."""
        pace = self.wires.weather.pace
        self.choked = pace > 0
        sent = data[:pace] if pace else data
        self.write(bytes(sent))
        return len(sent)

    async def _breathe(self) -> None:
        await deferLater(self.wires.clock, 1.0)
        self.choked = False

    def drained(self) -> "Deferred[None]":
        """See `Connection`."""
        return Deferred.fromCoroutine(self._breathe())

    def continues_after(self, request: Request) -> bool:
        """See `Connection`."""
        return True

    def send_continue(self) -> None:
        """See `Source`."""

    def body_awaited(self) -> None:
        """See `Source`."""

    def flow(self) -> None:
        """See `Source`."""

    def heal(self) -> None:
        """Let it bring all that is to come."""
        if self._left != -1:
            self._left = None

    # --- its end ------------------------------------------------------------------------------------------------------

    def lose(self) -> None:
        """Break: whoever still waits at either end learns it."""
        if self._over:
            return
        self._over = True
        self.ended(self)
        reason = Failure(ConnectionLost())
        if self._request is not None and not self._request.finished:
            self._request.lost(reason)
            if self._running is not None:
                self._running.cancel()
        if self._response is not None:
            self._response.end(Failure(ResponseFailed([reason])))
        elif not self.answered.called:
            self.answered.errback(ResponseFailed([reason]))


@implementer(IResponse)
class _Response:
    """The answer as the client sees it: the head, and the body once somebody wants it."""

    def __init__(self, line: _Line, head: bytes) -> None:
        status, *lines = head.split(b"\r\n")
        self.version = (b"HTTP", 1, 1)
        self.code = int(status.split(b" ", 2)[1])
        self.phrase = status.split(b" ", 2)[2]
        self.headers = Headers()
        for one in lines:
            name, _, value = one.partition(b": ")
            self.headers.addRawHeader(name, value)
        self.is_chunked = self.headers.hasHeader(b"transfer-encoding")
        self.length = UNKNOWN_LENGTH
        self.previousResponse = None
        self.request = None
        self._line = line
        self._reader: Protocol | None = None
        self._waiting: list[bytes] = []
        self._reason: Failure | None = None

    def setPreviousResponse(self, response: IResponse) -> None:
        """See `IResponse`."""

    def deliverBody(self, protocol: Protocol) -> None:
        """See `IResponse`."""
        self._reader = protocol
        protocol.makeConnection(_Reading(self._line))
        for data in self._waiting:
            protocol.dataReceived(data)
        if self._reason is not None:
            protocol.connectionLost(self._reason)

    def feed(self, data: bytes) -> None:
        """Bytes of the body came."""
        if self._reader is None:
            self._waiting.append(data)
        elif data:
            self._reader.dataReceived(data)

    def end(self, reason: Failure = connectionDone) -> None:
        """No more will come."""
        self._reason = reason
        if self._reader is not None:
            self._reader.connectionLost(reason)


@define(eq=False)
class _Reading:
    """The connection as the reader of a body sees it."""

    line: _Line

    def pauseProducing(self) -> None:
        """Here nothing is too fast."""

    def resumeProducing(self) -> None:
        """See above."""

    def loseConnection(self) -> None:
        """Read no more."""
        self.line.lose()

    abortConnection = loseConnection
