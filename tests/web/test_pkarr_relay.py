"""The PKARR relay: what the official one answered, asked of ours again; and what it does with a network behind it."""

from contextlib import AbstractAsyncContextManager
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.web.client import Agent
from zope.interface import implementer
from zope.interface.verify import verifyObject

from pkarr.interfaces import (
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
from pkarr.packet import SignedPacket
from pkarr.records import txt
from pkarr.relay import Relay
from pubky_homeserver.web.pkarr_relay import BODY_TIMEOUT, PkarrRelay
from tests.web.client import Answer
from tests.web.relaying import Relaying, body_of, compare, recorded, relaying
from tests.web.sockets import Gate, reactor, until

DIFFERENT = {"pkarr-dht-stored-nodes": "1"}
"""The official relay had six nodes of a test network behind it; without one the relay alone stores a packet."""

KEYPAIR = Keypair(b"\x07" * 32)
TARGET = f"/{KEYPAIR.public_key.z32}"
SIGNED = 1_764_000_000_123_456
NOW = 1_764_000_100.0
TTL = 300
"""Seconds for which the packets here are fresh."""


def packet(text: str, timestamp: int = SIGNED, keypair: Keypair = KEYPAIR) -> SignedPacket:
    """A packet of the key."""
    return SignedPacket.sign(keypair, [txt("x", text, TTL)], timestamp)


OLD, NEW = packet("old"), packet("new", SIGNED + 1)


@implementer(INetwork)
@define
class Network:
    """A network that says what a test wants."""

    found: SignedPacket | NetworkError | None = None
    stored: int | NetworkError = 20
    slow: Gate | None = None
    published: list[SignedPacket] = field(factory=list)
    asked: list[Policy] = field(factory=list)

    async def publish(self, packet: SignedPacket, replaces: int | None = None) -> int:
        """As told."""
        self.published.append(packet)
        if self.slow is not None and len(self.published) == 1:
            await self.slow.passed()
        if isinstance(self.stored, NetworkError):
            raise self.stored
        return self.stored

    async def resolve(self, key: PublicKey, policy: Policy = Policy.CACHE_FIRST) -> SignedPacket | None:
        """As told."""
        self.asked.append(policy)
        if isinstance(self.found, NetworkError):
            raise self.found
        return self.found


def clock_at(now: float) -> Clock:
    """A clock that stands at a time."""
    clock = Clock()
    clock.advance(now)
    return clock


def started(network: Network | None = None, **settings: Any) -> AbstractAsyncContextManager[Relaying]:
    """A relay that has just started."""
    return relaying(PkarrRelay(clock_at(NOW), network, **settings))


async def put(relay: Relaying, packet: SignedPacket) -> Answer:
    """Publish at the relay."""
    return await relay.ask("PUT", f"/{packet.public_key.z32}", packet.relay_payload)


def http_time(answer: Answer, name: str) -> float:
    """A date of an answer as seconds since the epoch."""
    return parsedate_to_datetime(answer.header(name) or "").timestamp()


def moments(records: list[dict[str, Any]]) -> list[float]:
    """When each request was sent, as far as later answers about the same key tell: the relay saw a packet then."""
    times: dict[str, float] = {}
    found = []
    for record in reversed(records):
        key = record["request"]["path"].partition("?")[0].rpartition(":")[2].lstrip("/")
        memento = dict(record["response"]["headers"]).get("memento-datetime")
        if memento is not None:
            times[key] = parsedate_to_datetime(memento).timestamp()
        found.append(times.get(key, 0.0))
    return found[::-1]


@pytest_twisted.ensureDeferred
async def test_transcripts() -> None:
    """Every recorded request is answered as the official relay did: status, all headers, body."""
    records = recorded("pkarr_relay_transcripts.json")
    async with relaying(PkarrRelay(Clock())) as relay:
        for record, moment in zip(records, moments(records), strict=True):
            relay.clock.advance(max(0.0, moment - relay.clock.seconds()))
            request = record["request"]
            answer = await relay.ask(request["method"], request["path"], body_of(request), request["headers"])
            compare(record, answer, DIFFERENT)
    assert len(records) == 41


@pytest_twisted.ensureDeferred
async def test_own_store_knows_that_it_is_current() -> None:
    """Without a network a packet is given out for ever, as seen now; only the cache alone shows its true age."""
    async with started() as relay:
        await put(relay, OLD)
        relay.clock.advance(1_000_000)
        cached = await relay.ask("GET", TARGET + "?policy=CacheOnly")
        assert (cached.body, http_time(cached, "memento-datetime")) == (OLD.relay_payload, NOW)
        for policy in ("CacheFirst", "NetworkOnly"):
            relay.clock.advance(1000)
            found = await relay.ask("GET", f"{TARGET}?policy={policy}")
            assert found.body == OLD.relay_payload
            assert http_time(found, "memento-datetime") == relay.clock.seconds()


@pytest_twisted.ensureDeferred
async def test_fresh_packet_is_not_looked_up() -> None:
    """The network is asked when a packet's time to live is over, and by those who want its word; never by CacheOnly."""
    network = Network(found=OLD)
    async with started(network) as relay:
        assert (await relay.ask("GET", TARGET + "?policy=CacheOnly")).status == 404
        assert network.asked == []
        assert (await relay.ask("GET", TARGET)).body == OLD.relay_payload
        relay.clock.advance(TTL - 1)
        assert (await relay.ask("GET", TARGET)).status == 200
        assert network.asked == [Policy.CACHE_FIRST]
        assert (await relay.ask("GET", TARGET + "?policy=NetworkOnly")).status == 200
        relay.clock.advance(TTL - 1)
        assert (await relay.ask("GET", TARGET)).status == 200, "seeing the same packet again refreshes it"
        relay.clock.advance(1)
        assert (await relay.ask("GET", TARGET)).status == 200
        assert network.asked == [Policy.CACHE_FIRST, Policy.NETWORK_ONLY, Policy.CACHE_FIRST]


@pytest_twisted.ensureDeferred
async def test_never_back_in_time() -> None:
    """An older packet from the network replaces nothing: CacheFirst finds nothing then, NetworkOnly its word alone."""
    network = Network(found=OLD)
    async with started(network) as relay:
        await put(relay, NEW)
        relay.clock.advance(TTL)
        assert (await relay.ask("GET", TARGET)).status == 404
        assert (await relay.ask("GET", TARGET + "?policy=NetworkOnly")).body == OLD.relay_payload
        assert (await relay.ask("GET", TARGET + "?policy=CacheOnly")).body == NEW.relay_payload
        newest = network.found = packet("newest", SIGNED + 2)
        assert (await relay.ask("GET", TARGET)).body == newest.relay_payload
        assert (await relay.ask("GET", TARGET + "?policy=CacheOnly")).body == newest.relay_payload


@pytest_twisted.ensureDeferred
async def test_newer_packet_overtakes() -> None:
    """A packet that is still on its way into the network does not replace a newer one that came meanwhile."""
    network = Network(slow=Gate())
    async with started(network) as relay:
        slow = Deferred.fromCoroutine(put(relay, OLD))
        await until(lambda: network.published)
        assert (await put(relay, NEW)).status == 204
        assert network.slow is not None
        network.slow.open()
        assert (await slow).status == 204
        assert network.published == [OLD, NEW]
        assert (await relay.ask("GET", TARGET)).body == NEW.relay_payload


@pytest_twisted.ensureDeferred
async def test_older_packet_is_not_published() -> None:
    """What the relay knows to be outdated it does not trouble the network with."""
    network = Network()
    async with started(network) as relay:
        stored = await put(relay, NEW)
        assert (stored.status, stored.header("pkarr-dht-stored-nodes")) == (204, "20")
        assert (await put(relay, OLD)).status == 409
        assert network.published == [NEW]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (NotMostRecent("301"), 409, "packet is not the most recent"),
        (PacketRefused("no"), 400, "no"),
        (Unavailable("No DHT nodes were queried"), 500, "No DHT nodes were queried"),
        (UnexpectedAnswer("odd"), 500, "odd"),
    ],
)
async def test_failed_publish(error: NetworkError, status: int, text: str) -> None:
    """A packet that the network did not take is not kept, and its sender is told why."""
    async with started(Network(stored=error)) as relay:
        answer = await put(relay, OLD)
        assert (answer.status, answer.text) == (status, text)
        assert (await relay.ask("GET", TARGET + "?policy=CacheOnly")).status == 404


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("error", "status", "seq"),
    [(UnreadableItem(7), 404, "7"), (Unavailable("away"), 503, None), (UnexpectedAnswer("odd"), 503, None)],
)
async def test_failed_resolve(error: NetworkError, status: int, seq: str | None) -> None:
    """A lookup that fails says why; that the newest item is no packet has a header of its own."""
    async with started(Network(found=error)) as relay:
        answer = await relay.ask("GET", TARGET)
        assert (answer.status, answer.text) == (status, str(error))
        assert answer.header("pkarr-invalid-signed-packet-seq") == seq
        assert answer.header("access-control-allow-credentials") == "true"


