"""The publisher of the homeserver's own record, on a clock that moves when told."""

from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address
from typing import Any

import pytest
import pytest_twisted
from attrs import Factory, define, evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from zope.interface import implementer

from pkarr.interfaces import INetwork, NetworkError, NotMostRecent, PacketRefused, Policy, Unavailable
from pkarr.keys import Keypair, PublicKey
from pkarr.packet import SignedPacket
from pubky_homeserver.core.health import Publication
from pubky_homeserver.publisher import FIRST_DELAY, LONGEST_DELAY, Advertised, Publisher

from .pkarr.vectors import load

VECTORS = {vector["name"]: vector for vector in load("pkarr_packets")["packets"]}
KEYPAIR = Keypair(bytes(32))
ADVERTISED = Advertised(ip_address("127.0.0.1"), 6287, "localhost", 6286)
NOW = 1_764_000_000.0
HOUR = 3600


@implementer(INetwork)
@define(eq=False)
class FakeNetwork:
    """A network that does with each packet what the next of `answers` says: an exception, a number, or wait."""

    name: str = "a network"
    answers: list[Exception | int | Deferred[int]] = Factory(list)
    published: list[SignedPacket] = Factory(list)
    found: list[SignedPacket | Exception | None] = Factory(list)
    """What the next lookups find; without any left it is the packet that came last."""

    async def publish(self, packet: SignedPacket, replaces: int | None = None) -> int:
        """Note the packet, then do as told; without an answer left all is well."""
        self.published.append(packet)
        answer = self.answers.pop(0) if self.answers else 1
        if isinstance(answer, Deferred):
            return await answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def resolve(self, key: PublicKey, policy: Policy = Policy.CACHE_FIRST) -> SignedPacket | None:
        """Find what was scripted, else what was published."""
        assert policy is Policy.NETWORK_ONLY
        found = self.found.pop(0) if self.found else self.published[-1]
        if isinstance(found, Exception):
            raise found
        return found

    def __str__(self) -> str:
        return self.name


@define(eq=False)
class Stage:
    """A publisher and what it stands on."""

    clock: Clock = Factory(Clock)
    started: list[Publisher] = Factory(list)

    def start(self, *networks: FakeNetwork, jitter: float = 1.0, advertised: Advertised = ADVERTISED) -> Publisher:
        """A running publisher whose jitter is always the same."""
        publisher = Publisher(KEYPAIR, advertised, networks, self.clock, jitter=lambda: jitter)
        publisher.startService()
        self.started.append(publisher)
        return publisher


@pytest_twisted.async_yield_fixture
async def stage() -> AsyncIterator[Stage]:
    """A clock at some moment; what was started is stopped, and must leave no timer behind."""
    stage = Stage()
    stage.clock.advance(NOW)
    yield stage
    for publisher in stage.started:
        if publisher.running:
            await publisher.stopService()
    assert not stage.clock.getDelayedCalls()


@pytest.mark.parametrize(
    ("name", "advertised"),
    [
        ("homeserver_ipv4_localhost", ADVERTISED),
        ("homeserver_ipv4_domain", Advertised(ip_address("203.0.113.7"), 6287, "homeserver.example.com", 6286)),
        ("homeserver_ipv6_domain", Advertised(ip_address("2001:db8::7"), 443, "hs.example.org", 80)),
        ("homeserver_ipv4_no_domain", Advertised(ip_address("192.0.2.1"), 8443, None, 6286)),
    ],
)
def test_the_record_is_the_official_one(name: str, advertised: Advertised) -> None:
    """What a homeserver says about itself is, byte for byte, what the official one says."""
    vector = VECTORS[name]
    keypair = Keypair(bytes.fromhex(vector["secret_hex"]))
    packet = SignedPacket.sign(keypair, advertised.records(), vector["timestamp_us"])
    assert bytes(packet).hex() == vector["packet_hex"]


