"""JSON that a peer sends, believed in nothing: each value has its type and its bounds, or all of it is `Malformed`."""

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")

MAX_NUMBER = (1 << 53) - 1
"""The largest number that every JSON reader keeps."""


class Malformed(ValueError):
    """An answer that is not as it must be; the text says what it is about."""


def base64(data: bytes) -> str:
    """Bytes as they are written here."""
    return b64encode(data).decode("ascii")


def to_json(value: object) -> bytes:
    """Compact JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def parsed(data: bytes) -> object:
    """What a text of JSON says."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise Malformed("JSON") from None


def an_object(value: object) -> Mapping[str, object]:
    """Names and values."""
    if not isinstance(value, dict):
        raise Malformed("an object")
    return value


def a_list(value: object, read: Callable[[object], T], most: int) -> list[T]:
    """At most so many things, each read."""
    if not isinstance(value, list) or len(value) > most:
        raise Malformed("a list")
    return list(map(read, value))


def a_text(value: object, form: re.Pattern[str], what: str) -> str:
    """A text of this form, all of it; `what` is its name in the error."""
    if not isinstance(value, str) or not form.fullmatch(value):
        raise Malformed(what)
    return value


def a_number(value: object, most: int = MAX_NUMBER) -> int:
    """A whole number from 0 on."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise Malformed("a number")
    return value


def some_bytes(value: object, least: int, most: int) -> bytes:
    """Bytes in padded base64."""
    if not isinstance(value, str) or len(value) > (most + 2) // 3 * 4:
        raise Malformed("bytes in base64")
    try:
        data = b64decode(value, validate=True)
    except ValueError:
        raise Malformed("bytes in base64") from None
    if not least <= len(data) <= most:
        raise Malformed("bytes in base64")
    return data
