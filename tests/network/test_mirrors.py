"""Two homeservers as real processes: one keeps copies of the other's accounts, as their operators agreed."""

import json
import re
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from socket import socket
from typing import Any

import pytest_twisted
from attrs import define
from twisted.internet import reactor as _reactor
from twisted.internet.threads import deferToThread

from pkarr.builder import Builder
from pkarr.dht.node import Dht, Settings
from pkarr.keys import Keypair
from pubky_homeserver.core.tokens import sign_auth_token
from tests.process import Node, Person, node_in, until

reactor: Any = _reactor

ALICE, BOB = Keypair(b"\x0a" * 32), Keypair(b"\x0b" * 32)
PATIENCE = 60.0  # seconds; a copy needs less than one, a busy machine more


def dht(*bootstrap: str) -> Mapping[str, Mapping[str, object]]:
    """The settings of a node of a DHT on the loopback."""
    rates = {"rate_limit": 100_000, "total_rate_limit": 100_000}
    return {
        "dht": {"enabled": True, "private_network": True, "addresses": ["127.0.0.1"], "port": 0, **rates},
        "pkdns": {"dht_bootstrap_nodes": list(bootstrap)},
    }


def address_of(node: Node) -> str:
    """Where its node of the DHT is, which it says a moment after that it serves."""
    found = until(lambda: re.search(r"A node of the DHT at ([\d.:]+) \(UDP\)", node.log()), why=node.written)
    address: str = found[1]
    return address


@define
class Friends:
    """Alice's homeserver, Bob's, which follows it, and somebody who lives at Alice's."""

    alice: Node
    bob: Node
    user: Keypair
    person: Person
    network: Dht

    def status(self) -> dict[str, Any]:
        """What Bob's admin port says of copies."""
        password = {"X-Admin-Password": "open sesame"}
        told: dict[str, Any] = json.loads(self.bob.ask("GET", "/mirrors", None, password, "admin API")[1])
        return told

    async def until(self, holds: Callable[[], Any]) -> Any:
        """Wait until something holds."""
        return await deferToThread(until, holds, PATIENCE, lambda: self.alice.written() + self.bob.written())

    async def put(self, path: str, body: bytes) -> None:
        """The user writes at Alice's."""
        assert await deferToThread(self.alice.put, self.person, path, body) in (200, 201)

    async def delete(self, path: str) -> None:
        """The user deletes at Alice's."""

        def delete() -> int:
            return self.alice.ask("DELETE", self.person.path(path), None, self.person.headers)[0].status

        assert await deferToThread(delete) == 204

    async def at_bob(self, path: str) -> bytes | int:
        """What Bob's copy answers: the body, or a status that is no success."""

        def ask() -> bytes | int:
            answer, body = self.bob.ask("GET", self.person.path(path))
            return body if answer.status == 200 else answer.status

        return await deferToThread(ask)

    async def until_bob_has(self, path: str, wanted: bytes | int) -> None:
        """Wait until Bob's copy answers so."""

        def has() -> bool:
            answer, body = self.bob.ask("GET", self.person.path(path))
            return (body if answer.status == 200 else answer.status) == wanted

        await self.until(has)


@asynccontextmanager
async def friends(folder: Path, mutual: bool = False) -> AsyncIterator[Friends]:
    """Both homeservers run, and the user has a record that names Alice's. `mutual`: Alice follows Bob's, too."""
    for name, keypair in (("alice", ALICE), ("bob", BOB)):
        (folder / name / "data").mkdir(parents=True)
        (folder / name / "data" / "secret").write_text(keypair.to_file_text())
    fixed = free_port() if mutual else 0
    there = {"url": f"http://127.0.0.1:{fixed}", "follow": "all"} if mutual else {}
    at = {"drive": {"icann_listen_socket": f"127.0.0.1:{fixed}", "pubky_listen_socket": "127.0.0.1:0"}}
    offer = {"peers": {"bob": {"key": BOB.public_key.z32, "offer": "all", **there}}}
    with node_in(folder / "alice", dht(), offer) as alice:
        await deferToThread(alice.start)
        url = f"http://127.0.0.1:{alice.ports['client API']}"
        more = {"offer": "all", "claim": "allow"} if mutual else {}
        follow = {"peers": {"alice": {"key": ALICE.public_key.z32, "url": url, "follow": "all", **more}}}
        with node_in(folder / "bob", dht(address_of(alice)), follow, at) as bob:
            await deferToThread(bob.start)
            user = Keypair.random()
            person = await deferToThread(sign_up, alice, user)
            host, _, port = address_of(alice).partition(":")
            settings = Settings(0, False, "127.0.0.1", None, ((host, int(port)),), False, is_private=True)
            network = Dht(reactor, settings)
            network.startService()
            try:
                await network.when_joined()
                await network.publish(Builder().https("_pubky", 0, ALICE.public_key.z32).sign(user, 1))
                yield Friends(alice, bob, user, person, network)
            finally:
                await network.stopService()


