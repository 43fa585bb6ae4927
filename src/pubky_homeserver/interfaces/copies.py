"""The ports of homeservers that follow each other: logs, copies, peers."""

# mypy: disable-error-code="empty-body"

from collections.abc import AsyncIterator, Callable, Sequence

from zope.interface import Attribute, Interface

from pubky_homeserver.core.copies import (
    Change,
    Copy,
    Held,
    Hint,
    Known,
    Listed,
    Logged,
    LoggedEvent,
    LogStanding,
    Offered,
    Position,
    Reign,
)
from pubky_homeserver.core.erasing import NEVER, Erased, Obeyed
from pubky_homeserver.core.moves import Shown
from pubky_homeserver.core.peers import Greeting
from pubky_homeserver.core.records import Entry, Event


class ILogStore(Interface):
    """The logs of the accounts that live here, for homeservers that follow them.

    Those of copies can be read too, but for `standings`: whoever asks says who may know them. The standing of a log
    whose list is not whole is None.
    """

    async def standings(after: int, limit: int) -> tuple[list[tuple[str, LogStanding, LogStanding]], int | None]:
        """Up to `limit` (at most 500) accounts in the order of sign-up: pubky, public and private log.

        `after` and what is returned besides: as in `IAccountStore.accounts`.
        """

    async def opened(after: int | None) -> tuple[list[str], int]:
        """The accounts that opened here, by sign-up or by a move, after a number, in order; and the newest number.

        Of each the last time counts, and only the newest thousand are known. `after` None: none are wanted.
        """

    async def changed(after: int, limit: int, private: bool) -> tuple[list[Change], int | None]:
        """The logs of up to `limit` (at most 500) events above an id, of all accounts; and the id where to go on.

        That is None at the end. `private`: private logs too. Of what is no file (`core/paths.py`) it is told as well.
        """

    async def standing(pubky: str, private: bool) -> LogStanding | None:
        """Where one log stands; None without an account."""

    async def known(pubky: str, private: bool, position: Position, limit: int) -> Known:
        """What an answer to the question needs what comes after a position, read in one step.

        That is the event with the id of the position and those after it, up to `limit` (at most 100) of all; none if
        the log stands at the position.
        """

    async def event(pubky: str, private: bool, event_id: int) -> Event | None:
        """The event of a log with exactly this id."""

    async def event_numbered(pubky: str, private: bool, seq: int) -> Event | None:
        """The event of a log with this number, if the log still has it."""

    async def logged(pubky: str, private: bool, after: int, limit: int) -> list[LoggedEvent]:
        """Up to `limit` (at most 1000) events of a log with an id above `after`, ascending."""

    async def listed(pubky: str, private: bool, after: str, limit: int) -> Listed | None:
        """Up to `limit` (at most 500) files of a log with a path above `after`, in byte order, with its standing.

        Read in one step, so that no write lies between page and standing. None without an account.
        """


