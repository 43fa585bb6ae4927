"""Copies in one life with their primary: whatever happens in whatever order, both stores have one copy, the right one.

A primary is written to while its lists are read and its events applied, in any interleaving; now and then something
comes twice, too early, damaged, or from a list that was begun before. Redis and memory must answer alike and be alike
after each step. In the end every log is followed to its end and must be what the primary has.
"""

from typing import Any

import pytest_twisted
from attrs import define, evolve, field
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread, deferToThread

from pubky_homeserver.core.copies import CopiedLog, Listed, LoggedEvent, LogStanding
from pubky_homeserver.core.digests import EMPTY, fold
from pubky_homeserver.core.errors import DigestMismatch, DirectoryNotFound, Refused
from pubky_homeserver.core.quotas import ENTRY_OVERHEAD
from pubky_homeserver.core.records import Entry
from pubky_homeserver.store.memory import MemoryStore
from pubky_homeserver.store.redis import RedisStore
from tests.contract.copying import END, NOW, PRIMARY, mark_of
from tests.contract.store import ALICE, Store, entry, sign_up
from tests.store.server import RedisServer

reactor: Any = _reactor

PAGE = 3
PATHS = [f"/{root}/{name}" for root in ("pub", "pub", "priv") for name in ("a", "a!", "a0", "b", "c/d", "c/é", "z")]
BODIES = [b"", b"1", b"22", b"x" * 300]
MOST = 60
"""Pages and pairs of events that a log can have left."""

SOURCE = "00"
"""How the names of the primary's blobs begin; ours begin otherwise."""

PRIVATE = st.sampled_from([False, False, True])
STEP = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(PATHS), st.sampled_from(BODIES), st.booleans()),
    st.tuples(st.just("put"), st.sampled_from(PATHS), st.sampled_from(BODIES), st.booleans()),
    st.tuples(st.just("delete"), st.sampled_from(PATHS)),
    st.tuples(st.just("read_list"), PRIVATE),
    st.tuples(st.just("read_list"), PRIVATE),
    st.tuples(st.just("apply"), PRIVATE, st.integers(1, 4), st.sampled_from(["nothing", "small", "blob"])),
    st.tuples(st.just("apply"), PRIVATE, st.integers(1, 4), st.sampled_from(["nothing", "small", "blob"])),
    st.tuples(st.just("fill"), st.booleans(), st.booleans()),
    st.tuples(st.just("confirm"), PRIVATE),
    st.tuples(st.just("begin_list"), PRIVATE),
    st.tuples(st.just("old_page"), PRIVATE),
    st.tuples(st.just("old_event"), PRIVATE, st.integers(0, 5)),
    st.tuples(st.just("damaged"), PRIVATE, st.sampled_from(["digest", "seq", "id", "body"])),
    st.tuples(st.just("forget"), st.sampled_from([1, 4, 500])),
)


async def answer(work: Any) -> Any:
    """What is said, or the class of what is raised."""
    try:
        return await work
    except (Refused, DigestMismatch) as error:
        return type(error)


async def all_of(store: Store, private: bool) -> list[Entry]:
    """The files of a log."""
    root = "/priv/" if private else "/pub/"
    try:
        paths = await store.listing(ALICE, root, "", 1000, False, False)
    except DirectoryNotFound:
        return []
    entries = [await store.entry(ALICE, path) for path in paths]
    return [one for one in entries if one is not None]


