"""A peer as seen from here: how it is reached, and what becomes of answers that are none."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.web.client import Agent, HTTPConnectionPool
from zope.interface.verify import verifyObject

from pkarr.keys import Keypair
from pkarr.tls.agent import Place, agent
from pkarr.tls.endpoint import TlsFactory
from pubky_homeserver.core.copies import Logged, Position
from pubky_homeserver.core.errors import LogForked, PeerAway, PeerBroken, PeerError, PeerRefused
from pubky_homeserver.core.peers import ALL, Peer
from pubky_homeserver.interfaces import IPeer
from pubky_homeserver.peers.answers import LEAST
from pubky_homeserver.peers.asking import PATIENCE, STALL
from pubky_homeserver.peers.client import PeerClient
from pubky_homeserver.peers.gathering import SOON
from pubky_homeserver.peers.messages import MAX_ANSWER
from pubky_homeserver.peers.signatures import LONGEST, Head, verify
from pubky_homeserver.web.channel import HTTPFactory
from pubky_homeserver.web.request import Request
from tests.peers.peering import FOLLOWER, content, hash_of, peering
from tests.pkarr.tls.installed import NAMES, installed
from tests.web.served import HOMESERVER, NOW
from tests.web.sockets import Handler, Served, reactor, turns, until

USER = Keypair(b"\x0b" * 32).public_key.z32
POSITION = Position("0" * 32, 0, 0, bytes(16))
Ask = Callable[[PeerClient], Any]


async def events(client: PeerClient) -> Logged:
    """Ask for events, and let the time pass in which others could ask, too."""
    asking = Deferred.fromCoroutine(client.events(USER, False, POSITION))
    assert isinstance(client.clock, Clock)
    client.clock.advance(SOON)
    return await asking


QUESTIONS: dict[str, Ask] = {
    "hello": lambda client: client.greet(),
    "offered": lambda client: client.offered(""),
    "packet": lambda client: client.packet(USER),
    "events": events,
    "entries": lambda client: client.entries(USER, False, ""),
    "body": lambda client: client.body(USER, False, "/pub/a", bytes(32)),
    "changes": lambda client: client.changes(lambda _hint: None, lambda: None),
}


class Faulty:
    """A peer that answers as a test says."""

    def __init__(self) -> None:
        self.answer: Handler = _say(200, b"")
        self.served = Served(self._answer)
        self.pool = HTTPConnectionPool(reactor)
        self.clock = Clock()
        self.clock.advance(NOW)
        host, port = self.served.address
        peer = Peer("alice", HOMESERVER, f"http://{host}:{port}", follow=ALL)
        self.client = PeerClient(peer, FOLLOWER, Agent(reactor, pool=self.pool), self.clock)

    async def _answer(self, request: Request) -> None:
        await self.answer(request)


@pytest_twisted.async_yield_fixture
async def faulty() -> AsyncIterator[Faulty]:
    """Such a peer."""
    peer = Faulty()
    yield peer
    await peer.pool.closeCachedConnections()
    await peer.served.stop()


def _say(code: int, body: bytes = b"", **fields: str) -> Handler:
    async def answer(request: Request) -> None:
        request.setResponseCode(code)
        for name, value in fields.items():
            request.setHeader(name.encode(), value.encode())
        request.finish_with(body)

    return answer


def test_it_is_a_peer() -> None:
    """It has all that is asked of a peer."""
    assert verifyObject(IPeer, PeerClient(Peer("a", HOMESERVER), FOLLOWER, Agent(reactor), Clock()))


def test_it_shows_no_secret() -> None:
    """A client in a log gives nothing away."""
    assert FOLLOWER.seed.hex() not in repr(PeerClient(Peer("a", HOMESERVER), FOLLOWER, Agent(reactor), Clock()))


STATUSES: list[tuple[int, type[Exception], str]] = [
    (403, PeerRefused, "403: because"),
    (404, PeerRefused, "404: because"),
    (421, PeerBroken, "421: because"),
    (400, PeerBroken, "400: because"),
    (302, PeerBroken, "302: because"),
    (204, PeerBroken, "204: "),
    (429, PeerAway, "429: because"),
    (500, PeerAway, "500: because"),
    (503, PeerAway, "503: because"),
]


@pytest.mark.parametrize("name", QUESTIONS)
@pytest_twisted.ensureDeferred
async def test_what_a_status_means(name: str, faulty: Faulty) -> None:
    """Who does not let us, who is away, and who does not speak our language are told apart; nobody is followed on."""
    for code, expected, says in STATUSES:
        faulty.answer = _say(code, b"because\r\n\x1b[31m" + b"x" * 100_000, Location="http://127.0.0.1:1/")
        if (name, code) == ("packet", 404):
            assert await faulty.client.packet(USER) is None
            continue
        with pytest.raises(expected) as caught:
            await QUESTIONS[name](faulty.client)
        line = str(caught.value)
        assert says in line
        assert line.isprintable()
        assert len(line) < 300


@pytest.mark.parametrize("name", sorted(QUESTIONS.keys() - {"packet", "body", "changes"}))
@pytest_twisted.ensureDeferred
async def test_answers_that_are_none(name: str, faulty: Faulty) -> None:
    """Nothing of an answer with another shape is used, and none is read without end."""
    for body in (b"", b"{}", b"<html>", b"[" * 100_000, b" " * (MAX_ANSWER + 1)):
        faulty.answer = _say(200, body)
        with pytest.raises(PeerBroken):
            await QUESTIONS[name](faulty.client)
    faulty.answer = _say(409, b"{}")
    with pytest.raises(PeerBroken):
        await QUESTIONS[name](faulty.client)


@pytest_twisted.ensureDeferred
async def test_a_packet_without_end(faulty: Faulty) -> None:
    """A packet is as long as packets are."""
    faulty.answer = _say(200, bytes(1105))
    with pytest.raises(PeerBroken):
        await faulty.client.packet(USER)


@pytest_twisted.ensureDeferred
async def test_a_fork_tells_its_reigns(faulty: Faulty) -> None:
    """They say where the two histories may part."""
    faulty.answer = _say(409, json.dumps({"reigns": [["1" * 32, 1], ["2" * 32, 9]]}).encode())
    with pytest.raises(LogForked) as caught:
        await events(faulty.client)
    assert [(one.log_id, one.first) for one in caught.value.reigns] == [("1" * 32, 1), ("2" * 32, 9)]


@pytest_twisted.ensureDeferred
async def test_changes_that_are_none(faulty: Faulty) -> None:
    """A stream is cut where it stops making sense; what it may say besides is skipped."""
    for body in (b"event: change\ndata: {}\n\n", b"event: " + b"x" * 2000, b"x" * 2000 + b"\n"):
        faulty.answer = _say(200, body)
        with pytest.raises(PeerBroken):
            await QUESTIONS["changes"](faulty.client)
    heard: list[object] = []
    faulty.answer = _say(200, b": hello\n\nevent: news\ndata: x\n\nevent: epoch\ndata: e\n\nevent: beat\nda")
    with pytest.raises(PeerAway, match="ended"):
        await faulty.client.changes(heard.append, lambda: heard.append("beat"))
    assert heard == [None]


@pytest_twisted.ensureDeferred
async def test_nobody_there(faulty: Faulty) -> None:
    """A port where nobody listens is a peer that is away."""
    client = evolve(faulty.client, peer=evolve(faulty.client.peer, url="http://127.0.0.1:1"))
    for ask in QUESTIONS.values():
        with pytest.raises(PeerAway):
            await ask(client)


@pytest.mark.parametrize("name", QUESTIONS)
@pytest_twisted.ensureDeferred
async def test_a_peer_that_does_not_answer(name: str, faulty: Faulty) -> None:
    """It is left after a while, and its connection with it."""
    waiting: Deferred[None] = Deferred()
    begun: list[Request] = []

    async def answer(request: Request) -> None:
        request.ends_with_input = True
        begun.append(request)
        await waiting

    faulty.answer = answer
    asking = Deferred.fromCoroutine(QUESTIONS[name](faulty.client))
    await until(lambda: begun)
    faulty.clock.advance(PATIENCE)
    with pytest.raises(PeerAway, match="no answer within 20 s"):
        await asking
    await until(lambda: begun[0].gone)
    assert not faulty.clock.getDelayedCalls()


async def stall(request: Request) -> None:
    """Half an answer."""
    request.ends_with_input = True
    request.stream(100)
    await request.write(b"x" * 50)
    await Deferred()


@pytest.mark.parametrize("name", sorted(QUESTIONS.keys() - {"body"}))
@pytest_twisted.ensureDeferred
async def test_a_peer_that_stops_in_the_middle(name: str, faulty: Faulty) -> None:
    """The same in the middle of an answer."""
    faulty.answer = stall
    asking = Deferred.fromCoroutine(QUESTIONS[name](faulty.client))
    asking.addErrback(lambda failure: failure.value)
    while not asking.called:
        await turns()
        faulty.clock.advance(STALL / 4)
    assert isinstance(await asking, PeerAway)
    assert not faulty.clock.getDelayedCalls()


@pytest_twisted.ensureDeferred
async def test_a_body_that_drips(faulty: Faulty) -> None:
    """A byte now and then is as good as none; who is slow but goes on is waited for."""
    wanted = Deferred[int]()

    async def drip(request: Request) -> None:
        nonlocal wanted
        request.ends_with_input = True
        request.stream(1 << 20)
        while True:
            length, wanted = await wanted, Deferred()
            await request.write(bytes(length))

    faulty.answer = drip
    pieces = await faulty.client.body(USER, False, "/pub/a", bytes(32))
    for length in (LEAST, LEAST, 1):
        reading = Deferred.fromCoroutine(_some(pieces, length))
        wanted.callback(length)
        await reading
        faulty.clock.advance(STALL * 0.7)
    with pytest.raises(PeerAway, match="next to nothing"):
        await content(pieces)
    assert not faulty.clock.getDelayedCalls()


async def _some(pieces: AsyncIterator[bytes], length: int) -> None:
    """Read so many bytes."""
    while length > 0:
        length -= len(await anext(pieces))


@pytest_twisted.ensureDeferred
async def test_a_body_that_breaks_off(faulty: Faulty) -> None:
    """Half a body is never taken for a whole one."""

    async def cut(request: Request) -> None:
        request.stream(100)
        await request.write(b"x" * 50)
        raise RuntimeError("cut")

    faulty.answer = cut
    with pytest.raises(PeerError):
        await content(await faulty.client.body(USER, False, "/pub/a", bytes(32)))
    faulty.answer = stall
    pieces = await faulty.client.body(USER, False, "/pub/a", bytes(32))
    assert await anext(pieces) == b"x" * 50
    reading = Deferred.fromCoroutine(_next(pieces))
    faulty.clock.advance(STALL)
    with pytest.raises(PeerAway):
        await reading


async def _next(pieces: AsyncIterator[bytes]) -> bytes:
    return await anext(pieces)


@pytest_twisted.ensureDeferred
async def test_a_body_that_nobody_reads(faulty: Faulty) -> None:
    """A slow reader stops its sender, and one who gave up does not keep a connection."""
    sent: list[int] = []

    async def large(request: Request) -> None:
        request.stream(64 << 20)
        for number in range(1024):
            await request.write(bytes(64 << 10))
            sent.append(number)
        request.finish()

    faulty.answer = large
    pieces = await faulty.client.body(USER, False, "/pub/a", bytes(32))
    await until(lambda: len(sent) > 4)
    await turns(200)
    stopped = len(sent)
    await turns(200)
    assert len(sent) == stopped < 1024
    for _ in range(20):
        assert await anext(pieces)
    faulty.clock.advance(STALL)
    with pytest.raises(PeerAway):
        await content(pieces)
    assert not faulty.clock.getDelayedCalls()


@pytest_twisted.ensureDeferred
async def test_who_gives_up_is_not_told_that_the_peer_is_away(faulty: Faulty) -> None:
    """A question that is cancelled ends as that, before the answer and in the middle."""
    begun: list[Request] = []

    async def answer(request: Request) -> None:
        request.ends_with_input = True
        begun.append(request)
        await Deferred()

    faulty.answer = answer
    asking = Deferred.fromCoroutine(faulty.client.greet())
    await until(lambda: begun)
    asking.cancel()
    with pytest.raises(CancelledError):
        await asking
    faulty.answer = stall
    asking = Deferred.fromCoroutine(faulty.client.greet())
    await turns(50)
    asking.cancel()
    with pytest.raises(CancelledError):
        await asking
    assert not faulty.clock.getDelayedCalls()


@pytest_twisted.ensureDeferred
async def test_every_request_is_signed(faulty: Faulty) -> None:
    """For this peer, by us, now, as it was sent."""
    seen: list[str] = []

    async def answer(request: Request) -> None:
        fields = {name: [one.decode() for one in request.headers_named(name.encode())] for name in LONGEST}
        head = Head(request.method.decode(), request.uri.decode(), fields)
        assert verify(head, HOMESERVER, {FOLLOWER.public_key.z32}, NOW).sender == FOLLOWER.public_key.z32
        seen.append(request.uri.decode())
        request.setResponseCode(403)
        request.finish_with(b"")

    faulty.answer = answer
    for ask in QUESTIONS.values():
        with pytest.raises(PeerRefused):
            await ask(faulty.client)
    with pytest.raises(PeerRefused):
        await faulty.client.body(USER, True, "/priv/ü +&=?#%", bytes(32))
    assert len(seen) == len(QUESTIONS) + 1


# --- by key -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest_twisted.ensureDeferred
async def test_a_peer_that_is_found_by_its_key(name: str) -> None:
    """Without an address in the settings a peer is where its key leads, and proves itself there."""
    engine = installed(name)
    async with peering() as pair:
        await pair.put("/pub/a", b"x" * 9000)
        there = HTTPFactory(pair.site.answer, reactor)
        right, wrong = (
            reactor.listenTCP(0, TlsFactory(there, engine, seed, reactor), interface="127.0.0.1")
            for seed in (bytes(32), b"\x01" * 32)
        )
        asked: list[str] = []

        async def resolve(host: str) -> list[Place]:
            asked.append(host)
            ports = (wrong,) if len(asked) > 1 else (wrong, right)
            return [Place(Keypair(bytes(32)).public_key, "127.0.0.1", one.getHost().port) for one in ports]

        by_key = evolve(pair.client, peer=evolve(pair.client.peer, url=None), agent=agent(resolve, engine, reactor))
        pieces = await by_key.body(pair.owner.pubky, False, "/pub/a", hash_of(b"x" * 9000))
        assert await content(pieces) == b"x" * 9000
        assert asked == [HOMESERVER]
        with pytest.raises(PeerAway):
            await by_key.greet()
        for port in (right, wrong):
            await port.stopListening()
        await there.drain(1)
