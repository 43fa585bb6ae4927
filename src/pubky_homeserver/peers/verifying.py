"""Whether what is kept here is still what it shall be: bodies are hashed again, and lists of copies compared.

Disks forget, and say nothing. So every account that lives here and every copy is gone through once a week, slowly, and
at once when the operator asks. A body that is not there, or has another hash than its entry, is noted as missing, so
that nobody gets a wrong one, and fetched again from who has it (`healing.py`). A copy whose list is not its primary's
is compared with it, like one whose history differs (`comparing.py`).
"""

from collections.abc import AsyncIterator, Mapping
from typing import ClassVar

from attrs import define, field
from blake3 import blake3
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from pubky_homeserver.copies import Copies
from pubky_homeserver.core.copies import Copy
from pubky_homeserver.core.errors import InvalidRequest, PeerError, Refused
from pubky_homeserver.core.records import Entry
from pubky_homeserver.core.verification import Verification
from pubky_homeserver.interfaces import IAccountStore, IBlobStore, IIntegrityStore
from pubky_homeserver.peers.healing import Healer
from pubky_homeserver.peers.neighbours import Neighbour
from pubky_homeserver.peers.tally import Counted, Tally
from pubky_homeserver.rounds import Rounds

EVERY = 7 * 86_400.0
"""Seconds from one look at an account or copy to the next."""

LOOK = 3600.0
"""Seconds from one round to the next: each takes those that were not looked at for `EVERY`."""

PACE = 8e6
"""Bytes a second that are read without the operator's word: a disk of 500 GB takes 17 hours."""

COMPARE = 600.0
"""Seconds that the comparison of a copy's lists may take, besides those for its files."""

COMPARE_FILE = 0.1
"""Seconds for each file: an official homeserver is asked for each of them."""

PAGE = 100
"""Files read in one step: with the largest small bodies, 400 kB."""

PIECE = 256 << 10
"""Bytes of a body that are hashed at a time, in some tenths of a millisecond."""


