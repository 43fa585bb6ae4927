"""Both stores in one life of an account that moves: whatever is done, Redis and memory answer alike."""

from typing import Any

import attrs
import pytest_twisted
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread, deferToThread

from pubky_homeserver.core.copies import LogStanding, Position, Reign
from pubky_homeserver.core.digests import EMPTY, fold
from pubky_homeserver.core.errors import DigestMismatch, Refused
from pubky_homeserver.core.records import Account, Entry, Event, Operation, SignupToken
from pubky_homeserver.core.shelf import Reason, Shelved, id_of
from pubky_homeserver.store.memory import MemoryStore
from pubky_homeserver.store.redis import RedisStore
from tests.contract.copying import END, LOG_ID, OTHER, PRIMARY, mark_of
from tests.contract.store import ALICE, Store, entry, session
from tests.contract.test_packets import packet
from tests.store.server import RedisServer

reactor: Any = _reactor

PATHS = ("/pub/a", "/pub/b", "/pub/c/d", "/priv/a", "/priv/b")
TOKEN = "T" * 14
FIRST = 2**52
"""The id of the other homeserver's first event: above all that ours make, until they go on above it."""

PLAN = (
    ("/pub/a", b"1"), ("/pub/b", b"22"), ("/priv/a", b"3"), ("/pub/a", None), ("/pub/c/d", b"x" * 300),
    ("/priv/b", b""), ("/pub/a", b"5"), ("/pub/b", None), ("/priv/a", None), ("/pub/b", b"6"),
)  # fmt: skip
"""What the user does at the other homeserver: paths and bodies, None for a removal."""


def history(private: bool, upto: int) -> tuple[list[Event], dict[str, Entry], LogStanding]:
    """The first events of the other homeserver's log, the files after them, and where it stands."""
    events: list[Event] = []
    files: dict[str, Entry] = {}
    for number, (path, body) in enumerate(PLAN):
        if path.startswith("/priv/") is not private or len(events) >= upto:
            continue
        seq = len(events) + 1
        files.pop(path, None)
        facts: dict[str, Any] = {}
        if body is not None:
            one = files[path] = entry(path, body, seq=seq, modified=number)
            facts = {name: getattr(one, name) for name in ("content_hash", "length", "content_type", "modified")}
        digest = fold(EMPTY, *map(mark_of, files.values()))
        operation = Operation.DEL if body is None else Operation.PUT
        events.append(Event(FIRST + number, operation, ALICE, path, seq, digest, **facts))
    last = events[-1] if events else None
    position = Position(LOG_ID, last.seq, last.id, last.digest) if last else Position(LOG_ID, 0, 0, EMPTY)
    return events, files, LogStanding(position, (Reign("cd" * 16, 1), Reign(LOG_ID, 1)), 0)


PATH, UPTO, NUMBER = st.sampled_from(PATHS), st.integers(0, 6), st.integers(0, 9)
PRIVATE, SIGNED = st.booleans(), st.integers(1, 30)
OPERATION = st.one_of(
    st.tuples(st.just("sign_up"), st.integers(1, 30), st.booleans(), st.booleans()),
    st.tuples(st.just("sign_in"), st.integers(1, 2)),
    st.tuples(st.just("put"), PATH, st.sampled_from([b"", b"mine", b"y" * 300]), st.booleans()),
    st.tuples(st.just("delete"), PATH),
    st.tuples(st.just("learn"), SIGNED, st.sampled_from([None, PRIMARY, OTHER])),
    st.tuples(st.just("begin"), st.sampled_from([PRIMARY, OTHER])),
    st.tuples(st.just("list_begins"), PRIVATE, UPTO),
    st.tuples(st.just("list_goes_on"), PRIVATE, UPTO, st.sampled_from(["/pub/b", "/priv/a", END]), st.booleans()),
    st.tuples(st.just("list_ends"), PRIVATE, UPTO),
    st.tuples(st.just("read_list"), PRIVATE, UPTO, st.booleans()),
    st.tuples(st.just("apply"), PRIVATE, UPTO, st.booleans()),
    st.tuples(st.just("follow"), PRIVATE, UPTO),
    st.tuples(st.just("fill"), PRIVATE, UPTO),
    st.tuples(st.just("confirm"), PRIVATE, UPTO),
    st.tuples(st.just("come"), PRIVATE, UPTO, PATH),
    st.tuples(st.just("leave")),
    st.tuples(st.just("void")),
    st.tuples(st.just("open"), st.booleans(), st.booleans()),
    st.tuples(st.just("announce"), st.sampled_from([1, 2, 250])),
    st.tuples(st.just("shelve"), PATH, st.integers(1, 2)),
    st.tuples(st.just("brake"), st.integers(1, 3)),
    st.tuples(st.just("permit")),
    st.tuples(st.just("forget"), st.sampled_from([1, 500])),
)


