"""`twistd` with points at which the homeserver kills itself: production code knows nothing of them.

A point stands before, in or after a step that leaves something behind: a script of Redis, by its name, or a step of a
body on the disk. "In" a script is when it was sent, and the answer did not come; "after" the last step of a write is
before its client hears of it. The file `armed` in the working directory says at which point the end comes:

    put before 3 alone       before the third `put` from now on; Redis lives on for a moment
    apply after 1 together   after the next `apply`; Redis dies with it

The file is gone when the process is.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred

ARMED = Path("armed")
PROGRAM = (sys.executable, "-P", __file__)


@frozen
class Point:
    """Where a homeserver ends."""

    step: str
    when: str
    """`before`, `in`, `after`."""
    count: int = 1
    """At which time from now on."""
    redis: str = "alone"
    """`alone`, or `together` with Redis."""

    def arm(self, folder: Path) -> None:
        """Let the homeserver in a folder end there, which may run or be started yet."""
        fresh = folder / "armed.new"
        fresh.write_text(f"{self.step} {self.when} {self.count} {self.redis}")
        fresh.rename(folder / ARMED)

    def __str__(self) -> str:
        return f"{self.when} {self.step}, time {self.count}, {self.redis}"


def is_armed(folder: Path) -> bool:
    """Whether a homeserver has not come to its point yet."""
    return (folder / ARMED).exists()


class _Count:
    """How often what was armed last was reached."""

    armed, reached = "", 0


def is_due(step: str, when: str) -> bool:
    """Whether the end comes at this point, which is reached now."""
    try:
        armed = ARMED.read_text()
    except FileNotFoundError:
        return False
    at, moment, number, _ = armed.split()
    if (step, when) != (at, moment):
        return False
    _Count.reached = _Count.reached + 1 if armed == _Count.armed else 1
    _Count.armed = armed
    return _Count.reached >= int(number)


def die() -> None:
    """End at once, perhaps with Redis."""
    *_, redis = ARMED.read_text().split()
    ARMED.unlink()
    for process in _children() if redis == "together" else ():
        os.kill(process, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _children() -> list[int]:
    """The processes that this one has started, which is its Redis."""
    return [int(one) for file in Path("/proc/self/task").glob("*/children") for one in file.read_text().split()]


def reach(step: str, when: str) -> None:
    """A point is reached: perhaps the end."""
    if is_due(step, when):
        die()


def around(step: str, work: Callable[..., Any]) -> Callable[..., Any]:
    """The same, with points before and after it."""

    def watched(*arguments: Any) -> Any:
        reach(step, "before")
        result = work(*arguments)
        reach(step, "after")
        return result

    return watched


def set_points() -> None:
    """Put points into the homeserver."""
    from pubky_homeserver import blobs
    from pubky_homeserver.store.connection import Commands

    call = Commands.call

    async def watched(self: Any, *words: Any) -> Any:
        step = words[0]
        if step == "EVALSHA":
            (step,) = (name for name, script in self._scripts.items() if script.sha == words[1])
        reach(step, "before")
        asking = Deferred.fromCoroutine(call(self, *words))
        if is_due(step, "in"):
            self._protocol.transport.doWrite()
            die()
        answer = await asking
        reach(step, "after")
        return answer

    Commands.call = watched  # type: ignore[method-assign]  # from outside: the product has no hooks
    steps: Any = blobs  # its names are replaced
    steps.os = SimpleNamespace(**{**vars(os), "fsync": around("flush", os.fsync)})
    steps.sync_folder = around("name", steps.sync_folder)


if __name__ == "__main__":
    from twisted.scripts.twistd import run

    set_points()
    sys.argv[0] = "twistd"
    run()
