"""What every store remembers of moves and forks: the newest ones, in their order."""

import pytest_twisted
from zope.interface.verify import verifyObject

from pubky_homeserver.core.moves import Fork, Move
from pubky_homeserver.interfaces import IChronicleStore
from pubky_homeserver.store.chronicle import FORKS, MOVES
from tests.contract.copying import NOW, OTHER, PRIMARY
from tests.contract.store import ALICE, BOB, Store


def test_keeps_the_port(store: Store) -> None:
    """The store has every method of the port, with its arguments."""
    verifyObject(IChronicleStore, store.chronicle)


@pytest_twisted.ensureDeferred
async def test_moves(store: Store) -> None:
    """They come back as they were noted; of many the newest are remembered."""
    assert await store.chronicle.moves() == []
    some = [Move(ALICE, "opened", PRIMARY, NOW), Move(BOB, "fenced", "", NOW + 1, True)]
    for one in some:
        await store.chronicle.note_move(one)
    assert await store.chronicle.moves() == some
    many = [Move(ALICE, "voided", OTHER, NOW + number) for number in range(MOVES)]
    for one in many:
        await store.chronicle.note_move(one)
    assert await store.chronicle.moves() == many


@pytest_twisted.ensureDeferred
async def test_forks(store: Store) -> None:
    """The newest of each account with each homeserver, and of many the newest are remembered."""
    assert await store.chronicle.forks() == []
    for fork in (Fork(ALICE, PRIMARY, NOW), Fork(BOB, PRIMARY, NOW + 1), Fork(ALICE, PRIMARY, NOW + 2)):
        await store.chronicle.note_fork(fork)
    await store.chronicle.note_fork(Fork(ALICE, OTHER, NOW))
    expected = [Fork(ALICE, OTHER, NOW), Fork(BOB, PRIMARY, NOW + 1), Fork(ALICE, PRIMARY, NOW + 2)]
    assert await store.chronicle.forks() == expected
    many = [Fork(f"{number:052}", OTHER, NOW + 3 + number) for number in range(FORKS - 1)]
    for fork in many:
        await store.chronicle.note_fork(fork)
    assert await store.chronicle.forks() == [expected[-1], *many]
