"""Two homeservers and an account that moves between them, against a small model: any sequence of store steps."""

from collections.abc import Coroutine
from copy import deepcopy
from typing import Any

from attrs import evolve
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from pubky_homeserver.core.copies import Position
from pubky_homeserver.core.digests import EMPTY, fold, mark
from pubky_homeserver.core.errors import DigestMismatch, NotFound, Refused
from pubky_homeserver.core.quotas import ENTRY_OVERHEAD
from pubky_homeserver.core.records import Account, Entry
from pubky_homeserver.core.shelf import Reason, Shelved, id_of
from pubky_homeserver.store.memory import MemoryStore
from tests.contract.copying import END
from tests.contract.model import Files, Log, Side
from tests.contract.store import ALICE, entry
from tests.contract.test_packets import packet
from tests.peers.backups import back_up, put_back

HERE, THERE = "h" * 52, "t" * 52
SIDES = st.sampled_from([HERE, THERE])
NAMES = ["/pub/a", "/pub/b", "/pub/c/d", "/priv/a", "/priv/b"]
PATHS = st.sampled_from(NAMES)
NOW = 1_764_000_000
STEP = 1000
"""Microseconds at least between two events, so that the model knows their order."""


def done(work: Coroutine[Deferred[Any], Any, Any]) -> Any:
    """What a step of a store in memory, which waits for nothing, returns; or the class of its refusal."""
    results: list[Any] = []
    Deferred.fromCoroutine(work).addCallbacks(results.append, lambda failure: results.append(failure.value))
    (result,) = results
    if isinstance(result, DigestMismatch):
        return ValueError
    if isinstance(result, Exception) and not isinstance(result, Refused):
        raise result
    return type(result) if isinstance(result, Refused) else result


