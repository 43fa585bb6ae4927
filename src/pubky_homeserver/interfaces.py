"""The ports of the house: what it needs from outside. Each has two real implementations and one contract test suite.

All methods that return coroutines raise `core.errors.StoreAway` while the store cannot be reached; then nothing was
acknowledged, though it may have happened.
"""

# mypy: disable-error-code="empty-body"

from collections.abc import AsyncIterator, Callable, Iterable, Sequence

from zope.interface import Attribute, Interface

from pubky_homeserver.core.copies import Copy, Hint, Listed, LoggedEvent, LogStanding, Offered, Position
from pubky_homeserver.core.records import (
    Account,
    Entry,
    Event,
    KeptGrant,
    Lock,
    LogState,
    Session,
    SignupToken,
    TokenState,
    Totals,
)


class IAccountStore(Interface):
    """Accounts and the tokens that let people sign up."""

    async def sign_up(account: Account, session: Session | None, token: str | None, token_required: bool) -> None:
        """Make an account, spend the token, keep the first session: one atomic step.

        Raises, in this order: `UserExists` (also for a copy); and if a token is required `SignupTokenRequired` (none
        given), `SignupTokenUnknown`, `SignupTokenUsed`. A token that is not required is left alone. The quota of a
        spent token becomes the account's.
        """

    async def account(pubky: str) -> Account | None:
        """The account of a key."""

    async def set_disabled(pubky: str, disabled: bool) -> None:
        """Shut or open an account for writing. Raises `NotFound`."""

    async def log_state(pubky: str, private: bool) -> LogState | None:
        """Where the account's public or private log stands."""

    async def accounts(after: int, limit: int) -> tuple[list[str], int | None]:
        """Up to `limit` (at most 500) accounts in the order of sign-up, and where to go on; None at the end.

        `after`: where the page before said to go on, 0 for the first one.
        """

    async def totals() -> Totals:
        """Numbers over all accounts."""

    async def add_signup_token(token: SignupToken) -> None:
        """Keep a new token."""

    async def signup_token(token: str) -> SignupToken | None:
        """A token by its exact text."""

    async def signup_tokens(state: TokenState, after: str, limit: int) -> list[SignupToken]:
        """Up to `limit` (at most 1001) tokens with a text above `after`, ascending."""


class ISessionStore(Interface):
    """Sessions by the hash of their secret, and the sign-in tokens that were seen."""

    async def burn(token_id: bytes, lifetime: int) -> bool:
        """Remember a sign-in token for `lifetime` seconds; False if it is remembered already."""

    async def sign_in(session: Session) -> None:
        """Keep a session. Raises `NotFound` without an account."""

    async def session(session_id: str) -> Session | None:
        """The session with this id."""

    async def sign_out(session_id: str) -> bool:
        """Forget a session; False if there was none."""

    def hear_revocations(hear: Callable[[str | None], None]) -> Callable[[], None]:
        """Call `hear` with each credential that is revoked, in whatever process; returns the way to stop.

        A credential is what `Session.credential` says. None: some may have been missed, and more will be, until
        `hears_revocations` is true again.
        """

    def hears_revocations() -> bool:
        """Whether revocations are heard at the moment."""


class IGrantStore(Interface):
    """Grants that were exchanged here, and the one live bearer of each."""

    async def grant(grant_id: str) -> KeptGrant | None:
        """A grant by its id."""

    async def exchange(kept: KeptGrant, bearer_id: str, now: int, lifetime: int) -> Session:
        """Keep a grant if its id is new, and let it have this bearer only: one atomic step.

        `now`: Unix seconds; `lifetime`: seconds of the bearer, at most until the grant is over. Returns the bearer's
        session: what counts is the grant as it was first kept. Raises, in this order: `NotFound` (no account),
        `GrantOfAnother` (the id is known with another user or client key), `GrantRevoked`, `GrantExpired`.
        """

    async def bearer(bearer_id: str) -> Session | None:
        """The session of a bearer whose grant is not revoked. Its time may be over."""

    async def grants(pubky: str) -> list[KeptGrant]:
        """All grants of an account that are not revoked, in the order in which they came; some may have expired."""

    async def revoke(grant_id: str) -> None:
        """Revoke a grant for good, and forget its bearer. Harmless for one that is unknown or revoked."""


