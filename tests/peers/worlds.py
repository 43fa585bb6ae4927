"""A small world of homeservers that trust each other, its users, and what was acknowledged to them.

Each node is what a process has, over the stores in memory, which outlive it; they speak over `wire.py`. What happens
is noted as users saw it. Whether all is well at the end others say (`judge.py`), who know nothing of how it came about.
"""

from collections.abc import AsyncIterator, Callable
from random import Random
from random import seed as seed_all
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.iweb import IAgent

from pkarr.builder import Builder
from pkarr.keys import Keypair
from pubky_homeserver.copies import Copies
from pubky_homeserver.core.capabilities import parse_capabilities
from pubky_homeserver.core.errors import Refused, UserExists
from pubky_homeserver.core.peers import ALL, Claim, Peer
from pubky_homeserver.core.records import Account, Operation, Session
from pubky_homeserver.core.roles import Role
from pubky_homeserver.packets import Packets
from pubky_homeserver.peers.peering import Peering
from pubky_homeserver.storage import Storage
from pubky_homeserver.store.memory import MemoryStore
from pubky_homeserver.testing import MemoryBlobs
from tests.peers.wire import Weather, Wires
from tests.pkarr.networks import Simulated

NOW = 1_795_387_747.0
INLINE = 64
"""Bytes of the bodies that lie in an entry: so a history has both kinds."""

WEBS = 2
"""Processes of a homeserver that answer, where it is several."""


@frozen
class Acknowledged:
    """A write that a homeserver said was done."""

    node: str
    pubky: str
    operation: Operation
    path: str
    body: bytes | None
    at: float


@define
class User:
    """Somebody with a key."""

    keypair: Keypair
    home: str = ""
    """The node whose name the newest record says."""
    signed: int = 0
    """Microseconds: when that was signed."""
    been: set[str] = field(factory=set)
    """The nodes where they signed up."""

    @property
    def pubky(self) -> str:
        """Their name."""
        return self.keypair.public_key.z32

    @property
    def session(self) -> Session:
        """As it is after a sign-in."""
        return Session("0" * 64, self.pubky, tuple(parse_capabilities("/:rw")), 0)


@define(eq=False)
class Node:
    """One homeserver: what lasts, and the process of the moment, or the processes."""

    name: str
    keypair: Keypair
    clock: Clock
    store: MemoryStore = field(init=False)
    blobs: MemoryBlobs = field(init=False)
    storage: Storage = field(init=False)
    epoch: int = 0
    peering: Peering | None = None
    """Of the process that works in the background."""
    webs: list[Peering] = field(factory=list)
    """Of those that answer, if it is several."""

    def __attrs_post_init__(self) -> None:
        self.store, self.blobs = MemoryStore(self.clock), MemoryBlobs(self.clock)
        self.storage = Storage(self.store, self.store.locks, self.blobs, self.clock, None, INLINE)

    @property
    def key(self) -> str:
        """Its name in records."""
        return self.keypair.public_key.z32


