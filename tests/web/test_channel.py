"""Requests and answers on one connection, over real sockets."""

from __future__ import annotations

import gc
import socket
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from http.client import HTTPConnection

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent, LogLevel, capturedLogs, formatEvent

from pubky_homeserver.web.request import ClientGone, Request
from tests.web.sockets import Gate, Served, reactor, turns, until

Serve = Callable[..., Served]


def failures(events: Sequence[LogEvent]) -> list[LogEvent]:
    """What was logged as gone wrong."""
    return [event for event in events if event["log_level"] >= LogLevel.error]


async def echo(request: Request) -> None:
    """Answers with what was asked."""
    body = await request.read(1 << 20)
    request.setHeader(b"X-Method", request.method)
    request.finish_with(request.path + b"?" + request.query + b" " + body)


@pytest_twisted.ensureDeferred
async def test_small_answer_is_one_head_and_one_body(serve: Serve) -> None:
    """An answer has status, the fields that were set, length and date; nothing that was not asked for."""
    served = serve(echo)
    served.clock.advance(1_790_000_000)
    client = await served.client(b"GET /a/b?c=d?e HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = await client.answer()
    assert answer.code == 200
    assert answer.body == b"/a/b?c=d?e "
    assert sorted(answer.fields) == [
        (b"content-length", b"11"),
        (b"date", b"Mon, 21 Sep 2026 14:13:20 GMT"),
        (b"x-method", b"GET"),
    ]


@pytest_twisted.ensureDeferred
async def test_date_follows_the_clock(serve: Serve) -> None:
    """`Date` is the time of the answer, to the second."""
    served = serve(echo)
    client = await served.client(b"GET / HTTP/1.1\r\n\r\n")
    assert (await client.answer())[b"date"] == b"Thu, 01 Jan 1970 00:00:00 GMT"
    served.clock.advance(61)
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    assert (await client.answer())[b"date"] == b"Thu, 01 Jan 1970 00:01:01 GMT"


@pytest_twisted.ensureDeferred
async def test_many_pipelined_requests_in_one_segment(serve: Serve) -> None:
    """Requests that arrive together are all answered, in order, without recursion: more than Python's stack holds."""
    served = serve(echo)
    number = 1000
    client = await served.client(b"".join(b"GET /%d HTTP/1.1\r\n\r\n" % i for i in range(number)))
    for i in range(number):
        assert (await client.answer()).body == b"/%d? " % i


@pytest_twisted.ensureDeferred
async def test_pipelined_requests_wait_for_slow_handlers(serve: Serve) -> None:
    """One request of a connection is served at a time; while others wait, nothing more is read."""
    gates = [Gate() for _ in range(5)]
    running: list[int] = []

    async def slow(request: Request) -> None:
        number = int(request.path[1:])
        running.append(number)
        await gates[number].passed()
        request.finish_with(b"%d" % number)

    served = serve(slow)
    client = await served.client(b"".join(b"GET /%d HTTP/1.1\r\n\r\n" % i for i in range(5)))
    for i in range(5):
        await turns()
        assert running == list(range(i + 1))
        gates[i].open()
        assert (await client.answer()).body == b"%d" % i


@pytest_twisted.ensureDeferred
async def test_pipelined_bodies_stay_apart(serve: Serve) -> None:
    """Each request has its own body, whichever way it is framed and however the bytes are cut."""
    stream = (
        b"PUT /1 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
        b"PUT /2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ndef\r\n2;x=y\r\ngh\r\n0\r\nTrailer: z\r\n\r\n"
        b"GET /3 HTTP/1.1\r\n\r\n"
        b"PUT /4 HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
    )
    served = serve(echo)
    for size in (1, 2, 7, len(stream)):
        client = await served.client()
        for at in range(0, len(stream), size):
            client.send(stream[at : at + size])
            await turns(1)
        bodies = [(await client.answer()).body for _ in range(4)]
        assert bodies == [b"/1? abc", b"/2? defgh", b"/3? ", b"/4? "]


@pytest_twisted.ensureDeferred
async def test_trailers_are_nobodys_fields(serve: Serve) -> None:
    """A trailer neither changes its request nor reaches the next one."""
    seen: list[bytes | None] = []

    async def note(request: Request) -> None:
        await request.read(100)
        seen.append(request.header(b"cookie"))
        request.finish_with()

    client = await serve(note).client(
        b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nCookie: stolen\r\n\r\n"
        b"GET / HTTP/1.1\r\n\r\n"
    )
    await client.answer()
    await client.answer()
    assert seen == [None, None]


@pytest.mark.parametrize(
    ("request_line", "fields", "says", "stays"),
    [
        (b"GET / HTTP/1.1", b"", None, True),
        (b"GET / HTTP/1.1", b"Connection: keep-alive\r\n", None, True),
        (b"GET / HTTP/1.1", b"Connection: close\r\n", b"close", False),
        (b"GET / HTTP/1.0", b"", b"close", False),
        (b"GET / HTTP/1.0", b"Connection: keep-alive\r\n", b"keep-alive", True),
        (b"HEAD / HTTP/1.0", b"Connection: Keep-Alive\r\n", b"keep-alive", True),
    ],
)
@pytest_twisted.ensureDeferred
async def test_persistence(serve: Serve, request_line: bytes, fields: bytes, says: bytes | None, stays: bool) -> None:
    """A connection lives on as both versions of HTTP say, and the answer tells."""
    client = await serve(echo).client(request_line + b"\r\n" + fields + b"\r\n")
    answer = await client.answer(request_line.split()[0])
    assert answer[b"connection"] == says
    if stays:
        client.send(b"GET /again HTTP/1.1\r\n\r\n")
        assert (await client.answer()).body == b"/again? "
    else:
        assert await client.until_closed() == b""


@pytest_twisted.ensureDeferred
async def test_requests_after_the_last_one_are_ignored(serve: Serve) -> None:
    """What follows `Connection: close` is neither served nor refused, and does not cost the answer."""
    served = serve(echo)
    client = await served.client(b"GET /1 HTTP/1.1\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\n\r\n")
    assert (await client.answer()).body == b"/1? "
    assert await client.until_closed() == b""
    assert served.factory.requests == 1


@pytest_twisted.ensureDeferred
async def test_head_has_the_length_but_no_body(serve: Serve) -> None:
    """`HEAD` is told the length of what `GET` would get: of the body, or what the handler says; never a body."""

    async def answer(request: Request) -> None:
        if request.path == b"/streamed":
            await request.send([b"four", b"five"], length=8)
        elif request.path == b"/chunked":
            await request.send([b"four", b"five"])
        elif request.path == b"/told":
            request.setHeader(b"Content-Length", b"123")
            request.finish_with()
        else:
            request.finish_with(b"body")

    client = await serve(answer).client(
        b"".join(b"HEAD /%b HTTP/1.1\r\n\r\n" % path for path in (b"", b"told", b"streamed", b"chunked"))
        + b"GET / HTTP/1.1\r\n\r\n"
    )
    assert (await client.answer(b"HEAD"))[b"content-length"] == b"4"
    assert (await client.answer(b"HEAD"))[b"content-length"] == b"123"
    assert (await client.answer(b"HEAD"))[b"content-length"] == b"8"
    assert (await client.answer(b"HEAD"))[b"transfer-encoding"] == b"chunked"
    assert (await client.answer()).body == b"body"


@pytest.mark.parametrize("code", [204, 304])
@pytest_twisted.ensureDeferred
async def test_answers_that_have_no_body(serve: Serve, code: int) -> None:
    """204 and 304 carry neither body nor length, and the next answer follows at once."""

    async def answer(request: Request) -> None:
        request.setResponseCode(code)
        request.setHeader(b"Content-Length", b"3")
        if request.path == b"/streamed":
            await request.send([b"abc"], length=3)
        else:
            request.finish_with(b"abc")

    client = await serve(answer).client(b"GET / HTTP/1.1\r\n\r\nGET /streamed HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n")
    for _ in range(3):
        answered = await client.answer()
        assert answered.code == code
        assert answered[b"content-length"] is None


@pytest_twisted.ensureDeferred
async def test_fields_of_an_answer(serve: Serve) -> None:
    """`setHeader` replaces whatever the case of the name, `addHeader` adds a line, `clear` forgets all."""

    async def answer(request: Request) -> None:
        request.setResponseCode(507)
        request.setHeader(b"Gone", b"1")
        request.clear()
        request.setHeader(b"content-type", b"text/html")
        request.setHeader(b"Content-Type", b"text/plain")
        request.addHeader(b"Vary", b"origin")
        request.addHeader(b"vary", b"cookie")
        request.finish_with()

    client = await serve(answer).client(b"GET / HTTP/1.1\r\n\r\n")
    answered = await client.answer()
    assert answered.code == 200
    assert answered.fields[:3] == [(b"content-type", b"text/plain"), (b"vary", b"origin"), (b"vary", b"cookie")]
    assert answered[b"gone"] is None


@pytest.mark.parametrize("value", [b"a\r\nSet-Cookie: b", b"a\nb", b"a\rb", b"a\0b"])
@pytest_twisted.ensureDeferred
async def test_fields_cannot_be_split(serve: Serve, value: bytes) -> None:
    """A value with a line break is an error of ours, not a second field."""

    async def answer(request: Request) -> None:
        with pytest.raises(ValueError, match="line break"):
            request.setHeader(b"X", value)
        with pytest.raises(ValueError, match="line break"):
            request.addHeader(value, b"x")
        request.finish_with()

    client = await serve(answer).client(b"GET / HTTP/1.1\r\n\r\n")
    assert (await client.answer()).code == 200


@pytest_twisted.ensureDeferred
async def test_fields_of_a_request(serve: Serve) -> None:
    """Names are found in lower case, values without the blanks around them, repeated ones first or all."""
    found: list[object] = []

    async def answer(request: Request) -> None:
        found.extend((request.header(b"cookie"), request.headers_named(b"cookie"), request.header(b"x")))
        found.extend((request.headers_named(b"x"), request.client_address, request.is_tls, request.content_length))
        request.finish_with()

    client = await serve(answer).client(b"GET / HTTP/1.1\r\nCookie: \ta=1 \t\r\ncOOKIE:b=2\r\n\r\n")
    await client.answer()
    assert found == [b"a=1", [b"a=1", b"b=2"], None, [], "127.0.0.1", False, None]


@pytest.mark.parametrize(
    ("target", "path", "query", "authority"),
    [
        (b"/", b"/", b"", b""),
        (b"/a%2Fb?c=%20&d", b"/a%2Fb", b"c=%20&d", b""),
        (b"/a?b?c", b"/a", b"b?c", b""),
        (b"/a#f?x", b"/a", b"", b""),
        (b"//a//b", b"//a//b", b"", b""),
        (b'/"<>{}|\\^`[]', b'/"<>{}|\\^`[]', b"", b""),
        (b"http://h:80/a?b", b"/a", b"b", b"h:80"),
        (b"HTTPS://h?b", b"/", b"b", b"h"),
        (b"http://h", b"/", b"", b"h"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_forms_of_target(serve: Serve, target: bytes, path: bytes, query: bytes, authority: bytes) -> None:
    """Path and query are the raw bytes of the target, also of one in absolute form; `Host` stays what it is."""
    found: list[bytes | None] = []

    async def answer(request: Request) -> None:
        found.extend((request.path, request.query, request.authority, request.uri, request.header(b"host")))
        request.finish_with()

    client = await serve(answer).client(b"GET %b HTTP/1.1\r\nHost: other\r\n\r\n" % target)
    await client.answer()
    assert found == [path, query, authority, target, b"other"]


@pytest_twisted.ensureDeferred
async def test_options_of_the_server_and_no_host(serve: Serve) -> None:
    """`OPTIONS *` reaches the site, and so does a request without `Host`: it decides."""
    client = await serve(echo).client(b"OPTIONS * HTTP/1.1\r\n\r\n")
    assert (await client.answer()).body == b"*? "


@pytest_twisted.ensureDeferred
async def test_stream_of_known_length(serve: Serve) -> None:
    """Pieces of an announced length arrive as one body, and the connection lives on."""

    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"one ", b"", b"two ", b"three"):
            yield piece

    async def answer(request: Request) -> None:
        await request.send(pieces(), length=13)

    client = await serve(answer).client(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n")
    for _ in range(2):
        answered = await client.answer()
        assert answered.body == b"one two three"
        assert answered[b"transfer-encoding"] is None


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest_twisted.ensureDeferred
async def test_stream_of_unknown_length(serve: Serve, version: bytes) -> None:
    """Without a length the body is chunked, for HTTP/1.0 it ends with the connection."""

    async def answer(request: Request) -> None:
        request.stream()
        await request.write(b"one ")
        await request.write(b"")
        await request.write(b"two")
        request.finish()

    client = await serve(answer).client(b"GET / HTTP/%b\r\nConnection: keep-alive\r\n\r\n" % version)
    answered = await client.answer()
    assert answered.body == b"one two"
    assert answered[b"transfer-encoding"] == (None if version == b"1.0" else b"chunked")
    assert answered[b"connection"] == (b"close" if version == b"1.0" else None)
    assert client.ended == (version == b"1.0")


@pytest_twisted.ensureDeferred
async def test_piece_of_a_stream_is_sent_at_once(serve: Serve) -> None:
    """A live stream's client has each piece before the next one exists."""
    gate = Gate()

    async def answer(request: Request) -> None:
        request.stream()
        await request.write(b"first")
        await gate.passed()
        await request.write(b"second")
        request.finish()

    client = await serve(answer).client(b"GET / HTTP/1.1\r\n\r\n")
    await client.head()
    assert await client.take(10) == b"5\r\nfirst\r\n"
    gate.open()
    assert await client.take(16) == b"6\r\nsecond\r\n0\r\n\r\n"


@pytest.mark.parametrize("length", [3, 5])
@pytest_twisted.ensureDeferred
async def test_wrong_length_cuts_the_connection(serve: Serve, length: int) -> None:
    """A client never takes a body for whole that is not: an answer of a wrong length is cut and logged."""

    async def answer(request: Request) -> None:
        await request.send([b"ab", b"cd"], length=length)

    with capturedLogs() as events:
        client = await serve(answer).client(b"GET / HTTP/1.1\r\n\r\n")
        await until(lambda: client.closed)
    body = client.received.partition(b"\r\n\r\n")[2]
    assert b"abcd".startswith(body)
    assert len(body) < length
    assert len(failures(events)) == 1
    assert "announced" in str(failures(events)[0]["log_failure"])


@pytest_twisted.ensureDeferred
async def test_failed_handler_is_500_without_detail(serve: Serve) -> None:
    """What a handler raises before its answer is logged with its traceback, and is a 500; the connection lives on."""

    async def answer(request: Request) -> None:
        request.setHeader(b"X-Prepared", b"1")
        if request.path == b"/later":
            later: Deferred[None] = Deferred()
            reactor.callLater(0, later.callback, None)
            await later
        if request.path != b"/fine":
            raise ZeroDivisionError("secret detail")
        request.finish_with(b"fine")

    with capturedLogs() as events:
        client = await serve(answer).client(
            b"".join(b"GET /%b HTTP/1.1\r\n\r\n" % p for p in (b"now", b"later", b"fine"))
        )
        for _ in range(2):
            answered = await client.answer()
            assert (answered.code, answered.body, answered[b"x-prepared"]) == (500, b"", None)
        assert (await client.answer()).body == b"fine"
    logged = failures(events)
    assert [event["log_failure"].type for event in logged] == [ZeroDivisionError] * 2
    assert logged[0]["log_failure"].getTraceback().count("in answer") == 1


@pytest_twisted.ensureDeferred
async def test_logs_hold_no_secrets(serve: Serve) -> None:
    """Of a path only the first segment is logged: signup tokens stand in paths."""

    async def answer(request: Request) -> None:
        raise ZeroDivisionError

    with capturedLogs() as events:
        client = await serve(answer).client(b"GET /signup_tokens/SECRET?q=SECRET HTTP/1.1\r\nCookie: SECRET\r\n\r\n")
        await client.answer()
    assert len(failures(events)) == 1
    logged = formatEvent(failures(events)[0])
    assert "GET /signup_tokens" in logged
    assert "SECRET" not in logged


@pytest_twisted.ensureDeferred
async def test_handler_that_fails_in_the_middle_cuts_the_connection(serve: Serve) -> None:
    """When the head is sent already nothing but a cut tells the client that the rest is missing."""

    async def answer(request: Request) -> None:
        request.stream()
        await request.write(b"half")
        raise ZeroDivisionError

    with capturedLogs() as events:
        client = await serve(answer).client(b"GET / HTTP/1.1\r\n\r\n")
        await until(lambda: client.closed)
    assert not client.received.endswith(b"0\r\n\r\n")
    assert len(failures(events)) == 1


@pytest.mark.parametrize("begun", [False, True])
@pytest_twisted.ensureDeferred
async def test_handler_that_forgets_to_answer(serve: Serve, begun: bool) -> None:
    """A handler that returns without a whole answer is our error: logged, and 500 or cut."""

    async def answer(request: Request) -> None:
        if begun:
            request.stream()

    with capturedLogs() as events:
        client = await serve(answer).client(b"GET / HTTP/1.1\r\n\r\n")
        code, _ = await client.head()
        if begun:
            await until(lambda: client.closed)
    assert code == (200 if begun else 500)
    assert len(failures(events)) == 1


@pytest_twisted.ensureDeferred
async def test_answering_twice_is_an_error(serve: Serve) -> None:
    """A second answer would be taken for that of the next request: it is refused, the first one stands."""

    async def answer(request: Request) -> None:
        request.finish_with(b"first")
        for again in (request.finish_with, request.stream, request.clear):
            with pytest.raises(RuntimeError):
                again()
        with pytest.raises(RuntimeError):
            await request.write(b"more")
        request.finish()

    client = await serve(answer).client(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n")
    for _ in range(2):
        assert (await client.answer()).body == b"first"


@pytest_twisted.ensureDeferred
async def test_half_closed_client_gets_its_answers(serve: Serve) -> None:
    """A client that closes its sending half after its requests still reads every answer."""
    gate = Gate()

    async def answer(request: Request) -> None:
        await gate.passed()
        request.finish_with(request.path)

    client = await serve(answer).client(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n")
    client.half_close()
    await turns()
    gate.open()
    assert (await client.answer()).body == b"/1"
    answered = await client.answer()
    assert (answered.body, answered[b"connection"]) == (b"/2", b"close")
    assert await client.until_closed() == b""


@pytest_twisted.ensureDeferred
async def test_half_closed_client_of_a_long_wait_has_gone(serve: Serve) -> None:
    """A handler that may wait long takes a closed half for a client that left, and ends at once."""
    ended: list[type] = []

    async def answer(request: Request) -> None:
        request.ends_with_input = True
        try:
            await Gate().passed()
        except CancelledError:
            ended.append(CancelledError)
            raise

    served = serve(answer)
    client = await served.client(b"GET / HTTP/1.1\r\n\r\n")
    await until(lambda: served.factory.requests == 1)
    client.half_close()
    await until(lambda: ended == [CancelledError])
    assert await client.until_closed() == b""


@pytest_twisted.ensureDeferred
async def test_idle_client_that_closes_is_closed(serve: Serve) -> None:
    """A half-closed connection without a request, or in the middle of a head, is closed without a word."""
    served = serve(echo)
    for begin in (b"", b"GET / HTT", b"GET / HTTP/1.1\r\nA: "):
        client = await served.client(begin)
        client.half_close()
        assert await client.until_closed() == b""
    await until(lambda: served.factory.open_connections == 0)


@pytest_twisted.ensureDeferred
async def test_vanished_client_cancels_the_handler(serve: Serve) -> None:
    """When the client is gone the handler's wait ends in `CancelledError`, which is no error; nothing is answered."""
    ends: list[str] = []
    waiting = Gate()

    async def answer(request: Request) -> None:
        request.notifyFinish().addErrback(lambda reason: ends.append(f"told {request.gone}"))
        waiting.open()
        try:
            await Deferred()
        except CancelledError:
            ends.append("cancelled")
            request.finish_with(b"to nobody")
            with pytest.raises(ClientGone):
                await request.write(b"to nobody")
            raise

    with capturedLogs() as events:
        served = serve(answer)
        client = await served.client(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n")
        await waiting.passed()
        client.send(b"x")
        await turns()
        client.vanish()
        await until(lambda: served.factory.open_connections == 0)
    assert ends == ["told True", "cancelled"]
    assert served.factory.requests == 1
    assert failures(events) == []


@pytest_twisted.ensureDeferred
async def test_handler_may_outlive_its_client(serve: Serve) -> None:
    """A handler that shields its work from the cancellation finishes it; its answer goes nowhere, quietly."""
    gate, waiting, done = Gate(), Gate(), Gate()

    async def answer(request: Request) -> None:
        waiting.open()
        try:
            await Deferred()
        except CancelledError:
            await gate.passed()
        request.finish_with(b"done")
        done.open()

    with capturedLogs() as events:
        served = serve(answer)
        client = await served.client(b"GET / HTTP/1.1\r\n\r\n")
        await waiting.passed()
        client.vanish()
        await until(lambda: served.factory.open_connections == 0)
        gate.open()
        await done.passed()
    assert failures(events) == []


@pytest_twisted.ensureDeferred
async def test_vanished_client_does_not_cancel_what_is_answered(serve: Serve) -> None:
    """What a handler does after its answer is complete is not cut short by the client leaving."""
    gate, done = Gate(), Gate()

    async def answer(request: Request) -> None:
        finished = request.notifyFinish()
        request.finish_with(b"done")
        await finished
        await gate.passed()
        done.open()

    served = serve(answer)
    client = await served.client(b"GET / HTTP/1.1\r\n\r\n")
    await client.answer()
    client.vanish()
    await until(lambda: served.factory.open_connections == 0)
    gate.open()
    await done.passed()


@pytest_twisted.ensureDeferred
async def test_writer_of_a_vanished_client(serve: Serve) -> None:
    """A handler that waits for a client to read learns that it is gone, and that is no error."""
    ends: list[str] = []
    blocked = Gate()

    async def answer(request: Request) -> None:
        request.stream()
        try:
            while True:
                if request.pending > 1 << 16:
                    blocked.open()
                await request.write(bytes(1 << 18))
        except ClientGone:
            ends.append("gone")
            raise

    with capturedLogs() as events:
        served = serve(answer)
        client = await served.client()
        client.transport.pauseProducing()
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        await blocked.passed()
        client.vanish()
        await until(lambda: served.factory.open_connections == 0)
    assert ends == ["gone"]
    assert failures(events) == []


@pytest_twisted.ensureDeferred
async def test_answers_are_not_delayed_by_the_network_stack(serve: Serve) -> None:
    """Nagle's algorithm is off: a small answer does not wait for the acknowledgement of the one before."""
    delays: list[bool] = []

    async def answer(request: Request) -> None:
        delays.append(request._connection.transport.getTcpNoDelay())  # type: ignore[attr-defined]  # a Channel
        request.finish_with()

    client = await serve(answer).client(b"GET / HTTP/1.1\r\n\r\n")
    await client.answer()
    assert delays == [True]


@pytest_twisted.ensureDeferred
async def test_bytes_stay_in_order(serve: Serve) -> None:
    """What is written never overtakes what waits, not even when the kernel has room again before the reactor turns."""
    waits, room = Gate(), Gate()

    async def answer(request: Request) -> None:
        request.stream(20 << 20)
        await request.write(bytes(16 << 20))
        waits.open()
        await room.passed()
        request._connection.write(b"\1" * (4 << 20))
        request._left = 0
        request.finish()

    served = serve(answer)
    with socket.create_connection(served.address) as client:
        client.setblocking(False)
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        await waits.passed()
        received = b""
        while True:  # empty the kernel's buffers while the reactor stands still
            try:
                received += client.recv(1 << 20)
            except BlockingIOError:
                break
        room.open()
        while len(received) < 20 << 20:
            try:
                received += client.recv(1 << 20)
            except BlockingIOError:
                await turns(1)
    body = received.partition(b"\r\n\r\n")[2]
    assert body.find(b"\1") == 16 << 20


@pytest_twisted.ensureDeferred
async def test_closed_connection_leaves_no_garbage(serve: Serve) -> None:
    """A connection that is gone is freed at once, without the collector: thousands of them cost no pause."""
    served = serve(echo)
    gc.collect()
    gc.disable()
    try:
        client = await served.client(b"PUT / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\nGET")
        await client.answer()
        await client.answer()
        (channel,) = served.factory._channels
        freed = weakref.ref(channel)
        del channel
        client.vanish()
        await until(lambda: served.factory.open_connections == 0)
        await turns()
        assert freed() is None
    finally:
        gc.enable()


@pytest_twisted.ensureDeferred
async def test_an_ordinary_client(serve: Serve) -> None:
    """Python's own HTTP client gets along with all of it on one connection."""
    served = serve(echo)

    def talk() -> list[bytes]:
        connection = HTTPConnection(*served.address)
        bodies = []
        for method, body in (("GET", None), ("PUT", b"abc"), ("POST", iter([b"d", b"ef"])), ("DELETE", None)):
            connection.request(method, "/x", body, encode_chunked=body is not None and not isinstance(body, bytes))
            bodies.append(connection.getresponse().read())
        connection.close()
        return bodies

    assert await deferToThread(talk) == [b"/x? ", b"/x? abc", b"/x? def", b"/x? "]
    assert served.factory.connections == 1
