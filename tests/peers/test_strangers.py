"""An official homeserver in a peer's place: its streams are hints, and whatever ends them loses nothing."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_twisted
from attrs import define, evolve, field
from twisted.internet import reactor as _reactor
from zope.interface.verify import verifyObject

from pkarr.builder import Builder
from pkarr.keys import Keypair
from pubky_homeserver.copies import Copies
from pubky_homeserver.core.copies import Position
from pubky_homeserver.core.errors import PeerAway, PeerRefused
from pubky_homeserver.core.peers import Selection
from pubky_homeserver.core.records import Account
from pubky_homeserver.interfaces import IFollower, IPeer
from pubky_homeserver.packets import Packets
from pubky_homeserver.peers.afterwards import Afterwards
from pubky_homeserver.peers.bodies import Bodies
from pubky_homeserver.peers.mirror import Mirror
from pubky_homeserver.peers.neighbours import Neighbour
from pubky_homeserver.peers.official import SILENCE
from pubky_homeserver.peers.probing import probe
from pubky_homeserver.peers.strangers import LOOK, Stranger
from tests.peers.test_retelling import INLINE, OTHER, THERE, US, USER, World, world
from tests.pkarr.networks import Simulated
from tests.web.sockets import turns, until

__all__ = ["world"]

reactor: Any = _reactor


@define
class Following:
    """A world in which somebody follows."""

    world: World
    copies: Copies = field(init=False)
    mirror: Mirror = field(init=False)
    network: Simulated = field(init=False)

    def __attrs_post_init__(self) -> None:
        clock, store = self.world.clock, self.world.store
        self.copies = Copies(store.copies, clock)
        self.network = Simulated(clock)
        retelling = self.world.retelling
        stranger = Stranger(retelling.source, lambda: 1.0)
        packets = Packets(store.packets, US, frozenset({THERE}))
        peer = retelling.source.peer
        self.mirror = Mirror(peer, stranger, retelling, self.copies, packets, self.network, clock, jitter=lambda: 1.0)

    async def name(self, keypair: Keypair, home: str = THERE) -> None:
        """The user's record."""
        await self.network.publish(Builder().https("_pubky", 0, home).sign(keypair, self.world.now))

    async def until_quiet(self) -> None:
        """Nothing is left to do, and somebody listens."""
        await until(lambda: self.mirror.is_quiet and self.world.official.live)

    async def until_there(self) -> None:
        """The copy has what the homeserver has."""
        last = self.world.official.events[-1].id

        def is_there() -> bool:
            copy = self.copies.of(USER)
            position = None if copy is None else copy.public.position
            return position is not None and position.event_id == last and self.mirror.is_quiet

        await until(is_there)
        await self.world.compare()

    async def live(self, holds: Callable[[], object], step: float = 0.5) -> None:
        """Let time pass, a step for some turns of the reactor, until something holds."""
        end = reactor.seconds() + 20
        while not holds():
            assert reactor.seconds() < end, "it never came true"
            self.world.clock.advance(step)
            await turns(10)

    @property
    def failure(self) -> str:
        """Why the homeserver cannot be followed; nothing if it can."""
        return self.mirror.failure or ""

    @property
    def state(self) -> str:
        """What readers of the copy are told of it."""
        copy = self.copies.of(USER)
        assert copy is not None
        return self.copies.state(copy)


@pytest_twisted.async_yield_fixture
async def following(world: World) -> AsyncIterator[Following]:
    """The user's copy is whole, and its stream open."""
    made = Following(world)
    world.put("/pub/first")
    await made.name(Keypair(b"\x01" * 32))
    made.mirror.startService()
    await made.until_there()
    await made.until_quiet()
    yield made
    await made.mirror.stopService()


def test_ports(world: World) -> None:
    """It is a peer, and what follows it a follower, as the others are."""
    assert verifyObject(IPeer, Stranger(world.retelling.source))
    assert verifyObject(IFollower, world.retelling)
    assert verifyObject(IFollower, world.retelling.follower)


