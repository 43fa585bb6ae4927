"""The store in plain dictionaries: what a homeserver keeps when it need not keep it. For tests and the test network.

It is also the readable form of the contract: what `RedisStore` does in scripts stands here in a few lines of Python,
and one suite of tests runs over both.
"""

from base64 import b64encode
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence

from attrs import define, evolve, field
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from pubky_homeserver.core.digests import fold
from pubky_homeserver.core.errors import (
    Collision,
    DirectoryNotFound,
    NotFound,
    NotPrimary,
    PreconditionFailed,
    QuotaExceeded,
    SignupTokenRequired,
    SignupTokenUnknown,
    SignupTokenUsed,
    UserDisabled,
    UserExists,
    WriteNotAllowed,
)
from pubky_homeserver.core.paths import ancestors, covers, is_name, is_private
from pubky_homeserver.core.quotas import ENTRY_OVERHEAD
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
from pubky_homeserver.store.chronicle import MemoryChronicle
from pubky_homeserver.store.copied import Copied, MemoryCopies
from pubky_homeserver.store.erasures import MemoryErasures
from pubky_homeserver.store.files import Blobs, Files, Home, mark_of
from pubky_homeserver.store.grants import MemoryGrants
from pubky_homeserver.store.integrity import MemoryIntegrity
from pubky_homeserver.store.leases import MemoryLease
from pubky_homeserver.store.locks import MemoryLocks
from pubky_homeserver.store.logs import MemoryLogs
from pubky_homeserver.store.moves import MemoryMoves
from pubky_homeserver.store.packets import MemoryPackets
from pubky_homeserver.store.shelf import MemoryShelf
from pubky_homeserver.store.takedowns import MemoryTakedowns

MAX_PAGE = 1000
"""Paths or events of one page."""

MAX_ACCOUNTS = 500
"""Accounts of one page."""

MAX_TOKENS = 1001
"""Signup tokens of one page: the protocol's thousand, and one to know whether there are more."""


