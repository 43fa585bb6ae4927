"""The relay client, against real HTTP servers on loopback that play what an official relay was recorded to say."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_twisted
from attrs import Factory, define, field
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.client import Agent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from zope.interface import implementer
from zope.interface.verify import verifyObject

from pkarr.interfaces import (
    Conflict,
    INetwork,
    NetworkError,
    NotMostRecent,
    PacketRefused,
    Policy,
    Unavailable,
    UnexpectedAnswer,
    UnreadableItem,
)
from pkarr.keys import Keypair, PublicKey
from pkarr.packet import MAX_PACKET, SignedPacket
from pkarr.records import txt
from pkarr.relay import Relay

from .vectors import load

TRANSCRIPTS = {transcript["name"]: transcript for transcript in load("pkarr_relay_transcripts")["transcripts"]}
KEYPAIR = Keypair(b"\x07" * 32)
KEY = KEYPAIR.public_key
PACKET = SignedPacket.sign(KEYPAIR, [txt("x", "hello")], 1_764_000_000_123_456)
reactor: Any = global_reactor  # a module in the eyes of the type checker


@define
class Answer:
    """What the server says to one request."""

    status: int
    headers: list[tuple[str, str]] = Factory(list)
    body: bytes = b""


@define
class Stage(Resource):
    """A server that plays answers in their order and notes what was asked."""

    answers: list[Answer]
    asked: list[tuple[str, str, dict[str, str], bytes]] = Factory(list)
    children: dict[bytes, Resource] = Factory(dict)
    isLeaf = True

    def render(self, request: Request) -> int:
        """Note the request, give the next answer."""
        names = {
            name.decode().lower(): values[-1].decode() for name, values in request.requestHeaders.getAllRawHeaders()
        }
        body = request.content.read() if request.content else b""
        self.asked.append((request.method.decode(), request.uri.decode(), names, body))
        answer = self.answers.pop(0)
        request.setResponseCode(answer.status)
        for name, value in answer.headers:
            request.responseHeaders.addRawHeader(name.encode(), value.encode())
        request.write(answer.body)
        request.finish()
        return NOT_DONE_YET


Listen = Callable[[Any], str]


@pytest_twisted.async_yield_fixture
async def listen() -> AsyncIterator[Listen]:
    """Starts a server on a free port of loopback; returns its URL."""
    ports = []

    def start(factory: Any) -> str:
        factory.noisy = False
        ports.append(reactor.listenTCP(0, factory, interface="127.0.0.1"))
        return f"http://127.0.0.1:{ports[-1].getHost().port}"

    yield start
    for port in ports:
        await port.stopListening()


def relay_at(url: str, clock: IReactorTime | None = None) -> Relay:
    """A client with a real HTTP agent."""
    return Relay(url, Agent(reactor), clock or reactor)


def play(listen: Listen, *answers: Answer) -> tuple[Relay, Stage]:
    """A relay client and the server behind it."""
    stage = Stage(list(answers))
    return relay_at(listen(Site(stage))), stage


def recorded(name: str) -> Answer:
    """What the official relay said."""
    response = TRANSCRIPTS[name]["response"]
    body = bytes.fromhex(response["body_hex"]) if response["body_hex"] else (response["body_text"] or "").encode()
    return Answer(response["status"], [tuple(header) for header in response["headers"]], body)


def found(packet: SignedPacket) -> Answer:
    """A good answer to a GET."""
    return Answer(200, [("content-length", str(len(packet.relay_payload)))], packet.relay_payload)


def packet_put(name: str) -> SignedPacket:
    """What the official relay was given."""
    request = TRANSCRIPTS[name]["request"]
    return SignedPacket.from_relay_payload(PublicKey.parse(request["path"][1:]), bytes.fromhex(request["body_hex"]))


def test_a_relay_is_a_network() -> None:
    """The client has all that the port asks for."""
    verifyObject(INetwork, relay_at("http://localhost"))


@pytest.mark.parametrize("name", ["put", "put again same", "put newer", "put future year", "empty packet put"])
@pytest_twisted.ensureDeferred
async def test_recorded_publishing(listen: Listen, name: str) -> None:
    """A PUT carries the payload to the key's path exactly as recorded, and a 204 says how many nodes stored it."""
    relay, stage = play(listen, recorded(name))
    assert await relay.publish(packet_put(name)) == 6
    [(method, path, headers, body)] = stage.asked
    request = TRANSCRIPTS[name]["request"]
    assert (method, path, body.hex()) == (request["method"], request["path"], request["body_hex"])
    assert headers["content-length"] == str(len(body))


