"""Bodies as files: what happens on the disk, and when things go wrong there."""

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, gatherResults
from twisted.internet.task import Clock, deferLater

from pubky_homeserver.blobs import PIECE, FileBlobs
from pubky_homeserver.core.errors import StorageFull, StoreAway
from pubky_homeserver.interfaces import IBlobWriter
from tests.small_disk import free, small_disk

reactor: Any = _reactor
BODY = os.urandom(2 * PIECE + 1)


@define(eq=False)
class SlowThreads:
    """The reactor's threads, whose work waits at a gate."""

    gate: threading.Event = field(factory=threading.Event)
    calls: int = 0

    def getThreadPool(self) -> Any:
        """The pool itself, which is asked for the work."""
        return self

    def callInThreadWithCallback(self, done: Callable[..., Any], work: Callable[..., Any], *words: Any) -> None:
        """Do it behind the gate."""
        self.calls += 1

        def wait() -> Any:
            assert self.gate.wait(20)
            return work(*words)

        reactor.getThreadPool().callInThreadWithCallback(done, wait)

    def callFromThread(self, call: Callable[..., Any], *words: Any) -> None:
        """Back to the reactor."""
        reactor.callFromThread(call, *words)


def files(folder: Path) -> list[Path]:
    """All files below a folder."""
    return [file for file in folder.rglob("*") if file.is_file()]


def opened(folder: Path) -> list[str]:
    """What this process has open below a folder."""
    links = [os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    places = [os.readlink(link) for link in links if os.path.lexists(link)]
    return [place for place in places if place.startswith(str(folder))]


async def until(holds: Callable[[], Any]) -> None:
    """Let the reactor run until this holds."""
    deadline = reactor.seconds() + 20
    while not holds():
        assert reactor.seconds() < deadline, "it never came true"
        await deferLater(reactor, 0.005)


def start(coroutine: Any) -> "Deferred[Any]":
    """Let it run by itself."""
    return Deferred.fromCoroutine(coroutine)


async def soon(waiting: Any) -> Any:
    """Its result, or a failure if that does not come."""
    return await ensureDeferred(waiting).addTimeout(20, reactor)


async def write_all(writer: IBlobWriter, chunks: list[bytes]) -> str:
    """Keep a body that comes in these pieces."""
    for chunk in chunks:
        await writer.write(chunk)
    return await writer.keep()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the bodies are."""
    return tmp_path / "blobs"


def make(path: Path, threads: Any = reactor, **options: Any) -> FileBlobs:
    """A blob store that is ready."""
    blobs = FileBlobs(path, options.pop("clock", reactor), threads, **{"reserve": 0, **options})
    blobs.prepare()
    return blobs


# --- on the disk --------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_where_a_body_is(path: Path) -> None:
    """A kept body is one read-only-to-others file under its id, nothing else is left, and nothing stays open."""
    blobs = make(path)
    writer = await blobs.create()
    await writer.write(BODY)
    await writer.write(BODY)  # waits for the first piece
    assert [file.parent.name for file in files(path)] == ["tmp"]
    blob = await writer.keep()
    assert files(path) == [path / blob[:2] / blob[2:]]
    assert files(path)[0].read_bytes() == 2 * BODY
    for place in [path, *path.rglob("*")]:
        assert place.stat().st_mode & 0o077 == 0
    assert opened(path) == []


@pytest_twisted.ensureDeferred
async def test_left_overs(path: Path) -> None:
    """What an earlier run did not finish goes when the next one starts alone; what it kept stays."""
    blobs = make(path)
    kept = await blobs.create()
    blob = await kept.keep()
    unfinished = await blobs.create()
    await unfinished.write(BODY)
    await unfinished.write(BODY)  # waits for the first piece
    blobs.prepare(alone=False)
    assert len(files(path)) == 2
    make(path)
    assert files(path) == [path / blob[:2] / blob[2:]]


@pytest_twisted.ensureDeferred
async def test_strange_files(path: Path) -> None:
    """Files that nobody here made are no bodies: the sweep does not hear of them."""
    blobs = make(path)
    for name in ("ab/" + "g" * 30, "ab/" + "0" * 29, "cd/.hidden", "README", "tmp/" + "0" * 32):
        (path / name).touch()
    (path / "abc").mkdir()
    (path / "abc" / ("0" * 29)).touch()
    assert await blobs.older_than(-1000, "", 100) == []


@pytest_twisted.ensureDeferred
async def test_pages_within_a_folder(path: Path) -> None:
    """Bodies of one folder come in the order of their ids too, whatever order the disk has, page by page."""
    blobs = make(path)
    ids = [f"{folder}{os.urandom(15).hex()}" for folder in ("ab", "00", "ff") for _ in range(40)]
    for blob in ids:
        (path / blob[:2] / blob[2:]).touch()
    seen: list[str] = []
    while page := await blobs.older_than(-1000, seen[-1] if seen else "", 7):
        seen += page
        assert len(seen) <= len(ids)
    assert seen == sorted(ids)


KILLED = """
import sys
from pathlib import Path
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from pubky_homeserver.blobs import FileBlobs

blobs = FileBlobs(Path(sys.argv[1]), reactor, reactor, reserve=0)
blobs.prepare()

async def write():
    while True:
        writer = await blobs.create()
        for _ in range(8):
            await writer.write(b"x" * 200_000)
        print(await writer.keep(), flush=True)

for _ in range(4):
    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(write()))