@define(eq=False)
class Verifier(Service):
    """Goes through accounts and copies, one at a time."""

    accounts: IAccountStore
    copies: Copies
    integrity: IIntegrityStore
    blobs: IBlobStore
    neighbours: Mapping[str, Neighbour]
    healer: Healer
    tally: Tally
    clock: IReactorTime
    newest: Verification | None = field(default=None, init=False)
    """The one that the operator asked for, as far as it is."""
    _asked: Deferred[None] | None = field(default=None, init=False)
    # The operator's, under way.
    _rounds: Rounds = field(init=False)
    log: ClassVar[Logger] = Logger()

    @_rounds.default
    def _make_rounds(self) -> Rounds:
        return Rounds(self.go_round, "The verification of what is kept here", LOOK, self.clock)

    def startService(self) -> None:
        """Look after all that was not looked at for a week, from now on."""
        super().startService()
        self._rounds.startService()

    def stopService(self) -> Deferred[None]:
        """Stop at once: what was not finished is done again."""
        super().stopService()
        if self._asked is not None:
            self._asked.cancel()
        return self._rounds.stopService()

    async def begin(self, pubky: str | None) -> Verification:
        """Go through one account or copy now, or through all. Raises `InvalidRequest` if one is under way already."""
        if self.newest is not None and not self.newest.ended:
            raise InvalidRequest("A verification is under way: look how far it is (homeserver mirror verify --status)")
        if pubky is not None and self.copies.of(pubky) is None and await self.accounts.account(pubky) is None:
            raise InvalidRequest("Neither an account nor a copy of this key is here")
        self.newest = one = Verification(pubky, int(self.clock.seconds()))
        self._asked = Deferred.fromCoroutine(self._run(one))
        self._asked.addErrback(_stopped)
        return one

    async def _run(self, one: Verification) -> None:
        """What the operator asked for, to its end."""
        try:
            pubkys = [one.pubky] if one.pubky is not None else [found async for found in self._all()]
            one.of, slow = len(pubkys), set[str]()
            for pubky in pubkys:
                await self._verify(pubky, one, None, slow)
        except CancelledError:
            raise
        except Refused as refusal:
            one.note(one.pubky or "", f"given up: {refusal}")
        except Exception:  # who asked waits for the end, and has to be told
            self.log.failure("A verification failed")
            one.note(one.pubky or "", "given up: the log tells why")
        finally:
            one.ended = int(self.clock.seconds())

    async def go_round(self) -> None:
        """Verify what is due, slowly. Raises `StoreAway`, `StorageFull`."""
        one, slow = Verification(None, int(self.clock.seconds())), set[str]()
        before = int((self.clock.seconds() - EVERY) * 1_000_000)
        async for pubky in self._all():
            if await self.integrity.verified(pubky) < before:
                await self._verify(pubky, one, PACE, slow)

    async def _all(self) -> AsyncIterator[str]:
        """All copies, and all accounts that live here."""
        for copy in self.copies.all():
            yield copy.pubky
        place: int | None = 0
        while place is not None:
            page, place = await self.accounts.accounts(place, PAGE)
            for pubky in page:
                if self.copies.of(pubky) is None:
                    yield pubky

    # --- one account ----------------------------------------------------------------------------------------------

    async def _verify(self, pubky: str, one: Verification, pace: float | None, slow: set[str]) -> None:
        """Go through an account or a copy, and note if all is well. Raises `StoreAway`, `StorageFull`.

        Peers that are `slow` are not waited for; who is found so is added: it holds up nobody else's accounts.
        """
        before = one.files
        wrong = await self._hash(pubky, one, pace)
        if wrong:
            one.wrong += wrong
            one.note(pubky, f"{wrong} bodies were lost")
            self.log.error("{wrong} bodies of {pubky} were lost, and are fetched again", wrong=wrong, pubky=pubky)
        copy = await self.copies.refresh(pubky)
        try:
            is_same = copy is None or await self._compare_in_time(copy, one, one.files - before, slow)
        except PeerError as error:
            one.note(pubky, f"not compared: {error}")
            is_same = False
        left = await self.healer.heal(pubky, slow)
        one.missing += left
        one.accounts += 1
        if left:
            one.note(pubky, f"{left} bodies are missing")
        elif is_same:
            await self.integrity.note_verified(pubky, int(self.clock.seconds() * 1_000_000))
            await self.copies.refresh(pubky)

    async def _hash(self, pubky: str, one: Verification, pace: float | None) -> int:
        """Hash every body that is here; how many were wrong, and are noted as missing."""
        after, wrong = "", 0
        while page := await self.integrity.held(pubky, after, PAGE):
            after = page[-1].path
            for entry in page:
                one.files += 1
                if entry.body is None and entry.blob is None:
                    continue
                one.bytes += entry.length
                if not await self._is_right(entry, pace) and await self.integrity.lose(pubky, entry):
                    self.tally.count(Counted.ROTTEN)
                    wrong += 1
        return wrong

    async def _is_right(self, entry: Entry, pace: float | None) -> bool:
        """Whether a body is there, and has the hash of its entry."""
        if entry.blob is None:
            return blake3(entry.body or b"").digest() == entry.content_hash
        digest, at = blake3(), 0
        try:
            reader = await self.blobs.open(entry.blob)
            if reader is None:
                return False
            try:
                while piece := await reader.read(at, PIECE):
                    digest.update(piece)
                    at += len(piece)
                    if pace is not None:
                        await deferLater(self.clock, len(piece) / pace)
            finally:
                reader.close()
        except OSError as error:
            self.log.error("A body cannot be read: {error}", error=error)
            return False
        return at == entry.length and digest.digest() == entry.content_hash

    async def _compare_in_time(self, copy: Copy, one: Verification, files: int, slow: set[str]) -> bool:
        """The same as `_compare`, unless the primary takes too long, or did with another copy."""
        if copy.primary not in slow:
            comparing = Deferred.fromCoroutine(self._compare(copy, one))
            try:
                return await comparing.addTimeout(COMPARE + files * COMPARE_FILE, self.clock)
            except TimeoutError:
                slow.add(copy.primary)
        one.note(copy.pubky, "not compared: its primary is too slow")
        return False

    async def _compare(self, copy: Copy, one: Verification) -> bool:
        """Compare the lists of a copy with those of its primary, and begin to repair what differs; whether all is well.

        Raises `PeerError`.
        """
        neighbour = self.neighbours.get(copy.primary)
        if neighbour is None or neighbour.mirror is None:
            one.note(copy.pubky, "not compared: its primary is not followed")
            return False
        is_same = True
        for private, log in ((False, copy.public), (True, copy.private)):
            if log.position is None or (private and not neighbour.peer.private):
                continue
            neighbour.mirror.hint(copy.pubky, private)
            different = await neighbour.follower.verify(copy.pubky, private)
            if not different:
                continue
            is_same = False
            one.different += different
            one.note(copy.pubky, f"{different} files differ from its primary's, and are compared")
            self.log.error("{count} files of {pubky} differ from its primary's", count=different, pubky=copy.pubky)
            self.tally.count(Counted.LIST)
            neighbour.mirror.hint(copy.pubky, private)
        return is_same


def _stopped(failure: Failure) -> None:
    failure.trap(CancelledError)