class ICopyStore(Interface):
    """Copies of accounts of other homeservers. Their files and events lie where those of an account do.

    A copy is no account: none of the other ports knows it, and its events are in no feed of all accounts. Only `entry`,
    `listing` and `account_events` of `IEntryStore` read what it has, and the sweep of blobs spares it.

    What adds files or bodies raises `StorageFull` where a write of a user would. Files of another log than the one that
    is named, and pages out of order, are a mistake of the caller's: `ValueError`.
    """

    async def begin(
        pubky: str, primary: str, now: int, packet: bytes | None = None, erased: Erased | None = NEVER
    ) -> bool:
        """Begin a copy; one that is there goes on. Raises `UserExists` if an account lives here.

        `packet`: the user's, by which the account lives at that primary; None: nobody has any. False, and nothing
        happens, if another one is kept by now, unless the copy is one of that primary. `erased`: what the caller has
        found under the name that the copy has among what was erased; None: nothing, for it knows a copy. False, and no
        copy begins, if there is something else.
        """

    async def copy(pubky: str) -> Copy | None:
        """The copy of an account."""

    async def copies(after: str, limit: int) -> list[Copy]:
        """Up to `limit` (at most 500) copies with a pubky above `after`, ascending."""

    async def begin_list(pubky: str, private: bool, start: LogStanding) -> None:
        """Begin to read the list of files: of a log that has no position yet, or that differs from its primary's.

        The log has the position and the reigns of `start` then, and is complete after it: the events before are
        forgotten, for nobody knows which of them the primary has too. Entries that are here stay; the list is not whole
        until `end_list`. A log that was whole is compared until then. No brake holds, and no permission. Raises
        `NotFound`.
        """

    async def keep_listed(
        pubky: str, private: bool, entries: Sequence[Entry], upto: str, shelve: tuple[str, int] | None = None
    ) -> None:
        """Keep a page of the list, in byte order: all that the primary has between `listed` and `upto`.

        `shelve`: our own key and the time: what has another hash than the entry that comes in its place, or goes, is
        shelved with its body in the same step (`Reason.REPLACED`), if it has one; None: it is not.

        An entry that differs is replaced, and is without body unless its hash is that of the one before; entries of
        ours between these paths that are not in the page go. `upto` is the path of the last one, or at the end of the
        list a text that no path is above. Bytes, digest and missing bodies move along, and `listed` becomes `upto`, in
        one step for each 250 entries, of the page or of ours. What is not above `listed` is skipped, and nothing
        happens if no list is being read. Raises `NotFound`.
        """

    async def end_list(pubky: str, private: bool, standing: LogStanding) -> bool:
        """Be whole at `standing`, where the list was read to its end or later, with the reigns there.

        False, and nothing happens, unless the last applied event is the one there, and our digest the one there. Raises
        `NotFound`.
        """

    async def apply(pubky: str, private: bool, event: Event, entry: Entry | None) -> bool:
        """Apply the next event of the log and move to it: one atomic step; `entry` brings the body of a PUT.

        False, and nothing happens, unless the event's number is the next one and its id above the last one's: so
        replays do no harm. The digest after it must be the event's: else `DigestMismatch`, and nothing happens. The
        entry of a PUT without body keeps the one of the entry before if the hash is the same, else it is counted as
        missing. The blob of an entry that it replaces or removes gets its grace. Raises `NotFound`.

        While the list is read the event is noted and the position moves, whatever the digest; but the path is left
        alone if it is above `listed`, for the list comes to it yet, or if its entry has a larger number, for the page
        that it was in was read after the event. A blob that is brought to a path that is left alone stays an orphan for
        the sweep.
        """

    async def keep_reigns(pubky: str, private: bool, position: Position, reigns: tuple[Reign, ...]) -> bool:
        """Note the reigns of a log that the primary knows to go on where we stand. False if we stand elsewhere by now.

        Those that we know stand at their beginning, and each further one begins after our position: else `ValueError`.
        """

    async def own(pubky: str, private: bool, after: str, limit: int) -> list[Entry]:
        """Up to `limit` (at most 500) entries of a log that are here, with a path above `after`, without bodies."""

    async def brake(pubky: str, removed: int) -> None:
        """Note how many files a comparison would remove, and that it waits for the operator; 0: none waits.

        What was permitted is so no more. Nothing happens if there is no copy.
        """

    async def permit(pubky: str) -> int:
        """Let the comparison that waits remove its files, once, and no more than it would now; how many, 0 if none."""

    async def confirm(pubky: str, private: bool, position: Position, now: int, primary: str = "") -> bool:
        """Note that the primary stands where we do. False if we stand elsewhere by now, or the list is not whole.

        `primary`: who says so; False if that is not the copy's primary.
        """

    async def named(pubky: str) -> bytes | None:
        """The packet that counted when an account left us that owes its private log: it shows that it lived here."""

    async def hand_over(pubky: str) -> None:
        """Note that the primary of an account that left us has what was in its private log, or keeps it."""

    async def missing(pubky: str, after: str, limit: int) -> list[Entry]:
        """Up to `limit` (at most 500) entries without body with a path above `after`, ascending; of an account too."""

    async def fill(pubky: str, entry: Entry) -> bool:
        """Give an entry its body, small or as a blob. Whether it has that one then, also from an earlier call.

        False if the path holds something else by now, or has a body from elsewhere. For an account too.
        """

    async def forget(pubky: str, limit: int) -> bool:
        """Remove up to `limit` (at most 500) entries of a copy, at last the copy. Whether it is gone.

        What is left of a copy in between has no positions, as before its first list.
        """


