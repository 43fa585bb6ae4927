"""Copies that are erased, and the orders that say so, in every store."""

from typing import Any

import pytest
import pytest_twisted
from attrs import evolve
from zope.interface.verify import verifyObject

from pubky_homeserver.core.digests import EMPTY, fold
from pubky_homeserver.core.erasing import Doomed, Obeyed, Order
from pubky_homeserver.core.errors import GrantRevoked, NotPrimary
from pubky_homeserver.core.moves import Fork, Kept, Move
from pubky_homeserver.core.shelf import Reason, Shelved, id_of
from pubky_homeserver.interfaces import IErasureStore
from tests.contract.copying import BLOBS, LOG_ID, NOW, OTHER, PRIMARY, bare, begin_whole, event_of, listing, mark_of
from tests.contract.store import ALICE, BOB, Store, entry, put, session, sign_up
from tests.contract.test_grants import NOW as GRANTED
from tests.contract.test_grants import bearer, kept

NAME = "ff" * 32
UNTIL = NOW + 10
FIELDS: dict[str, Any] = {"content_hash": b"h" * 32, "length": 70_000, "body": None}
PACKET = bytes(64) + NOW.to_bytes(8, "big") + b"dns"
LATER = bytes(64) + (2**53).to_bytes(8, "big") + b"dns"


def packet(number: int) -> bytes:
    """One that is later still."""
    return bytes(64) + (2**53 + number).to_bytes(8, "big") + b"dns"


async def copy_with_files(store: Store) -> None:
    """A copy with two files, one of them a blob, and one thing on its shelf."""
    await begin_whole(store)
    await store.packets.keep_packet(ALICE, PACKET, PRIMARY)
    digest = EMPTY
    for seq, one in enumerate((entry("/pub/a"), evolve(entry("/pub/b"), **FIELDS, blob=BLOBS[0])), 1):
        listed = evolve(one, seq=seq)
        digest = fold(digest, mark_of(listed))
        assert await store.copies.apply(ALICE, False, event_of(listed, 100 + seq, digest), one)
    old = evolve(entry("/pub/c"), **FIELDS, blob=BLOBS[1], seq=3)
    thing = Shelved(ALICE, id_of("/pub/c", 3, b"h" * 32), Reason.REPLACED, OTHER, "/pub/c", old, None, NOW, NOW)
    assert await store.shelf.shelve(thing)


async def hide(store: Store, primary: str = PRIMARY, log_id: str = LOG_ID, seq: int = 2) -> Obeyed:
    """The order that fits."""
    return await store.erasures.hide(ALICE, primary, log_id, seq, UNTIL, NAME)


async def seen(store: Store) -> Any:
    """What can be read of the copy."""
    return (
        await store.copies.copy(ALICE),
        await listing(store),
        await store.account_events(ALICE, None, 1000, False, True, True),
        await store.logs.standing(ALICE, False),
        await store.shelf.shelf(ALICE, "", 100),
        await store.shelf.shelves("", 100),
    )


@pytest_twisted.ensureDeferred
async def test_a_copy_is_hidden_at_once_and_can_come_back(store: Store) -> None:
    """Nothing of a hidden copy is found, though its bodies are kept; shown again it is what it was."""
    assert verifyObject(IErasureStore, store.erasures)
    await copy_with_files(store)
    before = await seen(store)
    assert await store.erasures.hidden(ALICE) is None
    assert await hide(store) is Obeyed.HIDDEN
    assert await store.erasures.hidden(ALICE) == PRIMARY
    assert await seen(store) == (None, [], [], None, [], [])
    assert await store.entry(ALICE, "/pub/a") is None
    assert await store.copies.copies("", 500) == []
    assert await store.known_blobs(BLOBS) == set(BLOBS[:2])
    assert await store.erasures.doomed(500) == [Doomed(ALICE, UNTIL)]
    assert await hide(store) is Obeyed.HIDDEN
    assert await store.erasures.doomed(500) == [Doomed(ALICE, UNTIL)]
    assert await store.erasures.show(ALICE)
    assert not await store.erasures.show(ALICE)
    assert await seen(store) == before
    assert await store.erasures.doomed(500) == [Doomed(ALICE, UNTIL, False)]


@pytest_twisted.ensureDeferred
async def test_what_is_shown_is_hidden_again_or_stays(store: Store) -> None:
    """A copy that was shown is hidden again unless it is lifted, and then follows anew without a memory of it."""
    await copy_with_files(store)
    assert not await store.erasures.hide_again(ALICE)
    await hide(store)
    await store.erasures.lift(ALICE, NAME)
    assert await store.erasures.doomed(500) == [Doomed(ALICE, UNTIL)]
    await store.erasures.show(ALICE)
    assert await store.erasures.hide_again(ALICE)
    assert await store.copies.copy(ALICE) is None
    await store.erasures.show(ALICE)
    await store.erasures.lift(ALICE, NAME)
    assert (await store.erasures.doomed(500), await store.erasures.erased(NAME)) == ([], [])
    assert not await store.erasures.hide_again(ALICE)
    assert await listing(store) == ["/pub/a", "/pub/b"]


