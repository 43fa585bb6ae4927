"""The homeserver as a service: its parts, the order in which they start, and the reverse in which they stop.

Each part starts when the one before is up: the DHT, Redis, the store, the bodies, the ports, the feed, the publishers.
At the end streams end first, the ports close, running requests finish, commits finish; Redis goes last, for all write
to it.
"""

import atexit
import os
import shutil
import signal
import sys
from collections.abc import Callable
from importlib.metadata import version
from ipaddress import ip_address
from typing import Any

from attrs import define, field
from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.protocol import Factory
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from pkarr.keys import Keypair
from pkarr.tls.endpoint import TlsFactory
from pkarr.tls.session import IEngine
from pubky_homeserver import testnet
from pubky_homeserver.blobs import FileBlobs
from pubky_homeserver.config import Config
from pubky_homeserver.conflicts import INTERVAL, Expiry
from pubky_homeserver.core.errors import CannotStart
from pubky_homeserver.core.quotas import MEGABYTE
from pubky_homeserver.core.roles import Role
from pubky_homeserver.descriptors import OTHER_CONNECTIONS, handshakes
from pubky_homeserver.directory import DataDirectory
from pubky_homeserver.feed import Feed
from pubky_homeserver.lease import Lease
from pubky_homeserver.listening import Listener
from pubky_homeserver.metrics import ServerMetrics
from pubky_homeserver.networks import Networks
from pubky_homeserver.packets import Packets
from pubky_homeserver.proxied import ProxiedFactory
from pubky_homeserver.publisher import Advertised
from pubky_homeserver.records import Records
from pubky_homeserver.republisher import ENOUGH
from pubky_homeserver.rooms import Answer, Rooms
from pubky_homeserver.rounds import Rounds
from pubky_homeserver.store.address import RedisAddress
from pubky_homeserver.store.process import EmbeddedRedis
from pubky_homeserver.store.redis import RedisStore
from pubky_homeserver.store.remembered import Remembered
from pubky_homeserver.store.rewriting import Rewriting
from pubky_homeserver.sweep import Sweep
from pubky_homeserver.values import ClientIdentity, Socket
from pubky_homeserver.web.admin import NodeFacts
from pubky_homeserver.web.channel import HTTPFactory, Limits
from pubky_homeserver.web.scrape import MetricsSite

DRAIN = 10.0
"""Seconds that running requests get to finish when the homeserver stops."""

STUCK = 30.0
"""Seconds after which a part that does not stop is left: longer than requests, commits and Redis may take."""


