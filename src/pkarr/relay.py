"""An HTTP relay as a network: it speaks to the DHT for those who cannot.

    PUT <base>/<z32>                  keep a packet: 204, 409 (a newer one is known), 412 (another than the one it
                                      replaces), 400 (no packet)
    GET <base>/<z32>?policy=<policy>  find one: 200, 404

Nothing that a relay says is believed: what it sends is read up to a fixed length and within a fixed time, and must
carry the key's own signature. Redirects, cookies and compression are not part of the protocol and not followed.
"""

from __future__ import annotations

from io import BytesIO
from urllib.parse import urlsplit

from attrs import field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, ConnectingCancelledError, ConnectionClosed, DNSLookupError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import FileBodyProducer, RequestTransmissionFailed, ResponseDone, ResponseFailed
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse
from zope.interface import implementer

from pkarr.interfaces import (
    Conflict,
    INetwork,
    NetworkError,
    NotMostRecent,
    PacketRefused,
    Policy,
    Unavailable,
    UnexpectedAnswer,
    UnreadableItem,
)
from pkarr.keys import PublicKey
from pkarr.packet import MAX_PACKET, InvalidSignedPacket, SignedPacket

TIMEOUT = 5.0  # seconds for a request and its whole answer, as in the official clients
STORED_NODES = "pkarr-dht-stored-nodes"
INVALID_SEQ = "pkarr-invalid-signed-packet-seq"
BYPASS_CACHES = "no-cache, no-store, must-revalidate"

_MAX_BODY = MAX_PACKET  # bytes of any answer that we look at
_MAX_QUOTE = 200  # characters of a relay's error text in ours
_TRANSPORT_ERRORS = (ConnectError, ConnectionClosed, DNSLookupError, RequestTransmissionFailed, ResponseFailed)


@frozen
class _Answer:
    """A whole answer. `length` is what the relay announced for the body, 0 if nothing."""

    status: int
    headers: Headers
    length: int
    body: bytes

    @property
    def is_success(self) -> bool:
        """Whether the relay did as asked."""
        return 200 <= self.status < 300

    @property
    def is_stale(self) -> bool:
        """Whether a GET got what only a cache on the way can have said: 304 to no condition, success without packet."""
        return self.status == 304 or (self.is_success and not self.length)

    def number(self, header: str) -> int | None:
        """A header that holds a decimal number; None if it is not there."""
        value = self.headers.getRawHeaders(header)
        if value is None:
            return None
        try:
            return int(value[-1])
        except ValueError:
            raise UnexpectedAnswer(f"malformed header {header}") from None

    def error(self) -> NetworkError:
        """What a status that is no success means."""
        text = f"{self.status} {self.body[:_MAX_QUOTE].decode('utf-8', 'replace')}".strip()
        if self.status in (409, 428):
            return NotMostRecent(text)
        if self.status == 412:
            return Conflict(text)
        if self.status in (400, 413):
            return PacketRefused(text)
        if self.status in (429, 503):
            return Unavailable(text)
        return UnexpectedAnswer(text)


def _check_url(_instance: object, _attribute: object, url: str) -> None:
    parts = urlsplit(url)
    is_plain = not (parts.username or parts.password or parts.query or parts.fragment)
    if parts.scheme not in ("http", "https") or not parts.hostname or not is_plain:
        raise ValueError("a relay is an http or https URL without user and query")


