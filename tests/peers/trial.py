"""The judge of whole histories: it knows what users were told, the feeds, what passed on the wires, and dumps.

It calls nothing of the code under test but to read (`dumps.py`). Each check counts how often it had something to look
at, by the name of the invariant that it asserts, so a test can say that none was asserted in vain.

    I1   `Verdict.equal`    at rest a copy equals its primary, bodies re-hashed
    I2   `_prefix`          at all times a copy whose list is whole is a state in which a primary was, in its order
    I3   `_forward`         positions and known records never go back, over crashes too
    I5   `_kept`            no acknowledged write is missing where it was acknowledged, after kills
    I6   `_promoted`        the promotion of a copy that was at its primary's end loses nothing
    I8   `_fenced`          no commit once another homeserver is known to be the primary
    I9   `Verdict.nothing_lost` an acknowledged write is at the primary, superseded, or on a shelf
    I10  `_told`            a copy takes no write, and calls nothing missing that is not here yet
    I11  `Verdict.stays_away`   what was deleted last is nowhere
    I12  `_obeys`           only the primary of the newest known record changes a copy
    I13  `rest.py`          everybody goes quiet
    I14  `hear`, `_private` private paths and bodies reach nobody who is not entitled, on no way
    I15  `_adds_up`         bytes add up, and no budget is passed
    I18  `punctual`         a bad peer delays others by less than a second
    I20  `_rewound`         what a rewound primary lacks is deleted nowhere unshelved, and it is flagged
    I24  `rest.py`          whoever was killed at whatever step comes to rest without an operator
"""

import re
from collections import Counter, defaultdict

from attrs import define, field, frozen

from tests.peers.clients import Asked, doubts, last_writes
from tests.peers.dumps import OVERHEAD, Dump, Point, Seen, dump, hash_of, holds, is_filled, shelves
from tests.peers.verdict import Verdict, in_step
from tests.peers.worlds import World

NAMES = ("I1", "I2", "I3", "I5", "I6", "I8", "I9", "I10", "I11", "I12", "I13", "I14", "I15", "I18", "I20", "I24")
"""Of mirroring.md's invariants, those that are asserted."""

PARTS = ("I8 refused", "I10 early", "I14 wires")
"""Parts of them that need something of their own to look at."""

MARKER = b"private!!"
"""All private bodies contain it, and nothing else does."""

SECRETS = re.compile(b"/priv/|%2Fpriv%2F|" + MARKER + b"|cHJpdmF0ZSEh")
"""What nobody sees who is not entitled to private files; the last one is the marker as JSON has it."""

Place = tuple[str, str]
"""A node and an account."""


@frozen
class Loss:
    """A copy that had more than its rewound primary."""

    node: str
    pubky: str
    private: bool
    point: Point
    files: dict[str, bytes]
    process: int
    at: float


