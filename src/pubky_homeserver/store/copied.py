"""Copies of other homeservers' accounts, in memory."""

from bisect import insort
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter

from attrs import define, evolve, field
from zope.interface import implementer

from pubky_homeserver.core.copies import CopiedLog, Copy, LogStanding, Position, Reign
from pubky_homeserver.core.digests import EMPTY, fold
from pubky_homeserver.core.erasing import NEVER, Erased
from pubky_homeserver.core.errors import DigestMismatch, NotFound, UserExists
from pubky_homeserver.core.paths import TAKEDOWN, is_name, is_private
from pubky_homeserver.core.quotas import ENTRY_OVERHEAD
from pubky_homeserver.core.records import Entry, Event, Operation
from pubky_homeserver.core.shelf import Reason, Shelved, id_of
from pubky_homeserver.interfaces import ICopyStore
from pubky_homeserver.store.connection import STEP
from pubky_homeserver.store.files import (
    Blobs,
    Files,
    Home,
    check_log,
    check_page,
    check_reigns,
    log_of,
    mark_of,
    written,
)
from pubky_homeserver.store.packing import SIGNATURE
from pubky_homeserver.store.shelf import MemoryShelf

HOMES = 20
"""Homeservers where an account lived, as many as are remembered; as in `homes.lua`."""

_by_id = attrgetter("id")


@define
class _Log:
    """One log of a copy."""

    state: CopiedLog = field(factory=CopiedLog)
    digest: bytes = EMPTY
    """Of the files that are here."""
    floor: int = 0
    """The log is complete after this number."""

    @property
    def is_read(self) -> bool:
        """Whether its list is being read."""
        return self.state.start is not None


@define
class Copied:
    """A copy with its files."""

    primary: str
    begun: int
    claimed: int = 0
    """When its user signed up here; 0 if they did not."""
    token: str | None = None
    """The signup token that was spent for that."""
    braked: int = 0
    permitted: int = 0
    verified: int = 0
    """When all its bodies, and its list, were last found to be right."""
    owes: bool = False
    """Whether its new primary may lack its private log."""
    packet: bytes | None = None
    """The one that counted when the account left."""
    before: list[str] = field(factory=list)
    """Where the account lived before."""
    files: Files = field(factory=Files)
    logs: dict[bool, _Log] = field(factory=lambda: {False: _Log(), True: _Log()})
    # Whether it is the private one → log.

    @property
    def used(self) -> int:
        """Bytes, as quotas count them; what is no file takes none."""
        files = (entry for entry in self.files.entries.values() if not is_name(entry.path))
        return sum(entry.length + ENTRY_OVERHEAD for entry in files)

    @property
    def beside(self) -> int:
        """Bytes of events and of what is no file."""
        ends = [(log.state.position, log.floor) for log in self.logs.values()]
        events = sum(position.seq - floor for position, floor in ends if position is not None)
        return ENTRY_OVERHEAD * (events + sum(map(is_name, self.files.entries)))

    def standing(self, private: bool) -> LogStanding | None:
        """Where one of its logs stands, if that is whole."""
        state = self.logs[private].state
        if not state.is_whole or state.position is None:
            return None
        return LogStanding(state.position, state.reigns, self.logs[private].floor, self.used, is_copy=True)

    def replace(
        self,
        path: str,
        new: Entry | None,
        blobs: Blobs,
        pubky: str,
        shelve: Callable[[Entry, Entry | None], bool] | None = None,
    ) -> None:
        """Let a path hold a new entry or none; without body it keeps that of the old one, if it is the same.

        A body that goes is shelved, if `shelve` is given.
        """
        digest = self.digest_after(path, new)
        old = self.files.entries.get(path)
        if new is not None:
            if _is_bare(new) and old is not None and _names(old, new):
                new = evolve(new, body=old.body, blob=old.blob)
            self.files.keep(new)
            blobs.use(new)
        elif old is not None:
            self.files.remove(path)
        if old is not None and not _is_bare(old):
            differs = new is None or new.content_hash != old.content_hash
            is_shelved = differs and shelve is not None and shelve(old, new)
            if not is_shelved and (new is None or new.blob != old.blob):
                blobs.retire(old, pubky=pubky)
        self.logs[is_private(path)].digest = digest

    def digest_after(self, path: str, new: Entry | None) -> bytes:
        """The digest of the log of a path, once that holds a new entry or none."""
        marks = [mark_of(one) for one in (self.files.entries.get(path), new) if one is not None]
        return fold(self.logs[is_private(path)].digest, *marks)