@implementer(INetwork)
@frozen
class Relay:
    """A relay at a base URL, which may have a path. Times out by `clock`, after `timeout` seconds a request."""

    url: str = field(validator=_check_url)
    _agent: IAgent = field(repr=False)
    _clock: IReactorTime = field(repr=False)
    _timeout: float = field(default=TIMEOUT, repr=False)

    async def publish(self, packet: SignedPacket, replaces: int | None = None) -> int:
        """Keep a packet; returns on how many nodes the relay says it stored it, 1 if it does not say.

        Relays of version 2 do not look at what it replaces; older ones do.
        """
        condition = Headers() if replaces is None else Headers({"if-match": [str(replaces)]})
        answer = await self._ask("PUT", packet.public_key.z32, condition, packet.relay_payload)
        if not answer.is_success:
            raise answer.error()
        stored = answer.number(STORED_NODES)
        return 1 if stored is None else stored

    async def resolve(self, key: PublicKey, policy: Policy = Policy.CACHE_FIRST) -> SignedPacket | None:
        """Find the relay's packet of a key; None if it has none."""
        target = f"{key.z32}?policy={policy.value}"
        bypass = Headers({"cache-control": [BYPASS_CACHES]})
        answer = await self._ask("GET", target, bypass if policy is Policy.NETWORK_ONLY else Headers())
        if answer.is_stale:
            answer = await self._ask("GET", target, bypass)
        if answer.status == 404:
            seq = answer.number(INVALID_SEQ)
            if seq is not None:
                raise UnreadableItem(seq)
        if answer.status in (304, 404):
            return None
        if not answer.is_success:
            raise answer.error()
        if len(answer.body) > _MAX_BODY:
            raise UnexpectedAnswer(f"more than {_MAX_BODY} bytes")
        try:
            return SignedPacket.from_relay_payload(key, answer.body)
        except InvalidSignedPacket as error:
            raise UnexpectedAnswer(f"invalid packet: {error}") from None

    def __str__(self) -> str:
        return self.url

    async def _ask(self, method: str, target: str, headers: Headers, body: bytes | None = None) -> _Answer:
        """One request and its answer, or `Unavailable`. Whoever cancels it gets `CancelledError`."""
        uri = f"{self.url.rstrip('/')}/{target}"

        def late(_result: object, _seconds: float) -> _Answer:
            raise Unavailable(f"no answer within {self._timeout:g} s")

        exchange = Deferred.fromCoroutine(self._exchange(method, uri, headers, body))
        given_up: list[bool] = []

        def give_up(_waiting: object) -> None:
            given_up.append(True)
            exchange.cancel()

        waiting: Deferred[_Answer] = Deferred(give_up)
        exchange.chainDeferred(waiting)
        try:
            return await waiting.addTimeout(self._timeout, self._clock, late)
        except (ConnectingCancelledError, *_TRANSPORT_ERRORS) as error:
            if given_up:  # Twisted says then that there is no such host, or that the connection failed
                raise CancelledError from None
            raise Unavailable(_cause(error)) from error

    async def _exchange(self, method: str, uri: str, headers: Headers, body: bytes | None) -> _Answer:
        producer = None if body is None else FileBodyProducer(BytesIO(body))
        response = await self._agent.request(method.encode(), uri.encode(), headers, producer)
        length = response.length if isinstance(response.length, int) else 0
        return _Answer(response.code, response.headers, length, await _read(response))


class _Body(Protocol):
    """Collects a body up to a little over `_MAX_BODY`. `done` fires with it, or fails as the connection did.

    The connection is closed as soon as the body is too long or nobody waits for it any more.
    """

    def __init__(self) -> None:
        self.done: Deferred[bytes] = Deferred(lambda _deferred: self._close())
        self._received = bytearray()

    def dataReceived(self, data: bytes) -> None:
        self._received += data[: _MAX_BODY + 1 - len(self._received)]
        if len(self._received) > _MAX_BODY and not self.done.called:
            self._close()
            self.done.callback(bytes(self._received))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(bytes(self._received))
        else:
            self.done.errback(reason)

    def _close(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


def _read(response: IResponse) -> Deferred[bytes]:
    body = _Body()
    response.deliverBody(body)
    return body.done


def _cause(error: Exception) -> str:
    """What happened, in words: Twisted wraps it in a list."""
    reasons: list[Failure] = getattr(error, "reasons", [])
    return reasons[0].getErrorMessage() if reasons else str(error)
