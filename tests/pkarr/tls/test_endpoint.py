"""Endpoints over TLS by public key: a server of channels, an agent that finds it, and who must not get in."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from io import BytesIO
from itertools import product
from typing import Any

import pytest
import pytest_twisted
from attrs import define
from twisted.internet.defer import CancelledError
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ConnectError, ConnectionRefusedError
from twisted.internet.interfaces import IStreamClientEndpoint, IStreamServerEndpoint
from twisted.internet.task import Clock
from twisted.web.client import FileBodyProducer, HTTPConnectionPool, ResponseDone, ResponseNeverReceived
from twisted.web.error import SchemeNotSupported
from twisted.web.iweb import IAgent, IAgentEndpointFactory
from zope.interface.verify import verifyObject

from pkarr.tls.agent import MOST_PLACES, KeyEndpoints, Place, agent
from pkarr.tls.endpoint import MAX_SHAKING, TlsClientEndpoint, TlsFactory, TlsServerEndpoint, WrongKey
from pkarr.tls.session import IEngine
from pubky_homeserver.web.channel import HTTPFactory, Limits
from pubky_homeserver.web.request import Request

from .installed import NAMES, installed
from .over import KEY, LARGE, OTHER, Only, Peer, connect, listening, reactor, turns, until

PAIRS = pytest.mark.parametrize(("server", "client"), list(product(NAMES, NAMES)))
EACH = pytest.mark.parametrize("name", NAMES)
HOSTS = [KEY.public_key.z32, f"_pubky.{OTHER.public_key.z32}"]


async def answer(request: Request) -> None:
    """`/large` is large, a body comes back, everything else is a word."""
    if request.method == b"PUT":
        request.finish_with(await request.read(len(LARGE)))
    else:
        request.finish_with(LARGE if request.path == b"/large" else b"over tls")


@define
class Served:
    """A server of channels, and a client that finds it."""

    port: int
    tls: TlsFactory
    client: Any
    asked: list[str]

    async def ask(self, host: str, path: str = "/", method: bytes = b"GET", body: bytes | None = None) -> bytes:
        """The answer to a request."""
        producer: Any = None if body is None else FileBodyProducer(BytesIO(body), readSize=1 << 20)
        response: Any = await self.client.request(method, f"https://{host}{path}".encode(), None, producer)
        peer = Peer()
        response.deliverBody(peer)
        await until(lambda: peer.ended)
        assert peer.ended_by(ResponseDone)
        return bytes(peer.received)


@asynccontextmanager
async def served(
    server: IEngine, client: IEngine, places: Sequence[Place] = (), limits: Limits | None = None
) -> AsyncIterator[Served]:
    """Channels behind TLS, and an agent whose keys lead to `places` first, and then there."""
    asked: list[str] = []
    factory = HTTPFactory(answer, reactor, limits or Limits())

    async def resolve(host: str) -> list[Place]:
        asked.append(host)
        return [*places, Place(KEY.public_key, "127.0.0.1", here.port)]

    async with listening(factory, server) as here:
        pool = HTTPConnectionPool(reactor)
        yield Served(here.port, here.tls, agent(resolve, client, reactor, pool), asked)
        await pool.closeCachedConnections()
        await factory.drain(1)


def test_the_ports() -> None:
    """The endpoints and the agent are what they say they are."""
    engine = installed("gnutls")
    below: Any = TCP4ServerEndpoint(reactor, 0)
    verifyObject(IStreamServerEndpoint, TlsServerEndpoint(below, engine, KEY.seed, reactor))
    towards: Any = TCP4ClientEndpoint(reactor, "127.0.0.1", 1)
    verifyObject(IStreamClientEndpoint, TlsClientEndpoint(towards, KEY.public_key, "", engine, reactor))

    async def nowhere(_host: str) -> list[Place]:
        return []

    verifyObject(IAgentEndpointFactory, KeyEndpoints(nowhere, engine, reactor))
    verifyObject(IAgent, agent(nowhere, engine, reactor))


@pytest.mark.parametrize("host", HOSTS)
@PAIRS
@pytest_twisted.ensureDeferred
async def test_http(server: str, client: str, host: str) -> None:
    """An agent reaches a server by its key or a user's name that leads there, 10 MB a go, on one kept connection."""
    async with served(installed(server), installed(client)) as here:
        assert await here.ask(host) == b"over tls"
        assert await here.ask(host, "/large") == LARGE
        assert await here.ask(host, method=b"PUT", body=LARGE) == LARGE
        assert (here.tls.shaken, here.asked) == (1, [host])


@pytest_twisted.ensureDeferred
async def test_the_next_place() -> None:
    """Where nobody answers, or somebody else, the next place is tried; other keys are never sent anything."""
    engine = installed("gnutls")
    impostor = Peer()
    stranger = TlsFactory(Only(impostor), engine, OTHER.seed, reactor)
    port = reactor.listenTCP(0, stranger, interface="127.0.0.1")
    places = [Place(KEY.public_key, "127.0.0.1", 1), Place(KEY.public_key, "127.0.0.1", port.getHost().port)]
    async with served(engine, engine, places) as here:
        assert await here.ask(HOSTS[0]) == b"over tls"
        assert stranger.shaken == 1, "it saw the end of a handshake, and then an alert"
        assert not impostor.received
    await port.stopListening()


@EACH
@pytest_twisted.ensureDeferred
async def test_a_wrong_key(name: str) -> None:
    """Somebody without the key is not talked to: the client's protocol is never built, the server's sees the end."""
    inside, asked = Peer(), Peer()
    async with listening(Only(inside), installed(name)) as here:
        with pytest.raises(WrongKey):
            await connect(installed(name), here.port, asked, OTHER.public_key)
        assert asked.transport is None
        await until(lambda: inside.ended)
        assert inside.received == b""


