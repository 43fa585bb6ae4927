"""Events for everybody who follows: the text feed `/events/` and the stream `/events-stream` (server-sent events)."""

from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import ClassVar

from attrs import define, field, frozen
from klein import Klein
from twisted.internet.interfaces import IReactorTime

from pubky_homeserver.claims import Claims
from pubky_homeserver.core.authorization import authorize_read
from pubky_homeserver.core.errors import InvalidPath, InvalidRequest, NoSession, NotFound
from pubky_homeserver.core.paths import is_private, normalize_path
from pubky_homeserver.core.records import Event
from pubky_homeserver.feed import EventStream, Feed
from pubky_homeserver.metrics import ServerMetrics
from pubky_homeserver.revocations import Revocations
from pubky_homeserver.web.credentials import NOBODY, Credentials, has_bearer
from pubky_homeserver.web.pages import Pages
from pubky_homeserver.web.queries import flag_of, limit_of, pairs_of, whole_number
from pubky_homeserver.web.request import Request
from pubky_homeserver.web.target import Target, key_in

MAX_USERS = 50
"""Accounts that one stream may follow."""

KEEP_ALIVE = 15.0
"""Seconds of silence after which a comment is sent."""


@frozen
class StreamQuery:
    """What `/events-stream` was asked for, in the order in which its errors are found."""

    cursors: dict[str, str | None]
    users: int
    """How many times an account was named."""
    paths: tuple[str, ...]
    limit: int | None
    live: bool
    reverse: bool

    @classmethod
    def read(cls, query: bytes) -> "StreamQuery":
        """Read the query string. Raises `InvalidRequest`."""
        pairs = pairs_of(query)
        limit = None
        for _, text in (pair for pair in pairs if pair[0] == "limit"):
            limit = whole_number(text, 0xFFFF)
            if limit is None:
                raise InvalidRequest(f"Invalid limit: {text}")
            if not limit:
                raise InvalidRequest("limit must be at least 1")
        last = dict(pairs)
        live, reverse = (last.get(name) in ("true", "1") for name in ("live", "reverse"))
        if live and reverse:
            raise InvalidRequest("Cannot use live mode with reverse ordering")
        users = [value for name, value in pairs if name == "user" and value]
        cursors = _cursors(users)
        if not users:
            raise InvalidRequest("user parameter is required")
        if len(users) > MAX_USERS:
            raise InvalidRequest(f"Too many users. Maximum allowed: {MAX_USERS}")
        paths = tuple(_filter(value) for name, value in pairs if name == "path" and value)
        return cls(cursors, len(users), paths or ("/pub/",), limit, live, reverse)

    @property
    def private(self) -> bool:
        """Whether some path is private."""
        return any(map(is_private, self.paths))


def _cursors(users: list[str]) -> dict[str, str | None]:
    cursors: dict[str, str | None] = {}
    for user in users:
        key, colon, cursor = user.partition(":")
        pubky = key_in(key.encode())
        if pubky is None:
            raise InvalidRequest(f"Invalid public key: {key}")
        cursors[pubky] = cursor if colon else None
    return cursors


def _filter(value: str) -> str:
    path = value if value.startswith("/") else "/" + value
    try:
        return normalize_path(path)
    except InvalidPath:
        raise InvalidRequest(f"Invalid path: {path}") from None


