"""Keeps the homeserver's own record alive: the packet that turns its key into an address.

The record is signed once, when the program starts, and the same bytes are published again every hour, for the DHT
forgets. Each network has its own loop, so that one which is away does not hold up the others: after a failure it is
tried again soon, then ever more rarely, until it works. What a network took is looked for there, for some nodes of the
DHT keep nothing, and a few may hold something newer. The server runs all the while; `/readyz` shows how it stands.

A network that knows a newer record of our key is not argued with before the next hour: another server runs with the
same key, or the clock was set back, and somebody should look.
"""

import random
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import ClassVar

from attrs import define, field, frozen
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from pkarr.asking import attempt
from pkarr.client import Outcome, Spread
from pkarr.interfaces import INetwork, NetworkError, NotMostRecent, Policy, Unavailable
from pkarr.keys import Keypair
from pkarr.packet import SignedPacket
from pkarr.records import HTTP_PORT, Record, address, at_port, hinting, https
from pkarr.timestamps import Timestamps
from pubky_homeserver.core.health import Publication
from pubky_homeserver.metrics import ServerMetrics

INTERVAL = 3600.0  # seconds: items of the DHT vanish after some hours
FIRST_DELAY = 1.0  # seconds to the second try, at most; doubled after each further failure
LONGEST_DELAY = 300.0  # seconds: how long a network that is back may go unnoticed
PATIENCE = 60.0  # seconds that one try may take; networks have shorter limits of their own

_DIRECT = 1  # priority of the record for clients that speak TLS with raw public keys
_BY_DOMAIN = 10  # of the one for browsers, which cannot
_LOCALHOST = "localhost"


@frozen
class Advertised:
    """Where clients find this homeserver."""

    public_ip: IPv4Address | IPv6Address
    tls_port: int | None
    """Where it answers TLS under its own key; None if it does not."""
    icann_domain: str | None
    """Its name in the ordinary DNS, with HTTPS at port 443; or `localhost`."""
    icann_http_port: int
    """Where it answers plain HTTP, which only clients of `localhost` are told."""

    def records(self) -> list[Record]:
        """The records of the homeserver's packet, in the order that the official one writes."""
        records = [address(".", self.public_ip)]
        if self.icann_domain is not None:
            port = {HTTP_PORT: self.icann_http_port.to_bytes(2, "big")} if self.icann_domain == _LOCALHOST else {}
            records.insert(0, https(".", _BY_DOMAIN, self.icann_domain, port))
        if self.tls_port is not None:
            records.insert(0, https(".", _DIRECT, ".", at_port(self.tls_port) | hinting(self.public_ip)))
        return records