@pytest_twisted.ensureDeferred
async def test_what_happens_is_there_at_once(following: Following) -> None:
    """No time passes between an event and its copy; a burst is asked for in few questions."""
    following.world.put("/pub/second", b"x" * 500)
    await following.until_there()
    before = following.world.asked("GET", "/events-stream")
    for number in range(50):
        following.world.put("/pub/often", b"%d" % number)
    await following.until_there()
    assert following.world.asked("GET", "/events-stream") - before < 70
    assert following.state == "current"


@pytest_twisted.ensureDeferred
async def test_a_stream_that_lagged_behind(following: Following) -> None:
    """A stream that is cut without having told all is opened again, and what it did not tell is found."""
    official = following.world.official
    official.hears = False
    for number in range(5):
        following.world.put(f"/pub/{number}")
    official.cut()
    official.hears = True
    await following.live(lambda: official.live)
    await following.until_there()


@pytest_twisted.ensureDeferred
async def test_a_stream_that_says_nothing(following: Following) -> None:
    """Without a word for some time the connection counts as broken."""
    official = following.world.official
    official.hears = False
    following.world.put("/pub/unheard")
    following.world.clock.advance(SILENCE - 1)
    assert official.live
    following.world.clock.advance(1)
    await until(lambda: not official.live)
    official.hears = True
    await following.live(lambda: official.live)
    await following.until_there()


@pytest_twisted.ensureDeferred
async def test_a_quiet_account_stays_current(following: Following) -> None:
    """Its words that nothing happened keep the copy current, and now and then it is asked; else it is stale."""
    world = following.world
    began, traffic = world.clock.seconds(), world.retelling.source.traffic
    for _ in range(60):
        world.clock.advance(15)
        received = traffic.received
        world.official.beat()
        await until(lambda before=received: traffic.received > before)  # type: ignore[misc]  # mypy knows no such lambda
        await until(lambda: following.mirror.is_quiet)
    assert following.state == "current"
    assert (await world.state()).confirmed / 1_000_000 - began > 900 - LOOK - 20


@pytest_twisted.ensureDeferred
async def test_a_homeserver_that_restarts(following: Following) -> None:
    """While it is away the copy stays as it is, and says so; when it is back it goes on."""
    official, world = following.world.official, following.world
    official.fails_at = 1
    official.cut()
    world.put("/pub/while/away")
    await following.live(lambda: following.state == "stale", 5)
    assert following.failure
    assert following.state == "stale"
    assert await world.store.entry(USER, "/pub/first") is not None
    official.fails_at = 0
    await following.live(lambda: official.live and following.mirror.is_quiet, 5)
    await following.until_there()
    assert not following.failure
    assert following.state == "current"


@pytest_twisted.ensureDeferred
async def test_an_account_that_is_unknown_there(following: Following) -> None:
    """Whom the homeserver forgets stays here, stale; the stream of nobody else is spoilt."""
    official, world = following.world.official, following.world
    files = official.users.pop(USER)
    official.cut()
    await following.live(lambda: following.state == "stale", 5)
    assert not following.failure
    assert await world.store.entry(USER, "/pub/first") is not None
    official.users[USER] = files
    await following.live(lambda: official.live and following.mirror.is_quiet, 5)
    await following.until_there()


@pytest_twisted.ensureDeferred
async def test_who_lives_elsewhere_is_not_followed(world: World) -> None:
    """I12: without a record that names the homeserver nothing of an account is copied."""
    made = Following(world)
    world.put("/pub/file")
    await made.name(Keypair(b"\x01" * 32), OTHER)
    made.mirror.startService()
    await until(lambda: world.official.live and not made.mirror._working)
    assert await world.store.copies.copy(USER) is None
    await made.mirror.stopService()


@pytest_twisted.ensureDeferred
async def test_what_only_peers_know(world: World) -> None:
    """It answers, can nothing of what peers can, and is asked for none of that."""
    stranger = Stranger(world.retelling.source)
    assert (await stranger.greet()).features == frozenset()
    assert await stranger.offered("") == ([], None)
    assert await stranger.packet(USER) is None
    for asking in (
        stranger.show([]),
        stranger.events(USER, False, Position("", 0, 0, b"")),
        stranger.entries(USER, False, ""),
        stranger.late(USER, False, []),
    ):
        with pytest.raises(PeerRefused):
            await asking
    world.official.away = 1
    with pytest.raises(PeerAway):
        await stranger.greet()


