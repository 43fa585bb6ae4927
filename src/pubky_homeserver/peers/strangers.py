"""An official homeserver in the place of a peer: what it knows nothing of it refuses, and its hints are made here.

It offers nothing, so the settings name the accounts. The stream of events of each account that is followed is held
open; whatever comes on it is a hint to look (`retelling.py`), and so is its end: it is cut when it lags behind, when
the homeserver restarts, and when a connection breaks. Every few minutes there is a hint without one, too, so an account
of which nothing can be heard is still looked after, and one that is quiet is known to be.
"""

import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, ClassVar

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredList, FirstError
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from pubky_homeserver.core.copies import Held, Hint, Listed, Logged, LoggedEvent, Offered, Position
from pubky_homeserver.core.erasing import Obeyed
from pubky_homeserver.core.errors import BodyGone, PeerAway, PeerBroken, PeerError, PeerRefused
from pubky_homeserver.core.moves import Shown
from pubky_homeserver.core.peers import Greeting
from pubky_homeserver.interfaces import IPeer
from pubky_homeserver.peers.answers import beyond
from pubky_homeserver.peers.official import Official, give_up

LOOK = 240.0
"""Seconds from one hint to the next, at most: a copy is stale after 600 without a word."""

LIVE = 100
"""Streams that are held open to one homeserver; further accounts are only looked after now and then."""

FIRST_DELAY = 1.0
"""Seconds until a stream that ended is opened again; doubled after each failure."""

LONGEST_DELAY = LOOK


@implementer(IPeer)
@define(eq=False)
class Stranger:
    """An official homeserver."""

    official: Official
    jitter: Callable[[], float] = random.random
    """A number from 0 to 1."""
    _open: set[str] = field(factory=set, init=False)
    # Accounts whose stream is open.
    log: ClassVar[Logger] = Logger()

    @property
    def key(self) -> str:
        """See `IPeer`."""
        return self.official.peer.key

    async def offered(self, after: str) -> tuple[list[Offered], str | None]:
        """See `IPeer`: it tells nobody of its users."""
        return [], None

    async def held(self, after: str) -> tuple[list[Held], str | None]:
        """See `IPeer`: it has no copies."""
        return [], None

    async def greet(self) -> Greeting:
        """See `IPeer`: it answers, and can nothing that peers can."""
        await self.official.features()
        return Greeting()

    async def packet(self, pubky: str) -> bytes | None:
        """See `IPeer`: it keeps none."""
        return None

    async def show(self, packets: Sequence[bytes]) -> list[Shown]:
        """See `IPeer`."""
        raise PeerRefused("an official homeserver takes no packets")

    async def events(self, pubky: str, private: bool, position: Position) -> Logged:
        """See `IPeer`."""
        raise PeerRefused("an official homeserver has no logs as ours")

    async def entries(self, pubky: str, private: bool, after: str) -> Listed:
        """See `IPeer`."""
        raise PeerRefused("an official homeserver has no lists as ours")

    async def late(self, pubky: str, private: bool, events: Sequence[LoggedEvent]) -> set[int]:
        """See `IPeer`."""
        raise PeerRefused("an official homeserver takes no late writes")

    async def erase(self, pubky: str, log_id: str, seq: int) -> Obeyed:
        """See `IPeer`."""
        raise PeerRefused("an official homeserver keeps no copies")

    async def body(
        self, pubky: str, private: bool, path: str, content_hash: bytes, start: int = 0
    ) -> AsyncIterator[bytes]:
        """See `IPeer`: only what the path has now."""
        found = await self.official.get(pubky, path)
        if found is None:
            raise BodyGone("it is not there any more")
        entry, pieces = found
        if entry.content_hash != content_hash:
            await give_up(pieces)
            raise BodyGone("another one is there")
        return beyond(start, pieces)

    # --- hints ----------------------------------------------------------------------------------------------------

    async def changes(self, hear: Callable[[Hint | None], None], beat: Callable[[], None]) -> None:
        """See `IPeer`: of the accounts that the settings name. `beat` is called while all of them are listened to."""
        await self.official.features()
        hear(None)
        accounts = sorted(self.official.peer.follow.keys)
        for pubky in accounts:
            hear(Hint(pubky, False, None))

        def beat_if_all() -> None:
            if len(self._open) == len(accounts):
                beat()

        await _until_one_fails(
            [self._listen(pubky, hear, beat_if_all) for pubky in accounts[:LIVE]]
            + [self._look(pubky, hear) for pubky in accounts[LIVE:]]
        )

    async def _look(self, pubky: str, hear: Callable[[Hint | None], None]) -> None:
        """Hint at an account now and then."""
        while True:
            await deferLater(self.official.clock, LOOK * (1 + self.jitter()) / 2)
            await self.official.features()
            hear(Hint(pubky, False, None))

    async def _listen(self, pubky: str, hear: Callable[[Hint | None], None], beat: Callable[[], None]) -> None:
        """Hold the stream of an account open. Raises `PeerAway` if not only this stream does not answer."""
        clock, failures = self.official.clock, 0
        while True:
            began = clock.seconds()
            try:
                await self._hear_one(pubky, hear, beat)
            except PeerAway as error:
                self.log.debug("The events of {pubky} break off: {reason}", pubky=pubky, reason=str(error))
                await self.official.features()
            except (PeerRefused, PeerBroken) as error:
                self.log.info("The events of {pubky} cannot be heard: {reason}", pubky=pubky, reason=str(error))
            finally:
                self._open.discard(pubky)
            failures = 0 if clock.seconds() - began > LONGEST_DELAY else failures + 1
            delay = min(FIRST_DELAY * 2.0 ** min(max(failures - 1, 0), 20), LONGEST_DELAY)
            await deferLater(clock, delay * (1 + self.jitter()) / 2)
            hear(Hint(pubky, False, None))

    async def _hear_one(self, pubky: str, hear: Callable[[Hint | None], None], beat: Callable[[], None]) -> None:
        newest = await self.official.newest(pubky)
        hear(Hint(pubky, False, None))  # what happened until then is not on the stream
        hinted = self.official.clock.seconds()
        stream = self.official.live(pubky, 0 if newest is None else newest.id)
        try:
            async for told in stream:
                self._open.add(pubky)
                now = self.official.clock.seconds()
                if told is not None or now - hinted > LOOK:
                    hear(Hint(pubky, False, None))
                    hinted = now
                if told is None:
                    beat()
        finally:
            await stream.aclose()


async def _until_one_fails(works: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run all, which have no end, until one of them fails; then none of them runs on."""
    running = [Deferred.fromCoroutine(work) for work in works]
    try:
        await DeferredList(running, fireOnOneErrback=True, consumeErrors=True)
    except FirstError as error:
        error.subFailure.raiseException()
    finally:
        for one in running:
            one.cancel()


async def known(official: Official, accounts: Sequence[str]) -> int:
    """How many of some accounts it knows. Raises `PeerAway`."""
    found = 0
    for pubky in accounts:
        try:
            await official.newest(pubky)
            found += 1
        except PeerAway:
            raise
        except PeerError:
            pass
    return found
