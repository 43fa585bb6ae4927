"""What every store knows of bodies: an entry can lose its own, and get it back; nothing else of it changes."""

import pytest_twisted
from attrs import evolve
from zope.interface.verify import verifyObject

from pubky_homeserver.core.records import Entry
from pubky_homeserver.interfaces import IIntegrityStore
from tests.contract.copying import BLOBS, NOW, begin_whole, copy_of, digest_of, event_of
from tests.contract.store import ALICE, BOB, Store, entry, put, sign_up


def blobbed(path: str, body: bytes, blob: str, seq: int = 0) -> Entry:
    """An entry whose body is a file."""
    return evolve(entry(path, body, seq=seq), body=None, blob=blob)


async def keep(store: Store, pubky: str, one: Entry) -> Entry:
    """Keep a file; as it is read again."""
    await store.put(pubky, one, None, announced=True)
    found = await store.entry(pubky, one.path)
    assert found is not None
    return found


def test_keeps_the_port(store: Store) -> None:
    """The store has every method of the port, with its arguments."""
    verifyObject(IIntegrityStore, store.integrity)


@pytest_twisted.ensureDeferred
async def test_files_with_their_bodies(store: Store) -> None:
    """All files of an account, private ones first as bytes have it, a page at a time; nobody has none."""
    await sign_up(store, ALICE)
    assert await store.integrity.held(ALICE, "", 500) == []
    files = [
        await keep(store, ALICE, entry("/priv/a", b"1")),
        await keep(store, ALICE, blobbed("/pub/b", b"22", BLOBS[0])),
        await keep(store, ALICE, entry("/pub/b2", b"3")),
        await keep(store, ALICE, entry("/pub/c/d", b"4")),
    ]
    assert await store.integrity.held(ALICE, "", 500) == files
    assert await store.integrity.held(ALICE, "", 2) == files[:2]
    assert await store.integrity.held(ALICE, "/pub/b", 500) == files[2:]
    assert await store.integrity.held(ALICE, "/pub/c/d", 500) == []
    assert await store.integrity.held(BOB, "", 500) == []


@pytest_twisted.ensureDeferred
async def test_a_lost_body(store: Store) -> None:
    """An account's file whose body is lost is there without it: log, digest, size stay; it can be filled again."""
    await sign_up(store, ALICE)
    large = await keep(store, ALICE, blobbed("/pub/large", b"x" * 9, BLOBS[0]))
    small = await keep(store, ALICE, entry("/pub/small", b"abc"))
    before = await store.account(ALICE), await store.logs.standing(ALICE, False)
    assert await store.integrity.lacking(0, 10) == ([], None)
    for one in (large, small):
        assert await store.integrity.lose(ALICE, one)
        assert await store.entry(ALICE, one.path) == evolve(one, body=None, blob=None)
        assert not await store.integrity.lose(ALICE, one), "it is lost already"
    assert (await store.account(ALICE), await store.logs.standing(ALICE, False)) == before
    assert await store.expired_blobs(2**53 - 1, 10) == [BLOBS[0]]
    assert await store.integrity.in_grace(ALICE, large.path, large.content_hash) is None, "it is not what it shall be"
    assert [one.path for one in await store.copies.missing(ALICE, "", 10)] == [large.path, small.path]
    assert await store.integrity.lacking(0, 10) == ([ALICE], None)
    for one in (evolve(large, blob=BLOBS[1]), small):
        assert await store.copies.fill(ALICE, one)
        assert await store.entry(ALICE, one.path) == one
    assert await store.copies.missing(ALICE, "", 10) == []
    assert await store.integrity.lacking(0, 10) == ([], None)
    assert await store.known_blobs(BLOBS[:2]) == set(BLOBS[:2])


@pytest_twisted.ensureDeferred
async def test_what_was_written_since_is_not_lost(store: Store) -> None:
    """Who finds a body wrong that was replaced meanwhile takes nothing away, and nothing of who is unknown."""
    await sign_up(store, ALICE)
    old = await keep(store, ALICE, blobbed("/pub/a", b"x" * 9, BLOBS[0]))
    same = await keep(store, ALICE, blobbed("/pub/a", b"x" * 9, BLOBS[1]))
    assert not await store.integrity.lose(ALICE, old), "the same bytes in another file"
    other = await keep(store, ALICE, blobbed("/pub/a", b"y" * 9, BLOBS[2]))
    assert not await store.integrity.lose(ALICE, same)
    assert await store.entry(ALICE, "/pub/a") == other
    assert not await store.integrity.lose(ALICE, evolve(other, body=None, blob=None))
    assert not await store.integrity.lose(ALICE, evolve(other, path="/pub/b"))
    assert not await store.integrity.lose(BOB, other)
    assert await store.copies.missing(ALICE, "", 10) == []