def test_nobody_is_sent_to_a_port_without_a_listener() -> None:
    """Without TLS under its own key the record for its clients is left out; that for browsers and the address stay."""
    records = evolve(ADVERTISED, tls_port=None).records()
    assert records == ADVERTISED.records()[1:]
    assert records[0].service is not None
    assert records[0].service.target == "localhost"
    assert evolve(ADVERTISED, tls_port=None, icann_domain=None).records() == records[1:]


def test_published_at_the_start_and_every_hour(stage: Stage) -> None:
    """The record is signed with the time of the start, and the identical bytes go out again each hour."""
    network = FakeNetwork()
    publisher = stage.start(network)
    assert len(network.published) == 1
    packet = network.published[0]
    assert packet.public_key == KEYPAIR.public_key
    assert packet.records == SignedPacket.sign(KEYPAIR, ADVERTISED.records(), 0).records
    assert 0 <= packet.timestamp - NOW * 1_000_000 < 256
    assert publisher.publication() == Publication(NOW)
    stage.clock.advance(HOUR - 1)
    assert len(network.published) == 1
    for hour in (1, 2, 3):
        stage.clock.advance(1 if hour == 1 else HOUR)
        assert network.published == [packet] * (hour + 1)
        assert publisher.publication() == Publication(NOW + hour * HOUR)


def test_a_failure_is_tried_again_ever_more_rarely(stage: Stage) -> None:
    """After a failure the next try comes after a second, then two, four, …, never more than five minutes."""
    network = FakeNetwork(answers=[Unavailable(f"failure {number}") for number in range(1, 13)])
    publisher = stage.start(network)
    delays = []
    for number in range(1, 13):
        assert publisher.publication() == Publication(None, f"a network: failure {number}")
        before = stage.clock.seconds()
        while len(network.published) == number:
            stage.clock.advance(0.5)
        delays.append(stage.clock.seconds() - before)
    assert delays == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    assert (FIRST_DELAY, LONGEST_DELAY) == (1, 300)
    assert publisher.publication() == Publication(stage.clock.seconds())
    assert len(set(map(bytes, network.published))) == 1


@pytest.mark.parametrize(("jitter", "delay"), [(0.0, 0.5), (0.5, 0.75), (1.0, 1.0)])
def test_tries_are_spread(stage: Stage, jitter: float, delay: float) -> None:
    """Homeservers that lost the same network do not come back all at once: a delay is cut by up to a half."""
    network = FakeNetwork(answers=[Unavailable("away")])
    stage.start(network, jitter=jitter)
    stage.clock.advance(delay - 0.01)
    assert len(network.published) == 1
    stage.clock.advance(0.02)
    assert len(network.published) == 2


def test_an_outage_in_the_middle(stage: Stage) -> None:
    """A network that was away for ten minutes has the record within one step; till then the last success is shown."""
    network = FakeNetwork(answers=[1])
    publisher = stage.start(network)
    network.answers = [Unavailable("away")] * 1000
    stage.clock.advance(HOUR)
    for _ in range(600):
        stage.clock.advance(1)
    assert publisher.publication() == Publication(NOW, "a network: away")
    network.answers = []
    for _ in range(int(LONGEST_DELAY)):
        stage.clock.advance(1)
    shown = publisher.publication()
    assert shown.failure is None
    assert shown.published is not None
    assert NOW + HOUR + 600 <= shown.published <= NOW + HOUR + 600 + LONGEST_DELAY
    tries = len(network.published)
    stage.clock.advance(HOUR)  # the next round comes in its time
    assert len(network.published) == tries + 1


@pytest.mark.parametrize("error", [Unavailable("x"), PacketRefused("x"), ZeroDivisionError("x"), Exception("x")])
def test_no_error_ends_the_loop(stage: Stage, error: Exception) -> None:
    """Whatever a network raises, also at a later round, the next try comes."""
    network = FakeNetwork(answers=[error, error, 1, error, 1])
    with capturedLogs() as logs:
        publisher = stage.start(network)
        stage.clock.pump([1, 2])
        assert len(network.published) == 3
        stage.clock.advance(HOUR - 3)
        stage.clock.advance(1)
        assert len(network.published) == 5
    assert publisher.publication() == Publication(stage.clock.seconds())
    tracebacks = [log for log in logs if log["log_level"] is LogLevel.critical]
    assert len(tracebacks) == (0 if isinstance(error, NetworkError) else 3)


