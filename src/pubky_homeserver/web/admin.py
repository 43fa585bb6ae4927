"""The operator's API, on its own port: who runs this node, its numbers, and its signup tokens.

Every request passes the same gates, outermost first: CORS (any `OPTIONS` is answered there), the path (an unknown one
is 404 to everybody), the password, the method, the handler. The password comes in `X-Admin-Password`, or, for programs
that know tokens only, as `Authorization: Bearer …`; where both are sent the first one counts.
"""

from hmac import compare_digest
from typing import Any, ClassVar

from attrs import define, field, frozen
from klein import Klein

from pubky_homeserver.accounts import Accounts
from pubky_homeserver.core.errors import InvalidRequest, InvalidSignupToken
from pubky_homeserver.core.quotas import MEGABYTE, MalformedQuota, UserQuota
from pubky_homeserver.core.records import SignupToken, TokenState
from pubky_homeserver.core.tokens import check_signup_token
from pubky_homeserver.web.answers import answer_with, refuse_method
from pubky_homeserver.web.conflicts import Shelf
from pubky_homeserver.web.cors import add_cors, answer_options
from pubky_homeserver.web.health import Health
from pubky_homeserver.web.json_bodies import misfit, read_json
from pubky_homeserver.web.mirrors import Mirrors
from pubky_homeserver.web.moves import Moves
from pubky_homeserver.web.queries import DEFAULT_LIMIT, MAX_LIMIT, pairs_of
from pubky_homeserver.web.records import RECORDS, NetworkRecords
from pubky_homeserver.web.request import Request
from pubky_homeserver.web.routes import Route, route
from pubky_homeserver.web.takedowns import TakedownList
from pubky_homeserver.web.texts import PLAIN, iso_time, json_body
from pubky_homeserver.web.verifying import Verifying


@frozen
class NodeFacts:
    """What the node says of itself; it does not change while it runs."""

    public_key: str
    """Its key, raw z-base-32."""
    pkarr_pubky_address: str | None
    """`ip:port` of the listener with its key as certificate; None without one."""
    pkarr_icann_domain: str | None
    """`domain:port` of the plain listener; None without a domain."""
    version: str


@frozen
class TokenQuery:
    """Which page of signup tokens is asked for."""

    state: TokenState = TokenState.ALL
    cursor: str = ""
    """The token after which it begins."""
    limit: int = DEFAULT_LIMIT

    @classmethod
    def read(cls, query: bytes) -> "TokenQuery":
        """Read the query string; the first mistake in it is told. Raises `InvalidRequest`."""
        readers = {"limit": _limit, "cursor": _cursor, "state": _state}
        found: dict[str, Any] = {}
        for name, text in pairs_of(query):
            if name not in readers:
                continue
            if name in found:
                raise InvalidRequest(f"Failed to deserialize query string: duplicate field `{name}`")
            try:
                found[name] = readers[name](text)
            except ValueError as error:
                raise InvalidRequest(f"Failed to deserialize query string: {name}: {error}") from None
        return cls(**found)


