"""Questions for events that come at about the same time, or while one is on its way, go to a peer together: under load
many logs change at once, and a request costs both sides more than what it asks for.
"""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from pubky_homeserver.core.copies import Logged, Question
from pubky_homeserver.core.errors import PeerError
from pubky_homeserver.peers.messages import MAX_QUESTIONS

SOON = 0.002
"""Seconds that a question waits for others: of logs that one hint has named together, say."""

SLOW = 0.5
"""Seconds after which a request on its way is waited for no more when another question comes."""

Answer = Logged | PeerError
"""What comes of one: events, or what there are instead."""


@define(eq=False)
class Gathering:
    """Gathers questions to one peer."""

    clock: IReactorTime
    one: Callable[[Question], Coroutine[Deferred[Any], Any, Logged]]
    """Asks one."""
    many: Callable[[Sequence[Question]], Coroutine[Deferred[Any], Any, Sequence[Answer] | None]]
    """Asks several, at most `MAX_QUESTIONS`; None if the peer does not understand that."""
    _gathered: "list[_Asked]" = field(factory=list, init=False)
    _soon: IDelayedCall | None = field(default=None, init=False)
    # What sends them, if they wait for no answer.
    _on_their_way: int = field(default=0, init=False)
    # Requests.
    _sent: float = field(default=0.0, init=False)
    # When the newest one went (seconds).
    _is_understood: bool = field(default=True, init=False)

    async def ask(self, question: Question) -> Logged:
        """The answer to a question. Raises what `one` raises."""
        asked = _Asked(question, self)
        self._gathered.append(asked)
        if self._soon is None and (not self._on_their_way or self._sent + SLOW <= self.clock.seconds()):
            self._soon = self.clock.callLater(SOON, self._send)
        return await asked.waiting

    def leave_out(self, asked: "_Asked") -> None:
        """Do not ask what nobody wants to know any more."""
        self._gathered.remove(asked)
        if not self._gathered:
            self._wait_no_more()

    def end(self) -> None:
        """A request has its answer, or failed: what was gathered meanwhile goes."""
        self._on_their_way -= 1
        if self._gathered:
            self._send()

    async def answer(self, questions: Sequence[Question]) -> Sequence[Answer]:
        """The answers to some questions, in one request if there are several and that is understood."""
        if len(questions) > 1:
            answers = await self.many(questions)
            if answers is not None:
                return answers
            self._is_understood = False
        return [await self._ask_one(question) for question in questions]

    def _wait_no_more(self) -> None:
        soon, self._soon = self._soon, None
        if soon is not None and soon.active():
            soon.cancel()

    def _send(self) -> None:
        self._wait_no_more()
        gathered, self._gathered = self._gathered, []
        size = MAX_QUESTIONS if self._is_understood else 1
        self._sent = self.clock.seconds()
        for start in range(0, len(gathered), size):
            self._on_their_way += 1
            _Request(gathered[start : start + size]).send(self)

    async def _ask_one(self, question: Question) -> Answer:
        try:
            return await self.one(question)
        except PeerError as error:
            return error


@define(eq=False)
class _Asked:
    """A question that somebody waits for."""

    question: Question
    gathering: Gathering
    request: "_Request | None" = field(default=None, init=False)
    """With which it is on its way; None before that."""
    waiting: Deferred[Logged] = field(init=False)

    @waiting.default
    def _make_waiting(self) -> Deferred[Logged]:
        return Deferred(self._leave)

    def _leave(self, _waiting: Deferred[Logged]) -> None:
        if self.request is None:
            self.gathering.leave_out(self)
        else:
            self.request.leave()


@define(eq=False)
class _Request:
    """Questions on their way; when nobody waits for any of them the request is given up."""

    asked: list[_Asked]
    _work: Deferred[None] | None = field(default=None, init=False)
    _left: int = field(default=0, init=False)

    def send(self, gathering: Gathering) -> None:
        """Ask them."""
        self._left = len(self.asked)
        for one in self.asked:
            one.request = self
        self._work = Deferred.fromCoroutine(self._ask(gathering))
        self._work.addErrback(self._fail)
        self._work.addBoth(lambda _none: gathering.end())

    def leave(self) -> None:
        """One of those who waited does not any more."""
        self._left -= 1
        if not self._left and self._work is not None:
            self._work.cancel()

    async def _ask(self, gathering: Gathering) -> None:
        answers = await gathering.answer([one.question for one in self.asked])
        for one, answer in zip(self.asked, answers, strict=True):
            if one.waiting.called:
                continue
            if isinstance(answer, PeerError):
                one.waiting.errback(answer)
            else:
                one.waiting.callback(answer)

    def _fail(self, failure: Failure) -> None:
        for one in self.asked:
            if not one.waiting.called:
                one.waiting.errback(Failure(failure.value))
