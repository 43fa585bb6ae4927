"""What every store does with copies: pages and events make the primary's files, and nothing else changes anything."""

from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from attrs import evolve
from zope.interface.verify import verifyObject

from pubky_homeserver.core.copies import CopiedLog, Copy, Listed, Position
from pubky_homeserver.core.digests import EMPTY, fold
from pubky_homeserver.core.erasing import Obeyed
from pubky_homeserver.core.errors import (
    DigestMismatch,
    NotFound,
    UserExists,
)
from pubky_homeserver.core.moves import Kept
from pubky_homeserver.core.quotas import ENTRY_OVERHEAD
from pubky_homeserver.core.records import Entry, Totals
from pubky_homeserver.interfaces import ICopyStore
from tests.contract.copying import (
    BLOBS,
    END,
    LOG_ID,
    NOW,
    OTHER,
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
from tests.contract.store import ALICE, BOB, Store, entry, put, session, sign_up

NAME = "ff" * 32


def packet(timestamp: int) -> bytes:
    """A packet."""
    return bytes(64) + timestamp.to_bytes(8, "big")


def test_keeps_the_port(store: Store) -> None:
    """The store has every method of the port, with its arguments."""
    verifyObject(ICopyStore, store.copies)


# --- copies and accounts ------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_copy_begins(store: Store) -> None:
    """A copy begins without positions; begun again it goes on."""
    assert await store.copies.copy(ALICE) is None
    assert await store.copies.begin(ALICE, PRIMARY, NOW)
    assert await copy_of(store) == Copy(ALICE, PRIMARY, NOW, 0, 0, CopiedLog(), CopiedLog())
    await store.copies.begin_list(ALICE, False, standing(3, 30, b"\1" * 16))
    assert await store.copies.begin(ALICE, PRIMARY, NOW + 1)
    found = await copy_of(store)
    assert (found.primary, found.begun) == (PRIMARY, NOW)
    assert found.public.position == standing(3, 30, b"\1" * 16).position


@pytest_twisted.ensureDeferred
async def test_only_the_kept_packet_says_where_an_account_lives(store: Store) -> None:
    """No copy begins, and none follows another homeserver, by a packet that is not the newest one."""
    first, second = packet(1), packet(2)
    assert await store.copies.begin(ALICE, PRIMARY, NOW, first)
    assert await store.packets.keep_packet(ALICE, first, PRIMARY) is Kept.KEPT
    assert await store.packets.keep_packet(ALICE, second, OTHER) is Kept.KEPT
    for old in (first, packet(3), None):
        assert not await store.copies.begin(ALICE, PRIMARY, NOW, old)
        assert (await copy_of(store)).primary == OTHER
    assert await store.copies.begin(ALICE, OTHER, NOW), "it goes on"
    assert await store.copies.forget(ALICE, 10)
    for old in (first, packet(3), None):
        assert not await store.copies.begin(ALICE, OTHER, NOW, old)
    assert await store.copies.copy(ALICE) is None
    assert await store.copies.begin(ALICE, OTHER, NOW, b"\1" * 64 + second[64:]), "somebody signed it twice"
    assert (await copy_of(store)).primary == OTHER


@pytest_twisted.ensureDeferred
async def test_a_copy_whose_primary_was_missed(store: Store) -> None:
    """What was hidden when the account moved follows the homeserver that the kept packet names, once that is found."""
    await store.copies.begin(ALICE, PRIMARY, NOW, packet(1))
    await store.packets.keep_packet(ALICE, packet(1), PRIMARY)
    assert await store.erasures.hide(ALICE, PRIMARY, "ab" * 16, 9, 2 * NOW, NAME) is Obeyed.HIDDEN
    await store.packets.keep_packet(ALICE, packet(2), OTHER, is_peer=True)
    assert await store.erasures.show(ALICE)
    assert (await copy_of(store)).primary == PRIMARY
    assert await store.copies.begin(ALICE, OTHER, NOW, packet(2))
    assert (await copy_of(store)).primary == OTHER


@pytest_twisted.ensureDeferred
async def test_what_was_erased_does_not_begin_again(store: Store) -> None:
    """Who has looked at what was erased before an order came, or has taken the copy for granted, begins none."""
    seen = NAME, await store.erasures.erased(NAME)
    assert not await store.copies.begin(ALICE, PRIMARY, NOW, erased=None)
    assert await store.copies.begin(ALICE, PRIMARY, NOW, erased=seen)
    assert await store.erasures.hide(ALICE, PRIMARY, "ab" * 16, 9, 2 * NOW, NAME) is Obeyed.HIDDEN
    for erased in (seen, None, (NAME, ["cd" * 16])):
        assert not await store.copies.begin(ALICE, PRIMARY, NOW, erased=erased)
    assert await store.copies.copy(ALICE) is None
    assert await store.copies.begin(ALICE, PRIMARY, NOW, erased=(NAME, ["ab" * 16]))
    assert await store.copies.begin(ALICE, PRIMARY, NOW, erased=None)


@pytest_twisted.ensureDeferred
async def test_what_no_quota_counts(store: Store) -> None:
    """Events take room here, and so does what is no file, whoever's quota they do not count for."""
    await begin_whole(store)
    assert (await copy_of(store)).beside == 0
    name = entry("revoked:x", b"", seq=1, content_type="", modified=0)
    file = entry("/pub/a", seq=2)
    await store.copies.apply(ALICE, False, event_of(name, 10, digest_of(name)), name)
    await store.copies.apply(ALICE, False, event_of(file, 11, digest_of(name, file)), file)
    found = await copy_of(store)
    assert (found.used, found.beside) == (5 + ENTRY_OVERHEAD, 3 * ENTRY_OVERHEAD)
    assert found.held == found.used + found.beside
    await store.copies.apply(ALICE, False, deletion("revoked:x", 3, 12, digest_of(file)), None)
    assert (await copy_of(store)).beside == 3 * ENTRY_OVERHEAD
    await store.copies.begin_list(ALICE, False, standing(9, 20, digest_of(name)))
    assert (await copy_of(store)).beside == 0
    await store.copies.keep_listed(ALICE, False, [bare("revoked:x")], END)
    found = await copy_of(store)
    assert (found.used, found.beside, found.held) == (0, ENTRY_OVERHEAD, ENTRY_OVERHEAD)


@pytest_twisted.ensureDeferred
async def test_a_copy_is_no_account(store: Store) -> None:
    """Nothing but files, events and logs is there: no account, nothing that is offered, no total, no write, no feed."""
    await begin_whole(store)
    one = entry("/pub/a", seq=1)
    await store.copies.apply(ALICE, False, event_of(one, 10, digest_of(one)), one)
    assert await store.account(ALICE) is None
    assert await store.accounts(0, 10) == ([], None)
    assert await store.totals() == Totals(0, 0, 0, 0, 0)
    assert await store.log_state(ALICE, False) is None
    assert await store.logs.standings(0, 10) == ([], None)
    assert await store.events(0, 10, True) == []
    assert not await store.has_event(10)
    assert await store.last_event_id() == 0
    writes: list[Callable[[], Any]] = [
        lambda: put(store, ALICE, "/pub/b"),
        lambda: store.delete(ALICE, "/pub/a"),
        lambda: store.check_put(ALICE, "/pub/b", 1, None),
        lambda: store.check_delete(ALICE, "/pub/a"),
        lambda: store.set_disabled(ALICE, True),
        lambda: store.sign_in(session(ALICE)),
    ]
    for write in writes:
        with pytest.raises(NotFound):
            await write()
    with pytest.raises(UserExists):
        await sign_up(store, ALICE)
    assert await store.entry(ALICE, "/pub/a") == one
    assert await listing(store) == ["/pub/a"]
    assert [event.seq for event in await store.account_events(ALICE, None, 10, False, True, True)] == [1]


@pytest_twisted.ensureDeferred
async def test_the_log_of_a_copy(store: Store) -> None:
    """A log can be read as an account's as soon as its list is whole."""
    await store.copies.begin(ALICE, PRIMARY, NOW)
    await store.copies.begin_list(ALICE, False, standing())
    assert await store.logs.standing(ALICE, False) is None
    assert await store.logs.listed(ALICE, False, "", 10) is None
    await begin_whole(store)
    one = entry("/pub/a", seq=1)
    await store.copies.apply(ALICE, False, event_of(one, 10, digest_of(one)), one)
    found, here = evolve(standing(1, 10, digest_of(one)), used=5 + 256), await store.logs.standing(ALICE, False)
    assert here == found
    assert here is not None
    assert here.is_copy
    assert await store.logs.standing(ALICE, True) is None
    assert await store.logs.listed(ALICE, False, "", 10) == Listed((evolve(one, body=None),), found)
    assert await store.logs.event_numbered(ALICE, False, 1) == event_of(one, 10, digest_of(one))
    assert [logged.body for logged in await store.logs.logged(ALICE, False, 0, 10)] == [one.body]


@pytest_twisted.ensureDeferred
async def test_an_account_is_no_copy(store: Store) -> None:
    """Of an account that lives here no copy begins, and nothing that is for copies touches its files."""
    await sign_up(store, ALICE)
    event = await put(store, ALICE, "/pub/a")
    before = await store.account(ALICE), await store.entry(ALICE, "/pub/a"), await store.logs.standing(ALICE, False)
    with pytest.raises(UserExists):
        await store.copies.begin(ALICE, PRIMARY, NOW)
    one = bare("/pub/a", b"other", seq=2)
    position = Position(LOG_ID, event.seq, event.id, event.digest)
    writes: list[Callable[[], Any]] = [
        lambda: store.copies.begin_list(ALICE, False, standing()),
        lambda: store.copies.keep_listed(ALICE, False, [one], END),
        lambda: store.copies.end_list(ALICE, False, standing()),
        lambda: store.copies.apply(ALICE, False, event_of(one, event.id + 1, digest_of(one)), one),
    ]
    for write in writes:
        with pytest.raises(NotFound):
            await write()
    assert await store.copies.fill(ALICE, entry("/pub/a")), "it has that body"
    assert not await store.copies.fill(ALICE, entry("/pub/a", b"other"))
    assert not await store.copies.confirm(ALICE, False, position, NOW)
    assert await store.copies.missing(ALICE, "", 10) == []
    assert await store.copies.forget(ALICE, 500)
    assert await store.copies.copies("", 500) == []
    assert before == (
        await store.account(ALICE), await store.entry(ALICE, "/pub/a"), await store.logs.standing(ALICE, False)
    )  # fmt: skip


@pytest_twisted.ensureDeferred
async def test_pages_of_copies(store: Store) -> None:
    """All copies in the order of their keys, a page at a time."""
    pubkys = [f"{number}" * 52 for number in range(5)]
    for pubky in reversed(pubkys):
        await store.copies.begin(pubky, PRIMARY, NOW)
    everyone = [await copy_of(store, pubky) for pubky in pubkys]
    assert await store.copies.copies("", 500) == everyone
    assert await store.copies.copies(pubkys[1], 2) == everyone[2:4]
    assert await store.copies.copies(pubkys[4], 2) == []


# --- events -------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_events_one_after_the_other(store: Store) -> None:
    """Each event moves files, bytes, digest and position at once; the log has it as it came, under its own id."""
    await begin_whole(store)
    small, large = entry("/pub/a", seq=1), evolve(entry("/pub/b", b"x" * 9, seq=2), body=None, blob=BLOBS[1])
    absent = bare("/pub/c", b"y" * 5, seq=3)
    again = evolve(entry("/pub/b", b"z", seq=4, content_type="x/unheard-of"), body=None, blob=BLOBS[2])
    events = [
        event_of(small, 10, digest_of(small)),
        event_of(large, 20, digest_of(small, large)),
        event_of(absent, 21, digest_of(small, large, absent)),
        event_of(again, 2**53 - 2, digest_of(small, again, absent)),
        deletion("/pub/a", 5, 2**53 - 1, digest_of(again, absent)),
    ]
    sizes = [(5 + 256, 0), (14 + 512, 0), (19 + 768, 1), (11 + 768, 1), (6 + 512, 1)]
    for event, brought, size in zip(events, (small, large, absent, again, None), sizes, strict=True):
        assert await store.copies.apply(ALICE, False, event, brought)
        found = await copy_of(store)
        assert found.public.position == Position(LOG_ID, event.seq, event.id, event.digest)
        assert (found.used, found.missing) == size
        assert await store.entry(ALICE, event.path) == brought
    assert await store.account_events(ALICE, None, 10, False, True, True) == events
    assert await store.copies.missing(ALICE, "", 500) == [absent]
    assert await store.known_blobs(BLOBS) == {BLOBS[1], BLOBS[2]}
    assert await store.expired_blobs(2**53 - 1, 10) == [BLOBS[1]]


@pytest_twisted.ensureDeferred
async def test_what_is_not_the_next_event_changes_nothing(store: Store) -> None:
    """Replays, gaps, ids that go back and another digest leave everything as it is."""
    await store.copies.begin(ALICE, PRIMARY, NOW)
    first = entry("/pub/a", seq=1)
    assert not await store.copies.apply(ALICE, False, event_of(first, 10, digest_of(first)), first)
    await begin_whole(store)
    assert await store.copies.apply(ALICE, False, event_of(first, 10, digest_of(first)), first)
    before = await state_of(store)
    other = evolve(entry("/pub/b", seq=2), body=None, blob=BLOBS[0])
    good = event_of(other, 11, digest_of(first, other))
    for refused in (
        event_of(first, 10, digest_of(first)),
        evolve(good, seq=1),
        evolve(good, seq=0),
        evolve(good, seq=3),
        evolve(good, id=10),
        evolve(good, id=9),
    ):
        assert not await store.copies.apply(ALICE, False, refused, other)
        assert await state_of(store) == before
    for wrong in (digest_of(first), digest_of(other), EMPTY, fold(good.digest, b"\0" * 15 + b"\1")):
        with pytest.raises(DigestMismatch):
            await store.copies.apply(ALICE, False, evolve(good, digest=wrong), other)
        assert await state_of(store) == before
    with pytest.raises(DigestMismatch):
        await store.copies.apply(ALICE, False, deletion("/pub/a", 2, 11, digest_of(first)), None)
    assert not await store.copies.apply(ALICE, True, evolve(good, path="/priv/b"), other)
    for private, path in ((True, "/pub/b"), (False, "/priv/b")):
        with pytest.raises(ValueError, match="another log"):
            await store.copies.apply(ALICE, private, evolve(good, path=path), None)
    assert await state_of(store) == before
    with pytest.raises(NotFound):
        await store.copies.apply(BOB, False, good, other)
    assert await store.copies.apply(ALICE, False, good, other)


@pytest_twisted.ensureDeferred
async def test_the_same_body_again(store: Store) -> None:
    """A write of the same bytes that brings no body keeps the one that is here, and its blob gets no grace."""
    await begin_whole(store)
    bodies: list[dict[str, Any]] = [{"body": b"hello"}, {"body": None, "blob": BLOBS[0]}]
    seq = 0
    for number, body in enumerate(bodies):
        path = f"/pub/{number}"
        first = evolve(bare(path, seq=seq + 1), **body)
        second = bare(path, seq=seq + 2, modified=NOW, content_type="a/b")
        others = [await store.entry(ALICE, one) for one in await listing(store)]
        kept = [one for one in others if one is not None]
        assert await store.copies.apply(ALICE, False, event_of(first, seq + 1, digest_of(*kept, first)), first)
        assert await store.copies.apply(ALICE, False, event_of(second, seq + 2, digest_of(*kept, second)), None)
        assert await store.entry(ALICE, path) == evolve(second, **body)
        seq += 2
    assert (await copy_of(store)).missing == 0
    assert await store.expired_blobs(2**53 - 1, 10) == []


@pytest_twisted.ensureDeferred
async def test_the_two_logs_of_a_copy(store: Store) -> None:
    """Each log has its own position and digest; bytes and missing bodies are counted together."""
    await begin_whole(store)
    await begin_whole(store, private=True)
    public, private = bare("/pub/a", b"12", seq=1), bare("/priv/a", b"345", seq=1)
    assert await store.copies.apply(ALICE, True, event_of(private, 99, digest_of(private)), None)
    assert await store.copies.apply(ALICE, False, event_of(public, 7, digest_of(public)), None)
    found = await copy_of(store)
    assert (found.used, found.missing) == (5 + 512, 2)
    assert found.public.position == Position(LOG_ID, 1, 7, digest_of(public))
    assert found.private.position == Position(LOG_ID, 1, 99, digest_of(private))
    assert await store.copies.missing(ALICE, "", 10) == [private, public]
    assert await store.copies.missing(ALICE, "/priv/a", 10) == [public]
    assert [event.id for event in await store.account_events(ALICE, None, 10, False, True, True)] == [7, 99]
    assert [event.id for event in await store.account_events(ALICE, None, 10, False, True, False)] == [7]


# --- bodies, confirmation, the end --------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_bodies_come_later(store: Store) -> None:
    """A body is taken once, by the entry that it belongs to; the log does not move for it."""
    await begin_whole(store)
    small, large = bare("/pub/a", seq=1), bare("/pub/b", b"x" * 5000, seq=2)
    await store.copies.apply(ALICE, False, event_of(small, 1, digest_of(small)), None)
    await store.copies.apply(ALICE, False, event_of(large, 2, digest_of(small, large)), None)
    where = (await copy_of(store)).public
    for wrong in (
        entry("/pub/a", b"other"),
        entry("/pub/b", b"hello"),
        entry("/pub/c"),
        small,
        evolve(entry("/pub/a"), length=4),
    ):
        assert not await store.copies.fill(ALICE, wrong)
    assert not await store.copies.fill(BOB, entry("/pub/a"))
    assert (await copy_of(store)).missing == 2
    assert await store.copies.fill(ALICE, entry("/pub/a", modified=1, content_type="of/nobody"))
    assert await store.entry(ALICE, "/pub/a") == entry("/pub/a", seq=1)
    filled = evolve(large, blob=BLOBS[1])
    for _ in range(2):
        assert await store.copies.fill(ALICE, filled)
        assert await store.entry(ALICE, "/pub/b") == filled
    assert not await store.copies.fill(ALICE, evolve(large, blob=BLOBS[2]))
    assert await store.known_blobs(BLOBS) == {BLOBS[1]}
    found = await copy_of(store)
    assert (found.missing, found.public) == (0, where)
    assert await store.copies.missing(ALICE, "", 10) == []
    assert await store.copies.apply(ALICE, False, deletion("/pub/b", 3, 3, digest_of(small)), None)
    assert await store.expired_blobs(2**53 - 1, 10) == [BLOBS[1]]


@pytest_twisted.ensureDeferred
async def test_confirmation(store: Store) -> None:
    """Only where the log is whole and stands exactly there, and who says so is the primary."""
    await store.copies.begin(ALICE, PRIMARY, NOW)
    here = standing().position
    assert not await store.copies.confirm(ALICE, False, here, NOW)
    await store.copies.begin_list(ALICE, False, standing())
    assert not await store.copies.confirm(ALICE, False, here, NOW)
    await store.copies.end_list(ALICE, False, standing())
    for change in ({"log_id": "00" * 16}, {"seq": 1}, {"event_id": 1}, {"digest": b"\1" * 16}):
        assert not await store.copies.confirm(ALICE, False, evolve(here, **change), NOW)
    assert not await store.copies.confirm(ALICE, True, here, NOW)
    assert not await store.copies.confirm(BOB, False, here, NOW)
    assert not await store.copies.confirm(ALICE, False, here, NOW, BOB)
    assert (await copy_of(store)).public.confirmed == 0
    assert await store.copies.confirm(ALICE, False, here, NOW)
    assert (await copy_of(store)).public.confirmed == NOW
    assert await store.copies.confirm(ALICE, False, here, NOW + 1, PRIMARY)
    assert (await copy_of(store)).public.confirmed == NOW + 1
    await store.copies.begin_list(ALICE, False, standing(1, 1))
    assert (await copy_of(store)).public.confirmed == NOW + 1


@pytest_twisted.ensureDeferred
async def test_a_copy_is_forgotten(store: Store) -> None:
    """In steps, each of which leaves the books right; its blobs get their grace; then somebody may sign up."""
    await begin_whole(store, private=True)
    await begin_whole(store)
    files: list[Entry] = []
    for number in range(7):
        private = number % 3 == 0
        one = evolve(bare(f"/{'priv' if private else 'pub'}/{number}", seq=number // 3 + 1), blob=BLOBS[number])
        one = evolve(one, seq=sum(other.path[:4] == one.path[:4] for other in files) + 1)
        files.append(one)
        own = [other for other in files if other.path[:4] == one.path[:4]]
        assert await store.copies.apply(ALICE, private, event_of(one, number + 1, digest_of(*own)), one)
    assert not await store.copies.forget(ALICE, 4)
    found = await copy_of(store)
    assert (found.used, found.public, found.private) == (3 * (5 + 256), CopiedLog(), CopiedLog())
    assert not await store.copies.apply(ALICE, False, deletion("/pub/5", 5, 50, EMPTY), None)
    with pytest.raises(UserExists):
        await sign_up(store, ALICE)
    left = [evolve(one, blob=None) for one in files if one.path in ("/pub/2", "/pub/4", "/pub/5")]
    await store.copies.begin_list(ALICE, False, standing(9, 90, digest_of(*left)))
    await store.copies.keep_listed(ALICE, False, left, END)
    assert await store.copies.end_list(ALICE, False, standing(9, 90, digest_of(*left))), "the digest was kept right"
    assert await store.copies.forget(ALICE, 500)
    for _ in range(2):
        assert await store.copies.copy(ALICE) is None
        assert await store.copies.forget(ALICE, 500)
    assert await store.copies.copies("", 10) == []
    assert await listing(store) == await listing(store, "/priv/") == []
    assert await store.account_events(ALICE, None, 10, False, True, True) == []
    assert sorted(await store.expired_blobs(2**53 - 1, 10)) == BLOBS[:7]
    await sign_up(store, ALICE)
    await put(store, ALICE, "/pub/a")
    assert await store.totals() == Totals(1, 0, 261, 0, 0)
