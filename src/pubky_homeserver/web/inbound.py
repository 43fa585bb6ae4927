"""From the bytes of one connection to requests, on llhttp.

Theory. The parser's callbacks only note: an exception in one becomes a parse error, and no handler may start or wake
while the rest of the same bytes is unknown. So `feed` never raises and starts nothing; afterwards `queue` holds what
to serve next, in order. What cannot be parsed is a number at its end, the status to refuse it with: it is answered in
its turn. When a body's framing breaks there is nothing to refuse; the body is marked broken and its reader learns it.

llhttp is strict as it comes. What it leaves open is closed here: the length of a head and the number of its fields
(also of a field that never ends, which `httptools` gathers without a callback), chunk extensions and trailers,
transfer codings other than `chunked`, several `Host` fields, HTTP/0.9 and 2.0, and bodies of requests with `Upgrade`,
which it skips.
"""

from __future__ import annotations

import re
from collections import deque
from http import HTTPStatus
from typing import NoReturn

from attrs import frozen
from httptools import HttpParserError, HttpParserInvalidMethodError, HttpParserUpgrade, HttpRequestParser

from pubky_homeserver.web.request import Connection, Request

CHUNK_FRAME = 32
"""Bytes that the framing of each chunk may take."""

CHUNK_EXCESS = 64 << 10
"""Bytes that extensions and trailers of one body may take beyond that: nobody ever sees them."""

PIPELINE = 1000
"""Requests that may wait on one connection: a waiting one takes some 600 bytes of memory for 18 on the wire."""

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?: |$)")  # RFC 9110 §5.6.2: what a method can look like


@frozen
class HeadLimits:
    """How much a client may say before its request starts."""

    head: int = 64 << 10  # bytes; more: 431
    target: int = 32 << 10  # bytes; more: 414
    fields: int = 100  # header fields; more: 431


class _Stop(HttpParserError):
    """Stops the parser; the status is noted."""


