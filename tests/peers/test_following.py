"""A homeserver in memory that follows another one, in fair weather and in foul: seeded histories, checked at their end.

What is checked knows nothing of how it came about: the files, bodies and digests of both stores.
"""

from collections.abc import Coroutine
from random import Random
from typing import Any

import pytest
import pytest_twisted
from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from pkarr.builder import Builder
from pkarr.keys import Keypair
from pubky_homeserver.copies import Copies
from pubky_homeserver.core.copies import Copy
from pubky_homeserver.core.digests import EMPTY, fold, mark
from pubky_homeserver.core.errors import DirectoryNotFound
from pubky_homeserver.core.peers import ALL, Peer
from pubky_homeserver.core.quotas import ENTRY_OVERHEAD
from pubky_homeserver.core.records import Account, Entry
from pubky_homeserver.interfaces import IPeer
from pubky_homeserver.packets import Packets
from pubky_homeserver.peers.comparing import Comparing
from pubky_homeserver.peers.following import AHEAD, Follower
from pubky_homeserver.peers.mirror import LONGEST_DELAY, RARELY, Mirror
from pubky_homeserver.store.memory import MemoryStore
from pubky_homeserver.testing import MemoryBlobs
from tests.peers.simulated import SimulatedPeer, Weather, hash_of
from tests.pkarr.networks import Simulated

NOW = 1_795_387_747.0
FOLLOWER = Keypair(b"\x0f" * 32).public_key.z32
PRIMARY = Keypair(b"\x0a" * 32).public_key.z32
MIRROR = Keypair(b"\x0b" * 32).public_key.z32
USERS = [Keypair(bytes([number]) * 32) for number in range(1, 4)]
INLINE = 64
"""Bytes of the bodies that lie in an entry: so a test has both kinds."""

SEEDS, CHUNKS = 2000, 10


