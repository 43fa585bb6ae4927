"""An official homeserver as seen from here: asked what it tells everybody, over its public protocol.

It knows nothing of peers. Its event stream of a user says which paths changed, and the hash of each body; what a file
is besides says the file itself, when it is asked for. So a file can be another one than its event named: then a later
event of the same path is on its way, for it writes file and event in one step.

All that it says is bounded and has the right shape; whether it is true is for the caller to see.
"""

import re
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import AsyncGenerator, AsyncIterator
from email.utils import parsedate_to_datetime
from urllib.parse import urlencode

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IResponse

from pubky_homeserver.core.errors import InvalidPath, PeerAway, PeerBroken, PeerRefused
from pubky_homeserver.core.paths import MAX_PATH, is_directory, is_public, parse_path, url_encode
from pubky_homeserver.core.peers import Peer
from pubky_homeserver.core.records import Entry, Operation
from pubky_homeserver.peers.answers import pieces_of, read
from pubky_homeserver.peers.asking import STALL, ask, words_of
from pubky_homeserver.peers.messages import HASH, MAX_LENGTH
from pubky_homeserver.peers.shapes import MAX_NUMBER
from pubky_homeserver.peers.tally import Traffic

PAGE = 1000
"""Events, or names of files, that are asked for at once: of names it gives no more."""

SILENCE = 40.0
"""Seconds without a word on a live stream: it says something every 15."""

UNKNOWN = bytes(HASH)
"""The hash of an event that is older than hashes: the file's ETag says it."""

MAX_REST = 300.0
"""Seconds, at most, for which it may ask us to leave it alone."""

MAX_RESTS = 5
"""Times that one question is asked again because it was busy."""

MAX_LINE = MAX_PATH + 128
"""Bytes of a line: `data: pubky://`, a key, and a path."""

MAX_FIELDS = 16
"""Lines of one event; it has four."""

MAX_INFO = 65_536
"""Bytes of what it says of itself."""

_TYPE = re.compile(r"[ -~]{1,255}", re.ASCII)
_NUMBER = re.compile(rb"[0-9]{1,16}")


@frozen
class Told:
    """An event as it tells it."""

    id: int
    """Its cursor: ascending over all of its users."""
    operation: Operation
    path: str
    content_hash: bytes | None = None
    """PUT only; `UNKNOWN` if it does not know."""


