"""Locks in Redis and in memory. A lock is its token, kept for as long as the lock lives."""

from collections.abc import Callable, Mapping, Sequence

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from pubky_homeserver.core.errors import Locked, LockLost, LockUnknown, NotPrimary
from pubky_homeserver.core.locks import HELD_SECONDS
from pubky_homeserver.core.records import Lock
from pubky_homeserver.interfaces import ILockStore
from pubky_homeserver.store import schema
from pubky_homeserver.store.connection import Commands
from pubky_homeserver.store.files import Home
from pubky_homeserver.store.refusals import checked


def pack_tokens(tokens: Sequence[str] | None) -> str:
    """What a write says of locks, for scripts: each token between line ends, which none contains; `*` for None."""
    if tokens is None:
        return "*"
    return "\n".join(("", *tokens, "")) if tokens else ""


@implementer(ILockStore)
@frozen
class RedisLocks:
    """Keys that Redis forgets when their time is over. `redis` is the live connection."""

    redis: Callable[[], Commands]

    async def lock(self, pubky: str, path: str, lock: Lock) -> None:
        """See `ILockStore`."""
        checked(await self.redis().run("take_lock", _keys(pubky, path), (lock.token, lock.seconds)))

    async def refresh(self, pubky: str, path: str, tokens: Sequence[str], seconds: int) -> Lock:
        """See `ILockStore`."""
        (token,) = checked(await self.redis().run("refresh_lock", _keys(pubky, path), (pack_tokens(tokens), seconds)))
        return Lock(token.decode(), seconds)

    async def hold(self, pubky: str, path: str, tokens: Sequence[str]) -> None:
        """See `ILockStore`."""
        checked(await self.redis().run("hold_lock", _keys(pubky, path), (pack_tokens(tokens),)))

    async def unlock(self, pubky: str, path: str, token: str) -> None:
        """See `ILockStore`."""
        if not await self.redis().run("unlock", (schema.lock(pubky, path),), (token,)):
            raise LockUnknown


def _keys(pubky: str, path: str) -> tuple[str, str]:
    """What scripts look at: the account, and the lock."""
    return schema.account(pubky), schema.lock(pubky, path)


@frozen
class _Kept:
    """A lock and when it is over, in seconds."""

    token: str
    until: float


@implementer(ILockStore)
@define(eq=False)
class MemoryLocks:
    """Locks in a dictionary."""

    clock: IReactorTime
    homes: Mapping[str, Home]
    """The accounts, to know who is away."""
    _locks: dict[tuple[str, str], _Kept] = field(factory=dict, init=False)
    # Account and path → lock, which may be over.

    async def lock(self, pubky: str, path: str, lock: Lock) -> None:
        """See `ILockStore`."""
        self._check_home(pubky)
        now = self.clock.seconds()
        self._locks = {at: kept for at, kept in self._locks.items() if kept.until > now}
        if (pubky, path) in self._locks:
            raise Locked
        self._locks[pubky, path] = _Kept(lock.token, now + lock.seconds)

    async def refresh(self, pubky: str, path: str, tokens: Sequence[str], seconds: int) -> Lock:
        """See `ILockStore`."""
        self._check_home(pubky)
        kept = self._named(pubky, path, tokens)
        self._locks[pubky, path] = _Kept(kept.token, self.clock.seconds() + seconds)
        return Lock(kept.token, seconds)

    async def hold(self, pubky: str, path: str, tokens: Sequence[str]) -> None:
        """See `ILockStore`."""
        self._check_home(pubky)
        kept = self._named(pubky, path, tokens)
        self._locks[pubky, path] = _Kept(kept.token, max(kept.until, self.clock.seconds() + HELD_SECONDS))

    async def unlock(self, pubky: str, path: str, token: str) -> None:
        """See `ILockStore`."""
        kept = self._live(pubky, path)
        if kept is None or kept.token != token:
            raise LockUnknown
        del self._locks[pubky, path]

    async def check(self, pubky: str, path: str, tokens: Sequence[str] | None) -> None:
        """Raise what a write raises that names these tokens, or hold the lock for it: see `IEntryStore.put`."""
        if tokens:
            await self.hold(pubky, path, tokens)
        elif tokens is not None and self._live(pubky, path):
            raise Locked

    def _check_home(self, pubky: str) -> None:
        home = self.homes.get(pubky)
        if home is not None and home.away is not None:
            raise NotPrimary(home.away)

    def _live(self, pubky: str, path: str) -> _Kept | None:
        kept = self._locks.get((pubky, path))
        return kept if kept is not None and kept.until > self.clock.seconds() else None

    def _named(self, pubky: str, path: str, tokens: Sequence[str]) -> _Kept:
        kept = self._live(pubky, path)
        if kept is None or kept.token not in tokens:
            raise LockLost
        return kept
