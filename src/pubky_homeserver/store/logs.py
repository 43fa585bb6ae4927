"""The logs of the accounts, in Redis and in memory, as homeservers that follow them ask for them."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from operator import attrgetter
from typing import Any

from attrs import evolve, frozen
from zope.interface import implementer

from pubky_homeserver.core.copies import Change, Known, Listed, LoggedEvent, LogStanding, Position
from pubky_homeserver.core.paths import is_private
from pubky_homeserver.core.records import Entry, Event
from pubky_homeserver.interfaces import ILogStore
from pubky_homeserver.store import schema
from pubky_homeserver.store.bounds import in_log
from pubky_homeserver.store.connection import STEP, Commands
from pubky_homeserver.store.copied import Copied
from pubky_homeserver.store.feeds import Feeds
from pubky_homeserver.store.files import Files, Home
from pubky_homeserver.store.packing import REIGN, unpack_entry, unpack_event, unpack_events, unpack_reigns

MAX_OPENED = 1000
"""Accounts of which it is known that they opened; as in `arriving.lua`."""

MAX_PAGE = 1000
"""Events of one page."""

MOST_KNOWN = 100
"""Events that come with what else an answer needs."""

_by_id = attrgetter("id")


@implementer(ILogStore)
@frozen
class RedisLogs:
    """Logs as streams. `redis` is the live connection."""

    redis: Callable[[], Commands]
    feeds: Feeds

    async def standings(self, after: int, limit: int) -> tuple[list[tuple[str, LogStanding, LogStanding]], int | None]:
        """See `ILogStore`."""
        redis, end = self.redis(), after + min(limit, STEP)
        found, newest = await redis.pipeline(
            [("HMGET", schema.NUMBERS, *range(after + 1, end + 1)), ("HGET", schema.SHARD, "number")]
        )
        pubkys = [pubky.decode() for pubky in found if pubky is not None]
        public, private = _standing_fields(False), _standing_fields(True)
        accounts = await redis.pipeline([("HMGET", schema.account(pubky), *public, *private) for pubky in pubkys])
        page = [
            (pubky, _standing(facts[: len(public)]), _standing(facts[len(public) :]))
            for pubky, facts in zip(pubkys, accounts, strict=True)
            if facts[0] is not None
        ]
        return page, end if end < int(newest or 0) else None

    async def opened(self, after: int | None) -> tuple[list[str], int]:
        """See `ILogStore`."""
        if after is None:
            return [], int(await self.redis().call("HGET", schema.SHARD, "opened") or 0)
        flat = await self.redis().call("ZRANGE", schema.OPENED, f"({after}", "+inf", "BYSCORE", "WITHSCORES")
        return [pubky.decode() for pubky in flat[::2]], int(flat[-1]) if flat else after

    async def changed(self, after: int, limit: int, private: bool) -> tuple[list[Change], int | None]:
        """See `ILogStore`."""
        return await self.feeds.changed(self.redis(), after, min(limit, STEP), private)

    async def known(self, pubky: str, private: bool, position: Position, limit: int) -> Known:
        """See `ILogStore`."""
        name = schema.log_name(private)
        packet, is_copy, facts, log, members = await self.redis().run(
            "known",
            (
                schema.account(pubky),
                schema.copy(pubky),
                schema.packet(pubky),
                schema.log(private, pubky),
                schema.entries(pubky),
            ),
            (
                position.seq,
                position.event_id,
                f"({max(position.event_id - 1, 0)}-0",
                min(limit, MOST_KNOWN),
                f"{name}.whole",
                *_standing_fields(private),
            ),
        )
        standing = evolve(_standing(facts), is_copy=bool(is_copy)) if facts else None
        return Known(packet, standing, tuple(_with_bodies(pubky, log, members)))

    async def standing(self, pubky: str, private: bool) -> LogStanding | None:
        """See `ILogStore`."""
        whole = f"{schema.log_name(private)}.whole"
        account, copy = await self.redis().pipeline(
            [
                ("HMGET", schema.account(pubky), *_standing_fields(private)),
                ("HMGET", schema.copy(pubky), *_standing_fields(private), whole),
            ]
        )
        if account[0] is not None:
            return _standing(account)
        return None if copy[-1] is None else evolve(_standing(copy[:-1]), is_copy=True)

    async def event(self, pubky: str, private: bool, event_id: int) -> Event | None:
        """See `ILogStore`."""
        found = await self.redis().call("XRANGE", schema.log(private, pubky), event_id, event_id)
        return unpack_events(pubky, found)[0] if found else None

    async def event_numbered(self, pubky: str, private: bool, seq: int) -> Event | None:
        """See `ILogStore`."""
        found = await self.redis().run("numbered", (schema.log(private, pubky),), (seq,))
        return None if found is None else unpack_event(int(found[0][:-2]), pubky, found[1][1])

    async def logged(self, pubky: str, private: bool, after: int, limit: int) -> list[LoggedEvent]:
        """See `ILogStore`."""
        limit = min(limit, MAX_PAGE)
        found: list[LoggedEvent] = []
        while len(found) < limit:
            step = min(limit - len(found), STEP)
            page = await self._logged(pubky, private, found[-1].event.id if found else after, step)
            found += page
            if len(page) < step:
                break
        return found

    async def _logged(self, pubky: str, private: bool, after: int, count: int) -> list[LoggedEvent]:
        keys = schema.log(private, pubky), schema.entries(pubky)
        log, members = await self.redis().run("logged", keys, (f"({after}-0", count))
        return _with_bodies(pubky, log, members)

    async def listed(self, pubky: str, private: bool, after: str, limit: int) -> Listed | None:
        """See `ILogStore`."""
        found = await self.redis().run(
            "listed",
            (schema.account(pubky), schema.entries(pubky), schema.copy(pubky)),
            (
                *in_log(private, after),
                min(limit, STEP),
                f"{schema.log_name(private)}.whole",
                *_standing_fields(private),
            ),
        )
        if found is None:
            return None
        facts, members = found
        return Listed(tuple(_bare(unpack_entry(member)) for member in members), _standing(facts))


@implementer(ILogStore)
@frozen
class MemoryLogs:
    """The logs of accounts and copies in memory. `homes` has the accounts by their keys, in the order of sign-up."""

    homes: Mapping[str, Home]
    copied: Callable[[str], Copied | None]
    arrivals: Sequence[str]
    """Accounts that opened here, each time."""
    packet: Callable[[str], bytes | None]
    """The one that is kept of a key."""
    feed: Callable[[int], Iterable[Event]]
    """The events of all accounts after an id, ascending."""

    async def standings(self, after: int, limit: int) -> tuple[list[tuple[str, LogStanding, LogStanding]], int | None]:
        """See `ILogStore`."""
        end = after + min(limit, STEP)
        page = [
            (pubky, _standing_of(home, False), _standing_of(home, True))
            for pubky, home in list(self.homes.items())[after:end]
            if home.away is None
        ]
        return page, end if end < len(self.homes) else None

    async def opened(self, after: int | None) -> tuple[list[str], int]:
        """See `ILogStore`."""
        last = {pubky: number for number, pubky in enumerate(self.arrivals, 1)}
        known = sorted(last, key=lambda pubky: last[pubky])[-MAX_OPENED:]
        found = [] if after is None else [pubky for pubky in known if last[pubky] > after]
        return found, len(self.arrivals)

    async def changed(self, after: int, limit: int, private: bool) -> tuple[list[Change], int | None]:
        """See `ILogStore`."""
        seen = (event for event in self.feed(after) if private or not is_private(event.path))
        page = list(islice(seen, min(limit, STEP)))
        newest = {(event.pubky, is_private(event.path)): event for event in page}
        changes = [Change(*which, event.id, self._seq(*which)) for which, event in newest.items()]
        return changes, page[-1].id if len(page) == min(limit, STEP) else None

    async def known(self, pubky: str, private: bool, position: Position, limit: int) -> Known:
        """See `ILogStore`."""
        packet, standing = self.packet(pubky), await self.standing(pubky, private)
        if standing is None or (standing.position.seq, standing.position.event_id) == (position.seq, position.event_id):
            return Known(packet, standing)
        after = max(position.event_id - 1, 0)
        return Known(packet, standing, tuple(await self.logged(pubky, private, after, min(limit, MOST_KNOWN))))

    def _seq(self, pubky: str, private: bool) -> int | None:
        home = self.homes.get(pubky)
        return None if home is None or home.away is not None else home.logs[private].seq

    async def standing(self, pubky: str, private: bool) -> LogStanding | None:
        """See `ILogStore`."""
        home = self.homes.get(pubky)
        if home is not None and home.away is None:
            return _standing_of(home, private)
        copied = self.copied(pubky)
        return None if copied is None else copied.standing(private)

    async def event(self, pubky: str, private: bool, event_id: int) -> Event | None:
        """See `ILogStore`."""
        return next((event for event in self._events(pubky, private) if event.id == event_id), None)

    async def event_numbered(self, pubky: str, private: bool, seq: int) -> Event | None:
        """See `ILogStore`."""
        return next((event for event in self._events(pubky, private) if event.seq == seq), None)

    async def logged(self, pubky: str, private: bool, after: int, limit: int) -> list[LoggedEvent]:
        """See `ILogStore`."""
        events, files = self._events(pubky, private), self._files(pubky)
        page = events[bisect_left(events, after + 1, key=_by_id) :][: min(limit, MAX_PAGE)]
        return [_with_body(event, files.entries.get(event.path)) for event in page] if files else []

    async def listed(self, pubky: str, private: bool, after: str, limit: int) -> Listed | None:
        """See `ILogStore`."""
        files, standing = self._files(pubky), await self.standing(pubky, private)
        if files is None or standing is None:
            return None
        paths = [path for path in files.after(after) if is_private(path) == private]
        return Listed(tuple(_bare(files.entries[path]) for path in paths[: min(limit, STEP)]), standing)

    def _files(self, pubky: str) -> Files | None:
        home, copied = self.homes.get(pubky), self.copied(pubky)
        if home is not None and home.away is None:
            return home.files
        return None if copied is None else copied.files

    def _events(self, pubky: str, private: bool) -> list[Event]:
        files = self._files(pubky)
        return [event for event in files.events if is_private(event.path) == private] if files else []


def _standing_of(home: Home, private: bool) -> LogStanding:
    log = home.logs[private]
    position = Position(log.log_id, log.seq, log.event_id, log.digest)
    return LogStanding(position, home.reigns(private), log.floor, home.account.used)


def _standing_fields(private: bool) -> tuple[str, ...]:
    name = schema.log_name(private)
    return (*(f"{name}.{field}" for field in ("reigns", "seq", "event", "digest", "floor")), "used")


def _standing(facts: Sequence[Any]) -> LogStanding:
    reigns, seq, event, digest, floor, used = facts
    position = Position(reigns[-REIGN:][:16].hex(), int(seq), int(event), digest)
    return LogStanding(position, unpack_reigns(reigns), int(floor), int(used))


def _with_bodies(pubky: str, log: Any, members: Sequence[bytes]) -> list[LoggedEvent]:
    """What `logged.lua` answers."""
    entries = {entry.path: entry for entry in map(unpack_entry, members)}
    return [_with_body(event, entries.get(event.path)) for event in unpack_events(pubky, log)]


def _with_body(event: Event, entry: Entry | None) -> LoggedEvent:
    """An event, with the body if that is small and the path still has it."""
    return LoggedEvent(event, entry.body if entry is not None and entry.seq == event.seq else None)


def _bare(entry: Entry) -> Entry:
    return evolve(entry, body=None, blob=None)