# --- an operator asks ---------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_what_the_operator_is_told(world: World) -> None:
    """It offers nothing by itself: it is asked whether it knows the accounts that the settings name."""
    official = world.retelling.source
    found = await probe(official.peer, Stranger(official))
    assert (found.well, found.says) == (True, "It answers, and knows 1 of the 1 accounts that were asked for.")
    official.peer = evolve(official.peer, follow=Selection(keys=frozenset({USER, "y" * 52})))
    found = await probe(official.peer, Stranger(official))
    assert (found.well, found.wanted) == (False, 1)
    official.peer = evolve(official.peer, url="http://127.0.0.1:1")
    found = await probe(official.peer, Stranger(official))
    assert not found.well
    assert "cannot be reached" in found.says


# --- after a move -------------------------------------------------------------------------------------------------


@define
class After:
    """The user lives here now; who reads on what is written there."""

    world: World
    afterwards: Afterwards
    packets: Packets

    async def shelved(self) -> list[tuple[str, bytes | None]]:
        """What lies on the shelf: paths, and bodies of files."""
        page = await self.world.store.shelf.shelf(USER, "", 100)
        return [(one.path, await self.world.body(one.entry) if one.entry else None) for one in page]


async def moved(world: World, months: int = 0) -> After:
    """The user has a copy here, comes here, and may have done so months ago."""
    for number in range(3):
        world.put(f"/pub/{number}")
    await world.follow()
    packets = Packets(world.store.packets, US, frozenset({THERE}))
    account = Account(USER, world.now)
    await world.store.sign_up(account, None, None, False, may_claim=True)
    packet = Builder().https("_pubky", 0, US).sign(Keypair(b"\x01" * 32), world.now)
    await packets.learn(packet)
    assert await world.store.moves.open(USER, packet.relay_payload, world.now, False)
    world.clock.advance(months * 30 * 86_400)
    copies = Copies(world.store.copies, world.clock)
    await copies.load()
    official = world.retelling.source
    stranger = Stranger(official)
    bodies = Bodies(stranger, world.blobs, INLINE, lambda _length: True, clock=world.clock)
    unused: Any = None
    neighbour = Neighbour(official.peer, stranger, world.retelling, bodies, lambda _length: True, unused, None)
    store = world.store
    afterwards = Afterwards(
        {THERE: neighbour}, {THERE: official}, copies, packets, store.logs, store, store.shelf, world.clock
    )
    return After(world, afterwards, packets)


@pytest_twisted.ensureDeferred
async def test_late_writes_there(world: World) -> None:
    """Of each path the newest late write lies on the shelf, once; what is the same in both places does not."""
    after = await moved(world)
    await after.afterwards.look()
    assert await after.shelved() == []
    world.put("/pub/0", b"late " * 50)
    world.put("/pub/new", b"first")
    world.put("/pub/new", b"second")
    world.put("/pub/1")
    world.official.delete(USER, "/pub/2")
    for _ in range(2):
        await after.afterwards.look()
        found = sorted(await after.shelved())
        assert found == [("/pub/0", b"late " * 50), ("/pub/2", None), ("/pub/new", b"second")]
    entry = await world.store.entry(USER, "/pub/0")
    assert entry is not None
    assert entry.body == b"hello", "nothing is applied"
    await world.store.shelf.drop(USER, (await world.store.shelf.shelf(USER, "", 1))[0].id)
    await after.afterwards.look()
    assert len(await after.shelved()) == 2, "what the operator dropped does not come back"


@pytest_twisted.ensureDeferred
async def test_late_writes_are_read_for_a_day(world: World) -> None:
    """Who came long ago is not read on, and nobody who lives elsewhere again."""
    after = await moved(world, months=1)
    world.put("/pub/new", b"late")
    asked = len(world.official.asked)
    await after.afterwards.look()
    assert await after.shelved() == []
    assert len(world.official.asked) == asked
