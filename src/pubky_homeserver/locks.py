"""Locks of paths: who may have one, refresh it and give it back.

A lock keeps other writers out, and only while it is refreshed: it lives a minute at most, so a client that is gone is
in nobody's way. Writing needs the right to write besides: knowing a token opens nothing to others.
"""

from collections.abc import Sequence

from attrs import frozen

from pubky_homeserver.core.authorization import authorize_write
from pubky_homeserver.core.errors import NotFound, Unauthorized, UserDisabled
from pubky_homeserver.core.locks import new_token
from pubky_homeserver.core.records import Lock, Session
from pubky_homeserver.interfaces import IAccountStore, ILockStore


@frozen
class Place:
    """A path whose lock somebody may take or give back; `Locks.place` makes it."""

    owner: str
    path: str


@frozen
class Locks:
    """The locks of all accounts."""

    accounts: IAccountStore
    store: ILockStore

    async def place(self, session: Session | None, owner: str, path: str, disabled: bool = False) -> Place:
        """Let a session touch the lock of a path; `disabled`: also if the account is.

        Raises, in this order: `Unauthorized` without a session, what `authorize_write` raises, `NotFound` (no account),
        `UserDisabled`.
        """
        if session is None:
            raise Unauthorized
        authorize_write(session, owner, path)
        account = await self.accounts.account(owner)
        if account is None:
            raise NotFound
        if account.disabled and not disabled:
            raise UserDisabled
        return Place(owner, path)

    async def lock(self, place: Place, seconds: int) -> Lock:
        """A new lock. Raises `Locked`."""
        lock = Lock(new_token(), seconds)
        await self.store.lock(place.owner, place.path, lock)
        return lock

    async def refresh(self, place: Place, tokens: Sequence[str], seconds: int) -> Lock:
        """A new time for the lock that one of the tokens names. Raises `LockLost`."""
        return await self.store.refresh(place.owner, place.path, tokens, seconds)

    async def unlock(self, place: Place, token: str) -> None:
        """End a lock. Raises `LockUnknown`."""
        await self.store.unlock(place.owner, place.path, token)
