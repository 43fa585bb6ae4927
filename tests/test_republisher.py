"""Publishing the records of users again, on a clock that moves when told."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from attrs import Factory, define, field
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs

from pkarr.builder import Builder
from pkarr.interfaces import UnreadableItem
from pkarr.keys import Keypair
from pkarr.packet import SignedPacket
from pubky_homeserver.core.authority import homeserver_of
from pubky_homeserver.core.errors import StorageFull, StoreAway
from pubky_homeserver.core.health import Republication
from pubky_homeserver.core.records import Account, Totals
from pubky_homeserver.metrics import ServerMetrics
from pubky_homeserver.packets import Packets
from pubky_homeserver.republisher import (
    AT_ONCE,
    ENOUGH,
    FIRST,
    INTERVAL,
    RETRY,
    SPACING,
    TRIES,
    Outcome,
    Republisher,
)
from pubky_homeserver.store.memory import MemoryStore

from .pkarr.networks import Scripted, Simulated

HOMESERVER = Keypair(bytes(32)).public_key
ELSEWHERE = Keypair(b"\x09" * 32).public_key
NOW = 1_764_000_000.0
SIGNED = 1_764_000_000_000_000


def user(number: int) -> Keypair:
    """A user's key."""
    return Keypair(number.to_bytes(32, "big"))


def record(number: int, version: int = 1, homeserver: Any = HOMESERVER) -> SignedPacket:
    """What a user says of where they are."""
    return Builder().https("_pubky", 0, str(homeserver)).sign(user(number), SIGNED + version)


class Store(MemoryStore):
    """A store that can be away, or full."""

    trouble: Exception | None = None

    def tell_trouble(self) -> None:
        """Raise what is the matter."""
        if self.trouble is not None:
            raise self.trouble

    async def accounts(self, after: int, limit: int) -> tuple[list[str], int | None]:
        """See `IAccountStore`."""
        self.tell_trouble()
        return await super().accounts(after, limit)

    async def totals(self) -> Totals:
        """See `IAccountStore`."""
        self.tell_trouble()
        return await super().totals()


@define
class Stage:
    """A homeserver's users, a relay and the DHT."""

    clock: Clock = Factory(Clock)
    store: Store = field(init=False)
    relay: Simulated = field(init=False)
    dht: Simulated = field(init=False)
    metrics: ServerMetrics = Factory(ServerMetrics)
    started: list[Republisher] = Factory(list)

    def __attrs_post_init__(self) -> None:
        self.clock.advance(NOW)
        self.store = Store(self.clock)
        self.relay, self.dht = Simulated(self.clock, "relay"), Simulated(self.clock, "dht")

    async def sign_up(self, *numbers: int) -> None:
        """Make accounts."""
        for number in numbers:
            await self.store.sign_up(Account(user(number).public_key.z32, SIGNED), None, None, False)

    def start(self, jitter: float = 0.5, **other: Any) -> Republisher:
        """A running republisher whose jitter is always the same."""
        republisher = Republisher(
            HOMESERVER,
            self.store,
            Packets(self.store.packets, HOMESERVER.z32),
            [self.relay],
            self.dht,
            self.clock,
            self.metrics,
            jitter=lambda: jitter,
            **other,
        )
        republisher.startService()
        self.started.append(republisher)
        return republisher

    def run_round(self, **other: Any) -> Republisher:
        """One round from its beginning to its end."""
        republisher = self.start(**other)
        self.pass_time(FIRST + 60)
        assert not republisher._working
        return republisher

    def pass_time(self, seconds: float) -> None:
        """Let time pass in small steps."""
        self.clock.pump([0.5] * int(seconds * 2))

    def counted(self) -> dict[str, int]:
        """Outcomes as the metrics tell them."""
        lines = [line for line in self.metrics.render().decode().splitlines() if line.startswith("user_record_count")]
        return {line.split('"')[1]: int(line.rsplit(" ", 1)[1]) for line in lines}

    async def kept(self, number: int) -> bytes | None:
        """What the store keeps of a user."""
        return await self.store.packets.packet(user(number).public_key.z32)


@pytest_twisted.async_yield_fixture
async def stage() -> AsyncIterator[Stage]:
    """Everything at some moment; what was started is stopped, and must leave no timer behind."""
    stage = Stage()
    yield stage
    for republisher in stage.started:
        await republisher.stopService()
    assert not stage.clock.getDelayedCalls()


