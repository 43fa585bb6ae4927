"""Orders to peers: that they erase their copies of an account of ours.

An order is remembered until each peer has given its receipt, however long it is away: each peer is asked on its own,
again and again, and at once when it asks something of us.
"""

import random
from collections.abc import Callable, Mapping
from typing import ClassVar

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from pubky_homeserver.core.erasing import Order
from pubky_homeserver.core.errors import InvalidRequest, PeerError, Refused
from pubky_homeserver.core.peers import Peer
from pubky_homeserver.interfaces import IErasureStore, ILogStore, IPeer
from pubky_homeserver.packets import Packets, home_of

FIRST_DELAY = 1.0
"""Seconds until a peer is asked again that did not obey; doubled after each further time."""

LONGEST_DELAY = 300.0

REMEMBERED = 30 * 86_400
"""Seconds that a receipt is shown to the operator."""


@define(eq=False)
class Orders(Service):
    """Gives orders; from its start on they are carried out. `sources`: the peers that can be asked, by their keys."""

    homeserver: str
    peers: Mapping[str, Peer]
    sources: Mapping[str, IPeer]
    store: IErasureStore
    logs: ILogStore
    packets: Packets
    clock: IReactorTime
    jitter: Callable[[], float] = random.random
    """A number from 0 to 1."""
    failures: dict[tuple[str, str], str] = field(factory=dict, init=False)
    """Peer and account → why an order is not obeyed yet."""
    known: tuple[Order, ...] = field(default=(), init=False)
    """All orders, as they were at the last look."""
    _running: dict[str, Deferred[None]] = field(factory=dict, init=False)
    # Peer → what is done with it.
    _again: set[str] = field(factory=set, init=False)
    # Peers that are asked once more at once.
    _resting: dict[str, Deferred[None]] = field(factory=dict, init=False)
    _starting: Deferred[None] | None = field(default=None, init=False)
    log: ClassVar[Logger] = Logger()

    async def erase(self, pubky: str) -> list[Order]:
        """Order all peers to erase what they have of an account. Raises `InvalidRequest`, `StoreAway`.

        Also those to whom it is not offered: it may have been once.
        """
        standing, packet = await self.logs.standing(pubky, False), await self.packets.of(pubky)
        if standing is None or (packet is not None and home_of(packet) not in (None, self.homeserver)):
            raise InvalidRequest("No account of this key lives here: only its homeserver may order that")
        position, now = standing.position, int(self.clock.seconds() * 1_000_000)
        given = [
            Order(key, pubky, position.log_id, position.seq, now)
            for key, peer in self.peers.items()
            if not peer.official
        ]
        for one in given:
            await self.store.order(one)
        await self._look()
        for one in given:
            self.begin(one.peer)
        return given

    def status(self) -> list[dict[str, object]]:
        """Every order, for the operator; `receipt` is 0 and `failure` a sentence, or null, as long as it is open."""
        return [
            {
                "peer": self.peers[one.peer].name if one.peer in self.peers else one.peer,
                "pubky": one.pubky,
                "ordered": one.ordered // 1_000_000,
                "receipt": one.receipt // 1_000_000,
                "failure": None if one.receipt else self.failures.get((one.peer, one.pubky)),
            }
            for one in self.known
        ]

    def begin(self, key: str) -> None:
        """Ask a peer now, if there is an open order for it: one was given, or the peer is back."""
        if key not in self.sources or not self.running or not any(one.peer == key for one in self._open()):
            return
        if key in self._running:
            self._again.add(key)
            resting = self._resting.get(key)
            if resting is not None and not resting.called:
                resting.callback(None)
            return
        running = self._running[key] = Deferred.fromCoroutine(self._run(key))
        running.addErrback(self._end)
        running.addBoth(self._finish, key)

    def startService(self) -> None:
        """Begin with all that is open."""
        super().startService()
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addErrback(self._end)

    def stopService(self) -> Deferred[None]:
        """Stop; fires when nothing is under way any more."""
        super().stopService()
        ending = [one for one in (self._starting, *self._running.values()) if one is not None]
        for one in ending:
            one.cancel()
        return DeferredList(ending, consumeErrors=True).addCallback(lambda _results: None)

    async def _start(self) -> None:
        while True:
            try:
                await self._look()
                for key in self.sources:
                    self.begin(key)
            except Refused as error:
                self.log.debug("Orders cannot be read: {reason}", reason=str(error))
            await deferLater(self.clock, LONGEST_DELAY)  # another process may have given one

    async def _look(self) -> None:
        """Read all orders, and forget receipts that are old."""
        found, before = await self.store.orders(), (self.clock.seconds() - REMEMBERED) * 1_000_000
        for one in found:
            if one.receipt and one.receipt < before:
                await self.store.drop_order(one)
        self.known = tuple(one for one in found if not one.receipt or one.receipt >= before)

    def _open(self) -> list[Order]:
        return [one for one in self.known if not one.receipt]

    async def _run(self, key: str) -> None:
        """Ask a peer until nothing is open any more."""
        failures = 0
        while open_ones := [one for one in self._open() if one.peer == key]:
            self._again.discard(key)
            try:
                obeyed = [await self._tell(one) for one in open_ones]
                await self._look()
            except Refused as error:
                self.log.debug("Orders cannot be read: {reason}", reason=str(error))
                obeyed = [False]
            failures = 0 if all(obeyed) else failures + 1
            if failures and key not in self._again:
                await self._rest(key, failures)

    async def _tell(self, order: Order) -> bool:
        """Give one order; whether it is obeyed. Who obeys may have all that was written until now."""
        who = order.peer, order.pubky
        standing = await self.logs.standing(order.pubky, False)
        at = (order.log_id, order.seq) if standing is None else (standing.position.log_id, standing.position.seq)
        try:
            obeyed = await self.sources[order.peer].erase(order.pubky, *at)
        except PeerError as error:
            self.failures[who] = str(error)
            return False
        self.failures.pop(who, None)
        self.log.info("{peer} has erased {pubky}: {how}", peer=order.peer, pubky=order.pubky, how=obeyed.value)
        await self.store.settle(order, int(self.clock.seconds() * 1_000_000))
        return True

    async def _rest(self, key: str, failures: int) -> None:
        delay = min(FIRST_DELAY * 2.0 ** min(failures - 1, 20), LONGEST_DELAY) * (1 + self.jitter()) / 2
        resting = self._resting[key] = Deferred()
        resting.addTimeout(delay, self.clock, lambda _result, _seconds: None)
        try:
            await resting
        finally:
            del self._resting[key]

    def _finish(self, _result: object, key: str) -> None:
        self._running.pop(key, None)
        if key in self._again:
            self._again.discard(key)
            self.begin(key)

    def _end(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("Orders are not given any more", failure)
