"""Bodies fetched from a peer: into memory or a file, and never one with another hash than it was named."""

from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import ClassVar

from attrs import define, evolve, field, frozen
from blake3 import blake3
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pubky_homeserver.core.errors import BodyGone, PeerAway, PeerBroken, StorageFull
from pubky_homeserver.core.records import Entry
from pubky_homeserver.interfaces import IBlobStore, IPeer
from pubky_homeserver.peers.tally import Counted, Tally

TRIES = 3
"""Times that a body with another hash than its event's, or that breaks off, is fetched before the entry goes without.
"""

LEAST = 64 << 10
"""Bytes that an answer which was cut must have brought, for its rest to be asked for at once."""

FIRST_DELAY = 5.0
"""Seconds until a body is asked for again that was wrong however often it was; doubled each time that it still is. At
first it may have been the wire."""

LONGEST_DELAY = 6 * 3600.0

MOST = 10_000
"""Wrong bodies that are remembered: of a peer that has more, the oldest are asked for again sooner."""

Wanted = tuple[str, str, bytes, int]
"""A body: account, path, hash, and when it was written, for the user may write the same once more."""


@define(eq=False)
class Wrong:
    """Bodies that were wrong whenever they were asked for: each is left alone for longer and longer."""

    clock: IReactorTime
    _known: "OrderedDict[Wanted, tuple[int, float]]" = field(factory=OrderedDict, init=False)
    # Body → how often in a row, and until when it is left alone (seconds).

    def __contains__(self, one: Wanted) -> bool:
        return one in self._known

    def rests(self, one: Wanted) -> bool:
        """Whether a body is left alone for now."""
        _, until = self._known.get(one, (0, 0.0))
        return until > self.clock.seconds()

    def add(self, one: Wanted) -> None:
        """A body was wrong again."""
        times, _ = self._known.pop(one, (0, 0.0))
        delay = min(FIRST_DELAY * 2.0 ** min(times, 20), LONGEST_DELAY)
        self._known[one] = times + 1, self.clock.seconds() + delay
        if len(self._known) > MOST:
            self._known.popitem(last=False)

    def forget(self, one: Wanted) -> None:
        """A body is here."""
        self._known.pop(one, None)


@define(eq=False)
class Underway:
    """Bytes of a peer's bodies that count already, though the store does not count them yet: so no bound is passed."""

    bytes: int = 0
    _landed: Counter[str] = field(factory=Counter, init=False)
    # Account → bytes of bodies that are here, and perhaps not counted yet.

    def begin(self, length: int) -> None:
        """A body is fetched."""
        self.bytes += length

    def end(self, pubky: str, length: int, is_here: bool) -> None:
        """It is here, and waits to be counted; or it is not coming."""
        if is_here:
            self._landed[pubky] += length
        else:
            self.bytes -= length

    def settle(self, pubky: str) -> None:
        """What came of an account is counted by the store."""
        self.bytes -= self._landed.pop(pubky, 0)


