"""Everything is killed under writes, again and again: what was acknowledged is there, and all tallies agree.

SIGKILL shows that nothing acknowledged lives in a process alone. (That it is on the disk and not in the kernel's cache
takes a power cut; for that there are the tests of `fsync`, not this one.)
"""

import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from attrs import define, field, frozen
from blake3 import blake3

from pubky_homeserver.core.digests import EMPTY, fold, mark
from pubky_homeserver.core.paths import is_private
from pubky_homeserver.core.quotas import ENTRY_OVERHEAD
from pubky_homeserver.core.records import Entry
from pubky_homeserver.store import schema
from pubky_homeserver.store.packing import unpack_entry
from pubky_homeserver.store.socket import place_socket
from tests.faults.answers import Follower, listed, told
from tests.process import Node, Person, node_in, until
from tests.store.server import RedisServer

ROUNDS = int(os.environ.get("KILL_ROUNDS", "50"))
SEED = int(os.environ.get("KILL_SEED", "0")) or random.randrange(1, 1 << 32)
"""Decides what is written and when the end comes; a failed test prints it. Threads are never twice the same, though."""

WRITERS = 4
PATHS = 12  # of each writer: few enough that most writes replace something
LIFE = 0.6  # seconds: the longest that the writers have

EVERYTHING, HOMESERVER, REDIS = VICTIMS = ("everything", "the homeserver", "Redis")
REWRITES = 0.3  # the share of rounds in which Redis writes its log anew when it is killed

State = bytes | None
"""The hash of a file; None if there is none."""


@define(eq=False)
class Writer:
    """Writes to paths of its own, one write after the other, and knows what must be there."""

    node: Node
    person: Person
    name: str
    random: random.Random
    acknowledged: dict[str, State] = field(factory=dict)
    """Path → what the last acknowledged write left there."""
    doubtful: dict[str, set[State]] = field(factory=dict)
    """Path → what writes that were not acknowledged since may have left there instead."""
    writes: int = 0
    over: threading.Event = field(factory=threading.Event)
    """Set when the writer shall stop."""

    def run(self) -> None:
        """Write until the connection ends or it is over. While Redis is away, try on."""
        connection = self.node.connect(within=10)
        try:
            while not self.over.is_set():
                if self._write(connection):
                    self.writes += 1
                else:
                    self.over.wait(0.02)
        except (OSError, HTTPException):
            pass  # that is the end
        finally:
            connection.close()

    def _write(self, connection: HTTPConnection) -> bool:
        """One write; False if it was not acknowledged."""
        place = "/priv/" if self.random.random() < 0.2 else "/pub/"
        path = f"{place}{self.name}/{self.random.randrange(PATHS)}"
        body = None if self.acknowledged.get(path) and self.random.random() < 0.25 else self._body()
        wanted = None if body is None else blake3(body).digest()
        doubts = self.doubtful.setdefault(path, set())
        was_there = None not in doubts
        doubts.add(wanted)
        connection.request("DELETE" if body is None else "PUT", self.person.path(path), body, self.person.headers)
        answer = connection.getresponse()
        answer.read()
        if answer.status == 503:
            return False  # Redis is away
        expected = 201 if body is not None else 204 if was_there or answer.status == 204 else 404
        assert answer.status == expected, (path, answer.status)
        self.acknowledged[path] = wanted
        del self.doubtful[path]
        return True

    def _body(self) -> bytes:
        """Inline, a small file, or a large one."""
        longest = self.random.choices((4096, 50_000, 1_200_000), (6, 3, 1))[0]
        return self.random.randbytes(self.random.randrange(longest))

    def check(self) -> None:
        """Every path holds what was acknowledged, or what was under way, and is whole. Doubts end here."""
        for path in {**self.acknowledged, **self.doubtful}:
            answer, body = self.node.ask("GET", self.person.path(path), headers=self.person.headers)
            assert answer.status in (200, 404), (path, answer.status)
            found = blake3(body).digest() if answer.status == 200 else None
            allowed = {self.acknowledged.get(path), *self.doubtful.get(path, ())}
            assert found in allowed, f"{path} holds {found and found.hex()} of {len(body)} bytes"
            self.acknowledged[path] = found
        self.doubtful.clear()


def live(writers: list[Writer], person: Person) -> dict[str, bytes]:
    """Everything that a person must have: path → hash."""
    states = (one.acknowledged for one in writers if one.person is person)
    return {path: state for some in states for path, state in some.items() if state is not None}


# --- what lies in the store ---------------------------------------------------------------------------------------


@frozen
class Stored:
    """One account as it lies in Redis."""

    entries: list[Entry]
    facts: Mapping[str, bytes]
    events: Mapping[str, int]
    """Name of a log → how many events it has."""


def stored(redis: RedisServer, person: Person) -> Stored:
    """Read an account, key by key."""
    flat = redis.ask("HGETALL", schema.account(person.pubky))
    members = redis.ask("ZRANGE", schema.entries(person.pubky), 0, -1)
    logs = {schema.log_name(private): schema.log(private, person.pubky) for private in (False, True)}
    return Stored(
        [unpack_entry(member) for member in members],
        {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)},
        {name: redis.ask("XLEN", key) for name, key in logs.items()},
    )