@frozen
class Events:
    """The two ways to follow."""

    feed: Feed
    credentials: Credentials
    revocations: Revocations
    clock: IReactorTime
    metrics: ServerMetrics = field(repr=False)
    claims: Claims | None = None
    """What users of copies may do; None if there are no copies."""
    _pages: Pages = field(factory=Pages, init=False, repr=False)
    app: ClassVar[Klein] = Klein()

    @app.route("/events/", methods=["GET", "HEAD"])
    async def page(self, request: Request, target: Target) -> bytes:
        """A page of public events of all accounts as text, its cursor on the last line. 200; 400."""
        query = dict(pairs_of(request.query))
        flag_of(query, "reverse")
        flag_of(query, "shallow")
        text = query.get("cursor", "").removeprefix("pubky://")
        after = await self.feed.cursor(text) if text else 0
        limit = limit_of(query)
        request.setHeader(b"Content-Type", b"text/plain")
        page = self._pages.get((after, limit))
        if page is None:
            began = self.clock.seconds()
            events = await self.feed.page(after, limit) if limit else []
            self.metrics.events_query(int((self.clock.seconds() - began) * 1000))
            page = text_of(events)
            if len(events) == limit:  # it is full, and stays as it is
                self._pages.keep((after, limit), page)
        return page

    @app.route("/events-stream", methods=["GET"])
    async def stream(self, request: Request, target: Target) -> None:
        """Events of some accounts as they happen, or as they happened. 200; 400, 401, 403, 404, 421, 503."""
        query = StreamQuery.read(request.query)
        owner = next(iter(query.cursors)) if query.users == 1 else None
        visitor = NOBODY
        if query.private and (owner is not None or has_bearer(request)):
            # Where a bearer is shown, cookies count for nothing, however bad the bearer is.
            visitor = await self.credentials.visitor(request, None if has_bearer(request) else owner)
        for path in query.paths:
            authorize_read(visitor.session, owner, path)
        if self.claims is not None:
            await self._settle(self.claims, query)
        if visitor.session is None:
            await self._serve(request, query, _Ending())
            return
        # What was opened with a credential ends with it. Hear first and look then, lest it ends in between.
        ending = _Ending()
        with self.revocations.watch(visitor.session, ending.end):
            if not await self.credentials.is_good(visitor.session):
                raise NoSession
            await self._serve(request, query, ending)

    async def _settle(self, claims: Claims, query: StreamQuery) -> None:
        """Wait, as private reads do, until accounts that are about to come live here.

        Until then one that never did is like the unknown. Raises `NotFound`, and what `Claims.settle` raises.
        """
        for pubky in query.cursors:
            copy = claims.copies.of(pubky)
            if copy is None or not copy.claimed:
                continue
            if query.private:
                await claims.settle(pubky)
            elif not await claims.has_lived_here(pubky):
                raise NotFound

    async def _serve(self, request: Request, query: StreamQuery, ending: "_Ending") -> None:
        stream = await self.feed.stream(query.cursors, query.paths, query.live, query.reverse, query.limit)
        ending.on(stream.close)
        try:
            with self.metrics.stream(self.clock):
                request.ends_with_input = query.live
                await self._send(request, stream)
        finally:
            stream.close()

    async def _send(self, request: Request, stream: EventStream) -> None:
        request.setHeader(b"Content-Type", b"text/event-stream")
        request.stream()
        while (batch := await stream.batch(KEEP_ALIVE)) is not None:
            await request.write(b"".join(map(frame, batch)) or b":\n\n")
        request.finish()


def text_of(events: Sequence[Event]) -> bytes:
    """A page of the text feed; nothing at all if there are no events."""
    if not events:
        return b""
    lines = [f"{event.operation} pubky://{event.pubky}{event.path}" for event in events]
    lines.append(f"cursor: {events[-1].id}")
    return "\n".join(lines).encode()


def frame(event: Event) -> bytes:
    """An event as server-sent events spell it."""
    lines = [
        f"event: {event.operation}",
        f"data: pubky://{event.pubky}{event.path}",
        f"data: cursor: {event.id}",
    ]
    if event.content_hash is not None:
        lines.append(f"data: content_hash: {b64encode(event.content_hash).decode('ascii')}")
    return ("\n".join(lines) + "\n\n").encode()


@define(eq=False)
class _Ending:
    """Ends a stream, also one that is not there yet."""

    _ended: bool = False
    _close: Callable[[], None] | None = None

    def on(self, close: Callable[[], None]) -> None:
        """What to call at the end; at once if that was already."""
        self._close = close
        if self._ended:
            close()

    def end(self) -> None:
        """It ends now."""
        self._ended = True
        if self._close is not None:
            self._close()
