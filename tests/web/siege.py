"""A homeserver under odd requests: what it must keep to, whatever it is told.

`Siege.send` plays one example over a connection of its own: bytes out, half-close, everything back until the server
closes. After each example these must hold:

- no answer is a failure of the server (5xx), and nothing is logged as one;
- where the methods are known, the answers are whole: framed as they say, none too many, nothing behind the last;
- no answer shows anything of the witness's private files;
- the witness, an account that nobody here speaks for, is what it was: files, usage, logs, events, sessions, grants;
- a request without anybody's credentials changes nothing at all;
- memory does not grow: what server code holds is compared at the half and at the end.
"""

import gc
import re
import tracemalloc
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import httptools
from attrs import define, field
from blake3 import blake3
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.threads import blockingCallFromThread, deferToThread
from twisted.logger import ILogObserver, LogLevel
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.web.keeping import Keeping, adds_up
from tests.web.odd.parts import MALLORY, WITNESS, Known, Odd
from tests.web.served import Granted, Served, User
from tests.web.sockets import PATIENCE, reactor, until

SECRET = b"what only the witness may read"
HIDDEN = b"hidden-8d1c7e"
"""The name of a private file that no request knows."""

TAG = b64encode(blake3(SECRET).digest())

SPARE = 40 * 1024
"""Bytes by which the process may hold more after the second half than after the first: tables double."""

FAILURE = re.compile(rb"HTTP/1\.1 5\d\d [A-Z]")


@implementer(IHalfCloseableProtocol)
@define(eq=False)
class Talk(Protocol):
    """Says what it has to say, and listens to the end."""

    pieces: tuple[bytes, ...]
    heard: bytearray = field(factory=bytearray, init=False)
    done: Deferred[bytes] = field(factory=Deferred, init=False)
    transport: Any = field(default=None, init=False)

    def connectionMade(self) -> None:
        """Begin to talk."""
        self.transport.setTcpNoDelay(True)
        self._say(0)

    def _say(self, at: int) -> None:
        if self.done.called:
            return
        if at == len(self.pieces):
            self.transport.loseWriteConnection()
            return
        self.transport.write(self.pieces[at])
        if at + 1 == len(self.pieces):
            self._say(at + 1)
        else:
            deferLater(reactor, 0, self._say, at + 1)

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self.heard += data

    def readConnectionLost(self) -> None:
        """All was heard."""
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """All was said."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is over."""
        if not self.done.called:
            self.done.callback(bytes(self.heard))


async def talk(port: int, pieces: tuple[bytes, ...]) -> bytes:
    """Everything that the server says to this."""
    one = Talk(pieces)
    factory = ClientFactory.forProtocol(lambda: one)
    factory.noisy = False
    reactor.connectTCP("127.0.0.1", port, factory)
    one.done.addTimeout(PATIENCE, reactor)
    return await one.done


