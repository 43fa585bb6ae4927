"""Query strings as the protocol reads them: decoded once, the last of a repeated name wins."""

import re
from urllib.parse import parse_qsl

from pubky_homeserver.core.errors import InvalidBoolean

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
"""Items of one page, whatever a client asks for."""

_NUMBER = re.compile(r"\+?[0-9]{1,20}", re.ASCII)


def pairs_of(query: bytes) -> list[tuple[str, str]]:
    """Names and values in order, form-decoded."""
    if not query:
        return []
    return parse_qsl(query.decode("utf-8", "replace"), keep_blank_values=True, errors="replace")


def whole_number(text: str, high: int) -> int | None:
    """The whole number from 0 to `high` that the text says; None if it says none."""
    if not _NUMBER.fullmatch(text):
        return None
    number = int(text)
    return number if number <= high else None


def limit_of(query: dict[str, str]) -> int:
    """Items that a page may have: `limit`, 100 if that is missing or no 16-bit number, never above 1000."""
    limit = whole_number(query.get("limit", ""), 0xFFFF)
    return DEFAULT_LIMIT if limit is None else min(limit, MAX_LIMIT)


def flag_of(query: dict[str, str], name: str) -> bool:
    """Whether a flag is set: `?name`, `true`, `yes`, `1`; not `false`, `no`, `0`. Raises `InvalidBoolean`."""
    value = query.get(name)
    if value is None:
        return False
    match value.lower():
        case "" | "true" | "yes" | "1":
            return True
        case "false" | "no" | "0":
            return False
    raise InvalidBoolean
