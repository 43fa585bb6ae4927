"""Copies that are erased, and the orders that say so, in Redis and in memory.

A hidden copy lies under other keys, where nothing else looks: so no reader needs to know of it, and it can be put back
by names alone. An order is the text `log id, number, when it was given, when the receipt came`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from attrs import Factory, define, evolve, field, frozen
from zope.interface import implementer

from pubky_homeserver.core.erasing import Doomed, Obeyed, Order
from pubky_homeserver.core.quotas import UserQuota
from pubky_homeserver.core.shelf import Shelved
from pubky_homeserver.interfaces import IErasureStore
from pubky_homeserver.store import schema
from pubky_homeserver.store.connection import STEP, Commands
from pubky_homeserver.store.copied import Copied, MemoryCopies
from pubky_homeserver.store.files import Blobs, Home
from pubky_homeserver.store.remembered import Remembered
from pubky_homeserver.store.shelf import MemoryShelf, RedisShelf

LOG_ID = 32  # hex digits


@implementer(IErasureStore)
@frozen
class RedisErasures:
    """Erasures in Redis. `redis` is the live connection."""

    redis: Callable[[], Commands]
    remembered: Remembered | None
    shelf: RedisShelf

    async def order(self, order: Order) -> None:
        """See `IErasureStore`."""
        await self.redis().call("HSET", schema.ORDERS, _who(order), _pack(order))

    async def orders(self) -> list[Order]:
        """See `IErasureStore`."""
        flat = await self.redis().call("HGETALL", schema.ORDERS)
        found = [_unpack(who.decode(), text.decode()) for who, text in zip(flat[::2], flat[1::2], strict=True)]
        return sorted(found, key=_who)

    async def settle(self, order: Order, now: int) -> bool:
        """See `IErasureStore`."""
        return await self._replace(order, _pack(evolve(order, receipt=now)))

    async def drop_order(self, order: Order) -> bool:
        """See `IErasureStore`."""
        return await self._replace(order, "")

    async def _replace(self, order: Order, text: str) -> bool:
        return bool(await self.redis().run("settle_order", (schema.ORDERS,), (_who(order), _pack(order), text)))

    async def hide(self, pubky: str, primary: str, log_id: str, seq: int, until: int, name: str) -> Obeyed:
        """See `IErasureStore`."""
        return await self._hide(pubky, primary, bytes.fromhex(log_id), seq, until, name)

    async def hide_again(self, pubky: str) -> bool:
        """See `IErasureStore`."""
        return await self._hide(pubky) is Obeyed.HIDDEN

    async def _hide(self, pubky: str, *words: str | int | bytes) -> Obeyed:
        keys = *schema.copied(pubky), *schema.copied(pubky, is_hidden=True)
        marks = schema.COPIES, schema.SHELVES, schema.DOOMED, schema.ERASED, schema.account(pubky)
        with self._rewriting(pubky):
            return Obeyed((await self.redis().run("hide_copy", (*keys, *marks), (pubky, *words))).decode())

    async def hidden(self, pubky: str) -> str | None:
        """See `IErasureStore`."""
        primary = await self.redis().call("HGET", schema.copied(pubky, is_hidden=True)[0], "primary")
        return None if primary is None else primary.decode()

    async def show(self, pubky: str) -> bool:
        """See `IErasureStore`."""
        keys = *schema.copied(pubky, is_hidden=True), *schema.copied(pubky)
        marks = schema.COPIES, schema.SHELVES, schema.account(pubky)
        with self._rewriting(pubky):
            return bool(await self.redis().run("show_copy", (*keys, *marks), (pubky,)))

    async def lift(self, pubky: str, name: str) -> None:
        """See `IErasureStore`."""
        keys = schema.copied(pubky, is_hidden=True)[0], schema.DOOMED, schema.ERASED
        await self.redis().run("lift_erasure", keys, (pubky, name))

    async def doomed(self, limit: int) -> list[Doomed]:
        """See `IErasureStore`."""
        redis = self.redis()
        flat = await redis.call("ZRANGE", schema.DOOMED, 0, min(limit, STEP) - 1, "WITHSCORES")
        found = [(pubky.decode(), int(until)) for pubky, until in zip(flat[::2], flat[1::2], strict=True)]
        if not found:
            return []
        there = await redis.pipeline([("EXISTS", schema.copied(pubky, is_hidden=True)[0]) for pubky, _ in found])
        return [Doomed(pubky, until, bool(one)) for (pubky, until), one in zip(found, there, strict=True)]

    async def wipe(self, pubky: str, limit: int) -> bool:
        """See `IErasureStore`."""
        *kept, shelf = schema.copied(pubky, is_hidden=True)
        if await self.shelf.clear(shelf, limit):
            return False
        keys = (
            *(*kept, schema.GRACES, schema.DOOMED, schema.packet(pubky), schema.account(pubky), schema.copy(pubky)),
            *(schema.SHARD, schema.NUMBERS, schema.grants(pubky), schema.ANNOUNCING, schema.announced(pubky)),
            *(schema.MOVES, schema.FORKS, schema.feed(False), schema.feed(True), schema.OPENED),
        )
        return bool(await self.redis().run("wipe_copy", keys, (pubky, min(limit, STEP), schema.grant())))

    async def erased(self, name: str) -> list[str]:
        """See `IErasureStore`."""
        text: str = (await self.redis().call("HGET", schema.ERASED, name) or b"").hex()
        return [text[at : at + LOG_ID] for at in range(0, len(text), LOG_ID)]

    def _rewriting(self, pubky: str) -> AbstractContextManager[None]:
        return nullcontext() if self.remembered is None else self.remembered.rewriting(pubky)


@define
class _Hidden:
    """A copy that was put aside."""

    copied: Copied
    things: dict[str, Shelved]
    """What lay on its shelf."""


@implementer(IErasureStore)
@define(eq=False)
class MemoryErasures:
    """Erasures in memory."""

    homes: dict[str, Home]
    copies: MemoryCopies
    shelf: MemoryShelf
    blobs: Blobs
    forget_grants: Callable[[str], None]
    forget_rest: Callable[[str], None]
    """Forgets the packet of a key, its events, and what happened to it."""
    _orders: dict[str, Order] = field(factory=dict, init=False)
    _hidden: dict[str, _Hidden] = field(factory=dict, init=False)
    # Pubky → what was put aside.
    _doomed: dict[str, int] = field(factory=dict, init=False)
    # Pubky → when it is wiped.
    _erased: dict[str, list[str]] = field(default=Factory(lambda self: self.copies.erased, takes_self=True), init=False)
    # Name → log ids.

    async def order(self, order: Order) -> None:
        """See `IErasureStore`."""
        self._orders[_who(order)] = order

    async def orders(self) -> list[Order]:
        """See `IErasureStore`."""
        return [self._orders[who] for who in sorted(self._orders)]

    async def settle(self, order: Order, now: int) -> bool:
        """See `IErasureStore`."""
        if self._orders.get(_who(order)) != order:
            return False
        self._orders[_who(order)] = evolve(order, receipt=now)
        return True

    async def drop_order(self, order: Order) -> bool:
        """See `IErasureStore`."""
        if self._orders.get(_who(order)) != order:
            return False
        del self._orders[_who(order)]
        return True

    async def hide(self, pubky: str, primary: str, log_id: str, seq: int, until: int, name: str) -> Obeyed:
        """See `IErasureStore`."""
        copied = self.copies.copied(pubky)
        if copied is None:
            return Obeyed.HIDDEN if pubky in self._hidden else Obeyed.NOTHING
        if copied.claimed or self._lives_here(pubky):
            return Obeyed.CLAIMED
        if copied.primary != primary:
            return Obeyed.ELSEWHERE
        public = copied.logs[False].state
        is_known = public.position is None or log_id in {reign.log_id for reign in public.reigns}
        if not is_known or (public.position is not None and public.position.seq > seq):
            return Obeyed.DIFFERENT
        if pubky in self._hidden:
            return Obeyed.BUSY
        self._put_aside(pubky, copied)
        self._doomed[pubky] = until
        self._erased.setdefault(name, []).append(log_id)
        return Obeyed.HIDDEN

    async def hide_again(self, pubky: str) -> bool:
        """See `IErasureStore`."""
        copied = self.copies.copied(pubky)
        if copied is None:
            return pubky in self._hidden
        if copied.claimed or self._lives_here(pubky) or pubky not in self._doomed or pubky in self._hidden:
            return False
        self._put_aside(pubky, copied)
        return True

    def _put_aside(self, pubky: str, copied: Copied) -> None:
        self.copies.drop(pubky)
        self._hidden[pubky] = _Hidden(copied, self.shelf.take(pubky))

    async def hidden(self, pubky: str) -> str | None:
        """See `IErasureStore`."""
        return self._hidden[pubky].copied.primary if pubky in self._hidden else None

    async def show(self, pubky: str) -> bool:
        """See `IErasureStore`."""
        if pubky not in self._hidden or self._lives_here(pubky) or self.copies.copied(pubky) is not None:
            return False
        hidden = self._hidden.pop(pubky)
        self.copies.put_back(pubky, hidden.copied)
        home = self.homes.get(pubky)
        if home is not None and home.away is not None:
            self.copies.point(pubky, home.away)
        self.shelf.put_back(pubky, hidden.things)
        return True

    def is_hidden(self, pubky: str) -> bool:
        """Whether there is a hidden copy of an account."""
        return pubky in self._hidden

    async def lift(self, pubky: str, name: str) -> None:
        """See `IErasureStore`."""
        if pubky not in self._hidden and self._doomed.pop(pubky, None) is not None:
            self._erased.pop(name, None)

    async def doomed(self, limit: int) -> list[Doomed]:
        """See `IErasureStore`."""
        found = sorted((until, pubky) for pubky, until in self._doomed.items())
        return [Doomed(pubky, until, pubky in self._hidden) for until, pubky in found[: min(limit, STEP)]]

    async def wipe(self, pubky: str, limit: int) -> bool:
        """See `IErasureStore`."""
        hidden, limit = self._hidden.get(pubky), min(limit, STEP)
        if hidden is not None:
            things = [hidden.things.pop(one) for one in sorted(hidden.things)[:limit]]
            gone = [entry for thing in things for entry in (thing.entry, thing.ours) if entry is not None]
            files = hidden.copied.files
            gone += [files.remove(path) for path in files.paths[:limit]]
            for entry in gone:
                self.blobs.retire(entry, at_once=True)
            if files.paths or hidden.things:
                return False
            del self._hidden[pubky]
        if not self._lives_here(pubky) and self.copies.copied(pubky) is None:
            self._forget(pubky)
        self._doomed.pop(pubky, None)
        return True

    def _forget(self, pubky: str) -> None:
        """Nothing of an account is left here but what the operator decided."""
        self.forget_grants(pubky)
        home = self.homes.get(pubky)
        if home is not None and (home.account.disabled or home.account.quota != UserQuota()):
            return
        self.homes.pop(pubky, None)
        self.forget_rest(pubky)

    def _lives_here(self, pubky: str) -> bool:
        home = self.homes.get(pubky)
        return home is not None and home.away is None

    async def erased(self, name: str) -> list[str]:
        """See `IErasureStore`."""
        return [*self._erased.get(name, ())]


def _who(order: Order) -> str:
    return f"{order.peer} {order.pubky}"


def _pack(order: Order) -> str:
    return f"{order.log_id} {order.seq} {order.ordered} {order.receipt}"


def _unpack(who: str, text: str) -> Order:
    peer, pubky = who.split(" ")
    log_id, *numbers = text.split(" ")
    seq, ordered, receipt = map(int, numbers)
    return Order(peer, pubky, log_id, seq, ordered, receipt)
