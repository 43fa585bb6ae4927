"""What the processes of one homeserver know of copies: no web process ever says more than the one that follows."""

from collections.abc import Callable

import pytest_twisted
from attrs import define, field
from twisted.internet.task import Clock

from pkarr.builder import Builder
from pkarr.keys import Keypair
from pkarr.packet import SignedPacket
from pubky_homeserver.copies import Copies
from pubky_homeserver.core.copies import LogStanding, Position, Reign
from pubky_homeserver.core.digests import EMPTY
from pubky_homeserver.core.moves import Kept
from pubky_homeserver.packets import Packets
from pubky_homeserver.peers.processes import ASKED, BackgroundProcess, WebProcess
from pubky_homeserver.peers.telling import PAUSE
from pubky_homeserver.store.memory import MemoryStore
from tests.peers.test_moving import begin, end
from tests.peers.test_telling import Radio

NOW = 1_795_387_747.0

HOME, PEER = (Keypair(bytes([number]) * 32).public_key.z32 for number in (0x0A, 0x0B))
ONE, OTHER = (Keypair(bytes([number]) * 32).public_key.z32 for number in (1, 2))


@define(eq=False)
class House:
    """A store with copies, and processes that are told of them by a radio."""

    clock: Clock = field(factory=Clock)
    radio: Radio = field(factory=Radio)
    store: MemoryStore = field(init=False)
    heard: list[tuple[str, str]] = field(factory=list)
    """What was passed on in the background."""
    looks: int = 0

    def __attrs_post_init__(self) -> None:
        self.clock.advance(NOW)
        self.store = MemoryStore(self.clock)

    async def copy(self, pubky: str) -> None:
        """A whole copy, confirmed now."""
        copies, start = self.store.copies, Position("ab" * 16, 0, 0, EMPTY)
        standing = LogStanding(start, (Reign("ab" * 16, 1),), 0)
        await copies.begin(pubky, PEER, int(NOW * 1_000_000))
        await copies.begin_list(pubky, False, standing)
        await copies.keep_listed(pubky, False, (), "\U0010ffff")
        assert await copies.end_list(pubky, False, standing)
        await self.confirm(pubky)

    async def confirm(self, pubky: str) -> None:
        """The primary stands where the copy does."""
        now, start = int(self.clock.seconds() * 1_000_000), Position("ab" * 16, 0, 0, EMPTY)
        assert await self.store.copies.confirm(pubky, False, start, now)

    async def web(self) -> tuple[WebProcess, Copies]:
        """A web process begins."""
        copies = Copies(self.store.copies, self.clock)
        await copies.load()
        process = WebProcess(HOME, copies, self.radio, self.clock)
        process.startService()
        return process, copies

    async def background(self) -> tuple[BackgroundProcess, Copies]:
        """The process in the background begins."""
        copies = Copies(self.store.copies, self.clock)
        await copies.load()

        async def look() -> None:
            self.looks += 1

        def hear(what: str) -> Callable[[str], None]:
            return lambda about: self.heard.append((what, about))

        def learn(packet: SignedPacket, kept: Kept) -> None:
            self.heard.append((kept, packet.public_key.z32))

        packets = Packets(self.store.packets, HOME, frozenset({PEER}))
        gone, called, asked = hear("gone"), hear("called"), hear("asked")
        process = BackgroundProcess(*(HOME, copies, packets, self.radio, self.clock, look, learn, gone, called, asked))
        process.startService()
        return process, copies

    def wait(self, seconds: float = 4 * PAUSE) -> None:
        """Let hints come and go."""
        for _ in range(int(seconds / PAUSE)):
            self.clock.advance(PAUSE)


@pytest_twisted.ensureDeferred
async def test_confirmed() -> None:
    """A word of the primary counts at a web process for the copies that are up to date, as where it was heard."""
    house = House()
    for pubky in (ONE, OTHER):
        await house.copy(pubky)
    web, shown = await house.web()
    background, known = await house.background()
    house.wait()
    for pubky in (ONE, OTHER):
        known.keep_up(pubky)
    house.wait(10)
    known.fall_behind(ONE)
    known.keep_up(ONE)
    known.hear(PEER)
    known.fall_behind(OTHER)
    house.wait()
    told = house.radio.told
    assert told.index(f"behind {OTHER}") < told.index(f"heard {PEER}"), "nobody believes in between what is not so"
    for copies in (known, shown):
        one, other = copies.of(ONE), copies.of(OTHER)
        assert one is not None
        assert other is not None
        assert copies.confirmed(one) >= NOW + 10
        assert copies.confirmed(other) == NOW
    known.keep_up(OTHER)
    house.wait()
    assert (other := shown.of(OTHER)) is not None
    assert shown.confirmed(other) >= NOW + 10
    house.wait(100)
    await house.confirm(OTHER)
    await known.refresh(OTHER)
    house.wait()
    assert (other := shown.of(OTHER)) is not None
    assert shown.confirmed(other) >= NOW + 110
    for process in (web, background):
        await process.stopService()


