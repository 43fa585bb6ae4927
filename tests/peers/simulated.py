"""Two homeservers in memory: one has accounts, the other follows them over a connection that does as a test says."""

from collections.abc import AsyncIterator, Callable, Sequence
from random import Random

from attrs import define, field
from blake3 import blake3
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from zope.interface import implementer

from pubky_homeserver.core.copies import Held, Hint, Listed, Logged, LoggedEvent, Offered, Position
from pubky_homeserver.core.erasing import Obeyed
from pubky_homeserver.core.errors import BodyGone, LogCompacted, LogForked, PeerAway, PeerRefused
from pubky_homeserver.core.moves import Shown
from pubky_homeserver.core.peers import Greeting
from pubky_homeserver.core.records import Entry
from pubky_homeserver.interfaces import IBlobStore, IPeer
from pubky_homeserver.peers.late import LateWrites
from pubky_homeserver.store.memory import MemoryStore

PIECE = 1000
"""Bytes of a body that are sent at once."""


@define
class Weather:
    """What happens to requests: the parts, of one, that are lost, come late, or bring damage."""

    random: Random
    lost: float = 0.0
    late: float = 0.0
    """Seconds, at most."""
    damaged: float = 0.0
    """Of the bodies, those with another byte in them."""
    cut: float = 0.0
    """Of the bodies, those that end early."""
    is_down: bool = False


@implementer(IPeer)
@define(eq=False)
class SimulatedPeer:
    """A homeserver as another one sees it, without sockets. It offers everything."""

    key: str
    store: MemoryStore
    blobs: IBlobStore
    clock: IReactorTime
    weather: Weather
    page: int = 7
    """Events or files of one page."""
    packets: dict[str, bytes] = field(factory=dict)
    takes: LateWrites | None = None
    """What takes late writes there; None if it takes none."""
    asked: list[str] = field(factory=list)
    _listening: "list[tuple[Callable[[Hint | None], None], Deferred[None]]]" = field(factory=list, init=False)

    async def offered(self, after: str) -> tuple[list[Offered], str | None]:
        """See `IPeer`."""
        await self._travel("offered")
        page, following = await self.store.logs.standings(int(after or 0), self.page)
        offered = [Offered(pubky, 0, public, private) for pubky, public, private in page]
        return offered, None if following is None else str(following)

    async def greet(self) -> Greeting:
        """See `IPeer`."""
        await self._travel("greet")
        return Greeting()

    async def show(self, packets: Sequence[bytes]) -> list[Shown]:
        """See `IPeer`: it takes none."""
        raise PeerRefused("it takes no packets")

    async def held(self, after: str) -> tuple[list[Held], str | None]:
        """See `IPeer`."""
        return [], None

    async def packet(self, pubky: str) -> bytes | None:
        """See `IPeer`."""
        await self._travel("packet")
        return self.packets.get(pubky)

    async def erase(self, pubky: str, log_id: str, seq: int) -> Obeyed:
        """See `IPeer`: it erases nothing."""
        raise PeerRefused("it erases nothing")

    async def changes(self, hear: Callable[[Hint | None], None], beat: Callable[[], None]) -> None:
        """See `IPeer`. Hints come when a test says so."""
        await self._travel("changes")
        ended: Deferred[None] = Deferred()
        self._listening.append((hear, ended))
        hear(None)
        beat()
        try:
            await ended
        finally:
            self._listening = [one for one in self._listening if one[1] is not ended]

    async def events(self, pubky: str, private: bool, position: Position) -> Logged:
        """See `IPeer`: the table of what a primary answers to a position."""
        await self._travel("events")
        logs = self.store.logs
        standing = await logs.standing(pubky, private)
        if standing is None:
            raise PeerRefused("no such account")
        reigns = {reign.log_id: reign for reign in standing.reigns}
        if position.log_id not in reigns or position.seq > standing.position.seq:
            raise LogForked(standing.reigns)
        if position.seq:
            if position.seq < standing.floor:
                raise LogCompacted
            event = await logs.event(pubky, private, position.event_id)
            if event is None or (event.seq, event.digest) != (position.seq, position.digest):
                raise LogForked(standing.reigns)
        events = await logs.logged(pubky, private, position.event_id, self.page)
        return Logged(standing.reigns, tuple(events), standing.position.seq)

    async def entries(self, pubky: str, private: bool, after: str) -> Listed:
        """See `IPeer`."""
        await self._travel("entries")
        listed = await self.store.logs.listed(pubky, private, after, self.page)
        if listed is None:
            raise PeerRefused("no such account")
        return listed

    async def body(
        self, pubky: str, private: bool, path: str, content_hash: bytes, start: int = 0
    ) -> AsyncIterator[bytes]:
        """See `IPeer`."""
        await self._travel("body")
        entry = await self.store.entry(pubky, path)
        if entry is None or entry.content_hash != content_hash:
            raise BodyGone("another one is there")
        return self._pieces((await self._read(entry))[start:])

    async def late(self, pubky: str, private: bool, events: Sequence[LoggedEvent]) -> set[int]:
        """See `IPeer`."""
        await self._travel("late")
        if self.takes is None:
            raise PeerRefused("it takes no late writes")
        taken = await self.takes.take(pubky, private, events)
        if self._is_lost():
            raise PeerAway("no answer")
        return taken

    async def hint(self, pubky: str, private: bool) -> None:
        """Tell all who listen that a log has changed."""
        standing = await self.store.logs.standing(pubky, private)
        assert standing is not None
        for hear, _ in [*self._listening]:
            if not self._is_lost():
                hear(Hint(pubky, private, standing.position.seq))

    def hang_up(self) -> None:
        """End the streams of changes."""
        listening, self._listening = self._listening, []
        for _, ended in listening:
            ended.errback(PeerAway("the connection broke"))

    async def _read(self, entry: Entry) -> bytes:
        if entry.body is not None:
            return entry.body
        reader = None if entry.blob is None else await self.blobs.open(entry.blob)
        if reader is None:
            raise BodyGone("its file is gone")
        return await reader.read(0, reader.length)

    async def _pieces(self, body: bytes) -> AsyncIterator[bytes]:
        random, weather = self.weather.random, self.weather
        if random.random() < weather.damaged and body:
            at = random.randrange(len(body))
            body = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        end = random.randrange(len(body) + 1) if random.random() < weather.cut else len(body)
        for start in range(0, end, PIECE):
            yield body[start : min(start + PIECE, end)]
        if end < len(body):
            raise PeerAway("the connection broke")

    def _is_lost(self) -> bool:
        return self.weather.is_down or self.weather.random.random() < self.weather.lost

    async def _travel(self, what: str) -> None:
        """The way there and back."""
        self.asked.append(what)
        if self.weather.late:
            await deferLater(self.clock, self.weather.random.random() * self.weather.late)
        if self._is_lost():
            raise PeerAway("no answer")


def hash_of(body: bytes) -> bytes:
    """What an entry says of its body."""
    return blake3(body).digest()
