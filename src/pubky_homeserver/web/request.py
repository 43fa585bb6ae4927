"""One HTTP request as its handler sees it: the head, the body as it arrives, and the answer.

The head is complete when the handler starts, the body usually is not: `Request.body` takes bytes from the connection
only as fast as the handler asks. A handler answers in one of two ways: `finish_with` puts head and body into one
write; `stream`, `write` and `finish` (or `send`, all three over an iterator) pass on bytes as fast as the client takes
them.

`Request` is not a `twisted.web.http.Request`, nor does it provide `IRequest`. Klein's `execute_endpoint` hands its
request to the handler untouched, so the words of Klein's handlers (`setResponseCode`, `setHeader`, `addHeader`) are
all it needs. Measured (`tests/bench/channel.py`): making and answering a small one of Twisted's takes twice the time
of this one, some 3 µs more of 25 for a whole small GET; and its body is a file that is gathered before the handler
starts.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Iterable
from http import HTTPStatus
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from pubky_homeserver.web.body import Body, BodyBroken, Source

__all__ = ["Body", "BodyBroken", "BodyTooLarge", "ClientGone", "Connection", "Request", "refusal"]

_STATUS_LINES = {status.value: b"HTTP/1.1 %d %s\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}
_LINE_BREAK = re.compile(rb"[\r\n\0]")
_WITHOUT_BODY = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})  # nor, here, a length: RFC 9110 §8.6


class BodyTooLarge(Exception):
    """The request's body is longer than what its handler reads."""


class ClientGone(Exception):
    """Nobody is left to read the answer."""


class Connection(Source, Protocol):
    """What a request needs of its connection."""

    client_address: str
    is_tls: bool
    choked: bool  # the transport holds more than it likes

    @property
    def date_line(self) -> bytes:
        """The `Date` field of now."""

    @property
    def pending(self) -> int:
        """Bytes that wait in this process for the client."""

    def write(self, data: bytes | bytearray) -> None:
        """Send bytes of the answer."""

    def offer(self, data: memoryview) -> int:
        """Send the part of these bytes that the client takes now; chokes if that is not all."""

    def drained(self) -> Deferred[None]:
        """Fires when the transport is no longer choked, or gone."""

    def continues_after(self, request: Request) -> bool:
        """Whether the connection lives on after the answer that is about to be sent."""


