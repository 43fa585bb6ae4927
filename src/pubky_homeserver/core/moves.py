"""What a user's newest signed packet does to an account, and what became of it. Frozen, without behaviour."""

from enum import StrEnum

from attrs import field, frozen

from pubky_homeserver.core.copies import LogStanding


class Kept(StrEnum):
    """What became of a packet that was to be kept."""

    OLD = "old"
    """One as recent, or more recent, is here."""
    KEPT = "kept"
    FENCED = "fenced"
    """It was kept, and shut an account that was open here: it names another homeserver."""


@frozen
class Shown:
    """What a peer says of a packet that it was shown."""

    pubky: str
    kept: Kept | None
    """None: it does not know the key, or does not say."""
    packet: bytes | None = field(default=None, repr=False)
    """Its own, key and all, if that is more recent; not verified."""
    public: LogStanding | None = None
    """Where its log ends, if it holds one that is whole, and the packet that counts there names who shows it."""
    private: LogStanding | None = None
    before: bytes | None = field(default=None, repr=False)
    """The packet that counted there before, key and all, if it named a third homeserver; not verified."""


@frozen
class Move:
    """Something that happened to an account, for the operator."""

    pubky: str
    what: str
    """`opened`, `fenced`, or `voided` (a claim that no record followed)."""
    other: str
    """Where the account lived before, or lives now; empty if that is not known."""
    at: int
    """Microseconds."""
    is_back: bool = False
    """Whether it moved the other way not long ago: somebody may have signed an old record again."""


@frozen
class Fork:
    """Two homeservers had different histories of an account: one of the two has lost something."""

    pubky: str
    peer: str
    """The other one: the primary of our copy, or who has a copy of our account."""
    at: int
    """When that was last found, microseconds."""
