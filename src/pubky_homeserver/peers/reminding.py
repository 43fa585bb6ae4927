"""Records of others that the network is reminded of: those of peers, and of users whose accounts are copies here.

Who publishes a record does not change it, and it is first of all the business of the homeserver that it names. So it is
done here only where the network has forgotten the record, or has an older one; or where that homeserver has been silent
for hours, for then its users need their records most.
"""

from contextlib import suppress
from typing import ClassVar

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from pkarr.interfaces import INetwork, NetworkError, NotMostRecent, Policy, Unavailable
from pkarr.packet import SignedPacket
from pubky_homeserver.copies import Copies
from pubky_homeserver.core.errors import Refused
from pubky_homeserver.packets import Packets, home_of
from pubky_homeserver.peers.tally import Counted, Tally

INTERVAL = 14_400.0
"""Seconds from one round to the next: as for the records of our own users."""

FIRST = 300.0
"""Seconds from the start to the first round: after that of our own users has begun."""

SPACING = 2.0
"""Seconds from one record to the next: relays allow an address two requests a second, and we are not alone."""

SILENT = 7200.0
"""Seconds without a word of a homeserver after which its users' records are published here: half their round."""


@define(eq=False)
class Reminder(Service):
    """Goes round, from its start on. `followed`: the peers that tell us of changes."""

    packets: Packets
    copies: Copies
    followed: frozenset[str]
    network: INetwork
    clock: IReactorTime
    tally: Tally = field(factory=Tally)
    _began: float = field(default=0.0, init=False)
    _running: Deferred[None] = field(factory=lambda: succeed(None), init=False)
    log: ClassVar[Logger] = Logger()

    def startService(self) -> None:
        """Begin; the first round comes a little later."""
        super().startService()
        self._began = self.clock.seconds()
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addErrback(self._end)

    def stopService(self) -> Deferred[None]:
        """Stop; fires when nothing is under way any more."""
        super().stopService()
        self._running.cancel()
        return self._running

    async def _run(self) -> None:
        await deferLater(self.clock, FIRST)
        while True:
            began = self.clock.seconds()
            for key in [*sorted(self.packets.peers), *(copy.pubky for copy in self.copies.all())]:
                await self._remind(key)
                await deferLater(self.clock, SPACING)
            await deferLater(self.clock, max(SPACING, began + INTERVAL - self.clock.seconds()))

    async def _remind(self, key: str) -> None:
        """One key. Raises nothing but CancelledError."""
        try:
            packet = await self.packets.of(key)
            if packet is None:
                return
            found = await self.network.resolve(packet.public_key, Policy.NETWORK_ONLY)
            if found is not None and found.more_recent_than(packet):
                await self.packets.learn(found)
            elif found is None or packet.more_recent_than(found) or self._is_silent(packet):
                await self._publish(packet)
                self.tally.count(Counted.REMINDED)
        except (NetworkError, Refused) as error:
            self.tally.count(Counted.NOT_REMINDED)
            self.log.debug("The network is not reminded of {key}: {reason}", key=key, reason=str(error))
        except CancelledError:
            raise
        except Exception:  # a fault with one record must not end the rounds
            self.log.failure("The network is not reminded of {key}", key=key)

    async def _publish(self, packet: SignedPacket) -> None:
        """Publish a record, and read back what is there then: a newer one may have come, or nobody kept it.

        Raises `NetworkError` if it is not there, and `Refused`.
        """
        with suppress(NotMostRecent):
            await self.network.publish(packet)
        found = await self.network.resolve(packet.public_key, Policy.NETWORK_ONLY)
        if found is None or packet.more_recent_than(found):
            raise Unavailable("nobody has it after it was published")
        if found.more_recent_than(packet):
            await self.packets.learn(found)

    def _is_silent(self, packet: SignedPacket) -> bool:
        """Whether the homeserver whose business it is has said nothing for long; we hear those that we follow."""
        key = packet.public_key.z32
        whose = key if key in self.packets.peers else home_of(packet)
        if whose is None or whose not in self.followed:
            return False
        return max(self.copies.heard(whose), self._began) + SILENT < self.clock.seconds()

    def _end(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("The network is not reminded any more", failure)