class Request:
    """One request and its answer. Names of header fields are lower-case where they are asked for.

    Attributes: `method`; `uri`, the target as sent; `path` and `query`, the raw parts of it before and after the
    first `?`; `authority`, of a target in absolute form, else empty; `content_length`, None without one; `code`, of the
    answer; `begun`, the answer's head is sent; `finished`, all of it is; `gone`, the client vanished before that.
    A handler that may wait long sets `ends_with_input`: then a client that closes its half of the connection counts as
    gone at once. Others get their answer, for half-closing is how some clients end a request.
    """

    __slots__ = (
        "_body", "_chunked", "_connection", "_fields", "_first", "_left", "_lines", "_notices",
        "authority", "begun", "closes", "code", "content_length", "ends_with_input", "finished", "gone",
        "http10", "keep_alive", "method", "path", "query", "uri",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        method: bytes,
        uri: bytes,
        fields: list[tuple[bytes, bytes]],
        http10: bool,
        keep_alive: bool,
    ) -> None:
        """`keep_alive` is the client's wish. Raises ValueError for a head that a server must refuse."""
        self._connection = connection
        self.method = method
        self.uri = uri
        self._fields = fields
        self._first = first = dict(reversed(fields))  # name to first value
        self.http10 = http10
        self.keep_alive = keep_alive
        self.authority = b""
        if uri[:1] == b"/":
            target, _, _ = uri.partition(b"#")
        else:
            self.authority, target = _absolute(method, uri)
        self.path, _, self.query = target.partition(b"?")
        if len(first) < len(fields) and [name for name, _ in fields].count(b"host") > 1:
            raise ValueError("several hosts")  # RFC 9112 §3.2
        length = first.get(b"content-length")
        self.content_length = None if length is None else int(length)
        self._body: Body | None = None
        if self.content_length or b"transfer-encoding" in first:
            self._body = self._framed()
        # The answer.
        self.code: int = HTTPStatus.OK
        self._lines: dict[bytes, bytes] = {}  # lower-case name to its lines
        self._chunked = False
        self._left: int | None = None  # bytes that the announced length still promises
        self._notices: list[Deferred[None]] = []
        self.begun = False
        self.finished = False
        self.gone = False
        self.ends_with_input = False
        self.closes = False  # the connection ends with this answer

    def _framed(self) -> Body:
        coding = self._first.get(b"transfer-encoding")
        if coding is not None and (self.http10 or coding.lower() != b"chunked"):
            raise ValueError("unknown transfer coding")
        expects = not self.http10 and self._first.get(b"expect", b"").lower() == b"100-continue"
        return Body(self._connection, expects)

    def __repr__(self) -> str:
        # For logs: of the path the first segment alone, the rest can be a secret (signup tokens).
        first = self.path.decode().split("/", 2)[1:2]
        return f"<Request {self.method.decode()} /{''.join(first)}>"

    # What was asked.

    @property
    def client_address(self) -> str:
        """The client's IP address as text, an IPv4 one never in its IPv6 form; empty on a unix socket."""
        return self._connection.client_address

    @property
    def is_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self._connection.is_tls

    def header(self, name: bytes) -> bytes | None:
        """The value of the first field with this lower-case name, without surrounding blanks."""
        return self._first.get(name)

    def headers_named(self, name: bytes) -> list[bytes]:
        """The values of all fields with this lower-case name, in order."""
        return [value for key, value in self._fields if key == name]

    @property
    def body(self) -> Body:
        """The body; an empty one when the request has none."""
        if self._body is None:
            self._body = Body(self._connection, complete=True)
        return self._body

    @property
    def body_if_any(self) -> Body | None:
        """The body, None when the request has none."""
        return self._body

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
        self._lines[name.lower()] = _line(name, value)

    def addHeader(self, name: bytes, value: bytes) -> None:
        """Answer with one more line of this name. Raises ValueError for a line break in it."""
        key = name.lower()
        self._lines[key] = self._lines.get(key, b"") + _line(name, value)

    def clear(self) -> None:
        """Forget the status and the fields set so far. Raises RuntimeError when they are sent."""
        self._must_be_open()
        self.code = HTTPStatus.OK
        self._lines.clear()

    def finish_with(self, body: bytes = b"") -> None:
        """Answer with this body, head and body in one write. `HEAD` gets the head alone.

        `Content-Length` is the length of `body`, or for a `HEAD` what was set before. Nothing happens if the client is
        gone. Raises RuntimeError when the answer has begun already.
        """
        if self.gone:
            return
        self._must_be_open()
        head_only = self.method == b"HEAD"
        if self.code in _WITHOUT_BODY:
            self._lines.pop(b"content-length", None)
            head_only = True
        elif not head_only or b"content-length" not in self._lines:
            self._lines[b"content-length"] = b"Content-Length: %d\r\n" % len(body)
        head = self._head()
        self._connection.write(head if head_only else head + body)
        self._complete()

    def stream(self, length: int | None = None) -> None:
        """Send the head of an answer whose body comes by `write`; `length` in bytes, None when it is not known.

        A body of unknown length is chunked, or for HTTP/1.0 ends with the connection. Nothing happens if the client is
        gone. Raises RuntimeError when the answer has begun already.
        """
        if self.gone:
            return
        self._must_be_open()
        if self.code in _WITHOUT_BODY:
            self._lines.pop(b"content-length", None)
        elif length is not None:
            self._left = length
            self._lines[b"content-length"] = b"Content-Length: %d\r\n" % length
        elif self.http10:
            self.keep_alive = False
        else:
            self._chunked = True
            self._lines[b"transfer-encoding"] = b"Transfer-Encoding: chunked\r\n"
        self._connection.write(self._head())

    async def write(self, data: bytes | bytearray) -> None:
        """Send a piece of a streamed body, after waiting until the client has taken those before.

        Raises `ClientGone`, and RuntimeError when the answer is not open or longer than announced.
        """
        await self.drained()
        self._count(len(data))
        if data and self.method != b"HEAD" and self.code not in _WITHOUT_BODY:
            self._connection.write(b"%x\r\n" % len(data) + data + b"\r\n" if self._chunked else data)

    async def drained(self) -> None:
        """Wait until the client has taken what was sent before. Raises `ClientGone`."""
        while self._connection.choked and not self.gone:
            await self._connection.drained()
        if self.gone:
            raise ClientGone

    def offer(self, data: memoryview) -> int:
        """Send as much of a piece of a streamed body as the client takes now; how many bytes that was, maybe none.

        Nothing of the rest is kept. To be called after `drained`, in the same turn, and for answers to a GET whose
        length is announced. Raises RuntimeError as `write`.
        """
        self._count(len(data))
        sent = self._connection.offer(data)
        if self._left is not None:
            self._left += len(data) - sent
        return sent

    def finish(self) -> None:
        """End a streamed answer. Raises RuntimeError when bytes of the announced length are missing."""
        if self.gone or self.finished:
            return
        if self._left and self.method != b"HEAD":
            raise RuntimeError("The body is shorter than announced.")
        if self._chunked and self.method != b"HEAD":
            self._connection.write(b"0\r\n\r\n")
        self._complete()

    async def send(self, chunks: Iterable[bytes] | AsyncIterable[bytes | bytearray], length: int | None = None) -> None:
        """Answer with these pieces, taken as fast as the client reads. Raises as `stream`, `write` and `finish`."""
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
        return self._connection.pending

    def notifyFinish(self) -> Deferred[None]:
        """Fires with None when the answer is complete; fails with the reason when the client vanishes before."""
        notice: Deferred[None] = Deferred()
        self._notices.append(notice)
        return notice

    # For the channel.

    def lost(self, reason: Failure) -> None:
        """The connection is gone: tell whoever asked to be told. The channel cancels the handler after that."""
        self.gone = not self.finished
        if self._body is not None and not self._body.complete:
            self._body.broken = True
            self._body.wake()
        notices, self._notices = self._notices, []
        for notice in notices:
            notice.errback(reason)

    def fail(self) -> None:
        """Answer that something went wrong here, without detail."""
        self.clear()
        self.code = HTTPStatus.INTERNAL_SERVER_ERROR
        self.finish_with()

    def _count(self, length: int) -> None:
        """Take so many bytes of a streamed body off what is announced."""
        if not self.begun or self.finished:
            raise RuntimeError("This answer is not open.")
        if self._left is not None:
            if length > self._left:
                raise RuntimeError("The body is longer than announced.")
            self._left -= length

    def _must_be_open(self) -> None:
        if self.begun:
            raise RuntimeError("This request is answered already.")

    def _head(self) -> bytes:
        self.begun = True
        self.closes = not self._connection.continues_after(self)
        if self.closes:
            end = b"Connection: close\r\n\r\n"
        elif self.http10:
            end = b"Connection: keep-alive\r\n\r\n"
        else:
            end = b"\r\n"
        return b"".join((_status_line(self.code), *self._lines.values(), self._connection.date_line, end))

    def _complete(self) -> None:
        self.finished = True
        if self._notices:
            notices, self._notices = self._notices, []
            for notice in notices:
                notice.callback(None)


def refusal(status: int, date_line: bytes) -> bytes:
    """The whole answer to what is no request; the connection ends with it."""
    return b"%b%bContent-Length: 0\r\nConnection: close\r\n\r\n" % (_status_line(status), date_line)


def _status_line(code: int) -> bytes:
    return _STATUS_LINES.get(code) or b"HTTP/1.1 %d Unknown\r\n" % code


def _line(name: bytes, value: bytes) -> bytes:
    line = b"%b: %b" % (name, value)
    if _LINE_BREAK.search(line):
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