def check_account(account: Stored, expected: Mapping[str, bytes]) -> None:
    """Entries, bytes, numbers and digests agree."""
    assert {entry.path: entry.content_hash for entry in account.entries} == expected
    assert int(account.facts["used"]) == sum(entry.length + ENTRY_OVERHEAD for entry in account.entries)
    for private in (False, True):
        name = schema.log_name(private)
        marks = (
            mark(entry.path, entry.content_hash, entry.length, entry.modified, entry.content_type)
            for entry in account.entries
            if is_private(entry.path) is private
        )
        assert account.facts[f"{name}.digest"] == fold(EMPTY, *marks)
        assert int(account.facts[f"{name}.seq"]) == account.events[name]


def blobs_in_use(redis: RedisServer) -> Iterator[str]:
    """Every blob that an entry or a grace refers to."""
    for first in range(256):
        yield from (blob.hex() for blob in redis.ask("SMEMBERS", schema.blobs(first)))


def check_blobs(folder: Path, redis: RedisServer, accounts: list[Stored]) -> None:
    """Every body that something refers to is there, whole; nothing half is left."""
    used = set(blobs_in_use(redis))
    graces = {blob.hex() for blob in redis.ask("ZRANGE", schema.GRACES, 0, -1)}
    named = {entry.blob: entry for account in accounts for entry in account.entries if entry.blob is not None}
    assert named.keys() | graces == used
    assert not named.keys() & graces
    for blob in used:
        body = (folder / blob[:2] / blob[2:]).read_bytes()
        if blob in named:
            assert (blake3(body).digest(), len(body)) == (named[blob].content_hash, named[blob].length)
    assert list((folder / "tmp").iterdir()) == []


def check(node: Node, people: list[Person], writers: list[Writer], follower: Follower) -> None:
    """Everything, on a homeserver that works again."""
    for writer in writers:
        writer.check()
    follower.follow(node)
    states = {f"{person.pubky}{path}" for person in people for path in live(writers, person)}
    assert follower.there == {path for path in states if "/pub/" in path}
    redis = redis_of(node)
    accounts = []
    for person in people:
        expected = live(writers, person)
        assert listed(node, person) == expected.keys()
        assert told(node, person) == expected
        accounts.append(stored(redis, person))
        check_account(accounts[-1], expected)
    assert int(redis.ask("HGET", schema.SHARD, "used")) == sum(int(one.facts["used"]) for one in accounts)
    for private in (False, True):
        name = schema.log_name(private)
        assert redis.ask("XLEN", schema.feed(private)) == sum(account.events[name] for account in accounts)
    check_blobs(node.data / "blobs", redis, accounts)


# --- the rounds ---------------------------------------------------------------------------------------------------


def kill_under_writes(node: Node, writers: list[Writer], chance: random.Random, victim: str, rewrites: bool) -> None:
    """Let them write for a while, then kill both processes in any order, or one of them; afterwards it runs again."""
    threads = [threading.Thread(target=writer.run, daemon=True) for writer in writers]
    for writer, thread in zip(writers, threads, strict=True):
        writer.over.clear()
        thread.start()
    try:
        processes, redis = node.processes(), node.redis()
        assert len(processes) == 2, "the homeserver and its Redis"
        threads[0].join(chance.uniform(0.05, LIFE))
        if rewrites:
            redis_of(node).ask("BGREWRITEAOF")
            threads[0].join(chance.uniform(0, 0.05))
        chance.shuffle(processes)
        for process in processes:
            if victim == EVERYTHING or (process == redis) is (victim == REDIS):
                os.kill(process, signal.SIGKILL)
        if victim == REDIS:
            go_on(node, writers)
    finally:
        for writer in writers:
            writer.over.set()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive(), node.written()
    if victim == EVERYTHING:
        node.kill()
    if victim != REDIS:
        assert node.process is not None
        node.process.wait(10)
        node.start()  # where Redis was left over, it is stopped first


def go_on(node: Node, writers: list[Writer]) -> None:
    """Wait until the homeserver has started another Redis by itself, and every writer writes on, still connected."""
    until(lambda: len(node.processes()) == 2 and is_ready(node), why=node.written)
    before = {writer.name: writer.writes for writer in writers}
    until(lambda: all(writer.writes > before[writer.name] for writer in writers), why=node.written)


def redis_of(node: Node) -> RedisServer:
    """The private Redis of a homeserver."""
    return RedisServer(Path(place_socket(node.data / "redis")).parent)


def is_ready(node: Node) -> bool:
    """Whether it says that it works."""
    return node.ask("GET", "/readyz", service="admin API")[0].status == 200


def test_killed_under_writes(tmp_path: Path) -> None:
    """Every acknowledged write is there after a kill, a write under way is there whole or not at all, and listing,
    events, used bytes, digests and bodies tell the same.
    """
    chance = random.Random(SEED)
    with node_in(tmp_path / "node") as node:
        node.start()
        people = [node.sign_up(), node.sign_up()]
        writers = [
            Writer(node, people[number % 2], f"writer-{number}", random.Random(chance.random()))
            for number in range(WRITERS)
        ]
        follower, tally = Follower(), Counter[str]()
        for number in range(ROUNDS):
            victim = VICTIMS[number % 3] if number < 3 else chance.choice(VICTIMS)
            rewrites = chance.random() < REWRITES
            tally.update([victim] + ["a log written anew"] * rewrites)
            print(f"KILL_SEED={SEED}, round {number}: {victim}; {dict(tally)}")  # noqa: T201 - shown when the test fails
            kill_under_writes(node, writers, chance, victim, rewrites)
            check(node, people, writers, follower)
        assert sum(writer.writes for writer in writers) > 10 * ROUNDS, "they did write"
        node.stop()
