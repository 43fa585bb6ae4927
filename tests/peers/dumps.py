"""Dumps of stores in memory: what lies there, as plain facts. It reads, and asks the store for nothing."""

from attrs import frozen
from blake3 import blake3

from pubky_homeserver.core.records import Entry, Event, Operation
from pubky_homeserver.store.memory import MemoryStore
from pubky_homeserver.testing import MemoryBlobs
from tests.peers.worlds import World

OVERHEAD = 256
"""Bytes that a file costs besides its own (mirroring.md)."""

Point = tuple[int, int, bytes]
"""Where a log stands: the number, the id and the digest of its last event."""

EMPTY = bytes(16)


@frozen
class Log:
    """One log of an account or a copy."""

    at: Point | None
    """None if it is not followed."""
    log_id: str
    is_whole: bool
    floor: int
    events: tuple[Event, ...]
    """Ascending."""
    digest: bytes
    """Of the files that are there."""

    @property
    def points(self) -> set[Point]:
        """All that it has stood at, as far as it knows."""
        return {(event.seq, event.id, event.digest) for event in self.events} | ({self.at} if self.at else set())


@frozen
class Dump:
    """An account as it is in one store."""

    is_home: bool
    """Whether it takes writes there; else it is a copy."""
    primary: str
    """The homeserver that a copy follows."""
    claimed: int
    braked: int
    entries: dict[str, Entry]
    """Files by their paths, and what is no file by its name."""
    logs: dict[bool, Log]
    used: int | None
    """Bytes, as the store counts them; None if it does not keep count."""
    shelf: frozenset[tuple[str, bytes | None]]
    """Paths and hashes of what lies there; no hash for a removal."""

    @property
    def files(self) -> dict[str, Entry]:
        """Those that lie at a path."""
        return {path: entry for path, entry in self.entries.items() if path.startswith("/")}

    def hash_at(self, path: str) -> bytes | None:
        """Of what a path holds; None if that is nothing."""
        entry = self.entries.get(path)
        return None if entry is None else entry.content_hash


@frozen
class Seen:
    """An account at a node, at a moment."""

    dump: Dump | None
    record: tuple[int, str]
    """When the newest record was signed that the node knows (microseconds), and the node that it names."""
    process: int
    """How many processes there were."""
    rewound: int
    """How often its store was rewound."""
    at: float


def dump(store: MemoryStore, pubky: str) -> Dump | None:
    """One account; None if nothing is there of it."""
    home, copied = store._accounts.get(pubky), store.copies._copies.get(pubky)
    things = store.shelf._things.get(pubky, {}).values()
    shelf = frozenset((one.path, None if one.entry is None else one.entry.content_hash) for one in things)
    if home is not None and home.away is None:
        files, logs = home.files, {}
        for private, log in home.logs.items():
            at = (log.seq, log.event_id, log.digest)
            events = _events(files.events, private)
            logs[private] = Log(at, log.log_id, True, log.floor, events, _digest(files.entries, private))
        return Dump(True, "", 0, 0, {**files.entries}, logs, home.account.used, shelf)
    if copied is None:
        return None
    files, logs = copied.files, {}
    for private, one in copied.logs.items():
        position = one.state.position
        place = None if position is None else (position.seq, position.event_id, position.digest)
        log_id = "" if position is None else position.log_id
        events = _events(files.events, private)
        logs[private] = Log(place, log_id, one.state.is_whole, one.floor, events, _digest(files.entries, private))
    primary, claimed, braked = copied.primary, copied.claimed, copied.braked
    return Dump(False, primary, claimed, braked, {**files.entries}, logs, None, shelf)


def words(there: Dump | None, world: World) -> str:
    """A dump in a few words."""
    if there is None:
        return "nothing"
    logs = [
        f"{log.log_id[:4]} {log.at[0] if log.at else '-'}{'' if log.is_whole else '?'}" for log in there.logs.values()
    ]
    kind = "the account" if there.is_home else f"a copy of {world.name_of(there.primary)}'s"
    more = " claimed" * bool(there.claimed) + " braked" * bool(there.braked)
    return f"{kind}{more} ({'; '.join(logs)}; {len(there.files)} files, {len(there.shelf)} shelved)"


def body_of(entry: Entry, blobs: MemoryBlobs) -> bytes | None:
    """The body of a file, if it is there."""
    if entry.body is not None or entry.blob is None:
        return entry.body
    kept = blobs._kept.get(entry.blob)
    return None if kept is None else kept.body


def shelves(world: World, pubky: str) -> set[tuple[str, bytes | None]]:
    """What lies on all shelves of an account: paths and hashes, no hash for a removal."""
    things = [one for node in world.nodes.values() for one in node.store.shelf._things.get(pubky, {}).values()]
    return {(one.path, None if one.entry is None else one.entry.content_hash) for one in things}


def hash_of(body: bytes | None) -> bytes | None:
    """What an entry says of its body; None of nothing."""
    return None if body is None else blake3(body).digest()


def is_filled(entry: Entry) -> bool:
    """Whether the body of an entry is there."""
    return entry.body is not None or entry.blob is not None


def holds(there: Dump, path: str, content_hash: bytes | None) -> bool:
    """Whether a write is in a store, so that others can get it from there; no hash for a removal."""
    log = there.logs[path.startswith("/priv/")]
    if (path, content_hash) in there.shelf or not log.is_whole:
        return (path, content_hash) in there.shelf
    entry = there.entries.get(path)
    if content_hash is not None:
        return entry is not None and entry.content_hash == content_hash and is_filled(entry)
    newest = [event.operation for event in log.events if event.path == path][-1:]
    return entry is None and newest == [Operation.DEL]


def _events(events: list[Event], private: bool) -> tuple[Event, ...]:
    return tuple(event for event in events if event.path.startswith("/priv/") is private)


def _digest(entries: dict[str, Entry], private: bool) -> bytes:
    """The XOR of the marks of all entries, as mirroring.md says it; not as the code under test does."""
    total = 0
    for path, entry in entries.items():
        if path.startswith("/priv/") is private:
            numbers = entry.length.to_bytes(8, "big") + entry.modified.to_bytes(8, "big")
            facts = entry.content_hash + numbers + entry.content_type.encode()
            total ^= int.from_bytes(blake3(path.encode() + b"\0" + facts).digest()[:16], "big")
    return total.to_bytes(16, "big")
