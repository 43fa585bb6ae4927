"""What a user's newest signed packet does to an account. Frozen, without behaviour."""

from enum import StrEnum


class Kept(StrEnum):
    """What became of a packet that was to be kept."""

    OLD = "old"
    """One as recent, or more recent, is here."""
    KEPT = "kept"
    FENCED = "fenced"
    """It was kept, and shut an account that was open here: it names another homeserver."""
