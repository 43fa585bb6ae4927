"""What a Redis says of itself: whether it may hold this data, how durably, and whether it has room for more."""

from collections.abc import Callable
from typing import Literal

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from txredisapi import ResponseError

from pubky_homeserver.core.errors import CannotStart, Refused
from pubky_homeserver.store.connection import Commands
from pubky_homeserver.store.program import OLDEST

LOOK = 1.0
"""Seconds between two looks at Redis' memory, at most one of them while nothing is written."""

SHARE = 8
"""The reserve is at most this part of Redis' memory: one of 100 MB shall still be of use."""

Durability = Literal["always", "everysec", "none", "unknown"]
"""When a write is on disk: before its answer, within a second of it, some time or never; or Redis does not tell."""

_WARNINGS = {
    "everysec": "Redis writes to its disk once a second, so a crash loses the last one: set appendfsync always",
    "none": "Redis does not see to it that writes reach its disk: set appendonly yes and appendfsync always",
    "unknown": "Redis does not tell how durable it is: it refuses CONFIG GET appendfsync",
}


@frozen
class Survey:
    """What one Redis said when it was asked."""

    version: str
    role: str
    durability: Durability
    used: int
    """Bytes of memory."""
    limit: int
    """Bytes of memory that it may use; 0 for no limit."""
    policy: str
    """What it does when its memory is full."""
    run: str = ""
    """Random, new with each start of a redis-server."""

    @property
    def forgets(self) -> bool:
        """Whether it throws keys away when its memory is full."""
        return self.limit > 0 and self.policy.startswith("allkeys")

    def check(self) -> None:
        """Raise `CannotStart` if this Redis cannot or must not hold a homeserver's data."""
        numbers = tuple(int(part) for part in self.version.split(".")[:2] if part.isdigit())
        if numbers < OLDEST:
            raise CannotStart(f"Redis {self.version} is too old: {OLDEST[0]}.{OLDEST[1]} or newer is needed")
        if self.role != "master":
            raise CannotStart("this Redis is a replica, which takes no writes: redis.url must name its master")
        if self.forgets:
            raise CannotStart(
                f"this Redis forgets data when its memory is full (maxmemory-policy {self.policy}): "
                "set maxmemory-policy noeviction"
            )

    def warnings(self) -> list[str]:
        """What the operator should know, one sentence each."""
        found = [_WARNINGS[self.durability]] if self.durability in _WARNINGS else []
        if self.limit > 0 and self.policy.startswith("volatile"):
            found.append("Redis forgets sign-in tokens early when its memory is full: set maxmemory-policy noeviction")
        return found


async def survey(commands: Commands) -> Survey:
    """Ask a Redis about itself. Raises `StoreAway`."""
    server, memory = await _info(commands, "server"), await _info(commands, "memory")
    persistence, replication = await _info(commands, "persistence"), await _info(commands, "replication")
    return Survey(
        version=server.get("redis_version", "0"),
        role=replication.get("role", "master"),
        durability=await _durability(commands, persistence.get("aof_enabled") == "1"),
        used=int(memory.get("used_memory", 0)),
        limit=int(memory.get("maxmemory", 0)),
        policy=memory.get("maxmemory_policy", "noeviction"),
        run=server.get("run_id", ""),
    )


async def _durability(commands: Commands, append_only: bool) -> Durability:
    if not append_only:
        return "none"
    try:
        found = await commands.call("CONFIG", "GET", "appendfsync")
    except ResponseError:
        return "unknown"
    policies: dict[bytes, Durability] = {b"always": "always", b"everysec": "everysec", b"no": "none"}
    return policies.get(found[1], "unknown") if len(found) == 2 else "unknown"


async def _info(commands: Commands, section: str) -> dict[str, str]:
    text = (await commands.call("INFO", section)).decode()
    lines = (line.partition(":") for line in text.splitlines())
    return {name: value for name, _, value in lines}


@define(eq=False)
class Room:
    """Whether a Redis of bounded memory has room for more. Answers at once, from a look of the last second."""

    commands: Callable[[], Commands]
    clock: IReactorTime
    reserve: int
    """Bytes that stay free."""
    _full: bool = field(default=False, init=False)
    _looked: float = field(default=0.0, init=False)
    _looking: Deferred[None] | None = field(default=None, init=False)

    log = Logger()

    def has_room(self) -> bool:
        """Whether there is more free memory than the reserve."""
        if self._looking is None and self.clock.seconds() - self._looked >= LOOK:
            self._looking = Deferred.fromCoroutine(self._look())
            self._looking.addBoth(self._ended)
        return not self._full

    def note(self, used: int, limit: int) -> None:
        """Take over what Redis says of its memory."""
        self._looked = self.clock.seconds()
        full = limit > 0 and used + min(self.reserve, limit // SHARE) > limit
        if full != self._full:
            word = "full: writes are refused" if full else "no longer full"
            self.log.warn("Redis' memory is {word} ({used} of {limit} bytes)", word=word, used=used, limit=limit)
        self._full = full

    def stop(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()

    async def _look(self) -> None:
        memory = await _info(self.commands(), "memory")
        self.note(int(memory["used_memory"]), int(memory["maxmemory"]))

    def _ended(self, result: Failure | None) -> None:
        self._looking = None
        self._looked = self.clock.seconds()
        # Without a connection there is nothing to say here: who keeps it says so.
        if result is not None and not result.check(CancelledError, Refused):
            self.log.failure("Redis' memory could not be looked at", failure=result)
