"""The tutorial, every command as it is written: two homeservers as processes, a DHT, a burnt disk, and back."""

import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest_twisted
from attrs import define, field
from twisted.internet import reactor as _reactor
from twisted.internet.threads import deferToThread

from pkarr.builder import Builder
from pkarr.dht.node import Dht, Settings
from pkarr.keys import Keypair
from tests.network.test_mirrors import ALICE, BOB, dht, free_port
from tests.process import Node, node_in, until

reactor: Any = _reactor

TUTORIAL = Path(__file__).parents[2] / "docs" / "mirroring.md"
SCRIPTS = Path(sys.executable).parent
PATIENCE = 60.0  # seconds that something may take on a busy machine

_STEP = re.compile(r"^ *(alice|bob|you)\$ (.+)$|<!-- do: ([\w ]+) -->", re.MULTILINE)


OFFICIAL = "## Accounts at an official homeserver"
"""Where the tutorial begins to tell another story."""


def steps(page: Path = TUTORIAL, chapter: int = 0) -> Iterator[tuple[str, str]]:
    """Who does what, in the order of the text: `alice`, `bob` and `you` run a command, `do` is told in words."""
    for who, command, words in _STEP.findall(page.read_text().split(OFFICIAL)[chapter]):
        yield (who, command) if who else ("do", words)


def shell(home: Path, command: str, why: Callable[[], str]) -> str:
    """Run a command in somebody's home; what it printed."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=home,
        env={"PATH": f"{SCRIPTS}:/usr/bin:/bin", "HOME": str(home)},
        input="y\n",  # if it asks
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"{home.name}$ {command}\n{done.stdout}{done.stderr}{why()}"
    return done.stdout + done.stderr


@define
class Story:
    """Both homeservers, the network, and somebody with a wallet."""

    folder: Path
    alice: Node
    bob: Node
    network: Dht
    replaced: dict[str, str]
    """What stands in the text → what it is here."""
    said: list[tuple[str, str]] = field(factory=list)
    """Each command and its output."""

    @property
    def user(self) -> Keypair:
        """The user, who has a key since the first command that needs one."""
        return Keypair.from_file_text((self.folder / "you" / "you.key").read_text())

    @property
    def pubky(self) -> str:
        """The user's public key."""
        return self.user.public_key.z32

    async def run(self, who: str, command: str) -> str:
        """Run a command as somebody; what it printed."""
        here = command
        key = {"KEY_OF_YOU": self.pubky} if "KEY_OF_YOU" in command else {}
        for text, meant in (self.replaced | key).items():
            here = here.replace(text, meant)

        printed = await deferToThread(shell, self.folder / who, here, self.written)
        self.said.append((command, printed))
        return printed

    def written(self) -> str:
        """What both wrote."""
        return self.alice.written() + self.bob.written()

    async def do(self, words: str) -> None:
        """What the text says in words."""
        await getattr(self, f"do_{words.replace(' ', '_')}")()

    async def do_restart_both(self) -> None:
        """The peers are in the settings now."""
        for node in (self.alice, self.bob):
            await deferToThread(node.stop)
            await deferToThread(node.start)

    async def do_point_at_alice(self) -> None:
        """A wallet publishes."""
        await self.point(ALICE)

    async def do_point_at_bob(self) -> None:
        """A wallet publishes a newer one."""
        await self.point(BOB)

    async def point(self, homeserver: Keypair) -> None:
        """Publish a record that names a homeserver."""
        now = int(reactor.seconds() * 1_000_000)
        await self.network.publish(Builder().https("_pubky", 0, homeserver.public_key.z32).sign(self.user, now))

    async def do_wait_for_the_copy(self) -> None:
        """The first copy waits for the record to be found."""
        await self.until_read(self.bob, "/pub/notes/1.txt")

    async def do_back_up_alice(self) -> None:
        """A backup of a homeserver that rests."""
        await deferToThread(self.alice.stop)
        shutil.copytree(self.alice.data, self.folder / "backup")
        await deferToThread(self.alice.start)

    async def do_burn_alice(self) -> None:
        """Nothing is left of it; the mirror had a moment before."""
        await self.until_read(self.bob, "/pub/notes/2.txt")
        await deferToThread(self.alice.kill)
        shutil.rmtree(self.alice.data)

    async def do_restore_alice(self) -> None:
        """The backup, on a new disk."""
        shutil.copytree(self.folder / "backup", self.alice.data)
        await deferToThread(self.alice.start)

    async def do_wait_for_alice(self) -> None:
        """It follows its user to the new home."""
        await self.until_read(self.alice, "/pub/notes/3.txt")

    async def until_read(self, node: Node, path: str) -> None:
        """Wait until a homeserver has a file of the user's."""
        await self.until_read_of(node, self.pubky, path)

    async def until_read_of(self, node: Node, pubky: str, path: str) -> None:
        """Wait until it has a file of anybody's."""
        target = f"/storage/{pubky}{path}"
        await deferToThread(until, lambda: node.ask("GET", target)[0].status == 200, PATIENCE, self.written)


