"""Two homeservers: one behind a real socket, and the other one's client of it."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from attrs import define, evolve, field, frozen
from blake3 import blake3
from twisted.internet import reactor as _reactor
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import Clock
from twisted.web.client import Agent, HTTPConnectionPool
from zope.interface import implementer

from pkarr.keys import Keypair
from pubky_homeserver.copies import Copies
from pubky_homeserver.core.paths import url_encode
from pubky_homeserver.core.peers import ALL, Peer
from pubky_homeserver.packets import Packets
from pubky_homeserver.peers.client import PeerClient
from pubky_homeserver.peers.exchange import Knowledge
from pubky_homeserver.peers.signatures import sign
from pubky_homeserver.peers.web import PeerSite
from pubky_homeserver.storage import Storage
from pubky_homeserver.store.memory import MemoryStore
from tests.web.client import Answer, ask
from tests.web.served import HOMESERVER, Served, User, served

reactor: Any = _reactor

FOLLOWER = Keypair(b"\x0f" * 32)
"""The homeserver that follows."""

OWNER = Keypair((1).to_bytes(32, "big"))
"""The first user who signs up."""


@define
class Peering:
    """A homeserver, its user, and a peer of it."""

    home: Served
    site: PeerSite
    owner: User
    client: PeerClient
    settings: dict[str, Peer]
    """The peers of the homeserver by their keys; a test changes them."""
    epochs: list[str] = field(factory=lambda: ["e1"])

    def set(self, **changes: Any) -> None:
        """Change what the homeserver allows its peer."""
        key = FOLLOWER.public_key.z32
        self.settings[key] = evolve(self.settings[key], **changes)

    async def put(self, path: str, body: bytes) -> None:
        """The user writes a file."""
        self.home.clock.advance(0.001)
        target = f"/storage/{self.owner.pubky}{url_encode(path)}"
        answer = await self.home.ask("PUT", target, self.owner.headers, body)
        assert answer.status == 201, answer
        self.home.clock.advance(0)  # the store's wake-ups are on the way

    async def delete(self, path: str) -> None:
        """The user removes a file."""
        self.home.clock.advance(0.001)
        target = f"/storage/{self.owner.pubky}{url_encode(path)}"
        answer = await self.home.ask("DELETE", target, self.owner.headers)
        assert answer.status == 204, answer
        self.home.clock.advance(0)

    async def ask(
        self,
        target: str,
        method: str = "GET",
        keypair: Keypair | None = FOLLOWER,
        headers: Mapping[str, str] | None = None,
        host: str = "127.0.0.1",
    ) -> Answer:
        """One request, signed unless there is no keypair."""
        signed = {} if keypair is None else sign(keypair, HOMESERVER, method, target, self.home.clock.seconds())
        return await ask(reactor, self.home.port, method, target, {**signed, **(headers or {})}, None, host)


@implementer(IReactorTime)
@frozen
class Asking:
    """The time of a homeserver, for who asks it over a real wire: what is to be done later is done."""

    clock: Clock

    def seconds(self) -> float:
        """The homeserver's time."""
        return float(self.clock.seconds())

    def callLater(
        self,
        delay: float,
        callable: Callable[..., Any],
        *args: object,
        **kwargs: object,
    ) -> IDelayedCall:
        """Call in so many seconds of ours."""
        later: IDelayedCall = reactor.callLater(delay, callable, *args, **kwargs)
        return later

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """None of its own."""
        return []


MakeLogs = Callable[[MemoryStore, str], Any]
"""From a store and the first user to an `ILogStore`."""


@asynccontextmanager
async def peering(logs: MakeLogs = lambda store, _pubky: store.logs, **storage: Any) -> AsyncIterator[Peering]:
    """A homeserver that offers all, and nothing private, to one peer."""
    settings = {FOLLOWER.public_key.z32: Peer("bob", FOLLOWER.public_key.z32, offer=ALL)}
    epochs, sites = ["e1"], []

    def peers(clock: Clock, store: MemoryStore, files: Storage) -> Callable[..., Any]:
        known = logs(store, OWNER.public_key.z32)
        packets = Packets(store.packets, HOMESERVER, frozenset(settings))
        knowledge = Knowledge(HOMESERVER, settings, known, Copies(store.copies, clock), packets)
        site = PeerSite(
            HOMESERVER, settings, known, files, knowledge, clock, lambda: epochs[-1], integrity=store.integrity
        )
        sites.append(site)
        return site.answer

    pool = HTTPConnectionPool(reactor)
    async with served(peers=peers, **storage) as home:
        there = Peer("alice", HOMESERVER, f"http://127.0.0.1:{home.port}", follow=ALL)
        client = PeerClient(there, FOLLOWER, Agent(reactor, pool=pool), Asking(home.clock))
        try:
            yield Peering(home, sites[0], await home.sign_up(), client, settings, epochs)
        finally:
            sites[0].stop()
            await pool.closeCachedConnections()


async def content(pieces: AsyncIterator[bytes]) -> bytes:
    """All of a body."""
    return b"".join([piece async for piece in pieces])


def hash_of(body: bytes) -> bytes:
    """What an entry says of its body."""
    return blake3(body).digest()
