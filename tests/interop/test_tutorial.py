"""The official clients, and somebody who moves: nothing is told to them but the user's key and where records are found.

For the Rust client that is a node of the DHT, for the JavaScript client a relay. The homeservers are the tutorial's.
"""

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.threads import deferToThread

from pkarr.keys import Keypair
from pubky_homeserver.web.channel import HTTPFactory
from pubky_homeserver.web.pkarr_relay import PkarrRelay
from tests.interop.crate import Programs
from tests.interop.javascript import run
from tests.network.test_mirrors import ALICE, BOB
from tests.network.test_tutorial import Story, story

reactor: Any = _reactor

ADD = "homeserver peer add {other} KEY_OF_{name} --url https://{other}.example --follow all --offer all --claim allow"


async def act(told: Story, programs: Programs, *step: str) -> str:
    """A step of the user; what it printed."""
    bootstrap = told.replaced["BOOTSTRAP"]
    user = Keypair.from_file_text((told.folder / "you" / "you.key").read_text())
    command = [str(programs.mover), bootstrap, user.seed.hex(), *step]
    done = await deferToThread(subprocess.run, command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, f"{step}: {done.stdout}{done.stderr}{told.written()}"
    return done.stdout.strip()


async def make_friends(told: Story) -> None:
    """The operators list each other, and there is somebody with a key."""
    (told.folder / "you" / "you.key").write_text(Keypair.random().to_file_text())
    for who, other in (("alice", "bob"), ("bob", "alice")):
        await told.run(who, ADD.format(other=other, name=other.upper()))
    await told.do_restart_both()


@pytest_twisted.ensureDeferred
async def test_a_move_with_the_rust_client(programs: Programs, tmp_path: Path) -> None:
    """It signs up, writes, moves to the mirror when the machine burns, and reads and writes on there by its key."""
    async with story(tmp_path) as told:
        await make_friends(told)
        await act(told, programs, "signup", ALICE.public_key.z32)
        await act(told, programs, "put", "/pub/notes/1.txt", "first")
        await told.until_read(told.bob, "/pub/notes/1.txt")
        assert await act(told, programs, "read", "/pub/notes/1.txt") == "first"
        await deferToThread(told.alice.kill)
        await act(told, programs, "signup", BOB.public_key.z32)
        assert await act(told, programs, "read", "/pub/notes/1.txt") == "first"
        await act(told, programs, "put", "/pub/notes/2.txt", "second")
        assert await act(told, programs, "read", "/pub/notes/2.txt") == "second"
        await deferToThread(told.alice.start)
        await told.until_read(told.alice, "/pub/notes/2.txt")
        assert told.alice.ask("GET", f"/storage/{told.pubky}/pub/notes/2.txt")[0].getheader("Pubky-Role") == "mirror"


@asynccontextmanager
async def relay(told: Story) -> AsyncIterator[str]:
    """A relay in front of the DHT, as browsers need one: its address."""
    factory = HTTPFactory(PkarrRelay(reactor, told.network).answer, reactor)
    listening = reactor.listenTCP(0, factory, interface="127.0.0.1")
    try:
        yield f"http://127.0.0.1:{listening.getHost().port}"
    finally:
        await listening.stopListening()
        await factory.drain(0)


@pytest.mark.usefixtures("client")
@pytest_twisted.ensureDeferred
async def test_a_move_with_the_javascript_client(tmp_path: Path) -> None:
    """It reads through the copy while all is well; when the machine has burned, the public key alone leads there.

    Readers hold the public key and nothing else, and each of them is a new process.
    """
    async with story(tmp_path) as told, relay(told) as url:
        await make_friends(told)
        user = Keypair.from_file_text((tmp_path / "you" / "you.key").read_text())

        async def js(key: str, *step: str) -> str:
            return await deferToThread(run, "node", "mover.mjs", url, key, *step, seconds=60)

        me, secret, path = user.public_key.z32, user.seed.hex(), "/pub/notes/1.txt"
        await js(secret, "signup", ALICE.public_key.z32)
        await js(secret, "put", path, "first")
        assert await js(me, "read", path) == "first"
        await told.until_read(told.bob, path)
        assert await js(me, "through", ALICE.public_key.z32, path) == "null\nfirst"
        assert await js(me, "through", BOB.public_key.z32, path) == "mirror\nfirst"
        await deferToThread(told.alice.kill)
        assert await js(me, "through", BOB.public_key.z32, path) == "mirror\nfirst"
        await js(secret, "signup", BOB.public_key.z32)
        assert await js(me, "read", path) == "first"
        assert await js(me, "list", "/pub/notes/") == f"pubky://{me}{path}"
        await js(secret, "put", "/pub/notes/2.txt", "second")
        assert await js(me, "read", "/pub/notes/2.txt") == "second"
        await deferToThread(told.alice.start)
        await told.until_read(told.alice, "/pub/notes/2.txt")
        assert await js(me, "through", ALICE.public_key.z32, "/pub/notes/2.txt") == "mirror\nsecond"
