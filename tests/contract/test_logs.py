"""What every store tells homeservers that follow its accounts: where a log stands, its events, its files."""

import pytest_twisted
from attrs import evolve
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from pubky_homeserver.core.copies import Change, Known, LoggedEvent, LogStanding, Position, Reign
from pubky_homeserver.core.digests import EMPTY
from pubky_homeserver.core.records import Account, Entry, Event
from pubky_homeserver.interfaces import ILogStore
from pubky_homeserver.store.logs import MOST_KNOWN
from tests.contract.store import ALICE, BOB, Store, entry, put, put_all, sign_up

NOBODY = "c" * 52


async def standing(store: Store, pubky: str = ALICE, private: bool = False) -> LogStanding:
    """Where a log stands."""
    found = await store.logs.standing(pubky, private)
    assert found is not None
    return found


def test_keeps_the_port(store: Store) -> None:
    """The store has every method of the port, with its arguments."""
    verifyObject(ILogStore, store.logs)


@pytest_twisted.ensureDeferred
async def test_a_log_begins_empty(store: Store) -> None:
    """A new account has two logs at their beginning, each with one reign of its own."""
    await sign_up(store, ALICE)
    public, private = await standing(store), await standing(store, private=True)
    for one in (public, private):
        position = one.position
        assert (position.seq, position.event_id, position.digest, one.floor, one.used) == (0, 0, EMPTY, 0, 0)
        assert one.reigns == (Reign(position.log_id, 1),)
        assert len(bytes.fromhex(position.log_id)) == 16
    assert public.position.log_id != private.position.log_id


@pytest_twisted.ensureDeferred
async def test_what_changed(store: Store) -> None:
    """Each log with new events is named once in a page, with the newest event there, and its newest of all."""
    for pubky in (ALICE, BOB):
        await sign_up(store, pubky)
    assert await store.logs.changed(0, 10, True) == ([], None)
    events = [
        await put(store, *one) for one in ((ALICE, "/pub/a"), (BOB, "/pub/a"), (ALICE, "/priv/a"), (ALICE, "/pub/b"))
    ]
    ids = [event.id for event in events]
    alice, bob, private = Change(ALICE, False, ids[3], 2), Change(BOB, False, ids[1], 1), Change(ALICE, True, ids[2], 1)
    found, further = await store.logs.changed(0, 10, True)
    assert ({*found}, further) == ({alice, bob, private}, None)
    found, further = await store.logs.changed(0, 10, False)
    assert ({*found}, further) == ({alice, bob}, None)
    assert await store.logs.changed(ids[1], 2, False) == ([alice], None)
    assert await store.logs.changed(0, 1, True) == ([evolve(alice, event_id=ids[0])], ids[0])
    assert await store.logs.changed(ids[0], 1, True) == ([bob], ids[1])
    assert await store.logs.changed(ids[3], 10, True) == ([], None)
    await store.packets.keep_packet(BOB, bytes(64) + (2**53).to_bytes(8, "big"), NOBODY)
    assert await store.logs.changed(ids[0], 1, True) == ([evolve(bob, seq=None)], ids[1])


@pytest_twisted.ensureDeferred
async def test_what_an_answer_needs(store: Store) -> None:
    """Packet, standing, and the events from a position on, unless the log stands there."""
    begin = Position("", 0, 0, EMPTY)
    assert await store.logs.known(ALICE, False, begin, 10) == Known(None, None)
    await sign_up(store, ALICE)
    assert await store.logs.known(ALICE, False, begin, 10) == Known(None, await standing(store))
    events = [await put(store, ALICE, f"/pub/{name}") for name in "abba"]
    await put(store, ALICE, "/priv/a")
    packet = bytes(64) + (2**53).to_bytes(8, "big")
    await store.packets.keep_packet(ALICE, packet)
    now = await standing(store)
    known = await store.logs.known(ALICE, False, begin, 10)
    assert (known.packet, known.standing, [one.event for one in known.events]) == (packet, now, events)
    assert [one.body is None for one in known.events] == [True, True, False, False]
    assert known.standing is not None
    assert not known.standing.is_copy
    middle = Position("", 2, events[1].id, EMPTY)
    assert (await store.logs.known(ALICE, False, middle, 10)).events == known.events[1:]
    assert (await store.logs.known(ALICE, False, middle, 2)).events == known.events[1:3]
    assert (await store.logs.known(ALICE, False, evolve(now.position, log_id=""), 10)).events == ()
    assert len((await store.logs.known(ALICE, True, begin, 10)).events) == 1
    away = bytes(64) + (2**53 + 1).to_bytes(8, "big")
    await store.packets.keep_packet(ALICE, away, NOBODY)
    gone = await store.logs.known(ALICE, False, middle, 10)
    assert (gone.packet, gone.standing, gone.events) == (away, now, known.events[1:])
    assert gone.standing is not None
    assert gone.standing.is_copy