@pytest_twisted.ensureDeferred
async def test_a_lost_body_that_is_replaced_or_deleted(store: Store) -> None:
    """A file without body can be written and deleted; then nothing is missing any more."""
    await sign_up(store, ALICE)
    for path in ("/pub/a", "/pub/b"):
        assert await store.integrity.lose(ALICE, await keep(store, ALICE, entry(path)))
    await put(store, ALICE, "/pub/a", b"new")
    await store.delete(ALICE, "/pub/b")
    assert await store.copies.missing(ALICE, "", 10) == []
    assert await store.integrity.lacking(0, 10) == ([], None)


@pytest_twisted.ensureDeferred
async def test_a_copy_loses_a_body(store: Store) -> None:
    """A copy counts a lost body among the missing ones, with its bytes, and goes on."""
    await begin_whole(store)
    one = blobbed("/pub/a", b"x" * 9, BLOBS[0], 1)
    assert await store.copies.apply(ALICE, False, event_of(one, 10, digest_of(one)), one)
    assert await store.integrity.held(ALICE, "", 10) == [one]
    before = await copy_of(store)
    assert await store.integrity.lose(ALICE, one)
    assert await copy_of(store) == evolve(before, missing=1, absent=9)
    assert await store.copies.fill(ALICE, evolve(one, blob=BLOBS[1]))
    assert await copy_of(store) == before
    two = entry("/pub/b", seq=2)
    assert await store.copies.apply(ALICE, False, event_of(two, 20, digest_of(one, two)), two)


@pytest_twisted.ensureDeferred
async def test_when_all_was_right(store: Store) -> None:
    """The last good time is kept for accounts and copies, and for nobody else."""
    await store.integrity.note_verified(BOB, NOW)
    assert await store.integrity.verified(BOB) == 0
    await sign_up(store, BOB)
    await begin_whole(store)
    for pubky in (ALICE, BOB):
        assert await store.integrity.verified(pubky) == 0
        await store.integrity.note_verified(pubky, NOW)
        await store.integrity.note_verified(pubky, NOW + 1)
        assert await store.integrity.verified(pubky) == NOW + 1
    assert (await copy_of(store)).verified == NOW + 1


@pytest_twisted.ensureDeferred
async def test_bodies_in_grace(store: Store) -> None:
    """A replaced or deleted body is found by account, path and hash until its grace is over; in a copy too."""
    await sign_up(store, BOB)
    await begin_whole(store)
    first, second = blobbed("/pub/a", b"1" * 9, BLOBS[0], 1), blobbed("/pub/a", b"2" * 9, BLOBS[1], 2)
    await keep(store, BOB, first)
    hashes = first.content_hash, second.content_hash
    assert [await store.integrity.in_grace(BOB, "/pub/a", one) for one in hashes] == [None, None]
    await keep(store, BOB, second)
    assert [await store.integrity.in_grace(BOB, "/pub/a", one) for one in hashes] == [BLOBS[0], None]
    await store.delete(BOB, "/pub/a")
    assert [await store.integrity.in_grace(BOB, "/pub/a", one) for one in hashes] == [BLOBS[0], BLOBS[1]]
    assert await store.integrity.in_grace(BOB, "/pub/b", hashes[0]) is None
    assert await store.integrity.in_grace(ALICE, "/pub/a", hashes[0]) is None
    for one, event_id, digest in ((first, 10, digest_of(first)), (second, 20, digest_of(second))):
        brought = evolve(one, blob=BLOBS[1 + one.seq])
        assert await store.copies.apply(ALICE, False, event_of(one, event_id, digest), brought)
    assert await store.integrity.in_grace(ALICE, "/pub/a", hashes[0]) == BLOBS[2]
    await store.forget_blobs([BLOBS[0], BLOBS[2]])
    assert await store.integrity.in_grace(BOB, "/pub/a", hashes[0]) is None
    assert await store.integrity.in_grace(ALICE, "/pub/a", hashes[0]) is None
    assert await store.integrity.in_grace(BOB, "/pub/a", hashes[1]) == BLOBS[1]


@pytest_twisted.ensureDeferred
async def test_the_same_body_twice_in_grace(store: Store) -> None:
    """Of two files with the same bytes that a path had, the younger one is found when the older one is gone."""
    await sign_up(store, ALICE)
    for body, blob in ((b"1" * 9, BLOBS[0]), (b"2" * 9, BLOBS[1]), (b"1" * 9, BLOBS[2]), (b"3" * 9, BLOBS[3])):
        one = await keep(store, ALICE, blobbed("/pub/a", body, blob))
    first = entry("/pub/a", b"1" * 9).content_hash
    assert one.blob == BLOBS[3]
    await store.forget_blobs([BLOBS[0]])
    assert await store.integrity.in_grace(ALICE, "/pub/a", first) == BLOBS[2]