@asynccontextmanager
async def story(folder: Path) -> AsyncIterator[Story]:
    """Two homeservers that do not know each other yet, each where its commands look for it."""
    ports = {name: (free_port(), free_port(), free_port()) for name in ("alice", "bob")}
    for name, keypair in (("alice", ALICE), ("bob", BOB), ("you", None)):
        data = folder / name / ".pubky-homeserver"
        data.mkdir(parents=True)
        if keypair is not None:
            (data / "secret").write_text(keypair.to_file_text())
            (data / "homeserver.toml").symlink_to("../homeserver.toml")

    def at(name: str) -> dict[str, dict[str, object]]:
        client, admin, node = ports[name]
        return {
            "dht": {"port": node},
            "drive": {"icann_listen_socket": f"127.0.0.1:{client}", "pubky_listen_socket": "127.0.0.1:0"},
            "admin": {"listen_socket": f"127.0.0.1:{admin}", "admin_password": "open sesame"},
        }

    nodes = {name: f"127.0.0.1:{ports[name][2]}" for name in ports}
    with node_in(folder / "alice", dht(nodes["bob"]), at("alice")) as alice:
        alice.data = folder / "alice" / ".pubky-homeserver"
        await deferToThread(alice.start)
        with node_in(folder / "bob", dht(nodes["alice"]), at("bob")) as bob:
            bob.data = folder / "bob" / ".pubky-homeserver"
            await deferToThread(bob.start)
            known = tuple(("127.0.0.1", ports[name][2]) for name in ports)
            network = Dht(reactor, Settings(0, False, "127.0.0.1", None, known, False, is_private=True))
            network.startService()
            try:
                await network.when_joined()
                replaced = {
                    "KEY_OF_ALICE": ALICE.public_key.z32,
                    "KEY_OF_BOB": BOB.public_key.z32,
                    "BOOTSTRAP": nodes["bob"],
                    **{f"https://{name}.example": f"http://127.0.0.1:{ports[name][0]}" for name in ports},
                }
                yield Story(folder, alice, bob, network, replaced)
            finally:
                await network.stopService()


@pytest_twisted.ensureDeferred
async def test_the_tutorial(tmp_path: Path) -> None:
    """Each command works as written, and at the end the account lives at Bob's with all files, copied by Alice."""
    async with story(tmp_path) as told:
        for who, what in steps():
            if who == "do":
                await told.do(what)
            else:
                await told.run(who, what)
        read = [printed for command, printed in told.said if "curl -sS --fail https://" in command]
        assert read == ["first\n", "second\n", "third\n"]
        status = [printed for command, printed in told.said if command == "homeserver mirror status"]
        assert len(status) == 3
        assert "current" in status[0]
        assert "you would lose at most: nothing of the 1 account that lives here" in " ".join(status[1].split())
