"""The PKARR relay: signed packets over HTTP, for browsers and whoever else cannot speak to the DHT (Pubky protocol).

    PUT /<key>                  keep a packet: 204; 400 it is none, 409 a newer one is known
    GET /<key>[?policy=…]       find one: 200, 304; 404
    GET /                       a page that says what this is

A relay is a cache in front of a network. What it keeps never goes back in time, and a packet counts as fresh for the
shortest time to live of its records, from the moment when the network last showed it. Without a network the relay is
the only place where its packets are: then it knows at any time that they are current.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import ClassVar
from urllib.parse import unquote_to_bytes

from attrs import define, evolve, field, frozen
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime

from pkarr.interfaces import INetwork, NetworkError, NotMostRecent, PacketRefused, Policy, UnreadableItem
from pkarr.keys import SIGNATURE_LENGTH, InvalidPublicKey, PublicKey
from pkarr.packet import MAX_PACKET, InvalidSignedPacket, SignedPacket
from pkarr.timestamps import LENGTH as TIMESTAMP_LENGTH
from pkarr.timestamps import MICROSECONDS, to_http_date
from pubky_homeserver.core.errors import InvalidRequest
from pubky_homeserver.web.answers import answer_with, refuse_method
from pubky_homeserver.web.cors import add_cors, answer_options
from pubky_homeserver.web.queries import pairs_of
from pubky_homeserver.web.request import Request
from pubky_homeserver.web.routes import Route, route
from pubky_homeserver.web.texts import PLAIN

CAPACITY = 100_000
"""Packets kept: at about 1.5 KB each for the largest ones, 150 MB at the worst."""

MAX_BODY = MAX_PACKET
"""Bytes read of a body. A payload has 32 fewer, and between the two the client is told what is wrong with it."""

BODY_TIMEOUT = 30.0
"""Seconds within which the whole body must arrive."""

EXPOSED = b"pkarr-invalid-signed-packet-seq,pkarr-dht-stored-nodes"
"""Fields of an answer that a script in a browser may read."""

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>PKARR relay</title>
<h1>PKARR relay</h1>
<p>Signed packets kept: {packets}.</p>
</html>
"""

_RANK = slice(SIGNATURE_LENGTH, None)  # of a payload: timestamp and records, whose bytes sort as packets do
_TIMESTAMP = slice(SIGNATURE_LENGTH, SIGNATURE_LENGTH + TIMESTAMP_LENGTH)


@frozen
class Held:
    """What is kept of a packet: its bytes, for the parsed records take several times the room."""

    payload: bytes = field(repr=False)
    ttl: int
    """Seconds for which it is fresh."""
    seen: float
    """When its network last had it, in seconds since the epoch."""

    @classmethod
    def of(cls, packet: SignedPacket, seen: float) -> Held:
        """Keep this packet."""
        return cls(packet.relay_payload, packet.ttl(), seen)

    @property
    def rank(self) -> bytes:
        """Greater for the more recent of two packets of one key."""
        return self.payload[_RANK]

    @property
    def timestamp(self) -> int:
        """When it was signed, as its owner says. Microseconds."""
        return int.from_bytes(self.payload[_TIMESTAMP], "big")

    def is_fresh(self, now: float) -> bool:
        """Whether it needs no new look at the network."""
        return now < self.seen + self.ttl


@define(eq=False)
class Cache:
    """The newest packet known of each key; the least recently used make room for others."""

    capacity: int
    _held: OrderedDict[bytes, Held] = field(init=False, factory=OrderedDict)
    # Key → packet, the longest unused first.

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: PublicKey) -> Held | None:
        """What is kept of a key."""
        held = self._held.get(key.raw)
        if held is not None:
            self._held.move_to_end(key.raw)
        return held

    def keep(self, key: PublicKey, fresh: Held) -> bool:
        """Keep a packet, or see the same one again. False, and nothing happens, if a more recent one is here."""
        held = self._held.get(key.raw)
        if held is not None and held.rank > fresh.rank:
            return False
        self._held[key.raw] = fresh
        self._held.move_to_end(key.raw)
        if len(self._held) > self.capacity:
            self._held.popitem(last=False)
        return True


