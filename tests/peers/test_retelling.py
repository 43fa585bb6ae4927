"""An account at an official homeserver, retold as a log of our own: whatever that homeserver does meanwhile."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from attrs import define, evolve, field
from blake3 import blake3
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.web.client import Agent, HTTPConnectionPool

from pkarr.keys import Keypair
from pubky_homeserver.core.copies import CopiedLog, LogStanding, Position, Reign
from pubky_homeserver.core.digests import EMPTY, fold, mark
from pubky_homeserver.core.errors import BudgetSpent, ComparisonBraked, PeerAway, PeerRefused
from pubky_homeserver.core.paths import revocation_of
from pubky_homeserver.core.peers import Peer, Selection
from pubky_homeserver.core.records import Entry, Event, Operation
from pubky_homeserver.core.shelf import Reason
from pubky_homeserver.peers import official as wire
from pubky_homeserver.peers.asking import STALL
from pubky_homeserver.peers.bodies import FIRST_DELAY
from pubky_homeserver.peers.comparing import Comparing
from pubky_homeserver.peers.following import Follower
from pubky_homeserver.peers.retelling import SETTLE, Retelling
from pubky_homeserver.peers.strangers import Stranger
from pubky_homeserver.peers.tally import Counted, Tally
from pubky_homeserver.store.memory import MemoryStore
from pubky_homeserver.testing import MemoryBlobs
from tests.peers.official import Official, serving
from tests.web.sockets import until

reactor: Any = _reactor

NOW = 1_795_387_747.0
US = Keypair(b"\x0b" * 32).public_key.z32
THERE = Keypair(b"\x0a" * 32).public_key.z32
USER = Keypair(b"\x01" * 32).public_key.z32
OTHER = Keypair(b"\x02" * 32).public_key.z32
INLINE = 64


@define
class World:
    """An official homeserver with a user, and we."""

    port: int
    official: Official
    pool: HTTPConnectionPool
    clock: Clock = field(factory=Clock)
    store: MemoryStore = field(init=False)
    blobs: MemoryBlobs = field(init=False)
    tally: Tally = field(factory=Tally)
    room: int = 1 << 30
    retelling: Retelling = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.clock.advance(NOW)
        self.store, self.blobs = MemoryStore(self.clock), MemoryBlobs(self.clock)
        self.begin()

    def begin(self, page: int = 3) -> None:
        """A process that knows nothing but what its store has."""
        peer = Peer("there", THERE, f"http://127.0.0.1:{self.port}", Selection(keys=frozenset({USER})), official=True)
        source = wire.Official(peer, Agent(reactor, pool=self.pool), self.clock)
        store, stranger = self.store, Stranger(source)
        comparing = Comparing(stranger, store.copies, store.logs, store.shelf, US, self.clock)
        follower = Follower(
            stranger,
            store.copies,
            self.blobs,
            self.clock,
            INLINE,
            lambda length: length <= self.room,
            comparing=comparing,
            tally=self.tally,
        )
        self.retelling = Retelling.of(source, follower, store.logs, store, page)

    async def follow(self) -> None:
        """Be where it is."""
        await self.store.copies.begin(USER, THERE, self.now)
        await self.retelling.catch_up(USER, False)
        assert await self.retelling.fill(USER) == 0

    async def compare(self) -> None:
        """The copy has its files: names, facts, bodies; the digest is theirs, and the log ends there."""
        here = {}
        for line in (
            await self.store.listing(USER, "/pub/", "", 1000, False, False) if self.official.users[USER] else []
        ):
            entry = await self.store.entry(USER, line)
            assert entry is not None
            here[line] = entry
        there = {path: body for path, body in self.official.users[USER].items() if path.startswith("/pub/")}
        assert {path: await self.body(entry) for path, entry in here.items()} == there
        digest = EMPTY
        for entry in here.values():
            assert entry.content_type == "text/plain"
            assert entry.modified == 1_445_412_480_000_000
            digest = fold(
                digest, mark(entry.path, entry.content_hash, entry.length, entry.modified, entry.content_type)
            )
        state = await self.state()
        assert state.is_whole
        assert state.position is not None
        assert state.position.digest == digest
        assert state.confirmed == self.now
        newest = await self.store.logs.event_numbered(USER, False, state.position.seq)
        ours = [one for one in self.official.events if one.pubky == USER and one.path.startswith("/pub/")]
        assert (newest.id if newest else 0) == (ours[-1].id if ours else 0)
        copy = await self.store.copies.copy(USER)
        assert copy is not None
        assert copy.missing == 0

    async def body(self, entry: Entry) -> bytes | None:
        """The bytes of a file here."""
        if entry.blob is None:
            return entry.body
        reader = await self.blobs.open(entry.blob)
        assert reader is not None
        return await reader.read(0, reader.length)

    async def state(self) -> CopiedLog:
        """Where the copy's public log is."""
        copy = await self.store.copies.copy(USER)
        assert copy is not None
        return copy.public

    async def events(self) -> list[Event]:
        """All of our log."""
        return [one.event for one in await self.store.logs.logged(USER, False, 0, 1000)]

    def put(self, path: str, body: bytes = b"hello", **other: Any) -> None:
        """The user writes there."""
        self.official.put(USER, path, body, **other)

    @property
    def now(self) -> int:
        """Microseconds."""
        return int(self.clock.seconds() * 1_000_000)

    def asked(self, method: str, path: str = "") -> int:
        """How often something was asked for."""
        return sum(one == method and path in what for one, what in self.official.asked)


