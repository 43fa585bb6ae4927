"""The store in Redis: one round trip for each method, every write one script. `schema.py` shows what lies there."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from secrets import token_bytes
from typing import Any

from attrs import define, field
from twisted.logger import Logger
from zope.interface import implementer

from pubky_homeserver.core.digests import EMPTY, mark
from pubky_homeserver.core.errors import StorageFull
from pubky_homeserver.core.paths import is_name, is_private
from pubky_homeserver.core.quotas import MEGABYTE
from pubky_homeserver.core.records import (
    Account,
    Entry,
    Event,
    LogState,
    Operation,
    Session,
    SignupToken,
    TokenState,
    Totals,
)
from pubky_homeserver.interfaces import IAccountStore, IEntryStore, IHints, ISessionStore
from pubky_homeserver.store import references, schema
from pubky_homeserver.store.address import RedisAddress
from pubky_homeserver.store.bounds import beyond, whole
from pubky_homeserver.store.chronicle import RedisChronicle
from pubky_homeserver.store.connection import STEP, Commands, Connection, Subscription
from pubky_homeserver.store.copies import RedisCopies
from pubky_homeserver.store.erasures import RedisErasures
from pubky_homeserver.store.feeds import Feeds, account_page
from pubky_homeserver.store.grants import RedisGrants
from pubky_homeserver.store.integrity import RedisIntegrity, numbered
from pubky_homeserver.store.leases import RedisLease
from pubky_homeserver.store.locks import RedisLocks, pack_tokens
from pubky_homeserver.store.logs import RedisLogs
from pubky_homeserver.store.migrations import open_schema
from pubky_homeserver.store.moves import RedisMoves
from pubky_homeserver.store.packets import RedisPackets
from pubky_homeserver.store.packing import (
    REIGN,
    pack_body,
    pack_condition,
    pack_quota,
    pack_reign,
    pack_session,
    pack_stat,
    pack_type,
    unpack_entry,
    unpack_quota,
    unpack_session,
    unpack_token,
)
from pubky_homeserver.store.refusals import checked
from pubky_homeserver.store.remembered import Remembered
from pubky_homeserver.store.scripts import load_scripts
from pubky_homeserver.store.shelf import RedisShelf
from pubky_homeserver.store.signup_tokens import token_page
from pubky_homeserver.store.survey import Durability, Room, survey
from pubky_homeserver.store.takedowns import RedisTakedowns

MAX_PAGE = 1000
"""Paths or events of one page."""

MAX_TOKENS = 1001
"""Signup tokens of one page: the protocol's thousand, and one to know whether there are more."""

PATIENCE = 10.0
"""Seconds that a start waits for Redis."""