class IPeer(Interface):
    """A trusted homeserver whose accounts are followed.

    Every method may raise `PeerAway`, `PeerRefused` and `PeerBroken`. What it says is bounded and has the right shape;
    whether it is true is for the caller to see.
    """

    key: str = Attribute("Its public key, z-base-32.")

    async def offered(after: str) -> tuple[list[Offered], str | None]:
        """A page of the accounts that it is primary of and offers, and where to go on; None at the end."""

    async def greet() -> Greeting:
        """What it says of itself."""

    async def held(after: str) -> tuple[list[Held], str | None]:
        """A page of its copies of our accounts, with a pubky above `after`, and where to go on; None at the end."""

    async def packet(pubky: str) -> bytes | None:
        """The newest signed packet of a key that it knows: signature, timestamp, DNS message; not verified."""

    async def show(packets: Sequence[bytes]) -> list[Shown]:
        """Show up to 100 packets, keys and all; the answers stand in their order."""

    async def changes(hear: Callable[[Hint | None], None], beat: Callable[[], None]) -> None:
        """Hear of changes of all offered accounts until the stream ends, which it does only by a failure.

        None comes first: every change after it gets a hint, which may come late or twice. `beat` is called every few
        seconds, when all that changed before was hinted at.
        """

    async def events(pubky: str, private: bool, position: Position) -> Logged:
        """Up to 1000 events after a position of ours. Raises `LogForked` and `LogCompacted`."""

    async def entries(pubky: str, private: bool, after: str) -> Listed:
        """A page of a log's files with a path above `after`, and where the log stood then; empty at the end."""

    async def body(pubky: str, private: bool, path: str, content_hash: bytes, start: int = 0) -> AsyncIterator[bytes]:
        """The body that a path has, or had not long ago, in pieces from byte `start` on; not verified.

        Raises `BodyGone`.
        """

    async def late(pubky: str, private: bool, events: Sequence[LoggedEvent]) -> set[int]:
        """Offer events that its log lacks, at most 100; those (by their ids) that are safe there.

        It fetches bodies that are not with their events, from us, while it answers.
        """

    async def erase(pubky: str, log_id: str, seq: int) -> Obeyed:
        """Order it to erase its copy of an account of ours, whose public log ends there; what became of it.

        Nothing of the copy is read there any more when this returns. Raises `PeerRefused` if it does not obey, or not
        yet; the text tells why.
        """


class IFollower(Interface):
    """Brings copies of one homeserver's accounts up to date.

    Raises what `IPeer` raises, `ComparisonBraked`, `BudgetSpent`, `StoreAway`, `StorageFull`; and `NotFound` if the
    copy is gone.
    """

    async def catch_up(pubky: str, private: bool) -> None:
        """Be where the primary stands, and know it. A copy that its history does not go on from is compared with it."""

    async def advance(pubky: str, private: bool) -> None:
        """Take the events after ours, as far as there are some, and compare nothing."""

    async def verify(pubky: str, private: bool) -> int:
        """How many files of a whole copy differ from its primary's; `catch_up` compares the copy with it then."""

    async def fill(pubky: str, private: bool = True) -> int:
        """Fetch the bodies that are missing, `private` ones or not; returns how many of those are still."""