@define
class World:
    """A primary with users, a follower, and the weather between them."""

    random: Random
    clock: Clock = field(factory=Clock)
    primary: MemoryStore = field(init=False)
    primary_blobs: MemoryBlobs = field(init=False)
    copy: MemoryStore = field(init=False)
    copy_blobs: MemoryBlobs = field(init=False)
    weather: Weather = field(init=False)
    peer: SimulatedPeer = field(init=False)
    mirror: Mirror = field(init=False)
    pages: int = 0

    def __attrs_post_init__(self) -> None:
        self.clock.advance(NOW)
        self.primary, self.primary_blobs = MemoryStore(self.clock), MemoryBlobs(self.clock)
        self.copy, self.copy_blobs = MemoryStore(self.clock), MemoryBlobs(self.clock)
        self.weather = Weather(self.random)
        self.peer = SimulatedPeer(PRIMARY, self.primary, self.primary_blobs, self.clock, self.weather)
        self.begin()

    def begin(self, private: bool = False) -> None:
        """A process that follows: it knows nothing but what its store has."""
        copies = Copies(self.copy.copies, self.clock)
        store = self.copy
        comparing = Comparing(self.peer, store.copies, store.logs, store.shelf, MIRROR, self.clock)
        follower = Follower(self.peer, store.copies, self.copy_blobs, self.clock, INLINE, comparing=comparing)
        settings = Peer("alice", PRIMARY, follow=ALL, private=private)
        network = Simulated(self.clock)
        self.mirror = Mirror(
            settings,
            self.peer,
            follower,
            copies,
            Packets(self.copy.packets, FOLLOWER, frozenset({PRIMARY})),
            network,
            self.clock,
            jitter=lambda: self.random.random(),
        )

    async def sign_up(self, keypair: Keypair) -> str:
        """Somebody new at the primary, with a record that says so."""
        pubky = keypair.public_key.z32
        await self.primary.sign_up(Account(pubky, int(NOW)), None, None, False)
        packet = Builder().https("_pubky", 0, PRIMARY).sign(keypair, 1)
        self.peer.packets[pubky] = packet.relay_payload
        return pubky

    async def write(self, pubky: str, path: str, body: bytes) -> None:
        """A file at the primary."""
        blob = None
        if len(body) > INLINE:
            writer = await self.primary_blobs.create()
            await writer.write(body)
            blob = await writer.keep()
        entry = Entry(path, hash_of(body), len(body), "text/plain", self.clock_now(), None if blob else body, blob)
        await self.primary.put(pubky, entry, None, True)

    async def act(self, pubky: str) -> None:
        """Anything that a user may do."""
        folder = self.random.choice(["/pub/", "/pub/a/", "/priv/"])
        path = f"{folder}{self.random.randrange(8)}"
        if self.random.random() < 0.3 and await self.primary.entry(pubky, path) is not None:
            await self.primary.delete(pubky, path)
        else:
            await self.write(pubky, path, self.random.randbytes(self.random.choice([0, 5, 64, 65, 3000])))
        await self.peer.hint(pubky, path.startswith("/priv/"))

    def clock_now(self) -> int:
        """Microseconds."""
        return int(self.clock.seconds() * 1_000_000)

    def pass_time(self, seconds: float) -> None:
        """Let time pass in small steps."""
        self.clock.pump([0.25] * int(seconds * 4))

    async def compare(self, pubky: str, private: bool = False) -> None:
        """The copy has the primary's files: names, facts, bodies that hash to them; digest, bytes, and position."""
        copy = await self.copy.copies.copy(pubky)
        assert isinstance(copy, Copy)
        digest, used = EMPTY, 0
        for folder, is_wanted in (("/pub/", True), ("/priv/", private)):
            there = await _files(self.primary, self.primary_blobs, pubky, folder)
            here = await _files(self.copy, self.copy_blobs, pubky, folder)
            assert here == (there if is_wanted else {}), folder
            for path, (content_hash, length, content_type, modified, body) in here.items():
                assert hash_of(body) == content_hash
                used += length + ENTRY_OVERHEAD
                if folder == "/pub/":
                    digest = fold(digest, mark(path, content_hash, length, modified, content_type))
        state = await self.primary.log_state(pubky, False)
        assert state is not None
        position = copy.public.position
        assert position is not None
        assert (position.seq, position.digest, position.log_id) == (state.seq, digest, state.log_id)
        assert (state.digest, copy.used, copy.missing) == (digest, used, 0)
        assert copy.public.is_whole


async def _paths(store: MemoryStore, pubky: str, folder: str) -> list[str]:
    """All that lies below a folder."""
    try:
        return await store.listing(pubky, folder, "", 1000, False, False)
    except DirectoryNotFound:
        return []


async def _files(
    store: MemoryStore, blobs: MemoryBlobs, pubky: str, folder: str
) -> dict[str, tuple[bytes, int, str, int, bytes]]:
    found = {}
    for path in await _paths(store, pubky, folder):
        entry = await store.entry(pubky, path)
        assert entry is not None
        body = entry.body
        if body is None:
            assert entry.blob is not None, path
            reader = await blobs.open(entry.blob)
            assert reader is not None
            body = await reader.read(0, reader.length)
        found[path] = (entry.content_hash, entry.length, entry.content_type, entry.modified, body)
    return found


def test_port() -> None:
    """What stands in for a peer is one."""
    verifyObject(IPeer, World(Random(0)).peer)


@pytest_twisted.ensureDeferred
async def test_bootstrap() -> None:
    """Accounts with files, in several pages, are there as they are, and nothing more is asked afterwards."""
    world = World(Random(1))
    pubkys = [await world.sign_up(user) for user in USERS]
    for pubky in pubkys:
        for _ in range(60):
            await world.act(pubky)
    world.mirror.startService()
    world.pass_time(5)
    for pubky in pubkys:
        await world.compare(pubky)
    assert world.mirror.is_quiet
    asked = len(world.peer.asked)
    world.pass_time(1000)
    assert len(world.peer.asked) == asked, "a quiet account costs nothing"
    await world.mirror.stopService()
    assert not world.clock.getDelayedCalls()


