"""Asking every network on its own what it has of a key."""

import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.python.failure import Failure
from zope.interface import implementer

from pkarr.asking import PATIENCE
from pkarr.builder import Builder
from pkarr.interfaces import ICounting, NetworkError, Unavailable, UnreadableItem
from pkarr.keys import Keypair, PublicKey
from pkarr.packet import SignedPacket
from pkarr.survey import Sighting, survey

from .networks import Simulated

KEYPAIR = Keypair(b"\x03" * 32)
KEY = KEYPAIR.public_key
OLD, NEW = (Builder().txt("_x", str(number)).sign(KEYPAIR, number) for number in (1, 2))


@implementer(ICounting)
class Counting(Simulated):
    """A network that knows how many nodes have a packet."""

    async def count(self, key: PublicKey) -> tuple[SignedPacket | None, int]:
        """Find a packet, on all nodes."""
        packet = await self.resolve(key)
        return packet, self.nodes if packet else 0


class Broken(Simulated):
    """A network that has something else."""

    async def resolve(self, key: PublicKey, policy: object = None) -> SignedPacket | None:
        """Fail."""
        raise UnreadableItem(7)


@pytest_twisted.ensureDeferred
async def test_each_on_its_own() -> None:
    """An older packet somewhere, a network that has none and one that is away: all of it is told, nothing merged."""
    clock = Clock()
    relay, empty, away, dht = Simulated(clock), Simulated(clock), Simulated(clock, is_away=True), Counting(clock)
    relay.packets[KEY.raw], dht.packets[KEY.raw] = OLD, NEW
    broken = Broken(clock)
    relay_saw, empty_saw, away_saw, dht_saw, broken_saw = await survey(KEY, (relay, empty, away, dht, broken), clock)
    assert relay_saw == Sighting(relay, OLD)
    assert empty_saw == Sighting(empty)
    assert (away_saw.network, away_saw.packet, str(away_saw.failure)) == (away, None, "away")
    assert dht_saw == Sighting(dht, NEW, 20)
    assert isinstance(broken_saw.failure, UnreadableItem)
    assert (await survey(KEYPAIR.public_key, (), clock)) == ()


@pytest_twisted.ensureDeferred
async def test_nobody_is_waited_for_without_end() -> None:
    """A network that does not answer is told as such after a while; the others' answers are not lost."""
    clock = Clock()
    slow, fast = Simulated(clock, latency=10 * PATIENCE), Simulated(clock)
    fast.packets[KEY.raw] = NEW
    looking = Deferred.fromCoroutine(survey(KEY, (slow, fast), clock))
    assert not looking.called
    clock.advance(PATIENCE)
    slow_saw, fast_saw = await looking
    assert isinstance(slow_saw.failure, Unavailable)
    assert fast_saw == Sighting(fast, NEW)
    assert isinstance(slow_saw.failure, NetworkError)
    assert not clock.getDelayedCalls()


class Odd(Simulated):
    """A network with a fault of its own."""

    async def resolve(self, key: PublicKey, policy: object = None) -> SignedPacket | None:
        """Fail as no network should."""
        raise ZeroDivisionError


@pytest_twisted.ensureDeferred
async def test_a_fault_in_one_is_not_that_of_all() -> None:
    """What nobody expects of a network is logged and told as its failure; the others' answers are not lost."""
    clock = Clock()
    odd, good = Odd(clock, "odd"), Simulated(clock)
    good.packets[KEY.raw] = NEW
    with capturedLogs() as logged:
        odd_saw, good_saw = await survey(KEY, (odd, good), clock)
    assert (str(odd_saw.failure), good_saw) == ("failed; the log tells why", Sighting(good, NEW))
    assert [(event["log_level"], str(event["network"])) for event in logged] == [(LogLevel.critical, "odd")]
    assert logged[0]["log_failure"].check(ZeroDivisionError)


def test_nobody_waits_any_longer() -> None:
    """Who stops waiting stops the questions too, and is not given half of an answer."""
    clock = Clock()
    slow, fast = Simulated(clock, latency=1), Simulated(clock)
    looking = Deferred.fromCoroutine(survey(KEY, (slow, fast), clock))
    ended: list[object] = []
    looking.addBoth(ended.append)
    looking.cancel()
    assert [isinstance(one, Failure) for one in ended] == [True]
    assert (slow.busy, clock.getDelayedCalls()) == (0, [])
