"""A trusted homeserver as seen from here: found, asked, and read. What it is asked for: `peers/web.py`.

That it is the peer who answers says TLS: by the peer's key, or by the certificate of the domain that the operator has
named. That it is we who ask says the signature of each request.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import TypeVar
from urllib.parse import urlencode

from attrs import field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse
from zope.interface import implementer

from pkarr.keys import KEY_LENGTH, Keypair, PublicKey
from pkarr.packet import MAX_PACKET
from pubky_homeserver.core.copies import Held, Hint, Listed, Logged, LoggedEvent, Offered, Position, Question
from pubky_homeserver.core.erasing import Obeyed
from pubky_homeserver.core.errors import BodyGone, LogCompacted, LogForked, PeerAway, PeerBroken, PeerError, PeerRefused
from pubky_homeserver.core.moves import Shown
from pubky_homeserver.core.peers import Greeting, Peer
from pubky_homeserver.interfaces import IPeer
from pubky_homeserver.peers import messages, reading
from pubky_homeserver.peers.answers import beyond, pieces_of, read
from pubky_homeserver.peers.asking import STALL, ask, words_of
from pubky_homeserver.peers.erasing import ERASE
from pubky_homeserver.peers.gathering import Gathering
from pubky_homeserver.peers.late import LATE
from pubky_homeserver.peers.messages import HOLDINGS
from pubky_homeserver.peers.shapes import Malformed, base64, to_json
from pubky_homeserver.peers.signatures import sign
from pubky_homeserver.peers.tally import Traffic

T = TypeVar("T")

SILENCE = 16.0
"""Seconds without a word on the stream of changes: three beats are lost then."""

MAX_LINE = 1024
"""Bytes of a line of the stream of changes."""


@implementer(IPeer)
@frozen
class PeerClient:
    """A peer. `agent` reaches it: by its key (`pkarr.tls.agent`) if it has no URL, else as the rest of the web."""

    peer: Peer
    keypair: Keypair = field(repr=False)
    """Our own."""
    agent: IAgent = field(repr=False)
    clock: IReactorTime = field(repr=False)
    traffic: Traffic = field(factory=Traffic, repr=False)
    _gathering: Gathering = field(init=False, repr=False)

    @_gathering.default
    def _make_gathering(self) -> Gathering:
        return Gathering(self.clock, self._events, self._events_of_many)

    @property
    def key(self) -> str:
        """See `IPeer`."""
        return self.peer.key

    async def offered(self, after: str) -> tuple[list[Offered], str | None]:
        """See `IPeer`."""
        return self._read(reading.read_accounts, await self._answer("accounts", after=after))

    async def held(self, after: str) -> tuple[list[Held], str | None]:
        """See `IPeer`."""
        if not after and HOLDINGS not in (await self.greet()).features:
            raise PeerRefused("it does not say what copies it has")
        return self._read(reading.read_held, await self._answer("copies", after=after))

    async def greet(self) -> Greeting:
        """See `IPeer`."""
        return self._read(reading.read_hello, await self._answer("hello"))

    async def show(self, packets: Sequence[bytes]) -> list[Shown]:
        """See `IPeer`."""
        response = await self._tell("packets", messages.pack_packets(packets))
        await self._must_succeed(response)
        answer, keys = await self._body(response), [PublicKey(packet[:KEY_LENGTH]).z32 for packet in packets]
        return self._read(lambda one: reading.read_shown(one, keys), answer)

    async def packet(self, pubky: str) -> bytes | None:
        """See `IPeer`."""
        response = await self._ask(f"packets/{pubky}")
        if response.code == 404:
            await self._drop(response)
            return None
        await self._must_succeed(response)
        return await read(response, self.clock, STALL, self.traffic.receive, MAX_PACKET)

    async def events(self, pubky: str, private: bool, position: Position) -> Logged:
        """See `IPeer`."""
        return await self._gathering.ask(Question(pubky, private, position))

    async def _events_of_many(self, questions: Sequence[Question]) -> list[Logged | PeerError] | None:
        """The answers to several questions; None if the peer does not understand them."""
        response = await self._tell("events", messages.pack_questions(questions))
        if response.code == 404:
            await self._drop(response)
            return None
        await self._must_succeed(response)
        answer = await self._body(response)
        return self._read(lambda one: reading.read_answers(one, questions), answer)

    async def _events(self, question: Question) -> Logged:
        pubky, private, position = question.pubky, question.private, question.position
        place = {
            "log_id": position.log_id,
            "seq": str(position.seq),
            "id": str(position.event_id),
            "digest": base64(position.digest),
        }
        response = await self._ask(_log(pubky, private, "events"), **place)
        if response.code == 409:
            raise LogForked(self._read(reading.read_fork, await self._body(response)))
        if response.code == 410:
            await self._drop(response)
            raise LogCompacted(messages.COMPACTED)
        await self._must_succeed(response)
        answer = await self._body(response)
        return self._read(lambda one: reading.read_events(one, pubky, private), answer)

    async def entries(self, pubky: str, private: bool, after: str) -> Listed:
        """See `IPeer`."""
        answer = await self._answer(_log(pubky, private, "entries"), after=after)
        return self._read(lambda one: reading.read_entries(one, private), answer)

    async def body(
        self, pubky: str, private: bool, path: str, content_hash: bytes, start: int = 0
    ) -> AsyncIterator[bytes]:
        """See `IPeer`."""
        query = urlencode({"path": path, "hash": base64(content_hash)})
        more = {"range": f"bytes={start}-"} if start else {}
        response = await self._send("GET", f"/peer/v1/{_log(pubky, private, 'body')}?{query}", None, more)
        if start and response.code == 206:
            if _begin_of(response) != start:
                raise PeerBroken("it sent another part of a body than it was asked for")
            return pieces_of(response, self.clock, STALL, self.traffic.receive)
        if response.code == 410:
            await self._drop(response)
            raise BodyGone("it is not there any more")
        await self._must_succeed(response)
        return beyond(start, pieces_of(response, self.clock, STALL, self.traffic.receive))

    async def late(self, pubky: str, private: bool, events: Sequence[LoggedEvent]) -> set[int]:
        """See `IPeer`."""
        if LATE not in (await self.greet()).features:
            raise PeerRefused("it takes no late writes")
        response = await self._tell(_log(pubky, private, "late"), messages.pack_late(events))
        await self._must_succeed(response)
        return self._read(reading.read_kept, await self._body(response))

    async def erase(self, pubky: str, log_id: str, seq: int) -> Obeyed:
        """See `IPeer`."""
        if ERASE not in (await self.greet()).features:
            raise PeerRefused("it erases nothing: its homeserver is too old")
        response = await self._tell(f"accounts/{pubky}/erase", messages.pack_order(log_id, seq))
        if response.code == 409:
            raise PeerRefused(f"409: {await self._text(response)}")
        await self._must_succeed(response)
        return self._read(reading.read_obeyed, await self._body(response))

    async def changes(self, hear: Callable[[Hint | None], None], beat: Callable[[], None]) -> None:
        """See `IPeer`."""
        response = await self._ask("changes")
        await self._must_succeed(response)
        pieces = pieces_of(response, self.clock, SILENCE, self.traffic.receive, 1)
        try:
            async for name, data in _frames(pieces):
                if name == b"epoch":
                    hear(None)
                elif name == b"change":
                    hear(self._read(reading.read_hint, data))
                elif name == b"beat":
                    beat()
        finally:
            await pieces.aclose()
        raise PeerAway("the stream of changes ended")

    # --- one request ----------------------------------------------------------------------------------------------

    async def _answer(self, what: str, /, **query: str) -> bytes:
        """The body of an answer that must be there."""
        response = await self._ask(what, **query)
        await self._must_succeed(response)
        return await self._body(response)

    async def _ask(self, what: str, /, **query: str) -> IResponse:
        """The head of the answer to a question. Raises `PeerAway`."""
        return await self._send("GET", f"/peer/v1/{what}" + (f"?{urlencode(query)}" if query else ""), None)

    async def _tell(self, what: str, said: object) -> IResponse:
        """The head of the answer to what we say, as JSON. Raises `PeerAway`."""
        return await self._send("POST", f"/peer/v1/{what}", to_json(said))

    async def _send(
        self, method: str, target: str, body: bytes | None, more: Mapping[str, str] = MappingProxyType({})
    ) -> IResponse:
        """The head of the answer to a signed request. Raises `PeerAway`."""
        signed = sign(self.keypair, self.peer.key, method, target, self.clock.seconds(), body or b"")
        headers = Headers({name: [value] for name, value in {**signed, **more}.items()})
        place = (self.peer.url or f"https://{self.peer.key}") + target
        return await ask(self.agent, method, place, headers, body, self.clock, self.traffic)

    async def _must_succeed(self, response: IResponse) -> None:
        """Raise what a status that is no success means."""
        code: int = response.code
        if code == 200:
            return
        self.traffic.failures += 1
        text = (await self._text(response)) or "without a reason"
        if code in (403, 404):
            raise PeerRefused(f"{code}: {text}" + (_apart(response, self.clock.seconds()) if "clock" in text else ""))
        if code == 429 or code >= 500:
            raise PeerAway(f"{code}: {text}")
        raise PeerBroken(f"{code}: {text}")

    async def _text(self, response: IResponse) -> str:
        """What a refusal says, on one line."""
        return await words_of(response, self.clock, self.traffic)

    async def _drop(self, response: IResponse) -> None:
        """Read an answer that says nothing more, so that its connection can be used again."""
        await self._text(response)

    async def _body(self, response: IResponse) -> bytes:
        return await read(response, self.clock, STALL, self.traffic.receive, messages.MAX_ANSWER)

    def _read(self, parse: Callable[[bytes], T], data: bytes) -> T:
        try:
            return parse(data)
        except Malformed as error:
            self.traffic.failures += 1
            raise PeerBroken(f"an answer is not as it must be: {error}") from None


async def _frames(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[tuple[bytes, bytes], None]:
    """The server-sent events of a stream, as far as ours go: name and data. Raises `PeerBroken`."""
    rest, name, data = b"", b"", b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        if max(map(len, (rest, *lines))) > MAX_LINE:
            raise PeerBroken("a line of its changes is too long")
        for line in lines:
            if not line:
                yield name, data
                name, data = b"", b""
            elif line.startswith(b"event: "):
                name = line[7:]
            elif line.startswith(b"data: "):
                data = line[6:]


def _begin_of(response: IResponse) -> int | None:
    """Where the part of a body begins that an answer has; None if it does not say."""
    fields = response.headers.getRawHeaders("content-range") or [""]
    unit, _, span = fields[0].partition(" ")
    first = span.partition("-")[0]
    return int(first) if unit == "bytes" and first.isascii() and first.isdigit() and len(first) <= 19 else None


def _log(pubky: str, private: bool, what: str) -> str:
    return f"accounts/{pubky}/{'priv' if private else 'pub'}/{what}"


def _apart(response: IResponse, now: float) -> str:
    """How far the clock of who answered is from ours, in words; nothing if it does not say its time."""
    fields = response.headers.getRawHeaders("date") or [""]
    try:
        ahead = round(parsedate_to_datetime(fields[0]).timestamp() - now)
    except (ValueError, OverflowError):
        return ""
    return f"; it is {abs(ahead)} s {'ahead of' if ahead > 0 else 'behind'} ours"