@pytest_twisted.ensureDeferred
async def test_only_what_the_order_knows_is_hidden(store: Store) -> None:
    """Another primary, another history, an end before ours: nothing happens. No copy at all is told as well."""
    assert await hide(store) is Obeyed.NOTHING
    await copy_with_files(store)
    before = await seen(store)
    assert await hide(store, primary=OTHER) is Obeyed.ELSEWHERE
    assert await hide(store, log_id="12" * 16) is Obeyed.DIFFERENT
    assert await hide(store, seq=1) is Obeyed.DIFFERENT
    assert await seen(store) == before
    assert (await store.erasures.doomed(500), await store.erasures.erased(NAME)) == ([], [])
    assert await hide(store, log_id="cd" * 16, seq=7) is Obeyed.HIDDEN


@pytest_twisted.ensureDeferred
async def test_a_copy_without_a_list_is_hidden_too(store: Store) -> None:
    """What was just begun knows no log, and goes all the same."""
    await store.copies.begin(ALICE, PRIMARY, NOW)
    assert await hide(store, seq=0) is Obeyed.HIDDEN
    assert await store.copies.copy(ALICE) is None


@pytest_twisted.ensureDeferred
async def test_who_is_about_to_come_is_not_hidden(store: Store) -> None:
    """A copy that is claimed is not its primary's to erase."""
    await copy_with_files(store)
    await store.sign_up(evolve(await an_account(store), pubky=ALICE), session(ALICE), None, False, True)
    before = await seen(store)
    assert await hide(store) is Obeyed.CLAIMED
    assert await seen(store) == before


async def leave(store: Store, **quota: Any) -> str:
    """Somebody lived here, with a file, a grant, and another one that was revoked; the log that they left."""
    await sign_up(store, ALICE, **quota)
    await put(store, ALICE, "/pub/a")
    await put(store, ALICE, "/priv/b")
    await put(store, BOB, "/pub/b")
    for number, name in enumerate(("one", "two")):
        await store.grants.exchange(kept(grant_id=name), bearer(number), GRANTED, 3600)
    await store.grants.revoke("two")
    await store.chronicle.note_move(Move(ALICE, "opened", OTHER, NOW))
    await store.chronicle.note_move(Move(BOB, "opened", OTHER, NOW))
    await store.chronicle.note_fork(Fork(ALICE, OTHER, NOW))
    assert await store.packets.keep_packet(ALICE, LATER, PRIMARY) is Kept.FENCED
    standing = await store.logs.standing(ALICE, False)
    assert standing is not None
    return standing.position.log_id


@pytest_twisted.ensureDeferred
async def test_a_former_home_is_hidden_and_comes_back(store: Store) -> None:
    """Nothing of an account that lived here can be read, its events neither; shown again it is as it was."""
    await sign_up(store, BOB)
    log_id = await leave(store)
    before, events = await seen(store), await store.events(0, 10, True)
    assert await store.erasures.hide(ALICE, PRIMARY, log_id, 3, UNTIL, NAME) is Obeyed.HIDDEN
    assert await seen(store) == (None, [], [], None, [], [])
    assert await store.events(0, 2, True) == [one for one in events if one.pubky == BOB]
    assert await store.moves.is_admitted(ALICE)
    assert (await store.totals()).users == 2
    with pytest.raises(NotPrimary, match=PRIMARY):
        await put(store, ALICE, "/pub/a")
    await store.packets.keep_packet(ALICE, packet(NOW + 20), OTHER)  # the user goes on
    assert await store.erasures.show(ALICE)
    copy, *rest = await seen(store)
    assert copy == evolve(before[0], primary=OTHER)
    assert rest == [*before[1:]]
    assert await store.events(0, 10, True) == events
    assert await store.erasures.hide_again(ALICE)
    await store.packets.keep_packet(ALICE, packet(NOW + 30))
    assert await store.erasures.show(ALICE)
    assert await store.moves.open(ALICE, packet(NOW + 30), NOW)
    await store.erasures.lift(ALICE, NAME)
    assert [one.grant.id for one in await store.grants.grants(ALICE)] == ["one"]
    assert (await store.totals()).users == 2
    assert not await store.erasures.hide_again(ALICE)


@pytest_twisted.ensureDeferred
async def test_a_former_home_is_wiped(store: Store) -> None:
    """The account goes with its grants, its packet and what happened to it; others see nothing of that."""
    await sign_up(store, BOB)
    log_id = await leave(store)
    assert await store.erasures.hide(ALICE, PRIMARY, log_id, 3, UNTIL, NAME) is Obeyed.HIDDEN
    steps = 0
    while not await store.erasures.wipe(ALICE, 1):
        steps += 1
        assert steps < 20
    totals = await store.totals()
    assert (totals.users, totals.disabled) == (1, 0)
    assert await store.accounts(0, 10) in (([BOB], None), ([BOB], 2))
    assert await store.account(ALICE) is None
    assert await store.packets.packet(ALICE) is None
    assert await store.grants.grant("one") is None
    assert [one.pubky for one in await store.events(0, 10, True)] == [BOB]
    assert [one.pubky for one in await store.chronicle.moves()] == [BOB]
    assert await store.chronicle.forks() == []
    assert await store.erasures.doomed(9) == []
    await sign_up(store, ALICE)  # they come back, as somebody new
    assert (await put(store, ALICE, "/pub/new")).seq == 1
    assert await listing(store) == ["/pub/new"]
    with pytest.raises(GrantRevoked):
        await store.grants.exchange(kept(grant_id="two"), bearer(3), GRANTED, 3600)
    assert (await store.totals()).users == 2
    assert [one.path for one in await store.events(0, 10, True)] == ["/pub/b", "/pub/new"]


