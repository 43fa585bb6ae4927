"""`store/connection.py`: a connection that is always there or says that it is not. Against real servers."""

import signal
import socket
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import txredisapi
from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater

from pubky_homeserver.core.errors import CannotStart, StorageFull, StoreAway
from pubky_homeserver.store.address import RedisAddress
from pubky_homeserver.store.connection import Commands, Connection, Subscription, refusal_of
from pubky_homeserver.store.scripts import load_scripts
from tests.store.conftest import StartServer
from tests.store.server import RedisServer

reactor: Any = _reactor
PATIENCE = 20.0  # seconds after which a test that waits has failed


async def until(holds: Callable[[], object]) -> None:
    """Let the reactor turn until this holds."""
    deadline = reactor.seconds() + PATIENCE
    while not holds():
        assert reactor.seconds() < deadline, "it never came true"
        await deferLater(reactor, 0.001)


async def take_all(_: Commands) -> None:
    """Every connection is good."""


def is_away(connection: Connection) -> bool:
    """Whether calls fail at once."""
    try:
        return connection.commands is None
    except StoreAway:
        return True


Connect = Callable[..., Any]


@pytest_twisted.async_yield_fixture
async def connect() -> AsyncIterator[Connect]:
    """Opens a connection, which is closed at the end."""
    connections: list[Connection] = []

    async def start(address: RedisAddress, prepare: Any = take_all, stall: float = 5.0) -> Connection:
        connection = Connection(address, reactor, load_scripts(), prepare, stall)
        connections.append(connection)
        await connection.start(10)
        return connection

    yield start
    for connection in connections:
        await connection.stop()


@pytest_twisted.ensureDeferred
async def test_calls_share_a_round_trip(server: RedisServer, connect: Connect) -> None:
    """Calls of one moment are answered each with its own answer, in their order."""
    redis = (await connect(server.address)).commands
    calls = [Deferred.fromCoroutine(redis.call("INCR", "n")) for _ in range(100)]
    assert await gatherResults(calls) == list(range(1, 101))
    assert await redis.pipeline([("GET", "n"), ("GET", "none"), ("LRANGE", "l", 0, -1)]) == [b"100", None, []]
    assert await redis.pipeline([]) == []


@pytest_twisted.ensureDeferred
async def test_an_error_is_the_error_of_its_call(server: RedisServer, connect: Connect) -> None:
    """A call that Redis refuses fails; those around it do not."""
    redis = (await connect(server.address)).commands
    await redis.call("SET", "text", "x")
    before, wrong, after = (
        Deferred.fromCoroutine(redis.call(*words)) for words in (("GET", "text"), ("INCR", "text"), ("GET", "text"))
    )
    assert await before == await after == b"x"
    with pytest.raises(txredisapi.ResponseError, match="not an integer"):
        await wrong
    with pytest.raises(txredisapi.ResponseError, match="not an integer"):
        await redis.pipeline([("GET", "text"), ("INCR", "text"), ("GET", "text")])
    assert await redis.call("GET", "text") == b"x"


@pytest_twisted.ensureDeferred
async def test_who_does_not_wait_any_more(server: RedisServer, connect: Connect) -> None:
    """A call that was cancelled may still happen, and its answer is nobody else's."""
    redis = (await connect(server.address)).commands
    first, second = (Deferred.fromCoroutine(redis.call("INCR", "n")) for _ in range(2))
    first.cancel()
    with pytest.raises(CancelledError):
        await first
    assert await second == 2
    assert await redis.call("INCR", "n") == 3


@pytest_twisted.ensureDeferred
async def test_scripts_are_given_again(server: RedisServer, connect: Connect) -> None:
    """A Redis that has forgotten the scripts is given the one that is needed."""
    redis = (await connect(server.address)).commands
    server.ask("SCRIPT", "FLUSH")
    assert await redis.run("open", ("schema",), (7,)) == b"7"
    assert await redis.run("open", ("schema",), (8,)) == b"7"
    await redis.call("LPUSH", "list", "x")
    with pytest.raises(txredisapi.ResponseError, match="WRONGTYPE"):
        await redis.run("open", ("list",), (8,))


