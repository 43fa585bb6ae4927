"""FileBlobs: bodies as immutable files under random ids.

A body is written to `tmp/`, flushed, renamed to its place and the name flushed; only then does anybody hear its id. So
a blob is whole, or it is not there, whenever the power goes. Nothing is ever overwritten: what is removed stays
readable for who has it open, and needs no lock.

All file work happens in the reactor's threads. A thread cannot be interrupted, so who gives up waiting does not stop
the work under way; and a descriptor is closed when the last thread is done with it, never earlier, because its number
may be another file's a moment later.
"""

import errno
import os
import re
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock, DeferredSemaphore
from twisted.internet.interfaces import IReactorThreads, IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from zope.interface import implementer

from pubky_homeserver.core.errors import StorageFull, StoreAway
from pubky_homeserver.durable import sync_folder
from pubky_homeserver.interfaces import IBlobReader, IBlobStore, IBlobWriter

T = TypeVar("T")

PIECE = 256 * 1024
"""Bytes that are collected before a thread writes them: few turns for large bodies, one for most."""

SCRATCH = 512 * 1024
"""Bytes that are read at once when they are in memory: on the loopback, downloads were fastest with this."""

FLUSH = 8 * 1024 * 1024
"""Bytes after which the disk is asked to begin with what it has got."""

RESERVE = 256 * 1024 * 1024
"""Free bytes that are left to Redis, whose log must never meet a full disk."""

LOOK = 1.0
"""Seconds between two looks at the free space."""

MAX_OPEN = 512
"""Bodies open at once, for reading and writing, unless it is told: half of what a process may have open at least."""

ID_LENGTH = 16
"""Random bytes in an id: two never meet."""

_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_FOLDER = re.compile(r"[0-9a-f]{2}", re.ASCII)
_REST = re.compile(r"[0-9a-f]{30}", re.ASCII)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def _apart(work: Deferred[T], unwanted: Callable[[T], object] = lambda _: None) -> Deferred[T]:
    """The result of some work. Who stops waiting for it does not stop it; then `unwanted` gets the result."""
    gone = False

    def leave(_: Deferred[T]) -> None:
        nonlocal gone
        gone = True

    waiting: Deferred[T] = Deferred(leave)

    def arrive(result: T | Failure) -> None:
        if not gone:
            waiting.callback(result)
        elif not isinstance(result, Failure):
            unwanted(result)

    work.addBoth(arrive)
    return waiting


@implementer(IBlobReader)
@define(eq=False)
class FileReader:
    """An open body. See `IBlobReader`."""

    length: int
    _blobs: "FileBlobs"
    _descriptor: int
    _busy: int = 0
    # Threads that read from it.
    _closed: bool = False

    def at_hand(self, offset: int, size: int) -> memoryview | None:
        """See `IBlobReader`."""
        self._check_open()
        return self._blobs.read_at_hand(self._descriptor, offset, size)

    async def read(self, offset: int, size: int) -> bytes:
        """See `IBlobReader`."""
        self._check_open()
        self._busy += 1
        work = self._blobs.in_thread(lambda: os.pread(self._descriptor, size, offset))
        work.addBoth(self._done)
        return await _apart(work)

    def close(self) -> None:
        """See `IBlobReader`."""
        if not self._closed:
            self._closed = True
            self._release()

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("the body is closed")

    def _done(self, result: T) -> T:
        self._busy -= 1
        if self._closed:
            self._release()
        return result

    def _release(self) -> None:
        if not self._busy:
            os.close(self._descriptor)
            self._blobs.give_back()