@define(eq=False)
class Homeserver(Service):
    """Everything, in its order. `startService` returns at once; what fails later ends the program."""

    reactor: Any
    config: Config
    directory: DataDirectory
    keypair: Keypair
    password: str = field(repr=False)
    """Of the admin API."""
    listeners: dict[str, Listener]
    """The ports that were taken for this process, by what is served there."""
    redis: EmbeddedRedis | RedisAddress
    """The private Redis, or where another one is."""
    engine: IEngine | str
    """What speaks TLS by public key, or why nothing does."""
    connections: int
    """How many of them the port for clients takes, and bodies are open at most."""
    networks: Networks | None
    """Where this process publishes, or only looks records up; None if it has none to look up."""
    role: Role = Role.ALL
    surroundings: testnet.Surroundings | None = None
    """The other parts of a test network."""
    is_passing: bool = False
    """Whether the data directory goes at the end."""
    observer: ILogObserver | None = None
    """What writes the log; None if twistd has its own."""
    _starting: Deferred[None] | None = field(default=None, init=False)
    _leaving: bool = field(default=False, init=False)
    _rewriting: Rewriting | None = field(default=None, init=False)
    # Who looks after the log of a private Redis.
    _undo: list[Callable[[], Any]] = field(factory=list, init=False)
    # How to stop what was started, in the order of starting.

    log = Logger()

    def setServiceParent(self, parent: Any) -> None:
        """Join the application that twistd made, and tell it how to log."""
        if self.observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self.observer)
        super().setServiceParent(parent)

    def startService(self) -> None:
        """Start everything, as soon as the reactor runs: only then are signals caught, and nothing is left behind."""
        super().startService()
        self.directory.sign()
        self.reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        self._catch_signals()
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addErrback(self._fail)

    def stopService(self) -> Deferred[None]:
        """Stop everything; fires when it is stopped."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _start(self) -> None:
        if self.surroundings is not None:
            await self._surround(self.surroundings)
        elif self.networks is not None and self.role is not Role.BACKGROUND:
            self._run(self.networks)
        store = await self._open_store()
        if self.role is Role.BACKGROUND:
            await self._begin_work(store)
        blobs = self._prepare_blobs()
        metrics = ServerMetrics()
        key, peers = self.keypair.public_key.z32, frozenset(peer.key for peer in self.config.peers)
        packets = Packets(store.packets, key, peers, bool(peers) or await self._has_copies(store))
        records = None
        if self.networks is not None and self.role.works:
            records = self._make_records(self.networks, store, packets, metrics)
        await self._furnish(store, blobs, packets, records, metrics)
        if records is not None:
            self._run(Sweep(blobs, store, self.reactor, self.config.blobs.sweep_interval))
            expiry = Expiry(store.shelf, self.reactor)
            self._run(Rounds(expiry.expire, "The expiry of the conflict shelf", INTERVAL, self.reactor, first=0.0))
            self._run(records)
        self._greet()

    async def _begin_work(self, store: RedisStore) -> None:
        """Wait until nobody else works in the background; no second node of the DHT may have our id either."""
        assert self.networks is not None  # it publishes
        lease = Lease(store.lease, self.reactor, self._give_way)
        await lease.wait()
        self._run(lease)
        self._run(self.networks)

    async def _surround(self, surroundings: testnet.Surroundings) -> None:
        """Start the rest of a test network, and join it."""
        assert self.networks is not None  # it is one process
        surroundings.start()
        self._undo.append(surroundings.dht.stopService)
        self._run(self.networks)
        if self.networks.dht is not None:
            await self.networks.dht.when_joined().addTimeout(testnet.JOINING, self.reactor)
        self._open({"pkarr relay": surroundings.pkarr.answer, "http relay": surroundings.http.answer}, 0.0)

    async def _has_copies(self, store: RedisStore) -> bool:
        """Whether there are accounts here that live elsewhere, though nobody is trusted any more."""
        return bool(await store.copies.copies("", 1) or await store.erasures.doomed(1))

    @property
    def _reserve(self) -> int:
        return self.config.storage.reserve_mb * MEGABYTE

    async def _open_store(self) -> RedisStore:
        if isinstance(self.redis, EmbeddedRedis):
            self._rewriting = Rewriting(self.reactor, self.redis, self._reserve)
            self._run(self.redis)
            await self.redis.whenReady()
            self._run(self._rewriting)
            address = RedisAddress(path=self.redis.socket)
        else:
            address = self.redis
        store = RedisStore(
            address,
            self.reactor,
            self.config.blobs.grace,
            self._reserve,
            # A private Redis has no other writers.
            remembered=Remembered() if isinstance(self.redis, EmbeddedRedis) else None,
        )
        await store.start()
        self._undo.append(lambda: Deferred.fromCoroutine(store.stop()))
        return store

    def _prepare_blobs(self) -> FileBlobs:
        folder = self.directory.path / "blobs"
        blobs = FileBlobs(folder, self.reactor, self.reactor, self._reserve, self.connections)
        if self._rewriting is not None:
            blobs.elsewhere = self._rewriting.has_room
        try:
            blobs.prepare(alone=isinstance(self.redis, EmbeddedRedis))
        except OSError as error:
            raise CannotStart(f"{error.filename or folder} cannot be used: {error.strerror}") from None
        return blobs

    async def _furnish(
        self, store: RedisStore, blobs: FileBlobs, packets: Packets, records: Records | None, metrics: ServerMetrics
    ) -> None:
        """Serve what this process has ports for, and begin what it does with peers."""
        rooms = Rooms(self.config, self.keypair, self.role, store, blobs, packets, metrics, self.reactor)
        self._undo.append(lambda: Deferred.fromCoroutine(rooms.storage.drain()))
        self._undo.append(await rooms.takedowns.begin())
        networks, peering, feed = self.networks, None, None
        if packets.fences and networks is not None:
            peering = await rooms.peering(networks.client, lambda peer: networks.agent_to(peer, self.engine))
        sites: dict[str, Answer] = {}
        if "client" in self.listeners:
            feed = Feed(store, store, self.reactor, metrics)
            sites["client"] = rooms.client(feed, peering)
        if "admin" in self.listeners and records is not None:
            sites["admin"] = rooms.admin(self.password, self._facts(), records, peering)
        if records is not None:
            metrics.ask(records.numbers)
        if "metrics" in self.listeners:
            sites["metrics"] = MetricsSite(metrics).answer
        self._open(sites, DRAIN)
        if peering is not None:
            self._run(peering)
        if feed is not None:
            self._run(feed)  # last, so that its streams end first

    def _open(self, sites: dict[str, Answer], patience: float) -> None:
        """Serve these; at the end close their ports, and give running requests so many seconds, all at once."""
        many, some = Limits(connections=self.connections), Limits(connections=OTHER_CONNECTIONS)
        factories = [
            HTTPFactory(answer, self.reactor, many if name == "client" else some) for name, answer in sites.items()
        ]
        served = dict(zip(sites, factories, strict=True))
        ports = [
            self.listeners[name].serve(self.reactor, self._named(name, factory)) for name, factory in served.items()
        ]
        if "client" in served and "pubky" in self.listeners:
            ports.append(self.listeners["pubky"].serve(self.reactor, self._by_key(served["client"])))

        async def close() -> None:
            await DeferredList([maybeDeferred(port.stopListening) for port in ports])
            await DeferredList([Deferred.fromCoroutine(factory.drain(patience)) for factory in factories])

        self._undo.append(lambda: Deferred.fromCoroutine(close()))

    def _named(self, name: str, factory: HTTPFactory) -> Factory:
        """The factory, behind the prefaces of proxies where only they connect."""
        return self._from_proxies(factory, self.config.drive.icann_client_identity) if name == "client" else factory

    def _by_key(self, factory: HTTPFactory) -> Factory:
        """The same, to clients that know the homeserver's key and nothing else."""
        assert not isinstance(self.engine, str)  # or the port was not taken
        places = handshakes(self.connections)
        secure = TlsFactory(factory, self.engine, self.keypair.seed, self.reactor, places)
        return self._from_proxies(secure, self.config.drive.pubky_client_identity)

    def _from_proxies(self, factory: Factory, identity: ClientIdentity) -> Factory:
        return ProxiedFactory(factory, identity.proxies, self.reactor) if identity.proxies else factory

    def _make_records(self, networks: Networks, store: RedisStore, packets: Packets, metrics: ServerMetrics) -> Records:
        dht, settings = networks.dht, self.config.dht
        return Records(
            keypair=self.keypair,
            advertised=self._advertised(),
            relays=networks.relays,
            dht=dht,
            accounts=store,
            packets=packets,
            clock=self.reactor,
            metrics=metrics,
            interval=self.config.pkdns.user_keys_republisher_interval,
            enough=1 if dht is None or settings.private_network else ENOUGH,
            known=lambda: 0 if dht is None else dht.known,
        )

    def _advertised(self) -> Advertised:
        pkdns = self.config.pkdns
        return Advertised(
            public_ip=ip_address(pkdns.public_ip),
            tls_port=self._tls_port(),
            icann_domain=pkdns.icann_domain,
            icann_http_port=pkdns.public_icann_http_port or self._client_port(),
        )

    def _tls_port(self) -> int | None:
        """Where clients find TLS by public key; None if nobody answers there."""
        listener = self.listeners.get("pubky")
        if listener is None and (self.role is Role.ALL or isinstance(self.engine, str)):
            return None
        port = (listener.address if listener else self.config.drive.pubky_listen_socket).port
        return self.config.pkdns.public_pubky_tls_port or port

    def _client_port(self) -> int:
        listener = self.listeners.get("client")
        return (listener.address if listener else self.config.drive.icann_listen_socket).port

    def _facts(self) -> NodeFacts:
        pkdns = self.config.pkdns
        port = pkdns.public_icann_http_port or self._client_port()
        return NodeFacts(
            public_key=self.keypair.public_key.z32,
            pkarr_pubky_address=f"{pkdns.public_ip}:{self._tls_port()}" if self._tls_port() else None,
            pkarr_icann_domain=f"{pkdns.icann_domain}:{port}" if pkdns.icann_domain else None,
            version=version("pubky-homeserver"),
        )

    def _run(self, service: IService) -> None:
        service.startService()
        self._undo.append(service.stopService)

    def _greet(self) -> None:
        """Say where everything is."""
        key = self.keypair.public_key.z32
        self.log.info("This is the homeserver {key}; its data is in {path}", key=key, path=str(self.directory.path))
        if self.directory.is_new and not self.is_passing:
            self.log.info(
                "First start: the key in {secret} was made now. It is this homeserver's name: keep a copy of it",
                secret=str(self.directory.path / "secret"),
            )
            if self.config.admin.admin_password is None:
                self.log.info("The admin password is in {file}", file=str(self.directory.path / "admin-password"))
        for name, listener in self.listeners.items():
            scheme = "https" if name == "pubky" else "http"
            self.log.info(
                "Serving the {name} at {scheme}://{address}",
                name=_NAMES[name],
                scheme=scheme,
                address=str(listener.address),
            )
        if self.networks is not None and self.networks.dht is not None and self.role.works:
            for host, port in self.networks.dht.addresses:
                self.log.info("A node of the DHT at {address} (UDP)", address=str(Socket(host, port)))
        if isinstance(self.engine, str):
            self.log.warn("{reason}. Only clients that find the domain are served", reason=self.engine)
        else:
            self.log.info("{name} speaks TLS by public key", name=self.engine.name)

    def _catch_signals(self) -> None:
        """End in order, and with exit code 0, on SIGINT, SIGTERM, and when the terminal is closed: as it was wanted."""

        def stop(number: int, frame: object) -> None:
            self.reactor.callFromThread(self._leave)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
                signal.signal(number, stop)

    def _leave(self) -> None:
        if not self._leaving:
            self._leaving = True
            self.log.info("Stopping: running requests get {seconds} s to finish", seconds=DRAIN)
            self.reactor.stop()

    def _give_way(self) -> None:
        """End, for another process works in the background by now: what this one knows may be wrong."""
        self._fail(Failure(CannotStart("Another process works in the background by now: this one has to begin anew")))

    def _fail(self, failure: Failure) -> None:
        """End the program: one line and exit code 1 for what the operator can put right, a traceback for the rest."""
        if not self.running or self._leaving:
            return  # and that is why it failed
        if failure.check(CannotStart):
            line = str(failure.value)
            self.log.critical("{line}", line=line)
        else:
            self.log.failure("The homeserver cannot start", failure=failure)
            line = "The homeserver cannot start; the log tells why"
        print(f"homeserver: {line}", file=sys.__stderr__, flush=True)
        atexit.register(os._exit, 1)  # twistd ends with 0 whatever happened; this comes after all that it does
        self._leaving = True
        self.reactor.stop()

    async def _stop(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
            await self._starting
        while self._undo:
            try:
                await maybeDeferred(self._undo.pop()).addTimeout(STUCK, self.reactor)
            except Exception:
                self.log.failure("A part of the homeserver did not stop well")
        for listener in self.listeners.values():
            listener.close()
        self.directory.close()
        if self.is_passing:
            shutil.rmtree(self.directory.path, ignore_errors=True)
        self.log.info("Stopped")


_NAMES = {
    "client": "client API",
    "pubky": "client API by key",
    "admin": "admin API",
    "metrics": "metrics",
    "pkarr relay": "PKARR relay",
    "http relay": "http relay",
}
