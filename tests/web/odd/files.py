"""Odd locks, queries, ranges and conditions."""

from urllib.parse import quote_from_bytes

from hypothesis import strategies as st

from tests.web.odd.parts import (
    BINARY,
    HOST,
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
    seldom,
    spelled,
)

# --- locks --------------------------------------------------------------------------------------------------------

_XML = choice(
    b'<?xml version="1.0"?><D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope>'
    b"<D:locktype><D:write/></D:locktype></D:lockinfo>",
    b'<!DOCTYPE l [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><lockinfo><exclusive/><write/>&b;</lockinfo>',
    b"<exclusive><write><shared/></write></exclusive>",
    b"",
)
_XML_SYNTAX = b"<>/!?\"'=- :&;[]a\xff\x00"
_TAGS = choice(b"<a b='", b"<", b"<!--", b"<![CDATA[", b"<exclusive/><write/>", b"<a \"'")
_REPEATED = st.integers(1, 2500)
_NOBODYS = b"opaquelocktoken:00000000-0000-4000-8000-000000000000"
_IF = choice(b"(<%b>)", b'<http://x/y> (<%b> ["t"])', b"(Not <%b>)", b"<%b", b"%b", b"<a> <%b>", b"<<%b>>", b"(<%b>")
_LOCK_TOKEN = choice(b"<%b>", b"%b", b"<>%b", b"<<%b", b" < %b > ")
_TIMEOUT = choice(
    b"Infinite", b"Second-5", b"Second--5", b"Second-" + b"9" * 20, b"x, Second-7", b"Second-", b"second-5"
)
_DEPTH = choice(b"0", b"infinity", b"x")
_LOCKING = choice(b"LOCK", b"LOCK", b"UNLOCK", b"PUT", b"DELETE")
_OWNER = choice(W, M, M)
_LOCKED = choice(b"/pub/locked", b"/pub/locked", b"/pub/dir/", b"/pub/dir", b"/priv/x", b"/x", b"/pub/%3Cx%3E&'\"")


def locks(draw: Draw, known: Known) -> Odd:
    """Locks and writes under them: any XML, any `If`, any `Timeout`, any token; the witness's token among them."""
    theirs = known.lock.encode()
    token = theirs.upper() if seldom(draw, 6) else _NOBODYS if seldom(draw, 3) else theirs
    fields: Fields = [(b"Host", HOST(draw))]
    if seldom(draw, 2):
        fields.append((b"If", draw(VISIBLE) if seldom(draw, 5) else _IF(draw).replace(b"%b", token)))
    if seldom(draw, 2):
        fields.append((b"Lock-Token", draw(VISIBLE) if seldom(draw, 5) else _LOCK_TOKEN(draw).replace(b"%b", token)))
    if seldom(draw, 2):
        fields.append((b"Timeout", draw(VISIBLE) if seldom(draw, 5) else _TIMEOUT(draw)))
    if seldom(draw, 4):
        fields.append((b"Depth", _DEPTH(draw)))
    body: bytes | None = None
    if seldom(draw, 5):
        body = _TAGS(draw) * draw(_REPEATED)
    elif seldom(draw, 2):
        body = edited(draw, _XML(draw), 4, _XML_SYNTAX) if seldom(draw, 2) else _XML(draw)
    shown, trusted = credentials(draw, known)
    method = _LOCKING(draw)
    whole = spelled(method, b"/storage/" + _OWNER(draw) + _LOCKED(draw), [*fields, *shown], body)
    return Odd((whole,), (method,), trusted)


# --- queries ------------------------------------------------------------------------------------------------------

_KEY = choice(W, M, S, b"pubky" + W, W[:-1], W.upper(), b"", b"pk:" + M, M + b".")
_BELOW = choice(b"/pub/", b"/pub/a.txt", b"", b"/", b"/x/../y", b"/%00", b"/\xff", b"/pub/dir/b.html")
_TIMESTAMP = st.text(st.sampled_from("0123456789ABCDEFGHJKMNPQRSTVWXYZUiol"), min_size=12, max_size=14)
_FLAG = choice(b"", b"true", b"1", b"yes", b"TRUE", b"false", b"no", b"0", b"2", b"%00", b"on")
_PATH = choice(b"/pub/", b"/priv/", b"/", b"pub/a.txt", b"/pub/../priv/", b"..", b"/pub/%2e%2e/x", b"/pub/_", b"")
_FLAGS = choice(b"reverse", b"shallow", b"live")
_MANY_USERS = st.integers(45, 55)
_PAIRS = st.integers(0, 6)
_QUERIED = choice(
    *b"/events/? /events/?limit=0 /events/?limit=1 /events-stream? /pub/?".split(),
    b"/events-stream?user=" + W,
    b"/events-stream?user=" + M + b":0",
    b"/events-stream?user=" + W + b"&path=/priv/",
    b"/storage/" + W + b"/pub/?",
    b"/storage/" + M + b"/pub/dir/?",
    b"/storage/" + W + b"/priv/?",
    b"/storage/" + M + b"/?",
    b"/storage/" + M + b"/pub/a.txt?",
)
_READ = choice(b"GET", b"GET", b"GET", b"HEAD")
_KINDS = choice("limit", "cursor", "cursor", "flag", "user", "path", "host", "other")