class Moves(RuleBasedStateMachine):
    """Whatever is done, both stores answer as the model says, and hold what it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.clock.advance(NOW)
        self.stores = {name: MemoryStore(self.clock) for name in (HERE, THERE)}
        self.sides = {name: Side(name) for name in self.stores}
        self.writes = 0
        self.backup: dict[str, tuple[Any, Side, set[str]]] = {}
        self.shelved: dict[str, set[str]] = {HERE: set(), THERE: set()}

    @property
    def now(self) -> int:
        """Microseconds; later at each step."""
        return int(self.clock.seconds() * 1_000_000)

    def pass_time(self) -> None:
        """So that ids tell in which order events were."""
        self.clock.advance(1)

    @initialize()
    def begin(self) -> None:
        """An account lives here, and nothing is there."""
        self.sign_up(HERE, False)

    @rule(name=SIDES, may_claim=st.booleans())
    def sign_up(self, name: str, may_claim: bool) -> None:
        """The user comes."""
        self.pass_time()
        account = Account(ALICE, self.now)
        answer = done(self.stores[name].sign_up(account, None, None, False, may_claim))
        assert answer is self.sides[name].sign_up(self.now, may_claim)

    @rule(name=SIDES, path=PATHS, is_put=st.sampled_from([True, True, False]))
    def write(self, name: str, path: str, is_put: bool) -> None:
        """The user writes."""
        self.pass_time()
        store, side, log = self.stores[name], self.sides[name], self.sides[name].logs[path.startswith("/priv/")]
        expected = side.may_write()
        if not is_put and expected is None and path not in log.files:
            expected = NotFound
        self.writes += 1
        if is_put:
            answer = done(store.put(ALICE, _entry(path, self.writes), None, True))
        else:
            answer = done(store.delete(ALICE, path))
        if expected is not None:
            assert answer is expected
            return
        change = log.add(answer.id, path, self.writes if is_put else None)
        assert (answer.seq, answer.digest) == (change.seq, _digest(change.after))

    @rule(name=SIDES, named=SIDES, ago=st.sampled_from([0, 0, 0, 1, 3, 5000]))
    def learn(self, name: str, named: str, ago: int) -> None:
        """A record, new or old, is shown."""
        self.pass_time()
        signed = self.now - ago * 1_000_000
        elsewhere = None if named == name else named
        answer = done(self.stores[name].packets.keep_packet(ALICE, packet(signed), elsewhere))
        assert answer is self.sides[name].learn(signed, named)

    @rule(name=SIDES, is_newest=st.sampled_from([True, True, False]))
    def begin_copy(self, name: str, is_newest: bool) -> None:
        """The account is to be followed, by the newest record that is known here or by another one."""
        other, side = _other(name), self.sides[name]
        signed = side.record if is_newest else side.record + 1
        answer = done(self.stores[name].copies.begin(ALICE, other, self.now, packet(signed) if signed else None))
        assert answer is side.begin(other, signed)

    @precondition(lambda self: any(side.is_open for side in self.sides.values()))
    @rule(private=st.booleans())
    def follow(self, private: bool) -> None:
        """Who is not open follows who is, from a list on."""
        for name, side in self.sides.items():
            if not side.is_open:
                self.begin_copy(name, True)
                self.copy_list(name, False)
                if private:
                    self.copy_list(name, True)

    @rule(name=SIDES, is_known=st.booleans(), path=PATHS)
    def move(self, name: str, is_known: bool, path: str) -> None:
        """The user signs up, and says so to all, or only here; and writes."""
        self.sign_up(name, True)
        if is_known:
            self.learn(_other(name), name, 0)
            self.clock.advance(-1)  # it is the same record
        self.learn(name, name, 0)
        for _ in range(2):
            self.apply(name, path.startswith("/priv/"), 0)
        self.open(name, True)
        self.write(name, path, True)

    @rule(name=SIDES, private=st.booleans())
    def copy_list(self, name: str, private: bool) -> None:
        """A whole list of the other one's files is read."""
        there, side = self.sides[_other(name)], self.sides[name]
        if side.primary is None or not there.is_open:
            return
        copies, listed = self.stores[name].copies, done(self.stores[_other(name)].logs.listed(ALICE, private, "", 100))
        done(copies.begin_list(ALICE, private, listed.standing))
        done(copies.keep_listed(ALICE, private, listed.entries, END))
        assert done(copies.end_list(ALICE, private, listed.standing)) is True
        log = there.logs[private]
        side.logs[private] = Log(log.seq, log.id, log.seq, files={**log.files}, seqs={**log.seqs})

    @rule(name=SIDES, paths=st.lists(PATHS, max_size=4), is_put=st.booleans())
    def keep_up(self, name: str, paths: list[str], is_put: bool) -> None:
        """Writes here that are applied there at once."""
        for path in paths:
            self.write(name, path, is_put)
            self.apply(_other(name), path.startswith("/priv/"), 0)

    @rule(name=SIDES, private=st.booleans(), skip=st.sampled_from([0, 0, 0, 1]))
    def apply(self, name: str, private: bool, skip: int) -> None:
        """The next event of the other one is brought, or one that is not the next."""
        side, other = self.sides[name], self.sides[_other(name)]
        log, there = side.logs[private], other.logs[private]
        later = [one for one in there.changes if one.id > log.id][skip : skip + 1]
        if side.primary is None or not log.is_whole or not other.is_open or not later:
            return
        (change,) = later
        event = done(self.stores[_other(name)].logs.event(ALICE, private, change.id))
        new = None if change.write is None else _entry(change.path, change.write)
        answer, expected = done(self.stores[name].copies.apply(ALICE, private, event, new)), log.fits(change)
        assert answer is expected
        if expected is True:
            log.take(change)

    @rule(name=SIDES)
    def void(self, name: str) -> None:
        """A claim comes to nothing."""
        assert done(self.stores[name].moves.void_claim(ALICE)) is self.sides[name].void()

    @rule(name=SIDES, is_newest=st.sampled_from([True, True, True, False]))
    def open(self, name: str, is_newest: bool) -> None:
        """A record says that the account lives here."""
        self.pass_time()
        side = self.sides[name]
        if is_newest and side.named != name:
            return
        signed = side.record if is_newest else side.record + 1
        answer = done(self.stores[name].moves.open(ALICE, packet(signed), self.now))
        assert answer is side.open(self.now, signed)
        if answer is True:
            self.announce(name)

    def announce(self, name: str) -> None:
        """What came is told in the feed, in parts."""
        self.pass_time()
        store, side = self.stores[name], self.sides[name]
        before = {private: log.seq for private, log in side.logs.items()}
        while not done(store.moves.announce(ALICE, 2)):
            pass
        for private, log in side.logs.items():
            told = sorted(log.files)
            gone = [path for path in side.gone.pop(private, []) if path not in log.files]
            events = [one.event for one in done(store.logs.logged(ALICE, private, log.id, 1000))]
            assert [one.seq for one in events] == [*range(before[private] + 1, before[private] + len(gone + told) + 1)]
            assert [one.path for one in events] == gone + told
            for event in events:
                log.add(event.id, event.path, log.files.get(event.path))

    @rule(name=SIDES, path=PATHS, number=st.integers(1, 3))
    def shelve(self, name: str, path: str, number: int) -> None:
        """What did not win lies on the shelf, once."""
        one = Shelved(ALICE, id_of(path, number, None), Reason.LATE, _other(name), path, None, None, self.now, 1)
        assert done(self.stores[name].shelf.shelve(one)) is (one.id not in self.shelved[name])
        self.shelved[name].add(one.id)

    @rule(name=SIDES)
    def back_up(self, name: str) -> None:
        """Somebody keeps a dump."""
        side, shelved = deepcopy((self.sides[name], self.shelved[name]))
        self.backup[name] = back_up(self.stores[name]), side, shelved

    @precondition(lambda self: self.backup)
    @rule(name=SIDES)
    def rewind(self, name: str) -> None:
        """The dump is put back."""
        if name in self.backup:
            dump, side, shelved = self.backup[name]
            put_back(self.stores[name], dump)
            self.sides[name], self.shelved[name] = deepcopy((side, shelved))

    @invariant()
    def all_is_as_the_model_says(self) -> None:
        """Who is open, what is there, where logs stand, and that bytes add up."""
        for name, store in self.stores.items():
            side = self.sides[name]
            account, copy = done(store.account(ALICE)), done(store.copies.copy(ALICE))
            assert (account is not None) is side.has_account
            assert (copy is not None) is (side.primary is not None)
            assert {one.id for one in done(store.shelf.shelf(ALICE, "", 100))} == self.shelved[name]
            if copy is not None:
                assert (copy.primary, bool(copy.claimed)) == (side.primary, side.claimed)
            if copy is None and not side.is_open:
                continue
            used = 0
            for private, log in side.logs.items():
                paths = [path for path in NAMES if path.startswith("/priv/") is private]
                found = {path: done(store.entry(ALICE, path)) for path in paths}
                held = {path: one.content_hash for path, one in found.items() if one is not None}
                assert held == {path: _entry(path, number).content_hash for path, number in log.files.items()}
                used += sum(one.length + ENTRY_OVERHEAD for one in found.values() if one is not None)
                standing = done(store.logs.standing(ALICE, private))
                assert (standing is not None) is log.is_whole
                if standing is not None:
                    at: Position = standing.position
                    digest = _digest(frozenset(log.files.items()))
                    assert (at.seq, at.event_id, at.digest, standing.floor) == (log.seq, log.id, digest, log.floor)
            assert (account.used if side.is_open else copy.used) == used
        assert not all(
            side.is_open and side.record and side.named != name and side.record > side.admitted
            for name, side in self.sides.items()
        ), "two take writes, though both know better"


def _other(name: str) -> str:
    return THERE if name == HERE else HERE


def _entry(path: str, number: int) -> Entry:
    """What a write leaves."""
    return evolve(entry(path, b"%d" % number), modified=number)


def _digest(files: Files) -> bytes:
    entries = [_entry(path, number) for path, number in files]
    return fold(
        EMPTY, *(mark(one.path, one.content_hash, one.length, one.modified, one.content_type) for one in entries)
    )


TestMoves = Moves.TestCase
TestMoves.settings = settings(max_examples=100, stateful_step_count=40)
