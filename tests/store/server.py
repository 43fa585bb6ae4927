"""A real redis-server on a unix socket in a folder of its own."""

import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import hiredis
from attrs import define, field

from pubky_homeserver.store.address import RedisAddress
from pubky_homeserver.store.program import find_programs

PROGRAMS = list({os.path.realpath(program): program for program in find_programs(os.get_exec_path())}.values())
"""Every redis-server of this machine: often two versions, and the contract holds for each."""

DURABLE = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")


@define(eq=False)
class RedisServer:
    """A redis-server that may be stopped, paused and started again on the same data."""

    folder: Path
    options: tuple[str, ...] = DURABLE
    program: str = PROGRAMS[0]
    _process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    @property
    def socket(self) -> str:
        """The path of its socket."""
        return str(self.folder / "redis.sock")

    @property
    def address(self) -> RedisAddress:
        """Where it is."""
        return RedisAddress(path=self.socket)

    def start(self) -> None:
        """Start it; it may take a moment until it answers."""
        words = (self.program, "--port", "0", "--unixsocket", self.socket, "--dir", str(self.folder), *self.options)
        self._process = subprocess.Popen(words, stdout=subprocess.DEVNULL)

    def answers(self) -> bool:
        """Whether it answers."""
        try:
            return bool(self.ask("PING") == b"PONG")
        except OSError:
            return False

    def has_ended(self) -> bool:
        """Whether it ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once, if it runs."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def ask(self, *words: str | bytes | int | float) -> Any:
        """Send one command to a server that answers, over a connection of its own."""
        reader = hiredis.Reader()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(self.socket)
            command = hiredis.pack_command(words)  # type: ignore[arg-type] # its stub means one word
            connection.sendall(command)
            while (answer := reader.gets()) is False:
                reader.feed(connection.recv(65536))
        if isinstance(answer, Exception):
            raise answer
        return answer
