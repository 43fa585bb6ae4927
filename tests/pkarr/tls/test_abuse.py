"""What a port for TLS gets from the open network: no crash, nothing kept, nothing inside is ever built for it."""

import os
import random
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_twisted
from attrs import define
from twisted.internet import reactor as _reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread

from pkarr.keys import Keypair
from pkarr.tls.endpoint import DEADLINE, MAX_HELLO, TlsFactory
from pkarr.tls.session import IEngine

from .installed import NAMES, installed

reactor: Any = _reactor
KEY = Keypair(bytes([3]) * 32)
HOST = f"_pubky.{KEY.public_key.z32}"
SILENCE = 20.0  # seconds that a client of these tests waits at most

UNEXPECTED_MESSAGE, RECORD_OVERFLOW, HANDSHAKE_FAILURE, PROTOCOL_VERSION = 10, 22, 40, 70


@define(eq=False)
class Inside(Protocol):
    """The protocol that is served."""

    received: bytes = b""

    def dataReceived(self, data: bytes) -> None:
        """Keep what came through."""
        self.received += data


@define(eq=False)
class Port:
    """A port for TLS, and what was built inside."""

    number: int
    tls: TlsFactory
    built: list[Inside]
    clock: Clock

    def counts(self) -> tuple[int, int, int]:
        """Handshakes under way, done, failed."""
        return self.tls.shaking, self.tls.shaken, self.tls.failed

    async def comes_to(self, counts: tuple[int, int, int]) -> None:
        """Wait for these numbers of handshakes."""
        for _ in range(5000):
            if self.counts() == counts:
                return
            await deferLater(reactor, 0.002)
        assert self.counts() == counts


@pytest.fixture(params=NAMES)
def engine(request: pytest.FixtureRequest) -> IEngine:
    """Each engine."""
    return installed(request.param)


@asynccontextmanager
async def opened(engine: IEngine) -> AsyncIterator[Port]:
    """A port whose deadlines pass only when the test says so. At its end no descriptor may be left over."""
    clock, built = Clock(), list[Inside]()

    def build() -> Protocol:
        built.append(Inside())
        return built[-1]

    factory = Factory.forProtocol(build)
    factory.noisy = False
    tls = TlsFactory(factory, engine, KEY.seed, clock)
    before = sockets()
    port = reactor.listenTCP(0, tls, backlog=512, interface="127.0.0.1")
    try:
        yield Port(port.getHost().port, tls, built, clock)
    finally:
        await port.stopListening()
    for _ in range(1000):
        if sockets() <= before:
            break
        await deferLater(reactor, 0.002)
    assert sockets() <= before


def sockets() -> int:
    """Sockets that this process has open."""
    count = 0
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:")
        except FileNotFoundError:
            pass  # the listing itself
    return count


def answer_to(port: int, said: bytes) -> bytes:
    """Say something and read until the end."""
    heard = b""
    with socket.create_connection(("127.0.0.1", port), timeout=SILENCE) as client:
        try:
            client.sendall(said)
            while data := client.recv(65536):
                heard += data
        except ConnectionError:
            pass  # an end as well
    return heard


def hello() -> bytes:
    """A good one, of a client of the engine that every machine of the tests has."""
    session = installed("gnutls").connect(HOST)
    session.handshake()
    data = session.take()
    session.close()
    return data


def record(body: bytes, kind: int = 22, length: int | None = None) -> bytes:
    """A record of TLS."""
    return struct.pack("!BHH", kind, 0x0301, len(body) if length is None else length) + body


