"""What every store does with accounts that are taken down: the decision stays with the key, and open logs say so."""

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet import reactor
from twisted.internet.task import deferLater
from zope.interface.verify import verifyObject

from pubky_homeserver.core.digests import EMPTY
from pubky_homeserver.core.errors import DirectoryNotFound, NotFound
from pubky_homeserver.core.paths import TAKEDOWN
from pubky_homeserver.core.records import Operation
from pubky_homeserver.interfaces import IHints, ITakedownStore
from pubky_homeserver.store.takedowns import NOTICE
from tests.contract.copying import begin_whole, deletion, digest_of, event_of
from tests.contract.store import ALICE, BOB, Store, put, sign_up
from tests.contract.test_moves import announce, fence, open_here

SINCE = 1_764_000_000_000_500


def test_keeps_the_ports(store: Store) -> None:
    """The store has every method of the ports, with its arguments."""
    verifyObject(ITakedownStore, store.takedowns)
    verifyObject(IHints, store)


async def said(store: Store) -> list[tuple[Operation, str]]:
    """What Alice's public log says."""
    return [(one.event.operation, one.event.path) for one in await store.logs.logged(ALICE, False, 0, 50)]


@pytest_twisted.ensureDeferred
async def test_an_account(store: Store) -> None:
    """It is taken down once, and lifted once; its public log says so, but no listing, feed or stream of clients."""
    await sign_up(store, ALICE)
    await put(store, ALICE, "/pub/a")
    before = await store.log_state(ALICE, False)
    assert await store.takedowns.take_down(ALICE, SINCE)
    assert not await store.takedowns.take_down(ALICE, SINCE + 1)
    assert await store.takedowns.taken_down() == {ALICE: SINCE}
    assert await said(store) == [(Operation.PUT, "/pub/a"), (Operation.PUT, TAKEDOWN)]
    assert await store.entry(ALICE, TAKEDOWN) == evolve(NOTICE, seq=2)
    assert await store.listing(ALICE, "/pub/", "", 10, False, False) == ["/pub/a"]
    with pytest.raises(DirectoryNotFound):
        await store.listing(ALICE, "/take/", "", 10, False, False)
    events = await store.account_events(ALICE, None, 10, False, True, True)
    assert [event.path for event in events] == ["/pub/a"]
    assert await store.takedowns.lift(ALICE)
    assert not await store.takedowns.lift(ALICE)
    assert await store.takedowns.taken_down() == {}
    assert (await said(store))[2:] == [(Operation.DEL, TAKEDOWN)]
    assert await store.entry(ALICE, TAKEDOWN) is None
    after = await store.log_state(ALICE, False)
    assert before is not None
    assert after is not None
    assert (after.seq, after.digest) == (before.seq + 2, before.digest)
    account = await store.account(ALICE)
    assert account is not None
    assert account.used == 5 + 256


@pytest_twisted.ensureDeferred
async def test_nobody(store: Store) -> None:
    """Of a key that has nothing here nothing is taken down, and nothing is lifted."""
    with pytest.raises(NotFound):
        await store.takedowns.take_down(BOB, SINCE)
    assert not await store.takedowns.lift(BOB)
    assert await store.takedowns.taken_down() == {}


@pytest_twisted.ensureDeferred
async def test_in_the_order_of_their_time(store: Store) -> None:
    """They are told in the order in which they were taken down, however many they are."""
    pubkys = [f"{number:052d}" for number in range(520)]
    for pubky in pubkys:
        await sign_up(store, pubky)
        await store.takedowns.take_down(pubky, SINCE + 1000 - int(pubky))
    assert [*await store.takedowns.taken_down()] == pubkys[::-1]


@pytest_twisted.ensureDeferred
async def test_a_copy_obeys_its_log(store: Store) -> None:
    """A copy is down while its log says so; nothing is decided here."""
    await begin_whole(store)
    notice = evolve(NOTICE, seq=1)
    assert await store.copies.apply(ALICE, False, event_of(notice, 100, digest_of(NOTICE)), NOTICE)
    copy = await store.copies.copy(ALICE)
    assert copy is not None
    assert (copy.taken_down, copy.used, copy.missing) == (True, 0, 0)
    assert await store.copies.copies("", 10) == [copy]
    assert await store.takedowns.taken_down() == {}
    assert await store.copies.apply(ALICE, False, deletion(TAKEDOWN, 2, 101, EMPTY), None)
    assert [one.taken_down for one in await store.copies.copies("", 10)] == [False]


@pytest_twisted.ensureDeferred
async def test_a_copy_that_is_taken_down_here(store: Store) -> None:
    """What is decided here of a copy changes nothing of it: the log is its primary's."""
    await begin_whole(store)
    before = await store.copies.copy(ALICE)
    assert await store.takedowns.take_down(ALICE, SINCE)
    assert await store.copies.copy(ALICE) == before
    assert await said(store) == []
    assert await store.takedowns.lift(ALICE)


@pytest.mark.parametrize("is_ours", [False, True])
@pytest_twisted.ensureDeferred
async def test_who_opens_decides(store: Store, is_ours: bool) -> None:
    """An account that comes here says in its log what was decided here, whatever was decided where it comes from."""
    await sign_up(store, ALICE)
    await put(store, ALICE, "/pub/a")
    if not is_ours:
        await store.takedowns.take_down(ALICE, SINCE)
    await fence(store)
    if is_ours:
        await store.takedowns.take_down(ALICE, SINCE)
    else:
        await store.takedowns.lift(ALICE)
    copy = await store.copies.copy(ALICE)
    assert copy is not None
    assert copy.taken_down is not is_ours, "its log is as it was when it left"
    assert await open_here(store)
    await announce(store)
    entry = await store.entry(ALICE, TAKEDOWN)
    assert (entry is not None) is is_ours
    names = [one for one in await said(store) if one[1] == TAKEDOWN]
    assert names == [(Operation.PUT, TAKEDOWN)] + ([] if is_ours else [(Operation.DEL, TAKEDOWN)])
    state = await store.log_state(ALICE, False)
    listed = await store.logs.listed(ALICE, False, "", 10)
    assert state is not None
    assert listed is not None
    assert state.digest == digest_of(*listed.entries)
    assert await store.takedowns.taken_down() == ({ALICE: SINCE} if is_ours else {})


@pytest_twisted.ensureDeferred
async def test_hints(store: Store) -> None:
    """Who hears is told at first to look at all; then each hint, those of takedowns among them."""
    heard: list[str | None] = []
    stop = store.hear_hints(heard.append)
    await sign_up(store, ALICE)
    while not heard:
        await deferLater(reactor, 0.001)
    await store.hint("word key")
    await store.takedowns.take_down(ALICE, SINCE)
    while len(heard) < 3:
        await deferLater(reactor, 0.001)
    assert heard == [None, "word key", f"takedown {ALICE}"]
    stop()
    await store.hint("more")
    await deferLater(reactor, 0.05)
    assert len(heard) == 3