class Twin:
    """One of the two stores; ids that it chose itself are called by the order in which they were seen."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.names: dict[Any, int] = {}
        self.signed = 0
        self.is_listed = False
        # Whether a log was begun anew: what the feed still has of the old one is each store's own business.

    def alike(self, answer: Any, name: str = "") -> Any:
        """An answer without what each store chooses for itself."""
        if name == "begun":
            return bool(answer)  # a copy that was an account begins by the store's own clock
        if attrs.has(type(answer)):
            fields = attrs.fields(type(answer))
            return [type(answer), *(self.alike(getattr(answer, one.name), one.name) for one in fields)]
        if isinstance(answer, list | tuple):
            return [self.alike(one, name) for one in answer]
        chosen = (name == "log_id") or (name in ("id", "event_id") and isinstance(answer, int) and answer != 0)
        return self.names.setdefault(answer, len(self.names)) if chosen else answer

    async def do(self, number: int, operation: tuple[Any, ...]) -> Any:
        """Run one operation; the answer, or the class of the refusal."""
        name, *rest = operation
        try:
            return self.alike(await getattr(self, name)(number, *rest))
        except (Refused, DigestMismatch, ValueError) as refusal:
            return type(refusal)

    async def sign_up(self, number: int, created: int, may_claim: bool, by_token: bool) -> None:
        """As it is, perhaps with a token."""
        await self.store.add_signup_token(SignupToken(TOKEN, 5))
        account, token = Account(ALICE, created), TOKEN if by_token else None
        await self.store.sign_up(account, session(ALICE, 1), token, by_token, may_claim)

    async def sign_in(self, _: int, number: int) -> None:
        """As it is."""
        await self.store.sign_in(session(ALICE, number))

    async def put(self, number: int, path: str, body: bytes, in_blob: bool) -> Event:
        """A write, with its number as time."""
        kept = entry(path, body, modified=number)
        if in_blob:
            kept = evolve(kept, body=None, blob=f"{number:032x}")
        return await self.store.put(ALICE, kept, None, True)

    async def delete(self, _: int, path: str) -> Event:
        """As it is."""
        return await self.store.delete(ALICE, path)

    async def learn(self, _: int, signed: int, elsewhere: str | None) -> Any:
        """A record that names us, or somebody else."""
        kept = await self.store.packets.keep_packet(ALICE, packet(signed), elsewhere)
        self.signed = max(self.signed, signed)
        return kept

    async def begin(self, number: int, primary: str) -> None:
        """As it is."""
        await self.store.copies.begin(ALICE, primary, number)

    async def list_begins(self, _: int, private: bool, upto: int) -> None:
        """As it is."""
        await self.store.copies.begin_list(ALICE, private, history(private, upto)[2])
        self.is_listed = True

    async def list_goes_on(self, number: int, private: bool, upto: int, end: str, shelves: bool) -> None:
        """A page of the list, up to a path."""
        files = sorted(
            (one for path, one in history(private, upto)[1].items() if path <= end), key=lambda one: one.path
        )
        shelve = (OTHER, number) if shelves else None
        await self.store.copies.keep_listed(ALICE, private, files, end, shelve)

    async def list_ends(self, _: int, private: bool, upto: int) -> bool:
        """As it is."""
        return await self.store.copies.end_list(ALICE, private, history(private, upto)[2])

    async def read_list(self, number: int, private: bool, upto: int, shelves: bool) -> bool:
        """All three."""
        await self.list_begins(number, private, upto)
        await self.list_goes_on(number, private, upto, END, shelves)
        return await self.list_ends(number, private, upto)

    async def apply(self, _: int, private: bool, number: int, has_body: bool) -> bool | None:
        """One event, with its body or without."""
        events, files, _standing = history(private, number)
        if not events:
            return None
        event = events[-1]
        one = files.get(event.path) if event.operation is Operation.PUT else None
        return await self.store.copies.apply(ALICE, private, event, one if one is None or has_body else _bare(one))

    async def follow(self, number: int, private: bool, upto: int) -> list[bool | None]:
        """One event after the other."""
        return [await self.apply(number, private, one, True) for one in range(1, upto + 1)]

    async def fill(self, _: int, private: bool, upto: int) -> list[bool]:
        """The bodies of a list."""
        return [await self.store.copies.fill(ALICE, one) for one in history(private, upto)[1].values()]

    async def confirm(self, number: int, private: bool, upto: int) -> bool:
        """As it is."""
        return await self.store.copies.confirm(ALICE, private, history(private, upto)[2].position, number)

    async def come(self, number: int, private: bool, upto: int, path: str) -> list[Any]:
        """A copy, a claim, a record that names us, and all that follows."""
        done = [await self.do(number, ("begin", PRIMARY))]
        done += [await self.do(number, ("read_list", log, upto, False)) for log in (False, True)[: 1 + private]]
        done.append(await self.do(number, ("sign_up", number + 1, True, private)))
        done.append(await self.do(number, ("learn", self.signed + 1, None)))
        done.append(await self.do(number, ("open", True, False)))
        done.append(await self.do(number, ("announce", 1)))
        return [*done, await self.do(number, ("put", path, b"here", private))]

    async def leave(self, number: int) -> list[Any]:
        """A record that names the other one, and what happens there."""
        done = [await self.do(number, ("learn", self.signed + 1, PRIMARY))]
        return [*done, await self.do(number, ("begin", PRIMARY)), await self.do(number, ("follow", False, 6))]

    async def void(self, _: int) -> bool:
        """As it is."""
        return await self.store.moves.void_claim(ALICE)

    async def open(self, number: int, is_newest: bool, incomplete: bool) -> bool:
        """With the newest packet, or another one."""
        return await self.store.moves.open(ALICE, packet(self.signed + (not is_newest)), number, incomplete)

    async def announce(self, _: int, limit: int) -> None:
        """All, in parts; how many there are is each store's own business."""
        while not await self.store.moves.announce(ALICE, limit):
            pass

    async def shelve(self, number: int, path: str, seq: int) -> bool:
        """A removal."""
        late = Shelved(ALICE, id_of(path, seq, None), Reason.LATE, OTHER, path, None, None, number, seq)
        return await self.store.shelf.shelve(late)

    async def brake(self, _: int, removed: int) -> None:
        """As it is."""
        await self.store.copies.brake(ALICE, removed)

    async def permit(self, _: int) -> int:
        """As it is."""
        return await self.store.copies.permit(ALICE)

    async def forget(self, _: int, limit: int) -> bool:
        """As it is."""
        return await self.store.copies.forget(ALICE, limit)

    async def state(self) -> Any:
        """All that can be read."""
        store, pubky = self.store, ALICE
        return self.alike(
            [
                await store.account(pubky),
                await store.copies.copy(pubky),
                [await store.log_state(pubky, private) for private in (False, True)],
                [await store.logs.standing(pubky, private) for private in (False, True)],
                [await store.logs.logged(pubky, private, 0, 100) for private in (False, True)],
                [await store.entry(pubky, path) for path in PATHS],
                [await store.session(session(pubky, number).id) for number in (1, 2)],
                [await store.moves.is_admitted(pubky), await store.moves.announcing("", 10), await store.totals()],
                [await store.packets.packet(pubky), await store.signup_token(TOKEN)],
                [await store.copies.missing(pubky, "", 100), await store.shelf.shelf(pubky, "", 100)],
                [await store.account_events(pubky, None, 100, reverse, True, True) for reverse in (False, True)],
                [] if self.is_listed else await store.events(0, 100, True),
                sorted(await store.known_blobs([f"{number:032x}" for number in range(50)])),
            ]
        )


