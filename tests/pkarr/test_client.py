"""Relays and the DHT as one network, on a clock that moves when told."""

from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from pkarr.asking import PATIENCE
from pkarr.builder import Builder
from pkarr.client import Client
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
from pkarr.keys import Keypair
from pkarr.packet import SignedPacket

from .networks import Found, Scripted

T = TypeVar("T")
KEYPAIR = Keypair(b"\x07" * 32)
KEY = KEYPAIR.public_key
TTL = 600
NOW = 1_764_000_000.0
FIRST = 1_764_000_000_000_000


def version(number: int, keypair: Keypair = KEYPAIR) -> SignedPacket:
    """The packet that a key signs as its first, second, … one."""
    return Builder().txt("version", str(number), TTL).sign(keypair, FIRST + number)


V1, V2, V3 = version(1), version(2), version(3)


@define
class Stage:
    """A client with two relays and the DHT."""

    one: Scripted = field(factory=lambda: Scripted("one"))
    two: Scripted = field(factory=lambda: Scripted("two"))
    dht: Scripted = field(factory=lambda: Scripted("dht"))
    clock: Clock = field(factory=Clock)
    client: Client = field(init=False)

    @client.default
    def _make_client(self) -> Client:
        self.clock.advance(NOW)
        return Client(self.clock, [self.one, self.two], self.dht)

    def networks(self) -> list[Scripted]:
        """All three."""
        return [self.one, self.two, self.dht]

    def ask(self, policy: Policy = Policy.CACHE_FIRST) -> "Deferred[SignedPacket | None]":
        """Ask for the key."""
        return Deferred.fromCoroutine(self.client.resolve(KEY, policy))

    def resolve(self, policy: Policy = Policy.CACHE_FIRST) -> SignedPacket | None:
        """Ask for the key where no network lets us wait."""
        return now(self.client.resolve(KEY, policy))

    def remember(self, packet: SignedPacket, age: float = 0) -> None:
        """Let the client see a packet, so many seconds ago."""
        found = self.one.found
        self.one.found = packet
        assert self.resolve(Policy.NETWORK_ONLY) is packet
        self.one.found = found
        self.clock.advance(age)
        for network in self.networks():
            network.asked.clear()


@pytest.fixture
def stage() -> Iterator[Stage]:
    """A client; at the end it waits for nothing."""
    stage = Stage()
    yield stage
    assert not stage.clock.getDelayedCalls()


def now(work: "Coroutine[Deferred[Any], Any, T]") -> T:
    """The result of what need not wait."""
    return result(Deferred.fromCoroutine(work))


def result(deferred: "Deferred[T]") -> T:
    """The result that is there."""
    results: list[T | Failure] = []
    deferred.addBoth(results.append)
    assert results, "there is no result yet"
    ended: Any = results[0]
    if isinstance(ended, Failure):
        ended.raiseException()
    return ended  # type: ignore[no-any-return] # it is T, the failure has been raised


def test_a_client_is_a_network(stage: Stage) -> None:
    """Relays and DHT together have all that the port asks for."""
    verifyObject(INetwork, stage.client)


@pytest.mark.parametrize("age", [0, TTL - 1])
def test_a_fresh_packet_is_used(stage: Stage, age: int) -> None:
    """For its time to live a packet is answered from memory, and no network is asked."""
    stage.remember(V1, age)
    assert stage.resolve() is V1
    assert [network.asked for network in stage.networks()] == [[], [], []]


def test_an_old_packet_is_asked_for_again(stage: Stage) -> None:
    """When its time is over every network is asked; the same packet again is good for as long again."""
    stage.remember(V1, TTL)
    stage.dht.found = V1
    assert stage.resolve() == V1
    assert [network.asked for network in stage.networks()] == [[Policy.CACHE_FIRST]] * 3
    stage.clock.advance(TTL - 1)
    assert stage.resolve() == V1
    assert len(stage.dht.asked) == 1


def test_the_cache_alone(stage: Stage) -> None:
    """CACHE_ONLY takes what is here, however old; else the newest of the relays' caches; the DHT is not asked."""
    stage.one.found, stage.two.found, stage.dht.found = V1, V2, V3
    assert stage.resolve(Policy.CACHE_ONLY) is V2
    assert [network.asked for network in stage.networks()] == [[Policy.CACHE_ONLY], [Policy.CACHE_ONLY], []]
    stage.clock.advance(10 * TTL)
    assert stage.resolve(Policy.CACHE_ONLY) is V2
    assert len(stage.one.asked) == 1


