"""What can go wrong, one class each, with the sentence that a client reads.

The sentences are the protocol's own: the official clients show them. Which HTTP status each becomes stands in one
table, `web/errors.py`; nothing here knows HTTP.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pubky_homeserver.core.copies import Reign


class Refused(Exception):
    """A request that is answered with a sentence instead of what it asked for."""

    text = "Refused"

    def __init__(self, text: str | None = None) -> None:
        super().__init__(text if text is not None else self.text)

    def __str__(self) -> str:
        return str(self.args[0])


# --- what a request says ------------------------------------------------------------------------------------------


class InvalidPath(Refused):
    """A storage path that is not canonical, or cannot be made so; the text says which rule it breaks."""


class InvalidCapability(Refused):
    """A capability, or a list of them, that does not parse."""


class InvalidAuthToken(Refused):
    """A sign-in token that does not parse, is out of its time, is not signed by its key, or was seen before."""


class MalformedGrant(Refused):
    """A grant that cannot be read, or is not what it says; the text tells which rule it breaks."""


class InvalidSignupToken(Refused):
    """A signup token that does not have the form `XXXX-XXXX-XXXX`."""

    text = "Invalid signup token format: Invalid signup code id"


class InvalidCursor(Refused):
    """A cursor that names no position in a listing or a feed."""

    text = "Invalid cursor"


class InvalidRequest(Refused):
    """Anything else that a client must say differently; the text tells what."""


class InvalidBoolean(InvalidRequest):
    """A flag of a query that is neither true nor false."""

    text = "Invalid boolean parameter"


class UnprocessableRequest(Refused):
    """JSON of the wrong shape or with impossible values; the text tells where."""


class UnsupportedContentType(Refused):
    """A body that is not of the type that the route reads."""


class StreamBroken(Refused):
    """A body that ended before its announced end, or whose framing broke."""

    text = "Stream broken"


class BodyTooLarge(Refused):
    """A body above the limit of its route."""

    text = "Failed to buffer the request body: length limit exceeded"


# --- who is asking ------------------------------------------------------------------------------------------------


class NoSession(Refused):
    """Nobody is signed in, and the route needs somebody."""

    text = "No authenticated session found"


class Unauthorized(Refused):
    """Somebody is signed in, but not in the way that the route needs."""

    text = "Unauthorized"


class GrantRefused(Refused):
    """A grant or a proof of possession that lets nobody in: its signature, its time, its server, or it is revoked."""


class GrantRevoked(GrantRefused):
    """Its user, or its client, gave the grant back here."""

    text = "Grant has been revoked"


class GrantExpired(GrantRefused):
    """The grant's time is over."""

    text = "Grant has expired"


class Forbidden(Refused):
    """The session, or anybody, may not do this; the text tells why."""


class UserDisabled(Forbidden):
    """The operator disabled the account: it can be read but not written."""

    text = "User is disabled"


class WriteNotAllowed(Forbidden):
    """The operator allows this account to write elsewhere only."""

    text = "Write to this path is not allowed"


class GrantOfAnother(Forbidden):
    """The grant is known here as that of another user or another client."""

    text = "Grant does not belong to authenticated user"


class TakenDown(Refused):
    """The operator shows nothing of the account, nor takes anything for it."""

    text = "The operator of this homeserver has taken this account down"


class SignupTokenRequired(Refused):
    """Sign-up needs a token here, and none was given."""

    text = "Token required"


class SignupTokenUnknown(Refused):
    """Nobody made this signup token here."""

    text = "Invalid token"


class SignupTokenUsed(Refused):
    """Somebody signed up with this token already."""

    text = "Token already used"


# --- what is there ------------------------------------------------------------------------------------------------


class NotFound(Refused):
    """No such account, file or token."""

    text = "Not Found"


class DirectoryNotFound(NotFound):
    """No file lies below this folder."""

    text = "Directory Not Found"


class UserExists(Refused):
    """The key has an account here already."""

    text = "User already exists"


