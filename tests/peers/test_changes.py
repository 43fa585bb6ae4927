"""The stream of changes: what is hinted at, to whom, and how long."""

from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from pkarr.keys import Keypair
from pubky_homeserver.core.copies import Hint
from pubky_homeserver.core.errors import PeerAway
from pubky_homeserver.core.peers import NONE, Peer, Selection
from pubky_homeserver.core.records import Account
from pubky_homeserver.peers.changes import BEAT, PAUSE, Changes
from pubky_homeserver.peers.client import SILENCE
from pubky_homeserver.store.memory import MemoryStore
from tests.contract.store import ALICE, BOB, entry
from tests.peers.peering import Peering, peering
from tests.peers.test_moving import claim, end, lives_at
from tests.peers.worlds import User as WorldUser
from tests.peers.worlds import World, mutual
from tests.web.sockets import turns, until


@define
class Listener:
    """Who listens to the changes of a peer."""

    pair: Peering
    heard: list[Hint | None] = field(factory=list)
    beats: int = 0
    ended: BaseException | None = None
    _running: Deferred[None] | None = None

    def begin(self) -> None:
        """Listen."""

        def end(failure: Any) -> None:
            self.ended = failure.value

        self._running = Deferred.fromCoroutine(self.pair.client.changes(self.heard.append, self._beat))
        self._running.addErrback(end)

    def stop(self) -> None:
        """Listen no more."""
        if self._running is not None:
            self._running.cancel()

    def _beat(self) -> None:
        self.beats += 1


@pytest_twisted.async_yield_fixture
async def listener() -> AsyncIterator[Listener]:
    """A peer that listens, and has heard that it does."""
    async with peering() as pair:
        one = Listener(pair)
        one.begin()
        await until(lambda: one.beats)
        assert one.heard == [None]
        yield one
        one.stop()
        await turns()


@pytest_twisted.ensureDeferred
async def test_a_change_is_hinted_at(listener: Listener) -> None:
    """Soon after each write there is a hint with the number of the log's newest event; many in a row share one."""
    pair, pubky = listener.pair, listener.pair.owner.pubky
    await pair.put("/pub/a", b"one")
    await until(lambda: listener.heard[-1] == Hint(pubky, False, 1))
    await pair.delete("/pub/a")
    await pair.put("/pub/a", b"two")
    await turns()
    assert listener.heard[-1] == Hint(pubky, False, 1)
    pair.home.clock.advance(PAUSE)
    await until(lambda: listener.heard[-1] == Hint(pubky, False, 3))
    assert Hint(pubky, False, 2) not in listener.heard


@pytest_twisted.ensureDeferred
async def test_a_new_account_is_hinted_at(listener: Listener) -> None:
    """Who signs up is told of at once, though nothing is written; but not to who may not follow them."""
    pair = listener.pair
    known = len(listener.heard)
    other = await pair.home.sign_up()
    pair.home.clock.advance(0)
    await until(lambda: len(listener.heard) > known)
    assert listener.heard[known:] == [Hint(other.pubky, False, 0)]
    listener.stop()
    pair.set(offer=Selection(keys=frozenset([pair.owner.pubky])))
    third = Listener(pair)
    third.begin()
    await until(lambda: third.beats)
    await pair.home.sign_up()
    pair.home.clock.advance(BEAT)
    await until(lambda: third.beats == 2)
    assert third.heard == [None]
    third.stop()


@pytest_twisted.ensureDeferred
async def test_an_account_without_a_write_is_copied_everywhere() -> None:
    """A copy begins soon after the sign-up; and so it does where only the new homeserver of a user is followed."""
    trust = mutual("a", "b", "c")
    del trust["c"]["a"], trust["a"]["c"]
    world = World(Random(7), trust)
    for name in trust:
        await world.start(name)
    world.pass_time(30)
    user = WorldUser(Keypair(b"\x07" * 32))
    await world.sign_up(user, "a")
    world.pass_time(10)
    for name, is_there in (("b", True), ("c", False)):
        assert (await world.nodes[name].store.copies.copy(user.pubky) is not None) is is_there, name
    await claim(world, user, "b")
    await world.point(user, "b")
    world.pass_time(30)
    assert await lives_at(world.nodes["b"], user)
    for name in ("a", "c"):
        copy = await world.nodes[name].store.copies.copy(user.pubky)
        assert copy is not None, name
        assert copy.public.is_whole, name
    await end(world)