@pytest_twisted.async_yield_fixture
async def world() -> AsyncIterator[World]:
    """A user with nothing, and nobody who follows yet."""
    there, pool = Official({USER: {}, OTHER: {}}), HTTPConnectionPool(reactor)
    async with serving(there) as port:
        yield World(port, there, pool)
        await pool.closeCachedConnections()


@pytest_twisted.ensureDeferred
async def test_a_first_copy_and_what_comes_then(world: World) -> None:
    """Files of either size, odd names, overwrites and deletes come over; numbers are dense, the ids are its cursors."""
    for number in range(7):
        world.put(f"/pub/{number}/ä b%", b"x" * number * 40)
    world.put("/pub/0/ä b%", b"again")
    world.official.put(OTHER, "/pub/not/ours", b"x")
    await world.follow()
    await world.compare()
    world.put("/pub/new", b"y" * 3000)
    world.official.delete(USER, "/pub/3/ä b%")
    for number in range(5):
        world.put("/pub/often", b"%d" % number)
    await world.follow()
    await world.compare()
    events = await world.events()
    assert [one.seq for one in events] == list(range(events[0].seq, events[-1].seq + 1))
    assert [(one.operation, one.path, one.id) for one in events[-3:]] == [
        (Operation.PUT, "/pub/new", 30),
        (Operation.DEL, "/pub/3/ä b%", 33),
        (Operation.PUT, "/pub/often", 48),
    ]


@pytest_twisted.ensureDeferred
async def test_an_account_without_files(world: World) -> None:
    """A user who wrote nothing has a whole, empty copy; the first file is found."""
    await world.follow()
    await world.compare()
    world.put("/pub/first")
    await world.follow()
    await world.compare()
    assert world.tally.of(Counted.FORKED) == 0


@pytest_twisted.ensureDeferred
async def test_nothing_new(world: World) -> None:
    """A copy that is there asks one question: for its last event, again."""
    world.put("/pub/file")
    await world.follow()
    before = len(world.official.asked)
    world.clock.advance(5)
    await world.follow()
    assert world.official.asked[before:] == [("GET", "/events-stream")]
    await world.compare()


async def verified(world: World) -> int:
    """How many files differ from its list, once time has passed."""
    results: list[int] = []
    running = Deferred.fromCoroutine(world.retelling.verify(USER, False))
    running.addCallback(results.append)
    while not results:
        await until(
            lambda: results or [one for one in world.clock.getDelayedCalls() if one.getTime() == settled(world)]
        )
        if not results:
            world.clock.advance(SETTLE)
    return results[0]


def settled(world: World) -> float:
    """When a difference is looked at again."""
    return world.clock.seconds() + SETTLE