@define(eq=False)
class Official:
    """An official homeserver. `agent` reaches it, as `PeerClient` does its peer."""

    peer: Peer
    agent: IAgent
    clock: IReactorTime
    traffic: Traffic = field(factory=Traffic)
    _rests: float = field(default=0.0, init=False)
    # When (seconds) it may be asked again: whoever asks waits, for it counts all that comes from here.

    async def features(self) -> bytes:
        """What it says of itself."""
        response = await self._ask("GET", "/info")
        await self._must_succeed(response)
        return await read(response, self.clock, STALL, self.traffic.receive, MAX_INFO)

    # --- events ---------------------------------------------------------------------------------------------------

    async def events(self, pubky: str, after: int, limit: int = PAGE) -> list[Told]:
        """Up to `limit` events of a user after a cursor, ascending. Raises `PeerRefused` if it knows no such user."""
        return await self._collect(pubky, f"{pubky}:{after}", limit, reverse=False)

    async def newest(self, pubky: str) -> Told | None:
        """The newest event of a user; None if there is none. Raises as `events`."""
        found = await self._collect(pubky, pubky, 1, reverse=True)
        return found[0] if found else None

    async def live(self, pubky: str, after: int) -> AsyncGenerator[Told | None, None]:
        """The events of a user after a cursor, as they happen; None when it says that there are none.

        Raises as `events`, and `PeerAway` when the stream ends.
        """
        response = await self._ask("GET", "/events-stream", user=f"{pubky}:{after}", live="true")
        await self._must_succeed(response)
        pieces = pieces_of(response, self.clock, SILENCE, self.traffic.receive, 1)
        try:
            async for told in _events(pieces, pubky):
                yield told
        finally:
            await pieces.aclose()
        raise PeerAway("the stream of events ended")

    async def _collect(self, pubky: str, user: str, limit: int, reverse: bool) -> list[Told]:
        query = {"user": user, "limit": str(limit)} | ({"reverse": "true"} if reverse else {})
        response = await self._ask("GET", "/events-stream", **query)
        await self._must_succeed(response)
        pieces = pieces_of(response, self.clock, STALL, self.traffic.receive)
        found: list[Told] = []
        try:
            async for told in _events(pieces, pubky):
                if told is None:
                    continue
                if len(found) == limit or (found and told.id <= found[-1].id):
                    raise PeerBroken("its events are not in order")
                found.append(told)
        finally:
            await pieces.aclose()
        return found

    # --- files ----------------------------------------------------------------------------------------------------

    async def names(self, pubky: str, after: str, limit: int = PAGE) -> list[str]:
        """Up to `limit` paths of public files above `after`, in byte order; none at the end, and of an unknown user."""
        query = {"limit": str(limit)} | ({"cursor": f"{pubky}{after}"} if after else {})
        response = await self._ask("GET", f"/storage/{pubky}/pub/", **query)
        if response.code == 404:
            await self._drop(response)
            return []
        await self._must_succeed(response)
        most = limit * MAX_LINE
        answer = await read(response, self.clock, STALL, self.traffic.receive, most)
        names = [_path(line, pubky) for line in answer.split(b"\n")] if answer else []
        if len(names) > limit or [*names] != sorted(set(names)) or (names and names[0] <= after):
            raise PeerBroken("its list is not in order")
        return names

    async def head(self, pubky: str, path: str) -> Entry | None:
        """What a file is, without its body; None if there is none."""
        response = await self._ask("HEAD", f"/storage/{pubky}{url_encode(path)}")
        if response.code == 404:
            return None
        await self._must_succeed(response)
        lengths = (response.headers.getRawHeaders("content-length") or [""])[0]
        return _entry(path, response, int(lengths) if _NUMBER.fullmatch(lengths.encode()) else -1)

    async def get(self, pubky: str, path: str) -> tuple[Entry, AsyncGenerator[bytes, None]] | None:
        """A file with its body in pieces, which are not verified; None if there is none."""
        response = await self._ask("GET", f"/storage/{pubky}{url_encode(path)}")
        if response.code == 404:
            await self._drop(response)
            return None
        await self._must_succeed(response)
        pieces = pieces_of(response, self.clock, STALL, self.traffic.receive)
        try:
            return _entry(path, response, -1 if response.length is UNKNOWN_LENGTH else response.length), pieces
        except PeerBroken:
            await give_up(pieces)
            raise

    # --- one request ----------------------------------------------------------------------------------------------

    async def _ask(self, method: str, target: str, /, **query: str) -> IResponse:
        """The head of an answer; of a busy one later, as long as it is told to wait. Raises `PeerAway`."""
        url = (self.peer.url or f"https://{self.peer.key}") + target + (f"?{urlencode(query)}" if query else "")
        for _ in range(MAX_RESTS):
            while (left := self._rests - self.clock.seconds()) > 0:
                await deferLater(self.clock, left)
            response = await ask(self.agent, method, url, Headers({}), None, self.clock, self.traffic)
            if response.code != 429:
                return response
            self.traffic.failures += 1
            after = _seconds(response)
            self._rests = max(self._rests, self.clock.seconds() + after)
            if method != "HEAD":
                await self._drop(response)
        raise PeerAway("429: it is asked too often")

    async def _must_succeed(self, response: IResponse) -> None:
        """Raise what a status that is no success means."""
        code: int = response.code
        if code == 200:
            return
        self.traffic.failures += 1
        text = f"{code}: {await words_of(response, self.clock, self.traffic) or 'without a reason'}"
        if code in (401, 403, 404):
            raise PeerRefused(text)
        raise PeerAway(text) if code >= 500 else PeerBroken(text)

    async def _drop(self, response: IResponse) -> None:
        """Read an answer that says nothing more, so that its connection can be used again."""
        await words_of(response, self.clock, self.traffic)


