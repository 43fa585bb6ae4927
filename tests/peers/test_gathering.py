"""Questions for events: who asks at the same time or meanwhile asks together, and each has its own answer."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_twisted
from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock, deferLater

from pubky_homeserver.core.copies import Logged, Position, Question
from pubky_homeserver.core.errors import LogForked, PeerAway, PeerBroken, PeerError, PeerRefused
from pubky_homeserver.peers.gathering import SLOW, SOON, Answer, Gathering
from pubky_homeserver.peers.messages import MAX_QUESTIONS
from tests.peers.peering import Peering, peering
from tests.peers.test_peer_site import UNKNOWN
from tests.web.served import reactor

PLACE = Position("0" * 32, 0, 0, bytes(16))


def question(number: int) -> Question:
    """One that is told from others."""
    return Question(f"{number:052}", False, PLACE)


def answer(number: int) -> Logged:
    """Its answer."""
    return Logged((), (), number)


@define(eq=False)
class Slow:
    """A peer that answers when a test says so."""

    clock: Clock = field(factory=Clock)
    asked: list[tuple[list[int], Deferred[Any]]] = field(factory=list)
    """What was asked in one request, and who waits."""
    understands: bool = True
    gathering: Gathering = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.gathering = Gathering(self.clock, self._one, self._many)

    async def _one(self, one: Question) -> Logged:
        waiting: Deferred[Logged] = Deferred()
        self.asked.append(([int(one.pubky)], waiting))
        return await waiting

    async def _many(self, questions: Sequence[Question]) -> Sequence[Answer] | None:
        if not self.understands:
            return None
        waiting: Deferred[Sequence[Answer]] = Deferred()
        self.asked.append(([int(one.pubky) for one in questions], waiting))
        return await waiting

    def ask(self, *numbers: int) -> list[Deferred[Logged]]:
        """Ask at one time, and go on until a little later."""
        asked = [Deferred.fromCoroutine(self.gathering.ask(question(number))) for number in numbers]
        self.clock.advance(SOON)
        return asked

    @property
    def sizes(self) -> list[int]:
        """How many questions each request had."""
        return [len(numbers) for numbers, _ in self.asked]


def result(one: Deferred[Any]) -> Any:
    """What came of it; None if nothing did yet."""
    found: list[Any] = []
    one.addBoth(found.append)
    return (found[0].value if hasattr(found[0], "value") else found[0]) if found else None


def test_who_asks_at_once_asks_together() -> None:
    """Nobody has asked before, and still it is one request; who gives up first is not asked for, nor waited for."""
    slow = Slow()
    first, second = (Deferred.fromCoroutine(slow.gathering.ask(question(number))) for number in (0, 1))
    (third,) = slow.ask(2)
    assert slow.sizes == [3]
    slow.asked[0][1].callback([answer(0), answer(1), answer(2)])
    assert [result(one) for one in (first, second, third)] == [answer(0), answer(1), answer(2)]
    alone = Deferred.fromCoroutine(slow.gathering.ask(question(3)))
    alone.cancel()
    assert isinstance(result(alone), CancelledError)
    assert not slow.clock.getDelayedCalls()
    assert slow.sizes == [3]


def test_who_asks_meanwhile_asks_together() -> None:
    """The first goes soon, the others when it is back, at most so many in one request; all get their own answer."""
    slow = Slow()
    (first,) = slow.ask(0)
    others = slow.ask(*range(1, MAX_QUESTIONS + 2))
    assert slow.sizes == [1]
    slow.asked[0][1].callback(answer(0))
    assert result(first) == answer(0)
    assert slow.sizes == [1, MAX_QUESTIONS, 1]
    numbers, waiting = slow.asked[1]
    waiting.callback([PeerRefused("no") if number == 3 else answer(number) for number in numbers])
    slow.asked[2][1].callback(answer(MAX_QUESTIONS + 1))
    found = [result(one) for one in others]
    assert isinstance(found.pop(2), PeerRefused)
    assert found == [answer(number) for number in range(1, MAX_QUESTIONS + 2) if number != 3]
    assert not slow.clock.getDelayedCalls()


def test_a_slow_answer_is_not_waited_for() -> None:
    """Who asks while a request has been on its way for long asks at once, with those who wait already."""
    slow = Slow()
    slow.ask(0)
    slow.ask(1)
    slow.clock.advance(SLOW)
    assert slow.sizes == [1]
    slow.ask(2)
    assert slow.sizes == [1, 2]


@pytest.mark.parametrize("failure", [PeerAway("gone"), PeerBroken("nonsense"), RuntimeError("a fault")])
def test_a_request_that_fails(failure: Exception) -> None:
    """All who waited for it hear why, and the next questions go."""
    slow = Slow()
    (first,) = slow.ask(0)
    two = slow.ask(1, 2)
    slow.asked[0][1].errback(failure)
    assert result(first) is failure
    slow.asked[1][1].errback(failure)
    assert [result(one) for one in two] == [failure, failure]
    slow.ask(3)
    assert slow.sizes == [1, 2, 1]


def test_an_older_peer() -> None:
    """Who does not understand several questions is asked one by one, at once and from then on."""
    slow = Slow(understands=False)
    (first,) = slow.ask(0)
    two = slow.ask(1, 2)
    slow.asked[0][1].callback(answer(0))
    assert result(first) == answer(0)
    slow.asked[1][1].errback(PeerRefused("not offered"))
    slow.asked[2][1].callback(answer(2))
    assert isinstance(result(two[0]), PeerRefused)
    assert result(two[1]) == answer(2)
    slow.ask(3)
    slow.ask(4, 5)
    slow.asked[3][1].callback(answer(3))
    assert slow.sizes == [1] * 6


def test_who_gives_up() -> None:
    """One who gives up is not asked for; a request that nobody waits for is given up; others are not disturbed."""
    slow = Slow()
    (first,) = slow.ask(0)
    left, stays = slow.ask(1, 2)
    left.cancel()
    assert isinstance(result(left), CancelledError)
    first.cancel()
    assert isinstance(result(first), CancelledError)
    assert [numbers for numbers, _ in slow.asked] == [[0], [2]]
    slow.asked[1][1].callback(answer(2))
    assert result(stays) == answer(2)
    slow.ask(3)
    some, all_ = slow.ask(4, 5)
    slow.asked[2][1].callback(answer(3))
    some.cancel()
    assert isinstance(result(some), CancelledError)
    slow.asked[3][1].callback([answer(4), answer(5)])
    assert result(all_) == answer(5)
    slow.ask(6, 7)
    assert slow.sizes == [1, 1, 1, 2, 2]


# --- over the wire ------------------------------------------------------------------------------------------------


@pytest_twisted.async_yield_fixture
async def pair() -> AsyncIterator[Peering]:
    """A homeserver and its peer."""
    async with peering() as both:
        yield both


async def ask_all(pair: Peering, questions: Sequence[Question]) -> Sequence[Answer]:
    """Ask several in one request."""
    answers = await pair.client._events_of_many(questions)
    assert answers is not None
    return answers


@pytest_twisted.ensureDeferred
async def test_each_has_the_status_that_it_would_have_alone(pair: Peering) -> None:
    """Events, a fork, an account that is not there, a log that is not offered: side by side, as one by one."""
    await pair.put("/pub/a", b"one")
    await pair.put("/priv/b", b"two")
    (offered,), _ = await pair.client.offered("")
    owner, end = pair.owner.pubky, offered.public.position
    start = evolve(end, seq=0, event_id=0, digest=bytes(16))
    questions = [
        Question(owner, False, start),
        Question(owner, False, end),
        Question(owner, False, evolve(end, log_id="1" * 32)),
        Question(UNKNOWN, False, start),
        Question(owner, True, start),
    ]
    answers = await ask_all(pair, questions)
    assert [type(one) for one in answers] == [Logged, Logged, LogForked, PeerRefused, PeerRefused]
    for one, told in zip(questions, answers, strict=True):
        try:
            alone: Answer = await pair.client.events(one.pubky, one.private, one.position)
        except PeerError as error:
            alone = error
        assert (str(alone), getattr(alone, "reigns", ())) == (str(told), getattr(told, "reigns", ()))
    await deferLater(reactor, 0)
    requests = pair.client.traffic.requests
    waiting = [Deferred.fromCoroutine(pair.client.events(owner, False, start)) for _ in range(5)]
    assert [await one for one in waiting] == [answers[0]] * 5
    assert pair.client.traffic.requests - requests == 1


@pytest_twisted.ensureDeferred
async def test_an_answer_is_not_longer_than_that_of_one(pair: Peering) -> None:
    """Those who ask together share the length of a page; each gets on, and learns that there is more."""
    for number in range(40):
        await pair.put(f"/pub/{number}", b"x")
    (offered,), _ = await pair.client.offered("")
    start = evolve(offered.public.position, seq=0, event_id=0, digest=bytes(16))
    answers = await ask_all(pair, [Question(pair.owner.pubky, False, start)] * MAX_QUESTIONS)
    sizes = [len(one.events) for one in answers if isinstance(one, Logged)]
    assert sizes == [15] * MAX_QUESTIONS
    assert all(isinstance(one, Logged) and one.end == 40 for one in answers)
