"""Hints between processes: told together, kept while they cannot be told, answered one after the other."""

from collections.abc import Callable, Sequence

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet.task import Clock, deferLater
from zope.interface import implementer

from pubky_homeserver.core.errors import StoreAway
from pubky_homeserver.interfaces import IHints
from pubky_homeserver.peers.telling import AGAIN, KEYS, MOST, PAUSE, Telling


@implementer(IHints)
@define(eq=False)
class Radio:
    """Hints between some listeners, as a test wants it."""

    is_away: bool = False
    """Whether nothing can be told."""
    told: list[str] = field(factory=list)
    hearing: list[Callable[[str | None], None]] = field(factory=list)

    async def hint(self, text: str) -> None:
        """See `IHints`."""
        if self.is_away:
            raise StoreAway
        self.told.append(text)
        for hear in [*self.hearing]:
            hear(text)

    def hear_hints(self, hear: Callable[[str | None], None]) -> Callable[[], None]:
        """See `IHints`; it is heard at once."""
        self.hearing.append(hear)
        hear(None)
        return lambda: self.hearing.remove(hear)


@define(eq=False)
class Ears:
    """One who listens, and takes its time."""

    clock: Clock
    patience: float = 0.0
    """Seconds that an answer takes."""
    trouble: Exception | None = None
    """What the next answer fails with."""
    done: list[str] = field(factory=list)
    looks: int = 0

    async def answer(self, keys: Sequence[str]) -> None:
        """Answer a word."""
        trouble, self.trouble = self.trouble, None
        if trouble is not None:
            raise trouble
        if self.patience:
            await deferLater(self.clock, self.patience)
        self.done.append(" ".join(keys))

    async def look(self) -> None:
        """Look at everything."""
        self.looks += 1


def begun(clock: Clock, radio: Radio, ears: Ears) -> Telling:
    """Somebody who tells `one`, then `two`, and answers `word`."""
    telling = Telling(radio, clock, ("one", "two"), {"word": ears.answer}, ears.look)
    telling.startService()
    return telling


async def end(telling: Telling, clock: Clock) -> None:
    """It stops, and leaves nothing behind."""
    await telling.stopService()
    assert not clock.getDelayedCalls()


@pytest_twisted.ensureDeferred
async def test_telling() -> None:
    """The first word is told at once; what comes up in the next moment comes together, in order, each key once."""
    clock, radio = Clock(), Radio()
    telling = begun(clock, radio, Ears(clock))
    telling.tell("one", "a")
    assert radio.told == ["one a"]
    for word, key in (("two", "c"), ("one", "a"), ("one", "b"), ("two", "c")):
        telling.tell(word, key)
    assert len(radio.told) == 1
    clock.advance(PAUSE)
    assert radio.told[1:] == ["one a b", "two c"]
    clock.advance(PAUSE)
    assert not clock.getDelayedCalls(), "it rests"
    telling.tell("two", *map(str, range(KEYS + 1)))
    assert [len(text.split(" ")) - 1 for text in radio.told[3:]] == [KEYS, 1]
    await end(telling, clock)


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_told_is_kept() -> None:
    """While the store is away words wait, and are told once it is back; those before the start, at the start."""
    clock, radio = Clock(), Radio(is_away=True)
    ears = Ears(clock)
    telling = Telling(radio, clock, ("one", "two"), {}, ears.look)
    telling.tell("one", "a")
    telling.startService()
    telling.tell("two", "b")
    for _ in range(5):
        clock.advance(AGAIN)
    assert radio.told == []
    radio.is_away = False
    clock.advance(AGAIN)
    assert radio.told == ["one a", "two b"]
    await end(telling, clock)


@pytest_twisted.ensureDeferred
async def test_answers_come_one_after_the_other() -> None:
    """A hint is answered when the one before is; what nobody here answers is passed over."""
    clock, radio = Clock(), Radio()
    ears = Ears(clock, patience=1.0)
    telling = begun(clock, radio, ears)
    for text in ("word a b", "other x", "word c"):
        await radio.hint(text)
    assert (ears.looks, ears.done) == (1, [])
    clock.advance(1)
    assert ears.done == ["a b"]
    clock.advance(1)
    assert ears.done == ["a b", "c"]
    await radio.hint("word d")
    await end(telling, clock)
    assert ears.done == ["a b", "c"]
    assert radio.hearing == []


@pytest.mark.parametrize("trouble", [StoreAway(), ValueError("a fault")])
@pytest_twisted.ensureDeferred
async def test_a_failure_is_made_good(trouble: Exception) -> None:
    """Whose answer failed looks at everything a moment later, and goes on."""
    clock, radio = Clock(), Radio()
    ears = Ears(clock, trouble=trouble)
    telling = begun(clock, radio, ears)
    await radio.hint("word a")
    await radio.hint("word b")
    assert (ears.looks, ears.done) == (1, [])
    clock.advance(AGAIN)
    assert (ears.looks, ears.done) == (2, [])
    await radio.hint("word c")
    assert ears.done == ["c"]
    await end(telling, clock)


@pytest_twisted.ensureDeferred
async def test_too_much() -> None:
    """Who cannot follow any more looks at everything instead of remembering hints without end."""
    clock, radio = Clock(), Radio()
    ears = Ears(clock, patience=1.0)
    telling = begun(clock, radio, ears)
    for number in range(MOST + 10):
        await radio.hint(f"word {number}")
    for _ in range(20):
        clock.advance(1)
    assert ears.looks == 2
    assert len(ears.done) < 20
    await end(telling, clock)


@pytest_twisted.ensureDeferred
async def test_it_may_stop_before_it_starts() -> None:
    """Nothing is told, and nothing fails."""
    clock, radio = Clock(), Radio()
    telling = Telling(radio, clock, ("one",), {}, Ears(clock).look)
    telling.tell("one", "a")
    await end(telling, clock)
    assert radio.told == []
