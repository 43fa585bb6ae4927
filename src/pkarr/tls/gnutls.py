"""GnuTLS (3.6.6 and newer) through cffi: sessions over memory, with raw public keys.

The library calls back for bytes: *push* takes what must go to the peer, *pull* hands over what came. The callbacks are
made once and never dropped; a session is told apart by a number. Nothing but this module touches the library.

One thing has to be worked around. A server of GnuTLS refuses host names with an underscore, and cannot be told not to;
but `_pubky.<key>` is what clients ask for. So a hook looks at each ClientHello before it is parsed and remembers where
such a name lies, and the reader of another extension, which runs after the hello was hashed and before its name is
read, replaces the underscores in the library's own buffer. If the library ever changes this order, handshakes with such
names fail, and nothing worse; `load` tries one before anything relies on it.
"""

from __future__ import annotations

from itertools import count
from typing import Any

import cffi
from attrs import define, field, frozen
from zope.interface import implementer

from pkarr.keys import Keypair
from pkarr.tls.hello import server_name
from pkarr.tls.session import PKCS8, SPKI, IEngine, ISession, NoEngine, TlsFailed

LIBRARY = "libgnutls.so.30"
OLDEST = b"3.6.6"

PRIORITY = (
    b"NONE:+VERS-TLS1.3:+AEAD:+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305:+GROUP-X25519:+GROUP-SECP256R1:+GROUP-SECP384R1:"
    b"+SIGN-EDDSA-ED25519:+CTYPE-SRV-RAWPK:+CTYPE-CLI-X509"
)

RECORD = 16_384
"""Bytes of the largest record: one call takes a whole one."""

_SERVER, _CLIENT = 1, 2
_FLAGS = 8 | 1 << 6 | 1 << 10 | 1 << 18  # non-blocking, no signals, no tickets, raw public keys
_CERTIFICATE = 1
_RAW_KEY = 3  # type of a certificate
_OF_SERVER = 1
_SIGNATURES = 128  # what a key is for
_CLIENT_HELLO, _BEFORE = 1, 0
_EARLY, _OVERRIDE = 5, 1 | 2 | 128  # when an extension is read; overriding the library's own, of a hello, of TLS
_BORROWED = (45, 11)  # extensions that mean nothing in TLS 1.3 without tickets: key exchange modes, point formats
_AGAIN, _INTERRUPTED, _WARNING = -28, -52, -16
_SILENT = (-12, -110, -54, -53)  # errors that the peer knows already, or cannot be told
_EAGAIN = 11
_FATAL, _BAD_CERTIFICATE = 2, 42

_DECLARATIONS = """
typedef struct { unsigned char *data; unsigned int size; } gnutls_datum_t;
const char *gnutls_check_version(const char *);
const char *gnutls_strerror(int);
int gnutls_priority_init2(void **, const char *, const char **, unsigned int);
void gnutls_priority_deinit(void *);
int gnutls_certificate_allocate_credentials(void **);
void gnutls_certificate_free_credentials(void *);
int gnutls_certificate_set_rawpk_key_mem(void *, const gnutls_datum_t *, const gnutls_datum_t *, int, const char *,
    unsigned int, const char **, unsigned int, unsigned int);
int gnutls_init(void **, unsigned int);
void gnutls_deinit(void *);
int gnutls_priority_set(void *, void *);
int gnutls_credentials_set(void *, int, void *);
void gnutls_handshake_set_timeout(void *, unsigned int);
void gnutls_transport_set_ptr(void *, void *);
void gnutls_transport_set_errno(void *, int);
void gnutls_transport_set_push_function(void *, ssize_t (*)(void *, const void *, size_t));
void gnutls_transport_set_pull_function(void *, ssize_t (*)(void *, void *, size_t));
void gnutls_transport_set_pull_timeout_function(void *, int (*)(void *, unsigned int));
void gnutls_handshake_set_hook_function(void *, unsigned int, int,
    int (*)(void *, unsigned int, unsigned int, unsigned int, const gnutls_datum_t *));
int gnutls_session_ext_register(void *, const char *, int, int, int (*)(void *, const unsigned char *, size_t),
    int (*)(void *, void *), void *, void *, void *, unsigned int);
int gnutls_server_name_set(void *, int, const void *, size_t);
int gnutls_handshake(void *);
ssize_t gnutls_record_recv(void *, void *, size_t);
ssize_t gnutls_record_send(void *, const void *, size_t);
int gnutls_bye(void *, int);
int gnutls_alert_send(void *, int, int);
int gnutls_alert_send_appropriate(void *, int);
int gnutls_certificate_type_get2(void *, int);
const gnutls_datum_t *gnutls_certificate_get_peers(void *, unsigned int *);
"""


