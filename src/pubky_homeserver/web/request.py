"""One HTTP request as its handler sees it: the head, the body as it arrives, and the answer.

The head is complete when the handler starts, the body usually is not: `Request.body` is an async iterator that takes
bytes from the connection only as fast as the handler asks. A handler answers in one of two ways: `finish_with` puts
head and body into one write; `stream`, `write` and `finish` (or `send`, all three over an iterator) pass on bytes as
fast as the client takes them.

`Request` is not a `twisted.web.http.Request`, nor does it provide `IRequest`. Klein's `execute_endpoint` hands its
request to the handler untouched, so the idiom of Klein's handlers (`setResponseCode`, `setHeader`, `addHeader`) is
all it needs; constructing Twisted's class alone costs several times what this whole object does
(`tests/bench/channel.py --construct`).
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from pubky_homeserver.web.channel import Channel

CHUNK_COST = 64  # bytes of Python object around a chunk of a body, so that many tiny chunks count as what they occupy

_STATUS_LINES = {status.value: b"HTTP/1.1 %d %s\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}
_WITHOUT_BODY = frozenset({101, 204, 304})  # RFC 9110 §6.4.1: these answers never have a body, nor (here) a length


class BodyBroken(Exception):
    """The request's body ended before it was complete: the client vanished or broke its framing."""


class BodyTooLarge(Exception):
    """The request's body is longer than what its handler reads."""


class ClientGone(Exception):
    """Nobody is left to read the answer."""


class Body:
    """A request's body in the order of arrival: an async iterator of non-empty `bytes`, to be read once.

    The channel feeds it from within the parser (`feed`, `complete`, `broken` only note) and calls `wake` afterwards.
    """

    __slots__ = ("_channel", "_chunks", "_expects", "_waiter", "broken", "complete", "discard", "held", "received")

    def __init__(self, channel: Channel, expects: bool) -> None:
        self._channel = channel
        self._chunks: list[bytes] = []
        self._expects = expects  # the client waits for 100 Continue
        self._waiter: Deferred[None] | None = None
        self.complete = False
        self.broken = False
        self.discard = False  # the answer is given, nobody will read the rest
        self.held = 0  # bytes of memory that arrived and were not read yet
        self.received = 0  # bytes that arrived

    @property
    def awaited(self) -> bool:
        """Whether a handler waits for bytes that have not arrived."""
        return self._waiter is not None

    @property
    def withheld(self) -> bool:
        """Whether the client waits for a `100 Continue` that was not sent."""
        return self._expects and not self.complete

    def feed(self, data: bytes) -> None:
        """Keep bytes that arrived."""
        self._expects = False  # it did not wait, so it need not be told
        self.received += len(data)
        if not self.discard:
            self._chunks.append(data)
            self.held += len(data) + CHUNK_COST

    def drop(self) -> None:
        """Forget what arrived and what will."""
        self.discard = True
        self._chunks.clear()
        self.held = 0

    def wake(self) -> None:
        """Let a waiting handler go on if there is something to tell it."""
        waiter = self._waiter
        if waiter is not None and (self._chunks or self.complete or self.broken):
            self._waiter = None
            waiter.callback(None)

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        """All bytes that are there, after waiting for the first. Raises `BodyBroken`."""
        while not self._chunks or self.broken:
            if self.broken:
                raise BodyBroken
            if self.complete:
                raise StopAsyncIteration
            if self._expects:
                self._expects = False
                self._channel.send_continue()
            self._waiter = Deferred()
            self._channel.body_awaited()
            try:
                await self._waiter
            finally:
                self._waiter = None
        chunks, self._chunks, self.held = self._chunks, [], 0
        self._channel.flow()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


