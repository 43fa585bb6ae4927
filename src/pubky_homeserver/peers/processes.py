"""What the processes of one homeserver tell each other of mirroring, where they are several.

One process works in the background: it follows peers, opens accounts, reminds networks. The others answer clients and
peers; there may be any number. What they hear by that the background process must hear of, and what they show of a copy
only the background process knows. One process alone tells nothing to nobody.

    from a web process
    packet, fenced <pubky> …  a newer packet was kept; it shut an account
    changed <pubky> …         a copy is another one: claimed, hidden, shown, or an account that was shut
    called <peer> …           a peer began to listen
    asked <peer> …            a peer asked something
    began <homeserver>        hints may have been missed: which copies are up to date?

    from the background process
    anew <homeserver>         it begins: of no copy is known that it is up to date
    copy <pubky> …            a copy is another one
    behind <pubky> …          a copy is not up to date, or may not be
    current <pubky> …         it is
    heard <peer> …            a peer has told of all changes until now

Who tells first that copies are behind, then that the peer was heard, is never believed to have heard more than he had.
"""

from collections.abc import Awaitable, Callable, Sequence

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from pkarr.asking import all_of
from pkarr.packet import SignedPacket
from pubky_homeserver.copies import Copies
from pubky_homeserver.core.moves import Kept
from pubky_homeserver.interfaces import IHints
from pubky_homeserver.packets import Packets
from pubky_homeserver.peers.telling import Telling

ASKED = 1.0
"""Seconds from one word of it that a peer asks something to the next: it may ask a hundred times a second."""

FRESH = 1.0
"""Seconds after which it is not told any more that a peer was heard: whoever hears it takes it for now."""


@define(eq=False)
class WebProcess(Service):
    """Has the copies as the background process knows them, and tells it what was heard here."""

    homeserver: str
    """Our own key."""
    copies: Copies
    hints: IHints
    clock: IReactorTime
    _telling: Telling = field(init=False)
    _asked: dict[str, float] = field(factory=dict, init=False)
    # Peer → when it was last told (seconds) that it asks something.

    @_telling.default
    def _make_telling(self) -> Telling:
        answers = {
            "anew": self._doubt,
            "changed": self._read,
            "copy": self._read,
            "behind": self._fall_behind,
            "current": self._keep_up,
            "heard": self._hear,
        }
        words = ("began", "changed", "packet", "fenced", "called", "asked")
        return Telling(self.hints, self.clock, words, answers, self._look_again)

    def startService(self) -> None:
        """Begin."""
        super().startService()
        self.copies.changed = lambda pubky: self._telling.tell("changed", pubky)
        self._telling.startService()

    def stopService(self) -> Deferred[None]:
        """Stop; fires when nothing is under way any more."""
        super().stopService()
        self.copies.changed = None
        return self._telling.stopService()

    def tell_packet(self, pubky: str, kept: Kept) -> None:
        """Tell that a newer packet was kept."""
        self._telling.tell("fenced" if kept is Kept.FENCED else "packet", pubky)

    def tell_called(self, peer: str) -> None:
        """Tell that a peer began to listen."""
        self._telling.tell("called", peer)

    def tell_asked(self, peer: str) -> None:
        """Tell now and then that a peer asks something."""
        now = self.clock.seconds()
        if self._asked.get(peer, -ASKED) + ASKED <= now:
            self._asked[peer] = now
            self._telling.tell("asked", peer)

    async def _look_again(self) -> None:
        self.copies.doubt()
        await self.copies.load()
        self._telling.tell("began", self.homeserver)

    async def _doubt(self, _keys: Sequence[str]) -> None:
        self.copies.doubt()

    async def _read(self, keys: Sequence[str]) -> None:
        await all_of(self.copies.read(pubky) for pubky in keys)

    async def _fall_behind(self, keys: Sequence[str]) -> None:
        for pubky in keys:
            self.copies.fall_behind(pubky)

    async def _keep_up(self, keys: Sequence[str]) -> None:
        for pubky in keys:
            self.copies.keep_up(pubky)

    async def _hear(self, keys: Sequence[str]) -> None:
        for peer in keys:
            self.copies.hear(peer)


@define(eq=False)
class BackgroundProcess(Service):
    """Tells the web processes how the copies are, and does what follows from what they heard."""

    homeserver: str
    """Our own key."""
    copies: Copies
    packets: Packets
    hints: IHints
    clock: IReactorTime
    look_again: Callable[[], Awaitable[None]]
    """Goes through all copies once more: what other processes heard of them may have been missed."""
    learn: Callable[[SignedPacket, Kept], None]
    """Is told of a packet that another process kept."""
    gone: Callable[[str], None]
    """Is told of a copy that another process has hidden."""
    called: Callable[[str], None]
    """Is told which peer began to listen to another process."""
    asked: Callable[[str], None]
    """Is told which peer asked another process something."""
    _telling: Telling = field(init=False)

    @_telling.default
    def _make_telling(self) -> Telling:
        answers = {
            "began": self._tell_flags,
            "changed": self._refresh,
            "packet": self._learn,
            "fenced": self._learn_fenced,
            "called": self._call,
            "asked": self._notice,
        }
        words = ("anew", "copy", "flags", "heard")
        return Telling(self.hints, self.clock, words, answers, self._look_again, self._spell)

    def startService(self) -> None:
        """Begin."""
        super().startService()
        self.copies.changed = lambda pubky: self._telling.tell("copy", pubky)
        self.copies.flagged = lambda pubky: self._telling.tell("flags", pubky)
        self.copies.beaten = lambda peer: self._telling.tell("heard", peer)
        self._telling.tell("anew", self.homeserver)
        self._telling.startService()

    def stopService(self) -> Deferred[None]:
        """Stop; fires when nothing is under way any more."""
        super().stopService()
        self.copies.changed = self.copies.flagged = self.copies.beaten = None
        return self._telling.stopService()

    def _spell(self, word: str, keys: Sequence[str]) -> Sequence[str]:
        """As web processes understand it: `flags` are what they are now, and those of a new copy come with it."""
        if word == "heard":
            since = self.clock.seconds() - FRESH
            keys = [peer for peer in keys if self.copies.heard(peer) >= since]
        if word in ("anew", "heard"):
            return [" ".join((word, *keys))] if keys else []
        behind = [pubky for pubky in keys if self.copies.is_behind(pubky)]
        current = [pubky for pubky in keys if not self.copies.is_behind(pubky)]
        said = (("copy", keys if word == "copy" else ()), ("behind", behind), ("current", current))
        return [" ".join((one, *about)) for one, about in said if about]

    async def _look_again(self) -> None:
        await self.copies.load()
        await self.look_again()

    async def _tell_flags(self, _keys: Sequence[str]) -> None:
        self._telling.tell("flags", *(copy.pubky for copy in self.copies.all()))

    async def _refresh(self, keys: Sequence[str]) -> None:
        for pubky in keys:
            before = self.copies.of(pubky)
            if await self.copies.refresh(pubky) is None and before is not None:
                self.gone(pubky)

    async def _learn(self, keys: Sequence[str], kept: Kept = Kept.KEPT) -> None:
        for pubky in keys:
            packet = await self.packets.of(pubky)
            if packet is not None:
                self.learn(packet, kept)

    async def _learn_fenced(self, keys: Sequence[str]) -> None:
        await self._learn(keys, Kept.FENCED)

    async def _call(self, keys: Sequence[str]) -> None:
        for peer in keys:
            self.called(peer)

    async def _notice(self, keys: Sequence[str]) -> None:
        for peer in keys:
            self.asked(peer)
