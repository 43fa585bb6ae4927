"""What every `IBlobStore` does: one suite for files and for memory."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from pubky_homeserver.blobs import PIECE, FileBlobs
from pubky_homeserver.core.errors import StorageFull
from pubky_homeserver.interfaces import IBlobReader, IBlobStore, IBlobWriter
from pubky_homeserver.testing import MemoryBlobs

reactor: Any = _reactor
BODY = os.urandom(3 * PIECE + 17)


@pytest.fixture
def clock() -> Clock:
    """A clock that starts now, for files know the real time."""
    clock = Clock()
    clock.advance(reactor.seconds())
    return clock


@pytest.fixture(params=["files", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Any:
    """A blob store of either kind."""
    if request.param == "memory":
        return MemoryBlobs(clock)
    files = FileBlobs(tmp_path / "blobs", clock, reactor, reserve=0)
    files.prepare()
    return files


async def keep(blobs: Any, *chunks: bytes) -> str:
    """Keep a body that comes in these pieces."""
    writer = await blobs.create()
    for chunk in chunks:
        await writer.write(chunk)
    blob: str = await writer.keep()
    return blob


async def content(blobs: Any, blob: str) -> bytes | None:
    """A whole body; None if it is not here."""
    reader = await blobs.open(blob)
    if reader is None:
        return None
    body: bytes = await reader.read(0, reader.length + 1)
    reader.close()
    return body


def fill(blobs: Any) -> None:
    """Take all free space away."""
    if isinstance(blobs, MemoryBlobs):
        blobs.room = False
    else:
        blobs.reserve = 1 << 62


@pytest_twisted.ensureDeferred
async def test_provides_the_port(blobs: Any) -> None:
    """Stores, writers and readers have what their interfaces promise."""
    writer = await blobs.create()
    blob = await writer.keep()
    reader = await blobs.open(blob)
    assert verifyObject(IBlobStore, blobs)
    assert verifyObject(IBlobWriter, writer)
    assert verifyObject(IBlobReader, reader)
    reader.close()


@pytest.mark.parametrize("cut", [0, 1, 4096, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, len(BODY)])
@pytest_twisted.ensureDeferred
async def test_keeps_what_was_written(blobs: Any, cut: int) -> None:
    """A body comes back byte for byte, however it arrived in pieces, and under a new id each time."""
    first = await keep(blobs, BODY[:cut], BODY[cut:])
    second = await keep(blobs, BODY[:cut])
    assert first != second
    assert len(first) == len(second) == 32
    assert await content(blobs, first) == BODY
    assert await content(blobs, second) == BODY[:cut]


@pytest.mark.parametrize(
    ("offset", "size", "expected"),
    [(0, 4, b"0123"), (3, 3, b"345"), (8, 100, b"89"), (10, 5, b""), (1000, 5, b""), (4, 0, b"")],
)
@pytest_twisted.ensureDeferred
async def test_reads_ranges(blobs: Any, offset: int, size: int, expected: bytes) -> None:
    """A read gives what there is of the range; nothing at the end and beyond."""
    reader = await blobs.open(await keep(blobs, b"0123456789"))
    assert reader.length == 10
    assert await reader.read(offset, size) == expected
    assert reader.at_hand(offset, size) in (expected, None)
    reader.close()


@pytest.mark.parametrize(
    "blob", ["0" * 32, "", "zz", "../../../etc/passwd", "AB" * 16, "0" * 31 + "/", "ab" * 15 + "\n0"]
)
@pytest_twisted.ensureDeferred
async def test_unknown_ids(blobs: Any, blob: str) -> None:
    """An id that nobody gave out, well-formed or not, has no body, and removing it is harmless."""
    assert await blobs.open(blob) is None
    await blobs.remove([blob])


@pytest_twisted.ensureDeferred
async def test_removed_while_open(blobs: Any) -> None:
    """Who reads a body reads it to its end, though it was removed meanwhile; nobody opens it again."""
    blob = await keep(blobs, BODY)
    reader = await blobs.open(blob)
    await blobs.remove([blob])
    assert await blobs.open(blob) is None
    assert await reader.read(0, len(BODY)) == BODY
    reader.close()


@pytest_twisted.ensureDeferred
async def test_discarded(blobs: Any, clock: Clock) -> None:
    """A body that is discarded is not there; discarding twice or after `keep` changes nothing."""
    for amount in (0, 10, 2 * PIECE):
        writer = await blobs.create()
        await writer.write(BODY[:amount])
        await writer.discard()
        await writer.discard()
    clock.advance(100)
    assert await blobs.older_than(10, "", 10) == []
    writer = await blobs.create()
    await writer.write(b"kept")
    blob = await writer.keep()
    await writer.discard()
    assert await content(blobs, blob) == b"kept"


@pytest_twisted.ensureDeferred
async def test_after_the_end(blobs: Any) -> None:
    """A writer that is finished, and a reader that is closed, refuse more work instead of doing damage."""
    writer = await blobs.create()
    blob = await writer.keep()
    reader = await blobs.open(blob)
    reader.close()
    reader.close()
    late: list[Callable[[], Any]] = [lambda: writer.write(b"x"), writer.keep, lambda: reader.read(0, 1)]
    with pytest.raises(ValueError):
        reader.at_hand(0, 1)
    for step in late:
        with pytest.raises(ValueError):
            await step()
    assert await content(blobs, blob) == b""


@pytest_twisted.ensureDeferred
async def test_no_room(blobs: Any, clock: Clock) -> None:
    """Below the reserve no body begins and none goes on, and what there is stays readable."""
    blob = await keep(blobs, b"before")
    writer = await blobs.create()
    assert blobs.has_room()
    fill(blobs)
    clock.advance(2)
    assert not blobs.has_room()
    with pytest.raises(StorageFull):
        await blobs.create()
    with pytest.raises(StorageFull):
        await writer.write(BODY)
    await writer.discard()
    assert await blobs.older_than(-1000, "", 10) == [blob]
    assert await content(blobs, blob) == b"before"


@pytest_twisted.ensureDeferred
async def test_older_than(blobs: Any, clock: Clock) -> None:
    """The sweep sees every body that is old enough, in the order of the ids, page by page."""
    kept = sorted([await keep(blobs, b"x") for _ in range(20)])
    clock.advance(100)
    assert await blobs.older_than(110, "", 100) == []
    seen: list[str] = []
    while page := await blobs.older_than(90, seen[-1] if seen else "", 3):
        assert len(page) <= 3
        seen += page
        assert len(seen) <= len(kept)
    assert seen == kept
    await blobs.remove(kept[:15])
    assert await blobs.older_than(90, "", 100) == kept[15:]
