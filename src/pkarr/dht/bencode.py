"""Bencode, the notation of everything in BitTorrent: integers, byte strings, lists and dictionaries (BEP 3).

There is one way to write a value, so what was signed can be written again from its value. The reader takes only that
one way, but for the order of a dictionary's keys, which some programs get wrong.

    5       i5e
    b"ab"   2:ab
    [1]     li1ee
    {b"a": 1}  d1:ai1ee     keys are byte strings, sorted
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Value = int | bytes | list["Value"] | dict[bytes, "Value"]
Encodable = int | bytes | Sequence["Encodable"] | Mapping[bytes, "Encodable"]

MAX_DEPTH = 16  # lists and dictionaries in each other; messages of the DHT need 4, and Python's stack ends at 1000
_MAX_INTEGER = 20  # characters: 64 bits with a sign
_MAX_LENGTH = 7  # digits of the length of a string

_INTEGER, _LIST, _DICTIONARY, _END = b"ilde"


class InvalidBencode(ValueError):
    """Bytes that are no value, or more than one."""


def encode(value: Encodable) -> bytes:
    """Write a value. Keys of dictionaries are sorted."""
    parts: list[bytes] = []
    _append(parts, value)
    return b"".join(parts)


def _append(parts: list[bytes], value: Encodable) -> None:
    if isinstance(value, bytes):
        parts.append(b"%d:%b" % (len(value), value))
    elif isinstance(value, int):
        parts.append(b"i%de" % value)
    elif isinstance(value, Mapping):
        parts.append(b"d")
        for key in sorted(value):
            parts.append(b"%d:%b" % (len(key), key))
            _append(parts, value[key])
        parts.append(b"e")
    else:
        parts.append(b"l")
        for element in value:
            _append(parts, element)
        parts.append(b"e")


def decode(data: bytes) -> Value:
    """Read one value that is all of the bytes. InvalidBencode otherwise. Who calls bounds their number."""
    value, end = _value(data, 0, 0)
    if end != len(data):
        raise InvalidBencode("bytes after the end")
    return value


def _value(data: bytes, at: int, depth: int) -> tuple[Value, int]:
    """The value that begins at a place, and where it ends."""
    if at >= len(data):
        raise InvalidBencode("ends too early")
    kind = data[at]
    if kind == _DICTIONARY:
        return _dictionary(data, at + 1, _deeper(depth))
    if kind == _INTEGER:
        return _integer(data, at + 1)
    if kind == _LIST:
        return _list(data, at + 1, _deeper(depth))
    return _string(data, at)


def _deeper(depth: int) -> int:
    if depth == MAX_DEPTH:
        raise InvalidBencode("too deep")
    return depth + 1


def _is_end(data: bytes, at: int) -> bool:
    if at >= len(data):
        raise InvalidBencode("ends too early")
    return data[at] == _END


def _string(data: bytes, at: int) -> tuple[bytes, int]:
    colon = data.find(b":", at, at + _MAX_LENGTH + 1)
    digits = data[at:colon] if colon >= 0 else b""
    if not digits.isdigit() or (digits[0] == ord("0") and len(digits) > 1):
        raise InvalidBencode("no value begins so")
    start = colon + 1
    end = start + int(digits)
    if end > len(data):
        raise InvalidBencode("ends too early")
    return data[start:end], end


def _integer(data: bytes, at: int) -> tuple[int, int]:
    end = data.find(b"e", at, at + _MAX_INTEGER + 1)
    text = data[at:end] if end >= 0 else b""
    digits = text.removeprefix(b"-")
    if not digits.isdigit() or (digits[0] == ord("0") and len(text) > 1):
        raise InvalidBencode("no integer")
    return int(text), end + 1


def _list(data: bytes, at: int, depth: int) -> tuple[list[Value], int]:
    values: list[Value] = []
    while not _is_end(data, at):
        value, at = _value(data, at, depth)
        values.append(value)
    return values, at + 1


def _dictionary(data: bytes, at: int, depth: int) -> tuple[dict[bytes, Value], int]:
    values: dict[bytes, Value] = {}
    while not _is_end(data, at):
        key, at = _string(data, at)
        if key in values:
            raise InvalidBencode("a key twice")
        values[key], at = _value(data, at, depth)
    return values, at + 1
