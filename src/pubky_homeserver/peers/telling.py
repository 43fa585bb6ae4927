"""Hints between the processes of one homeserver: words with keys, told and answered.

What is true stands in the store; a hint says no more than where to look. So the order in which hints are told is not
that in which they came up, those of one moment come together, and whoever may have missed one looks at everything
again. They are answered one after the other: what one says holds when the next one is heard.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import islice
from typing import ClassVar

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from pubky_homeserver.core.errors import Refused
from pubky_homeserver.interfaces import IHints

PAUSE = 0.05
"""Seconds from one telling to the next: under load one hint is for many changes. The first one is told at once."""

AGAIN = 1.0
"""Seconds until it is tried again to tell something, or to look at everything."""

KEYS = 500
"""Keys in one hint, at most: 26 kB."""

MOST = 10_000
"""Hints that wait to be answered; of more, everything is looked at again."""

Answer = Callable[[Sequence[str]], Awaitable[None]]
"""What is done when a word is heard with these keys."""


@define(eq=False)
class Telling(Service):
    """Tells the other processes, and answers what they tell, from its start on."""

    hints: IHints
    clock: IReactorTime
    order: Sequence[str]
    """The words that this process tells, in the order in which those of one moment are told."""
    answers: Mapping[str, Answer]
    """By the word. All others are for other processes."""
    look_again: Callable[[], Awaitable[None]]
    """Looks at everything, for hints may have been missed: so it is at the start."""
    spell: Callable[[str, Sequence[str]], Sequence[str]] = lambda word, keys: [" ".join((word, *keys))]
    """The hints that say a word with these keys; it is asked when they are told, and not before."""
    _due: dict[str, dict[str, None]] = field(factory=dict, init=False)
    # Word → keys with which it is to be told.
    _heard: "deque[str | None]" = field(factory=deque, init=False)
    # What was heard and not answered yet; None: everything is to be looked at.
    _speaking: Deferred[None] | None = field(default=None, init=False)
    _answering: Deferred[None] | None = field(default=None, init=False)
    _deaf: Callable[[], None] | None = field(default=None, init=False)
    # How to hear no more.
    log: ClassVar[Logger] = Logger()

    def startService(self) -> None:
        """Begin."""
        super().startService()
        self._deaf = self.hints.hear_hints(self._hear)
        self._speak()

    def stopService(self) -> Deferred[None]:
        """Stop; fires when nothing is under way any more."""
        super().stopService()
        if self._deaf is not None:
            self._deaf()
        ending = [one for one in (self._speaking, self._answering) if one is not None]
        for one in ending:
            one.cancel()
        return DeferredList(ending, consumeErrors=True).addCallback(lambda _results: None)

    def tell(self, word: str, *keys: str) -> None:
        """Tell a word with keys soon; until it can be told it is kept."""
        self._due.setdefault(word, {}).update(dict.fromkeys(keys))
        self._speak()

    # --- to others ------------------------------------------------------------------------------------------------

    def _speak(self) -> None:
        if self._speaking is None and self._due and self.running:
            speaking = self._speaking = Deferred.fromCoroutine(self._tell_all())
            speaking.addErrback(self._end)
            speaking.addBoth(self._fall_silent)
            if speaking.called:
                self._speaking = None

    def _fall_silent(self, _result: object) -> None:
        self._speaking = None

    async def _tell_all(self) -> None:
        while self._due:
            due, self._due = self._due, {}
            pause = PAUSE if await self._tell_some(due) else AGAIN
            await deferLater(self.clock, pause)

    async def _tell_some(self, due: dict[str, dict[str, None]]) -> bool:
        """Tell what came up until now; what cannot be told stays due. Whether all was."""
        try:
            for word in self.order:
                keys = due.get(word, {})
                while page := [*islice(keys, KEYS)]:
                    for hint in self.spell(word, page):
                        await self.hints.hint(hint)
                    for key in page:
                        del keys[key]
        except Refused as error:
            self.log.debug("Other processes cannot be told: {reason}", reason=str(error))
            for word, keys in due.items():
                self._due.setdefault(word, {}).update(keys)
            return False
        return True

    # --- from others ----------------------------------------------------------------------------------------------

    def _hear(self, hint: str | None) -> None:
        if hint is None or len(self._heard) >= MOST:
            self._heard.clear()
            self._heard.append(None)
        elif hint.partition(" ")[0] in self.answers:
            self._heard.append(hint)
        if self._answering is None and self._heard and self.running:
            answering = self._answering = Deferred.fromCoroutine(self._answer_all())
            answering.addErrback(self._end)
            answering.addBoth(self._rest)
            if answering.called:
                self._answering = None

    def _rest(self, _result: object) -> None:
        self._answering = None

    async def _answer_all(self) -> None:
        while self._heard:
            try:
                await self._answer(self._heard.popleft())
            except CancelledError:
                raise
            except Exception as error:  # whatever was to be looked at: it is, with all else
                if isinstance(error, Refused):
                    self.log.debug("What was heard waits: {reason}", reason=str(error))
                else:
                    self.log.failure("What was heard was not answered")
                await deferLater(self.clock, AGAIN)
                self._heard.clear()
                self._heard.append(None)

    async def _answer(self, hint: str | None) -> None:
        if hint is None:
            await self.look_again()
            return
        word, *keys = hint.split(" ")
        await self.answers[word](keys)

    def _end(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("Other processes are told nothing any more", failure)
