"""Where records are found, and peers by them: relays, and our own node of the DHT, which remembers whom it knew.

A node that starts with the neighbours of its last life needs no bootstrap node, and it keeps its id, under which others
know it. They are written down every few minutes and at the end; a file that cannot be read or written costs a slower
start, and nothing else.
"""

from pathlib import Path
from typing import Any, ClassVar

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import CannotListenError
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.web.client import HTTPConnectionPool
from twisted.web.iweb import IAgent

from pkarr.client import Client
from pkarr.dht.node import BOOTSTRAP, Dht, Settings
from pkarr.dht.saved import MAX_LENGTH, InvalidSaved, Saved
from pkarr.endpoints import Endpoints
from pkarr.relay import Relay
from pkarr.tls.agent import KeyEndpoints
from pkarr.tls.session import IEngine
from pubky_homeserver.config import DhtNode, Pkdns
from pubky_homeserver.core.errors import CannotStart
from pubky_homeserver.core.peers import Peer
from pubky_homeserver.durable import write_whole
from pubky_homeserver.heads import bounded_agent

SAVE_INTERVAL = 600.0
"""Seconds: after a crash whom we knew ten minutes ago is still there."""


def settings_of(pkdns: Pkdns, node: DhtNode, only_asks: bool = False) -> Settings:
    """How the operator wants our node; that of a process that only asks is on any port, and answers nobody."""
    addresses = {6 if ":" in address else 4: address for address in node.addresses}
    return Settings(
        port=0 if only_asks else node.port,
        ipv4=addresses.get(4),
        ipv6=addresses.get(6),
        bootstrap=BOOTSTRAP if pkdns.dht_bootstrap_nodes is None else pkdns.dht_bootstrap_nodes,
        serves=False if only_asks else True if node.private_network else None,
        is_private=node.private_network,
        timeout=pkdns.dht_request_timeout_ms / 1000,
        rate=node.rate_limit,
        total_rate=node.total_rate_limit,
        max_items=node.max_items,
    )


@define(eq=False)
class Networks(Service):
    """The relays and the DHT of a running homeserver. `file` is where the DHT's neighbours are kept.

    A process without such a file only asks: it finds the network anew at each start, and does nothing for others.
    """

    reactor: Any
    pkdns: Pkdns
    node: DhtNode
    file: Path | None
    relays: tuple[Relay, ...] = field(init=False)
    dht: Dht | None = field(init=False)
    client: Client = field(init=False)
    """All of them as one, with a memory."""
    _pools: list[HTTPConnectionPool] = field(factory=list, init=False)
    # Connections to peers.
    _saving: LoopingCall = field(init=False)
    log: ClassVar[Logger] = Logger()

    @relays.default
    def _make_relays(self) -> tuple[Relay, ...]:
        agent, timeout = bounded_agent(self.reactor), self.pkdns.relay_request_timeout_ms / 1000
        return tuple(Relay(url, agent, self.reactor, timeout) for url in self.pkdns.relays)

    @dht.default
    def _make_dht(self) -> Dht | None:
        if not self.node.enabled:
            return None
        return Dht(self.reactor, settings_of(self.pkdns, self.node, self.file is None), self._remember())

    @client.default
    def _make_client(self) -> Client:
        return Client(self.reactor, self.relays, self.dht)

    @_saving.default
    def _make_saving(self) -> LoopingCall:
        saving = LoopingCall(self._save)
        saving.clock = self.reactor
        return saving

    def startService(self) -> None:
        """Join the DHT. Raises `CannotStart` if there is no port for it."""
        super().startService()
        if self.dht is None:
            return
        try:
            self.dht.startService()
        except CannotListenError as error:
            raise CannotStart(f"The DHT cannot listen (dht.addresses, dht.port): {error}") from None
        self._saving.start(SAVE_INTERVAL, now=False)

    async def _leave(self) -> None:
        """Leave the DHT, and write down who is there."""
        self.client.close()
        await DeferredList([pool.closeCachedConnections() for pool in self._pools])
        if self.dht is None or not self._saving.running:
            return
        self._saving.stop()
        self._save()
        await self.dht.stopService()

    def agent_to(self, peer: Peer, engine: IEngine | str) -> IAgent | None:
        """What reaches a peer: as the rest of the web if its URL is known, else where its key leads; None: nothing.

        `engine`: what speaks TLS by public key, or why nothing does.
        """
        if peer.url is None and isinstance(engine, str):
            self.log.warn(
                "{peer} has no url, and cannot be reached by its key: {reason}", peer=peer.name, reason=engine
            )
            return None
        pool = HTTPConnectionPool(self.reactor)
        self._pools.append(pool)
        if peer.url is not None or isinstance(engine, str):
            return bounded_agent(self.reactor, pool=pool)
        return bounded_agent(self.reactor, KeyEndpoints(Endpoints(self.client).places, engine, self.reactor), pool)

    def stopService(self) -> Deferred[None]:
        """Leave; fires when the ports are closed."""
        super().stopService()
        return Deferred.fromCoroutine(self._leave())

    def _remember(self) -> Saved:
        if self.file is None:
            return Saved()
        try:
            with self.file.open("rb") as stream:
                return Saved.parse(stream.read(MAX_LENGTH + 1))
        except FileNotFoundError:
            pass
        except (OSError, InvalidSaved) as error:
            self.log.warn("The nodes of the DHT in {file} cannot be read: {error}", file=str(self.file), error=error)
        return Saved()

    def _save(self) -> None:
        if self.file is None or self.dht is None or not self.dht.known:
            return  # whom we knew before is worth more than nobody
        try:
            write_whole(self.file, bytes(self.dht.save()))
        except OSError as error:
            self.log.warn("{file} cannot be written: {error}", file=str(self.file), error=error)
