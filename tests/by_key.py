"""Blocking connections over TLS by public key, for tests that run a homeserver as a process."""

import io
import socket
from http.client import HTTPConnection
from typing import Any

from pkarr.keys import PublicKey
from pkarr.tls.session import IEngine, ISession

PATIENCE = 30.0  # seconds that a test waits for bytes


class KeySocket:
    """What `http.client` wants of a socket, over TLS with the holder of a key."""

    def __init__(self, port: int, key: PublicKey, host: str, engine: IEngine, preface: bytes = b"") -> None:
        """Connect, and shake hands. AssertionError if somebody else answers."""
        self._session: ISession = engine.connect(host)
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(preface)
        while not self._session.handshake():
            self._socket.sendall(self._session.take())
            self._session.feed(self._received())
        assert self._session.peer_key() == key.raw
        self._socket.sendall(self._session.take())

    def _received(self) -> bytes:
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionResetError("the stream ended without a goodbye")
        return data

    def sendall(self, data: bytes) -> None:
        """Send."""
        self._session.send(data)
        self._socket.sendall(self._session.take())

    def recv(self) -> bytes:
        """What comes next; nothing after the goodbye."""
        while (data := self._session.receive()) is None:
            self._session.feed(self._received())
        return data

    def makefile(self, _mode: str) -> io.BufferedReader:
        """A file of what comes."""
        return io.BufferedReader(_Reader(self), 65536)

    def close(self) -> None:
        """Say goodbye and close."""
        self._session.bye()
        try:
            self._socket.sendall(self._session.take())
        except OSError:
            pass  # it is gone
        self._socket.close()
        self._session.close()


class _Reader(io.RawIOBase):
    def __init__(self, over: KeySocket) -> None:
        self._over = over
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._rest or self._over.recv()
        length = min(len(data), len(buffer))
        buffer[:length], self._rest = data[:length], data[length:]
        return length


class KeyConnection(HTTPConnection):
    """HTTP to the holder of a key, asked for by a name that leads there."""

    def __init__(self, port: int, key: PublicKey, host: str, engine: IEngine, preface: bytes = b"") -> None:
        """`preface` is what a proxy would say first."""
        super().__init__(host or key.z32)
        self._at = (port, key, self.host, engine, preface)

    def connect(self) -> None:
        """Shake hands."""
        over: Any = KeySocket(*self._at)
        self.sock = over