REFUSALS: list[tuple[str, type[NetworkError], str]] = [
    ("put older", NotMostRecent, "409 packet is not the most recent"),
    ("put same ts smaller value", NotMostRecent, "409 packet is not the most recent"),
    ("put bad sig", PacketRefused, "400 signature error"),
    ("put non dns", PacketRefused, "400 Provided header information is invalid"),
    ("put bad key", PacketRefused, "400 Invalid URL: Invalid PublicKey length, expected 32 bytes but got: 1"),
    ("put 1105", PacketRefused, "413 Failed to buffer the request body: length limit exceeded"),
    ("post", UnexpectedAnswer, "405"),
]


@pytest.mark.parametrize(("name", "error", "text"), REFUSALS, ids=[name for name, _, _ in REFUSALS])
@pytest_twisted.ensureDeferred
async def test_recorded_refusals(listen: Listen, name: str, error: type[NetworkError], text: str) -> None:
    """Each refusal is its own kind of error and quotes the relay."""
    relay, _ = play(listen, recorded(name))
    with pytest.raises(error) as caught:
        await relay.publish(PACKET)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("status", "error"),
    [
        *[(428, NotMostRecent), (412, Conflict), (429, Unavailable), (503, Unavailable)],
        *[(500, UnexpectedAnswer), (301, UnexpectedAnswer)],
    ],
)
@pytest_twisted.ensureDeferred
async def test_other_refusals(listen: Listen, status: int, error: type[NetworkError]) -> None:
    """Busy relays may be asked again, an older protocol's 428 is a newer packet; redirects are not followed."""
    answer = Answer(status, [("location", "/elsewhere")], b"x" * 5000)
    relay, stage = play(listen, answer, answer)
    for asking in (relay.publish(PACKET), relay.resolve(KEY)):
        with pytest.raises(error) as caught:
            await asking
        assert str(caught.value) == f"{status} {'x' * 200}"
    assert len(stage.asked) == 2


@pytest_twisted.ensureDeferred
async def test_what_a_packet_replaces(listen: Listen) -> None:
    """The timestamp of the packet that is replaced goes along for relays that compare; without one nothing does."""
    relay, stage = play(listen, Answer(204), Answer(204))
    assert await relay.publish(PACKET, replaces=1_764_000_000_123_455) == 1
    assert await relay.publish(PACKET) == 1
    assert [headers.get("if-match") for _, _, headers, _ in stage.asked] == ["1764000000123455", None]


@pytest_twisted.ensureDeferred
async def test_the_number_of_nodes(listen: Listen) -> None:
    """A relay that does not say how many nodes stored a packet counts as one; one that says nonsense is an error."""
    relay, _ = play(listen, Answer(204), Answer(204, [("pkarr-dht-stored-nodes", "many")]))
    assert await relay.publish(PACKET) == 1
    with pytest.raises(UnexpectedAnswer, match="pkarr-dht-stored-nodes"):
        await relay.publish(PACKET)


@pytest.mark.parametrize("name", ["get", "get CacheOnly", "get NetworkOnly", "get future", "empty packet get"])
@pytest_twisted.ensureDeferred
async def test_recorded_finds(listen: Listen, name: str) -> None:
    """A recorded answer is the packet with the recorded bytes."""
    relay, stage = play(listen, recorded(name))
    path = TRANSCRIPTS[name]["request"]["path"].partition("?")[0]
    packet = await relay.resolve(PublicKey.from_z32(path[1:]))
    assert packet is not None
    assert packet.relay_payload.hex() == TRANSCRIPTS[name]["response"]["body_hex"]
    [(method, uri, _, _)] = stage.asked
    assert (method, uri) == ("GET", f"{path}?policy=CacheFirst")


@pytest.mark.parametrize("name", ["get unknown", "get unknown cacheonly", "deep path"])
@pytest_twisted.ensureDeferred
async def test_recorded_misses(listen: Listen, name: str) -> None:
    """A 404 is no error: nobody knows the key."""
    relay, _ = play(listen, recorded(name))
    assert await relay.resolve(KEY) is None


@pytest.mark.parametrize("name", ["get cacheonly", "get bad key", "get key prefixed"])
@pytest_twisted.ensureDeferred
async def test_recorded_bad_requests(listen: Listen, name: str) -> None:
    """What the relay says it does not understand is an error."""
    relay, _ = play(listen, recorded(name))
    with pytest.raises(PacketRefused):
        await relay.resolve(KEY)