@implementer(IAccountStore, ISessionStore, IEntryStore, IHints)
@define(eq=False)
class MemoryStore:
    """Accounts, sessions and entries in memory. `clock` gives the time and carries the wake-ups."""

    clock: IReactorTime
    grace: int = 3600
    """Seconds that the blob of a replaced or deleted entry is kept."""
    _accounts: dict[str, Home] = field(factory=dict, init=False)
    # Pubky → account.
    locks: MemoryLocks = field(init=False)
    """What writes ask for their locks."""
    _tokens: dict[str, SignupToken] = field(factory=dict, init=False)
    # Text → signup token.
    _sessions: dict[str, Session] = field(factory=dict, init=False)
    # Id → session.
    _burned: dict[bytes, int] = field(factory=dict, init=False)
    # Id of a sign-in token → when it may be forgotten.
    _events: list[Event] = field(factory=list, init=False)
    # Of all accounts, ascending.
    _opened: list[str] = field(factory=list, init=False)
    # Accounts that opened here, each time.
    _skipped: int = field(default=0, init=False)
    # Event ids go on above this one: it came with an account from elsewhere.
    _blobs: Blobs = field(init=False)
    _wakes: list[Callable[[], None]] = field(factory=list, init=False)

    shelf: MemoryShelf = field(init=False)
    """What did not win."""
    copies: MemoryCopies = field(init=False)
    """Copies of accounts that live elsewhere."""
    logs: MemoryLogs = field(init=False)
    """The logs of accounts and copies, for who follows them."""
    integrity: MemoryIntegrity = field(init=False)
    """Whether bodies are what they shall be."""
    chronicle: MemoryChronicle = field(factory=MemoryChronicle, init=False)
    takedowns: MemoryTakedowns = field(init=False)
    """What the operator has taken down."""
    moves: MemoryMoves = field(init=False)
    """Accounts on their way."""
    packets: MemoryPackets = field(init=False)
    """The packets of accounts, copies and peers."""
    erasures: MemoryErasures = field(init=False)
    """Copies that are erased, and the orders that say so."""
    lease: MemoryLease = field(init=False)
    """Which process works in the background."""
    grants: MemoryGrants = field(init=False)
    """Grants and their bearers."""
    is_deaf: bool = field(default=False, init=False)
    """Whether revocations are not heard; set by tests."""
    _hearers: list[Callable[[str | None], None]] = field(factory=list, init=False)
    # Who wants to know what is revoked.
    _listeners: list[Callable[[str | None], None]] = field(factory=list, init=False)
    # Who wants hints.

    @_blobs.default
    def _make_blobs(self) -> Blobs:
        return Blobs(self._now, self.grace)

    @logs.default
    def _make_logs(self) -> MemoryLogs:
        return MemoryLogs(self._accounts, self._copied, self._opened, self._packet, self._after)

    @shelf.default
    def _make_shelf(self) -> MemoryShelf:
        return MemoryShelf(self._blobs)

    @copies.default
    def _make_copies(self) -> MemoryCopies:
        return MemoryCopies(self._accounts, self._blobs, self.shelf)

    @erasures.default
    def _make_erasures(self) -> MemoryErasures:
        return MemoryErasures(self._accounts, self.copies, self.shelf, self._blobs, self._forget_grants, self._forget)

    @integrity.default
    def _make_integrity(self) -> MemoryIntegrity:
        return MemoryIntegrity(self._accounts, self.copies, self._blobs)

    @moves.default
    def _make_moves(self) -> MemoryMoves:
        return MemoryMoves(
            self._accounts,
            self.copies,
            self._packet,
            self._note,
            self._skip,
            self._end_sessions,
            self._free_token,
            self._now,
            self.takedowns.settle,
            self._arrive,
        )

    @takedowns.default
    def _make_takedowns(self) -> MemoryTakedowns:
        return MemoryTakedowns(self._accounts, self.copies, self._post, self._hint)

    @lease.default
    def _make_lease(self) -> MemoryLease:
        return MemoryLease(self._now)

    @packets.default
    def _make_packets(self) -> MemoryPackets:
        return MemoryPackets(self._accounts, self.copies, self.moves.fence)

    @grants.default
    def _make_grants(self) -> MemoryGrants:
        return MemoryGrants(self._check_sign_in, self._tell, self._note_name, self._has)

    @locks.default
    def _make_locks(self) -> MemoryLocks:
        return MemoryLocks(self.clock, self._accounts)

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
        pubky = account.pubky
        home, copied = self._accounts.get(pubky), self.copies.copied(pubky)
        if home is not None and home.away is None:
            raise UserExists
        if copied is not None and (copied.claimed or not (may_claim or home)):
            raise UserExists
        quota, spent = account.quota, None
        if token_required:
            spent = self._spend(token, account)
            quota = spent.quota
        if home is None:
            home = self._accounts[pubky] = Home(Account(pubky, account.created, quota=quota))
            home.admitted = 0 if copied else account.created
            home.away = copied.primary if copied else None
        elif copied is None:  # it was forgotten
            self._accounts[pubky] = Home(home.account, admitted=account.created, before=home.before)
        if copied is None:
            self._arrive(pubky)
        else:
            copied.claimed, copied.token = account.created, spent.token if spent else None
        if session is not None:
            self._sessions[session.id] = session

    def _arrive(self, pubky: str) -> None:
        """An account opened here."""
        self._opened.append(pubky)
        self._wake_all()

    def _spend(self, token: str | None, account: Account) -> SignupToken:
        if token is None:
            raise SignupTokenRequired
        spent = self._tokens.get(token)
        if spent is None:
            raise SignupTokenUnknown
        if spent.used is not None:
            raise SignupTokenUsed
        self._tokens[token] = evolve(spent, used=account.created, used_by=account.pubky)
        return spent

    def _free_token(self, token: str) -> None:
        self._tokens[token] = evolve(self._tokens[token], used=None, used_by=None)

    async def account(self, pubky: str) -> Account | None:
        """See `IAccountStore`."""
        home = self._accounts.get(pubky)
        return home.account if home else None

    async def set_disabled(self, pubky: str, disabled: bool) -> None:
        """See `IAccountStore`."""
        home = self._home(pubky)
        home.account = evolve(home.account, disabled=disabled)

    async def log_state(self, pubky: str, private: bool) -> LogState | None:
        """See `IAccountStore`."""
        home = self._accounts.get(pubky)
        return home.logs[private] if home and home.away is None else None

    async def accounts(self, after: int, limit: int) -> tuple[list[str], int | None]:
        """See `IAccountStore`."""
        end = after + min(limit, MAX_ACCOUNTS)
        return list(self._accounts)[after:end], end if end < len(self._accounts) else None

    async def totals(self) -> Totals:
        """See `IAccountStore`."""
        accounts = [home.account for home in self._accounts.values()]
        return Totals(
            users=len(accounts),
            disabled=sum(account.disabled for account in accounts),
            used=sum(account.used for account in accounts),
            tokens=len(self._tokens),
            unused_tokens=sum(token.used is None for token in self._tokens.values()),
        )

    async def add_signup_token(self, token: SignupToken) -> None:
        """See `IAccountStore`."""
        self._tokens.setdefault(token.token, token)

    async def signup_token(self, token: str) -> SignupToken | None:
        """See `IAccountStore`."""
        return self._tokens.get(token)

    async def signup_tokens(self, state: TokenState, after: str, limit: int) -> list[SignupToken]:
        """See `IAccountStore`."""
        found = [
            token
            for text, token in sorted(self._tokens.items())
            if text > after and state in (TokenState.ALL, TokenState.USED if token.used else TokenState.UNUSED)
        ]
        return found[: min(limit, MAX_TOKENS)]

    # --- sessions -------------------------------------------------------------------------------------------------

    async def burn(self, token_id: bytes, lifetime: int) -> bool:
        """See `ISessionStore`."""
        now = self._now()
        self._burned = {known: until for known, until in self._burned.items() if until > now}
        if token_id in self._burned:
            return False
        self._burned[token_id] = now + lifetime * 1_000_000
        return True

    async def sign_in(self, session: Session) -> None:
        """See `ISessionStore`."""
        self._check_sign_in(session.pubky)
        self._sessions[session.id] = session

    def _check_sign_in(self, pubky: str) -> None:
        """Raise unless an account lives here, or was claimed."""
        home, copied = self._home(pubky), self.copies.copied(pubky)
        if home.away is not None and not (copied and copied.claimed):
            raise NotPrimary(home.away)

    def _end_sessions(self, pubky: str) -> None:
        """End all sessions and bearers of an account."""
        for session in [one for one in self._sessions.values() if one.pubky == pubky]:
            del self._sessions[session.id]
            self._tell(f"session:{session.id}")
        self.grants.end_bearers(pubky)

    async def session(self, session_id: str) -> Session | None:
        """See `ISessionStore`."""
        return self._sessions.get(session_id)

    async def sign_out(self, session_id: str) -> bool:
        """See `ISessionStore`."""
        if self._sessions.pop(session_id, None) is None:
            return False
        self._tell(f"session:{session_id}")
        return True

    def hear_revocations(self, hear: Callable[[str | None], None]) -> Callable[[], None]:
        """See `ISessionStore`."""
        self._hearers.append(hear)
        return lambda: self._hearers.remove(hear)

    def hears_revocations(self) -> bool:
        """See `ISessionStore`."""
        return not self.is_deaf

    def _tell(self, credential: str | None) -> None:
        for hear in list(self._hearers):
            hear(credential)

    # --- hints ----------------------------------------------------------------------------------------------------

    async def hint(self, text: str) -> None:
        """See `IHints`."""
        self._hint(text)

    def hear_hints(self, hear: Callable[[str | None], None]) -> Callable[[], None]:
        """See `IHints`."""
        self._listeners.append(hear)
        self.clock.callLater(0, self._begin_to_hear, hear)
        return lambda: self._listeners.remove(hear)

    def _begin_to_hear(self, hear: Callable[[str | None], None]) -> None:
        if hear in self._listeners:
            hear(None)

    def _hint(self, text: str) -> None:
        for hear in list(self._listeners):
            hear(text)

    # --- entries --------------------------------------------------------------------------------------------------

    async def entry(self, pubky: str, path: str) -> Entry | None:
        """See `IEntryStore`."""
        files = self._files(pubky)
        return files.entries.get(path) if files else None

    async def check_put(
        self, pubky: str, path: str, length: int | None, default_limit: int | None, tokens: Sequence[str] | None = ()
    ) -> None:
        """See `IEntryStore`."""
        home = self._open_home(pubky)
        if home.account.disabled:
            raise UserDisabled
        if length is not None:
            _check_quota(home, path, length, default_limit)
        await self.locks.check(pubky, path, tokens)
        _check_path(home, path)

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
        path = entry.path
        await self.check_put(pubky, path, entry.length if announced else None, default_limit, tokens)
        home = self._home(pubky)
        old = home.files.entries.get(path)
        if if_none_match and old is not None:
            raise PreconditionFailed
        _check_match(old, if_match)
        _check_quota(home, path, entry.length, default_limit)

        self._blobs.use(entry)
        home.account = evolve(home.account, used=home.account.used + _growth(home, path, entry.length))
        event = self._append(home, Operation.PUT, path, old, entry)
        home.files.keep(evolve(entry, seq=event.seq))
        return event

    async def check_delete(self, pubky: str, path: str, tokens: Sequence[str] | None = ()) -> None:
        """See `IEntryStore`."""
        home = self._open_home(pubky)
        await self.locks.check(pubky, path, tokens)
        if path not in home.files.entries:
            raise NotFound
        _check_allowed(home, path)

    async def delete(
        self, pubky: str, path: str, if_match: Sequence[str] | None = None, tokens: Sequence[str] | None = ()
    ) -> Event:
        """See `IEntryStore`."""
        await self.check_delete(pubky, path, tokens)
        home = self._home(pubky)
        old = home.files.entries[path]
        _check_match(old, if_match)

        home.files.remove(path)
        home.account = evolve(home.account, used=max(0, home.account.used - old.length - ENTRY_OVERHEAD))
        return self._append(home, Operation.DEL, path, old, None)

    async def listing(
        self, pubky: str, directory: str, after: str, limit: int, reverse: bool, shallow: bool
    ) -> list[str]:
        """See `IEntryStore`."""
        files = self._files(pubky)
        paths = files.below(directory) if files else []
        if not paths:
            raise DirectoryNotFound
        if shallow:
            paths = list(dict.fromkeys(_child(path, directory) for path in paths))
        if reverse:
            paths = paths[: bisect_left(paths, after)][::-1] if after else paths[::-1]
        elif after:
            paths = paths[bisect_right(paths, after) :]
        return paths[: min(limit, MAX_PAGE)]

    # --- events ---------------------------------------------------------------------------------------------------

    async def events(self, after: int, limit: int, private: bool) -> list[Event]:
        """See `IEntryStore`."""
        shown = (event for event in self._after(after) if not is_name(event.path))
        return _page((event for event in shown if private or not is_private(event.path)), limit)

    def _after(self, event_id: int) -> Iterator[Event]:
        """The feed of all accounts above an id."""
        return (event for event in _beyond(self._events, event_id) if not self.erasures.is_hidden(event.pubky))

    async def account_events(
        self, pubky: str, after: int | None, limit: int, reverse: bool, public: bool, private: bool
    ) -> list[Event]:
        """See `IEntryStore`."""
        files, home = self._files(pubky), self._accounts.get(pubky)
        known = files.events if files else []
        if home is not None and home.away is not None:
            last = max(log.event_id for log in home.logs.values())
            known = [event for event in known if event.id <= last]
        events = (event for event in _beyond(known, after, reverse) if not is_name(event.path))
        return _page((event for event in events if (private if is_private(event.path) else public)), limit)

    async def has_event(self, event_id: int) -> bool:
        """See `IEntryStore`."""
        return any(event.id == event_id for event in _beyond(self._events, event_id - 1))

    async def last_event_id(self) -> int:
        """See `IEntryStore`."""
        return self._newest

    @property
    def _newest(self) -> int:
        return max(self._events[-1].id if self._events else 0, self._skipped)

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        """See `IEntryStore`."""
        self._wakes.append(wake)
        return lambda: self._wakes.remove(wake) if wake in self._wakes else None

    # --- blobs ----------------------------------------------------------------------------------------------------

    async def known_blobs(self, blobs: Iterable[str]) -> set[str]:
        """See `IEntryStore`."""
        return self._blobs.known(set(blobs))

    async def expired_blobs(self, now: int, limit: int) -> list[str]:
        """See `IEntryStore`."""
        return self._blobs.expired(now)[:limit]

    async def forget_blobs(self, blobs: Iterable[str]) -> None:
        """See `IEntryStore`."""
        for blob in blobs:
            self._blobs.forget(blob)

    # --- inside ---------------------------------------------------------------------------------------------------

    def _now(self) -> int:
        return int(self.clock.seconds() * 1_000_000)

    def _home(self, pubky: str) -> Home:
        if (home := self._accounts.get(pubky)) is None:
            raise NotFound
        return home

    def _open_home(self, pubky: str) -> Home:
        home = self._home(pubky)
        if home.away is not None:
            raise NotPrimary(home.away)
        return home

    def _files(self, pubky: str) -> Files | None:
        home = self._accounts.get(pubky)
        return home.files if home and home.away is None else self.copies.files(pubky)

    def _copied(self, pubky: str) -> Copied | None:
        """The files and logs of a copy, for `MemoryLogs`."""
        return self.copies.copied(pubky)

    def _packet(self, pubky: str) -> bytes | None:
        return self.packets.kept(pubky)

    def _forget_grants(self, pubky: str) -> None:
        self.grants.forget(pubky)

    def _forget(self, pubky: str) -> None:
        """Forget the packet of a key, its events, and what happened to it."""
        self.packets.forget(pubky)
        self.chronicle.forget(pubky)
        self._skip(self._newest)
        self._events = [event for event in self._events if event.pubky != pubky]

    def _skip(self, event_id: int) -> None:
        self._skipped = max(self._skipped, event_id)

    def _append(self, home: Home, operation: Operation, path: str, old: Entry | None, new: Entry | None) -> Event:
        """Add an event to the log of a path, move the log's digest, and begin the grace of an old blob."""
        if old is not None:
            self._blobs.retire(old, pubky=home.account.pubky)
        marks = (mark_of(one) for one in (old, new) if one is not None)
        return self._note(home, operation, path, fold(home.logs[is_private(path)].digest, *marks), new)

    def _note_name(self, pubky: str, entry: Entry) -> None:
        """Put what is no file into the public log of an account that is open here. Raises `NotPrimary`."""
        home = self._accounts.get(pubky)
        if home is not None and home.away is not None:
            raise NotPrimary(home.away)
        if home is None or entry.path in home.files.entries:
            return
        event = self._append(home, Operation.PUT, entry.path, None, entry)
        home.files.keep(evolve(entry, seq=event.seq))

    def _post(self, home: Home, entry: Entry, is_there: bool) -> None:
        """Let the public log of an account have an entry that is no file, or not."""
        old = home.files.entries.get(entry.path)
        if is_there and old is None:
            event = self._append(home, Operation.PUT, entry.path, None, entry)
            home.files.keep(evolve(entry, seq=event.seq))
        elif old is not None and not is_there:
            home.files.remove(entry.path)
            self._append(home, Operation.DEL, entry.path, old, None)

    def _has(self, pubky: str, name: str) -> bool:
        files = self._files(pubky)
        return files is not None and name in files.entries

    def _note(self, home: Home, operation: Operation, path: str, digest: bytes, new: Entry | None) -> Event:
        """Add an event to the log of a path, with the digest after it."""
        log = home.logs[is_private(path)]
        event = Event(
            id=max(self._newest + 1, self._now()),
            operation=operation,
            pubky=home.account.pubky,
            path=path,
            seq=log.seq + 1,
            digest=digest,
            content_hash=new.content_hash if new else None,
            length=new.length if new else 0,
            content_type=new.content_type if new else "",
            modified=new.modified if new else 0,
        )
        home.logs[is_private(path)] = evolve(log, seq=event.seq, event_id=event.id, digest=event.digest)
        home.files.events.append(event)
        self._events.append(event)
        self._wake_all()
        return event

    def _wake_all(self) -> None:
        for wake in self._wakes:
            self.clock.callLater(0, self._wake, wake)

    def _wake(self, wake: Callable[[], None]) -> None:
        if wake in self._wakes:
            wake()


