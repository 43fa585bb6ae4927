"""The operator's settings file after a peer was added or removed."""

from pathlib import Path

import pytest

from pkarr.keys import Keypair
from pubky_homeserver.config import ConfigError, read_settings
from pubky_homeserver.core.peers import ALL, Claim, Selection
from pubky_homeserver.peer_settings import add_peer, pause_peer, remove_peer

ALICE, BOB = (Keypair(bytes([seed]) * 32).public_key.z32 for seed in (1, 2))

BEFORE = f"""# mine
[admin]
enabled = true   # yes

[peers.bob] # a friend
key = "{BOB}"
follow = [
  "{ALICE}",
]

# how much is said
[logging]
level = "warn"
"""


def test_added_and_removed(tmp_path: Path) -> None:
    """All that was there stays to the letter, with the file's mode; what is added reads as it was meant."""
    file = tmp_path / "homeserver.toml"
    file.write_text(BEFORE)
    file.chmod(0o640)
    added = add_peer(
        file,
        "alice",
        {"key": ALICE, "follow": "all", "offer": [BOB], "private": True, "max_bytes": "1gb", "claim": "deny"},
    )
    assert file.read_text().startswith(BEFORE)
    assert file.stat().st_mode & 0o777 == 0o640
    assert (added.key, added.follow, added.offer) == (ALICE, ALL, Selection(keys=frozenset([BOB])))
    assert (added.private, added.max_bytes, added.claim) == (True, 1 << 30, Claim.DENY)
    assert read_settings(file.read_text(), "x").peers[1] == added
    remove_peer(file, "alice")
    assert file.read_text().rstrip("\n") == BEFORE.rstrip("\n")
    remove_peer(file, "bob")
    assert file.read_text().rstrip("\n").split("\n") == [
        "# mine", "[admin]", "enabled = true   # yes", "", "", "# how much is said", "[logging]", 'level = "warn"',
    ]  # fmt: skip


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """It is made, for nobody else to read."""
    file = tmp_path / "homeserver.toml"
    add_peer(file, "alice", {"key": ALICE})
    assert file.stat().st_mode & 0o777 == 0o600
    assert [peer.name for peer in read_settings(file.read_text(), "x").peers] == ["alice"]


def test_a_link_stays_one(tmp_path: Path) -> None:
    """Where the file is kept elsewhere, it is changed there."""
    (tmp_path / "real.toml").write_text(BEFORE)
    link = tmp_path / "homeserver.toml"
    link.symlink_to("real.toml")
    add_peer(link, "alice", {"key": ALICE})
    assert link.is_symlink()
    assert ALICE in (tmp_path / "real.toml").read_text()


@pytest.mark.parametrize(
    ("text", "name", "settings", "says"),
    [
        (BEFORE, "bob", {"key": ALICE}, "there is a \\[peers.bob\\] already"),
        (BEFORE, "alice", {"key": BOB}, "is that of peers.bob too"),
        (BEFORE, "alice", {"key": "x"}, "must be a homeserver's public key"),
        (BEFORE, "alice", {"key": ALICE, "url": 'a"\nb'}, "homeserver.toml"),
        (BEFORE, "a.b", {"key": ALICE}, "homeserver.toml"),
        (BEFORE, "a]\n[x", {"key": ALICE}, "homeserver.toml"),
        ("nonsense", "alice", {"key": ALICE}, "is not valid TOML"),
        ("peers = {}", "alice", {"key": ALICE}, "is not valid TOML"),
    ],
)
def test_what_cannot_be_added(tmp_path: Path, text: str, name: str, settings: dict[str, object], says: str) -> None:
    """A file that would not read as it should is not written."""
    file = tmp_path / "homeserver.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says):
        add_peer(file, name, settings)
    assert file.read_text() == text
    assert [one.name for one in tmp_path.iterdir()] == ["homeserver.toml"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BEFORE, "there is no \\[peers.alice\\]"),
        (f'peers = {{ alice = {{ key = "{ALICE}" }} }}\n', "by hand"),
        (f'peers.alice.key = "{ALICE}"\n', "by hand"),
        (f'[peers]\n[peers.alice]\nkey = "{ALICE}"\n[peers.alice.x]\n', "no such setting"),
    ],
)
def test_what_cannot_be_removed(tmp_path: Path, text: str, says: str) -> None:
    """What is written in an unusual way is left to the operator."""
    file = tmp_path / "homeserver.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says):
        remove_peer(file, "alice")
    assert file.read_text() == text


def test_paused_and_resumed(tmp_path: Path) -> None:
    """One line comes and goes, wherever it stood; nothing else changes, and twice is as once."""
    file = tmp_path / "homeserver.toml"
    file.write_text(BEFORE)
    for _ in range(2):
        pause_peer(file, "bob", True)
        assert [one.paused for one in read_settings(file.read_text(), "x").peers] == [True]
        assert file.read_text() == BEFORE.replace("# a friend\n", "# a friend\npaused = true\n")
    pause_peer(file, "bob", False)
    assert file.read_text() == BEFORE
    file.write_text(BEFORE.replace("]\n\n# how", "]\n paused=true # for now\n\n# how"))
    pause_peer(file, "bob", False)
    assert file.read_text() == BEFORE
    with pytest.raises(ConfigError, match="there is no"):
        pause_peer(file, "alice", True)
    file.write_text(f'peers.bob = {{ key = "{BOB}" }}\n')
    with pytest.raises(ConfigError, match="by hand"):
        pause_peer(file, "bob", True)
