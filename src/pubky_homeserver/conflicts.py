"""The conflict shelf in the operator's hands: what was acknowledged somewhere and did not win is seen, and applied.

To apply something is an ordinary write, with its event, and counts and is locked as one; so who follows the account
sees no difference. What nobody changed since is applied without a doubt: the account's log has nothing newer of the
path, and that it holds what it held when this was shelved is a condition of the write.
"""

from base64 import b64encode
from collections.abc import AsyncIterator, Sequence

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime

from pubky_homeserver.core.capabilities import parse_capabilities
from pubky_homeserver.core.errors import NotFound, NotHereYet, Refused, StoreAway
from pubky_homeserver.core.paths import revoked_by
from pubky_homeserver.core.records import Entry, Session
from pubky_homeserver.core.shelf import Shelved
from pubky_homeserver.interfaces import IGrantStore, IShelfStore
from pubky_homeserver.storage import ANY, Conditions, Storage

KEPT = 30 * 86_400
"""Seconds that something lies on the shelf: as long as somebody may be away."""

INTERVAL = 3600.0
"""Seconds between two looks at what is too old."""

COUNT = 60.0
"""Seconds between two looks at how much there is."""

PAGE = 100
ACCOUNTS = 500
EVENTS = 1000
PIECE = 65_536
"""Bytes of a body that are read at a time."""

TOUCHED = "The path was changed since"
SUPERSEDED = "Something newer of this path was shelved too"


@frozen
class Outcome:
    """What became of one thing that was to be applied."""

    shelved: Shelved
    failure: str | None = None
    """Why it still lies there; None if it was applied."""


