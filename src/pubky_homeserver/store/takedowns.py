"""Accounts that the operator has taken down, in Redis and in memory."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext

from attrs import define, field, frozen
from blake3 import blake3
from zope.interface import implementer

from pubky_homeserver.core.errors import NotFound
from pubky_homeserver.core.paths import TAKEDOWN
from pubky_homeserver.core.records import Entry
from pubky_homeserver.interfaces import ITakedownStore
from pubky_homeserver.store import schema
from pubky_homeserver.store.connection import STEP, Commands, Word
from pubky_homeserver.store.copied import MemoryCopies
from pubky_homeserver.store.files import Home, mark_of
from pubky_homeserver.store.packing import pack_body, pack_stat, pack_type
from pubky_homeserver.store.refusals import checked
from pubky_homeserver.store.remembered import Remembered

NOTICE = Entry(TAKEDOWN, blake3().digest(), 0, "", 0, b"")
"""What an account's public log has while it is taken down: an entry without content, the same everywhere."""


def notice_words() -> tuple[Word, ...]:
    """The notice as scripts want it."""
    kind, _ = pack_body(NOTICE)
    return NOTICE.path, mark_of(NOTICE), kind, pack_stat(NOTICE), pack_type(NOTICE.content_type)


def hint_of(pubky: str) -> str:
    """What is said to other processes."""
    return f"takedown {pubky}"


@implementer(ITakedownStore)
@frozen
class RedisTakedowns:
    """Takedowns in Redis. `redis` is the live connection."""

    redis: Callable[[], Commands]
    remembered: Remembered | None

    async def take_down(self, pubky: str, now: int) -> bool:
        """See `ITakedownStore`."""
        return await self._decide(pubky, 1, now)

    async def lift(self, pubky: str) -> bool:
        """See `ITakedownStore`."""
        return await self._decide(pubky, 0, 0)

    async def _decide(self, pubky: str, is_down: int, now: int) -> bool:
        keys = (
            *(schema.account(pubky), schema.entries(pubky), schema.log(False, pubky)),
            *(schema.feed(False), schema.SHARD, schema.WAKE, schema.copy(pubky), schema.TAKEDOWNS),
        )
        words = pubky, is_down, now, schema.HINTS, hint_of(pubky), *notice_words()
        with nullcontext() if self.remembered is None else self.remembered.writing(pubky, TAKEDOWN):
            return bool(checked(await self.redis().run("take_down", keys, words)))

    async def taken_down(self) -> dict[str, int]:
        """See `ITakedownStore`."""
        found: dict[str, int] = {}
        while True:
            page = await self.redis().call("ZRANGE", schema.TAKEDOWNS, len(found), len(found) + STEP - 1, "WITHSCORES")
            found |= {pubky.decode(): int(since) for pubky, since in zip(page[::2], page[1::2], strict=True)}
            if len(page) < 2 * STEP:
                return found


@implementer(ITakedownStore)
@define(eq=False)
class MemoryTakedowns:
    """Takedowns in memory."""

    homes: Mapping[str, Home]
    copies: MemoryCopies
    post: Callable[[Home, Entry, bool], None]
    """Lets the public log of an account that is open here have an entry that is no file, or not."""
    hint: Callable[[str], None]
    _down: dict[str, int] = field(factory=dict, init=False)
    # Pubky → since when.

    async def take_down(self, pubky: str, now: int) -> bool:
        """See `ITakedownStore`."""
        if pubky not in self.homes and self.copies.copied(pubky) is None:
            raise NotFound
        changed = pubky not in self._down
        self._down.setdefault(pubky, now)
        self.settle(pubky)
        self.hint(hint_of(pubky))
        return changed

    async def lift(self, pubky: str) -> bool:
        """See `ITakedownStore`."""
        changed = self._down.pop(pubky, None) is not None
        self.settle(pubky)
        self.hint(hint_of(pubky))
        return changed

    def settle(self, pubky: str) -> None:
        """Let the log of an account that is open here say what was decided."""
        home = self.homes.get(pubky)
        if home is not None and home.away is None:
            self.post(home, NOTICE, pubky in self._down)

    async def taken_down(self) -> dict[str, int]:
        """See `ITakedownStore`."""
        return dict(sorted(self._down.items(), key=lambda one: (one[1], one[0])))
