"""What is told of moves and forks, and for how long."""

import pytest_twisted
from twisted.internet.task import Clock

from pubky_homeserver.core.errors import StoreAway
from pubky_homeserver.core.moves import Fork, Move
from pubky_homeserver.peers.chronicle import AGAIN, BACK, SHOWN, Chronicle
from pubky_homeserver.store.chronicle import MemoryChronicle

NOW = 1_795_387_747
USER, OTHER, PEER = "u" * 52, "o" * 52, "p" * 52


class Store(MemoryChronicle):
    """One that can be away."""

    is_away = False

    async def note_fork(self, fork: Fork) -> None:
        """See `IChronicleStore`."""
        if self.is_away:
            raise StoreAway
        await super().note_fork(fork)

    async def note_move(self, move: Move) -> None:
        """See `IChronicleStore`."""
        if self.is_away:
            raise StoreAway
        await super().note_move(move)


def at(seconds: float) -> Clock:
    """A clock."""
    clock = Clock()
    clock.advance(seconds)
    return clock


@pytest_twisted.ensureDeferred
async def test_forks() -> None:
    """Each is noted once a minute at most, and shown for thirty days, by another process too."""
    store, clock = Store(), at(NOW)
    chronicle = Chronicle(store, clock)
    for _ in range(2):
        await chronicle.note_fork(USER, PEER)
        clock.advance(AGAIN / 2)
    assert await store.forks() == chronicle.forks() == [Fork(USER, PEER, NOW * 1_000_000)]
    await chronicle.note_fork(USER, PEER)
    await chronicle.note_fork(USER, OTHER)
    again = int(NOW + AGAIN)
    assert chronicle.forked() == {USER: again}
    other = Chronicle(store, clock)
    await other.look()
    assert other.forks() == chronicle.forks() == [Fork(USER, one, again * 1_000_000) for one in (OTHER, PEER)]
    clock.advance(SHOWN)
    assert (other.forks(), other.forked()) == ([], {})


@pytest_twisted.ensureDeferred
async def test_moves_back_and_forth() -> None:
    """Who moves the other way within the hour is marked, also if the first move was before this process."""
    store, clock = Store(), at(NOW)
    await Chronicle(store, clock).note_move(USER, "fenced", PEER)
    chronicle = Chronicle(store, clock)
    await chronicle.note_move(OTHER, "opened", PEER)
    await chronicle.note_move(USER, "opened", PEER)
    clock.advance(BACK)
    await chronicle.note_move(USER, "fenced", PEER)
    assert [one.is_back for one in chronicle.moves] == [False, False, True, False]
    assert await store.moves() == [*chronicle.moves]


@pytest_twisted.ensureDeferred
async def test_a_store_that_is_away() -> None:
    """What happens is shown all the same."""
    store, clock = Store(), at(NOW)
    store.is_away = True
    chronicle = Chronicle(store, clock)
    await chronicle.note_fork(USER, PEER)
    await chronicle.note_move(USER, "opened", PEER)
    assert chronicle.forked() == {USER: NOW}
    assert [one.what for one in chronicle.moves] == ["opened"]
