"""Twins in memory of what the homeserver needs from outside, for tests without sockets and files."""

import secrets
from collections.abc import Iterable

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from pubky_homeserver.core.errors import StorageFull
from pubky_homeserver.interfaces import IBlobReader, IBlobStore, IBlobWriter


@frozen
class _Kept:
    """A body and when it was kept, in seconds."""

    body: bytes = field(repr=False)
    since: float


@implementer(IBlobReader)
@define(eq=False)
class MemoryReader:
    """See `IBlobReader`."""

    _body: bytes = field(repr=False)
    _closed: bool = field(default=False, init=False)

    @property
    def length(self) -> int:
        """See `IBlobReader`."""
        return len(self._body)

    def at_hand(self, offset: int, size: int) -> memoryview:
        """See `IBlobReader`."""
        if self._closed:
            raise ValueError("the body is closed")
        return memoryview(self._body)[offset : offset + size]

    async def read(self, offset: int, size: int) -> bytes:
        """See `IBlobReader`."""
        if self._closed:
            raise ValueError("the body is closed")
        return self._body[offset : offset + size]

    def close(self) -> None:
        """See `IBlobReader`."""
        self._closed = True


@implementer(IBlobWriter)
@define(eq=False)
class MemoryWriter:
    """See `IBlobWriter`."""

    _blobs: "MemoryBlobs"
    _body: bytearray = field(factory=bytearray, init=False, repr=False)
    _over: bool = field(default=False, init=False)

    async def write(self, chunk: bytes) -> None:
        """See `IBlobWriter`."""
        self._must_be_open()
        if not self._blobs.room:
            self._over = True
            raise StorageFull
        self._body += chunk

    async def keep(self) -> str:
        """See `IBlobWriter`."""
        self._must_be_open()
        self._over = True
        return self._blobs.add(bytes(self._body))

    async def discard(self) -> None:
        """See `IBlobWriter`."""
        self._over = True

    def _must_be_open(self) -> None:
        if self._over:
            raise ValueError("the body is kept or discarded")


@implementer(IBlobStore)
@define(eq=False)
class MemoryBlobs:
    """Bodies in a dictionary. See `IBlobStore`."""

    clock: IReactorTime
    room: bool = True
    """Whether there is free space; a test takes it away."""
    _kept: dict[str, _Kept] = field(factory=dict, init=False)
    # Id → body.

    def has_room(self) -> bool:
        """See `IBlobStore`."""
        return self.room

    async def create(self) -> IBlobWriter:
        """See `IBlobStore`."""
        if not self.room:
            raise StorageFull
        return MemoryWriter(self)

    async def open(self, blob: str) -> IBlobReader | None:
        """See `IBlobStore`."""
        kept = self._kept.get(blob)
        return None if kept is None else MemoryReader(kept.body)

    async def remove(self, blobs: Iterable[str]) -> None:
        """See `IBlobStore`."""
        for blob in blobs:
            self._kept.pop(blob, None)

    async def older_than(self, seconds: float, after: str, limit: int) -> list[str]:
        """See `IBlobStore`."""
        before = self.clock.seconds() - seconds
        return sorted(blob for blob, kept in self._kept.items() if blob > after and kept.since <= before)[:limit]

    def spoil(self, blob: str, body: bytes) -> None:
        """Let a body be another one, as on a disk that forgets."""
        self._kept[blob] = _Kept(body, self.clock.seconds())

    def add(self, body: bytes) -> str:
        """Keep a body; returns its id."""
        blob = secrets.token_hex(16)
        self._kept[blob] = _Kept(body, self.clock.seconds())
        return blob