def test_not_even_our_own_errors_end_the_loop(stage: Stage) -> None:
    """A fault in the publisher itself costs one round and is in the log; the next round comes in its time."""
    network = FakeNetwork(answers=[Unavailable("away")])
    publisher = Publisher(KEYPAIR, ADVERTISED, [network], stage.clock, jitter=lambda: 1 // 0)
    stage.started.append(publisher)
    with capturedLogs() as logs:
        publisher.startService()
    assert [log["log_failure"].type for log in logs if "log_failure" in log] == [ZeroDivisionError]
    stage.clock.advance(HOUR)
    assert len(network.published) == 2
    assert publisher.publication() == Publication(NOW + HOUR)


def test_networks_do_not_wait_for_each_other(stage: Stage) -> None:
    """One network that is away, or never answers, delays nobody; the record counts as published where it is."""
    away, silent, fine = (
        FakeNetwork("away", [Unavailable("x")] * 99),
        FakeNetwork("silent", [Deferred()]),
        FakeNetwork(),
    )
    publisher = stage.start(away, silent, fine)
    assert publisher.publication() == Publication(NOW)
    stage.clock.advance(HOUR)
    assert len(fine.published) == 2
    assert publisher.publication() == Publication(NOW + HOUR)


def test_all_networks_away(stage: Stage) -> None:
    """If no network took the record, each says why."""
    publisher = stage.start(FakeNetwork("one", [Unavailable("gone")]), FakeNetwork("two", [PacketRefused("no")]))
    assert publisher.publication() == Publication(None, "one: gone; two: no")


def test_a_try_has_an_end(stage: Stage) -> None:
    """A network that does not answer for a minute is taken for one that failed, and its try is cancelled."""
    cancelled: list[bool] = []
    silent: Deferred[int] = Deferred(lambda _: cancelled.append(True))
    network = FakeNetwork(answers=[silent])
    publisher = stage.start(network)
    assert publisher.publication() == Publication()
    stage.clock.advance(60)
    assert cancelled
    assert publisher.publication() == Publication(None, "a network: no answer within 60 s")
    stage.clock.advance(1)
    assert publisher.publication() == Publication(NOW + 61)


def test_a_newer_record_is_left_alone(stage: Stage) -> None:
    """Where a newer record of our key is known we do not insist, and say so even if other networks took ours."""
    rival = FakeNetwork("rival", [NotMostRecent("409 packet is not the most recent")])
    publisher = stage.start(FakeNetwork(), rival)
    expected = "rival: a newer record of this key is known there: 409 packet is not the most recent"
    stage.clock.advance(HOUR - 1)
    assert publisher.publication() == Publication(NOW, expected)
    assert len(rival.published) == 1
    stage.clock.advance(1)
    assert len(rival.published) == 2
    assert publisher.publication() == Publication(NOW + HOUR)


def test_without_a_network(stage: Stage) -> None:
    """A homeserver that is told of no network runs, and shows that nobody can find it."""
    assert stage.start().publication() == Publication(None, "there is no network to publish it at")


Starting = Callable[[], list[Exception | int | Deferred[int]]]


@pytest.mark.parametrize(
    "answers", [lambda: [1], lambda: [Unavailable("x")] * 9, lambda: [Deferred()]], ids=["idle", "waiting", "trying"]
)
@pytest_twisted.ensureDeferred
async def test_stopping(stage: Stage, answers: Starting) -> None:
    """A publisher stops at any moment: between rounds, between tries, in a try. Nothing goes on afterwards."""
    network = FakeNetwork(answers=answers())
    with capturedLogs() as logs:
        publisher = stage.start(network)
        await publisher.stopService()
    assert not stage.clock.getDelayedCalls()
    stage.clock.advance(2 * HOUR)
    assert len(network.published) == 1
    assert not [log for log in logs if log["log_level"] >= LogLevel.error]


def test_a_second_start_signs_anew(stage: Stage) -> None:
    """A publisher that was stopped and started has a record with the time of its new start."""
    network = FakeNetwork()
    publisher = stage.start(network)
    stage.clock.advance(10)
    publisher.stopService()
    publisher.startService()
    first, second = network.published
    assert second.more_recent_than(first)


def test_what_the_log_says(stage: Stage) -> None:
    """The log tells of the first success, of each failure with the next try, of the recovery; not of every hour."""
    network = FakeNetwork(answers=[20, Unavailable("away"), 5, 7])
    with capturedLogs() as logs:
        stage.start(network)
        stage.clock.advance(HOUR)
        stage.clock.advance(1)
        stage.clock.advance(HOUR)

    def said(log: dict[str, Any]) -> tuple[str, str]:
        return log["log_level"].name, log["log_format"].format(**log)

    assert [said(log) for log in logs if log["log_level"] >= LogLevel.info] == [
        ("info", "Our record is published at a network, on 20 nodes"),
        ("warn", "Our record could not be published at a network: away. Next try in 1.0 s."),
        ("info", "Our record is published at a network, on 5 nodes"),
    ]
    assert KEYPAIR.seed.hex() not in repr(logs)


# --- reading back -------------------------------------------------------------------------------------------------


def signed(timestamp: float) -> SignedPacket:
    """A record of ours of another time (seconds)."""
    return SignedPacket.sign(KEYPAIR, ADVERTISED.records(), int(timestamp * 1_000_000))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (None, "a network: it was taken, but is not found there"),
        (signed(NOW - HOUR), "a network: it was taken, but is not found there"),
        (Unavailable("gone again"), "a network: gone again"),
    ],
)
def test_a_record_that_is_not_found_is_published_again(
    stage: Stage, found: SignedPacket | Exception | None, expected: str
) -> None:
    """That a network says it took the record is not enough: it must be there."""
    network = FakeNetwork(found=[found])
    publisher = stage.start(network)
    assert publisher.publication() == Publication(None, expected)
    stage.clock.advance(1)
    assert len(network.published) == 2
    assert publisher.publication() == Publication(NOW + 1)


