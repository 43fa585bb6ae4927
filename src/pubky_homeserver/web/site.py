"""Who answers what on the client port: one table of paths and methods, in the protocol's order.

Every request passes the same gates, outermost first: CORS (any `OPTIONS` is answered there), the account and path that
it is about (a malformed `/storage…` is refused there), the route, who is asking, the handler. Klein's own router is
not asked: it redirects, adds methods and has its own error pages; the table here names Klein's endpoints.
"""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, ClassVar

from attrs import define, field, frozen
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from pubky_homeserver.accounts import Accounts
from pubky_homeserver.claims import Claims
from pubky_homeserver.core.errors import InvalidRequest, TakenDown
from pubky_homeserver.feed import Feed
from pubky_homeserver.grants import Grants
from pubky_homeserver.locks import Locks
from pubky_homeserver.metrics import ServerMetrics
from pubky_homeserver.revocations import Revocations
from pubky_homeserver.sessions import Sessions
from pubky_homeserver.storage import Storage
from pubky_homeserver.takedowns import Takedowns
from pubky_homeserver.web.answers import Dress, answer_with, refuse, refuse_method
from pubky_homeserver.web.arrivals import Arrivals
from pubky_homeserver.web.auth import Auth
from pubky_homeserver.web.copies import CopiedFiles
from pubky_homeserver.web.cors import add_cors, answer_options
from pubky_homeserver.web.credentials import Credentials, Visitor
from pubky_homeserver.web.events import Events
from pubky_homeserver.web.files import Files
from pubky_homeserver.web.grants import SESSION, GrantAuth
from pubky_homeserver.web.limits import RequestLimit
from pubky_homeserver.web.locks import FileLocks
from pubky_homeserver.web.queries import pairs_of
from pubky_homeserver.web.request import Request
from pubky_homeserver.web.routes import Route, route
from pubky_homeserver.web.target import Target, addressed, key_in, relative, tenant_of
from pubky_homeserver.web.texts import PLAIN, json_body
from pubky_homeserver.web.websites import Websites, page_of

Answer = Callable[[Request], Coroutine[Deferred[Any], Any, None]]
"""What answers a request."""

FEATURES = ("path-addressed-storage", "grant-proof-logout", "webdav-locks")
"""What clients may count on anyway."""

PEERS = b"/peer/v1/"
"""What homeservers ask each other lies below this, where the host names no user."""

SIGNUP_TOKEN_REQUESTS = 10
"""Look-ups of signup tokens that one client may make in a minute, lest somebody tries them all."""

REMOVALS = (b"DELETE", b"UNLOCK")
"""What the owner of an account that was taken down may still do with its files."""

EXPOSED = b"retry-after,lock-token,timeout"
"""Fields of an answer that a script in a browser may read."""


@frozen
class Home:
    """The homeserver itself."""

    features: tuple[str, ...]
    """What clients may count on, in the protocol's order."""
    app: ClassVar[Klein] = Klein()

    @app.route("/", methods=["GET", "HEAD"])
    async def root(self, request: Request, target: Target) -> bytes:
        """Say what this is."""
        request.setHeader(b"Content-Type", PLAIN)
        return b"Pubky Homeserver"

    @app.route("/info", methods=["GET", "HEAD"])
    async def info(self, request: Request, target: Target) -> bytes:
        """Say what this homeserver can do, by names that clients know."""
        request.setHeader(b"Cache-Control", b"no-store")
        return json_body(request, {"features": list(self.features)})


