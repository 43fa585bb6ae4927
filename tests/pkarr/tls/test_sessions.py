"""Sessions over memory: what every engine does. One suite for all engines that this machine has."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pkarr.keys import Keypair
from pkarr.tls import gnutls
from pkarr.tls.hello import server_name
from pkarr.tls.session import IEngine, ISession, NoEngine, TlsFailed

KEY = Keypair(bytes(range(32)))
PLAIN = KEY.public_key.z32
NAMES = ["", PLAIN, f"_pubky.{PLAIN}", "a_b_c.example", "x" * 60 + ".example"]


@pytest.fixture(scope="module")
def engine() -> IEngine:
    """The engine of this machine."""
    return gnutls.load()


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


@settings(max_examples=400)
@given(st.data())
def test_a_damaged_hello(data: st.DataObject) -> None:
    """No damage to a hello makes a server do anything but wait, refuse, or go on as far as it is right."""
    engine = gnutls.load()
    client, server = engine.connect(data.draw(st.sampled_from(NAMES))), engine.accept(engine.server(bytes(range(32))))
    assert client.handshake() is False
    hello = bytearray(client.take())
    for _ in range(data.draw(st.integers(1, 4))):
        hello[data.draw(st.integers(0, len(hello) - 1))] = data.draw(st.integers(0, 255))
    server.feed(bytes(hello[: data.draw(st.integers(0, len(hello)))]))
    try:
        assert server.handshake() is False
    except TlsFailed:
        pass
    client.close()
    server.close()


@settings(max_examples=10_000)
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_as_a_hello(data: bytes, whole: bool) -> None:
    """The search for a name never fails, and never finds one beyond the bytes that there are."""
    head = b"\x03\x03" + bytes(32) + b"\x00\x00\x02\x13\x01\x01\x00" if whole else b""
    hello = head + data
    found = server_name(hello)
    assert found is None or (hello[found.start : found.end] == found.text.encode() and found.end <= len(hello))


def test_a_server_without_a_raw_key_is_told_apart(engine: IEngine) -> None:
    """A client is shown the key that the server has, not the one that it was meant for: it has to compare."""
    client = engine.connect(PLAIN)
    server = engine.accept(engine.server(bytes(32)))
    assert exchange(client, server) == (True, True)
    assert client.peer_key() == Keypair(bytes(32)).public_key.raw
    client.refuse()
    server.feed(client.take())
    with pytest.raises(TlsFailed):
        server.receive()
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
    assert resident() - before < 4 << 20


def test_no_library() -> None:
    """Where the library is not there, the sentence says what to install."""
    with pytest.raises(NoEngine, match="libgnutls30"):
        gnutls.load("libgnutls.so.none")
