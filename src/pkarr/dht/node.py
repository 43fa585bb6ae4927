"""A node of the Mainline DHT, as a network for packets: one socket for IPv4, one for IPv6.

A packet is put to the twenty nodes nearest to its key's target, in both networks, and looked for there. Whoever
publishes tells what it knows: if a search on the way to a put meets a newer item, the old one is not spread further.
"""

from __future__ import annotations

import secrets
import socket
from collections import Counter
from typing import Any

from attrs import define, field, frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from zope.interface import implementer

from pkarr.dht.contacts import ID_LENGTH, IPV4, IPV6, Address, Contact
from pkarr.dht.exchange import Exchange
from pkarr.dht.family import Family
from pkarr.dht.items import MAX_SEQ, MutableItem, string_in
from pkarr.dht.krpc import MAX_MESSAGE
from pkarr.dht.names import addresses_of
from pkarr.dht.routing import RoutingTable
from pkarr.dht.saved import Saved
from pkarr.dht.server import MAX_ITEMS, Limits, Server, Stored
from pkarr.dht.udp import TIMEOUT, Socket
from pkarr.interfaces import ICounting, PacketRefused, Policy, UnreadableItem
from pkarr.keys import PublicKey
from pkarr.packet import InvalidSignedPacket, SignedPacket

PORT = 6881  # the port of BitTorrent, which the official programs take too if it is free
BOOTSTRAP = (
    ("router.bittorrent.com", 6881),
    ("dht.transmissionbt.com", 6881),
    ("dht.libtorrent.org", 25401),
    ("relay.pkarr.org", 6881),
)
"""Nodes that help to join the public DHT, as in the official programs."""

RATE = 20.0  # datagrams a second from one owner of addresses: a search asks a node twice, busy relays search much
TOTAL_RATE = 500.0  # from all: an answer costs 0.2 ms, so strangers get a tenth of a processor

_READ = MAX_MESSAGE + 1  # bytes of a datagram that are read: a longer one shows that it is too long


@frozen
class Settings:
    """How a node is set up. The defaults are for the public DHT.

    `port`: where it listens; another one if that is taken, unless it `insists`.
    `ipv4`, `ipv6`: the addresses to listen at; None for none.
    `bootstrap`: names or addresses, and ports, of nodes that help to join.
    `serves`: whether it answers queries; None to do so as soon as strangers are known to reach it (BEP 43).
    `is_private`: the network is one of private addresses, of which several nodes may have the same.
    `timeout`: seconds that an answer may take at most.
    `rate`, `total_rate`: datagrams a second that are read, from one owner of addresses and from all.
    `max_items`: items of each kind that are kept for others, 1.5 KB each.
    """

    port: int = PORT
    insists: bool = False
    ipv4: str | None = "0.0.0.0"  # noqa: S104  # a node of the DHT is for everybody
    ipv6: str | None = "::"
    bootstrap: tuple[tuple[str, int], ...] = BOOTSTRAP
    serves: bool | None = None
    is_private: bool = False
    timeout: float = TIMEOUT
    rate: float = RATE
    total_rate: float = TOTAL_RATE
    max_items: int = MAX_ITEMS


