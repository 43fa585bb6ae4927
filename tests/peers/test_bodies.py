"""Bodies on their way from a peer: one that is cut goes on where it broke off, and is whole or not there."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet.task import Clock

from pubky_homeserver.core.errors import PeerAway
from pubky_homeserver.core.records import Entry
from pubky_homeserver.peers.bodies import LEAST, Bodies
from pubky_homeserver.testing import MemoryBlobs
from tests.peers.peering import hash_of

BODY = bytes(range(256)) * 2048


@define
class Cutting:
    """A peer whose answers break off after so many bytes, as long as there are cuts left."""

    after: int
    cuts: int
    starts: list[int] = field(factory=list)
    key: str = "k"

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
    blobs = MemoryBlobs(Clock())
    source: Any = peer
    entry = Entry("/pub/a", hash_of(BODY), len(BODY), "text/plain", 1)
    return Bodies(source, blobs, 4096, lambda _length: True), blobs, entry


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
    """Who brings next to nothing with each answer is not asked on, and nothing is left behind."""
    peer = Cutting(LEAST - 1, 100)
    bodies, blobs, entry = fetching(peer)
    with pytest.raises(PeerAway):
        await bodies.fetched("u", False, entry)
    assert peer.starts == [0]
    assert await blobs.older_than(-1, "", 10) == []
