"""How answers are written: JSON, times and entity tags as the protocol spells them."""

import json
from base64 import b64encode
from datetime import UTC, datetime
from email.utils import formatdate

from pubky_homeserver.web.request import Request

PLAIN = b"text/plain; charset=utf-8"


def json_body(request: Request, value: object) -> bytes:
    """A JSON answer, compact, with its content type."""
    request.setHeader(b"Content-Type", b"application/json")
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def iso_time(timestamp: int, offset: bool) -> str:
    """Microseconds since the epoch as an ISO 8601 time in UTC; the fraction has 0, 3 or 6 digits, as needed."""
    seconds, fraction = divmod(timestamp, 1_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    if fraction:
        text += f".{fraction:06}" if fraction % 1000 else f".{fraction // 1000:03}"
    return text + "+00:00" if offset else text


def http_date(timestamp: int) -> str:
    """Microseconds since the epoch as an IMF-fixdate (RFC 9110, 5.6.7)."""
    return formatdate(timestamp // 1_000_000, usegmt=True)


def entity_tag(content_hash: bytes) -> str:
    """The strong entity tag of a body: its hash in padded base64, in quotes."""
    return f'"{b64encode(content_hash).decode("ascii")}"'