@define(eq=False)
class _Calls:
    """The library, and the functions that it calls. One of it lives as long as the program."""

    ffi: Any
    library: Any
    priority: Any
    sessions: dict[int, Session] = field(factory=dict, init=False)
    # Number → session, while the library knows it.
    handles: dict[int, Session] = field(factory=dict, init=False)
    # Address of a session's handle → session.
    nobody: Any = field(init=False)
    # The credentials of clients, who show none.
    numbers: count[int] = field(factory=lambda: count(1), init=False)
    push: Any = field(init=False)
    pull: Any = field(init=False)
    wait: Any = field(init=False)
    look: Any = field(init=False)
    read: Any = field(init=False)
    write: Any = field(init=False)
    buffer: Any = field(init=False)

    def __attrs_post_init__(self) -> None:
        callback = self.ffi.callback
        self.push = callback("ssize_t(void *, const void *, size_t)", self._push, error=-1)
        self.pull = callback("ssize_t(void *, void *, size_t)", self._pull, error=-1)
        self.wait = callback("int(void *, unsigned int)", lambda _pointer, _milliseconds: 1, error=-1)
        self.look = callback(
            "int(void *, unsigned int, unsigned int, unsigned int, const gnutls_datum_t *)", self._look, error=-1
        )
        self.read = callback("int(void *, const unsigned char *, size_t)", self._read, error=-1)
        self.write = callback("int(void *, void *)", lambda _session, _data: 0, error=-1)
        self.buffer = self.ffi.new("unsigned char[]", RECORD)
        self.nobody = self.credentials()

    def credentials(self) -> Any:
        """New ones, freed when nobody holds them."""
        holder = self.ffi.new("void **")
        self.check(self.library.gnutls_certificate_allocate_credentials(holder))
        return self.ffi.gc(holder[0], self.library.gnutls_certificate_free_credentials)

    def check(self, code: int) -> None:
        """Raise `TlsFailed` for what a call says went wrong."""
        if code < 0:
            raise TlsFailed(self.explain(code))

    def explain(self, code: int) -> str:
        """The library's words for an error."""
        text: bytes = self.ffi.string(self.library.gnutls_strerror(code))
        return text.decode("ascii", "replace")

    def session_at(self, handle: Any) -> Session:
        """The session of a handle."""
        return self.handles[int(self.ffi.cast("uintptr_t", handle))]

    def _push(self, number: Any, data: Any, length: int) -> int:
        self.sessions[int(self.ffi.cast("uintptr_t", number))].outgoing.append(bytes(self.ffi.buffer(data, length)))
        return length

    def _pull(self, number: Any, place: Any, size: int) -> int:
        session = self.sessions[int(self.ffi.cast("uintptr_t", number))]
        if not session.incoming:
            self.library.gnutls_transport_set_errno(session.handle, _EAGAIN)
            return -1
        data = bytes(session.incoming[:size])
        del session.incoming[:size]
        self.ffi.memmove(place, data, len(data))
        return len(data)

    def _look(self, handle: Any, _kind: int, _when: int, incoming: int, message: Any) -> int:
        """Before a hello is parsed: who is asked for, and where in the buffer the name lies."""
        if incoming:
            session = self.session_at(handle)
            session.underscored = None
            found = server_name(bytes(self.ffi.buffer(message.data, message.size)))
            if found is not None:
                session.name = found.text
                if "_" in found.text:
                    address = int(self.ffi.cast("uintptr_t", message.data))
                    session.underscored = (address, message.size, found.start, found.end)
        return 0

    def _read(self, handle: Any, data: Any, _length: int) -> int:
        """While extensions are parsed, before the name is: put hyphens where the library wants no underscores."""
        session = self.session_at(handle)
        if session.underscored is not None:
            address, size, start, end = session.underscored
            if address <= int(self.ffi.cast("uintptr_t", data)) < address + size:
                name = self.ffi.buffer(self.ffi.cast("unsigned char *", address + start), end - start)
                name[:] = bytes(name).replace(b"_", b"-")
            session.underscored = None
        return 0


