"""`store/redis.py` beyond the contract: what lies in Redis, and what happens when Redis has its own troubles."""

import re
import signal
from typing import Any

import pytest
import pytest_twisted
import txredisapi
from attrs import evolve
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from pubky_homeserver.core.digests import EMPTY, fold, mark
from pubky_homeserver.core.erasing import Order
from pubky_homeserver.core.errors import CannotStart, NewerSchema, StorageFull, StoreAway, WriteNotAllowed
from pubky_homeserver.core.moves import Fork, Kept, Move
from pubky_homeserver.core.quotas import MEGABYTE, UserQuota
from pubky_homeserver.core.records import Account, Entry, Lock, SignupToken
from pubky_homeserver.core.shelf import Reason, Shelved
from pubky_homeserver.store import schema
from pubky_homeserver.store.connection import Commands, Word
from pubky_homeserver.store.feeds import Feeds
from pubky_homeserver.store.migrations import open_schema
from pubky_homeserver.store.moves import end_sessions, ending_words
from pubky_homeserver.store.packing import pack_session
from pubky_homeserver.store.redis import RedisStore
from pubky_homeserver.store.survey import Room, Survey
from tests.contract.store import ALICE, BOB, entry, put, put_all, session, sign_up
from tests.contract.test_grants import NOW, bearer, kept
from tests.store.conftest import OpenStore, StartServer
from tests.store.server import RedisServer
from tests.store.test_connection import until

reactor: Any = _reactor
GOOD = Survey("7.0.15", "master", "always", 1, 0, "noeviction")


# --- what lies there ----------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_an_account_opens_whole_or_not_at_all(server: RedisServer, open_store: OpenStore) -> None:
    """What cannot be added up is found before anything is written."""
    store = await open_store(server)
    await store.copies.begin(BOB, ALICE, NOW)
    await store.packets.keep_packet(BOB, bytes(72))
    await store._redis.call("HSET", schema.copy(BOB), "used", 2**63)
    with pytest.raises(txredisapi.ResponseError):
        await store.moves.open(BOB, bytes(72), NOW, incomplete=True)
    assert await store.account(BOB) is None
    assert await store.copies.copy(BOB) is not None
    assert (await store.totals()).users == 0


@pytest_twisted.ensureDeferred
async def test_a_fence_ends_any_number_of_sessions(server: RedisServer, open_store: OpenStore) -> None:
    """They count for nothing from one step on, whose time does not grow with them; they are removed by and by."""
    store = await open_store(server)
    await store.sign_up(Account(ALICE, 1), None, None, False)
    await gatherResults([Deferred.fromCoroutine(store.sign_in(session(ALICE, number))) for number in range(1800)])
    grants = [(kept(grant_id=f"grant{number}"), bearer(number)) for number in range(1800)]
    await gatherResults([Deferred.fromCoroutine(store.grants.exchange(*one, NOW, 60)) for one in grants])
    keys = (
        *(schema.account(ALICE), schema.packet(ALICE), schema.copy(ALICE), schema.COPIES, schema.SHARD),
        *(schema.sessions(ALICE), schema.grants(ALICE)),
    )
    words: tuple[Word, ...] = bytes(64) + b"\1" * 8, 64, ALICE, BOB, 0, *ending_words()
    assert await store._redis.run("keep_packet", keys, words) == b"fenced more"
    assert int(server.ask("SCARD", schema.sessions(ALICE))) > 1000
    assert [await store.session(session(ALICE, number).id) for number in (0, 900, 1799)] == [None] * 3
    assert [await store.grants.bearer(bearer(number)) for number in (0, 900, 1799)] == [None] * 3

    account = await open_account(store)
    await store.sign_up(account, session(ALICE, 5000), None, False, True)
    await store.grants.exchange(kept(grant_id="grant1"), bearer(5000), NOW, 60)
    await end_sessions(store._redis, None, ALICE, more=True)
    assert server.ask("SMEMBERS", schema.sessions(ALICE)) == [session(ALICE, 5000).id.encode()]
    left = [*server.ask("KEYS", schema.bearer("*")), *server.ask("KEYS", schema.session("*"))]
    assert sorted(left) == sorted(
        [schema.bearer(bearer(5000)).encode(), schema.session(session(ALICE, 5000).id).encode()]
    )
    assert await store.session(session(ALICE, 5000).id) is not None
    assert await store.grants.bearer(bearer(5000)) is not None