async def give_up(pieces: AsyncGenerator[bytes, None]) -> None:
    """Read a body no further. One that nobody began to read has to be begun first: else its connection stays."""
    try:
        async for _ in pieces:
            break
    except PeerAway:
        pass
    await pieces.aclose()


async def _events(pieces: AsyncIterator[bytes], pubky: str) -> AsyncGenerator[Told | None, None]:
    """The server-sent events of a stream; None for a comment. Raises `PeerBroken`."""
    rest, lines = b"", list[bytes]()
    async for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        if max(map(len, (rest, *whole))) > MAX_LINE:
            raise PeerBroken("a line of its events is too long")
        for line in whole:
            if line:
                lines.append(line)
                if len(lines) > MAX_FIELDS:
                    raise PeerBroken("an event has too many lines")
            elif lines:
                yield _told(lines, pubky)
                lines = []


def _told(lines: list[bytes], pubky: str) -> Told | None:
    """One event; None if it is nothing but comments."""
    name, path, cursor, content_hash = b"", b"", b"", None
    for line in lines:
        if line.startswith(b"event: "):
            name = line[7:]
        elif line.startswith(b"data: pubky://"):
            path = line[6:]
        elif line.startswith(b"data: cursor: "):
            cursor = line[14:]
        elif line.startswith(b"data: content_hash: "):
            content_hash = _hash(line[20:])
    if all(line.startswith(b":") for line in lines):
        return None
    is_put = name == b"PUT"
    if name not in (b"PUT", b"DEL") or is_put is (content_hash is None) or not _NUMBER.fullmatch(cursor):
        raise PeerBroken("an event is not as it must be")
    number = int(cursor)
    if not 0 < number <= MAX_NUMBER:
        raise PeerBroken("the number of an event is too large")
    return Told(number, Operation.PUT if is_put else Operation.DEL, _path(path, pubky), content_hash)


def _path(url: bytes, pubky: str) -> str:
    """The path of one of a user's public files. Raises `PeerBroken`."""
    try:
        text = url.decode()
        path = parse_path(text.removeprefix(f"pubky://{pubky}"))
    except (UnicodeDecodeError, InvalidPath):
        raise PeerBroken("a name is none") from None
    if not is_public(path) or is_directory(path) or len(path) == len(text):
        raise PeerBroken("a name is not that of a public file of this user")
    return path


def _hash(text: bytes) -> bytes:
    try:
        found = b64decode(text, validate=True)
    except NotBase64:
        found = b""
    if len(found) != HASH:
        raise PeerBroken("a hash is none")
    return found


def _entry(path: str, response: IResponse, length: int) -> Entry:
    """What the head of an answer says of a file."""

    def said(name: str) -> str:
        fields: list[str] = response.headers.getRawHeaders(name) or [""]
        return fields[0]

    etag = said("etag")
    if not (0 <= length <= MAX_LENGTH and len(etag) > 2 and etag[0] == etag[-1] == '"'):
        raise PeerBroken("a file has no length or no hash")
    try:
        modified = int(parsedate_to_datetime(said("last-modified")).timestamp() * 1_000_000)
    except (ValueError, OverflowError):
        raise PeerBroken("a file does not say when it was modified") from None
    if not 0 <= modified <= MAX_NUMBER:
        raise PeerBroken("the time of a file is none")
    content_type = said("content-type")
    kind = content_type if _TYPE.fullmatch(content_type) else "application/octet-stream"
    return Entry(path, _hash(etag[1:-1].encode("utf-8", "replace")), length, kind, modified)


def _seconds(response: IResponse) -> float:
    """How long it wants to be left alone."""
    said = (response.headers.getRawHeaders("retry-after") or ["1"])[0].encode("utf-8", "replace")
    return min(max(float(said), 1.0), MAX_REST) if _NUMBER.fullmatch(said) else 1.0
