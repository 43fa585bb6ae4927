"""What is done again and again: when, and what ends it."""

from collections.abc import Awaitable, Callable

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs

from pubky_homeserver.core.errors import StoreAway
from pubky_homeserver.rounds import Rounds


@define
class Work:
    """Something to do; how it ends is a test's."""

    clock: Clock = field(factory=Clock)
    times: list[float] = field(factory=list)
    """When it was begun."""
    waits: Deferred[None] | None = None
    failure: Exception | None = None

    async def do(self) -> None:
        """One time."""
        self.times.append(self.clock.seconds())
        if self.waits is not None:
            await self.waits
        if self.failure is not None:
            raise self.failure

    def rounds(self, first: float | None = None) -> Rounds:
        """It is done every 10 s."""
        rounds = Rounds(self.do, "The work", 10.0, self.clock, first)
        rounds.startService()
        return rounds

    def pass_time(self, seconds: float) -> None:
        """In quarters of a second."""
        for _ in range(int(seconds * 4)):
            self.clock.advance(0.25)


@pytest.mark.parametrize(
    ("first", "times"), [(None, [10, 20, 30]), (0.0, [0.25, 10.25, 20.25, 30.25]), (3, [3, 13, 23])]
)
def test_again_and_again(first: float | None, times: list[float]) -> None:
    """After the first pause, then a pause after the end of each time; after the end never."""
    work = Work()
    rounds = work.rounds(first)
    work.pass_time(31)
    assert work.times == times
    rounds.stopService()
    assert not work.clock.getDelayedCalls()


def test_a_time_that_takes_long() -> None:
    """The pause begins with its end, so it is never done twice at once."""
    work = Work(waits=Deferred())
    rounds = work.rounds()
    work.pass_time(35)
    assert work.times == [10]
    waits, work.waits = work.waits, None
    assert waits is not None
    waits.callback(None)
    work.pass_time(10)
    assert work.times == [10, 45]
    rounds.stopService()


@pytest.mark.parametrize(("failure", "level"), [(StoreAway(), LogLevel.warn), (ValueError("no"), LogLevel.critical)])
def test_a_time_that_fails(failure: Exception, level: LogLevel) -> None:
    """It is told, a fault of ours with its traceback, and the next one comes."""
    work = Work(failure=failure)
    with capturedLogs() as told:
        rounds = work.rounds()
        work.pass_time(21)
    assert work.times == [10, 20]
    assert [event["log_level"] for event in told if event.get("what") == "The work"] == [level, level]
    rounds.stopService()


def in_a_pause(work: Work, rounds: Rounds) -> None:
    """Three want it soon, in the pause."""
    work.pass_time(5)
    for _ in range(3):
        rounds.soon(1)
    work.pass_time(0.5)
    rounds.soon(1)
    work.pass_time(11)
    assert work.times == [6, 16]


def while_it_is_done(work: Work, rounds: Rounds) -> None:
    """One wants it while it is done: it is done once more after that."""
    work.waits = Deferred()
    work.pass_time(12)
    rounds.soon(1)
    work.pass_time(2)
    waits, work.waits = work.waits, None
    waits.callback(None)
    work.pass_time(12)
    assert work.times == [10, 15, 25]


def before_it_begins(work: Work, rounds: Rounds) -> None:
    """It may be wanted before the first time."""
    rounds.soon(2)
    work.pass_time(3)
    assert work.times == [2]


@pytest.mark.parametrize("case", [in_a_pause, while_it_is_done, before_it_begins])
def test_sooner(case: Callable[[Work, Rounds], None]) -> None:
    """Who wants it soon has it soon; several reasons are one."""
    work = Work()
    rounds = work.rounds()
    case(work, rounds)
    rounds.stopService()
    assert not work.clock.getDelayedCalls()


def test_stopped_in_the_middle() -> None:
    """What is under way is given up, and the service has ended when that has."""
    ended: list[str] = []

    async def work() -> None:
        try:
            await Deferred()
        finally:
            ended.append("work")

    made: Callable[[], Awaitable[None]] = work
    clock = Clock()
    rounds = Rounds(made, "The work", 10.0, clock, 0.0)
    rounds.startService()
    clock.advance(1)
    rounds.stopService().addCallback(lambda _none: ended.append("service"))
    assert ended == ["work", "service"]
    assert not clock.getDelayedCalls()
