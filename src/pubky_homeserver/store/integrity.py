"""Whether bodies are what their entries say, in Redis and in memory."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from hashlib import sha1

from attrs import define, evolve, frozen
from zope.interface import implementer

from pubky_homeserver.core.paths import PRIVATE, is_name
from pubky_homeserver.core.records import Entry
from pubky_homeserver.interfaces import IIntegrityStore
from pubky_homeserver.store import schema
from pubky_homeserver.store.connection import STEP, Commands
from pubky_homeserver.store.copied import Copied, MemoryCopies
from pubky_homeserver.store.files import Blobs, Home
from pubky_homeserver.store.packing import unpack_entry
from pubky_homeserver.store.remembered import Remembered

BEFORE = PRIVATE[:1]
"""Files have names with a leading slash: what is no file lies above."""


@implementer(IIntegrityStore)
@frozen
class RedisIntegrity:
    """Integrity in Redis. `redis` is the live connection; `grace` as in `RedisCopies`."""

    redis: Callable[[], Commands]
    remembered: Remembered | None
    grace: int

    async def held(self, pubky: str, after: str, limit: int) -> list[Entry]:
        """See `IIntegrityStore`."""
        bound = f"({after}\1" if after else f"[{BEFORE}"
        words = schema.entries(pubky), bound, "(0", "BYLEX", "LIMIT", 0, min(limit, STEP)
        return [unpack_entry(member) for member in await self.redis().call("ZRANGE", *words)]

    async def lose(self, pubky: str, entry: Entry) -> bool:
        """See `IIntegrityStore`."""
        if entry.body is None and entry.blob is None:
            return False
        keys = schema.copy(pubky), schema.entries(pubky), schema.account(pubky), schema.GRACES
        blob = b"" if entry.blob is None else bytes.fromhex(entry.blob)
        words = entry.path, entry.content_hash, entry.length, blob, self.grace * 1_000_000
        with nullcontext() if self.remembered is None else self.remembered.writing(pubky, entry.path):
            return bool(await self.redis().run("lose", keys, words))

    async def note_verified(self, pubky: str, now: int) -> None:
        """See `IIntegrityStore`."""
        await self.redis().run("note_verified", (schema.copy(pubky), schema.account(pubky)), (now,))

    async def verified(self, pubky: str) -> int:
        """See `IIntegrityStore`."""
        of_copy = "HMGET", schema.copy(pubky), "primary", "verified"
        (primary, copied), own = await self.redis().pipeline([of_copy, ("HGET", schema.account(pubky), "verified")])
        return int((own if primary is None else copied) or 0)

    async def lacking(self, after: int, limit: int) -> tuple[list[str], int | None]:
        """See `IIntegrityStore`."""
        redis = self.redis()
        pubkys, place = await numbered(redis, after, limit)
        found = await redis.pipeline([("HGET", schema.account(pubky), "missing") for pubky in pubkys]) if pubkys else []
        return [pubky for pubky, missing in zip(pubkys, found, strict=True) if int(missing or 0) > 0], place

    async def in_grace(self, pubky: str, path: str, content_hash: bytes) -> str | None:
        """See `IIntegrityStore`."""
        named = b"\0".join((schema.entries(pubky).encode(), path.encode(), content_hash))
        name = sha1(named, usedforsecurity=False).hexdigest()
        blob = await self.redis().call("HGET", schema.GRACED, name)
        return None if blob is None else blob.hex()


@implementer(IIntegrityStore)
@define(eq=False)
class MemoryIntegrity:
    """The same in memory."""

    homes: Mapping[str, Home]
    copies: MemoryCopies
    blobs: Blobs

    async def held(self, pubky: str, after: str, limit: int) -> list[Entry]:
        """See `IIntegrityStore`."""
        holder = self._holder(pubky)
        paths = [path for path in holder.files.after(after) if not is_name(path)] if holder else []
        return [holder.files.entries[path] for path in paths[: min(limit, STEP)] if holder]

    async def lose(self, pubky: str, entry: Entry) -> bool:
        """See `IIntegrityStore`."""
        holder = self._holder(pubky)
        old = holder.files.entries.get(entry.path) if holder else None
        if holder is None or old is None or (old.body is None and old.blob is None):
            return False
        if (old.content_hash, old.length, old.blob) != (entry.content_hash, entry.length, entry.blob):
            return False
        self.blobs.retire(old)
        holder.files.keep(evolve(old, body=None, blob=None))
        return True

    async def note_verified(self, pubky: str, now: int) -> None:
        """See `IIntegrityStore`."""
        if (holder := self._holder(pubky)) is not None:
            holder.verified = now

    async def verified(self, pubky: str) -> int:
        """See `IIntegrityStore`."""
        holder = self._holder(pubky)
        return holder.verified if holder else 0

    async def lacking(self, after: int, limit: int) -> tuple[list[str], int | None]:
        """See `IIntegrityStore`."""
        end = after + min(limit, STEP)
        page = [(pubky, home) for pubky, home in list(self.homes.items())[after:end] if home.away is None]
        found = [pubky for pubky, home in page if any(map(_is_bare, home.files.entries.values()))]
        return found, end if end < len(self.homes) else None

    async def in_grace(self, pubky: str, path: str, content_hash: bytes) -> str | None:
        """See `IIntegrityStore`."""
        return self.blobs.in_grace(pubky, path, content_hash)

    def _holder(self, pubky: str) -> Copied | Home | None:
        return self.copies.copied(pubky) or self.homes.get(pubky)


def _is_bare(entry: Entry) -> bool:
    return entry.body is None and entry.blob is None


async def numbered(redis: Commands, after: int, limit: int) -> tuple[list[str], int | None]:
    """A page of the accounts in the order of sign-up. See `IAccountStore.accounts`."""
    end = after + min(limit, STEP)
    found, newest = await redis.pipeline(
        [("HMGET", schema.NUMBERS, *range(after + 1, end + 1)), ("HGET", schema.SHARD, "number")]
    )
    return [pubky.decode() for pubky in found if pubky is not None], end if end < int(newest or 0) else None