@implementer(IBlobWriter)
@define(eq=False)
class FileWriter:
    """A body on its way. See `IBlobWriter`.

    The file is made by the first thread that writes; a body below `PIECE` needs a single turn of a thread, in `keep`.
    """

    _blobs: "FileBlobs"
    _id: str = field(factory=lambda: secrets.token_hex(ID_LENGTH), init=False)
    _pending: bytearray = field(factory=bytearray, init=False)
    _descriptor: int | None = field(default=None, init=False)
    # The threads' own: one at a time, in turn.
    _turn: DeferredLock = field(factory=DeferredLock, init=False)
    _written: int = field(default=0, init=False)
    # Bytes that the threads have written.
    _writing: Deferred[None] | None = field(default=None, init=False)
    # The newest piece on its way; the next one is collected meanwhile.
    _over: bool = field(default=False, init=False)
    # No more steps are taken.
    _settled: bool = field(default=False, init=False)
    # Its place among the open files is given back.

    async def write(self, chunk: bytes) -> None:
        """See `IBlobWriter`."""
        await self._check_open()
        piece: bytes | bytearray = chunk
        if self._pending or len(chunk) < PIECE:
            self._pending += chunk
            if len(self._pending) < PIECE:
                return
            piece, self._pending = self._pending, bytearray()
        self._blobs.count(len(piece))
        if not self._blobs.has_room():
            await self.discard()
            raise StorageFull
        await self._catch_up()
        self._writing = self._step(lambda: self._append(piece))

    async def keep(self) -> str:
        """See `IBlobWriter`."""
        await self._check_open()
        self._blobs.count(len(self._pending))
        await self._catch_up()
        self._over = True
        await self._step(self._keep, last=True)
        return self._id

    async def discard(self) -> None:
        """See `IBlobWriter`."""
        if self._writing is not None:
            self._writing.addErrback(lambda _: None)  # what went wrong does not matter any more
        if not self._over:
            self._over = True
            await self._step(self._drop, last=True)

    async def _catch_up(self) -> None:
        """Wait for the piece on its way; what went wrong with it is raised here."""
        writing, self._writing = self._writing, None
        if writing is not None:
            await writing

    async def _check_open(self) -> None:
        """Raise why there are no more steps to take: the piece that failed, once, or that this was the end."""
        if self._over:
            await self._catch_up()
            raise ValueError("the body is kept or discarded")

    def _step(self, work: Callable[[], None], last: bool = False) -> Deferred[None]:
        """Have a thread do something, after what it does already. A step that fails is the last one."""

        def end(result: T) -> T:
            if last or isinstance(result, Failure):
                self._over = True
                self._settle()
            return result

        step: Deferred[None] = self._turn.run(self._blobs.in_thread, lambda: self._attempt(work))
        return _apart(step.addBoth(end))

    def _settle(self) -> None:
        if not self._settled:
            self._settled = True
            self._blobs.give_back()

    # --- in a thread ----------------------------------------------------------------------------------------------

    def _attempt(self, work: Callable[[], None]) -> None:
        """Do it, or leave nothing behind."""
        try:
            work()
        except BaseException as error:
            self._drop()
            if isinstance(error, OSError) and error.errno in _FULL:
                raise StorageFull from error
            raise

    def _append(self, piece: bytes | bytearray) -> None:
        if self._descriptor is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptor = os.open(self._blobs.passing_place(self._id), flags, 0o600)
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        before, self._written = self._written, self._written + len(piece)
        if self._written // FLUSH > before // FLUSH:
            # Let the disk begin, so that the flush at the end finds little to do: Linux starts to write the dirty
            # pages of the range, and keeps them, as they are not clean yet.
            os.posix_fadvise(self._descriptor, max(0, self._written - FLUSH), FLUSH, os.POSIX_FADV_DONTNEED)

    def _keep(self) -> None:
        self._append(self._pending)
        assert self._descriptor is not None
        os.fsync(self._descriptor)
        descriptor, self._descriptor = self._descriptor, None
        os.close(descriptor)
        place = self._blobs.place(self._id)
        self._blobs.passing_place(self._id).rename(place)
        try:
            sync_folder(place.parent)
        except OSError:
            place.unlink()
            raise

    def _drop(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)
        self._blobs.passing_place(self._id).unlink(missing_ok=True)