@pytest_twisted.ensureDeferred
async def test_a_list_that_differs(world: World) -> None:
    """What no event tells is found by names and hashes, and compared; private files are nobody's list here."""
    for number in range(5):
        world.put(f"/pub/{number}")
    await world.follow()
    assert await verified(world) == 0
    assert await world.retelling.verify(USER, True) == 0
    files = world.official.users[USER]
    files["/pub/1"], files["/pub/new"] = b"other", b"new"
    del files["/pub/2"]
    assert await verified(world) == 3
    assert not (await world.state()).is_whole
    await world.follow()
    await world.compare()
    assert await verified(world) == 0
    assert {one.path for one in await world.store.shelf.shelf(USER, "", 10)} == {"/pub/1", "/pub/2"}


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("times", [1, 9])
async def test_overwritten_while_it_is_fetched(world: World, times: int) -> None:
    """What is there is another file than the event's: its own event comes, and is retold with what was found."""
    world.put("/pub/other", b"o")
    await world.follow()
    left = times

    def overwrite() -> None:
        nonlocal left
        if left:
            left -= 1
            world.put("/pub/file", b"version %d" % left * 20)

    world.put("/pub/file", b"first")
    world.official.before_get = lambda _path: overwrite()
    world.official.before_events = overwrite if times > 1 else lambda: None
    await world.follow()
    assert left == 0
    await world.compare()
    assert (await world.events())[-1].content_hash == blake3(b"version 0" * 20).digest()
    assert world.tally.of(Counted.WRONG_BODY) == 0
    applied = [one for one in await world.events() if one.length > INLINE]
    assert len(await world.blobs.older_than(0, "", 100)) == len(applied) < 10, "what was found for nothing is gone"


@pytest_twisted.ensureDeferred
async def test_deleted_while_it_is_fetched(world: World) -> None:
    """A file that is not there any more is not an error: a DEL is on its way."""
    world.put("/pub/kept")
    await world.follow()
    world.put("/pub/gone")
    world.official.before_get = lambda path: (
        world.official.delete(USER, path) if path in world.official.users[USER] else None
    )
    await world.follow()
    world.official.before_get = lambda _path: None
    await world.compare()
    assert (await world.events())[-1].operation is Operation.DEL


@pytest_twisted.ensureDeferred
async def test_events_without_a_hash(world: World) -> None:
    """A hash of zeros means that the file's ETag says it, in a first copy and later; it is recognised again."""
    world.put("/pub/old", b"old", forget=True)
    await world.follow()
    await world.compare()
    world.put("/pub/older", b"o" * 1000, forget=True)
    world.put("/pub/old", b"older", forget=True)
    await world.follow()
    await world.compare()
    await world.follow()
    assert world.tally.of(Counted.FORKED) == 0
    assert (await world.events())[-1].content_hash == blake3(b"older").digest()


@pytest_twisted.ensureDeferred
async def test_an_older_database(world: World) -> None:
    """Our last event is not there: lists are compared, what goes is shelved with its body, and following goes on."""
    for number in range(12):
        world.put(f"/pub/{number}", b"%d" % number)
    backup = world.official.keep()
    await world.follow()
    world.put("/pub/lost", b"z" * 500)
    world.put("/pub/3", b"changed")
    await world.follow()
    before = await world.state()
    world.official.restore(backup)
    await world.follow()
    await world.compare()
    assert world.tally.of(Counted.FORKED) == 1
    shelf = await world.store.shelf.shelf(USER, "", 100)
    assert {(one.path, one.reason, one.origin) for one in shelf} == {
        ("/pub/lost", Reason.REPLACED, US),
        ("/pub/3", Reason.REPLACED, US),
    }
    assert {await world.body(one.entry) for one in shelf if one.entry} == {b"z" * 500, b"changed"}
    after = await world.state()
    assert before.position is not None
    assert after.position is not None
    assert after.position.seq > before.position.seq
    assert after.reigns[-1].log_id != before.reigns[-1].log_id
    world.put("/pub/new", b"n")
    await world.follow()
    await world.compare()


@pytest_twisted.ensureDeferred
async def test_an_older_database_that_has_gone_on(world: World) -> None:
    """The cursor of our last event is that of another one: it is not the cursor alone that is compared."""
    world.put("/pub/1")
    backup = world.official.keep()
    world.put("/pub/2")
    await world.follow()
    world.official.restore(backup)
    world.put("/pub/3")
    world.put("/pub/4")
    await world.follow()
    await world.compare()
    assert world.tally.of(Counted.FORKED) == 1