@implementer(IAccountStore, ISessionStore, IEntryStore, IHints)
@define(eq=False)
class RedisStore:
    """Accounts, sessions and entries in Redis. `start` it before use and `stop` it after."""

    address: RedisAddress
    reactor: Any
    grace: int = 3600
    """Seconds that the blob of a replaced or deleted entry is kept."""
    reserve: int = 256 * MEGABYTE
    """Bytes of a bounded memory that stay free; less if it is small."""
    remembered: Remembered | None = None
    """What was read; None if other processes write to this Redis too."""
    durability: Durability = field(default="unknown", init=False)
    """When a write is on disk, as Redis said at the last connection."""
    epoch: str = field(default="", init=False)
    """A text that is another one after Redis was restarted, restored, or failed over."""
    _connection: Connection = field(init=False)
    _subscription: Subscription = field(init=False)
    _room: Room = field(init=False)
    _feeds: Feeds = field(factory=Feeds, init=False)
    _opened: bool = field(default=False, init=False)
    # There was data once: an empty Redis is no new one any more.
    _wakes: list[Callable[[], None]] = field(factory=list, init=False)
    _hearers: list[Callable[[str | None], None]] = field(factory=list, init=False)
    # Who wants to know what is revoked.
    _listeners: list[Callable[[str | None], None]] = field(factory=list, init=False)
    # Who wants hints.

    log = Logger()

    @_connection.default
    def _make_connection(self) -> Connection:
        return Connection(self.address, self.reactor, load_scripts(), self._prepare)

    @_subscription.default
    def _make_subscription(self) -> Subscription:
        others = {schema.REVOCATIONS: self._revoked, schema.HINTS: self._hinted}
        return Subscription(
            *(self.address, self.reactor, schema.WAKE, self._wake, others),
            began=lambda: self._hinted(None),
            ended=lambda: self._revoked(None),
        )

    @_room.default
    def _make_room(self) -> Room:
        return Room(lambda: self._redis, self.reactor, self.reserve)

    async def start(self) -> None:
        """Connect. Raises `CannotStart`, with a sentence for the operator."""
        await self._connection.start(PATIENCE)
        self._subscription.start()

    async def stop(self) -> None:
        """Close the connections."""
        self._room.stop()
        await self._subscription.stop()
        await self._connection.stop()

    async def _prepare(self, commands: Commands) -> None:
        """Look at a Redis before it is used, again after each reconnection: it may be another one."""
        found = await survey(commands)
        found.check()
        await open_schema(commands, create=not self._opened)
        if not self._opened or found.durability != self.durability:
            for sentence in found.warnings():
                self.log.warn("{sentence}", sentence=sentence)
        self._feeds.forget()
        if self.remembered is not None:
            self.remembered.forget()  # a write whose answer was lost may have happened since
        self._opened = True
        self.durability = found.durability
        self.epoch = found.run
        self._room.note(found.used, found.limit)

    @property
    def locks(self) -> RedisLocks:
        """What writes ask for their locks."""
        return RedisLocks(lambda: self._redis)

    @property
    def packets(self) -> RedisPackets:
        """The packets of accounts, copies and peers."""
        return RedisPackets(lambda: self._redis, self.remembered)

    @property
    def moves(self) -> RedisMoves:
        """Accounts on their way."""
        return RedisMoves(lambda: self._redis, self.remembered)

    @property
    def logs(self) -> RedisLogs:
        """The logs of the accounts, for who follows them."""
        return RedisLogs(lambda: self._redis, self._feeds)

    @property
    def copies(self) -> RedisCopies:
        """Copies of accounts that live elsewhere."""
        return RedisCopies(lambda: self._redis, self.remembered, self._room.has_room, self.grace)

    @property
    def integrity(self) -> RedisIntegrity:
        """Whether bodies are what they shall be."""
        return RedisIntegrity(lambda: self._redis, self.remembered, self.grace)

    @property
    def shelf(self) -> RedisShelf:
        """What did not win."""
        return RedisShelf(lambda: self._redis, self._room.has_room)

    @property
    def erasures(self) -> RedisErasures:
        """Copies that are erased, and the orders that say so."""
        return RedisErasures(lambda: self._redis, self.remembered, self.shelf)

    @property
    def chronicle(self) -> RedisChronicle:
        """What happened to accounts between homeservers."""
        return RedisChronicle(lambda: self._redis)

    @property
    def takedowns(self) -> RedisTakedowns:
        """What the operator has taken down."""
        return RedisTakedowns(lambda: self._redis, self.remembered)

    @property
    def lease(self) -> RedisLease:
        """Which process works in the background."""
        return RedisLease(lambda: self._redis)

    @property
    def grants(self) -> RedisGrants:
        """Grants and their bearers."""
        return RedisGrants(lambda: self._redis, self.remembered)

    @property
    def _redis(self) -> Commands:
        return self._connection.commands

    def _check_room(self) -> None:
        if not self._room.has_room():
            raise StorageFull

    # --- accounts -------------------------------------------------------------------------------------------------

    async def sign_up(
        self,
        account: Account,
        session: Session | None,
        token: str | None,
        token_required: bool,
        may_claim: bool = False,
    ) -> None:
        """See `IAccountStore`."""
        quota = pack_quota(account.quota)
        refusal = await self._redis.run(
            "sign_up",
            (
                schema.account(account.pubky),
                schema.SHARD,
                schema.NUMBERS,
                schema.token(token or ""),
                schema.TOKENS_UNUSED,
                schema.TOKENS_USED,
                schema.session(session.id if session else ""),
                schema.sessions(account.pubky),
                schema.copy(account.pubky),
                schema.OPENED,
                schema.WAKE,
            ),
            (
                account.pubky,
                account.created,
                int(token_required),
                token or "",
                session.id if session else "",
                pack_session(session) if session else "",
                pack_reign(token_bytes(16)),
                pack_reign(token_bytes(16)),
                EMPTY,
                *("=" + quota[name] if name in quota else "" for name in ("quota", "limit", "paths")),
                int(may_claim),
            ),
        )
        checked(refusal)

    async def account(self, pubky: str) -> Account | None:
        """See `IAccountStore`."""
        created, disabled, used, quota = await self._redis.call(
            "HMGET", schema.account(pubky), "created", "disabled", "used", "quota"
        )
        if created is None:
            return None
        return Account(pubky, int(created), disabled is not None, int(used), unpack_quota(quota))

    async def set_disabled(self, pubky: str, disabled: bool) -> None:
        """See `IAccountStore`."""
        checked(await self._redis.run("set_disabled", (schema.account(pubky), schema.SHARD), (int(disabled),)))

    async def log_state(self, pubky: str, private: bool) -> LogState | None:
        """See `IAccountStore`."""
        name = schema.log_name(private)
        fields = (f"{name}.{field}" for field in ("reigns", "seq", "event", "digest", "floor"))
        reigns, seq, event, digest, floor = await self._redis.call("HMGET", schema.account(pubky), *fields)
        if reigns is None:
            return None
        return LogState(reigns[-REIGN:][:16].hex(), int(seq), int(event), digest, int(floor))

    async def accounts(self, after: int, limit: int) -> tuple[list[str], int | None]:
        """See `IAccountStore`."""
        return await numbered(self._redis, after, limit)

    async def totals(self) -> Totals:
        """See `IAccountStore`."""
        names = ("users", "disabled", "used", "tokens", "unused")
        return Totals(*(int(number or 0) for number in await self._redis.call("HMGET", schema.SHARD, *names)))

    async def add_signup_token(self, token: SignupToken) -> None:
        """See `IAccountStore`."""
        facts = {"created": str(token.created)} | pack_quota(token.quota)
        await self._redis.run(
            "add_token",
            (schema.token(token.token), schema.SHARD, schema.TOKENS_UNUSED),
            (token.token, *(word for fact in facts.items() for word in fact)),
        )

    async def signup_token(self, token: str) -> SignupToken | None:
        """See `IAccountStore`."""
        facts = await self._redis.call("HMGET", schema.token(token), "created", "quota", "used", "by")
        return None if facts[0] is None else unpack_token(token, facts)

    async def signup_tokens(self, state: TokenState, after: str, limit: int) -> list[SignupToken]:
        """See `IAccountStore`."""
        limit = min(limit, MAX_TOKENS)
        found: list[SignupToken] = []
        while len(found) < limit:
            step = min(limit - len(found), STEP // 2)
            page = await token_page(self._redis, state, found[-1].token if found else after, step)
            found += page
            if len(page) < step:
                break
        return found

    # --- sessions -------------------------------------------------------------------------------------------------

    async def burn(self, token_id: bytes, lifetime: int) -> bool:
        """See `ISessionStore`."""
        reply = await self._redis.call("SET", schema.burned(token_id), "", "NX", "PX", lifetime * 1000)
        return reply is not None

    async def sign_in(self, session: Session) -> None:
        """See `ISessionStore`."""
        pubky = session.pubky
        keys = (schema.account(pubky), schema.session(session.id), schema.sessions(pubky), schema.copy(pubky))
        checked(await self._redis.run("sign_in", keys, (session.id, pack_session(session))))

    async def session(self, session_id: str) -> Session | None:
        """See `ISessionStore`."""
        if self.remembered is None:
            return await self._session(session_id)
        return await self.remembered.session(schema.session(session_id), lambda: self._session(session_id))

    async def _session(self, session_id: str) -> Session | None:
        found = await self._redis.run("session", (schema.session(session_id),), (schema.account(""),))
        return None if found is None else unpack_session(session_id, b"\n".join(found))

    async def sign_out(self, session_id: str) -> bool:
        """See `ISessionStore`."""
        said = f"session:{session_id}"
        arguments = (session_id, schema.sessions(""), schema.REVOCATIONS, said)
        if self.remembered is not None:
            self.remembered.end(schema.session(session_id))
        try:
            return bool(await self._redis.run("sign_out", (schema.session(session_id),), arguments))
        finally:
            if self.remembered is not None:
                self.remembered.end(schema.session(session_id))

    def hear_revocations(self, hear: Callable[[str | None], None]) -> Callable[[], None]:
        """See `ISessionStore`."""
        self._hearers.append(hear)
        return lambda: self._hearers.remove(hear)

    def hears_revocations(self) -> bool:
        """See `ISessionStore`."""
        return self._subscription.is_listening

    def _revoked(self, credential: str | None) -> None:
        for hear in list(self._hearers):
            hear(credential)

    # --- hints ----------------------------------------------------------------------------------------------------

    async def hint(self, text: str) -> None:
        """See `IHints`."""
        await self._redis.call("PUBLISH", schema.HINTS, text)

    def hear_hints(self, hear: Callable[[str | None], None]) -> Callable[[], None]:
        """See `IHints`."""
        self._listeners.append(hear)
        if self._subscription.is_listening:
            self.reactor.callLater(0, self._begin_to_hear, hear)
        return lambda: self._listeners.remove(hear)

    def _begin_to_hear(self, hear: Callable[[str | None], None]) -> None:
        if hear in self._listeners:
            hear(None)

    def _hinted(self, text: str | None) -> None:
        for hear in list(self._listeners):
            hear(text)

    # --- entries --------------------------------------------------------------------------------------------------

    async def entry(self, pubky: str, path: str) -> Entry | None:
        """See `IEntryStore`."""
        if self.remembered is None:
            return await self._entry(pubky, path)
        return await self.remembered.entry(pubky, path, lambda: self._entry(pubky, path))

    async def _entry(self, pubky: str, path: str) -> Entry | None:
        members = await self._redis.call(
            "ZRANGE", schema.entries(pubky), f"[{path}\0", f"({path}\1", "BYLEX", "LIMIT", 0, 1
        )
        return unpack_entry(members[0]) if members else None

    async def check_put(
        self, pubky: str, path: str, length: int | None, default_limit: int | None, tokens: Sequence[str] | None = ()
    ) -> None:
        """See `IEntryStore`."""
        self._check_room()
        refusal = await self._redis.run(
            "check_put",
            (schema.account(pubky), schema.entries(pubky), schema.lock(pubky, path)),
            (schema.log_name(is_private(path)), path, _optional(length), _optional(default_limit), pack_tokens(tokens)),
        )
        checked(refusal)

    async def put(
        self,
        pubky: str,
        entry: Entry,
        default_limit: int | None,
        announced: bool,
        if_match: Sequence[str] | None = None,
        if_none_match: bool = False,
        tokens: Sequence[str] | None = (),
    ) -> Event:
        """See `IEntryStore`."""
        self._check_room()
        path = entry.path
        private = is_private(path)
        kind, body = pack_body(entry)
        arguments = (
            schema.log_name(private),
            path,
            mark(path, entry.content_hash, entry.length, entry.modified, entry.content_type),
            kind,
            pack_stat(entry),
            pack_type(entry.content_type),
            body,
            entry.length,
            _optional(default_limit),
            int(announced),
            pack_condition(if_match),
            int(if_none_match),
            schema.BLOBS,
            self.grace * 1_000_000,
            pack_tokens(tokens),
        )
        with self._writing(pubky, path):
            reply = await self._redis.run("put", _write_keys(pubky, path), arguments)
        event_id, seq, digest = checked(reply)
        return Event(
            event_id,
            Operation.PUT,
            pubky,
            path,
            seq,
            digest,
            entry.content_hash,
            entry.length,
            entry.content_type,
            entry.modified,
        )

    async def check_delete(self, pubky: str, path: str, tokens: Sequence[str] | None = ()) -> None:
        """See `IEntryStore`."""
        keys = (schema.account(pubky), schema.entries(pubky), schema.lock(pubky, path))
        arguments = (schema.log_name(is_private(path)), path, pack_tokens(tokens))
        checked(await self._redis.run("check_delete", keys, arguments))

    async def delete(
        self, pubky: str, path: str, if_match: Sequence[str] | None = None, tokens: Sequence[str] | None = ()
    ) -> Event:
        """See `IEntryStore`."""
        name = schema.log_name(is_private(path))
        arguments = (name, path, pack_condition(if_match), self.grace * 1_000_000, pack_tokens(tokens))
        with self._writing(pubky, path):
            reply = await self._redis.run("delete", _write_keys(pubky, path), arguments)
        event_id, seq, digest = checked(reply)
        return Event(event_id, Operation.DEL, pubky, path, seq, digest)

    def _writing(self, pubky: str, path: str) -> AbstractContextManager[None]:
        return nullcontext() if self.remembered is None else self.remembered.writing(pubky, path)

    async def listing(
        self, pubky: str, directory: str, after: str, limit: int, reverse: bool, shallow: bool
    ) -> list[str]:
        """See `IEntryStore`."""
        asked = directory, after, min(limit, MAX_PAGE), reverse, shallow
        if self.remembered is None:
            return await self._listing(pubky, *asked)
        return await self.remembered.listing(pubky, asked, lambda: self._listing(pubky, *asked))

    async def _listing(
        self, pubky: str, directory: str, after: str, limit: int, reverse: bool, shallow: bool
    ) -> list[str]:
        found: list[str] = []
        while True:
            step = min(limit - len(found), STEP)
            bounds = beyond(directory, found[-1] if found else after, reverse, shallow)
            reply = await self._redis.run(
                "listing",
                (schema.entries(pubky),),
                (*bounds, step, int(reverse), int(shallow), directory, *whole(directory)),
            )
            if isinstance(reply, bytes) and found:
                return found  # the rest was deleted meanwhile
            paths = checked(reply)
            found += [path.decode() for path in paths]
            if len(paths) < STEP or len(found) >= limit:
                return found

    # --- events ---------------------------------------------------------------------------------------------------

    async def events(self, after: int, limit: int, private: bool) -> list[Event]:
        """See `IEntryStore`."""
        limit = min(limit, MAX_PAGE)
        found: list[Event] = []
        while len(found) < limit:
            step = min(limit - len(found), STEP)
            page, further = await self._feeds.page(self._redis, after, step, private)
            found += [event for event in page if not is_name(event.path)]
            if further is None:
                break
            after = further
        return found

    async def account_events(
        self, pubky: str, after: int | None, limit: int, reverse: bool, public: bool, private: bool
    ) -> list[Event]:
        """See `IEntryStore`."""
        limit = min(limit, MAX_PAGE)
        logs = (False,) * public + (True,) * private
        last = await self._last_event(pubky)
        found: list[Event] = []
        while logs and len(found) < limit:
            step = min(limit - len(found), STEP)
            page = await account_page(self._redis, pubky, after, step, reverse, logs, last)
            found += [event for event in page if not is_name(event.path)]
            if len(page) < step:
                break
            after = page[-1].id
        return found

    async def _last_event(self, pubky: str) -> int | None:
        """The newest event of an account that is away and was open here before; None if it is not away."""
        away, *events = await self._redis.call("HMGET", schema.account(pubky), "away", "pub.event", "priv.event")
        return None if away is None else max(int(event or 0) for event in events)

    async def has_event(self, event_id: int) -> bool:
        """See `IEntryStore`."""
        feeds = (schema.feed(False), schema.feed(True))
        return any(await self._redis.pipeline([("XRANGE", feed, event_id, event_id) for feed in feeds]))

    async def last_event_id(self) -> int:
        """See `IEntryStore`."""
        return int(await self._redis.call("HGET", schema.SHARD, "event") or 0)

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        """See `IEntryStore`."""
        self._wakes.append(wake)
        return lambda: self._wakes.remove(wake) if wake in self._wakes else None

    def _wake(self) -> None:
        for wake in list(self._wakes):
            wake()

    # --- blobs ----------------------------------------------------------------------------------------------------

    async def known_blobs(self, blobs: Iterable[str]) -> set[str]:
        """See `IEntryStore`."""
        return await references.known(self._redis, blobs)

    async def expired_blobs(self, now: int, limit: int) -> list[str]:
        """See `IEntryStore`."""
        return await references.expired(self._redis, now, limit)

    async def forget_blobs(self, blobs: Iterable[str]) -> None:
        """See `IEntryStore`."""
        await references.forget(self._redis, blobs)


def _write_keys(pubky: str, path: str) -> tuple[str, ...]:
    private = is_private(path)
    return (
        schema.account(pubky),
        schema.entries(pubky),
        schema.log(private, pubky),
        schema.feed(private),
        schema.SHARD,
        schema.GRACES,
        schema.WAKE,
        schema.lock(pubky, path),
    )


def _optional(number: int | None) -> str | int:
    return "" if number is None else number