@implementer(ISession)
@define(eq=False)
class Session:
    """One end of a connection. Made by `GnuTls`."""

    _calls: _Calls
    handle: Any
    _kept: Any
    # What the library only points to: the server's credentials.
    name: str | None = None
    incoming: bytearray = field(factory=bytearray, init=False)
    outgoing: list[bytes] = field(factory=list, init=False)
    underscored: tuple[int, int, int, int] | None = field(default=None, init=False)
    # Address and size of the hello's buffer, and where in it a name with underscores lies.
    _address: int = field(init=False)
    _number: int = field(init=False)
    _is_done: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        calls = self._calls
        self._number = next(calls.numbers)
        self._address = int(calls.ffi.cast("uintptr_t", self.handle))
        calls.sessions[self._number] = calls.handles[self._address] = self
        library = calls.library
        library.gnutls_transport_set_ptr(self.handle, calls.ffi.cast("void *", self._number))
        library.gnutls_transport_set_push_function(self.handle, calls.push)
        library.gnutls_transport_set_pull_function(self.handle, calls.pull)
        library.gnutls_transport_set_pull_timeout_function(self.handle, calls.wait)
        library.gnutls_handshake_set_timeout(self.handle, 0)

    def feed(self, data: bytes) -> None:
        """See `ISession`."""
        self.incoming += data

    def handshake(self) -> bool:
        """See `ISession`."""
        if self._is_done:
            return True
        while True:
            before = len(self.incoming)
            code = self._calls.library.gnutls_handshake(self.handle)
            if code == 0:
                self._is_done = True
                return True
            if code == _AGAIN and not self.incoming:
                return False
            if code not in (_AGAIN, _INTERRUPTED, _WARNING) or (code == _AGAIN and len(self.incoming) == before):
                self._fail(code)

    def peer_key(self) -> bytes | None:
        """See `ISession`."""
        calls = self._calls
        if calls.library.gnutls_certificate_type_get2(self.handle, _OF_SERVER) != _RAW_KEY:
            return None
        number = calls.ffi.new("unsigned int *")
        shown = calls.library.gnutls_certificate_get_peers(self.handle, number)
        if shown == calls.ffi.NULL or number[0] != 1:
            return None
        key = bytes(calls.ffi.buffer(shown.data, shown.size))
        return key[len(SPKI) :] if key.startswith(SPKI) and len(key) == len(SPKI) + 32 else None

    def receive(self) -> bytes | None:
        """See `ISession`."""
        calls = self._calls
        while True:
            before = len(self.incoming)
            length = calls.library.gnutls_record_recv(self.handle, calls.buffer, RECORD)
            if length >= 0:
                return bytes(calls.ffi.buffer(calls.buffer, length))
            if length == _AGAIN and (not self.incoming or len(self.incoming) == before):
                return None  # not when something was taken, such as a new key, and more stands behind it
            if length not in (_AGAIN, _INTERRUPTED, _WARNING):
                self._fail(length)

    def send(self, data: bytes) -> None:
        """See `ISession`."""
        calls = self._calls
        view = calls.ffi.from_buffer(data)
        sent = 0
        while sent < len(data):
            length = calls.library.gnutls_record_send(self.handle, view + sent, min(RECORD, len(data) - sent))
            if length < 0:
                if length in (_AGAIN, _INTERRUPTED):
                    continue
                self._fail(length)
            sent += length

    def refuse(self) -> None:
        """See `ISession`."""
        self._calls.library.gnutls_alert_send(self.handle, _FATAL, _BAD_CERTIFICATE)

    def bye(self) -> None:
        """See `ISession`."""
        if self._is_done:
            self._calls.library.gnutls_bye(self.handle, 1)

    def take(self) -> bytes:
        """See `ISession`."""
        taken, self.outgoing = b"".join(self.outgoing), []
        return taken

    def close(self) -> None:
        """See `ISession`."""
        if self._number in self._calls.sessions:
            self._calls.library.gnutls_deinit(self.handle)
            del self._calls.sessions[self._number], self._calls.handles[self._address]

    def _fail(self, code: int) -> None:
        if code not in _SILENT:
            self._calls.library.gnutls_alert_send_appropriate(self.handle, code)
        raise TlsFailed(self._calls.explain(code))


