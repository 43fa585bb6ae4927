"""The http relay: two programs that cannot reach each other meet under an id that only they know (Pubky protocol).

    POST   /inbox/<id>         leave a message: 200 at once
    GET    /inbox/<id>         fetch it, again and again, waiting if need be: 200; 408
    DELETE /inbox/<id>         say that it has been received, which erases it: 200; 404
    GET    /inbox/<id>/ack     ask whether it has been received: 200 `true` or `false`; 404
    GET    /inbox/<id>/await   wait until it has been received: 200; 404, 408
    POST   /link/<id>          leave a message and wait until it is fetched: 200; 404, 408
    GET    /link/<id>          fetch it, which erases it, waiting if need be: 200; 404, 408

There is one message under an id; the next one takes its place. `/link` is the older way in to the same messages. The
relay sees sealed bodies only, keeps them in memory and forgets them: what it holds is bounded in number, size and
time, so that nobody can make it more than a place to meet.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Iterable
from functools import partial
from http import HTTPStatus
from typing import ClassVar, TypeVar
from urllib.parse import unquote_to_bytes

from attrs import define, field, frozen
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from pubky_homeserver.web.answers import answer_with, refuse_method
from pubky_homeserver.web.cors import add_cors, answer_options
from pubky_homeserver.web.request import Request
from pubky_homeserver.web.routes import Route, route
from pubky_homeserver.web.texts import PLAIN

CAPACITY = 10_000
"""Messages kept; the one that was left first makes room for the next."""

MAX_BODY = 2048
"""Bytes of a message. An approval of a sign-in has a few hundred."""

MAX_ID = 256
"""Bytes of an id, after decoding."""

MAX_TYPE = 256
"""Bytes of a message's content type, which is kept with it."""

INBOX_TTL = 300.0
LINK_TTL = 600.0
"""Seconds that a message lives."""

INBOX_WAIT = 25.0
"""Seconds that an inbox lets a client wait: below the usual 30 of what stands between them."""

LINK_WAIT = 600.0
"""Seconds that a link lets a client wait: its clients take an early end for a failure."""

MAX_WAITING = 10
"""Clients that may wait for the message of one id, and as many for its receipt."""

SWEEP = 15.0
"""Seconds between two looks for what is past its time."""

OCTETS = b"application/octet-stream"

_Result = TypeVar("_Result")
_PATH = re.compile(rb"/(inbox|link)/([^/]+)(/ack|/await)?")


class Refusal(Exception):
    """An answer that is no success. It goes out as bytes without a type, as the protocol's relay does it."""

    def __init__(self, status: HTTPStatus, text: bytes) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text


_not_found = partial(Refusal, HTTPStatus.NOT_FOUND, b"Not found")
_expired = partial(Refusal, HTTPStatus.NOT_FOUND, b"Entry expired")
_timed_out = partial(Refusal, HTTPStatus.REQUEST_TIMEOUT, b"Request timed out")
_too_many = partial(Refusal, HTTPStatus.SERVICE_UNAVAILABLE, b"Too many concurrent requests")


@frozen
class Message:
    """What a client left."""

    body: bytes = field(repr=False)
    content_type: bytes


@frozen(eq=False)
class Reader:
    """A client that waits for a message."""

    takes: bool
    """Whether to give it the message is to erase it."""
    arrival: Deferred[Message | None] = field(factory=Deferred)
    """Fires with the message; with None if there will be none."""


@define(eq=False)
class Entry:
    """What lies under an id."""

    message: Message | None
    """None once it has been received."""
    expires: float
    """Seconds since the epoch."""
    receipts: list[Deferred[bool]] = field(init=False, factory=list)
    # Who waits to hear that it was received: fires with True; with False if that will not happen.