@pytest_twisted.ensureDeferred
async def test_a_session_from_before_there_were_eras(server: RedisServer, open_store: OpenStore) -> None:
    """It counts as long as its account has not been shut since."""
    store = await open_store(server)
    await store.sign_up(Account(ALICE, 1), None, None, False)
    old = evolve(session(ALICE, 1), created=1_764_000_000_000_000)
    server.ask("SET", schema.session(old.id), pack_session(old))
    server.ask("SADD", schema.sessions(ALICE), old.id)
    assert await store.session(old.id) == old
    assert await store.packets.keep_packet(ALICE, bytes(64) + b"\1" * 8, BOB) is Kept.FENCED
    assert await store.session(old.id) is None
    assert server.ask("EXISTS", schema.session(old.id)) == 0


async def open_account(store: RedisStore) -> Account:
    """Alice's account."""
    account = await store.account(ALICE)
    assert account is not None
    return account


@pytest_twisted.ensureDeferred
async def test_every_key_is_in_the_schema(server: RedisServer, open_store: OpenStore) -> None:
    """Every key has the shard's hash tag, and its name and type stand on the page."""
    store = await open_store(server)
    await store.add_signup_token(SignupToken("T1", 1, UserQuota(storage_quota_mb=1)))
    await store.add_signup_token(SignupToken("T2", 1))
    await store.sign_up(Account(ALICE, 1), session(ALICE), "T1", True)
    await store.burn(b"\x01", 60)
    for path in ("/pub/a", "/priv/a"):
        for number in (1, 2):
            await store.put(ALICE, Entry(path, bytes(32), 5, "", 1, blob=f"{number:02x}" * 16), None, True)
    await store.locks.lock(ALICE, "/pub/a", Lock("token", 60))
    await store.grants.exchange(kept(), bearer(1), NOW, 60)
    await store.packets.keep_packet(ALICE, bytes(72))
    await store.copies.begin(BOB, ALICE, NOW)
    carol = "c" * 52
    await store.copies.begin(carol, ALICE, NOW)
    await store.packets.keep_packet(carol, bytes(72))
    assert await store.moves.open(carol, bytes(72), NOW, incomplete=True)
    await store.shelf.shelve(Shelved(ALICE, "id", Reason.LATE, BOB, "/pub/a", None, None, NOW, NOW))
    dave = "d" * 52
    await sign_up(store, dave)
    await put(store, dave, "/pub/a")
    await store.delete(dave, "/pub/a")
    away, back = (bytes(64) + number.to_bytes(8, "big") for number in (2**52, 2**52 + 1))
    await store.packets.keep_packet(dave, away, BOB)
    await store.packets.keep_packet(dave, back)
    assert await store.moves.open(dave, back, NOW)
    assert not await store.moves.announce(dave, 2)
    erin = "e" * 52
    await store.copies.begin(erin, ALICE, NOW)
    await store.erasures.hide(erin, ALICE, "0" * 32, 0, NOW, "f" * 64)
    await store.erasures.order(Order(BOB, ALICE, "0" * 32, 1, NOW))
    assert await store.takedowns.take_down(dave, NOW)
    await store.chronicle.note_move(Move(ALICE, "opened", BOB, NOW))
    await store.chronicle.note_fork(Fork(ALICE, BOB, NOW))
    await store.lease.take("one", 60)
    page = dict(re.findall(r"^`(.*?)`\s+(\w+) ", schema.__doc__ or "", re.MULTILINE))
    names = {re.sub(r"\\?<\w+\\?>", ".+", re.escape(name)): kind for name, kind in page.items()}
    keys = [key.decode() for key in server.ask("KEYS", "*")]
    seen = set()
    for key in keys:
        tag, _, name = key.partition(":")
        assert tag == "{0}"
        (pattern,) = [pattern for pattern in names if re.fullmatch(pattern, name)]
        assert server.ask("TYPE", key).decode() == names[pattern]
        seen.add(pattern)
    assert set(names) - seen == {"wake", "revocations", "hints"}


