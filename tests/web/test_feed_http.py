"""Events over HTTP: the text feed page by page, and the stream of history and what happens."""

from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater

from pkarr.keys import Keypair
from pkarr.timestamps import to_text
from pubky_homeserver.core.errors import StoreAway
from pubky_homeserver.core.records import Account, Entry, Event
from pubky_homeserver.feed import MAX_QUEUED, RETRY, Feed
from pubky_homeserver.store.memory import MemoryStore
from tests.web.served import Served, User, served
from tests.web.sockets import reactor, turns

STRANGER = Keypair(bytes([9]) * 32).public_key.z32


async def put(server: Served, user: User, path: str, body: bytes = b"hello") -> int:
    """Store a file; returns the id of its event."""
    assert (await server.ask("PUT", f"/storage/{user.pubky}{path}", user.headers, body)).status == 201
    return await server.store.last_event_id()


async def delete(server: Served, user: User, path: str) -> int:
    """Remove a file; returns the id of its event."""
    assert (await server.ask("DELETE", f"/storage/{user.pubky}{path}", user.headers)).status == 204
    return await server.store.last_event_id()


def frame(operation: str, user: User, path: str, event_id: int, body: bytes = b"hello") -> str:
    """An event as the stream spells it."""
    lines = [f"event: {operation}", f"data: pubky://{user.pubky}{path}", f"data: cursor: {event_id}"]
    if operation == "PUT":
        lines.append(f"data: content_hash: {b64encode(blake3(body).digest()).decode()}")
    return "\n".join(lines) + "\n\n"


# --- the text feed ------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_pages() -> None:
    """Public events of everybody in the order of their commits, full pages, the cursor last; private ones never."""
    async with served() as server:
        alice, bob = await server.sign_up(), await server.sign_up()
        assert (await server.ask("GET", "/events/")).body == b""
        lines, ids = [], []
        for number in range(5):
            ids.append(await put(server, alice, f"/pub/{number}%20%C3%BC"))
            lines.append(f"PUT pubky://{alice.pubky}/pub/{number} ü")
            await put(server, alice, f"/priv/{number}")
            ids.append(await put(server, bob, "/pub/same"))
            lines.append(f"PUT pubky://{bob.pubky}/pub/same")
        ids.append(await delete(server, bob, "/pub/same"))
        lines.append(f"DEL pubky://{bob.pubky}/pub/same")
        whole = await server.ask("GET", "/events/")
        assert whole.header("content-type") == "text/plain"
        assert whole.text.splitlines() == [*lines, f"cursor: {ids[-1]}"]
        assert not whole.text.endswith("\n")
        cursor, seen = "0", []
        while (page := await server.ask("GET", f"/events/?limit=4&cursor={cursor}")).body:
            *some, last = page.text.splitlines()
            assert len(some) == 4 or last == f"cursor: {ids[-1]}"
            seen += some
            cursor = last.removeprefix("cursor: ")
        assert seen == lines
        legacy = await server.ask("GET", f"/events/?cursor={to_text(ids[3])}")
        assert legacy.text.splitlines()[:-1] == lines[4:]


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [
        ("?limit=0", 200, ""),
        ("?limit=x", 200, None),
        ("?limit=-1", 200, None),
        ("?limit=70000", 200, None),
        ("?cursor=", 200, None),
        ("?cursor=0", 200, None),
        ("?cursor=pubky://0", 200, None),
        ("?cursor=999999999999999999", 200, ""),
        ("?cursor=18446744073709551615", 200, ""),
        ("?cursor=18446744073709551616", 400, "Invalid cursor"),
        ("?cursor=abc", 400, "Invalid cursor"),
        ("?cursor=-1", 400, "Invalid cursor"),
        ("?cursor=1.5", 400, "Invalid cursor"),
        ("?cursor=0000000000000", 200, None),
        ("?cursor=ZZZZZZZZZZZZZ", 400, "Invalid cursor"),
        ("?cursor=000000000001Z", 400, "Invalid cursor"),
        ("?cursor=1&cursor=0", 200, None),
        ("?reverse=x", 400, "Invalid boolean parameter"),
        ("?shallow=maybe", 400, "Invalid boolean parameter"),
        ("?reverse&shallow", 200, None),
    ],
)
@pytest_twisted.ensureDeferred
async def test_queries_of_the_feed(query: str, status: int, text: str | None) -> None:
    """Bad limits are the default, bad cursors and flags are refused, a cursor beyond the end has nothing after it."""
    async with served() as server:
        user = await server.sign_up()
        event_id = await put(server, user, "/pub/x")
        answer = await server.ask("GET", f"/events/{query}")
        expected = f"PUT pubky://{user.pubky}/pub/x\ncursor: {event_id}" if text is None else text
        assert (answer.status, answer.text) == (status, expected)
        if text == "Invalid boolean parameter":
            assert answer.header("content-type") is None


