"""Bodies of requests and answers, large, slow, broken or unwanted, over real sockets."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs

from pubky_homeserver.web.channel import LARGE, LINGER_BYTES, READ
from pubky_homeserver.web.request import BodyBroken, BodyTooLarge, Request
from tests.web.sockets import Gate, Served, reactor, turns, until

Serve = Callable[..., Served]
MEBIBYTE = 1 << 20


async def count(request: Request) -> None:
    """Reads the body and answers with its length."""
    length = 0
    async for chunk in request.body:
        length += len(chunk)
    request.finish_with(b"%d" % length)


async def refuse(request: Request) -> None:
    """Answers without a look at the body."""
    request.setResponseCode(401)
    request.finish_with(b"no")


@pytest_twisted.ensureDeferred
async def test_continue_is_sent_when_the_body_is_asked_for(serve: Serve) -> None:
    """A client that waits for `100 Continue` gets it once the handler wants the body, and not before."""
    asked = Gate()
    started = Gate()

    async def later(request: Request) -> None:
        started.open()
        await asked.passed()
        await count(request)

    client = await serve(later).client(b"PUT / HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n\r\n")
    await started.passed()
    await turns()
    assert client.received == b""
    asked.open()
    assert (await client.head())[0] == 100
    client.send(b"hello")
    answer = await client.answer()
    assert (answer.code, answer.body, answer[b"connection"]) == (200, b"5", None)


@pytest_twisted.ensureDeferred
async def test_no_continue_for_a_client_that_did_not_wait(serve: Serve) -> None:
    """Whoever sends the body with the head, or speaks HTTP/1.0, is not told to continue."""
    served = serve(count)
    client = await served.client(b"PUT / HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello")
    assert (await client.answer()).code == 200
    client = await served.client(b"PUT / HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    await until(lambda: served.factory.requests == 2)
    client.send(b"hello")
    assert (await client.answer()).code == 200


@pytest_twisted.ensureDeferred
async def test_no_continue_once_the_body_has_begun(serve: Serve) -> None:
    """A client that gave up waiting and sends is not told to continue any more."""
    client = await serve(count).client(b"PUT / HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhe")
    await turns()
    client.send(b"llo")
    assert (await client.answer()).code == 200


@pytest_twisted.ensureDeferred
async def test_no_continue_within_an_answer(serve: Serve) -> None:
    """When the answer has begun, `100 Continue` would be read as a part of it."""
    started = Gate()

    async def answer(request: Request) -> None:
        request.stream(2)
        started.open()
        await request.read(5)
        await request.write(b"ok")
        request.finish()

    client = await serve(answer).client(b"PUT / HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    await started.passed()
    await turns()
    client.send(b"hello")
    answered = await client.answer()
    assert (answered.body, answered[b"connection"]) == (b"ok", b"close")


@pytest_twisted.ensureDeferred
async def test_refusal_instead_of_continue(serve: Serve) -> None:
    """A refused upload is never asked for, and since nobody knows whether it comes, the connection ends."""
    client = await serve(refuse).client(b"PUT / HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    answer = await client.answer()
    assert (answer.code, answer.body, answer[b"connection"]) == (401, b"no", b"close")
    assert await client.until_closed() == b""


@pytest_twisted.ensureDeferred
async def test_small_unwanted_body_is_dropped(serve: Serve) -> None:
    """After an early answer a short rest of the body is read and dropped: cheaper than a new connection."""
    client = await serve(refuse).client(b"PUT / HTTP/1.1\r\nContent-Length: 30000\r\n\r\nabc")
    answer = await client.answer()
    assert (answer.code, answer[b"connection"]) == (401, None)
    client.send(bytes(29997) + b"GET / HTTP/1.1\r\n\r\n")
    assert (await client.answer()).code == 401


@pytest_twisted.ensureDeferred
async def test_rest_of_a_body_for_which_reading_had_stopped(serve: Serve) -> None:
    """When the handler answers without having read, what it left goes, and reading goes on for the next request."""
    gate = Gate()

    async def late_refusal(request: Request) -> None:
        await gate.passed()
        await refuse(request)

    served = serve(late_refusal)
    length = served.limits.body_high_water + (66 << 10)
    client = await served.client(b"PUT / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % length + bytes(length - 3))
    await until(lambda: served.factory.open_connections)
    (channel,) = served.factory._channels
    await until(lambda: channel._paused)
    client.send(b"abc" + b"GET / HTTP/1.1\r\n\r\n")
    gate.open()
    answer = await client.answer()
    assert (answer.code, answer[b"connection"]) == (401, None)
    assert (await client.answer()).code == 401


@pytest_twisted.ensureDeferred
async def test_bodies_of_requests_that_wait(serve: Serve) -> None:
    """Bodies that are pipelined behind a slow request do not come into memory before their turn."""
    gate = Gate()

    async def later(request: Request) -> None:
        await gate.passed()
        await count(request)

    served = serve(later)
    client = await served.client(b"PUT / HTTP/1.1\r\nContent-Length: 200000\r\n\r\n%b" % bytes(200_000) * 50)
    await turns(300)
    (channel,) = served.factory._channels
    assert len(channel._inbound.queue) <= 2
    gate.open()
    assert [(await client.answer()).body for _ in range(50)] == [b"200000"] * 50


@pytest.mark.parametrize("framing", [b"Content-Length: 52428800", b"Transfer-Encoding: chunked"])
@pytest_twisted.ensureDeferred
async def test_early_answer_reaches_a_client_that_reads_last(serve: Serve, framing: bytes) -> None:
    """A client that sends 50 MB without looking, and only then reads, finds the answer that was given at the start."""
    served = serve(refuse)

    def upload() -> bytes:
        with socket.create_connection(served.address, timeout=20) as connection:
            connection.sendall(b"PUT / HTTP/1.1\r\n%b\r\n\r\n" % framing)
            try:
                for _ in range(50):
                    if framing.startswith(b"T"):
                        connection.sendall(b"100000\r\n%b\r\n" % bytes(MEBIBYTE))
                    else:
                        connection.sendall(bytes(MEBIBYTE))
            except (BrokenPipeError, ConnectionResetError):
                pass
            return connection.recv(MEBIBYTE)

    uploading = deferToThread(upload)
    await until(lambda: served.factory.requests == 1)
    await turns(200)
    assert served.factory.open_connections == 1  # it keeps the client a moment
    served.clock.advance(1)
    answer = await uploading
    assert answer.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\nno")
    await until(lambda: served.factory.open_connections == 0)


@pytest_twisted.ensureDeferred
async def test_unwanted_body_is_dropped_for_a_second_or_a_mebibyte(serve: Serve) -> None:
    """After an early answer our half is closed, a mebibyte is read and dropped, and after a second all is over."""
    served = serve(refuse)
    client = await served.client(b"PUT / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n")
    assert (await client.answer()).code == 401
    await until(lambda: client.ended)
    assert client.closed is None
    (channel,) = served.factory._channels
    client.send(bytes(20 * MEBIBYTE))
    await until(lambda: channel._inbound.dropped > LINGER_BYTES)
    await turns(100)
    assert channel._inbound.dropped <= LINGER_BYTES + (64 << 10)
    assert client.closed is None
    served.clock.advance(1)
    await until(lambda: served.factory.open_connections == 0)


@pytest_twisted.ensureDeferred
async def test_client_that_leaves_after_an_early_answer(serve: Serve) -> None:
    """A client that closes once it has read the answer is not waited for."""
    served = serve(refuse)
    client = await served.client(b"PUT / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n")
    assert (await client.answer()).code == 401
    client.half_close()
    await until(lambda: served.factory.open_connections == 0)
    assert served.clock.getDelayedCalls() == [served.factory._ticking]


@pytest_twisted.ensureDeferred
async def test_unread_body_stops_the_client(serve: Serve) -> None:
    """Of 20 MB for a handler that does not read only the high-water mark and one read come into memory; then all do."""
    gate = Gate()
    held: list[int] = []

    async def later(request: Request) -> None:
        await gate.passed()
        held.append(request.body.held)
        await count(request)

    served = serve(later)
    length = 20 * MEBIBYTE
    client = await served.client(b"PUT / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % length)
    client.send(bytes(length))
    await turns(500)
    gate.open()
    assert (await client.answer()).body == b"%d" % length
    assert served.limits.body_high_water <= held[0] <= served.limits.body_high_water + LARGE + (1 << 10)


@pytest_twisted.ensureDeferred
async def test_tiny_chunks_count_as_what_they_occupy(serve: Serve) -> None:
    """A body in one-byte chunks takes no more memory than one in large ones."""
    gate = Gate()
    seen: list[tuple[int, int]] = []

    async def later(request: Request) -> None:
        await gate.passed()
        seen.append((request.body.held, request.body.received))
        await count(request)

    served = serve(later)
    client = await served.client(b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    client.send(b"1\r\na\r\n" * 100_000 + b"0\r\n\r\n")
    await turns(200)
    gate.open()
    assert (await client.answer()).body == b"100000"
    held, received = seen[0]
    assert received * 65 == held <= 1 << 20


@pytest_twisted.ensureDeferred
async def test_slow_reader_of_a_large_body(serve: Serve) -> None:
    """A handler that takes its time gets every byte in order."""
    length = 3 * MEBIBYTE
    sent = bytes(range(256)) * (length // 256)
    parts: list[bytes] = []

    async def slow(request: Request) -> None:
        async for chunk in request.body:
            parts.append(chunk)
            assert len(chunk) <= served.limits.body_high_water + LARGE
            await turns(2)
        request.finish_with()

    served = serve(slow)
    client = await served.client(b"PUT / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % length + sent)
    await client.answer()
    assert b"".join(parts) == sent


@pytest_twisted.ensureDeferred
async def test_client_that_does_not_read_stops_the_handler(serve: Serve) -> None:
    """Of a 20 MB answer that nobody reads only a piece or two wait in memory; when it is read all of it arrives."""
    written = [0]
    pending: list[int] = []

    async def answer(request: Request) -> None:
        request.stream(20 * MEBIBYTE)
        for _ in range(80):
            await request.write(bytes(256 << 10))
            written[0] += 256 << 10
            pending.append(request.pending)
        request.finish()

    served = serve(answer)
    client = await served.client()
    client.transport.pauseProducing()
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    await until(lambda: pending and pending[-1] > 0)
    await turns(300)
    assert written[0] < 20 * MEBIBYTE  # the kernel's buffers hold less than that
    client.transport.resumeProducing()
    assert len((await client.answer()).body) == 20 * MEBIBYTE
    assert max(pending) <= 320 << 10


@pytest_twisted.ensureDeferred
async def test_answers_that_nobody_reads_stop_the_requests(serve: Serve) -> None:
    """A client that pipelines without reading does not fill the memory with answers: the next one has to wait."""

    async def answer(request: Request) -> None:
        request.finish_with(bytes(MEBIBYTE))

    served = serve(answer)
    client = await served.client()
    client.transport.pauseProducing()
    client.send(b"GET / HTTP/1.1\r\n\r\n" * 100)
    await until(lambda: served.factory.requests)
    await turns(300)
    assert served.factory.requests < 50
    client.transport.resumeProducing()
    for _ in range(100):
        assert len((await client.answer()).body) == MEBIBYTE


@pytest.mark.parametrize("cut", ["half-close", "vanish", "framing"])
@pytest_twisted.ensureDeferred
async def test_broken_body(serve: Serve, cut: str) -> None:
    """A reader learns that its body will not be whole; a client that is still there gets the handler's answer."""
    ends: list[str] = []
    reading = Gate()

    async def read(request: Request) -> None:
        try:
            async for _ in request.body:
                reading.open()
        except BodyBroken:
            ends.append("broken")
            request.setResponseCode(400)
            request.finish_with(b"Stream broken")
            raise
        ends.append("whole")

    served = serve(read)
    client = await served.client(b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    await reading.passed()
    with capturedLogs() as events:
        if cut == "half-close":
            client.half_close()
        elif cut == "vanish":
            client.vanish()
        else:
            client.send(b"no number\r\n")
        await until(lambda: ends)
        if cut == "half-close":
            assert served.clock.getDelayedCalls() == [served.factory._ticking]  # it cannot send more: no lingering
        if cut != "vanish":
            answer = await client.answer()
            assert (answer.code, answer.body, answer[b"connection"]) == (400, b"Stream broken", b"close")
            await until(lambda: client.ended)
            client.half_close()
        await until(lambda: served.factory.open_connections == 0)
    assert ends == ["broken"]
    assert len(events) == (0 if cut == "vanish" else 1)


@pytest_twisted.ensureDeferred
async def test_body_that_broke_before_it_was_asked_for(serve: Serve) -> None:
    """The handler of a request whose body was broken in the same segment runs, and learns it when it reads."""

    async def read(request: Request) -> None:
        with pytest.raises(BodyBroken):
            await request.read(100)
        request.finish_with(b"seen")

    client = await serve(read).client(b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n")
    answer = await client.answer()
    assert (answer.body, answer[b"connection"]) == (b"seen", b"close")


@pytest_twisted.ensureDeferred
async def test_read_is_bounded(serve: Serve) -> None:
    """`read` refuses a body above its limit: an announced one before a byte of it comes, any other while it comes."""
    continued: list[bool] = []

    async def read(request: Request) -> None:
        try:
            body = await request.read(4)
        except BodyTooLarge:
            body = b"too large"
            continued.append(not request.body.withheld)
        request.finish_with(body)

    served = serve(read)
    client = await served.client(
        b"PUT / HTTP/1.1\r\nContent-Length: 4\r\n\r\nabcd"
        b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        b"PUT / HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    )
    assert [(await client.answer()).body for _ in range(3)] == [b"abcd", b"too large", b"too large"]
    assert continued == [True, False]


@pytest_twisted.ensureDeferred
async def test_request_without_body_has_an_empty_one(serve: Serve) -> None:
    """Reading what is not there ends at once, also after `Content-Length: 0` and an empty chunked body."""
    client = await serve(count).client(
        b"GET / HTTP/1.1\r\n\r\nPUT / HTTP/1.1\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n"
        b"PUT / HTTP/1.1\r\nTransfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n"
    )
    assert [(await client.answer()).body for _ in range(3)] == [b"0"] * 3


@pytest.mark.parametrize("size", [1, 5, 1 << 16])
@pytest.mark.parametrize("framing", ["none", "length", "chunked"])
@pytest_twisted.ensureDeferred
async def test_upgrade_is_ignored(serve: Serve, framing: str, size: int) -> None:
    """A request that offers another protocol is served in this one, body and all, and so is what follows it."""
    upgrade = b" / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    first, length = {
        "none": (b"GET" + upgrade + b"\r\n", b"0"),
        "length": (b"PUT" + upgrade + b"Content-Length: 11\r\n\r\nhello world", b"11"),
        "chunked": (
            b"PUT" + upgrade + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\nT: x\r\n\r\n",
            b"11",
        ),
    }[framing]
    stream = first + b"PUT / HTTP/1.1\r\nContent-Length: 2\r\n\r\nab" + first + b"GET / HTTP/1.1\r\n\r\n"
    client = await serve(count).client()
    for at in range(0, len(stream), size):
        client.send(stream[at : at + size])
        await turns(1)
    bodies = [(await client.answer()).body for _ in range(4)]
    assert bodies == [length, b"2", length, b"0"]


@pytest.mark.parametrize("fields", [b"", b"Content-Length: 3\r\n"])
@pytest_twisted.ensureDeferred
async def test_upgrade_and_close(serve: Serve, fields: bytes) -> None:
    """A request that offers an upgrade and wishes to close is the last one."""
    served = serve(count)
    client = await served.client(
        b"PUT / HTTP/1.1\r\nConnection: upgrade, close\r\nUpgrade: x\r\n%b\r\n%bGET / HTTP/1.1\r\n\r\n"
        % (fields, b"abc" if fields else b"")
    )
    answer = await client.answer()
    assert (answer.body, answer[b"connection"]) == (b"3" if fields else b"0", b"close")
    assert await client.until_closed() == b""
    assert served.factory.requests == 1


@pytest_twisted.ensureDeferred
async def test_answer_before_the_body_and_reading_on(serve: Serve) -> None:
    """A handler may answer first and still read the body: it is dropped only when the handler returns."""
    lengths: list[int] = []
    answered = Gate()

    async def answer(request: Request) -> None:
        request.finish_with(b"early")
        answered.open()
        lengths.append(len(await request.read(1000)))

    client = await serve(answer).client(b"PUT / HTTP/1.1\r\nContent-Length: 6\r\n\r\nabc")
    assert (await client.answer()).body == b"early"
    await answered.passed()
    client.send(b"defGET / HTTP/1.1\r\n\r\n")
    assert (await client.answer()).body == b"early"
    assert lengths == [6, 0]


@pytest_twisted.ensureDeferred
async def test_two_writers_of_one_answer(serve: Serve) -> None:
    """A stream that two coroutines write to waits for both of them when the client is slow."""
    ends: list[int] = []
    pending: list[int] = []

    async def answer(request: Request) -> None:
        request.stream()

        async def fill(number: int) -> None:
            for _ in range(40):
                await request.write(bytes([number]) * (256 << 10))
                pending.append(request.pending)
            ends.append(number)

        first, second = Deferred.fromCoroutine(fill(1)), Deferred.fromCoroutine(fill(2))
        await first
        await second
        request.finish()

    client = await serve(answer).client()
    client.transport.pauseProducing()
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    await turns(300)
    client.transport.resumeProducing()
    body = (await client.answer()).body
    assert (body.count(b"\1"), body.count(b"\2")) == (40 << 18, 40 << 18)
    assert sorted(ends) == [1, 2]
    assert max(pending) <= 330 << 10


@pytest_twisted.ensureDeferred
async def test_upload_to_a_handler_that_waits_elsewhere(serve: Serve) -> None:
    """Bytes that arrive while the handler waits for something else are there when it comes back."""

    async def answer(request: Request) -> None:
        later: Deferred[None] = Deferred()
        reactor.callLater(0.01, later.callback, None)
        await later
        await count(request)

    client = await serve(answer).client(b"PUT / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + bytes(100000))
    assert (await client.answer()).body == b"100000"


@pytest.mark.parametrize("framing", [b"Content-Length: %d" % (8 * MEBIBYTE), b"Transfer-Encoding: chunked"])
@pytest_twisted.ensureDeferred
async def test_large_body_comes_in_large_pieces(serve: Serve, framing: bytes) -> None:
    """A body that is large, or may be, is read in larger pieces; what comes after it on the connection is not."""
    pieces: list[int] = []
    sizes: list[int] = []

    async def answer(request: Request) -> None:
        (channel,) = served.factory._channels
        sizes.append(channel.transport.bufferSize)
        async for chunk in request.body:
            pieces.append(len(chunk))
        request.finish_with()

    served = serve(answer)
    client = await served.client()
    await until(lambda: served.factory.open_connections)
    body = bytes(8 * MEBIBYTE)
    if b"chunked" in framing:
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    client.send(b"GET / HTTP/1.1\r\n\r\nPUT / HTTP/1.1\r\n%b\r\n\r\n" % framing)
    await client.answer()
    client.send(body + b"PUT / HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody")
    for _ in range(2):
        assert (await client.answer()).code == 200
    assert sum(pieces) == 8 * MEBIBYTE + 4
    assert sizes == [READ, LARGE, READ]