@frozen
class Conflicts:
    """Looks after the shelf."""

    shelf: IShelfStore
    storage: Storage
    grants: IGrantStore

    async def accounts(self, after: str = "") -> list[str]:
        """Up to 500 accounts of which something lies there, above a pubky."""
        return await self.shelf.shelves(after, ACCOUNTS)

    async def page(self, pubky: str, after: str = "") -> list[Shelved]:
        """Up to 100 things of an account, above an id."""
        return await self.shelf.shelf(pubky, after, PAGE)

    async def one(self, pubky: str, shelved_id: str) -> Shelved:
        """One thing. Raises `NotFound`."""
        found = await self.shelf.shelved(pubky, shelved_id)
        if found is None:
            raise NotFound
        return found

    async def untouched(self, pubky: str, things: Sequence[Shelved]) -> set[str]:
        """The ids of those whose paths nobody changed here since they were written."""
        changed = await self._changed(pubky, min((one.written for one in things), default=0))
        found = set()
        for one in things:
            entry = await self.storage.entries.entry(pubky, one.path)
            if changed.get(one.path, 0) <= one.written and _hash(entry) == _hash(one.ours):
                found.add(one.id)
        return found

    async def _changed(self, pubky: str, since: int) -> dict[str, int]:
        """When (microseconds) each path was last written, of those that were since a time."""
        changed: dict[str, int] = {}
        entries = self.storage.entries
        while page := await entries.account_events(pubky, since, EVENTS, False, True, True):
            changed.update((event.path, event.id) for event in page)
            since = page[-1].id
        return changed

    async def drop(self, pubky: str, shelved_id: str) -> None:
        """Throw something away. Raises `NotFound`."""
        if not await self.shelf.drop(pubky, shelved_id):
            raise NotFound

    async def drop_all(self, pubky: str) -> int:
        """Throw away all of an account; how many that were."""
        dropped, after = 0, ""
        while page := await self.page(pubky, after):
            after = page[-1].id
            dropped += sum([await self.shelf.drop(pubky, one.id) for one in page])
        return dropped

    async def apply(self, pubky: str, shelved_id: str) -> Outcome:
        """Write what lies there, whatever the path holds by now. Raises `NotFound`, `StoreAway`."""
        return await self._apply(await self.one(pubky, shelved_id), False)

    async def apply_untouched(self, pubky: str) -> list[Outcome]:
        """Write all of an account whose paths nobody changed since, the newest of each path. Raises `StoreAway`.

        In the answer are also those that were touched, and lie there still.
        """
        found: list[tuple[int, str, str]] = []
        after, untouched = "", set[str]()
        while page := await self.page(pubky, after):
            found += [(one.written, one.id, one.path) for one in page]
            untouched |= await self.untouched(pubky, page)
            after = page[-1].id
        outcomes, paths = [], set[str]()
        for _, shelved_id, path in sorted(found, reverse=True):
            shelved = await self.shelf.shelved(pubky, shelved_id)
            if shelved is None:
                continue
            if path in paths:
                outcomes.append(Outcome(shelved, SUPERSEDED))
            elif shelved_id not in untouched:
                outcomes.append(Outcome(shelved, TOUCHED))
            else:
                outcomes.append(await self._apply(shelved, True))
            paths.add(path)
        return outcomes

    async def body(self, entry: Entry) -> AsyncIterator[bytes]:
        """The body of what lies there, in pieces. Raises `NotFound`, `NotHereYet`."""
        if entry.body is not None:
            if entry.body:
                yield entry.body
            return
        reader = await self.storage.open(entry)
        try:
            for at in range(0, reader.length, PIECE):
                yield await reader.read(at, min(PIECE, reader.length - at))
        finally:
            reader.close()

    async def _apply(self, shelved: Shelved, only_untouched: bool) -> Outcome:
        try:
            await self._write(shelved, only_untouched)
        except StoreAway:
            raise
        except Refused as refusal:
            return Outcome(shelved, str(refusal))
        await self.shelf.drop(shelved.pubky, shelved.id)
        return Outcome(shelved)

    async def _write(self, shelved: Shelved, only_untouched: bool) -> None:
        """One ordinary write of the account's own."""
        pubky, path, entry = shelved.pubky, shelved.path, shelved.entry
        if (grant_id := revoked_by(path)) is not None:
            await self.grants.forbid(pubky, grant_id)
            return
        session = Session("", pubky, tuple(parse_capabilities("/:rw")), 0)
        conditions = _unchanged(shelved) if only_untouched else ANY
        if entry is None:
            if await self.storage.entries.entry(pubky, path) is not None:
                await self.storage.delete(session, pubky, path, conditions)
            return
        if entry.body is None and entry.blob is None:
            raise NotHereYet
        await self.storage.put(session, pubky, path, self.body(entry), entry.length, conditions)


@frozen
class Expiry:
    """Drops what lies on the shelf for too long."""

    shelf: IShelfStore
    clock: IReactorTime

    async def expire(self) -> None:
        """Drop what lies there longer than it may."""
        until = int(self.clock.seconds() - KEPT) * 1_000_000
        account = ""
        while accounts := await self.shelf.shelves(account, ACCOUNTS):
            for account in accounts:
                after = ""
                while page := await self.shelf.shelf(account, after, PAGE):
                    after = page[-1].id
                    for one in page:
                        if one.shelved < until:
                            await self.shelf.drop(account, one.id)


@define(eq=False)
class Waiting:
    """How much lies on the shelf, as it was at the last look."""

    shelf: IShelfStore
    things: int | None = field(default=None, init=False)
    """None before the first look."""

    async def look(self) -> None:
        """Count all that lies there. Raises `StoreAway`."""
        counted, after = 0, ""
        while page := await self.shelf.things(after, ACCOUNTS):
            counted += sum(page.values())
            after = max(page)
        self.things = counted


def _hash(entry: Entry | None) -> bytes | None:
    return None if entry is None else entry.content_hash


def _unchanged(shelved: Shelved) -> Conditions:
    """That the path holds what it held when this was shelved."""
    if shelved.ours is None:
        return Conditions(if_none_match=True)
    return Conditions(if_match=[f'"{b64encode(shelved.ours.content_hash).decode()}"'])