def _bare(one: Entry) -> Entry:
    return evolve(one, body=None, blob=None)


async def live(server: RedisServer, redis: RedisStore, operations: list[Any]) -> None:
    """One life of both."""
    server.ask("FLUSHALL")
    assert redis.remembered is not None
    redis.remembered.forget()
    twins = [Twin(MemoryStore(reactor)), Twin(redis)]
    for number, operation in enumerate(operations):
        memory, real = [await twin.do(number, operation) for twin in twins]
        assert memory == real, operation
        memory, real = [await twin.state() for twin in twins]
        assert memory == real, operation


@pytest_twisted.ensureDeferred
async def test_redis_and_memory_answer_alike(redis: RedisStore, servers: dict[str, RedisServer]) -> None:
    """Any sequence of steps of a move has the same answers in both stores, and leaves the same."""
    server = next(server for server in servers.values() if server.address == redis.address)

    @settings(max_examples=100)
    @given(operations=st.lists(OPERATION, max_size=25))
    def examples(operations: list[Any]) -> None:
        blockingCallFromThread(reactor, run, operations)

    def run(operations: list[Any]) -> Deferred[Any]:
        return Deferred.fromCoroutine(live(server, redis, operations))

    await deferToThread(examples)  # hypothesis waits for each example, and the reactor must turn meanwhile
