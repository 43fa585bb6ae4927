"""A primary that lost its newest writes, under the eyes of a copy that has them: nothing acknowledged goes silently.

The checker knows what was acknowledged, and the stores as they are at the end.
"""

from collections.abc import AsyncIterator
from copy import deepcopy
from random import Random
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field

from pubky_homeserver.conflicts import INTERVAL, KEPT, Conflicts, Expiry
from pubky_homeserver.core.errors import NotFound
from pubky_homeserver.core.records import Entry
from pubky_homeserver.core.shelf import Reason, Shelved
from pubky_homeserver.peers.bodies import Bodies
from pubky_homeserver.peers.comparing import FEW
from pubky_homeserver.peers.late import LateWrites
from pubky_homeserver.peers.mirror import LONGEST_DELAY
from pubky_homeserver.rounds import Rounds
from pubky_homeserver.storage import Storage
from pubky_homeserver.store.memory import MemoryStore
from pubky_homeserver.testing import MemoryBlobs
from tests.peers.simulated import SimulatedPeer, Weather, hash_of
from tests.peers.test_following import INLINE, MIRROR, USERS, World, _files, _run

SEEDS, CHUNKS = 300, 3


@define
class Rewound(World):
    """A world whose primary can lose what it wrote last, and takes late writes."""

    acknowledged: dict[str, list[tuple[str, bytes | None]]] = field(factory=dict)
    """Of each account path and body (None for a DEL), in the order in which that was said."""
    sender: SimulatedPeer = field(init=False)
    """The copy's homeserver as the primary sees it."""
    conflicts: Conflicts = field(init=False)
    """The primary's."""
    _backup: Any = None

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.sender = SimulatedPeer(MIRROR, self.copy, self.copy_blobs, self.clock, Weather(self.random))
        bodies = Bodies(self.sender, self.primary_blobs, INLINE, lambda _length: True, clock=self.clock)
        self.peer.takes = LateWrites(bodies, self.primary.logs, self.primary, self.primary.shelf, self.clock)
        storage = Storage(self.primary, self.primary.locks, self.primary_blobs, self.clock, None, INLINE)
        self.conflicts = Conflicts(self.primary.shelf, storage, self.primary.grants)

    async def write(self, pubky: str, path: str, body: bytes) -> None:
        """A file at the primary, and a note of it."""
        await super().write(pubky, path, body)
        self.acknowledged.setdefault(pubky, []).append((path, body))

    async def delete(self, pubky: str, path: str) -> None:
        """A file goes at the primary, and a note of it."""
        await self.primary.delete(pubky, path)
        self.acknowledged.setdefault(pubky, []).append((path, None))

    async def act(self, pubky: str) -> None:
        """Anything that a user may do with public files."""
        path = f"/pub/{self.random.randrange(8)}"
        if self.random.random() < 0.3 and await self.primary.entry(pubky, path) is not None:
            await self.delete(pubky, path)
        else:
            await self.write(pubky, path, self.random.randbytes(self.random.choice([0, 5, 64, 65, 3000])))
        await self.peer.hint(pubky, False)

    def back_up(self) -> None:
        """Keep the primary's state."""
        self._backup = deepcopy((self.primary._accounts, self.primary._events))

    def rewind(self) -> None:
        """Put that back, as who restores a backup does; its listeners are gone."""
        accounts, events = deepcopy(self._backup)
        self.primary._accounts.clear()
        self.primary._accounts.update(accounts)
        self.primary._events[:] = events
        self.peer.hang_up()

    async def check_nothing_is_lost(self, pubky: str) -> None:
        """I9: each acknowledged write is at the primary, superseded by a later one of its path, or on a shelf."""
        shelves = [
            (self.primary_blobs, await _shelf(self.primary, pubky)),
            (self.copy_blobs, await _shelf(self.copy, pubky)),
        ]
        there = await _files(self.primary, self.primary_blobs, pubky, "/pub/")
        newest = dict(self.acknowledged.get(pubky, []))
        for path, body in newest.items():
            if (there[path][4] if path in there else None) == body:
                continue
            kept = [
                None if one.entry is None else await _body(one.entry, blobs)
                for blobs, things in shelves
                for one in things
                if one.path == path
            ]
            assert body in kept, f"{path} is lost"


async def _shelf(store: MemoryStore, pubky: str) -> list[Shelved]:
    found: list[Shelved] = []
    while page := await store.shelf.shelf(pubky, found[-1].id if found else "", 100):
        found += page
    return found


async def _body(entry: Entry, blobs: MemoryBlobs) -> bytes:
    if entry.body is not None:
        return entry.body
    assert entry.blob is not None
    reader = await blobs.open(entry.blob)
    assert reader is not None
    body = await reader.read(0, reader.length)
    assert hash_of(body) == entry.content_hash
    return body


