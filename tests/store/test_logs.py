"""`store/logs.py` and `store/copies.py` beyond the contract: gaps, a full Redis, what a copy costs."""

import pytest
import pytest_twisted
from attrs import evolve

from pubky_homeserver.core.digests import EMPTY
from pubky_homeserver.core.errors import StorageFull
from pubky_homeserver.store import schema
from tests.contract.copying import END, bare, begin_whole, copy_of, deletion, digest_of, event_of, standing, state_of
from tests.contract.store import ALICE, entry, put, sign_up
from tests.store.conftest import OpenStore
from tests.store.server import RedisServer


@pytest_twisted.ensureDeferred
async def test_numbers_in_a_log_with_gaps(server: RedisServer, open_store: OpenStore) -> None:
    """After compaction the numbers that are left are found, and no others; also where ids lie years apart."""
    store = await open_store(server)
    await sign_up(store, ALICE)
    redis, log = store._redis, schema.log(False, ALICE)
    events = []
    for number in range(300):
        events.append(await put(store, ALICE, f"/pub/{number % 50}"))
        if number % 100 == 50:
            await redis.call("HSET", schema.SHARD, "event", events[-1].id + number * 10**11)
    kept = [event for event in events if event.seq % 7 in (0, 3) or event.seq > 290]
    for event in set(events) - set(kept):
        await redis.call("XDEL", log, f"{event.id}-0")
    found = [await store.logs.event_numbered(ALICE, False, seq) for seq in range(302)]
    assert [one for one in found if one is not None] == kept
    for event in kept:
        assert found[event.seq] == event


@pytest_twisted.ensureDeferred
async def test_a_full_store_takes_no_more(server: RedisServer, open_store: OpenStore) -> None:
    """Where the room is used up, what adds files is refused as a user's write is; deletes come through."""
    store = await open_store(server)
    await begin_whole(store)
    one = bare("/pub/a", seq=1)
    await store.copies.apply(ALICE, False, event_of(one, 10, digest_of(one)), None)
    before = await state_of(store)
    store._room.note(100, 100)
    other = entry("/pub/b", seq=2)
    with pytest.raises(StorageFull):
        await store.copies.apply(ALICE, False, event_of(other, 11, digest_of(one, other)), other)
    with pytest.raises(StorageFull):
        await store.copies.fill(ALICE, entry("/pub/a"))
    with pytest.raises(StorageFull):
        await store.copies.keep_listed(ALICE, False, [bare("/pub/b")], END)
    assert await state_of(store) == before
    assert await store.copies.apply(ALICE, False, deletion("/pub/a", 2, 11, EMPTY), None)


@pytest_twisted.ensureDeferred
async def test_a_redis_that_is_full(server: RedisServer, open_store: OpenStore) -> None:
    """What Redis itself refuses has changed nothing, not even half; deletes come through."""
    store = await open_store(server)
    await begin_whole(store)
    one, other = bare("/pub/a", seq=1), entry("/pub/b", seq=2)
    await store.copies.apply(ALICE, False, event_of(one, 10, digest_of(one)), None)
    before = await state_of(store)
    server.ask("CONFIG", "SET", "maxmemory", 1)
    with pytest.raises(StorageFull):
        await store.copies.apply(ALICE, False, event_of(other, 11, digest_of(one, other)), other)
    with pytest.raises(StorageFull):
        await store.copies.fill(ALICE, entry("/pub/a"))
    assert await state_of(store) == before
    assert await store.copies.apply(ALICE, False, deletion("/pub/a", 2, 11, EMPTY), None)
    server.ask("CONFIG", "SET", "maxmemory", 0)
    await store.copies.begin_list(ALICE, False, standing(2, 11))
    before = await state_of(store)
    server.ask("CONFIG", "SET", "maxmemory", 1)
    with pytest.raises(StorageFull):
        await store.copies.keep_listed(ALICE, False, [bare("/pub/b")], END)
    assert await state_of(store) == before


@pytest_twisted.ensureDeferred
async def test_a_copied_file_lies_there_as_any_file(server: RedisServer, open_store: OpenStore) -> None:
    """The files and events of a copy lie there byte for byte as an account's; what else is known takes little."""
    store = await open_store(server)
    primary = "b" * 52
    await sign_up(store, primary)
    await begin_whole(store)
    files = [f"/pub/example.com/{number:06}/".ljust(60, "p") for number in range(600)]
    for path in files:
        event = await put(store, primary, path)
        assert await store.copies.apply(ALICE, False, evolve(event, pubky=ALICE), entry(path))

    for command, of in (("ZRANGE", schema.entries), ("XRANGE", lambda pubky: schema.log(False, pubky))):
        bounds = (0, -1) if command == "ZRANGE" else ("-", "+")
        assert server.ask(command, of(ALICE), *bounds) == server.ask(command, of(primary), *bounds)
    await begin_whole(store, private=True)
    assert server.ask("MEMORY", "USAGE", schema.copy(ALICE)) < 2000
    assert (await copy_of(store)).used == 600 * (256 + 5)