@pytest.mark.parametrize("policy", Policy)
@pytest_twisted.ensureDeferred
async def test_policies(listen: Listen, policy: Policy) -> None:
    """The policy stands in the query; asking for the network alone also tells caches on the way to stay out of it."""
    relay, stage = play(listen, found(PACKET))
    assert await relay.resolve(KEY, policy) == PACKET
    [(_, uri, headers, _)] = stage.asked
    assert uri == f"/{KEY.z32}?policy={policy.value}"
    bypass = "no-cache, no-store, must-revalidate" if policy is Policy.NETWORK_ONLY else None
    assert headers.get("cache-control") == bypass


@pytest.mark.parametrize(
    "stale", [recorded("ims +1s"), Answer(200, [("content-length", "0")]), Answer(200, [], b"x"), Answer(204)]
)
@pytest_twisted.ensureDeferred
async def test_a_stale_cache_is_asked_past(listen: Listen, stale: Answer) -> None:
    """A 304 that nobody asked for, or a success without announced body, is asked for once more, past all caches."""
    relay, stage = play(listen, stale, found(PACKET))
    assert await relay.resolve(KEY) == PACKET
    assert [headers.get("cache-control") for _, _, headers, _ in stage.asked] == [
        None,
        "no-cache, no-store, must-revalidate",
    ]


@pytest_twisted.ensureDeferred
async def test_a_stubborn_cache_is_asked_twice_only(listen: Listen) -> None:
    """A second 304 means not found; a second success counts as what it is, with or without announced length."""
    stale = recorded("ims +1s")
    relay, stage = play(
        listen, stale, stale, Answer(200), Answer(200, [], PACKET.relay_payload), Answer(204), Answer(204)
    )
    assert await relay.resolve(KEY) is None
    assert await relay.resolve(KEY) == PACKET
    with pytest.raises(UnexpectedAnswer, match="invalid packet: Invalid SignedPacket bytes length"):
        await relay.resolve(KEY)
    assert len(stage.asked) == 6


@pytest_twisted.ensureDeferred
async def test_an_item_that_is_no_packet(listen: Listen) -> None:
    """When the newest thing in the DHT is no packet, that is said with its number, not passed off as not found."""
    relay, _ = play(
        listen,
        Answer(
            404, [("pkarr-invalid-signed-packet-seq", "17")], b"DHT mutable item at seq 17 is not a valid signed packet"
        ),
        Answer(404, [("pkarr-invalid-signed-packet-seq", "seventeen")]),
    )
    with pytest.raises(UnreadableItem, match="at seq 17 is not a valid signed packet") as caught:
        await relay.resolve(KEY)
    assert caught.value.seq == 17
    with pytest.raises(UnexpectedAnswer, match="pkarr-invalid-signed-packet-seq"):
        await relay.resolve(KEY)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        PACKET.relay_payload[:-1],
        bytes([PACKET.relay_payload[0] ^ 1]) + PACKET.relay_payload[1:],
        SignedPacket.sign(Keypair(bytes(32)), [], 5).relay_payload,
        b"x" * MAX_PACKET,
        b"x" * (MAX_PACKET + 1),
        b"x" * 1_000_000,
    ],
    ids=["nothing", "text", "cut", "changed", "another key's", "as long as can be", "too long", "far too long"],
)
@pytest_twisted.ensureDeferred
async def test_a_relay_is_not_believed(listen: Listen, body: bytes) -> None:
    """Only what carries the key's signature is a packet; anything else is an error, and nothing long is read."""
    answer = Answer(200, [("content-length", str(len(body)))], body)
    relay, _ = play(listen, answer, answer)
    with pytest.raises(UnexpectedAnswer):
        await relay.resolve(KEY)


@pytest_twisted.ensureDeferred
async def test_a_base_with_a_path(listen: Listen) -> None:
    """A relay may live below a path, with or without a slash at its end."""
    relay, stage = play(listen, Answer(204), Answer(204))
    for base in ("/some/relay", "/some/relay/"):
        await relay_at(relay.url + base).publish(PACKET)
    assert [uri for _, uri, _, _ in stage.asked] == [f"/some/relay/{KEY.z32}"] * 2


@pytest.mark.parametrize(
    "url", ["", "localhost", "ftp://x", "http://", "https:///path", "http://x?a=b", "http://x#a", "http://a:b@x"]
)
def test_what_is_no_relay(url: str) -> None:
    """A base that requests cannot be made from is refused when the program starts, not at the first request."""
    with pytest.raises(ValueError, match="a relay is an http or https URL"):
        relay_at(url)