@pytest_twisted.ensureDeferred
async def test_lifetimes(server: RedisServer, open_store: OpenStore) -> None:
    """A sign-in token is forgotten after its lifetime; nothing else has one."""
    store = await open_store(server)
    await sign_up(store, ALICE)
    await put(store, ALICE, "/pub/a")
    await store.burn(b"\x01", 60)
    assert 59_000 < server.ask("PTTL", schema.burned(b"\x01")) <= 60_000
    assert [key for key in server.ask("KEYS", "*") if server.ask("PTTL", key) != -1] == [
        schema.burned(b"\x01").encode()
    ]


@pytest_twisted.ensureDeferred
async def test_the_sessions_of_an_account(server: RedisServer, open_store: OpenStore) -> None:
    """The account's set of sessions is exact, so that they can be ended together."""
    store = await open_store(server)
    await store.sign_up(Account(ALICE, 1), session(ALICE, 1), None, False)
    await store.sign_in(session(ALICE, 2))
    await store.sign_in(session(ALICE, 3))
    await store.sign_out(session(ALICE, 2).id)
    kept = {session(ALICE, number).id.encode() for number in (1, 3)}
    assert set(server.ask("SMEMBERS", schema.sessions(ALICE))) == kept


@pytest_twisted.ensureDeferred
async def test_a_path_that_is_allowed_no_more(server: RedisServer, open_store: OpenStore) -> None:
    """A file at a path that the account may not write any more cannot be deleted either."""
    store = await open_store(server)
    await sign_up(store, ALICE)
    await put(store, ALICE, "/pub/a")
    server.ask("HSET", schema.account(ALICE), "paths", "/pub/b/")
    for refused in (store.check_delete(ALICE, "/pub/a"), store.delete(ALICE, "/pub/a")):
        with pytest.raises(WriteNotAllowed):
            await refused


@pytest_twisted.ensureDeferred
async def test_usage_never_goes_below_zero(server: RedisServer, open_store: OpenStore) -> None:
    """Whatever was counted before, a delete gives back no more than the account uses."""
    store = await open_store(server)
    await sign_up(store, ALICE)
    await put(store, ALICE, "/pub/a")
    server.ask("HSET", schema.account(ALICE), "used", 100)
    server.ask("HSET", schema.SHARD, "used", 100)
    await store.delete(ALICE, "/pub/a")
    account = await store.account(ALICE)
    assert account is not None
    assert account.used == (await store.totals()).used == 0


def logged(server: RedisServer) -> int:
    """Bytes of the log of what was written."""
    found = re.search(rb"aof_current_size:(\d+)", server.ask("INFO", "persistence"))
    assert found is not None
    return int(found[1])


@pytest_twisted.ensureDeferred
async def test_what_a_body_costs_the_log(server: RedisServer, open_store: OpenStore) -> None:
    """A body is written to Redis' log once, by its own write: neither deleting nor replacing it writes it again."""
    store = await open_store(server)
    await sign_up(store, ALICE)
    size = 50_000
    await put(store, ALICE, "/pub/a", b"a" * size)
    for body, cost in ((b"b" * size, size), (b"c", 0)):
        before = logged(server)
        await put(store, ALICE, "/pub/a", body)
        assert cost < logged(server) - before < cost + 1500
    await put(store, ALICE, "/pub/a", b"a" * size)
    before = logged(server)
    await store.delete(ALICE, "/pub/a")
    assert logged(server) - before < 1500


@pytest_twisted.ensureDeferred
async def test_large_entries_beside_each_other(server: RedisServer, open_store: OpenStore) -> None:
    """Replacing and deleting leave exactly one entry or none, whatever the bytes of its number in the log."""
    store = await open_store(server)
    await sign_up(store, ALICE)
    body = b"\xff" * 1000
    others = ["/pub/a!", "/pub/a0", "/pub/b"]
    await put_all(store, ((ALICE, path, body) for path in others))
    for number in range(260):  # beyond 255, whose number ends in the highest byte
        event = await put(store, ALICE, "/pub/a", body, modified=1)
        assert event.seq == number + 4
        assert server.ask("ZCARD", schema.entries(ALICE)) == 4
        found = await store.entry(ALICE, "/pub/a")
        assert found is not None
        assert found.body == body
    await store.delete(ALICE, "/pub/a")
    assert await store.listing(ALICE, "/pub/", "", 10, False, False) == others


