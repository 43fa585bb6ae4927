"""The homeserver as its operator starts it: `twistd` as a process, on ports of its own and in an empty folder."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field, frozen

from pkarr.keys import Keypair
from pubky_homeserver.core.tokens import sign_auth_token
from pubky_homeserver.store.leftover import holders

TWISTD = str(Path(sys.executable).with_name("twistd"))
START = 30.0  # seconds; a node needs one or two, a busy machine more
STOP = 30.0  # seconds; running requests may take 10 of them, Redis 15
TICK = 0.01  # seconds between two looks at something that nobody tells us

SETTINGS: Mapping[str, Mapping[str, object]] = {
    "general": {"signup_mode": "open"},
    "drive": {"icann_listen_socket": "127.0.0.1:0", "pubky_listen_socket": "127.0.0.1:0"},
    "admin": {"listen_socket": "127.0.0.1:0", "admin_password": "open sesame"},
    "pkdns": {"dht_relay_nodes": [], "dht_bootstrap_nodes": []},
    "dht": {"enabled": False},
}
"""Sign-up for everybody, any free ports, and nothing published."""

_SERVICES = frozenset({"client API", "admin API"})
_LACKS = {"web": {"admin API"}, "background": {"client API"}}
# Role → what such a process does not serve.

_SERVING = re.compile(r"Serving the ([\w ]+) at https?://[\d.]+:(\d+)")


def until(holds: Callable[[], Any], within: float = START, why: Callable[[], str] = lambda: "") -> Any:
    """Wait until something holds; what it said then."""
    deadline = time.monotonic() + within
    while not (answer := holds()):
        assert time.monotonic() < deadline, f"it did not come true within {within:g} s {why()}"
        time.sleep(TICK)
    return answer


def write_settings(file: Path, *changes: Mapping[str, Mapping[str, object]]) -> None:
    """`SETTINGS` and some changes as a TOML file. JSON spells these values as TOML does."""
    sections: dict[str, dict[str, object]] = {}
    for one in (SETTINGS, *changes):
        for section, values in one.items():
            sections.setdefault(section, {}).update(values)
    lines = []
    for section, values in sections.items():
        lines.append(f"[{section}]")
        lines += [f"{name} = {_spelled(value)}" for name, value in values.items()]
    file.write_text("\n".join(lines) + "\n")


def _spelled(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_spelled(one)}" for name, one in value.items()) + "}"
    return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')


def sign_up_token() -> bytes:
    """What somebody new signs up with."""
    return sign_auth_token(Keypair.random(), "/:rw", time.time_ns() // 1000)


@frozen
class Person:
    """Somebody with a session."""

    pubky: str
    cookie: str

    def path(self, path: str) -> str:
        """Where the person's file is."""
        return f"/storage/{self.pubky}{path}"

    @property
    def headers(self) -> dict[str, str]:
        """What the person sends with each request."""
        return {"Cookie": self.cookie}


