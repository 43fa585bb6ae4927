"""What every entry store tells of its writes: events, cursors, wake-ups, and which blobs are in use."""

from itertools import pairwise

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from pubky_homeserver.core.errors import NotFound
from pubky_homeserver.core.records import Entry, Event, Operation
from tests.contract.store import ALICE, BOB, Store, entry, put, put_all, sign_up

FAR = 2**53 - 1
"""A time after the end of every grace, and an id above all."""


async def history(store: Store) -> list[Event]:
    """Writes of two accounts in both logs, as their answers told them."""
    await sign_up(store, ALICE)
    await sign_up(store, BOB)
    return [
        await put(store, ALICE, "/pub/a"),
        await put(store, ALICE, "/pub/b", b"", content_type="x/y z"),
        await put(store, BOB, "/priv/a"),
        await put(store, ALICE, "/priv/ü"),
        await store.delete(ALICE, "/pub/a"),
        await put(store, BOB, "/pub/a"),
        await put(store, ALICE, "/pub/a", b"again"),
        await store.delete(ALICE, "/priv/ü"),
        await put(store, BOB, "/pub/a"),
    ]


def public(events: list[Event]) -> list[Event]:
    """Those of public paths."""
    return [event for event in events if event.path.startswith("/pub/")]


def ids(events: list[Event]) -> list[int]:
    """Their ids."""
    return [event.id for event in events]


@pytest_twisted.ensureDeferred
async def test_an_event_tells_the_write(store: Store) -> None:
    """An event read later is the one that the write answered, whole."""
    await sign_up(store, ALICE)
    kept = entry("/pub/Ü b", b"12345", content_type="image/x-odd", modified=7)
    written = await store.put(ALICE, kept, None, announced=True)
    removed = await store.delete(ALICE, "/pub/Ü b")
    assert (written.operation, written.pubky, written.path, written.seq) == (Operation.PUT, ALICE, "/pub/Ü b", 1)
    assert (written.content_hash, written.length) == (kept.content_hash, 5)
    assert (written.content_type, written.modified) == ("image/x-odd", 7)
    assert (removed.operation, removed.content_hash, removed.length) == (Operation.DEL, None, 0)
    assert await store.events(0, 10, False) == [written, removed]
    assert await store.account_events(ALICE, None, 10, False, True, False) == [written, removed]


@pytest_twisted.ensureDeferred
async def test_ids_ascend_and_numbers_are_dense(store: Store) -> None:
    """Ids strictly increase over all accounts; in each log of each account the numbers are 1, 2, 3 …"""
    events = await history(store)
    assert all(one.id < other.id < FAR for one, other in pairwise(events))
    for pubky in (ALICE, BOB):
        for private in (False, True):
            log = [event for event in events if event.pubky == pubky and (event.path.startswith("/priv/")) == private]
            assert [event.seq for event in log] == list(range(1, len(log) + 1))
            state = await store.log_state(pubky, private)
            assert state is not None
            assert (state.seq, state.event_id, state.digest) == (len(log), log[-1].id, log[-1].digest)
    assert await store.last_event_id() == events[-1].id


@pytest_twisted.ensureDeferred
async def test_the_feed_of_all_accounts(store: Store) -> None:
    """Events after any cursor, ascending, up to a limit; private ones only for who asks for them."""
    assert await store.events(0, 10, True) == []
    events = await history(store)
    for cursor in (0, 1, *ids(events), *(event.id - 1 for event in events), FAR):
        after = [event for event in events if event.id > cursor]
        for limit in (0, 1, 2, 3, 1000):
            assert await store.events(cursor, limit, True) == after[:limit]
            assert await store.events(cursor, limit, False) == public(after)[:limit]


@pytest_twisted.ensureDeferred
async def test_the_events_of_one_account(store: Store) -> None:
    """Those of the asked logs beyond a cursor in either direction; without one, from the end where reading starts."""
    events = await history(store)
    for pubky in (ALICE, BOB, "c" * 52):
        own = [event for event in events if event.pubky == pubky]
        for cursor in (None, 0, *ids(events), *(event.id + 1 for event in events), FAR):
            for limit in (0, 1, 3, 1000):
                for pub, priv in ((True, False), (False, True), (True, True), (False, False)):
                    wanted = [event for event in own if (pub if event.path.startswith("/pub/") else priv)]
                    ascending = [event for event in wanted if cursor is None or event.id > cursor]
                    descending = [event for event in reversed(wanted) if cursor is None or event.id < cursor]
                    assert await store.account_events(pubky, cursor, limit, False, pub, priv) == ascending[:limit]
                    assert await store.account_events(pubky, cursor, limit, True, pub, priv) == descending[:limit]


@pytest_twisted.ensureDeferred
async def test_long_pages(store: Store) -> None:
    """A page has up to 1000 events, of both logs in one order, and the next one goes on after its last."""
    accounts = [character * 52 for character in "abc"]
    for pubky in accounts:
        await sign_up(store, pubky)
    writes = [(accounts[n * n % 3], "/priv/x" if n % 5 == 0 else "/pub/x") for n in range(1105)]
    events = await put_all(store, ((pubky, path, b"%d" % n) for n, (pubky, path) in enumerate(writes)))

    page = await store.events(0, 5000, True)
    assert page == events[:1000]
    assert await store.events(page[-1].id, 5000, True) == events[1000:]
    assert await store.events(0, 501, False) == public(events)[:501]
    own = [event for event in events if event.pubky == accounts[1]]
    assert await store.account_events(accounts[1], None, 5000, False, True, True) == own[:1000]
    assert await store.account_events(accounts[1], None, 600, True, True, True) == own[::-1][:600]
    assert await store.account_events(accounts[1], own[9].id, 501, False, True, True) == own[10:511]