@define(eq=False)
class PkarrRelay:
    """The relay. `answer` is what a channel calls with each request."""

    clock: IReactorTime
    network: INetwork | None = None
    """Asked for what is not fresh, and told of every packet; None: the relay is all there is."""
    capacity: int = CAPACITY
    _cache: Cache = field(init=False)
    _page: Route = field(init=False)
    _packet: Route = field(init=False)
    app: ClassVar[Klein] = Klein()

    def __attrs_post_init__(self) -> None:
        self._cache = Cache(self.capacity)
        app = self.app
        self._page = route(app, {"GET": "page", "HEAD": "page"})
        self._packet = route(app, {"GET": "get", "HEAD": "get", "PUT": "put"})

    async def answer(self, request: Request) -> None:
        """Answer one request."""
        name = request.path[1:]
        found = self._page if not name else self._packet if b"/" not in name else None
        if request.method == b"OPTIONS":
            answer_options(request, None if found is None else found.options)
        elif found is None:
            request.setResponseCode(HTTPStatus.NOT_FOUND)
            _dress(request, True)
            request.finish_with()
        elif (handler := found.methods.get(request.method)) is None:
            refuse_method(request, found.allow, _dress)
        else:
            _dress(request, False)
            arguments = (name,) if name else ()
            await answer_with(request, handler(request, *arguments), _dress)

    @app.route("/", methods=["GET", "HEAD"])
    async def page(self, request: Request) -> bytes:
        """Say what this is, for people."""
        request.setHeader(b"Content-Type", b"text/html; charset=utf-8")
        return PAGE.format(packets=len(self._cache)).encode()

    @app.route("/<name>", methods=["PUT"])
    async def put(self, request: Request, name: bytes) -> bytes:
        """Keep a packet. 204 and on how many nodes; 400, 408, 409, 413, and 500 when the network fails."""
        key = _key(name)
        try:
            payload = await Deferred.fromCoroutine(request.read(MAX_BODY)).addTimeout(BODY_TIMEOUT, self.clock)
        except DeferredTimeout:
            return _say(request, HTTPStatus.REQUEST_TIMEOUT, "Request timed out")
        try:
            nodes = await self._publish(SignedPacket.from_relay_payload(key, payload))
        except (InvalidSignedPacket, PacketRefused) as error:
            raise InvalidRequest(str(error)) from None
        except NotMostRecent:
            return _say(request, HTTPStatus.CONFLICT, "packet is not the most recent")
        except NetworkError as error:
            return _say(request, HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
        request.setResponseCode(HTTPStatus.NO_CONTENT)
        request.setHeader(b"pkarr-dht-stored-nodes", b"%d" % nodes)
        return b""

    @app.route("/<name>", methods=["GET", "HEAD"])
    async def get(self, request: Request, name: bytes) -> bytes:
        """Find a packet. 200 or 304; 400, 404, and 503 when the network fails."""
        key = _key(name)
        policy = _policy(request)
        try:
            held = await self._find(key, policy)
        except UnreadableItem as error:
            request.setHeader(b"pkarr-invalid-signed-packet-seq", b"%d" % error.seq)
            return _say(request, HTTPStatus.NOT_FOUND, str(error))
        except NetworkError as error:
            return _say(request, HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        if held is None:
            request.setResponseCode(HTTPStatus.NOT_FOUND)
            return b""
        return _show(request, held)

    async def _publish(self, packet: SignedPacket) -> int:
        """Give a packet to the network and keep it; returns how many nodes have it. Raises `NetworkError`."""
        key = packet.public_key
        held = self._cache.get(key)
        if held is not None and held.rank > Held.of(packet, 0).rank:
            raise NotMostRecent
        nodes = 1 if self.network is None else await self.network.publish(packet)
        # A newer one can have come while this one was on its way: it stays.
        self._cache.keep(key, Held.of(packet, self.clock.seconds()))
        return nodes

    async def _find(self, key: PublicKey, policy: Policy) -> Held | None:
        """The packet that answers a request with this policy. Raises `NetworkError`."""
        held = self._cache.get(key)
        if policy is Policy.CACHE_ONLY:
            return held
        if policy is Policy.CACHE_FIRST and held is not None and held.is_fresh(self.clock.seconds()):
            return held
        fresh = await self._ask(key, policy, held)
        if fresh is None:
            return None
        kept = self._cache.keep(key, fresh)
        # Who asks for the network's word alone gets it, older or not; nobody else is led back in time.
        return fresh if kept or policy is Policy.NETWORK_ONLY else None

    async def _ask(self, key: PublicKey, policy: Policy, held: Held | None) -> Held | None:
        """What the network has now."""
        if self.network is None:
            return None if held is None else evolve(held, seen=self.clock.seconds())
        packet = await self.network.resolve(key, policy)
        return None if packet is None else Held.of(packet, self.clock.seconds())


def _dress(request: Request, refused: bool) -> None:
    add_cors(request, EXPOSED)


def _key(name: bytes) -> PublicKey:
    """The key that a path names. Raises `InvalidRequest`."""
    try:
        return PublicKey.parse(unquote_to_bytes(name).decode())
    except UnicodeDecodeError:
        raise InvalidRequest("Invalid URL: Invalid UTF-8 in `key`") from None
    except InvalidPublicKey as error:
        raise InvalidRequest(f"Invalid URL: {error}") from None


def _policy(request: Request) -> Policy:
    """How hard to look. Raises `InvalidRequest`."""
    words = [value for name, value in pairs_of(request.query) if name == "policy"]
    if not words:
        return Policy.CACHE_FIRST
    try:
        policy = Policy(words[0])
    except ValueError:
        raise InvalidRequest(
            f"Failed to deserialize query string: policy: invalid resolve policy: {words[0]}"
        ) from None
    if len(words) > 1:
        raise InvalidRequest("Failed to deserialize query string: duplicate field `policy`")
    return policy


def _show(request: Request, held: Held) -> bytes:
    """Answer with a packet, or that the client's own is not older."""
    request.setHeader(b"Content-Type", b"application/pkarr.org/relays#payload")
    request.setHeader(b"Cache-Control", b"public, max-age=%d" % held.ttl)
    for name, moment in (
        (b"Last-Modified", held.timestamp),
        (b"Memento-Datetime", int(held.seen * MICROSECONDS)),
    ):
        date = to_http_date(moment)
        if date is not None:
            request.setHeader(name, date.encode())
    since = _since(request)
    if since is not None and held.timestamp <= since:
        request.setResponseCode(HTTPStatus.NOT_MODIFIED)
        return b""
    return held.payload


def _since(request: Request) -> int | None:
    """The time in `If-Modified-Since`, in microseconds; None if there is none or it says none."""
    value = request.header(b"if-modified-since")
    if value is None:
        return None
    try:
        moment = parsedate_to_datetime(value.decode("ascii"))
        zoned = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return int(zoned.timestamp()) * MICROSECONDS
    except (ValueError, OverflowError):
        return None


def _say(request: Request, status: HTTPStatus, text: str) -> bytes:
    """Answer with a status and a sentence."""
    request.setResponseCode(status)
    request.setHeader(b"Content-Type", PLAIN)
    return text.encode()