def free_port() -> int:
    """A port that nobody listened at a moment ago."""
    with socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def sign_up(node: Node, user: Keypair) -> Person:
    """Make an account."""
    answer, body = node.ask("POST", "/signup", sign_auth_token(user, "/:rw", int(reactor.seconds() * 1_000_000)))
    assert answer.status == 200, body
    cookie = (answer.getheader("Set-Cookie") or "").partition(";")[0]
    return Person(user.public_key.z32, cookie)


@pytest_twisted.ensureDeferred
async def test_a_copy_follows(tmp_path: Path) -> None:
    """What is written at the primary is soon read at the copy, byte for byte; what is deleted is gone there too."""
    async with friends(tmp_path) as both:
        large = bytes(range(256)) * 4000
        await both.put("/pub/small", b"one")
        await both.put("/pub/large", large)
        await both.until_bob_has("/pub/small", b"one")
        await both.until_bob_has("/pub/large", large)
        await both.put("/pub/small", b"two")
        await both.put("/pub/folder/new", b"three")
        await both.until_bob_has("/pub/folder/new", b"three")
        assert await both.at_bob("/pub/small") == b"two"
        await both.delete("/pub/large")
        await both.until_bob_has("/pub/large", 404)
        answers = []
        for node in (both.alice, both.bob):
            answer, body = await deferToThread(node.ask, "GET", both.person.path("/pub/"))
            answers.append((answer.status, body))
        assert answers[0] == answers[1]
        for path in ("/pub/small", "/pub/folder/new"):
            heads = [
                (await deferToThread(node.ask, "GET", both.person.path(path)))[0] for node in (both.alice, both.bob)
            ]
            for name in ("ETag", "Last-Modified", "Content-Type"):
                assert heads[0].getheader(name) == heads[1].getheader(name)
            assert heads[1].getheader("Pubky-Primary") == ALICE.public_key.z32
            assert "state=current" in (heads[1].getheader("Pubky-Mirror") or "")


@pytest_twisted.ensureDeferred
async def test_private_files_stay_at_home(tmp_path: Path) -> None:
    """Without consent of both sides nothing private leaves, and nobody reads it at the copy."""
    async with friends(tmp_path) as both:
        await both.put("/priv/secret", b"a very private word")
        await both.put("/pub/after", b"x")
        await both.until_bob_has("/pub/after", b"x")
        assert await both.at_bob("/priv/secret") == 401
        await deferToThread(both.bob.stop)
        files = [file for file in both.bob.data.rglob("*") if file.is_file()]
        assert files
        assert not any(b"a very private word" in file.read_bytes() for file in files)


@pytest_twisted.ensureDeferred
async def test_writes_go_to_the_primary(tmp_path: Path) -> None:
    """The copy takes no write and says where the account lives."""
    async with friends(tmp_path) as both:
        await both.put("/pub/file", b"one")
        await both.until_bob_has("/pub/file", b"one")
        answer, body = await deferToThread(
            both.bob.ask, "PUT", both.person.path("/pub/file"), b"two", both.person.headers
        )
        assert answer.status == 421
        assert ALICE.public_key.z32 in body.decode()
        assert await both.at_bob("/pub/file") == b"one"


