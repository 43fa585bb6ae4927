"""Events after a cursor. A stream has three phases: backfill, cutover, live.

The store is the truth, and its wake-ups are hints. One reader follows the newest event of all accounts and hands each
event to the streams that asked for its account; a poll makes up for hints that were lost. A stream first reads history
from the store, page by page, throwing away what the reader handed it meanwhile; when a round of pages is empty, all
that was committed before is sent, all that comes after is handed over, and the stream is live. Ids ascend, so an event
that arrives both ways is sent once.

A stream that does not keep up is cut off, and only it: its reader comes back with its last cursor.
"""

import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from pubky_homeserver.core.errors import InvalidCursor, NotFound, Refused
from pubky_homeserver.core.paths import covers, is_private, is_public
from pubky_homeserver.core.records import Event
from pubky_homeserver.core.tokens import crockford_decode
from pubky_homeserver.interfaces import IAccountStore, IEntryStore
from pubky_homeserver.metrics import ServerMetrics

MAX_QUEUED = 1000
"""Live events that a stream may be behind before it is cut off (the protocol's number)."""

PAGE = 100
"""Events of one account read at a time during backfill."""

POLL = 30.0
"""Seconds between looks that need no hint."""

RETRY = 1.0
"""Seconds after which the store is asked again when it did not answer: the hint that it is back may come too early."""

HALF_FULL = MAX_QUEUED // 2
"""Taking an event while so many wait is counted: a sign of slow readers."""

MAX_EVENT_ID = (1 << 53) - 1
"""Event ids are whole numbers that Lua can hold; a cursor above is past the end."""

_NUMBER = re.compile(r"\+?[0-9]{1,20}", re.ASCII)


@define(eq=False)
class EventStream:
    """The events of some accounts, as one reader gets them. Made by `Feed.stream`; `close` it."""

    _feed: "Feed"
    _cursors: dict[str, int | None]
    # Account → id of the last event sent (None: none yet).
    _paths: tuple[str, ...]
    _live: bool
    _reverse: bool
    _left: int | None
    # Events that may still be sent; None for no end.
    _pages: dict[str, deque[Event]] = field(factory=dict, init=False)
    # Account → events read and not yet sent, in the order of reading.
    _horizon: int = field(default=0, init=False)
    # Id of the newest event when this round of reading began.
    _handed: deque[Event] = field(factory=deque, init=False)
    _waiting: Deferred[None] | None = field(default=None, init=False)
    _in_history: bool = field(default=True, init=False)
    cut_off: bool = field(default=False, init=False)
    """Whether the stream ended because its reader was too slow."""

    async def batch(self, patience: float) -> list[Event] | None:
        """The next events in order; empty if none came for `patience` seconds, None at the end of the stream."""
        while self._in_history and not self._is_over():
            found = await self._from_history()
            if found and not self._is_over():
                return self._count(found)
        if not self._live or self._is_over():
            return None
        while not self._handed and not self.cut_off:
            if not await self._wait(patience):
                return []
        if self.cut_off:
            return None
        if len(self._handed) >= HALF_FULL:
            self._feed.metrics.stream_half_full()
        handed = [event for event in self._handed if self._is_next(event)]
        self._handed.clear()
        return self._count(handed) if handed else []

    def hand(self, event: Event) -> None:
        """Called by the feed with each new event of an account that this stream follows."""
        if self.cut_off or not self._wants(event):
            return
        self._handed.append(event)
        if len(self._handed) > MAX_QUEUED and not self._in_history:
            self.cut_off = True
            self._handed.clear()
        elif len(self._handed) > MAX_QUEUED:
            self._handed.popleft()  # history is still being read, and reads it again
        self._wake()

    def close(self) -> None:
        """Ask for no more."""
        self._feed.forget(self)
        self.cut_off = True
        self._wake()

    @property
    def accounts(self) -> Iterable[str]:
        """The accounts that the stream follows."""
        return self._cursors

    def _is_over(self) -> bool:
        return self.cut_off or self._left == 0

    def _count(self, events: list[Event]) -> list[Event]:
        if self._left is not None:
            events = events[: self._left]
            self._left -= len(events)
        return events

    def _wants(self, event: Event) -> bool:
        return any(covers(path, event.path) for path in self._paths)

    def _is_next(self, event: Event) -> bool:
        last = self._cursors[event.pubky]
        if last is not None and event.id <= last:
            return False
        self._cursors[event.pubky] = event.id
        return True

    async def _from_history(self) -> list[Event]:
        """Some events of the past that match, perhaps none though there are more. An empty round ends the phase."""
        if not any(self._pages.values()):
            self._handed.clear()
            # Accounts are read one after the other. What comes meanwhile waits for the next round, or an event of one
            # that was read already would come after a newer one of another.
            if not self._reverse or not self._horizon:
                self._horizon = await self._feed.entries.last_event_id()
            for account in self._cursors:
                await self._refill(account)
            if not any(self._pages.values()):
                self._in_history = False
                return []
        found: list[Event] = []
        sign = -1 if self._reverse else 1
        while True:
            heads = [page[0] for page in self._pages.values() if page]
            if not heads:
                return found
            event = min(heads, key=lambda head: sign * head.id)
            page = self._pages[event.pubky]
            page.popleft()
            if self._wants(event):
                found.append(event)
            if not page:
                # The next page of this account may come before what the others still hold.
                await self._refill(event.pubky)
                if len(found) >= PAGE:
                    return found

    async def _refill(self, account: str) -> None:
        began = self._feed.clock.seconds()
        after = self._cursors[account]
        events = await self._feed.entries.account_events(
            account,
            self._horizon + 1 if after is None and self._reverse else after,
            PAGE,
            self._reverse,
            public=any(not is_private(path) for path in self._paths),
            private=any(not is_public(path) for path in self._paths),
        )
        self._feed.metrics.stream_query(int((self._feed.clock.seconds() - began) * 1000))
        page = deque(event for event in events if event.id <= self._horizon)
        self._pages[account] = page
        if page:
            self._cursors[account] = page[-1].id

    async def _wait(self, patience: float) -> bool:
        """Wait for an event to be handed over; False if none came in time."""
        waiting: Deferred[None] = Deferred()
        self._waiting = waiting
        timer: IDelayedCall = self._feed.clock.callLater(patience, self._wake)
        try:
            await waiting
        finally:
            self._waiting = None
            if timer.active():
                timer.cancel()
        return bool(self._handed) or self.cut_off

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.called:
            self._waiting.callback(None)