@define(eq=False)
class Node:
    """One homeserver: its folder, its settings, and its process while it runs."""

    folder: Path
    data: Path
    """Its data directory."""
    program: tuple[str, ...] = (TWISTD,)
    """What is run: `twistd`, or what does as that does, and something more."""
    ports: dict[str, int] = field(factory=dict, init=False)
    """What is served → its port, of the last start."""
    process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)
    _services: frozenset[str] = field(default=_SERVICES, init=False)
    # What it serves once it has started, at least.

    @property
    def settings(self) -> Path:
        """Its settings."""
        return self.folder / "homeserver.toml"

    def launch(
        self,
        *options: str,
        twistd: tuple[str, ...] = ("-n", "--pidfile="),
        environment: Mapping[str, str] | None = None,
    ) -> "subprocess.Popen[bytes]":
        """Start the process, the leader of its group; it writes to the files `stdout` and `stderr`."""
        role = options[options.index("--role") + 1] if "--role" in options else ""
        self._services = _SERVICES - _LACKS.get(role, set())
        place = ("--data-dir", str(self.data), "--config", str(self.settings))
        command = [*self.program, *twistd, "homeserver", *(() if "--testnet" in options else place), *options]
        everything = {"PATH": os.environ["PATH"], "HOME": str(self.folder), **(environment or {})}
        with (self.folder / "stdout").open("wb") as stdout, (self.folder / "stderr").open("wb") as stderr:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=everything,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        return self.process

    def start(self, *options: str, **rest: Any) -> None:
        """Start the process and wait until everything is served."""
        process = self.launch(*options, **rest)
        until(lambda: self.is_serving() or process.poll() is not None, why=self.written)
        assert process.poll() is None, f"it ended with {process.returncode}: {self.written()}"

    def is_serving(self) -> bool:
        """Whether it has said that it serves all its ports, which it says when it does."""
        self.ports = {name: int(port) for name, port in _SERVING.findall(self.log())}
        return self._services <= self.ports.keys()

    def fails(self, *options: str, within: float = START, **rest: Any) -> str:
        """Start it where it cannot: the one line that it says, having left nothing behind."""
        code = self.launch(*options, **rest).wait(within)
        error = self.errors()
        assert code == 1, self.written()
        assert error.count("\n") == 1, error
        assert error.endswith("\n"), error
        assert error.startswith("homeserver: "), error
        assert "Traceback" not in self.written()
        assert "Unhandled" not in self.written()
        assert self.processes() == [], self.written()
        return error.removeprefix("homeserver: ").rstrip("\n")

    def stop(self, how: int = signal.SIGTERM, within: float = STOP) -> None:
        """End it as an operator does: it ends in order, and nothing of it is left."""
        assert self.process is not None
        self.process.send_signal(how)
        try:
            code = self.process.wait(within)
        except subprocess.TimeoutExpired:
            pytest.fail(f"It does not stop: {self.written()}")
        assert code == 0, self.written()
        self.assert_clean()

    def assert_clean(self) -> None:
        """It has ended, left no process behind and logged nothing that nobody expected."""
        assert self.processes() == [], self.written()
        assert "Traceback" not in self.written(), self.written()
        assert "Unhandled" not in self.written(), self.written()

    def kill(self) -> None:
        """End every process of it at once, as the kernel does when it is out of memory."""
        if self.process is not None:
            self.process.kill()
        for process in self.processes():
            os.kill(process, signal.SIGKILL)
        if self.process is not None:
            self.process.wait(STOP)
        until(lambda: not self.processes())

    def redis(self) -> int:
        """The process id of its private Redis: who holds the lock on its directory."""
        return self._redis()[0]

    def _redis(self) -> list[int]:
        try:
            lock = os.open(self.data / "redis" / "lock", os.O_RDONLY)
        except OSError:
            return []
        try:
            return [process for process in holders(lock) if process != self._id()]
        finally:
            os.close(lock)

    def _id(self) -> int | None:
        return None if self.process is None else self.process.pid

    def processes(self) -> list[int]:
        """Every process that was started for it and lives: those that name its folder, and its Redis."""
        named = [int(entry.parent.name) for entry in Path("/proc").glob("[0-9]*/cmdline") if _names(entry, self.folder)]
        return sorted({*named, *self._redis()} - {os.getpid()})

    def signal(self, what: int) -> None:
        """Send a signal to every process of it."""
        for process in self.processes():
            os.kill(process, what)

    def log(self) -> str:
        """What it wrote to its log: stdout, or a daemon's file."""
        return _text(self.folder / "stdout") + _text(self.folder / "twistd.log")

    def errors(self) -> str:
        """What it wrote to stderr."""
        return _text(self.folder / "stderr")

    def written(self) -> str:
        """Everything that it wrote."""
        return f"\n{self.log()}{self.errors()}"

    def connect(self, service: str = "client API", within: float = START) -> HTTPConnection:
        """A connection to one of its ports."""
        return HTTPConnection("127.0.0.1", self.ports[service], timeout=within)

    def ask(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        service: str = "client API",
    ) -> tuple[HTTPResponse, bytes]:
        """One request on a connection of its own: the answer, and its body."""
        connection = self.connect(service)
        try:
            connection.request(method, target, body, dict(headers or {}))
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()

    def sign_up(self) -> Person:
        """A new user."""
        answer, body = self.ask("POST", "/signup", sign_up_token())
        assert answer.status == 200, body
        cookie = (answer.getheader("Set-Cookie") or "").partition(";")[0]
        return Person(cookie.partition("=")[0], cookie)

    def put(self, person: Person, path: str, body: bytes) -> int:
        """Write a file; the status."""
        return self.ask("PUT", person.path(path), body, person.headers)[0].status

    def get(self, person: Person, path: str) -> bytes | None:
        """Read a file; None if there is none."""
        answer, body = self.ask("GET", person.path(path))
        assert answer.status in (200, 404), body
        return body if answer.status == 200 else None


def _names(entry: Path, folder: Path) -> bool:
    try:
        return os.fsencode(folder) in entry.read_bytes()
    except OSError:
        return False  # it has ended


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8", "replace")
    except FileNotFoundError:
        return ""


@contextmanager
def node_in(folder: Path, *changes: Mapping[str, Mapping[str, object]]) -> Iterator[Node]:
    """A homeserver with its settings written and nothing started; whatever of it runs at the end is killed."""
    folder.mkdir(exist_ok=True)
    node = Node(folder, folder / "data")
    write_settings(node.settings, *changes)
    try:
        yield node
    finally:
        node.kill()
