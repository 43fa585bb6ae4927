"""Files: authorize, keep the bytes, commit.

A PUT has two halves. In the first the body streams through the hash into memory (small) or into a blob that nobody
refers to yet; it may end at any moment and leaves nothing. The second, the **commit**, is one step of the store, and it
survives a client that hangs up: the answer may be lost, the write is whole.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from attrs import define, evolve, field, frozen
from blake3 import blake3
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from pubky_homeserver.core.authorization import authorize_read, authorize_write
from pubky_homeserver.core.errors import NotFound, NotHereYet, Refused, StorageFull, StoreAway
from pubky_homeserver.core.locks import HOLD_INTERVAL
from pubky_homeserver.core.media import SNIFFED, content_type
from pubky_homeserver.core.records import Entry, Session
from pubky_homeserver.interfaces import IBlobReader, IBlobStore, IBlobWriter, IEntryStore, ILockStore

T = TypeVar("T")

Lose = Callable[[str, Entry], Awaitable[None]]
"""Is told of an account's entry whose body should be on the disk, and is not."""


@frozen
class Conditions:
    """What a write asks of the file that it replaces or removes (RFC 9110, 13.1), and of its lock (RFC 4918, 10.4)."""

    if_match: Sequence[str] | None = None
    """Entity tags of which one must be the file's; `*` is any file."""
    if_none_match: bool = False
    """There must be no file yet (`If-None-Match: *`)."""
    tokens: Sequence[str] | None = ()
    """If there are any the path must be locked by one of these; if there are none it must not be locked. None: it was
    free when the write began, and what happens since does not matter."""


ANY = Conditions()


@define
class _Received:
    """A body that has arrived whole."""

    content_hash: bytes
    length: int
    head: bytes
    """The first bytes, which tell the content type."""
    body: bytes | None
    blob: str | None = None


