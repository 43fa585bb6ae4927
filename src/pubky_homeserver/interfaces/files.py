"""The ports of files: entries and their events, locks, bodies."""

# mypy: disable-error-code="empty-body"

from collections.abc import Callable, Iterable, Sequence

from zope.interface import Attribute, Interface

from pubky_homeserver.core.records import Entry, Event, Lock


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

        `private`: those of private paths too. Never of what is no file (`core/paths.py`).
        """

    async def account_events(
        pubky: str, after: int | None, limit: int, reverse: bool, public: bool, private: bool
    ) -> list[Event]:
        """Up to `limit` (at most 1000) events of one account beyond `after`, ascending, or descending if `reverse`.

        `after` None: from the end where reading starts. Never of what is no file.
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


class ILockStore(Interface):
    """Locks by account and path. A lock whose time is over is as if it had never been.

    Of an account that is away none is taken and none lives longer: `NotPrimary`. They can be given back.
    """

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
        """Open a body; None if it is not here. Raises `StoreAway` if no body at all is."""

    async def remove(blobs: Iterable[str]) -> None:
        """Remove bodies that are there."""

    async def older_than(seconds: float, after: str, limit: int) -> list[str]:
        """Up to `limit` ids above `after` (empty: all), ascending, of the bodies kept longer ago than that."""