# --- the stream -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [
        ("", 400, "user parameter is required"),
        ("?user=", 400, "user parameter is required"),
        ("?user={key}&limit=x", 400, "Invalid limit: x"),
        ("?user={key}&limit=0", 400, "limit must be at least 1"),
        ("?user={key}&limit=65536", 400, "Invalid limit: 65536"),
        ("?limit=x&limit=5", 400, "Invalid limit: x"),
        ("?live=true&reverse=1&user=bad", 400, "Cannot use live mode with reverse ordering"),
        ("?user=bad", 400, "Invalid public key: bad"),
        ("?user=pubky{key}", 400, "Invalid public key: pubky{key}"),
        ("?user={key}:abc:d", 400, "Invalid cursor: abc:d"),
        ("?user={key}:", 400, "Invalid cursor: "),
        ("?user={key}:-100", 400, "Invalid cursor: -100"),
        ("?" + "user={key}&" * 51, 400, "Too many users. Maximum allowed: 50"),
        ("?user={key}&path=../x", 400, "Invalid path: /../x"),
        ("?user={key}&path=/", 403, "Reading from directories other than '/pub/' and '/priv/' is forbidden"),
        ("?user={key}&path=/pub", 403, "Reading from directories other than '/pub/' and '/priv/' is forbidden"),
        ("?user={key}&path=/priv/x", 401, "Authentication required to read private storage"),
        ("?user={key}&user={key}&path=/priv/x", 401, "Authentication required to read private storage"),
        ("?user={stranger}", 404, "Not Found"),
        ("?user={key}&user={stranger}", 404, "Not Found"),
        ("?user={stranger}:abc", 404, "Not Found"),
        ("?user={key}:999999999999999999", 200, ""),
        ("?user={key}&path=/pub/none", 200, ""),
    ],
)
@pytest_twisted.ensureDeferred
async def test_queries_of_the_stream(query: str, status: int, text: str) -> None:
    """What is asked for is judged in the protocol's order; every answer stays out of caches."""
    async with served() as server:
        user = await server.sign_up()
        await put(server, user, "/pub/x")
        words = {"{key}": user.pubky, "{stranger}": STRANGER}
        for word, value in words.items():
            query, text = query.replace(word, value), text.replace(word, value)
        answer = await server.ask("GET", f"/events-stream{query}")
        assert (answer.status, answer.text) == (status, text)
        assert answer.header("cache-control") == "no-store"
        assert answer.all("vary")[0] == "pubky-host, Authorization, Cookie"


@pytest_twisted.ensureDeferred
async def test_history() -> None:
    """History comes in order, filtered by paths, backwards, limited, and after each account's own cursor."""
    async with served() as server:
        alice, bob = await server.sign_up(), await server.sign_up()
        frames: list[tuple[User, str, int, str]] = []
        for number in range(120):  # more than a page of the store
            user = bob if number % 4 == 3 else alice
            path = f"/pub/{'my_folder' if number % 2 else 'myfolder'}/{number}"
            event_id = await put(server, user, path, b"%d" % number)
            frames.append((user, path, event_id, frame("PUT", user, path, event_id, b"%d" % number)))
        event_id = await delete(server, alice, "/pub/myfolder/0")
        frames.append((alice, "/pub/myfolder/0", event_id, frame("DEL", alice, "/pub/myfolder/0", event_id)))

        async def stream(query: str) -> str:
            answer = await server.ask("GET", f"/events-stream?{query}")
            assert (answer.status, answer.header("content-type")) == (200, "text/event-stream")
            return answer.text

        both = f"user={alice.pubky}&user={bob.pubky}"
        texts = [text for *_, text in frames]
        assert await stream(both) == "".join(texts)
        assert await stream(f"{both}&reverse=true") == "".join(reversed(texts))
        assert await stream(f"{both}&limit=50") == "".join(texts[:50])
        assert await stream(f"{both}&path=pub/my_folder/") == "".join(t for _, p, _, t in frames if "/my_folder/" in p)
        one = f"{both}&path=/pub/myfolder/0&path=/pub/myfolder/2"
        assert await stream(one) == texts[0] + texts[2] + texts[-1]
        middle = frames[60][2]
        after = "".join(t for u, _, i, t in frames if u is bob or i > middle)
        assert await stream(f"user={alice.pubky}:{middle}&user={bob.pubky}") == after
        before = "".join(t for u, _, i, t in reversed(frames) if u is alice and i < middle)
        assert await stream(f"user={alice.pubky}:{middle}&reverse=1") == before
        assert await stream(f"user={alice.pubky}:{middle}&user={alice.pubky}&limit=1") == texts[0], "the last one wins"