@define(eq=False)
class Mailboxes:
    """All messages, and who waits for them.

    Whoever is told something goes on at once, perhaps with another request to this object: so all is in order here
    before anybody is told.
    """

    clock: IReactorTime
    capacity: int
    _entries: dict[bytes, Entry] = field(init=False, factory=dict)
    # Id → what lies there, the oldest first.
    _readers: dict[bytes, list[Reader]] = field(init=False, factory=dict)
    # Id → who waits for a message there, the first to come first.
    _sweeping: IDelayedCall | None = field(init=False, default=None)

    def __len__(self) -> int:
        """Ids for which anything is remembered."""
        return len(self._entries.keys() | self._readers.keys())

    def entry(self, name: bytes) -> Entry:
        """What lies under an id. Raises a 404."""
        entry = self._living(name)
        if entry is None:
            raise _not_found()
        return entry

    def leave(self, name: bytes, message: Message, ttl: float) -> Entry:
        """Put a message under an id for `ttl` seconds, and give it to those who wait."""
        before = self._entries.pop(name, None)
        entry = self._entries[name] = Entry(message, self.clock.seconds() + ttl)
        if self._sweeping is None:
            self._sweeping = self.clock.callLater(SWEEP, self._sweep)
        arrivals = self._allot(name, entry)
        if before is not None:
            _tell(before.receipts, False)
        if len(self._entries) > self.capacity:
            self._forget([next(iter(self._entries))])
        _tell(arrivals, message)
        return entry

    def receive(self, entry: Entry) -> None:
        """Note that a message has arrived where it should, and erase it."""
        entry.message = None
        _tell(entry.receipts, True)

    async def fetch(self, name: bytes, takes: bool, seconds: float) -> Message:
        """The message under an id, after waiting for it. Raises 404, 408, 503."""
        entry = self._living(name)
        if entry is not None and entry.message is not None:
            message = entry.message
            if takes:
                self.receive(entry)
            return message
        readers = self._readers.setdefault(name, [])
        if len(readers) >= MAX_WAITING:
            raise _too_many()
        reader = Reader(takes)
        readers.append(reader)
        try:
            arrived = await self._within(seconds, reader.arrival)
        finally:
            self._leave_queue(name, reader)
        if arrived is None:
            raise _expired()
        return arrived

    async def received(self, entry: Entry, seconds: float) -> None:
        """Wait until the message of an entry has been received. Raises 404, 408, 503."""
        if entry.message is None:
            return
        if len(entry.receipts) >= MAX_WAITING:
            raise _too_many()
        receipt: Deferred[bool] = Deferred()
        entry.receipts.append(receipt)
        try:
            came = await self._within(seconds, receipt)
        finally:
            if receipt in entry.receipts:
                entry.receipts.remove(receipt)
        if not came:
            raise _expired()

    async def _within(self, seconds: float, awaited: Deferred[_Result]) -> _Result:
        try:
            return await awaited.addTimeout(seconds, self.clock)
        except DeferredTimeout:
            raise _timed_out() from None

    def _living(self, name: bytes) -> Entry | None:
        entry = self._entries.get(name)
        if entry is not None and entry.expires < self.clock.seconds():
            self._forget([name])
            return None
        return entry

    def _allot(self, name: bytes, entry: Entry) -> list[Deferred[Message | None]]:
        """Who of those that wait gets a new message: all who only look, and of the others the last to come.

        An older request for the same message is the likelier one to have been given up by its client.
        """
        readers = self._readers.pop(name, [])
        takers = [reader for reader in readers if reader.takes]
        if takers:
            entry.message = None
        if takers[:-1]:
            self._readers[name] = takers[:-1]
        return [reader.arrival for reader in readers if reader not in takers[:-1]]

    def _leave_queue(self, name: bytes, reader: Reader) -> None:
        readers = self._readers.get(name, [])
        if reader in readers:
            readers.remove(reader)
        if not readers:
            self._readers.pop(name, None)

    def _sweep(self) -> None:
        now = self.clock.seconds()
        self._forget([name for name, entry in self._entries.items() if entry.expires < now])
        self._sweeping = self.clock.callLater(SWEEP, self._sweep) if self._entries else None

    def _forget(self, names: list[bytes]) -> None:
        """Forget what lies under some ids, and tell those who wait for it."""
        entries = [self._entries.pop(name) for name in names]
        arrivals = [reader.arrival for name in names for reader in self._readers.pop(name, [])]
        for entry in entries:
            _tell(entry.receipts, False)
        _tell(arrivals, None)


def _tell(waiting: Iterable[Deferred[_Result]], what: _Result) -> None:
    for one in tuple(waiting):  # who is told leaves the queue
        if not one.called:
            one.callback(what)


