"""Accounts that move between homeservers, in Redis and in memory."""

from collections.abc import Callable
from contextlib import nullcontext
from secrets import token_bytes, token_hex

from attrs import define, evolve, field, frozen
from zope.interface import implementer

from pubky_homeserver.core.errors import NotHereYet, StoreAway
from pubky_homeserver.core.paths import PRIVATE, TAKEDOWN, is_name, is_private
from pubky_homeserver.core.records import Account, Entry, Event, LogState, Operation
from pubky_homeserver.interfaces import IMoveStore
from pubky_homeserver.store import schema
from pubky_homeserver.store.connection import STEP, Commands
from pubky_homeserver.store.copied import MemoryCopies, with_home
from pubky_homeserver.store.files import Home
from pubky_homeserver.store.refusals import checked
from pubky_homeserver.store.remembered import Remembered
from pubky_homeserver.store.takedowns import notice_words

PART = 250
"""Events that one script puts into the feed: for some milliseconds Redis does nothing else."""


@implementer(IMoveStore)
@frozen
class RedisMoves:
    """Moves in scripts. `redis` is the live connection."""

    redis: Callable[[], Commands]
    remembered: Remembered | None

    async def is_admitted(self, pubky: str) -> bool:
        """See `IMoveStore`."""
        return bool(await self.redis().call("EXISTS", schema.account(pubky)))

    async def has_lived_here(self, pubky: str) -> bool:
        """See `IMoveStore`."""
        return bool(await self.redis().call("HEXISTS", schema.account(pubky), "admitted"))

    async def lived_at(self, pubky: str) -> list[str]:
        """See `IMoveStore`."""
        return (await self.redis().call("HGET", schema.account(pubky), "before") or b"").decode().split()

    async def note_home(self, pubky: str, homeserver: str) -> None:
        """See `IMoveStore`."""
        await self.redis().run("note_home", (schema.account(pubky),), (homeserver,))

    async def void_claim(self, pubky: str) -> bool:
        """See `IMoveStore`."""
        keys = (
            *(schema.account(pubky), schema.copy(pubky), schema.SHARD, schema.NUMBERS),
            *(schema.sessions(pubky), schema.grants(pubky), schema.TOKENS_UNUSED, schema.TOKENS_USED),
        )
        voided = await self.redis().run("void_claim", keys, (*ending_words(), schema.token()))
        await end_sessions(self.redis(), self.remembered, pubky, more=voided == 2)
        return bool(voided)

    async def open(self, pubky: str, packet: bytes, now: int, incomplete: bool = False) -> bool:
        """See `IMoveStore`."""
        keys = (
            *(schema.account(pubky), schema.copy(pubky), schema.COPIES, schema.packet(pubky)),
            *(schema.SHARD, schema.NUMBERS, schema.ANNOUNCING, schema.announced(pubky)),
            *(schema.entries(pubky), schema.log(False, pubky), schema.feed(False), schema.WAKE, schema.TAKEDOWNS),
            schema.OPENED,
        )
        words = pubky, packet, now, int(incomplete), token_bytes(16), token_bytes(16), *notice_words()
        with nullcontext() if self.remembered is None else self.remembered.writing(pubky, TAKEDOWN):
            return bool(checked(await self.redis().run("open_account", keys, words)))

    async def announce(self, pubky: str, limit: int) -> bool:
        """See `IMoveStore`."""
        keys = (
            *(schema.account(pubky), schema.entries(pubky), schema.log(False, pubky), schema.log(True, pubky)),
            *(schema.feed(False), schema.feed(True), schema.SHARD, schema.WAKE, schema.ANNOUNCING),
            schema.announced(pubky),
        )
        with nullcontext() if self.remembered is None else self.remembered.rewriting(pubky):
            return bool(await self.redis().run("announce", keys, (pubky, min(limit, PART), PRIVATE)))

    async def announcing(self, after: str, limit: int) -> list[str]:
        """See `IMoveStore`."""
        bound = f"({after}" if after else "-"
        words = schema.ANNOUNCING, bound, "+", "BYLEX", "LIMIT", 0, min(limit, STEP)
        return [one.decode() for one in await self.redis().call("ZRANGE", *words)]


def ending_words() -> tuple[str, ...]:
    """What scripts need that end all sessions of an account."""
    return schema.session(""), schema.grant(), schema.bearer(), schema.REVOCATIONS, schema.account("")


async def end_sessions(redis: Commands, remembered: Remembered | None, pubky: str, more: bool) -> None:
    """Forget all sessions that are remembered: some ended. `more`: remove those of an account that did."""
    if remembered is not None:
        remembered.end()
        remembered.forget()
    place, first = b"0", b"0"
    while more:
        keys = schema.sessions(pubky), schema.grants(pubky)
        try:
            place, first = await redis.run("remove_ended", keys, (place, first, *ending_words()))
        except StoreAway:
            return  # they count for nothing: whoever removes some the next time removes these
        more = (place, first) != (b"0", b"0")


