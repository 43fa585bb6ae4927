"""The body of an answer, as fast as its reader takes it, and no faster than that."""

from collections import deque
from collections.abc import AsyncGenerator, Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IResponse

from pubky_homeserver.core.errors import PeerAway, PeerBroken

HIGH_WATER = 256 << 10
"""Bytes that wait for the reader before the connection is paused."""

LEAST = 16 << 10
"""Bytes that must come within the patience, or the end: whoever sends one now and then would be waited for for ever."""


class _Pieces(Protocol):
    """Keeps the pieces of a body for a reader. The connection ends when next to nothing moves for some seconds."""

    def __init__(self, clock: IReactorTime, patience: float, receive: Callable[[int], None], least: int) -> None:
        self.pieces: deque[bytes] = deque()
        self.reason: Failure | None = None
        """Why it ended; None before the end."""
        self.is_late = False
        self._clock = clock
        self._patience = patience
        self._least = least
        self._came = 0  # bytes since the timer began
        self._receive = receive
        self._timer: IDelayedCall = clock.callLater(patience, self._give_up)
        self._size = 0
        self._paused = False
        self._waiting: Deferred[None] | None = None

    def dataReceived(self, data: bytes) -> None:
        if not self._timer.active():
            return  # nobody reads on
        self._came += len(data)
        if self._came >= self._least:
            self._begin_again()
        self._receive(len(data))
        self.pieces.append(data)
        self._size += len(data)
        if self._size > HIGH_WATER and not self._paused and self.transport is not None:
            self._paused = True
            self.transport.pauseProducing()  # type: ignore[attr-defined]  # a push producer besides
        self._wake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason
        self._rest()
        self._wake()

    def take(self) -> bytes:
        """The next piece."""
        piece = self.pieces.popleft()
        self._size -= len(piece)
        if self._paused and self._timer.active():
            self._begin_again()  # it would send more, but for us
        if self._paused and not self._size and self.transport is not None:
            self._paused = False
            self.transport.resumeProducing()  # type: ignore[attr-defined]  # a push producer besides
        return piece

    async def wait(self) -> None:
        """Return when there is something to look at."""
        waiting: Deferred[None] = Deferred()
        self._waiting = waiting
        try:
            await waiting
        finally:
            self._waiting = None

    def close(self) -> None:
        """Read no more."""
        self._rest()
        if self.reason is None and self.transport is not None:
            self.transport.loseConnection()

    def _give_up(self) -> None:
        self.is_late = True
        self.close()
        self._wake()

    def _begin_again(self) -> None:
        self._came = 0
        self._timer.reset(self._patience)

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.called:
            self._waiting.callback(None)

    def _rest(self) -> None:
        if self._timer.active():
            self._timer.cancel()


def pieces_of(
    response: IResponse, clock: IReactorTime, patience: float, receive: Callable[[int], None], least: int = LEAST
) -> AsyncGenerator[bytes, None]:
    """The body of an answer. `receive` is told how many bytes come.

    Raises `PeerAway` if it breaks off, or if fewer than `least` bytes come within `patience` seconds. Who does not read
    on for so long, or never begins, has given it up.
    """
    body = _Pieces(clock, patience, receive, least)
    response.deliverBody(body)
    return _read(body)


async def _read(body: _Pieces) -> AsyncGenerator[bytes, None]:
    try:
        while True:
            while body.pieces:
                yield body.take()
            if body.is_late:
                raise PeerAway("next to nothing came for a while")
            if body.reason is not None:
                break
            await body.wait()
        if not body.reason.check(ResponseDone, PotentialDataLoss):
            raise PeerAway("the answer broke off")
    finally:
        body.close()


async def read(
    response: IResponse, clock: IReactorTime, patience: float, receive: Callable[[int], None], most: int
) -> bytes:
    """The whole body. Raises as `pieces_of`, and `PeerBroken` if it is longer than `most` bytes."""
    whole = bytearray()
    pieces = pieces_of(response, clock, patience, receive)
    try:
        async for piece in pieces:
            whole += piece
            if len(whole) > most:
                raise PeerBroken(f"an answer has more than {most} bytes")
    finally:
        await pieces.aclose()
    return bytes(whole)


async def beyond(start: int, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """A body without its first bytes: from who knows nothing of ranges."""
    try:
        async for piece in pieces:
            yield piece[start:]
            start = max(0, start - len(piece))
    finally:
        await pieces.aclose()
