"""Reading events: those of one account from its two logs, those of all accounts through the feeds that point to them.

A feed holds ids and account numbers only; a page of it is read first, then the events of each account in it, all in one
go. What lies in a log never changes, so the two steps need not be one. Two feeds, or two logs, are read at one moment:
one after the other, an event could be committed in between, and who goes on after a younger one would never see it.
"""

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from attrs import define, field

from pubky_homeserver.core.copies import Change
from pubky_homeserver.core.records import Event
from pubky_homeserver.store import schema
from pubky_homeserver.store.connection import Commands
from pubky_homeserver.store.packing import unpack_events

MAX_NAMES = 10_000
"""Account numbers whose pubky is remembered; about 2 MB."""

_by_id = attrgetter("id")


@define(eq=False)
class Feeds:
    """Pages of events, of at most 500."""

    max_names: int = MAX_NAMES
    _names: dict[bytes, str] = field(factory=dict, init=False)
    # Account number → pubky. The first never means another account in the same data.

    def forget(self) -> None:
        """This may be other data."""
        self._names.clear()

    async def page(self, redis: Commands, after: int, count: int, private: bool) -> tuple[list[Event], int | None]:
        """Events of all accounts after an id, ascending, and where to go on; None at the end."""
        ranges, further = await self._ranges(redis, after, count, private)
        logs = await redis.pipeline(
            [
                ("XRANGE", schema.log(of_private, pubky), first, last, "COUNT", size)
                for (pubky, of_private), (first, last, size) in ranges.items()
            ]
        )
        pages = [unpack_events(pubky, log) for (pubky, _), log in zip(ranges, logs, strict=True)]
        if len(pages) == 1:
            return pages[0], further
        return sorted((event for page in pages for event in page), key=_by_id), further

    async def changed(self, redis: Commands, after: int, count: int, private: bool) -> tuple[list[Change], int | None]:
        """The logs of a page of events; no event itself is read."""
        ranges, further = await self._ranges(redis, after, count, private)
        seqs = await redis.pipeline(
            [("HGET", schema.account(pubky), f"{schema.log_name(of_private)}.seq") for pubky, of_private in ranges]
        )
        changes = [
            Change(pubky, of_private, int(last[:-2]), None if seq is None else int(seq))
            for ((pubky, of_private), (_, last, _)), seq in zip(ranges.items(), seqs, strict=True)
        ]
        return changes, further

    async def _ranges(
        self, redis: Commands, after: int, count: int, private: bool
    ) -> tuple[dict[tuple[str, bool], list[Any]], int | None]:
        """Account and log → first and last stream id, and number, of its events in a page; and where to go on.

        Of an account that lived here, and is to be erased, only the pointers are there.
        """
        # The pointers to one log in this page are all its events from the first to the last of them: one read each.
        ranges: dict[tuple[bytes, bool], list[Any]] = {}
        pointers = await self._pointers(redis, after, count, private)
        further = int(pointers[-1][0][:-2]) if len(pointers) == count else None
        for stream_id, of_private, number in pointers:
            found = ranges.setdefault((number, of_private), [stream_id, stream_id, 0])
            found[1] = stream_id
            found[2] += 1
        known = await self._learn(redis, {number for number, _ in ranges})
        named = {(self._names[which[0]], which[1]): found for which, found in ranges.items() if which[0] in known}
        return named, further

    async def _pointers(
        self, redis: Commands, after: int, count: int, private: bool
    ) -> list[tuple[bytes, bool, bytes]]:
        """Stream id, whether it is a private one, and account number of the events after an id."""
        names = [schema.feed(False)] + [schema.feed(True)] * private
        feeds = await _read(redis, names, "XRANGE", f"({after}-0", "+", count)
        if not private:
            return [(stream_id, False, fields[1]) for stream_id, fields in feeds[0]]
        both = [
            (stream_id, of_private, fields[1])
            for of_private, feed in zip((False, True), feeds, strict=True)
            for stream_id, fields in feed
        ]
        both.sort(key=lambda pointer: int(pointer[0][:-2]))
        return both[:count]

    async def _learn(self, redis: Commands, numbers: set[bytes]) -> set[bytes]:
        """Learn whose numbers these are; returns those that are anybody's."""
        if unknown := sorted(numbers - self._names.keys()):
            if len(self._names) + len(unknown) > self.max_names:
                self._names.clear()
                unknown = sorted(numbers)
            names = await redis.call("HMGET", schema.NUMBERS, *unknown)
            named = zip(unknown, names, strict=True)
            self._names.update((number, name.decode()) for number, name in named if name is not None)
        return numbers & self._names.keys()


async def account_page(
    redis: Commands,
    pubky: str,
    after: int | None,
    count: int,
    reverse: bool,
    logs: tuple[bool, ...],
    last: int | None = None,
) -> list[Event]:
    """Events of one account beyond an id, none after `last`; `logs`: of its public (False) and private (True) one."""
    end = "+" if last is None else f"{last}-0"
    command, start, stop = ("XREVRANGE", end, "-") if reverse else ("XRANGE", "-", end)
    if after is not None and (not reverse or last is None or after <= last):
        start = f"({max(after, 1)}-0" if reverse else f"({after}-0"  # Redis takes no bound below its first id
    found = await _read(redis, [schema.log(private, pubky) for private in logs], command, start, stop, count)
    events = [event for log in found for event in unpack_events(pubky, log)]
    if len(logs) == 1:
        return events
    events.sort(key=_by_id, reverse=reverse)
    return events[:count]


async def _read(
    redis: Commands, streams: Sequence[str], command: str, start: str, stop: str, count: int
) -> Sequence[list[Any]]:
    """A page of each stream, as they are at one moment."""
    if len(streams) == 1:
        return [await redis.call(command, streams[0], start, stop, "COUNT", count)]
    pages: list[list[Any]] = await redis.run("streams", streams, (command, start, stop, count))
    return pages
