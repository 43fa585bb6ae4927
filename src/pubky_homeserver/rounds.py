"""Something that is done again and again in the background, whatever happens to it at one time."""

from collections.abc import Awaitable, Callable
from typing import ClassVar

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from pubky_homeserver.core.errors import Refused


@define(eq=False)
class Rounds(Service):
    """Calls `work` from its start on: a while after it, then a while after the end of each time."""

    work: Callable[[], Awaitable[None]]
    what: str
    """What it is, for the log: "The weekly verification"."""
    every: float
    """Seconds from the end of one time to the next."""
    clock: IReactorTime
    first: float | None = None
    """Seconds from the start to the first time; None for `every`."""
    _running: Deferred[None] = field(factory=lambda: succeed(None), init=False)
    _pause: Deferred[None] | None = field(default=None, init=False)
    # Until the next time.
    _hurry: float | None = field(default=None, init=False)
    # Seconds to the next time, for somebody does not want to wait for it.
    log: ClassVar[Logger] = Logger()

    def startService(self) -> None:
        """Begin."""
        super().startService()
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addErrback(_stopped)

    def stopService(self) -> Deferred[None]:
        """Stop at once; fires when nothing is under way any more."""
        super().stopService()
        self._running.cancel()
        return self._running

    def soon(self, seconds: float) -> None:
        """Do it so many seconds from now, if nothing is under way; else once more after that."""
        self._hurry = seconds
        if self._pause is not None and not self._pause.called:
            self._pause.callback(None)

    async def _run(self) -> None:
        await self._wait(self.every if self.first is None else self.first)
        while True:
            await self._once()
            await self._wait(self.every)

    async def _wait(self, seconds: float) -> None:
        """Wait until the next time. Who wants one sooner ends the pause; all who do so come together."""
        if self._hurry is None:
            pause = self._pause = Deferred()
            pause.addTimeout(seconds, self.clock, lambda _result, _seconds: None)
            try:
                await pause
            finally:
                self._pause = None
        if self._hurry is not None:
            seconds, self._hurry = self._hurry, None
            await deferLater(self.clock, seconds)
            self._hurry = None

    async def _once(self) -> None:
        """One time. Raises nothing but CancelledError."""
        try:
            await self.work()
        except CancelledError:
            raise
        except Refused as refusal:
            self.log.warn("{what} waits: {reason}", what=self.what, reason=str(refusal))
        except Exception:  # a fault at one time must not end it for good
            self.log.failure("{what} failed; the next one is in {every:g} s", what=self.what, every=self.every)


def _stopped(failure: Failure) -> None:
    failure.trap(CancelledError)