def know(network: Simulated, *packets: SignedPacket) -> None:
    """Let a network have packets."""
    network.packets.update((packet.public_key.raw, packet) for packet in packets)


def published(network: Simulated) -> list[SignedPacket]:
    """What a network was given."""
    return [packet for _, packet in network.published]


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (record(1), HOMESERVER.z32),
        (Builder().svcb("_pubky", 0, HOMESERVER.z32).sign(user(1), 1), HOMESERVER.z32),
        (
            Builder().txt("_pubky", "x").https("_pubky", 9, "first").svcb("_pubky", 0, "second").sign(user(1), 1),
            "first",
        ),
        (Builder().https("x._pubky", 0, "x").https(".", 0, "x").sign(user(1), 1), None),
        (Builder().sign(user(1), 1), None),
    ],
)
def test_whom_a_packet_names(packet: SignedPacket, expected: str | None) -> None:
    """The first HTTPS or SVCB record of exactly that name counts, whatever its priority."""
    assert homeserver_of(packet) == expected


@pytest_twisted.ensureDeferred
async def test_unchanged_bytes_everywhere(stage: Stage) -> None:
    """A user's record is published at every network as its owner signed it, and kept; a minute after the start."""
    await stage.sign_up(1)
    know(stage.dht, record(1))
    republisher = stage.start()
    stage.pass_time(FIRST - 1)
    assert republisher.republication() is None
    assert stage.dht.resolved == 0
    stage.pass_time(2)
    assert published(stage.dht) == published(stage.relay) == [record(1)]
    assert bytes(published(stage.relay)[0]) == bytes(record(1))
    assert await stage.kept(1) == record(1).relay_payload
    assert republisher.republication() == Republication(NOW + FIRST, False, False)
    assert stage.counted() == {"published": 1}


@pytest_twisted.ensureDeferred
async def test_every_interval(stage: Stage) -> None:
    """Rounds come every four hours from the beginning of the one before."""
    await stage.sign_up(1)
    know(stage.dht, record(1))
    stage.start()
    stage.clock.pump([FIRST, INTERVAL / 2, INTERVAL / 2, INTERVAL])
    assert [moment for moment, _ in stage.dht.published] == [NOW + FIRST + INTERVAL * number for number in range(3)]


SOURCES = ["store", "relay", "relay's cache", "dht"]


@pytest.mark.parametrize("newest", SOURCES)
@pytest_twisted.ensureDeferred
async def test_the_newest_wins_wherever_it_is(stage: Stage, newest: str) -> None:
    """Store, relay, the relay's cache and DHT are looked at; the newest is published everywhere and kept."""
    await stage.sign_up(1)
    versions = {source: record(1, 9 if source == newest else number) for number, source in enumerate(SOURCES)}
    await stage.store.packets.keep_packet(user(1).public_key.z32, versions["store"].relay_payload)
    know(stage.relay, versions["relay"])
    know(stage.dht, versions["dht"])
    stage.relay.caches[user(1).public_key.raw] = versions["relay's cache"]
    stage.run_round()
    assert stage.dht.packets == stage.relay.packets == {user(1).public_key.raw: record(1, 9)}
    assert await stage.kept(1) == record(1, 9).relay_payload
    assert stage.counted() == {"published": 1}


@pytest_twisted.ensureDeferred
async def test_a_record_survives(stage: Stage) -> None:
    """What the whole network forgot comes back from the store."""
    await stage.sign_up(1)
    know(stage.dht, record(1))
    stage.start()
    stage.pass_time(FIRST + 1)
    for network in (stage.dht, stage.relay):
        network.packets.clear()
        network.published.clear()
    stage.clock.advance(INTERVAL)
    assert published(stage.dht) == published(stage.relay) == [record(1)]


@pytest_twisted.ensureDeferred
async def test_who_moved_away_is_left_alone(stage: Stage) -> None:
    """A record that names another homeserver, or none, is not published, but kept: the older one is not the newest."""
    await stage.sign_up(1, 2)
    know(stage.dht, record(1, 2, ELSEWHERE), Builder().txt("x", "y").sign(user(2), SIGNED))
    await stage.store.packets.keep_packet(user(1).public_key.z32, record(1).relay_payload)
    republisher = stage.start()
    stage.pass_time(FIRST + 10)
    assert stage.counted() == {"moved": 2}
    assert await stage.kept(1) == record(1, 2, ELSEWHERE).relay_payload
    stage.dht.packets.clear()
    stage.pass_time(INTERVAL)
    assert stage.counted() == {"moved": 4}
    assert published(stage.dht) == published(stage.relay) == []
    assert republisher.republication() == Republication(NOW + FIRST + INTERVAL, False, False)


