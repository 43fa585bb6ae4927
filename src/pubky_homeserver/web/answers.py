"""From what a handler does to what the client gets: bodies, refusals, failures."""

from collections.abc import Awaitable, Callable

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from pubky_homeserver.core.errors import BodyTooLarge, InvalidBoolean, NotPrimary, Refused, StreamBroken
from pubky_homeserver.web import request as http
from pubky_homeserver.web.errors import retry_after, status_of
from pubky_homeserver.web.request import Request
from pubky_homeserver.web.texts import PLAIN

Dress = Callable[[Request, bool], None]
"""Adds the fields that every answer of a route carries; the flag says whether the answer is a refusal."""

_log = Logger()


async def answer_with(request: Request, work: Awaitable[bytes | None], dress: Dress) -> None:
    """Answer with the bytes that a handler returns; None if it has answered by itself.

    `dress` was called before, and is called again if the answer becomes a refusal.

    A refusal becomes its status and text; what nobody expected a 500 without detail, and a traceback in the log.
    """
    try:
        body = await work
    except Refused as refusal:
        refuse(request, refusal, dress)
    except http.BodyBroken:
        refuse(request, StreamBroken(), dress)
    except http.BodyTooLarge:
        refuse(request, BodyTooLarge(), dress)
    except (CancelledError, http.ClientGone):
        raise
    except Exception:
        if request.begun:
            raise  # the channel cuts the connection, so that nobody takes the rest for whole
        _log.failure("{method} {path} failed", method=request.method, path=request.path)
        fail(request, dress)
    else:
        if body is not None:
            request.finish_with(body)


def refuse(request: Request, refusal: Refused, dress: Dress) -> None:
    """Answer with a refusal's status and text, and nothing of what the handler had prepared."""
    request.clear()
    request.setResponseCode(status_of(refusal))
    if not isinstance(refusal, InvalidBoolean):  # the protocol sends this one without a type
        request.setHeader(b"Content-Type", PLAIN)
    seconds = retry_after(refusal)
    if seconds is not None:
        request.setHeader(b"Retry-After", b"%d" % seconds)
    dress(request, True)
    if isinstance(refusal, NotPrimary):
        request.setHeader(b"Pubky-Primary", refusal.primary.encode("ascii"))
        request.setHeader(b"Cache-Control", b"no-store")
    request.finish_with(str(refusal).encode())


def fail(request: Request, dress: Dress) -> None:
    """Answer 500 without detail."""
    request.clear()
    request.setResponseCode(500)
    request.setHeader(b"Content-Type", PLAIN)
    dress(request, True)
    request.finish_with(b"Internal server error")


def refuse_method(request: Request, allow: bytes, dress: Dress) -> None:
    """Answer 405 with the methods that the path has."""
    request.clear()
    request.setResponseCode(405)
    request.setHeader(b"Allow", allow)
    dress(request, True)
    request.finish_with()
