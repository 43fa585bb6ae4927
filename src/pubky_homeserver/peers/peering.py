"""All that a homeserver has with its peers: what they may read, the copies it keeps, and who brings those up to date.

Nothing of this exists without peers in the settings, unless there are copies: then their users may come, or come back,
and who leaves has left, as before; but nobody is asked, and nothing is verified.
"""

from collections.abc import Callable
from typing import Any, ClassVar

from attrs import define, evolve, field
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.web.iweb import IAgent

from pkarr.interfaces import INetwork
from pkarr.keys import Keypair
from pkarr.packet import SignedPacket
from pubky_homeserver.claims import Claims
from pubky_homeserver.conflicts import COUNT, Waiting
from pubky_homeserver.copies import Copies
from pubky_homeserver.core.erasing import NEVER, Erased
from pubky_homeserver.core.errors import Refused
from pubky_homeserver.core.moves import Kept
from pubky_homeserver.core.peers import NONE, Peer
from pubky_homeserver.core.roles import Role
from pubky_homeserver.interfaces import (
    IAccountStore,
    IChronicleStore,
    IErasureStore,
    IFollower,
    IGrantStore,
    IHints,
    IIntegrityStore,
    ILogStore,
    IMoveStore,
    IPeer,
    IShelfStore,
)
from pubky_homeserver.packets import Packets, home_of
from pubky_homeserver.peers.afterwards import EVERY, Afterwards
from pubky_homeserver.peers.allowance import Allowance
from pubky_homeserver.peers.bodies import Bodies, Underway
from pubky_homeserver.peers.chronicle import Chronicle
from pubky_homeserver.peers.client import PeerClient
from pubky_homeserver.peers.comparing import Comparing
from pubky_homeserver.peers.erasing import Erasures, naming
from pubky_homeserver.peers.exchange import Exchange, Knowledge
from pubky_homeserver.peers.exposure import Exposure
from pubky_homeserver.peers.following import Follower
from pubky_homeserver.peers.handover import Handover
from pubky_homeserver.peers.healing import LOOK, SOON, Healer, Losses
from pubky_homeserver.peers.late import LateWrites
from pubky_homeserver.peers.mirror import Mirror
from pubky_homeserver.peers.moving import Moving
from pubky_homeserver.peers.neighbours import Neighbour
from pubky_homeserver.peers.news import News
from pubky_homeserver.peers.official import Official
from pubky_homeserver.peers.opening import Opening
from pubky_homeserver.peers.ordering import Orders
from pubky_homeserver.peers.overview import Overview
from pubky_homeserver.peers.processes import BackgroundProcess, WebProcess
from pubky_homeserver.peers.reminding import Reminder
from pubky_homeserver.peers.retelling import Retelling
from pubky_homeserver.peers.strangers import Stranger
from pubky_homeserver.peers.tally import Counted, Tally, Traffic
from pubky_homeserver.peers.verifying import Verifier
from pubky_homeserver.peers.watching import Watch
from pubky_homeserver.peers.web import PeerSite
from pubky_homeserver.rounds import Rounds
from pubky_homeserver.storage import Storage

EPOCH = 5.0
"""Seconds from one look at our own epoch to the next: it costs nothing, and a copy that is gone is still shown."""

AgentTo = Callable[[Peer], IAgent | None]
"""What reaches a peer; None if nothing does."""