@pytest_twisted.ensureDeferred
async def test_a_killed_redis(server: RedisServer, connect: Connect) -> None:
    """Calls that wait fail, later ones fail at once, and when Redis is back all goes on with what was written."""
    connection = await connect(server.address)
    await connection.commands.call("SET", "text", "x")
    redis = connection.commands
    server.signal(signal.SIGSTOP)
    waiting = [Deferred.fromCoroutine(redis.call("GET", "text")) for _ in range(3)]
    server.kill()
    for one in waiting:
        with pytest.raises(StoreAway):
            await one
    for call in (redis.call("GET", "text"), redis.pipeline([("GET", "text")]), redis.run("open", ("a",), ("1",))):
        with pytest.raises(StoreAway):
            await call
    with pytest.raises(StoreAway):
        _ = connection.commands

    server.start()
    await until(lambda: not is_away(connection))
    assert await connection.commands.call("GET", "text") == b"x"
    with pytest.raises(StoreAway):
        await redis.call("GET", "text")


@pytest_twisted.ensureDeferred
async def test_a_redis_that_does_not_answer(server: RedisServer, connect: Connect) -> None:
    """No call waits longer than two looks; when Redis answers again all goes on."""
    connection = await connect(server.address, stall=0.05)
    server.signal(signal.SIGSTOP)
    with pytest.raises(StoreAway):
        await connection.commands.call("GET", "text")
    assert is_away(connection)
    server.signal(signal.SIGCONT)
    await until(lambda: not is_away(connection))
    assert await connection.commands.call("GET", "text") is None


@pytest_twisted.ensureDeferred
async def test_a_dead_connection_is_found_out(server: RedisServer, connect: Connect) -> None:
    """Also when nobody asks anything, a Redis that does not answer is found out."""
    connection = await connect(server.address, stall=0.02)
    server.signal(signal.SIGSTOP)
    await until(lambda: is_away(connection))
    server.signal(signal.SIGCONT)
    await until(lambda: not is_away(connection))


@pytest_twisted.ensureDeferred
async def test_a_slow_answer_is_no_dead_connection(server: RedisServer, connect: Connect) -> None:
    """While answers come, each of them may take its time, and an idle connection stays."""
    connection = await connect(server.address, stall=0.02)
    redis = connection.commands
    for _ in range(20):
        await redis.call("PING")
        await deferLater(reactor, 0.01)
    assert connection.commands is redis


@pytest_twisted.ensureDeferred
async def test_nobody_there(tmp_path: Path, connect: Connect) -> None:
    """A start without Redis ends after the given time and names the address and the reason."""
    connection = Connection(RedisAddress(path=str(tmp_path / "none")), reactor, {}, take_all)
    with pytest.raises(CannotStart, match=r"unix://.*/none cannot be reached within 0.1 s: .*[Nn]o such file"):
        await connection.start(0.1)
    assert is_away(connection)


@pytest_twisted.ensureDeferred
async def test_a_start_waits_for_redis(server: RedisServer, connect: Connect) -> None:
    """A Redis that begins to answer while the start waits is taken."""
    server.kill()
    reactor.callLater(0.1, server.start)
    assert await (await connect(server.address)).commands.call("PING") == b"PONG"


@pytest_twisted.ensureDeferred
async def test_a_refused_start_leaves_nothing(server: RedisServer, connect: Connect) -> None:
    """If the owner refuses the connection, the start fails with the reason and no connection is left."""

    async def refuse(_: Commands) -> None:
        raise CannotStart("not this one")

    with pytest.raises(CannotStart, match="not this one"):
        await connect(server.address, refuse)
    await until(lambda: server.ask("INFO", "clients").count(b"connected_clients:1\r\n"))