@implementer(IMoveStore)
@define(eq=False)
class MemoryMoves:
    """Moves in memory."""

    homes: dict[str, Home]
    copies: MemoryCopies
    packet: Callable[[str], bytes | None]
    """The packet that is kept of a key."""
    note: Callable[[Home, Operation, str, bytes, Entry | None], Event]
    """Adds an event to the log of a path, with the digest after it."""
    skip: Callable[[int], None]
    """Lets feed ids go on above one."""
    end_sessions: Callable[[str], None]
    free_token: Callable[[str], None]
    now: Callable[[], int]
    settle: Callable[[str], None]
    """Lets the log of an account that opens say whether it is taken down."""
    arrive: Callable[[str], None]
    """Notes that an account opened."""
    _left: dict[str, list[tuple[Operation, str]]] = field(factory=dict, init=False)
    # Account → what is to be announced.

    async def is_admitted(self, pubky: str) -> bool:
        """See `IMoveStore`."""
        return pubky in self.homes

    async def has_lived_here(self, pubky: str) -> bool:
        """See `IMoveStore`."""
        home = self.homes.get(pubky)
        return home is not None and home.admitted > 0

    def fence(self, pubky: str, elsewhere: str, before: bytes | None) -> bool:
        """Shut an account that is open here; whether it was. `before`: the packet that counted until now."""
        home = self.homes.get(pubky)
        if home is None or home.away is not None:
            return False
        self.copies.take(pubky, elsewhere, self.now(), home, before)
        home.away = elsewhere
        home.account = evolve(home.account, used=0)
        self.end_sessions(pubky)
        return True

    async def lived_at(self, pubky: str) -> list[str]:
        """See `IMoveStore`."""
        home = self.homes.get(pubky)
        return [] if home is None else [*home.before]

    async def note_home(self, pubky: str, homeserver: str) -> None:
        """See `IMoveStore`."""
        home = self.homes.get(pubky)
        if home is not None and home.away is None:
            home.before = with_home(home.before, homeserver)

    async def void_claim(self, pubky: str) -> bool:
        """See `IMoveStore`."""
        copied = self.copies.copied(pubky)
        if copied is None or not copied.claimed:
            return False
        copied.claimed = 0
        if copied.token is not None:
            self.free_token(copied.token)
            copied.token = None
        self.end_sessions(pubky)
        if not self.homes[pubky].admitted:
            del self.homes[pubky]
        return True

    async def open(self, pubky: str, packet: bytes, now: int, incomplete: bool = False) -> bool:
        """See `IMoveStore`."""
        copied = self.copies.copied(pubky)
        if copied is None or self.packet(pubky) != packet:
            return False
        if not (copied.logs[False].state.is_whole or incomplete):
            raise NotHereYet
        home = self.homes.setdefault(pubky, Home(Account(pubky, now)))
        copy = await self.copies.copy(pubky)
        assert copy is not None
        for private, log in copied.logs.items():
            position = log.state.position
            seq, event_id = (0, 0) if position is None else (position.seq, position.event_id)
            home.past[private], home.first[private] = log.state.reigns, seq + 1
            floor = log.floor if log.state.is_whole else seq
            home.logs[private] = LogState(token_hex(16), seq, event_id, log.digest, floor)
            self.skip(event_id)
        home.files, home.away, home.admitted = copied.files, None, now
        home.account = evolve(home.account, used=copy.used)
        home.missing = copy.missing
        for key in (*copied.before, copied.primary):
            home.before = with_home(home.before, key)
        self.copies.drop(pubky)
        removed = (one.path for one in home.files.events if one.operation is Operation.DEL and not is_name(one.path))
        gone = dict.fromkeys(removed)  # some were removed more than once
        self._left[pubky] = [(Operation.DEL, path) for path in sorted(gone, key=is_private)] + [
            (Operation.PUT, path) for path in home.files.paths if not is_name(path)
        ]
        self.settle(pubky)
        self.arrive(pubky)
        return True

    async def announce(self, pubky: str, limit: int) -> bool:
        """See `IMoveStore`."""
        home = self.homes.get(pubky)
        left = self._left.get(pubky, [])
        if home is None or home.away is not None:
            left.clear()
        for operation, path in left[: min(limit, PART)]:
            assert home is not None
            private = is_private(path)
            entry = home.files.entries.get(path)
            if operation is Operation.DEL and entry is None:
                self.note(home, Operation.DEL, path, home.logs[private].digest, None)
            elif operation is Operation.PUT and entry is not None and entry.seq < home.first[private]:
                event = self.note(home, Operation.PUT, path, home.logs[private].digest, entry)
                home.files.keep(evolve(entry, seq=event.seq))
        del left[: min(limit, PART)]
        if not left:
            self._left.pop(pubky, None)
        return not left

    async def announcing(self, after: str, limit: int) -> list[str]:
        """See `IMoveStore`."""
        return sorted(pubky for pubky in self._left if pubky > after)[: min(limit, STEP)]