@define
class World:
    """Nodes, users, the network that has the records, and time."""

    random: Random
    trust: dict[str, dict[str, dict[str, Any]]]
    """Node → peer → how it is set besides name, key and URL."""
    split: frozenset[str] = frozenset()
    """The nodes that are three processes: two answer, one works in the background."""
    clock: Clock = field(factory=Clock)
    network: Simulated = field(init=False)
    wires: Wires = field(init=False)
    nodes: dict[str, Node] = field(init=False)
    users: dict[str, User] = field(factory=dict)
    acknowledged: list[Acknowledged] = field(factory=list)
    between: Callable[[IAgent], IAgent] = lambda agent: agent
    """What lies between a node and the wires."""

    def __attrs_post_init__(self) -> None:
        seed_all(repr(self.random.getstate()))  # what jitters: a seed brings back all of a history
        self.clock.advance(NOW)
        self.network = Simulated(self.clock)
        self.wires = Wires(self.clock, Weather(self.random))
        self.nodes = {
            name: Node(name, Keypair(bytes([100 + number]) * 32), self.clock) for number, name in enumerate(self.trust)
        }

    async def start(self, name: str) -> None:
        """A process begins, or all of a homeserver: they know nothing but what its store has."""
        node = self.nodes[name]
        if name not in self.split:
            node.peering = await self._make(name, Role.ALL)
            self.wires.sites[name] = node.peering.site.answer
            node.peering.startService()
            return
        self.wires.sites[name] = lambda request: self.random.choice(node.webs).site.answer(request)
        while len(node.webs) < WEBS:
            await self._start_web(node)
        await self.start_background(name)

    async def start_background(self, name: str) -> None:
        """The process in the background begins, of several."""
        peering = self.nodes[name].peering = await self._make(name, Role.BACKGROUND)
        peering.startService()

    async def restart_web(self, name: str) -> None:
        """One of the processes that answer is another one."""
        node = self.nodes[name]
        await node.webs.pop(self.random.randrange(WEBS)).stopService()
        await self._start_web(node)

    async def _start_web(self, node: Node) -> None:
        web = await self._make(node.name, Role.WEB)
        node.webs.append(web)
        web.startService()

    async def _make(self, name: str, role: Role) -> Peering:
        node = self.nodes[name]
        copies = Copies(node.store.copies, self.clock)
        await copies.load()
        peers = tuple(
            Peer(**{"name": other, "key": self.nodes[other].key, "url": f"http://{other}", "claim": Claim.ALLOW} | more)
            for other, more in self.trust[name].items()
        )
        return Peering(
            keypair=node.keypair,
            peers=peers,
            logs=node.store.logs,
            accounts=node.store,
            moves=node.store.moves,
            integrity=node.store.integrity,
            copies=copies,
            shelf=node.store.shelf,
            packets=Packets(node.store.packets, node.key, frozenset(peer.key for peer in peers), fences=True),
            storage=node.storage,
            network=self.network,
            agent=lambda _peer: self.between(self.wires.agent(name)),
            clock=self.clock,
            epoch=lambda: f"{name}{node.epoch}",
            erasing=node.store.erasures,
            happened=node.store.chronicle,
            grants=node.store.grants,
            role=role,
            hints=node.store,
        )

    async def kill(self, name: str) -> None:
        """The process is gone, or all of them: what was under way is lost, its store stays."""
        node = self.nodes[name]
        self.wires.sites.pop(name, None)
        while node.webs:
            await node.webs.pop().stopService()
        await self.kill_background(name)

    async def kill_background(self, name: str) -> None:
        """The process is gone that works in the background, or that does all."""
        node = self.nodes[name]
        if node.peering is not None:
            peering, node.peering = node.peering, None
            self.wires.hang_up(name)
            await peering.stopService()

    async def sign_up(self, user: User, name: str) -> None:
        """Somebody new, who publishes a record that says so."""
        self.users[user.pubky] = user
        user.been.add(name)
        await self.nodes[name].store.sign_up(Account(user.pubky, self.microseconds), None, None, False)
        await self.point(user, name)

    async def claim(self, user: User, name: str) -> bool:
        """The user signs up at a node that has a copy, or has not. Whether it lets them."""
        node = self.nodes[name]
        try:
            await node.store.sign_up(Account(user.pubky, self.microseconds), None, None, False, may_claim=True)
        except UserExists:
            return False
        user.been.add(name)
        serving = self.random.choice(node.webs) if node.webs else node.peering
        if serving is not None:
            await serving.copies.refresh(user.pubky)
        return True

    async def point(self, user: User, name: str) -> None:
        """The user signs a record that names a node, and publishes it."""
        user.home, user.signed = name, max(self.microseconds, user.signed + 1)
        packet = Builder().https("_pubky", 0, self.nodes[name].key).sign(user.keypair, user.signed)
        self.network.packets[packet.public_key.raw] = packet  # whoever has no network at the moment, the user has one

    async def put(self, user: User, path: str, body: bytes, name: str | None = None) -> bool:
        """A file, at home or elsewhere. Whether it was acknowledged."""
        name = name or user.home
        try:
            await self.nodes[name].storage.put(user.session, user.pubky, path, _body(body), len(body))
        except Refused:
            return False
        self.acknowledged.append(Acknowledged(name, user.pubky, Operation.PUT, path, body, self.clock.seconds()))
        return True

    async def delete(self, user: User, path: str, name: str | None = None) -> bool:
        """A file goes. Whether it was acknowledged."""
        name = name or user.home
        try:
            await self.nodes[name].storage.delete(user.session, user.pubky, path)
        except Refused:
            return False
        self.acknowledged.append(Acknowledged(name, user.pubky, Operation.DEL, path, None, self.clock.seconds()))
        return True

    async def act(self, user: User, name: str | None = None) -> None:
        """Anything that a user may do with files."""
        random = self.random
        path = f"{random.choice(['/pub/', '/pub/a/', '/priv/'])}{random.randrange(8)}"
        if random.random() < 0.3:
            await self.delete(user, path, name)
        else:
            await self.put(user, path, random.randbytes(random.choice([0, 5, 64, 65, 3000])), name)

    def pass_time(self, seconds: float) -> None:
        """Let time pass, from one thing that happens to the next."""
        end = self.clock.seconds() + seconds
        while calls := self.clock.getDelayedCalls():
            left = min(calls[0].getTime(), end) - self.clock.seconds()
            self.clock.advance(max(left, 0))
            if self.clock.seconds() >= end:
                return
        self.clock.advance(max(end - self.clock.seconds(), 0))

    @property
    def microseconds(self) -> int:
        """What time it is."""
        return int(self.clock.seconds() * 1_000_000)


async def _body(body: bytes) -> AsyncIterator[bytes]:
    if body:
        yield body


def run(work: Any) -> BaseException | None:
    """Run what waits for nobody but the clock; the failure, if it fails."""
    failures: list[BaseException] = []

    def note(failure: Failure) -> None:
        failures.append(failure.value or AssertionError("it failed"))

    running = Deferred.fromCoroutine(work)
    running.addErrback(note)
    if not running.called:
        return AssertionError("it does not end")
    return failures[0] if failures else None


def mutual(*names: str, **settings: Any) -> dict[str, dict[str, dict[str, Any]]]:
    """Everybody follows everybody, and offers all."""
    more = {"follow": ALL, "offer": ALL, **settings}
    return {name: {other: more for other in names if other != name} for name in names}