reactor.run()
"""


@pytest.mark.parametrize("after", [1, 7])
def test_killed_while_it_writes(after: int, path: Path) -> None:
    """A process that is killed between any two steps leaves whole bodies and things in `tmp`, nothing else."""
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = [process.stdout.readline().strip() for _ in range(after)]
    process.send_signal(signal.SIGKILL)
    told += process.communicate()[0].split()
    make(path)
    kept = {file.parent.name + file.name: file.stat().st_size for file in files(path)}
    assert {blob for blob in told if len(blob) == 32} <= set(kept)
    assert set(kept.values()) == {1_600_000}


# --- no room ------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB."""
    with small_disk(tmp_path / "disk", 4 << 20) as disk:
        yield disk


@pytest_twisted.ensureDeferred
async def test_the_reserve(disk: Path) -> None:
    """Bodies stop at the reserve, in their middle too, and what they had written is free again."""
    clock = Clock()
    blobs = make(disk / "blobs", clock=clock, reserve=1 << 20)
    writer = await blobs.create()
    with pytest.raises(StorageFull):
        await write_all(writer, [BODY[:PIECE]] * 100)
    assert files(disk) == []
    assert opened(disk) == []
    await writer.discard()
    clock.advance(1)
    assert blobs.has_room()
    keeping = await blobs.create()
    await keeping.write(BODY)
    blob = await keeping.keep()
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(free(disk) - (1 << 20)))
    assert blobs.has_room()  # as it was, less than a second ago
    clock.advance(1)
    assert not blobs.has_room()
    with pytest.raises(StorageFull):
        await blobs.create()
    ballast.unlink()
    clock.advance(1)
    assert blobs.has_room()
    assert await blobs.older_than(-(1 << 40), "", 10) == [blob]


@pytest_twisted.ensureDeferred
async def test_room_that_was_made(disk: Path) -> None:
    """Who removes bodies to make room sees at once whether it is enough."""
    blobs = make(disk / "blobs", clock=Clock(), reserve=2 << 20)
    writer = await blobs.create()
    await writer.write(BODY)
    blob = await writer.keep()
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(free(disk) - (2 << 20)))
    blobs = make(disk / "blobs", clock=Clock(), reserve=2 << 20)
    assert not blobs.has_room()
    await blobs.remove([blob])
    assert blobs.has_room()


def test_room_elsewhere(disk: Path) -> None:
    """Where who keeps what belongs to the bodies has no room, there is no room for bodies either."""
    answers = [False, True]
    blobs = make(disk / "blobs", clock=Clock(), reserve=0)
    blobs.elsewhere = lambda: answers.pop(0)
    assert not blobs.has_room()
    assert blobs.has_room()


@pytest_twisted.ensureDeferred
async def test_between_two_looks(disk: Path) -> None:
    """What is written between two looks at the free space counts at once: fast writers do not pass the reserve."""
    blobs = make(disk / "blobs", clock=Clock(), reserve=2 << 20)
    writers = [await blobs.create() for _ in range(20)]
    results: list[Any] = await gatherResults(
        [start(writer.write(BODY[:PIECE])).addErrback(lambda failure: failure.trap(StorageFull)) for writer in writers]
    )
    assert StorageFull in results
    assert free(disk) >= 2 << 20