@pytest_twisted.ensureDeferred
async def test_nobody_knows_a_record(stage: Stage) -> None:
    """A user without a record is counted and nothing else."""
    await stage.sign_up(1)
    republisher = stage.run_round()
    assert stage.counted() == {"missing": 1}
    assert await stage.kept(1) is None
    assert republisher.republication() == Republication(NOW + FIRST, False, False)


@pytest.mark.parametrize(("seq", "outcome"), [(2, "unreadable"), (1, "published"), (0, "published")])
@pytest_twisted.ensureDeferred
async def test_something_newer_that_is_no_packet(stage: Stage, seq: int, outcome: str) -> None:
    """If what the owner signed last is no packet, we do not bring back an older one; if it is not the last, we do."""
    await stage.sign_up(1)
    await stage.store.packets.keep_packet(user(1).public_key.z32, record(1).relay_payload)
    strange = Scripted("strange", found=UnreadableItem(SIGNED + seq))
    republisher = stage.start(enough=1)
    republisher.dht = strange
    stage.pass_time(FIRST + 10)
    assert stage.counted() == {outcome: 1}
    assert [packet for packet, _ in strange.published] == ([record(1)] if outcome == "published" else [])


class Forgetful(Simulated):
    """A network that takes what it is given, and has nothing."""

    async def publish(self, packet: SignedPacket, replaces: int | None = None) -> int:
        """Take it."""
        self.published.append((self.clock.seconds(), packet))
        return self.nodes


@pytest.mark.parametrize("trouble", ["away", "few nodes", "forgets at once"])
@pytest_twisted.ensureDeferred
async def test_four_tries(stage: Stage, trouble: str) -> None:
    """A try fails if no network answers, too few nodes keep the record, or it is not found after it was published."""
    await stage.sign_up(1)
    await stage.store.packets.keep_packet(user(1).public_key.z32, record(1).relay_payload)
    if trouble == "forgets at once":
        stage.dht, stage.relay = Forgetful(stage.clock, "dht"), Forgetful(stage.clock, "relay")
    stage.dht.is_away = stage.relay.is_away = trouble == "away"
    stage.dht.nodes = stage.relay.nodes = ENOUGH - (trouble == "few nodes")
    with capturedLogs() as logs:
        republisher = stage.run_round(jitter=1.0)
    assert stage.counted() == {"failed": 1}
    tries = [moment - NOW - FIRST for moment, _ in stage.dht.published]
    assert len(tries) == (0 if trouble == "away" else TRIES)
    if tries:
        assert tries == sorted(tries)
        assert tries[-1] - tries[0] >= 0.2 + 0.4 + 0.8
    assert republisher.republication() == Republication(NOW + FIRST, False, True)
    (said,) = [log for log in logs if log["log_level"] is LogLevel.warn]
    assert said["summary"] == "1 of 1: 0 published, 0 missing, 0 moved, 0 unreadable, 1 failed"


@pytest_twisted.ensureDeferred
async def test_one_network_is_enough(stage: Stage) -> None:
    """If a relay is away, or the DHT is, the record is published at the other one."""
    await stage.sign_up(1)
    know(stage.dht, record(1))
    stage.relay.is_away = True
    stage.run_round()
    assert stage.counted() == {"published": 1}
    stage.relay.is_away, stage.dht.is_away = False, True
    stage.pass_time(INTERVAL)
    assert stage.counted() == {"published": 2}
    assert published(stage.relay) == [record(1)]


@pytest_twisted.ensureDeferred
async def test_back_long_before_the_next_round(stage: Stage) -> None:
    """Records that failed while the networks were away are tried again every few minutes, and counted once."""
    await stage.sign_up(*range(1, 31))
    for number in range(1, 31):
        know(stage.dht, record(number))
    stage.dht.is_away = stage.relay.is_away = True
    republisher = stage.start(jitter=1.0)
    stage.pass_time(FIRST + 600)
    found = republisher.republication()
    assert found == Republication(NOW + FIRST, False, True)
    stage.dht.is_away = stage.relay.is_away = False
    back = stage.clock.seconds()
    stage.pass_time(RETRY)
    assert {packet.public_key for _, packet in stage.dht.published} == {
        user(number).public_key for number in range(1, 31)
    }
    assert all(moment <= back + RETRY for moment, _ in stage.dht.published)
    found = republisher.republication()
    assert found == Republication(NOW + FIRST, False, False)
    assert found is not None
    assert found.summary == "30 of 30: 30 published, 0 missing, 0 moved, 0 unreadable, 0 failed"
    stage.pass_time(INTERVAL - 1000)
    assert len(stage.dht.published) == 30