@pytest.mark.parametrize("is_disabled", [False, True])
@pytest_twisted.ensureDeferred
async def test_what_the_operator_decided_outlives_the_wipe(store: Store, is_disabled: bool) -> None:
    """Who was disabled, or had a limit, has that again when they come back: to be erased lifts nothing."""
    await sign_up(store, BOB)
    log_id = await leave(store, **({} if is_disabled else {"storage_quota_mb": 1}))
    await store.set_disabled(ALICE, is_disabled)
    before = await store.account(ALICE)
    assert before is not None
    assert await store.erasures.hide(ALICE, PRIMARY, log_id, 3, UNTIL, NAME) is Obeyed.HIDDEN
    while not await store.erasures.wipe(ALICE, 500):
        pass
    assert await store.grants.grant("one") is None
    assert await store.packets.packet(ALICE) == LATER
    await sign_up(store, ALICE)
    after = await store.account(ALICE)
    assert after is not None
    assert (after.disabled, after.quota) == (before.disabled, before.quota)
    assert await listing(store) == []
    totals = await store.totals()
    assert (totals.users, totals.disabled) == (2, int(is_disabled))


async def an_account(store: Store) -> Any:
    """Any account."""
    await sign_up(store, BOB)
    return await store.account(BOB)


@pytest_twisted.ensureDeferred
async def test_wiped_nothing_is_left_but_a_name(store: Store) -> None:
    """Step by step files, bodies, shelf and packet go; by the name the log is known, as long as the store lives."""
    await copy_with_files(store)
    await hide(store)
    steps = 0
    while not await store.erasures.wipe(ALICE, 1):
        steps += 1
        assert steps < 9
    assert steps >= 1
    assert await store.erasures.doomed(500) == []
    assert sorted(await store.expired_blobs(2**53 - 1, 500)) == BLOBS[:2]
    assert await store.packets.packet(ALICE) is None
    assert await store.shelf.shelf_used(OTHER) == 0
    assert not await store.erasures.show(ALICE)
    assert await store.erasures.erased(NAME) == [LOG_ID]
    assert await store.erasures.erased("00" * 32) == []
    assert await store.erasures.wipe(ALICE, 1)


@pytest_twisted.ensureDeferred
async def test_a_new_copy_may_begin_beside_the_hidden_one(store: Store) -> None:
    """A user who came back to the primary is followed anew, and what was hidden is wiped without touching that."""
    await copy_with_files(store)
    await hide(store)
    await begin_whole(store, packet=PACKET)
    one = bare("/pub/new")
    await store.packets.keep_packet(ALICE, evolve_time(PACKET), PRIMARY)
    assert await store.copies.apply(ALICE, False, event_of(one, 500, fold(EMPTY, mark_of(one))), entry("/pub/new"))
    assert not await store.erasures.show(ALICE)
    assert await hide(store) is Obeyed.BUSY
    while not await store.erasures.wipe(ALICE, 500):
        pass
    assert await listing(store) == ["/pub/new"]
    assert await store.packets.packet(ALICE) is not None
    assert await hide(store) is Obeyed.HIDDEN
    assert await store.erasures.erased(NAME) == [LOG_ID, LOG_ID]


def evolve_time(packet: bytes) -> bytes:
    """The same packet a little later."""
    return packet[:64] + (NOW + 5).to_bytes(8, "big") + packet[72:]


@pytest_twisted.ensureDeferred
async def test_orders_wait_for_their_receipts(store: Store) -> None:
    """An order is remembered with its receipt; what belongs to one that was replaced counts no more."""
    first, second = Order(PRIMARY, ALICE, LOG_ID, 7, NOW), Order(OTHER, ALICE, LOG_ID, 7, NOW)
    await store.erasures.order(second)
    await store.erasures.order(first)
    assert await store.erasures.orders() == [first, second]
    assert await store.erasures.settle(first, NOW + 3)
    assert not await store.erasures.settle(first, NOW + 4)
    later = evolve(second, seq=9, ordered=NOW + 1)
    await store.erasures.order(later)
    assert not await store.erasures.settle(second, NOW + 3)
    assert not await store.erasures.drop_order(second)
    assert await store.erasures.orders() == [evolve(first, receipt=NOW + 3), later]
    assert await store.erasures.drop_order(later)
    assert await store.erasures.orders() == [evolve(first, receipt=NOW + 3)]