@pytest.mark.parametrize("length", [PIECE - 1, PIECE, len(BODY)])
@pytest_twisted.ensureDeferred
async def test_a_full_disk(length: int, disk: Path) -> None:
    """A disk that is full in spite of the reserve: `StorageFull`, and nothing stays behind, on the disk or open."""
    blobs = make(disk / "blobs", max_open=1)
    assert blobs.has_room()
    (disk / "ballast").write_bytes(bytes(free(disk) - PIECE // 2))
    for _ in range(3):
        writer = await soon(blobs.create())
        with pytest.raises(StorageFull):
            await write_all(writer, [BODY[:length]])
        assert len(files(disk)) == 1
        assert opened(disk) == []
    os.unlink(disk / "ballast")
    writer = await blobs.create()
    await writer.write(BODY)
    await writer.keep()


@pytest.mark.parametrize("step", ["write little", "write much", "keep"])
@pytest_twisted.ensureDeferred
async def test_a_full_disk_while_the_client_is_slow(step: str, disk: Path) -> None:
    """A piece that failed before the next one came is told by the next step as what it was: a full disk."""
    blobs = make(disk / "blobs", max_open=1)
    assert blobs.has_room()
    (disk / "ballast").write_bytes(bytes(free(disk) - PIECE // 2))
    writer = await blobs.create()
    await writer.write(BODY[:PIECE])
    other = await soon(blobs.create())  # it has failed, for its place is free
    steps = {
        "write little": lambda: writer.write(b"x"),
        "write much": lambda: writer.write(BODY),
        "keep": writer.keep,
    }
    with pytest.raises(StorageFull):
        await steps[step]()
    with pytest.raises(ValueError, match="kept or discarded"):
        await steps[step]()
    await writer.discard()
    await other.discard()
    assert len(files(disk)) == 1


@pytest_twisted.ensureDeferred
async def test_another_error(path: Path) -> None:
    """An error of the disk that is none of room is raised as it is, and leaves nothing behind."""
    blobs = make(path)
    writer = await blobs.create()
    await writer.write(BODY)
    for folder in path.iterdir():
        if folder.name != "tmp":
            folder.rmdir()
    with pytest.raises(OSError) as error:
        await writer.keep()
    assert error.value.errno == errno.ENOENT
    assert files(path) == []
    assert opened(path) == []


# --- clients that hang up -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["discard", "nothing"])
@pytest_twisted.ensureDeferred
async def test_write_given_up(ending: str, path: Path) -> None:
    """Who hangs up while a thread writes does not take its descriptor away: it is closed when the thread is done."""
    threads = SlowThreads()
    blobs = make(path, threads, max_open=1)
    writer = await blobs.create()
    await writer.write(BODY)  # on its way; the next piece has to wait for it
    writing = start(writer.write(BODY))
    writing.cancel()
    with pytest.raises(CancelledError):
        await writing
    discarding = start(writer.discard())
    if ending == "nothing":
        discarding.cancel()
        discarding.addErrback(lambda failure: failure.trap(CancelledError) and None)
    assert threads.calls == 1
    threads.gate.set()
    await discarding
    again = await soon(blobs.create())  # waits for the only place
    assert files(path) == []
    assert opened(path) == []
    await again.discard()


@pytest_twisted.ensureDeferred
async def test_keep_given_up(path: Path) -> None:
    """A `keep` that nobody waits for any more ends by itself: a whole body that is an orphan."""
    threads = SlowThreads()
    blobs = make(path, threads, max_open=1)
    writer = await blobs.create()
    await writer.write(b"body")
    keeping = start(writer.keep())
    keeping.cancel()
    with pytest.raises(CancelledError):
        await keeping
    await writer.discard()
    threads.gate.set()
    await (await soon(blobs.create())).discard()
    assert [file.read_bytes() for file in files(path)] == [b"body"]
    assert opened(path) == []


@pytest_twisted.ensureDeferred
async def test_read_given_up(path: Path) -> None:
    """A reader that is closed while a thread reads keeps its descriptor until the thread is done."""
    threads = SlowThreads()
    blobs = make(path, threads)
    blobs._peeks = False  # a file system that cannot tell what it has in memory
    threads.gate.set()
    writer = await blobs.create()
    await writer.write(BODY)
    reader = await blobs.open(await writer.keep())
    assert reader is not None
    threads.gate.clear()
    reading = [start(reader.read(0, 100)), start(reader.read(100, 100))]
    reading[0].cancel()
    with pytest.raises(CancelledError):
        await reading[0]
    reader.close()
    assert len(opened(path)) == 1
    threads.gate.set()
    assert await reading[1] == BODY[100:200]
    await until(lambda: opened(path) == [])


@pytest_twisted.ensureDeferred
async def test_open_given_up(path: Path) -> None:
    """A body that is opened for somebody who has gone is closed, and its place is free."""
    threads = SlowThreads()
    blobs = make(path, threads, max_open=1)
    threads.gate.set()
    blob = await (await blobs.create()).keep()
    threads.gate.clear()
    opening = start(blobs.open(blob))
    opening.cancel()
    with pytest.raises(CancelledError):
        await opening
    threads.gate.set()
    reader = await soon(blobs.open(blob))
    assert len(opened(path)) == 1
    reader.close()


@pytest_twisted.ensureDeferred
async def test_places(path: Path) -> None:
    """No more bodies are open at once than allowed; who comes late waits, and may leave while it waits."""
    blobs = make(path, max_open=2)
    blob = await (await blobs.create()).keep()
    first = await blobs.open(blob)
    second = await blobs.create()
    assert await start(blobs.open(blob)).addTimeout(0.05, reactor).addErrback(lambda _: "waited") == "waited"
    third = start(blobs.open(blob))
    fourth = start(blobs.create())
    assert not third.called
    assert first is not None
    first.close()
    await soon(third)
    assert not fourth.called
    await second.discard()
    await soon(fourth)
    for one in (third, fourth):
        assert one.called
    assert len(opened(path)) == 1


@pytest_twisted.ensureDeferred
async def test_missing_bodies_take_no_place(path: Path) -> None:
    """Asking for what is not there, or cannot be opened, costs no place."""
    blobs = make(path, max_open=1)
    for _ in range(3):
        assert await soon(blobs.open("0" * 32)) is None
    (path / "ab" / ("1" * 30)).symlink_to("/etc/passwd")
    for _ in range(3):
        with pytest.raises(OSError):
            await soon(blobs.open("ab" + "1" * 30))
    await (await soon(blobs.create())).keep()


@pytest_twisted.ensureDeferred
async def test_a_piece_that_failed_is_told_by_the_next_step(path: Path) -> None:
    """A piece is written while the next one is collected; if that fails, no later step makes a blob of the rest."""
    threads = SlowThreads()
    threads.gate.set()
    blobs = make(path, threads)
    writer = await blobs.create()
    await writer.write(BODY)
    await writer.write(BODY)
    (path / "tmp").rename(path / "gone")
    (path / "tmp").write_bytes(b"no folder")
    other = await blobs.create()
    await other.write(BODY)  # its file cannot be made, which nobody waits for yet
    with pytest.raises(NotADirectoryError):
        await other.keep()
    with pytest.raises(ValueError, match="kept or discarded"):
        await other.keep()
    await other.discard()
    (path / "tmp").unlink()
    (path / "gone").rename(path / "tmp")
    await writer.discard()
    assert files(path) == []


@pytest_twisted.ensureDeferred
async def test_what_is_at_hand_needs_no_thread(path: Path) -> None:
    """A body that the system has in memory is there at once, from any offset, and ends where it ends."""
    threads = SlowThreads()
    threads.gate.set()
    blobs = make(path, threads)
    writer = await blobs.create()
    await writer.write(BODY)
    reader = await blobs.open(await writer.keep())
    assert reader is not None
    calls = threads.calls
    for offset, expected in ((0, BODY[:10]), (len(BODY) - 5, BODY[-5:]), (len(BODY), b"")):
        found = reader.at_hand(offset, 10)
        assert found is not None
        assert bytes(found) == expected
    assert threads.calls == calls
    assert await reader.read(0, 10) == BODY[:10]
    assert threads.calls == calls + 1
    reader.close()


@pytest_twisted.ensureDeferred
async def test_a_disk_that_is_away(tmp_path: Path) -> None:
    """A body that is gone is none; where all are gone the disk is perhaps not there, and nobody says so of a body."""
    blobs = make(tmp_path / "blobs")
    writer = await blobs.create()
    await writer.write(BODY)
    blob = await writer.keep()
    await blobs.remove([blob])
    assert await blobs.open(blob) is None
    (tmp_path / "blobs").rename(tmp_path / "elsewhere")
    with pytest.raises(StoreAway):
        await blobs.open(blob)
    (tmp_path / "elsewhere").rename(tmp_path / "blobs")
    assert await blobs.open(blob) is None