@pytest_twisted.ensureDeferred
async def test_the_clock_goes_back(server: RedisServer, open_store: OpenStore) -> None:
    """Ids go on above the newest one, whatever the clock says, up to the largest that Lua can hold."""
    store = await open_store(server)
    await sign_up(store, ALICE)
    for last in (2**52 + 1, 2**53 - 9):
        server.ask("HSET", schema.SHARD, "event", last)
        for more in (1, 2, 3):
            event = await put(store, ALICE, "/pub/a")
            assert event.id == await store.last_event_id() == last + more
            assert await store.has_event(event.id)
            assert (await store.events(event.id - 1, 10, True))[0] == event


@pytest_twisted.ensureDeferred
async def test_two_stores_on_one_redis(server: RedisServer, open_store: OpenStore) -> None:
    """Writers in two processes do no harm to each other, and each is woken by the other's writes."""
    stores = [await open_store(server) for _ in range(2)]
    await sign_up(stores[0], ALICE)
    woken: Deferred[None] = Deferred()
    await until(lambda: server.ask("PUBSUB", "NUMSUB", schema.WAKE)[1] == 2)
    leave = stores[1].subscribe(lambda: None if woken.called else woken.callback(None))
    await put(stores[0], ALICE, "/pub/first")
    await woken
    leave()

    writes = [put(store, ALICE, f"/pub/{n % 7}", b"%d" % n, modified=n) for n in range(100) for store in stores]
    await gatherResults([Deferred.fromCoroutine(write) for write in writes])
    events = await stores[0].account_events(ALICE, None, 1000, False, True, False)
    assert [event.seq for event in events] == list(range(1, 202))
    assert events == await stores[1].events(0, 1000, False)
    entries = [
        await stores[1].entry(ALICE, path) for path in await stores[0].listing(ALICE, "/pub/", "", 9, False, False)
    ]
    marks = [mark(e.path, e.content_hash, e.length, e.modified, e.content_type) for e in entries if e is not None]
    assert len(marks) == 8
    assert events[-1].digest == fold(EMPTY, *marks)


# --- troubles -----------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_what_was_acknowledged_survives_a_kill(server: RedisServer, open_store: OpenStore) -> None:
    """Redis killed under writes: each write that was answered is there afterwards, and the books balance."""
    store = await open_store(server)
    assert store.durability == "always"
    await sign_up(store, ALICE)
    acknowledged: list[str] = []
    refused: list[str] = []

    async def write(path: str) -> None:
        try:
            await put(store, ALICE, path)
        except StoreAway:
            refused.append(path)
            return
        acknowledged.append(path)
        if len(acknowledged) == 50:
            server.signal(signal.SIGKILL)

    await gatherResults([Deferred.fromCoroutine(write(f"/pub/{n:03}")) for n in range(400)])
    assert len(acknowledged) + len(refused) == 400
    assert refused
    server.kill()
    server.start()
    await until(lambda: not _is_away(store))

    kept = await store.listing(ALICE, "/pub/", "", 1000, False, False)
    assert set(acknowledged) <= set(kept)
    events = await store.account_events(ALICE, None, 1000, False, True, False)
    assert [event.path for event in events] == kept
    account = await store.account(ALICE)
    assert account is not None
    assert account.used == len(kept) * (256 + 5)
    await put(store, ALICE, "/pub/more")


def _is_away(store: RedisStore) -> bool:
    try:
        return store._redis is None
    except StoreAway:
        return True


@pytest_twisted.ensureDeferred
async def test_calls_while_redis_is_away(server: RedisServer, open_store: OpenStore) -> None:
    """Every method fails with `StoreAway` at once, and works again when Redis is back, subscribers woken once."""
    store = await open_store(server)
    await sign_up(store, ALICE)
    woken: list[int] = []
    store.subscribe(lambda: woken.append(1))
    server.kill()
    await until(lambda: _is_away(store))
    woken.clear()
    calls = [
        store.account(ALICE),
        store.sign_up(Account(BOB, 1), None, None, False),
        store.set_disabled(ALICE, True),
        store.totals(),
        store.session("0" * 64),
        store.burn(b"1", 1),
        store.entry(ALICE, "/pub/a"),
        put(store, ALICE, "/pub/a"),
        store.delete(ALICE, "/pub/a"),
        store.listing(ALICE, "/pub/", "", 1, False, False),
        store.events(0, 1, True),
        store.account_events(ALICE, None, 1, False, True, True),
        store.has_event(1),
        store.known_blobs(["00" * 16]),
        store.forget_blobs(["00" * 16]),
    ]
    before = reactor.seconds()
    for call in calls:
        with pytest.raises(StoreAway):
            await call
    assert reactor.seconds() - before < 0.5
    server.start()
    await until(lambda: not _is_away(store) and woken)
    assert (await store.account(ALICE)) is not None


