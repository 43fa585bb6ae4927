"""What a homeserver does, wired over its store: the same rooms in every process, however many are one homeserver.

What clients and peers are answered, and what the operator is, are made of them where this process has the port.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from pkarr.interfaces import INetwork
from pkarr.keys import Keypair
from pubky_homeserver.accounts import Accounts
from pubky_homeserver.blobs import FileBlobs
from pubky_homeserver.config import Config
from pubky_homeserver.conflicts import Conflicts
from pubky_homeserver.copies import Copies
from pubky_homeserver.core.roles import Role
from pubky_homeserver.feed import Feed
from pubky_homeserver.grants import Grants
from pubky_homeserver.locks import Locks
from pubky_homeserver.metrics import ServerMetrics
from pubky_homeserver.packets import Packets
from pubky_homeserver.peers.numbers import Numbers, counted
from pubky_homeserver.peers.peering import AgentTo, Peering
from pubky_homeserver.records import Records
from pubky_homeserver.sessions import Sessions
from pubky_homeserver.storage import Storage
from pubky_homeserver.store.redis import RedisStore
from pubky_homeserver.takedowns import Takedowns
from pubky_homeserver.web.admin import Admin, AdminSite, NodeFacts
from pubky_homeserver.web.conflicts import Shelf
from pubky_homeserver.web.health import Health
from pubky_homeserver.web.mirrors import Mirrors
from pubky_homeserver.web.moves import Moves
from pubky_homeserver.web.records import NetworkRecords
from pubky_homeserver.web.request import Request
from pubky_homeserver.web.site import client_site
from pubky_homeserver.web.takedowns import TakedownList
from pubky_homeserver.web.verifying import Verifying

Answer = Callable[[Request], Coroutine[Deferred[Any], Any, None]]
"""What a channel calls with each request."""


@frozen
class Rooms:
    """All of them, over a store that is open."""

    config: Config
    keypair: Keypair
    role: Role
    store: RedisStore
    blobs: FileBlobs
    packets: Packets
    metrics: ServerMetrics
    clock: IReactorTime
    copies: Copies = field(init=False)
    accounts: Accounts = field(init=False)
    storage: Storage = field(init=False)
    takedowns: Takedowns = field(init=False)

    @copies.default
    def _make_copies(self) -> Copies:
        return Copies(self.store.copies, self.clock)

    @accounts.default
    def _make_accounts(self) -> Accounts:
        return Accounts(self.store, self.clock, self.config.general.signup_mode == "token_required")

    @storage.default
    def _make_storage(self) -> Storage:
        settings, store = self.config.storage, self.store
        return Storage(store, store.locks, self.blobs, self.clock, settings.default_limit, settings.inline_limit)

    @takedowns.default
    def _make_takedowns(self) -> Takedowns:
        return Takedowns(self.store.takedowns, self.store, self.clock, self.copies)

    async def peering(self, network: INetwork, agent: AgentTo) -> Peering:
        """What there is with peers. Raises `StoreAway`."""
        store = self.store
        await self.copies.load()
        peering = Peering(
            keypair=self.keypair,
            peers=self.config.peers,
            logs=store.logs,
            accounts=store,
            moves=store.moves,
            integrity=store.integrity,
            copies=self.copies,
            shelf=store.shelf,
            packets=self.packets,
            storage=self.storage,
            network=network,
            agent=agent,
            clock=self.clock,
            epoch=lambda: store.epoch,
            erasing=store.erasures,
            happened=store.chronicle,
            grants=store.grants,
            grace=self.config.blobs.erased_grace,
            is_taken_down=self.takedowns.has,
            role=self.role,
            hints=store,
        )
        numbers = Numbers(self.copies, peering.tally, peering.shelved)
        self.metrics.ask(numbers.read if self.role.works else lambda: counted(peering.tally))
        return peering

    def client(self, feed: Feed, peering: Peering | None) -> Answer:
        """What clients and peers are answered."""
        key, store = self.keypair.public_key.z32, self.store
        return client_site(
            self.accounts,
            Sessions(store, self.clock),
            Grants(store.grants, store, key, self.clock),
            self.storage,
            Locks(store, store.locks),
            feed,
            self.metrics,
            self.clock,
            key,
            self.takedowns,
            self.config.drive.websites,
            None if peering is None else peering.claims,
            peering.site.answer if peering is not None and self.config.peers else None,
        ).answer

    def admin(self, password: str, facts: NodeFacts, records: Records, peering: Peering | None) -> Answer:
        """What the operator is answered."""
        health = Health(self.accounts, {"disk": self.blobs.has_room}, records.checks, self.clock)
        known = NetworkRecords(records.survey, records.publish_now, self.clock)
        view = None if peering is None else peering.overview
        mirrors = Mirrors() if view is None else Mirrors(view.status, view.probe, view.pause, view.exposure)
        conflicts = Conflicts(self.store.shelf, self.storage, self.store.grants)
        shelf = Shelf(conflicts) if view is None else Shelf(conflicts, view.repair)
        verifier = None if peering is None else peering.verifier
        verifying = Verifying() if verifier is None else Verifying(verifier.begin, lambda: verifier.newest)
        admin, down = Admin(self.accounts, facts), TakedownList(self.takedowns)
        return AdminSite(admin, health, password, known, mirrors, _moves(peering), shelf, verifying, down).answer


def _moves(peering: Peering | None) -> Moves:
    if peering is None or peering.moving is None:
        return Moves()
    return Moves(peering.moving.open, peering.moving.check, peering.orders.erase)
