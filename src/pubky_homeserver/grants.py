"""Sign in on a user's behalf: grants are exchanged for bearers, listed and revoked.

A bearer is known to its client only: the store keeps SHA-256 of its text, which is also the session's id.
"""

from hashlib import sha256

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from pubky_homeserver.core.errors import GrantOfAnother, GrantRefused, GrantRevoked, NotFound
from pubky_homeserver.core.grants import (
    BEARER_LIFETIME,
    NONCE_REMEMBERED,
    check_proof,
    check_signup,
    check_time,
    new_bearer,
    read_grant,
)
from pubky_homeserver.core.records import Grant, KeptGrant, Session
from pubky_homeserver.interfaces import IGrantStore, ISessionStore


@frozen
class Borne:
    """A new bearer and its session."""

    bearer: str
    session: Session


@frozen
class Grants:
    """The grants that clients showed here."""

    store: IGrantStore
    seen: ISessionStore
    """Remembers the nonces of proofs."""
    homeserver: str
    """This homeserver's own key: what proofs must be made for."""
    clock: IReactorTime

    async def accept_signup(self, grant: str, proof: str) -> Grant:
        """Check a grant for signing up and its proof, which counts as used from now on.

        Raises `MalformedGrant`, `GrantRefused`, `InvalidRequest`, `Forbidden`.
        """
        shown = read_grant(grant)
        check_time(shown, self._now())
        check_signup(shown, self._now())
        await self._prove(shown, proof)
        return shown

    async def accept(self, grant: str, proof: str) -> Grant:
        """Check a grant that is to be exchanged and its proof, which counts as used from now on.

        Raises `MalformedGrant`, `GrantRefused`, `GrantRevoked`.
        """
        shown = read_grant(grant)
        check_time(shown, self._now())
        known = await self.store.grant(shown.id)
        if known is not None and known.revoked:
            raise GrantRevoked
        await self._prove(shown, proof)
        return shown

    async def exchange(self, shown: Grant) -> Borne:
        """Give a client a bearer for an accepted grant; the one before ends. Raises as `IGrantStore.exchange`."""
        bearer = new_bearer()
        kept = KeptGrant(shown, int(self.clock.seconds() * 1_000_000))
        session = await self.store.exchange(kept, bearer_id(bearer), self._now(), BEARER_LIFETIME)
        return Borne(bearer, session)

    async def of(self, bearer: str) -> Session | None:
        """The session of a bearer that counts at the moment."""
        return await self.again(bearer_id(bearer))

    async def again(self, session_id: str) -> Session | None:
        """The session of a bearer by its id."""
        session = await self.store.bearer(session_id)
        if session is None or session.expires is None or session.expires <= self._now():
            return None
        return session

    async def active(self, pubky: str) -> list[Grant]:
        """The grants of an account that still mean something, in the order in which they came."""
        now = self._now()
        return [kept.grant for kept in await self.store.grants(pubky) if kept.grant.expires_at > now]

    async def revoke(self, pubky: str, grant_id: str) -> None:
        """Revoke a grant of an account for good. Raises `NotFound`, `GrantOfAnother`, `NotPrimary`."""
        known = await self.store.grant(grant_id)
        if known is None:
            raise NotFound
        if known.grant.pubky != pubky:
            raise GrantOfAnother
        await self.store.revoke(grant_id)

    async def accept_back(self, grant: str, proof: str) -> Grant:
        """Check a grant that is to be given back, even one whose time is over, and its proof, which counts as used.

        Raises `MalformedGrant`, `GrantRefused`.
        """
        shown = read_grant(grant)
        await self._prove(shown, proof)
        return shown

    async def give_back(self, shown: Grant) -> None:
        """Revoke an accepted grant for the client that it was given to.

        Raises `NotFound`, `GrantOfAnother`, `NotPrimary`.
        """
        known = await self.store.grant(shown.id)
        if known is None:
            raise NotFound
        if (known.grant.pubky, known.grant.client_key) != (shown.pubky, shown.client_key):
            raise GrantOfAnother
        await self.store.revoke(shown.id)

    async def _prove(self, grant: Grant, proof: str) -> None:
        nonce = check_proof(proof, grant, self.homeserver, self._now())
        if not await self.seen.burn(b"proof:" + nonce.encode("ascii"), NONCE_REMEMBERED):
            raise GrantRefused("PoP nonce already used")

    def _now(self) -> int:
        return int(self.clock.seconds())


def bearer_id(bearer: str) -> str:
    """What may be kept of a bearer: SHA-256 of its text, hex."""
    return sha256(bearer.encode()).hexdigest()
