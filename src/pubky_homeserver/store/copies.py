"""Copies of other homeservers' accounts, in Redis.

Their files and events lie as those of an account do, so that a copy can become one. What only a copy has is how far it
is: of each log the position, and while its list is read how far that is.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from sys import intern

from attrs import evolve, frozen
from zope.interface import implementer

from pubky_homeserver.core.copies import CopiedLog, Copy, LogStanding, Position, Reign
from pubky_homeserver.core.digests import EMPTY
from pubky_homeserver.core.erasing import NEVER, Erased
from pubky_homeserver.core.errors import NotFound, StorageFull
from pubky_homeserver.core.paths import PRIVATE, TAKEDOWN
from pubky_homeserver.core.quotas import ENTRY_OVERHEAD
from pubky_homeserver.core.records import Entry, Event, Operation
from pubky_homeserver.interfaces import ICopyStore
from pubky_homeserver.store import schema
from pubky_homeserver.store.bounds import in_log, page_of_log
from pubky_homeserver.store.connection import STEP, Commands, Word
from pubky_homeserver.store.files import check_log, check_page, check_reigns, log_of, mark_of, written
from pubky_homeserver.store.packing import (
    DEL,
    MODIFIED,
    NEITHER,
    PUT,
    SIGNATURE,
    pack_body,
    pack_position,
    pack_reigns,
    pack_stat,
    pack_type,
    unpack_entry,
    unpack_position,
    unpack_reigns,
)
from pubky_homeserver.store.refusals import checked
from pubky_homeserver.store.remembered import Remembered

PART = 250
"""Files of a list that one script keeps: for some milliseconds Redis does nothing else."""

Facts = Sequence[bytes]
"""Fields and values, one after the other."""


@implementer(ICopyStore)
@frozen
class RedisCopies:
    """Copies in Redis. `redis` is the live connection."""

    redis: Callable[[], Commands]
    remembered: Remembered | None
    has_room: Callable[[], bool]
    grace: int
    """Seconds that the blob of a replaced or removed entry is kept."""

    async def begin(
        self, pubky: str, primary: str, now: int, packet: bytes | None = None, erased: Erased | None = NEVER
    ) -> bool:
        """See `ICopyStore`."""
        keys = schema.copy(pubky), schema.account(pubky), schema.COPIES, schema.packet(pubky), schema.ERASED
        name, ids = ("", b"-") if erased is None else (erased[0], bytes.fromhex("".join(erased[1])))
        words = pubky, primary, now, EMPTY, packet or b"", SIGNATURE, name, ids
        return bool(checked(await self.redis().run("begin_copy", keys, words)))

    async def copy(self, pubky: str) -> Copy | None:
        """See `ICopyStore`."""
        named = schema.entries(pubky), f"[{TAKEDOWN}\0", f"({TAKEDOWN}\1", "BYLEX", "LIMIT", 0, 1
        facts, notices = await self.redis().pipeline([("HGETALL", schema.copy(pubky)), ("ZRANGE", *named)])
        return _unpack(pubky, facts, bool(notices)) if facts else None

    async def copies(self, after: str, limit: int) -> list[Copy]:
        """See `ICopyStore`."""
        bound = f"({after}" if after else "-"
        words = bound, min(limit, STEP), schema.copy(), schema.entries(), TAKEDOWN
        found = await self.redis().run("copies", (schema.COPIES,), words)
        each = zip(found[::3], found[1::3], found[2::3], strict=True)
        return [_unpack(pubky.decode(), facts, bool(notices)) for pubky, facts, notices in each]

    async def begin_list(self, pubky: str, private: bool, start: LogStanding) -> None:
        """See `ICopyStore`."""
        position = start.position
        reply = await self.redis().run(
            "begin_list",
            (schema.copy(pubky), schema.log(private, pubky)),
            (
                schema.log_name(private),
                position.seq,
                position.event_id,
                position.digest,
                pack_reigns(start.reigns),
                pack_position(position),
            ),
        )
        checked(reply)

    async def keep_listed(
        self,
        pubky: str,
        private: bool,
        entries: Sequence[Entry],
        upto: str,
        shelve: tuple[str, int] | None = None,
    ) -> None:
        """See `ICopyStore`."""
        check_page(entries, private)
        if entries:
            self._check_room()
        first, stop = page_of_log(private, upto)
        left = [evolve(entry, body=None, blob=None) for entry in entries]
        with self._rewriting(pubky):
            while True:
                part, more = left[:PART], len(left) > PART
                taken, done = await self._keep(pubky, private, (first, stop, upto), part, more, shelve)
                left = left[taken:]
                if done and not left:
                    return

    async def _keep(
        self,
        pubky: str,
        private: bool,
        bounds: tuple[str, str, str],
        entries: list[Entry],
        more: bool,
        shelve: tuple[str, int] | None,
    ) -> tuple[int, int]:
        """Keep a part of a page: how many entries are done, and whether all between the bounds is (1)."""
        first, stop, upto = bounds
        if more:
            first, stop, upto = (*page_of_log(private, entries[-1].path), entries[-1].path)
        key, now = ("", 0) if shelve is None else shelve
        shelf = schema.shelf(pubky), schema.SHELVES, schema.SHELF_USED
        taken, done = checked(
            await self.redis().run(
                "keep_listed",
                (schema.copy(pubky), schema.entries(pubky), schema.GRACES, *shelf),
                (
                    *(schema.log_name(private), first, stop, upto, PART, self.grace * 1_000_000),
                    *(pubky, key, now.to_bytes(MODIFIED, "big")),
                    *(word for entry in entries for word in _words(entry)),
                ),
            )
        )
        return taken, done

    async def end_list(self, pubky: str, private: bool, standing: LogStanding) -> bool:
        """See `ICopyStore`."""
        position = standing.position
        words = position.seq, position.event_id, position.digest, pack_reigns(standing.reigns)
        reply = await self.redis().run("end_list", (schema.copy(pubky),), (schema.log_name(private), *words))
        return bool(checked(reply))

    async def apply(self, pubky: str, private: bool, event: Event, entry: Entry | None) -> bool:
        """See `ICopyStore`."""
        check_log(event.path, private)
        is_put = event.operation is Operation.PUT
        if is_put:
            self._check_room()
        keys = schema.copy(pubky), schema.entries(pubky), schema.log(private, pubky), schema.GRACES
        arguments = (
            schema.log_name(private),
            event.id,
            event.digest,
            PUT if is_put else DEL,
            schema.BLOBS,
            self.grace * 1_000_000,
            *(_words(written(event, entry)) if is_put else (event.path, b"", b"", b"", event.seq, NEITHER, b"")),
        )
        with nullcontext() if self.remembered is None else self.remembered.writing(pubky, event.path):
            return bool(checked(await self.redis().run("apply", keys, arguments)))

    async def keep_reigns(self, pubky: str, private: bool, position: Position, reigns: tuple[Reign, ...]) -> bool:
        """See `ICopyStore`."""
        copy = await self.copy(pubky)
        if copy is None:
            raise NotFound
        check_reigns((copy.private if private else copy.public).reigns, reigns, position.seq)
        words = position.seq, position.event_id, position.digest, pack_reigns(reigns)
        keys = (schema.copy(pubky),)
        return bool(await self.redis().run("keep_reigns", keys, (schema.log_name(private), *words)))

    async def own(self, pubky: str, private: bool, after: str, limit: int) -> list[Entry]:
        """See `ICopyStore`."""
        first, stop = in_log(private, after)
        words = schema.entries(pubky), first, stop, "BYLEX", "LIMIT", 0, min(limit, STEP)
        found, copy = await self.redis().pipeline([("ZRANGE", *words), ("EXISTS", schema.copy(pubky))])
        return [evolve(unpack_entry(member), body=None, blob=None) for member in found] if copy else []

    async def brake(self, pubky: str, removed: int) -> None:
        """See `ICopyStore`."""
        await self.redis().run("brake", (schema.copy(pubky),), (removed,))

    async def permit(self, pubky: str) -> int:
        """See `ICopyStore`."""
        return int(await self.redis().run("permit", (schema.copy(pubky),), ()))

    async def confirm(self, pubky: str, private: bool, position: Position, now: int, primary: str = "") -> bool:
        """See `ICopyStore`."""
        words = bytes.fromhex(position.log_id), position.seq, position.event_id, position.digest, now, primary
        return bool(await self.redis().run("confirm", (schema.copy(pubky),), (schema.log_name(private), *words)))

    async def named(self, pubky: str) -> bytes | None:
        """See `ICopyStore`."""
        packet: bytes | None = await self.redis().call("HGET", schema.copy(pubky), "named")
        return packet

    async def hand_over(self, pubky: str) -> None:
        """See `ICopyStore`."""
        await self.redis().call("HDEL", schema.copy(pubky), "owes", "named")

    async def missing(self, pubky: str, after: str, limit: int) -> list[Entry]:
        """See `ICopyStore`."""
        redis, limit = self.redis(), min(limit, STEP)
        counters = [("HGET", key, "missing") for key in (schema.copy(pubky), schema.account(pubky))]
        if not any(int(missing or 0) for missing in await redis.pipeline(counters)):
            return []
        found: list[Entry] = []
        bound = f"({after}\1" if after else "-"
        while len(found) < limit:
            last, *members = await redis.run("missing", (schema.entries(pubky),), (bound, STEP, limit - len(found)))
            found += map(unpack_entry, members)
            if last is None:
                break
            bound = f"({last.decode()}\1"
        return found

    async def fill(self, pubky: str, entry: Entry) -> bool:
        """See `ICopyStore`."""
        self._check_room()
        kind, body = pack_body(entry)
        if kind == NEITHER:
            return False
        words = entry.path, entry.content_hash, entry.length, kind, body, schema.BLOBS
        with nullcontext() if self.remembered is None else self.remembered.writing(pubky, entry.path):
            keys = schema.copy(pubky), schema.entries(pubky), schema.account(pubky)
            return bool(await self.redis().run("fill", keys, words))

    async def forget(self, pubky: str, limit: int) -> bool:
        """See `ICopyStore`."""
        keys = (
            schema.copy(pubky),
            schema.entries(pubky),
            schema.log(False, pubky),
            schema.log(True, pubky),
            schema.GRACES,
            schema.COPIES,
        )
        with self._rewriting(pubky):
            words = pubky, min(limit, STEP), self.grace * 1_000_000, PRIVATE
            return bool(await self.redis().run("forget_copy", keys, words))

    def _rewriting(self, pubky: str) -> AbstractContextManager[None]:
        return nullcontext() if self.remembered is None else self.remembered.rewriting(pubky)

    def _check_room(self) -> None:
        if not self.has_room():
            raise StorageFull


def _words(entry: Entry) -> tuple[Word, ...]:
    """An entry as scripts want it."""
    kind, body = pack_body(entry)
    return entry.path, mark_of(entry), pack_stat(entry), pack_type(entry.content_type), entry.seq, kind, body


_NONE = CopiedLog()


def _unpack(pubky: str, flat: Facts, taken_down: bool) -> Copy:
    facts = dict(zip(flat[::2], flat[1::2], strict=True))
    return Copy(
        intern(pubky),  # in memory there may be a hundred thousand copies
        intern(facts[b"primary"].decode()),
        int(facts[b"begun"]),
        int(facts[b"used"]),
        int(facts[b"missing"]),
        _unpack_log(facts, schema.log_name(False)),
        _unpack_log(facts, schema.log_name(True)),
        absent=int(facts.get(b"absent") or 0),
        claimed=int(facts.get(b"claimed") or 0),
        braked=int(facts.get(b"braked", 0)),
        permitted=int(facts.get(b"permitted", 0)),
        verified=int(facts.get(b"verified", 0)),
        taken_down=taken_down,
        owes=b"owes" in facts,
        beside=_beside(facts),
    )


def _beside(facts: Mapping[bytes, bytes]) -> int:
    """Bytes of events and of what is no file."""
    ends = [(facts.get(b"%b.seq" % log, b"0"), facts.get(b"%b.floor" % log, b"0")) for log in (b"pub", b"priv")]
    return ENTRY_OVERHEAD * (int(facts.get(b"names", 0)) + sum(int(seq) - int(floor) for seq, floor in ends))


def _unpack_log(facts: Mapping[bytes, bytes], name: str) -> CopiedLog:
    def fact(what: str) -> bytes | None:
        return facts.get(f"{name}.{what}".encode())

    seq, event, reigns, start = fact("seq"), fact("event"), fact("reigns"), fact("start")
    digest = fact("told") or fact("digest")
    if seq is None or event is None or reigns is None or digest is None:
        return _NONE
    known = unpack_reigns(reigns)
    return CopiedLog(
        Position(log_of(known, int(seq)), int(seq), int(event), digest),
        known,
        None if start is None else unpack_position(start),
        (fact("listed") or b"").decode(),
        fact("whole") is not None,
        int(fact("confirmed") or 0),
        fact("compared") is not None,
    )