@pytest_twisted.ensureDeferred
async def test_no_second_try_of_what_cannot_end_in_time(stage: Stage) -> None:
    """The next round looks after all accounts anyway: what failed is not tried again shortly before."""
    await stage.sign_up(1)
    know(stage.dht, record(1))
    stage.dht.is_away = stage.relay.is_away = True
    stage.start(jitter=1.0, interval=RETRY)
    stage.pass_time(FIRST + RETRY - 10)
    asked = stage.counted()
    assert asked == {"failed": 1}


@pytest_twisted.ensureDeferred
async def test_back_within_one_try(stage: Stage) -> None:
    """A network that comes back while a record is tried has it."""
    await stage.sign_up(1)
    know(stage.dht, record(1))
    stage.dht.is_away = stage.relay.is_away = True
    stage.start(jitter=1.0)
    stage.clock.advance(FIRST)
    stage.clock.advance(0.1)
    stage.dht.is_away = stage.relay.is_away = False
    stage.clock.advance(0.2)
    assert stage.counted() == {"published": 1}


@pytest_twisted.ensureDeferred
async def test_a_newer_one_met_on_the_way(stage: Stage) -> None:
    """If the owner publishes in the same moment, the newer record wins everywhere and is kept."""
    await stage.sign_up(1)
    know(stage.dht, record(1))
    stage.dht.latency = 1.0
    stage.start()
    stage.clock.advance(FIRST)
    stage.clock.advance(1.0)  # found, and now on its way to the DHT
    know(stage.dht, record(1, 2))
    stage.pass_time(20)
    assert stage.dht.packets == stage.relay.packets == {user(1).public_key.raw: record(1, 2)}
    assert await stage.kept(1) == record(1, 2).relay_payload
    assert stage.counted() == {"published": 1}


@pytest_twisted.ensureDeferred
async def test_a_store_that_is_away(stage: Stage) -> None:
    """A round begins when the store is there; a full one keeps nobody's record from being published."""
    await stage.sign_up(1)
    know(stage.dht, record(1))
    stage.store.trouble = StoreAway()
    stage.start()
    stage.pass_time(FIRST + 60)
    assert published(stage.dht) == []
    stage.store.trouble = None
    stage.pass_time(10)
    assert published(stage.dht) == [record(1)]


@pytest_twisted.ensureDeferred
async def test_a_full_store(stage: Stage) -> None:
    """What cannot be kept is published nevertheless."""

    class Full:
        """A store of packets without room."""

        async def packet(self, pubky: str) -> bytes | None:
            """Nothing."""
            return None

        async def keep_packet(self, pubky: str, packet: bytes, elsewhere: str | None, is_peer: bool) -> None:
            """No room."""
            raise StorageFull

    await stage.sign_up(1)
    know(stage.dht, record(1))
    full: Any = Full()
    stage.start().packets = Packets(full, HOMESERVER.z32)
    stage.pass_time(FIRST + 1)
    assert stage.counted() == {"published": 1}


@pytest_twisted.ensureDeferred
async def test_what_is_no_packet_in_the_store(stage: Stage) -> None:
    """A packet in the store that its owner did not sign is as none, and is replaced by a real one."""
    await stage.sign_up(1, 2)
    for number in (1, 2):
        forged = bytes(64) + record(number).relay_payload[64:]
        await stage.store.packets.keep_packet(user(number).public_key.z32, forged)
    know(stage.dht, record(2, 2))
    with capturedLogs() as logs:
        stage.run_round()
    assert stage.counted() == {"missing": 1, "published": 1}
    assert published(stage.dht) == [record(2, 2)]
    assert len([log for log in logs if log["log_level"] is LogLevel.error]) == 2


@pytest_twisted.ensureDeferred
async def test_no_fault_ends_it(stage: Stage) -> None:
    """A fault of ours with one account costs that account's turn."""
    await stage.sign_up(*range(1, 6))
    for number in range(1, 6):
        know(stage.dht, record(number))
    stage.dht.packets[user(3).public_key.raw] = "nonsense"  # type: ignore[assignment]  # a fault
    with capturedLogs() as logs:
        stage.run_round()
    assert stage.counted() == {"published": 4, "missing": 1}
    assert [log for log in logs if log["log_level"] is LogLevel.critical]