class IPacketStore(Interface):
    """The newest signed packet (PKARR) of each account, so that it outlives the memory of the network.

    A packet is 64 bytes of signature, 8 of timestamp, up to 1000 of DNS message. Who keeps one has verified it.
    """

    async def packet(pubky: str) -> bytes | None:
        """The packet of an account."""

    async def keep_packet(pubky: str, packet: bytes) -> bool:
        """Keep a packet; False, and nothing happens, if the one kept is as recent or more recent.

        The later timestamp is more recent, of two equal ones the larger message. Raises `NotFound` (no account).
        """


class IEntryStore(Interface):
    """The files of all accounts: entries, listings, events. Paths are canonical."""

    async def entry(pubky: str, path: str) -> Entry | None:
        """The entry at a path, small body included."""

    async def check_put(
        pubky: str, path: str, length: int | None, default_limit: int | None, tokens: Sequence[str] | None = ()
    ) -> None:
        """Raise, in the same order, what `put` would raise whatever the body is; `length` is None if not announced."""

    async def put(
        pubky: str,
        entry: Entry,
        default_limit: int | None,
        announced: bool,
        if_match: Sequence[str] | None = None,
        if_none_match: bool = False,
        tokens: Sequence[str] | None = (),
    ) -> Event:
        """Make `entry` what its path holds: entry, usage, event, digest in one atomic step.

        `default_limit`: bytes that an account without its own quota may use, None for no limit. `announced`: the client
        told the length before, then the quota is checked first. `if_match`: entity tags (quoted base64 of the hash),
        one of which must be the current one (`*`: any); `if_none_match`: there must be no entry.

        `tokens`: those of locks that the write names. The live lock of the path is *held* by a write that names it: it
        lives `HELD_SECONDS` from then on, at least. None: the path was found free when the write began (`check_put`),
        and a lock that somebody took since does not stop it.

        Raises, in this order: `NotFound` (no account), `UserDisabled`, `QuotaExceeded` (if announced), `Locked` (no
        tokens, and a live lock), `LockLost` (tokens, and none is the live lock's), `WriteNotAllowed`, `Collision`,
        `PreconditionFailed`, `QuotaExceeded`. The blob of a replaced entry gets its grace, and if the write is refused
        the new one stays an orphan for the sweep.
        """

    async def check_delete(pubky: str, path: str, tokens: Sequence[str] | None = ()) -> None:
        """Raise what `delete` would raise, conditions aside."""

    async def delete(
        pubky: str, path: str, if_match: Sequence[str] | None = None, tokens: Sequence[str] | None = ()
    ) -> Event:
        """Remove the entry at a path; conditions and tokens as in `put`.

        Raises, in this order: `NotFound` (no account), `Locked`, `LockLost`, `NotFound` (no entry), `WriteNotAllowed`,
        `PreconditionFailed`.
        """

    async def listing(pubky: str, directory: str, after: str, limit: int, reverse: bool, shallow: bool) -> list[str]:
        """Up to `limit` (at most 1000) paths below a directory in byte order, strictly after `after` (empty: all).

        `shallow`: direct children only, folders once with a trailing slash. Raises `DirectoryNotFound` if nothing lies
        below the directory.
        """

    async def events(after: int, limit: int, private: bool) -> list[Event]:
        """Up to `limit` (at most 1000) events of all accounts with an id above `after`, ascending.

        `private`: those of private paths too.
        """

    async def account_events(
        pubky: str, after: int | None, limit: int, reverse: bool, public: bool, private: bool
    ) -> list[Event]:
        """Up to `limit` (at most 1000) events of one account beyond `after`, ascending, or descending if `reverse`.

        `after` None: from the end where reading starts.
        """

    async def has_event(event_id: int) -> bool:
        """Whether any account has an event with exactly this id."""

    async def last_event_id() -> int:
        """The newest event id of all; 0 before the first."""

    def subscribe(wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` soon after events were added; returns the way to stop.

        It is a hint: it may come late, twice or not at all.
        """

    async def known_blobs(blobs: Iterable[str]) -> set[str]:
        """Those of these blobs that an entry or a running grace refers to."""

    async def expired_blobs(now: int, limit: int) -> list[str]:
        """Replaced and deleted blobs whose grace is over."""

    async def forget_blobs(blobs: Iterable[str]) -> None:
        """Drop the memory of expired blobs, after their files are gone."""


class ILogStore(Interface):
    """The logs of the accounts that live here, for homeservers that follow them."""

    async def standings(after: int, limit: int) -> tuple[list[tuple[str, LogStanding, LogStanding]], int | None]:
        """Up to `limit` (at most 500) accounts in the order of sign-up: pubky, public and private log.

        `after` and what is returned besides: as in `IAccountStore.accounts`.
        """

    async def standing(pubky: str, private: bool) -> LogStanding | None:
        """Where one log stands; None without an account."""

    async def event(pubky: str, private: bool, event_id: int) -> Event | None:
        """The event of a log with exactly this id."""

    async def event_numbered(pubky: str, private: bool, seq: int) -> Event | None:
        """The event of a log with this number, if the log still has it."""

    async def logged(pubky: str, private: bool, after: int, limit: int) -> list[LoggedEvent]:
        """Up to `limit` (at most 1000) events of a log with an id above `after`, ascending."""

    async def listed(pubky: str, private: bool, after: str, limit: int) -> Listed | None:
        """Up to `limit` (at most 500) files of a log with a path above `after`, in byte order, with its standing.

        Read in one step, so that no write lies between page and standing. None without an account.
        """


class ICopyStore(Interface):
    """Copies of accounts of other homeservers. Their files and events lie where those of an account do.

    A copy is no account: none of the other ports knows it, and its events are in no feed of all accounts. Only `entry`,
    `listing` and `account_events` of `IEntryStore` read what it has, and the sweep of blobs spares it.

    What adds files or bodies raises `StorageFull` where a write of a user would. Files of another log than the one that
    is named, and pages out of order, are a mistake of the caller's: `ValueError`.
    """

    async def begin(pubky: str, primary: str, now: int) -> None:
        """Begin a copy; one that is there goes on, with this primary. Raises `UserExists` if an account lives here."""

    async def copy(pubky: str) -> Copy | None:
        """The copy of an account."""

    async def copies(after: str, limit: int) -> list[Copy]:
        """Up to `limit` (at most 500) copies with a pubky above `after`, ascending."""

    async def begin_list(pubky: str, private: bool, start: LogStanding) -> None:
        """Begin to read the list of files: of a log that has no position yet, or that differs from its primary's.

        The log has the position and the reigns of `start` then, and is complete after it: the events before are
        forgotten, for nobody knows which of them the primary has too. Entries that are here stay; the list is not whole
        until `end_list`. Raises `NotFound`.
        """

    async def keep_listed(pubky: str, private: bool, entries: Sequence[Entry], upto: str) -> None:
        """Keep a page of the list, in byte order: all that the primary has between `listed` and `upto`.

        An entry that differs is replaced, and is without body unless its hash is that of the one before; entries of
        ours between these paths that are not in the page go. `upto` is the path of the last one, or at the end of the
        list a text that no path is above. Bytes, digest and missing bodies move along, and `listed` becomes `upto`, in
        one step for each 250 entries, of the page or of ours. What is not above `listed` is skipped, and nothing
        happens if no list is being read. Raises `NotFound`.
        """

    async def end_list(pubky: str, private: bool, standing: LogStanding) -> bool:
        """Be whole at `standing`, where the list was read to its end or later, with the reigns there.

        False, and nothing happens, unless the last applied event is the one there, and our digest the one there. Raises
        `NotFound`.
        """

    async def apply(pubky: str, private: bool, event: Event, entry: Entry | None) -> bool:
        """Apply the next event of the log and move to it: one atomic step; `entry` brings the body of a PUT.

        False, and nothing happens, unless the event's number is the next one and its id above the last one's: so
        replays do no harm. The digest after it must be the event's: else `DigestMismatch`, and nothing happens. The
        entry of a PUT without body keeps the one of the entry before if the hash is the same, else it is counted as
        missing. The blob of an entry that it replaces or removes gets its grace. Raises `NotFound`.

        While the list is read the event is noted and the position moves, whatever the digest; but the path is left
        alone if it is above `listed`, for the list comes to it yet, or if its entry has a larger number, for the page
        that it was in was read after the event. A blob that is brought to a path that is left alone stays an orphan for
        the sweep.
        """

    async def confirm(pubky: str, private: bool, position: Position, now: int) -> bool:
        """Note that the primary stands where we do. False if we stand elsewhere by now, or the list is not whole."""

    async def missing(pubky: str, after: str, limit: int) -> list[Entry]:
        """Up to `limit` (at most 500) entries without body with a path above `after`, ascending."""

    async def fill(pubky: str, entry: Entry) -> bool:
        """Give an entry its body, small or as a blob. Whether it has that one then, also from an earlier call.

        False if the path holds something else by now, or has a body from elsewhere.
        """

    async def forget(pubky: str, limit: int) -> bool:
        """Remove up to `limit` (at most 500) entries of a copy, at last the copy. Whether it is gone.

        What is left of a copy in between has no positions, as before its first list.
        """


class IPeer(Interface):
    """A trusted homeserver whose accounts are followed.

    Every method may raise `PeerAway`, `PeerRefused` and `PeerBroken`. What it says is bounded and has the right shape;
    whether it is true is for the caller to see.
    """

    key: str = Attribute("Its public key, z-base-32.")

    async def offered(after: str) -> tuple[list[Offered], str | None]:
        """A page of the accounts that it is primary of and offers, and where to go on; None at the end."""

    async def packet(pubky: str) -> bytes | None:
        """The newest signed packet of a key that it knows: signature, timestamp, DNS message; not verified."""

    async def changes(hear: Callable[[Hint | None], None], beat: Callable[[], None]) -> None:
        """Hear of changes of all offered accounts until the stream ends, which it does only by a failure.

        None comes first: every change after it gets a hint, which may come late or twice. `beat` is called every few
        seconds, when all that changed before was hinted at.
        """

    async def events(pubky: str, private: bool, position: Position) -> list[LoggedEvent]:
        """Up to 1000 events after a position of ours, ascending. Raises `LogForked` and `LogCompacted`."""

    async def entries(pubky: str, private: bool, after: str) -> Listed:
        """A page of a log's files with a path above `after`, and where the log stood then; empty at the end."""

    async def body(pubky: str, private: bool, path: str, content_hash: bytes) -> AsyncIterator[bytes]:
        """The body that a path has, or had not long ago, in pieces; not verified. Raises `BodyGone`."""


class ILockStore(Interface):
    """Locks by account and path. A lock whose time is over is as if it had never been."""

    async def lock(pubky: str, path: str, lock: Lock) -> None:
        """Keep a new lock for its seconds. Raises `Locked`, also to whoever holds the live one."""

    async def refresh(pubky: str, path: str, tokens: Sequence[str], seconds: int) -> Lock:
        """Let the lock that one of the tokens names live so long from now on. Raises `LockLost`."""

    async def hold(pubky: str, path: str, tokens: Sequence[str]) -> None:
        """Let it live `HELD_SECONDS` from now on, at least. Raises `LockLost`."""

    async def unlock(pubky: str, path: str, token: str) -> None:
        """End the lock with this token. Raises `LockUnknown`."""


class IBlobWriter(Interface):
    """A body on its way to the disk."""

    async def write(chunk: bytes) -> None:
        """Append. Raises `StorageFull`."""

    async def keep() -> str:
        """Make it durable and immutable (fsync, rename, fsync of the folder); returns the blob's id."""

    async def discard() -> None:
        """Leave nothing behind. Harmless after `keep` or twice."""


class IBlobReader(Interface):
    """An open body; stays readable when its blob is removed."""

    length: int = Attribute("Bytes in all.")

    def at_hand(offset: int, size: int) -> memoryview | None:
        """Up to `size` bytes from `offset` that need no waiting, good until anybody's next call; empty at the end.

        None: they have to be waited for, with `read`.
        """

    async def read(offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; empty at the end."""

    def close() -> None:
        """Give the file back."""


class IBlobStore(Interface):
    """Immutable bodies under random ids."""

    def has_room() -> bool:
        """Whether there is more free space than the reserve; cheap enough for every write."""

    async def create() -> IBlobWriter:
        """Begin a body. Raises `StorageFull` when the reserve is reached."""

    async def open(blob: str) -> IBlobReader | None:
        """Open a body; None if it is not here."""

    async def remove(blobs: Iterable[str]) -> None:
        """Remove bodies that are there."""

    async def older_than(seconds: float, after: str, limit: int) -> list[str]:
        """Up to `limit` ids above `after` (empty: all), ascending, of the bodies kept longer ago than that."""