@implementer(IBlobStore)
@define(eq=False)
class FileBlobs:
    """Bodies in the folders `00` to `ff` of one folder, by the first two digits of their ids."""

    path: Path
    clock: IReactorTime
    threads: IReactorThreads
    reserve: int = RESERVE
    """Free bytes that must be left on the disk."""
    max_open: int = MAX_OPEN
    """Bodies that are open at once; who wants more waits.

    A body is open as long as its client takes to send or to read it. So this should be as many as there are clients:
    then only the last steps of those who have gone, which end by themselves, are ever waited for.
    """
    elsewhere: Callable[[], bool] = lambda: True
    """Whether there is room for what belongs to the bodies and is kept by somebody else."""
    _places: DeferredSemaphore = field(init=False)
    _peeks: bool = field(default=True, init=False)
    # Whether the file system can tell what it has in memory.
    _scratch: memoryview = field(factory=lambda: memoryview(bytearray(SCRATCH)), init=False, repr=False)
    # What was read at hand last.
    _looked: float = field(default=float("-inf"), init=False)
    # When the free space was last asked for.
    _free: int = field(default=0, init=False)
    # Bytes that were free then, less what was written since.

    @_places.default
    def _count_places(self) -> DeferredSemaphore:
        return DeferredSemaphore(self.max_open)

    def prepare(self, alone: bool = True) -> None:
        """Make the folders, and if nobody else uses them, remove what an earlier run did not finish. `OSError`."""
        for name in ("", "tmp", *(f"{number:02x}" for number in range(256))):
            (self.path / name).mkdir(mode=0o700, exist_ok=True)
        sync_folder(self.path)
        if alone:
            for unfinished in (self.path / "tmp").iterdir():
                unfinished.unlink()

    def has_room(self) -> bool:
        """See `IBlobStore`."""
        now = self.clock.seconds()
        if not 0 <= now - self._looked < LOOK:
            state = os.statvfs(self.path)
            self._looked, self._free = now, state.f_bavail * state.f_frsize
        return self._free > self.reserve and self.elsewhere()

    def count(self, length: int) -> None:
        """Note that so many bytes are about to be written."""
        self._free -= length

    async def create(self) -> IBlobWriter:
        """See `IBlobStore`."""
        if not self.has_room():
            raise StorageFull
        await self._places.acquire()
        return FileWriter(self)

    async def open(self, blob: str) -> IBlobReader | None:
        """See `IBlobStore`."""
        if not _ID.fullmatch(blob):
            return None
        await self._places.acquire()
        work: Deferred[FileReader | None] = self.in_thread(lambda: self._open(blob))
        work.addErrback(self._missing)
        return await _apart(work, unwanted=_close)

    async def remove(self, blobs: Iterable[str]) -> None:
        """See `IBlobStore`."""
        places = [self.place(blob) for blob in blobs if _ID.fullmatch(blob)]
        await _apart(self.in_thread(lambda: _unlink(places)))
        self._looked = float("-inf")  # who made room may look whether it is enough

    async def older_than(self, seconds: float, after: str, limit: int) -> list[str]:
        """See `IBlobStore`."""
        before = self.clock.seconds() - seconds
        return await _apart(self.in_thread(lambda: self._older(before, after, limit)))

    def read_at_hand(self, descriptor: int, offset: int, size: int) -> memoryview | None:
        """Bytes that the system has in memory anyway, perhaps fewer; None if it would have to wait for the disk."""
        if not self._peeks:
            return None
        scratch = self._scratch[:size]
        try:
            return scratch[: os.preadv(descriptor, (scratch,), offset, os.RWF_NOWAIT)]
        except BlockingIOError:
            return None
        except (AttributeError, OSError):
            self._peeks = False
            return None

    def in_thread(self, work: Callable[[], T]) -> Deferred[T]:
        """Do it in one of the reactor's threads."""
        return deferToThreadPool(self.threads, self.threads.getThreadPool(), work)

    def give_back(self) -> None:
        """One place among the open bodies is free again."""
        self._places.release()

    def place(self, blob: str) -> Path:
        """Where a body is kept."""
        return self.path / blob[:2] / blob[2:]

    def passing_place(self, blob: str) -> Path:
        """Where it is before it is kept."""
        return self.path / "tmp" / blob

    def _missing(self, failure: Failure) -> None:
        self.give_back()
        failure.trap(FileNotFoundError)

    # --- in a thread ----------------------------------------------------------------------------------------------

    def _open(self, blob: str) -> FileReader | None:
        place = self.place(blob)
        try:
            descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            if not place.parent.is_dir():
                raise StoreAway from None  # all are away: the disk is not mounted, and nothing is lost yet
            raise
        return FileReader(os.fstat(descriptor).st_size, self, descriptor)

    def _older(self, before: float, after: str, limit: int) -> list[str]:
        """Ids above `after`, ascending. The age is that of the name (`ctime`): a body that was restored is young."""
        found: list[str] = []
        folders = sorted(folder.name for folder in os.scandir(self.path) if _FOLDER.fullmatch(folder.name))
        for folder in folders:
            if folder < after[:2] or len(found) >= limit:
                continue
            with os.scandir(self.path / folder) as entries:
                old = [entry.name for entry in entries if _is_old(entry, before) and folder + entry.name > after]
            found += [folder + name for name in sorted(old)]
        return found[:limit]


def _close(reader: FileReader | None) -> None:
    if reader is not None:
        reader.close()


def _unlink(places: Iterable[Path]) -> None:
    for place in places:
        place.unlink(missing_ok=True)


def _is_old(entry: "os.DirEntry[str]", before: float) -> bool:
    try:
        return _REST.fullmatch(entry.name) is not None and entry.stat(follow_symlinks=False).st_ctime <= before
    except FileNotFoundError:
        return False  # removed meanwhile
