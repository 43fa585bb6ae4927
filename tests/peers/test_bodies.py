"""Bodies on their way from a peer: one that is cut goes on where it broke off, and is whole or not there."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet.task import Clock

from pubky_homeserver.core.errors import PeerAway
from pubky_homeserver.core.peers import Greeting
from pubky_homeserver.core.records import Entry
from pubky_homeserver.peers.bodies import LEAST, MOST, TRIES, Bodies, Wrong
from pubky_homeserver.testing import MemoryBlobs
from tests.peers.peering import hash_of

BODY = bytes(range(256)) * 2048


@define
class Cutting:
    """A peer whose answers break off after so many bytes, as long as there are cuts left; it may say nothing else."""

    after: int
    cuts: int
    starts: list[int] = field(factory=list)
    is_there: bool = True
    greeted: int = 0
    key: str = "k"

    async def greet(self) -> Greeting:
        """See `IPeer`."""
        self.greeted += 1
        if not self.is_there:
            raise PeerAway("no answer")
        return Greeting()

    async def body(self, pubky: str, private: bool, path: str, content_hash: bytes, start: int = 0) -> Any:
        """See `IPeer`."""
        self.starts.append(start)
        return self._pieces(start)

    async def _pieces(self, start: int) -> AsyncIterator[bytes]:
        if self.cuts:
            self.cuts -= 1
            yield BODY[start : start + self.after]
            raise PeerAway("the answer broke off")
        yield BODY[start:]


def fetching(peer: Cutting) -> tuple[Bodies, MemoryBlobs, Entry]:
    """Who fetches, into what, and for which entry."""
    clock = Clock()
    blobs = MemoryBlobs(clock)
    source: Any = peer
    entry = Entry("/pub/a", hash_of(BODY), len(BODY), "text/plain", 1)
    return Bodies(source, blobs, 4096, lambda _length: True, clock=clock), blobs, entry


@pytest_twisted.ensureDeferred
async def test_a_body_that_is_cut_again_and_again() -> None:
    """Each further question is for the rest, and the body is whole in the end."""
    peer = Cutting(LEAST + 1, 5)
    bodies, blobs, entry = fetching(peer)
    whole = await bodies.fetched("u", False, entry)
    assert whole.blob is not None
    reader = await blobs.open(whole.blob)
    assert reader is not None
    assert await reader.read(0, len(BODY) + 1) == BODY
    assert peer.starts == [number * (LEAST + 1) for number in range(6)]


@pytest_twisted.ensureDeferred
async def test_a_body_that_does_not_come_forward() -> None:
    """Who brings next to nothing with each answer is asked on a few times; then the entry goes without a body.

    Nothing is left behind.
    """
    peer = Cutting(LEAST - 1, 100)
    bodies, blobs, entry = fetching(peer)
    assert await bodies.fetched("u", False, entry) == entry
    assert peer.starts == [number * (LEAST - 1) for number in range(TRIES)]
    assert await blobs.older_than(-1, "", 10) == []


@pytest_twisted.ensureDeferred
async def test_a_peer_that_is_away() -> None:
    """Who says nothing else either is away, which is no fault of the body; it is not asked on."""
    peer = Cutting(10, 100, is_there=False)
    bodies, blobs, entry = fetching(peer)
    with pytest.raises(PeerAway):
        await bodies.fetched("u", False, entry)
    assert (peer.starts, peer.greeted) == ([0], 1)
    assert await blobs.older_than(-1, "", 10) == []


def test_wrong_bodies_rest() -> None:
    """Longer each time, up to some hours; what is right is forgotten, and of many the oldest."""
    clock = Clock()
    wrong, one = Wrong(clock), ("u", "/pub/a", b"h", 1)
    assert not wrong.rests(one)
    for delay in (5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10_240, 20_480, 21_600, 21_600):
        wrong.add(one)
        clock.advance(delay - 1)
        assert wrong.rests(one)
        clock.advance(1)
        assert not wrong.rests(one)
    wrong.forget(one)
    assert one not in wrong
    for number in range(MOST + 1):
        wrong.add(("u", "/pub/a", b"h", number))
    assert [("u", "/pub/a", b"h", number) in wrong for number in (0, 1, MOST)] == [False, True, True]
