"""OpenSSL (3.2 and newer) through cffi: sessions over memory, with raw public keys.

It needs no calling back: bytes go into one memory buffer of a session and come out of another. Nothing but this module
touches the library, and it loads the system's: copies inside other packages are theirs to keep safe.
"""

from __future__ import annotations

import os
from typing import Any

import cffi
from attrs import define, field, frozen
from zope.interface import implementer

from pkarr.tls.session import IEngine, ISession, NoEngine, TlsFailed

LIBRARY = "libssl.so.3"

RECORD = 16_384
"""Bytes of the largest record: one call takes a whole one."""

_OWN_SYMBOLS = getattr(os, "RTLD_DEEPBIND", 0)
# A Python that has another OpenSSL inside may offer it to everybody; halves of two do not fit together.

_ED25519 = 1087  # number of the kind of key
_KEY_LENGTH = 32
_RAW_KEY = b"\x02"  # type of a certificate (RFC 7250)
_TLS_1_3 = 0x0304
_SET_MODE, _SET_CACHE, _SET_NAME, _SET_SIGNATURES, _SET_OLDEST = 33, 44, 55, 98, 123
_RELEASE_BUFFERS = 0x10  # an idle session keeps none
_HOST_NAME = 0
_NO_CHECK = 0  # of certificates: there are none; whoever connects compares the key
_READ, _SAID_GOODBYE = 2, 6  # what a call that did nothing waits for; the peer ended the session

_DECLARATIONS = """
const char *OpenSSL_version(int);
unsigned long ERR_get_error(void);
const char *ERR_reason_error_string(unsigned long);
void ERR_clear_error(void);
void *EVP_PKEY_new_raw_private_key(int, void *, const unsigned char *, size_t);
int EVP_PKEY_get_id(const void *);
int EVP_PKEY_get_raw_public_key(const void *, unsigned char *, size_t *);
void EVP_PKEY_free(void *);
const void *BIO_s_mem(void);
void *BIO_new(const void *);
int BIO_read(void *, void *, int);
int BIO_write(void *, const void *, int);
size_t BIO_ctrl_pending(void *);
const void *TLS_method(void);
void *SSL_CTX_new(const void *);
void SSL_CTX_free(void *);
long SSL_CTX_ctrl(void *, int, long, void *);
int SSL_CTX_set_num_tickets(void *, size_t);
int SSL_CTX_set1_server_cert_type(void *, const unsigned char *, size_t);
int SSL_CTX_use_PrivateKey(void *, void *);
void SSL_CTX_set_verify(void *, int, void *);
void *SSL_new(void *);
void SSL_free(void *);
void SSL_set_bio(void *, void *, void *);
void SSL_set_accept_state(void *);
void SSL_set_connect_state(void *);
long SSL_ctrl(void *, int, long, void *);
int SSL_do_handshake(void *);
int SSL_read(void *, void *, int);
int SSL_write(void *, const void *, int);
int SSL_shutdown(void *);
int SSL_get_error(const void *, int);
const char *SSL_get_servername(const void *, int);
void *SSL_get0_peer_rpk(void *);
"""


@frozen
class _Library:
    """The library, and room for a record."""

    ffi: Any
    calls: Any
    buffer: Any

    def failure(self) -> TlsFailed:
        """What the library says went wrong."""
        text = self.calls.ERR_reason_error_string(self.calls.ERR_get_error())
        return TlsFailed(self.ffi.string(text).decode("ascii", "replace") if text != self.ffi.NULL else "TLS failed")

    def check(self, result: Any) -> Any:
        """The result of a call that says 0, or gives nothing, when it failed."""
        if not result:
            raise self.failure()
        return result


@implementer(ISession)
@define(eq=False)
class Session:
    """One end of a connection. Made by `OpenSsl`."""

    _library: _Library
    handle: Any
    _incoming: Any
    # What came, for the library to read; it frees it with the session.
    _outgoing: Any
    _kept: Any
    # The settings, which outlive the session.
    _is_done: bool = field(default=False, init=False)
    _is_broken: bool = field(default=False, init=False)
    # The library said so: it must not be called again but to free it.
    _is_closed: bool = field(default=False, init=False)

    @property
    def name(self) -> str | None:
        """See `ISession`."""
        name = self._library.calls.SSL_get_servername(self.handle, _HOST_NAME)
        return None if name == self._library.ffi.NULL else self._library.ffi.string(name).decode("ascii", "replace")

    def feed(self, data: bytes) -> None:
        """See `ISession`."""
        self._library.calls.BIO_write(self._incoming, self._library.ffi.from_buffer(data), len(data))

    def handshake(self) -> bool:
        """See `ISession`."""
        if not self._is_done and self._call(self._library.calls.SSL_do_handshake) == 1:
            self._is_done = True
        return self._is_done

    def peer_key(self) -> bytes | None:
        """See `ISession`."""
        library = self._library
        key = library.calls.SSL_get0_peer_rpk(self.handle)
        if key == library.ffi.NULL or library.calls.EVP_PKEY_get_id(key) != _ED25519:
            return None
        length = library.ffi.new("size_t *", _KEY_LENGTH)
        if not library.calls.EVP_PKEY_get_raw_public_key(key, library.buffer, length) or length[0] != _KEY_LENGTH:
            return None
        return bytes(library.ffi.buffer(library.buffer, _KEY_LENGTH))

    def receive(self) -> bytes | None:
        """See `ISession`."""
        library = self._library
        length = self._call(lambda handle: library.calls.SSL_read(handle, library.buffer, RECORD))
        return None if length is None else bytes(library.ffi.buffer(library.buffer, length))

    def send(self, data: bytes) -> None:
        """See `ISession`."""
        if data:
            library = self._library
            view = library.ffi.from_buffer(data)
            if self._call(lambda handle: library.calls.SSL_write(handle, view, len(data))) != len(data):
                raise TlsFailed("the session takes no data")

    def refuse(self) -> None:
        """See `ISession`. The library lets nobody choose an alert, so this is a goodbye."""
        self.bye()

    def bye(self) -> None:
        """See `ISession`."""
        if self._is_done and not self._is_broken:
            self._library.calls.ERR_clear_error()
            self._library.calls.SSL_shutdown(self.handle)

    def take(self) -> bytes:
        """See `ISession`."""
        library = self._library
        length = library.calls.BIO_ctrl_pending(self._outgoing)
        if not length:
            return b""
        taken = bytearray(length)
        library.calls.BIO_read(self._outgoing, library.ffi.from_buffer(taken), length)
        return bytes(taken)

    def close(self) -> None:
        """See `ISession`."""
        if not self._is_closed:
            self._is_closed = True
            self._library.calls.SSL_free(self.handle)

    def _call(self, function: Any) -> int | None:
        """What a call did, 0 for the peer's goodbye, None if it waits for more bytes."""
        calls = self._library.calls
        calls.ERR_clear_error()
        if self._is_broken:
            raise TlsFailed("the session has failed before")
        result: int = function(self.handle)
        if result > 0:
            return result
        reason = calls.SSL_get_error(self.handle, result)
        if reason == _READ:
            return None
        if reason == _SAID_GOODBYE:
            return 0
        self._is_broken = True
        raise self._library.failure()


