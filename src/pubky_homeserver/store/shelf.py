"""The conflict shelf, in Redis and in memory.

A thing is a member of the sorted set of its account, all with score 0: id, NUL, packed thing.

    thing   reason 1 | origin 52 | shelved 7 | written 7 | length of the entry 4 | of the other entry 4 | both | path

An entry is packed as in the account (`packing.py`), without its path; a length of 0 is none.
"""

from collections.abc import Callable
from struct import Struct

from attrs import define, field, frozen
from zope.interface import implementer

from pubky_homeserver.core.errors import StorageFull
from pubky_homeserver.core.records import Entry
from pubky_homeserver.core.shelf import Reason, Shelved, beginning_of
from pubky_homeserver.interfaces import IShelfStore
from pubky_homeserver.store import schema
from pubky_homeserver.store.connection import STEP, Commands
from pubky_homeserver.store.files import Blobs, mark_of
from pubky_homeserver.store.packing import pack_entry, unpack_entry

MAX_PAGE = 100
"""Things of one page: with the largest small bodies, some MiB."""

_HEAD = Struct(">c52s7s7sII")
_REASONS = {Reason.LATE: b"l", Reason.REPLACED: b"r"}
_READ = {letter: reason for reason, letter in _REASONS.items()}
_TIME = 7  # bytes


@implementer(IShelfStore)
@frozen
class RedisShelf:
    """The shelf as sorted sets. `redis` is the live connection."""

    redis: Callable[[], Commands]
    has_room: Callable[[], bool]

    async def shelve(self, shelved: Shelved) -> bool:
        """See `IShelfStore`."""
        if not self.has_room():
            raise StorageFull
        keys = schema.shelf(shelved.pubky), schema.SHELVES, schema.SHELF_USED
        words = shelved.pubky, shelved.id, _pack(shelved), shelved.origin, shelved.bytes, schema.BLOBS
        return bool(await self.redis().run("shelve", keys, (*words, *_blobs(shelved))))

    async def shelf(self, pubky: str, after: str, limit: int) -> list[Shelved]:
        """See `IShelfStore`."""
        bound = f"({after}\1" if after else "-"
        words = schema.shelf(pubky), bound, "+", "BYLEX", "LIMIT", 0, min(limit, MAX_PAGE)
        return [_unpack(pubky, member) for member in await self.redis().call("ZRANGE", *words)]

    async def shelves(self, after: str, limit: int) -> list[str]:
        """See `IShelfStore`."""
        bound = f"({after}" if after else "-"
        words = schema.SHELVES, bound, "+", "BYLEX", "LIMIT", 0, min(limit, STEP)
        return [pubky.decode() for pubky in await self.redis().call("ZRANGE", *words)]

    async def things(self, after: str, limit: int) -> dict[str, int]:
        """See `IShelfStore`."""
        pubkys = await self.shelves(after, limit)
        asked = [("ZCARD", schema.shelf(pubky)) for pubky in pubkys]
        return dict(zip(pubkys, await self.redis().pipeline(asked) if asked else (), strict=True))

    async def shelved(self, pubky: str, shelved_id: str) -> Shelved | None:
        """See `IShelfStore`."""
        member = await self._member(pubky, shelved_id)
        return None if member is None else _unpack(pubky, member)

    async def is_disputed(self, pubky: str, path: str) -> bool:
        """See `IShelfStore`."""
        first = beginning_of(path)
        words = schema.shelf(pubky), f"[{first}", f"({first}~"
        return int(await self.redis().call("ZLEXCOUNT", *words)) > 0

    async def drop(self, pubky: str, shelved_id: str) -> bool:
        """See `IShelfStore`."""
        member = await self._member(pubky, shelved_id)
        if member is None:
            return False
        found = _unpack(pubky, member)
        keys = schema.shelf(pubky), schema.SHELVES, schema.SHELF_USED, schema.GRACES
        words = pubky, found.id, member, found.origin, found.bytes
        return bool(await self.redis().run("drop", keys, (*words, *_blobs(found))))

    async def clear(self, key: str, limit: int) -> bool:
        """Drop up to `limit` things of a shelf that lies under another key; whether there were any."""
        words = key, "-", "+", "BYLEX", "LIMIT", 0, min(limit, MAX_PAGE)
        members: list[bytes] = await self.redis().call("ZRANGE", *words)
        keys = key, schema.SHELVES, schema.SHELF_USED, schema.GRACES
        for member in members:
            found = _unpack("", member)
            await self.redis().run("drop", keys, ("", found.id, member, found.origin, found.bytes, *_blobs(found)))
        return bool(members)

    async def shelf_used(self, origin: str) -> int:
        """See `IShelfStore`."""
        return int(await self.redis().call("HGET", schema.SHELF_USED, origin) or 0)

    async def _member(self, pubky: str, shelved_id: str) -> bytes | None:
        words = schema.shelf(pubky), f"[{shelved_id}\0", f"({shelved_id}\1", "BYLEX", "LIMIT", 0, 1
        found: list[bytes] = await self.redis().call("ZRANGE", *words)
        return found[0] if found else None


