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
from twisted.python.failure import Failure
from twisted.web.iweb import IAgent

from pkarr.builder import Builder
from pkarr.keys import Keypair
from pkarr.packet import SignedPacket
from pubky_homeserver.copies import Copies
from pubky_homeserver.core.capabilities import parse_capabilities
from pubky_homeserver.core.errors import Refused, UserExists
from pubky_homeserver.core.peers import ALL, NONE, Claim, Peer
from pubky_homeserver.core.records import Account, Event, Operation, Session
from pubky_homeserver.core.roles import Role
from pubky_homeserver.packets import Packets
from pubky_homeserver.peers.peering import Peering
from pubky_homeserver.storage import Storage
from pubky_homeserver.store.memory import MemoryStore
from pubky_homeserver.testing import MemoryBlobs
from tests.peers.backups import put_back
from tests.peers.clients import front
from tests.peers.fuses import Fuse, fused
from tests.peers.timeline import NodeClock, Timeline
from tests.peers.wire import Answerer, Weather, Wires
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
    named: set[str] = field(factory=set)
    """The nodes that records named."""

    @property
    def pubky(self) -> str:
        """Their name."""
        return self.keypair.public_key.z32

    @property
    def session(self) -> Session:
        """As it is after a sign-in."""
        return Session("0" * 64, self.pubky, tuple(parse_capabilities("/:rw")), 0)


@frozen
class Told:
    """An event that a homeserver added to an account which was open there."""

    event: Event
    at: float
    packet: bytes | None
    """The newest packet of the account that it knew then."""


@define(eq=False)
class Node:
    """One homeserver: what lasts, and the process of the moment, or the processes."""

    name: str
    keypair: Keypair
    clock: NodeClock
    store: MemoryStore = field(init=False)
    blobs: MemoryBlobs = field(init=False)
    storage: Storage = field(init=False)
    epoch: int = 0
    peering: Peering | None = None
    """Of the process that works in the background."""
    webs: list[Peering] = field(factory=list)
    """Of those that answer, if it is several."""
    told: list[Told] = field(factory=list)
    """All events that ever were in its feed, whatever it has forgotten since."""

    def __attrs_post_init__(self) -> None:
        self.store, self.blobs = MemoryStore(self.clock), MemoryBlobs(self.clock)
        self.storage = Storage(self.store, self.store.locks, self.blobs, self.clock, None, INLINE)
        self.store._events = _Feed(self)

    @property
    def key(self) -> str:
        """Its name in records."""
        return self.keypair.public_key.z32

    @property
    def microseconds(self) -> int:
        """What time it is there."""
        return int(self.clock.seconds() * 1_000_000)