@pytest_twisted.ensureDeferred
async def test_beats_come_though_nothing_happens(listener: Listener) -> None:
    """Every few seconds the peer says that it has told of everything; it stops when the peer does not listen."""
    clock = listener.pair.home.clock
    for _ in range(3):
        before = listener.beats
        clock.advance(BEAT - 0.01)
        await turns()
        assert listener.beats == before
        clock.advance(0.02)
        await until(lambda: listener.beats != before)  # noqa: B023  # it is awaited here
    assert listener.heard == [None]


@pytest_twisted.ensureDeferred
async def test_beats_tell_nothing_of_what_is_not_offered() -> None:
    """I14: they name the newest event that the peer may read, not one of another account, nor when that was."""
    clock = Clock()
    clock.advance(1_795_387_747)
    store = MemoryStore(clock)
    for pubky in (ALICE, BOB):
        await store.sign_up(Account(pubky, 1), None, None, False)
    changes = Changes(store, store.logs, clock, lambda: "e")
    pieces = changes.of(Peer("bob", "b", offer=Selection(keys=frozenset([ALICE])), private=True))
    heard: list[bytes] = []

    async def listen() -> None:
        async for piece in pieces:
            heard.append(piece)

    listening = Deferred.fromCoroutine(listen())
    beats: list[int] = []
    for pubky, path in ((BOB, "/priv/a"), (ALICE, "/priv/a"), (BOB, "/priv/b"), (BOB, "/pub/b"), (ALICE, "/pub/a")):
        await store.put(pubky, entry(path), None, True)
        clock.pump([0.1] * int(BEAT * 10 + 2))
        beats.append(int(heard[-1].rpartition(b"data: ")[2]))
    mine = [one.id for one in await store.events(0, 10, True) if one.pubky == ALICE]
    assert beats == [0, mine[0], mine[0], mine[0], mine[1]]
    changes.stop()
    assert listening.called


@pytest_twisted.ensureDeferred
async def test_what_is_not_offered_is_not_hinted_at(listener: Listener) -> None:
    """Neither private logs nor accounts of others: only that time passes."""
    pair = listener.pair
    await pair.put("/priv/secret", b"my diary")
    await pair.put("/pub/a", b"one")
    await until(lambda: len(listener.heard) > 1)
    assert listener.heard == [None, Hint(pair.owner.pubky, False, 1)]
    # The stream keeps the settings that it began with: they change with the process.
    listener.stop()
    pair.set(offer=NONE)
    other = Listener(pair)
    other.begin()
    await until(lambda: other.beats)
    await pair.put("/pub/a", b"two")
    await turns()
    pair.home.clock.advance(BEAT)
    await until(lambda: other.beats == 2)
    assert other.heard == [None]
    other.stop()


@pytest_twisted.ensureDeferred
async def test_private_logs_of_who_may_read_them() -> None:
    """With `private` both logs are hinted at."""
    async with peering() as pair:
        pair.set(private=True)
        one = Listener(pair)
        one.begin()
        await until(lambda: one.beats)
        await pair.put("/priv/secret", b"my diary")
        await until(lambda: one.heard == [None, Hint(pair.owner.pubky, True, 1)])
        one.stop()
        await turns()


@pytest_twisted.ensureDeferred
async def test_nothing_is_told_of_the_time_of_private_writes() -> None:
    """A beat names no event that the peer may not read."""
    async with peering() as pair:
        await pair.put("/priv/secret", b"my diary")
        stream = pair.site._changes.of(next(iter(pair.settings.values())))  # the stream as it is sent
        assert await stream.asend(None) == b"event: epoch\ndata: e1\n\n"
        assert await stream.asend(None) == b"event: beat\ndata: 0\n\n"
        await stream.aclose()


