"""What the tests of an embedded Redis share."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.error import ConnectError
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from pubky_homeserver.store.asking import Refusal, converse
from pubky_homeserver.store.program import find_programs

reactor: Any = _reactor
PATIENCE = 20  # seconds; what takes longer never comes
PROGRAM = find_programs(os.get_exec_path())[0]

PARENT = """
import signal
import sys
from pathlib import Path
from twisted.internet import reactor
from pubky_homeserver.store.process import EmbeddedRedis

signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may ignore it
redis = EmbeddedRedis.prepare(reactor, Path(sys.argv[1]))
reactor.callWhenRunning(redis.startService)
redis.whenReady().addBoth(lambda result: print("ready" if result is None else result.value, flush=True))
reactor.run()
"""
# A homeserver of which nothing but its Redis is left.


async def until(holds: Callable[[], Any]) -> None:
    """Let the reactor run until this holds."""
    deadline = reactor.seconds() + PATIENCE
    while not holds():
        assert reactor.seconds() < deadline, "it never came true"
        await deferLater(reactor, 0.01)


async def answers(socket: str) -> None:
    """Wait until the Redis behind a socket has loaded its data."""
    deadline = reactor.seconds() + PATIENCE
    while True:
        try:
            assert await ask(socket, "PING") == b"PONG"
            return
        except (ConnectError, Refusal):
            assert reactor.seconds() < deadline, "it never answered"
            await deferLater(reactor, 0.01)


async def ask(socket: str, *words: str) -> Any:
    """The answer of the Redis behind a socket to one command."""
    conversation = await converse(reactor, socket)
    try:
        return await conversation.ask(*words)
    finally:
        conversation.close()


async def listens(socket: str) -> bool:
    """Whether there is somebody behind a socket."""
    try:
        (await converse(reactor, socket)).close()
    except ConnectError:
        return False
    return True


async def process_of(socket: str) -> int:
    """The process id of the Redis behind a socket."""
    conversation = await converse(reactor, socket)
    try:
        return int((await conversation.info("server"))["process_id"])
    finally:
        conversation.close()


def is_alive(process: int) -> bool:
    """Whether a process runs; one that ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def start_parent(directory: Path) -> "subprocess.Popen[str]":
    """Another process with an embedded Redis, in a process group of its own; it says `ready` when it is."""
    return subprocess.Popen(
        [sys.executable, "-c", PARENT, str(directory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        process_group=0,
    )


async def heard(parent: "subprocess.Popen[str]") -> str:
    """The next line that a parent says."""
    assert parent.stdout is not None
    line: str = await deferToThread(parent.stdout.readline).addTimeout(PATIENCE, reactor)
    return line.strip()
