"""Points in time as the Pubky protocol counts them: whole microseconds since the Unix epoch, 64 bits."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime

from attrs import define, field

from pkarr.base32 import CROCKFORD

MICROSECONDS = 1_000_000  # in a second
LENGTH = 8  # bytes of a timestamp, big-endian
_TEXT_LENGTH = 13  # characters of base 32 for 64 bits
_STEP = 256  # microseconds: the low byte belongs to the generator's id


@define
class Timestamps:
    """A generator whose values only grow, also when the clock stands still or is set back.

    `seconds` reads a clock (Twisted's `IReactorTime.seconds`). A random byte, chosen once, goes into the low eight
    bits, so that two programs that sign with one key at the same moment rarely produce the same value.
    """

    _seconds: Callable[[], float]
    _own_id: int = field(factory=lambda: secrets.randbelow(_STEP))
    _last: int = field(default=0, init=False)

    def next(self) -> int:
        """The time now, or a little later where an earlier call has already had that. Microseconds."""
        self._last = max(int(self._seconds() * MICROSECONDS), self._last + _STEP)
        return self._last | self._own_id


def to_text(timestamp: int) -> str:
    """Spell a timestamp: its eight bytes in 13 characters of Crockford's base 32, which sort as the time does."""
    return CROCKFORD.encode(timestamp.to_bytes(LENGTH, "big"))


def from_text(text: str) -> int:
    """Read what `to_text` wrote, in any case. ValueError for anything else."""
    if len(text) != _TEXT_LENGTH:
        raise ValueError(f"a timestamp has {_TEXT_LENGTH} characters")
    return int.from_bytes(CROCKFORD.decode(text), "big")


def to_http_date(timestamp: int) -> str | None:
    """The second of a timestamp as an HTTP date (RFC 9110, 5.6.7); None after the year 9999, which has no such form."""
    try:
        moment = datetime.fromtimestamp(timestamp // MICROSECONDS, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return format_datetime(moment, usegmt=True)