@pytest_twisted.ensureDeferred
async def test_a_page_of_what_an_answer_needs(store: Store) -> None:
    """It is bounded, whatever is asked for."""
    await sign_up(store, ALICE)
    for number in range(MOST_KNOWN + 2):
        await put(store, ALICE, f"/pub/{number}")
    known = await store.logs.known(ALICE, False, Position("", 0, 0, EMPTY), 1000)
    assert [one.event.seq for one in known.events] == [*range(1, MOST_KNOWN + 1)]


@pytest_twisted.ensureDeferred
async def test_who_opened(store: Store) -> None:
    """Sign-ups and moves are told in their order, the last time of each account counts, and those who wait wake up."""
    assert await store.logs.opened(None) == ([], 0)
    woken: Deferred[None] = Deferred()
    stop = store.subscribe(lambda: None if woken.called else woken.callback(None))
    for pubky in (ALICE, BOB):
        await sign_up(store, pubky)
    await woken
    stop()
    found, first = await store.logs.opened(0)
    assert (found, first) == ([ALICE, BOB], 2)
    assert await store.logs.opened(None) == ([], first)
    assert await store.logs.opened(1) == ([BOB], first)
    assert await store.logs.opened(first) == ([], first)
    away, back = (bytes(64) + number.to_bytes(8, "big") for number in (2**53, 2**53 + 1))
    await store.packets.keep_packet(ALICE, away, NOBODY)
    await store.copies.begin(NOBODY, BOB, 1)  # a claim is no opening
    await store.sign_up(Account(NOBODY, 1), None, None, False, may_claim=True)
    assert await store.logs.opened(first) == ([], first)
    await store.packets.keep_packet(ALICE, back)
    assert await store.moves.open(ALICE, back, 1)
    assert await store.logs.opened(0) == ([BOB, ALICE], first + 1)
    for number in range(1000):
        await sign_up(store, f"{number:052}")
    found, last = await store.logs.opened(0)
    assert (len(found), found[-1], last) == (1000, f"{999:052}", first + 1001)


@pytest_twisted.ensureDeferred
async def test_a_standing_is_that_of_the_last_event(store: Store) -> None:
    """Each log stands where its own last event left it; bytes are those of the whole account."""
    await sign_up(store, ALICE)
    first = await put(store, ALICE, "/pub/a", b"12345")
    hidden = await put(store, ALICE, "/priv/a", b"1")
    second = await store.delete(ALICE, "/pub/a")
    for private, last in ((False, second), (True, hidden)):
        found = await standing(store, private=private)
        assert (found.position.seq, found.position.event_id, found.position.digest) == (last.seq, last.id, last.digest)
        assert found.used == 256 + 1
    assert second.digest == EMPTY != first.digest


@pytest_twisted.ensureDeferred
async def test_standings_of_all_accounts(store: Store) -> None:
    """Pages of accounts in the order of sign-up, each with what `standing` says of its two logs."""
    pubkys = [f"{(7 * number) % 5}" * 52 for number in range(5)]
    for number, pubky in enumerate(pubkys):
        await sign_up(store, pubky)
        await put_all(store, [(pubky, f"/pub/{one}", b"x") for one in range(number)])
        await put(store, pubky, "/priv/a")
    found, place, pages = [], 0, 0
    while True:
        page, following = await store.logs.standings(place, 2)
        found += page
        pages += 1
        if following is None:
            break
        place = following
    assert pages == 3
    assert found == [(pubky, await standing(store, pubky), await standing(store, pubky, True)) for pubky in pubkys]
    assert [public.position.seq for _, public, _ in found] == [0, 1, 2, 3, 4]
    assert await store.logs.standings(5, 2) == ([], None)


@pytest_twisted.ensureDeferred
async def test_who_is_not_here_has_no_log(store: Store) -> None:
    """Without an account there is no standing, no list and no event; and nothing of another's."""
    await sign_up(store, ALICE)
    event = await put(store, ALICE, "/pub/a")
    for private in (False, True):
        assert await store.logs.standing(NOBODY, private) is None
        assert await store.logs.listed(NOBODY, private, "", 10) is None
        assert await store.logs.event(NOBODY, private, event.id) is None
        assert await store.logs.event_numbered(NOBODY, private, event.seq) is None
        assert await store.logs.logged(NOBODY, private, 0, 10) == []


# --- events -------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_an_event_by_its_id_and_by_its_number(store: Store) -> None:
    """Each event of a log is found by either; ids of the other log, and ids and numbers between and beyond, are not."""
    await sign_up(store, ALICE)
    await sign_up(store, BOB)
    logs: dict[bool, list[Event]] = {False: [], True: []}
    for number in range(70):
        private = number % 3 == 0
        logs[private].append(await put(store, ALICE, f"/{'priv' if private else 'pub'}/{number % 20}"))
        if number % 7 == 0:
            logs[private].append(await store.delete(ALICE, logs[private][-1].path))
        await put(store, BOB, "/pub/a")
    for private, events in logs.items():
        for event in events:
            assert await store.logs.event(ALICE, private, event.id) == event
            assert await store.logs.event_numbered(ALICE, private, event.seq) == event
            assert await store.logs.event(ALICE, not private, event.id) is None
            assert await store.logs.event(ALICE, private, event.id + 1) in (None, *events)
        for seq in (-1, 0, len(events) + 1, 2**53 - 1):
            assert await store.logs.event_numbered(ALICE, private, seq) is None
        for event_id in (0, events[0].id - 1, events[-1].id + 1, 2**53 - 1):
            assert await store.logs.event(ALICE, private, event_id) is None