def _cursor(draw: Draw) -> bytes:
    if seldom(draw, 2):
        return number(draw)
    if seldom(draw, 3):
        return draw(_TIMESTAMP).encode()
    if seldom(draw, 4):
        return draw(VISIBLE)
    return (b"pubky://" if seldom(draw, 2) else b"") + _KEY(draw) + _BELOW(draw)


def _pair(draw: Draw) -> tuple[bytes, bytes]:
    match _KINDS(draw):
        case "limit":
            return b"limit", number(draw)
        case "cursor":
            return b"cursor", _cursor(draw)
        case "flag":
            return _FLAGS(draw), _FLAG(draw)
        case "user":
            return b"user", _KEY(draw) + (b":" + _cursor(draw) if seldom(draw, 2) else b"")
        case "path":
            return b"path", _PATH(draw)
        case "host":
            return b"pubky-host", _KEY(draw)
    return draw(VISIBLE), draw(VISIBLE)


def _form(draw: Draw, raw: bytes) -> bytes:
    if seldom(draw, 4):
        return bytes(one for one in raw if 33 <= one < 127 and one not in b"#&")
    return quote_from_bytes(raw, safe="/:%").encode()


def queries(draw: Draw, known: Known) -> Odd:
    """Queries of listings, of the feed and of streams; live ones end because the client goes."""
    shown, trusted = credentials(draw, known)
    pairs = [
        _form(draw, name) + b"=" + _form(draw, value) for name, value in [_pair(draw) for _ in range(draw(_PAIRS))]
    ]
    if seldom(draw, 20):
        pairs += [b"user=" + W] * draw(_MANY_USERS)
    method = _READ(draw)
    whole = spelled(method, b"&".join((_QUERIED(draw), *pairs)), [(b"Host", HOST(draw)), *shown])
    return Odd((whole,), (method,), trusted)


# --- ranges and conditions ----------------------------------------------------------------------------------------

_DATE = choice(
    b"Sun, 22 Nov 2026 22:49:07 GMT",
    b"Sunday, 22-Nov-26 22:49:07 GMT",
    b"Sun Nov 22 22:49:07 2026",
    b"Thu, 01 Jan 1970 00:00:00 GMT",
    b"Fri, 31 Dec 9999 23:59:59 GMT",
    b"Fri, 31 Dec 9999 23:59:59 -2359",
    b"Fri, 31 Dec 99999 23:59:59 GMT",
    b"Sun, 22 Nov 2026 22:49:07 +9999",
    b"Sun, 00 Nov 2026 99:99:99 GMT",
    b"Mon, 01 Jan 0001 00:00:00 +2300",
    b"0",
    b",",
)
_UNIT = choice(b"bytes=", b"bytes=", b"bytes=", b"bytes=", b"bytes=", b"Bytes =", b"lines=", b"")
_DASH = choice(b"-", b"-", b"-", b"-", b"-", b"--", b"", b"-,5-")
_DATE_SYNTAX = b"0123456789 ,:+-/.GMTSunNovJaDec()\t"
_TAG = choice(b"*", b'W/"x"', b'"', b'""', b'"a", "b"', b"W/*", b"")
_POSITION = st.integers(0, 39)
_READ_OR_WRITE = choice(b"GET", b"GET", b"GET", b"HEAD", b"PUT", b"DELETE")
_FILE = choice(b"/pub/a.txt", b"/pub/large", b"/priv/a.txt", b"/pub/none", b"/pub/dir/b.html", b"/index.html")
_AUTHORITY = choice(b"", b"_pubky.")


def _span(draw: Draw) -> bytes:
    first = b"" if seldom(draw, 4) else number(draw)
    return _UNIT(draw) + first + _DASH(draw) + (b"" if seldom(draw, 3) else number(draw))


def _tags(draw: Draw, known: Known) -> bytes:
    if seldom(draw, 4):
        return draw(VISIBLE)
    if seldom(draw, 3):
        return _TAG(draw)
    many = draw(_POSITION) + 1
    return b", ".join((known.tags * many)[:many])


def conditions(draw: Draw, known: Known) -> Odd:
    """Ranges and conditions, on reads and writes, of files that are small, large, private or not there."""
    odd: Fields = []
    if seldom(draw, 2):
        odd.append((b"Range", _span(draw)))
    for name in (b"If-Range", b"If-Match", b"If-None-Match"):
        if seldom(draw, 3):
            odd.append((name, _DATE(draw) if seldom(draw, 4) else _tags(draw, known)))
    for name in (b"If-Modified-Since", b"If-Unmodified-Since"):
        if seldom(draw, 3):
            date = _DATE(draw)
            odd.append((name, edited(draw, date, 3, _DATE_SYNTAX) if seldom(draw, 2) else date))
    shown, trusted = credentials(draw, known)
    method, owner, path = _READ_OR_WRITE(draw), _OWNER(draw), _FILE(draw)
    target = b"/storage/" + owner + path if seldom(draw, 2) else path
    body = draw(BINARY) if method == b"PUT" else None
    whole = spelled(method, target, [(b"Host", _AUTHORITY(draw) + owner), *shown, *odd], body)
    return Odd((whole,), (method,), trusted)
