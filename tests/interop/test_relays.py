"""Relays over a DHT of our nodes, the official one and ours, and the clients of either kind: all do the same."""

import os
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_twisted
from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.internet.utils import getProcessOutputAndValue
from twisted.python.failure import Failure
from twisted.web.client import Agent

from pkarr.client import Client
from pkarr.dht.items import MutableItem, signable
from pkarr.dht.node import Dht
from pkarr.interfaces import NotMostRecent, PacketRefused, Policy, UnreadableItem
from pkarr.keys import PublicKey
from pkarr.packet import SignedPacket
from pkarr.records import txt
from pkarr.relay import Relay
from pubky_homeserver.web.channel import HTTPFactory
from pubky_homeserver.web.pkarr_relay import PkarrRelay
from tests.interop.crate import Programs
from tests.pkarr.dht.swarm import joining, keypair, packet, port, reactor, running, swarm
from tests.web.client import ask

PATIENCE = 60.0  # seconds
NODES = 8
DIFFERENT = ("connection", "date", "memento-datetime", "pkarr-dht-stored-nodes")  # headers
KEY, OTHER, NOBODY = keypair(1), keypair(2), keypair(3).public_key


@frozen
class Place:
    """A relay, and a node of the DHT behind it."""

    url: str
    dht: Dht

    @property
    def relay(self) -> Relay:
        """Our client for it."""
        return Relay(self.url, Agent(reactor), reactor)

    @property
    def client(self) -> Client:
        """Our client with a memory that is empty."""
        return Client(reactor, [self.relay])


@define(eq=False)
class Official(ProcessProtocol):
    """The official relay's process."""

    port: Deferred[int] = field(factory=Deferred)
    ended: Deferred[bool] = field(factory=Deferred)
    _output: bytes = b""
    _errors: bytes = b""

    def outReceived(self, data: bytes) -> None:
        """Its port, in a line."""
        self._output += data
        if self._output.endswith(b"\n") and not self.port.called:
            self.port.callback(int(self._output))

    def errReceived(self, data: bytes) -> None:
        """What went wrong."""
        self._errors += data

    def processEnded(self, reason: Failure) -> None:
        """It is over."""
        if not self.port.called:
            self.port.errback(RuntimeError(self._errors.decode()))
        self.ended.callback(reason.check(ProcessDone) is not None)


def questions() -> Iterator[tuple[str, str, bytes | None]]:
    """Requests at the edges of what is allowed: method, target, body."""
    numbers = count(10)
    for timestamp in (0, 1, 253_402_300_799_999_999):  # up to the last date that has a spelling
        yield from put_and_get(packet(keypair(next(numbers)), timestamp))
    for ttl in (0, 1, 299, 301, 86_401, 2**31, 2**32 - 1):
        yield from put_and_get(SignedPacket.sign(keypair(next(numbers)), [txt("x", "hello", ttl)], 5))
    largest = SignedPacket.sign(KEY, [txt("x", "a" * length, 5) for length in (220, 220, 220, 222)], 5)
    assert len(largest.relay_payload) == 1072
    for last in (SignedPacket.sign(KEY, [], 5), largest):
        yield from put_and_get(last)
    z32 = KEY.public_key.z32
    for target in ("", "%ff", z32[1:], f"pk:{z32}", f"pubky{z32}", f"{z32}.", f"x.{z32}", f"{z32}/", z32.upper()):
        yield "GET", f"/{target}" if target else f"/%{ord(z32[0]):x}{z32[1:]}", None
        yield "PUT", f"/{target}x", largest.relay_payload
    for query in ("policy=", "policy", "Policy=x", "policy=CacheOnly&x=1", "policy=Cache%4Fnly", "policy=CacheOnly%20"):
        yield "GET", f"/{z32}?{query}", None
        yield "GET", f"/{z32}?{query}&policy=CacheOnly&policy=x", None
    for body in (b"", b"x", largest.relay_payload + b"x", bytes(1073), bytes(1104), bytes(1105)):
        yield "PUT", f"/{z32}", body
    yield "GET", "/" + "y" * 52, None
    yield "PATCH", f"/{z32}", None


def put_and_get(packet: SignedPacket) -> Iterator[tuple[str, str, bytes | None]]:
    """Publish and find."""
    target = f"/{packet.public_key.z32}"
    yield "PUT", target, packet.relay_payload
    for policy in Policy:
        yield "GET", f"{target}?policy={policy.value}", None


@asynccontextmanager
async def official(first: Dht, programs: Programs, folder: Path) -> AsyncIterator[str]:
    """The official relay, a node of its own in the DHT."""
    process = Official()
    program, (host, number) = str(programs.relay), port(first)
    reactor.spawnProcess(process, program, [program, f"{host}:{number}", str(folder)], {"TMPDIR": str(folder)})
    try:
        yield f"http://127.0.0.1:{await process.port.addTimeout(PATIENCE, reactor)}"
    finally:
        assert process.transport is not None
        process.transport.closeStdin()
        assert await process.ended.addTimeout(PATIENCE, reactor)


@asynccontextmanager
async def ours(first: Dht, _programs: Programs, _folder: Path) -> AsyncIterator[str]:
    """Our relay, a node of its own in the DHT."""
    async with running(Dht(reactor, joining(first))) as dht:
        factory = HTTPFactory(PkarrRelay(reactor, dht).answer, reactor)
        listening = reactor.listenTCP(0, factory, interface="127.0.0.1")
        try:
            yield f"http://127.0.0.1:{listening.getHost().port}"
        finally:
            await listening.stopListening()
            await factory.drain(0)


