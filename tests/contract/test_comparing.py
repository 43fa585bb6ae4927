"""What every store does when a copy is compared with its primary: what goes is shelved, and a brake is remembered."""

import pytest_twisted
from attrs import evolve

from pubky_homeserver.core.records import Entry
from pubky_homeserver.core.shelf import Reason, Shelved, id_of
from tests.contract.copying import (
    BLOBS,
    END,
    NOW,
    OTHER,
    bare,
    begin_whole,
    copy_of,
    digest_of,
    event_of,
    standing,
    state_of,
)
from tests.contract.store import ALICE, BOB, Store, entry


async def begin_with(store: Store, *ours: Entry) -> None:
    """A whole copy with these files."""
    await begin_whole(store)
    for number, one in enumerate(ours):
        assert await store.copies.apply(ALICE, False, event_of(one, 10 + number, digest_of(*ours[: number + 1])), one)


def replaced(old: Entry, new: Entry | None) -> Shelved:
    """What is shelved of an entry."""
    shelved_id = id_of(old.path, old.seq, old.content_hash)
    return Shelved(ALICE, shelved_id, Reason.REPLACED, OTHER, old.path, old, new, NOW, old.modified)


@pytest_twisted.ensureDeferred
async def test_what_a_comparison_replaces(store: Store) -> None:
    """What has another hash or goes is shelved with its body; what has the same keeps it, and nothing else is there."""
    ours = [
        evolve(bare("/pub/a", seq=1), blob=BLOBS[1]),
        evolve(bare("/pub/b", seq=2), blob=BLOBS[2]),
        evolve(bare("/pub/c", b"c" * 300, seq=3, content_type="a/b"), blob=BLOBS[3]),
        entry("/pub/d", seq=4),
        entry("/pub/é", b"", seq=5),
        bare("/pub/f", seq=6),
    ]
    await begin_with(store, *ours)
    theirs = [bare("/pub/a", seq=9, modified=NOW), bare("/pub/c", b"other", seq=8), bare("/pub/d", b"", seq=7)]
    await store.copies.begin_list(ALICE, False, standing(9, 8, digest_of(*theirs)))
    assert (await copy_of(store)).public.is_compared
    await store.copies.keep_listed(ALICE, False, theirs[:2], "/pub/c", (OTHER, NOW))
    await store.copies.keep_listed(ALICE, False, theirs[2:], END, (OTHER, NOW))
    expected = [
        replaced(ours[1], None),
        replaced(ours[2], theirs[1]),
        replaced(ours[3], theirs[2]),
        replaced(ours[4], None),
    ]
    assert await store.shelf.shelf(ALICE, "", 100) == sorted(expected, key=lambda one: one.id)
    assert await store.shelf.shelf_used(OTHER) == sum(one.bytes for one in expected)
    assert await store.known_blobs(BLOBS) == {BLOBS[1], BLOBS[2], BLOBS[3]}
    assert await store.expired_blobs(2**53 - 1, 10) == []
    assert await store.copies.end_list(ALICE, False, standing(9, 8, digest_of(*theirs)))
    assert not (await copy_of(store)).public.is_compared
    assert (await store.entry(ALICE, "/pub/a")) == evolve(theirs[0], blob=BLOBS[1])
    assert await store.shelf.drop(ALICE, expected[1].id)
    assert await store.expired_blobs(2**53 - 1, 10) == [BLOBS[3]]


@pytest_twisted.ensureDeferred
async def test_what_lies_on_the_shelf_already(store: Store) -> None:
    """The same write is not shelved twice: the second body gets its grace."""
    old = evolve(bare("/pub/a", seq=1), blob=BLOBS[1])
    await begin_with(store, old)
    there = replaced(evolve(old, blob=BLOBS[2]), None)
    assert await store.shelf.shelve(there)
    await store.copies.begin_list(ALICE, False, standing())
    await store.copies.keep_listed(ALICE, False, [], END, (OTHER, NOW))
    assert await store.shelf.shelf(ALICE, "", 100) == [there]
    assert await store.expired_blobs(2**53 - 1, 10) == [BLOBS[1]]


@pytest_twisted.ensureDeferred
async def test_without_a_shelf(store: Store) -> None:
    """A first list shelves nothing, and is no comparison."""
    await store.copies.begin(ALICE, OTHER, NOW)
    for _ in range(2):
        await store.copies.begin_list(ALICE, False, standing())
        assert not (await copy_of(store)).public.is_compared
        await store.copies.keep_listed(ALICE, False, [bare("/pub/a")], END)
        assert await store.copies.fill(ALICE, entry("/pub/a"))
    await store.copies.begin_list(ALICE, False, standing())
    await store.copies.keep_listed(ALICE, False, [], END)
    assert await store.shelf.shelves("", 10) == []


@pytest_twisted.ensureDeferred
async def test_own(store: Store) -> None:
    """What is here of one log, in order, without bodies."""
    await begin_whole(store, private=True)
    hidden = entry("/priv/z", seq=1)
    await store.copies.apply(ALICE, True, event_of(hidden, 5, digest_of(hidden)), hidden)
    ours = [entry("/pub/a", seq=1), evolve(bare("/pub/b", seq=2), blob=BLOBS[2]), bare("/pub/c", seq=3)]
    await begin_with(store, *ours)
    listed = [evolve(one, body=None, blob=None) for one in ours]
    assert await store.copies.own(ALICE, False, "", 500) == listed
    assert await store.copies.own(ALICE, False, "/pub/a", 1) == listed[1:2]
    assert await store.copies.own(ALICE, True, "", 500) == [evolve(hidden, body=None)]
    assert await store.copies.own(BOB, False, "", 500) == []


@pytest_twisted.ensureDeferred
async def test_a_brake(store: Store) -> None:
    """What waits for the operator is remembered, then what they permitted; both end with the next list."""
    await store.copies.brake(ALICE, 5)
    assert await store.copies.permit(ALICE) == 0
    assert await store.copies.copy(ALICE) is None
    await begin_whole(store)
    before = await state_of(store)
    assert await store.copies.permit(ALICE) == 0
    await store.copies.brake(ALICE, 5)
    await store.copies.brake(ALICE, 7)
    assert ((await copy_of(store)).braked, (await copy_of(store)).permitted) == (7, 0)
    assert await store.copies.permit(ALICE) == 7
    assert await store.copies.permit(ALICE) == 0
    assert ((await copy_of(store)).braked, (await copy_of(store)).permitted) == (0, 7)
    await store.copies.brake(ALICE, 0)
    assert await state_of(store) == before
    for permitted in (False, True):
        await store.copies.brake(ALICE, 3)
        if permitted:
            await store.copies.permit(ALICE)
        await store.copies.begin_list(ALICE, False, standing())
        assert ((await copy_of(store)).braked, (await copy_of(store)).permitted) == (0, 0)
