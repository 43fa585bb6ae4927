"""Engines with each other and with strangers: what one sends the other takes, or refuses as RFC 8446 says."""

import os
import ssl
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from zope.interface.verify import verifyObject

from pkarr.keys import Keypair
from pkarr.tls import gnutls, openssl
from pkarr.tls.engines import find, try_out
from pkarr.tls.session import IEngine, ISession, NoEngine, TlsFailed

from .installed import NAMES, installed

KEYPAIR = Keypair(bytes(range(32)))
HOSTS = ["", KEYPAIR.public_key.z32, f"_pubky.{KEYPAIR.public_key.z32}"]
PAIRS = list(product(NAMES, NAMES))
RENEWALS = {
    "gnutls": ("int gnutls_session_key_update(void *, unsigned int);", "gnutls_session_key_update"),
    "openssl": ("int SSL_key_update(void *, int);", "SSL_key_update"),
}


@pytest.fixture(params=NAMES)
def engine(request: pytest.FixtureRequest) -> IEngine:
    """Each engine."""
    return installed(request.param)


def shake(client: ISession, server: ISession) -> None:
    """Let both speak until neither has anything to say."""
    while True:
        client.handshake()
        said = client.take()
        server.feed(said)
        server.handshake()
        answer = server.take()
        client.feed(answer)
        if not said and not answer:
            break
    assert client.handshake()
    assert server.handshake()


def pair(client: str, server: str, host: str = "") -> tuple[ISession, ISession]:
    """Two sessions of these engines, after their handshake."""
    one, other = installed(client).connect(host), installed(server).accept(installed(server).server(KEYPAIR.seed))
    shake(one, other)
    return one, other


def rest(session: ISession) -> bytes:
    """All that can be decrypted now."""
    whole = b""
    while data := session.receive():
        whole += data
    return whole


def renew(name: str, session: Any) -> None:
    """Take a new key, and ask the peer for a new one of its own."""
    declaration, function = RENEWALS[name]
    calls: Any = session._calls if name == "gnutls" else session._library
    calls.ffi.cdef(declaration, override=True)
    library = calls.library if name == "gnutls" else calls.calls
    assert getattr(library, function)(session.handle, 1) == (0 if name == "gnutls" else 1)
    if name == "openssl":
        assert library.SSL_do_handshake(session.handle) == 1  # sends it


def close(*sessions: ISession) -> None:
    """Free them."""
    for session in sessions:
        session.close()


def test_the_ports(engine: IEngine) -> None:
    """Engines and their sessions have what the interfaces ask for."""
    client, server = engine.connect("a"), engine.accept(engine.server(KEYPAIR.seed))
    verifyObject(IEngine, engine)
    verifyObject(ISession, client)
    verifyObject(ISession, server)
    close(client, server)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(("client", "server"), PAIRS)
def test_each_with_each(client: str, server: str, host: str) -> None:
    """Every client reaches every server by any name, sees its key, and a megabyte goes either way; then goodbye."""
    one, other = pair(client, server, host)
    assert one.peer_key() == KEYPAIR.public_key.raw
    assert other.name == (host or None)
    for sender, receiver in ((one, other), (other, one)):
        body = os.urandom(1_000_000)
        sender.send(body)
        receiver.feed(sender.take())
        assert rest(receiver) == body
    one.bye()
    other.feed(one.take())
    assert other.receive() == b""
    other.send(b"still")
    one.feed(other.take())
    assert one.receive() == b"still", "a goodbye ends one direction (RFC 8446, 6.1)"
    close(one, other)


@pytest.mark.parametrize(("client", "server"), PAIRS)
def test_a_new_key_and_data_behind_it(client: str, server: str) -> None:
    """A KeyUpdate (RFC 8446, 4.6.3) is answered, and what stands behind it in the same bytes is not forgotten."""
    one, other = pair(client, server)
    for name, sender, receiver in ((client, one, other), (server, other, one)):
        sender.send(b"before")
        renew(name, sender)
        sender.send(b"behind")
        receiver.feed(sender.take())
        assert rest(receiver) == b"beforebehind"
        sender.feed(receiver.take())
        assert sender.receive() is None
        receiver.send(b"answer")
        sender.feed(receiver.take())
        assert rest(sender) == b"answer"
    close(one, other)


@pytest.mark.parametrize(("client", "server"), PAIRS)
def test_a_flood_of_new_keys(client: str, server: str) -> None:
    """Who renews its key again and again, and sends nothing, is refused, or gets no more than it sent."""
    one, other = pair(client, server)
    flood = 0
    for _ in range(200):
        renew(client, one)
        said = one.take()
        flood += len(said)
        other.feed(said)
    try:
        assert rest(other) == b""
    except TlsFailed:
        assert server == "gnutls"
    assert len(other.take()) <= flood
    close(one, other)


@pytest.mark.parametrize(("client", "server"), PAIRS)
def test_another_hello_is_asked_for(client: str, server: str) -> None:
    """A client whose first hello has no group of the server's says hello again, by a name with an underscore too."""
    one = installed(client).connect(HOSTS[-1])
    other = installed(server).accept(installed(server).server(KEYPAIR.seed))
    narrow(server, other)
    shake(one, other)
    assert other.name == HOSTS[-1]
    assert one.peer_key() == KEYPAIR.public_key.raw
    close(one, other)