@implementer(IEngine)
@frozen
class GnuTls:
    """The library. Made by `load`."""

    name: str
    _calls: _Calls = field(repr=False)

    def server(self, seed: bytes) -> object:
        """See `IEngine`."""
        calls = self._calls
        # The library does not compare the two: the public key is never taken from anywhere else.
        public = Keypair(seed).public_key.raw
        credentials = calls.credentials()
        key, secret = (_datum(calls.ffi, data) for data in (SPKI + public, PKCS8 + seed))
        null = calls.ffi.NULL
        calls.check(
            calls.library.gnutls_certificate_set_rawpk_key_mem(
                credentials, key[0], secret[0], 0, null, _SIGNATURES, null, 0, 0
            )
        )
        return credentials

    def accept(self, shared: object) -> ISession:
        """See `IEngine`."""
        calls = self._calls
        session = self._begin(_SERVER, shared)
        calls.library.gnutls_handshake_set_hook_function(session.handle, _CLIENT_HELLO, _BEFORE, calls.look)
        null = calls.ffi.NULL
        for number in _BORROWED:
            calls.check(
                calls.library.gnutls_session_ext_register(
                    session.handle, b"borrowed", number, _EARLY, calls.read, calls.write, null, null, null, _OVERRIDE
                )
            )
        return session

    def connect(self, host: str) -> ISession:
        """See `IEngine`."""
        calls = self._calls
        session = self._begin(_CLIENT, calls.nobody)
        if host:
            name = host.encode("ascii")
            calls.check(calls.library.gnutls_server_name_set(session.handle, 1, name, len(name)))
        return session

    def _begin(self, role: int, credentials: Any) -> Session:
        calls = self._calls
        holder = calls.ffi.new("void **")
        calls.check(calls.library.gnutls_init(holder, role | _FLAGS))
        session = Session(calls, holder[0], credentials)
        calls.check(calls.library.gnutls_priority_set(session.handle, calls.priority))
        calls.check(calls.library.gnutls_credentials_set(session.handle, _CERTIFICATE, credentials))
        return session


def load(library: str = LIBRARY) -> GnuTls:
    """The library. Raises `NoEngine`, and `MemoryError` where the system forbids functions that it can call back."""
    ffi = cffi.FFI()
    ffi.cdef(_DECLARATIONS)
    try:
        loaded = ffi.dlopen(library)
        found = loaded.gnutls_check_version(ffi.NULL)
        if loaded.gnutls_check_version(OLDEST) == ffi.NULL:
            raise NoEngine(f"GnuTLS is too old ({ffi.string(found).decode()}): {OLDEST.decode()} is needed")
    except (OSError, AttributeError):
        raise NoEngine("GnuTLS is missing (Debian: apt install libgnutls30)") from None
    priority = ffi.new("void **")
    if loaded.gnutls_priority_init2(priority, PRIORITY, ffi.NULL, 0):
        raise NoEngine("GnuTLS is built or set up without TLS 1.3, Ed25519 or raw public keys")
    calls = _Calls(ffi, loaded, ffi.gc(priority[0], loaded.gnutls_priority_deinit))
    return GnuTls(f"GnuTLS {ffi.string(found).decode()}", calls)


def _datum(ffi: Any, data: bytes) -> Any:
    """A datum, and what it points to: keep both."""
    place = ffi.new("unsigned char[]", data)
    return ffi.new("gnutls_datum_t *", {"data": place, "size": len(data)}), place
