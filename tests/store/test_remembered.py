"""What is remembered is what the store would say: nothing that a write has overtaken, and within its bytes."""

import gc
import tracemalloc
from collections.abc import Awaitable, Callable

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from pubky_homeserver.core.capabilities import parse_capabilities
from pubky_homeserver.core.records import Entry, Session
from pubky_homeserver.store.remembered import Remembered


def entry(path: str, number: int) -> Entry:
    """An entry that can be told from others."""
    return Entry(path, bytes(32), number, "text/plain", 1, body=b"x" * number)


class Slow:
    """A store whose reads end when the test says so."""

    def __init__(self) -> None:
        self.reads: list[Deferred[Entry | None]] = []

    async def read(self) -> Entry | None:
        """Wait for the test."""
        waiting: Deferred[Entry | None] = Deferred()
        self.reads.append(waiting)
        return await waiting


@pytest_twisted.ensureDeferred
async def test_read_once() -> None:
    """An entry is read once, until its path is written."""
    remembered, store = Remembered(), Slow()
    first = Deferred.fromCoroutine(remembered.entry("a", "/pub/x", store.read))
    store.reads[0].callback(entry("/pub/x", 1))
    assert (await first) == entry("/pub/x", 1)
    assert await remembered.entry("a", "/pub/x", store.read) == entry("/pub/x", 1)
    assert len(store.reads) == 1
    with remembered.writing("a", "/pub/y"):
        assert await remembered.entry("a", "/pub/x", store.read) == entry("/pub/x", 1)
    with remembered.writing("a", "/pub/x"):
        pass
    Deferred.fromCoroutine(remembered.entry("a", "/pub/x", store.read))
    assert len(store.reads) == 2


@pytest.mark.parametrize("moment", ["before", "during", "around"])
@pytest_twisted.ensureDeferred
async def test_a_read_that_a_write_overtook_is_not_remembered(moment: str) -> None:
    """What was read while a write of the account was under way may be old: it is given, and not remembered."""
    remembered, store = Remembered(), Slow()
    writing = remembered.writing("a", "/pub/x")
    if moment == "before":
        writing.__enter__()
    reading = Deferred.fromCoroutine(remembered.entry("a", "/pub/x", store.read))
    if moment != "before":
        writing.__enter__()
    if moment == "around":
        writing.__exit__(None, None, None)
        store.reads[0].callback(entry("/pub/x", 1))
    else:
        store.reads[0].callback(entry("/pub/x", 1))
        writing.__exit__(None, None, None)
    assert await reading == entry("/pub/x", 1)
    again = Deferred.fromCoroutine(remembered.entry("a", "/pub/x", store.read))
    assert len(store.reads) == 2
    store.reads[1].callback(entry("/pub/x", 2))
    assert await again == entry("/pub/x", 2)


@pytest_twisted.ensureDeferred
async def test_a_write_that_fails_is_a_write() -> None:
    """A write may have happened though it failed, so what was known is forgotten as well."""
    remembered, store = Remembered(), Slow()
    reading = Deferred.fromCoroutine(remembered.entry("a", "/pub/x", store.read))
    store.reads[0].callback(entry("/pub/x", 1))
    await reading
    with pytest.raises(OSError, match="away"), remembered.writing("a", "/pub/x"):
        raise OSError("away")
    Deferred.fromCoroutine(remembered.entry("a", "/pub/x", store.read))
    assert len(store.reads) == 2


@pytest_twisted.ensureDeferred
async def test_listings() -> None:
    """A listing is read once, until anything of the account is written; other accounts do not matter."""
    remembered, reads = Remembered(), [0]

    async def read() -> list[str]:
        reads[0] += 1
        return [f"/pub/{reads[0]}"]

    for _ in range(2):
        assert await remembered.listing("a", ("/pub/",), read) == ["/pub/1"]
    assert await remembered.listing("a", ("/pub/", "x"), read) == ["/pub/2"]
    with remembered.writing("b", "/pub/y"):
        assert await remembered.listing("a", ("/pub/",), read) == ["/pub/1"]
    with remembered.writing("a", "/priv/y"):
        pass
    found = await remembered.listing("a", ("/pub/",), read)
    assert found == ["/pub/3"]
    found.clear()  # a caller may do with it what it likes
    assert await remembered.listing("a", ("/pub/",), read) == ["/pub/3"]
    remembered.forget()
    assert await remembered.listing("a", ("/pub/",), read) == ["/pub/4"]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3000)), max_size=60))
def test_bytes_are_bounded(asked: list[tuple[int, int]]) -> None:
    """However much is read, what is remembered stays within its bytes, and they are counted right."""
    remembered = Remembered(max_bytes=10_000)
    for number, length in asked:
        path = f"/pub/{number}"

        async def read(path: str = path, length: int = length) -> Entry:
            return entry(path, length)

        coroutine = remembered.entry("a", path, read)
        with pytest.raises(StopIteration):
            coroutine.send(None)
        if number % 3 == 0:
            with remembered.writing("a", path):
                pass
        assert remembered._bytes == sum(cost for _, cost in remembered._found.values()) <= 10_000


WIDE = "\N{EARTH GLOBE EUROPE-AFRICA}"
"""A character that makes all others of its text take four bytes."""


async def _sessions(remembered: Remembered, number: int, capabilities: str) -> None:
    async def read() -> Session:
        return Session(f"{number:064}", "a" * 52, parse_capabilities(capabilities), number)

    await remembered.session(f"session:{number:064}", read)


async def _entries(remembered: Remembered, number: int, name: str) -> None:
    path = f"/pub/{number}{name}"

    async def read() -> Entry:
        return Entry(path, b"%032d" % number, number, "text/plain", number, body=bytes(number % 50))

    await remembered.entry("a" * 52, path, read)


async def _listings(remembered: Remembered, number: int, name: str) -> None:
    async def read() -> list[str]:
        return [f"/pub/{name}{number}/{at}" for at in range(number % 4)]

    await remembered.listing("a" * 52, (f"/pub/{name}", f"/pub/{name}{number}", 100, False, False), read)


@pytest.mark.parametrize(
    ("remember", "text"),
    [
        (_sessions, "/:rw"),
        (_sessions, ",".join(["/pub/:r"] * 2000)),
        (_sessions, ",".join(f"/pub/{at}{WIDE * 60}:w" for at in range(20))),
        (_entries, "x"),
        (_entries, "x" * 200 + WIDE),
        (_listings, "x"),
        (_listings, "x" * 200 + WIDE),
    ],
    ids=["session", "many capabilities", "wide scopes", "entry", "wide path", "listing", "wide listing"],
)
@pytest_twisted.ensureDeferred
async def test_the_bytes_are_those_of_memory(
    remember: Callable[[Remembered, int, str], Awaitable[None]], text: str
) -> None:
    """Whatever clients choose, what is remembered takes no more memory than its bound, and not much less."""
    remembered = Remembered(max_bytes=1_000_000)
    tracemalloc.start()
    try:
        for number in range(40 if text.count(":") > 1000 else 3000):
            await remember(remembered, number, text)
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 300_000 < held <= 1_000_000