@frozen
class Storage:
    """The files of all accounts."""

    entries: IEntryStore
    locks: ILockStore
    blobs: IBlobStore
    clock: IReactorTime
    default_limit: int | None = None
    """Bytes that an account without its own quota may use."""
    inline_limit: int = 4096
    """Bodies up to this many bytes live in the store with their entry."""
    _commits: set[Deferred[Any]] = field(factory=set, init=False)
    # Commits under way, whether or not a client still waits for them.
    _losing: list[Lose] = field(factory=list, init=False)
    # Who can have a lost body brought back; without anybody it is as if there were no file.

    log = Logger()

    async def put(
        self,
        session: Session | None,
        owner: str,
        path: str,
        body: AsyncIterator[bytes],
        length: int | None,
        conditions: Conditions = ANY,
    ) -> None:
        """Keep the body at a path; `length` is what the client announced.

        Raises what `authorize_write`, `IEntryStore.put` and the body's iterator raise, and `StorageFull`. What can be
        refused without the body is refused before it is read, unless the body is so small that reading it is cheaper.

        A write under a lock keeps it alive until the write ends, and fails if it is lost all the same. A write without
        one that found the path free is not stopped by a lock that somebody takes while the body is on its way.
        """
        authorize_write(session, owner, path)
        if not self.blobs.has_room():
            raise StorageFull
        tokens = conditions.tokens
        if tokens or length is None or length > self.inline_limit:
            await self.entries.check_put(owner, path, length, self.default_limit, tokens)
            conditions = evolve(conditions, tokens=tokens or None)
        with self._holding(owner, path, tokens):
            received, writer = await self._receive(body)

            async def commit() -> None:
                if writer is not None:
                    received.blob = await writer.keep()
                await self._commit_put(owner, path, received, length is not None, conditions)

            await self._finish(commit())

    async def _receive(self, body: AsyncIterator[bytes]) -> tuple[_Received, IBlobWriter | None]:
        """Read a body through the hash, into memory or, from the inline limit on, into a blob."""
        writer = None
        digest, head, small, size = blake3(), b"", bytearray(), 0
        try:
            async for chunk in body:
                digest.update(chunk)
                size += len(chunk)
                head += chunk[: SNIFFED - len(head)]
                if writer is None and size > self.inline_limit:
                    writer = await self.blobs.create()
                    await writer.write(bytes(small))
                if writer is None:
                    small += chunk
                else:
                    await writer.write(chunk)
        except BaseException:
            if writer is not None:
                await writer.discard()
            raise
        return _Received(digest.digest(), size, head, None if writer else bytes(small)), writer

    async def _commit_put(
        self, owner: str, path: str, received: _Received, announced: bool, conditions: Conditions
    ) -> None:
        entry = Entry(
            path=path,
            content_hash=received.content_hash,
            length=received.length,
            content_type=content_type(received.head, path),
            modified=int(self.clock.seconds() * 1_000_000),
            body=received.body,
            blob=received.blob,
        )
        try:
            await self.entries.put(
                owner,
                entry,
                self.default_limit,
                announced,
                conditions.if_match,
                conditions.if_none_match,
                conditions.tokens,
            )
        except StoreAway:
            raise  # it may have happened: the sweep will know
        except Refused:
            if received.blob is not None:
                await self.blobs.remove([received.blob])
            raise

    async def delete(self, session: Session | None, owner: str, path: str, conditions: Conditions = ANY) -> None:
        """Remove the file at a path. Raises what `authorize_write` and `IEntryStore.delete` raise."""
        authorize_write(session, owner, path)

        async def commit() -> None:
            await self.entries.delete(owner, path, conditions.if_match, conditions.tokens)

        await self._finish(commit())

    async def get(self, session: Session | None, owner: str, path: str) -> Entry:
        """The entry at a path. Raises what `authorize_read` raises, and `NotFound`."""
        authorize_read(session, owner, path)
        entry = await self.entries.entry(owner, path)
        if entry is None:
            raise NotFound
        return entry

    async def look_up(self, owner: str, path: str) -> Entry | None:
        """The entry at a public path; None if there is none. Raises what `authorize_read` raises."""
        authorize_read(None, owner, path)
        return await self.entries.entry(owner, path)

    def on_loss(self, lose: Lose) -> Callable[[], None]:
        """Tell somebody of bodies that are lost, who can have them brought back; returns the way to stop."""
        self._losing.append(lose)
        return lambda: self._losing.remove(lose)

    async def open(self, entry: Entry, owner: str | None = None) -> IBlobReader:
        """The body of an entry that is not in the entry itself. `owner`: the account, if it is what its path holds.

        Raises `NotFound` if the file is gone for good, and `NotHereYet` if the body was not copied yet, or not again.
        """
        if entry.blob is None:
            raise NotHereYet
        reader = await self.blobs.open(entry.blob)
        if reader is None:
            self.log.error("The body of {path} is missing: {blob}", path=entry.path, blob=entry.blob)
            if owner is None or not self._losing:
                raise NotFound
            for lose in [*self._losing]:
                await lose(owner, entry)
            raise NotHereYet
        return reader

    async def listing(
        self, session: Session | None, owner: str, directory: str, after: str, limit: int, reverse: bool, shallow: bool
    ) -> list[str]:
        """Paths below a directory, as `IEntryStore.listing`. Raises what that and `authorize_read` raise."""
        authorize_read(session, owner, directory)
        return await self.entries.listing(owner, directory, after, limit, reverse, shallow)

    async def drain(self) -> None:
        """Wait for the commits under way."""
        await DeferredList(list(self._commits), consumeErrors=True)

    @contextmanager
    def _holding(self, owner: str, path: str, tokens: Sequence[str] | None) -> Iterator[None]:
        """Keep the lock alive that a write names; it was held when the write was let in."""
        if not tokens:
            yield
            return

        async def hold() -> None:
            try:
                await self.locks.hold(owner, path, tokens)
            except Refused:
                pass  # lost, which the commit will find; or the store is away, and may be back the next time
            except Exception:
                self.log.failure("A lock could not be kept alive")

        holding = LoopingCall(lambda: Deferred.fromCoroutine(hold()))
        holding.clock = self.clock
        holding.start(HOLD_INTERVAL, now=False)
        try:
            yield
        finally:
            holding.stop()

    def _finish(self, commit: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        """Run a commit to its end, whatever happens to who waits for it."""
        waiting: Deferred[T] = Deferred(lambda _: None)
        running = Deferred.fromCoroutine(commit)
        self._commits.add(running)

        def done(result: T | Failure) -> None:
            self._commits.discard(running)
            if not waiting.called:
                waiting.callback(result)
            elif isinstance(result, Failure) and not result.check(Refused):
                self.log.failure("A write failed after its client had gone", failure=result)

        running.addBoth(done)
        return waiting