@pytest.mark.parametrize(
    ("places", "error"),
    [
        ([], ConnectError),
        ([Place(KEY.public_key, "127.0.0.1", 1)], ConnectionRefusedError),
        ([Place(KEY.public_key, "127.0.0.1", 1)] * MOST_PLACES + [Place(KEY.public_key, "127.0.0.1", 6)], None),
    ],
)
@pytest_twisted.ensureDeferred
async def test_nobody_is_there(places: list[Place], error: type[Exception] | None) -> None:
    """Where no place answers the request fails as the last try did; a record cannot make a client try for ever."""
    tried: list[int] = []

    class Watching:
        """A reactor that notes where it is asked to connect to."""

        def __getattr__(self, name: str) -> Any:
            return getattr(reactor, name)

        def connectTCP(self, host: str, port: int, *rest: Any, **named: Any) -> Any:
            tried.append(port)
            return reactor.connectTCP(host, port, *rest, **named)

    async def resolve(_host: str) -> list[Place]:
        return places

    client = agent(resolve, installed("gnutls"), Watching())
    with pytest.raises(error or ConnectionRefusedError):
        await client.request(b"GET", f"https://{HOSTS[0]}/".encode())
    assert tried == [place.port for place in places[:MOST_PLACES]]


@pytest_twisted.ensureDeferred
async def test_who_looks_up_fails() -> None:
    """A look-up that fails is the failure of the request. Plain HTTP to a key is not asked for at all."""

    async def resolve(_host: str) -> list[Place]:
        raise LookupError("no record")

    client = agent(resolve, installed("gnutls"), reactor)
    with pytest.raises(LookupError):
        await client.request(b"GET", f"https://{HOSTS[0]}/".encode())
    with pytest.raises(SchemeNotSupported):
        await client.request(b"GET", f"http://{HOSTS[0]}/".encode())


@pytest_twisted.ensureDeferred
async def test_cancelled() -> None:
    """A connection that nobody waits for any more is cut in its handshake; no other place is tried."""
    silent = Peer()
    port = reactor.listenTCP(0, Only(silent), interface="127.0.0.1")
    there = Place(KEY.public_key, "127.0.0.1", port.getHost().port)
    tries: list[str] = []

    async def resolve(host: str) -> list[Place]:
        tries.append(host)
        return [there, there]

    client = agent(resolve, installed("gnutls"), reactor)
    asking: Any = client.request(b"GET", f"https://{HOSTS[0]}/".encode())
    await until(lambda: silent.received)
    asking.cancel()
    with pytest.raises((CancelledError, ResponseNeverReceived)):
        await asking
    await until(lambda: silent.ended)
    await turns(0.02)
    assert tries == HOSTS[:1]
    await port.stopListening()


@EACH
@pytest_twisted.ensureDeferred
async def test_nobody_is_inside(name: str) -> None:
    """Where the factory inside wants no connection it is closed, well, after the handshake."""
    async with served(installed(name), installed(name), limits=Limits(connections=0)) as here:
        client = Peer()
        await connect(installed(name), here.port, client)
        await until(lambda: client.ended)
        await until(lambda: here.tls.shaking == 0)
        assert (here.tls.shaken, here.tls.failed) == (0, 1)


@pytest_twisted.ensureDeferred
async def test_too_many_handshakes() -> None:
    """However many say nothing, the newest gets its turn; the oldest gives way to it."""
    engine, inside, silent = installed("gnutls"), Peer(), [Peer() for _ in range(MAX_SHAKING + 20)]
    async with listening(Only(inside), engine, Clock()) as here:
        for peer in silent:
            below: Any = TCP4ClientEndpoint(reactor, "127.0.0.1", here.port)
            await below.connect(Only(peer))
        await until(lambda: here.tls.failed == 20)
        assert here.tls.shaking == MAX_SHAKING
        await until(lambda: sum(peer.ended is not None for peer in silent) == 20)
        assert all(peer.ended for peer in silent[:20])
        await connect(engine, here.port, Peer())
        await until(lambda: inside.above)
        assert (here.tls.shaking, here.tls.failed, here.tls.shaken) == (MAX_SHAKING - 1, 21, 1)
        inside.above.abortConnection()
    await until(lambda: all(peer.ended for peer in silent))  # nobody in a handshake is waited for


@EACH
@pytest_twisted.ensureDeferred
async def test_listening_by_an_endpoint(name: str) -> None:
    """A server's endpoint listens where the one below it does."""
    inside, client = Peer(), Peer()
    below: Any = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    port: Any = await TlsServerEndpoint(below, installed(name), KEY.seed, reactor).listen(Only(inside))
    await connect(installed(name), port.getHost().port, client)
    client.above.write(b"hello")
    await until(lambda: inside.received == b"hello")
    client.above.loseConnection()
    await until(lambda: inside.ended and client.ended)
    await port.stopListening()


def test_the_seed_is_not_shown() -> None:
    """Neither a factory nor an endpoint shows the secret."""
    engine = installed("gnutls")
    below: Any = TCP4ServerEndpoint(reactor, 0)
    for one in (
        TlsServerEndpoint(below, engine, KEY.seed, reactor),
        TlsFactory(Only(Peer()), engine, KEY.seed, reactor),
    ):
        assert KEY.seed.hex() not in repr(one)
        assert repr(KEY.seed) not in repr(one)