@pytest_twisted.ensureDeferred
async def test_a_redis_that_lost_its_data(start_server: StartServer, open_store: OpenStore) -> None:
    """A Redis that comes back empty is not taken for a new one: everything stays away, and the log says why."""
    server = start_server(durable=False)
    store = await open_store(server)
    await sign_up(store, ALICE)
    with capturedLogs() as events:
        server.kill()
        server.start()
        await until(lambda: any("lose its data" in str(event.get("reason")) for event in events))
    assert _is_away(store)
    assert server.ask("DBSIZE") == 0


@pytest_twisted.ensureDeferred
async def test_full_memory(start_server: StartServer, open_store: OpenStore) -> None:
    """Full memory: a put is `StorageFull` and changes nothing, reading and deleting go on, also without a reserve."""
    server = start_server("--maxmemory", "0", "--maxmemory-policy", "noeviction")
    store = await open_store(server, reserve=0)
    await sign_up(store, ALICE)
    await put_all(store, ((ALICE, f"/pub/{n}", b"x" * 4000) for n in range(10)))
    server.ask("CONFIG", "SET", "maxmemory", "1mb")
    before = await store.totals()
    with pytest.raises(StorageFull):
        await put(store, ALICE, "/pub/more")
    with pytest.raises(StorageFull):
        await store.put(ALICE, entry("/pub/1"), None, True)
    with pytest.raises(StorageFull):
        await sign_up(store, BOB)
    assert await store.totals() == before
    assert await store.entry(ALICE, "/pub/1") == entry("/pub/1", b"x" * 4000, seq=2)
    assert await store.listing(ALICE, "/pub/", "", 3, False, False) == ["/pub/0", "/pub/1", "/pub/2"]
    assert len(await store.events(0, 100, private=True)) == 10
    assert len(await store.account_events(ALICE, None, 100, False, public=True, private=True)) == 10
    for number in range(10):
        await store.delete(ALICE, f"/pub/{number}")
    assert (await store.totals()).used == 0
    server.ask("CONFIG", "SET", "maxmemory", "0")
    await put(store, ALICE, "/pub/more")


@pytest_twisted.ensureDeferred
async def test_the_reserve(start_server: StartServer, open_store: OpenStore) -> None:
    """Below the reserve puts are refused before Redis has to, and before their body is read; the rest goes on."""
    server = start_server("--maxmemory", "100mb")
    store = await open_store(server)
    await sign_up(store, ALICE)
    await put(store, ALICE, "/pub/a")
    store._room.note(88 * MEGABYTE, 100 * MEGABYTE)
    with pytest.raises(StorageFull):
        await put(store, ALICE, "/pub/a")
    with pytest.raises(StorageFull):
        await store.check_put(ALICE, "/pub/a", 5, None)
    await store.delete(ALICE, "/pub/a")


@pytest_twisted.ensureDeferred
async def test_looks_at_memory(server: RedisServer, open_store: OpenStore) -> None:
    """At most one look a second, and only when somebody asks; what a look saw counts from then on."""
    redis = (await open_store(server))._redis
    clock = Clock()
    room = Room(lambda: redis, clock, 10**9)
    room.note(1, 0)

    def looks() -> int:
        found = re.search(rb"cmdstat_info:calls=(\d+)", server.ask("INFO", "commandstats"))
        assert found is not None
        return int(found[1])

    start = looks()
    server.ask("CONFIG", "SET", "maxmemory", "1mb")
    clock.advance(0.9)
    assert room.has_room()
    assert looks() == start + 1  # our own look at the statistics
    clock.advance(0.2)
    assert room.has_room()
    await until(lambda: not room.has_room())
    for _ in range(10):
        assert not room.has_room()
    server.ask("CONFIG", "SET", "maxmemory", "0")
    clock.advance(1.1)
    await until(room.has_room)