class Request:
    """One request and its answer. Names of header fields are lower-case where they are asked for.

    Attributes: `method`; `uri`, the target as sent; `path` and `query`, the raw parts of it before and after the
    first `?`; `authority`, of a target in absolute form, else empty; `content_length`, None without one; `code`, of the
    answer.
    """

    __slots__ = (
        "_body", "_channel", "_chunked", "_fields", "_first", "_headers", "_left", "_notices",
        "authority", "begun", "closes", "code", "content_length", "finished", "gone",
        "http10", "keep_alive", "method", "path", "query", "uri",
    )  # fmt: skip

    def __init__(
        self,
        channel: Channel,
        method: bytes,
        uri: bytes,
        fields: list[tuple[bytes, bytes]],
        http10: bool,
        keep_alive: bool,
    ) -> None:
        """Raises ValueError for a target or a framing that a server must refuse."""
        self._channel = channel
        self.method = method
        self.uri = uri
        self._fields = fields
        self._first = first = dict(reversed(fields))  # name to first occurrence
        self.http10 = http10
        self.keep_alive = keep_alive  # what the client wishes
        self.authority = b""
        if uri[:1] == b"/":
            target, _, _ = uri.partition(b"#")
        else:
            self.authority, target = _absolute(method, uri)
        self.path, _, self.query = target.partition(b"?")
        length = first.get(b"content-length")
        self.content_length = None if length is None else int(length)
        self._body = self._framed(first, http10)
        # The answer.
        self.code = 200
        self._headers: dict[bytes, bytes] = {}  # lower-case name to whole lines
        self.begun = False  # the head is on its way
        self.finished = False  # and all that follows it
        self.gone = False  # the client vanished before that
        self.closes = False  # the connection ends with this answer
        self._chunked = False
        self._left: int | None = None  # bytes that the announced length still promises
        self._notices: list[Deferred[None]] | None = None

    def _framed(self, first: dict[bytes, bytes], http10: bool) -> Body | None:
        coding = first.get(b"transfer-encoding")
        if coding is None:
            if not self.content_length:
                return None
        elif http10 or coding.lower() != b"chunked":
            raise ValueError("unknown transfer coding")
        expects = b"expect" in first and not http10 and first[b"expect"].lower() == b"100-continue"
        return Body(self._channel, expects)

    def __repr__(self) -> str:
        # Logs get the first segment alone: paths can hold secrets (signup tokens).
        first = self.path.decode().split("/", 2)[1:2]
        return f"<Request {self.method.decode()} /{''.join(first)}>"

    # What was asked.

    @property
    def client_address(self) -> str:
        """The client's IP address as text, an IPv4 one never in its IPv6 form; empty on a unix socket."""
        return self._channel.client_address

    @property
    def is_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self._channel.is_tls

    def header(self, name: bytes) -> bytes | None:
        """The value of the first field with this lower-case name, without surrounding blanks."""
        return self._first.get(name)

    def headers_named(self, name: bytes) -> list[bytes]:
        """The values of all fields with this lower-case name, in order."""
        return [value for key, value in self._fields if key == name]

    @property
    def body(self) -> Body:
        """The body; of a request without one an empty one."""
        if self._body is None:
            self._body = Body(self._channel, expects=False)
            self._body.complete = True
        return self._body

    @property
    def body_if_any(self) -> Body | None:
        """The body if the request has one or somebody asked for it."""
        return self._body

    @property
    def body_complete(self) -> bool:
        """Whether every byte of the body has arrived."""
        return self._body is None or self._body.complete

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises `BodyTooLarge` above `limit` bytes, at once when it is announced; `BodyBroken`."""
        if self.content_length is not None and self.content_length > limit:
            raise BodyTooLarge
        chunks = []
        length = 0
        async for chunk in self.body:
            length += len(chunk)
            if length > limit:
                raise BodyTooLarge
            chunks.append(chunk)
        return b"".join(chunks)

    # The answer.

    def setResponseCode(self, code: int) -> None:
        """Answer with this status."""
        self.code = code

    def setHeader(self, name: bytes, value: bytes) -> None:
        """Answer with this field, instead of any of the same name. Raises ValueError for a line break in it."""
        self._headers[name.lower()] = _line(name, value)

    def addHeader(self, name: bytes, value: bytes) -> None:
        """Answer with one more line of this name."""
        key = name.lower()
        self._headers[key] = self._headers.get(key, b"") + _line(name, value)

    def finish_with(self, body: bytes = b"") -> None:
        """Answer with this body, head and body in one write. `HEAD` gets the head alone.

        The length is that of `body`; of a `HEAD` answer that of `body` or of a `content-length` set before.
        Nothing happens if the client is gone. Raises RuntimeError when the answer has begun already.
        """
        if self.gone:
            return
        if self.begun:
            raise RuntimeError("This request is answered already.")
        headers = self._headers
        if self.code in _WITHOUT_BODY:
            headers.pop(b"content-length", None)
            body = b""
        elif self.method != b"HEAD":
            headers[b"content-length"] = b"Content-Length: %d\r\n" % len(body)
        else:
            if b"content-length" not in headers:
                headers[b"content-length"] = b"Content-Length: %d\r\n" % len(body)
            body = b""
        self._channel.send_bytes(self._head() + body)
        self._complete()

    def stream(self, length: int | None = None) -> None:
        """Send the head of an answer whose body comes by `write`; `length` in bytes, None when it is not known.

        An unknown length is chunked, or for HTTP/1.0 ends with the connection. Nothing happens if the client is gone.
        """
        if self.gone:
            return
        if self.begun:
            raise RuntimeError("This request is answered already.")
        if self.code in _WITHOUT_BODY:
            self._headers.pop(b"content-length", None)
        elif length is not None:
            self._left = length
            self._headers[b"content-length"] = b"Content-Length: %d\r\n" % length
        elif self.http10:
            self.keep_alive = False
        else:
            self._chunked = True
            self._headers[b"transfer-encoding"] = b"Transfer-Encoding: chunked\r\n"
        self._channel.send_bytes(self._head())

    async def write(self, data: bytes) -> None:
        """Send a piece of a streamed body, after waiting until the client has taken those before.

        Raises `ClientGone`, and RuntimeError when there are more bytes than the announced length.
        """
        while self._channel.choked and not self.gone:
            await self._channel.drained()
        if self.gone:
            raise ClientGone
        if not self.begun or self.finished:
            raise RuntimeError("This answer is not open.")
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise RuntimeError("The body is longer than announced.")
        if not data or self.method == b"HEAD" or self.code in _WITHOUT_BODY:
            return
        self._channel.send_bytes(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def finish(self) -> None:
        """End a streamed answer. Raises RuntimeError when bytes of the announced length are missing."""
        if self.gone or self.finished:
            return
        if self._left and self.method != b"HEAD":
            raise RuntimeError("The body is shorter than announced.")
        if self._chunked and self.method != b"HEAD":
            self._channel.send_bytes(b"0\r\n\r\n")
        self._complete()

    async def send(self, chunks: Iterable[bytes] | AsyncIterable[bytes], length: int | None = None) -> None:
        """Answer with these pieces, taken as fast as the client reads. Errors as `stream`, `write` and `finish`."""
        self.stream(length)
        if isinstance(chunks, AsyncIterable):
            async for chunk in chunks:
                await self.write(chunk)
        else:
            for chunk in chunks:
                await self.write(chunk)
        self.finish()

    @property
    def pending(self) -> int:
        """Bytes of the answer that wait in this process for a slow client."""
        return self._channel.pending

    def notifyFinish(self) -> Deferred[None]:
        """Fires with None when the answer is complete; fails with the reason when the client vanishes before."""
        notice: Deferred[None] = Deferred()
        if self._notices is None:
            self._notices = []
        self._notices.append(notice)
        return notice

    # For the channel.

    def lost(self, reason: Failure) -> None:
        """The connection is gone: wake whoever waits for it. The channel cancels the handler after that."""
        body = self._body
        if body is not None and not body.complete:
            body.broken = True
            body.wake()
        if self.finished:
            return
        self.gone = True
        notices, self._notices = self._notices, None
        for notice in notices or ():
            notice.errback(reason)

    def fail(self) -> None:
        """Answer that something went wrong here, without detail."""
        self._headers.clear()
        self.code = HTTPStatus.INTERNAL_SERVER_ERROR
        self.finish_with()

    def _head(self) -> bytes:
        self.begun = True
        channel = self._channel
        self.closes = not channel.continues_after(self)
        if self.closes:
            connection = b"Connection: close\r\n\r\n"
        elif self.http10:
            connection = b"Connection: keep-alive\r\n\r\n"
        else:
            connection = b"\r\n"
        return b"".join((_status_line(self.code), *self._headers.values(), channel.date_line(), connection))

    def _complete(self) -> None:
        self.finished = True
        notices, self._notices = self._notices, None
        for notice in notices or ():
            notice.callback(None)


def refusal(status: int, date_line: bytes) -> bytes:
    """The whole answer to something that is no request; the connection ends with it."""
    return b"%b%bContent-Length: 0\r\nConnection: close\r\n\r\n" % (_status_line(status), date_line)


def _status_line(code: int) -> bytes:
    return _STATUS_LINES.get(code) or b"HTTP/1.1 %d Unknown\r\n" % code


def _line(name: bytes, value: bytes) -> bytes:
    line = b"%b: %b" % (name, value)
    if b"\n" in line or b"\r" in line or b"\0" in line:
        raise ValueError("A header field cannot hold a line break or NUL.")
    return line + b"\r\n"


def _absolute(method: bytes, uri: bytes) -> tuple[bytes, bytes]:
    """Authority and origin form of a target that does not begin with a slash (RFC 9112 §3.2). Raises ValueError."""
    if uri == b"*" and method == b"OPTIONS":
        return b"", b"*"
    scheme, separator, rest = uri.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        raise ValueError("unknown form of target")
    rest, _, _ = rest.partition(b"#")
    end = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
    authority, target = rest[:end], rest[end:]
    if not authority:
        raise ValueError("target without authority")
    return authority, target if target[:1] == b"/" else b"/" + target