class _Feed(list[Event]):
    """The feed of a store, from which nothing goes unseen."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self._node = node

    def append(self, event: Event) -> None:
        """Note an event when it is added."""
        node = self._node
        node.told.append(Told(event, node.clock.world.seconds(), node.store.packets.kept(event.pubky)))
        super().append(event)


@define
class World:
    """Nodes, users, the network that has the records, and time."""

    random: Random
    trust: dict[str, dict[str, dict[str, Any]]]
    """Node → peer → how it is set besides name, key and URL."""
    split: frozenset[str] = frozenset()
    """The nodes that are three processes: two answer, one works in the background."""
    clock: Timeline = field(factory=Timeline)
    network: Simulated = field(init=False)
    wires: Wires = field(init=False)
    outer: Wires = field(init=False)
    """Those between homeservers and their users, where nothing gets lost."""
    bad: dict[str, Answerer] = field(factory=dict)
    """Homeservers that are none: how they answer whatever they are asked."""
    nodes: dict[str, Node] = field(init=False)
    users: dict[str, User] = field(factory=dict)
    records: dict[bytes, tuple[int, str]] = field(factory=dict)
    """All records that users signed → when (microseconds), and the node that they name."""
    acknowledged: list[Acknowledged] = field(factory=list)
    between: Callable[[IAgent], IAgent] = lambda agent: agent
    """What lies between a node and the wires."""

    def __attrs_post_init__(self) -> None:
        seed_all(repr(self.random.getstate()))  # what jitters: a seed brings back all of a history
        self.clock.advance(NOW)
        self.network = Simulated(self.clock)
        self.wires = Wires(self.clock, Weather(self.random))
        self.outer = Wires(self.clock, Weather(self.random))
        self.nodes = {
            name: Node(name, Keypair(bytes([100 + number]) * 32), NodeClock(self.clock))
            for number, name in enumerate(self.trust)
        }

    async def start(self, name: str, fuse: Fuse | None = None) -> None:
        """A process begins, or all of a homeserver: they know nothing but what its store has.

        `fuse`: when that answers no more.
        """
        node = self.nodes[name]
        if name in self.bad:
            self.wires.sites[name] = self.bad[name]
        elif name in self.split:
            self.wires.sites[name] = lambda request: self.random.choice(node.webs).site.answer(request)
            while len(node.webs) < WEBS:
                await self._start_web(node)
            await self.start_background(name)
        else:
            store = node.store if fuse is None else fused(node.store, fuse)
            node.storage = Storage(store, store.locks, node.blobs, node.clock, None, INLINE)
            peering = node.peering = await self._make(name, Role.ALL, store)
            self.wires.sites[name] = peering.site.answer
            self.outer.sites[name] = front(store, node.storage, node.clock, node.key, peering.claims)
            peering.startService()

    async def start_background(self, name: str) -> None:
        """The process in the background begins, of several."""
        peering = self.nodes[name].peering = await self._make(name, Role.BACKGROUND, self.nodes[name].store)
        peering.startService()

    async def restart_web(self, name: str) -> None:
        """One of the processes that answer is another one."""
        node = self.nodes[name]
        await node.webs.pop(self.random.randrange(WEBS)).stopService()
        await self._start_web(node)

    async def _start_web(self, node: Node) -> None:
        web = await self._make(node.name, Role.WEB, node.store)
        node.webs.append(web)
        web.startService()

    async def _make(self, name: str, role: Role, store: Any) -> Peering:
        node = self.nodes[name]
        copies = Copies(store.copies, node.clock)
        await copies.load()
        peers = tuple(
            Peer(**{"name": other, "key": self.nodes[other].key, "url": f"http://{other}", "claim": Claim.ALLOW} | more)
            for other, more in self.trust[name].items()
        )
        return Peering(
            keypair=node.keypair,
            peers=peers,
            logs=store.logs,
            accounts=store,
            moves=store.moves,
            integrity=store.integrity,
            copies=copies,
            shelf=store.shelf,
            packets=Packets(store.packets, node.key, frozenset(peer.key for peer in peers), fences=True),
            storage=node.storage,
            network=self.network,
            agent=lambda _peer: self.between(self.wires.agent(name)),
            clock=node.clock,
            epoch=lambda: f"{name}{node.epoch}",
            erasing=store.erasures,
            happened=store.chronicle,
            grants=store.grants,
            role=role,
            hints=store,
        )

    async def kill(self, name: str) -> None:
        """The process is gone, or all of them: what was under way is lost, its store stays."""
        node = self.nodes[name]
        for wires in (self.wires, self.outer):
            wires.sites.pop(name, None)
        while node.webs:
            await node.webs.pop().stopService()
        await self.kill_background(name)

    async def kill_background(self, name: str) -> None:
        """The process is gone that works in the background, or that does all."""
        node = self.nodes[name]
        if node.peering is not None:
            peering, node.peering = node.peering, None
            for wires in (self.wires, self.outer):
                wires.hang_up(name)
            await peering.stopService()

    def rewind(self, name: str, backup: list[Any]) -> None:
        """A store has what it had once, under the process that uses it, which can see that it is another one."""
        node = self.nodes[name]
        put_back(node.store, backup)
        node.epoch += 1

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
            await node.store.sign_up(Account(user.pubky, node.microseconds), None, None, False, may_claim=True)
        except UserExists:
            return False
        user.been.add(name)
        serving = self.random.choice(node.webs) if node.webs else node.peering
        if serving is not None:
            refreshing = Deferred.fromCoroutine(serving.copies.refresh(user.pubky))
            refreshing.addErrback(lambda _failure: None)  # its store may not answer any more
        return True

    async def point(self, user: User, name: str, lag: float = 0.0) -> None:
        """The user signs a record that names a node, and publishes it; others find it after a lag (seconds)."""
        user.home, user.signed = name, max(self.microseconds, user.signed + 1)
        user.named.add(name)
        packet = Builder().https("_pubky", 0, self.nodes[name].key).sign(user.keypair, user.signed)
        self.records[packet.relay_payload] = user.signed, name
        if lag:
            self.clock.callLater(lag, self._publish, packet)
        else:
            self._publish(packet)

    def _publish(self, packet: SignedPacket) -> None:
        """Whoever has no network at the moment, the user has one."""
        known = self.network.packets.get(packet.public_key.raw)
        if known is None or not known.more_recent_than(packet):
            self.network.packets[packet.public_key.raw] = packet

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
        while (when := self.clock.first()) is not None and when <= end:
            self.clock.advance(max(when - self.clock.seconds(), 0))
        self.clock.advance(max(end - self.clock.seconds(), 0))

    @property
    def is_fair(self) -> bool:
        """Whether all who are there reach each other, and nothing is late."""
        weather = self.wires.weather
        is_calm = not (weather.refused or weather.unanswered or weather.cut or weather.doubled or weather.late)
        is_whole = all(node.peering is not None or node.name in self.bad for node in self.nodes.values())
        is_right = not any(node.clock.ahead for node in self.nodes.values())
        return is_calm and is_whole and is_right and not self.wires.broken

    # --- who trusts whom ----------------------------------------------------------------------------------------------

    def name_of(self, key: str) -> str:
        """The node with a key."""
        return next((name for name, node in self.nodes.items() if node.key == key), "")

    def is_in_touch(self, follower: str, primary: str) -> bool:
        """Whether a node says that it follows another one without trouble."""
        peering, key = self.nodes[follower].peering, self.nodes[primary].key
        mirrors = () if peering is None else peering.mirrors
        return any(mirror.peer.key == key and mirror.failure is None for mirror in mirrors)

    def is_connected(self, follower: str, primary: str) -> bool:
        """Whether a node follows what another one offers."""
        follows = self.trust[follower].get(primary, {}).get("follow", NONE)
        offers = self.trust[primary].get(follower, {}).get("offer", NONE)
        return bool(follows == ALL and offers == ALL)

    def is_copying(self, follower: str, primary: str) -> bool:
        """Whether it has room for all of that, too."""
        return self.is_connected(follower, primary) and not self.is_bounded(follower, primary)

    def is_bounded(self, follower: str, primary: str) -> bool:
        """Whether there may be too little room for it."""
        return "max_bytes" in self.trust[follower].get(primary, {})

    def consent(self, one: str, other: str) -> bool:
        """Whether both agreed on private files."""
        settings = self.trust.get(one, {}).get(other, {}), self.trust.get(other, {}).get(one, {})
        return all(one.get("private", False) for one in settings)

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