@define
class Trial:
    """Judges one world while it goes on, and at rest. `looked`: invariant → how often there was something to see."""

    world: World
    looked: Counter[str] = field(factory=Counter)
    asked: list[Asked] = field(factory=list)
    processes: Counter[str] = field(factory=Counter)
    rewinds: Counter[str] = field(factory=Counter)
    kills: int = 0
    """At a step of the store."""
    operated: bool = False
    """Whether the operator had to say something."""
    admitted: dict[Place, int] = field(factory=dict)
    """Where an account was opened by an ordinary sign-up → no record fences it that is not newer than this."""
    _told: dict[tuple[str, bool], dict[Point, set[str]]] = field(factory=lambda: defaultdict(dict))
    # A log → all points that it was ever at, and where.
    _stood: dict[tuple[str, str, bool], set[Point]] = field(factory=lambda: defaultdict(set))
    # A node's log → where it was seen to stand while the account lived there.
    _read: Counter[str] = field(factory=Counter)
    # Node → events of its feed that were read.
    _seen: dict[Place, Seen] = field(factory=dict)
    _homes: dict[str, tuple[str, Seen]] = field(factory=dict)
    # Account → where it was last seen to live, and how.
    _books: dict[Place, dict[str, Asked]] = field(factory=lambda: defaultdict(dict))
    # What was acknowledged in the reign that goes on.
    _heard: set[int] = field(factory=set)
    # Requests whose answers were judged.
    _losses: list[Loss] = field(factory=list)
    excused: set[int] = field(factory=set)
    """Writes, by their places, that were lost with the only store that had them."""

    def __attrs_post_init__(self) -> None:
        self.world.wires.listen = self.hear
        self.observe()

    # --- at every step ------------------------------------------------------------------------------------------------

    def observe(self) -> None:
        """Look at everything, and compare it with what it was."""
        self._read_feeds()
        now = {
            (name, pubky): self._look(name, pubky)
            for name in self.world.nodes
            if name not in self.world.bad
            for pubky in self.world.users
        }
        for place, seen in now.items():
            if seen.dump is not None and seen.dump.is_home:
                for private, log in seen.dump.logs.items():
                    assert log.at is not None
                    self._stood[(*place, private)].add(log.at)
        answered = self._answers()
        for place, seen in now.items():
            before = self._seen.get(place)
            if before is not None:
                self._forward(place, before, seen, now)
                self._obeys(place, before, seen, now)
            self._kept(place, before, seen, [one for one in answered if (one.node, one.pubky) == place])
            if seen.dump is not None:
                self._prefix(place, seen.dump)
                self._private(place, seen.dump)
                self._adds_up(place, seen.dump)
        for one in answered:
            self._hear_answer(one, self._seen.get((one.node, one.pubky)), now[one.node, one.pubky])
        open_now = {place: seen for place, seen in now.items() if seen.dump is not None and seen.dump.is_home}
        for (name, pubky), seen in open_now.items():
            self._promoted(name, pubky, seen)
        self._homes |= {pubky: (name, seen) for (name, pubky), seen in open_now.items()}
        for loss in [*self._losses]:
            self._rewound(loss, now[loss.node, loss.pubky])
        self._seen = now

    def _look(self, name: str, pubky: str) -> Seen:
        node = self.world.nodes[name]
        record = self.world.records.get(node.store.packets._packets.get(pubky, b""), (0, ""))
        facts = self.processes[name], self.rewinds[name], self.world.clock.seconds()
        return Seen(dump(node.store, pubky), record, *facts)

    def _read_feeds(self) -> None:
        """What homeservers told in their feeds since the last time."""
        for name, node in self.world.nodes.items():
            for told in node.told[self._read[name] :]:
                event, private = told.event, told.event.path.startswith("/priv/")
                points = self._told[event.pubky, private]
                points.setdefault((event.seq, event.id, event.digest), set()).add(name)
                signed, named = self.world.records.get(told.packet or b"", (0, name))
                is_fenced = named != name and signed > self.admitted.get((name, event.pubky), 0)
                assert not is_fenced, f"I8: {name} wrote {event} though it knew that {named} is the primary"
            self.looked["I8"] += 1
            self._read[name] = len(node.told)

    def _answers(self) -> list[Asked]:
        """Requests that were answered since the last time."""
        found = [one for one in self.asked if one.status is not None and one.place not in self._heard]
        self._heard |= {one.place for one in found}
        for one in found:
            assert one.status != 500, f"{one} went wrong"
        return sorted((one for one in found if one.status), key=lambda one: (one.ended, one.place))

    def _prefix(self, place: Place, there: Dump) -> None:
        """I2."""
        name, pubky = place
        for private, log in there.logs.items():
            if log.at is None or not log.is_whole:
                continue
            told = self._told[pubky, private]
            assert log.at[0] == 0 or log.at in told, f"I2: {name} stands where nobody ever was: {log.at}"
            assert log.digest == log.at[2], f"I2: the files at {name} are not those of {log.at}"
            since = [event for event in log.events if event.seq > log.floor]
            assert [event.seq for event in since] == [*range(log.floor + 1, log.at[0] + 1)], f"I2: {name} has gaps"
            for event in since:
                assert (event.seq, event.id, event.digest) in told, f"I2: nobody told {event}, and {name} has it"
            if not there.is_home:
                self.looked["I2"] += 1

    def _forward(self, place: Place, before: Seen, seen: Seen, now: dict[Place, Seen]) -> None:
        """I3."""
        if before.rewound != seen.rewound:
            return
        name, pubky = place
        assert before.record[0] <= seen.record[0], f"I3: {name} knows an older record of {pubky}"
        if before.dump is None or seen.dump is None or before.dump.is_home != seen.dump.is_home:
            return
        if not seen.dump.is_home and before.dump.primary != seen.dump.primary:
            return
        for private, log in seen.dump.logs.items():
            old = before.dump.logs[private]
            if old.at is None or not (old.is_whole and log.is_whole):
                continue
            if seen.dump.is_home or self._still_rules(seen.dump.primary, pubky, private, old.at, now):
                assert log.at is not None
                assert log.at[0] >= old.at[0], f"I3: {name} went back from {old.at} to {log.at}"
                self.looked["I3"] += before.process != seen.process

    def _still_rules(self, key: str, pubky: str, private: bool, point: Point, now: dict[Place, Seen]) -> bool:
        """Whether the primary has had a point all the time: then nobody has a reason to leave it."""
        name = self.world.name_of(key)
        before, seen = self._seen.get((name, pubky)), now.get((name, pubky))
        if before is None or seen is None or before.dump is None or seen.dump is None:
            return False
        if not (before.dump.is_home and seen.dump.is_home and before.rewound == seen.rewound):
            return False
        return all(point in one.logs[private].points for one in (before.dump, seen.dump))

    def _obeys(self, place: Place, before: Seen, seen: Seen, now: dict[Place, Seen]) -> None:
        """I12."""
        name, pubky = place
        signed, named = seen.record
        if before.rewound != seen.rewound or before.record != seen.record or not signed or named == name:
            return
        if before.dump is None or seen.dump is None or before.dump.is_home or seen.dump.is_home:
            return
        primary = now.get((named, pubky))
        for private, log in seen.dump.logs.items():
            old = before.dump.logs[private]
            if log.at is None or log.at == old.at or not log.is_whole or not log.at[0]:
                continue
            points = self._stood[named, pubky, private]
            if primary is not None and primary.dump is not None:
                points = points | primary.dump.logs[private].points
            ok = log.at in points or named in self._told[pubky, private].get(log.at, set())
            assert ok, f"I12: {name} knows that {named} is the primary, and took {log.at} from somebody else"
            self.looked["I12"] += 1

    def _kept(self, place: Place, before: Seen | None, seen: Seen, answered: list[Asked]) -> None:
        """I5."""
        name, pubky = place
        books = self._books[place]
        if seen.dump is None or not seen.dump.is_home:
            books.clear()
            return
        goes_on = before is not None and before.dump is not None and before.dump.is_home
        goes_on = goes_on and before.dump.logs[False].log_id == seen.dump.logs[False].log_id  # type: ignore[union-attr]
        if not goes_on or before is None or before.rewound != seen.rewound:
            books.clear()
            return  # what of this was before, and what after, nobody knows
        books.update({one.path: one for one in answered if one.is_write and one.is_acknowledged})
        for path, one in books.items():
            right = {hash_of(one.body), *doubts(self.asked, pubky, path, one, name)}
            assert seen.dump.hash_at(path) in right, f"I5: {name} lacks {one}"
            self.looked["I5"] += bool(self.processes[name])

    def _private(self, place: Place, there: Dump) -> None:
        """I14, of what lies there."""
        name, pubky = place
        user = self.world.users[pubky]
        if there.is_home or name in user.been or name in user.named:
            return
        if not any(self.world.consent(name, other) for other in user.named):
            assert there.logs[True].at is None, f"I14: {name} follows private files of {pubky}"
            assert not any(path.startswith("/priv/") for path in there.entries), f"I14: {name} has private files"
            self.looked["I14"] += 1

    def hear(self, sender: str, receiver: str, data: bytes) -> None:
        """I14, of what passes on the wires."""
        if SECRETS.search(data) is None:
            return
        users = [user for user in self.world.users.values() if user.pubky.encode() in data]
        is_named = any({sender, receiver} & (user.named | user.been) for user in users or self.world.users.values())
        assert is_named or self.world.consent(sender, receiver), f"I14: {sender} tells {receiver} {data[:200]!r}"
        self.looked["I14 wires"] += 1

    def _adds_up(self, place: Place, there: Dump) -> None:
        """I15."""
        name, _ = place
        used = sum(entry.length + OVERHEAD for entry in there.files.values())
        if there.used is not None:
            assert there.used == used, f"I15: {name} counts {there.used} bytes of {used}"
            self.looked["I15"] += 1
            return
        most = self.world.trust[name].get(self.world.name_of(there.primary), {}).get("max_bytes")
        if most is not None and name not in {*self.world.users[place[1]].been}:
            bare = sum(entry.length for entry in there.files.values() if entry.body is None and entry.blob is None)
            files = max((entry.length for entry in there.files.values()), default=0)
            assert used - bare <= most + files + OVERHEAD * len(there.files), f"I15: {name} has more than it may"
            self.looked["I15"] += 1

    def _hear_answer(self, one: Asked, before: Seen | None, seen: Seen) -> None:
        """I8, I10 and I14, of what clients are told."""
        if one.path.startswith("/priv/") and one.method == "GET" and one.status == 200:
            is_open = any(at is not None and at.dump is not None and at.dump.is_home for at in (before, seen))
            assert is_open, f"I14: the copy at {one.node} shows a private file: {one.path}"
            assert one.is_signed, f"I14: {one.node} shows a private file to anybody: {one.path}"
        if before is None or before.dump is None or seen.dump is None or before.dump.is_home or seen.dump.is_home:
            return
        if any(
            told.event.pubky == one.pubky and told.at >= before.at for told in self.world.nodes[one.node].told[-50:]
        ):
            return  # it lived there in between
        if one.is_write:
            assert not one.is_acknowledged, f"I10: {one.node} has a copy, and took {one}"
            self.looked["I10"] += 1
            self.looked["I8 refused"] += one.node in self.world.users[one.pubky].been
            return
        for there in (before.dump, seen.dump):
            entry = there.entries.get(one.path)
            is_here = there.logs[one.path.startswith("/priv/")].is_whole and (entry is None or is_filled(entry))
            if is_here or one.path.startswith("/priv/"):
                return
        assert one.status != 404, f"I10: {one.node} says that {one.path} is missing"
        self.looked["I10 early"] += 1

    def _promoted(self, name: str, pubky: str, seen: Seen) -> None:
        """I6."""
        home, before = self._homes.get(pubky), self._seen.get((name, pubky))
        was_open = before is not None and before.dump is not None and before.dump.is_home
        if home is None or home[0] == name or was_open:
            return
        old, there = home[1], seen.dump
        assert old.dump is not None
        assert there is not None
        for private, log in old.dump.logs.items():
            if log.at is None or log.at[0] == 0 or log.at not in there.logs[private].points:
                continue
            writes = [
                one
                for one in self.asked
                if one.is_write and one.pubky == pubky and (one.ended is None or one.ended >= old.at)
            ]
            for path in {*old.dump.files, *there.files}:
                if path.startswith("/priv/") is private:
                    right = {old.dump.hash_at(path), *(hash_of(one.body) for one in writes if one.path == path)}
                    assert there.hash_at(path) in right, f"I6: {path} got lost from {home[0]} to {name}"
            self.looked["I6"] += 1

    # --- rewinds ------------------------------------------------------------------------------------------------------

    def rewind(self, name: str, backup: list[object]) -> None:
        """Let a store have what it had once, and note what may be lost by that."""
        self.observe()
        before = self._seen
        self.world.rewind(name, backup)
        self.rewinds[name] += 1
        for pubky in self.world.users:
            self._books[name, pubky].clear()
            self._excuse(pubky)
            there, was = dump(self.world.nodes[name].store, pubky), before[name, pubky].dump
            if there is None or was is None or not (there.is_home and was.is_home):
                continue
            key = self.world.nodes[name].key
            for (other, other_pubky), seen in before.items():
                copy = seen.dump
                if other_pubky != pubky or other == name or copy is None or copy.is_home or copy.primary != key:
                    continue
                self._note_loss(other, pubky, copy, there, seen)
        self.observe()

    def _note_loss(self, other: str, pubky: str, copy: Dump, there: Dump, seen: Seen) -> None:
        for private, log in copy.logs.items():
            if log.is_whole and log.at is not None and log.at[0] and log.at not in there.logs[private].points:
                files = {
                    path: entry.content_hash
                    for path, entry in copy.files.items()
                    if path.startswith("/priv/") is private and is_filled(entry)
                }
                self._losses.append(Loss(other, pubky, private, log.at, files, seen.process, seen.at))

    def _excuse(self, pubky: str) -> None:
        """Writes that nobody has any more were lost with the store that had them."""
        dumps = [one for name in self.world.nodes if (one := dump(self.world.nodes[name].store, pubky)) is not None]
        for write in last_writes(self.asked, pubky).values():
            if not any(holds(there, write.path, hash_of(write.body)) for there in dumps):
                self.excused.add(write.place)

    def _rewound(self, loss: Loss, seen: Seen) -> None:
        """I20: who went back from what its primary lost has flagged that."""
        there = seen.dump
        if there is None or seen.process != loss.process or there.is_home or seen.rewound:
            self._losses.remove(loss)
            return
        if loss.point in there.logs[loss.private].points or not there.logs[loss.private].is_whole:
            return
        self._losses.remove(loss)
        peering = self.world.nodes[loss.node].peering
        if peering is None:
            return
        is_flagged = any(pubky == loss.pubky for pubky, _ in peering.chronicle._forks)
        assert is_flagged, f"I20: {loss.node} does not flag that it went back"
        for path, content_hash in loss.files.items():
            later = [one for one in self.asked if one.is_write and (one.ended is None or one.ended >= loss.at)]
            ok = any((one.pubky, one.path) == (loss.pubky, path) for one in later)
            ok = ok or there.hash_at(path) == content_hash or (path, content_hash) in shelves(self.world, loss.pubky)
            assert ok, f"I20: {loss.node} deleted {path} unshelved"
        self.looked["I20"] += 1

    # --- with a bad peer ----------------------------------------------------------------------------------------------

    def punctual(self, pubky: str, before: set[str]) -> None:
        """I18: who was where the home was a second ago is there now."""
        late = before - in_step(self.world, pubky)
        home = dump(self.world.nodes[self.world.users[pubky].home].store, pubky)
        if home is not None and home.is_home:  # else it moved in that second
            assert not late, f"I18: {late} are late"
            self.looked["I18"] += len(before)

    # --- at rest ------------------------------------------------------------------------------------------------------

    def check_rest(self) -> None:
        """All that holds once everybody has come to rest."""
        Verdict(self.world, self.asked, self.excused, self.looked).check()