@define(eq=False)
class HttpRelay:
    """The relay. `answer` is what a channel calls with each request."""

    clock: IReactorTime
    cors: bool = False
    """Whether pages of any origin may use it."""
    capacity: int = CAPACITY
    _boxes: Mailboxes = field(init=False)
    _root: Route = field(init=False)
    _routes: dict[tuple[bytes, bytes | None], Route] = field(init=False)
    # First and last segment of a path with an id → its route.
    app: ClassVar[Klein] = Klein()

    def __attrs_post_init__(self) -> None:
        self._boxes = Mailboxes(self.clock, self.capacity)
        app = self.app
        inbox = {"GET": "look", "HEAD": "look", "POST": "leave", "DELETE": "acknowledge"}
        link = {"GET": "take", "HEAD": "take", "POST": "hand_over"}
        self._root = route(app, {"GET": "root", "HEAD": "root"})
        self._routes = {
            (b"inbox", None): route(app, inbox),
            (b"inbox", b"/ack"): route(app, {"GET": "acknowledged", "HEAD": "acknowledged"}),
            (b"inbox", b"/await"): route(app, {"GET": "acknowledgement", "HEAD": "acknowledgement"}),
            (b"link", None): route(app, link),
        }

    async def answer(self, request: Request) -> None:
        """Answer one request."""
        kind, name, found = self._route(request.path)
        dress = _dress_cors if self.cors else _dress
        if self.cors and request.method == b"OPTIONS":
            answer_options(request, None if found is None else found.options)
        elif found is None:
            request.setResponseCode(HTTPStatus.NOT_FOUND)
            dress(request, True)
            request.finish_with()
        elif (handler := found.methods.get(request.method)) is None:
            refuse_method(request, found.allow, dress)
        elif len(name) > MAX_ID:
            request.setResponseCode(HTTPStatus.BAD_REQUEST)
            request.setHeader(b"Content-Type", OCTETS)
            dress(request, True)
            request.finish_with(b"Inbox ID too long" if kind == b"inbox" else b"Channel ID too long")
        else:
            dress(request, False)
            request.setHeader(b"Content-Type", OCTETS)
            await answer_with(request, _or_refusal(request, handler(request, name)), dress)

    @app.route("/", methods=["GET", "HEAD"])
    async def root(self, request: Request, name: bytes) -> bytes:
        """Say what this is."""
        request.setHeader(b"Content-Type", PLAIN)
        return b"Http Relay"

    @app.route("/inbox/<name>", methods=["POST"])
    async def leave(self, request: Request, name: bytes) -> bytes:
        """Leave a message. 200; 400, 413."""
        self._boxes.leave(name, await _message(request), INBOX_TTL)
        return b""

    @app.route("/inbox/<name>", methods=["GET", "HEAD"])
    async def look(self, request: Request, name: bytes) -> bytes:
        """Fetch a message and let it lie. 200 with the type that it came with; 404, 408, 503."""
        request.ends_with_input = True
        return _show(request, await self._boxes.fetch(name, False, INBOX_WAIT))

    @app.route("/inbox/<name>", methods=["DELETE"])
    async def acknowledge(self, request: Request, name: bytes) -> bytes:
        """Note that a message was received, and erase it. 200; 404."""
        self._boxes.receive(self._boxes.entry(name))
        return b""

    @app.route("/inbox/<name>/ack", methods=["GET", "HEAD"])
    async def acknowledged(self, request: Request, name: bytes) -> bytes:
        """Whether a message was received. 200 `true` or `false`; 404."""
        return b"true" if self._boxes.entry(name).message is None else b"false"

    @app.route("/inbox/<name>/await", methods=["GET", "HEAD"])
    async def acknowledgement(self, request: Request, name: bytes) -> bytes:
        """Wait until a message was received. 200; 404, 408, 503."""
        request.ends_with_input = True
        await self._boxes.received(self._boxes.entry(name), INBOX_WAIT)
        return b""

    @app.route("/link/<name>", methods=["POST"])
    async def hand_over(self, request: Request, name: bytes) -> bytes:
        """Leave a message and wait until it is fetched. 200; 400, 404, 408, 413."""
        request.setHeader(b"Deprecation", b"true")
        entry = self._boxes.leave(name, await _message(request), LINK_TTL)
        await self._boxes.received(entry, LINK_WAIT)
        return b""

    @app.route("/link/<name>", methods=["GET", "HEAD"])
    async def take(self, request: Request, name: bytes) -> bytes:
        """Fetch a message, which erases it unless only its head is asked for. 200; 404, 408, 503."""
        request.ends_with_input = True  # lest a message goes to nobody
        message = await self._boxes.fetch(name, request.method == b"GET", LINK_WAIT)
        request.setHeader(b"Deprecation", b"true")
        return _show(request, message)

    def _route(self, path: bytes) -> tuple[bytes, bytes, Route | None]:
        """First segment, id and route of a path."""
        if path == b"/":
            return b"", b"", self._root
        match = _PATH.fullmatch(path)
        if match is None:
            return b"", b"", None
        kind, name, action = match.groups()
        return kind, unquote_to_bytes(name), self._routes.get((kind, action))


async def _message(request: Request) -> Message:
    """The message that a request leaves. Raises a 400, `BodyTooLarge`."""
    content_type = request.header(b"content-type") or OCTETS
    if len(content_type) > MAX_TYPE:
        raise Refusal(HTTPStatus.BAD_REQUEST, b"Content-Type too long")
    return Message(await request.read(MAX_BODY), content_type)


def _show(request: Request, message: Message) -> bytes:
    request.setHeader(b"Content-Type", message.content_type)
    return message.body


async def _or_refusal(request: Request, work: Awaitable[bytes | None]) -> bytes | None:
    """What a handler answers, also where it refuses."""
    try:
        return await work
    except Refusal as refusal:
        request.setResponseCode(refusal.status)
        return refusal.text


def _dress(request: Request, refused: bool) -> None:
    """No page may use this relay."""


def _dress_cors(request: Request, refused: bool) -> None:
    add_cors(request)