async def rewound_world() -> AsyncIterator[tuple[Rewound, str]]:
    """A primary that has lost a change, a new file, a large one and a deletion, and a copy that has them."""
    world = Rewound(Random(5))
    pubky = await world.sign_up(USERS[0])
    for number in range(30):
        await world.write(pubky, f"/pub/{number:02}", b"%d" % number)
    world.mirror.startService()
    world.pass_time(5)
    world.back_up()
    await world.write(pubky, "/pub/00", b"changed")
    await world.write(pubky, "/pub/new", b"first")
    await world.write(pubky, "/pub/new", b"new")
    await world.write(pubky, "/pub/large", b"x" * 3000)
    await world.delete(pubky, "/pub/01")
    await world.peer.hint(pubky, False)
    world.pass_time(5)
    await world.compare(pubky)
    yield world, pubky
    await world.mirror.stopService()


@pytest.mark.parametrize("takes", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_primary_that_lost_its_newest_writes(takes: bool) -> None:
    """It gets them back on its shelf, or they are on the copy's; nothing comes back or goes by itself (I20)."""
    async for world, pubky in rewound_world():
        if not takes:
            world.peer.takes = None
        world.rewind()
        await world.write(pubky, "/pub/other", b"other")
        world.pass_time(30)
        await world.compare(pubky)
        at, other = (world.primary, world.copy) if takes else (world.copy, world.primary)
        assert await _shelf(other, pubky) == []
        found = {one.path: one for one in await _shelf(at, pubky)}
        assert found.keys() == {"/pub/00", "/pub/new", "/pub/large", "/pub/01"}
        assert found["/pub/01"].entry is None
        assert {one.origin for one in found.values()} == {MIRROR}
        reasons = {path: one.reason for path, one in found.items()}
        assert takes is (set(reasons.values()) == {Reason.LATE})
        await world.check_nothing_is_lost(pubky)
        if not takes:
            continue
        ours = found["/pub/00"].ours
        assert ours is not None
        assert ours.body == b"0"
        assert found["/pub/new"].ours is None
        await world.write(pubky, "/pub/new", b"newer")
        outcomes = await world.conflicts.apply_untouched(pubky)
        assert {one.shelved.path for one in outcomes if one.failure is None} == {"/pub/00", "/pub/large", "/pub/01"}
        assert [one.path for one in await _shelf(world.primary, pubky)] == ["/pub/new"]
        files = await _files(world.primary, world.primary_blobs, pubky, "/pub/")
        assert "/pub/01" not in files
        assert files["/pub/large"][4] == b"x" * 3000
        await world.peer.hint(pubky, False)
        world.pass_time(5)
        await world.compare(pubky)


@pytest_twisted.ensureDeferred
async def test_a_brake() -> None:
    """A primary that lacks much of what is here removes nothing before the operator says so (I21)."""
    world = Rewound(Random(6))
    pubky = await world.sign_up(USERS[0])
    world.mirror.startService()
    for number in range(FEW):
        await world.write(pubky, f"/pub/{number:02}", b"%d" % number)
    world.back_up()
    for number in range(FEW + 1):
        await world.write(pubky, f"/pub/x{number:02}", b"%d" % number)
    await world.peer.hint(pubky, False)
    world.pass_time(5)
    world.peer.takes = None
    world.rewind()
    before = await _files(world.copy, world.copy_blobs, pubky, "/pub/")
    assert len(before) == 2 * FEW + 1
    for _ in range(3):
        await world.peer.hint(pubky, False)
        world.pass_time(LONGEST_DELAY)
    assert await _files(world.copy, world.copy_blobs, pubky, "/pub/") == before
    copy = await world.copy.copies.copy(pubky)
    assert copy is not None
    assert (copy.braked, copy.public.is_whole) == (FEW + 1, True)
    assert world.mirror.copies.state(copy) == "stale"
    asked = len(world.peer.asked)
    await world.peer.hint(pubky, False)
    world.pass_time(5)
    assert len(world.peer.asked) - asked < 5, "what waits for the operator is not counted again and again"
    assert await world.copy.copies.permit(pubky) == FEW + 1
    world.mirror.hint(pubky, False)
    world.pass_time(5)
    await world.compare(pubky)
    assert len(await _shelf(world.copy, pubky)) == FEW + 1
    await world.check_nothing_is_lost(pubky)
    await world.mirror.stopService()


@pytest_twisted.ensureDeferred
async def test_what_is_old() -> None:
    """What lies on the shelf for 30 days goes, and what is younger does not."""
    async for world, pubky in rewound_world():
        world.rewind()
        world.pass_time(30)
        assert len(await _shelf(world.primary, pubky)) == 4
        expiry = Rounds(Expiry(world.primary.shelf, world.clock).expire, "The expiry", INTERVAL, world.clock, 0.0)
        expiry.startService()
        for _ in range(29):
            world.clock.advance(86_400)
        assert len(await _shelf(world.primary, pubky)) == 4
        world.clock.advance(KEPT - 29 * 86_400)
        world.clock.advance(INTERVAL)
        assert await _shelf(world.primary, pubky) == []
        assert await world.primary.shelf.shelf_used(MIRROR) == 0
        expiry.stopService()


@pytest_twisted.ensureDeferred
async def test_dropped() -> None:
    """What the operator drops is gone; what is not there is not found."""
    async for world, pubky in rewound_world():
        world.rewind()
        world.pass_time(30)
        (account,) = await world.conflicts.accounts()
        for one in await world.conflicts.page(account):
            assert await world.conflicts.untouched(pubky, [one]) == {one.id}
            await world.conflicts.drop(pubky, one.id)
            for gone in (world.conflicts.drop(pubky, one.id), world.conflicts.apply(pubky, one.id)):
                with pytest.raises(NotFound):
                    await gone
        assert await world.conflicts.accounts() == []


@pytest_twisted.ensureDeferred
async def test_no_room() -> None:
    """What a peer may not lay on our shelf it keeps on its own."""
    async for world, pubky in rewound_world():
        assert world.peer.takes is not None
        world.peer.takes = LateWrites(
            world.peer.takes.bodies, world.primary.logs, world.primary, world.primary.shelf, world.clock,
            may_keep=lambda length: length < 2000,
        )  # fmt: skip
        world.rewind()
        world.pass_time(30)
        assert "/pub/large" not in {one.path for one in await _shelf(world.primary, pubky)}
        assert "/pub/large" in {one.path for one in await _shelf(world.copy, pubky)}
        await world.check_nothing_is_lost(pubky)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_histories(chunk: int) -> None:
    """Whatever happens, a rewound primary loses nothing that its copy had (I9, I20): the seed is in the failure."""
    for seed in range(chunk * SEEDS // CHUNKS, (chunk + 1) * SEEDS // CHUNKS):
        failure = _run(_history(seed))
        assert failure is None, f"seed {seed}: {failure!r}"


async def _history(seed: int) -> None:
    random = Random(seed)
    world = Rewound(random)
    weather = world.weather
    pubkys = [await world.sign_up(user) for user in USERS[: random.randrange(1, 3)]]
    world.mirror.startService()
    for _ in range(random.randrange(1, 4)):
        for _ in range(random.randrange(20)):
            await world.act(random.choice(pubkys))
        world.pass_time(5)
        world.back_up()
        for _ in range(random.randrange(30)):
            await world.act(random.choice(pubkys))
        world.pass_time(LONGEST_DELAY)  # all that was acknowledged is at the copy
        if random.random() < 0.2:
            world.peer.takes = None
        weather.lost, weather.late = random.choice([0, 0, 0.1, 0.4]), random.choice([0.0, 0.0, 0.4])
        weather.damaged, weather.cut = random.choice([0, 0, 0.3]), random.choice([0, 0, 0.3])
        world.rewind()
        for _ in range(random.randrange(20)):
            await world.act(random.choice(pubkys))
            if random.random() < 0.5:
                world.pass_time(random.choice([0.25, 1, 10]))
            if random.random() < 0.1:  # killed: what was under way is lost, the store stays
                await world.mirror.stopService()
                world.begin()
                world.mirror.startService()
        weather.lost = weather.late = weather.damaged = weather.cut = 0.0
        world.pass_time(LONGEST_DELAY + 30)
        world.peer.hang_up()
        world.pass_time(LONGEST_DELAY + 30)
        for pubky in pubkys:
            await world.compare(pubky)
            await world.check_nothing_is_lost(pubky)
    await world.mirror.stopService()
    await _check_application(world, pubkys)


async def _check_application(world: Rewound, pubkys: list[str]) -> None:
    """What is applied is the newest of its path, and what was deleted last does not come back (I11)."""
    for pubky in pubkys:
        newest = dict(world.acknowledged.get(pubky, []))
        for outcome in await world.conflicts.apply_untouched(pubky):
            if outcome.failure is None:
                entry = await world.primary.entry(pubky, outcome.shelved.path)
                body = None if entry is None else await _body(entry, world.primary_blobs)
                late = outcome.shelved.entry
                assert body == (None if late is None else await _body(late, world.primary_blobs))
        for path, body in newest.items():
            if body is None and await world.primary.entry(pubky, path) is not None:
                assert path in {one.path for one in await _shelf(world.primary, pubky)} | {
                    one.path for one in await _shelf(world.copy, pubky)
                }, "a deletion is undone, and nobody can see that"
