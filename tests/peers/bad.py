"""Homeservers that are none: whatever they are asked, they hold up who asks."""

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from pubky_homeserver.web.request import Request
from tests.peers.wire import Answerer

DRIP = 3.0
"""Seconds from one byte to the next of the slow one: more often than anybody gives up."""


def silent(_clock: IReactorTime) -> Answerer:
    """Takes every request, and never says a word."""

    async def answer(_request: Request) -> None:
        await Deferred()

    return answer


def slow(clock: IReactorTime) -> Answerer:
    """Says something now and then."""
    return _endless(clock, b"{", DRIP)


def endless(clock: IReactorTime) -> Answerer:
    """Says much, and never ends."""
    return _endless(clock, b'event: change\ndata: {"pubky": 1}\n\n' * 20, 1.0)


def broken(_clock: IReactorTime) -> Answerer:
    """Answers at once, with what is no answer."""

    async def answer(request: Request) -> None:
        request.finish_with(b"<html>")

    return answer


def _endless(clock: IReactorTime, piece: bytes, pause: float) -> Answerer:
    async def answer(request: Request) -> None:
        request.stream()
        while not request.gone:
            await request.write(piece)
            await deferLater(clock, pause)

    return answer


BAD = (silent, slow, endless, broken)