@pytest_twisted.ensureDeferred
async def test_a_primary_that_is_gone(tmp_path: Path) -> None:
    """When the primary's machine burns its public files are still read at the copy; it goes on when it is back."""
    async with friends(tmp_path) as both:
        await both.put("/pub/file", b"one")
        await both.until_bob_has("/pub/file", b"one")
        await both.until(lambda: both.status()["copies"] and both.status()["copies"][0]["state"] == "current")
        told = both.status()
        (peer,) = told["peers"]
        assert (peer["name"], peer["key"]) == ("alice", ALICE.public_key.z32)
        assert (peer["failure"], peer["trouble"]) == (None, None)
        (copy,) = told["copies"]
        assert (copy["pubky"], copy["missing"]) == (both.person.pubky, 0)
        await deferToThread(both.alice.kill)
        assert await both.at_bob("/pub/file") == b"one"
        settings = both.alice.settings.read_text()
        port = both.alice.ports["client API"]
        both.alice.settings.write_text(
            settings.replace('icann_listen_socket = "127.0.0.1:0"', f'icann_listen_socket = "127.0.0.1:{port}"')
        )
        await deferToThread(both.alice.start)
        await both.put("/pub/file", b"two")
        await both.until_bob_has("/pub/file", b"two")


@pytest_twisted.ensureDeferred
async def test_a_copy_that_was_killed(tmp_path: Path) -> None:
    """A follower that is killed in the middle goes on where it was; what it missed is caught up with."""
    async with friends(tmp_path) as both:
        for number in range(50):
            await both.put(f"/pub/{number}", b"%d" % number * 3000)
        await both.until_bob_has("/pub/0", b"0" * 3000)
        await deferToThread(both.bob.kill)
        await both.put("/pub/late", b"late")
        await both.delete("/pub/1")
        await deferToThread(both.bob.start)
        await both.until_bob_has("/pub/late", b"late")
        await both.until_bob_has("/pub/1", 404)
        for number in (0, 2, 25, 49):
            await both.until_bob_has(f"/pub/{number}", b"%d" % number * 3000)
        await deferToThread(both.bob.stop, signal.SIGTERM)


@pytest_twisted.ensureDeferred
async def test_a_user_moves(tmp_path: Path) -> None:
    """Sign-up and a new record are all it takes: all files are at Bob's then, and Alice's takes no more writes."""
    async with friends(tmp_path, mutual=True) as both:
        large = bytes(range(256)) * 4000
        await both.put("/pub/small", b"one")
        await both.put("/pub/large", large)
        await both.put("/priv/secret", b"a very private word")
        await both.until_bob_has("/pub/large", large)
        await both.until(lambda: both.status()["copies"][0]["missing"] == 0)
        moved = await deferToThread(sign_up, both.bob, both.user)
        assert await deferToThread(both.bob.put, moved, "/pub/early", b"x") == 503
        await both.network.publish(Builder().https("_pubky", 0, BOB.public_key.z32).sign(both.user, 2))

        def works() -> bool:
            return both.bob.put(moved, "/pub/small", b"two") in (200, 201)

        await both.until(works)
        answer, body = await deferToThread(
            both.alice.ask, "PUT", both.person.path("/pub/small"), b"three", both.person.headers
        )
        assert (answer.status, answer.getheader("Pubky-Primary")) == (421, BOB.public_key.z32), body
        assert await both.at_bob("/pub/large") == large
        answer, body = await deferToThread(both.bob.ask, "GET", moved.path("/priv/secret"), None, moved.headers)
        assert (answer.status, body) == (200, b"a very private word")

        def follows() -> bool:
            answer, body = both.alice.ask("GET", both.person.path("/pub/small"))
            return (answer.status, body) == (200, b"two")

        await both.until(follows)
        for node in (both.alice, both.bob):
            await deferToThread(node.kill)
        await deferToThread(both.bob.start)
        assert await deferToThread(both.bob.put, moved, "/pub/after", b"x") in (200, 201)


