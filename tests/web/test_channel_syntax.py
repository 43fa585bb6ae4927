"""What is no HTTP, or more of it than a client may send, over real sockets."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st

from pubky_homeserver.web.channel import Limits
from pubky_homeserver.web.inbound import CHUNK_EXCESS, PIPELINE, Inbound
from pubky_homeserver.web.request import Request
from tests.web.sockets import Gate, Served, turns, until

Serve = Callable[..., Served]

GET = b"GET / HTTP/1.1\r\n"
PUT = b"PUT / HTTP/1.1\r\n"
CHUNKED = PUT + b"Transfer-Encoding: chunked\r\n\r\n"


async def count(request: Request) -> None:
    """Reads the body and answers with its length."""
    request.finish_with(b"%d" % len(await request.read(1 << 22)))


REFUSED = {
    "two lengths": (PUT + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
    "the same length twice": (PUT + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na", 400),
    "list of lengths": (PUT + b"Content-Length: 1, 1\r\n\r\na", 400),
    "signed length": (PUT + b"Content-Length: +1\r\n\r\na", 400),
    "negative length": (PUT + b"Content-Length: -1\r\n\r\na", 400),
    "length beyond 64 bits": (PUT + b"Content-Length: 99999999999999999999\r\n\r\na", 400),
    "no length": (PUT + b"Content-Length:\r\n\r\n", 400),
    "length and chunks": (PUT + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunks and length": (PUT + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n", 400),
    "unknown coding": (PUT + b"Transfer-Encoding: gzip\r\n\r\n", 400),
    "coding that is nearly chunked": (PUT + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    "coding below chunks": (PUT + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    "coding above chunks": (PUT + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
    "chunks twice": (PUT + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n", 400),
    "identity": (PUT + b"Transfer-Encoding: identity\r\n\r\n", 400),
    "chunks in HTTP/1.0": (b"PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "bare LF": (GET + b"A: b\nC: d\r\n\r\n", 400),
    "bare LF in the first line": (b"GET / HTTP/1.1\nA: b\r\n\r\n", 400),
    "bare CR": (GET + b"A: b\rC: d\r\n\r\n", 400),
    "folded field": (GET + b"A: b\r\n c\r\n\r\n", 400),
    "folded empty field": (GET + b"A:\r\n\tc\r\n\r\n", 400),
    "blank before the colon": (GET + b"Content-Length : 1\r\n\r\na", 400),
    "blank before the first name": (GET + b" A: b\r\n\r\n", 400),
    "no name": (GET + b": b\r\n\r\n", 400),
    "no colon": (GET + b"A\r\n\r\n", 400),
    "NUL in a value": (GET + b"A: b\0c\r\n\r\n", 400),
    "NUL in a name": (GET + b"A\0: b\r\n\r\n", 400),
    "control byte in a value": (GET + b"A: \x01\r\n\r\n", 400),
    "two hosts": (GET + b"Host: a\r\nHost: b\r\n\r\n", 400),
    "bytes beyond ASCII in the target": (b"GET /\xc3\xa4 HTTP/1.1\r\n\r\n", 400),
    "NUL in the target": (b"GET /\0 HTTP/1.1\r\n\r\n", 400),
    "tab in the target": (b"GET /\t HTTP/1.1\r\n\r\n", 400),
    "blank in the target": (b"GET /a b HTTP/1.1\r\n\r\n", 400),
    "target without a slash": (b"GET a HTTP/1.1\r\n\r\n", 400),
    "query alone": (b"GET ?a HTTP/1.1\r\n\r\n", 400),
    "star for a read": (b"GET * HTTP/1.1\r\n\r\n", 400),
    "other scheme": (b"GET ftp://a/ HTTP/1.1\r\n\r\n", 400),
    "absolute without a host": (b"GET http:///a HTTP/1.1\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\n\r\n", 400),
    "HTTP/2 in the words of 1": (b"GET / HTTP/2.0\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "noise": (b"\xff\xfe\xfd\xfc", 400),
    "unknown method": (b"BREW /pot HTTP/1.1\r\n\r\n", 405),
    "unknown method that begins like a known one": (b"GETTER / HTTP/1.1\r\n\r\n", 405),
    "method in small letters": (b"get / HTTP/1.1\r\n\r\n", 405),
    "method of another protocol": (b"DESCRIBE / HTTP/1.1\r\n\r\n", 405),
    "tunnel": (b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n", 405),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest_twisted.ensureDeferred
async def test_refused(serve: Serve, name: str) -> None:
    """Bytes that are no request, or that two readers could read in two ways, are refused before the site sees them.

    The requests before them are answered first; the connection ends, whatever else was sent. No `Allow`, no body.
    """
    stream, code = REFUSED[name]
    served = serve(count)
    client = await served.client(GET + b"\r\n" + CHUNKED + b"1\r\na\r\n0\r\n\r\n" + stream + GET + b"\r\n")
    assert [(await client.answer()).body for _ in range(2)] == [b"0", b"1"]
    answer = await client.answer()
    assert answer.code in {code, 405}  # after other requests nobody looks whether it could be a method
    assert answer.body == b""
    assert [name for name, _ in answer.fields] == [b"date", b"content-length", b"connection"]
    assert await client.until_closed() == b""
    alone = await served.client(stream)
    assert (await alone.answer()).code == code
    assert await alone.until_closed() == b""
    assert served.factory.requests == 2


@pytest.mark.parametrize("name", REFUSED)
@pytest_twisted.ensureDeferred
async def test_refused_in_pieces(serve: Serve, name: str) -> None:
    """How the bytes are cut into packets does not decide what is refused."""
    stream, code = REFUSED[name]
    served = serve(count)
    client = await served.client()
    for at in range(len(stream)):
        client.send(stream[at : at + 1])
        await turns(1)
    assert (await client.answer()).code in {code, 400}  # of some methods too little is there to tell
    assert served.factory.requests == 0


BROKEN = {
    "no number": b"zz\r\nabc\r\n0\r\n\r\n",
    "negative": b"-1\r\n",
    "prefixed number": b"0x3\r\nabc\r\n0\r\n\r\n",
    "blank after the number": b"3 \r\nabc\r\n0\r\n\r\n",
    "number beyond 64 bits": b"fffffffffffffffff\r\n",
    "bare LF after the number": b"3\nabc\r\n0\r\n\r\n",
    "bare LF after an extension": b"3;a\nabc\r\n0\r\n\r\n",
    "too many bytes": b"3\r\nabcd\r\n0\r\n\r\n",
    "bare LF after a chunk": b"3\r\nabc\n0\r\n\r\n",
    "NUL in a trailer": b"3\r\nabc\r\n0\r\nA: \0\r\n\r\n",
    "long extension": b"3;" + b"x" * (CHUNK_EXCESS + (70 << 10)),
    "many extensions": b"1;%b\r\na\r\n" % (b"x" * 4000) * 50 + b"0\r\n\r\n",
    "long trailer": b"0\r\nA: " + b"x" * (CHUNK_EXCESS + (70 << 10)),
    "long trailers": b"0\r\n" + b"A: %b\r\n" % (b"x" * 4000) * 40 + b"\r\n",
    "many trailers": b"0\r\n" + b"A: b\r\n" * 101 + b"\r\n",
}


@pytest.mark.parametrize("name", BROKEN)
@pytest_twisted.ensureDeferred
async def test_broken_chunks(serve: Serve, name: str) -> None:
    """A body whose framing breaks never counts as whole, and nothing after it is read as a request."""
    served = serve(count)
    client = await served.client(CHUNKED)
    await until(lambda: served.factory.requests == 1)
    client.send(BROKEN[name] + GET + b"\r\n")
    answer = await client.answer()
    assert (answer.code, answer[b"connection"]) == (500, b"close")  # this handler does not catch BodyBroken
    assert await client.until_closed() == b""
    assert served.factory.requests == 1


def padded(length: int) -> bytes:
    """A head with fields of this many bytes in sum, line ends and separators included, the target apart."""
    fields = b""
    while len(fields) < length:
        room = length - len(fields)
        size = room if room < 9000 else 8000
        fields += b"A: %b\r\n" % (b"x" * (size - 5))
    return GET + fields + b"\r\n"


TOO_LONG = {
    "the longest head": (padded((64 << 10) - 1), 200),
    "a longer head": (padded(64 << 10), 431),
    "one long field": (GET + b"A: %b\r\n\r\n" % (b"x" * (65 << 10)), 431),
    "a field that never ends": (GET + b"A: " + b"x" * (1 << 20), 431),
    "a name that never ends": (GET + b"x" * (1 << 20), 431),
    "the most fields": (GET + b"A: b\r\n" * 100 + b"\r\n", 200),
    "more fields": (GET + b"A: b\r\n" * 101 + b"\r\n", 431),
    "the longest target": (b"GET /%b HTTP/1.1\r\n\r\n" % (b"x" * ((32 << 10) - 1)), 200),
    "a longer target": (b"GET /%b HTTP/1.1\r\n\r\n" % (b"x" * (32 << 10)), 414),
    "a target that never ends": (b"GET /" + b"x" * (1 << 20), 414),
    "blank lines that never end": (b"\r\n" * 1000 + GET + b"\r\n", 200),
}


@pytest.mark.parametrize("size", [999, 65536])
@pytest.mark.parametrize("name", TOO_LONG)
@pytest_twisted.ensureDeferred
async def test_heads_have_an_end(serve: Serve, name: str, size: int) -> None:
    """A head has at most 64 KiB and 100 fields (431) and a target of 32 KiB (414), however slowly it comes."""
    stream, code = TOO_LONG[name]
    client = await serve(count).client()
    for at in range(0, len(stream), size):
        client.send(stream[at : at + size])
        await turns(1)
        if client.received or client.ended:
            break
    answer = await client.answer()
    assert (answer.code, answer.body) == (code, b"0" if code == 200 else b"")


@pytest_twisted.ensureDeferred
async def test_pipeline_has_an_end(serve: Serve) -> None:
    """Only so many requests wait on a connection; the next is refused, after all of them."""
    gate = Gate()

    async def answer(request: Request) -> None:
        await gate.passed()
        request.finish_with()

    client = await serve(answer).client(GET + b"\r\n" + (GET + b"\r\n") * (PIPELINE + 50))
    await turns(50)
    gate.open()
    codes = [(await client.answer()).code for _ in range(PIPELINE + 1)]
    assert codes[-1] == 503
    assert set(codes[:-1]) == {200}
    assert await client.until_closed() == b""


@pytest.mark.parametrize("half_closed", [False, True])
@pytest_twisted.ensureDeferred
async def test_refusal_waits_for_its_turn(serve: Serve, half_closed: bool) -> None:
    """While a request is served, what is wrong with the bytes after it is not yet said, nor is anything more read."""
    gate = Gate()

    async def answer(request: Request) -> None:
        await gate.passed()
        request.finish_with(b"served")

    served = serve(answer)
    client = await served.client(GET + b"\r\nBREW / HTTP/1.1\r\n\r\n")
    await until(lambda: served.factory.requests == 1)
    client.send(GET + b"\r\n")
    if half_closed:
        client.half_close()
    await turns()
    assert client.received == b""
    gate.open()
    assert (await client.answer()).body == b"served"
    assert (await client.answer()).code == 405
    assert await client.until_closed() == b""
    if half_closed:  # then nobody needs to be waited for
        await until(lambda: served.factory.open_connections == 0)


class Unconnected:
    """The connection of requests that nobody answers."""

    client_address = ""
    is_tls = False
    choked = False
    date_line = b""
    pending = 0

    def send_continue(self) -> None:
        """Not asked."""

    body_awaited = flow = send_continue


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            (
                *(GET, PUT, b"GET * HTTP/1.1\r\n", b"CONNECT a:1 HTTP/1.1\r\n", b"\r\n", b"\n", b"\0", b"\xff", b" "),
                *(b"A: b\r\n", b"Content-Length: 3\r\n", b"abc", b"Transfer-Encoding: chunked\r\n", b"3\r\n"),
                *(b"0\r\n\r\n", b"Connection: upgrade\r\nUpgrade: x\r\n", b"Connection: close\r\n"),
            )
        )
        | st.binary(max_size=5),
        max_size=30,
    ),
    st.lists(st.integers(1, 40), max_size=20),
)
def test_any_bytes_cut_anyhow(pieces: list[bytes], cuts: list[int]) -> None:
    """Parsing never raises, and what it finds does not depend on how the bytes arrive."""
    stream = b"".join(pieces)

    def found(sizes: list[int]) -> list[object]:
        inbound = Inbound(Unconnected(), Limits())  # type: ignore[arg-type]  # it never answers
        rest = stream
        for size in sizes:
            inbound.feed(rest[:size])
            rest = rest[size:]
        inbound.feed(rest)
        return [
            (item.method, item.path, item.body.received, item.body.complete, item.keep_alive)
            if isinstance(item, Request)
            else "refused"
            for item in inbound.queue
        ]

    assert found(cuts) == found([]) == found([1] * len(stream))