@pytest_twisted.ensureDeferred
async def test_a_refused_reconnection_is_tried_again(server: RedisServer, connect: Connect) -> None:
    """What the owner refuses later is away until it is to his liking; each refused connection is closed."""
    seen: list[bytes | None] = []

    async def want_text(redis: Commands) -> None:
        seen.append(await redis.call("GET", "text"))
        if seen[-1] != b"good" and len(seen) > 1:
            raise CannotStart("not this one")

    connection = await connect(server.address, want_text)
    server.kill()
    server.start()
    await until(lambda: len(seen) >= 3)
    assert is_away(connection)
    server.ask("SET", "text", "good")
    await until(lambda: not is_away(connection))
    await until(lambda: server.ask("INFO", "clients").count(b"connected_clients:2\r\n"))


@pytest.mark.parametrize("user", [None, "me"])
@pytest_twisted.ensureDeferred
async def test_passwords(start_server: StartServer, connect: Connect, user: str | None) -> None:
    """With the right name and password we are let in; else the sentence names the address, not the password."""
    acl = ("--user", "me", "on", ">secret", "~*", "&*", "+@all") if user else ()
    server = start_server("--requirepass", "secret", *acl)
    good = evolve(server.address, username=user, password="secret")
    await (await connect(good)).commands.call("SET", "text", "x")
    for bad in (server.address, evolve(good, password="wrong-one"), evolve(good, username="you")):
        with pytest.raises(CannotStart, match=r"does not let us in: (NOAUTH|WRONGPASS)") as caught:
            await connect(bad)
        assert "wrong-one" not in str(caught.value)


@pytest_twisted.ensureDeferred
async def test_databases(server: RedisServer, connect: Connect) -> None:
    """The database of the address is the one that is used; one that does not exist is said at the start."""
    await (await connect(evolve(server.address, database=3))).commands.call("SET", "text", "x")
    assert server.ask("GET", "text") is None
    assert await (await connect(evolve(server.address, database=3))).commands.call("GET", "text") == b"x"
    with pytest.raises(CannotStart, match=r"does not let us in: .*DB index"):
        await connect(evolve(server.address, database=99))


def free_port() -> str:
    """A port of loopback that nobody had a moment ago."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


@pytest_twisted.ensureDeferred
async def test_over_tcp(start_server: StartServer, connect: Connect) -> None:
    """A Redis is reached by host and port as well."""
    port = free_port()
    start_server("--port", port, "--bind", "127.0.0.1")
    connection = await connect(RedisAddress("localhost", int(port)))
    assert await connection.commands.call("INCR", "n") == 1


@pytest_twisted.ensureDeferred
async def test_over_tls(
    start_server: StartServer, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With TLS the certificate must be one that this machine trusts, and for this host."""
    port, certificate = free_port(), make_certificate(tmp_path)
    server = start_server(
        *("--tls-port", port, "--bind", "127.0.0.1", "--tls-auth-clients", "no"),
        *("--tls-cert-file", certificate, "--tls-key-file", certificate),
    )
    address = RedisAddress("localhost", int(port), tls=True)
    await until(lambda: server.has_ended() or Path(server.socket).exists())
    if server.has_ended():
        pytest.skip("this redis-server was built without TLS")
    untrusted = Connection(address, reactor, {}, take_all)
    with pytest.raises(
        CannotStart, match=r"cannot be reached within 0\.5 s: .*(certificate verify failed|IPAddressMismatch)"
    ):
        await untrusted.start(0.5)
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    connection = await connect(address)
    assert await connection.commands.call("INCR", "n") == 1
    other_host = Connection(evolve(address, host="127.0.0.1"), reactor, {}, take_all)
    with pytest.raises(
        CannotStart, match=r"cannot be reached within 0\.5 s: .*(certificate verify failed|IPAddressMismatch)"
    ):
        await other_host.start(0.5)