def test_the_first_good_answer_wins(stage: Stage) -> None:
    """CACHE_FIRST does not wait for the slow; what they have is known from then on."""
    slow: Deferred[Found] = Deferred()
    stage.one.found, stage.dht.found = slow, V1
    assert stage.resolve() is V1
    slow.callback(V2)
    assert stage.resolve() is V2
    assert len(stage.one.asked) == 1


def test_an_older_answer_does_not_count(stage: Stage) -> None:
    """Who knows a newer packet waits on, and if nobody has it there is none: nobody is led back."""
    stage.remember(V2, TTL)
    slow: Deferred[Found] = Deferred()
    stage.one.found, stage.two.found, stage.dht.found = V1, None, slow
    asking = stage.ask()
    assert not asking.called
    slow.callback(V1)
    assert result(asking) is None
    assert stage.resolve(Policy.NETWORK_ONLY) is None
    stage.dht.found = V3
    assert stage.resolve() is V3
    assert stage.resolve(Policy.CACHE_ONLY) is V3


def test_the_newest_of_all(stage: Stage) -> None:
    """NETWORK_ONLY asks every network whatever is known, waits for all and takes the newest."""
    stage.remember(V1)
    slow: Deferred[Found] = Deferred()
    stage.one.found, stage.two.found, stage.dht.found = V2, V1, slow
    asking = stage.ask(Policy.NETWORK_ONLY)
    assert not asking.called
    slow.callback(V3)
    assert result(asking) is V3
    assert [network.asked for network in stage.networks()] == [[Policy.NETWORK_ONLY]] * 3


@pytest.mark.parametrize("policy", [Policy.CACHE_FIRST, Policy.NETWORK_ONLY])
def test_what_becomes_known_meanwhile(stage: Stage, policy: Policy) -> None:
    """If a newer packet is published while we ask, the answer is not the older one that a network still had."""
    slow: Deferred[Found] = Deferred()
    stage.dht.found = slow
    asking = stage.ask(policy)
    assert now(stage.client.publish(V3)) == 20
    slow.callback(V2)
    assert result(asking) is None
    assert stage.resolve() is V3


def test_a_better_one_becomes_known_after_a_good_one(stage: Stage) -> None:
    """A packet that was found counts no more when a newer one was published before all networks had answered."""
    slow: Deferred[Found] = Deferred()
    stage.one.found, stage.dht.found = V1, slow
    asking = stage.ask(Policy.NETWORK_ONLY)
    now(stage.client.publish(V3))
    slow.callback(None)
    assert result(asking) is V3


@pytest.mark.parametrize("policy", [Policy.CACHE_FIRST, Policy.NETWORK_ONLY])
def test_something_newer_that_is_no_packet(stage: Stage, policy: Policy) -> None:
    """What the key's owner put last counts, packet or not; what he put before a packet does not."""
    stage.two.found = UnreadableItem(V2.timestamp)
    assert isinstance(failure(stage.ask(policy)), UnreadableItem)
    slow: Deferred[Found] = Deferred()
    stage.dht.found = slow
    asking = stage.ask(policy)
    slow.callback(V1)
    error = failure(asking)
    assert isinstance(error, UnreadableItem)
    assert error.seq == V2.timestamp
    assert isinstance(failure(stage.ask(policy)), UnreadableItem)  # the packet was seen, and is not fresh
    stage.dht.found, stage.one.found = UnreadableItem(V1.timestamp), V3
    assert stage.resolve(policy) is V3
    stage.one.found = None
    stage.clock.advance(TTL)
    assert stage.resolve(policy) is None


def failure(deferred: "Deferred[Any]") -> Exception:
    """How something failed."""
    with pytest.raises(NetworkError) as caught:
        result(deferred)
    return caught.value


@pytest.mark.parametrize("policy", list(Policy))
def test_one_network_is_enough(stage: Stage, policy: Policy) -> None:
    """Networks that fail do not matter as long as one answers, be it that there is nothing."""
    stage.one.found = Unavailable("away")
    stage.dht.found = ZeroDivisionError()
    with capturedLogs() as logs:
        assert stage.resolve(policy) is None
        stage.two.found = V1
        assert stage.resolve(policy) is V1
    assert {log["log_level"] for log in logs} == (set() if policy is Policy.CACHE_ONLY else {LogLevel.critical})