@define
class Life:
    """A primary, and two copies of its account that are told the same."""

    copies: tuple[Store, Store]
    primary: MemoryStore = field(factory=lambda: MemoryStore(reactor))
    pages: dict[bool, list[Listed]] = field(factory=lambda: {False: [], True: []})
    # Whether it is the private log → pages that were read.
    ends: dict[bool, LogStanding | None] = field(factory=lambda: {False: None, True: None})
    # Where the log stood at the last page of its list.
    names: int = 1
    # How many blobs had a name, and how many times something happened.

    async def begin(self) -> None:
        """The account, and its copies."""
        await sign_up(self.primary, ALICE)
        await self.tell("begin", ALICE, PRIMARY, NOW)

    async def tell(self, method: str, *arguments: Any) -> Any:
        """Do the same with both copies; they answer alike, and are alike afterwards."""
        one, other = [await answer(getattr(store.copies, method)(*arguments)) for store in self.copies]
        assert one == other, (method, arguments)
        assert await self.copies[0].copies.copy(ALICE) == await self.copies[1].copies.copy(ALICE), (method, arguments)
        return one

    async def state(self, private: bool) -> CopiedLog:
        """How far one log is."""
        copy = await self.copies[0].copies.copy(ALICE)
        if copy is None:
            await self.tell("begin", ALICE, PRIMARY, NOW)
            return CopiedLog()
        return copy.private if private else copy.public

    async def events(self, private: bool, after: int) -> list[LoggedEvent]:
        """What the primary tells of a log."""
        return await self.primary.logs.logged(ALICE, private, after, 1000)

    def name(self, beginning: str = "ff") -> str:
        """A blob of that name is not there yet."""
        self.names += 1
        return f"{beginning}{self.names:030x}"

    # --- at the primary ---

    async def put(self, path: str, body: bytes, in_blob: bool) -> None:
        """The user keeps a file."""
        kept = entry(path, body, modified=self.names)
        kept = evolve(kept, body=None, blob=self.name(SOURCE)) if in_blob else kept
        await answer(self.primary.put(ALICE, kept, None, True))

    async def delete(self, path: str) -> None:
        """The user removes one."""
        await answer(self.primary.delete(ALICE, path))

    # --- at the copies ---

    async def begin_list(self, private: bool) -> None:
        """Read a list from its beginning."""
        self.ends[private] = None
        await self.state(private)
        await self.tell("begin_list", ALICE, private, await self.primary.logs.standing(ALICE, private))

    async def read_list(self, private: bool) -> None:
        """Read the next page of a list; at its end the log may become whole."""
        state = await self.state(private)
        if state.is_whole:
            return
        if state.start is None:
            await self.begin_list(private)
        page = await self.primary.logs.listed(ALICE, private, state.listed if state.start else "", PAGE)
        assert page is not None
        self.pages[private].append(page)
        upto = page.entries[-1].path if page.entries else END
        await self.tell("keep_listed", ALICE, private, page.entries, upto)
        if not page.entries:
            self.ends[private] = page.standing
        await self.try_end(private)

    async def try_end(self, private: bool) -> None:
        """A list that was read to its end is whole where it stood then, and not before."""
        end, state = self.ends[private], await self.state(private)
        if end is None or state.position is None or state.is_whole:
            return
        ended = await self.tell("end_list", ALICE, private, end)
        assert ended == (state.position.seq == end.position.seq)

    async def apply(self, private: bool, count: int, how: str) -> None:
        """Apply the next events of a log."""
        for _ in range(count):
            state = await self.state(private)
            if state.position is None:
                return
            events = await self.events(private, state.position.event_id)
            if not events:
                return
            assert await self.tell("apply", ALICE, private, events[0].event, self.brought(events[0], how)) is True
            await self.try_end(private)

    def brought(self, logged: LoggedEvent, how: str) -> Entry | None:
        """The entry of an event, with a body if one is to be had and wanted."""
        event = logged.event
        if event.content_hash is None:
            return None
        kept = Entry(event.path, event.content_hash, event.length, event.content_type, event.modified, seq=event.seq)
        if how == "blob":
            return evolve(kept, blob=self.name())
        return evolve(kept, body=logged.body) if how == "small" else kept

    async def fill(self, in_blob: bool, twice: bool) -> None:
        """Bring a body that is missing."""
        missing = await self.tell("missing", ALICE, "", 2)
        for one in missing[-1:]:
            whole = evolve(one, blob=self.name()) if in_blob else evolve(one, body=b"?" * one.length)
            for _ in range(1 + twice):
                assert await self.tell("fill", ALICE, whole) is True

    async def confirm(self, private: bool) -> None:
        """Say where the primary stands."""
        self.names += 1
        state, there = await self.state(private), await self.primary.logs.standing(ALICE, private)
        assert there is not None
        confirmed = await self.tell("confirm", ALICE, private, there.position, NOW + self.names)
        assert confirmed == (state.is_whole and state.position == there.position)

    async def old_page(self, private: bool) -> None:
        """A page that was kept already, or came too late."""
        state = await self.state(private)
        for page in self.pages[private][-3:]:
            if page.entries and (state.is_whole or page.entries[-1].path <= state.listed):
                await self.unchanged("keep_listed", private, page.entries, page.entries[-1].path)

    async def old_event(self, private: bool, back: int) -> None:
        """An event that was applied already."""
        state = await self.state(private)
        if state.position is not None:
            events = await self.events(private, 0)
            for one in events[max(0, state.position.seq - 1 - back) : state.position.seq][:1]:
                await self.unchanged("apply", private, one.event, self.brought(one, "blob"))

    async def damaged(self, private: bool, what: str) -> None:
        """The next event with something wrong in it."""
        state = await self.state(private)
        events = await self.events(private, state.position.event_id if state.position else 0)
        if not events or (what == "digest" and not state.is_whole):
            return
        event = events[0].event
        if what == "digest":
            event = evolve(event, digest=fold(event.digest, b"\0" * 15 + b"\1"))
        if what == "seq":
            event = evolve(event, seq=event.seq + 1)
        if what == "id":
            event = evolve(event, id=state.position.event_id if state.position else 0)
        if what != "body":
            await self.unchanged("apply", private, event, self.brought(events[0], "blob"))
        elif missing := await self.tell("missing", ALICE, "", 1):
            wrong = evolve(missing[0], content_hash=bytes(32), body=b"")
            await self.tell("fill", ALICE, wrong)

    async def unchanged(self, method: str, private: bool, *arguments: Any) -> None:
        """Tell them something that must change nothing."""
        before = [await store.copies.copy(ALICE) for store in self.copies], await self.files()
        assert await self.tell(method, ALICE, private, *arguments) in (False, None, DigestMismatch)
        assert before == ([await store.copies.copy(ALICE) for store in self.copies], await self.files())

    async def forget(self, limit: int) -> None:
        """Remove a few files, and the copy with the last one."""
        await self.tell("forget", ALICE, limit)
        self.ends = {False: None, True: None}

    async def files(self) -> list[list[Entry]]:
        """All files of both copies."""
        return [await all_of(store, False) + await all_of(store, True) for store in self.copies]

    # --- in the end ---

    async def check(self) -> None:
        """The copies are alike, and what they say of themselves is so."""
        one, other = await self.files()
        assert one == other
        graces = [set(await store.expired_blobs(2**53 - 1, 500)) for store in self.copies]
        assert graces[0] == graces[1]
        copy = await self.copies[0].copies.copy(ALICE)
        if copy is None:
            assert one == []
            return
        assert copy.used == sum(file.length + ENTRY_OVERHEAD for file in one)
        assert copy.missing == sum(file.body is None and file.blob is None for file in one)
        blobs = {file.blob for file in one if file.blob is not None}
        assert not blobs & graces[0]
        for store in self.copies:
            assert await store.known_blobs(blobs) == blobs

    async def finish(self) -> None:
        """Follow both logs to their ends: then they are what the primary has."""
        for private in (False, True):
            for _ in range(MOST):
                await self.read_list(private)
                await self.apply(private, 2, "small")
            assert (await self.state(private)).is_whole
            await self.apply(private, 1000, "small")
            state, there = await self.state(private), await self.primary.logs.standing(ALICE, private)
            assert there is not None
            assert state.position == there.position
            await self.confirm(private)
            events = [one.event for one in await self.events(private, 0)]
            kept = await self.copies[1].account_events(ALICE, None, 1000, False, not private, private)
            assert kept == events[len(events) - len(kept) :]
            for store in self.copies:
                assert fold(EMPTY, *map(mark_of, await all_of(store, private))) == there.position.digest
                assert list(map(_bare, await all_of(store, private))) == list(
                    map(_bare, await all_of(self.primary, private))
                )
        account = await self.primary.account(ALICE)
        copy = await self.copies[1].copies.copy(ALICE)
        assert account is not None
        assert copy is not None
        assert copy.used == account.used


