"""Sign-up, sign-in and sessions by grant: `/auth/grant/…`."""

from typing import ClassVar

from attrs import frozen
from klein import Klein

from pubky_homeserver.accounts import Accounts
from pubky_homeserver.core.capabilities import format_capabilities, has_root
from pubky_homeserver.core.errors import Forbidden, InvalidRequest, NoSession, Unauthorized
from pubky_homeserver.core.grants import is_grant_id
from pubky_homeserver.core.records import KeptGrant, Session
from pubky_homeserver.core.tokens import check_signup_token
from pubky_homeserver.grants import Grants
from pubky_homeserver.metrics import ServerMetrics
from pubky_homeserver.web.arrivals import Arrivals
from pubky_homeserver.web.credentials import Credentials
from pubky_homeserver.web.json_bodies import read_texts
from pubky_homeserver.web.queries import pairs_of
from pubky_homeserver.web.request import Request
from pubky_homeserver.web.target import Target
from pubky_homeserver.web.texts import json_body

SESSION = b"/auth/grant/session/"
"""What stands before a grant's id."""


@frozen
class GrantAuth:
    """Who acts for you. Every path is exact."""

    accounts: Accounts
    grants: Grants
    credentials: Credentials
    metrics: ServerMetrics
    arrivals: Arrivals
    app: ClassVar[Klein] = Klein()

    @app.route("/auth/grant/signup", methods=["POST"])
    async def sign_up(self, request: Request, target: Target) -> bytes:
        """Make the account of a grant's key; nobody is signed in by it. 204; 400, 401, 403, 409, 415, 422."""
        tokens = [value for name, value in pairs_of(request.query) if name == "signup_token"]
        if len(tokens) > 1:
            raise InvalidRequest("Failed to deserialize query string: duplicate field `signup_token`")
        grant, proof = await _signed_note(request)
        if tokens:
            check_signup_token(tokens[0])
        accepted = await self.grants.accept_signup(grant, proof)
        await self.arrivals.sign_up(request, accepted.pubky, None, tokens[0] if tokens else None)
        self.metrics.signups.inc()
        request.setResponseCode(204)
        return b""

    @app.route("/auth/grant/session", methods=["POST"])
    async def sign_in(self, request: Request, target: Target) -> bytes:
        """Exchange a grant for a bearer, which replaces the one before. 200 as JSON; 400 to 404, 415, 421, 422, 503."""
        accepted = await self.grants.accept(*await _signed_note(request))
        borne = await self.arrivals.at_home(accepted.pubky, lambda: self.grants.exchange(accepted))
        session = self._describe(borne.session, self.grants.clock.seconds())
        return json_body(request, {"token": borne.bearer, "session": session})

    @app.route("/auth/grant/session", methods=["GET", "HEAD"])
    async def session(self, request: Request, target: Target) -> bytes:
        """The caller's session. 200 as JSON; 401."""
        session = await self._caller(request, target)
        if session.grant is None:
            raise Unauthorized
        return json_body(request, self._describe(session, session.grant.created / 1_000_000))

    @app.route("/auth/grant/session", methods=["DELETE"])
    async def sign_out(self, request: Request, target: Target) -> bytes:
        """Revoke a grant: the one in the body, or else the bearer's, if there is one. 200; 421, 503; or 400 to 422."""
        if request.header(b"content-type") is not None:
            shown = await self.grants.accept_back(*await _signed_note(request))
            await self.arrivals.at_home(shown.pubky, lambda: self.grants.give_back(shown))
            return b""
        session = (await self.credentials.visitor(request, target.tenant)).session
        if session is not None and session.grant is not None:
            await self._revoke(session.pubky, session.grant.grant.id)
        return b""

    @app.route("/auth/grant/sessions", methods=["GET", "HEAD"])
    async def active(self, request: Request, target: Target) -> bytes:
        """The account's grants that still mean something. 200 as JSON; 401, 403."""
        session = await self._owner(request, target)
        grants = [
            {
                "grant_id": grant.id,
                "client_id": grant.client_id,
                "capabilities": format_capabilities(grant.capabilities),
                "issued_at": grant.issued_at,
                "expires_at": grant.expires_at,
            }
            for grant in await self.grants.active(session.pubky)
        ]
        return json_body(request, grants)

    @app.route("/auth/grant/session/<grant_id>", methods=["DELETE"])
    async def revoke(self, request: Request, target: Target) -> bytes:
        """Revoke a grant of the account by its id. 200; 400, 401, 403, 404, 421, 503."""
        session = await self._owner(request, target)
        grant_id = request.path.removeprefix(SESSION).decode("latin-1")
        if not is_grant_id(grant_id):
            raise InvalidRequest("Invalid grant ID format")
        await self._revoke(session.pubky, grant_id)
        return b""

    async def _revoke(self, pubky: str, grant_id: str) -> None:
        await self.arrivals.at_home(pubky, lambda: self.grants.revoke(pubky, grant_id))

    async def _caller(self, request: Request, target: Target) -> Session:
        session = (await self.credentials.visitor(request, target.tenant)).session
        if session is None:
            raise NoSession
        return session

    async def _owner(self, request: Request, target: Target) -> Session:
        """Whoever may do everything, signed in one way or the other."""
        session = await self._caller(request, target)
        if not has_root(session.capabilities):
            raise Forbidden("Root capability required")
        return session

    def _describe(self, session: Session, created: float) -> dict[str, object]:
        kept = session.grant
        assert isinstance(kept, KeptGrant)  # whoever calls has a bearer's session
        return {
            "homeserver": self.grants.homeserver,
            "pubky": session.pubky,
            "client_id": kept.grant.client_id,
            "capabilities": [str(one) for one in session.capabilities],
            "grant_id": kept.grant.id,
            "token_expires_at": session.expires,
            "grant_expires_at": kept.grant.expires_at,
            "created_at": int(created),
        }


async def _signed_note(request: Request) -> tuple[str, str]:
    """The grant and the proof in a body."""
    grant, proof = await read_texts(request, "CreateGrantSessionRequest", ("grant", "pop"), _jws)
    return grant, proof


def _jws(text: str) -> str | None:
    return None if text.count(".") == 2 else "JWS Compact Serialization must have exactly 3 dot-separated parts"