@frozen
class Admin:
    """What the operator may ask and do."""

    accounts: Accounts
    facts: NodeFacts
    app: ClassVar[Klein] = Klein()

    @app.route("/", methods=["GET", "HEAD"])
    async def root(self, request: Request) -> bytes:
        """Say what this port is."""
        request.setHeader(b"Content-Type", PLAIN)
        return b"Homeserver - Admin Endpoint"

    @app.route("/info", methods=["GET", "HEAD"])
    async def info(self, request: Request) -> bytes:
        """The node's numbers and what it says of itself. 200 as JSON."""
        totals = await self.accounts.totals()
        return json_body(
            request,
            {
                "num_users": totals.users,
                "num_disabled_users": totals.disabled,
                "total_disk_used_mb": (totals.used + MEGABYTE // 2) // MEGABYTE,
                "num_signup_codes": totals.tokens,
                "num_unused_signup_codes": totals.unused_tokens,
                "public_key": self.facts.public_key,
                "pkarr_pubky_address": self.facts.pkarr_pubky_address,
                "pkarr_icann_domain": self.facts.pkarr_icann_domain,
                "version": self.facts.version,
            },
        )

    @app.route("/generate_signup_token", methods=["GET"])
    async def new_token(self, request: Request) -> bytes:
        """Make a signup token for an account with the server's defaults. 200 with its text."""
        return await self._new_token(request, UserQuota())

    @app.route("/generate_signup_token", methods=["POST"])
    async def new_token_with_quota(self, request: Request) -> bytes:
        """Make a signup token whose account gets a quota. 200 with its text; 400, 413, 415, 422."""
        document = await read_json(request)
        try:
            quota = UserQuota.from_json(document)
        except MalformedQuota as error:
            raise misfit(error) from None
        return await self._new_token(request, quota)

    @app.route("/signup_tokens", methods=["GET", "HEAD"])
    async def tokens(self, request: Request) -> bytes:
        """A page of signup tokens, by their text. 200 as JSON; 400."""
        query = TokenQuery.read(request.query)
        found = await self.accounts.signup_tokens(query.state, query.cursor, query.limit + 1)
        page = found[: query.limit]
        more = len(found) > len(page)
        return json_body(
            request, {"items": list(map(_token_json, page)), "next_cursor": page[-1].token if more else None}
        )

    async def _new_token(self, request: Request, quota: UserQuota) -> bytes:
        token = await self.accounts.new_signup_token(quota)
        request.setHeader(b"Content-Type", PLAIN)
        return token.token.encode()


@define(eq=False)
class AdminSite:
    """The operator's port. `answer` is what a channel calls with each request."""

    admin: Admin
    health: Health
    password: str = field(repr=False)
    records: NetworkRecords
    """What the networks know."""
    mirrors: Mirrors = field(factory=Mirrors)
    """The copies of other homeservers' accounts."""
    moves: Moves = field(factory=Moves)
    """Accounts that come here."""
    shelf: Shelf | None = None
    """What did not win."""
    verifying: Verifying = field(factory=Verifying)
    """Whether all is what it shall be."""
    takedowns: TakedownList | None = None
    """What nobody may read."""
    _open: dict[bytes, Route] = field(init=False)
    # Raw path → its route, for everybody.
    _guarded: dict[bytes, Route] = field(init=False)
    # Raw path → its route, for who has the password.
    _record: Route = field(init=False)
    # That of every path below `RECORDS`, for who has the password.

    def __attrs_post_init__(self) -> None:
        admin, health = self.admin.app, self.health.app
        self._open = {
            b"/": route(admin, {"GET": "root", "HEAD": "root"}),
            b"/healthz": route(health, {"GET": "alive", "HEAD": "alive"}),
            b"/readyz": route(health, {"GET": "ready", "HEAD": "ready"}),
        }
        # No HEAD where a GET makes something.
        generate = {"GET": "new_token", "POST": "new_token_with_quota"}
        self._guarded = {
            b"/info": route(admin, {"GET": "info", "HEAD": "info"}),
            b"/generate_signup_token": route(admin, generate, separator=b", "),
            b"/signup_tokens": route(admin, {"GET": "tokens", "HEAD": "tokens"}),
            b"/mirrors": route(self.mirrors.app, {"GET": "show", "HEAD": "show"}),
            b"/mirrors/exposure": route(self.mirrors.app, {"GET": "exposed"}),
            b"/peers/test": route(self.mirrors.app, {"POST": "test"}),
            b"/peers/pause": route(self.mirrors.app, {"POST": "pause_peer"}),
            b"/mirrors/open": route(self.moves.app, {"POST": "open_now"}),
            b"/mirrors/erase": route(self.moves.app, {"POST": "erase_now"}),
            b"/mirrors/verify": route(self.verifying.app, {"GET": "show", "HEAD": "show", "POST": "verify_now"}),
            b"/mirrors/check": route(self.moves.app, {"GET": "check_all"}),
        }
        if self.shelf is not None:
            app = self.shelf.app
            self._guarded |= {
                b"/conflicts": route(app, {"GET": "show", "HEAD": "show"}),
                b"/conflicts/body": route(app, {"GET": "body"}),
                b"/conflicts/apply": route(app, {"POST": "apply"}),
                b"/conflicts/drop": route(app, {"POST": "drop"}),
                b"/mirrors/repair": route(app, {"POST": "repair_now"}),
            }
        if self.takedowns is not None:
            methods = {"GET": "show", "HEAD": "show", "POST": "add", "DELETE": "lift"}
            self._guarded[b"/takedowns"] = route(self.takedowns.app, methods)
        records = self.records.app
        self._guarded[b"/record/publish"] = route(records, {"POST": "publish_now"})
        self._record = route(records, {"GET": "show"})

    async def answer(self, request: Request) -> None:
        """Answer one request."""
        path = request.path
        found = self._open.get(path) or self._guarded.get(path)
        if found is None and path.startswith(RECORDS):
            found = self._record
        if request.method == b"OPTIONS":
            answer_options(request, found.options if found else None)
        elif found is None:
            _refuse(request, 404, b"")
        elif path not in self._open and (reason := self._why_not(request)):
            _refuse(request, 401, reason)
        elif (handler := found.methods.get(request.method)) is None:
            refuse_method(request, found.allow, _dress)
        else:
            _dress(request, False)
            await answer_with(request, handler(request), _dress)

    def _why_not(self, request: Request) -> bytes:
        """What is wrong with the password of a request; empty if nothing is."""
        shown = request.header(b"x-admin-password")
        if shown is None:
            scheme, _, shown = (request.header(b"authorization") or b"").partition(b" ")
            if scheme.lower() != b"bearer":
                return b"Missing admin password"
            shown = shown.strip()
        return b"" if compare_digest(shown, self.password.encode()) else b"Invalid admin password"


def _refuse(request: Request, status: int, text: bytes) -> None:
    """Refuse without a content type, as the protocol does here."""
    request.setResponseCode(status)
    _dress(request, True)
    request.finish_with(text)


def _dress(request: Request, refused: bool) -> None:
    add_cors(request)


def _token_json(token: SignupToken) -> dict[str, object]:
    return {
        "token": token.token,
        "created_at": iso_time(token.created, offset=False),
        "used_at": None if token.used is None else iso_time(token.used, offset=False),
        "used_by": token.used_by,
        "quota": token.quota.to_json(),
    }


def _limit(text: str) -> int:
    """Items of a page: 1 to 65535, more than 1000 as 1000. Raises `ValueError`."""
    digits = text.removeprefix("+")
    if not text:
        raise ValueError("cannot parse integer from empty string")
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError("invalid digit found in string")
    digits = digits.lstrip("0")
    if not digits:
        raise ValueError("number would be zero for non-zero type")
    if len(digits) > 5 or int(digits) > 0xFFFF:
        raise ValueError("number too large to fit in target type")
    return min(int(digits), MAX_LIMIT)


def _cursor(text: str) -> str:
    """A signup token, which need not exist. Raises `ValueError`."""
    try:
        check_signup_token(text)
    except InvalidSignupToken:
        raise ValueError("Invalid signup code id") from None
    return text


def _state(text: str) -> TokenState:
    """Raises `ValueError`."""
    try:
        return TokenState(text)
    except ValueError:
        raise ValueError(f"unknown variant `{text}`, expected one of `all`, `used`, `unused`") from None
