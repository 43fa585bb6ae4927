"""What happens between homeservers, counted from the start of the process; no number is about one user."""

from collections import Counter
from enum import StrEnum

from attrs import define, field


class Counted(StrEnum):
    """What is counted."""

    PUT = "put"
    """An event of a copy's log that was applied, and left a file."""
    DEL = "del"
    """One that removed a file."""
    WRONG_BODY = "wrong_body"
    """A body with another hash, or length, than it was named."""
    ROTTEN = "rotten"
    """A body kept here that had another hash than its entry, or was not there, when it was looked at or read."""
    HEALED = "healed"
    """A body that was missing here, and that another homeserver than the account's own gave."""
    LIST = "list"
    """A comparison with the primary, for its list of files was another one than the copy's."""
    FORKED = "forked"
    """A comparison with the primary, for the copy's log is no beginning of the primary's."""
    COMPACTED = "compacted"
    """One, for the primary's log does not go back to where the copy's ends."""
    DIGEST = "digest"
    """One, for the files were others after an event."""
    FENCED = "fenced"
    """An account that was open here and was shut by its user's record."""
    TURNED_AWAY = "turned_away"
    """A write, or a sign-in, that was refused because the account lives elsewhere."""
    REMINDED = "reminded"
    """A record of somebody else's that was published, for the network had lost it or may have."""
    NOT_REMINDED = "not_reminded"
    """One that could not be."""


@define(eq=False)
class Tally:
    """How often each of these happened."""

    _counts: Counter[Counted] = field(factory=Counter, init=False)

    def count(self, what: Counted) -> None:
        """It happened once more."""
        self._counts[what] += 1

    def of(self, what: Counted) -> int:
        """How often it happened."""
        return self._counts[what]


@define(eq=False)
class Traffic:
    """What was exchanged with one homeserver on our requests, since the process began."""

    requests: int = 0
    failures: int = 0
    """Requests without an answer, and answers that are none."""
    received: int = 0
    """Bytes of answers' bodies."""

    def receive(self, length: int) -> None:
        """A piece of an answer came."""
        self.received += length
