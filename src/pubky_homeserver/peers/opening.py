"""An account opens here: its user's newest record says so, and a copy is at hand.

First every peer is shown that record. An old primary that hears of it takes no more writes, and says where its logs
end; what it has more than the copy is fetched, within a minute. Then one step of the store opens the account. Each step
may be the last one before a crash: whoever begins again does the same, and nothing that was done hurts.

Only who was the account's primary is believed here: the one that the copy followed, and one that a signed record named
meanwhile. Others may be peers of ours, but nothing of what they hold becomes the account's history.
"""

from collections.abc import Mapping
from typing import ClassVar

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from pkarr.asking import all_of
from pkarr.packet import InvalidSignedPacket, SignedPacket
from pubky_homeserver.copies import Copies
from pubky_homeserver.core.copies import CopiedLog, Copy
from pubky_homeserver.core.errors import (
    DigestMismatch,
    LogCompacted,
    LogForked,
    NotFound,
    NotHereYet,
    PeerError,
    PeerRefused,
    Refused,
)
from pubky_homeserver.core.moves import Shown
from pubky_homeserver.interfaces import IMoveStore
from pubky_homeserver.packets import Packets, home_of
from pubky_homeserver.peers.neighbours import Neighbour

PUSH = 4.0
"""Seconds that a peer has to say what it makes of the record."""

CATCH_UP = 60.0
"""Seconds, at most, in which the rest of the old primary's logs is fetched: the user waits."""

AGAIN = 1.0
"""Seconds between two tries to reach it."""


@frozen
class Opening:
    """Opens accounts. `neighbours`: by their keys."""

    homeserver: str
    store: IMoveStore
    copies: Copies
    packets: Packets
    neighbours: Mapping[str, Neighbour]
    clock: IReactorTime
    log: ClassVar[Logger] = Logger()

    async def open(self, pubky: str, incomplete: bool = False) -> bool:
        """Open an account if its newest packet names us. Whether it lives here then.

        Raises `NotHereYet` if a list was begun and is not whole, unless `incomplete`; and `StoreAway`.
        """
        if not await self.is_ours(pubky):
            return False
        copy = await self.copies.refresh(pubky)
        if copy is None:
            return await self.store.is_admitted(pubky)
        for neighbour in self.neighbours.values():
            if neighbour.mirror is not None:
                await neighbour.mirror.leave(pubky)
        ends = await self._push(pubky)
        packet = await self.packets.of(pubky)
        if packet is None or home_of(packet) != self.homeserver:
            return False
        await self._catch_up(copy, ends)
        private = await self._log(pubky, True)
        if private.position is not None and not private.is_whole and not incomplete:
            raise NotHereYet  # it would begin empty
        opened = await self.store.open(pubky, packet.relay_payload, self._now(), incomplete)
        await self.copies.refresh(pubky)
        return opened

    async def is_ours(self, pubky: str) -> bool:
        """Whether the newest packet of an account names us."""
        packet = await self.packets.of(pubky)
        return packet is not None and home_of(packet) == self.homeserver

    # --- the peers ------------------------------------------------------------------------------------------------

    async def _push(self, pubky: str) -> dict[str, Shown]:
        """Show the record to all peers at once; returns what those said that answered."""
        packet = await self.packets.of(pubky)
        assert packet is not None  # or it did not name us
        told = await all_of(self._show(neighbour, packet) for neighbour in self.neighbours.values())
        return {key: shown for key, shown in zip(self.neighbours, told, strict=True) if shown is not None}

    async def _show(self, neighbour: Neighbour, packet: SignedPacket) -> Shown | None:
        showing = Deferred.fromCoroutine(self._show_again(neighbour, packet))
        return await showing.addTimeout(PUSH, self.clock, lambda _result, _seconds: None)

    async def _show_again(self, neighbour: Neighbour, packet: SignedPacket) -> Shown | None:
        """Show the record to one peer, until it answers."""
        while True:
            try:
                return await neighbour.exchange.push(packet)
            except PeerRefused:
                return None
            except (PeerError, Refused) as error:
                self.log.info(
                    "{peer} does not hear that {pubky} lives here now: {reason}",
                    peer=neighbour.peer.name,
                    pubky=packet.public_key,
                    reason=str(error),
                )
            await deferLater(self.clock, AGAIN)

    # --- what the copy lacks --------------------------------------------------------------------------------------

    async def _catch_up(self, copy: Copy, told: Mapping[str, Shown]) -> None:
        """Fetch what the last primary has more, as far as it can be had in time."""
        last = self._last_primary(copy, told)
        neighbour = self.neighbours.get(last)
        if neighbour is None or (last not in told and not await self._is_there(neighbour)):
            self.log.warn("{pubky} opens with what is here: {last} does not answer", pubky=copy.pubky, last=last)
            return
        shown = told.get(last)
        catching = Deferred.fromCoroutine(self._fetch(neighbour, copy.pubky, shown))
        await catching.addTimeout(CATCH_UP, self.clock, lambda _result, _seconds: None)

    def _last_primary(self, copy: Copy, told: Mapping[str, Shown]) -> str:
        """The homeserver that the copy followed; or if that was not the last one, whom a record names meanwhile."""
        last, seen = copy.primary, {copy.primary}
        while (shown := told.get(last)) is not None and shown.before is not None:
            try:
                packet = SignedPacket.parse(shown.before)
            except InvalidSignedPacket:
                return last
            named = home_of(packet)
            if packet.public_key.z32 != copy.pubky or named is None or named in seen or named not in told:
                return last
            seen.add(named)
            last = named
        return last

    async def _is_there(self, neighbour: Neighbour) -> bool:
        """Whether an official homeserver answers: it takes no record, but has more to tell all the same."""
        if not neighbour.peer.official:
            return False
        asking = Deferred.fromCoroutine(neighbour.source.greet())
        try:
            return await asking.addTimeout(PUSH, self.clock, lambda _result, _seconds: None) is not None
        except PeerError:
            return False

    async def _fetch(self, neighbour: Neighbour, pubky: str, shown: Shown | None) -> None:
        if shown is None:
            await self._fetch_log(neighbour, pubky, False)
            return
        ends = [(False, shown.public), (True, shown.private)]
        await all_of(self._fetch_log(neighbour, pubky, private) for private, end in ends if end is not None)

    async def _fetch_log(self, neighbour: Neighbour, pubky: str, private: bool) -> None:
        """Bring one log to its end, however often the peer must be asked."""
        is_compared = False
        while True:
            try:
                if (await self._log(pubky, private)).is_whole and not is_compared:
                    await neighbour.follower.advance(pubky, private)
                else:
                    await neighbour.follower.catch_up(pubky, private)
                return
            except (LogCompacted, DigestMismatch):
                is_compared = True
                continue
            except CancelledError:
                raise
            except (LogForked, PeerRefused, NotFound) as error:
                self.log.warn("{pubky} goes on without its end: {reason}", pubky=pubky, reason=str(error))
                return
            except (PeerError, Refused) as error:
                self.log.info("{pubky} waits for its end: {reason}", pubky=pubky, reason=str(error))
            except Exception:
                self.log.failure("The end of {pubky} could not be fetched", pubky=pubky)
                return
            await deferLater(self.clock, AGAIN)

    async def _log(self, pubky: str, private: bool) -> CopiedLog:
        copy = await self.copies.store.copy(pubky)
        if copy is None:
            raise NotFound
        return copy.private if private else copy.public

    def _now(self) -> int:
        return int(self.clock.seconds() * 1_000_000)