@pytest.mark.parametrize("jitter", [0.0, 0.4, 1.0])
@pytest_twisted.ensureDeferred
async def test_every_account_once(stage: Stage, jitter: float) -> None:
    """Wherever a round begins, it comes to every account once, disabled ones too."""
    await stage.sign_up(*range(1, 231))
    await stage.store.set_disabled(user(7).public_key.z32, True)
    for number in range(1, 231):
        know(stage.dht, record(number))
    stage.start(jitter=jitter)
    stage.pass_time(FIRST + 230 * SPACING * 1.5 + 60)
    names = [packet.public_key for packet in published(stage.dht)]
    assert len(names) == 230
    assert set(names) == {user(number).public_key for number in range(1, 231)}
    assert names.index(user(int(jitter * 230) % 230 + 1).public_key) == 0


@pytest_twisted.ensureDeferred
async def test_twelve_at_a_time(stage: Stage) -> None:
    """However slow the network is, no more than twelve accounts are under way; and they do not begin all at once."""
    await stage.sign_up(*range(1, 31))
    for number in range(1, 31):
        know(stage.dht, record(number))
    stage.dht.latency = 20.0
    stage.start()
    stage.pass_time(FIRST + 4 * SPACING + 1)
    assert stage.dht.busy == 5
    stage.pass_time(400)
    assert stage.dht.busiest == AT_ONCE
    assert stage.counted() == {"published": 30}


@pytest_twisted.ensureDeferred
async def test_ten_thousand_users_within_one_interval(stage: Stage) -> None:
    """With networks that take two seconds for an answer, ten thousand users' records are published in four hours."""
    many = range(1, 10_001)
    await stage.sign_up(*many)
    know(stage.dht, *map(record, many))
    stage.dht.latency = stage.relay.latency = 2.0
    with capturedLogs() as logs:
        republisher = stage.start()
        stage.pass_time(FIRST)
        while stage.clock.seconds() < NOW + FIRST + INTERVAL - 300:
            stage.pass_time(300)
    assert stage.counted() == {"published": 10_000}
    assert stage.relay.packets == stage.dht.packets
    assert republisher.republication() == Republication(NOW + FIRST, False, False)
    assert not [log for log in logs if log["log_level"] > LogLevel.info]
    assert stage.dht.busiest <= AT_ONCE


@pytest_twisted.ensureDeferred
async def test_it_says_that_it_does_not_keep_pace(stage: Stage) -> None:
    """If a round is not over when the next one should begin, log, health and metrics say so, and it goes on."""
    await stage.sign_up(*range(1, 41))
    stage.dht.latency = 29.0
    with capturedLogs() as logs:
        republisher = stage.start(interval=60.0)
        stage.pass_time(FIRST + 60)
        assert republisher.republication() == Republication(NOW + FIRST, False, False)
        stage.pass_time(1)
        assert republisher.republication() == Republication(NOW + FIRST, True, False)
        stage.pass_time(200)
    assert stage.counted()["missing"] >= 40
    late = [log for log in logs if log["log_level"] is LogLevel.warn]
    assert "not published every" in late[0]["log_format"]
    assert "user_record_late_round_count_total" in stage.metrics.render().decode()


@pytest.mark.parametrize("moment", [0.0, FIRST - 1, FIRST + 1, FIRST + 11, FIRST + 1000])
@pytest_twisted.ensureDeferred
async def test_stopping(stage: Stage, moment: float) -> None:
    """It stops at any moment, and nothing goes on afterwards."""
    await stage.sign_up(*range(1, 31))
    stage.dht.latency = 10.0
    with capturedLogs() as logs:
        republisher = stage.start()
        stage.pass_time(moment)
        await republisher.stopService()
    assert not stage.clock.getDelayedCalls()
    assert stage.dht.busy == 0
    assert not [log for log in logs if log["log_level"] > LogLevel.warn]
    before = stage.dht.resolved
    stage.pass_time(INTERVAL)
    assert stage.dht.resolved == before


def test_the_words_of_outcomes() -> None:
    """What the metrics call the outcomes is for ever."""
    assert [outcome.value for outcome in Outcome] == ["published", "missing", "moved", "unreadable", "failed"]
