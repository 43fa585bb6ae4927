"""Time for simulated worlds: one clock for all, that many calls wait for, and clocks of homeservers that go wrong.

Twisted's own `Clock` sorts all calls at each new one, which was half of the time that a history took.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from attrs import define, field
from twisted.internet.base import DelayedCall
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import Clock
from zope.interface import implementer


class Timeline(Clock):
    """The time of a world."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[tuple[float, int, DelayedCall]] = []
        # When, in the order of their coming, what; a call that was moved is there more than once.
        self._count = 0

    def callLater(self, delay: float, callable: Callable[..., Any], *args: object, **kw: object) -> DelayedCall:
        """See `IReactorTime`."""
        when = self.seconds() + delay
        call = DelayedCall(when, callable, args, kw, lambda _call: None, self._push, self.seconds)
        self._push(call)
        return call

    def getDelayedCalls(self) -> list[DelayedCall]:
        """See `IReactorTime`: the first one first."""
        calls = {id(call): call for _, _, call in self._waiting if call.active()}
        return sorted(calls.values(), key=DelayedCall.getTime)

    def first(self) -> float | None:
        """When the next call is due; None if none waits."""
        while self._waiting:
            when, _, call = self._waiting[0]
            if not call.active():
                heappop(self._waiting)
            elif call.getTime() > when:
                heappop(self._waiting)
                self._push(call)
            else:
                return when
        return None

    def advance(self, amount: float) -> None:
        """Let time pass, and do what was due in it."""
        self.rightNow += amount
        while (when := self.first()) is not None and when <= self.rightNow:
            _, _, call = heappop(self._waiting)
            call.called = 1
            call.func(*call.args, **call.kw)

    def _push(self, call: DelayedCall) -> None:
        self._count += 1
        heappush(self._waiting, (call.getTime(), self._count, call))


@implementer(IReactorTime)
@define(eq=False)
class NodeClock:
    """The clock of one homeserver: as fast as all others, and perhaps wrong."""

    world: Timeline
    ahead: float = 0.0
    """Seconds."""

    def seconds(self) -> float:
        """See `IReactorTime`."""
        return self.world.seconds() + self.ahead

    def callLater(self, delay: float, callable: Callable[..., Any], *args: object, **kw: object) -> IDelayedCall:
        """See `IReactorTime`."""
        return _Call(self.world.callLater(delay, callable, *args, **kw), self)

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """See `IReactorTime`."""
        return [_Call(call, self) for call in self.world.getDelayedCalls()]


@implementer(IDelayedCall)
@define(eq=False)
class _Call:
    """A call as somebody sees it whose clock is wrong."""

    call: DelayedCall
    clock: NodeClock = field(repr=False)

    def getTime(self) -> float:
        """See `IDelayedCall`."""
        return self.call.getTime() + self.clock.ahead

    def cancel(self) -> None:
        """See `IDelayedCall`."""
        self.call.cancel()

    def delay(self, secondsLater: float) -> None:
        """See `IDelayedCall`."""
        self.call.delay(secondsLater)

    def reset(self, secondsFromNow: float) -> None:
        """See `IDelayedCall`."""
        self.call.reset(secondsFromNow)

    def active(self) -> bool:
        """See `IDelayedCall`."""
        return bool(self.call.active())