@pytest_twisted.ensureDeferred
async def test_hints_since_an_event() -> None:
    """Who comes back with the event of the last beat hears what it missed, once for each log."""
    async with peering() as pair:
        for body in (b"one", b"two", b"three"):
            await pair.put("/pub/a", body)
        first = (await pair.home.store.events(0, 1, False))[0].id
        stream = pair.site._changes.of(next(iter(pair.settings.values())), first)
        await stream.asend(None)
        hint = await stream.asend(None)
        assert hint == b'event: change\ndata: {"pubky":"%b","log":"pub","seq":3}\n\n' % pair.owner.pubky.encode()
        last = await pair.home.store.last_event_id()
        assert await stream.asend(None) == b"event: beat\ndata: %d\n\n" % last
        await stream.aclose()


@pytest_twisted.ensureDeferred
async def test_nobody_on_the_way_keeps_pieces_back(listener: Listener) -> None:
    """What is told is told at once: caches and proxies are asked not to gather it."""
    pair = listener.pair
    answer = Deferred.fromCoroutine(pair.ask("/peer/v1/changes"))
    await until(lambda: listener.ended)
    await turns()
    pair.site.stop()
    fields = dict((await answer).headers)
    assert fields["content-type"] == "text/event-stream"
    assert (fields["cache-control"], fields["x-accel-buffering"]) == ("no-store", "no")


@pytest_twisted.ensureDeferred
async def test_the_stream_ends_with_the_epoch(listener: Listener) -> None:
    """A store that was restarted may have forgotten something: all accounts must be asked about again."""
    listener.pair.epochs.append("e2")
    listener.pair.home.clock.advance(BEAT)
    await until(lambda: listener.ended)
    assert isinstance(listener.ended, PeerAway)


@pytest_twisted.ensureDeferred
async def test_a_peer_has_one_stream(listener: Listener) -> None:
    """A new one ends the one before, which may be of a connection that is long dead."""
    other = Listener(listener.pair)
    other.begin()
    await until(lambda: listener.ended)
    assert isinstance(listener.ended, PeerAway)
    await until(lambda: other.beats)
    await listener.pair.put("/pub/a", b"one")
    await until(lambda: len(other.heard) == 2)
    assert len(listener.heard) == 1
    other.stop()


@pytest_twisted.ensureDeferred
async def test_streams_end_when_the_homeserver_stops(listener: Listener) -> None:
    """They would hold it up otherwise."""
    listener.pair.site.stop()
    await until(lambda: listener.ended)


@pytest_twisted.ensureDeferred
async def test_no_stream_begins_when_the_homeserver_has_stopped(listener: Listener) -> None:
    """A request that comes in between, before the ports close, is answered with a stream that is over, and no timer."""
    listener.pair.site.stop()
    other = Listener(listener.pair)
    other.begin()
    await until(lambda: other.ended)
    assert isinstance(other.ended, PeerAway)
    assert other.heard == []
    assert not [call for call in listener.pair.home.clock.getDelayedCalls() if "addTimeout" in repr(call)]


@pytest_twisted.ensureDeferred
async def test_who_listens_no_more_leaves_nothing(listener: Listener) -> None:
    """The stream of a peer that hung up is gone, with its timer."""
    listener.stop()
    clock = listener.pair.home.clock
    await until(lambda: not listener.pair.site._changes._listening)
    assert not [call for call in clock.getDelayedCalls() if "Alarm" in repr(call)]


@pytest_twisted.ensureDeferred
async def test_silence_is_an_end(listener: Listener) -> None:
    """A peer that says nothing for three beats is away, though its connection may seem alive."""
    alarm = listener.pair.site._changes._listening[next(iter(listener.pair.settings))]
    alarm._clock = type(listener.pair.home.clock)()  # the peer's clock stands still from its next wait on
    listener.pair.home.clock.advance(BEAT)
    await until(lambda: listener.beats == 2)
    listener.pair.home.clock.advance(SILENCE - 0.01)
    await turns()
    assert listener.ended is None
    listener.pair.home.clock.advance(0.01)
    await until(lambda: listener.ended)
    with pytest.raises(PeerAway, match="nothing came"):
        raise listener.ended or AssertionError
