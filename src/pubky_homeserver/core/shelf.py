"""The conflict shelf: what was written somewhere and is not in the winning history of an account. Without behaviour.

Nothing on it is ever applied by itself: its writer's word counts no more, or never did.
"""

from enum import StrEnum
from hashlib import sha1

from attrs import frozen

from pubky_homeserver.core.quotas import ENTRY_OVERHEAD
from pubky_homeserver.core.records import Entry

OF_PATH = 16
"""Digits of an id that tell its path: so what lies there of a path is found without reading all."""


class Reason(StrEnum):
    """How something came to lie on the shelf."""

    LATE = "late"
    """An event that the log of the account's primary lacks."""
    REPLACED = "replaced"
    """What a comparison with the primary replaced or removed here."""


@frozen
class Shelved:
    """One write that did not win: the entry that it left, or that it removed what its path held."""

    pubky: str
    id: str
    """Within the account (`id_of`); the same write has the same one however often it is shelved."""
    reason: Reason
    origin: str
    """The homeserver that it comes from, z-base-32; our own for what a comparison replaced."""
    path: str
    entry: Entry | None
    """With its body, if that could be had; None for a DEL."""
    ours: Entry | None
    """What the path held in the winning history when this was shelved; None for nothing.

    With a body of its own, but for what a comparison replaced: that is here only later, with its file.
    """
    shelved: int
    """When it was laid there (microseconds)."""
    written: int
    """When it was written (the id of its event); of what a comparison replaced, when the file was modified."""

    @property
    def bytes(self) -> int:
        """What it takes."""
        return sum(one.length for one in (self.entry, self.ours) if one is not None) + ENTRY_OVERHEAD


def id_of(path: str, seq: int, content_hash: bytes | None) -> str:
    """The id of a write: number, hash (none of a DEL) and path say which it is; 40 hex digits.

    The number alone does not: a log that was rewound gives it a second time. The first digits are the path's.
    """
    said = b"%d %b " % (seq, (content_hash or b"").hex().encode()) + path.encode()
    return beginning_of(path) + sha1(said, usedforsecurity=False).hexdigest()[OF_PATH:]


def beginning_of(path: str) -> str:
    """How the ids of all writes of a path begin."""
    return sha1(path.encode(), usedforsecurity=False).hexdigest()[:OF_PATH]
