"""What the tests of copies talk about: files, events and standings of a primary, and all that is known of a copy."""

from typing import Any

from attrs import evolve

from pubky_homeserver.core.copies import Copy, LogStanding, Position, Reign
from pubky_homeserver.core.digests import EMPTY, fold, mark
from pubky_homeserver.core.errors import DirectoryNotFound
from pubky_homeserver.core.records import Entry, Event, Operation
from tests.contract.store import ALICE, Store, entry

PRIMARY, OTHER = "p" * 52, "q" * 52
NOW = 1_764_000_000_000_000
END = "\U0010ffff"
"""No path is above it."""

LOG_ID = "ab" * 16
BLOBS = [f"{number:032x}" for number in range(10)]


def standing(seq: int = 0, event_id: int = 0, digest: bytes = EMPTY) -> LogStanding:
    """Where a primary stands."""
    return LogStanding(Position(LOG_ID, seq, event_id, digest), (Reign("cd" * 16, 1), Reign(LOG_ID, 1)), 0)


def bare(path: str, body: bytes = b"hello", seq: int = 1, **other: Any) -> Entry:
    """A file as a list names it."""
    return evolve(entry(path, body, **other), body=None, seq=seq)


def mark_of(one: Entry) -> bytes:
    """Its mark."""
    return mark(one.path, one.content_hash, one.length, one.modified, one.content_type)


def digest_of(*entries: Entry) -> bytes:
    """The digest of a log with these files."""
    return fold(EMPTY, *map(mark_of, entries))


def event_of(one: Entry, event_id: int, digest: bytes, pubky: str = ALICE) -> Event:
    """The event that wrote an entry."""
    return Event(
        event_id, Operation.PUT, pubky, one.path, one.seq, digest, one.content_hash, one.length, one.content_type,
        one.modified,
    )  # fmt: skip


def deletion(path: str, seq: int, event_id: int, digest: bytes) -> Event:
    """The event that removed a path."""
    return Event(event_id, Operation.DEL, ALICE, path, seq, digest)


async def copy_of(store: Store, pubky: str = ALICE) -> Copy:
    """The copy of an account."""
    found = await store.copies.copy(pubky)
    assert found is not None
    return found


async def listing(store: Store, directory: str = "/pub/") -> list[str]:
    """The paths of a copy."""
    try:
        return await store.listing(ALICE, directory, "", 1000, False, False)
    except DirectoryNotFound:
        return []


async def begin_whole(store: Store, private: bool = False, packet: bytes | None = None) -> None:
    """Begin a copy with a log that is whole and has no files."""
    await store.copies.begin(ALICE, PRIMARY, NOW, packet)
    await store.copies.begin_list(ALICE, private, standing())
    await store.copies.keep_listed(ALICE, private, (), END)
    assert await store.copies.end_list(ALICE, private, standing())


async def state_of(store: Store) -> Any:
    """All that can be read of a copy."""
    paths = await listing(store) + await listing(store, "/priv/")
    return (
        await store.copies.copy(ALICE),
        [await store.entry(ALICE, path) for path in paths],
        await store.account_events(ALICE, None, 1000, False, True, True),
        await store.copies.missing(ALICE, "", 500),
        await store.known_blobs(BLOBS),
        sorted(await store.expired_blobs(2**53 - 1, 500)),
    )
