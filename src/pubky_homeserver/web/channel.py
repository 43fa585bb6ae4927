"""HTTP/1.1 connections: requests one at a time and in order, limits and time-outs.

After each read the channel goes through what `Inbound` noted, in a loop: it wakes the reader of a body, starts the
next request when the one before is served, and decides whether to read on. It stops reading when more than
`READ_AHEAD` bytes came in behind requests that wait, or more than `body_high_water` bytes of a body are unread; it
starts no request while the client leaves earlier answers unread. So what one connection can occupy is bounded by its
reads (64 KiB each, 1 MiB within a large body) and these limits, however fast or slow the client is.

An answer to a client that still sends is half-closed, and the rest read and dropped for a moment: closing with unread
bytes would make the kernel reset the connection and take the answer with it (RFC 9112 §9.6). A handler is a coroutine;
its first step is made by hand, so an answer that waits for nothing costs no `Deferred`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, ClassVar

from attrs import define, field, frozen
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

from pubky_homeserver.web.crowd import Crowd, Network, ip_of
from pubky_homeserver.web.inbound import HeadLimits, Inbound
from pubky_homeserver.web.request import BodyBroken, ClientGone, Request, refusal
from pubky_homeserver.web.wire import Wire

TICK = 1.0  # seconds between two looks at the clock; time-outs are exact to this
LINGER = 1.0  # seconds that a client gets to read an answer it did not wait for
LINGER_BYTES = 1 << 20  # what is read and dropped of such a client
READ_AHEAD = 64 << 10  # bytes read while requests wait: who does not read cannot see a client go
READ = 64 << 10  # bytes of one read
LARGE = 1 << 20  # bytes of a body from which on it is read so many at once: half the turns, twice the speed
SMALL_REST = 64 << 10  # bytes of an unread body that are cheaper to drop than a connection is to open


@frozen
class Limits(HeadLimits):
    """What one client may take. Times in seconds."""

    head_timeout: float = 10.0  # from the first byte of a head to its last
    idle_timeout: float = 75.0  # between two requests
    stall_timeout: float = 60.0  # without one byte of a body or an answer moving
    connections: int = 10_000  # of all clients
    connections_per_address: int = 512
    body_high_water: int = 256 << 10  # unread bytes of a body above which reading stops
    exempt: tuple[Network, ...] = ()  # besides loopback: networks that the cap spares (proxies)


@implementer(IHalfCloseableProtocol, IPushProducer)
class Channel(Protocol):
    """One connection."""

    log: ClassVar[Logger] = Logger()
    transport: Any  # a stream transport that is consumer and push producer; what else it can is asked of it
    wire: Wire

    def __init__(self, site: HTTPFactory, client_address: str) -> None:
        self._site = site
        self._limits = site.limits
        self.client_address = client_address
        self.is_tls = False
        self._inbound = Inbound(self, site.limits)
        self._request: Request | None = None  # being served
        self._running: Deferred[None] | None = None  # its handler, once it waits for something
        self._advancing = False
        self.choked = False  # the transport holds more than it likes, or was offered more than it took
        self._writers: list[Deferred[None]] = []  # who waits for that to end
        self._paused = False  # reading is stopped
        self._reads_large = False  # a large body is being read
        self._ended = False  # the client has closed its half
        self._closing = False
        self._lost = False
        self._lingering: IDelayedCall | None = None
        self._moved_at = 0.0  # when it fell idle, a head began, or a byte was last seen to move
        self._taken = -1  # bytes of the answers that the client had taken at the last look; -1: none waited then

    # The transport.

    def connectionMade(self) -> None:
        """Begin to keep time."""
        transport = self.transport
        self.wire = Wire(transport)
        self.is_tls = ISSLTransport.providedBy(transport)
        set_no_delay = getattr(transport, "setTcpNoDelay", None)
        if set_no_delay is not None:
            set_no_delay(True)
        transport.registerProducer(self, True)
        self._moved_at = self._site.opened(self)

    def dataReceived(self, data: bytes) -> None:
        """Parse, then act on what was noted."""
        inbound = self._inbound
        was_in_head = inbound.in_head
        inbound.feed(data)
        if inbound.in_head and not was_in_head:
            self._moved_at = self._site.now
        self._wake_reader()
        self._advance()

    def readConnectionLost(self) -> None:
        """The client sends no more, but may still read."""
        self._ended = True
        self._inbound.end()
        self._wake_reader()
        request = self._request
        if request is not None and request.ends_with_input and not request.finished:
            self.abort()
        elif self._lingering is not None:
            self._close()
        else:
            self._advance()

    def writeConnectionLost(self) -> None:
        """Our half is closed: nothing to do."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the handler: its waits fail, then it is cancelled unless its answer is complete."""
        self._lost = self._closing = True
        self._site.closed(self)
        self._linger_no_more()
        self._inbound.forget()
        request = self._request
        if request is not None:
            request.lost(reason)
            self._wake_writers()
        if self._running is not None and request is not None and not request.finished:
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

    def flow(self) -> None:
        """Read on or stop reading."""
        if self._closing and self._lingering is None:
            return
        inbound = self._inbound
        incoming = inbound.incoming
        body = None if incoming is None else incoming.body_if_any
        full = (
            (bool(inbound.queue) and inbound.ahead > READ_AHEAD)
            or (body is not None and body.held > self._limits.body_high_water)
            or inbound.dropped > LINGER_BYTES
        )
        if full is not self._paused:
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
        inbound = self._inbound
        try:
            while inbound.queue and self._request is None and not self.choked and not self._closing:
                item = inbound.queue.popleft()
                if isinstance(item, Request):
                    self._start(item)
                else:
                    self.write(refusal(item, self.date_line))
        finally:
            self._advancing = False
        if inbound.deaf and self._request is None and not inbound.queue:
            self._end()
        self.flow()

    def _start(self, request: Request) -> None:
        """Run the handler up to its first wait."""
        self._request = request
        if request.body_if_any is not None and (request.content_length or LARGE) >= LARGE:
            self.wire.set_read_size(LARGE)
            self._reads_large = True
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
        if not request.finished and not self._closing:
            self.log.error("{request!r} was left without a whole answer", request=request)
            self._give_up(request)
        self._request = self._running = None
        if self._reads_large:
            self.wire.set_read_size(READ)
            self._reads_large = False
        if self._closing:
            return
        self._moved_at = self._site.now
        if request.closes or self._site.draining:
            self._end()
        elif request is self._inbound.incoming:
            request.body.drop()
        self._advance()

    def _failed(self, failure: Failure) -> None:
        """The handler has raised: that the client vanished is no error, all else is."""
        request = self._request
        assert request is not None
        expected = (CancelledError, ClientGone, BodyBroken) if request.gone else (CancelledError,)
        if failure.check(*expected) is None:
            self.log.failure("{request!r} failed", failure, request=request)
        self._give_up(request)
        self._served()

    def _give_up(self, request: Request) -> None:
        """End an answer that its handler did not."""
        if request.finished or request.gone:
            return
        if request.begun:
            self.abort()
        else:
            request.fail()

    def _wake_reader(self) -> None:
        request = self._request
        if request is not None and request.body_if_any is not None:
            request.body_if_any.wake()

    # What a request asks of its connection.

    @property
    def date_line(self) -> bytes:
        """The `Date` field of this second."""
        return self._site.date_line

    @property
    def pending(self) -> int:
        """Bytes that wait in this process for the client."""
        return self.wire.pending

    def write(self, data: bytes | bytearray) -> None:
        """Send bytes of an answer."""
        self.wire.write(data)

    def offer(self, data: memoryview) -> int:
        """Send the part of these bytes that the client takes now."""
        if self._closing:
            self.choked = True  # for good: who waits learns that the client is gone
            return 0
        return self.wire.offer(data)

    def drained(self) -> Deferred[None]:
        """Fires when the transport is empty or gone."""
        writer: Deferred[None] = Deferred()
        self._writers.append(writer)
        return writer

    def send_continue(self) -> None:
        """Ask the client for the body that it holds back."""
        if not self._closing and self._request is not None and not self._request.begun:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def body_awaited(self) -> None:
        """A handler waits for bytes from now on."""
        self._moved_at = self._site.now

    def continues_after(self, request: Request) -> bool:
        """Whether the connection lives on after the answer that is about to be sent."""
        if not request.keep_alive or self._site.draining:
            return False
        if self._ended:
            return bool(self._inbound.queue)
        body = request.body_if_any
        if body is None or body.complete:
            return True
        if body.withheld or request.content_length is None:
            return False
        return request.content_length - body.received <= SMALL_REST

    def _wake_writers(self) -> None:
        writers, self._writers = self._writers, []
        for writer in writers:
            writer.callback(None)

    # The end.

    def look(self, now: float) -> None:
        """See whether a time-out has passed."""
        pending = self.choked or self.pending
        taken = self.wire.written - self.wire.unacknowledged if pending else -1
        if taken != self._taken:
            self._taken, self._moved_at = taken, now
        quiet = now - self._moved_at
        request = self._request
        body = None if request is None else request.body_if_any
        if pending or self._closing or (body is not None and body.awaited):
            if quiet >= self._limits.stall_timeout:
                self.abort()
        elif request is not None or self._inbound.queue:
            return
        elif self._inbound.in_head:
            if quiet >= self._limits.head_timeout:
                self._inbound.refuse(HTTPStatus.REQUEST_TIMEOUT)
                self._advance()
        elif quiet >= self._limits.idle_timeout:
            self._close()

    def retire(self) -> None:
        """Close now, or after the running request."""
        if self._request is None and not self._closing:
            self._close()

    def abort(self) -> None:
        """Cut the connection."""
        self._closing = True
        self.transport.unregisterProducer()
        getattr(self.transport, "abortConnection", self.transport.loseConnection)()

    def _end(self) -> None:
        """Close, but let a client that still sends read its answer first."""
        if self._closing:
            return
        inbound = self._inbound
        unread = inbound.incoming is not None or inbound.queue or inbound.dropped
        inbound.end()
        inbound.queue.clear()
        if self._ended or not unread:
            self._close()
            return
        self._closing = True
        self.transport.unregisterProducer()
        self._lingering = self._site.clock.callLater(LINGER, self._close)
        if not self.is_tls and hasattr(self.transport, "loseWriteConnection"):
            self.transport.loseWriteConnection()
        self.flow()

    def _close(self) -> None:
        """Close when the answers are written."""
        self._closing = True
        self._linger_no_more()
        self._moved_at = self._site.now
        self.transport.unregisterProducer()
        if self._paused:  # TLS waits for the client's goodbye, which may stand behind other bytes
            self.transport.resumeProducing()
        self.transport.loseConnection()

    def _linger_no_more(self) -> None:
        if self._lingering is not None and self._lingering.active():
            self._lingering.cancel()
        self._lingering = None