@pytest_twisted.ensureDeferred
async def test_a_look_that_fails(server: RedisServer, open_store: OpenStore) -> None:
    """A look that fails leaves things as they are, and the next one is taken a second later."""
    redis = (await open_store(server))._redis
    clock = Clock()
    answers: list[Any] = [StoreAway(), redis]

    def commands() -> Commands:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Commands)
        return answer

    room = Room(commands, clock, 10**9)
    room.note(2, 1)
    clock.advance(1.1)
    for _ in range(3):
        assert not room.has_room()
    assert len(answers) == 1
    clock.advance(1.1)
    room.has_room()
    await until(room.has_room)
    clock.advance(1.1)
    answers.append(redis)
    with capturedLogs() as events:
        room.has_room()
        room.stop()
    assert not events


@pytest_twisted.ensureDeferred
async def test_more_accounts_than_are_remembered(server: RedisServer, open_store: OpenStore) -> None:
    """A page of events of more accounts than the names that are remembered is whole, and so is the next."""
    store = await open_store(server)
    store._feeds = Feeds(max_names=2)
    pubkys = [letter * 52 for letter in "abcde"]
    for pubky in pubkys:
        await sign_up(store, pubky)
    events = await put_all(store, ((pubky, "/pub/a", b"") for pubky in pubkys * 2))
    assert await store.events(0, 3, True) == events[:3]
    assert await store.events(events[2].id, 7, True) == events[3:]
    assert await store.events(0, 10, True) == events


@pytest.mark.parametrize(
    ("used", "limit", "reserve", "has_room"),
    [
        (10**12, 0, 256 * MEGABYTE, True),
        (7 * 10**9, 8 * 10**9, 256 * MEGABYTE, True),
        (8 * 10**9 - 256 * MEGABYTE, 8 * 10**9, 256 * MEGABYTE, True),
        (8 * 10**9 - 256 * MEGABYTE + 1, 8 * 10**9, 256 * MEGABYTE, False),
        (87 * 10**6, 100 * 10**6, 256 * MEGABYTE, True),
        (88 * 10**6, 100 * 10**6, 256 * MEGABYTE, False),
        (100 * 10**6, 100 * 10**6, 0, True),
    ],
)
def test_how_much_stays_free(used: int, limit: int, reserve: int, has_room: bool) -> None:
    """The reserve stays free, at most an eighth of Redis' memory; a memory without bound has always room."""
    room = Room(lambda: pytest.fail("nothing to look at yet"), Clock(), reserve)
    room.note(used, limit)
    assert room.has_room() == has_room


# --- which Redis --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"version": "6.2.0"}, None),
        ({"version": "10.0.1"}, None),
        ({"version": "6.1.9"}, "Redis 6.1.9 is too old: 6.2 or newer is needed"),
        ({"version": "5"}, "Redis 5 is too old"),
        ({"role": "slave"}, "is a replica"),
        ({"limit": 1, "policy": "allkeys-lru"}, r"forgets data .*maxmemory-policy noeviction"),
        ({"limit": 0, "policy": "allkeys-lru"}, None),
        ({"limit": 1, "policy": "volatile-ttl"}, None),
        ({"durability": "none"}, None),
    ],
)
def test_which_redis_is_refused(other: dict[str, Any], sentence: str | None) -> None:
    """A Redis that is too old, a replica, or forgets what it was given, is refused in one sentence."""
    if sentence is None:
        evolve(GOOD, **other).check()
    else:
        with pytest.raises(CannotStart, match=sentence):
            evolve(GOOD, **other).check()


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({}, None),
        ({"durability": "everysec"}, "set appendfsync always"),
        ({"durability": "none"}, "set appendonly yes"),
        ({"durability": "unknown"}, "refuses CONFIG GET"),
        ({"limit": 1, "policy": "volatile-lru"}, "set maxmemory-policy noeviction"),
        ({"limit": 0, "policy": "volatile-lru"}, None),
    ],
)
def test_what_the_operator_is_warned_of(other: dict[str, Any], sentence: str | None) -> None:
    """What is not as safe as it could be is said with the remedy."""
    warnings = evolve(GOOD, **other).warnings()
    assert len(warnings) == (sentence is not None)
    assert all(sentence is not None and sentence in warning for warning in warnings)


