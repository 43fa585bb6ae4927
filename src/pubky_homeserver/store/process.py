"""A Redis of our own: a private redis-server on the data directory, started, watched, stopped last.

One coroutine is its life: take the lock (`leftover.py`), start the program (`program.py`), wait until it answers, wait
until it ends, wait a moment, start it again. Redis listens on a unix socket only, reads no configuration file, keeps
everything in its append-only file, and when its memory is full refuses writes rather than forget anything.

It runs in a session of its own. So Ctrl+C, which a terminal sends to all processes of the foreground group, ends the
homeserver's work in order: requests first, Redis last. A service manager that signals a whole group of processes should
signal the parent alone (systemd: `KillMode=mixed`); else Redis ends at once, and is started again for the rest.
"""

import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as NoAnswer
from twisted.internet.error import ConnectError, ConnectingCancelledError, ConnectionClosed, ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from pubky_homeserver.core.errors import CannotStart
from pubky_homeserver.store.asking import Conversation, IRedisReactor, Refusal, converse
from pubky_homeserver.store.leftover import Lock
from pubky_homeserver.store.program import Program, Record, choose_program, find_programs, unfinished_logs
from pubky_homeserver.store.socket import place_socket, remove_socket

STOP_PATIENCE = 15.0
"""Seconds for Redis to end by itself when asked: it flushes its log first."""

FIRST_DELAY, LAST_DELAY = 0.1, 5.0
"""Seconds before Redis is started again: twice as long after each quick end, within these bounds."""

SETTLED = 10.0
"""Seconds of life after which an end is no quick end."""

LOOK_AFTER, LOOK_SELDOM = 0.01, 0.5
"""Seconds between two looks whether Redis answers: twice as long each time, within these bounds."""

PROGRESS = 5.0
"""Seconds between two log lines while Redis loads."""

PATIENT, REMINDER = 3, 12
"""Quick ends in a row before the log says what to do, and before it says so again (about once a minute)."""

MAX_LINE = 4096
"""Bytes of a line of Redis' log; longer ones are cut."""

_DETACH = "import os, sys; os.setsid(); os.umask(0o077); os.execv(sys.argv[1], sys.argv[1:])"
# Runs in the new process before Redis: a session of its own, files for nobody else.

_INHERITED = ("LD_LIBRARY_PATH",)
# What Python may need of the environment to start. The rest, which has secrets in it, is not Redis' business.

_LINE = re.compile(r"\d+:(?:[XCSM] \d+ \w+ \d+ [\d:.]+ ([.*#-])|signal-handler \(\d+\)) (.*)", re.ASCII)
# `123:M 23 Nov 2026 04:22:18.383 # text`: process, role, time, level, text. A signal handler writes no level.

_LEVELS = {"#": LogLevel.warn, "*": LogLevel.info, "-": LogLevel.debug, ".": LogLevel.debug}

_EVERY_TIME = re.compile(
    r"oO0OoO0OoO0Oo|Redis version=|Configuration loaded|Server initialized|User requested shutdown|Redis is now ready"
)
# What Redis says at the level of warnings at each start and end.