def test_a_newer_record_is_seen_when_reading_back(stage: Stage) -> None:
    """A few nodes of the DHT may have a newer record that the others do not know."""
    newer = signed(NOW + HOUR)
    network = FakeNetwork(found=[newer])
    publisher = stage.start(network)
    assert publisher.publication() == Publication(
        None, f"a network: a newer record of this key is known there: one of {newer.timestamp}"
    )
    stage.clock.advance(HOUR - 1)
    assert len(network.published) == 1
    stage.clock.advance(1)
    assert publisher.publication() == Publication(NOW + HOUR)


# --- on demand ----------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_published_on_demand(stage: Stage) -> None:
    """Who asks for it has the record published at once, at every network, and hears what each did."""
    one, two = FakeNetwork("one", answers=[1, 7]), FakeNetwork("two", answers=[Unavailable("away")] * 2)
    publisher = stage.start(one, two)
    stage.clock.advance(0.5)
    spread = await publisher.publish_now()
    assert [(outcome.network, outcome.nodes, str(outcome.failure)) for outcome in spread.outcomes] == [
        (one, 7, "None"),
        (two, 0, "away"),
    ]
    assert publisher.publication() == Publication(NOW + 0.5)
    assert len(set(map(bytes, one.published + two.published))) == 1


def test_tries_are_counted(stage: Stage) -> None:
    """The metrics have how often each network took the record and did not, and when one took it last."""
    network = FakeNetwork(answers=[Unavailable("away"), 1, NotMostRecent("no")])
    publisher = stage.start(network)
    stage.clock.advance(1)
    stage.clock.advance(HOUR)
    text = publisher.metrics.render().decode()
    for outcome in ("failed", "published", "outdated"):
        assert f'record_publish_count_total{{outcome="{outcome}",otel_scope_name="pubky_homeserver"}} 1\n' in text
    assert f'record_published_timestamp_seconds{{otel_scope_name="pubky_homeserver"}} {int(NOW) + 1}\n' in text
