"""Grants in Redis and in memory: who gave what to which client, and the one live bearer of each."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attrs import define, evolve, field, frozen
from blake3 import blake3
from zope.interface import implementer

from pubky_homeserver.core.errors import GrantExpired, GrantOfAnother, GrantRevoked, StoreAway
from pubky_homeserver.core.paths import revocation_of
from pubky_homeserver.core.records import Entry, KeptGrant, Session
from pubky_homeserver.interfaces import IGrantStore
from pubky_homeserver.store import schema
from pubky_homeserver.store.connection import STEP, Commands
from pubky_homeserver.store.files import mark_of
from pubky_homeserver.store.packing import pack_body, pack_grant, pack_stat, pack_type, unpack_bearer, unpack_grant
from pubky_homeserver.store.refusals import refusal_of
from pubky_homeserver.store.remembered import Remembered

KEPT_FOR = 30 * 24 * 3600
"""Seconds that an expired grant stays known, so that its client can still give it back."""

_SIGNED_63 = 1 << 63


def revocation(grant_id: str) -> Entry:
    """What an account's public log has of a revoked grant: an entry without content, the same everywhere."""
    return Entry(revocation_of(grant_id), blake3().digest(), 0, "", 0, b"")


def _over(kept: KeptGrant) -> int:
    """When a grant is over; one that says a time beyond 63 bits always is, as at the official homeserver."""
    expires = kept.grant.expires_at
    return expires if expires < _SIGNED_63 else 0


@implementer(IGrantStore)
@frozen
class RedisGrants:
    """Grants as hashes, bearers as keys that Redis forgets in time. `redis` is the live connection."""

    redis: Callable[[], Commands]
    remembered: Remembered | None

    async def grant(self, grant_id: str) -> KeptGrant | None:
        """See `IGrantStore`."""
        return _read(await self.redis().call("HMGET", schema.grant(grant_id), *_FACTS))

    async def exchange(self, kept: KeptGrant, bearer_id: str, now: int, lifetime: int) -> Session:
        """See `IGrantStore`."""
        grant = kept.grant
        keys = (
            schema.account(grant.pubky),
            schema.grant(grant.id),
            schema.grants(grant.pubky),
            schema.bearer(bearer_id),
            schema.copy(grant.pubky),
            schema.entries(grant.pubky),
        )
        arguments = (
            grant.pubky,
            grant.client_key,
            grant.id,
            pack_grant(grant),
            _over(kept),
            now,
            kept.created,
            bearer_id,
            lifetime,
            schema.bearer(),
            schema.grant(),
            KEPT_FOR,
            revocation_of(grant.id),
        )
        with self._ending() as ended:
            reply = await self.redis().run("exchange", keys, arguments)
            if isinstance(reply, bytes):
                raise refusal_of(reply)
            facts, created, over, before = (*reply, None)[:4]
            ended += [before]
        stored = KeptGrant(unpack_grant(facts), int(created))
        return _session(bearer_id, stored, int(over))

    async def bearer(self, bearer_id: str) -> Session | None:
        """See `IGrantStore`."""
        if self.remembered is None:
            return await self._bearer(bearer_id)
        return await self.remembered.session(schema.bearer(bearer_id), lambda: self._bearer(bearer_id))

    async def _bearer(self, bearer_id: str) -> Session | None:
        found = await self.redis().run("session", (schema.bearer(bearer_id),), (schema.account(""),))
        return None if found is None else _session(bearer_id, *unpack_bearer(found[1]))

    async def grants(self, pubky: str) -> list[KeptGrant]:
        """See `IGrantStore`."""
        found: list[KeptGrant] = []
        first = 0
        while True:
            ids = await self.redis().call("ZRANGE", schema.grants(pubky), first, first + STEP - 1)
            keys = [schema.grant(grant_id.decode()) for grant_id in ids]
            known = map(_read, await self.redis().pipeline([("HMGET", key, *_FACTS) for key in keys]))
            found += [kept for kept in known if kept is not None and not kept.revoked]
            first += STEP
            if len(ids) < STEP:
                return found

    async def revoke(self, grant_id: str) -> None:
        """See `IGrantStore`."""
        owner = await self.redis().call("HGET", schema.grant(grant_id), "pubky")
        if owner is not None:
            await self.forbid(owner.decode(), grant_id)

    async def forbid(self, pubky: str, grant_id: str) -> None:
        """See `IGrantStore`."""
        keys = (
            *(schema.grant(grant_id), schema.account(pubky), schema.entries(pubky), schema.log(False, pubky)),
            *(schema.feed(False), schema.SHARD, schema.WAKE),
        )
        entry = revocation(grant_id)
        kind, _ = pack_body(entry)
        words = pubky, schema.bearer(), schema.REVOCATIONS, f"grant:{grant_id}"
        noted = entry.path, mark_of(entry), kind, pack_stat(entry), pack_type(entry.content_type)
        with self._ending() as ended:
            bearer = await self.redis().run("revoke", keys, (*words, *noted))
            if isinstance(bearer, list):
                raise refusal_of(bearer[0])
            ended += [bearer]

    @contextmanager
    def _ending(self) -> Iterator[list[bytes | None]]:
        """While bearers end: afterwards those named in the list are forgotten, or all, if nobody knows which."""
        ended: list[bytes | None] = []
        if self.remembered is None:
            yield ended
            return
        self.remembered.end()
        try:
            yield ended
        except StoreAway:
            self.remembered.forget()
            raise
        for bearer in ended:
            self.remembered.end(schema.bearer(bearer.decode()) if bearer else "")


