"""Request bodies in JSON, and how the protocol refuses those that are none.

The official homeserver reads JSON with serde, a member at a time, and its sentences reach the clients. So the reading
here goes the same way: the first thing wrong in the order of the text is told, with its line and column in bytes.
Values are read by the standard library; where it fails, `json_faults.py` finds what serde would have said.
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from attrs import define, field

from pubky_homeserver.core.errors import InvalidRequest, UnprocessableRequest, UnsupportedContentType
from pubky_homeserver.web.json_faults import fault_in
from pubky_homeserver.web.request import Request

MAX_JSON = 2 * 1024 * 1024
"""Bytes of a body (the protocol's)."""

MAX_SEARCHED = 65_536
"""Characters of a body that is no JSON in which the fault is searched for: it takes a microsecond for each."""

_I63 = 1 << 63
_SPACE = re.compile(r"[ \t\n\r]*")
_PARAMETER = re.compile(rb'\s*[\w!#$&^.+-]+=(?:[\w!#$&^.+-]*|"[^"]*")\s*', re.ASCII)


async def read_json(request: Request) -> object:
    """The body's value. Raises, in this order, `UnsupportedContentType`, `BodyTooLarge`, `InvalidRequest`."""
    reading = _Reading(await _read(request))
    value, end = reading.value(reading.skip(0))
    reading.finish(end)
    return value


async def read_texts(
    request: Request, struct: str, names: Sequence[str], check: Callable[[str], str | None]
) -> list[str]:
    """The members of an object, all of them texts, in the order of `names`.

    `struct` is what the official homeserver calls the object; `check` tells what is wrong with a text. Raises, in this
    order, `UnsupportedContentType`, `BodyTooLarge`, and then `InvalidRequest` for what is no JSON or
    `UnprocessableRequest` for the wrong shape, whichever comes first in the body.
    """
    return texts_in(await _read(request), struct, names, check)


def texts_in(body: str, struct: str, names: Sequence[str], check: Callable[[str], str | None]) -> list[str]:
    """What `read_texts` finds in a body."""
    reading = _Reading(body)
    start = reading.skip(0)
    if reading.at(start) == "{":
        found, end = _members(reading, start + 1, names, check)
    elif reading.at(start) == "[":
        found, end = _elements(reading, start + 1, struct, names, check)
    else:
        value, end = reading.value(start)
        reading.misfit(f"invalid type: {_kind(value)}, expected struct {struct}", end)
    reading.finish(end)
    return found


def misfit(error: ValueError) -> UnprocessableRequest:
    """The refusal of JSON that does not have the shape or the types that the route reads."""
    return UnprocessableRequest(f"Failed to deserialize the JSON body into the target type: {error}")


async def _read(request: Request) -> str:
    if not _is_json(request.header(b"content-type") or b""):
        raise UnsupportedContentType("Expected request with `Content-Type: application/json`")
    body = await request.read(MAX_JSON)
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        _Reading(body[: error.start].decode()).wrong("invalid unicode code point", error.start)


def _is_json(content_type: bytes) -> bool:
    """Whether this is `application/json` or `application/…+json`, whatever its parameters."""
    essence, *parameters = content_type.lower().split(b";")
    if not all(map(_PARAMETER.fullmatch, parameters)):
        return False
    kind, _, subtype = essence.strip().partition(b"/")
    return kind == b"application" and (subtype == b"json" or (subtype.endswith(b"+json") and len(subtype) > 5))


def _members(
    reading: "_Reading", start: int, names: Sequence[str], check: Callable[[str], str | None]
) -> tuple[list[str], int]:
    """The named members of the object whose brace is before `start`, and where it ends."""
    found: dict[str, str] = {}
    index = reading.skip(start)
    while reading.at(index) != "}":
        name, index = reading.key(index)
        if name in found:
            reading.misfit(f"duplicate field `{name}`", index)
        index = reading.colon(index)
        reading.place = name
        if name in names:
            found[name], index = _text(reading, index, check)
        else:
            _, index = reading.value(index)
        reading.place = ""
        index = reading.next(index, "}", "an object")
    end = index + 1
    for name in names:
        if name not in found:
            reading.misfit(f"missing field `{name}`", end)
    return [found[name] for name in names], end


def _elements(
    reading: "_Reading", start: int, struct: str, names: Sequence[str], check: Callable[[str], str | None]
) -> tuple[list[str], int]:
    """The texts of the array whose bracket is before `start`, which stands for the object, and where it ends."""
    found: list[str] = []
    index = reading.skip(start)
    while reading.at(index) != "]":
        if len(found) == len(names):
            reading.unexpected("trailing characters", index)
        reading.place = f"[{len(found)}]"
        text, index = _text(reading, index, check)
        reading.place = ""
        found.append(text)
        index = reading.next(index, "]", "a list")
    if len(found) < len(names):
        expected = f"expected struct {struct} with {len(names)} elements"
        reading.misfit(f"invalid length {len(found)}, {expected}", index + 1)
    return found, index + 1


def _text(reading: "_Reading", index: int, check: Callable[[str], str | None]) -> tuple[str, int]:
    opener = reading.at(index)
    if opener in ("[", "{"):
        kind = "sequence" if opener == "[" else "map"
        reading.misfit(f"invalid type: {kind}, expected a string", index)
    value, end = reading.value(index)
    if not isinstance(value, str):
        reading.misfit(f"invalid type: {_kind(value)}, expected a string", end)
    if (wrong := check(value)) is not None:
        reading.misfit(wrong, end)
    return value, end


def _kind(value: object) -> str:
    """What serde calls a value that it did not expect."""
    match value:
        case None:
            return "null"
        case bool():
            return f"boolean `{str(value).lower()}`"
        case int() if -_I63 <= value < 2 * _I63:
            return f"integer `{value}`"
        case int():
            return f"floating point `{float(value)}`"
        case float():
            return f"floating point `{value}`"
        case str():
            return f'string "{value}"'
    return "sequence" if isinstance(value, list) else "map"


@define
class _Reading:
    """A body, and where in it something is wrong."""

    text: str
    place: str = ""
    """The member that is being read."""
    _decoder: json.JSONDecoder = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._decoder = json.JSONDecoder(parse_constant=_refuse_constant)

    def at(self, index: int) -> str:
        """The character there; empty at the end."""
        return self.text[index : index + 1]

    def skip(self, index: int) -> int:
        """Where the white space from `index` on ends."""
        found = _SPACE.match(self.text, index)
        return found.end() if found else index

    def key(self, index: int) -> tuple[str, int]:
        """The name of a member, and where it ends."""
        if self.at(index) != '"':
            self.unexpected("key must be a string", index, "an object")
        return self.value(index)

    def colon(self, index: int) -> int:
        """From the name of a member to its value."""
        index = self.skip(index)
        if self.at(index) != ":":
            self.unexpected("expected `:`", index, "an object")
        return self.skip(index + 1)

    def next(self, index: int, closer: str, inside: str) -> int:
        """From the end of a value to the next one, or to the closer."""
        index = self.skip(index)
        if self.at(index) == closer:
            return index
        if self.at(index) != ",":
            self.unexpected(f"expected `,` or `{closer}`", index, inside)
        index = self.skip(index + 1)
        if self.at(index) == closer:
            self.unexpected("trailing comma", index)
        if not self.at(index):
            self.unexpected("", index)
        return index

    def value(self, index: int) -> tuple[Any, int]:
        """The value that begins there, and where it ends."""
        try:
            value, end = self._decoder.raw_decode(self.text, index)
        except RecursionError:
            self.wrong("recursion limit exceeded", index)
        except ValueError:
            self._fault(index, "number out of range", index)
        if isinstance(value, str) and not _is_text(value):
            self._fault(index, "lone leading surrogate in hex escape", end)
        if isinstance(value, int | float) and self.at(end) in tuple("0123456789.eE"):
            self._fault(index, "invalid number", end)
        return value, end

    def _fault(self, index: int, otherwise: str, end: int) -> NoReturn:
        """Refuse the value that begins at `index` for its first fault."""
        fault = fault_in(self.text, index) if len(self.text) <= MAX_SEARCHED else None
        if fault is None:
            self.wrong(otherwise, end)
        self.unexpected(fault.reason, fault.index, fault.inside)

    def finish(self, index: int) -> None:
        """Raise unless only white space is left."""
        index = self.skip(index)
        if self.at(index):
            self.unexpected("trailing characters", index)

    def unexpected(self, reason: str, index: int, inside: str = "a value") -> NoReturn:
        """Refuse the character there; the end of the body is always refused as the end of something."""
        if index >= len(self.text):
            self.wrong(f"EOF while parsing {inside}", len(self.text))
        self.wrong(reason, index, 1)

    def wrong(self, reason: str, end: int, more: int = 0) -> NoReturn:
        """Refuse what is no JSON; `end` is where reading stopped, or `more` bytes after it."""
        place = f"{self.place}: " if self.place else ""
        raise InvalidRequest(f"Failed to parse the request body as JSON: {place}{reason} at {self._at(end, more)}")

    def misfit(self, reason: str, end: int) -> NoReturn:
        """Refuse what has the wrong shape."""
        place = f"{self.place}: " if self.place else ""
        raise misfit(ValueError(f"{place}{reason} at {self._at(end)}"))

    def _at(self, end: int, more: int = 0) -> str:
        line = self.text.count("\n", 0, end)
        begin = self.text.rfind("\n", 0, end) + 1
        return f"line {line + 1} column {len(self.text[begin:end].encode('utf-8', 'replace')) + more}"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
