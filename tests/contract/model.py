"""A small model of one account at one homeserver: who may write, what is there, where its logs stand.

It says what a store must answer, and what it holds then. A write has a number instead of a body, so what two logs hold
is equal if and only if the digests are.
"""

from attrs import define, field, frozen

from pubky_homeserver.core.errors import NotFound, NotHereYet, NotPrimary, UserExists
from pubky_homeserver.core.moves import Kept

Files = frozenset[tuple[str, int]]
"""Paths, and the numbers of the writes that they hold."""


@frozen
class Change:
    """An event: its number, its place among all events of the world, and the files after it."""

    seq: int
    id: int
    path: str
    write: int | None
    after: Files


@define
class Log:
    """One log."""

    seq: int = 0
    id: int = 0
    floor: int = 0
    first: int = 1
    """Where the reign begins that rules."""
    files: dict[str, int] = field(factory=dict)
    seqs: dict[str, int] = field(factory=dict)
    """The event that each file is of."""
    changes: list[Change] = field(factory=list)
    """After the floor."""
    is_whole: bool = True

    def add(self, id: int, path: str, write: int | None) -> Change:
        """One more event."""
        files = {one: number for one, number in self.files.items() if one != path}
        if write is not None:
            files[path] = write
        change = Change(self.seq + 1, id, path, write, frozenset(files.items()))
        self.take(change)
        return change

    def take(self, change: Change) -> None:
        """The event that follows."""
        self.seq, self.id = change.seq, change.id
        self.files = dict(change.after)
        self.seqs[change.path] = change.seq
        self.changes.append(change)

    def fits(self, change: Change) -> type[Exception] | bool:
        """Whether an event of another log follows, by what can be seen: number, place, and the digest after it."""
        if change.seq != self.seq + 1 or change.id <= self.id:
            return False
        files = {one for one in self.files.items() if one[0] != change.path}
        if change.write is not None:
            files.add((change.path, change.write))
        return True if files == change.after else ValueError


@define
class Side:
    """The account at one homeserver."""

    name: str
    logs: dict[bool, Log] = field(factory=lambda: {False: Log(), True: Log()})
    # Whether it is the private one → log.
    is_open: bool = False
    has_account: bool = False
    """Whether its user ever signed up here, or it was open."""
    admitted: int = 0
    claimed: bool = False
    primary: str | None = None
    """Whom its copy follows; None without a copy."""
    record: int = 0
    """When the newest record was signed; 0 for none."""
    named: str | None = None
    gone: dict[bool, list[str]] = field(factory=dict)
    # What is to be announced as removed.

    def may_write(self) -> type[Exception] | None:
        """Why not, if not."""
        return NotFound if not self.has_account else None if self.is_open else NotPrimary

    def sign_up(self, now: int, may_claim: bool) -> type[Exception] | None:
        """Somebody signs up."""
        is_copy = self.primary is not None
        if self.is_open or (is_copy and (self.claimed or not (may_claim or self.has_account))):
            return UserExists
        if not self.has_account:
            self.has_account, self.admitted, self.is_open = True, 0 if is_copy else now, not is_copy
            if not is_copy:
                self.logs = {False: Log(), True: Log()}
        self.claimed = is_copy
        return None

    def learn(self, signed: int, named: str) -> Kept | type[Exception]:
        """A record is shown."""
        if not self.has_account and self.primary is None:
            return NotFound
        if signed <= self.record:
            return Kept.OLD
        is_first, self.record, self.named = not self.record, signed, named
        if named == self.name:
            return Kept.KEPT
        self.primary = None if self.primary is None else named
        if not self.is_open or (is_first and signed < self.admitted):
            return Kept.KEPT
        self.is_open, self.primary, self.claimed = False, named, False
        return Kept.FENCED

    def begin(self, primary: str, signed: int) -> type[Exception] | bool:
        """A copy begins, or follows somebody else, by the record that was signed then."""
        if self.is_open:
            return UserExists
        if self.primary == primary:
            return True
        if self.record and signed != self.record:
            return False
        if self.primary is None:
            self.logs = {False: Log(is_whole=False), True: Log(is_whole=False)}
        self.primary = primary
        return True

    def void(self) -> bool:
        """A claim comes to nothing."""
        was_claimed, self.claimed = self.primary is not None and self.claimed, False
        self.has_account = self.has_account and not (was_claimed and not self.admitted)
        return was_claimed

    def open(self, now: int, signed: int) -> bool | type[Exception]:
        """A record that names this homeserver opens the account."""
        if self.primary is None or not self.record or signed != self.record:
            return False
        if not self.logs[False].is_whole:
            return NotHereYet
        self.is_open, self.has_account, self.admitted, self.primary, self.claimed = True, True, now, None, False
        for private, log in self.logs.items():
            log.floor = log.floor if log.is_whole else log.seq
            log.first, log.is_whole = log.seq + 1, True
            self.gone[private] = sorted({one.path for one in log.changes if one.write is None})
        return True
