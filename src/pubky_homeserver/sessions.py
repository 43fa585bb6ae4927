"""Sign in, who is asking, sign out.

A session's secret is known to its client only: the store keeps SHA-256 of it, which is also the session's id.
"""

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from pubky_homeserver.core.errors import InvalidAuthToken
from pubky_homeserver.core.records import Session
from pubky_homeserver.core.tokens import REMEMBERED, AuthToken, new_secret, session_id
from pubky_homeserver.interfaces import ISessionStore


@frozen
class SignedIn:
    """A new session and its secret."""

    session: Session
    secret: str


@frozen
class Sessions:
    """The sessions of all accounts."""

    store: ISessionStore
    clock: IReactorTime

    async def accept(self, token: bytes) -> AuthToken:
        """Read a sign-in token, which counts as used from now on. Raises `InvalidAuthToken`."""
        accepted = AuthToken.parse(token)
        accepted.verify(self._now())
        if not await self.store.burn(accepted.id, REMEMBERED):
            raise InvalidAuthToken("AuthToken already used")
        return accepted

    def begin(self, token: AuthToken) -> SignedIn:
        """A session with the capabilities of a token; nobody keeps it yet."""
        secret = new_secret()
        return SignedIn(Session(session_id(secret), token.pubky, token.capabilities, self._now()), secret)

    async def sign_in(self, token: AuthToken) -> SignedIn:
        """A new session of an account. Raises `NotFound` without one."""
        signed_in = self.begin(token)
        await self.store.sign_in(signed_in.session)
        return signed_in

    async def of(self, pubky: str, secret: str) -> Session | None:
        """The session of an account with this secret."""
        session = await self.store.session(session_id(secret))
        return session if session is not None and session.pubky == pubky else None

    async def again(self, session_id: str) -> Session | None:
        """The session with this id."""
        return await self.store.session(session_id)

    async def sign_out(self, session: Session) -> None:
        """End a session."""
        await self.store.sign_out(session.id)

    def _now(self) -> int:
        return int(self.clock.seconds() * 1_000_000)
