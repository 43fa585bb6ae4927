"""What the store keeps and the house talks about: accounts, sessions, entries, events. Frozen, without behaviour.

Units everywhere: bytes, and microseconds since the Unix epoch. A pubky is the raw z-base-32 form of a public key.
"""

from enum import StrEnum

from attrs import field, frozen

from pubky_homeserver.core.capabilities import Capability
from pubky_homeserver.core.quotas import UserQuota


@frozen
class Account:
    """A user of this homeserver."""

    pubky: str
    created: int
    disabled: bool = False
    used: int = 0
    """Bytes: the sum over all files of their length and 256."""
    quota: UserQuota = field(factory=UserQuota)


@frozen
class SignupToken:
    """A right to sign up once, made by the operator."""

    token: str
    created: int
    quota: UserQuota = field(factory=UserQuota)
    used: int | None = None
    """When somebody signed up with it."""
    used_by: str | None = None


class TokenState(StrEnum):
    """Which signup tokens a listing shows."""

    ALL = "all"
    USED = "used"
    UNUSED = "unused"


@frozen
class Grant:
    """What a user allows a client, as `core/grants.py` reads it."""

    pubky: str
    """The user, who signed it."""
    client_id: str
    capabilities: tuple[Capability, ...]
    client_key: str
    """The key that proofs must be signed with, z-base-32."""
    id: str
    issued_at: int
    """Unix seconds, as the user's device says."""
    expires_at: int
    """Unix seconds."""


@frozen
class KeptGrant:
    """A grant that was exchanged here."""

    grant: Grant
    created: int
    """When it was first seen."""
    revoked: bool = False


@frozen
class Session:
    """A signed-in user: who, and what the session may do."""

    id: str
    """SHA-256 of the secret, hex: what rests in the store, and what tells sessions apart."""
    pubky: str
    capabilities: tuple[Capability, ...]
    created: int
    grant: KeptGrant | None = None
    """What a client shows a bearer for; None if the user signed in with a cookie."""
    expires: int | None = None
    """Unix seconds from which on a bearer means nothing; a cookie's session never expires."""

    @property
    def credential(self) -> str:
        """What ends the session when it is revoked: the grant, or the session itself."""
        return f"session:{self.id}" if self.grant is None else f"grant:{self.grant.grant.id}"


@frozen
class Entry:
    """A file of an account, and its body if that is small."""

    path: str
    content_hash: bytes
    """BLAKE3-256 of the body."""
    length: int
    content_type: str
    modified: int
    body: bytes | None = field(default=None, repr=False)
    """The body itself up to the inline limit."""
    blob: str | None = None
    """Else the id of the immutable file that holds it, 32 hex digits. Neither: the body is not here yet."""
    seq: int = 0
    """Number of the write in its log (the account's public or private one); given by the store."""


@frozen
class Lock:
    """The right to write a path, as it was granted."""

    token: str = field(repr=False)
    """Who knows it holds the lock."""
    seconds: int
    """How long it lives from the grant on, unless somebody refreshes it."""


class Operation(StrEnum):
    """What an event says of its path."""

    PUT = "PUT"
    DEL = "DEL"


@frozen
class Event:
    """One change of one path."""

    id: int
    """Strictly increasing over all accounts of the shard; the cursor that follows it. Also its time in microseconds."""
    operation: Operation
    pubky: str
    path: str
    seq: int
    """1, 2, 3 … in the account's log."""
    digest: bytes
    """16 bytes: the log's digest after this event."""
    content_hash: bytes | None = None
    """PUT only, as the four below."""
    length: int = 0
    content_type: str = ""
    modified: int = 0


@frozen
class LogState:
    """Where an account's public or private log stands."""

    log_id: str
    """Random name of the current reign."""
    seq: int
    event_id: int
    """Of the newest event; 0 before the first."""
    digest: bytes
    floor: int
    """The log is complete after this number."""


@frozen
class Totals:
    """Numbers over all accounts, for the operator."""

    users: int
    disabled: int
    used: int
    tokens: int
    unused_tokens: int