def _bare(one: Entry) -> Entry:
    return evolve(one, body=None, blob=None)


@pytest_twisted.ensureDeferred
async def test_a_copy_becomes_its_primary(redis: RedisStore, servers: dict[str, RedisServer]) -> None:
    """Under any interleaving a list that was read to its end is whole there, and what follows is the primary's history.

    Replays, gaps, damage and old pages change nothing; bytes, missing bodies and blobs are always counted right; and
    both stores are alike after each step.
    """
    server = next(server for server in servers.values() if server.address == redis.address)

    async def live(steps: list[Any]) -> None:
        server.ask("FLUSHALL")
        assert redis.remembered is not None
        redis.remembered.forget()
        life = Life((MemoryStore(reactor), redis))
        await life.begin()
        for name, *arguments in steps:
            await getattr(life, name)(*arguments)
            await life.check()
        await life.finish()
        await life.check()

    @settings(max_examples=60)
    @given(st.lists(STEP, min_size=30, max_size=100))
    def examples(steps: list[Any]) -> None:
        blockingCallFromThread(reactor, run, steps)

    def run(steps: list[Any]) -> Deferred[Any]:
        return Deferred.fromCoroutine(live(steps))

    await deferToThread(examples)  # hypothesis waits for each example, and the reactor must turn meanwhile
