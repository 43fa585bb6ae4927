"""Whether accounts live at a peer, as their newest records say: no record, no copy.

A peer can name any key, and each that is looked up costs us, and the networks, more than it costs the peer to name it.
So look-ups are few in a second, whatever it names; and where the records that we and the peer have say already that the
account lives elsewhere, the networks are not asked: who took an account over has the record that says so.

An account whose record nobody has shown yet waits for its turn, and holds up nothing meanwhile. A copy that is followed
already goes on while the networks are asked: what they have is learned when it comes, as from anybody else.
"""

from sys import intern
from typing import ClassVar, NoReturn

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from pkarr.interfaces import INetwork, NetworkError
from pkarr.keys import InvalidPublicKey, PublicKey
from pkarr.packet import InvalidSignedPacket, SignedPacket, newest_of
from pubky_homeserver.core.errors import PeerBroken, PeerError, PeerRefused, Refused
from pubky_homeserver.core.peers import Peer
from pubky_homeserver.interfaces import IPeer
from pubky_homeserver.packets import Packets, home_of

BELIEVED = 600.0
"""Seconds for which it is believed that an account lives at the peer."""

PACE = 10.0
"""Look-ups in a second that a peer's accounts may cost the networks, once `AT_FIRST` are used up."""

AT_FIRST = 100
"""Look-ups that they may cost at once, after a while without any."""

MOST = 100_000
"""Accounts of which it is known when they were looked up, or will be."""


class NotItsTurn(PeerError):
    """The networks are asked about an account later: in `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__("its record is looked up later")
        self.seconds = seconds


@define(eq=False)
class LookUps:
    """Looks up the records of a peer's accounts."""

    peer: Peer
    source: IPeer
    packets: Packets
    network: INetwork
    clock: IReactorTime
    _seen: dict[str, float] = field(factory=dict, init=False)
    # Account → when its newest packet named the peer (seconds).
    _asking: set[str] = field(factory=set, init=False)
    # Accounts that are looked up now.
    _turns: dict[str, float] = field(factory=dict, init=False)
    # New account → when it may be looked up (seconds).
    _next: float = field(default=0.0, init=False)
    # When the turn after all of these comes, if they are taken one by one (seconds).
    _beside: set[Deferred[None]] = field(factory=set, init=False)
    # Look-ups for which nobody waits.
    log: ClassVar[Logger] = Logger()

    def forget(self, pubky: str) -> None:
        """Believe nothing of an account any more."""
        self._seen.pop(pubky, None)

    def forget_all(self) -> None:
        """The same of all."""
        self._seen.clear()

    def stop(self) -> Deferred[None]:
        """End the look-ups for which nobody waits; fires when none is under way any more."""
        ending = [*self._beside]
        for one in ending:
            one.cancel()
        return DeferredList(ending, consumeErrors=True).addCallback(lambda _results: None)

    async def check(self, pubky: str, has_copy: bool) -> SignedPacket | None:
        """See now and then that the newest packet that anybody has names the peer. `has_copy`: we have one from it.

        One that names nobody ends no copy. Returns what was found, if it was looked for. Raises `PeerRefused`, and
        `NotItsTurn`.
        """
        if has_copy and self._seen.get(pubky, -BELIEVED) + BELIEVED > self.clock.seconds():
            return None
        key = _key_of(pubky)
        kept = await self.packets.of(pubky)
        newest = newest_of([kept, self._read(key, await self.source.packet(pubky))])
        home = None if newest is None else home_of(newest)
        if home not in (None, self.peer.key):
            await self._refuse(newest)
        if has_copy and newest is not None:
            self._ask_beside(key)
            return newest
        newest, is_sure = await self._ask_first(key, newest)
        if newest is None or home_of(newest) != self.peer.key:
            await self._refuse(newest)
        if is_sure:
            self._believe(pubky)
        return newest

    async def _refuse(self, newest: SignedPacket | None) -> NoReturn:
        """Learn the packet that names another homeserver, or none. Raises `PeerRefused`."""
        if newest is not None:
            await self.packets.learn(newest)
        raise PeerRefused("no record says that the account lives there")

    def _believe(self, pubky: str) -> None:
        if len(self._seen) >= MOST:
            self._seen.clear()
        self._seen[intern(pubky)] = self.clock.seconds()  # the copy has the same text

    async def _ask_first(self, key: PublicKey, known: SignedPacket | None) -> tuple[SignedPacket | None, bool]:
        """The newest packet of one that is known and what the networks have; and whether those were asked.

        Where a record names the peer already none waits for its turn: it goes on with what is known.
        """
        if key.z32 in self._asking:  # for its other log, and this one needs no turn of its own
            return newest_of([known, await self._ask(key)]), True
        wait = self._wait(key.z32)
        if wait > 0 and known is not None:
            return known, False
        if wait > 0:
            raise NotItsTurn(wait)
        self._asking.add(key.z32)
        try:
            return newest_of([known, await self._ask(key)]), True
        finally:
            self._asking.discard(key.z32)

    def _ask_beside(self, key: PublicKey) -> None:
        """Ask the networks while the copy is followed; if its turn has not come, that is for another time."""
        if key.z32 in self._asking or self._wait(key.z32) > 0:
            return
        self._asking.add(key.z32)
        self._believe(key.z32)
        asking = Deferred.fromCoroutine(self._ask_and_learn(key))
        self._beside.add(asking)
        asking.addBoth(self._end_beside, asking, key)

    async def _ask_and_learn(self, key: PublicKey) -> None:
        if (found := await self._ask(key)) is not None:
            await self.packets.learn(found)

    def _end_beside(self, result: Failure | None, asking: Deferred[None], key: PublicKey) -> None:
        self._beside.discard(asking)
        self._asking.discard(key.z32)
        if isinstance(result, Failure) and not result.check(CancelledError):
            self.forget(key.z32)  # it is asked again
            if not result.check(Refused):
                self.log.failure("{key} could not be looked up", result, key=key)

    def _wait(self, pubky: str) -> float:
        """Seconds until the networks may be asked about an account; if that is now, its turn is over."""
        now = self.clock.seconds()
        if pubky not in self._turns:
            if len(self._turns) >= MOST:
                self._turns.clear()
            self._next = max(self._next, now - AT_FIRST / PACE) + 1 / PACE
            self._turns[pubky] = self._next
        wait = self._turns[pubky] - now
        if wait <= 0:
            del self._turns[pubky]
        return wait

    async def _ask(self, key: PublicKey) -> SignedPacket | None:
        try:
            return await self.network.resolve(key)
        except NetworkError as error:
            self.log.debug("The network has no packet of {key}: {error}", key=key, error=error)
            return None

    def _read(self, key: PublicKey, payload: bytes | None) -> SignedPacket | None:
        try:
            return None if payload is None else SignedPacket.from_relay_payload(key, payload)
        except InvalidSignedPacket as error:
            self.log.warn("What {peer} has of {key} is no packet: {error}", peer=self.peer.name, key=key, error=error)
            return None


def _key_of(pubky: str) -> PublicKey:
    """The key of an account that a peer names. Raises `PeerBroken`: not every name is one."""
    try:
        return PublicKey.from_z32(pubky)
    except InvalidPublicKey:
        raise PeerBroken("this is nobody's key") from None
