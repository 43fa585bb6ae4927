"""The official Rust client, and somebody who moves: nothing is told to it but the user's key and a node of the DHT."""

import subprocess
from pathlib import Path

import pytest_twisted
from twisted.internet.threads import deferToThread

from pkarr.keys import Keypair
from tests.interop.crate import Programs
from tests.network.test_mirrors import ALICE, BOB
from tests.network.test_tutorial import Story, story

ADD = "homeserver peer add {other} KEY_OF_{name} --url https://{other}.example --follow all --offer all --claim allow"


async def act(told: Story, programs: Programs, *step: str) -> str:
    """A step of the user; what it printed."""
    bootstrap = told.replaced["BOOTSTRAP"]
    user = Keypair.from_file_text((told.folder / "you" / "you.key").read_text())
    command = [str(programs.mover), bootstrap, user.seed.hex(), *step]
    done = await deferToThread(subprocess.run, command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, f"{step}: {done.stdout}{done.stderr}{told.written()}"
    return done.stdout.strip()


@pytest_twisted.ensureDeferred
async def test_a_move_with_the_official_client(programs: Programs, tmp_path: Path) -> None:
    """It signs up, writes, moves to the mirror when the machine burns, and reads and writes on there by its key."""
    async with story(tmp_path) as told:
        (tmp_path / "you" / "you.key").write_text(Keypair.random().to_file_text())
        for who, other in (("alice", "bob"), ("bob", "alice")):
            await told.run(who, ADD.format(other=other, name=other.upper()))
        await told.do_restart_both()
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