@implementer(ICopyStore)
@define(eq=False)
class MemoryCopies:
    """Copies in memory. `homes` knows the accounts that live here."""

    homes: Mapping[str, Home]
    blobs: Blobs
    shelf: MemoryShelf
    packets: dict[str, bytes] = field(factory=dict, init=False)
    """Pubky → packet."""
    erased: dict[str, list[str]] = field(factory=dict, init=False)
    """Name of what was erased → log ids."""
    _copies: dict[str, Copied] = field(factory=dict, init=False)
    # Pubky → copy.

    def files(self, pubky: str) -> Files | None:
        """The files of a copy."""
        copied = self._copies.get(pubky)
        return copied.files if copied else None

    def copied(self, pubky: str) -> Copied | None:
        """A copy with all that is its own."""
        return self._copies.get(pubky)

    def take(self, pubky: str, primary: str, now: int, home: Home, packet: bytes | None) -> None:
        """Begin a copy with what an account has that lives elsewhere from now on."""
        logs = {
            private: _Log(
                CopiedLog(Position(log.log_id, log.seq, log.event_id, log.digest), home.reigns(private), is_whole=True),
                log.digest,
                log.floor,
            )
            for private, log in home.logs.items()
        }
        self._copies[pubky] = Copied(primary, now, files=home.files, logs=logs)
        if home.logs[True].seq:
            self._copies[pubky].owes, self._copies[pubky].packet = True, packet

    def drop(self, pubky: str) -> None:
        """Let go of a copy; its files are somebody else's."""
        del self._copies[pubky]

    def put_back(self, pubky: str, copied: Copied) -> None:
        """Keep a copy that was let go of."""
        self._copies[pubky] = copied

    def point(self, pubky: str, primary: str) -> None:
        """Note where an account lives that does not live here."""
        if (copied := self._copies.get(pubky)) is not None and copied.primary != primary:
            copied.before, copied.primary = with_home(copied.before, copied.primary), primary
        home = self.homes.get(pubky)
        if home is not None and home.away is not None:
            home.away = primary

    async def begin(
        self, pubky: str, primary: str, now: int, packet: bytes | None = None, erased: Erased | None = NEVER
    ) -> bool:
        """See `ICopyStore`."""
        home, copied, kept = self.homes.get(pubky), self._copies.get(pubky), self.packets.get(pubky)
        if home is not None and home.away is None:
            raise UserExists
        if copied is not None and copied.primary == primary:
            return True
        if kept is not None and kept[SIGNATURE:] != (packet or b"")[SIGNATURE:]:
            return False
        if copied is None and (erased is None or self.erased.get(erased[0], []) != [*erased[1]]):
            return False
        self._copies.setdefault(pubky, Copied(primary, now))
        self.point(pubky, primary)
        return True

    async def copy(self, pubky: str) -> Copy | None:
        """See `ICopyStore`."""
        copied = self._copies.get(pubky)
        if copied is None:
            return None
        entries = copied.files.entries.values()
        return Copy(
            pubky,
            copied.primary,
            copied.begun,
            used=copied.used,
            missing=sum(map(_is_bare, entries)),
            public=copied.logs[False].state,
            private=copied.logs[True].state,
            absent=sum(entry.length for entry in entries if _is_bare(entry) and not is_name(entry.path)),
            claimed=copied.claimed,
            braked=copied.braked,
            permitted=copied.permitted,
            verified=copied.verified,
            taken_down=TAKEDOWN in copied.files.entries,
            owes=copied.owes,
            beside=copied.beside,
        )

    async def copies(self, after: str, limit: int) -> list[Copy]:
        """See `ICopyStore`."""
        pubkys = sorted(pubky for pubky in self._copies if pubky > after)[: min(limit, STEP)]
        return [copy for pubky in pubkys if (copy := await self.copy(pubky)) is not None]

    async def begin_list(self, pubky: str, private: bool, start: LogStanding) -> None:
        """See `ICopyStore`."""
        copied = self._copied(pubky)
        log = copied.logs[private]
        confirmed, compared = log.state.confirmed, log.state.is_whole or log.state.is_compared
        log.state = CopiedLog(start.position, start.reigns, start.position, confirmed=confirmed, is_compared=compared)
        log.floor = start.position.seq
        copied.braked = copied.permitted = 0
        copied.files.events = [event for event in copied.files.events if is_private(event.path) != private]

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
        copied = self._copied(pubky)
        log = copied.logs[private]
        if not log.is_read:
            return
        listed = log.state.listed
        new = {entry.path: evolve(entry, body=None, blob=None) for entry in entries if entry.path > listed}
        ours = [path for path in copied.files.after(listed) if path <= upto and is_private(path) == private]

        def lay(old: Entry, new: Entry | None) -> bool:
            key, now = shelve or ("", 0)
            shelved_id = id_of(old.path, old.seq, old.content_hash)
            thing = Shelved(pubky, shelved_id, Reason.REPLACED, key, old.path, old, new, now, old.modified)
            return self.shelf.lay(thing)

        for path in {*ours, *new}:
            copied.replace(path, new.get(path), self.blobs, pubky, None if shelve is None else lay)
        log.state = evolve(log.state, listed=max(listed, upto))

    async def end_list(self, pubky: str, private: bool, standing: LogStanding) -> bool:
        """See `ICopyStore`."""
        log = self._copied(pubky).logs[private]
        position, there = log.state.position, standing.position
        if position is None or (position.seq, position.event_id, log.digest) != (
            there.seq,
            there.event_id,
            there.digest,
        ):
            return False
        log.state = CopiedLog(there, standing.reigns, is_whole=True, confirmed=log.state.confirmed)
        return True

    async def apply(self, pubky: str, private: bool, event: Event, entry: Entry | None) -> bool:
        """See `ICopyStore`."""
        check_log(event.path, private)
        copied = self._copied(pubky)
        log = copied.logs[private]
        position, path = log.state.position, event.path
        if position is None or event.seq != position.seq + 1 or event.id <= position.event_id:
            return False
        new = written(event, entry) if event.operation is Operation.PUT else None
        if not log.is_read and copied.digest_after(path, new) != event.digest:
            raise DigestMismatch
        old = copied.files.entries.get(path)
        is_older = old is not None and old.seq > event.seq
        if not log.is_read or not (is_older or path > log.state.listed):
            copied.replace(path, new, self.blobs, pubky)
        insort(copied.files.events, event, key=_by_id)
        log_id = log_of(log.state.reigns, event.seq)
        log.state = evolve(log.state, position=Position(log_id, event.seq, event.id, event.digest))
        return True

    async def keep_reigns(self, pubky: str, private: bool, position: Position, reigns: tuple[Reign, ...]) -> bool:
        """See `ICopyStore`."""
        log = self._copied(pubky).logs[private]
        check_reigns(log.state.reigns, reigns, position.seq)
        if log.state.position != position:
            return False
        log.state = evolve(log.state, reigns=reigns, position=evolve(position, log_id=log_of(reigns, position.seq)))
        return True

    async def own(self, pubky: str, private: bool, after: str, limit: int) -> list[Entry]:
        """See `ICopyStore`."""
        files = self.files(pubky)
        paths = [path for path in files.after(after) if is_private(path) == private] if files else []
        return [evolve(files.entries[path], body=None, blob=None) for path in paths[: min(limit, STEP)] if files]

    async def brake(self, pubky: str, removed: int) -> None:
        """See `ICopyStore`."""
        if (copied := self._copies.get(pubky)) is not None:
            copied.braked, copied.permitted = removed, 0

    async def permit(self, pubky: str) -> int:
        """See `ICopyStore`."""
        copied = self._copies.get(pubky)
        if copied is None or not copied.braked:
            return 0
        copied.permitted, copied.braked = copied.braked, 0
        return copied.permitted

    async def confirm(self, pubky: str, private: bool, position: Position, now: int, primary: str = "") -> bool:
        """See `ICopyStore`."""
        copied = self._copies.get(pubky)
        if copied is None or (primary and copied.primary != primary):
            return False
        log = copied.logs[private]
        if not log.state.is_whole or log.state.position != position:
            return False
        log.state = evolve(log.state, confirmed=now)
        return True

    async def named(self, pubky: str) -> bytes | None:
        """See `ICopyStore`."""
        copied = self._copies.get(pubky)
        return None if copied is None else copied.packet

    async def hand_over(self, pubky: str) -> None:
        """See `ICopyStore`."""
        if (copied := self._copies.get(pubky)) is not None:
            copied.owes, copied.packet = False, None

    async def missing(self, pubky: str, after: str, limit: int) -> list[Entry]:
        """See `ICopyStore`."""
        files = self._held(pubky)
        entries = [files.entries[path] for path in files.after(after)] if files else []
        return [entry for entry in entries if _is_bare(entry)][: min(limit, STEP)]

    async def fill(self, pubky: str, entry: Entry) -> bool:
        """See `ICopyStore`."""
        files = self._held(pubky)
        old = files.entries.get(entry.path) if files else None
        if files is None or old is None or not _names(old, entry) or _is_bare(entry):
            return False
        if not _is_bare(old):
            return old.blob == entry.blob
        files.keep(evolve(old, body=entry.body, blob=entry.blob))
        self.blobs.use(entry)
        return True

    def _held(self, pubky: str) -> Files | None:
        """The files of a copy, or else of an account."""
        home = self.homes.get(pubky)
        return self.files(pubky) or (home.files if home else None)

    async def forget(self, pubky: str, limit: int) -> bool:
        """See `ICopyStore`."""
        copied = self._copies.get(pubky)
        if copied is None:
            return True
        for path in copied.files.paths[: min(limit, STEP)]:
            copied.replace(path, None, self.blobs, pubky)
        if copied.files.paths:
            for log in copied.logs.values():
                log.state = CopiedLog()
            return False
        del self._copies[pubky]
        return True

    def _copied(self, pubky: str) -> Copied:
        if (copied := self._copies.get(pubky)) is None:
            raise NotFound
        return copied


def with_home(homes: list[str], key: str) -> list[str]:
    """Homeservers where an account lived, with one more, if that is new; the newest are remembered."""
    return homes if key in homes else [*homes, key][-HOMES:]


def _is_bare(entry: Entry) -> bool:
    """Whether the body of an entry is not here."""
    return entry.body is None and entry.blob is None


def _names(entry: Entry, other: Entry) -> bool:
    """Whether two entries have the same body."""
    return (entry.content_hash, entry.length) == (other.content_hash, other.length)