@pytest.mark.parametrize(
    ("options", "durability"),
    [
        (("--appendonly", "yes", "--appendfsync", "always"), "always"),
        (("--appendonly", "yes", "--appendfsync", "everysec"), "everysec"),
        (("--appendonly", "yes", "--appendfsync", "no"), "none"),
        (("--appendonly", "no", "--appendfsync", "always"), "none"),
        (("--appendonly", "yes", "--rename-command", "CONFIG", ""), "unknown"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_durability(
    start_server: StartServer, open_store: OpenStore, options: tuple[str, ...], durability: str
) -> None:
    """The store knows how durable its Redis is, and the log says so once if it is not."""
    with capturedLogs() as events:
        store = await open_store(start_server(*options, durable=False))
    assert store.durability == durability
    said = [event for event in events if "sentence" in event]
    assert len(said) == (durability != "always")


@pytest_twisted.ensureDeferred
async def test_a_redis_that_forgets_is_refused(start_server: StartServer, open_store: OpenStore) -> None:
    """A start on a Redis that evicts keys is refused by a real server's own words."""
    server = start_server("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    with pytest.raises(CannotStart, match="maxmemory-policy allkeys-lru"):
        await open_store(server)


@pytest_twisted.ensureDeferred
async def test_a_replica_is_refused(server: RedisServer, open_store: OpenStore) -> None:
    """A start on a replica says that it is one; when it becomes one later, all is away until it is a master again."""
    store = await open_store(server)
    await sign_up(store, ALICE)
    server.ask("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(CannotStart, match="replica"):
        await open_store(server)
    with pytest.raises(StoreAway):
        await put(store, ALICE, "/pub/a")
    server.ask("REPLICAOF", "NO", "ONE")
    await put(store, ALICE, "/pub/a")


# --- the schema ---------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_an_empty_database_gets_the_version(server: RedisServer, open_store: OpenStore) -> None:
    """The first start writes the version, later ones leave it."""
    for _ in range(2):
        await open_store(server)
        assert server.ask("GET", schema.SCHEMA) == b"%d" % schema.VERSION
    assert server.ask("KEYS", "*") == [schema.SCHEMA.encode()]


@pytest_twisted.ensureDeferred
async def test_newer_data_is_not_touched(server: RedisServer, open_store: OpenStore) -> None:
    """Data of a newer version stops the start."""
    await until(server.answers)
    server.ask("SET", schema.SCHEMA, schema.VERSION + 1)
    with pytest.raises(NewerSchema, match=f"schema {schema.VERSION + 1}, this one knows {schema.VERSION}"):
        await open_store(server)
    assert server.ask("GET", schema.SCHEMA) == b"%d" % (schema.VERSION + 1)


@pytest.mark.parametrize("foreign", [("SET", "other", "x"), ("SET", schema.SCHEMA, "x")])
@pytest_twisted.ensureDeferred
async def test_the_data_of_others_is_not_touched(
    server: RedisServer, open_store: OpenStore, foreign: tuple[str, ...]
) -> None:
    """A database in which something else lies stops the start; another database of the same Redis is good."""
    await until(server.answers)
    server.ask(*foreign)
    with pytest.raises(CannotStart, match="another program"):
        await open_store(server)
    assert server.ask("DBSIZE") == 1
    await open_store(server, address=evolve(server.address, database=1))


@pytest_twisted.ensureDeferred
async def test_older_data_is_migrated(server: RedisServer, open_store: OpenStore) -> None:
    """Data is taken from version to version; a step that died is run again, and those before it are not."""
    redis = (await open_store(server))._redis
    server.ask("SET", schema.SCHEMA, 1)
    done: list[int] = []

    async def first(commands: Commands) -> None:
        done.append(1)
        await commands.call("SET", "migrated", "once")

    async def second(commands: Commands) -> None:
        done.append(2)
        await commands.call("APPEND", "migrated", " twice")
        if done.count(2) == 1:
            raise StoreAway

    with pytest.raises(StoreAway):
        await open_schema(redis, True, 3, {1: first, 2: second})
    assert server.ask("GET", schema.SCHEMA) == b"2"
    await open_schema(redis, True, 3, {1: first, 2: second})
    assert done == [1, 2, 2]
    assert server.ask("MGET", schema.SCHEMA, "migrated") == [b"3", b"once twice twice"]
    with pytest.raises(CannotStart, match=r"\(schema 3\) is too old"):
        await open_schema(redis, True, 9, {1: first, 2: second})
    with pytest.raises(NewerSchema):
        await open_schema(redis, True)
