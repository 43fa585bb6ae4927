"""Sign-up and sign-in where the account may be a copy of another homeserver's."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred

from pubky_homeserver.accounts import Accounts
from pubky_homeserver.claims import Claims
from pubky_homeserver.core.errors import NotFound, NotPrimary
from pubky_homeserver.core.peers import Claim
from pubky_homeserver.core.records import Session
from pubky_homeserver.web.copies import age_of
from pubky_homeserver.web.request import Request

T = TypeVar("T")


@frozen
class Arrivals:
    """Lets people in. `claims`: what users of copies may do; None if there are no copies."""

    accounts: Accounts
    claims: Claims | None

    async def sign_up(
        self, request: Request, pubky: str, session: Session | None, token: str | None, is_root: bool = True
    ) -> None:
        """Make an account, or claim the copy of one: then the answer says how new that is.

        Raises what `IAccountStore.sign_up` raises.
        """
        claim = None if self.claims is None else await self.claims.rule(pubky, is_root)
        if claim is not None and claim is not Claim.DENY:
            await self._show(pubky, claim, token)
        await self.accounts.sign_up(pubky, session, token, claim)
        copy = None if self.claims is None else await self.claims.begin(pubky)
        if copy is not None and self.claims is not None:
            request.setHeader(b"Pubky-Mirror", age_of(self.claims.copies, copy))

    async def _show(self, pubky: str, claim: Claim, token: str | None) -> None:
        """Show the copy that is claimed, if it is hidden. Raises as a sign-up without a token that is needed."""
        if self.claims is None or await self.claims.hidden(pubky) is None:
            return
        if claim is Claim.TOKEN:
            await self.accounts.check_unused(token)
        await self.claims.show(pubky)

    async def at_home(self, pubky: str, step: Callable[[], Coroutine[Deferred[Any], Any, T]]) -> T:
        """Let a session begin, or a grant end, where the account lives. Raises as `step`, or `Claims.settle`."""
        try:
            return await step()
        except (NotFound, NotPrimary):
            if self.claims is None or await self.claims.copies.refresh(pubky) is None:
                raise
        await self.claims.settle(pubky)
        return await step()