@pytest_twisted.ensureDeferred
async def test_least_used_packet_makes_room() -> None:
    """Above the capacity the packet goes that was not asked for the longest."""
    pairs = [Keypair(bytes([number]) * 32) for number in range(1, 4)]
    async with started(capacity=2) as relay:
        for pair in pairs[:2]:
            await put(relay, packet("x", keypair=pair))
        assert (await relay.ask("GET", f"/{pairs[0].public_key.z32}")).status == 200
        await put(relay, packet("x", keypair=pairs[2]))
        found = [(await relay.ask("GET", f"/{pair.public_key.z32}")).status for pair in pairs]
        assert found == [200, 404, 200]


@pytest_twisted.ensureDeferred
async def test_body_must_come_in_time() -> None:
    """A packet that is not there after 30 s is not waited for, however its bytes trickle."""
    async with started() as relay:
        head = f"PUT {TARGET} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n".encode()
        connection = await relay.connect(head + b"x")
        relay.clock.advance(BODY_TIMEOUT - 1)
        connection.send(b"y")
        relay.clock.advance(1)
        assert (await connection.answer()).code == 408
        connection.vanish()
    assert relay.clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_date_without_spelling() -> None:
    """A packet of a year that HTTP dates cannot spell goes out without `Last-Modified`, and is never unmodified."""
    beyond = packet("x", 2**64 - 1)
    async with started() as relay:
        assert (await put(relay, beyond)).status == 204
        answer = await relay.ask("GET", TARGET, headers={"If-Modified-Since": "Fri, 31 Dec 9999 23:59:59 GMT"})
        assert (answer.status, answer.body) == (200, beyond.relay_payload)
        assert answer.header("last-modified") is None
        assert answer.header("memento-datetime") is not None


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("since", "status"),
    [
        ("Mon, 24 Nov 2025 16:00:01 GMT", 304),
        ("Mon, 24 Nov 2025 16:00:00 GMT", 200),
        ("Monday, 24-Nov-25 16:00:01 GMT", 304),
        ("Mon Nov 24 16:00:01 2025", 304),
        ("Mon Nov 24 16:00:00 2025", 200),
        ("Mon, 99 Nov 2025 16:00:01 GMT", 200),
        ("Mon, 24 Nov 99999 16:00:01 GMT", 200),
        ("\xff", 200),
        ("", 200),
    ],
)
async def test_if_modified_since(since: str, status: int) -> None:
    """A packet is unmodified since a second that began after it was signed; what is no HTTP date asks nothing."""
    async with started() as relay:
        await put(relay, OLD)
        assert (await relay.ask("GET", TARGET, headers={"If-Modified-Since": since})).status == status


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("%ff" + TARGET[2:], "Invalid UTF-8 in `key`"),
        ("%30" + TARGET[2:], "Invalid PublicKey encoding"),
        (TARGET[2:], "Invalid PublicKey length, expected 32 bytes but got: 31"),
    ],
)
async def test_path_is_a_key(name: str, text: str) -> None:
    """What is wrong with a path that names no key is told, word for word as by the official relay."""
    async with started() as relay:
        for method in ("GET", "PUT"):
            answer = await relay.ask(method, f"/{name}")
            assert (answer.status, answer.text) == (400, f"Invalid URL: {text}")


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("policy=CacheOnly&policy=x", "duplicate field `policy`"),
        ("policy=x&policy=CacheOnly", "policy: invalid resolve policy: x"),
        ("policy=", "policy: invalid resolve policy: "),
        ("policy=CacheOnly%20", "policy: invalid resolve policy: CacheOnly "),
    ],
)
async def test_policy_is_one_word(query: str, text: str) -> None:
    """A policy is one of three words, said once; the first fault is told, word for word as by the official relay."""
    async with started() as relay:
        answer = await relay.ask("GET", f"{TARGET}?{query}")
        assert (answer.status, answer.text) == (400, f"Failed to deserialize query string: {text}")


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("method", "target", "status", "allow"),
    [
        ("PUT", "/", 405, "GET,HEAD"),
        ("OPTIONS", "/", 200, "GET,HEAD"),
        ("PUT", TARGET + "/", 404, None),
        ("OPTIONS", "/a/b", 200, None),
    ],
)
async def test_other_paths_and_methods(method: str, target: str, status: int, allow: str | None) -> None:
    """Paths have one segment or none; each has its methods, and `OPTIONS` is answered everywhere."""
    async with started() as relay:
        answer = await relay.ask(method, target)
        assert (answer.status, answer.header("allow"), answer.body) == (status, allow, b"")


