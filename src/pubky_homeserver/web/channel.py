"""HTTP/1.1 connections: bytes in, requests out, one at a time and in order.

llhttp (through `httptools`) parses; its callbacks only note what they see, because an exception in one becomes a
parse error and nothing may start or wake while the rest of the same bytes is unknown. After each read the channel
goes through its notes in a loop: it wakes the reader of a body, starts the next request when the one before is
served, and decides whether to read on. It stops reading while a request waits behind another or more than
`body_high_water` bytes of a body are unread; it starts no request while the client leaves earlier answers unread. So
what one connection can occupy is bounded by its reads (64 KiB each) and these limits, however fast or slow the client
is.

What cannot be parsed is refused in its turn, after the requests before it, and the connection ends. An answer to a
client that still sends is half-closed and the rest read and dropped for a moment, because closing with unread bytes
makes the kernel reset the connection and take the answer with it (RFC 9112 §9.6).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Coroutine
from email.utils import formatdate
from http import HTTPStatus
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, ClassVar, NoReturn

from attrs import define, field, frozen
from httptools import HttpParserError, HttpParserInvalidMethodError, HttpParserUpgrade, HttpRequestParser
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pubky_homeserver.web.request import BodyBroken, ClientGone, Request, refusal

TICK = 1.0  # seconds between two looks at the clock; time-outs are exact to this
LINGER = 1.0  # seconds that a client gets to read an answer it did not wait for
LINGER_BYTES = 1 << 20  # what is read and dropped of such a client
SMALL_REST = 64 << 10  # bytes of an unread body that are cheaper to drop than a connection is to open
CHUNK_COST = 32  # bytes of framing that each chunk of a body may have
CHUNK_EXCESS = 64 << 10  # and what extensions and trailers may have beyond that: they never reach anybody


@frozen
class Limits:
    """What one client may take. Lengths in bytes, times in seconds."""

    head: int = 64 << 10  # more: 431
    target: int = 32 << 10  # more: 414
    fields: int = 100  # header fields; more: 431
    head_timeout: float = 10.0  # from the first byte of a head to its last
    idle_timeout: float = 75.0  # between two requests
    stall_timeout: float = 60.0  # without one byte of a body or an answer moving
    connections_per_address: int = 512
    body_high_water: int = 256 << 10  # unread bytes of a body above which reading stops
    exempt: tuple[IPv4Network | IPv6Network, ...] = ()  # besides loopback: networks that the cap spares (proxies)


class _Refused(HttpParserError):
    """Stops the parser; the status to answer is noted in the channel."""


@implementer(IHalfCloseableProtocol, IPushProducer)
class Channel(Protocol):
    """One connection."""

    log: ClassVar[Logger] = Logger()

    transport: Any  # a stream transport that is a consumer and a push producer; what else it can is asked of it

    def __init__(self, site: HTTPFactory, client_address: str) -> None:
        self._site = site
        self._limits = site.limits
        self.client_address = client_address
        self.is_tls = False
        self._parser = HttpRequestParser(self)
        # The head being parsed.
        self._in_head = False
        self._url = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._head_size = 0  # bytes of it that callbacks saw
        self._head_reads = 0  # bytes of the reads that it filled wholly
        self._refusal = 0  # status for what a callback refused, 0: as the error says
        self._replayed: Request | None = None  # whose framing a fresh parser is told
        # The requests.
        self._incoming: Request | None = None  # whose body the parser is in
        self._excess = 0  # bytes of that body's reads that are framing beyond what chunks may cost
        self._queue: deque[Request | int] = deque()  # parsed and not started; a number is a refusal and the last
        self._request: Request | None = None  # being served
        self._running: Deferred[None] | None = None  # its handler, once it waits for something
        self._advancing = False
        # The answers.
        self.choked = False  # the transport holds more than it likes
        self._writers: list[Deferred[None]] = []  # who waits for that to end
        self._written = 0  # bytes given to the transport since the connection began
        self._taken = 0  # bytes of these that it had passed on at the last look
        self._pending_then = 0  # bytes that it held at the last look
        # The connection.
        self._paused = False  # reading is stopped
        self._deaf = False  # what arrives is no longer parsed
        self._dropped = 0  # bytes that arrived since
        self._ended = False  # the client has closed its half
        self._closing = False
        self._lost = False
        self._lingering: IDelayedCall | None = None
        self._moved_at = 0.0  # when it fell idle, a head began, or a byte was last seen to move

    # The transport.

    def connectionMade(self) -> None:
        """Begin to keep time."""
        self._moved_at = self._site.opened(self)
        transport = self.transport
        self.is_tls = ISSLTransport.providedBy(transport)
        set_no_delay = getattr(transport, "setTcpNoDelay", None)
        if set_no_delay is not None:
            set_no_delay(True)
        transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        """Parse, then act on what was noted."""
        if self._deaf:
            self._drop(len(data))
            return
        in_head, body_of = self._in_head, self._incoming
        try:
            self._parse(data)
            if self._in_head:
                self._gather(len(data), in_head)
            elif body_of is not None:
                self._frame(len(data), body_of)
        except HttpParserError as error:
            self._refuse(error, data, fresh=not in_head and body_of is None)
        request = self._request
        if request is not None:
            body = request.body_if_any
            if body is not None:
                self._moved_at = self._site.now
                body.wake()
        self._advance()

    def readConnectionLost(self) -> None:
        """The client sends no more, but may still read."""
        self._ended = self._deaf = True
        self._in_head = False
        self._break_body()
        if self._lingering is not None:
            self._close()
        else:
            self._advance()

    def writeConnectionLost(self) -> None:
        """Our half is closed: nothing to do."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the handler: its waits fail, then it is cancelled unless its answer is complete."""
        self._lost = self._closing = self._deaf = True
        self._site.closed(self)
        if self._lingering is not None:
            if self._lingering.active():
                self._lingering.cancel()
            self._lingering = None
        self._queue.clear()
        self._incoming = None
        del self._parser  # it refers to this object
        request = self._request
        if request is not None:
            request.lost(reason)
            self._wake_writers()
            if self._running is not None and not request.finished:
                self._running.cancel()

    def pauseProducing(self) -> None:
        """The transport holds enough."""
        self.choked = True

    def resumeProducing(self) -> None:
        """The transport is empty again."""
        self.choked = False
        self._wake_writers()
        self._advance()

    def stopProducing(self) -> None:
        """The transport is gone: `connectionLost` follows."""

    # The parser: callbacks only note.

    def on_message_begin(self) -> None:
        """The first byte of a head."""
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        self._url += url
        self._head_size += len(url)
        if len(self._url) > self._limits.target:
            self._stop(HTTPStatus.REQUEST_URI_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field, of the head or of the trailers."""
        self._fields.append((name.lower(), value.rstrip(b" \t")))
        self._head_size += len(name) + len(value) + 4  # colon, blank, CRLF
        if self._head_size > self._limits.head or len(self._fields) > self._limits.fields:
            self._stop(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        url, fields = self._url, self._fields
        self._forget_head()
        if self._replayed is not None:
            self._incoming, self._replayed = self._replayed, None
            return
        method = self._parser.get_method()
        if method == b"CONNECT":
            self._stop(HTTPStatus.METHOD_NOT_ALLOWED)
        version = self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            self._stop(HTTPStatus.BAD_REQUEST)
        request = Request(self, method, url, fields, version == "1.0", self._parser.should_keep_alive())
        self._incoming = request
        self._excess = 0
        self._queue.append(request)

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        assert self._incoming is not None
        self._incoming.body.feed(data)
        self._excess -= len(data)

    def on_chunk_header(self) -> None:
        """The size of a chunk."""
        self._excess -= CHUNK_COST

    def on_message_complete(self) -> None:
        """The body, if any, is whole."""
        request = self._incoming
        assert request is not None
        self._incoming = None
        body = request.body_if_any
        if body is not None:
            body.complete = True
            self._forget_head()  # the trailers
        if not request.keep_alive:
            self._deaf = True

    def _forget_head(self) -> None:
        self._in_head = False
        self._url, self._fields, self._head_size, self._head_reads = b"", [], 0, 0

    def _stop(self, status: int) -> NoReturn:
        self._refusal = status
        raise _Refused

    # After the parser.

    def _parse(self, data: bytes) -> None:
        while True:
            try:
                self._parser.feed_data(data)
                return
            except HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                self._stay()
                if self._deaf:
                    self._drop(len(data))
                    return

    def _stay(self) -> None:
        """Ignore an `Upgrade`: llhttp skips such a request's body, so a fresh parser is told its framing alone."""
        request = self._queue[-1]
        assert isinstance(request, Request)
        self._parser = HttpRequestParser(self)
        body = request.body_if_any
        if body is None:
            return
        body.complete = self._deaf = False
        self._replayed = request
        length = request.content_length
        framing = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
        connection = b"" if request.keep_alive else b"Connection: close\r\n"
        self._parser.feed_data(b"POST / HTTP/1.1\r\n%b%b\r\n\r\n" % (connection, framing))

    def _gather(self, length: int, was_in_head: bool) -> None:
        """Bound a head that does not end: `httptools` keeps an unfinished field without limit or callback."""
        if not was_in_head:
            self._moved_at = self._site.now
            return
        self._head_reads += length
        if self._head_reads > self._limits.head:
            self._stop(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def _frame(self, length: int, body_of: Request) -> None:
        """Bound chunk extensions and trailers, which nobody sees."""
        self._excess += length
        if self._incoming is body_of and self._excess > CHUNK_EXCESS:
            self._stop(HTTPStatus.BAD_REQUEST)

    def _refuse(self, error: HttpParserError, data: bytes, fresh: bool) -> None:
        """Queue the answer to what cannot be parsed; inside a body the reader of the body learns it instead."""
        self._dropped += len(data)
        if self._deaf:
            return  # bytes after a request that was the last anyway
        self._deaf = True
        self._in_head = False
        if self._incoming is not None:
            self._break_body()
            return
        status = self._refusal or HTTPStatus.BAD_REQUEST
        if isinstance(error, HttpParserInvalidMethodError) and not (fresh and not self._queue and _is_binary(data)):
            status = HTTPStatus.METHOD_NOT_ALLOWED
        self._queue.append(status)

    def _break_body(self) -> None:
        request, self._incoming = self._incoming, None
        if request is not None:
            request.body.broken = True
            request.body.wake()

    def _drop(self, length: int) -> None:
        self._dropped += length
        self.flow()

    def flow(self) -> None:
        """Read on or stop reading."""
        incoming = self._incoming
        body = None if incoming is None else incoming.body_if_any
        full = (
            bool(self._queue)
            or (body is not None and body.held > self._limits.body_high_water)
            or self._dropped > LINGER_BYTES
        )
        if full is not self._paused and not self._lost:
            self._paused = full
            if full:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()

    # The requests.

    def _advance(self) -> None:
        """Start what is queued, one after the other, without recursion; then see what the connection is good for."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._queue and self._request is None and not self.choked and not self._closing:
                waiting = self._queue.popleft()
                if isinstance(waiting, Request):
                    self._start(waiting)
                else:
                    self.send_bytes(refusal(waiting, self.date_line()))
                    self._end()
        finally:
            self._advancing = False
        if self._request is None and not self._queue and self._deaf and not self._closing:
            self._end()
        self.flow()

    def _start(self, request: Request) -> None:
        """Run the handler up to its first wait by hand: most answers need no `Deferred`."""
        self._request = request
        coroutine = self._site.serve(request)
        try:
            coroutine.send(None)
        except StopIteration:
            self._served()
        except Exception:
            self._failed(Failure())
        else:
            # What it waits for is not there: asked again, it says so again, this time to the Deferred.
            self._running = Deferred.fromCoroutine(coroutine)
            self._running.addCallbacks(self._served, self._failed)

    def _served(self, _: None = None) -> None:
        """The handler has returned."""
        request = self._request
        assert request is not None
        if not request.finished and not self._lost:
            self.log.error("{request!r} was left without an answer", request=request)
            self._give_up(request)
        self._request = self._running = None
        if self._closing:
            return
        self._moved_at = self._site.now
        if request.closes or self._site.draining:
            self._end()
        elif request is self._incoming:
            request.body.drop()
        self._advance()

    def _failed(self, failure: Failure) -> None:
        """The handler has raised: that the client vanished is no error, all else is."""
        request = self._request
        assert request is not None
        expected = (CancelledError, ClientGone, BodyBroken) if self._lost else (CancelledError,)
        if failure.check(*expected) is None:
            self.log.failure("{request!r} failed", failure, request=request)
        self._give_up(request)
        self._served()

    def _give_up(self, request: Request) -> None:
        if not request.begun:
            request.fail()
        elif not request.finished:
            request.lost(Failure(ClientGone()))
            self.abort()

    # What a request asks of its connection.

    def send_bytes(self, data: bytes) -> None:
        """Give bytes to the transport."""
        self._written += len(data)
        self.transport.write(data)

    def send_continue(self) -> None:
        """Ask the client for the body that it holds back."""
        if not self._closing and self._request is not None and not self._request.begun:
            self.send_bytes(b"HTTP/1.1 100 Continue\r\n\r\n")

    def body_awaited(self) -> None:
        """A handler waits for bytes from now on."""
        self._moved_at = self._site.now

    def drained(self) -> Deferred[None]:
        """Fires when the transport is empty or gone."""
        writer: Deferred[None] = Deferred()
        self._writers.append(writer)
        return writer

    def date_line(self) -> bytes:
        """The `Date` field, of this second."""
        return self._site.date_line

    def continues_after(self, request: Request) -> bool:
        """Whether the connection lives on after the answer that is about to be sent."""
        if not request.keep_alive or self._site.draining:
            return False
        if self._ended:
            return bool(self._queue)
        body = request.body_if_any
        if body is None or body.complete:
            return True
        left = None if request.content_length is None else request.content_length - body.received
        return left is not None and left <= SMALL_REST and not body.broken and not body.withheld

    @property
    def pending(self) -> int:
        """Bytes that the transport holds back because the client does not read."""
        transport = self.transport
        if isinstance(transport, FileDescriptor):
            return len(transport.dataBuffer) - transport.offset + transport._tempDataLen
        return int(getattr(transport, "pending", 0))

    def _wake_writers(self) -> None:
        writers, self._writers = self._writers, []
        for writer in writers:
            writer.callback(None)

    # The end.

    def look(self, now: float) -> None:
        """See whether a time-out has passed."""
        pending = self.pending
        taken = self._written - pending
        if (pending and not self._pending_then) or taken != self._taken:
            self._moved_at = max(self._moved_at, now)
        self._taken, self._pending_then = taken, pending
        quiet = now - self._moved_at
        request = self._request
        if pending or (request is not None and request.body_if_any is not None and request.body.awaited):
            if quiet >= self._limits.stall_timeout:
                self.abort()
        elif request is not None or self._queue or self._closing:
            return
        elif self._in_head:
            if quiet >= self._limits.head_timeout:
                self._deaf = True
                self._in_head = False
                self._queue.append(HTTPStatus.REQUEST_TIMEOUT)
                self._advance()
        elif quiet >= self._limits.idle_timeout:
            self._close()

    def retire(self) -> None:
        """Close now, or after the running request."""
        if self._request is None and not self._closing:
            self._close()

    def abort(self) -> None:
        """Cut the connection."""
        self._closing = self._deaf = True
        abort = getattr(self.transport, "abortConnection", self.transport.loseConnection)
        self.transport.unregisterProducer()
        abort()

    def _end(self) -> None:
        """Close, but let a client that still sends read its answer first."""
        if self._closing:
            return
        unread = self._incoming is not None or self._dropped or self._queue
        self._queue.clear()
        if self._ended or not unread:
            self._close()
            return
        self._break_body()
        self._deaf = self._closing = True
        self.transport.unregisterProducer()
        self._lingering = self._site.clock.callLater(LINGER, self._close)
        half_close = getattr(self.transport, "loseWriteConnection", None)
        if half_close is not None:
            half_close()
        self.flow()

    def _close(self) -> None:
        """Close when the answers are written."""
        self._closing = self._deaf = True
        if self._lingering is None:
            self.transport.unregisterProducer()
        self.transport.loseConnection()


def _is_binary(data: bytes) -> bool:
    """Whether this is no HTTP at all, such as the beginning of a TLS connection, rather than an unknown method."""
    return not data.lstrip(b"\r\n").partition(b" ")[0].isascii() or not data.lstrip(b"\r\n")[:1].isalpha()


@define(eq=False, slots=False)
class HTTPFactory(Factory):
    """Builds the channels of one or more listening sockets, and knows them all.

    `answer` is the site: it is called with each request and answers it. What it raises is logged and answered 500, or
    ends the connection when the answer has begun. It is cancelled when the client vanishes.
    """

    log: ClassVar[Logger] = Logger()
    noisy = False

    answer: Callable[[Request], Coroutine[Deferred[Any], Any, None]]
    clock: IReactorTime
    limits: Limits = field(factory=Limits)
    now: float = field(init=False, default=0.0)  # seconds since the epoch, at most one tick ago
    date_line: bytes = field(init=False, default=b"")
    draining: bool = field(init=False, default=False)
    connections: int = field(init=False, default=0)  # accepted since the start
    requests: int = field(init=False, default=0)  # started since the start
    _channels: set[Channel] = field(init=False, factory=set)
    _addresses: Counter[str] = field(init=False, factory=Counter)  # IP address to open connections
    _ticking: IDelayedCall | None = field(init=False, default=None)
    _empty: list[Deferred[None]] = field(init=False, factory=list)  # who waits for the last channel to close

    @property
    def open_connections(self) -> int:
        """Connections that are open now."""
        return len(self._channels)

    def buildProtocol(self, addr: IAddress | None) -> Channel | None:
        """A channel for this client, None (close at once) when it has too many."""
        address = _ip_of(addr)
        crowd = self._addresses[address]
        if self.draining or (crowd >= self.limits.connections_per_address and not self._is_exempt(address)):
            return None
        return Channel(self, address)

    def serve(self, request: Request) -> Coroutine[Deferred[Any], Any, None]:
        """The coroutine that answers this request, not yet started."""
        self.requests += 1
        return self.answer(request)

    def opened(self, channel: Channel) -> float:
        """Count a new connection; returns the time."""
        self.connections += 1
        self._channels.add(channel)
        self._addresses[channel.client_address] += 1
        self._read_clock()
        if self._ticking is None:
            self._ticking = self.clock.callLater(TICK, self._tick)
        return self.now

    def closed(self, channel: Channel) -> None:
        """Forget a connection."""
        self._channels.discard(channel)
        self._addresses[channel.client_address] -= 1
        if not self._addresses[channel.client_address]:
            del self._addresses[channel.client_address]
        if not self._channels:
            waiting, self._empty = self._empty, []
            for empty in waiting:
                empty.callback(None)

    async def drain(self, seconds: float) -> None:
        """Take no more requests, let the running ones finish for so long, cut the rest. Returns when all are closed."""
        self.draining = True
        for channel in tuple(self._channels):
            channel.retire()
        cut = self.clock.callLater(seconds, self._cut)
        if self._channels:
            empty: Deferred[None] = Deferred()
            self._empty.append(empty)
            await empty
        if cut.active():
            cut.cancel()

    def _cut(self) -> None:
        for channel in tuple(self._channels):
            channel.abort()

    def _tick(self) -> None:
        self._ticking = self.clock.callLater(TICK, self._tick) if self._channels else None
        self._read_clock()
        for channel in tuple(self._channels):
            try:
                channel.look(self.now)
            except Exception:
                self.log.failure("A look at a connection failed")

    def _read_clock(self) -> None:
        self.now = self.clock.seconds()
        self.date_line = b"Date: %b\r\n" % formatdate(self.now, usegmt=True).encode()

    def _is_exempt(self, address: str) -> bool:
        if not address:
            return True  # a unix socket
        ip = ip_address(address)
        return ip.is_loopback or any(ip in network for network in self.limits.exempt)


def _ip_of(address: IAddress | None) -> str:
    """The IP address as text, an IPv4 one in its own form; empty for what is no IP address."""
    host = str(getattr(address, "host", ""))
    if ":" in host:
        mapped = IPv6Address(host).ipv4_mapped
        if mapped is not None:
            return str(mapped)
    return host
