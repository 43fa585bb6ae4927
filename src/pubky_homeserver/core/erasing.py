"""Copies that a primary orders to be erased. Frozen, without behaviour.

A primary **orders** each peer that may hold a copy; a peer that obeys **hides** the copy at once, and wipes it when a
grace is over. In between the user's newest record may still name the peer: then the copy is all that a user has whose
primary turned hostile, and it is shown again.
"""

from collections.abc import Sequence
from enum import StrEnum

from attrs import frozen

Erased = tuple[str, Sequence[str]]
"""The name of an account among what was erased, and the log ids of what was."""

NEVER: Erased = "", ()


@frozen
class Order:
    """What we, the primary, have told a peer about an account, or have yet to."""

    peer: str
    """Its key."""
    pubky: str
    log_id: str
    """Of the reign that rules our public log."""
    seq: int
    """The number of the newest event of that log when the order was given."""
    ordered: int
    """When it was given, microseconds."""
    receipt: int = 0
    """When the peer said that it has obeyed, by our clock; 0 as long as it did not."""


class Obeyed(StrEnum):
    """What became of an order at the peer."""

    HIDDEN = "hidden"
    """The copy is hidden, now or since an earlier order."""
    NOTHING = "nothing"
    """There is no copy."""
    ELSEWHERE = "elsewhere"
    """The account lives at somebody else's."""
    DIFFERENT = "different"
    """The copy knows another history than the order, or more of it."""
    CLAIMED = "claimed"
    """The user has signed up here: it is no mere copy, or will not be for long."""
    BUSY = "busy"
    """An earlier copy of the account is still being erased."""

    @property
    def is_done(self) -> bool:
        """Whether nothing of the account can be read there any more."""
        return self in (Obeyed.HIDDEN, Obeyed.NOTHING)


@frozen
class Doomed:
    """A copy whose primary ordered that it be erased."""

    pubky: str
    until: int
    """When it is wiped, microseconds."""
    is_hidden: bool = True
    """False while its user claims it, or has it opened here."""