@pytest_twisted.ensureDeferred
async def test_private_by_consent() -> None:
    """With consent of both sides private files are copied too, and only then."""
    world = World(Random(2))
    pubky = await world.sign_up(USERS[0])
    for _ in range(60):
        await world.act(pubky)
    world.mirror.startService()
    world.pass_time(5)
    await world.compare(pubky)
    await world.mirror.stopService()
    world.begin(private=True)
    world.mirror.startService()
    world.pass_time(5)
    await world.compare(pubky, private=True)
    await world.mirror.stopService()


@pytest_twisted.ensureDeferred
async def test_no_packet_no_copy() -> None:
    """An account whose record names another homeserver, or that has none, is not copied whatever the peer says.

    A record that comes late is found without a hint.
    """
    world = World(Random(3))
    moved, unknown = [await world.sign_up(user) for user in USERS[:2]]
    elsewhere = Keypair(b"\x0c" * 32).public_key.z32
    world.peer.packets[moved] = Builder().https("_pubky", 0, elsewhere).sign(USERS[0], 2).relay_payload
    del world.peer.packets[unknown]
    for pubky in (moved, unknown):
        await world.act(pubky)
    world.mirror.startService()
    world.pass_time(5)
    assert await world.copy.copies.copies("", 10) == []
    world.peer.packets[unknown] = Builder().https("_pubky", 0, PRIMARY).sign(USERS[1], 1).relay_payload
    world.pass_time(RARELY)
    await world.compare(unknown)
    assert await world.copy.copies.copy(moved) is None
    await world.mirror.stopService()


@pytest_twisted.ensureDeferred
async def test_wrong_bodies() -> None:
    """A body with another hash is never taken; the entry waits without one until a good one comes."""
    world = World(Random(4))
    pubky = await world.sign_up(USERS[0])
    world.weather.damaged = 1.0
    body = b"x" * 3000
    await world.write(pubky, "/pub/file", body)
    world.mirror.startService()
    world.pass_time(5)
    entry = await world.copy.entry(pubky, "/pub/file")
    assert entry is not None
    assert (entry.content_hash, entry.body, entry.blob) == (hash_of(body), None, None)
    copy = await world.copy.copies.copy(pubky)
    assert copy is not None
    assert copy.missing == 1
    assert world.copy_blobs._kept == {}
    world.weather.damaged = 0.0
    world.pass_time(LONGEST_DELAY)
    await world.compare(pubky)
    await world.mirror.stopService()


