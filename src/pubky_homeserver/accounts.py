"""Sign up, and the tokens that let people do it."""

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from pubky_homeserver.core.errors import (
    InvalidRequest,
    NotFound,
    SignupTokenRequired,
    SignupTokenUnknown,
    SignupTokenUsed,
    UserExists,
)
from pubky_homeserver.core.peers import Claim
from pubky_homeserver.core.quotas import UserQuota
from pubky_homeserver.core.records import Account, Session, SignupToken, TokenState, Totals
from pubky_homeserver.core.tokens import check_signup_token, new_signup_token
from pubky_homeserver.interfaces import IAccountStore


@frozen
class Accounts:
    """The accounts of this homeserver."""

    store: IAccountStore
    clock: IReactorTime
    token_required: bool = True
    """Whether sign-up needs a token of the operator."""

    async def sign_up(self, pubky: str, session: Session | None, token: str | None, claim: Claim | None = None) -> None:
        """Make an account and keep its first session. Raises what `IAccountStore.sign_up` raises.

        `claim`: how a copy of it that is here may be claimed; None if there is none.
        """
        if claim is Claim.DENY:
            raise UserExists
        account, is_required = Account(pubky, self._now()), self.token_required
        if claim is not None:
            is_required = claim is Claim.TOKEN
        await self.store.sign_up(account, session, token if is_required else None, is_required, claim is not None)

    async def check_unused(self, token: str | None) -> None:
        """Raise what `sign_up` raises of a token that is needed: there is none, nobody made it, or it was spent."""
        if token is None:
            raise SignupTokenRequired
        known = await self.store.signup_token(token)
        if known is None:
            raise SignupTokenUnknown
        if known.used is not None:
            raise SignupTokenUsed

    async def account(self, pubky: str) -> Account | None:
        """The account of a key."""
        return await self.store.account(pubky)

    async def signup_token(self, text: str) -> SignupToken:
        """What became of a signup token.

        Raises, in this order: `InvalidRequest` if none is needed here, `InvalidSignupToken`, `NotFound`.
        """
        if not self.token_required:
            raise InvalidRequest("Signup tokens not required")
        check_signup_token(text)
        token = await self.store.signup_token(text)
        if token is None:
            raise NotFound("Token not found")
        return token

    async def new_signup_token(self, quota: UserQuota) -> SignupToken:
        """A new token, whose quota becomes that of the account made with it."""
        token = SignupToken(new_signup_token(), self._now(), quota)
        await self.store.add_signup_token(token)
        return token

    async def signup_tokens(self, state: TokenState, after: str, limit: int) -> list[SignupToken]:
        """Up to `limit` tokens after a text, ascending."""
        return await self.store.signup_tokens(state, after, limit)

    async def totals(self) -> Totals:
        """Numbers over all accounts."""
        return await self.store.totals()

    def _now(self) -> int:
        return int(self.clock.seconds() * 1_000_000)