@frozen
class Bodies:
    """Fetches bodies of one peer's. `may_keep`: whether so many more bytes are allowed, besides what is `underway`."""

    peer: IPeer
    blobs: IBlobStore
    inline_limit: int
    may_keep: Callable[[int], bool]
    tally: Tally = field(factory=Tally)
    underway: Underway = field(factory=Underway)
    clock: IReactorTime = field(kw_only=True)
    wrong: Wrong = field(kw_only=True)
    log: ClassVar[Logger] = Logger()

    @wrong.default
    def _make_wrong(self) -> Wrong:
        return Wrong(self.clock)

    async def given(self, pubky: str, private: bool, entry: Entry, body: bytes | None) -> Entry:
        """An entry with the body that came with it, if that is right and small; else as `fetched`."""
        is_right = body is not None and len(body) == entry.length and blake3(body).digest() == entry.content_hash
        if not is_right or entry.length > self.inline_limit:
            return await self.fetched(pubky, private, entry)
        if not self.may_keep(self.underway.bytes + entry.length):
            return entry
        self.underway.begin(entry.length)
        self.underway.end(pubky, entry.length, True)
        return evolve(entry, body=body)

    async def fetched(self, pubky: str, private: bool, entry: Entry) -> Entry:
        """An entry with its body; or as it is, if that cannot be had. Raises `PeerAway`, `PeerRefused`."""
        if self.wrong.rests(_wanted(pubky, entry)) or not self.may_keep(self.underway.bytes + entry.length):
            return entry
        self.underway.begin(entry.length)
        whole = entry
        try:
            whole = await self._fetched(pubky, private, entry)
            return whole
        finally:
            self.underway.end(pubky, entry.length, whole is not entry)

    async def _fetched(self, pubky: str, private: bool, entry: Entry) -> Entry:
        wanted = _wanted(pubky, entry)
        for _ in range(1 if wanted in self.wrong else TRIES):
            try:
                whole = await self._fetch(pubky, private, entry)
            except (BodyGone, StorageFull):
                return entry
            except PeerBroken as error:
                self.log.warn("{peer} gives no body of {pubky}: {error}", peer=self.peer.key, pubky=pubky, error=error)
                break
            if whole is not None:
                self.wrong.forget(wanted)
                return whole
            self.tally.count(Counted.WRONG_BODY)
            self.log.warn("{peer} sent another body of {pubky} than it named", peer=self.peer.key, pubky=pubky)
        self.wrong.add(wanted)
        return entry

    async def _fetch(self, pubky: str, private: bool, entry: Entry) -> Entry | None:
        """Fetch a body into memory or a blob; None if it is another one.

        Raises `BodyGone`, `StorageFull`, and as `_pieces`.
        """
        pieces = self._pieces(pubky, private, entry)
        try:
            return await self.keep(entry, pieces)
        finally:
            await pieces.aclose()

    async def keep(self, entry: Entry, pieces: AsyncIterator[bytes]) -> Entry | None:
        """An entry with this body, in memory or a blob; None if it is another one's. Raises `StorageFull`."""
        digest, size, small, writer = blake3(), 0, bytearray(), None
        is_small = entry.length <= self.inline_limit
        try:
            if not is_small:
                writer = await self.blobs.create()
            async for piece in pieces:
                size += len(piece)
                if size > entry.length:
                    break
                digest.update(piece)
                if writer is None:
                    small += piece
                else:
                    await writer.write(piece)
            if size != entry.length or digest.digest() != entry.content_hash:
                if writer is not None:
                    await writer.discard()
                return None
            return evolve(entry, body=bytes(small)) if writer is None else evolve(entry, blob=await writer.keep())
        except BaseException:
            if writer is not None:
                await writer.discard()
            raise

    async def _pieces(self, pubky: str, private: bool, entry: Entry) -> AsyncGenerator[bytes, None]:
        """The pieces of a body. If it is cut the rest is asked for, as long as each answer brings it forward.

        Raises `PeerBroken` if it is cut at one place again and again, though the peer answers otherwise: that is the
        body's fault (a disk has lost its end), and nothing else shall wait for it.
        """
        size = stalls = 0
        while stalls < TRIES:
            begun, pieces = size, None
            try:
                pieces = await self.peer.body(pubky, private, entry.path, entry.content_hash, size)
                async for piece in pieces:
                    size += len(piece)
                    yield piece
                return
            except PeerAway:
                if size - begun < LEAST:
                    await self.peer.greet()  # if it says nothing at all it is away: that is what is raised then
                    stalls += 1
                else:
                    stalls = 0
                self.log.debug("A body of {pubky} was cut after {size} bytes: the rest is next", pubky=pubky, size=size)
            finally:
                if isinstance(pieces, AsyncGenerator):
                    await pieces.aclose()  # nobody reads on: its connection ends
        raise PeerBroken(f"it breaks off after {size} bytes again and again")

    async def leave(self, entries: Sequence[Entry | None]) -> None:
        """Remove blobs that nothing came to refer to."""
        blobs = [entry.blob for entry in entries if entry is not None and entry.blob is not None]
        if blobs:
            await self.blobs.remove(blobs)


def _wanted(pubky: str, entry: Entry) -> Wanted:
    return pubky, entry.path, entry.content_hash, entry.modified
