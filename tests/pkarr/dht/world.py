"""An internet in memory: sockets at public addresses, and time that passes when a test says so."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from pkarr.dht.contacts import Address
from pkarr.dht.contacts import family as kind_of
from pkarr.dht.family import Family
from pkarr.dht.krpc import Message, Query, decode
from pkarr.dht.routing import RoutingTable
from pkarr.dht.server import Limits, Server, Stored
from pkarr.dht.udp import TIMEOUT

LATENCY = 0.02  # seconds


@define(eq=False)
class World:
    """Who is where. `sent` is all that was sent: from, to, what. `translated` maps addresses to what others see."""

    clock: Clock = field(factory=Clock)
    chance: random.Random = field(factory=lambda: random.Random(4))
    is_down: bool = False
    sent: list[tuple[Address, Address, Message]] = field(factory=list)
    translated: dict[Address, Address] = field(factory=dict)
    _listeners: dict[Address, Callable[[bytes, Address], None]] = field(factory=dict)

    def family(
        self, host: str, helpers: list[Address] | None = None, serves: bool | None = True, *, is_private: bool = False
    ) -> Family:
        """A node at a host, not started."""
        kind = kind_of(host)
        tables = {kind: RoutingTable(self.chance.randbytes(20), is_private)}

        def found() -> Deferred[list[Address]]:
            return succeed(helpers or [])

        node = Family(
            kind,
            self.clock,
            tables,
            Server(tables, Stored()),
            Limits(1000.0, 10_000.0),
            TIMEOUT,
            is_private,
            serves,
            found,
        )
        transport: Any = Line(self, (host, 6881))
        node.socket.transport = transport
        self.listen((host, 6881), node.socket.datagramReceived)
        return node

    def listen(self, address: Address, receiver: Callable[[bytes, Address], None]) -> None:
        """Somebody is at an address."""
        self._listeners[address] = receiver

    def carry(self, datagram: bytes, source: Address, target: Address) -> None:
        """Bring a datagram to where it goes, if somebody is there."""
        self.sent.append((source, target, decode(datagram)))
        seen = self.translated.get(source, source)

        def arrive() -> None:
            if not self.is_down and target in self._listeners:
                self._listeners[target](datagram, seen)

        self.clock.callLater(LATENCY, arrive)

    def asked(self, source: Address) -> list[Address]:
        """To whom a node has sent queries."""
        return [to for come, to, message in self.sent if come == source and isinstance(message, Query)]

    def wait(self, seconds: float) -> None:
        """Let time pass, in steps that are shorter than anything that matters."""
        end = self.clock.seconds() + seconds
        while (now := self.clock.seconds()) < end:
            due = [call.getTime() for call in self.clock.getDelayedCalls()]
            self.clock.advance(max(1e-6, min([*due, end]) - now))


@define
class Line:
    """The transport of one socket."""

    world: World
    address: Address

    def write(self, datagram: bytes, target: Address) -> None:
        """Send."""
        self.world.carry(datagram, self.address, target)
