"""The official homeserver as a process that is stopped, restarted, put back and slowed down, with its PostgreSQL."""

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from socket import IPPROTO_TCP, SO_RCVBUF, SOL_SOCKET, TCP_MAXSEG
from typing import Any
from urllib.parse import quote, urlsplit

from attrs import define, field
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from pkarr.keys import Keypair
from pubky_homeserver.core.tokens import sign_auth_token
from tests.bench.http import build_official, free_port, postgres, process, relay, wait_for
from tests.process import Person

UNLIMITED = "rate_limits = []"
NARROW = 8192  # bytes
SEGMENT = 1000  # bytes; on the loopback it is 64 KiB, and Linux keeps forty of them for who sends


@define(eq=False)
class OfficialServer:
    """The official homeserver. It keeps its port, and its data, from one start to the next."""

    folder: Path
    database: str
    relay: int
    port: int = field(factory=free_port)
    _stack: ExitStack = field(factory=ExitStack)

    @property
    def key(self) -> str:
        """Its public key, once it has been started."""
        return Keypair(bytes.fromhex((self.folder / "data" / "secret").read_text().strip())).public_key.z32

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, limits: str = UNLIMITED) -> None:
        """Start it, with these limits of requests."""
        (self.folder / "data").mkdir(exist_ok=True)
        (self.folder / "data" / "config.toml").write_text(
            f'[general]\nsignup_mode = "open"\ndatabase_url = "{self.database}"\n'
            f'[drive]\nicann_listen_socket = "127.0.0.1:{self.port}"\n{limits}\n'
            f'pubky_listen_socket = "127.0.0.1:{free_port()}"\n'
            f'[admin]\nenabled = false\n[pkdns]\ndht_relay_nodes = ["http://127.0.0.1:{self.relay}"]\n'
            f'dht_bootstrap_nodes = ["127.0.0.1:{free_port()}"]\n[logging]\nlevel = "warn"\nmodule_levels = []\n'
        )
        self._stack.enter_context(
            process([str(build_official()), "--data-dir", str(self.folder / "data")], self.folder, "official")
        )
        wait_for(self.url, self.folder / "official.log", 60)

    def stop(self) -> None:
        """Stop it."""
        self._stack.close()

    def has_cut(self) -> bool:
        """Whether it ended the stream of who was too slow."""
        return "Slow client detected" in (self.folder / "official.log").read_text()

    def keep(self) -> None:
        """Keep a backup of its database and files. It must not run."""
        self._sql("create database kept template pubky")
        subprocess.run(["cp", "-a", "data", "kept"], cwd=self.folder / "data", check=True)

    def restore(self) -> None:
        """Be as in the backup again. It must not run."""
        self._sql("drop database pubky")
        self._sql("create database pubky template kept")
        data = self.folder / "data"
        subprocess.run(["rm", "-rf", "data"], cwd=data, check=True)
        subprocess.run(["cp", "-a", "kept", "data"], cwd=data, check=True)

    def hurry(self) -> None:
        """Let its PostgreSQL not wait for the disk: it never loses power here, and some tests write much."""
        self._sql("alter system set synchronous_commit = off")
        self._sql("select pg_reload_conf()")

    def _sql(self, statement: str) -> None:
        place = urlsplit(self.database)
        command = ["psql", "-h", "127.0.0.1", "-p", str(place.port), "-U", "postgres", "-qc", statement]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        log = (self.folder / "postgres.log").read_text()
        assert done.returncode == 0, f"{statement}: {done.stderr}{log}"

    # --- a user ---------------------------------------------------------------------------------------------------

    def sign_up(self, user: Keypair) -> Person:
        """A new user."""
        return self._signed(user, "/signup")

    def sign_in(self, user: Keypair) -> Person:
        """A user with a new session."""
        return self._signed(user, "/session")

    def _signed(self, user: Keypair, target: str) -> Person:
        token = sign_auth_token(user, "/:rw", time.time_ns() // 1000)
        status, headers, body = self.ask("POST", target, token)
        assert status == 200, body
        return Person(user.public_key.z32, headers["set-cookie"].partition(";")[0])

    def newest(self, person: Person) -> int:
        """The cursor of a user's newest event."""
        status, _, body = self.ask("GET", f"/events-stream?user={person.pubky}&limit=1&reverse=true")
        found = re.search(rb"cursor: (\d+)", body)
        assert (status, found is not None) == (200, True), body
        return int(found[1]) if found else 0

    def put(self, person: Person, path: str, body: bytes) -> None:
        """Write a file."""
        status, _, said = self.ask("PUT", quote(person.path(path)), body, person.headers)
        assert status == 201, said

    def delete(self, person: Person, path: str) -> None:
        """Remove one."""
        status, _, said = self.ask("DELETE", quote(person.path(path)), None, person.headers)
        assert status == 204, said

    def put_all(self, person: Person, writes: list[tuple[str, bytes]]) -> None:
        """Write many files over one connection."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        for path, body in writes:
            connection.request("PUT", quote(person.path(path)), body, person.headers)
            answer = connection.getresponse()
            assert answer.status == 201, answer.read()
            answer.read()
        connection.close()

    def ask(
        self, method: str, target: str, body: bytes | None = None, headers: Any = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request: status, fields by their names in lower case, and body of the answer."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, target, body, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()


@contextmanager
def official_server(folder: Path) -> Iterator[OfficialServer]:
    """An official homeserver that was not started yet, with all that it needs."""
    with ExitStack() as stack:
        for name in ("relay", "official"):
            (folder / name).mkdir(parents=True)
        port = stack.enter_context(relay(folder / "relay"))
        database = stack.enter_context(postgres(folder / "official"))
        server = OfficialServer(folder / "official", database, port)
        server.hurry()
        try:
            yield server
        finally:
            server.stop()


class Straw(Factory):
    """A way to a port through which live streams can be held back. What is not one goes through.

    It is narrow: little is on its way to who reads nothing, so that few events are enough to lag behind.
    """

    def __init__(self, reactor: Any, port: int) -> None:
        self.reactor, self.port = reactor, port
        self.streams: list[Way] = []
        """Live streams that are open at the homeserver."""
        self.limited: list[bytes] = []
        """The heads of its answers that say 429."""

    def hold(self, is_held: bool) -> None:
        """Read live streams no further, or on."""
        for one in self.streams:
            if is_held:
                one.transport.pauseProducing()
            else:
                one.transport.resumeProducing()

    def buildProtocol(self, _address: object) -> Protocol:
        """See `Factory`."""
        return Here(self)


class Way(Protocol):
    """One end of a connection that goes through."""

    transport: Any
    other: "Way | None" = None

    def dataReceived(self, data: bytes) -> None:
        """Pass it on."""
        if self.other is not None:
            self.other.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The other end ends, too."""
        if self.other is not None:
            self.other.transport.loseConnection()


class Here(Way):
    """The end of who asks."""

    def __init__(self, straw: Straw) -> None:
        self.straw = straw
        self.waiting: list[bytes] = []

    def connectionMade(self) -> None:
        """Go there."""
        connector = self.straw.reactor.connectTCP("127.0.0.1", self.straw.port, Thither(self))
        connector.transport.socket.setsockopt(SOL_SOCKET, SO_RCVBUF, NARROW)
        connector.transport.socket.setsockopt(IPPROTO_TCP, TCP_MAXSEG, SEGMENT)

    def dataReceived(self, data: bytes) -> None:
        """Pass it on, when the other end is there."""
        if self.other is None:
            self.waiting.append(data)
            return
        if b"live=true" in data:
            self.straw.streams.append(self.other)
        super().dataReceived(data)


class Thither(ClientFactory):
    """Goes there."""

    noisy = False

    def __init__(self, here: Here) -> None:
        self.here = here

    def buildProtocol(self, _address: object) -> Protocol:
        """See `Factory`."""
        return There(self.here)

    def clientConnectionFailed(self, _connector: object, _reason: Failure) -> None:
        """Nobody is there."""
        self.here.transport.abortConnection()


class There(Way):
    """The end of the homeserver."""

    def __init__(self, here: Here) -> None:
        self.here = here

    def connectionMade(self) -> None:
        """Say what was said before."""
        self.other, self.here.other = self.here, self
        waiting, self.here.waiting = self.here.waiting, []
        for data in waiting:
            self.here.dataReceived(data)

    def dataReceived(self, data: bytes) -> None:
        """Pass it on, and note whether it says that it is asked too often."""
        if data.startswith(b"HTTP/1.1 429 "):
            self.here.straw.limited.append(data.partition(b"\r\n\r\n")[0].lower())
        super().dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """A live stream ends."""
        straw = self.here.straw
        if self in straw.streams:
            straw.streams.remove(self)
        super().connectionLost(reason)