@pytest_twisted.ensureDeferred
async def test_a_move_that_is_killed(tmp_path: Path) -> None:
    """I24: the new homeserver is killed when the old one is shut already; started again it opens the account, whole."""
    async with friends(tmp_path, mutual=True) as both:
        for number in range(30):
            await both.put(f"/pub/{number}", b"%d" % number * 3000)
            await both.put(f"/priv/{number}", b"%d" % number * 3000)
        await both.until_bob_has("/pub/29", b"29" * 3000)
        moved = await deferToThread(sign_up, both.bob, both.user)
        await both.network.publish(Builder().https("_pubky", 0, BOB.public_key.z32).sign(both.user, 2))

        def is_shut() -> bool:
            status = both.alice.ask("PUT", both.person.path("/pub/more"), b"x", both.person.headers)[0].status
            return status in (401, 421)

        await both.until(is_shut)
        await deferToThread(both.bob.kill)
        await deferToThread(both.bob.start)
        await both.until(lambda: both.bob.put(moved, "/pub/after", b"x") in (200, 201))

        def is_whole() -> bool:
            for number in range(30):
                for folder, headers in (("/pub", {}), ("/priv", moved.headers)):
                    answer, body = both.bob.ask("GET", moved.path(f"{folder}/{number}"), None, headers)
                    if (answer.status, body) != (200, b"%d" % number * 3000):
                        return False
            return True

        await both.until(is_whole)


@pytest_twisted.ensureDeferred
async def test_a_peer_that_was_removed(tmp_path: Path) -> None:
    """Without peers in the settings an account that left is still elsewhere, and its user comes back by a record."""
    async with friends(tmp_path, mutual=True) as both:
        await both.put("/pub/small", b"one")
        await both.until_bob_has("/pub/small", b"one")
        await deferToThread(sign_up, both.bob, both.user)
        await both.network.publish(Builder().https("_pubky", 0, BOB.public_key.z32).sign(both.user, 2))

        def write(person: Person) -> tuple[int, str | None]:
            answer, _ = both.alice.ask("PUT", both.person.path("/pub/more"), b"two", person.headers)
            return answer.status, answer.getheader("Pubky-Primary")

        await both.until(lambda: write(both.person) == (421, BOB.public_key.z32))
        for node in (both.bob, both.alice):
            await deferToThread(node.stop)
        lines = both.alice.settings.read_text().splitlines(keepends=True)
        both.alice.settings.write_text("".join(line for line in lines if not line.startswith("bob = ")))
        await deferToThread(both.alice.start)
        assert (await deferToThread(write, both.person)) == (421, BOB.public_key.z32)
        answer, body = await deferToThread(both.alice.ask, "GET", both.person.path("/pub/small"))
        assert (answer.status, body, answer.getheader("Pubky-Role")) == (200, b"one", "mirror")
        assert (await deferToThread(both.alice.ask, "GET", "/peer/v1/hello"))[0].status in (400, 404)
        host, _, at = address_of(both.alice).partition(":")
        settled = Dht(reactor, Settings(0, False, "127.0.0.1", None, ((host, int(at)),), False, is_private=True))
        settled.startService()
        try:
            await settled.when_joined()
            await settled.publish(Builder().https("_pubky", 0, ALICE.public_key.z32).sign(both.user, 3))
            back = await deferToThread(sign_up, both.alice, both.user)
            await both.until(lambda: write(back)[0] in (200, 201))
        finally:
            await settled.stopService()


def test_settings_without_peers_change_nothing(tmp_path: Path) -> None:
    """Without peers there is no peer protocol, and an unknown account is 404."""
    with node_in(tmp_path) as node:
        node.start()
        assert node.ask("GET", "/peer/v1/hello")[0].status in (400, 404)
        answer, _ = node.ask("GET", f"/storage/{Keypair.random().public_key.z32}/pub/x")
        assert (answer.status, answer.getheader("Pubky-Role")) == (404, None)
        assert json.loads(node.ask("GET", "/info")[1])["features"]
        node.stop()


def test_nobody_is_his_own_peer(tmp_path: Path) -> None:
    """A homeserver that is to follow itself does not start."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "secret").write_text(ALICE.to_file_text())
    with node_in(tmp_path, {"peers": {"me": {"key": ALICE.public_key.z32, "follow": "all"}}}) as node:
        assert node.fails().startswith("peers.me.key is this homeserver's own key")