@pytest.mark.parametrize("policy", [Policy.CACHE_FIRST, Policy.NETWORK_ONLY])
def test_all_networks_fail(stage: Stage, policy: Policy) -> None:
    """If none answers, each says why; a packet of another key is no answer."""
    stage.one.found, stage.two.found = Unavailable("away"), version(1, Keypair.random())
    stage.dht.found = UnexpectedAnswer("nonsense")
    error = failure(stage.ask(policy))
    assert isinstance(error, Unavailable)
    assert str(error) == "one: away; two: a packet of another key; dht: nonsense"


def test_without_a_network() -> None:
    """A client of nothing finds nothing and publishes nowhere."""
    client = Client(Clock())
    assert now(client.resolve(KEY)) is None
    with pytest.raises(Unavailable, match="there is no network"):
        now(client.publish(V1))
    assert now(client.resolve(KEY)) is None


def test_a_network_has_its_time(stage: Stage) -> None:
    """A network that does not answer is left after half a minute."""
    silent: Deferred[Found] = Deferred()
    stage.dht.found = silent
    asking = stage.ask(Policy.NETWORK_ONLY)
    stage.clock.advance(PATIENCE - 1)
    assert not asking.called
    stage.clock.advance(1)
    assert result(asking) is None
    assert stage.dht.cancelled == 1
    stage.dht.nodes = Deferred()
    spreading = Deferred.fromCoroutine(stage.client.spread(V1))
    stage.clock.advance(PATIENCE)
    outcome = result(spreading).outcomes[2]
    assert str(outcome.failure) == "no answer within 30 s"


def test_who_asks_the_same_waits_for_the_same(stage: Stage) -> None:
    """A key is asked for once at a time for each policy, whoever wants to know; then anew."""
    slow: Deferred[Found] = Deferred()
    stage.dht.found = slow
    asking = [stage.ask() for _ in range(5)]
    other = stage.ask(Policy.NETWORK_ONLY)
    assert stage.one.asked == [Policy.CACHE_FIRST, Policy.NETWORK_ONLY]
    slow.callback(V1)
    assert [result(one) for one in (*asking, other)] == [V1] * 6
    stage.dht.found = V2
    assert stage.resolve(Policy.NETWORK_ONLY) is V2


def test_one_stops_waiting(stage: Stage) -> None:
    """Who stops waiting stops nobody else; when nobody waits the networks are left, and the next who asks begins."""
    slow: Deferred[Found] = Deferred()
    stage.dht.found = slow
    first, second = stage.ask(), stage.ask()
    first.cancel()
    with pytest.raises(CancelledError):
        result(first)
    assert stage.dht.cancelled == 0
    second.cancel()
    with pytest.raises(CancelledError):
        result(second)
    assert stage.dht.cancelled == 1
    stage.dht.found = V1
    assert stage.resolve() is V1


def test_one_who_got_the_answer_cancels_another(stage: Stage) -> None:
    """What one does with the answer does not spoil it for others."""
    slow: Deferred[Found] = Deferred()
    stage.dht.found = slow
    first = stage.ask()
    second, third = stage.ask(), stage.ask()
    first.addCallback(lambda _found: second.cancel())
    slow.callback(V1)
    with pytest.raises(CancelledError):
        result(second)
    assert result(third) is V1


def test_closing(stage: Stage) -> None:
    """A client that is closed waits for nothing any more, also not for what came too late to be the answer."""
    slow: Deferred[Found] = Deferred()
    stage.one.found, stage.dht.found = V1, slow
    assert stage.resolve() is V1
    waiting = stage.ask(Policy.NETWORK_ONLY)
    stage.client.close()
    with pytest.raises(CancelledError):
        result(waiting)
    assert stage.dht.cancelled == 2
    stage.client.close()


