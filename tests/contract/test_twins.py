"""Both stores in one life: whatever is done, Redis and memory answer alike, and the books always balance."""

from base64 import b64encode
from itertools import pairwise
from typing import Any

import pytest_twisted
from attrs import evolve
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread, deferToThread

from pubky_homeserver.core.digests import EMPTY, fold, mark
from pubky_homeserver.core.errors import Refused
from pubky_homeserver.core.quotas import ENTRY_OVERHEAD, UserQuota
from pubky_homeserver.core.records import Account, Entry, Event
from pubky_homeserver.store import schema
from pubky_homeserver.store.memory import MemoryStore
from pubky_homeserver.store.redis import RedisStore
from tests.contract.store import Store, entry
from tests.store.server import RedisServer

reactor: Any = _reactor

PUBKYS = ("a" * 52, "b" * 52, "c" * 52)
"""The last one has no account."""

QUOTAS = (UserQuota(), UserQuota(storage_quota_mb=0), UserQuota(allowed_write_paths=("/pub/a/", "/priv/b")))

SEGMENT = st.sampled_from(["a", "b", "a.", "a0", "ü"])
PATH = st.builds(
    lambda root, segments: root + "/".join(segments),
    st.sampled_from(["/pub/", "/pub/", "/priv/"]),
    st.lists(SEGMENT, min_size=1, max_size=3),
)
DIRECTORY = st.one_of(st.sampled_from(["/", "/pub/", "/priv/"]), PATH.map(lambda path: path + "/"))
CURSOR = st.one_of(st.just(""), PATH, DIRECTORY, PATH.map(lambda path: path + "!"))
BODY = st.sampled_from([b"", b"1", b"22", b"x" * 300])
CONDITION = st.one_of(st.none(), st.lists(st.one_of(BODY, st.just(b"*")), max_size=2))
PUBKY = st.sampled_from(PUBKYS)
LIMIT = st.sampled_from([0, 1, 2, 5, 1000])

OPERATION = st.one_of(
    st.tuples(
        st.just("put"), PUBKY, PATH, BODY, st.booleans(), st.sampled_from([None, 600]), st.booleans(), CONDITION,
        st.booleans(),
    ),
    st.tuples(st.just("put"), PUBKY, PATH, BODY, st.just(False), st.none(), st.booleans(), st.none(), st.just(False)),
    st.tuples(st.just("check_put"), PUBKY, PATH, st.sampled_from([None, 0, 300]), st.sampled_from([None, 600])),
    st.tuples(st.just("delete"), PUBKY, PATH, CONDITION),
    st.tuples(st.just("check_delete"), PUBKY, PATH),
    st.tuples(st.just("entry"), PUBKY, PATH),
    st.tuples(st.just("set_disabled"), PUBKY, st.booleans()),
    st.tuples(st.just("listing"), PUBKY, DIRECTORY, CURSOR, LIMIT, st.booleans(), st.booleans()),
    st.tuples(st.just("events"), st.integers(-1, 9), LIMIT, st.booleans()),
    st.tuples(st.just("account_events"), PUBKY, st.one_of(st.none(), st.integers(-1, 9)), LIMIT, st.booleans(),
              st.booleans(), st.booleans()),
    st.tuples(st.just("clock goes back"), st.integers(1, 10**9)),
    st.tuples(st.just("forget"), st.integers(0, 3)),
)  # fmt: skip


def tags(condition: list[bytes] | None) -> list[str] | None:
    """Entity tags of bodies; the body `*` stands for any."""
    if condition is None:
        return None
    return ["*" if body == b"*" else f'"{b64encode(blake3(body).digest()).decode()}"' for body in condition]


