"""Odd bytes, heads, targets and framings."""

from itertools import pairwise

from hypothesis import strategies as st

from tests.web.odd.parts import (
    BINARY,
    BODY,
    HOST,
    METHOD,
    ROUTE,
    VISIBLE,
    Draw,
    Fields,
    Known,
    M,
    Odd,
    S,
    W,
    choice,
    credentials,
    edited,
    number,
    percent,
    seldom,
    spelled,
)

_ANY = st.binary(max_size=300)
_SHORT = choice(None, b"", b"body")
_SYNTAX = b" \t\r\n:%/?#\x00\x7f\xff,;=[]HTTP/1.1"
_CUTS = st.lists(st.integers(0, 400), max_size=2)


def heads(draw: Draw, known: Known) -> Odd:
    """Bytes that were a request before somebody fell over them, or never; in pieces."""
    trusted = not seldom(draw, 2)
    fields: Fields = [(b"Host", b"127.0.0.1"), *([(b"Cookie", known.cookie)] if trusted else [])]
    request = spelled(METHOD(draw), ROUTE(draw), fields, _SHORT(draw))
    if seldom(draw, 5):
        raw, trusted = draw(_ANY), False
    elif seldom(draw, 4):
        chunked = spelled(b"PUT", b"/storage/" + M + b"/pub/c", [*fields, (b"Transfer-Encoding", b"chunked")])
        raw = edited(draw, chunked + b"4\r\nbody\r\n0\r\n\r\n", 2)
    elif seldom(draw, 3):
        raw = edited(draw, request + request, 2)
    else:
        raw = edited(draw, request, 2, _SYNTAX)
    edges = [0, *sorted(draw(_CUTS)), len(raw)]
    return Odd(tuple(raw[a:b] for a, b in pairwise(edges)), trusted=trusted)


_BEGIN = choice(b"/", b"/storage/", b"/storage/" + W + b"/", b"/storage/" + M + b"/", b"/pub/", b"/priv/")
_NAMES = st.lists(
    st.sampled_from(
        [
            *b"pub priv storage a.txt dir large website _ index.html . .. ... % %2e : ? # ~ * < | \\ \"".split(),
            *(W, M, S, W.upper(), b"pubky" + W, b"", b"a" * 255, b"a" * 256, b"a b", b"a "),
            *(b"\xc2\xa0", b"\xf0\x9f\x8c\x8d", b"\xff", b"\xc2\x85", b"\x00", b"\xed\xa0\x80"),
        ]
    ),
    max_size=6,
)  # fmt: skip
_SEPARATOR = choice(b"/", b"/", b"//", b"/./")
_TAIL = choice(b"%", b"%f", b"%zz", b"%u0041", b"%00", b"%ff%fe", b"%c0%af", b"%ed%a0%80", b"?", b"?x=%", b"#x")
_SCHEME = choice(b"http://x", b"HTTPS://" + M, b"http://u@x", b"http://", b"ftp://x")


def paths(draw: Draw, known: Known) -> Odd:
    """Any method on any path, however it is encoded, in each form of target."""
    raw = _BEGIN(draw) + _SEPARATOR(draw).join(percent(draw, one) for one in draw(_NAMES))
    if seldom(draw, 5):
        raw += _TAIL(draw)
    if seldom(draw, 8):
        raw = _SCHEME(draw) + raw
    method = METHOD(draw)
    shown, trusted = credentials(draw, known)
    tenant = [(b"pubky-host", HOST(draw))] if seldom(draw, 2) else []
    whole = spelled(method, raw, [(b"Host", HOST(draw)), *tenant, *shown], draw(BODY))
    return Odd((whole,), (method,), trusted)


_NAME = choice(
    *b"Range If-Range If-Match If-None-Match If-Modified-Since If-Unmodified-Since If Lock-Token Timeout".split(),
    *b"Authorization Cookie pubky-host Origin Content-Type Content-Encoding Accept Depth Destination".split(),
    *b"Access-Control-Request-Method Access-Control-Request-Headers Expect TE Upgrade Connection".split(),
    *b"Forwarded X-Forwarded-For Referer Via Overwrite X-Admin-Password Accept-Encoding".split(),
    *b"Content-Range Date User-Agent X_y Cache-Control".split(),
)
_VALUE = choice(b"100-continue", b"close", b"keep-alive, x", b"websocket", b"*", b"upgrade", b"h2c", b"trailers")
_SENSIBLE = choice(
    *(
        (method, b"/storage/" + M + b"/pub/x")
        for method in (b"PUT", b"PUT", b"GET", b"HEAD", b"DELETE", b"LOCK", b"UNLOCK")
    ),
    *(
        (b"GET", path)
        for path in (b"/", b"/info", b"/events/", b"/storage/" + W + b"/pub/", b"/priv/a.txt", b"/session")
    ),
    (b"GET", b"/events-stream?user=" + W),
    (b"GET", b"/storage/" + W + b"/pub/a.txt"),
    (b"HEAD", b"/storage/" + W + b"/priv/a.txt"),
    (b"OPTIONS", b"/pub/a.txt"),
    (b"POST", b"/session"),
    (b"DELETE", b"/storage/" + W + b"/pub/a.txt"),
)
_VERSION = choice(b"1.1", b"1.1", b"1.1", b"1.0")
_UPTO = {many: st.integers(0, many) for many in (12, 120, 70_000)}