def test_published_everywhere(stage: Stage) -> None:
    """A packet goes to every network, with what it replaces; each has its result, and the highest number counts."""
    stage.one.nodes, stage.two.nodes, stage.dht.nodes = 3, Unavailable("away"), 12
    spread = now(stage.client.spread(V2, replaces=V1.timestamp))
    assert [(str(one.network), one.nodes, str(one.failure)) for one in spread.outcomes] == [
        ("one", 3, "None"),
        ("two", 0, "away"),
        ("dht", 12, "None"),
    ]
    assert (spread.nodes, spread.failure) == (12, None)
    assert stage.dht.published == [(V2, V1.timestamp)]
    assert now(stage.client.publish(V3)) == 12
    assert stage.resolve() is V3
    assert not stage.one.asked


@pytest.mark.parametrize(
    ("nodes", "error"),
    [
        ((NotMostRecent("x"), 5, 5), None),
        ((NotMostRecent("x"), 5, Unavailable("x")), NotMostRecent),
        ((NotMostRecent("x"), NotMostRecent("x"), 5), NotMostRecent),
        ((Conflict("x"), Unavailable("x"), Unavailable("x")), Conflict),
        ((Unavailable("x"), PacketRefused("x"), Unavailable("x")), Unavailable),
        ((PacketRefused("x"),) * 3, PacketRefused),
        ((Unavailable("x"), Unavailable("x"), 1), None),
        ((ZeroDivisionError(),) * 3, Unavailable),
    ],
)
def test_what_counts_as_published(
    stage: Stage, nodes: tuple[int | Exception, ...], error: type[Exception] | None
) -> None:
    """One network is enough, unless as many say that they know a newer packet. What is not published is not known."""
    for network, does in zip(stage.networks(), nodes, strict=True):
        network.nodes = does
    with capturedLogs():
        if error is None:
            now(stage.client.publish(V1))
        else:
            assert type(failure(Deferred.fromCoroutine(stage.client.publish(V1)))) is error
    assert stage.resolve(Policy.CACHE_ONLY) == (V1 if error is None else None)


def test_what_is_known_to_be_old_is_not_published(stage: Stage) -> None:
    """Nobody is asked to keep a packet if a newer one is known here, or one that it was not to replace."""
    stage.remember(V2)
    with pytest.raises(NotMostRecent):
        now(stage.client.publish(V1))
    with pytest.raises(Conflict):
        now(stage.client.publish(V3, replaces=V1.timestamp))
    assert stage.one.published == []
    assert now(stage.client.publish(V2, replaces=V1.timestamp)) == 20  # once more
    assert now(stage.client.publish(V3, replaces=V2.timestamp)) == 20


def test_a_publication_is_cancelled(stage: Stage) -> None:
    """Who stops waiting for a publication stops it."""
    stage.dht.nodes = Deferred()
    publishing = Deferred.fromCoroutine(stage.client.publish(V1))
    publishing.cancel()
    with pytest.raises(CancelledError):
        result(publishing)
    assert stage.dht.cancelled == 1


def test_memory_has_an_end() -> None:
    """So many packets are known and no more; the longest unused ones are forgotten."""
    network = Scripted()
    client = Client(Clock(), [network], capacity=2)
    keys = [Keypair(bytes([number]) * 32) for number in range(3)]
    for keypair in keys:
        now(client.publish(version(1, keypair)))
        now(client.resolve(keys[0].public_key))
    found = [now(client.resolve(keypair.public_key, Policy.CACHE_ONLY)) for keypair in keys]
    assert [packet is not None for packet in found] == [True, False, True]


STEPS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 9), min_size=3, max_size=3),
        st.sampled_from(["resolve", "resolve", "publish", "wait"]),
        st.sampled_from(Policy),
        st.integers(1, 9),
    ),
    max_size=30,
)
VERSIONS: dict[int, Found] = {number: version(number) for number in range(1, 9)} | {0: None, 9: Unavailable("away")}


@given(STEPS)
def test_never_back(steps: list[tuple[list[int], str, Policy, int]]) -> None:
    """Whatever networks have and whoever publishes, no answer is older than one before it."""
    stage, newest = Stage(), 0
    for found, step, policy, number in steps:
        for network, one in zip(stage.networks(), found, strict=True):
            network.found = VERSIONS[one]
        if step == "wait":
            stage.clock.advance(TTL / 2)
            continue
        try:
            if step == "resolve":
                answer = stage.resolve(policy)
            else:
                answer = version(number)
                now(stage.client.publish(answer))
        except NetworkError:
            continue
        if answer is not None:
            assert answer.timestamp >= newest
            newest = answer.timestamp