class Twin:
    """One of the two stores, and the ids that its events got: the stores have different clocks."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.ids: list[int] = []

    def cursor(self, index: int | None) -> int | None:
        """The id of the event at an index; below the first it is 0, beyond the last it is above all."""
        if index is None or index < 0:
            return None if index is None else 0
        return self.ids[index] if index < len(self.ids) else 2**53 - 1

    def alike(self, answer: Any) -> Any:
        """An answer with event ids by their index."""
        if isinstance(answer, Event):
            return evolve(answer, id=self.ids.index(answer.id))
        return [self.alike(one) for one in answer] if isinstance(answer, list) else answer

    async def do(self, number: int, operation: tuple[Any, ...]) -> Any:
        """Run one operation; the answer or the class of the refusal."""
        name, *rest = operation
        try:
            answer = await getattr(self, name.replace(" ", "_"))(number, *rest)
        except Refused as refusal:
            return type(refusal)
        if isinstance(answer, Event):
            self.ids.append(answer.id)
        return self.alike(answer)

    async def put(
        self, number: int, pubky: str, path: str, body: bytes, in_blob: bool, limit: int | None, announced: bool,
        condition: list[bytes] | None, new: bool,
    ) -> Event:  # fmt: skip
        """A write, with its number as time and, if there is one, in the name of its blob."""
        kept = entry(path, body, modified=number)
        if in_blob:
            kept = evolve(kept, body=None, blob=f"{number:032x}")
        return await self.store.put(pubky, kept, limit, announced, tags(condition), new)

    async def check_put(self, _: int, pubky: str, path: str, length: int | None, limit: int | None) -> None:
        """As it is."""
        await self.store.check_put(pubky, path, length, limit)

    async def delete(self, _: int, pubky: str, path: str, condition: list[bytes] | None) -> Event:
        """As it is."""
        return await self.store.delete(pubky, path, tags(condition))

    async def check_delete(self, _: int, pubky: str, path: str) -> None:
        """As it is."""
        await self.store.check_delete(pubky, path)

    async def entry(self, _: int, pubky: str, path: str) -> Entry | None:
        """As it is."""
        return await self.store.entry(pubky, path)

    async def set_disabled(self, _: int, pubky: str, disabled: bool) -> None:
        """As it is."""
        await self.store.set_disabled(pubky, disabled)

    async def listing(self, _: int, *rest: Any) -> list[str]:
        """As it is."""
        return await self.store.listing(*rest)

    async def events(self, _: int, cursor: int, limit: int, private: bool) -> list[Event]:
        """After the event at an index."""
        return await self.store.events(self.cursor(cursor) or 0, limit, private)

    async def account_events(self, _: int, pubky: str, cursor: int | None, *rest: Any) -> list[Event]:
        """Beyond the event at an index."""
        return await self.store.account_events(pubky, self.cursor(cursor), *rest)

    async def clock_goes_back(self, _: int, by: int) -> None:
        """Let the newest id lie in the future, as it does after the clock was set back."""
        if isinstance(self.store, RedisStore) and self.ids:
            await self.store._redis.call("HSET", schema.SHARD, "event", self.ids[-1] + by)

    async def forget(self, _: int, limit: int) -> int:
        """Let some graces end."""
        expired = await self.store.expired_blobs(2**53 - 1, limit)
        await self.store.forget_blobs(expired)
        return len(expired)


async def audit(twin: Twin) -> Any:
    """Everything that can be read, checked against itself."""
    store = twin.store
    seen: list[Any] = [twin.alike(await store.events(0, 1000, True)), twin.alike(await store.events(0, 1000, False))]
    assert all(one < other for one, other in pairwise(twin.ids))
    used, blobs = 0, {f"{number:032x}" for number in range(100)}
    for pubky in PUBKYS[:2]:
        account = await store.account(pubky)
        assert account is not None
        paths = []
        for directory in ("/pub/", "/priv/"):
            try:
                paths += await store.listing(pubky, directory, "", 1000, False, False)
            except Refused:
                continue
        entries = [await store.entry(pubky, path) for path in paths]
        live = [one for one in entries if one is not None]
        assert len(live) == len(paths)
        assert account.used == sum(one.length + ENTRY_OVERHEAD for one in live)
        used += account.used
        for private in (False, True):
            log = await store.log_state(pubky, private)
            events = await store.account_events(pubky, None, 1000, False, not private, private)
            marks = [
                mark(one.path, one.content_hash, one.length, one.modified, one.content_type)
                for one in live
                if one.path.startswith("/priv/") == private
            ]
            assert log is not None
            assert log.digest == fold(EMPTY, *marks)
            assert [event.seq for event in events] == list(range(1, log.seq + 1))
            if events:
                assert (events[-1].id, events[-1].digest) == (log.event_id, log.digest)
        referred = {one.blob for one in live if one.blob is not None}
        assert await store.known_blobs(referred) == referred
        seen += [account, live]
    assert (await store.totals()).used == used
    return [*seen, await store.totals(), await store.known_blobs(blobs)]


async def live(server: RedisServer, redis: RedisStore, quotas: tuple[UserQuota, ...], operations: list[Any]) -> None:
    """One life of both."""
    server.ask("FLUSHALL")
    assert redis.remembered is not None
    redis.remembered.forget()
    twins = [Twin(MemoryStore(reactor)), Twin(redis)]
    for twin in twins:
        for pubky, quota in zip(PUBKYS, quotas, strict=False):
            await twin.store.sign_up(Account(pubky, 1, quota=quota), None, None, False)
    for number, operation in enumerate(operations):
        memory, real = [await twin.do(number, operation) for twin in twins]
        assert memory == real, operation
    memory, real = [await audit(twin) for twin in twins]
    assert memory == real


@pytest_twisted.ensureDeferred
async def test_redis_and_memory_answer_alike(redis: RedisStore, servers: dict[str, RedisServer]) -> None:
    """Any sequence of operations has the same answers in both stores.

    After it usage is the sum over the files, each digest the XOR of their marks, numbers are dense, ids ascend, also
    when the clock goes back, and every blob that a file refers to is known.
    """
    server = next(server for server in servers.values() if server.address == redis.address)

    @settings(max_examples=100)
    @given(
        quotas=st.tuples(st.sampled_from(QUOTAS), st.sampled_from(QUOTAS[:1])),
        operations=st.lists(OPERATION, max_size=40),
    )
    def examples(quotas: tuple[UserQuota, ...], operations: list[Any]) -> None:
        blockingCallFromThread(reactor, run, quotas, operations)

    def run(*example: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(live(server, redis, *example))

    await deferToThread(examples)  # hypothesis waits for each example, and the reactor must turn meanwhile