def make_certificate(folder: Path) -> str:
    """A file with a key and a certificate of its own for localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    return str(file)


MIDDLE = "Error running script (call to f_0123): @user_script:77: @user_script: 77: -"


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", StorageFull),
        (f"{MIDDLE}OOM command not allowed when used memory > 'maxmemory'.", StorageFull),
        ("OOM command not allowed script: 0123, on @user_script:77.", StorageFull),
        ("LOADING Redis is loading the dataset in memory", StoreAway),
        ("MISCONF Redis is configured to save RDB snapshots, but", StoreAway),
        (f"{MIDDLE}MISCONF Errors writing to the AOF file: No space left on device", StoreAway),
        ("READONLY You can't write against a read only replica.", StoreAway),
        (f"{MIDDLE}READONLY You can't write against a read only replica.", StoreAway),
        ("MASTERDOWN Link with MASTER is down", StoreAway),
        ("NOREPLICAS Not enough good replicas to write.", StoreAway),
        ("BUSY Redis is busy running a script.", StoreAway),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", txredisapi.ResponseError),
        ("ERR wrong number of arguments for 'get' command", txredisapi.ResponseError),
        ("ERR the key ROOM is busy", txredisapi.ResponseError),
        ("NOSCRIPT No matching script. Please use EVAL.", txredisapi.ResponseError),
    ],
)
def test_what_errors_mean(text: str, meaning: type[Exception]) -> None:
    """What passes by itself is `StoreAway`, full memory is `StorageFull`, the rest a mistake of ours."""
    assert type(refusal_of(txredisapi.ResponseError(text))) is meaning


@pytest_twisted.ensureDeferred
async def test_a_replica_takes_no_writes(server: RedisServer, connect: Connect) -> None:
    """A server that became a replica is away for writes."""
    connection = await connect(server.address)
    server.ask("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(StoreAway):
        await connection.commands.call("SET", "text", "x")
    with pytest.raises(StoreAway):
        await connection.commands.run("open", ("schema",), (1,))


@pytest_twisted.ensureDeferred
async def test_stopped_at_any_moment(server: RedisServer) -> None:
    """A link that is stopped while it connects, prepares or waits for the next attempt ends at once and whole."""
    await until(server.answers)
    for turns in range(12):
        subscription = Subscription(server.address, reactor, "channel", lambda: None, {}, lambda: None, lambda: None)
        subscription.start()
        for _ in range(turns):
            await deferLater(reactor, 0)
        before = reactor.seconds()
        await subscription.stop()
        assert reactor.seconds() - before < 0.5
    await until(lambda: server.ask("INFO", "clients").count(b"connected_clients:1\r\n"))


@pytest_twisted.ensureDeferred
async def test_messages(server: RedisServer) -> None:
    """A message wakes; many of one moment wake once; after a lost connection there is one wake-up without a message."""
    wakes: list[float] = []
    told: list[str | None] = []
    subscription = Subscription(
        *(server.address, reactor, "channel", lambda: wakes.append(reactor.seconds())),
        {"other": told.append},
        began=lambda: told.append("began"),
        ended=lambda: told.append("ended"),
    )

    def reached(number: int) -> bool:
        return len(wakes) == number

    subscription.start()
    try:
        await until(lambda: len(wakes) == 1)  # listening begins with one, for what came before
        assert subscription.is_listening
        server.ask("PUBLISH", "another", "x")
        server.ask("PUBLISH", "other", "x")
        await until(lambda: told == ["began", "x"])
        for _ in range(3):
            more = len(wakes) + 1
            server.ask("PUBLISH", "channel", "")
            await until(partial(reached, more))
        server.ask("EVAL", "for _ = 1, 1000 do redis.call('PUBLISH', 'channel', '') end", 0)
        await until(lambda: len(wakes) > 4)
        await deferLater(reactor, 0)
        assert len(wakes) < 100
        before = len(wakes)
        server.kill()
        server.start()
        await until(lambda: len(wakes) > before)
        assert told == ["began", "x", "ended", "began"]
    finally:
        await subscription.stop()
    before = len(wakes)
    await until(lambda: server.ask("PUBLISH", "channel", "") == 0)
    await deferLater(reactor, 0)
    assert len(wakes) == before
