"""The data directory: first use, use again, and every reason not to use it."""

import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pkarr.keys import Keypair
from pubky_homeserver.core.errors import CannotStart
from pubky_homeserver.directory import FORMAT, MAX_FILE, DataDirectory
from tests.unwritable import REFUSED, unwritable

HOLD = """
import sys
from pathlib import Path
from pubky_homeserver.directory import DataDirectory

directory = DataDirectory.open(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""
# Another homeserver, as far as the directory knows.

DAEMON = """
import os, sys
from pathlib import Path
from pubky_homeserver.directory import DataDirectory

directory = DataDirectory.open(Path(sys.argv[1]))
if os.fork():
    os._exit(0)
directory.sign()
print(os.getpid(), flush=True)
sys.stdin.read()
"""
# One that leaves its terminal.


def furnish(directory: DataDirectory) -> Keypair:
    """Ask for everything in it, as a start does; the key."""
    keypair = directory.keypair()
    directory.folder("blobs", "bodies")
    directory.folder("redis", "accounts")
    directory.admin_password()
    directory.confirm()
    return keypair


def used(path: Path) -> Keypair:
    """A folder that a homeserver has used; its key."""
    directory = DataDirectory.open(path)
    keypair = furnish(directory)
    directory.close()
    return keypair


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a data directory may be."""
    return tmp_path / "data"