@implementer(IEngine)
@frozen
class OpenSsl:
    """The library. Made by `load`."""

    name: str
    _library: _Library = field(repr=False)
    _client: Any = field(repr=False)
    # The settings of clients.

    def server(self, seed: bytes) -> object:
        """See `IEngine`."""
        calls, ffi = self._library.calls, self._library.ffi
        settings = _settings(self._library)
        key = self._library.check(calls.EVP_PKEY_new_raw_private_key(_ED25519, ffi.NULL, seed, len(seed)))
        try:
            self._library.check(calls.SSL_CTX_use_PrivateKey(settings, key))
        finally:
            calls.EVP_PKEY_free(key)
        return settings

    def accept(self, shared: object) -> ISession:
        """See `IEngine`."""
        session = self._begin(shared)
        self._library.calls.SSL_set_accept_state(session.handle)
        return session

    def connect(self, host: str) -> ISession:
        """See `IEngine`."""
        session, calls = self._begin(self._client), self._library.calls
        calls.SSL_set_connect_state(session.handle)
        if host:
            name = self._library.ffi.new("char[]", host.encode("ascii"))
            self._library.check(calls.SSL_ctrl(session.handle, _SET_NAME, _HOST_NAME, name))
        return session

    def _begin(self, settings: Any) -> Session:
        calls, check = self._library.calls, self._library.check
        handle = check(calls.SSL_new(settings))
        incoming, outgoing = check(calls.BIO_new(calls.BIO_s_mem())), check(calls.BIO_new(calls.BIO_s_mem()))
        calls.SSL_set_bio(handle, incoming, outgoing)
        return Session(self._library, handle, incoming, outgoing, settings)


def load(library: str = LIBRARY) -> OpenSsl:
    """The library. Raises `NoEngine`."""
    ffi = cffi.FFI()
    ffi.cdef(_DECLARATIONS)
    try:
        calls = ffi.dlopen(library, ffi.RTLD_NOW | _OWN_SYMBOLS)
    except OSError:
        raise NoEngine(f"OpenSSL is missing ({library})") from None
    loaded = _Library(ffi, calls, ffi.new("unsigned char[]", RECORD))
    version = library
    try:
        version = " ".join(ffi.string(calls.OpenSSL_version(0)).decode("ascii", "replace").split()[:2])
        client = _settings(loaded)
    except AttributeError:
        raise NoEngine(f"{version} is too old: 3.2 is the first with raw public keys") from None
    except TlsFailed as error:
        raise NoEngine(f"{version} is built or set up without what is needed: {error}") from None
    return OpenSsl(version, loaded, client)


def _settings(library: _Library) -> Any:
    """What sessions share: TLS 1.3 only, Ed25519 only, raw keys only, and nothing is resumed."""
    calls, ffi, check = library.calls, library.ffi, library.check
    calls.ERR_clear_error()
    context = ffi.gc(check(calls.SSL_CTX_new(calls.TLS_method())), calls.SSL_CTX_free)
    check(calls.SSL_CTX_set1_server_cert_type(context, _RAW_KEY, len(_RAW_KEY)))
    check(calls.SSL_CTX_ctrl(context, _SET_OLDEST, _TLS_1_3, ffi.NULL))
    check(calls.SSL_CTX_ctrl(context, _SET_SIGNATURES, 0, ffi.new("char[]", b"ed25519")))
    check(calls.SSL_CTX_set_num_tickets(context, 0))
    calls.SSL_CTX_ctrl(context, _SET_CACHE, 0, ffi.NULL)
    calls.SSL_CTX_ctrl(context, _SET_MODE, _RELEASE_BUFFERS, ffi.NULL)
    calls.SSL_CTX_set_verify(context, _NO_CHECK, ffi.NULL)
    return context