@pytest_twisted.ensureDeferred
async def test_much_that_is_gone(world: World) -> None:
    """I20: a homeserver that lacks much waits for the operator, and nothing goes before that."""
    world.put("/pub/0")
    backup = world.official.keep()
    for number in range(20):
        world.put(f"/pub/more/{number}", b"%d" % number)
    await world.follow()
    world.official.restore(backup)
    for _ in range(2):
        with pytest.raises(ComparisonBraked):
            await world.follow()
    assert await world.store.entry(USER, "/pub/more/19") is not None
    assert await world.store.copies.permit(USER) == 20
    await world.follow()
    await world.compare()
    assert len(await world.store.shelf.shelf(USER, "", 100)) == 20


@pytest_twisted.ensureDeferred
async def test_an_unknown_user(world: World) -> None:
    """Whom it does not know, or know any more, loses nothing here."""
    world.put("/pub/file")
    await world.follow()
    confirmed = (await world.state()).confirmed
    world.clock.advance(10)
    del world.official.users[USER]
    with pytest.raises(PeerRefused):
        await world.follow()
    assert await world.store.entry(USER, "/pub/file") is not None
    state = await world.state()
    assert (state.is_whole, state.confirmed) == (True, confirmed)


@pytest_twisted.ensureDeferred
async def test_a_user_who_was_never_there(world: World) -> None:
    """An unknown user is not an account without files: its copy is not whole."""
    del world.official.users[USER]
    with pytest.raises(PeerRefused):
        await world.follow()
    assert not (await world.state()).is_whole


@pytest_twisted.ensureDeferred
async def test_it_is_busy(world: World) -> None:
    """429: all that we ask waits as long as it says, and then goes on."""
    world.put("/pub/file")
    world.official.busy = ["7", "nonsense"]
    following = Deferred.fromCoroutine(world.follow())
    await until(lambda: _rests(world) == [7.0])
    world.clock.advance(6.5)
    assert len(world.official.asked) == 1
    world.clock.advance(0.5)
    await until(lambda: _rests(world) == [1.0])
    assert len(world.official.asked) == 2
    world.clock.advance(1.0)
    await following
    await world.compare()


@pytest_twisted.ensureDeferred
async def test_it_fails(world: World) -> None:
    """A failure of its own is none of the copy's: it is tried again, from where it was."""
    world.put("/pub/file")
    await world.follow()
    world.put("/pub/second")
    world.official.away = 1
    with pytest.raises(PeerAway):
        await world.follow()
    await world.follow()
    await world.compare()


@pytest_twisted.ensureDeferred
async def test_a_moment_without_its_database(world: World) -> None:
    """An event stream that ends without a word may be an older database, or none for a moment: it is asked again."""
    world.put("/pub/file")
    await world.follow()
    world.official.silent = 1
    await world.follow()
    assert world.tally.of(Counted.FORKED) == 0


@pytest.mark.parametrize("sent", [b"hellO", b"hel"])
@pytest_twisted.ensureDeferred
async def test_a_body_that_is_not_its_own(world: World, sent: bytes) -> None:
    """A file that does not have its hash, or breaks off, is applied without its body, and filled when it is whole."""
    world.official.rotten["/pub/file"] = sent
    world.put("/pub/before")
    await world.follow()
    world.put("/pub/file")
    await world.retelling.catch_up(USER, False)
    copy = await world.store.copies.copy(USER)
    assert copy is not None
    assert copy.missing == 1
    assert world.tally.of(Counted.WRONG_BODY) == 3
    assert await world.retelling.fill(USER) == 1
    world.official.rotten.clear()
    world.clock.advance(FIRST_DELAY)
    await world.follow()
    await world.compare()


@pytest_twisted.ensureDeferred
async def test_room_that_ends(world: World) -> None:
    """What `max_bytes` forbids does not block the log: the file is without body; a list does not begin at all."""
    world.put("/pub/before")
    await world.follow()
    world.room = 100
    world.put("/pub/large", b"x" * 10_000)
    world.put("/pub/small", b"y")
    await world.retelling.catch_up(USER, False)
    copy = await world.store.copies.copy(USER)
    assert copy is not None
    assert copy.missing == 1
    world.room = 20_000
    assert await world.retelling.fill(USER) == 0
    await world.compare()