_FACTS = ("facts", "created", "revoked")


def _read(facts: list[bytes | None]) -> KeptGrant | None:
    packed, created, revoked = facts
    if packed is None:
        return None
    return KeptGrant(unpack_grant(packed), int(created or 0), revoked is not None)


def _session(bearer_id: str, kept: KeptGrant, expires: int) -> Session:
    return Session(bearer_id, kept.grant.pubky, kept.grant.capabilities, kept.created, kept, expires)


@implementer(IGrantStore)
@define(eq=False)
class MemoryGrants:
    """Grants in dictionaries. `tell` says what is revoked."""

    check_sign_in: Callable[[str], None]
    """Raises what a sign-in of an account raises."""
    tell: Callable[[str], None]
    note: Callable[[str, Entry], None]
    """Puts what is no file into the public log of an account that is open here. Raises `NotPrimary`."""
    has: Callable[[str, str], bool]
    """Whether an account has an entry under a name."""
    _grants: dict[str, KeptGrant] = field(factory=dict, init=False)
    # Id → grant, in the order in which they came.
    _bearers: dict[str, Session] = field(factory=dict, init=False)
    # Grant's id → the session of its bearer.

    async def grant(self, grant_id: str) -> KeptGrant | None:
        """See `IGrantStore`."""
        return self._grants.get(grant_id)

    async def exchange(self, kept: KeptGrant, bearer_id: str, now: int, lifetime: int) -> Session:
        """See `IGrantStore`."""
        grant = kept.grant
        self.check_sign_in(grant.pubky)
        known = self._grants.get(grant.id, kept)
        if (known.grant.pubky, known.grant.client_key) != (grant.pubky, grant.client_key):
            raise GrantOfAnother
        if known.revoked or self.has(grant.pubky, revocation_of(grant.id)):
            raise GrantRevoked
        if _over(known) <= now:
            raise GrantExpired
        self._grants[grant.id] = known
        session = _session(bearer_id, known, min(now + lifetime, _over(known)))
        self._bearers[grant.id] = session
        return session

    def end_bearers(self, pubky: str) -> None:
        """End all bearers of an account; its grants stay."""
        for grant_id, session in [*self._bearers.items()]:
            if session.pubky == pubky:
                del self._bearers[grant_id]
                self.tell(f"grant:{grant_id}")

    def forget(self, pubky: str) -> None:
        """Forget all grants of an account that were not revoked."""
        self._grants = {
            grant_id: kept for grant_id, kept in self._grants.items() if kept.grant.pubky != pubky or kept.revoked
        }

    async def bearer(self, bearer_id: str) -> Session | None:
        """See `IGrantStore`."""
        return next((session for session in self._bearers.values() if session.id == bearer_id), None)

    async def grants(self, pubky: str) -> list[KeptGrant]:
        """See `IGrantStore`."""
        return [kept for kept in self._grants.values() if kept.grant.pubky == pubky and not kept.revoked]

    async def revoke(self, grant_id: str) -> None:
        """See `IGrantStore`."""
        kept = self._grants.get(grant_id)
        if kept is not None:
            await self.forbid(kept.grant.pubky, grant_id)

    async def forbid(self, pubky: str, grant_id: str) -> None:
        """See `IGrantStore`."""
        kept = self._grants.get(grant_id)
        if kept is not None and kept.grant.pubky != pubky:
            return
        if kept is None or not kept.revoked:
            self.note(pubky, revocation(grant_id))
        self._bearers.pop(grant_id, None)
        if kept is not None and not kept.revoked:
            self._grants[grant_id] = evolve(kept, revoked=True)
            self.tell(f"grant:{grant_id}")