STRANGE = {
    "HTTP": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", UNEXPECTED_MESSAGE),
    "empty records": (record(b"") * 40, UNEXPECTED_MESSAGE),
    "a record too large": (record(bytes(100), length=0xFFFF) + bytes(70_000), RECORD_OVERFLOW),
    "SSL 2": (b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + bytes(40), PROTOCOL_VERSION),
    "data before a handshake": (record(b"hello", kind=23), UNEXPECTED_MESSAGE),
    "a hello of nothing": (record(b"\x01\x00\x00\x00"), None),
    "an alert": (record(b"\x02\x28", kind=21), None),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n" + bytes(2000), None),
    "a proxy's preface": (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", None),
    "another SNI than a hello": (record(b"\x01\x00\x01\x00" + b"\xff" * 256), None),
}


@pytest.mark.parametrize(("said", "alert"), STRANGE.values(), ids=STRANGE.keys())
@pytest_twisted.ensureDeferred
async def test_strangers(engine: IEngine, said: bytes, alert: int | None) -> None:
    """What begins no handshake is answered with at most an alert, and its connection ends."""
    async with opened(engine) as port:
        heard = await deferToThread(answer_to, port.number, said)
        assert len(heard) <= 7, heard
        if heard:
            assert (heard[0], heard[5]) == (21, 2), "a fatal alert"
        if alert is not None and engine.name.startswith("GnuTLS"):
            assert heard[6:7] in (bytes([alert]), b""), heard
        await port.comes_to((0, 0, 1))
        assert port.built == []


@pytest_twisted.ensureDeferred
async def test_a_handshake_without_an_end(engine: IEngine) -> None:
    """Random bytes that look like a long handshake are cut when they are too many."""
    async with opened(engine) as port:
        piece = record(b"\x01\xff\xff\xff" + os.urandom(16_000)) + record(os.urandom(16_000)) * 20
        assert len(piece) > MAX_HELLO
        heard = await deferToThread(answer_to, port.number, piece)
        assert len(heard) <= 7
        await port.comes_to((0, 0, 1))
        assert port.built == []


@pytest_twisted.ensureDeferred
async def test_silence(engine: IEngine) -> None:
    """300 clients that say nothing, or half a hello, are held until their time is over; then nothing is left."""
    async with opened(engine) as port:
        said = hello()
        clients = [socket.create_connection(("127.0.0.1", port.number)) for _ in range(300)]
        try:
            for client in clients[::2]:
                client.sendall(said[: len(said) // 2])
            await port.comes_to((300, 0, 0))
            port.clock.advance(DEADLINE - 0.1)
            assert port.counts() == (300, 0, 0)
            for client in clients[::2]:
                client.sendall(said[-1:])  # a byte now and then gains nobody any time
            port.clock.advance(0.2)
            await port.comes_to((0, 0, 300))
            assert port.built == []
        finally:
            for client in clients:
                client.close()


@pytest_twisted.ensureDeferred
async def test_byte_by_byte(engine: IEngine) -> None:
    """A handshake in pieces of one byte is a handshake."""

    def talk(port: int) -> None:
        session = installed("gnutls").connect(HOST)
        with socket.create_connection(("127.0.0.1", port), timeout=SILENCE) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while not session.handshake():
                for byte in session.take():
                    client.send(bytes([byte]))
                session.feed(client.recv(65536))
            for byte in session.take():
                client.send(bytes([byte]))
            session.bye()
            client.sendall(session.take())
            while client.recv(65536):
                pass
        assert session.peer_key() == KEY.public_key.raw
        session.close()

    async with opened(engine) as port:
        await deferToThread(talk, port.number)
        await port.comes_to((0, 1, 0))
        assert len(port.built) == 1


@pytest.mark.parametrize("reset", [False, True])
@pytest_twisted.ensureDeferred
async def test_gone_in_the_middle(engine: IEngine, reset: bool) -> None:
    """Clients that leave within a hello, or after it, by an end or a reset, are forgotten."""

    def talk(port: int) -> None:
        said = hello()
        for length in (0, 1, 5, 6, len(said) // 2, len(said) - 1, len(said)):
            with socket.create_connection(("127.0.0.1", port), timeout=SILENCE) as client:
                client.sendall(said[:length])
                if length == len(said):
                    client.recv(1)  # the server has answered
                if reset:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async with opened(engine) as port:
        await deferToThread(talk, port.number)
        await port.comes_to((0, 0, 7))
        assert port.built == []


@pytest_twisted.ensureDeferred
async def test_damaged_hellos(engine: IEngine) -> None:
    """Of 400 hellos with some bytes changed each is answered, refused or waited for; nothing stays when they go."""

    def talk(port: int) -> None:
        chance, said = random.Random(7250), hello()  # the same damage each time
        for _ in range(400):
            damaged = bytearray(said)
            for _ in range(chance.randint(1, 6)):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            with socket.create_connection(("127.0.0.1", port), timeout=SILENCE) as client:
                client.sendall(damaged)
                client.settimeout(0.02)
                try:
                    client.recv(65536)
                except (TimeoutError, ConnectionError):
                    pass

    async with opened(engine) as port:
        await deferToThread(talk, port.number)
        await port.comes_to((0, 0, 400))
        assert port.built == []


PROGRAMS: dict[str, tuple[Callable[[int], list[str]], int | None]] = {
    "curl": (lambda port: ["curl", "-sS", "--max-time", "10", f"https://127.0.0.1:{port}/"], 35),
    "curl, trusting anybody": (
        lambda port: ["curl", "-sSk", "--http2", "--max-time", "10", f"https://127.0.0.1:{port}/"],
        35,
    ),
    "openssl": (lambda port: ["openssl", "s_client", "-brief", "-connect", f"127.0.0.1:{port}"], 1),
    "openssl, TLS 1.2": (lambda port: ["openssl", "s_client", "-brief", "-tls1_2", "-connect", f"127.0.0.1:{port}"], 1),
}


@pytest.mark.parametrize(("command", "code"), PROGRAMS.values(), ids=PROGRAMS.keys())
@pytest_twisted.ensureDeferred
async def test_programs_without_raw_keys(engine: IEngine, command: Callable[[int], list[str]], code: int) -> None:
    """The programs of the ordinary web are refused in the handshake, and say so themselves."""

    async def run(port: int) -> "subprocess.CompletedProcess[bytes]":
        result: subprocess.CompletedProcess[bytes] = await deferToThread(
            subprocess.run, command(port), capture_output=True, check=False, stdin=subprocess.DEVNULL, timeout=SILENCE
        )
        return result

    async with opened(engine) as port:
        result = await run(port.number)
        assert result.returncode == code, result
        assert b"alert" in result.stderr, result
        await port.comes_to((0, 0, 1))
        assert port.built == []


@pytest.mark.parametrize("damage", ["changed", "cut"])
@pytest_twisted.ensureDeferred
async def test_records_that_are_not_whole(engine: IEngine, damage: str) -> None:
    """A record that was changed ends the connection with an alert; one that was cut is never delivered."""
    heard: list[bytes] = []

    def talk(port: int) -> None:
        session = installed("gnutls").connect(HOST)
        with socket.create_connection(("127.0.0.1", port), timeout=SILENCE) as client:
            while not session.handshake():
                client.sendall(session.take())
                session.feed(client.recv(65536))
            session.send(b"some words")
            said = bytearray(session.take())
            if damage == "changed":
                said[-1] ^= 1
            else:
                del said[-1]
            client.sendall(said)
            client.shutdown(socket.SHUT_WR)
            try:
                while data := client.recv(65536):
                    heard.append(data)
            except ConnectionResetError:
                pass  # an end as well
        session.close()

    async with opened(engine) as port:
        await deferToThread(talk, port.number)
        await port.comes_to((0, 1, 0))
        assert [inside.received for inside in port.built] == [b""]
        assert bool(b"".join(heard)) is (damage == "changed"), "an alert"
