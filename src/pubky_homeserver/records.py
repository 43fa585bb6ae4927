"""The records that this homeserver keeps alive in the network: its own, and those of its users."""

from collections.abc import Callable, Iterator
from typing import ClassVar

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pkarr.client import Spread
from pkarr.interfaces import INetwork
from pkarr.keys import Keypair, PublicKey
from pkarr.survey import Sighting, survey
from pubky_homeserver.core.errors import Refused
from pubky_homeserver.core.health import Check
from pubky_homeserver.interfaces import IAccountStore
from pubky_homeserver.metrics import Asked, ServerMetrics
from pubky_homeserver.packets import Packets
from pubky_homeserver.publisher import Advertised, Publisher
from pubky_homeserver.republisher import ENOUGH, Republisher

SHORTEST_INTERVAL = 1800
"""Seconds between two rounds over the records of users, at least: the network is everybody's."""

SENSIBLE_INTERVAL = 3600
"""Seconds: fewer are possible, and of no use."""


@define(eq=False)
class Records(Service):
    """Publishes them, and says how that goes. `interval`: seconds between two rounds over the users; 0 for none."""

    keypair: Keypair
    advertised: Advertised
    relays: tuple[INetwork, ...]
    dht: INetwork | None
    accounts: IAccountStore
    packets: Packets
    clock: IReactorTime
    metrics: ServerMetrics
    interval: float
    enough: int = ENOUGH
    """Nodes that must keep the record of a user."""
    known: Callable[[], int] = lambda: 0
    """How many nodes of the DHT we know."""
    _own: Publisher = field(init=False)
    _users: Republisher | None = field(init=False)
    _keeping: Deferred[None] = field(init=False, factory=lambda: succeed(None))
    # Of our own record, for peers.
    log: ClassVar[Logger] = Logger()

    @_own.default
    def _make_own(self) -> Publisher:
        return Publisher(self.keypair, self.advertised, self._networks, self.clock, self.metrics)

    @_users.default
    def _make_users(self) -> Republisher | None:
        if not self.interval:
            return None
        return Republisher(
            self.keypair.public_key,
            self.accounts,
            self.packets,
            self.relays,
            self.dht,
            self.clock,
            self.metrics,
            max(self.interval, SHORTEST_INTERVAL),
            self.enough,
        )

    @property
    def _networks(self) -> tuple[INetwork, ...]:
        return self.relays if self.dht is None else (*self.relays, self.dht)

    def startService(self) -> None:
        """Begin."""
        super().startService()
        if 0 < self.interval < SENSIBLE_INTERVAL:
            self.log.warn(
                "pkdns.user_keys_republisher_interval = {interval:g} is short: the records of users are published "
                "every {used:g} s, which burdens the network and keeps them no better than every four hours does",
                interval=self.interval,
                used=max(self.interval, SHORTEST_INTERVAL),
            )
        self._own.startService()
        self._keeping = Deferred.fromCoroutine(self._keep_own())
        if self._users is not None:
            self._users.startService()

    def stopService(self) -> Deferred[None]:
        """Stop; fires when nothing is under way any more."""
        super().stopService()
        self._keeping.cancel()
        ending = [self._own.stopService(), self._keeping]
        if self._users is not None:
            ending.append(self._users.stopService())
        return gatherResults(ending, consumeErrors=True).addCallback(lambda _results: None)

    async def _keep_own(self) -> None:
        """Keep our own record, for peers that ask for it."""
        try:
            if self._own.packet is not None:
                await self.packets.learn(self._own.packet)
        except Refused as reason:
            self.log.debug("Our own record is not kept: {reason}", reason=str(reason))
        except CancelledError:
            pass

    async def publish_now(self) -> Spread:
        """Publish our own record at every network at once, and tell what each did."""
        return await self._own.publish_now()

    async def survey(self, key: PublicKey) -> tuple[Sighting, ...]:
        """What each network has of a key."""
        return await survey(key, self._networks, self.clock)

    def numbers(self) -> Iterator[Asked]:
        """How old they are, for whoever measures; nothing of what was not published yet."""
        now, own = self.clock.seconds(), self._own.publication().published
        if own is not None:
            meaning = "Time since a network last took the homeserver's record"
            yield Asked("record_age_seconds", meaning, {"": max(0.0, now - own)})
        oldest = None if self._users is None else self._users.oldest
        if oldest is not None:
            meaning = "Time since the record of a user was published whose turn was the longest ago, at most"
            yield Asked("user_record_age_seconds", meaning, {"": max(0.0, now - oldest)})

    def checks(self) -> dict[str, Check]:
        """How it goes, by name."""
        now = self.clock.seconds()
        checks = {"record": self._own.publication().check(now)}
        users = self._users.republication() if self._users is not None else None
        if users is not None:
            checks["user records"] = users.check(now)
        if self.dht is not None:
            known = self.known()
            checks["dht"] = Check(known > 0, f"{known or 'no'} other node{'' if known == 1 else 's'} known")
        return checks
