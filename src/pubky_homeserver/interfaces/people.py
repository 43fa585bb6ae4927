"""The ports of accounts, sessions, grants and packets."""

# mypy: disable-error-code="empty-body"

from collections.abc import Callable

from zope.interface import Interface

from pubky_homeserver.core.moves import Kept
from pubky_homeserver.core.records import Account, KeptGrant, LogState, Session, SignupToken, TokenState, Totals


class IAccountStore(Interface):
    """Accounts and the tokens that let people sign up."""

    async def sign_up(
        account: Account, session: Session | None, token: str | None, token_required: bool, may_claim: bool = False
    ) -> None:
        """Make an account, spend the token, keep the first session: one atomic step.

        Where there is a copy, and `may_claim`, or an account that is away, this is a claim (`IMoveStore`): the account
        is away, and the copy is marked; a second claim while one waits is `UserExists`.

        Raises, in this order: `UserExists` (also for a copy that may not be claimed); and if a token is required
        `SignupTokenRequired` (none given), `SignupTokenUnknown`, `SignupTokenUsed`. A token that is not required is
        left alone. The quota of a spent token becomes the account's.
        """

    async def account(pubky: str) -> Account | None:
        """The account of a key."""

    async def set_disabled(pubky: str, disabled: bool) -> None:
        """Shut or open an account for writing. Raises `NotFound`."""

    async def log_state(pubky: str, private: bool) -> LogState | None:
        """Where the account's public or private log stands."""

    async def accounts(after: int, limit: int) -> tuple[list[str], int | None]:
        """Up to `limit` (at most 500) accounts in the order of sign-up, and where to go on; None at the end.

        `after`: where the page before said to go on, 0 for the first one.
        """

    async def totals() -> Totals:
        """Numbers over all accounts."""

    async def add_signup_token(token: SignupToken) -> None:
        """Keep a new token."""

    async def signup_token(token: str) -> SignupToken | None:
        """A token by its exact text."""

    async def signup_tokens(state: TokenState, after: str, limit: int) -> list[SignupToken]:
        """Up to `limit` (at most 1001) tokens with a text above `after`, ascending."""


class ISessionStore(Interface):
    """Sessions by the hash of their secret, and the sign-in tokens that were seen."""

    async def burn(token_id: bytes, lifetime: int) -> bool:
        """Remember a sign-in token for `lifetime` seconds; False if it is remembered already."""

    async def sign_in(session: Session) -> None:
        """Keep a session. Raises `NotFound` without an account."""

    async def session(session_id: str) -> Session | None:
        """The session with this id."""

    async def sign_out(session_id: str) -> bool:
        """Forget a session; False if there was none."""

    def hear_revocations(hear: Callable[[str | None], None]) -> Callable[[], None]:
        """Call `hear` with each credential that is revoked, in whatever process; returns the way to stop.

        A credential is what `Session.credential` says. None: some may have been missed, and more will be, until
        `hears_revocations` is true again.
        """

    def hears_revocations() -> bool:
        """Whether revocations are heard at the moment."""


class IGrantStore(Interface):
    """Grants that were exchanged here, and the one live bearer of each."""

    async def grant(grant_id: str) -> KeptGrant | None:
        """A grant by its id."""

    async def exchange(kept: KeptGrant, bearer_id: str, now: int, lifetime: int) -> Session:
        """Keep a grant if its id is new, and let it have this bearer only: one atomic step.

        `now`: Unix seconds; `lifetime`: seconds of the bearer, at most until the grant is over. Returns the bearer's
        session: what counts is the grant as it was first kept. Raises, in this order: `NotFound` (no account),
        `GrantOfAnother` (the id is known with another user or client key), `GrantRevoked` (here, or where the account
        lived before), `GrantExpired`.
        """

    async def bearer(bearer_id: str) -> Session | None:
        """The session of a bearer whose grant is not revoked. Its time may be over."""

    async def grants(pubky: str) -> list[KeptGrant]:
        """All grants of an account that are not revoked, in the order in which they came; some may have expired."""

    async def revoke(grant_id: str) -> None:
        """Revoke a grant for good, and forget its bearer. Harmless for one that is unknown or revoked.

        Raises `NotPrimary`, and changes nothing, if its account lives elsewhere, or is about to come here.

        If its account is open here, the account's public log says so from then on, by an entry without slash (named by
        `revocation_of`): a grant names no homeserver, and must not live again where the account moves to.
        """

    async def forbid(pubky: str, grant_id: str) -> None:
        """Revoke a grant of an account that was revoked where it lived before; it need not be known here.

        Raises `NotPrimary` as `revoke`.
        """


class IPacketStore(Interface):
    """The newest signed packet (PKARR) of each account, copy and peer, so that it outlives the memory of the network.

    A packet is 64 bytes of signature, 8 of timestamp, up to 1000 of DNS message. Who keeps one has verified it.
    """

    async def packet(pubky: str) -> bytes | None:
        """The packet of a key."""

    async def keep_packet(pubky: str, packet: bytes, elsewhere: str | None = None, is_peer: bool = False) -> Kept:
        """Keep a packet; `Kept.OLD`, and nothing happens, if the one kept is as recent or more recent.

        The later timestamp is more recent, of two equal ones the larger message. `elsewhere`: the homeserver that the
        packet names, if that is not this one. An account that is open here is **fenced** by such a packet in the same
        step: it is away (`IMoveStore`), beside it is a whole copy with this primary that stands where the logs stood,
        its sessions and bearers end. It is so unless no packet was kept before and this one is older than the time when
        the account was opened here: its user signed it before they came. `is_peer`: the key is that of a peer, and need
        be no account's. Raises `NotFound` (neither account, nor copy, nor peer).
        """
