"""A small official homeserver over a real socket: events, files and lists as `events.md` and `storage.md` say.

It does what a test wants besides: it is busy, cuts streams, forgets hashes, and is put back to an older state.
"""

from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote

from attrs import define, field, frozen
from blake3 import blake3
from twisted.internet import reactor as _reactor
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

reactor: Any = _reactor

MODIFIED = b"Wed, 21 Oct 2015 07:28:00 GMT"
STREAM, ALL = 100, 1000  # events of a page, and lines of a list


@frozen
class Written:
    """One event."""

    id: int
    pubky: str
    operation: str
    path: str
    content_hash: bytes = b""


@define
class Official:
    """Its users with their files, and all events."""

    users: dict[str, dict[str, bytes]] = field(factory=dict)
    events: list[Written] = field(factory=list)
    number: int = 0
    asked: list[tuple[str, str]] = field(factory=list)
    """Method and path of each request."""
    busy: list[str] = field(factory=list)
    """What the next answers say that are 429: how long to wait."""
    away: int = 0
    """Answers that are 500."""
    fails_at: int = 0
    """After so many answers it fails, until this is 0."""
    silent: int = 0
    """Event streams that end without a word, as when its database is away."""
    hears: bool = True
    """Whether live streams get events."""
    before_get: Callable[[str], None] = lambda _path: None
    """Called before a file is answered."""
    before_events: Callable[[], None] = lambda: None
    rotten: dict[str, bytes] = field(factory=dict)
    """Path → what is sent in place of its body."""
    live: list[tuple[Request, str, list[int]]] = field(factory=list)
    # Open streams: whose, and the last id that was sent.

    def put(self, pubky: str, path: str, body: bytes, forget: bool = False) -> None:
        """Write a file; `forget`: the event has no hash."""
        self.users[pubky][path] = body
        self._tell(pubky, "PUT", path, bytes(32) if forget else blake3(body).digest())

    def delete(self, pubky: str, path: str) -> None:
        """Remove one."""
        del self.users[pubky][path]
        self._tell(pubky, "DEL", path, b"")

    def cut(self) -> None:
        """End all live streams."""
        live, self.live = self.live, []
        for request, _, _ in live:
            request.finish()

    def keep(self) -> tuple[Any, ...]:
        """A backup."""
        return {pubky: dict(files) for pubky, files in self.users.items()}, [*self.events], self.number

    def restore(self, backup: tuple[Any, ...]) -> None:
        """Be as in a backup again."""
        users, events, self.number = backup
        self.users, self.events = {pubky: dict(files) for pubky, files in users.items()}, [*events]
        self.cut()

    def beat(self) -> None:
        """Say on each live stream that there is nothing."""
        for request, _, _ in self.live:
            request.write(b":\n\n")

    def _tell(self, pubky: str, operation: str, path: str, content_hash: bytes) -> None:
        self.number += 3  # others write, too
        self.events.append(Written(self.number, pubky, operation, path, content_hash))
        if self.hears:
            for request, user, last in self.live:
                if user == pubky and self.number > last[0]:
                    last[0] = self.number
                    request.write(_frame(self.events[-1]))

    # --- answers --------------------------------------------------------------------------------------------------

    def answer(self, request: Request) -> Any:
        """Anything that is asked."""
        path = request.path.decode()
        self.asked.append((request.method.decode(), path))
        if self.busy:
            request.setHeader("retry-after", self.busy.pop(0))
            return self._say(request, 429, "Rate limit exceeded")
        if self.away or 0 < self.fails_at < len(self.asked):
            self.away = max(0, self.away - 1)
            return self._say(request, 500, "Internal server error")
        if path == "/info":
            return b'{"features":[]}'
        if path == "/events-stream":
            return self._stream(request)
        _, storage, pubky, file = path.split("/", 3)
        assert storage == "storage"
        if file == "pub/":
            return self._list(request, pubky)
        return self._file(request, pubky, "/" + unquote(file))

    def _say(self, request: Request, status: int, text: str) -> bytes:
        request.setResponseCode(status)
        return b"" if request.method == b"HEAD" else text.encode()

    def _stream(self, request: Request) -> Any:
        said = {name.decode(): values[0].decode() for name, values in request.args.items()}
        pubky, _, cursor = said["user"].partition(":")
        if pubky not in self.users:
            return self._say(request, 404, "Not Found")
        request.setHeader("content-type", "text/event-stream")
        if self.silent:
            self.silent -= 1
            return b""
        self.before_events()
        after = int(cursor or 0)
        found = [one for one in self.events if one.pubky == pubky and one.id > after and one.path.startswith("/pub/")]
        found = found[::-1] if said.get("reverse") == "true" else found
        found = found[: int(said.get("limit", 65535))]
        if said.get("live") != "true":
            return b":\n\n" + b"".join(map(_frame, found))
        self.live.append((request, pubky, [found[-1].id if found else after]))
        request.notifyFinish().addErrback(self._forget, request)
        request.write(b":\n\n" + b"".join(map(_frame, found)))
        return NOT_DONE_YET

    def _forget(self, _reason: object, request: Request) -> None:
        self.live = [one for one in self.live if one[0] is not request]

    def _list(self, request: Request, pubky: str) -> bytes:
        cursor = request.args.get(b"cursor", [b""])[0].decode().removeprefix(pubky)
        limit = min(int(request.args.get(b"limit", [b"100"])[0]), ALL)
        names = sorted(path for path in self.users.get(pubky, {}) if path.startswith("/pub/"))
        if not names:
            return self._say(request, 404, "Directory Not Found")
        return "\n".join([f"pubky://{pubky}{path}" for path in names if path > cursor][:limit]).encode()

    def _file(self, request: Request, pubky: str, path: str) -> bytes | int:
        if request.method == b"GET":
            self.before_get(path)
        body = self.users.get(pubky, {}).get(path)
        if body is None:
            return self._say(request, 404, "Not Found")
        request.setHeader("etag", f'"{b64encode(blake3(body).digest()).decode()}"')
        request.setHeader("last-modified", MODIFIED)
        request.setHeader("content-type", "text/plain")
        request.setHeader("content-length", str(len(body)))
        if request.method == b"HEAD":
            return b""
        sent = self.rotten.get(path, body)
        if len(sent) < len(body):
            request.write(sent)
            request.loseConnection()
            return NOT_DONE_YET
        return sent


@asynccontextmanager
async def serving(official: Official) -> AsyncIterator[int]:
    """The port where it answers."""

    class Root(Resource):
        isLeaf = True

        def render(self, request: Request) -> Any:
            return official.answer(request)

    site = Site(Root())
    port = reactor.listenTCP(0, site, interface="127.0.0.1")
    try:
        yield port.getHost().port
    finally:
        official.cut()
        await port.stopListening()


def _frame(one: Written) -> bytes:
    lines = [f"event: {one.operation}", f"data: pubky://{one.pubky}{one.path}", f"data: cursor: {one.id}"]
    if one.operation == "PUT":
        lines.append(f"data: content_hash: {b64encode(one.content_hash).decode()}")
    return ("\n".join(lines) + "\n\n").encode()
