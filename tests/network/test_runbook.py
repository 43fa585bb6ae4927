"""The runbook for an outage, every command as it is written: a host that is down, its mirror, and how it comes back."""

import json
import shutil
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest_twisted
from attrs import define, field
from twisted.internet.threads import deferToThread
from twisted.protocols.portforward import ProxyFactory, ProxyServer

from pkarr.builder import Builder
from pkarr.keys import Keypair
from tests.network.test_mirrors import ALICE, BOB, sign_up
from tests.network.test_tutorial import PATIENCE, Story, reactor, steps, story
from tests.process import Node, Person, until

RUNBOOK = Path(__file__).parents[2] / "docs" / "outage.md"
ADD = "homeserver peer add {other} KEY_OF_{name} --url {url} --follow all --offer all --claim allow"

UNLUCKY = b"/entries?after=%2Fpub%2Funlucky"
"""What asks for the second page of a certain list."""

LOST = 20
"""Files that a backup lacks: so many that their removal stops a comparison."""


class Gate(ProxyFactory):
    """The way to a homeserver. The end of a certain list never arrives, and nothing does when it is shut."""

    def __init__(self, port: int) -> None:
        super().__init__("127.0.0.1", port)
        self.protocol = GateServer
        self.listening = reactor.listenTCP(0, self, interface="127.0.0.1")
        self.is_shut = False
        self.cut = 0
        """How often that was asked for."""
        self.open: set[GateServer] = set()

    def shut(self) -> None:
        """Nobody comes through from now on."""
        self.is_shut = True
        for one in [*self.open]:
            one.transport.abortConnection()


class GateServer(ProxyServer):
    """A connection of who asks."""

    factory: Gate
    transport: Any

    def connectionMade(self) -> None:
        """See `Protocol`."""
        super().connectionMade()
        self.factory.open.add(self)
        if self.factory.is_shut:
            self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        """See `Protocol`."""
        if UNLUCKY in data:
            self.factory.cut += 1
            self.transport.abortConnection()
        else:
            super().dataReceived(data)

    def connectionLost(self, reason: Any = None) -> None:
        """See `Protocol`."""
        self.factory.open.discard(self)
        super().connectionLost(reason)


@define
class Outage:
    """What the text says in words. Three people live at Alice's: one moves, one waits, one has bad luck."""

    told: Story
    gate: Gate
    you: Keypair = field(factory=Keypair.random)
    patient: Keypair = field(factory=Keypair.random)
    unlucky: Keypair = field(factory=Keypair.random)
    backup: Path = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.backup = self.told.folder / "backup"

    def speak_of(self, user: Keypair) -> None:
        """Whom the next commands are about."""
        self.told.replaced["PUBKY"] = user.public_key.z32

    async def until(self, holds: Any) -> Any:
        """Wait until something holds."""
        return await deferToThread(until, holds, PATIENCE, self.told.written)

    async def come_to_alice(self, user: Keypair, files: dict[str, bytes]) -> Person:
        """Somebody new, with files."""
        person = await deferToThread(sign_up, self.told.alice, user)
        await deferToThread(write, self.told.alice, person, files)
        await self.point(user, ALICE)
        return person

    async def point(self, user: Keypair, homeserver: Keypair) -> None:
        """Somebody's newest record names a homeserver."""
        now = int(reactor.seconds() * 1_000_000)
        await self.told.network.publish(Builder().https("_pubky", 0, homeserver.public_key.z32).sign(user, now))

    async def do_go_down(self) -> None:
        """All is well, and a backup is made; then there are writes that Bob has, and one that he has not."""
        told, through = self.told, f"http://127.0.0.1:{self.gate.listening.getHost().port}"
        await told.run("alice", ADD.format(other="bob", name="BOB", url="https://bob.example"))
        await told.run("bob", ADD.format(other="alice", name="ALICE", url=through))
        await told.do_restart_both()
        you = await self.come_to_alice(self.you, {"/pub/notes/1.txt": b"first"})
        patient = await self.come_to_alice(self.patient, {f"/pub/{number}": b"old" for number in range(10)})
        await told.until_read_of(told.bob, patient.pubky, "/pub/9")
        await told.until_read_of(told.bob, you.pubky, "/pub/notes/1.txt")
        await deferToThread(told.alice.stop)
        shutil.copytree(told.alice.data, self.backup)
        await deferToThread(told.alice.start)
        await deferToThread(write, told.alice, patient, {f"/pub/new/{number}": b"new" for number in range(LOST)})
        await told.until_read_of(told.bob, patient.pubky, f"/pub/new/{LOST - 1}")
        await self.come_to_alice(self.unlucky, {f"/pub/unlucky/{number}": b"x" for number in range(3)})
        await self.until(lambda: self.gate.cut)
        self.gate.shut()
        await deferToThread(write, told.alice, you, {"/pub/notes/late.txt": b"too late"})
        await deferToThread(told.alice.kill)
        self.speak_of(self.you)

    async def do_move(self) -> None:
        """A wallet signs up at the mirror and publishes; it writes there at once."""
        here = await deferToThread(sign_up, self.told.bob, self.you)
        await self.point(self.you, BOB)
        await self.until(lambda: self.told.bob.put(here, "/pub/notes/2.txt", b"second") == 201)

    async def do_move_an_account_whose_list_is_not_whole(self) -> None:
        """Its user can do no more, and reads nothing."""
        here = await deferToThread(sign_up, self.told.bob, self.unlucky)
        await self.point(self.unlucky, BOB)
        assert (await deferToThread(self.told.bob.ask, "GET", here.path("/pub/unlucky/0")))[0].status == 503
        self.speak_of(self.unlucky)

    async def do_come_back(self) -> None:
        """The machine as it was."""
        self.gate.is_shut = False
        await deferToThread(self.told.alice.start)
        await self.told.until_read_of(self.told.alice, self.you.public_key.z32, "/pub/notes/2.txt")
        await self.told.until_read_of(self.told.bob, self.unlucky.public_key.z32, "/pub/unlucky/2")
        self.speak_of(self.patient)

    async def do_wait_for_bobs_shelf(self) -> None:
        """What he never got."""
        await self.until(lambda: self.shelved(self.told.bob, self.you) == {"/pub/notes/late.txt"})

    async def do_restore_a_backup(self) -> None:
        """Alice is as she was before; Bob offers what she lost, and removes nothing."""
        await deferToThread(self.told.alice.stop)
        shutil.rmtree(self.told.alice.data)
        shutil.copytree(self.backup, self.told.alice.data, symlinks=True)
        await deferToThread(self.told.alice.start)
        await self.until(lambda: len(self.shelved(self.told.alice, self.patient)) == LOST)
        await self.until(lambda: [one for one in self.copies() if one["braked"]])

    def shelved(self, node: Node, user: Keypair) -> set[str]:
        """The paths of what lies on a shelf."""
        return {one["path"] for one in admin(node, f"/conflicts?pubky={user.public_key.z32}")["items"]}

    def copies(self) -> list[dict[str, Any]]:
        """Those that Bob has."""
        copies: list[dict[str, Any]] = admin(self.told.bob, "/mirrors")["copies"]
        return copies