@pytest_twisted.ensureDeferred
async def test_a_log_without_end() -> None:
    """Small bodies come with their events and take room all the same; names and events end the log one day."""
    world = World(Random(7))
    pubky = await world.sign_up(USERS[0])
    copies, room = world.mirror.copies, 10 * (ENTRY_OVERHEAD + INLINE)
    follower = world.mirror.follower
    assert isinstance(follower, Follower)
    world.mirror.follower = evolve(
        follower, may_keep=lambda length: copies.held_by(PRIMARY) + length <= room, read=copies.refresh
    )
    world.mirror.startService()
    for number in range(200):
        await world.write(pubky, f"/pub/{number}", b"%d" % number * (INLINE // 3))
        await world.peer.hint(pubky, False)
        world.pass_time(0.5)
    copy = await world.copy.copies.copy(pubky)
    assert copy is not None
    position = copy.public.position
    assert position is not None
    assert position.seq < 60, "its names are too many"
    assert position.seq - copy.missing <= room / ENTRY_OVERHEAD, "it has no more bodies than there was room for"
    assert copy.held <= room + 3 * ENTRY_OVERHEAD
    assert "max_bytes" in (world.mirror.trouble or "")
    await world.mirror.stopService()


@pytest_twisted.ensureDeferred
async def test_times_far_ahead() -> None:
    """Events of more than an hour from now are taken in no list and no log: ids must not run away from the time."""
    world = World(Random(6))
    pubky = await world.sign_up(USERS[0])
    world.mirror.startService()
    world.pass_time(1)
    for ahead in (AHEAD - 60, AHEAD + 60):
        world.primary.clock = there = Clock()
        there.advance(world.clock.seconds() + ahead)
        await world.write(pubky, f"/pub/{ahead}", b"x")
        await world.peer.hint(pubky, False)
        world.pass_time(1)
        copy = await world.copy.copies.copy(pubky)
        assert copy is not None
        assert copy.public.position is not None
        assert copy.public.position.seq == 1
    other = await world.sign_up(USERS[1])
    await world.write(other, "/pub/file", b"x")
    await world.peer.hint(other, False)
    world.pass_time(1)
    copy = await world.copy.copies.copy(other)
    assert copy is not None
    assert copy.public.position is None
    await world.mirror.stopService()


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_histories(chunk: int) -> None:
    """Whatever happens on the way, at rest a copy is its primary: 2,000 seeds; the seed is in the failure."""
    for seed in range(chunk * SEEDS // CHUNKS, (chunk + 1) * SEEDS // CHUNKS):
        failure = _run(_history(seed))
        assert failure is None, f"seed {seed}: {failure!r}"


def _run(work: Coroutine[Deferred[Any], Any, None]) -> BaseException | None:
    """Run what waits for nobody; the failure, if it fails."""
    failures: list[Failure] = []

    def note(failure: Failure) -> None:
        failures.append(failure)

    running = Deferred.fromCoroutine(work)
    running.addErrback(note)
    if not running.called:
        return AssertionError("it does not end")
    return failures[0].value if failures else None


async def _history(seed: int) -> None:
    random = Random(seed)
    world = World(random)
    weather = world.weather
    weather.lost, weather.late = random.choice([0, 0, 0.1, 0.4]), random.choice([0.0, 0.0, 0.4])
    weather.damaged, weather.cut = random.choice([0, 0, 0.3]), random.choice([0, 0, 0.3])
    pubkys = [await world.sign_up(user) for user in USERS[: random.randrange(1, 4)]]
    for _ in range(random.randrange(30)):
        await world.act(random.choice(pubkys))
    world.mirror.startService()
    for _ in range(random.randrange(10, 60)):
        await world.act(random.choice(pubkys))
        if random.random() < 0.5:
            world.pass_time(random.choice([0.25, 1, 10]))
        if random.random() < 0.05:
            world.peer.hang_up()
        if random.random() < 0.05:  # killed: what was under way is lost, the store stays
            await world.mirror.stopService()
            world.begin()
            world.mirror.startService()
        for pubky in pubkys:
            await _check_prefix(world, pubky)
    weather.lost = weather.late = weather.damaged = weather.cut = 0.0
    world.pass_time(LONGEST_DELAY + 30)
    world.peer.hang_up()
    world.pass_time(LONGEST_DELAY + 30)
    for pubky in pubkys:
        await world.compare(pubky)
    await world.mirror.stopService()


async def _check_prefix(world: World, pubky: str) -> None:
    """A copy whose list is whole is at all times a state that its primary was in (I2)."""
    copy = await world.copy.copies.copy(pubky)
    if copy is None or not copy.public.is_whole or copy.public.position is None:
        return
    position = copy.public.position
    if position.seq:
        event = await world.primary.logs.event(pubky, False, position.event_id)
        assert event is not None
        assert (event.seq, event.digest) == (position.seq, position.digest)
    digest = EMPTY
    for path in await _paths(world.copy, pubky, "/pub/"):
        entry = await world.copy.entry(pubky, path)
        assert entry is not None
        digest = fold(digest, mark(path, entry.content_hash, entry.length, entry.modified, entry.content_type))
    assert digest == position.digest
