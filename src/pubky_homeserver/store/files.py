"""Files in memory: of an account or of a copy, in the order of their paths, with what happened to them."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Sequence
from itertools import pairwise
from secrets import token_hex

from attrs import define, field

from pubky_homeserver.core.copies import Reign
from pubky_homeserver.core.digests import EMPTY, mark
from pubky_homeserver.core.paths import PUBLIC, is_private
from pubky_homeserver.core.records import Account, Entry, Event, LogState


@define
class Files:
    """The files of one person."""

    entries: dict[str, Entry] = field(factory=dict)
    # Path → entry.
    paths: list[str] = field(factory=list)
    # The same paths in order; the order of code points is that of the bytes of UTF-8.
    events: list[Event] = field(factory=list)
    # Of both logs, ascending.

    def keep(self, entry: Entry) -> Entry | None:
        """Let a path hold an entry; returns the one before."""
        old = self.entries.get(entry.path)
        if old is None:
            insort(self.paths, entry.path)
        self.entries[entry.path] = entry
        return old

    def remove(self, path: str) -> Entry:
        """Let a path hold nothing; returns what it held."""
        del self.paths[bisect_left(self.paths, path)]
        return self.entries.pop(path)

    def below(self, directory: str) -> list[str]:
        """The paths that begin with a directory; `0` is the character after the slash."""
        return self.paths[bisect_left(self.paths, directory) : bisect_left(self.paths, directory[:-1] + "0")]

    def after(self, path: str) -> list[str]:
        """The paths above one."""
        return self.paths[bisect_right(self.paths, path) :]


@define
class Home:
    """An account with all that is its own."""

    account: Account
    files: Files = field(factory=Files)
    logs: dict[bool, LogState] = field(factory=lambda: {False: _new_log(), True: _new_log()})
    # Whether it is the private one → log. Of an account that is away: where it stood when it was shut.
    past: dict[bool, tuple[Reign, ...]] = field(factory=lambda: {False: (), True: ()})
    # Whether it is the private log → its reigns before the one that rules.
    first: dict[bool, int] = field(factory=lambda: {False: 1, True: 1})
    # Whether it is the private log → where that one begins.
    away: str | None = None
    """The homeserver where the account lives; None if that is here."""
    admitted: int = 0
    """When it was opened here, microseconds; 0 for never."""
    before: list[str] = field(factory=list)
    """Where it lived before it opened here."""
    missing: int = 0
    """Files whose body is not here."""
    verified: int = 0
    """When all its bodies were last found to be right."""

    def reigns(self, private: bool) -> tuple[Reign, ...]:
        """Of one log."""
        return (*self.past[private], Reign(self.logs[private].log_id, self.first[private]))


@define(eq=False)
class Blobs:
    """Which blobs are in use: an entry refers to them, or the grace of a replaced or deleted one runs."""

    now: Callable[[], int]
    grace: int
    """Seconds."""
    _known: set[str] = field(factory=set, init=False)
    _graces: dict[str, int] = field(factory=dict, init=False)
    # Blob → when its grace is over.
    _named: dict[tuple[str, str, bytes], str] = field(factory=dict, init=False)
    # Account, path, hash → blob whose grace runs.

    def use(self, entry: Entry) -> None:
        """An entry refers to its blob, if it has one."""
        if entry.blob is not None:
            self._known.add(entry.blob)

    def retire(self, entry: Entry, at_once: bool = False, pubky: str | None = None) -> None:
        """Begin the grace of the blob of an entry that is gone, if it has one; `at_once`: it is over already.

        `pubky`: whose it was, so that it is found by path and hash; None if it shall not be found.
        """
        if entry.blob is None:
            return
        self._graces[entry.blob] = self.now() + (0 if at_once else self.grace * 1_000_000)
        if pubky is not None:
            self._named[pubky, entry.path, entry.content_hash] = entry.blob

    def in_grace(self, pubky: str, path: str, content_hash: bytes) -> str | None:
        """The blob that a path had, if its grace runs."""
        return self._named.get((pubky, path, content_hash))

    def known(self, blobs: set[str]) -> set[str]:
        """Those of the blobs that are in use."""
        return self._known & blobs

    def expired(self, now: int) -> list[str]:
        """Those whose grace is over."""
        return [blob for blob, until in self._graces.items() if until <= now]

    def forget(self, blob: str) -> None:
        """Drop the memory of a blob in its grace."""
        if self._graces.pop(blob, None) is not None:
            self._known.discard(blob)
            self._named = {name: one for name, one in self._named.items() if one != blob}


def mark_of(entry: Entry) -> bytes:
    """The mark of an entry in its log's digest."""
    return mark(entry.path, entry.content_hash, entry.length, entry.modified, entry.content_type)


def written(event: Event, entry: Entry | None) -> Entry:
    """The entry that a PUT leaves, with the body that `entry` brings, if it brings one."""
    assert event.content_hash is not None
    return Entry(
        event.path,
        event.content_hash,
        event.length,
        event.content_type,
        event.modified,
        entry.body if entry else None,
        entry.blob if entry else None,
        event.seq,
    )


def check_log(path: str, private: bool) -> None:
    """Raise `ValueError` unless a path belongs to a log."""
    if is_private(path) is not private or (path < PUBLIC and not private):
        raise ValueError("a path of another log")


def check_page(entries: Sequence[Entry], private: bool) -> None:
    """Raise `ValueError` unless these are files of a log, in the order of their paths."""
    for entry in entries:
        check_log(entry.path, private)
    if not all(one.path < other.path for one, other in pairwise(entries)):
        raise ValueError("paths out of order")


def log_of(reigns: Sequence[Reign], seq: int) -> str:
    """The log id of the newest reign that a position after a number may belong to."""
    return next((reign.log_id for reign in reversed(reigns) if reign.first <= seq + 1), reigns[0].log_id)


def check_reigns(known: Sequence[Reign], reigns: Sequence[Reign], seq: int) -> None:
    """Raise `ValueError` unless reigns go on from those that are known, after a number."""
    further = reigns[len(known) :]
    if tuple(reigns[: len(known)]) != tuple(known) or any(reign.first <= seq for reign in further):
        raise ValueError("reigns of another log")


def _new_log() -> LogState:
    return LogState(log_id=token_hex(16), seq=0, event_id=0, digest=EMPTY, floor=0)