def admin(node: Node, target: str) -> Any:
    """What the admin port says."""
    answer, body = node.ask("GET", target, None, {"X-Admin-Password": "open sesame"}, "admin API")
    assert answer.status == 200, body
    return json.loads(body)


def write(node: Node, person: Person, files: dict[str, bytes]) -> None:
    """Somebody writes files, over one connection."""
    connection = HTTPConnection("127.0.0.1", node.ports["client API"], timeout=PATIENCE)
    for path, body in files.items():
        connection.request("PUT", person.path(path), body, person.headers)
        answer = connection.getresponse()
        assert answer.status == 201, answer.read()
        answer.read()
    connection.close()


@pytest_twisted.ensureDeferred
async def test_the_runbook(tmp_path: Path) -> None:
    """Each command works as written, and says what the text says; at the end nobody lacks what was acknowledged."""
    async with story(tmp_path) as told:
        gate = Gate(told.alice.ports["client API"])
        outage = Outage(told, gate)
        try:
            for who, what in steps(RUNBOOK):
                if who == "do":
                    await getattr(outage, f"do_{what.replace(' ', '_')}")()
                else:
                    await told.run(who, what)
            check(told, outage)
            await outage.until(lambda: not outage.copies())
        finally:
            await gate.listening.stopListening()


def check(told: Story, outage: Outage) -> None:
    """What the commands said, and what became of it."""
    said: dict[str, list[str]] = {}
    for command, printed in told.said:
        said.setdefault(command.removeprefix("homeserver "), []).append(" ".join(printed.split()))
    assert said["curl -sS --fail -D head.txt https://bob.example/storage/PUBKY/pub/notes/1.txt"] == ["first"]
    assert "Pubky-Role: mirror" in (told.folder / "you" / "head.txt").read_text()
    down, returned, braked, erased = said["mirror status"]
    assert "bootstrapping" in down
    assert f"{outage.you.public_key.z32} {BOB.public_key.z32[:8]}… current" in returned
    assert f"waits for you: {LOST} files would go" in braked
    assert f"{outage.patient.public_key.z32} bob yes" in erased
    (ready,) = said["mirror promote-check"]
    assert f"{outage.patient.public_key.z32} yes" in ready
    assert f"{outage.unlucky.public_key.z32} no its list of files is not whole" in ready
    assert said["mirror open PUBKY --incomplete"] == [f"{outage.unlucky.public_key.z32} lives here now."]
    bobs, none, lost = said["conflicts list"]
    assert "late PUT /pub/notes/late.txt" in bobs
    assert none == "Nothing lies on the conflict shelf."
    assert lost.count("late PUT /pub/new/") == LOST
    assert said["conflicts apply PUBKY --untouched"] == [f"{LOST} applied, 0 left."]
    assert said["mirror repair PUBKY"] == [f"The comparison goes on, and removes up to {LOST} files."]
    for node, user, path, body in (
        (told.alice, outage.patient, "/pub/new/7", b"new"),
        (told.alice, outage.patient, "/pub/7", b"old"),
        (told.bob, outage.unlucky, "/pub/unlucky/2", b"x"),
        (told.bob, outage.you, "/pub/notes/1.txt", b"first"),
        (told.bob, outage.you, "/pub/notes/2.txt", b"second"),
    ):
        assert node.get(Person(user.public_key.z32, ""), path) == body
