"""A store that stops answering at a certain step: what a process sees of it that is killed there."""

from collections.abc import Callable
from contextlib import suppress
from inspect import iscoroutinefunction
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred

from pubky_homeserver.core.errors import Refused, StoreAway
from pubky_homeserver.store.memory import MemoryStore

PARTS = ("chronicle", "copies", "erasures", "grants", "integrity", "locks", "logs", "moves", "packets", "shelf")


@define(eq=False)
class Fuse:
    """Counts the questions to a store; blows at one of them, which is never answered, nor is any after it."""

    left: int
    """Questions that are answered before."""
    is_done: bool = False
    """Whether the store does what that question asks."""
    blow: Callable[[], None] = lambda: None
    """Called when that happens."""
    is_blown: bool = field(default=False, init=False)
    is_over: bool = field(default=False, init=False)
    """Whether the process is gone: what it still does on its way out comes to nothing."""


class Fused:
    """A part of a store behind a fuse."""

    def __init__(self, part: Any, fuse: Fuse, **parts: Any) -> None:
        self._part, self._fuse, self._parts = part, fuse, parts

    def __getattr__(self, name: str) -> Any:
        if name in self._parts:
            return self._parts[name]
        method, fuse = getattr(self._part, name), self._fuse
        if not iscoroutinefunction(method):
            return method

        async def ask(*arguments: Any, **more: Any) -> Any:
            if fuse.is_over:
                raise StoreAway
            if fuse.is_blown:
                return await Deferred()
            fuse.left -= 1
            if fuse.left >= 0:
                return await method(*arguments, **more)
            fuse.is_blown = True
            fuse.blow()
            if fuse.is_done:
                with suppress(Refused):
                    await method(*arguments, **more)
            return await Deferred()

        return ask


def fused(store: MemoryStore, fuse: Fuse) -> Any:
    """A whole store behind a fuse."""
    return Fused(store, fuse, **{name: Fused(getattr(store, name), fuse) for name in PARTS})