@pytest_twisted.ensureDeferred
async def test_who_begins() -> None:
    """A web process that begins believes no copy to be up to date before it is told; the others know it all along.

    When the process in the background begins none of them does, until that one has asked the primary.
    """
    house = House()
    await house.copy(ONE)
    first, shown = await house.web()
    background, known = await house.background()
    house.wait()
    known.keep_up(ONE)
    house.wait()
    assert not shown.is_behind(ONE)
    house.radio.is_away = True
    second, later = await house.web()
    assert later.is_behind(ONE)
    house.radio.is_away = False
    house.wait(2)
    assert not later.is_behind(ONE)
    assert not shown.is_behind(ONE)

    await background.stopService()
    background, known = await house.background()
    house.wait()
    known.hear(PEER)
    house.wait()
    assert all(copies.is_behind(ONE) for copies in (known, shown, later))
    known.keep_up(ONE)
    house.wait()
    assert not any(copies.is_behind(ONE) for copies in (known, shown, later))
    for process in (first, second, background):
        await process.stopService()


@pytest_twisted.ensureDeferred
async def test_a_late_word_counts_for_nothing() -> None:
    """That a peer was heard is not told when it is long ago: whoever hears it takes it for now."""
    house = House()
    await house.copy(ONE)
    web, shown = await house.web()
    background, known = await house.background()
    house.wait()
    house.radio.is_away = True
    known.keep_up(ONE)
    known.hear(PEER)
    house.wait(30)
    house.radio.is_away = False
    house.wait(2)
    assert not shown.is_behind(ONE)
    assert shown.heard(PEER) == 0
    for process in (web, background):
        await process.stopService()


@pytest_twisted.ensureDeferred
async def test_what_changes_at_a_web_process() -> None:
    """A copy that comes or goes by one web process does so at all processes, and the background is told what went."""
    house = House()
    first, ours = await house.web()
    second, theirs = await house.web()
    background, known = await house.background()
    house.wait()
    await house.copy(ONE)
    await ours.refresh(ONE)
    house.wait()
    assert theirs.of(ONE) == known.of(ONE) == await house.store.copies.copy(ONE) is not None
    assert house.heard == []
    while not await house.store.copies.forget(ONE, 500):
        pass
    await ours.refresh(ONE)
    house.wait()
    assert theirs.of(ONE) is known.of(ONE) is None
    assert house.heard == [("gone", ONE)]
    for process in (first, second, background):
        await process.stopService()


@pytest_twisted.ensureDeferred
async def test_nobody_in_the_background() -> None:
    """Web processes tell each other what they change, whether somebody works in the background at the time or not."""
    house = House()
    first, ours = await house.web()
    second, theirs = await house.web()
    house.wait()
    await house.copy(ONE)
    await ours.refresh(ONE)
    house.wait()
    assert theirs.of(ONE) is not None
    for process in (first, second):
        await process.stopService()


@pytest_twisted.ensureDeferred
async def test_hints_that_were_missed() -> None:
    """Who may have missed some reads everything again: copies that came, went, and changed."""
    house = House()
    await house.copy(ONE)
    web, shown = await house.web()
    background, known = await house.background()
    house.wait()
    hearing, house.radio.hearing = house.radio.hearing, []
    while not await house.store.copies.forget(ONE, 500):
        pass
    await house.copy(OTHER)
    for copies in (known, shown):
        await copies.refresh(OTHER)
    known.keep_up(OTHER)
    house.wait()
    house.radio.hearing = hearing
    for hear in hearing:
        hear(None)
    house.wait()
    for copies in (known, shown):
        assert copies.of(ONE) is None
        assert copies.of(OTHER) is not None
        assert not copies.is_behind(OTHER)
    assert house.looks == 2
    for process in (web, background):
        await process.stopService()


@pytest_twisted.ensureDeferred
async def test_peers_that_ask() -> None:
    """That a peer begins to listen is passed on each time; that it asks something, now and then."""
    house = House()
    web, _ = await house.web()
    background, _ = await house.background()
    house.wait()
    for _ in range(100):
        web.tell_asked(PEER)
        house.clock.advance(ASKED / 50)
    web.tell_called(PEER)
    house.wait()
    assert house.heard.count(("asked", PEER)) == 2
    assert house.heard.count(("called", PEER)) == 1
    for process in (web, background):
        await process.stopService()


@pytest_twisted.ensureDeferred
async def test_packets() -> None:
    """A packet that a web process kept is followed in the background, which is told whether it shut an account."""
    house, user = House(), Keypair(bytes([1]) * 32)
    web, _ = await house.web()
    background, _ = await house.background()
    house.wait()
    await house.copy(ONE)
    packet = Builder().https("_pubky", 0, PEER).sign(user, 1)
    assert packet.public_key.z32 == ONE
    assert await Packets(house.store.packets, HOME, frozenset({PEER})).learn(packet) is Kept.KEPT
    for kept in (Kept.KEPT, Kept.FENCED):
        web.tell_packet(ONE, kept)
        house.wait()
    web.tell_packet(OTHER, Kept.KEPT)
    house.wait()
    assert house.heard == [("kept", ONE), ("fenced", ONE)]
    for process in (web, background):
        await process.stopService()


@pytest_twisted.ensureDeferred
async def test_one_process_tells_nobody() -> None:
    """Where a homeserver is one process not a single hint is given, whatever happens."""
    world, user = await begin("a", "b")
    told: list[str | None] = []
    for node in world.nodes.values():
        node.store.hear_hints(told.append)
    await world.claim(user, "b")
    await world.point(user, "b")
    world.pass_time(30)
    assert await world.put(user, "/pub/after", b"x", "b")
    world.pass_time(30)
    assert told == [None, None]
    await end(world)
