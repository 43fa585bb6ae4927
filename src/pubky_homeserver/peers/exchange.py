"""Packets that homeservers show each other: so who lost some, or missed one, learns what its users said last.

Whoever learns of a newer packet shows it to the peers that it concerns, and all that it has to a peer that begins
anew, for a store that was restored may have forgotten that somebody moved away. The answer shows the newer one where
the other side has that. Packets prove themselves, and each is news to a homeserver only once: so this comes to rest.

What is not offered is not known, like everything between homeservers: the packet of an account is shown to a peer that
may read it, that it comes from, or that it names.
"""

import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import ClassVar

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from pkarr.packet import InvalidSignedPacket, SignedPacket
from pubky_homeserver.copies import Copies
from pubky_homeserver.core.errors import InvalidRequest, PeerError, PeerRefused, Refused
from pubky_homeserver.core.moves import Kept, Shown
from pubky_homeserver.core.peers import Peer
from pubky_homeserver.interfaces import ILogStore, IPeer
from pubky_homeserver.packets import Packets, home_of
from pubky_homeserver.peers.messages import MAX_PACKETS

FEATURE = "exchange"
"""What a homeserver says that takes packets."""

PAGE = 250
"""Accounts that are read at once."""

FIRST_DELAY = 1.0
"""Seconds that a peer is left alone after a failure; doubled after each further one."""

LONGEST_DELAY = 300.0


async def _forget_home(_pubky: str, _homeserver: str) -> None:
    """Nobody wants to know."""


@frozen
class Knowledge:
    """Which packets a peer may know of. `peers`: by their keys."""

    homeserver: str
    peers: Mapping[str, Peer]
    logs: ILogStore
    copies: Copies
    packets: Packets
    note_home: Callable[[str, str], Awaitable[None]] = _forget_home
    """Is told of an account, and a homeserver where it lived once."""

    def may_know(self, peer: Peer, packet: SignedPacket | None, pubky: str) -> bool:
        """Whether a peer may know that the newest packet of a key is this one."""
        if pubky == self.homeserver or pubky in self.peers or peer.may_read(pubky, False):
            return True
        copy = self.copies.of(pubky)
        if copy is not None and copy.primary == peer.key:
            return True
        return packet is not None and home_of(packet) == peer.key

    async def home(self, pubky: str) -> tuple[str, int]:
        """Where an account that is known here lives, and the time of the packet that says so (0: none does).

        A packet that names nobody changes nothing: who lived here does so still, and of a copy we cannot say.
        """
        return self.home_by(pubky, await self.packets.of(pubky))

    def home_by(self, pubky: str, packet: SignedPacket | None) -> tuple[str, int]:
        """The same, if that is the newest packet of the account."""
        default = self.homeserver if self.copies.of(pubky) is None else ""
        return (default, 0) if packet is None else (home_of(packet) or default, packet.timestamp)

    async def take(self, peer: Peer, shown: Sequence[bytes]) -> list[Shown]:
        """Learn packets that a peer shows, and say what became of each. Raises `InvalidRequest`."""
        try:
            packets = [SignedPacket.parse(one) for one in shown]
        except InvalidSignedPacket as error:
            raise InvalidRequest(f"Not a packet: {error}") from None
        return [await self._take_one(peer, packet) for packet in packets]

    async def _take_one(self, peer: Peer, packet: SignedPacket) -> Shown:
        pubky = packet.public_key.z32
        before = await self.packets.of(pubky)
        kept = await self.packets.learn(packet)
        newest = await self.packets.of(pubky)
        if kept is Kept.OLD and home_of(packet) == peer.key and newest is not None and home_of(newest) != peer.key:
            await self.note_home(pubky, peer.key)
        if kept is None or newest is None or not self.may_know(peer, newest, pubky):
            return Shown(pubky, None)
        ours = bytes(newest) if newest.more_recent_than(packet) else None
        if home_of(newest) != peer.key or await self.copies.refresh(pubky) is None:
            return Shown(pubky, kept, ours)
        public, private = await self.logs.standing(pubky, False), await self.logs.standing(pubky, True)
        named = None if before is None else home_of(before)
        is_third = before is not None and named not in (None, self.homeserver, peer.key)
        third = bytes(before) if before is not None and is_third else None
        return Shown(pubky, kept, ours, public, private, third)

    async def all_for(self, peer: Peer) -> list[str]:
        """All keys whose packets are shown to a peer that begins anew."""
        found = [self.homeserver, *self.peers]
        after: int | None = 0
        while after is not None:
            page, after = await self.logs.standings(after, PAGE)
            found += [pubky for pubky, _, _ in page if peer.may_read(pubky, False)]
        return found + [copy.pubky for copy in self.copies.all() if self.may_know(peer, None, copy.pubky)]


