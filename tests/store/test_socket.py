"""Where an embedded Redis listens."""

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pubky_homeserver.core.errors import CannotStart
from pubky_homeserver.store.socket import MAX_PATH, place_socket, remove_socket


@pytest.fixture
def deep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory whose path is too long for a socket, and a short one for temporary files."""
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        deep = tmp_path / ("long" * 30) / "redis"
        deep.mkdir(parents=True)
        yield deep


def path_of_length(parent: Path, length: int) -> Path:
    """A directory whose socket has a path of so many bytes."""
    directory = parent / ("x" * (length - len(os.fsencode(parent)) - len("//redis.sock")))
    directory.mkdir()
    return directory


@pytest.mark.parametrize(("length", "is_inside"), [(MAX_PATH, True), (MAX_PATH + 1, False)])
def test_the_bound(length: int, is_inside: bool, deep: Path) -> None:
    """A path of 107 bytes is a socket's longest; only a longer one is moved elsewhere."""
    with tempfile.TemporaryDirectory() as short:
        directory = path_of_length(Path(short), length)
        socket = place_socket(directory)
        assert (socket == str(directory / "redis.sock")) is is_inside
        assert len(os.fsencode(socket)) <= MAX_PATH
        remove_socket(directory)


def test_elsewhere(deep: Path) -> None:
    """The folder that holds it is nobody else's, the next start finds the same one, and the end removes it."""
    socket = Path(place_socket(deep))
    state = socket.parent.stat()
    assert stat.S_IMODE(state.st_mode) == 0o700
    assert place_socket(deep) == str(socket)
    socket.touch()
    remove_socket(deep)
    assert not socket.parent.exists()
    assert list(deep.iterdir()) == []
    remove_socket(deep)


@pytest.mark.parametrize("harm", ["gone", "open", "a link"])
def test_elsewhere_is_no_longer_private(harm: str, deep: Path, tmp_path: Path) -> None:
    """A folder that vanished with a reboot, or that others can enter or have replaced, is not used again."""
    folder = Path(place_socket(deep)).parent
    if harm == "open":
        folder.chmod(0o755)
    else:
        folder.rmdir()
    if harm == "a link":
        (tmp_path / "theirs").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "theirs")
    other = Path(place_socket(deep)).parent
    assert other != folder
    assert place_socket(deep) == str(other / "redis.sock")


def test_nowhere_is_short(deep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If temporary files have a long path too, one line says what to change."""
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with pytest.raises(CannotStart, match="TMPDIR"):
        place_socket(deep)
