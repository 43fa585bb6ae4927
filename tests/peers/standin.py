"""The logs of a store in memory, as far as its other ports show them."""

from attrs import evolve, frozen

from pubky_homeserver.core.copies import Listed, LoggedEvent, LogStanding, Position, Reign
from pubky_homeserver.core.paths import is_private
from pubky_homeserver.core.records import Event
from pubky_homeserver.store.memory import MemoryStore


@frozen
class Logs:
    """See `ILogStore`."""

    store: MemoryStore

    async def standings(self, after: int, limit: int) -> tuple[list[tuple[str, LogStanding, LogStanding]], int | None]:
        """See `ILogStore`."""
        pubkys, following = await self.store.accounts(after, limit)
        found = []
        for pubky in pubkys:
            public, private = await self.standing(pubky, False), await self.standing(pubky, True)
            assert public is not None
            assert private is not None
            found.append((pubky, public, private))
        return found, following

    async def standing(self, pubky: str, private: bool) -> LogStanding | None:
        """See `ILogStore`."""
        state, account = await self.store.log_state(pubky, private), await self.store.account(pubky)
        if state is None or account is None:
            return None
        position = Position(state.log_id, state.seq, state.event_id, state.digest)
        return LogStanding(position, (Reign(state.log_id, 1),), state.floor, account.used)

    async def event_numbered(self, pubky: str, private: bool, seq: int) -> Event | None:
        """See `ILogStore`."""
        return next((one.event for one in await self.logged(pubky, private, 0, 1000) if one.event.seq == seq), None)

    async def logged(self, pubky: str, private: bool, after: int, limit: int) -> list[LoggedEvent]:
        """See `ILogStore`."""
        events = await self.store.account_events(pubky, after, limit, False, not private, private)
        found = []
        for event in events:
            entry = await self.store.entry(pubky, event.path)
            is_current = entry is not None and entry.seq == event.seq
            found.append(LoggedEvent(event, entry.body if entry is not None and is_current else None))
        return found

    async def listed(self, pubky: str, private: bool, after: str, limit: int) -> Listed | None:
        """See `ILogStore`."""
        standing = await self.standing(pubky, private)
        if standing is None:
            return None
        root = "/priv/" if private else "/pub/"
        events = await self.store.account_events(pubky, None, 1000, False, True, True)
        paths = sorted({event.path for event in events if is_private(event.path) == private and event.path > after})
        entries = [await self.store.entry(pubky, path) for path in paths if path.startswith(root)]
        return Listed(tuple(evolve(one, body=None, blob=None) for one in entries if one is not None)[:limit], standing)