@pytest_twisted.ensureDeferred
async def test_no_room_at_all(world: World) -> None:
    """A list without end is not read without end."""
    world.put("/pub/file")
    world.room = -1
    with pytest.raises(BudgetSpent):
        await world.follow()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("gap", [1, 150, 201, 215, 254])
async def test_a_first_copy_that_is_interrupted(world: World, gap: int) -> None:
    """A new process goes on with the list where it was left; what changed meanwhile is right at the end."""
    for number in range(250):
        world.put(f"/pub/{number:03}", b"%d" % number)
    world.official.fails_at = gap
    with pytest.raises(PeerAway):
        await world.follow()
    world.official.fails_at = 0
    assert not (await world.state()).is_whole
    world.official.delete(USER, "/pub/001")
    world.put("/pub/002", b"changed")
    world.put("/pub/0021", b"between")
    world.official.asked.clear()
    world.begin()
    await world.follow()
    await world.compare()
    if gap > 210:
        assert world.asked("HEAD") < 60, "what was kept is not asked for again"


@pytest_twisted.ensureDeferred
async def test_a_list_that_is_interrupted_by_an_older_database(world: World) -> None:
    """A list that was begun against events which are gone is begun again."""
    backup = world.official.keep()
    for number in range(250):
        world.put(f"/pub/{number:03}", b"%d" % number)
    world.official.fails_at = 215
    with pytest.raises(PeerAway):
        await world.follow()
    world.official.fails_at = 0
    world.official.restore(backup)
    world.put("/pub/only")
    await world.follow()
    await world.compare()


@pytest_twisted.ensureDeferred
async def test_an_account_that_moves_there(world: World) -> None:
    """Its log was ours, its ids times: the official one has another history, and the lists are compared.

    What is no file is known only here, and stays: a grant that was revoked.
    """
    copies = world.store.copies
    await copies.begin(USER, THERE, world.now)
    start = LogStanding(Position("ab" * 16, 4, world.now - 9, EMPTY), (Reign("ab" * 16, 1),), 4)
    await copies.begin_list(USER, False, start)
    name = revocation_of("GRANT")
    hashes = {path: blake3(b"").digest() for path in ("/pub/ours", "/pub/same")}
    entries = [Entry(path, found, 0, "text/plain", 1_445_412_480_000_000, b"") for path, found in hashes.items()]
    entries.append(Entry(name, blake3(b"").digest(), 0, "", 1, b""))
    await copies.keep_listed(USER, False, entries, "\U0010ffff")
    for entry in entries:
        await copies.fill(USER, entry)
    digest = fold(
        EMPTY, *(mark(one.path, one.content_hash, one.length, one.modified, one.content_type) for one in entries)
    )
    standing = evolve(start, position=evolve(start.position, digest=digest))
    assert await copies.end_list(USER, False, standing)
    world.put("/pub/same", b"")
    world.put("/pub/theirs", b"t")
    await world.follow()
    assert {one.path for one in await copies.own(USER, False, "", 10)} == {"/pub/same", "/pub/theirs", name}
    (shelved,) = await world.store.shelf.shelf(USER, "", 10)
    assert shelved.path == "/pub/ours"
    world.put("/pub/more")
    await world.follow()
    assert world.tally.of(Counted.FORKED) == 1


@pytest_twisted.ensureDeferred
async def test_private_files(world: World) -> None:
    """There is no private log to follow, and private files are never asked for."""
    world.put("/priv/secret")
    world.put("/pub/file")
    await world.follow()
    await world.compare()
    assert world.asked("GET", "priv") == 0
    with pytest.raises(PeerRefused):
        await world.retelling.catch_up(USER, True)


def _rests(world: World) -> list[float]:
    """How long what waits will wait; what gives up on sockets waits longer."""
    waits = (call.getTime() - world.clock.seconds() for call in world.clock.getDelayedCalls())
    return [round(wait, 3) for wait in waits if wait < STALL / 2]