@define(eq=False)
class Exchange:
    """Shows a peer the packets that are news, or all."""

    peer: Peer
    source: IPeer
    knowledge: Knowledge
    clock: IReactorTime
    epoch: Callable[[], str]
    """Another one after our store was restarted, restored, or failed over."""
    jitter: Callable[[], float] = random.random
    """A number from 0 to 1."""
    _due: "OrderedDict[str, None]" = field(factory=OrderedDict, init=False)
    # Keys whose packets are to be shown.
    _all: bool = field(default=False, init=False)
    # Whether all are, perhaps.
    _shown: tuple[str, str] | None = field(default=None, init=False)
    # Our epoch and the peer's, when all were.
    _running: Deferred[None] | None = field(default=None, init=False)
    _resting: Deferred[None] | None = field(default=None, init=False)
    log: ClassVar[Logger] = Logger()

    def tell(self, pubky: str) -> None:
        """Show the packet of a key soon."""
        self._due[pubky] = None
        self._work()

    def begin(self, anew: bool = False) -> None:
        """Show all, if one of us may have forgotten some since that was done, or if it is done `anew`.

        A peer that did not answer is back.
        """
        self._all = True
        if anew:
            self._shown = None
        if self._resting is not None and not self._resting.called:
            self._resting.callback(None)
        self._work()

    def stop(self) -> Deferred[None] | None:
        """End; the Deferred fires when nothing is under way any more."""
        running = self._running
        if running is not None:
            running.cancel()
        return running

    async def push(self, packet: SignedPacket) -> Shown | None:
        """Show a packet at once, whomever it concerns; None if the peer takes none. Raises what `IPeer.show` raises."""
        if FEATURE not in (await self.source.greet()).features:
            return None
        (shown,) = await self.source.show([bytes(packet)])
        if shown.packet is not None:
            await self._learn(packet, shown.packet)
        return shown

    async def show(self, pubkys: Iterable[str]) -> list[Shown]:
        """Show the packets of up to 100 keys at once, and learn what is newer there.

        Raises what `IPeer.show` raises, and `StoreAway`.
        """
        packets = [await self.knowledge.packets.of(pubky) for pubky in pubkys]
        there = [
            packet
            for packet in packets
            if packet is not None and self.knowledge.may_know(self.peer, packet, packet.public_key.z32)
        ]
        if not there:
            return []
        told = await self.source.show(list(map(bytes, there)))
        for shown, packet in zip(told, there, strict=True):
            if shown.packet is not None:
                await self._learn(packet, shown.packet)
        return told

    async def _learn(self, ours: SignedPacket, theirs: bytes) -> None:
        try:
            packet = SignedPacket.parse(theirs)
        except InvalidSignedPacket as error:
            self.log.warn("What {peer} shows is no packet: {error}", peer=self.peer.name, error=error)
            return
        if packet.public_key == ours.public_key:
            await self.knowledge.packets.learn(packet)

    def _work(self) -> None:
        if self._running is None:
            running = self._running = Deferred.fromCoroutine(self._run())
            running.addErrback(self._end)
            running.addBoth(self._finish)
            if running.called:
                self._running = None

    def _finish(self, _result: object) -> None:
        self._running = None

    def _end(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("{peer} is shown no packets", failure, peer=self.peer.name)

    async def _run(self) -> None:
        """Show what is due, until nothing is; after a failure a little later."""
        failures = 0
        while self._due or self._all:
            try:
                there = await self.source.greet()
                if FEATURE not in there.features:
                    self._forget()
                    return
                await self._show_due((self.epoch(), there.epoch))
                failures = 0
            except PeerRefused:
                self._forget()
            except (PeerError, Refused) as error:
                self.log.debug("{peer} is shown no packets: {reason}", peer=self.peer.name, reason=str(error))
                failures += 1
                await self._rest(failures)

    def _forget(self) -> None:
        """The peer takes no packets."""
        self._due.clear()
        self._all = False

    async def _show_due(self, epochs: tuple[str, str]) -> None:
        while self._due or self._all:
            if self._all and epochs != self._shown:
                self._due |= dict.fromkeys(await self.knowledge.all_for(self.peer))
                self._shown = epochs  # whatever fails from now on stays due
            self._all = False
            batch = [pubky for pubky, _ in zip(self._due, range(MAX_PACKETS), strict=False)]
            for pubky in batch:
                del self._due[pubky]
            try:
                await self.show(batch)
            except BaseException:
                self._due |= dict.fromkeys(batch)
                raise

    async def _rest(self, failures: int) -> None:
        delay = min(FIRST_DELAY * 2.0 ** min(failures - 1, 20), LONGEST_DELAY) * (1 + self.jitter()) / 2
        resting: Deferred[None] = Deferred()
        self._resting = resting.addTimeout(delay, self.clock, lambda _result, _seconds: None)
        try:
            await self._resting
        finally:
            self._resting = None
