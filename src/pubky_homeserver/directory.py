"""The data directory: one folder that is the whole homeserver, and belongs to one process at a time.

(Or to several that are one homeserver on an outside Redis, and share it knowingly.)

    format           what wrote it: `pubky-homeserver 1`
    lock             held by who runs here
    secret           the homeserver's key, 64 hex digits, mode 0600
    admin-password   made at the first start, mode 0600, unless one is configured
    homeserver.toml  the operator's settings, if there are any
    redis/           the private Redis
    blobs/           bodies of files
    dht              nodes of the DHT that were known at the last stop

A folder that has been in use is never taken for a new one: what is missing in it then is a loss to be told, not a gap
to be filled. Nor is a folder taken that is somebody else's, or was written by a newer version of this program.
"""

import fcntl
import os
import re
import secrets
from pathlib import Path

from attrs import define

from pkarr.keys import InvalidSecretKey, Keypair
from pubky_homeserver.core.errors import CannotStart
from pubky_homeserver.durable import write_whole

FORMAT = 1
"""Grows when an older program could not read what a newer one wrote."""

PASSWORD_BYTES = 24
"""Random bytes of the admin password; 32 characters."""

_BROUGHT = {"homeserver.toml", "secret", "admin-password", ".env", "lost+found", "lock"}
_BROUGHT |= {"secret.new", "admin-password.new", "format.new"}
# What may lie in a folder before its first use, or after a first start that was cut short.

_MARK = re.compile(r"pubky-homeserver (\d{1,6})\n", re.ASCII)
MAX_FILE = 4096
"""Bytes that are read of the small files here."""


@define
class DataDirectory:
    """The data directory of a running homeserver. Made by `open`; the lock lasts as long as the process."""

    path: Path
    is_new: bool
    """Whether this is its first use."""
    _lock: int
    _shared: bool

    @classmethod
    def open(cls, path: Path, shared: bool = False) -> "DataDirectory":
        """Take a folder, made if it is missing; `shared` with others who say so too. Raises `CannotStart`."""
        if path.exists() and not path.is_dir():
            raise CannotStart(f"{path} is not a directory")
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise CannotStart(f"The data directory {path} cannot be used: {error.strerror}") from None
        try:
            _take(lock, path, shared)
            is_new = _check(path)
            if is_new and shared:
                _take(lock, path, shared=False)  # one process makes what belongs in it
                is_new = _check(path)
            return cls(path, is_new, lock, shared)
        except BaseException:
            os.close(lock)
            raise

    def close(self) -> None:
        """Let another process have it."""
        os.close(self._lock)

    def sign(self) -> None:
        """Note this process as the holder: a daemon is another one than who opened the directory."""
        _sign(self._lock)

    def confirm(self) -> None:
        """Mark the folder as ours, when all that belongs in it is there. Raises `CannotStart`."""
        if self.is_new:
            self._write("format", f"pubky-homeserver {FORMAT}\n")
        if self._shared:
            fcntl.flock(self._lock, fcntl.LOCK_SH)

    def keypair(self, made: Keypair | None = None) -> Keypair:
        """The homeserver's key; at the first use a new one, or `made`. Raises `CannotStart`."""
        text = read_small(self.path / "secret")
        if text is None:
            self._refuse_loss("secret", "the homeserver's key")
            keypair = made or Keypair.random()
            self._write("secret", keypair.to_file_text())
            return keypair
        try:
            return Keypair.from_file_text(text)
        except InvalidSecretKey as error:
            raise CannotStart(f"{self.path / 'secret'}: {error}; it must hold 64 hex digits") from None

    def admin_password(self) -> str:
        """The password of the admin API, made if there is none. Raises `CannotStart`."""
        password = (read_small(self.path / "admin-password") or "").strip()
        if not password:
            password = secrets.token_urlsafe(PASSWORD_BYTES)
            self._write("admin-password", password + "\n")
        return password

    def folder(self, name: str, what: str) -> Path:
        """A folder of its own inside, made at the first use. Raises `CannotStart`."""
        folder = self.path / name
        if not folder.is_dir():
            self._refuse_loss(name, what)
            try:
                folder.mkdir(mode=0o700)
            except OSError as error:
                raise CannotStart(f"{folder} cannot be made: {error.strerror}") from None
        return folder

    def _refuse_loss(self, name: str, what: str) -> None:
        if not self.is_new:
            raise CannotStart(
                f"{self.path / name} ({what}) is gone, though {self.path} has been in use: bring it back from a "
                "backup, or start with another --data-dir"
            )

    def _write(self, name: str, text: str) -> None:
        try:
            write_whole(self.path / name, text.encode("ascii"))
        except OSError as error:
            raise CannotStart(f"{self.path / name} cannot be written: {error.strerror}") from None


def read_small(file: Path) -> str | None:
    """The text of a small file; None if there is none. Raises `CannotStart`."""
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_FILE).decode("utf-8", "replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CannotStart(f"{file} cannot be read: {error.strerror}") from None


def _take(lock: int, path: Path, shared: bool) -> None:
    """Be the only process here, or one of those that share it, and leave a note who that is."""
    try:
        fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip()
        raise CannotStart(
            f"The data directory {path} is in use by process {holder or '?'}: stop that one first, or choose another "
            "one with --data-dir"
        ) from None
    try:
        _sign(lock)
    except OSError as error:
        raise CannotStart(f"The data directory {path} cannot be written: {error.strerror}") from None


def _sign(lock: int) -> None:
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode("ascii"), 0)


def _check(path: Path) -> bool:
    """Whether the folder is new. Raises `CannotStart` if it is not ours to use."""
    mark = read_small(path / "format")
    if mark is None:
        foreign = sorted(set(os.listdir(path)) - _BROUGHT)
        began = (path / "redis" / "version").exists() or _has_bodies(path)
        unfinished = set(foreign) <= {"redis", "blobs"} and not began
        if foreign and not unfinished:
            raise CannotStart(
                f"The data directory {path} holds something else ({', '.join(foreign[:3])}): choose an empty one with "
                "--data-dir"
            )
        return True
    found = _MARK.fullmatch(mark)
    if found is None:
        raise CannotStart(f"{path / 'format'} is damaged: it must say 'pubky-homeserver {FORMAT}'")
    if int(found[1]) > FORMAT:
        raise CannotStart(f"The data directory {path} was written by a newer version of this program: install that one")
    if (path / "redis").is_dir() and not any((path / "redis").iterdir()) and _has_bodies(path):
        raise CannotStart(
            f"{path / 'redis'} (all accounts) is empty, though there are bodies in {path / 'blobs'}: bring it back "
            "from a backup, or start with another --data-dir"
        )
    return False


def _has_bodies(path: Path) -> bool:
    return any(file.is_file() for file in (path / "blobs").glob("[0-9a-f][0-9a-f]/*"))