@pytest.fixture
def holder(path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that has taken the directory."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with process:
        yield process
        process.kill()


# --- what it does -------------------------------------------------------------------------------------------------


def test_first_use(path: Path) -> None:
    """Everything is made, for the owner's eyes only, and remembered as ours when it is whole."""
    directory = DataDirectory.open(path / "deeper")
    assert directory.is_new
    secret = directory.keypair().to_file_text()
    password = directory.admin_password()
    directory.folder("blobs", "bodies")
    directory.confirm()
    assert {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in (path / "deeper").iterdir()} == {
        "lock": 0o600,
        "secret": 0o600,
        "admin-password": 0o600,
        "format": 0o600,
        "blobs": 0o700,
    }
    assert stat.S_IMODE((path / "deeper").stat().st_mode) == 0o700
    assert (path / "deeper" / "secret").read_text() == secret
    assert len(password) >= 32
    assert (path / "deeper" / "admin-password").read_text() == password + "\n"
    directory.close()


def test_use_again(path: Path) -> None:
    """The key and the password stay what they are."""
    keypair = used(path)
    password = (path / "admin-password").read_text().strip()
    directory = DataDirectory.open(path)
    assert not directory.is_new
    assert directory.keypair().public_key == keypair.public_key
    assert directory.keypair(Keypair.random()).public_key == keypair.public_key
    assert directory.admin_password() == password
    assert directory.folder("blobs", "bodies") == path / "blobs"
    directory.close()


def test_two_homeservers_have_two_keys(tmp_path: Path) -> None:
    """A new key is random, and so is a new password."""
    one, other = used(tmp_path / "one"), used(tmp_path / "other")
    assert one.public_key != other.public_key
    assert (tmp_path / "one/admin-password").read_text() != (tmp_path / "other/admin-password").read_text()


def test_a_key_that_is_brought_is_used(path: Path) -> None:
    """The operator may move a key, settings and a password in before the first start."""
    keypair = Keypair.random()
    path.mkdir()
    (path / "secret").write_text(keypair.to_file_text() + "\n")
    (path / "homeserver.toml").touch()
    (path / "admin-password").write_text("mine\n")
    (path / "lost+found").mkdir()
    directory = DataDirectory.open(path)
    assert directory.is_new
    assert directory.keypair().public_key == keypair.public_key
    assert directory.admin_password() == "mine"
    directory.close()


def test_a_first_start_that_was_interrupted_is_done_again(path: Path) -> None:
    """Until the mark is written the folder is new, and what lies in it already is taken."""
    directory = DataDirectory.open(path)
    keypair = directory.keypair()
    directory.folder("blobs", "bodies")
    directory.close()
    directory = DataDirectory.open(path)
    assert directory.is_new
    assert directory.keypair().public_key == keypair.public_key
    directory.folder("redis", "accounts")
    directory.confirm()
    directory.close()


def test_an_empty_password_is_none(path: Path) -> None:
    """A file that was truncated does not open the admin port to everybody."""
    used(path)
    (path / "admin-password").write_text(" \n")
    directory = DataDirectory.open(path)
    assert len(directory.admin_password()) >= 32
    directory.close()


# --- why it is refused --------------------------------------------------------------------------------------------


def refusal(path: Path) -> str:
    """Why a folder is not used, as one line. Nothing of it stays taken."""
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(CannotStart) as caught:
        DataDirectory.open(path)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_what_is_no_directory(path: Path) -> None:
    """A file in the way is told, here and above."""
    path.write_text("")
    assert refusal(path) == f"{path} is not a directory"
    assert refusal(path / "below") == f"The data directory {path / 'below'} cannot be used: Not a directory"


def test_a_folder_of_somebody_else(path: Path) -> None:
    """A folder with other things in it is not filled with ours."""
    path.mkdir()
    for name in ("photos", "letters", "music", "zebra"):
        (path / name).mkdir()
    assert refusal(path) == (
        f"The data directory {path} holds something else (letters, music, photos): choose an empty one with --data-dir"
    )


def test_data_without_its_mark(path: Path) -> None:
    """A Redis that has been used is not taken for new because a small file is lost."""
    used(path)
    (path / "redis" / "version").write_text("7.0.15 used\n")
    (path / "format").unlink()
    assert "holds something else (blobs, redis)" in refusal(path)


def test_a_newer_version(path: Path) -> None:
    """What a newer program wrote is not touched by an older one."""
    used(path)
    (path / "format").write_text(f"pubky-homeserver {FORMAT + 1}\n")
    assert refusal(path) == (
        f"The data directory {path} was written by a newer version of this program: install that one"
    )


@pytest.mark.parametrize("mark", ["", "pubky-homeserver\n", "pubky-homeserver 1", "x" * 2 * MAX_FILE, "\xff\n"])
def test_a_damaged_mark(path: Path, mark: str) -> None:
    """Nothing is guessed."""
    used(path)
    (path / "format").write_text(mark)
    assert refusal(path) == f"{path / 'format'} is damaged: it must say 'pubky-homeserver {FORMAT}'"


@pytest.mark.parametrize("name", ["secret", "redis", "blobs"])
def test_a_loss_is_told(path: Path, name: str) -> None:
    """What is missing in a used folder is never made anew: the key is the homeserver's name, the rest people's data."""
    used(path)
    (path / name).rename(path.parent / name)
    directory = DataDirectory.open(path)
    with pytest.raises(CannotStart) as caught:
        furnish(directory)
    assert str(caught.value).startswith(f"{path / name} (")
    assert "is gone, though" in str(caught.value)
    assert not (path / name).exists()
    directory.close()


def keep_body(path: Path) -> None:
    """Put a body where the bodies are."""
    (path / "blobs" / "ab").mkdir()
    (path / "blobs" / "ab" / ("0" * 30)).touch()


def test_bodies_without_accounts(path: Path) -> None:
    """An empty Redis beside bodies is a Redis that was lost: the homeserver does not start empty."""
    used(path)
    keep_body(path)
    assert refusal(path).startswith(f"{path / 'redis'} (all accounts) is empty")
    (path / "redis" / "version").write_text("7.0.15 used\n")
    DataDirectory.open(path).close()


def test_bodies_without_a_mark(path: Path) -> None:
    """Bodies are nothing that a first start leaves behind."""
    used(path)
    keep_body(path)
    (path / "format").unlink()
    assert "holds something else (blobs, redis)" in refusal(path)


@pytest.mark.parametrize("text", ["", "00" * 31, "00" * 33, "zz" * 32, "00" * MAX_FILE])
def test_an_invalid_secret(path: Path, text: str) -> None:
    """A key that cannot be read is not replaced, and not shown."""
    used(path)
    (path / "secret").write_text(text)
    directory = DataDirectory.open(path)
    with pytest.raises(CannotStart, match="it must hold 64 hex digits") as caught:
        directory.keypair()
    assert str(path / "secret") in str(caught.value)
    assert not text or text not in str(caught.value)
    assert (path / "secret").read_text() == text
    directory.close()


def test_a_secret_that_cannot_be_read(path: Path) -> None:
    """The reason is the system's."""
    used(path)
    (path / "secret").unlink()
    (path / "secret").mkdir()
    directory = DataDirectory.open(path)
    with pytest.raises(CannotStart, match="secret cannot be read: Is a directory"):
        directory.keypair()
    directory.close()


def test_a_file_where_a_folder_belongs(path: Path) -> None:
    """The reason is the system's."""
    directory = DataDirectory.open(path)
    (path / "blobs").touch()
    with pytest.raises(CannotStart, match="blobs cannot be made: File exists"):
        directory.folder("blobs", "bodies")
    directory.close()


def test_not_writable(path: Path) -> None:
    """A disk that takes no writes is told, whether or not the folder is there."""
    with unwritable(path) as folder:
        for place in (folder, folder / "new"):
            assert re.fullmatch(rf"The data directory {place} cannot be used: {REFUSED}", refusal(place))


def test_names_that_cannot_be_written(path: Path) -> None:
    """What fails halfway is told, and leaves no half file."""
    directory = DataDirectory.open(path)
    (path / "secret.new").mkdir()
    with pytest.raises(CannotStart, match="secret cannot be written: Is a directory"):
        directory.keypair()
    assert not (path / "secret").exists()
    directory.close()


# --- one process --------------------------------------------------------------------------------------------------


def test_one_process_at_a_time(path: Path, holder: "subprocess.Popen[str]") -> None:
    """The second one is told which process is the first; when that has died, however it died, the folder is free."""
    assert refusal(path) == (
        f"The data directory {path} is in use by process {holder.pid}: stop that one first, or choose another one with "
        "--data-dir"
    )
    holder.kill()
    holder.wait()
    directory = DataDirectory.open(path)
    assert (path / "lock").read_text() == f"{os.getpid()}\n"
    directory.close()


def test_a_daemon_signs_again(path: Path) -> None:
    """The process that opened the folder is not the one that runs: a daemon is its child, and keeps the folder."""
    parent = subprocess.Popen([sys.executable, "-c", DAEMON, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    daemon = int(parent.stdout.readline())
    assert daemon != parent.pid
    assert f"in use by process {daemon}:" in refusal(path)
    parent.communicate()  # ends the daemon


def test_closing_frees_it(path: Path) -> None:
    """The next one need not wait for the process to end."""
    used(path)
    used(path)


# --- or several that are one homeserver ---------------------------------------------------------------------------


def test_several_may_share_it(path: Path) -> None:
    """Processes that say so share a folder that is furnished; nobody else has it meanwhile."""
    used(path)
    one, other = DataDirectory.open(path, shared=True), DataDirectory.open(path, shared=True)
    assert furnish(one).public_key == furnish(other).public_key
    assert "is in use by process" in refusal(path)
    one.close()
    assert "is in use by process" in refusal(path)
    other.close()
    used(path)


def test_one_of_several_furnishes_it(path: Path) -> None:
    """Two first starts at once would make two keys: the second waits for the operator to try again."""
    one = DataDirectory.open(path, shared=True)
    assert one.is_new
    with pytest.raises(CannotStart, match="is in use by process"):
        DataDirectory.open(path, shared=True)
    keypair = furnish(one)
    other = DataDirectory.open(path, shared=True)
    assert not other.is_new
    assert furnish(other).public_key == keypair.public_key
    one.close()
    other.close()


def test_it_is_not_shared_with_who_has_it_alone(path: Path) -> None:
    """A homeserver with a private Redis has no second process."""
    used(path)
    alone = DataDirectory.open(path)
    with pytest.raises(CannotStart, match="is in use by process"):
        DataDirectory.open(path, shared=True)
    alone.close()