@pytest_twisted.ensureDeferred
async def test_ids_of_events(store: Store) -> None:
    """An id is known if an event has exactly it, whoever's it is."""
    assert await store.last_event_id() == 0
    assert await store.has_event(0) is False
    events = await history(store)
    known = set(ids(events))
    for number in known | {number + 1 for number in known} | {0, 1, FAR}:
        assert await store.has_event(number) is (number in known)


@pytest_twisted.ensureDeferred
async def test_what_fails_tells_nothing(store: Store) -> None:
    """A delete of nothing is no event."""
    await sign_up(store, ALICE)
    with pytest.raises(NotFound):
        await store.delete(ALICE, "/pub/a")
    assert await store.events(0, 10, True) == []
    assert await store.last_event_id() == 0


@pytest_twisted.ensureDeferred
async def test_subscribers_are_woken(store: Store) -> None:
    """Soon after a write every subscriber is woken, when the event can be read; who left is not."""
    await sign_up(store, ALICE)
    left: list[str] = []
    leave = store.subscribe(lambda: left.append("woken"))
    leave()
    leave()
    for path in ("/pub/a", "/priv/a"):
        woken: Deferred[None] = Deferred()
        also_woken: Deferred[None] = Deferred()
        before = await store.last_event_id()

        def once(waiting: Deferred[None], before: int = before) -> None:
            if not waiting.called:
                waiting.callback(None)

        leaves = [store.subscribe(lambda w=waiting: once(w)) for waiting in (woken, also_woken)]  # type: ignore[misc]
        event = await put(store, ALICE, path)
        await woken
        await also_woken
        assert await store.last_event_id() == event.id > before
        for leave in leaves:
            leave()
    assert left == []


def blob(path: str, number: int) -> Entry:
    """An entry whose body is a blob."""
    return Entry(path, bytes(32), 5000, "image/png", 1, blob=f"{number:02x}" * 16)


async def known(store: Store, *numbers: int) -> set[int]:
    """Which of these blobs something refers to."""
    return {int(one[:2], 16) for one in await store.known_blobs(f"{number:02x}" * 16 for number in numbers)}


@pytest_twisted.ensureDeferred
async def test_blobs_in_use_are_known(store: Store) -> None:
    """A blob is known while an entry refers to it, and on while its grace lasts; other names never are."""
    await sign_up(store, ALICE)
    assert await known(store, 1) == set()
    await store.put(ALICE, blob("/pub/a", 1), None, announced=True)
    await store.put(ALICE, blob("/pub/b", 2), None, announced=True)
    assert await known(store, 1, 2, 3) == {1, 2}
    assert await store.known_blobs(["", "x", "01" * 15, "01" * 16 + "\n", ("ab" * 16).upper(), "tmp"]) == set()
    assert await store.known_blobs([]) == set()
    assert await store.expired_blobs(FAR, 10) == []

    await store.put(ALICE, blob("/pub/a", 3), None, announced=True)
    await store.delete(ALICE, "/pub/b")
    assert await known(store, 1, 2, 3) == {1, 2, 3}
    assert sorted(await store.expired_blobs(FAR, 10)) == ["01" * 16, "02" * 16]


@pytest_twisted.ensureDeferred
async def test_the_grace_of_a_blob(store: Store) -> None:
    """A replaced blob is expired an hour after, not before; it is forgotten when asked for, a live one never."""
    await sign_up(store, ALICE)
    await store.put(ALICE, blob("/pub/a", 1), None, announced=True)
    replaced = await store.put(ALICE, entry("/pub/a"), None, announced=True)
    hour, slack = 3600 * 1_000_000, 60 * 1_000_000
    assert await store.expired_blobs(replaced.id + hour - slack, 10) == []
    assert await store.expired_blobs(replaced.id + hour + slack, 10) == ["01" * 16]

    await store.put(ALICE, blob("/pub/a", 2), None, announced=True)
    await store.forget_blobs(["01" * 16, "02" * 16, "03" * 16, "no blob"])
    assert await known(store, 1, 2) == {2}
    assert await store.expired_blobs(FAR, 10) == []
    await store.forget_blobs([])


@pytest_twisted.ensureDeferred
async def test_expired_blobs_come_in_pages(store: Store) -> None:
    """So many blobs as are asked for; forgetting them gives the next ones."""
    await sign_up(store, ALICE)
    for number in range(20):
        await store.put(ALICE, blob("/pub/a", number), None, announced=True)
    seen: list[str] = []
    while page := await store.expired_blobs(FAR, 7):
        assert len(page) <= 7
        seen += page
        await store.forget_blobs(page)
    assert sorted(seen) == [f"{number:02x}" * 16 for number in range(19)]
    assert await known(store, *range(20)) == {19}