class Collision(Refused):
    """A path cannot be a file and a folder at once."""

    text = "File/folder path collision"


class PreconditionFailed(Refused):
    """The file is not in the state that the write asked for (`If-Match`, `If-None-Match`)."""

    text = "The file is not in the state that this write requires; read it again and retry"


class Locked(Refused):
    """Somebody holds the lock of the path."""

    text = "Resource is locked"


class LockLost(Refused):
    """Of the lock tokens that the request names none is that of a live lock on the path."""

    text = "The If header does not name the live lock on this path"


class LockUnknown(Refused):
    """There is no lock to give back: it is over, or was never there."""

    text = "No lock with this token on this path"


# --- what is left -------------------------------------------------------------------------------------------------


class QuotaExceeded(Refused):
    """The account has no room for this file."""

    text = "Disk space quota exceeded"


class StorageFull(Refused):
    """The machine has no room left: the reserve of the disk or of Redis' memory is reached."""

    text = "Server storage full"


class TooManyRequests(Refused):
    """A request limit is used up; `retry_after` (whole seconds) tells when to come back."""

    text = "Rate limit exceeded"

    def __init__(self, retry_after: int) -> None:
        super().__init__()
        self.retry_after = retry_after


class StoreAway(Refused):
    """Redis does not answer at the moment; nothing was acknowledged."""

    text = "The store is not available at the moment; try again"


class RevocationsAway(Refused):
    """It cannot be heard at the moment who signed out: nothing private is streamed."""

    text = "Private event streams are temporarily unavailable"


class NotThisProcess(Refused):
    """This process does nothing of the kind; the text tells why."""


# --- copies of other homeservers' accounts ------------------------------------------------------------------------


class NotPrimary(Refused):
    """A write to an account that lives at another homeserver."""

    def __init__(self, primary: str) -> None:
        super().__init__(f"This is a copy: the account lives at the homeserver {primary}, which takes its writes")
        self.primary = primary


class NotHereYet(Refused):
    """A copy does not have it yet, and cannot say that there is none."""

    text = "This copy is not complete yet; try again"


class NotOpenYet(Refused):
    """A copy that is about to become an account: what only an account can do has to wait for that."""

    text = "The account is about to move here: its newest record, or its newest files, are not here yet; try again"


class NotErased(Refused):
    """An order to erase a copy that does not fit what is here; the text tells how."""


class DigestMismatch(Exception):
    """After an event the files of a copy would not be those of its primary; nothing was changed."""


class PeerError(Exception):
    """What another homeserver says instead of what it was asked for, or that it says nothing."""


class PeerAway(PeerError):
    """It does not answer, or says that it cannot at the moment."""


class PeerRefused(PeerError):
    """It does not let us: we are no peer of it, or it does not offer the account."""


class PeerBroken(PeerError):
    """Its answer is not what the protocol says; nothing of it is used."""


class BudgetSpent(PeerError):
    """What the copies of its accounts may take here is used up."""

    def __init__(self) -> None:
        super().__init__("its copies take all that they may (max_bytes): raise that, or follow fewer accounts")


class LogForked(PeerError):
    """Its log is not a continuation of ours: one of us lost something. `reigns` are those of its log."""

    def __init__(self, reigns: "tuple[Reign, ...]" = ()) -> None:
        super().__init__("its history is another one than ours")
        self.reigns = reigns


class LogCompacted(PeerError):
    """Its log does not go back to where ours ends: lists must be compared."""


class ComparisonBraked(PeerError):
    """A comparison would remove more than it may without the operator. `removed`: how many files."""

    def __init__(self, removed: int) -> None:
        super().__init__(f"it lacks {removed} files that are here; the operator has to say whether they go")
        self.removed = removed


class BodyGone(PeerError):
    """It does not have a body that an event or a list of it named."""


class CannotStart(Exception):
    """Something on this machine that the operator must put right first; the text is one line that says what."""


class NewerSchema(CannotStart):
    """The data was written by a newer version of this program."""
