"""How every store reads the list of a log for a copy: in pages, and with the events that happen meanwhile."""

import pytest
import pytest_twisted
from attrs import evolve

from pubky_homeserver.core.copies import CopiedLog, Position
from pubky_homeserver.core.errors import (
    NotFound,
)
from pubky_homeserver.core.records import Entry, Event
from tests.contract.copying import (
    BLOBS,
    END,
    LOG_ID,
    NOW,
    PRIMARY,
    bare,
    begin_whole,
    copy_of,
    deletion,
    digest_of,
    event_of,
    listing,
    standing,
    state_of,
)
from tests.contract.store import ALICE, BOB, Store, entry


@pytest_twisted.ensureDeferred
async def test_a_list_in_pages(store: Store) -> None:
    """Pages without bodies, then whole where the digest is the primary's; the state in between can be gone on from."""
    files = [bare(f"/pub/{name}", name.encode() * 3, seq=number + 1) for number, name in enumerate("abcdef")]
    await store.copies.begin(ALICE, PRIMARY, NOW)
    start = standing(6, 60, digest_of(*files))
    await store.copies.begin_list(ALICE, False, start)
    assert (await copy_of(store)).public == CopiedLog(start.position, start.reigns, start.position)
    await store.copies.keep_listed(ALICE, False, files[:4], files[3].path)
    found = await copy_of(store)
    assert (found.public.listed, found.public.is_whole) == ("/pub/d", False)
    assert (found.used, found.missing) == (4 * (3 + 256), 4)
    assert not await store.copies.end_list(ALICE, False, start)
    await store.copies.keep_listed(ALICE, False, files[4:], files[5].path)
    await store.copies.keep_listed(ALICE, False, (), END)
    for other in (standing(5, 60, start.position.digest), standing(6, 61, start.position.digest), standing(6, 60)):
        assert not await store.copies.end_list(ALICE, False, other)
    assert not (await copy_of(store)).public.is_whole
    for _ in range(2):
        assert await store.copies.end_list(ALICE, False, start)
        assert (await copy_of(store)).public == CopiedLog(start.position, start.reigns, is_whole=True)
    assert await store.copies.missing(ALICE, "", 500) == files
    assert await store.copies.missing(ALICE, "/pub/b", 2) == files[2:4]


@pytest_twisted.ensureDeferred
async def test_a_list_repairs(store: Store) -> None:
    """What differs is replaced, what the primary does not have goes, what has the same bytes keeps its body."""
    await begin_whole(store, private=True)
    hidden = entry("/priv/z", seq=1)
    await store.copies.apply(ALICE, True, event_of(hidden, 5, digest_of(hidden)), hidden)
    await begin_whole(store)
    ours = [
        evolve(bare("/pub/a", seq=1), blob=BLOBS[1]),
        evolve(bare("/pub/b", seq=2), blob=BLOBS[2]),
        evolve(bare("/pub/c", seq=3), blob=BLOBS[3]),
        entry("/pub/d", seq=4),
        evolve(bare("/pub/e", seq=5), blob=BLOBS[4]),
        evolve(bare("/pub/g", seq=6), blob=BLOBS[5]),
    ]
    for number, one in enumerate(ours):
        assert await store.copies.apply(ALICE, False, event_of(one, 10 + number, digest_of(*ours[: number + 1])), one)
    theirs = [
        bare("/pub/a", seq=1),
        bare("/pub/aa", seq=9),
        bare("/pub/c", b"other", seq=8),
        bare("/pub/d", seq=7, modified=NOW),
        bare("/pub/f", b"", seq=6),
        bare("/pub/g", seq=5, content_type="a/b"),
    ]
    start = standing(9, 8, digest_of(*theirs))
    await store.copies.begin_list(ALICE, False, start)
    assert [event.path for event in await store.account_events(ALICE, None, 10, False, True, True)] == ["/priv/z"]
    assert await listing(store) == [one.path for one in ours]
    await store.copies.keep_listed(ALICE, False, theirs[:2], "/pub/aa")
    assert await listing(store) == ["/pub/a", "/pub/aa", "/pub/b", "/pub/c", "/pub/d", "/pub/e", "/pub/g"]
    await store.copies.keep_listed(ALICE, False, theirs[2:4], "/pub/d")
    assert await listing(store) == ["/pub/a", "/pub/aa", "/pub/c", "/pub/d", "/pub/e", "/pub/g"]
    await store.copies.keep_listed(ALICE, False, theirs[4:], END)
    kept = [await store.entry(ALICE, one.path) for one in theirs]
    assert kept == [
        ours[0],
        theirs[1],
        theirs[2],
        evolve(theirs[3], body=b"hello"),
        theirs[4],
        evolve(theirs[5], blob=BLOBS[5]),
    ]
    assert await listing(store, "/priv/") == ["/priv/z"]
    assert await store.entry(ALICE, "/priv/z") == hidden
    found = await copy_of(store)
    assert (found.used, found.missing) == (sum(one.length + 256 for one in [*theirs, hidden]), 3)
    assert sorted(await store.expired_blobs(2**53 - 1, 10)) == BLOBS[2:5]
    assert await store.copies.end_list(ALICE, False, start)
    assert (await copy_of(store)).private.is_whole


