"""The one thing of a ClientHello that a server wants to see as it was sent: the name that the client asks for."""

from __future__ import annotations

from attrs import frozen

_SERVER_NAME = 0
_HOST_NAME = 0
_MESSAGE = 1  # type of the handshake message, if the head is there


@frozen
class Found:
    """A host name in a hello."""

    text: str
    start: int
    """Where in the hello it begins and ends, in bytes."""
    end: int


def server_name(hello: bytes) -> Found | None:
    """The host name that a hello (RFC 8446, 4.1.2) asks for, with or without the head of the message.

    None if it asks for none, or is not what a hello is: whoever parses it properly will say so.
    """
    try:
        return _find(hello)
    except _Cut:
        return None


class _Cut(Exception):  # it is no error: there is no name
    pass


def _find(hello: bytes) -> Found | None:
    at = 4 if hello[:1] == bytes((_MESSAGE,)) else 0
    at += 2 + 32  # version, random
    at = _past(hello, at, 1)  # session id
    at = _past(hello, at, 2)  # cipher suites
    at = _past(hello, at, 1)  # compression methods
    end = _past(hello, at, 2)
    at += 2
    while at < end:
        kind = _number(hello, at, 2)
        body, next_at = at + 4, _past(hello, at + 2, 2)
        if next_at > end:
            raise _Cut
        if kind == _SERVER_NAME:
            return _in_list(hello, body, next_at)
        at = next_at
    return None


def _in_list(hello: bytes, at: int, end: int) -> Found | None:
    if _past(hello, at, 2) > end:
        raise _Cut
    at += 2
    if at >= end or hello[at] != _HOST_NAME:
        return None
    stop = _past(hello, at + 1, 2)
    start = at + 3
    name = hello[start:stop]
    if stop > end or not 0 < len(name) <= 255 or not name.isascii():
        raise _Cut
    return Found(name.decode("ascii"), start, stop)


def _number(data: bytes, at: int, size: int) -> int:
    if at + size > len(data):
        raise _Cut
    return int.from_bytes(data[at : at + size], "big")


def _past(data: bytes, at: int, size: int) -> int:
    """Where a field ends whose length stands before it in `size` bytes."""
    end = at + size + _number(data, at, size)
    if end > len(data):
        raise _Cut
    return end
