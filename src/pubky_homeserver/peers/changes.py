"""What has changed here, for a peer that listens: one stream of hints for all the logs that it may read.

    event: epoch        data: <text>          first of all: every change from now on gets a hint
    event: change       data: {"pubky", "log", "seq"}         of an account that is new here the number may be 0
    event: beat         data: <event id>      every few seconds: all that changed until now was hinted at; the newest
                                              of these events, 0 if there was none yet

They are server-sent events (WHATWG HTML, 9.2). Hints may come late or twice, and several changes of a log may share
one. The stream ends when the epoch does, for then the store may have forgotten something and all must be asked about.
"""

from collections.abc import AsyncGenerator, Callable, Iterable

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from pubky_homeserver.core.copies import Hint
from pubky_homeserver.core.peers import Peer
from pubky_homeserver.interfaces import IEntryStore, ILogStore
from pubky_homeserver.peers.messages import pack_hint
from pubky_homeserver.peers.shapes import to_json

BEAT = 5.0
"""Seconds from one beat to the next."""

PAUSE = 0.125
"""Seconds from one look at what changed to the next: under load one hint, and one question, is for many changes.

The first change after silence is told at once.
"""

PAGE = 500
"""Events read at a time."""


@define(eq=False)
class Changes:
    """The streams of all peers, one for each. `epoch`: a text that is another one after the store was restarted."""

    entries: IEntryStore
    logs: ILogStore
    clock: IReactorTime
    epoch: Callable[[], str]
    _listening: "dict[str, _Alarm]" = field(factory=dict, init=False)
    # Peer's key → what wakes its stream.
    _stopped: bool = field(default=False, init=False)
    # The ports close after this: what comes in between gets no stream that would hold them up.

    async def of(self, peer: Peer, after: int = 0) -> AsyncGenerator[bytes, None]:
        """The stream of a peer, in pieces; one that it had before ends. `after`: the event where to begin, 0: now.

        Raises `StoreAway`.
        """
        self.end(peer.key)
        if self._stopped:
            return
        alarm = self._listening[peer.key] = _Alarm(self.clock)
        unsubscribe = self.entries.subscribe(alarm.ring)
        try:
            epoch, newest = self.epoch(), await self.entries.last_event_id()
            _, opened = await self.logs.opened(None)
            last = min(after or newest, newest)
            told = 0  # the newest of all may be one that the peer must not know of, nor its time
            yield _frame("epoch", epoch.encode())
            beat = self.clock.seconds()
            while not alarm.ended and self.epoch() == epoch:
                changes, further = await self.logs.changed(last, PAGE, peer.private)
                if changes:
                    last = max(one.event_id for one in changes)
                    readable = [one for one in changes if peer.may_read(one.pubky, one.private)]
                    told = max([told, *(one.event_id for one in readable)])
                    yield _frames(Hint(one.pubky, one.private, one.seq) for one in readable if one.seq is not None)
                if further is not None:
                    last = further
                    continue
                now = self.clock.seconds()
                if now >= beat or not changes:  # a write tells of its account anyway
                    new, opened = await self.logs.opened(opened)
                    if hints := _new(new, peer):
                        yield _frames(hints)
                if now >= beat:
                    yield _frame("beat", b"%d" % told)
                    beat = now + BEAT
                if changes:
                    await alarm.rest(PAUSE)
                else:
                    await alarm.wait(beat - now)
        finally:
            unsubscribe()
            if self._listening.get(peer.key) is alarm:
                del self._listening[peer.key]

    def end(self, key: str) -> None:
        """End the stream of a peer, if it has one."""
        if (alarm := self._listening.pop(key, None)) is not None:
            alarm.end()

    def stop(self) -> None:
        """End all streams, for good."""
        self._stopped = True
        for key in [*self._listening]:
            self.end(key)


@define(eq=False)
class _Alarm:
    """Wakes one who waits, by a ring or after a time; a ring that comes before is not lost."""

    _clock: IReactorTime
    ended: bool = field(default=False, init=False)
    _rang: bool = field(default=False, init=False)
    _waiting: Deferred[None] | None = field(default=None, init=False)
    _resting: Deferred[None] | None = field(default=None, init=False)

    def ring(self) -> None:
        """There may be something new."""
        self._rang = True
        self._wake()

    def end(self) -> None:
        """There is nothing more to wait for."""
        self.ended = True
        self.ring()
        if self._resting is not None and not self._resting.called:
            self._resting.callback(None)

    async def wait(self, seconds: float) -> None:
        """Return at the next ring, or after some seconds."""
        if not self._rang:
            waiting: Deferred[None] = Deferred()
            self._waiting = waiting
            try:
                await waiting.addTimeout(seconds, self._clock, lambda _result, _seconds: None)
            finally:
                self._waiting = None
        self._rang = False

    async def rest(self, seconds: float) -> None:
        """Return after some seconds, or at the end."""
        resting: Deferred[None] = Deferred()
        if self.ended:
            return
        self._resting = resting
        try:
            await resting.addTimeout(seconds, self._clock, lambda _result, _seconds: None)
        finally:
            self._resting = None

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.called:
            self._waiting.callback(None)


def _new(pubkys: Iterable[str], peer: Peer) -> list[Hint]:
    """Hints for accounts that opened here: nothing needs to be written for a copy to begin."""
    return [Hint(pubky, private, 0) for pubky in pubkys for private in (False, True) if peer.may_read(pubky, private)]


def _frames(hints: Iterable[Hint]) -> bytes:
    return b"".join(_frame("change", to_json(pack_hint(hint))) for hint in hints)


def _frame(name: str, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode("ascii"), data)
