"""All that a homeserver has with its peers: what they may read, the copies it keeps, and who brings those up to date.

Nothing of this exists without peers in the settings.
"""

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IAgent

from pkarr.interfaces import INetwork
from pkarr.keys import Keypair
from pubky_homeserver.copies import Copies
from pubky_homeserver.core.copies import Copy
from pubky_homeserver.core.peers import NONE, Peer
from pubky_homeserver.interfaces import ICopyStore, ILogStore, IPacketStore
from pubky_homeserver.peers.client import PeerClient
from pubky_homeserver.peers.following import Follower
from pubky_homeserver.peers.mirror import Mirror
from pubky_homeserver.peers.web import PeerSite
from pubky_homeserver.storage import Storage


@define(eq=False)
class Peering(Service):
    """Lets peers follow, and follows them. `agent` reaches a peer; `network` finds packets.

    `follows`: whether this process keeps the copies up to date; every process serves.
    """

    keypair: Keypair
    peers: tuple[Peer, ...]
    logs: ILogStore
    copies: Copies
    packets: IPacketStore
    storage: Storage
    network: INetwork | None
    agent: Callable[[Peer], IAgent | None]
    clock: IReactorTime
    epoch: Callable[[], str]
    site: PeerSite = field(init=False)
    mirrors: tuple[Mirror, ...] = field(init=False)

    @site.default
    def _make_site(self) -> PeerSite:
        known = {peer.key: peer for peer in self.peers}
        key = self.keypair.public_key.z32
        return PeerSite(key, known, self.logs, self.storage, self.packets, self.clock, self.epoch)

    @mirrors.default
    def _make_mirrors(self) -> tuple[Mirror, ...]:
        if self.network is None:
            return ()
        return tuple(self._mirror(peer, agent) for peer in self.peers if (agent := self._reaches(peer)) is not None)

    def status(self) -> dict[str, object]:
        """How it goes, for the operator: each peer that is followed, and each copy."""
        return {
            "peers": [
                {"name": mirror.peer.name, "key": mirror.peer.key, "failure": mirror.failure} for mirror in self.mirrors
            ],
            "copies": [self._describe(copy) for copy in sorted(self.copies.all(), key=lambda copy: copy.pubky)],
        }

    def _describe(self, copy: Copy) -> dict[str, object]:
        position = copy.public.position
        return {
            "pubky": copy.pubky,
            "primary": copy.primary,
            "state": self.copies.state(copy),
            "seq": 0 if position is None else position.seq,
            "confirmed": self.copies.confirmed(copy),
            "used": copy.used,
            "missing": copy.missing,
        }

    def _reaches(self, peer: Peer) -> IAgent | None:
        return None if peer.follow == NONE else self.agent(peer)

    def _mirror(self, peer: Peer, agent: IAgent) -> Mirror:
        assert self.network is not None
        client = PeerClient(peer, self.keypair, agent, self.clock)

        def may_keep(length: int) -> bool:
            return self.copies.used_by(peer.key) + length <= peer.max_bytes

        store: ICopyStore = self.copies.store
        follower = Follower(client, store, self.storage.blobs, self.clock, self.storage.inline_limit, may_keep)
        return Mirror(peer, client, follower, self.copies, self.packets, self.network, self.clock)

    def startService(self) -> None:
        """Begin to follow."""
        super().startService()
        for mirror in self.mirrors:
            mirror.startService()

    def stopService(self) -> Deferred[None]:
        """Stop; fires when nothing is under way any more."""
        super().stopService()
        self.site.stop()
        ending: list[Any] = [mirror.stopService() for mirror in self.mirrors]
        return DeferredList(ending, consumeErrors=True).addCallback(lambda _results: None)