@define(eq=False)
class _Child(ProcessProtocol):
    """One life of a redis-server: its log lines and its end."""

    began: float
    how: str | None = None
    """How it ended; None while it lives."""
    last_words: str = ""
    _pieces: dict[int, bytes] = field(factory=dict, init=False)
    # Descriptor → the beginning of a line.
    _waiting: list[Deferred[None]] = field(factory=list, init=False)
    _log: Logger = field(factory=lambda: Logger(namespace="redis"), init=False)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Take over what Redis writes."""
        *lines, rest = (self._pieces.get(childFD, b"") + data).split(b"\n")
        self._pieces[childFD] = rest[:MAX_LINE]
        for line in lines:
            self._say(line[:MAX_LINE].decode("utf-8", "replace").rstrip())

    def _say(self, line: str) -> None:
        found = _LINE.fullmatch(line)
        level, text = (_LEVELS.get(found[1], LogLevel.info), found[2]) if found else (LogLevel.warn, line)
        if not text:
            return
        if _EVERY_TIME.match(text):
            level = LogLevel.debug
        else:
            self.last_words = text
        self._log.emit(level, "{text}", text=text)

    def processExited(self, reason: Failure) -> None:
        """Tell who waits. What the process wrote may still be on its way."""
        value = reason.value
        code, killer = getattr(value, "exitCode", None), getattr(value, "signal", None)
        self.how = f"signal {killer}" if killer is not None else f"exit status {code}"
        while self._waiting:
            self._waiting.pop(0).callback(None)

    def end(self) -> Deferred[None]:
        """Fires when the process has ended."""
        ended: Deferred[None] = Deferred(self._waiting.remove)
        if self.how is None:
            self._waiting.append(ended)
        else:
            ended.callback(None)
        return ended

    def kill(self, how: str) -> None:
        """Send a signal (`TERM`, `KILL`), if it is not too late."""
        assert self.transport is not None
        try:
            self.transport.signalProcess(how)
        except ProcessExitedAlready:
            pass


@define(eq=False)
class EmbeddedRedis(Service):
    """Redis as part of the homeserver, on a directory that is nobody else's."""

    reactor: IRedisReactor
    directory: Path
    program: Program
    socket: str
    """The path where it listens."""
    appendfsync: str = "always"
    patience: float = STOP_PATIENCE
    settled: float = SETTLED
    limits: Callable[[], Mapping[str, int]] = field(default=dict, init=False)
    """Further settings, asked for at each start (`rewriting.py`)."""
    ready: bool = field(default=False, init=False)
    """Whether Redis has answered since it was last started."""
    restarts: int = field(default=0, init=False)
    """How often it ended and was started again."""
    _failures: int = field(default=0, init=False)
    # Quick ends in a row.
    _loading_told: float = field(default=float("-inf"), init=False)
    _trouble: CannotStart | None = field(default=None, init=False)
    _lock: int | None = field(default=None, init=False)
    # The descriptor that every Redis here inherits.
    _child: _Child | None = field(default=None, init=False)
    _life: Deferred[None] | None = field(default=None, init=False)
    _waiting: list[Deferred[None]] = field(factory=list, init=False)

    log = Logger()

    @classmethod
    def prepare(cls, reactor: IRedisReactor, directory: Path, appendfsync: str = "always") -> "EmbeddedRedis":
        """Choose program and socket for an existing directory (mode 0700). Raises `CannotStart`."""
        program = choose_program(directory, find_programs(os.get_exec_path()))
        return cls(reactor, directory, program, place_socket(directory), appendfsync)

    def startService(self) -> None:
        """Start Redis and keep it alive. `whenReady` tells what became of it."""
        super().startService()
        self._trouble = None
        self._life = Deferred.fromCoroutine(self._live())
        self._life.addErrback(self._give_up)

    def stopService(self) -> Deferred[None]:
        """End Redis; fires when it is gone and its directory is free. Everything that writes must have stopped."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    def whenReady(self) -> Deferred[None]:
        """Fires as soon as Redis answers; fails with `CannotStart`, or with `CancelledError` when the service stops."""
        waiting: Deferred[None] = Deferred(self._waiting.remove)
        if self._trouble is not None:
            waiting.errback(self._trouble)
        elif self.ready:
            waiting.callback(None)
        else:
            self._waiting.append(waiting)
        return waiting

    async def _live(self) -> None:
        self._lock = await Lock(self.reactor, self.directory).take(self.socket)
        self._record(used=False)
        while True:
            for file in unfinished_logs(self.directory):
                file.unlink(missing_ok=True)  # nobody else would
            self._child = child = self._spawn(self._lock)
            if await self._answers(child):
                self._announce()
            await child.end()
            self.ready = False
            await deferLater(self.reactor, self._note_end(child))
            self.restarts += 1

    def _spawn(self, lock: int) -> _Child:
        child = _Child(self.reactor.seconds())
        try:
            transport = self.reactor.spawnProcess(
                child,
                sys.executable,
                [sys.executable, "-I", "-S", "-c", _DETACH, self.program.path, *self._options()],
                env={name: os.environ[name] for name in _INHERITED if name in os.environ},
                childFDs={0: "w", 1: "r", 2: "r", 3: lock},
            )
        except OSError as error:  # too many processes or open files: it passes
            child.how = f"cannot be started: {error}"
        else:
            transport.closeStdin()
        return child

    def _options(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": self.socket,
            "unixsocketperm": "600",
            "dir": str(self.directory.absolute()),
            "appendonly": "yes",
            "appendfsync": self.appendfsync,
            "aof-load-truncated": "yes",
            "auto-aof-rewrite-percentage": "0",  # `rewriting.py` knows when
            "save": "",
            "maxmemory-policy": "noeviction",
            "stream-node-max-bytes": "1024",  # most accounts have few events: a first file costs half as much
            "daemonize": "no",
            "loglevel": "notice",
            "logfile": "",
            **{name: str(limit) for name, limit in self.limits().items()},
        }
        return [part for name, value in options.items() for part in (f"--{name}", value)]

    async def _answers(self, child: _Child) -> bool:
        """Wait until Redis answers; False if it ended before."""
        delay = LOOK_AFTER
        while child.how is None:
            try:
                conversation = await converse(self.reactor, self.socket)
            except ConnectError:
                pass  # not listening yet
            else:
                try:
                    if await self._has_loaded(conversation):
                        return True
                except (ConnectionClosed, NoAnswer, Refusal) as error:
                    self.log.debug("Redis does not answer yet: {error}", error=error)
                finally:
                    conversation.close()
            await deferLater(self.reactor, delay)
            delay = min(delay * 2, LOOK_SELDOM)
        return False

    async def _has_loaded(self, conversation: Conversation) -> bool:
        state = await conversation.info("persistence")
        if state.get("loading") == "0":
            return await conversation.ask("PING") == b"PONG"
        if self.reactor.seconds() - self._loading_told >= PROGRESS:
            self._loading_told = self.reactor.seconds()
            self.log.info(
                "Redis is loading its data: {percent} %, about {left} s to go",
                percent=state.get("loading_loaded_perc", "?"),
                left=state.get("loading_eta_seconds", "?"),
            )
        return False

    def _announce(self) -> None:
        try:
            self._record(used=True)
        except OSError as error:
            self.log.error("The first use of {directory} is not noted: {error}", directory=self.directory, error=error)
        self.ready = True
        self.log.info("Redis {program} answers at {socket}", program=str(self.program), socket=self.socket)
        while self._waiting:
            self._waiting.pop(0).callback(None)

    def _record(self, used: bool) -> None:
        """Keep the newest version that wrote here, before it writes, and that it has written, after."""
        before = Record.read(self.directory)
        if before is None:
            now = Record(self.program.version, used)
        else:
            now = Record(max(before.version, self.program.version), before.used or used)
        if now != before:
            now.write(self.directory)

    def _note_end(self, child: _Child) -> float:
        """Log that Redis ended; returns the seconds to wait before the next start."""
        quick = self.reactor.seconds() - child.began < self.settled
        self._failures = self._failures + 1 if quick else 0
        delay = min(FIRST_DELAY * 2.0 ** min(max(self._failures - 1, 0), 10), LAST_DELAY)
        self.log.error("Redis ended ({how}); it is started again in {delay} s", how=child.how, delay=delay)
        if self._failures >= PATIENT and (self._failures - PATIENT) % REMINDER == 0:
            room = os.statvfs(self.directory)
            self.log.critical(
                "Redis ended {failures} times soon after its start; its last words: {words!r}. Usual causes: a full "
                "disk ({free} MiB free at {directory}), or a damaged log: copy the directory, then repair it with "
                "redis-check-aof --fix",
                failures=self._failures,
                words=child.last_words,
                free=room.f_bavail * room.f_frsize >> 20,
                directory=str(self.directory),
            )
        return delay

    def _give_up(self, failure: Failure) -> None:
        """The life of Redis ended with an error: by `stopService`, or before it could begin."""
        if failure.check(CancelledError, ConnectingCancelledError):
            return
        trouble = failure.value
        if isinstance(trouble, CannotStart):
            self._trouble = trouble
        else:
            self.log.failure("Redis cannot be kept alive", failure=failure)
            self._trouble = CannotStart(f"Redis cannot be kept alive on {self.directory}: {trouble}")
        while self._waiting:
            self._waiting.pop(0).errback(self._trouble)

    async def _stop(self) -> None:
        self.ready = False
        for waiting in list(self._waiting):
            waiting.cancel()
        if self._life is not None:
            self._life.cancel()
        if self._child is not None:
            await self._end(self._child)
        if self._lock is not None:
            os.close(self._lock)
            remove_socket(self.directory)
        self._life = self._child = self._lock = None

    async def _end(self, child: _Child) -> None:
        if child.how is None:
            child.kill("TERM")
        try:
            await child.end().addTimeout(self.patience, self.reactor)
        except NoAnswer:
            self.log.error("Redis does not end by itself: killing it")
            child.kill("KILL")
            await child.end()