@pytest_twisted.ensureDeferred
async def test_status_page() -> None:
    """Somebody who opens the relay in a browser learns what it is and how much it holds."""
    async with started() as relay:
        await put(relay, OLD)
        page, head = await relay.ask("GET", "/"), await relay.ask("HEAD", "/")
        assert page.header("content-type") == "text/html; charset=utf-8"
        assert "Signed packets kept: 1." in page.text
        assert (head.status, head.header("content-length")) == (200, str(len(page.body)))


@pytest_twisted.ensureDeferred
async def test_own_client_and_relays_in_a_row() -> None:
    """Our client of relays understands this relay, also when that has another one as its network."""
    async with started() as last:
        behind = Relay(f"http://127.0.0.1:{last.port}", Agent(reactor), reactor)
        async with relaying(PkarrRelay(clock_at(NOW), behind)) as first:
            relay = Relay(f"http://127.0.0.1:{first.port}", Agent(reactor), reactor)
            for policy in Policy:
                assert await relay.resolve(OLD.public_key, policy) is None
            assert await relay.publish(OLD) == 1
            assert [await each.resolve(OLD.public_key, Policy.CACHE_ONLY) for each in (relay, behind)] == [OLD, OLD]
            assert await behind.publish(NEW) == 1
            assert await relay.resolve(OLD.public_key) == OLD, "still fresh"
            with pytest.raises(NotMostRecent):
                await relay.publish(packet("in between", SIGNED))
            assert await relay.resolve(OLD.public_key, Policy.NETWORK_ONLY) == NEW
            assert await relay.resolve(OLD.public_key) == NEW
            with pytest.raises(NotMostRecent):
                await relay.publish(OLD)


def test_network_of_these_tests_is_one() -> None:
    """What stands in for the DHT here has the port's shape."""
    assert verifyObject(INetwork, Network())
