"""Bob's homeserver is three processes on an outside Redis: two answer, one follows Alice's. It mirrors as one would."""

import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest_twisted
from attrs import define, field
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread, deferToThread

from pkarr.builder import Builder
from pkarr.dht.node import Dht, Settings
from pkarr.keys import Keypair
from tests.network.test_mirrors import ALICE, BOB, PATIENCE, address_of, dht, free_port, sign_up
from tests.network.test_outage import at, outside_redis
from tests.process import Node, Person, node_in, until

reactor: Any = _reactor

SOON = 5.0  # seconds: what one process tells the others takes a few milliseconds, on a busy machine more

_MIRROR = re.compile(r"seq=(\d+); confirmed=(\d+); state=(\w+)")


@define
class Houses:
    """Alice's homeserver, the processes of Bob's, and the network of records. For threads of their own."""

    alice: Node
    webs: tuple[Node, Node]
    background: Node
    network: Dht
    _signed: int = field(default=0, init=False)

    def new_user(self, home: Node, keypair: Keypair) -> tuple[Keypair, Person]:
        """Somebody who lives at a homeserver with this key."""
        user = Keypair.random()
        person = sign_up(home, user)
        self.publish(user, keypair)
        return user, person

    def publish(self, user: Keypair, home: Keypair) -> None:
        """The user signs a record that names a homeserver."""
        self._signed += 1
        packet = Builder().https("_pubky", 0, home.public_key.z32).sign(user, self._signed)
        publish: Callable[[], Any] = partial(Deferred.fromCoroutine, self.network.publish(packet))
        blockingCallFromThread(reactor, publish)

    def until(self, holds: Callable[[], Any], within: float = PATIENCE) -> Any:
        """Wait until something holds."""
        nodes = (self.alice, *self.webs, self.background)
        return until(holds, within, lambda: "\n".join(node.written()[-4000:] for node in nodes))

    def until_both(self, person: Person, path: str, wanted: bytes | int, within: float = PATIENCE) -> None:
        """Wait until both web processes answer so: with a body, or a status that is no success."""
        for web in self.webs:
            self.until(partial(_answers, web, person, path, wanted), within)

    def until_current(self, person: Person, seq: int) -> None:
        """Wait until both web processes say that their copy has this number, and that the primary confirmed it now."""
        for web in self.webs:
            now = int(time.time())
            self.until(partial(_is_current, web, person, seq, now))

    def operator(self, target: str, method: str = "GET") -> Any:
        """What Bob's admin port says."""
        password = {"X-Admin-Password": "open sesame"}
        answer, body = self.background.ask(method, target, None, password, "admin API")
        assert answer.status == 200, body
        return json.loads(body)


def read(node: Node, person: Person, path: str) -> bytes | int:
    """What is answered: the body, or a status that is no success."""
    answer, body = node.ask("GET", person.path(path))
    return body if answer.status == 200 else answer.status


def _answers(node: Node, person: Person, path: str, wanted: bytes | int) -> bool:
    return read(node, person, path) == wanted


def _is_no_copy(node: Node, person: Person, path: str) -> bool:
    answer, _ = node.ask("GET", person.path(path))
    return (answer.status, answer.getheader("Pubky-Role")) == (200, None)


def _is_current(web: Node, person: Person, seq: int, since: int) -> bool:
    answer, _ = web.ask("GET", person.path("/pub/"))
    found = _MIRROR.fullmatch(answer.getheader("Pubky-Mirror") or "")
    if found is None:
        return False
    assert answer.getheader("Pubky-Primary") == ALICE.public_key.z32
    return (int(found[1]), found[3]) == (seq, "current") and int(found[2]) >= since


@asynccontextmanager
async def houses(folder: Path) -> AsyncIterator[Houses]:
    """All processes run, and the operators trust each other."""
    for name, keypair in (("alice", ALICE), ("bob", BOB)):
        (folder / name / "data").mkdir(parents=True)
        (folder / name / "data" / "secret").write_text(keypair.to_file_text())
    port = free_port()
    friend = {"follow": "all", "offer": "all", "claim": "allow"}
    there = {"peers": {"bob": {"key": BOB.public_key.z32, "url": f"http://127.0.0.1:{port}", **friend}}}
    (folder / "redis").mkdir()
    with ExitStack() as stack:
        redis = stack.enter_context(outside_redis(folder / "redis"))
        alice = stack.enter_context(node_in(folder / "alice", dht(), there))
        await deferToThread(alice.start)
        url = f"http://127.0.0.1:{alice.ports['client API']}"
        ours = {"peers": {"alice": {"key": ALICE.public_key.z32, "url": url, **friend}}}
        shared = (dht(address_of(alice)), at(redis), ours)
        metrics = {"metrics": {"enabled": True, "listen_socket": "127.0.0.1:0"}}
        first = {"drive": {"icann_listen_socket": f"127.0.0.1:{port}", "pubky_listen_socket": "127.0.0.1:0"}}
        web, other, background = (
            stack.enter_context(node_in(folder / name, *shared, *more))
            for name, more in (("web", (first, metrics)), ("other", ()), ("background", (metrics,)))
        )
        for one, role in ((web, "web"), (other, "web"), (background, "background")):
            one.data = folder / "bob" / "data"
            await deferToThread(one.start, "--role", role)
        host, _, number = address_of(alice).partition(":")
        network = Dht(reactor, Settings(0, False, "127.0.0.1", None, ((host, int(number)),), False, is_private=True))
        network.startService()
        try:
            await network.when_joined()
            yield Houses(alice, (web, other), background, network)
            for one in (alice, web, other, background):
                await deferToThread(one.stop)
        finally:
            await network.stopService()