class _Head:
    """Where the head of an answer ends, and what it says."""

    def __init__(self) -> None:
        self.fields: dict[bytes, bytes] = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field."""
        self.fields[name.lower()] = value


def statuses(data: bytes, methods: tuple[bytes, ...]) -> list[int]:
    """The statuses of the answers to these methods; AssertionError unless each is whole and nothing is left."""
    found: list[int] = []
    while data:
        head, end, rest = data.partition(b"\r\n\r\n")
        assert end, f"half a head: {data!r}"
        seen = _Head()
        parser = httptools.HttpResponseParser(seen)
        parser.feed_data(head + end)
        status = parser.get_status_code()
        if status == 100:
            data = rest
            continue
        assert len(found) < len(methods), f"an answer to nothing: {data!r}"
        found.append(status)
        if methods[len(found) - 1] == b"HEAD" or status in (204, 304):
            data = rest
        elif seen.fields.get(b"transfer-encoding") == b"chunked":
            data = _after_chunks(rest)
        elif b"content-length" not in seen.fields:
            data = b""  # it ends with the connection
        else:
            length = int(seen.fields[b"content-length"])
            assert len(rest) >= length, "half a body"
            data = rest[length:]
    return found


def _after_chunks(data: bytes) -> bytes:
    while True:
        size, end, data = data.partition(b"\r\n")
        assert end, "half a chunk"
        length = int(size, 16)
        assert data[length : length + 2] == b"\r\n", "half a chunk"
        data = data[length + 2 :]
        if not length:
            return data


@implementer(ILogObserver)
@define(eq=False)
class Siege:
    """A homeserver, its witness, and an account that misbehaves."""

    server: Served
    keeping: Keeping
    witness: User
    witness_grant: Granted
    mallory: User
    mallory_grant: Granted
    lock: str
    """The token of the witness's lock on `/pub/locked`."""
    failures: list[dict[str, Any]] = field(factory=list)
    _kept: Any = field(default=None, init=False)
    # What the witness had before the first example.
    _had: Any = field(default=None, init=False)
    # What everybody had after the last one.

    def __call__(self, event: dict[str, Any]) -> None:
        """Look at an event of the log."""
        if event.get("log_level") in (LogLevel.critical, LogLevel.error) or "log_failure" in event:
            self.failures.append(event)

    async def known(self) -> Known:
        """What odd requests may use."""
        paths = ("/pub/a.txt", "/pub/large", "/pub/dir/b.html")
        heads = [await self.server.ask("HEAD", f"/storage/{self.witness.pubky}{path}") for path in paths]
        return Known(
            cookie=self.mallory.cookie.encode(),
            bearer=self.mallory_grant.bearer.encode(),
            grant=self.mallory_grant.grant,
            client=self.mallory_grant.client,
            witness_cookie=self.witness.cookie.encode(),
            witness_bearer=self.witness_grant.bearer.encode(),
            witness_grant=self.witness_grant.grant,
            witness_client=self.witness_grant.client,
            lock=self.lock,
            tags=tuple((head.header("etag") or "").encode() for head in heads),
        )

    # --- what must not change ---

    def _of_witness(self) -> Any:
        return self.keeping.of(self.witness, self.witness_grant)

    # --- one example ---

    async def send(self, odd: Odd) -> bytes:
        """Play an example, and see that everything holds."""
        if self._kept is None:
            self._kept, self._had = self._of_witness(), self.keeping.of_all()
        heard = await talk(self.server.port, odd.pieces)
        assert not FAILURE.search(heard), (odd, heard)
        assert not self.failures, (odd, self.failures)
        if odd.methods is not None and not odd.live:
            answers = statuses(heard, odd.methods)
            assert answers, f"no answer to {odd}"
            assert not odd.refused or all(400 <= status < 500 for status in answers), (odd, heard)
        for secret in (SECRET, HIDDEN, TAG):
            assert secret not in heard, f"something private was shown to {odd}: {secret!r}"
        assert self._of_witness() == self._kept, f"the witness was changed by {odd}"
        if odd.trusted:
            self._had = self.keeping.of_all()
        else:
            assert self.keeping.of_all() == self._had, f"a stranger changed something by {odd}"
        return heard

    async def play(self, odds: Callable[[st.DrawFn, Known], Odd], examples: int = 1000) -> None:
        """Play so many examples; then play them again, and see that memory does not grow in the second half.

        Hypothesis has its own thread, which waits while an example is played here. It remembers all that it did, so
        memory is counted when it is done.
        """
        known = await self.known()
        played: list[Odd] = []

        @settings(
            max_examples=examples,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            database=None,
        )
        @given(st.composite(lambda draw: odds(draw, known))())
        def once(odd: Odd) -> None:
            def start() -> Any:
                return Deferred.fromCoroutine(self.send(odd))

            blockingCallFromThread(reactor, start)
            played.append(odd)

        await deferToThread(once)
        assert len(played) >= examples
        await self.replay(played)
        await self.at_rest()

    async def replay(self, played: list[Odd]) -> None:
        """Play all this, and see that memory does not grow in the second half."""
        tracemalloc.start()
        try:
            for odd in played[: len(played) // 2]:
                await self.send(odd)
            before, kept = held(), self.keeping.weight()
            for odd in played[len(played) // 2 :]:
                await self.send(odd)
            grown, kept = held() - before, max(0, self.keeping.weight() - kept)
        finally:
            tracemalloc.stop()
        assert grown - kept < SPARE, f"memory grew by {grown} bytes, for {kept} that may be kept"

    async def at_rest(self) -> None:
        """See that nobody is being served any more, and that what was written adds up."""
        await until(lambda: not self.server.feed._streams)
        told = self.server.metrics.render().decode()
        assert set(re.findall(r"^event_stream_active_connections{.*} (\d+)", told, re.MULTILINE)) <= {"0"}
        for user in (self.witness, self.mallory):
            assert await adds_up(self.server.store, user.pubky)
        assert not self.failures, self.failures


def held() -> int:
    """Bytes that this process holds of what it allocated since counting began."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def besieged(server: Served, keeping: Keeping) -> Siege:
    """Two accounts: one that keeps still, and one that misbehaves. The first key is the witness's."""
    witness, mallory = await server.sign_up(), await server.sign_up()
    witness_grant = await server.sign_in_by_grant(WITNESS)
    mallory_grant = await server.sign_in_by_grant(MALLORY)
    for user in (witness, mallory):
        for path, body in (
            ("/pub/a.txt", b"hello"),
            ("/pub/dir/b.html", b"<html>"),
            ("/pub/large", bytes(range(256)) * 80),
            ("/pub/website/_/index.html", b"<p>"),
            ("/pub/website/_/404.html", b"<b>"),
            ("/pub/locked", b"x"),
            ("/priv/a.txt", SECRET if user is witness else b"mine"),
            ("/priv/" + HIDDEN.decode() if user is witness else "/priv/b", SECRET if user is witness else b"b"),
        ):
            answer = await server.ask("PUT", f"/storage/{user.pubky}{path}", user.headers, body)
            assert answer.status == 201, answer
    locked = await server.ask("LOCK", f"/storage/{witness.pubky}/pub/locked", witness.headers)
    token = (locked.header("lock-token") or "").strip("<>")
    return Siege(server, keeping, witness, witness_grant, mallory, mallory_grant, token)
