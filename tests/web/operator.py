"""The operator's port of a homeserver in memory, behind a real socket."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any

from attrs import define, evolve, field
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from pkarr.client import Outcome, Spread
from pkarr.interfaces import NetworkError
from pkarr.keys import Keypair, PublicKey
from pkarr.packet import SignedPacket
from pkarr.survey import Sighting, survey
from pubky_homeserver.accounts import Accounts
from pubky_homeserver.conflicts import Conflicts
from pubky_homeserver.core.erasing import Order
from pubky_homeserver.core.errors import InvalidRequest, NotHereYet, StoreAway
from pubky_homeserver.core.health import Check, Publication
from pubky_homeserver.core.records import Totals
from pubky_homeserver.core.verification import Verification
from pubky_homeserver.publisher import Advertised
from pubky_homeserver.storage import Storage
from pubky_homeserver.store.memory import MemoryStore
from pubky_homeserver.takedowns import Takedowns
from pubky_homeserver.testing import MemoryBlobs
from pubky_homeserver.web.admin import Admin, AdminSite, NodeFacts
from pubky_homeserver.web.channel import HTTPFactory
from pubky_homeserver.web.conflicts import Shelf
from pubky_homeserver.web.health import Health
from pubky_homeserver.web.mirrors import Mirrors
from pubky_homeserver.web.moves import Moves
from pubky_homeserver.web.records import NetworkRecords
from pubky_homeserver.web.takedowns import TakedownList
from pubky_homeserver.web.verifying import Verifying
from tests.pkarr.networks import Simulated
from tests.web.client import Answer, ask

reactor: Any = _reactor

NOW = 1_795_387_747.0
"""When the tests happen: seconds since the epoch."""

KEYPAIR = Keypair(bytes(32))
ADVERTISED = Advertised(ip_address("127.0.0.1"), 6287, "localhost", 6286)
PASSWORD = "open sesame"
KEY = "8pinxxgqs41n4aididenw5apqp1urfmzdztr8jt4abrkdn435ewo"
FACTS = NodeFacts(public_key=KEY, pkarr_pubky_address=None, pkarr_icann_domain="localhost:6286", version="0.1.0")


@define(eq=False)
class MoodyStore(MemoryStore):
    """A store that can be away, break, or never answer."""

    mood: str = "well"
    used: int = 0
    """Bytes that all accounts use, as far as anybody asks."""

    async def totals(self) -> Totals:
        """See `IAccountStore`."""
        match self.mood:
            case "away":
                raise StoreAway
            case "broken":
                raise ZeroDivisionError
            case "silent":
                await Deferred()
        return evolve(await MemoryStore.totals(self), used=self.used)


@define
class Operator:
    """Somebody at the operator's port."""

    clock: Clock
    store: MoodyStore
    accounts: Accounts
    rooms: dict[str, bool] = field(factory=dict)
    """Place → whether there is room."""
    publication: Publication | None = None
    networks: list[Simulated] = field(factory=list)
    """Where records are looked for and published."""
    mirrored: dict[str, object] = field(factory=lambda: {"peers": [], "copies": []})
    """What is said of copies."""
    exposed: dict[str, object] = field(factory=dict)
    """What would be lost."""
    erased: list[str] = field(factory=list)
    """Accounts whose copies were to be erased."""
    verifications: list[Verification] = field(factory=list)
    """How one goes on."""
    verified: list[str | None] = field(factory=list)
    """What was to be verified."""
    paused: list[tuple[str, bool]] = field(factory=list)
    """Peers that were paused, and resumed."""
    probed: dict[str, dict[str, object]] = field(factory=dict)
    """What comes of asking peers, by their names."""
    checked: list[dict[str, object]] = field(factory=list)
    """What is said of copies that might become accounts."""
    opened: list[tuple[str, bool]] = field(factory=list)
    """What was to open, and whether although its list was not whole."""
    waiting: dict[str, int] = field(factory=dict)
    """Account → files that its comparison would remove, which waits."""
    site: AdminSite = field(init=False)
    port: int = field(init=False, default=0)

    async def ask(
        self,
        method: str,
        target: str,
        headers: dict[str, str] | list[tuple[str, str]] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """One request, without a password."""
        return await ask(reactor, self.port, method, target, headers, body)

    async def command(
        self, method: str, target: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        """One request with the password."""
        return await self.ask(method, target, {"X-Admin-Password": PASSWORD, **(headers or {})}, body)

    @property
    def records(self) -> dict[str, Check]:
        """What is known of the homeserver's record."""
        return {} if self.publication is None else {"record": self.publication.check(self.clock.seconds())}

    async def survey(self, key: PublicKey) -> tuple[Sighting, ...]:
        """What the networks have of a key."""
        return await survey(key, self.networks, self.clock)

    async def publish(self) -> Spread:
        """The homeserver's record at every network."""
        outcomes = []
        packet = SignedPacket.sign(KEYPAIR, ADVERTISED.records(), int(self.clock.seconds() * 1_000_000))
        for network in self.networks:
            try:
                outcomes.append(Outcome(network, await network.publish(packet)))
            except NetworkError as error:
                outcomes.append(Outcome(network, failure=error))
        return Spread(tuple(outcomes))

    async def open(self, pubky: str, incomplete: bool) -> bool:
        """Let an account open."""
        self.opened.append((pubky, incomplete))
        if not incomplete:
            raise NotHereYet
        return True

    async def check(self, pubky: str | None) -> list[dict[str, object]]:
        """What would become of copies."""
        return [one for one in self.checked if pubky in (None, one["pubky"])]

    async def repair(self, pubky: str) -> int:
        """Let a comparison go on."""
        return self.waiting.pop(pubky, 0)

    async def erase(self, pubky: str) -> list[Order]:
        """Two peers are ordered to erase their copies."""
        self.erased.append(pubky)
        return [Order(peer, pubky, "0" * 32, 1, 1) for peer in ("a" * 52, "b" * 52)]

    async def verify(self, pubky: str | None) -> Verification:
        """A verification begins."""
        self.verified.append(pubky)
        return self.verifications[0]

    def verification(self) -> Verification:
        """How far it is: one step further with each look."""
        return self.verifications.pop(0) if len(self.verifications) > 1 else self.verifications[0]

    async def expose(self) -> dict[str, object]:
        """What would be lost."""
        if not self.exposed:
            raise InvalidRequest("No homeserver is trusted by this process")
        return self.exposed

    async def pause(self, name: str, paused: bool) -> None:
        """A peer is left alone, or not."""
        if name not in self.probed:
            raise InvalidRequest("The running node follows no peer of that name")
        self.paused.append((name, paused))

    async def probe(self, name: str) -> dict[str, object]:
        """Ask a peer."""
        if name not in self.probed:
            raise InvalidRequest("no such peer")
        return self.probed[name]

    def has_room(self, place: str) -> bool:
        """Whether there is room at a place."""
        return self.rooms[place]


@asynccontextmanager
async def operator(password: str = PASSWORD, has_peers: bool = True) -> AsyncIterator[Operator]:
    """A homeserver whose operator's port is open."""
    clock = Clock()
    clock.advance(NOW)
    store = MoodyStore(clock)
    accounts = Accounts(store, clock)
    one = Operator(clock, store, accounts, {"disk": True})
    health = Health(accounts, {"disk": lambda: one.has_room("disk")}, lambda: one.records, clock)
    known = NetworkRecords(one.survey, one.publish, clock)
    moves = Moves(one.open, one.check, one.erase) if has_peers else Moves()
    storage = Storage(store, store.locks, MemoryBlobs(clock), clock)
    shelf = Shelf(Conflicts(store.shelf, storage, store.grants), one.repair)
    one.site = AdminSite(
        Admin(accounts, FACTS),
        health,
        password,
        known,
        Mirrors(lambda: one.mirrored, one.probe, one.pause, one.expose),
        moves,
        shelf,
        Verifying(one.verify, one.verification),
        TakedownList(Takedowns(store.takedowns, store, clock)),
    )
    factory = HTTPFactory(one.site.answer, reactor)
    listening = reactor.listenTCP(0, factory, interface="127.0.0.1")
    one.port = listening.getHost().port
    try:
        yield one
    finally:
        await listening.stopListening()
        await factory.drain(1)