def in_a_thread(test: Callable[[Houses], None]) -> Callable[[Path], Any]:
    """A test of these homeservers, which may wait."""

    async def run(tmp_path: Path) -> None:
        async with houses(tmp_path) as all_of_them:
            await deferToThread(test, all_of_them)

    run.__doc__, run.__name__ = test.__doc__, test.__name__
    wrapped: Callable[[Path], Any] = pytest_twisted.ensureDeferred(run)
    return wrapped


@in_a_thread
def test_reading(here: Houses) -> None:
    """Both web processes show a copy with what is known of it, and learn within moments what has changed.

    When the process in the background is gone they go on to show what there is; once it is back it catches up.
    """
    _, person = here.new_user(here.alice, ALICE)
    large = bytes(range(256)) * 400
    assert here.alice.put(person, "/pub/small", b"one") == 201
    assert here.alice.put(person, "/pub/large", large) == 201
    here.until_both(person, "/pub/large", large)
    here.until_both(person, "/pub/small", b"one")
    here.until_current(person, 2)
    assert here.alice.put(person, "/pub/small", b"two") == 201
    here.until_both(person, "/pub/small", b"two", SOON)
    here.until_current(person, 3)
    for web in here.webs:
        answer, _ = web.ask("PUT", person.path("/pub/small"), b"x", person.headers)
        assert (answer.status, answer.getheader("Pubky-Primary")) == (421, ALICE.public_key.z32)
    assert [copy["state"] for copy in here.operator("/mirrors")["copies"]] == ["current"]
    numbers = [node.ask("GET", "/metrics", service="metrics")[1] for node in (here.webs[0], here.background)]
    assert [b"\nmirror_copies" in text for text in numbers] == [False, True], "each has those of its own"
    away = [re.search(rb"^mirror_turned_away_total\{.*\} (\d+)$", text, re.MULTILINE) for text in numbers]
    assert [None if found is None else found[1] for found in away] == [b"1", b"0"], "and what happened there"

    here.background.kill()
    assert here.alice.put(person, "/pub/late", b"late") == 201
    for web in here.webs:
        assert read(web, person, "/pub/small") == b"two"
    here.background.start("--role", "background")
    here.until_both(person, "/pub/late", b"late")
    here.until_current(person, 4)

    here.webs[1].kill()
    here.webs[1].start("--role", "web")
    here.until_current(person, 4)


@in_a_thread
def test_taking_down(here: Houses) -> None:
    """What is taken down where the account lives, or here, no web process shows a moment later."""
    _, person = here.new_user(here.alice, ALICE)
    assert here.alice.put(person, "/pub/file", b"one") == 201
    here.until_both(person, "/pub/file", b"one")
    password = {"X-Admin-Password": "open sesame"}
    target = f"/takedowns?pubky={person.pubky}"
    for home in (here.alice, here.background):
        assert home.ask("POST", target, None, password, "admin API")[0].status == 200
        here.until_both(person, "/pub/file", 451, SOON)
        assert home.ask("DELETE", target, None, password, "admin API")[0].status == 200
        here.until_both(person, "/pub/file", b"one", SOON)


@in_a_thread
def test_an_account_comes(here: Houses) -> None:
    """A user signs up at one web process and signs a record: writes go through the other one, and so back at Alice's.

    When they move back a record that one web process learns is obeyed by the other.
    """
    user, person = here.new_user(here.alice, ALICE)
    web, other = here.webs
    assert here.alice.put(person, "/pub/file", b"one") == 201
    here.until_both(person, "/pub/file", b"one")
    here.until(lambda: not here.operator("/mirrors")["copies"][0]["missing"])
    moved = sign_up(web, user)
    assert other.put(moved, "/pub/early", b"x") == 503, "nothing moves without the record"
    here.publish(user, BOB)
    here.until(lambda: other.put(moved, "/pub/file", b"two") == 201)
    here.until_both(moved, "/pub/file", b"two")
    for one in here.webs:
        here.until(partial(_is_no_copy, one, moved, "/pub/file"), SOON)
    answer, _ = here.alice.ask("PUT", person.path("/pub/file"), b"three", person.headers)
    assert (answer.status, answer.getheader("Pubky-Primary")) == (421, BOB.public_key.z32)
    here.until(lambda: read(here.alice, person, "/pub/file") == b"two")

    back = sign_up(here.alice, user)
    here.publish(user, ALICE)
    here.until(lambda: here.alice.put(back, "/pub/file", b"four") == 201)
    for one in here.webs:
        answer, _ = one.ask("PUT", moved.path("/pub/file"), b"five", moved.headers)
        assert (answer.status, answer.getheader("Pubky-Primary")) == (421, ALICE.public_key.z32), "it is shut"
    here.until_both(person, "/pub/file", b"four")
    moves = [move["what"] for move in here.operator("/mirrors")["moves"]]
    assert moves == ["opened", "fenced"]