@pytest_twisted.ensureDeferred
async def test_private_history() -> None:
    """Private events go to the owner's cookie alone, and only those that its capabilities cover."""
    async with served() as server:
        user = await server.sign_up()
        scoped = await server.sign_in(Keypair((1).to_bytes(32, "big")), "/priv/app/:r")
        other = await server.sign_up()
        event_id = await put(server, user, "/priv/app/x")
        public = await put(server, user, "/pub/x")
        url = f"/events-stream?user={user.pubky}&path=/priv/app/"
        cookie = {"Cookie": scoped.cookie}
        for headers in (cookie, {"Cookie": user.cookie}, {**cookie, "Authorization": "Basic x"}):
            assert (await server.ask("GET", url, headers)).text == frame("PUT", user, "/priv/app/x", event_id)
        union = await server.ask("GET", f"{url}&path=/pub/", cookie)
        assert union.text == frame("PUT", user, "/priv/app/x", event_id) + frame("PUT", user, "/pub/x", public)
        for headers in ({"Cookie": other.cookie}, {**cookie, "Authorization": "Bearer x"}, {}):
            assert (await server.ask("GET", url, headers)).status == 401
        assert (await server.ask("GET", f"/events-stream?user={user.pubky}&path=/priv/", cookie)).status == 403
        assert (await server.ask("GET", f"{url}&user={other.pubky}", cookie)).status == 401


async def live(server: Served, query: str) -> AsyncIterator[str]:
    """The text of a live stream, as it comes."""
    stream = await server.feed.stream({query: None}, ("/pub/",), live=True)
    try:
        while (batch := await stream.batch(3600)) is not None:
            for event in batch:
                yield event.path
    finally:
        stream.close()


@pytest_twisted.ensureDeferred
async def test_history_goes_over_into_live_without_a_gap_or_a_double() -> None:
    """While writes go on, a stream gets every event once and in order, wherever it began."""
    async with served() as server:
        user, total = await server.sign_up(), 300
        readers: list[list[str]] = []

        async def read() -> list[str]:
            seen: list[str] = []
            async for path in live(server, user.pubky):
                seen.append(path)
                if len(seen) == total:
                    break
            return seen

        reading = []
        for number in range(total):
            if number % 30 == 0:
                reading.append(Deferred.fromCoroutine(read()))
            entry = Entry(f"/pub/{number}", bytes(32), 0, "", 1, body=b"")
            await server.store.put(user.pubky, entry, None, True)
            await turns(number % 3)
            server.clock.advance(0)
        for _ in range(1000):
            server.clock.advance(0.01)
            await deferLater(reactor, 0)
            if all(one.called for one in reading):
                break
        for one in reading:
            readers.append(await one)
        assert readers == [[f"/pub/{number}" for number in range(total)]] * len(reading)


@pytest.mark.parametrize("reverse", [False, True])
@pytest_twisted.ensureDeferred
async def test_history_of_several_accounts_while_they_write(monkeypatch: pytest.MonkeyPatch, reverse: bool) -> None:
    """Events of several accounts come in one order, though the accounts are read one after the other."""
    async with served() as server:
        users = [await server.sign_up() for _ in range(3)]
        entries = server.store
        read = entries.account_events
        written = 0

        async def write() -> None:
            nonlocal written
            if written < 12:
                written += 1
                for user in users:
                    await entries.put(user.pubky, Entry(f"/pub/{written}", bytes(32), 0, "", 1, body=b""), None, True)

        async def account_events(*asked: Any, **more: Any) -> list[Event]:
            await write()
            return await read(*asked, **more)

        await write()
        monkeypatch.setattr(type(entries), "account_events", lambda _, *asked, **more: account_events(*asked, **more))
        stream = await server.feed.stream({user.pubky: None for user in users}, ("/pub/",), reverse=reverse)
        ids: list[int] = []
        while (batch := await stream.batch(1)) is not None:
            ids += [event.id for event in batch]
        assert ids == sorted(set(ids), reverse=reverse)
        assert len(ids) == (3 if reverse else 36)


