"""What was read a moment ago, for a store that nobody else writes to.

All writes of a process pass through its store. If it is the only process on its Redis, what was read stays true until
a write of its own, so it need not be read again. Each account has a generation, which moves when a write begins and
when it ends, however it ends; what was read is remembered only if no write of the account was under way meanwhile. A
listing is remembered with its generation, so the next write makes it unfindable; an entry is forgotten when its path is
written.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from sys import getsizeof
from typing import Any

from attrs import define, field

from pubky_homeserver.core.records import Entry, Session

MAX_BYTES = 32 * 1024 * 1024
"""Of memory, about, for all that is remembered."""

COST = 600
"""Bytes that a remembered thing costs besides its texts: the record, its small fields, its place in the order."""

CAPABILITY = 128
"""Bytes of a session's capability besides the text of its scope. A client may ask for thousands."""

POINTER = 8
"""Bytes of a place in a tuple."""

_SESSIONS = ""
# Stands for the account of all sessions: no account has this name.


@define(eq=False)
class Remembered:
    """Entries, listings and sessions by what they were asked for; what was not asked for the longest goes first."""

    max_bytes: int = MAX_BYTES
    _found: OrderedDict[Hashable, tuple[Any, int]] = field(factory=OrderedDict, init=False)
    # What was asked for → the answer, and its bytes.
    _bytes: int = field(default=0, init=False)
    _generations: dict[str, int] = field(factory=dict, init=False)
    # Account → writes that began or ended; `_SESSIONS` → sessions that ended.
    _eras: dict[str, int] = field(factory=dict, init=False)
    # Account → writes of many paths that began or ended: no entry is remembered longer.

    async def entry(self, pubky: str, path: str, read: Callable[[], Awaitable[Entry | None]]) -> Entry | None:
        """The entry at a path, read if it is not remembered. That there is none is not remembered."""
        key = pubky, self._eras.get(pubky, 0), path
        known: Entry | None = self._recall(key)
        if known is not None:
            return known
        generation = self._generations.get(pubky, 0)
        found = await read()
        if found is not None and generation == self._generations.get(pubky, 0):
            self._keep(key, found, _size((path, found.path, found.body or b"")))
        return found

    async def listing(
        self, pubky: str, asked: tuple[Hashable, ...], read: Callable[[], Awaitable[list[str]]]
    ) -> list[str]:
        """The paths of a listing, read if they are not remembered. What is raised is not remembered."""
        generation = self._generations.get(pubky, 0)
        key = pubky, generation, asked
        known: tuple[str, ...] | None = self._recall(key)
        if known is not None:
            return list(known)
        found = await read()
        if generation == self._generations.get(pubky, 0):
            self._keep(key, tuple(found), _size(found) + _size(asked))
        return found

    async def session(self, name: str, read: Callable[[], Awaitable[Session | None]]) -> Session | None:
        """A session by the name of its key, read if not remembered. That there is none is not remembered."""
        known: Session | None = self._recall(name)
        if known is not None:
            return known
        generation = self._generations.get(_SESSIONS, 0)
        found = await read()
        if found is not None and generation == self._generations.get(_SESSIONS, 0):
            scopes = [one.scope for one in found.capabilities]
            self._keep(name, found, COST + _size(scopes) + CAPABILITY * len(scopes))
        return found

    def end(self, name: str = "") -> None:
        """Forget a session, if one is named, and remember none that is being read: to be called before and after."""
        self._generations[_SESSIONS] = self._generations.get(_SESSIONS, 0) + 1
        self._drop(name)

    @contextmanager
    def writing(self, pubky: str, path: str) -> Iterator[None]:
        """While a path is written: what is known of it is forgotten, and nothing read meanwhile is remembered."""
        self._move_on(pubky, path)
        try:
            yield
        finally:
            self._move_on(pubky, path)

    @contextmanager
    def rewriting(self, pubky: str) -> Iterator[None]:
        """While many paths of an account are written."""
        self._begin_era(pubky)
        try:
            yield
        finally:
            self._begin_era(pubky)

    def forget(self) -> None:
        """Forget everything, also what is being read."""
        for pubky in self._generations:
            self._generations[pubky] += 1
        self._found.clear()
        self._bytes = 0

    def _move_on(self, pubky: str, path: str) -> None:
        self._generations[pubky] = self._generations.get(pubky, 0) + 1
        self._drop((pubky, self._eras.get(pubky, 0), path))

    def _begin_era(self, pubky: str) -> None:
        self._generations[pubky] = self._generations.get(pubky, 0) + 1
        self._eras[pubky] = self._eras.get(pubky, 0) + 1

    def _drop(self, key: Hashable) -> None:
        found = self._found.pop(key, None)
        if found is not None:
            self._bytes -= found[1]

    def _recall(self, key: Hashable) -> Any:
        found = self._found.get(key)
        if found is None:
            return None
        self._found.move_to_end(key)
        return found[0]

    def _keep(self, key: Hashable, found: object, length: int) -> None:
        self._drop(key)
        cost = length + COST
        self._found[key] = found, cost
        self._bytes += cost
        while self._bytes > self.max_bytes:
            _, (_, gone) = self._found.popitem(last=False)
            self._bytes -= gone


def _size(things: Iterable[object]) -> int:
    """Bytes of memory that these texts take: one character may cost four, and the shortest costs fifty."""
    return sum(getsizeof(one) + POINTER for one in things)
