"""An account at the official homeserver 0.17.1, copied by ours over all that befalls it, until it moves and returns."""

import json
import time
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote

import pytest_twisted
from attrs import define, field
from blake3 import blake3
from twisted.internet import reactor as _reactor
from twisted.internet.threads import deferToThread

from pkarr.builder import Builder
from pkarr.dht.node import Dht, Settings
from pkarr.keys import Keypair
from pubky_homeserver.core.tokens import sign_auth_token
from tests.interop.official import OfficialServer, Straw, official_server
from tests.network.test_mirrors import BOB, address_of, dht, free_port
from tests.network.test_tutorial import TUTORIAL, shell, steps
from tests.process import Node, Person, node_in, until

reactor: Any = _reactor

PATIENCE = 60.0  # seconds
WRITERS = 8
HELD_BACK = 2500
"""Events of 1 kB: some hundred are on their way to who reads nothing, and the official homeserver keeps 1,000 more."""


@define
class World:
    """The official homeserver with a user, and ours, which follows it through a straw."""

    official: OfficialServer
    straw: Straw
    bob: Node
    user: Keypair
    person: Person
    network: Dht
    term: int = field(factory=lambda: time.time_ns() // 1000)

    async def until(self, holds: Callable[[], Any], within: float = PATIENCE) -> Any:
        """Wait until something holds."""
        return await deferToThread(
            until, holds, within, lambda: json.dumps(self.status(), indent=1) + self.bob.written()
        )

    async def name(self, home: str) -> None:
        """The user's newest record names a homeserver."""
        self.term += 1
        await self.network.publish(Builder().https("_pubky", 0, home).sign(self.user, self.term))

    async def put(self, path: str, body: bytes) -> None:
        """The user writes at the official homeserver."""
        await deferToThread(self.official.put, self.person, path, body)

    async def put_many(self, writes: list[tuple[str, bytes]]) -> None:
        """The user writes much."""

        def put() -> None:
            parts = [writes[number::WRITERS] for number in range(WRITERS)]
            threads = [Thread(target=self.official.put_all, args=(self.person, part)) for part in parts]
            for one in threads:
                one.start()
            for one in threads:
                one.join()

        await deferToThread(put)

    def status(self) -> dict[str, Any]:
        """What the operator of ours sees."""
        told: dict[str, Any] = json.loads(self._admin("/mirrors"))
        return told

    def copy(self) -> dict[str, Any]:
        """The copy, as the operator sees it."""
        return next(iter(self.status()["copies"]), {})

    def shelf(self) -> list[dict[str, Any]]:
        """What lies on our shelf."""
        told: dict[str, Any] = json.loads(self._admin(f"/conflicts?pubky={self.person.pubky}"))
        items: list[dict[str, Any]] = told["items"]
        return items

    def shelved(self, one: str) -> bytes:
        """The body of what lies there."""
        return self._admin(f"/conflicts/body?pubky={self.person.pubky}&id={one}")

    def _admin(self, target: str) -> bytes:
        password = {"X-Admin-Password": "open sesame"}
        return self.bob.ask("GET", target, None, password, "admin API")[1]

    def there(self) -> dict[str, bytes]:
        """Where each public file is, and its hash, as the official homeserver says."""
        return _hashes(self.official.ask, self.person)

    def here(self) -> dict[str, bytes]:
        """The same of ours, re-hashed."""

        def ask(method: str, target: str) -> tuple[int, dict[str, str], bytes]:
            answer, body = self.bob.ask(method, target)
            return answer.status, dict(answer.getheaders()), body

        return _hashes(ask, self.person)

    async def until_equal(self, within: float = PATIENCE) -> None:
        """I1: the copy has every file, body for body, with all that its head says."""
        await self.until(lambda: not self.copy().get("missing", 1) and self.here() == self.there(), within)
        await self.until(lambda: self.copy()["state"] == "current")


def _hashes(ask: Callable[[str, str], Any], person: Person) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    cursor = ""
    while True:
        status, _, body = ask("GET", person.path(f"/pub/?limit=1000&cursor={quote(cursor)}"))
        if status != 200 or not body:
            return found
        for line in body.decode().split("\n"):
            path = line.removeprefix(f"pubky://{person.pubky}")
            if len(found) > 300:
                found[path] = b""  # names alone: a test with thousands reads some
                continue
            _, fields, content = ask("GET", quote(person.path(path)))
            kept = {name.lower(): value for name, value in fields.items()}
            told = "|".join(kept.get(name, "") for name in ("etag", "last-modified", "content-type"))
            found[path] = blake3(content).digest() + told.encode()
        cursor = line.removeprefix("pubky://")


@asynccontextmanager
async def world(folder: Path, limits: str = "rate_limits = []") -> AsyncIterator[World]:
    """Both run; the user lives at the official homeserver, and has a record that says so."""
    (folder / "bob" / "data").mkdir(parents=True)
    (folder / "bob" / "data" / "secret").write_text(BOB.to_file_text())
    user = Keypair.random()
    with official_server(folder) as official:
        await deferToThread(official.start, limits)
        person = await deferToThread(official.sign_up, user)
        straw = Straw(reactor, official.port)
        port = reactor.listenTCP(0, straw, interface="127.0.0.1")
        peer = {"key": official.key, "url": f"http://127.0.0.1:{port.getHost().port}", "official": True}
        follow = {"peers": {"there": {**peer, "follow": [user.public_key.z32], "claim": "allow"}}}
        with node_in(folder / "bob", dht(), follow) as bob:
            await deferToThread(bob.start)
            host, _, number = address_of(bob).partition(":")
            settings = Settings(0, False, "127.0.0.1", None, ((host, int(number)),), False, is_private=True)
            network = Dht(reactor, settings)
            network.startService()
            try:
                await network.when_joined()
                made = World(official, straw, bob, user, person, network)
                await made.name(official.key)
                yield made
            finally:
                await network.stopService()
                await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_the_tutorial_says_how(tmp_path: Path) -> None:
    """Its chapter, every command as it is written: the peer stands in the settings as shown, and is followed."""
    home = tmp_path / "bob"
    (home / ".pubky-homeserver").mkdir(parents=True)
    (home / ".pubky-homeserver" / "homeserver.toml").symlink_to("../homeserver.toml")
    admin = {"admin": {"listen_socket": f"127.0.0.1:{free_port()}", "admin_password": "open sesame"}}
    with official_server(tmp_path) as official, node_in(home, dht(), admin) as bob:
        bob.data = home / ".pubky-homeserver"
        await deferToThread(official.start)
        person = await deferToThread(official.sign_up, Keypair.random())
        await deferToThread(bob.start)
        said = []
        for who, what in steps(chapter=1):
            if who == "do":
                await deferToThread(bob.stop)
                await deferToThread(bob.start)
                continue
            here = what.replace("KEY_OF_THERE", official.key).replace("KEY_OF_YOU", person.pubky)
            here = here.replace("https://homeserver.example", official.url)
            said.append(await deferToThread(shell, home, here, bob.written))
        assert "It answers, and knows 1 of the 1 accounts" in said[-1]
        shown = TUTORIAL.read_text().split("```toml\n")[1].split("```")[0]
        shown = shown.replace("<its public key>", official.key).replace("<the public key of an account>", person.pubky)
        shown = shown.replace("https://homeserver.example", official.url)
        assert tomllib.loads(bob.settings.read_text())["peers"] == tomllib.loads(shown)["peers"]


@pytest_twisted.ensureDeferred
async def test_a_copy_of_an_account_there(tmp_path: Path) -> None:
    """Files of all kinds, overwritten and deleted, are soon here with the same heads; restarts end nothing."""
    async with world(tmp_path) as both:
        large = bytes(range(256)) * 20_000
        for path, body in (("/pub/a.txt", b"one"), ("/pub/ä b%/c.png", b"\x89PNG\r\n\x1a\n"), ("/pub/large", large)):
            await both.put(path, body)
        await both.until_equal()
        assert both.status()["peers"][0]["failure"] is None
        await both.put("/pub/a.txt", b"two")
        await both.put("/pub/empty", b"")
        await deferToThread(both.official.delete, both.person, "/pub/large")
        await both.until_equal()
        for number in range(40):
            await both.put("/pub/often", b"%d" % number * 100)
        await both.until_equal()
        answer, _ = both.bob.ask("GET", both.person.path("/pub/a.txt"))
        assert answer.getheader("Pubky-Primary") == both.official.key
        assert "state=current" in (answer.getheader("Pubky-Mirror") or "")
        await deferToThread(both.bob.stop)
        await both.put("/pub/while/bob/slept", b"x")
        await deferToThread(both.bob.start)
        await both.until_equal()
        await both.until(lambda: both.straw.streams)
        await deferToThread(both.official.stop)
        await both.until(lambda: not both.straw.streams)
        assert both.bob.ask("GET", both.person.path("/pub/a.txt"))[1] == b"two"
        await deferToThread(both.official.start)
        await both.put("/pub/after/restart", b"y")
        await both.until_equal()
        await both.until(lambda: both.straw.streams)
        assert both.bob.ask("GET", both.person.path("/priv/x"))[0].status == 401
        await deferToThread(both.bob.stop)


@pytest_twisted.ensureDeferred
async def test_a_stream_that_lags_is_cut(tmp_path: Path) -> None:
    """I1: the official homeserver ends the stream of who reads slowly; nothing that it did not tell is missing."""
    async with world(tmp_path) as both:
        await both.put("/pub/first", b"x")
        await both.until_equal()
        await both.until(lambda: both.straw.streams)
        both.straw.hold(True)
        name = "/".join(["n" * 200] * 4)
        await both.put_many([(f"/pub/{name}/{number % 50:05}", b"%d" % number) for number in range(HELD_BACK)])
        both.straw.hold(False)
        await both.until(both.official.has_cut, 20)
        await both.until_equal()
        assert both.status()["peers"][0]["failure"] is None


@pytest_twisted.ensureDeferred
async def test_requests_are_limited(tmp_path: Path) -> None:
    """I1: 429 with Retry-After: a first copy of many files takes its time, and is whole in the end."""
    limits = 'rate_limits = [{ path = "/pub/**", method = "HEAD", quota = "2r/s", key = "ip", burst = 2 },\n'
    limits += '{ path = "/events-stream", method = "GET", quota = "2r/s", key = "ip", burst = 2 }]'
    async with world(tmp_path, limits) as both:
        await deferToThread(both.official.put_all, both.person, [(f"/pub/{n}", b"%d" % n) for n in range(60)])
        await both.until_equal()
        assert len(both.straw.limited) > 3
        assert all(b"\r\nretry-after: " in one for one in both.straw.limited)
        assert both.status()["peers"][0]["traffic"]["failures"] >= len(both.straw.limited)
        for number in range(20):
            await both.put("/pub/more", b"%d" % number)
        await both.until_equal()


@pytest_twisted.ensureDeferred
async def test_an_older_database(tmp_path: Path) -> None:
    """I20: put back to a backup, it is silent about our cursor: lists are compared, and what goes is shelved."""
    async with world(tmp_path) as both:
        for number in range(20):
            await both.put(f"/pub/{number}", b"%d" % number)
        await both.until_equal()
        await deferToThread(both.official.stop)
        await deferToThread(both.official.keep)
        await deferToThread(both.official.start)
        await both.put("/pub/lost", b"lost")
        await both.put("/pub/3", b"changed")
        await both.until_equal()
        before = await deferToThread(both.official.newest, both.person)
        await deferToThread(both.official.stop)
        await deferToThread(both.official.restore)
        await deferToThread(both.official.start)
        assert await deferToThread(both.official.newest, both.person) < before
        assert (await deferToThread(both.official.ask, "GET", both.person.path("/pub/lost")))[0] == 404
        await both.until_equal()
        assert both.bob.ask("GET", both.person.path("/pub/3"))[1] == b"3"
        assert {one["path"] for one in both.shelf()} == {"/pub/lost", "/pub/3"}
        await both.put("/pub/new", b"new")
        await both.put("/pub/newer", b"newer")
        await both.until_equal()


@pytest_twisted.ensureDeferred
async def test_a_user_comes_and_goes(tmp_path: Path) -> None:
    """They sign up here, name us, and have all their files; what an old client still writes there is on the shelf.

    And away again: their record names the official homeserver, ours takes no more writes, and copies it as before.
    """
    async with world(tmp_path) as both:
        for number in range(20):
            await both.put(f"/pub/{number}", b"%d" % number)
        await both.put("/pub/large", bytes(range(256)) * 1000)
        await both.until_equal()
        await both.put("/pub/last", b"written just before")
        token = sign_auth_token(both.user, "/:rw", time.time_ns() // 1000)
        answer, said = both.bob.ask("POST", "/signup", token)
        assert answer.status == 200, said
        here = Person(both.person.pubky, (answer.getheader("set-cookie") or "").partition(";")[0])
        await both.name(BOB.public_key.z32)
        await both.until(lambda: not both.copy())
        assert both.bob.ask("GET", here.path("/pub/last"))[1] == b"written just before"
        assert both.here().keys() == both.there().keys()
        assert both.bob.ask("PUT", here.path("/pub/3"), b"written here", here.headers)[0].status == 201
        assert both.bob.ask("PUT", here.path("/pub/only/here"), b"never there", here.headers)[0].status == 201

        await both.put("/pub/3", b"written there")
        await both.put("/pub/too/late", b"too late")
        await deferToThread(both.official.delete, both.person, "/pub/4")
        await both.until(lambda: len(both.shelf()) == 3, 45)
        assert {(one["path"], one["reason"]) for one in both.shelf()} == {
            ("/pub/3", "late"),
            ("/pub/too/late", "late"),
            ("/pub/4", "late"),
        }
        assert both.bob.ask("GET", here.path("/pub/3"))[1] == b"written here", "nothing is applied by itself"
        assert both.bob.ask("GET", here.path("/pub/4"))[1] == b"4"

        await both.name(both.official.key)
        await both.until(lambda: both.bob.ask("PUT", here.path("/pub/5"), b"x", here.headers)[0].status in (401, 421))
        await both.until_equal()
        assert both.bob.ask("GET", here.path("/pub/3"))[1] == b"written there"
        assert both.bob.ask("GET", here.path("/pub/only/here"))[0].status == 404, "it did not fetch what was here"
        shelved = {(one["path"], both.shelved(one["id"])) for one in both.shelf() if one["operation"] == "PUT"}
        assert {("/pub/3", b"written here"), ("/pub/only/here", b"never there")} <= shelved
        both.person = await deferToThread(both.official.sign_in, both.user)
        await both.put("/pub/home/again", b"x")
        await both.until_equal()