@define(eq=False)
class _Upkeep:
    """One packet at one network: published, repeated, tried again."""

    network: INetwork
    packet: SignedPacket
    clock: IReactorTime
    metrics: ServerMetrics
    interval: float
    jitter: Callable[[], float]
    published: float | None = None
    failure: NetworkError | None = None
    """What went wrong the last time; None if nothing did."""
    _loop: LoopingCall = field(init=False)
    _round: Deferred[None] | None = field(default=None, init=False)
    _stopped: bool = field(default=False, init=False)
    log: ClassVar[Logger] = Logger()

    @property
    def is_outdated(self) -> bool:
        """Whether something newer is known there."""
        return isinstance(self.failure, NotMostRecent)

    def start(self) -> None:
        """Publish now and then every interval."""
        self._loop = LoopingCall(self._begin_round)
        self._loop.clock = self.clock
        self._loop.start(self.interval)

    def stop(self) -> Deferred[None] | None:
        """Leave it. The Deferred fires when the last try has ended."""
        self._stopped = True
        if self._loop.running:
            self._loop.stop()
        if self._round is not None:
            self._round.cancel()
        return self._round

    async def publish_now(self) -> Outcome:
        """Publish once, whatever the loop does."""
        nodes = await self._try()
        return Outcome(self.network, nodes or 0, self.failure)

    def _begin_round(self) -> Deferred[None]:
        self._round = Deferred.fromCoroutine(self._publish())
        self._round.addErrback(self._forgive)
        return self._round

    def _forgive(self, failure: Failure) -> None:
        """Take what ended a round: the loop would end for good with the first failure that it sees."""
        if not failure.check(CancelledError):
            self.log.failure("Unexpected failure at {network}", failure, network=self.network)

    async def _publish(self) -> None:
        """Try until it works, or trying again soon is of no use."""
        longest = FIRST_DELAY
        while await self._try() is None and not self.is_outdated:
            delay = longest * (1 + self.jitter()) / 2
            self.log.warn(
                "Our record could not be published at {network}: {failure}. Next try in {delay:.1f} s.",
                network=self.network,
                failure=self.failure,
                delay=delay,
            )
            await deferLater(self.clock, delay)
            longest = min(2 * longest, LONGEST_DELAY)

    async def _try(self) -> int | None:
        """Publish once. Returns on how many nodes the record is; None if it failed."""
        is_news = self.published is None or self.failure is not None
        try:
            nodes = await self._attempt()
        except NotMostRecent as error:
            self.failure = NotMostRecent(f"a newer record of this key is known there: {error}")
            self.log.error("Our record is not kept at {network}: {failure}", network=self.network, failure=self.failure)
        except NetworkError as error:
            self.failure = error
        else:
            self.published, self.failure = self.clock.seconds(), None
            log = self.log.info if is_news else self.log.debug
            log("Our record is published at {network}, on {nodes} nodes", network=self.network, nodes=nodes)
            self.metrics.record_try("published", self.published)
            return nodes
        self.metrics.record_try("outdated" if self.is_outdated else "failed", self.clock.seconds())
        return None

    async def _attempt(self) -> int:
        """Publish; one that is stopped ends with `CancelledError`, whatever its connection calls that."""
        try:
            return await attempt(self.network, self._exchange(), self.clock, PATIENCE)
        except NetworkError:
            if self._stopped:
                raise CancelledError from None
            raise

    async def _exchange(self) -> int:
        """Publish, and read back what is there now."""
        nodes = await self.network.publish(self.packet)
        found = await self.network.resolve(self.packet.public_key, Policy.NETWORK_ONLY)
        if found is None or self.packet.more_recent_than(found):
            raise Unavailable("it was taken, but is not found there")
        if found.more_recent_than(self.packet):
            raise NotMostRecent(f"one of {found.timestamp}")
        return nodes


@define(eq=False)
class Publisher(Service):
    """Publishes the homeserver's record at every network, at its start and every `interval` seconds."""

    keypair: Keypair
    advertised: Advertised
    networks: Sequence[INetwork]
    clock: IReactorTime
    metrics: ServerMetrics = field(factory=ServerMetrics)
    interval: float = INTERVAL
    jitter: Callable[[], float] = random.random
    """A number from 0 to 1 that spreads the tries of many homeservers after the same outage."""
    packet: SignedPacket | None = field(default=None, init=False)
    """What is published; None before the start."""
    _upkeeps: list[_Upkeep] = field(factory=list, init=False)

    def startService(self) -> None:
        """Sign the record and begin to publish it. What fails there is tried again, never raised here."""
        super().startService()
        timestamp = Timestamps(self.clock.seconds).next()
        packet = SignedPacket.sign(self.keypair, self.advertised.records(), timestamp)
        self.packet = packet
        self._upkeeps = [
            _Upkeep(network, packet, self.clock, self.metrics, self.interval, self.jitter) for network in self.networks
        ]
        for upkeep in self._upkeeps:
            upkeep.start()

    def stopService(self) -> Deferred[None]:
        """Stop publishing; fires when the last try has ended."""
        super().stopService()
        ended = DeferredList([round for upkeep in self._upkeeps if (round := upkeep.stop()) is not None])
        return ended.addCallback(lambda _results: None)

    async def publish_now(self) -> Spread:
        """Publish at every network once, without waiting for the hour, and tell what each did."""
        tries = [Deferred.fromCoroutine(upkeep.publish_now()) for upkeep in self._upkeeps]
        return Spread(tuple(await gatherResults(tries, consumeErrors=True)))

    def publication(self) -> Publication:
        """When the record was last taken, and what is wrong: a newer one somewhere, or no network that takes it."""
        published = max((one.published for one in self._upkeeps if one.published is not None), default=None)
        outdated = [one for one in self._upkeeps if one.is_outdated]
        failed = [one for one in self._upkeeps if one.failure is not None]
        if not self.networks:
            return Publication(None, "there is no network to publish it at")
        if not outdated and len(failed) < len(self.networks):
            return Publication(published)
        return Publication(published, "; ".join(f"{one.network}: {one.failure}" for one in outdated or failed))