@implementer(IShelfStore)
@define(eq=False)
class MemoryShelf:
    """The shelf in memory."""

    blobs: Blobs
    _things: dict[str, dict[str, Shelved]] = field(factory=dict, init=False)
    # Pubky → id → thing; no account without a thing.

    async def shelve(self, shelved: Shelved) -> bool:
        """See `IShelfStore`."""
        return self.lay(shelved)

    def lay(self, shelved: Shelved) -> bool:
        """The same, at once."""
        things = self._things.setdefault(shelved.pubky, {})
        if shelved.id in things:
            return False
        things[shelved.id] = shelved
        for entry in _entries(shelved):
            self.blobs.use(entry)
        return True

    def take(self, pubky: str) -> dict[str, Shelved]:
        """Take all that lies on the shelf of an account away, by ids."""
        return self._things.pop(pubky, {})

    def put_back(self, pubky: str, things: dict[str, Shelved]) -> None:
        """Put what was taken away where it was."""
        if things:
            self._things.setdefault(pubky, {}).update(things)

    async def shelf(self, pubky: str, after: str, limit: int) -> list[Shelved]:
        """See `IShelfStore`."""
        things = self._things.get(pubky, {})
        return [things[one] for one in sorted(things) if one > after][: min(limit, MAX_PAGE)]

    async def shelves(self, after: str, limit: int) -> list[str]:
        """See `IShelfStore`."""
        return sorted(pubky for pubky in self._things if pubky > after)[: min(limit, STEP)]

    async def things(self, after: str, limit: int) -> dict[str, int]:
        """See `IShelfStore`."""
        return {pubky: len(self._things[pubky]) for pubky in await self.shelves(after, limit)}

    async def shelved(self, pubky: str, shelved_id: str) -> Shelved | None:
        """See `IShelfStore`."""
        return self._things.get(pubky, {}).get(shelved_id)

    async def is_disputed(self, pubky: str, path: str) -> bool:
        """See `IShelfStore`."""
        return any(one.path == path for one in self._things.get(pubky, {}).values())

    async def drop(self, pubky: str, shelved_id: str) -> bool:
        """See `IShelfStore`."""
        things = self._things.get(pubky, {})
        found = things.pop(shelved_id, None)
        if found is None:
            return False
        if not things:
            del self._things[pubky]
        for entry in _entries(found):
            self.blobs.retire(entry, at_once=True)
        return True

    async def shelf_used(self, origin: str) -> int:
        """See `IShelfStore`."""
        return sum(one.bytes for things in self._things.values() for one in things.values() if one.origin == origin)


def _entries(shelved: Shelved) -> list[Entry]:
    return [entry for entry in (shelved.entry, shelved.ours) if entry is not None]


def _blobs(shelved: Shelved) -> list[bytes]:
    return [bytes.fromhex(entry.blob) for entry in _entries(shelved) if entry.blob is not None]


def _pack(shelved: Shelved) -> bytes:
    entry, ours = (b"" if one is None else pack_entry(one, mark_of(one)) for one in (shelved.entry, shelved.ours))
    times = (time.to_bytes(_TIME, "big") for time in (shelved.shelved, shelved.written))
    head = _HEAD.pack(_REASONS[shelved.reason], shelved.origin.encode("ascii"), *times, len(entry), len(ours))
    return b"".join((head, entry, ours, shelved.path.encode()))


def _unpack(pubky: str, member: bytes) -> Shelved:
    head_at = member.index(0) + 1
    reason, origin, shelved, written, length, other = _HEAD.unpack_from(member, head_at)
    entry_at = head_at + _HEAD.size
    ours_at = entry_at + length
    path_at = ours_at + other
    path = member[path_at:]
    entry, ours = (
        unpack_entry(path + b"\0" + packed) if packed else None
        for packed in (member[entry_at:ours_at], member[ours_at:path_at])
    )
    return Shelved(
        pubky,
        member[: head_at - 1].decode(),
        _READ[reason],
        origin.decode(),
        path.decode(),
        entry,
        ours,
        int.from_bytes(shelved, "big"),
        int.from_bytes(written, "big"),
    )