@pytest_twisted.ensureDeferred
async def test_old_pages_and_pages_of_other_logs(store: Store) -> None:
    """What lies before the page that was kept last is skipped, without a list nothing is kept, disorder is an error."""
    await begin_whole(store)
    before = await state_of(store)
    await store.copies.keep_listed(ALICE, False, [bare("/pub/a")], END)
    assert await state_of(store) == before
    await store.copies.begin_list(ALICE, False, standing())
    await store.copies.keep_listed(ALICE, False, [bare("/pub/b"), bare("/pub/m")], "/pub/m")
    before = await state_of(store)
    await store.copies.keep_listed(ALICE, False, [bare("/pub/a"), bare("/pub/b", b"other")], "/pub/b")
    await store.copies.keep_listed(ALICE, False, (), "")
    await store.copies.keep_listed(ALICE, False, (), "/pub/m")
    assert await state_of(store) == before
    for page in ([bare("/priv/x")], [bare("/pub/z"), bare("/pub/y")], [bare("/pub/z"), bare("/pub/z")]):
        with pytest.raises(ValueError, match=r"log$|order$"):
            await store.copies.keep_listed(ALICE, False, page, END)
    assert await state_of(store) == before
    with pytest.raises(NotFound):
        await store.copies.keep_listed(BOB, False, [], END)


@pytest_twisted.ensureDeferred
async def test_events_while_the_list_is_read(store: Store) -> None:
    """Events are noted and counted on, and move files only where the list has been and is older."""
    await store.copies.begin(ALICE, PRIMARY, NOW)
    await store.copies.begin_list(ALICE, False, standing(10, 100, b"\7" * 16))
    listed = [bare("/pub/a", seq=4), bare("/pub/b", seq=14), bare("/pub/c", seq=3)]
    await store.copies.keep_listed(ALICE, False, listed, "/pub/c")
    new = {path: entry(path, b"new") for path in ("/pub/a", "/pub/b", "/pub/bb", "/pub/é")}
    steps: list[tuple[Event, Entry | None]] = [
        (event_of(evolve(new["/pub/a"], seq=11), 111, b"\1" * 16), new["/pub/a"]),
        (event_of(evolve(new["/pub/b"], seq=12), 112, b"\2" * 16), new["/pub/b"]),
        (deletion("/pub/b", 13, 113, b"\3" * 16), None),
        (event_of(evolve(listed[1]), 114, b"\4" * 16), entry("/pub/b")),
        (deletion("/pub/c", 15, 115, b"\5" * 16), None),
        (event_of(evolve(new["/pub/bb"], seq=16), 116, b"\6" * 16), new["/pub/bb"]),
        (event_of(evolve(new["/pub/é"], seq=17), 117, b"\7" * 16), new["/pub/é"]),
    ]
    for event, brought in steps:
        assert await store.copies.apply(ALICE, False, event, brought)
        assert (await copy_of(store)).public.position == Position(LOG_ID, event.seq, event.id, event.digest)
        assert not await store.copies.apply(ALICE, False, event, brought)
        if event.seq < listed[1].seq:
            assert await store.entry(ALICE, "/pub/b") == listed[1], "it is newer than the event"
    assert [await store.entry(ALICE, path) for path in await listing(store)] == [
        evolve(new["/pub/a"], seq=11),
        entry("/pub/b", seq=14),
        evolve(new["/pub/bb"], seq=16),
    ]
    assert await store.account_events(ALICE, None, 10, False, True, False) == [event for event, _ in steps]
    late = bare("/pub/é", b"newer", seq=18)
    await store.copies.keep_listed(ALICE, False, [late], END)
    kept = [new["/pub/a"], listed[1], new["/pub/bb"], late]
    assert not await store.copies.end_list(ALICE, False, standing(18, 118, digest_of(*kept)))
    assert await store.copies.apply(ALICE, False, event_of(late, 118, digest_of(*kept)), None)
    assert await store.copies.end_list(ALICE, False, standing(18, 118, digest_of(*kept)))


@pytest_twisted.ensureDeferred
async def test_pages_of_any_size(store: Store) -> None:
    """A page may be longer than one step, and stand for more files of ours than one step removes."""
    await store.copies.begin(ALICE, PRIMARY, NOW)
    names = [f"/pub/{number:05}" for number in range(2600)]
    files = [bare(name, b"x", seq=number + 1) for number, name in enumerate(names)]
    start = standing(2600, 1, digest_of(*files))
    await store.copies.begin_list(ALICE, False, start)
    await store.copies.keep_listed(ALICE, False, files, END)
    assert await store.copies.end_list(ALICE, False, start)
    assert (await copy_of(store)).missing == 2600
    assert await store.copies.missing(ALICE, names[99], 5000) == files[100:600]
    left = [evolve(files[number], seq=3000 + number) for number in (1, 700, 701, 1501, 2599)]
    start = standing(6000, 2, digest_of(*left))
    await store.copies.begin_list(ALICE, False, start)
    await store.copies.keep_listed(ALICE, False, left[:2], left[1].path)
    assert (await copy_of(store)).missing == 2 + (2600 - 701)
    await store.copies.keep_listed(ALICE, False, left[2:], END)
    assert await store.copies.end_list(ALICE, False, start)
    assert await store.copies.missing(ALICE, "", 500) == left
    found = await copy_of(store)
    assert (found.used, found.missing) == (5 * 257, 5)
