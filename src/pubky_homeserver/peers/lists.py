"""Whether the files of a copy are those of its primary, name by name.

Position and digest are the same where histories are; but who chooses what an account has can choose two lists with the
same digest, and show one to each peer. So now and then all is read. Neither side stands still meanwhile: an entry that
differs is explained by an event that came since, on one side or the other, or it is a difference.
"""

from attrs import evolve, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from pubky_homeserver.core.copies import Listed, Position
from pubky_homeserver.core.errors import NotFound, PeerAway, PeerBroken
from pubky_homeserver.core.records import Entry
from pubky_homeserver.interfaces import ICopyStore, ILogStore, IPeer
from pubky_homeserver.peers.comparing import END

PAGE = 250
"""Files, and events, of ours that are read at a time."""

WAITS = 60
"""Times that the copy is waited for to come to where its primary stood."""

WAIT = 0.5
"""Seconds between two looks whether it is there."""


@frozen
class Lists:
    """Compares lists with one peer. It changes nothing; who keeps the copy up to date goes on meanwhile."""

    peer: IPeer
    store: ICopyStore
    logs: ILogStore
    clock: IReactorTime

    async def differences(self, pubky: str, private: bool) -> int:
        """How many files of a log differ from its primary's, once those events are applied that it has meanwhile.

        Raises what `IPeer` raises, `PeerAway` if the copy does not come to where its primary is, `NotFound`.
        """
        after, found = "", 0
        while True:
            page = await self.peer.entries(pubky, private, after)
            paths = [one.path for one in page.entries]
            if paths != sorted(set(paths)) or (paths and paths[0] <= after):
                raise PeerBroken("its list is not in order")
            upto = paths[-1] if paths else END
            found += await self._compare(pubky, private, page, after, upto)
            if not paths:
                return found
            after = upto

    async def _compare(self, pubky: str, private: bool, page: Listed, after: str, upto: str) -> int:
        """How many files above a path, up to another one, differ from those of a page."""
        there = page.standing.position
        await self._reach(pubky, private, there)
        ours = {one.path: _named(one) for one in await self._own(pubky, private, after, upto)}
        theirs = {one.path: _named(one) for one in page.entries}
        changed: set[str] | None = None
        found = 0
        for path in ours.keys() | theirs.keys():
            own = ours.get(path)
            if own == theirs.get(path) or (own is not None and own.seq > there.seq):
                continue
            if changed is None:
                changed = await self._changed(pubky, private, there.event_id)
            found += path not in changed
        return found

    async def _reach(self, pubky: str, private: bool, there: Position) -> None:
        """Wait until the copy is where its primary was."""
        for _ in range(WAITS):
            copy = await self.store.copy(pubky)
            if copy is None:
                raise NotFound
            log = copy.private if private else copy.public
            if log.is_whole and log.position is not None and log.position.seq >= there.seq:
                return
            await deferLater(self.clock, WAIT)
        raise PeerAway("the copy is not where its primary is")

    async def _own(self, pubky: str, private: bool, after: str, upto: str) -> list[Entry]:
        """Our files above a path, up to another one."""
        found: list[Entry] = []
        while page := await self.store.own(pubky, private, after, PAGE):
            within = [one for one in page if one.path <= upto]
            found += within
            if len(within) < len(page):
                break
            after = page[-1].path
        return found

    async def _changed(self, pubky: str, private: bool, since: int) -> set[str]:
        """The paths that events of ours after an id are about."""
        found: set[str] = set()
        while page := await self.logs.logged(pubky, private, since, PAGE):
            found.update(one.event.path for one in page)
            since = page[-1].event.id
        return found


def _named(entry: Entry) -> Entry:
    """An entry without its body, which lists do not have."""
    return evolve(entry, body=None, blob=None)