@define(eq=False)
class ClientSite:
    """The client API. `answer` is what a channel calls with each request."""

    home: Home
    auth: Auth
    grants: GrantAuth
    files: Files
    locks: FileLocks
    events: Events
    credentials: Credentials
    metrics: ServerMetrics
    websites: Websites | None
    """The users' sites; None if they are not shown."""
    homeserver: str
    """This homeserver's own key."""
    takedowns: Takedowns
    copied: CopiedFiles | None = None
    """What is kept of other homeservers' accounts."""
    peers: Answer | None = None
    """Who answers homeservers that are trusted; None if none is."""
    _page: Route | None = field(init=False, default=None)
    _exact: dict[bytes, Route] = field(init=False)
    # Raw path → its route.
    _signup_token: Route = field(init=False)
    _grant: Route = field(init=False)
    _storage: Route = field(init=False)
    _relative: Route = field(init=False)

    def __attrs_post_init__(self) -> None:
        home, auth, files, events = self.home.app, self.auth.app, self.files.app, self.events.app
        grants = self.grants.app
        self._exact = {
            b"/": route(home, {"GET": "root", "HEAD": "root"}),
            b"/info": route(home, {"GET": "info", "HEAD": "info"}),
            b"/signup": route(auth, {"POST": "sign_up"}),
            b"/session": route(auth, {"POST": "sign_in", "GET": "session", "HEAD": "session", "DELETE": "sign_out"}),
            b"/auth/grant/signup": route(grants, {"POST": "sign_up"}),
            b"/auth/grant/session": route(
                grants, {"POST": "sign_in", "GET": "session", "HEAD": "session", "DELETE": "sign_out"}
            ),
            b"/auth/grant/sessions": route(grants, {"GET": "active", "HEAD": "active"}),
            b"/events/": route(events, {"GET": "page", "HEAD": "page"}),
            b"/events-stream": route(events, {"GET": "stream"}, private=True),
        }
        self._signup_token = route(auth, {"GET": "signup_token"})
        self._grant = route(grants, {"DELETE": "revoke"})
        if self.websites is not None:
            self._page = route(self.websites.app, {"GET": "show", "HEAD": "show"})
        methods = {"GET": "get", "HEAD": "head", "PUT": "put", "DELETE": "delete"}
        self._relative = route(files, methods)
        storage = self._relative.methods | route(self.locks.app, {"LOCK": "lock", "UNLOCK": "unlock"}).methods
        self._storage = Route(storage, allow=b", ".join(storage), options=self._relative.options)

    async def answer(self, request: Request) -> None:
        """Answer one request."""
        if self.peers is not None and request.path.startswith(PEERS) and tenant_of(request) in (None, self.homeserver):
            await self.peers(request)
            return
        if request.method == b"OPTIONS":
            answer_options(request, self._route(request.path).options)
            return
        try:
            target = addressed(request)
        except InvalidRequest as refusal:
            refuse(request, refusal, _dress)
            return
        if target is not None:
            await self._answer_storage(request, target, self._storage)
            return
        if self._page is not None:
            try:
                page = page_of(request, self.homeserver)
            except InvalidRequest as refusal:
                refuse(request, refusal, _dress)
                return
            if page is not None:
                dress = _dress_page if self.copied is None else self.copied.dress_page(_dress_page, page.owner)
                dress(request, False)
                await answer_with(request, self._page.methods[request.method](request, page), dress)
                return
        found = self._route(request.path)
        if found is self._relative:
            await self._answer_storage(request, relative(request), found)
            return
        dress = _dress_stream if found.private else _dress
        handler = found.methods.get(request.method)
        if handler is None:
            refuse_method(request, found.allow, dress)
            return
        dress(request, False)
        await answer_with(request, handler(request, Target(tenant_of(request))), dress)

    def _route(self, path: bytes) -> Route:
        found = self._exact.get(path)
        if found is not None:
            return found
        if path.startswith(b"/signup_tokens/") and path.count(b"/") == 2 and not path.endswith(b"/"):
            return self._signup_token
        if path.startswith(SESSION) and path.count(b"/") == 4 and not path.endswith(b"/"):
            return self._grant
        return self._storage if path.startswith(b"/storage/") else self._relative

    async def _answer_storage(self, request: Request, target: Target, found: Route) -> None:
        dress = _DRESSES[target.legacy, target.private]
        if not target.legacy and request.method in (b"LOCK", b"UNLOCK"):
            dress = partial(_dress_lock, dress)
        if self.copied is not None and (copy := self.copied.copies.of(target.tenant)) is not None:
            is_answered = await self.copied.answer(request, target, copy, found, dress)
            if is_answered:
                return
        dress(request, False)
        await answer_with(request, self._handle_storage(request, target, found, dress), dress)

    async def _handle_storage(self, request: Request, target: Target, found: Route, dress: Dress) -> bytes | None:
        if self.takedowns.has(target.tenant) and request.method not in REMOVALS:
            raise TakenDown
        visitor = await self.credentials.visitor(request, target.tenant)
        if target.tenant is not None:
            self._count(request, target.tenant, target.legacy, visitor)
        handler = found.methods.get(request.method)
        if handler is None:
            refuse_method(request, found.allow, dress)
            return None
        return await handler(request, target, visitor)

    def _count(self, request: Request, tenant: str, legacy: bool, visitor: Visitor) -> None:
        header = request.header(b"pubky-host")
        said = "absent" if header is None else "matching" if key_in(header) == tenant else "other"
        in_query = b"pubky-host" in request.query and any(name == "pubky-host" for name, _ in pairs_of(request.query))
        self.metrics.storage_request("legacy" if legacy else "path", visitor.method, said, in_query)


