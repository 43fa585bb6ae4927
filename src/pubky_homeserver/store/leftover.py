"""The lock that says whether a Redis is on a directory, and the end of one that a killed parent left behind.

A redis-server starts happily on a directory on which another one runs, and together they spoil the log. So whoever
starts one holds a lock (`flock`) on the file `lock` in its directory, and Redis **inherits the descriptor**: the lock
lasts as long as any process has it, the server above all, whatever became of the parent.

There are two locks, and both are needed to tell what happened. The homeserver's own, on the data directory, is held by
its process alone and ends with it: who has it knows that no other homeserver lives here. The one of this module is
tried after that. So if it is taken, it is by a Redis whose parent is dead:

- the parent alone was killed: Redis lives on, idle; perhaps it still loads its log, or has not begun to;
- the whole process group was killed, or Redis alone: nobody has the lock, and socket files mean nothing;
- Redis was killed while it rewrote its log: the child that writes has the lock for a moment longer, then ends itself.

A left-over Redis is stopped, not adopted, for nobody could supervise another's child. It is asked politely over its
socket, which also works where process ids are those of another container; it is taken for ours only if it names our
directory. What then still holds the lock is killed, which costs nothing that was acknowledged. It is found by what the
kernel says (Linux, `/proc/*/fdinfo`), never by a file with a process id in it, for ids are used again.
"""

import fcntl
import os
import signal
from glob import iglob
from pathlib import Path

from attrs import frozen
from twisted.internet.defer import TimeoutError as NoAnswer
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.task import deferLater
from twisted.logger import Logger

from pubky_homeserver.core.errors import CannotStart
from pubky_homeserver.store.asking import IRedisReactor, Refusal, converse

POLITE = 15.0
"""Seconds for a left-over Redis to end by itself. It flushes its log first, and answers seldom while it loads."""

FINAL = 5.0
"""Seconds for the kernel to end what was killed."""

POLL = 0.05
"""Seconds between two tries for the lock."""


@frozen
class Lock:
    """The lock on the directory of a Redis. Raises `CannotStart` where it cannot be had."""

    reactor: IRedisReactor
    directory: Path
    polite: float = POLITE
    final: float = FINAL
    log = Logger()

    async def take(self, socket: str) -> int:
        """Be the only one here, whatever an earlier run left. Returns the descriptor that the next Redis inherits.

        `socket`: where a left-over Redis listens.
        """
        descriptor = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not _locked(descriptor):
                self.log.warn("Stopping the Redis of an earlier run on {directory}", directory=str(self.directory))
                await self._evict(descriptor, socket)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    async def _evict(self, descriptor: int, socket: str) -> None:
        began = self.reactor.seconds()
        while self.reactor.seconds() - began < self.polite:
            await self._ask_to_stop(socket)
            if await self._freed(descriptor, within=1.0):
                return
        for process in holders(descriptor):
            self.log.warn("Killing process {process}, which has the lock and does not stop", process=process)
            os.kill(process, signal.SIGKILL)
        if await self._freed(descriptor, within=self.final):
            return
        raise CannotStart(
            f"a Redis of an earlier run has the lock on {self.directory} and does not stop: find it with "
            f"`fuser {self.directory / 'lock'}` on this machine or in its other containers, and stop it"
        )

    async def _freed(self, descriptor: int, within: float) -> bool:
        began = self.reactor.seconds()
        while not _locked(descriptor):
            if self.reactor.seconds() - began > within:
                return False
            await deferLater(self.reactor, POLL)
        return True

    async def _ask_to_stop(self, socket: str) -> None:
        """Send SHUTDOWN to a Redis whose directory is ours. It does not answer; its lock tells when it has ended."""
        try:
            conversation = await converse(self.reactor, socket)
        except ConnectError:
            return  # it does not listen yet, or any more
        try:
            match await conversation.ask("CONFIG", "GET", "dir"):
                case [_, bytes(place)] if self._is_here(place):
                    await conversation.ask("SHUTDOWN", "NOSAVE")
        except (ConnectionClosed, NoAnswer, Refusal) as error:
            self.log.debug("The Redis of an earlier run, asked to stop: {error}", error=error)
        finally:
            conversation.close()

    def _is_here(self, place: bytes) -> bool:
        return os.path.realpath(os.fsdecode(place)) == os.path.realpath(self.directory)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def holders(descriptor: int) -> list[int]:
    """The other processes with a lock on a descriptor's file; none where the kernel does not tell (not Linux)."""
    file = os.fstat(descriptor)
    entries = (Path(entry) for entry in iglob("/proc/[0-9]*/fdinfo/*"))
    return sorted({int(entry.parts[2]) for entry in entries if _holds(entry, file)} - {os.getpid()})


def _holds(entry: Path, file: os.stat_result) -> bool:
    """Whether a descriptor of a process holds a lock on a file, and does not merely have it open."""
    try:
        lines = entry.read_text("ascii", "replace").splitlines()
        return any("FLOCK" in line and f":{file.st_ino} " in line for line in lines) and os.path.samestat(
            os.stat(entry.parent.parent / "fd" / entry.name), file
        )
    except OSError:
        return False  # it ended meanwhile, or is somebody else's
