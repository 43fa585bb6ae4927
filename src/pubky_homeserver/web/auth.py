"""Sign-up, sign-in and sessions by cookie: `/signup`, `/session`, `/signup_tokens/…`."""

from typing import ClassVar
from urllib.parse import unquote

from attrs import frozen
from klein import Klein
from twisted.internet.interfaces import IReactorTime

from pubky_homeserver.accounts import Accounts
from pubky_homeserver.core.capabilities import has_root
from pubky_homeserver.core.errors import InvalidRequest, InvalidSignupToken, NoSession, Unauthorized
from pubky_homeserver.core.tokens import (
    check_signup_token,
    encode_session,
    removal_cookie,
    session_cookie,
)
from pubky_homeserver.metrics import ServerMetrics
from pubky_homeserver.sessions import Sessions, SignedIn
from pubky_homeserver.web.arrivals import Arrivals
from pubky_homeserver.web.credentials import Credentials
from pubky_homeserver.web.limits import RequestLimit
from pubky_homeserver.web.queries import pairs_of
from pubky_homeserver.web.request import Request
from pubky_homeserver.web.target import Target
from pubky_homeserver.web.texts import iso_time, json_body

MAX_BODY = 2 * 1024 * 1024
"""Bytes of a sign-in body (the protocol's)."""


@frozen
class Auth:
    """Who you are. Every path is exact."""

    accounts: Accounts
    sessions: Sessions
    credentials: Credentials
    clock: IReactorTime
    token_limit: RequestLimit
    metrics: ServerMetrics
    arrivals: Arrivals
    app: ClassVar[Klein] = Klein()

    @app.route("/signup", methods=["POST"])
    async def sign_up(self, request: Request, target: Target) -> bytes:
        """Make the account of a sign-in token's key. 200 with session record and cookie; 400, 401, 409."""
        host = _host(request)
        token = dict(pairs_of(request.query)).get("signup_token")
        body = await request.read(MAX_BODY)
        if token is not None:
            check_signup_token(token)
        accepted = await self.sessions.accept(body)
        signed_in = self.sessions.begin(accepted)
        is_root = has_root(accepted.capabilities)
        await self.arrivals.sign_up(request, accepted.pubky, signed_in.session, token, is_root)
        self.metrics.signups.inc()
        return self._welcome(request, signed_in, host)

    @app.route("/session", methods=["POST"])
    async def sign_in(self, request: Request, target: Target) -> bytes:
        """Begin a session with a sign-in token. 200 with session record and cookie; 400, 404, 421, 503."""
        host = _host(request)
        accepted = await self.sessions.accept(await request.read(MAX_BODY))
        signed_in = await self.arrivals.at_home(accepted.pubky, lambda: self.sessions.sign_in(accepted))
        return self._welcome(request, signed_in, host)

    @app.route("/session", methods=["GET", "HEAD"])
    async def session(self, request: Request, target: Target) -> bytes:
        """The record of the caller's session; its time is in seconds here. 401 without one."""
        session = (await self.credentials.visitor(request, target.tenant)).session
        if session is None:
            raise NoSession
        if session.grant is not None:
            raise Unauthorized
        request.setHeader(b"Content-Type", b"application/octet-stream")
        return encode_session(session.pubky, session.created // 1_000_000, session.capabilities)

    @app.route("/session", methods=["DELETE"])
    async def sign_out(self, request: Request, target: Target) -> bytes:
        """End the caller's session, if a cookie shows one, and take the cookie back. Always 200."""
        host = _host(request)
        if target.tenant is None:
            raise InvalidRequest("Missing request tenant")
        session = (await self.credentials.visitor(request, target.tenant)).session
        if session is not None and session.grant is None:
            await self.sessions.sign_out(session)
        cookie = removal_cookie(target.tenant, host, self.clock.seconds())
        request.addHeader(b"Set-Cookie", cookie.encode("ascii"))
        return b""

    @app.route("/signup_tokens/<token>", methods=["GET"])
    async def signup_token(self, request: Request, target: Target) -> bytes:
        """Whether a signup token can be used. 200 as JSON; 400, 404, 429."""
        self.token_limit.charge(request.client_address)
        try:
            text = unquote(request.path.rpartition(b"/")[2].decode("ascii"), errors="strict")
        except UnicodeDecodeError:
            raise InvalidSignupToken from None
        token = await self.accounts.signup_token(text)
        request.setHeader(b"Cache-Control", b"no-store")
        status = "valid" if token.used is None else "used"
        return json_body(request, {"status": status, "created_at": iso_time(token.created, offset=True)})

    def _welcome(self, request: Request, signed_in: SignedIn, host: str) -> bytes:
        session = signed_in.session
        cookie = session_cookie(session.pubky, signed_in.secret, host, self.clock.seconds())
        request.addHeader(b"Set-Cookie", cookie.encode("ascii"))
        request.setHeader(b"Content-Type", b"application/octet-stream")
        return encode_session(session.pubky, session.created, session.capabilities)


def _host(request: Request) -> str:
    host = request.header(b"host")
    if host is None:
        raise InvalidRequest("Header of type `host` was missing")
    return host.decode("latin-1")