def client_site(
    accounts: Accounts,
    sessions: Sessions,
    grants: Grants,
    storage: Storage,
    locks: Locks,
    feed: Feed,
    metrics: ServerMetrics,
    clock: IReactorTime,
    homeserver: str,
    takedowns: Takedowns,
    websites: bool = True,
    claims: Claims | None = None,
    peers: Answer | None = None,
) -> ClientSite:
    """The client API over the rooms that do the work. `websites`: whether users' sites are shown."""
    credentials = Credentials(sessions, grants)
    token_limit = RequestLimit(SIGNUP_TOKEN_REQUESTS, 60.0, clock)
    arrivals = Arrivals(accounts, claims)
    return ClientSite(
        Home((*FEATURES, "websites") if websites else FEATURES),
        Auth(accounts, sessions, credentials, clock, token_limit, metrics, arrivals),
        GrantAuth(accounts, grants, credentials, metrics, arrivals),
        Files(storage),
        FileLocks(locks),
        Events(feed, credentials, Revocations(sessions.store), clock, metrics, claims),
        credentials,
        metrics,
        Websites(accounts, storage, takedowns, None if claims is None else claims.copies) if websites else None,
        homeserver,
        takedowns,
        CopiedFiles(claims.copies, claims, takedowns, EXPOSED) if claims is not None else None,
        peers,
    )


def _dress(request: Request, refused: bool) -> None:
    add_cors(request, EXPOSED)


def _dress_page(request: Request, refused: bool) -> None:
    request.setHeader(b"Cache-Control", b"no-cache")
    request.setHeader(b"X-Content-Type-Options", b"nosniff")
    add_cors(request, EXPOSED)


def _dress_stream(request: Request, refused: bool) -> None:
    """An answer that depends on who asks, and for how long."""
    request.setHeader(b"Cache-Control", b"no-store")
    request.addHeader(b"Vary", b"pubky-host, Authorization, Cookie")
    add_cors(request, EXPOSED)


def _dress_private(request: Request, refused: bool) -> None:
    request.setHeader(b"Cache-Control", b"no-store")
    request.addHeader(b"Vary", b"Authorization, Cookie")
    add_cors(request, EXPOSED)


def _dress_relative(request: Request, refused: bool) -> None:
    if not refused and request.method in (b"GET", b"HEAD"):
        request.addHeader(b"Vary", b"pubky-host")
    add_cors(request, EXPOSED)


def _dress_lock(dress: Dress, request: Request, refused: bool) -> None:
    """An answer about a lock: it names the methods that are not about locks, as the official one's router does."""
    request.setHeader(b"Allow", b"GET,HEAD,PUT,DELETE")
    dress(request, refused)


_DRESSES: dict[tuple[bool, bool], Dress] = {
    (False, False): _dress,
    (False, True): _dress_private,
    (True, False): _dress_relative,
    (True, True): _dress_stream,
}
# (by headers?, private?) → what every answer carries
