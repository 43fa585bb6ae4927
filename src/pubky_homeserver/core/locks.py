r"""Locks: what clients say about them in HTTP, and what they read of them (the part of RFC 4918 that the protocol has).

A lock is a right to write one path, for a short while, to whoever knows its **token**. It is exclusive, and covers the
path itself, whether there is a file or not. Clients name tokens in two ways: `Lock-Token` says which lock to give back,
and `If` says under which lock a write runs. Of `If` only the tokens are read; its lists, tags and `Not` mean nothing.

What comes in is read in one pass, without an XML parser: there are no entities to expand and no depth to bound.
"""

import re
from collections.abc import Iterable
from uuid import uuid4
from xml.sax.saxutils import escape

from pubky_homeserver.core.errors import InvalidRequest
from pubky_homeserver.core.records import Lock

SCHEME = "opaquelocktoken:"
"""What every token begins with (RFC 4918, appendix C)."""

DEFAULT_SECONDS = 30
"""Of a lock for which the client asks no time."""

MAX_SECONDS = 60
"""The longest life that is granted at once: a client that is gone is in nobody's way for long. The protocol's."""

HELD_SECONDS = 30
"""A write that runs under a lock lets it live at least so long from now on."""

HOLD_INTERVAL = 10
"""Seconds after which a running write does that again."""

MAX_LOCKINFO = 16_384
"""Bytes of XML that tell what lock a client wants."""

_SECONDS = re.compile(r"Second-([+-]?)0*([0-9]{1,19})", re.ASCII)

_INT64 = 2**63

_MARKUP = re.compile(
    r"""<!--.*?(?:-->|\Z)|<!\[CDATA\[.*?(?:\]\]>|\Z)|<\?.*?(?:\?>|\Z)"""
    r"""|<([^\s<>/!?"'=]++)(?:[^<>"']|"[^"]*+"|'[^']*+')*+(>?)""",
    re.DOTALL,
)
"""A comment, a section of plain text, an instruction; or a start tag, with its name and its end.

A search goes on where the last one ended, and what has no end ends with the text: it takes no longer than the text.
"""

_QUOTES = {'"': "&quot;"}
"""What is escaped besides `&`, `<` and `>`."""


def new_token() -> str:
    """The token of a new lock."""
    return f"{SCHEME}{uuid4()}"


def granted_seconds(timeout: str | None) -> int:
    """How long a lock may live for which a client asks by this `Timeout` header, if by any."""
    for wish in map(str.strip, (timeout or "").split(",")):
        if wish.lower() == "infinite":
            return MAX_SECONDS
        found = _SECONDS.fullmatch(wish)
        if found is not None:
            seconds = int(found[1] + found[2])
            if -_INT64 <= seconds < _INT64:
                return min(max(seconds, 1), MAX_SECONDS)
    return DEFAULT_SECONDS


def tokens_in(lines: Iterable[str]) -> list[str]:
    """The tokens in the `If` headers of a request: the `<…>` that have their scheme."""
    return [token for line in lines for group in _groups(line) if (token := group.strip()).startswith(SCHEME)]


def lock_token(header: str | None) -> str:
    """The token in a `Lock-Token` header, with its angle brackets or without. Raises `InvalidRequest`."""
    token = next(iter(_groups(header or "")), header or "").strip()
    if not token.startswith(SCHEME):
        raise InvalidRequest("Missing or malformed Lock-Token header")
    return token


def _groups(line: str) -> list[str]:
    """What stands in angle brackets; what follows one without end is not looked at."""
    found = []
    start = line.find("<")
    while start >= 0 and (end := line.find(">", start)) >= 0:
        found.append(line[start + 1 : end])
        start = line.find("<", end)
    return found


def check_lockinfo(body: bytes) -> None:
    """Raise `InvalidRequest` unless this XML asks for an exclusive write lock; asking for nothing is asking for that.

    Elements are known by their names without prefix, and text does not count.
    """
    if not body:
        return
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        names = set()
    else:
        names = {tag[1].rpartition(":")[2] for tag in _MARKUP.finditer(text) if tag[2]}
    if not {"exclusive", "write"} <= names or "shared" in names:
        raise InvalidRequest("Only exclusive write locks are supported")


def describe(lock: Lock, root: str) -> bytes:
    """A lock as XML, one line; `root` is the path in the URL that is locked."""
    return (
        '<?xml version="1.0" encoding="utf-8"?><D:prop xmlns:D="DAV:"><D:lockdiscovery><D:activelock>'
        "<D:locktype><D:write/></D:locktype><D:lockscope><D:exclusive/></D:lockscope><D:depth>0</D:depth>"
        f"<D:timeout>{timeout_header(lock)}</D:timeout>"
        f"<D:locktoken><D:href>{lock.token}</D:href></D:locktoken>"
        f"<D:lockroot><D:href>{escape(root, _QUOTES)}</D:href></D:lockroot>"
        "</D:activelock></D:lockdiscovery></D:prop>"
    ).encode()


def timeout_header(lock: Lock) -> str:
    """The life of a lock as the `Timeout` header says it."""
    return f"Second-{lock.seconds}"
