"""What every store does with the conflict shelf: nothing lies there twice, and its bodies are in use while it does."""

from typing import Any

import pytest_twisted
from attrs import evolve
from zope.interface.verify import verifyObject

from pubky_homeserver.core.records import Entry
from pubky_homeserver.core.shelf import Reason, Shelved, id_of
from pubky_homeserver.interfaces import IShelfStore
from tests.contract.copying import BLOBS, NOW, OTHER, PRIMARY
from tests.contract.store import ALICE, BOB, Store, entry


def thing(path: str, kept: Entry | None, seq: int = 7, **other: Any) -> Shelved:
    """Something late."""
    shelved_id = id_of(path, seq, None if kept is None else kept.content_hash)
    return evolve(Shelved(ALICE, shelved_id, Reason.LATE, PRIMARY, path, kept, None, NOW, NOW - 1), **other)


def test_keeps_the_port(store: Store) -> None:
    """The store has every method of the port, with its arguments."""
    verifyObject(IShelfStore, store.shelf)


def test_ids() -> None:
    """Another number, hash or path is another write."""
    said = [("/pub/a", 1, b"\1" * 32), ("/pub/a", 1, b"\2" * 32), ("/pub/a", 1, None), ("/pub/a", 2, None)]
    assert len({id_of(*one) for one in [*said, ("/pub/é", 2, None)]}) == 5


@pytest_twisted.ensureDeferred
async def test_what_lies_there(store: Store) -> None:
    """Everything comes back as it was laid there, in the order of ids, with both bodies or without."""
    large = evolve(entry("/pub/é", b"x" * 3000, seq=300), body=None, blob=BLOBS[1])
    things = [
        thing("/pub/a", entry("/pub/a", b"", seq=1), ours=entry("/pub/a", b"other")),
        thing("/priv/b", None),
        thing("/pub/é", large, ours=evolve(large, blob=BLOBS[2], content_type="a/b"), reason=Reason.REPLACED),
        thing("/pub/c", evolve(entry("/pub/c"), body=None), origin=OTHER),
    ]
    assert await store.shelf.shelves("", 10) == []
    for one in things:
        assert await store.shelf.shelve(one)
        assert not await store.shelf.shelve(evolve(one, shelved=NOW + 1))
        assert await store.shelf.shelved(ALICE, one.id) == one
    things.sort(key=lambda one: one.id)
    assert await store.shelf.shelf(ALICE, "", 100) == things
    assert await store.shelf.shelf(ALICE, things[0].id, 2) == things[1:3]
    assert await store.shelf.shelf(BOB, "", 100) == []
    assert await store.shelf.shelved(BOB, things[0].id) is None
    assert await store.shelf.shelf_used(PRIMARY) == (5 + 256) + 256 + (6000 + 256)
    assert await store.shelf.shelf_used(OTHER) == 5 + 256


@pytest_twisted.ensureDeferred
async def test_disputed_paths(store: Store) -> None:
    """A path is disputed as long as something of it lies there, of any number and hash."""
    things = [thing("/pub/a", None), thing("/pub/a", entry("/pub/a", b"x"), 8), thing("/pub/ab", None)]
    for one in things:
        await store.shelf.shelve(one)
    assert [await store.shelf.is_disputed(ALICE, path) for path in ("/pub/a", "/pub/ab", "/pub/", "/pub/b")] == [
        True, True, False, False,
    ]  # fmt: skip
    assert not await store.shelf.is_disputed(BOB, "/pub/a")
    await store.shelf.drop(ALICE, things[0].id)
    assert await store.shelf.is_disputed(ALICE, "/pub/a")
    await store.shelf.drop(ALICE, things[1].id)
    assert not await store.shelf.is_disputed(ALICE, "/pub/a")


@pytest_twisted.ensureDeferred
async def test_shelves(store: Store) -> None:
    """An account is named as long as something of it lies there."""
    for pubky in (BOB, ALICE):
        await store.shelf.shelve(thing("/pub/a", None, pubky=pubky))
    assert await store.shelf.shelves("", 10) == [ALICE, BOB]
    assert await store.shelf.shelves("", 1) == [ALICE]
    assert await store.shelf.shelves(ALICE, 10) == [BOB]
    await store.shelf.shelve(thing("/pub/b", None))
    assert await store.shelf.things("", 10) == {ALICE: 2, BOB: 1}
    assert await store.shelf.things(ALICE, 10) == {BOB: 1}
    assert await store.shelf.things(BOB, 10) == {}
    await store.shelf.drop(ALICE, thing("/pub/b", None).id)
    assert await store.shelf.drop(ALICE, thing("/pub/a", None).id)
    assert await store.shelf.shelves("", 10) == [BOB]


@pytest_twisted.ensureDeferred
async def test_bodies(store: Store) -> None:
    """The sweep spares the bodies of what lies there; once it is dropped they may go, and no room is counted."""
    kept = evolve(entry("/pub/a"), body=None, blob=BLOBS[1])
    one = thing("/pub/a", kept, ours=evolve(kept, blob=BLOBS[2]))
    assert not await store.shelf.drop(ALICE, one.id)
    await store.shelf.shelve(one)
    assert await store.known_blobs(BLOBS) == {BLOBS[1], BLOBS[2]}
    assert await store.expired_blobs(2**53 - 1, 10) == []
    assert await store.shelf.drop(ALICE, one.id)
    assert not await store.shelf.drop(ALICE, one.id)
    assert await store.shelf.shelf_used(PRIMARY) == 0
    assert await store.shelf.shelf(ALICE, "", 100) == []
    assert sorted(await store.expired_blobs(2**53 - 1, 10)) == BLOBS[1:3]
    await store.forget_blobs(BLOBS)
    assert await store.known_blobs(BLOBS) == set()