@pytest_twisted.ensureDeferred
async def test_events_bring_the_bodies_that_are_still_there(store: Store) -> None:
    """A small body comes with the event that wrote it, as long as the path holds that write; an empty body is one."""
    await sign_up(store, ALICE)
    large = evolve(entry("/pub/large", length=10**9), body=None, blob="ab" * 16)
    written = [
        (await put(store, ALICE, "/pub/a", b"old"), None),
        (await put(store, ALICE, "/pub/b", b""), b""),
        (await put(store, ALICE, "/pub/a", b"new"), b"new"),
        (await put(store, ALICE, "/pub/same", b"1"), None),
        (await put(store, ALICE, "/pub/same", b"1"), b"1"),
        (await store.put(ALICE, large, None, True), None),
        (await put(store, ALICE, "/pub/gone", b"2"), None),
        (await store.delete(ALICE, "/pub/gone"), None),
        (await put(store, ALICE, "/pub/ü", b"x" * 4096), b"x" * 4096),
    ]
    hidden = await put(store, ALICE, "/priv/a", b"secret")
    expected = [LoggedEvent(event, body) for event, body in written]
    assert await store.logs.logged(ALICE, False, 0, 1000) == expected
    assert await store.logs.logged(ALICE, True, 0, 1000) == [LoggedEvent(hidden, b"secret")]
    for number, (event, _) in enumerate(written):
        assert await store.logs.logged(ALICE, False, event.id, 2) == expected[number + 1 : number + 3]
        assert await store.logs.logged(ALICE, False, event.id - 1, 1) == expected[number : number + 1]
    assert await store.logs.logged(ALICE, False, 0, 0) == []


@pytest_twisted.ensureDeferred
async def test_a_page_of_events_is_bounded(store: Store) -> None:
    """However many are asked for, a page has a thousand; the next one goes on without gap."""
    await sign_up(store, ALICE)
    events = await put_all(store, [(ALICE, f"/pub/{number % 600}", b"%d" % number) for number in range(1200)])
    page = await store.logs.logged(ALICE, False, 0, 5000)
    assert [one.event for one in page] == events[:1000]
    assert [one.body for one in page] == [None] * 600 + [b"%d" % number for number in range(600, 1000)]
    assert [one.event for one in await store.logs.logged(ALICE, False, page[-1].event.id, 5000)] == events[1000:]


# --- files --------------------------------------------------------------------------------------------------------

PATHS = ["/priv/a", "/priv/a/b", "/priv/é", "/pub/a", "/pub/a!", "/pub/a.", "/pub/a/b", "/pub/a0", "/pub/z", "/pub/ü"]


@pytest_twisted.ensureDeferred
async def test_files_of_a_log(store: Store) -> None:
    """The files of a log in byte order, after any text, without bodies; never those of the other log."""
    await sign_up(store, ALICE)
    await sign_up(store, BOB)
    await put(store, BOB, "/pub/b")
    kept: list[Entry] = []
    for number, path in enumerate(reversed([path for path in PATHS if path not in ("/priv/a", "/pub/a")])):
        given = entry(path, b"x" * number)
        if number % 2:
            given = evolve(given, body=None, blob=f"{number:032x}", content_type="x/" + "y" * 200)
        event = await store.put(ALICE, given, None, True)
        kept.append(evolve(given, body=None, blob=None, seq=event.seq))
    kept.sort(key=lambda one: one.path)
    for private in (False, True):
        own = [one for one in kept if one.path.startswith("/priv/") == private]
        where = await standing(store, private=private)
        for after in ("", "/", "/priv", "/priv/", "/priv0", "/pub", "/pub/", "/pub/a", "/pub/a/", *PATHS, "/q", "0"):
            listed = await store.logs.listed(ALICE, private, after, 500)
            assert listed is not None
            assert list(listed.entries) == [one for one in own if one.path > after], after
            assert listed.standing == where
        listed = await store.logs.listed(ALICE, private, "", 2)
        assert listed is not None
        assert list(listed.entries) == own[:2]


@pytest_twisted.ensureDeferred
async def test_pages_of_files(store: Store) -> None:
    """A page has at most 500 files, and stands where the log stood when it was read."""
    await sign_up(store, ALICE)
    await put_all(store, [(ALICE, f"/pub/{number:04}", b"x") for number in range(700)])
    first = await store.logs.listed(ALICE, False, "", 1000)
    assert first is not None
    last = await put(store, ALICE, "/pub/0600", b"y")
    second = await store.logs.listed(ALICE, False, first.entries[-1].path, 1000)
    assert second is not None
    assert [one.path for one in first.entries + second.entries] == [f"/pub/{number:04}" for number in range(700)]
    assert (first.standing.position.seq, second.standing.position.seq) == (700, 701)
    assert second.entries[100] == evolve(entry("/pub/0600", b"y"), body=None, seq=last.seq)