Kind = Callable[[Dht, Programs, Path], AbstractAsyncContextManager[str]]


@asynccontextmanager
async def started(kind: Kind, programs: Programs, folder: Path) -> AsyncIterator[Place]:
    """A relay that has found its DHT."""
    async with swarm(NODES) as nodes, kind(nodes[0], programs, folder) as url:
        place = Place(url, nodes[3])
        for attempt in range(int(PATIENCE / 0.1)):
            if await place.relay.publish(packet(keypair(99), attempt)) >= NODES:
                break
            await deferLater(reactor, 0.1)
        else:
            pytest.fail("the relay never found the DHT")
        yield place


@pytest_twisted.async_yield_fixture(params=[official, ours], ids=["official", "ours"])
async def place(request: pytest.FixtureRequest, programs: Programs, tmp_path: Path) -> AsyncIterator[Place]:
    """A relay of either kind."""
    async with started(request.param, programs, tmp_path) as place:
        yield place


@pytest_twisted.ensureDeferred
async def test_packets(place: Place) -> None:
    """A packet is kept on all nodes and found under every policy; a newer one takes its place, an older one not."""
    relay = place.relay
    for timestamp in (1000, 2000, 2000):
        published = packet(KEY, timestamp, f"at {timestamp}")
        assert await relay.publish(published) >= NODES
        for policy in Policy:
            assert await relay.resolve(KEY.public_key, policy) == published
            assert await place.client.resolve(KEY.public_key, policy) == published
        assert await place.dht.resolve(KEY.public_key, Policy.NETWORK_ONLY) == published
    for old in (packet(KEY, 1999), packet(KEY, 2000, "")):
        with pytest.raises(NotMostRecent):
            await relay.publish(old)
        with pytest.raises(NotMostRecent):
            await place.client.publish(old)
    assert await relay.resolve(KEY.public_key) == published


@pytest_twisted.ensureDeferred
async def test_unknown_key(place: Place) -> None:
    """What nobody published is nowhere."""
    for policy in Policy:
        assert await place.relay.resolve(NOBODY, policy) is None
        assert await place.client.resolve(NOBODY, policy) is None


@pytest_twisted.ensureDeferred
async def test_refused_packet(place: Place) -> None:
    """A packet whose signature is another's is not taken, and never will be."""
    forged = packet(KEY, 1000)
    object.__setattr__(forged, "signature", packet(OTHER, 1000).signature)
    for network in (place.relay, place.client):
        with pytest.raises(PacketRefused):
            await network.publish(forged)
    assert await place.relay.resolve(KEY.public_key, Policy.NETWORK_ONLY) is None


@pytest_twisted.ensureDeferred
async def test_packets_of_the_dht(place: Place) -> None:
    """What is put to the DHT is found, by those who ask the network at once; what is older there is not published."""
    old, new = packet(KEY, 1000), packet(KEY, 2000)
    await place.dht.publish(old)
    assert await place.relay.resolve(KEY.public_key, Policy.CACHE_ONLY) is None
    assert await place.relay.resolve(KEY.public_key) == old
    await place.dht.publish(new)
    assert await place.relay.resolve(KEY.public_key) == old
    with pytest.raises(NotMostRecent):
        await place.relay.publish(packet(KEY, 1999))
    assert await place.relay.resolve(KEY.public_key, Policy.NETWORK_ONLY) == new
    assert await place.relay.resolve(KEY.public_key) == new


@pytest_twisted.ensureDeferred
async def test_item_that_is_no_packet(place: Place) -> None:
    """Whatever the key's owner signed last counts: no older packet is given out, and the item's number is told."""
    await place.dht.publish(packet(KEY, 1000))
    value = b"5:hello"
    await place.dht.put(MutableItem(KEY.public_key.raw, 2000, value, KEY.sign(signable(2000, value))))
    for network in (place.relay, place.client):
        with pytest.raises(UnreadableItem) as error:
            await network.resolve(KEY.public_key, Policy.NETWORK_ONLY)
        assert error.value.seq == 2000


@pytest_twisted.ensureDeferred
async def test_official_client(place: Place, programs: Programs) -> None:
    """The official client, with this relay alone, publishes and finds; what it published is in the DHT."""
    environment = {**os.environ, "PKARR_RELAY": place.url}
    output, errors, code = await getProcessOutputAndValue(str(programs.scenarios), ["relay"], environment)
    assert code == 0, f"{output.decode()}{errors.decode()}"
    published = re.search(r"published (\w+)", output.decode())
    assert published is not None, output
    found = await place.dht.resolve(PublicKey.from_z32(published[1]), Policy.NETWORK_ONLY)
    assert isinstance(found, SignedPacket)
    assert (found.timestamp, [record.text for record in found.lookup("_test")]) == (2000, ["two"])


@pytest_twisted.ensureDeferred
async def test_word_for_word(programs: Programs, tmp_path: Path) -> None:
    """Both relays answer with the same status, headers and body, but for the times and for how many nodes there are."""
    answers: dict[Kind, list[tuple[str, str, int, list[tuple[str, str]], bytes]]] = {official: [], ours: []}
    for kind, given in answers.items():
        async with started(kind, programs, tmp_path) as place:
            for method, target, body in questions():
                answer = await ask(reactor, urlsplit(place.url).port or 80, method, target, {}, body)
                headers = sorted(pair for pair in answer.headers if pair[0] not in DIFFERENT)
                given.append((method, target, answer.status, headers, answer.body))
    for theirs, mine in zip(*answers.values(), strict=True):
        assert mine == theirs