@define(eq=False)
class Feed(Service):
    """The events of all accounts, old and new."""

    entries: IEntryStore
    accounts: IAccountStore
    clock: IReactorTime
    metrics: ServerMetrics = field(factory=ServerMetrics, repr=False)
    _streams: dict[str, set[EventStream]] = field(factory=dict, init=False)
    # Account → the live streams that follow it.
    _last: int | None = field(default=None, init=False)
    # Id of the newest event handed out; None while nobody listens.
    _reading: Deferred[None] | None = field(default=None, init=False)
    _again: bool = field(default=False, init=False)
    # A hint came while the reader was reading.
    _retry: IDelayedCall | None = field(default=None, init=False)
    _poll: LoopingCall | None = field(default=None, init=False)
    _unsubscribe: Callable[[], None] = field(default=lambda: None, init=False)

    log = Logger()

    def startService(self) -> None:
        """Begin to follow the store."""
        super().startService()
        self._unsubscribe = self.entries.subscribe(self._look)
        self._poll = LoopingCall(self._look)
        self._poll.clock = self.clock
        self._poll.start(POLL, now=True)

    def stopService(self) -> None:
        """End every live stream, and follow no more."""
        super().stopService()
        self._unsubscribe()
        if self._poll is not None and self._poll.running:
            self._poll.stop()
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        if self._reading is not None:
            self._reading.cancel()
        for stream in {stream for streams in self._streams.values() for stream in streams}:
            stream.close()

    async def page(self, after: int, limit: int) -> list[Event]:
        """Up to `limit` public events of all accounts after a cursor."""
        return await self.entries.events(after, limit, private=False)

    async def cursor(self, text: str) -> int:
        """The cursor that a text means: an id, or the time of an event in its older form. Raises `InvalidCursor`.

        The older form is 13 characters of Crockford base32: microseconds since the Unix epoch as 8 bytes, big-endian.
        """
        if _NUMBER.fullmatch(text) and int(text) < 1 << 64:
            return min(int(text), MAX_EVENT_ID)
        try:
            packed = crockford_decode(text) if len(text) == 13 else b""
        except ValueError:
            packed = b""
        at = int.from_bytes(packed, "big")
        if len(packed) != 8 or at > MAX_EVENT_ID or not await self.entries.has_event(at):
            raise InvalidCursor
        return at

    async def stream(
        self,
        cursors: Mapping[str, str | None],
        paths: tuple[str, ...],
        live: bool = False,
        reverse: bool = False,
        limit: int | None = None,
    ) -> EventStream:
        """The events of some accounts below some paths.

        `cursors`: account to the text of the cursor after which to begin, None for the beginning. Raises `NotFound` for
        an account that is not here, then `InvalidCursor`.
        """
        for account in cursors:
            if await self.accounts.account(account) is None:
                raise NotFound
        after: dict[str, int | None] = {}
        for account, text in cursors.items():
            try:
                after[account] = None if text is None else await self.cursor(text)
            except InvalidCursor:
                raise InvalidCursor(f"Invalid cursor: {text}") from None
        stream = EventStream(self, after, paths, live, reverse, limit)
        if live:
            await self._begin()
            for account in after:
                self._streams.setdefault(account, set()).add(stream)
        return stream

    def forget(self, stream: EventStream) -> None:
        """Hand no more events to a stream."""
        for account in stream.accounts:
            streams = self._streams.get(account, set())
            streams.discard(stream)
            if not streams:
                self._streams.pop(account, None)

    async def _begin(self) -> int:
        """Where the reader stands. What was committed before that is history for every stream that begins."""
        if self._last is None:
            newest = await self.entries.last_event_id()
            if self._last is None:
                self._last = newest
        return self._last

    def _look(self) -> None:
        if self._reading is not None:
            self._again = True
            return
        if not self._streams:
            self._last = None  # nobody listens: whoever comes begins with what is the newest event then
            return
        self._reading = Deferred.fromCoroutine(self._read())

        def done(_: object) -> None:
            self._reading = None
            if self._again:
                self._again = False
                self._look()

        self._reading.addBoth(done)

    async def _read(self) -> None:
        """Hand out what is new. Whatever fails is tried again at the next hint or poll."""
        try:
            last = await self._begin()
            while events := await self.entries.events(last, 500, private=True):
                for event in events:
                    self._hand(event)
                self._last = last = events[-1].id
        except CancelledError:
            return  # the homeserver stops
        except Refused as error:
            self.log.warn("The feed waits for the store: {error}", error=str(error))
            if self._retry is None or not self._retry.active():
                self._retry = self.clock.callLater(RETRY, self._look)
        except Exception:
            self.log.failure("The feed could not read the store")

    def _hand(self, event: Event) -> None:
        for stream in list(self._streams.get(event.pubky, ())):
            stream.hand(event)
            if stream.cut_off:
                self.forget(stream)
                self.metrics.stream_cut_off()
