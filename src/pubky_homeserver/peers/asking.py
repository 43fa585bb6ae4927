"""One question to another homeserver: the head of its answer within its time, and what a refusal says."""

from io import BytesIO
from threading import Event

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.client import FileBodyProducer, ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse

from pubky_homeserver.core.errors import PeerAway
from pubky_homeserver.peers.answers import pieces_of
from pubky_homeserver.peers.tally import Traffic

PATIENCE = 20.0
"""Seconds until the head of an answer must be here: more than a homeserver's own patience with its store."""

STALL = 30.0
"""Seconds in which next to nothing of a body comes."""

MAX_TEXT = 200
"""Bytes of what a refusal says that are shown."""


async def ask(
    agent: IAgent, method: str, url: str, headers: Headers, body: bytes | None, clock: IReactorTime, traffic: Traffic
) -> IResponse:
    """The head of the answer to a request. Raises `PeerAway`."""
    producer = None if body is None else FileBodyProducer(BytesIO(body))
    asking: Deferred[IResponse] = agent.request(method.encode("ascii"), url.encode("ascii"), headers, producer)
    traffic.requests += 1
    given_up = Event()

    def give_up(_waiting: object) -> None:
        given_up.set()
        asking.cancel()

    waiting: Deferred[IResponse] = Deferred(give_up)
    asking.chainDeferred(waiting)
    try:
        return await waiting.addTimeout(PATIENCE, clock, _be_late)
    except CancelledError:
        raise
    except PeerAway:
        traffic.failures += 1
        raise
    except Exception as error:  # whatever finding, connecting, TLS or HTTP raise means the same
        if given_up.is_set() or _is_cancelled(error):  # a look-up that is given up says that there is no such host
            raise CancelledError from None
        traffic.failures += 1
        raise PeerAway(_cause(error)) from error


async def words_of(response: IResponse, clock: IReactorTime, traffic: Traffic) -> str:
    """What a refusal says, on one line."""
    pieces = pieces_of(response, clock, STALL, traffic.receive)
    said = bytearray()
    try:
        async for piece in pieces:
            said += piece
            if len(said) >= MAX_TEXT:
                break
    finally:
        await pieces.aclose()
    return "".join(one for one in said[:MAX_TEXT].decode("utf-8", "replace") if one.isprintable()).strip()


def _be_late(_result: object, seconds: float) -> IResponse:
    raise PeerAway(f"no answer within {seconds:g} s")


def _is_cancelled(error: Exception) -> bool:
    """Twisted hides in a failure of the connection that somebody gave up."""
    return isinstance(error, ResponseFailed) and any(reason.check(CancelledError) for reason in error.reasons)


def _cause(error: Exception) -> str:
    """What happened, in words."""
    reasons = getattr(error, "reasons", None) or [error]
    first = reasons[0]
    text = first.getErrorMessage() if hasattr(first, "getErrorMessage") else str(first)
    return text or type(error).__name__