class Inbound:
    """The receiving half of a connection."""

    __slots__ = (
        "_connection", "_excess", "_fields", "_limits", "_parser", "_reads", "_replayed", "_size", "_status", "_url",
        "ahead", "deaf", "dropped", "in_head", "incoming", "queue",
    )  # fmt: skip

    def __init__(self, connection: Connection, limits: HeadLimits) -> None:
        self._connection = connection
        self._limits = limits
        self._parser: HttpRequestParser | None = HttpRequestParser(self)
        # The head, or the trailers, being parsed.
        self._url = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._size = 0  # bytes of it that callbacks saw
        self._reads = 0  # bytes of the reads that it filled wholly
        self._status = 0  # why a callback stopped the parser
        self._replayed: Request | None = None  # whose framing a fresh parser is being told
        self._excess = 0  # bytes that the incoming body spent on framing, less what its chunks may
        # For the channel.
        self.in_head = False  # a head has begun
        self.incoming: Request | None = None  # the parser is in this one's body
        self.queue: deque[Request | int] = deque()
        self.ahead = 0  # bytes read since requests wait in the queue
        self.deaf = False  # what arrives is no longer parsed
        self.dropped = 0  # bytes that arrived since

    def feed(self, data: bytes) -> None:
        """Note what these bytes say."""
        if self.deaf:
            self.dropped += len(data)
            return
        in_head, incoming = self.in_head, self.incoming
        self.ahead = self.ahead + len(data) if self.queue else 0
        try:
            self._parse(data)
            if self.in_head:
                if in_head:
                    self._gather(len(data))
            elif incoming is not None:
                self._frame(len(data), incoming)
        except HttpParserError as error:
            self.dropped += len(data)
            fresh = not (in_head or incoming or self.queue)
            self.refuse(self._status_of(error, data if fresh else None))

    def refuse(self, status: int) -> None:
        """Parse no more. Queue this status, or if a body is incomplete break that instead."""
        self.deaf = True
        self.in_head = False
        if not self.break_body():
            self.queue.append(status)

    def end(self) -> None:
        """The client sends no more."""
        self.deaf = True
        self.in_head = False
        self.break_body()

    def break_body(self) -> bool:
        """The rest of the incoming body will not arrive. Tells whether there was one."""
        request, self.incoming = self.incoming, None
        if request is not None:
            request.body.broken = True
        return request is not None

    def forget(self) -> None:
        """The connection is gone."""
        self.end()
        self.queue.clear()
        self._parser = None  # it refers to this object
        del self._connection  # and this to the channel, which refers to it

    # What the parser calls.

    def on_message_begin(self) -> None:
        """The first byte of a head."""
        self.in_head = True

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        self._url += url
        self._size += len(url)
        if len(self._url) > self._limits.target:
            self._stop(HTTPStatus.REQUEST_URI_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head or of the trailers."""
        self._fields.append((name.lower(), value.rstrip(b" \t")))
        self._size += len(name) + len(value) + 4  # colon, blank, CRLF
        if self._size > self._limits.head or len(self._fields) > self._limits.fields:
            self._stop(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_headers_complete(self) -> None:
        """The head is whole. A ValueError of `Request` becomes a parse error."""
        url, fields = self._url, self._fields
        self._forget_head()
        if self._replayed is not None:
            self.incoming, self._replayed = self._replayed, None
            return
        parser = self._parser
        assert parser is not None
        method, version = parser.get_method(), parser.get_http_version()
        if method == b"CONNECT":
            self._stop(HTTPStatus.METHOD_NOT_ALLOWED)
        if version not in ("1.1", "1.0"):
            self._stop(HTTPStatus.BAD_REQUEST)
        if len(self.queue) >= PIPELINE:
            self._stop(HTTPStatus.SERVICE_UNAVAILABLE)
        request = Request(self._connection, method, url, fields, version == "1.0", parser.should_keep_alive())
        self._excess = 0
        self.incoming = request
        self.queue.append(request)

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        assert self.incoming is not None
        self.incoming.body.feed(data)
        self._excess -= len(data)

    def on_chunk_header(self) -> None:
        """The size of a chunk."""
        self._excess -= CHUNK_FRAME

    def on_message_complete(self) -> None:
        """The body, if any, is whole."""
        request, self.incoming = self.incoming, None
        assert request is not None
        body = request.body_if_any
        if body is not None:
            body.complete = True
            self._forget_head()  # the trailers

    # Beyond the parser.

    def _parse(self, data: bytes) -> None:
        while self._parser is not None:
            try:
                self._parser.feed_data(data)
                return
            except HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                self._stay()

    def _stay(self) -> None:
        """Ignore an `Upgrade`: llhttp has skipped the request's body, so a fresh parser is told its framing alone."""
        request = self.queue[-1]
        assert isinstance(request, Request)
        self._parser = HttpRequestParser(self)
        body = request.body_if_any
        if body is None:
            return
        body.complete = False
        self._replayed = request
        length = request.content_length
        framing = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
        self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)

    def _gather(self, length: int) -> None:
        """Bound a head that does not end, of which the callbacks may have seen nothing."""
        self._reads += length
        if self._reads > self._limits.head:
            self._stop(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def _frame(self, length: int, incoming: Request) -> None:
        """Bound what is neither body nor the least framing of it."""
        self._excess += length
        if self.incoming is incoming and self._excess > CHUNK_EXCESS:
            self._stop(HTTPStatus.BAD_REQUEST)

    def _forget_head(self) -> None:
        self.in_head = False
        self._url, self._fields, self._size, self._reads = b"", [], 0, 0

    def _stop(self, status: int) -> NoReturn:
        self._status = status
        raise _Stop

    def _status_of(self, error: HttpParserError, begin: bytes | None) -> int:
        """405 for a method that llhttp does not know, 400 for what is no HTTP; `begin` if a head begins these bytes."""
        if self._status:
            return self._status
        unknown_method = isinstance(error, HttpParserInvalidMethodError) or str(error).startswith("Invalid method")
        if unknown_method and (begin is None or _TOKEN.match(begin.lstrip(b"\r\n"))):
            return HTTPStatus.METHOD_NOT_ALLOWED
        return HTTPStatus.BAD_REQUEST
