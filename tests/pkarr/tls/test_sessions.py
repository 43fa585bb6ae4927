"""Sessions over memory: what every engine does. One suite for all engines that this machine has."""

import os

import pytest

from pkarr.keys import Keypair
from pkarr.tls.session import IEngine, ISession, TlsFailed

from .installed import NAMES as ENGINES
from .installed import installed

KEY = Keypair(bytes(range(32)))
PLAIN = KEY.public_key.z32
GROWTH = 2 << 20  # bytes, of nine thousand connections: a leak of 250 bytes each would show
NAMES = ["", PLAIN, f"_pubky.{PLAIN}", "a_b_c.example", "x" * 60 + ".example"]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> IEngine:
    """Each engine."""
    return installed(request.param)


def exchange(client: ISession, server: ISession, pieces: int = 1 << 20) -> tuple[bool, bool]:
    """Let both talk, some bytes at a time, until neither has anything to say; whether each is done."""
    done = [False, False]
    while True:
        said = 0
        for index, (one, other) in enumerate(((client, server), (server, client))):
            done[index] = one.handshake()
            data = one.take()
            said += len(data)
            for start in range(0, len(data), pieces):
                other.feed(data[start : start + pieces])
                other.handshake()
        if not said:
            return done[0], done[1]


def pair(engine: IEngine, host: str = "", pieces: int = 1 << 20) -> tuple[ISession, ISession]:
    """Two sessions whose handshake is done."""
    client, server = engine.connect(host), engine.accept(engine.server(bytes(range(32))))
    assert exchange(client, server, pieces) == (True, True)
    return client, server


def all_of(session: ISession) -> bytes:
    """Everything that can be decrypted."""
    whole = b""
    while data := session.receive():
        whole += data
    return whole


@pytest.mark.parametrize("pieces", [1 << 20, 100, 1])
@pytest.mark.parametrize("host", NAMES)
def test_a_handshake(engine: IEngine, host: str, pieces: int) -> None:
    """By any name, underscores too, however the bytes are cut, the server shows its one key, and hears the name."""
    client, server = pair(engine, host, pieces)
    assert client.peer_key() == KEY.public_key.raw
    assert server.name == (host or None)
    client.close()
    server.close()


@pytest.mark.parametrize("length", [1, 16_384, 16_385, 1_000_000])
def test_data(engine: IEngine, length: int) -> None:
    """What is sent arrives, in both directions; then each says goodbye, and the other hears it."""
    client, server = pair(engine)
    for one, other in ((client, server), (server, client)):
        body = os.urandom(length)
        one.send(body)
        assert other.receive() is None
        other.feed(one.take())
        assert all_of(other) == body
        assert other.receive() is None
    client.bye()
    server.feed(client.take())
    assert server.receive() == b""
    client.close()
    server.close()


def test_a_record_that_was_changed(engine: IEngine) -> None:
    """One changed bit ends the session, and the peer is told."""
    client, server = pair(engine)
    client.send(b"hello")
    record = bytearray(client.take())
    record[-1] ^= 1
    server.feed(bytes(record))
    with pytest.raises(TlsFailed):
        server.receive()
    client.feed(server.take())
    with pytest.raises(TlsFailed):
        client.receive()
    client.close()
    server.close()


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\xff\xff" + bytes(100),
        b"\x80\x2e\x01\x00\x02" + bytes(100),
        b"\x16\x03\x01\x00\x00" * 10,
        b"\x15\x03\x01\x00\x02\x02\x28",
    ],
)
def test_what_is_no_hello(engine: IEngine, data: bytes) -> None:
    """Other bytes end the handshake, or wait for more; nothing breaks."""
    server = engine.accept(engine.server(bytes(range(32))))
    server.feed(data)
    try:
        assert server.handshake() is False
    except TlsFailed:
        pass
    server.close()


def test_another_server(engine: IEngine) -> None:
    """A client is shown the key that the server has, not the one that it was meant for: it has to compare.

    Then it tells the server, by an alert or a goodbye.
    """
    client = engine.connect(PLAIN)
    server = engine.accept(engine.server(bytes(32)))
    assert exchange(client, server) == (True, True)
    assert client.peer_key() == Keypair(bytes(32)).public_key.raw
    client.refuse()
    server.feed(client.take())
    try:
        assert server.receive() == b""
    except TlsFailed:
        assert engine.name.startswith("GnuTLS")
    client.close()
    server.close()


def test_many_handshakes_leave_nothing(engine: IEngine) -> None:
    """Ten thousand connections later the process is as large as after the first thousand."""
    shared = engine.server(bytes(range(32)))

    def some(count: int) -> None:
        for _ in range(count):
            client, server = engine.connect(f"_pubky.{PLAIN}"), engine.accept(shared)
            client.handshake()
            server.feed(client.take())
            server.handshake()
            client.feed(server.take())
            client.handshake()
            client.close()
            server.close()

    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    some(1000)
    before = resident()
    some(9000)
    assert resident() - before < GROWTH