@pytest_twisted.ensureDeferred
async def test_a_slow_reader_is_cut_off_and_only_it() -> None:
    """Who leaves more than a thousand events lying is cut off and counted; who reads goes on."""
    async with served() as server:
        user = await server.sign_up()
        slow = await server.feed.stream({user.pubky: None}, ("/pub/",), live=True)
        fast = await server.feed.stream({user.pubky: None}, ("/pub/",), live=True)
        for stream in (slow, fast):
            waiting = Deferred.fromCoroutine(stream.batch(1))
            server.clock.advance(1)
            assert await waiting == []
        seen = 0
        for number in range(MAX_QUEUED + 1):
            entry = Entry(f"/pub/{number}", bytes(32), 0, "", 1, body=b"")
            await server.store.put(user.pubky, entry, None, True)
            server.clock.advance(0)
            while number % 100 == 99 and seen <= number:
                seen += len(await fast.batch(1) or [])
        assert seen == MAX_QUEUED
        assert await slow.batch(1) is None
        assert slow.cut_off
        assert len(await fast.batch(1) or []) == 1
        assert 'event_stream_broadcast_lagged_count_total{otel_scope_name="pubky_homeserver"} 1' in (
            server.metrics.render().decode()
        )


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=250),
    st.booleans(),
    st.integers(1, 300),
    st.sets(st.integers(0, 3), min_size=1),
)
def test_history_is_what_a_simple_model_says(
    writes: list[tuple[int, int]], reverse: bool, limit: int, wanted: set[int]
) -> None:
    """Over any accounts, folders, direction and limit, a stream is the filtered, sorted log."""
    clock = Clock()
    store = MemoryStore(clock)
    feed = Feed(store, store, clock)
    log: list[Event] = []

    async def run() -> list[Event]:
        for number in range(3):
            await store.sign_up(Account(str(number), 1), None, None, False)
        for number, (account, folder) in enumerate(writes):
            entry = Entry(f"/pub/{folder}/{number}", bytes(32), 0, "", 1, body=b"")
            log.append(await store.put(str(account), entry, None, True))
        paths = tuple(f"/pub/{folder}/" for folder in sorted(wanted))
        stream = await feed.stream({"0": None, "2": None}, paths, reverse=reverse, limit=limit)
        found: list[Event] = []
        while (batch := await stream.batch(1)) is not None:
            found += batch
        return found

    results: list[list[Event]] = []
    Deferred.fromCoroutine(run()).addCallback(results.append)
    model = [event for event in log if event.pubky != "1" and int(event.path.split("/")[2]) in wanted]
    assert results == [(model[::-1] if reverse else model)[:limit]]


@pytest_twisted.ensureDeferred
async def test_a_store_that_was_away_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hint that comes while the store is still away is not lost: the feed asks again soon, not at the next poll."""
    async with served() as server:
        user = await server.sign_up()
        stream = await server.feed.stream({user.pubky: None}, ("/pub/",), live=True)
        waiting = Deferred.fromCoroutine(stream.batch(20))
        await turns()
        with monkeypatch.context() as away:

            async def events(*_: Any, **__: Any) -> list[Event]:
                raise StoreAway

            away.setattr(type(server.store), "events", events)
            await put(server, user, "/pub/a")
            server.clock.advance(0)
            await turns()
        assert not waiting.called
        server.clock.advance(RETRY)
        assert [event.path for event in await waiting or []] == ["/pub/a"]
        stream.close()


@pytest_twisted.ensureDeferred
async def test_nothing_is_read_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a live stream a write costs no reading; whoever comes then, and comes again, misses nothing."""
    async with served() as server:
        user, read = await server.sign_up(), MemoryStore.events
        reads: list[int] = []

        async def events(store: MemoryStore, after: int, limit: int, private: bool) -> list[Event]:
            reads.append(after)
            return await read(store, after, limit, private)

        monkeypatch.setattr(MemoryStore, "events", events)
        for number in range(3):
            await put(server, user, f"/pub/before/{number}")
            server.clock.advance(0)
            assert not reads
            stream = await server.feed.stream({user.pubky: None}, ("/pub/",), live=True)
            found = [event.path for event in await stream.batch(20) or []]
            waiting = Deferred.fromCoroutine(stream.batch(20))
            await turns()
            await put(server, user, f"/pub/live/{number}")
            server.clock.advance(0)
            found += [event.path for event in await waiting or []]
            assert found[-2:] == [f"/pub/before/{number}", f"/pub/live/{number}"]
            assert reads
            stream.close()
            reads.clear()