def narrow(name: str, session: Any) -> None:
    """Let a server know no group but P-256: clients send no share of it at first."""
    if name == "gnutls":
        calls = session._calls
        holder = calls.ffi.new("void **")
        only = gnutls.PRIORITY.replace(b"+GROUP-X25519:", b"")
        assert calls.library.gnutls_priority_init2(holder, only, calls.ffi.NULL, 0) == 0
        assert calls.library.gnutls_priority_set(session.handle, holder[0]) == 0
    else:
        library = session._library
        assert library.calls.SSL_ctrl(session.handle, 92, 0, library.ffi.new("char[]", b"P-256")) == 1


def refused(engine: IEngine, context: ssl.SSLContext) -> tuple[bytes, str]:
    """What a client of Python's ssl, without raw keys, is told by a server: the bytes, and how it reads them."""
    server = engine.accept(engine.server(KEYPAIR.seed))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="example.com")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    server.feed(outgoing.read())
    with pytest.raises(TlsFailed):
        server.handshake()
    said = server.take()
    incoming.write(said)
    with pytest.raises(ssl.SSLError) as error:
        client.do_handshake()
    server.close()
    return said, str(error.value)


def test_a_client_of_certificates(engine: IEngine) -> None:
    """A client that offers no raw keys gets the alert handshake_failure (40), as from the official server."""
    said, read = refused(engine, ssl.create_default_context())
    assert said[-2:] == bytes((2, 40)), said
    assert "HANDSHAKE_FAILURE" in read.upper().replace(" ", "_")


def test_an_old_client(engine: IEngine) -> None:
    """A client of TLS 1.2 is refused with an alert: handshake_failure (40) or protocol_version (70)."""
    context = ssl.create_default_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    said, _ = refused(engine, context)
    assert said[-2] == 2
    assert said[-1] in (40, 70)


@pytest.mark.parametrize("cut", [1, 60, 200])
def test_a_cut_hello(engine: IEngine, cut: int) -> None:
    """A server waits for the rest of a hello, and says nothing before."""
    client, server = engine.connect(HOSTS[1]), engine.accept(engine.server(KEYPAIR.seed))
    client.handshake()
    server.feed(client.take()[:cut])
    assert server.handshake() is False
    assert server.take() == b""
    close(client, server)


def test_a_session_that_failed(engine: IEngine) -> None:
    """After a failure a session can be asked for what there is to send, said goodbye to, closed, and closed again."""
    server = engine.accept(engine.server(KEYPAIR.seed))
    server.feed(b"\x16\x03\x01\x00\x05" + bytes((1, 0, 0, 1, 0)))
    with pytest.raises(TlsFailed):
        server.handshake()
    assert server.take()[:1] == b"\x15", "an alert"
    with pytest.raises(TlsFailed):
        server.handshake()
    server.bye()
    close(server, server)


def test_the_engine_of_this_machine() -> None:
    """One is found, and has shown what it can."""
    assert find().name.split()[0] in ("OpenSSL", "GnuTLS")


def test_the_openssl_in_a_package() -> None:
    """The OpenSSL that is tested can be used; the one of a system too old says which version it needs."""
    assert find([lambda: installed("openssl")]).name.startswith("OpenSSL 3.")


def old() -> IEngine:
    """A library without these calls."""
    raise NoEngine("OpenSSL 3.0.19 is too old: 3.2 is the first with raw public keys")


def forbidden() -> IEngine:
    """A system that forbids callbacks."""
    raise MemoryError


@pytest.mark.parametrize(
    ("candidates", "words"),
    [
        ([old], r"3\.0\.19 is too old"),
        ([forbidden], "no library call back"),
        ([lambda: gnutls.load("libgnutls.so.none"), lambda: openssl.load("libssl.so.none")], "GnuTLS is missing.*"),
        ([lambda: gnutls.load("libc.so.6")], "GnuTLS"),
        ([lambda: openssl.load("libc.so.6")], r"3\.2 is the first"),
    ],
)
def test_no_engine(candidates: list[Callable[[], IEngine]], words: str) -> None:
    """Where nothing works the sentence says what to install, and what is wrong with what is there."""
    with pytest.raises(NoEngine, match=f"apt install libgnutls30.*{words}"):
        find(candidates)


def test_the_next_one_is_tried() -> None:
    """A library that cannot is passed over."""
    assert find([old, gnutls.load]).name.startswith("GnuTLS")


def test_the_trick_is_needed_and_watched() -> None:
    """Without the change in its buffer GnuTLS refuses a name with an underscore, and only such; the trial tells."""
    lost = gnutls.load()
    signature = "int(void *, const unsigned char *, size_t)"
    lost._calls.read = lost._calls.ffi.callback(signature, lambda *_: 0, error=-1)
    for host, is_taken in ((HOSTS[1], True), (HOSTS[2], False)):
        client, server = lost.connect(host), lost.accept(lost.server(KEYPAIR.seed))
        client.handshake()
        server.feed(client.take())
        if is_taken:
            assert server.handshake() is False
        else:
            with pytest.raises(TlsFailed, match="disallowed"):
                server.handshake()
        close(client, server)
    with pytest.raises(NoEngine, match=r"was tried and fails: .*disallowed"):
        try_out(lost)


def test_an_engine_that_mixes_up_keys(engine: IEngine) -> None:
    """An engine whose server shows another key than it was given fails its trial."""

    class Stubborn:
        name = "Stubborn 1.0"

        def server(self, seed: bytes) -> object:
            return engine.server(bytes(32))

        accept = staticmethod(engine.accept)
        connect = staticmethod(engine.connect)

    stubborn: Any = Stubborn()
    with pytest.raises(NoEngine, match="was tried and fails: the key"):
        try_out(stubborn)