def fields(draw: Draw, known: Known) -> Odd:
    """Any values in the fields of a head, several lines of one name among them, many, or long."""
    shown, trusted = credentials(draw, known)
    odd: Fields = []
    for _ in range(draw(_UPTO[12])):
        value = number(draw) if seldom(draw, 4) else _VALUE(draw) if seldom(draw, 3) else draw(VISIBLE)
        odd.append((_NAME(draw), value))
    if seldom(draw, 10):
        odd += [(b"X-%d" % at, b"y") for at in range(draw(_UPTO[120]))]
    if seldom(draw, 20):
        odd.append((b"X-Long", b"z" * draw(_UPTO[70_000])))
    method, target = (METHOD(draw), ROUTE(draw)) if seldom(draw, 4) else _SENSIBLE(draw)
    whole = spelled(method, target, [(b"Host", HOST(draw)), *shown, *odd], draw(BODY), _VERSION(draw))
    return Odd((whole,), (method,), trusted)


_TIMES = choice(1, 1, 1, 150)
_SIZE = choice(b"%x", b"%x", b"%x", b"%X", b"0%x", b"%d", b" %x", b"0x%x", b"-%x", b"%x0000000000000000")
_EXTENSION = choice(b"", b"", b"", b";a", b';a="b\r\n"', b";" + b"e" * 300, b"\t", b" ;x=y")
_END = choice(b"\r\n", b"\r\n", b"\r\n", b"\n", b"", b"\r")
_LAST = choice(b"0\r\n\r\n", b"0\r\n\r\n", b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n", b"0\r\n", b"", b"00\r\n\r\n")


def _chunks(draw: Draw) -> bytes:
    """A body in chunks, more or less."""
    found = b""
    for _ in range(draw(_UPTO[12]) // 3):
        data = draw(BINARY) * _TIMES(draw)
        found += (_SIZE(draw) % len(data)) + _EXTENSION(draw) + b"\r\n" + data + _END(draw)
    return found + _LAST(draw)


_CODING = choice(b"chunked", b"chunked", b"chunked", b"Chunked", b"gzip, chunked", b"chunked, gzip", b"identity", b"")
_LENGTH = choice(b"", b"abc", b"1, 1", b"1,2", b"0x5", b"9" * 21, b"3", b"3")
_READING = choice(
    (b"PUT", b"/storage/" + M + b"/pub/f"),
    (b"PUT", b"/storage/" + W + b"/pub/a.txt"),
    (b"POST", b"/session"),
    (b"POST", b"/signup"),
    (b"POST", b"/auth/grant/session"),
    (b"LOCK", b"/storage/" + M + b"/pub/locked"),
    (b"GET", b"/storage/" + W + b"/pub/a.txt"),
    (b"DELETE", b"/storage/" + M + b"/pub/f"),
)
_EXPECT = choice(b"100-continue", b"200-ok")
_TYPE = choice(b"application/json", b"text/plain", b"")


def framings(draw: Draw, known: Known) -> Odd:
    """Bodies framed in every way, good and bad, for the routes that read one; another request behind."""
    shown, trusted = credentials(draw, known)
    framing: Fields = [(b"Content-Type", _TYPE(draw))]
    if seldom(draw, 2):
        framing.append((b"Transfer-Encoding", _CODING(draw)))
    if seldom(draw, 3):
        framing.append((b"Content-Length", number(draw) if seldom(draw, 2) else _LENGTH(draw)))
    if seldom(draw, 8):
        framing.append((b"Transfer-Encoding", _CODING(draw)))
    if seldom(draw, 6):
        framing.append((b"Expect", _EXPECT(draw)))
    if seldom(draw, 8):
        framing += [(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade")]
    head = spelled(*_READING(draw), [(b"Host", HOST(draw)), *shown, *framing])
    body = draw(BINARY) if seldom(draw, 4) else _chunks(draw)
    if seldom(draw, 2):
        body += spelled(b"GET", b"/info", [(b"Host", b"x")])
    return Odd((head, body) if seldom(draw, 2) else (head + body,), trusted=trusted)
