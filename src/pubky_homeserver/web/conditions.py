"""Conditional requests and ranges (RFC 9110, sections 13 and 14), as far as the protocol reads them."""

from email.utils import parsedate_to_datetime

from attrs import frozen

from pubky_homeserver.core.locks import tokens_in
from pubky_homeserver.storage import Conditions
from pubky_homeserver.web.request import Request


def write_conditions(request: Request) -> Conditions:
    """What `If-Match`, `If-None-Match: *` and `If` ask of a write. Entity tags in `If-None-Match` ask nothing."""
    match = request.headers_named(b"if-match")
    return Conditions(
        if_match=_tags(match) if match else None,
        if_none_match="*" in _tags(request.headers_named(b"if-none-match")),
        tokens=lock_tokens(request),
    )


def lock_tokens(request: Request) -> list[str]:
    """The lock tokens that `If` names; the rest of it asks nothing (RFC 4918, 10.4)."""
    return tokens_in(line.decode("latin-1") for line in request.headers_named(b"if"))


def not_modified(request: Request, tag: str, modified: int) -> bool:
    """Whether the client's copy is current; `modified` in seconds since the epoch.

    The first `If-None-Match` line decides alone if it is there; in it neither `*` nor weak tags match anything.
    """
    none_match = request.header(b"if-none-match")
    if none_match is not None and none_match.isascii():
        return tag in _tags([none_match])
    since = _seconds(request.header(b"if-modified-since"))
    return since is not None and since >= modified


@frozen
class Range:
    """A part of a body: `length` bytes from `start`."""

    start: int
    length: int


class Unsatisfiable(Exception):
    """The range lies beyond the end."""


def range_of(request: Request, tag: str, modified: int, length: int) -> Range | None:
    """The part that the client wants; None for all of it. Raises `Unsatisfiable`.

    One range of bytes is honoured. What is malformed, of another unit or several ranges gets the whole body, and so
    does a range whose `If-Range` does not hold.
    """
    header = request.header(b"range")
    if header is None or not _if_range_holds(request, tag, modified):
        return None
    unit, _, spec = header.decode("latin-1").partition("=")
    first, dash, last = spec.strip().partition("-")
    if unit.strip().lower() != "bytes" or not dash or not _digits(first) or not _digits(last):
        return None
    if not first:
        if not last:
            return None
        suffix = min(int(last), length)
        if not suffix:
            raise Unsatisfiable
        return Range(length - suffix, suffix)
    start, end = int(first), int(last) if last else length - 1
    if last and end < start:
        return None
    if start >= length:
        raise Unsatisfiable
    return Range(start, min(end, length - 1) - start + 1)


def _digits(text: str) -> bool:
    return not text or (text.isascii() and text.isdigit() and len(text) <= 19)


def _if_range_holds(request: Request, tag: str, modified: int) -> bool:
    condition = request.header(b"if-range")
    if condition is None:
        return True
    if condition.startswith((b'"', b"W/")):
        return condition.decode("latin-1") == tag
    return _seconds(condition) == modified


def _tags(lines: list[bytes]) -> list[str]:
    return [tag.strip() for line in lines for tag in line.decode("latin-1").split(",")]


def _seconds(date: bytes | None) -> int | None:
    """Seconds since the epoch of an HTTP date in any of its three forms; None if it is none."""
    if date is None:
        return None
    try:
        return int(parsedate_to_datetime(date.decode("ascii")).timestamp())
    except (ValueError, OverflowError):
        return None