@implementer(ICounting)
@define(eq=False)
class Dht(Service):
    """A node of the DHT. `reactor` gives clock, sockets and host names; `saved` is what `save` gave in an earlier life.

    It publishes and resolves as soon as it is started; the first searches are slower, for they find the network.
    """

    reactor: Any
    settings: Settings = field(factory=Settings)
    saved: Saved = field(factory=Saved, repr=False)
    stored: Stored = field(init=False)
    _families: dict[int, Family] = field(factory=dict, init=False)
    # Maps 4 and 6 to the networks that we have a socket for.
    _ports: list[IListeningPort] = field(factory=list, init=False)
    _exchange: Exchange = field(init=False)
    _joining: list[Deferred[None]] = field(factory=list, init=False)
    # Who waits until we know somebody.
    log = Logger()

    @stored.default
    def _make_stored(self) -> Stored:
        return Stored(self.settings.max_items)

    @_exchange.default
    def _make_exchange(self) -> Exchange:
        return Exchange(self.reactor, self._families, self.stored)

    def startService(self) -> None:
        """Take the sockets and join. CannotListenError if there is none to be had; IPv6 may be missing."""
        super().startService()
        tables: dict[int, RoutingTable] = {}
        server = Server(tables, self.stored)
        limits = Limits(self.settings.rate, self.settings.total_rate)
        port = self.settings.port
        if self.settings.ipv4 is not None:
            port = self._open(self._make_family(IPV4, tables, server, limits), self.settings.ipv4, port)
        if self.settings.ipv6 is not None:
            try:
                self._open(self._make_family(IPV6, tables, server, limits), self.settings.ipv6, port)
            except CannotListenError as error:
                if not self._families:
                    raise
                del tables[IPV6]
                self.log.info("No DHT over IPv6: {reason}", reason=str(error))
        for kind, family in self._families.items():
            family.joined.addCallback(self._tell_joined)
            family.start(self.saved.contacts(kind))

    def stopService(self) -> Deferred[None]:
        """Leave. What is under way fails with CancelledError."""
        super().stopService()
        for family in self._families.values():
            family.stop()
        closed = [maybeDeferred(port.stopListening) for port in self._ports]
        self._families.clear()
        self._ports.clear()
        return gatherResults(closed, consumeErrors=True).addCallback(lambda _results: None)

    def save(self) -> Saved:
        """Our ids and the nodes we know, to be kept for the next start."""
        return Saved.of({kind: family.table for kind, family in self._families.items()})

    def when_joined(self) -> Deferred[None]:
        """Fires when some other node has answered."""
        if any(family.joined.called for family in self._families.values()):
            return succeed(None)
        waiter: Deferred[None] = Deferred(self._joining.remove)
        self._joining.append(waiter)
        return waiter

    @property
    def addresses(self) -> list[Address]:
        """Where it listens."""
        return [_address(port) for port in self._ports]

    @property
    def known(self) -> int:
        """How many other nodes it knows."""
        return sum(len(family.table) for family in self._families.values())

    @property
    def counts(self) -> Counter[str]:
        """Datagrams: `received`, of those `excess`, `noise` and `invalid`, and `sent`."""
        total: Counter[str] = Counter()
        for family in self._families.values():
            total.update(family.socket.counts)
        return total

    def __str__(self) -> str:
        return "the DHT"

    async def publish(self, packet: SignedPacket, replaces: int | None = None) -> int:
        """Put a packet to the nodes nearest to its key; returns how many keep it."""
        if packet.timestamp > MAX_SEQ:
            raise PacketRefused("a timestamp in the DHT has 63 bits")
        v = b"%d:%b" % (len(packet.dns), packet.dns)
        return await self.put(MutableItem(packet.public_key.raw, packet.timestamp, v, packet.signature), replaces)

    async def resolve(self, key: PublicKey, policy: Policy = Policy.CACHE_FIRST) -> SignedPacket | None:
        """Find the newest packet of a key.

        NETWORK_ONLY asks all of the nearest nodes; CACHE_FIRST is content when two have the same and nobody asked
        so far a newer one; CACHE_ONLY looks at what we keep for others ourselves.
        """
        return _packet(key, await self.get(key.raw, policy=policy))

    async def count(self, key: PublicKey) -> tuple[SignedPacket | None, int]:
        """Find the newest packet of a key, and on how many of the nodes nearest to it; we may be one of them."""
        newest = await self._exchange.find(key.raw, b"", Policy.NETWORK_ONLY)
        return _packet(key, newest.item), newest.count

    async def get(self, k: bytes, salt: bytes = b"", policy: Policy = Policy.NETWORK_ONLY) -> MutableItem | None:
        """Find the newest item under a key and a salt, whatever its value; None if there is none (BEP 44).

        Raises Unavailable if nobody answers.
        """
        return await self._exchange.get(k, salt, policy)

    async def put(self, item: MutableItem, cas: int | None = None) -> int:
        """Put an item to the nodes nearest to its target; returns how many keep it.

        With `cas` they keep it only in place of one with that number. Raises NotMostRecent if a newer item is met
        or most nodes say that they have one; Conflict, if one of another number than `cas`; PacketRefused if they
        never will keep it; Unavailable.
        """
        return await self._exchange.put(item, cas)

    def _make_family(self, kind: int, tables: dict[int, RoutingTable], server: Server, limits: Limits) -> Family:
        tables[kind] = RoutingTable(self.saved.id(kind) or secrets.token_bytes(ID_LENGTH), self.settings.is_private)
        return Family(
            kind,
            self.reactor,
            tables,
            server,
            limits,
            self.settings.timeout,
            self.settings.is_private,
            self.settings.serves,
            lambda: addresses_of(self.reactor.nameResolver, self.settings.bootstrap, kind),
            self._pass_on,
        )

    def _pass_on(self, contacts: list[Contact]) -> None:
        """Tell each network of the nodes that the other one named."""
        for kind, family in self._families.items():
            family.hear_of([contact for contact in contacts if contact.family == kind])

    def _open(self, family: Family, host: str, port: int) -> int:
        """Listen at a host, at a port or another one; returns the port."""
        try:
            listening = self._listen(family, host, port)
        except CannotListenError:
            if self.settings.insists:
                raise
            listening = self._listen(family, host, 0)
        self._ports.append(listening)
        self._families[family.kind] = family
        return _address(listening)[1]

    def _listen(self, family: Family, host: str, port: int) -> IListeningPort:
        if family.kind == IPV4:
            listening: IListeningPort = self.reactor.listenUDP(port, family.socket, host, _READ)
            return listening
        return _listen_v6(self.reactor, family.socket, host, port)

    def _tell_joined(self, _result: None) -> None:
        waiting, self._joining[:] = self._joining[:], []
        for waiter in waiting:
            waiter.callback(None)


def _packet(key: PublicKey, item: MutableItem | None) -> SignedPacket | None:
    """The packet that an item is. Raises `UnreadableItem` if it is none."""
    if item is None:
        return None
    dns = string_in(item.v)
    if dns is None or item.seq < 0:
        raise UnreadableItem(item.seq)
    try:
        return SignedPacket(key, item.sig, item.seq, dns)
    except InvalidSignedPacket:
        raise UnreadableItem(item.seq) from None


def _address(port: IListeningPort) -> Address:
    host: Any = port.getHost()
    return host.host, host.port


def _listen_v6(reactor: Any, protocol: Socket, host: str, port: int) -> IListeningPort:
    """A socket for IPv6 and nothing else: Linux would take IPv4's port along."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as own:
            own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            own.setblocking(False)
            own.bind((host, port))
            listening: IListeningPort = reactor.adoptDatagramPort(own.fileno(), socket.AF_INET6, protocol, _READ)
            return listening
    except OSError as error:
        raise CannotListenError(host, port, error) from None