def _growth(home: Home, path: str, length: int) -> int:
    """Bytes that the account uses more with a file of this length at the path."""
    old = home.files.entries.get(path)
    return length - old.length if old else length + ENTRY_OVERHEAD


def _check_quota(home: Home, path: str, length: int, default_limit: int | None) -> None:
    limit = home.account.quota.storage_limit(default_limit)
    if limit is not None and home.account.used + _growth(home, path, length) > limit:
        raise QuotaExceeded


def _check_path(home: Home, path: str) -> None:
    _check_allowed(home, path)
    entries = home.files.entries
    if path in entries:
        return
    if home.files.below(path + "/") or any(folder in entries for folder in ancestors(path)):
        raise Collision


def _check_allowed(home: Home, path: str) -> None:
    allowed = home.account.quota.allowed_write_paths
    if allowed is not None and not any(covers(scope, path) for scope in allowed):
        raise WriteNotAllowed


def _check_match(old: Entry | None, if_match: Sequence[str] | None) -> None:
    if if_match is None:
        return
    if old is None or not {"*", f'"{b64encode(old.content_hash).decode()}"'}.intersection(if_match):
        raise PreconditionFailed


def _child(path: str, directory: str) -> str:
    """What a shallow listing of the directory shows for a path: the file, or the folder that it lies in."""
    end = path.find("/", len(directory))
    return path if end < 0 else path[: end + 1]


def _beyond(events: list[Event], after: int | None, reverse: bool = False) -> Iterator[Event]:
    if reverse:
        end = len(events) if after is None else bisect_left(events, after, key=lambda event: event.id)
        return (events[index] for index in range(end - 1, -1, -1))
    start = 0 if after is None else bisect_right(events, after, key=lambda event: event.id)
    return (events[index] for index in range(start, len(events)))


def _page(events: Iterator[Event], limit: int) -> list[Event]:
    return [event for event, _ in zip(events, range(min(limit, MAX_PAGE)), strict=False)]
