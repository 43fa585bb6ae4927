"""Copies of accounts that live on another homeserver, and where a log stands. Frozen, without behaviour.

An account has two logs, the public and the private one. Each event has the next number (`seq`) of its log and the
digest of the log's files after it, so two homeservers can tell in one question whether one's history is a beginning of
the other's.
"""

from attrs import field, frozen

from pubky_homeserver.core.records import Entry, Event


@frozen
class Reign:
    """The time of one primary over a log."""

    log_id: str
    """Random, 32 hex digits."""
    first: int
    """The number of its first event."""


@frozen
class Position:
    """A point in a log: after an event, or at the beginning."""

    log_id: str
    """Of the reign that the number belongs to."""
    seq: int
    event_id: int
    """Of the event with that number; 0 at the beginning."""
    digest: bytes


@frozen
class LogStanding:
    """Where a log stands, as its primary tells it."""

    position: Position
    reigns: tuple[Reign, ...]
    """All of them, the oldest first; the last one is that of `position`."""
    floor: int
    """The log is complete after this number."""
    used: int = 0
    """Bytes of the whole account, as quotas count them."""
    is_copy: bool = field(default=False, eq=False)
    """Whether it is the log of a copy: somebody else's, or one that is not open yet."""


@frozen
class LoggedEvent:
    """An event with its body, where that is small and still what the path holds."""

    event: Event
    body: bytes | None = field(default=None, repr=False)


@frozen
class Change:
    """A log that has new events."""

    pubky: str
    private: bool
    event_id: int
    """That of the newest one that was counted."""
    seq: int | None
    """The number of its newest event, which may be a newer one; None if the account does not live here any more."""


@frozen
class Known:
    """All that an answer to a question for events needs, as it was at one moment."""

    packet: bytes | None
    """The newest of the account, without its key."""
    standing: LogStanding | None
    """As `ILogStore.standing` says it."""
    events: tuple[LoggedEvent, ...] = ()


@frozen
class Logged:
    """A page of a log's events, and under whom they were written."""

    reigns: tuple[Reign, ...]
    """All of the log, the oldest first."""
    events: tuple[LoggedEvent, ...]
    """Ascending."""
    end: int | None = None
    """The number of the log's newest event when this was read; None if the peer does not say."""


@frozen
class Question:
    """What a log has after a position."""

    pubky: str
    private: bool
    position: Position


@frozen
class CopiedLog:
    """How far a copy of one log is."""

    position: Position | None = None
    """The last event that was applied; while the list is read, from `start` on. None before its first list."""
    reigns: tuple[Reign, ...] = ()
    start: Position | None = None
    """Where the primary stood when the list was begun: events after that are replayed onto it. None if none is read."""
    listed: str = ""
    """The last path of the list that was kept."""
    is_whole: bool = False
    """Whether the list is whole: before, a path that is missing here may exist."""
    confirmed: int = 0
    """When the primary last said that it stands where we do, by our clock (microseconds); 0 for never."""
    is_compared: bool = False
    """Whether the list that is read is that of a log which was whole: what it replaces is shelved."""


@frozen
class Copy:
    """An account of another homeserver, kept here."""

    pubky: str
    primary: str
    """The homeserver that is followed, z-base-32."""
    begun: int
    used: int
    """Bytes: the sum over all files of their length and 256."""
    missing: int
    """Files whose body is not here yet."""
    public: CopiedLog
    private: CopiedLog
    """As it begins if the private log is not followed."""
    absent: int = 0
    """Bytes of the bodies that are not here yet; `used` counts them."""
    claimed: int = 0
    """When the user signed up here; nothing moves before their record names us. 0 if they did not."""
    braked: int = 0
    """Files that a comparison with the primary would remove, more than it may without the operator; 0 if none would."""
    permitted: int = 0
    """Files that the operator lets the next comparison remove."""
    verified: int = 0
    """When its bodies and its list were last found to be right, by our clock (microseconds); 0 for never."""
    taken_down: bool = False
    """Whether its log says that the operator of its homeserver has taken the account down."""
    owes: bool = False
    """Whether its private log is that of an account which left us, and which its new primary may lack."""
    beside: int = 0
    """Bytes that its events take, and what is no file, with 256 for each: no quota counts them, but they are here."""

    @property
    def held(self) -> int:
        """Bytes that it takes here."""
        return self.used - self.absent + self.beside


@frozen
class Listed:
    """A page of a log's files, and where the log stood when it was read."""

    entries: tuple[Entry, ...]
    """In byte order of their paths, without bodies."""
    standing: LogStanding


@frozen
class Offered:
    """An account that a homeserver lets us follow."""

    pubky: str
    term: int
    """The timestamp of the packet that makes it the primary; 0 if it has none."""
    public: LogStanding
    private: LogStanding | None = None
    """None if only the public log is offered."""


@frozen
class Held:
    """How far a homeserver is with its copy of an account, as it says itself."""

    pubky: str
    public: int
    """The number of the last event that it has of the public log."""
    private: int | None
    """The same of the private one; None if it has none."""
    missing: int
    """Bodies that it has not."""


@frozen
class Hint:
    """A log that has changed, as a peer says."""

    pubky: str
    private: bool
    seq: int | None
    """The number of its newest event then; None if the peer does not say."""