@define(eq=False)
class Peering(Service):
    """Lets peers follow, and follows them. `agent` reaches a peer; `network` finds packets.

    Where several processes are a homeserver one of them follows, and opens accounts; by `hints` it hears what the
    others heard, and they how the copies are (`processes.py`).
    """

    keypair: Keypair
    peers: tuple[Peer, ...]
    logs: ILogStore
    accounts: IAccountStore
    moves: IMoveStore
    integrity: IIntegrityStore
    copies: Copies
    shelf: IShelfStore
    packets: Packets
    storage: Storage
    network: INetwork
    agent: AgentTo
    clock: IReactorTime
    epoch: Callable[[], str]
    erasing: IErasureStore = field(kw_only=True)
    grants: IGrantStore = field(kw_only=True)
    happened: IChronicleStore = field(kw_only=True)
    grace: float = field(default=259_200.0, kw_only=True)
    """Seconds from the order to erase a copy until it is wiped."""
    is_taken_down: Callable[[str], bool] = field(default=lambda _pubky: False, kw_only=True)
    """Whether nobody may read an account here."""
    role: Role = field(default=Role.ALL, kw_only=True)
    hints: IHints | None = field(default=None, kw_only=True)
    """How this process and others hear of each other; it may be None if there are no others."""
    tally: Tally = field(factory=Tally, init=False)
    """What happens with peers, counted."""
    shelved: Waiting = field(init=False)
    """How much lies on the conflict shelf."""
    _officials: dict[str, Official] = field(factory=dict, init=False)
    # Peer's key → the official homeserver that it is.
    _traffic: dict[str, Traffic] = field(factory=dict, init=False)
    # Peer's key → what we exchange with it.
    chronicle: Chronicle = field(init=False)
    """What happened to accounts."""
    knowledge: Knowledge = field(init=False)
    overview: Overview = field(init=False)
    """What the operator sees."""
    claims: Claims = field(init=False)
    """What users of copies may do here."""
    neighbours: dict[str, Neighbour] = field(init=False)
    """The peers that can be asked, by their keys."""
    handover: Handover = field(init=False)
    """What hands private files over."""
    site: PeerSite = field(init=False)
    erasures: Erasures = field(init=False)
    """What our primaries order."""
    orders: Orders = field(init=False)
    """What we order."""
    moving: Moving | None = field(default=None, init=False)
    watch: Watch = field(init=False)
    """Looks records up; those of who writes here too, where it is started."""
    _healing: Rounds | None = field(default=None, init=False)
    _services: tuple[Service, ...] = field(default=(), init=False)
    # What runs besides the mirrors, in the order of its start.
    verifier: Verifier | None = field(default=None, init=False)
    _lates: dict[str, LateWrites] = field(factory=dict, init=False)
    # Peer's key → what takes its late writes.
    news: News = field(init=False)
    """What is done about packets that were news."""
    _epoch: str = field(default="", init=False)
    _looking: LoopingCall = field(init=False)
    # Whether our own epoch changes.
    _deaf: list[Callable[[], None]] = field(factory=list, init=False)
    # How to hear of lost bodies no more.
    _others: WebProcess | BackgroundProcess | None = field(init=False)
    # What is told to other processes, and heard of them.
    log: ClassVar[Logger] = Logger()

    @chronicle.default
    def _make_chronicle(self) -> Chronicle:
        return Chronicle(self.happened, self.clock)

    @knowledge.default
    def _make_knowledge(self) -> Knowledge:
        known = {peer.key: peer for peer in self.peers}
        return Knowledge(
            *(self.packets.homeserver, known, self.logs, self.copies, self.packets),
            note_home=self.moves.note_home,
        )

    @site.default
    def _make_site(self) -> PeerSite:
        knowledge = self.knowledge
        key, peers = knowledge.homeserver, knowledge.peers
        return PeerSite(
            *(key, peers, self.logs, self.storage, knowledge, self.clock, self.epoch, self._late),
            notice=self._notice,
            integrity=self.integrity,
            is_taken_down=self.is_taken_down,
            fork=self.chronicle.note_fork,
            lived_at=self.moves.lived_at,
            has_all=self.handover.note,
        )

    @claims.default
    def _make_claims(self) -> Claims:
        return Claims(
            *(self.copies, self.moves, self.packets, self.knowledge.peers, self.clock),
            turn_away=lambda: self.tally.count(Counted.TURNED_AWAY),
        )

    @shelved.default
    def _make_shelved(self) -> Waiting:
        return Waiting(self.shelf)

    @neighbours.default
    def _make_neighbours(self) -> dict[str, Neighbour]:
        reached = {peer: self.agent(peer) for peer in self.peers}
        return {peer.key: self._neighbour(peer, agent) for peer, agent in reached.items() if agent is not None}

    @watch.default
    def _make_watch(self) -> Watch:
        return Watch(self.storage.entries, self.logs, self.packets, self.network, self.clock)

    @news.default
    def _make_news(self) -> News:
        concerned = self.neighbours if self.role.works else {}
        return News(self.knowledge, concerned, self._learn, self.tally, self.clock)

    @_others.default
    def _make_others(self) -> WebProcess | BackgroundProcess | None:
        key = self.knowledge.homeserver
        if self.role is Role.ALL:
            return None
        assert self.hints is not None
        if self.role is Role.WEB:
            return WebProcess(key, self.copies, self.hints, self.clock)
        return BackgroundProcess(
            *(key, self.copies, self.packets, self.hints, self.clock),
            *(self._look_again, self.news.hear, self._forget, self._call, self._notice),
        )

    @_looking.default
    def _make_looking(self) -> LoopingCall:
        looking = LoopingCall(lambda: Deferred.fromCoroutine(self._look_at_epoch()))
        looking.clock = self.clock
        return looking

    @erasures.default
    def _make_erasures(self) -> Erasures:
        return Erasures(
            self.knowledge.homeserver,
            self.erasing,
            self.copies,
            self.packets,
            naming(self.keypair),
            self.network,
            self.claims.look,
            self._leave,
            self.clock,
            grace=self.grace,
        )

    @orders.default
    def _make_orders(self) -> Orders:
        key, peers = self.knowledge.homeserver, self.knowledge.peers
        sources = {key: neighbour.source for key, neighbour in self.neighbours.items()}
        return Orders(key, peers, sources, self.erasing, self.logs, self.packets, self.clock)

    @handover.default
    def _make_handover(self) -> Handover:
        key = self.knowledge.homeserver
        return Handover(key, self.neighbours, self.copies, self.logs, self.shelf, self.clock)

    def __attrs_post_init__(self) -> None:
        self.site.obey, self.site.called = self.erasures.obey, self._call
        self.claims.show, self.claims.hidden = self.erasures.show, self.erasing.hidden
        self.claims.look, self.claims.look_soon = self.watch.look, self.watch.look_soon
        self.erasures.look = self.watch.look
        if self.role.works:
            self._make_services()
        exposure = Exposure(self.neighbours, self.accounts, self.logs, self.copies, self.clock)
        facts = self.neighbours, self._traffic, self.copies, self.orders, self.erasures
        self.overview = Overview(*facts, exposure, self.shelved, self.tally, self.chronicle)

    def _make_services(self) -> None:
        """What is done in the background."""
        key, look = self.knowledge.homeserver, self.watch.look_soon
        opening = Opening(key, self.moves, self.copies, self.packets, self.neighbours, self.clock)
        followed = frozenset(mirror.peer.key for mirror in self.mirrors)
        reminder = Reminder(self.packets, self.copies, followed, self.network, self.clock, self.tally)
        self.moving = Moving(opening, self.moves, self.claims, self.neighbours, look, self.clock, self.chronicle)
        counting = Rounds(self.shelved.look, "The count of conflicts", COUNT, self.clock, first=0.0)
        reading = Rounds(self.chronicle.look, "The look at what happened", COUNT, self.clock, first=0.0)
        self.erasures.come = self.moving.weigh_soon
        services = (self.watch, self.moving, self.erasures, self.orders, reminder, counting, reading)
        self._services = (*services, *(self._make_mending() if self.peers else ()))

    def _make_mending(self) -> tuple[Service, ...]:
        """What looks whether bodies are right, and fetches them; and late writes, from official homeservers."""
        blobs, inline, tally = self.storage.blobs, self.storage.inline_limit, self.tally
        bodies = {
            key: Bodies(neighbour.source, blobs, inline, lambda _length: True, tally, clock=self.clock)
            for key, neighbour in self.neighbours.items()
        }
        healer = Healer(self.copies, self.integrity, self.neighbours, bodies, tally, self.clock)
        self._healing = Rounds(healer.look, "The healing of bodies", LOOK, self.clock, SOON)
        self.verifier = Verifier(
            *(self.accounts, self.copies, self.integrity, blobs, self.neighbours),
            *(healer, tally, self.clock),
        )
        afterwards = Afterwards(
            *(self.neighbours, self._officials, self.copies, self.packets, self.logs, self.storage.entries),
            *(self.shelf, self.clock),
        )
        late = Rounds(afterwards.look, "The look for late writes", EVERY, self.clock)
        return (self.verifier, self._healing, self.handover.rounds, *((late,) if self._officials else ()))

    @property
    def mirrors(self) -> tuple[Mirror, ...]:
        """Who follows the peers."""
        return tuple(one.mirror for one in self.neighbours.values() if one.mirror is not None)

    def _neighbour(self, peer: Peer, agent: IAgent) -> Neighbour:
        traffic = self._traffic[peer.key] = Traffic()
        official = Official(peer, agent, self.clock, traffic) if peer.official else None
        client: IPeer = PeerClient(peer, self.keypair, agent, self.clock, traffic)
        if official is not None:
            client = Stranger(official)
            self._officials[peer.key] = official

        allowance = Allowance(peer, self.copies, self.shelf)
        store, blobs, inline = self.copies.store, self.storage.blobs, self.storage.inline_limit
        key = self.keypair.public_key.z32
        comparing = Comparing(
            *(client, store, self.logs, self.shelf, key, self.clock, allowance.may_keep),
            fork=lambda pubky: self.chronicle.note_fork(pubky, peer.key),
        )
        ours = Follower(
            *(client, store, blobs, self.clock, inline, allowance.may_follow, allowance.read),
            comparing=comparing,
            tally=self.tally,
            underway=allowance.underway,
        )
        follower: IFollower = ours
        if official is not None:
            follower = Retelling.of(official, ours, self.logs, self.storage.entries)
        exchange = Exchange(peer, client, self.knowledge, self.clock, self.epoch)
        mirror = None
        if peer.follow != NONE and self.role.works:
            network = self.network

            def begun() -> None:
                exchange.begin()
                self._heal_soon()  # it may have what is missing here
                self.handover.soon()

            async def check(pubky: str, source: IPeer) -> Erased:
                # The logs of an official homeserver's accounts are our own, and so new ones.
                return NEVER if peer.official else await self.erasures.check(pubky, source)

            mirror = Mirror(peer, client, follower, self.copies, self.packets, network, self.clock, begun, check)
        return Neighbour(peer, client, follower, ours.bodies, allowance.may_keep, exchange, mirror)

    def _heal_soon(self) -> None:
        """Look for what is missing: there is a reason."""
        if self._healing is not None:
            self._healing.soon(SOON)

    # --- what other processes and peers bring -----------------------------------------------------------------------

    def _learn(self, packet: SignedPacket, kept: Kept) -> None:
        """A packet was kept, and the copy is as it says."""
        pubky = packet.public_key.z32
        if isinstance(self._others, WebProcess):
            self._others.tell_packet(pubky, kept)
            return
        if kept is Kept.FENCED:
            self.handover.soon()
        if self.copies.of(pubky) is None and home_of(packet) == self.knowledge.homeserver:
            self.erasures.look_again(pubky)
        if self.moving is not None:
            self.moving.learn(packet, kept)

    def _leave(self, pubky: str) -> None:
        """Let nobody work on a copy any more."""
        for mirror in self.mirrors:
            mirror.leave(pubky)

    def _forget(self, pubky: str) -> None:
        """Another process has hidden a copy, for it is to be erased."""
        self._leave(pubky)
        self.erasures.look_soon()

    async def _look_again(self) -> None:
        """Go through everything once more: what other processes heard may not have come here."""
        for neighbour in self.neighbours.values():
            neighbour.exchange.begin(anew=True)
            if neighbour.mirror is not None and neighbour.mirror.running:
                neighbour.mirror.look_again()
        if self.moving is not None:
            await self.moving.weigh_all()

    async def _look_at_epoch(self) -> None:
        """Ask about everything again when our own store may have forgotten some of it."""
        epoch = self.epoch()
        if epoch == self._epoch:
            return
        try:
            if self._epoch:
                await self._read_again()
        except Refused as error:
            self.log.info("The store may be another one, and is not read yet: {reason}", reason=str(error))
            return
        except Exception:  # the loop would end for good
            self.log.failure("The store may be another one, and was not read again")
        self._epoch = epoch
        for neighbour in self.neighbours.values():
            neighbour.exchange.begin()

    async def _read_again(self) -> None:
        """Find what became of the copies, and what they lack. Raises `StoreAway`."""
        await self.copies.load()
        for copy in self.copies.all():
            self.copies.fall_behind(copy.pubky)  # until its primary says that it is not
        for mirror in self.mirrors:
            if mirror.running:
                mirror.look_again()

    # --- beginning and end ----------------------------------------------------------------------------------------

    def _notice(self, key: str) -> None:
        """A peer asks us something."""
        if isinstance(self._others, WebProcess):
            self._others.tell_asked(key)
            return
        neighbour = self.neighbours.get(key)
        if neighbour is not None and neighbour.mirror is not None:
            neighbour.mirror.notice()

    def _call(self, key: str) -> None:
        """A peer begins to listen."""
        if isinstance(self._others, WebProcess):
            self._others.tell_called(key)
        else:
            self.orders.begin(key)

    def _late(self, peer: Peer) -> LateWrites | None:
        """What takes late writes of a peer; None if it cannot be asked for their bodies."""
        neighbour = self.neighbours.get(peer.key)
        if neighbour is None:
            return None
        if peer.key not in self._lates:
            bodies, may_keep = evolve(neighbour.bodies, underway=Underway()), neighbour.may_keep
            self._lates[peer.key] = LateWrites(
                *(bodies, self.logs, self.storage.entries, self.shelf, self.clock, may_keep, self.grants)
            )
        return self._lates[peer.key]

    def startService(self) -> None:
        """Begin to follow."""
        super().startService()
        if self.peers:
            losses = Losses(self.copies, self.integrity, self.tally, self._heal_soon)
            self._deaf.append(self.storage.on_loss(losses.note))
        others = () if self._others is None else (self._others,)  # first of all: how the copies are from now on is told
        for service in (*others, self.news, *self._services):
            service.startService()
        for neighbour in self.neighbours.values():
            if neighbour.mirror is not None and not neighbour.peer.paused:
                neighbour.mirror.startService()
        if self._services:
            self._looking.start(EPOCH)

    def stopService(self) -> Deferred[None]:
        """Stop; fires when nothing is under way any more."""
        super().stopService()
        self.site.stop()
        if self._looking.running:
            self._looking.stop()
        while self._deaf:
            self._deaf.pop()()
        others = () if self._others is None else (self._others,)
        services = dict.fromkeys((*others, self.news, *self._services, self.watch, *self.mirrors))
        ending: list[Any] = [maybeDeferred(one.stopService) for one in services]
        ending += [one.stop() for one in self._lates.values()]
        ending += [stopping for one in self.neighbours.values() if (stopping := one.exchange.stop()) is not None]
        return DeferredList(ending, consumeErrors=True).addCallback(lambda _results: None)