@define(eq=False)
class Wire(Protocol):
    """A server that says these bytes to whatever it hears; it closes or stays. `lost` fires when the client is gone."""

    says: bytes
    closes: bool
    heard: "Deferred[None]" = field(factory=Deferred)
    lost: "Deferred[None]" = field(factory=Deferred)

    def dataReceived(self, data: bytes) -> None:
        """Say it once."""
        assert self.transport is not None
        if self.heard.called:
            return
        self.transport.write(self.says)
        self.heard.callback(None)
        if self.closes:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client is gone."""
        self.lost.callback(None)


def wired(listen: Listen, says: bytes, closes: bool, clock: IReactorTime | None = None) -> tuple[Relay, Wire]:
    """A relay client and the wire to its server, which takes one connection."""
    wire = Wire(says, closes)
    factory: Any = ServerFactory.forProtocol(lambda: wire)
    return relay_at(listen(factory), clock), wire


@pytest.mark.parametrize(
    "says",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\n",
        b"\0" * 70_000,
    ],
    ids=["nothing", "garbage", "short body", "half a head", "long line"],
)
@pytest_twisted.ensureDeferred
async def test_a_broken_server(listen: Listen, says: bytes) -> None:
    """A server that speaks no HTTP, or hangs up in the middle, is one that cannot be reached."""
    relay, _ = wired(listen, says, closes=True)
    with pytest.raises(Unavailable):
        await relay.resolve(KEY)


@pytest_twisted.ensureDeferred
async def test_nobody_listens(listen: Listen) -> None:
    """A refused connection is the same kind of error, with the reason in words."""
    relay = relay_at("http://127.0.0.1:1")
    with pytest.raises(Unavailable, match="refused"):
        await relay.publish(PACKET)


@pytest.mark.parametrize(
    "says", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 160\r\n\r\nthe first bytes"]
)
@pytest_twisted.ensureDeferred
async def test_a_slow_relay_is_left(listen: Listen, says: bytes) -> None:
    """Five seconds after the request the answer must be whole; then the connection is closed and we go on."""
    clock = Clock()
    relay, wire = wired(listen, says, closes=False, clock=clock)
    asking = Deferred.fromCoroutine(relay.resolve(KEY))
    await wire.heard
    clock.advance(4.9)
    assert not asking.called
    clock.advance(0.2)
    with pytest.raises(Unavailable, match="no answer within 5 s"):
        await asking
    await wire.lost
    assert not clock.getDelayedCalls()


@pytest_twisted.ensureDeferred
async def test_too_long_an_answer_closes_the_connection(listen: Listen) -> None:
    """Of an endless body no more is read than shows that it is too long."""
    clock = Clock()
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n"
    relay, wire = wired(listen, head + b"x" * 200_000, closes=False, clock=clock)
    with pytest.raises(UnexpectedAnswer, match="more than 1104 bytes"):
        await relay.resolve(KEY)
    await wire.lost
    assert not clock.getDelayedCalls()


@implementer(IAgent)
@define(eq=False)
class Watched:
    """A real agent; `headed` fires when an answer's head has come."""

    headed: "Deferred[None]" = field(factory=Deferred)

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> "Deferred[IResponse]":
        """Pass it on."""
        return Agent(reactor).request(method, uri, headers, bodyProducer).addCallback(self.note)

    def note(self, response: IResponse) -> IResponse:
        """The head is here. Whoever waits for that goes on after the one who waits for the response."""
        reactor.callLater(0, self.headed.callback, None)
        return response


@pytest_twisted.ensureDeferred
async def test_a_request_cancelled_before_there_is_a_connection() -> None:
    """He is told just that, though it is the connecting that ends."""
    clock = Clock()
    asking = Deferred.fromCoroutine(Relay("http://127.0.0.1:9", Agent(global_reactor), clock).resolve(KEY))
    asking.cancel()
    with pytest.raises(CancelledError):
        await asking
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize("in_body", [False, True], ids=["before the answer", "in its body"])
@pytest_twisted.ensureDeferred
async def test_a_cancelled_request_leaves_nothing(listen: Listen, in_body: bool) -> None:
    """Whoever asked may stop waiting: that is what he is told, the connection is closed and no timer stays behind."""
    clock, agent = Clock(), Watched()
    says = b"HTTP/1.1 200 OK\r\ncontent-length: 160\r\n\r\nthe first bytes" if in_body else b""
    relay, wire = wired(listen, says, closes=False)
    asking = Deferred.fromCoroutine(Relay(relay.url, agent, clock).resolve(KEY))
    await (agent.headed if in_body else wire.heard)
    asking.cancel()
    with pytest.raises(CancelledError):
        await asking
    await wire.lost
    assert not clock.getDelayedCalls()
