"""When the log of a private Redis is written anew.

Redis notes every write in its log, a delete too, so the log only grows; now and then it must be written anew, as what
the data is and no longer how it became so. Left alone, Redis does that when the log has doubled, whatever room there
is. But the new log lies beside the old one until it is whole, and where the log meets a full disk Redis ends. So Redis
is told to leave it, and this module does it:

- when the log is twice as long as it has to be, as Redis itself would;
- when the disk is nearly full and it helps, for what was deleted gives room only then;
- never without the room for it.

That the room is there when it is needed, writes are refused a little earlier: besides the reserve, as many bytes stay
free as the new log would have. How many that are nobody knows before; Redis' data in memory is larger.

The reserve is what deletes, sign-ins and all that is not refused then may still use. When three quarters of it are
gone Redis is told that its memory is full, so that it takes nothing more but deletes; and when others have filled the
disk to its end, that it needs a replica for any write: then people can at least read.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from attrs import define, evolve, field, frozen
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as NoAnswer
from twisted.internet.error import ConnectError, ConnectingCancelledError, ConnectionClosed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from pubky_homeserver.store.asking import Conversation, IRedisReactor, Refusal, converse
from pubky_homeserver.store.process import EmbeddedRedis
from pubky_homeserver.store.program import unfinished_logs

LOOK = 1.0
"""Seconds between two looks."""

PAUSE = 10.0
"""Seconds from an attempt that failed to the next, which may well fail too and costs as much."""

LONG = 64 << 20
"""Bytes of a log below which it may have any length while there is room. (Redis' own limit.)"""

WORTH = 1 << 20
"""Bytes that must be won at least where room is short."""

LAST = 1 << 20
"""Bytes that are left for what Redis writes by itself, when something expires."""

_MEGABYTE = 1 << 20

Limits = Mapping[str, int]
"""Settings of Redis, 0 or 1: `maxmemory`, at which it refuses what adds to its data, and `min-replicas-to-write`, at
which it refuses all writes."""

_TOLD = (
    "The disk has room again: Redis takes writes",
    "The disk is full: Redis takes only deletes",
    "The disk is full to its end: Redis takes no writes",
)


@frozen
class LogState:
    """The log and its disk. All in bytes."""

    size: int
    """Of the log."""
    data: int
    """Of Redis' data in memory: a log that is written anew is smaller."""
    written: int
    """Of the new log so far, if it is on its way."""
    free: int
    """On the disk."""
    is_busy: bool = False
    """Whether it is being written anew."""
    has_failed: bool = False
    """Whether the last attempt to write it anew failed."""

    @property
    def needed(self) -> int:
        """What the next, or the present, writing still takes."""
        return max(0, self.data - self.written)

    def has_room(self, reserve: int) -> bool:
        """Whether there is more than the reserve and what the log may need."""
        return self.free > reserve + self.needed

    def is_due(self, reserve: int) -> bool:
        """Whether to write it anew, room or not."""
        if self.is_busy:
            return False
        if self.size >= LONG and self.size >= 2 * self.data:
            return True
        return not self.has_room(reserve) and self.size - self.data >= max(WORTH, self.data // 4)

    def fits(self, reserve: int) -> bool:
        """Whether there is room for it, with half of the reserve for what else is written meanwhile."""
        return self.free - self.data >= reserve // 2


def limits(free: int, reserve: int) -> Limits:
    """What Redis should refuse with so many free bytes."""
    few = reserve // 4
    return {"maxmemory": int(free < few), "min-replicas-to-write": int(free < min(few, LAST))}


@define(eq=False)
class Rewriting(Service):
    """Looks after the log of one private Redis, from before its first start."""

    reactor: IRedisReactor
    redis: EmbeddedRedis
    reserve: int
    """Free bytes that must be left on the disk."""
    _state: LogState | None = field(default=None, init=False)
    # As it was at the last look.
    _tried: float = field(default=float("-inf"), init=False)
    _stuck: bool = field(default=False, init=False)
    # It is due and there is no room for it, which the log tells once.
    _level: int = field(default=0, init=False)
    # How many limits are set.
    _looks: LoopingCall | None = field(default=None, init=False)
    _looking: Deferred[None] | None = field(default=None, init=False)

    log = Logger()

    def __attrs_post_init__(self) -> None:
        self.redis.limits = lambda: limits(self._free(), self.reserve)

    def startService(self) -> None:
        """Look at once, and then again and again."""
        super().startService()
        self._looks = LoopingCall(self._look)
        self._looks.clock = self.reactor
        self._looks.start(LOOK)

    def stopService(self) -> None:
        """Look no more. A new log on its way is Redis' own business."""
        super().stopService()
        if self._looks is not None:
            self._looks.stop()
        if self._looking is not None:
            self._looking.cancel()

    def has_room(self) -> bool:
        """Whether Redis may be given more. What the log needs is known from the last look, the free space from now."""
        return self._state is None or evolve(self._state, free=self._free()).has_room(self.reserve)

    def _look(self) -> Deferred[None]:
        self._looking = Deferred.fromCoroutine(self.look())
        self._looking.addErrback(self._failed)
        return self._looking

    def _failed(self, failure: Failure) -> None:
        """A look that fails is followed by the next one."""
        if failure.check(ConnectError, ConnectionClosed, NoAnswer, Refusal):
            self.log.debug("Redis cannot be asked for its log: {error}", error=failure.value)
        elif not failure.check(CancelledError, ConnectingCancelledError):
            self.log.failure("Redis' log could not be looked at", failure=failure)

    async def look(self) -> None:
        """See how things are, and do what is due."""
        conversation = await converse(self.reactor, self.redis.socket)
        try:
            persistence, memory = await conversation.info("persistence"), await conversation.info("memory")
            self._state = state = self._read(persistence, memory)
            await self._limit(conversation, state.free)
            pause = PAUSE if state.has_failed else 0
            if state.is_due(self.reserve) and self.reactor.seconds() - self._tried >= pause:
                await self._rewrite(conversation, state)
        finally:
            conversation.close()

    def _read(self, persistence: Mapping[str, str], memory: Mapping[str, str]) -> LogState:
        busy = {persistence.get("aof_rewrite_in_progress"), persistence.get("aof_rewrite_scheduled")}
        return LogState(
            size=int(persistence.get("aof_current_size", 0)),
            data=int(memory["used_memory_dataset"]),
            written=sum(_size(file) for file in unfinished_logs(self.redis.directory)),
            free=self._free(),
            is_busy="1" in busy,
            has_failed=persistence.get("aof_last_bgrewrite_status") == "err",
        )

    def _free(self) -> int:
        disk = os.statvfs(self.redis.directory)
        return disk.f_bavail * disk.f_frsize

    async def _limit(self, conversation: Conversation, free: int) -> None:
        """Let Redis refuse what it should with so many free bytes."""
        wanted = limits(free, self.reserve)
        for name, limit in wanted.items():
            found = await conversation.ask("CONFIG", "GET", name)
            if found != [name.encode(), b"%d" % limit]:
                await conversation.ask("CONFIG", "SET", name, str(limit))
        level = sum(wanted.values())
        if level != self._level:
            text = _TOLD[level] + " ({free} MiB are free)"
            self.log.emit(LogLevel.error if level else LogLevel.warn, text, free=free // _MEGABYTE)
        self._level = level

    async def _rewrite(self, conversation: Conversation, state: LogState) -> None:
        facts = {"size": state.size // _MEGABYTE, "data": state.data // _MEGABYTE, "free": state.free // _MEGABYTE}
        if not state.fits(self.reserve):
            if not self._stuck:
                text = (
                    "Redis' log ({size} MiB) should be written anew, which needs {data} MiB and more: {free} are free"
                )
                self.log.error(text, **facts)
            self._stuck = True
            return
        self._stuck, self._tried = False, self.reactor.seconds()
        self.log.info("Redis' log ({size} MiB) is written anew, to at most {data} MiB", **facts)
        await conversation.ask("BGREWRITEAOF")


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0  # it is whole now