@define(eq=False, repr=False, slots=False)
class HTTPFactory(Factory):
    """Builds the channels of one or more listening sockets, and knows them all.

    `answer` is the site: it is called with each request and answers it. What it raises is logged and answered 500, or
    cuts the connection when the answer has begun. It is cancelled when the client vanishes.
    """

    log: ClassVar[Logger] = Logger()
    noisy = False

    answer: Callable[[Request], Coroutine[Deferred[Any], Any, None]]
    clock: IReactorTime
    limits: Limits = field(factory=Limits)
    now: float = field(init=False, default=0.0)  # seconds since the epoch, at most one tick ago
    _date: tuple[int, bytes] = field(init=False, default=(-1, b""))  # a second and its `Date` field
    draining: bool = field(init=False, default=False)
    connections: int = field(init=False, default=0)  # accepted since the start
    requests: int = field(init=False, default=0)  # begun since the start
    _channels: set[Channel] = field(init=False, factory=set)
    _crowd: Crowd = field(init=False)
    _ticking: IDelayedCall | None = field(init=False, default=None)
    _told_full: bool = field(init=False, default=False)
    _drained: list[Deferred[None]] = field(init=False, factory=list)  # who waits for the last channel to close

    def __attrs_post_init__(self) -> None:
        self._crowd = Crowd(self.limits.connections_per_address, self.limits.exempt)

    @property
    def date_line(self) -> bytes:
        """The `Date` field of this second: never before a `Last-Modified` that the same answer carries."""
        second = int(self.clock.seconds())
        if second != self._date[0]:
            self._date = second, b"Date: %b\r\n" % formatdate(second, usegmt=True).encode()
        return self._date[1]

    @property
    def open_connections(self) -> int:
        """Connections that are open now."""
        return len(self._channels)

    def buildProtocol(self, addr: IAddress | None) -> Channel | None:
        """A channel for the client at this address; None, which closes, when it or all together have too many."""
        address = ip_of(addr)
        if self.draining or self._is_full() or self._crowd.is_full_for(address):
            return None
        return Channel(self, address)

    def _is_full(self) -> bool:
        """Whether there are as many connections as there may be; the log tells it once."""
        is_full = len(self._channels) >= self.limits.connections
        if is_full and not self._told_full:
            self.log.warn("No more than {count} connections: others are refused", count=self.limits.connections)
        self._told_full = is_full or (self._told_full and len(self._channels) > self.limits.connections * 0.9)
        return is_full

    def serve(self, request: Request) -> Coroutine[Deferred[Any], Any, None]:
        """The coroutine that answers this request, not yet started."""
        self.requests += 1
        return self.answer(request)

    def opened(self, channel: Channel) -> float:
        """Count a new connection; returns the time."""
        self.connections += 1
        self._channels.add(channel)
        self._crowd.enter(channel.client_address)
        if self._ticking is None:
            self._ticking = self.clock.callLater(TICK, self._tick)
            self.now = self.clock.seconds()
        return self.now

    def closed(self, channel: Channel) -> None:
        """Forget a connection."""
        self._channels.discard(channel)
        self._crowd.leave(channel.client_address)
        if not self._channels:
            waiting, self._drained = self._drained, []
            for drained in waiting:
                drained.callback(None)

    async def drain(self, seconds: float) -> None:
        """Begin no more requests, let the running ones finish then cut the rest and return.

        `seconds` is the time for the running ones.
        """
        self.draining = True
        for channel in tuple(self._channels):
            channel.retire()
        if not self._channels:
            return
        cut = self.clock.callLater(seconds, self._cut)
        drained: Deferred[None] = Deferred()
        self._drained.append(drained)
        await drained
        if cut.active():
            cut.cancel()

    def _cut(self) -> None:
        for channel in tuple(self._channels):
            channel.abort()

    def _tick(self) -> None:
        self._ticking = self.clock.callLater(TICK, self._tick) if self._channels else None
        self.now = self.clock.seconds()
        for channel in tuple(self._channels):
            try:
                channel.look(self.now)
            except Exception:
                self.log.failure("Looking after a connection failed")
