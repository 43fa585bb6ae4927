"""Which library speaks TLS on this machine: the first that is there and shows that it can.

OpenSSL comes first: it needs no working around. Where it is too old, GnuTLS does it. Either has to shake hands with
itself before anything relies on it, for a setting of the system or a new version can take away what is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from pkarr.keys import Keypair
from pkarr.tls import gnutls, openssl
from pkarr.tls.session import IEngine, ISession, NoEngine, TlsFailed

_ROUNDS = 4
"""Times that each side speaks at most in a handshake: twice, and twice more if the server asks for another hello."""


def find(candidates: Sequence[Callable[[], IEngine]] = (openssl.load, gnutls.load)) -> IEngine:
    """The first engine that works. Raises `NoEngine`, which says why none does, and what to install."""
    reasons = []
    for load in candidates:
        try:
            engine = load()
            try_out(engine)
        except NoEngine as error:
            reasons.append(str(error))
        except MemoryError:  # a hardened system forbids to make functions that a library can call
            reasons.append("the system lets no library call back")
        else:
            return engine
    needed = "TLS by public key needs OpenSSL 3.2 or newer, or GnuTLS (Debian: apt install libgnutls30)"
    raise NoEngine(f"{needed}: {'; '.join(reasons)}")


def try_out(engine: IEngine) -> None:
    """Shake hands in memory, by the hardest name that clients ask for, and say a word. Raises `NoEngine`.

    Takes some milliseconds.
    """
    keypair, host = Keypair.random(), f"_pubky.{Keypair.random().public_key.z32}"
    try:
        with ExitStack() as closing:
            client = engine.connect(host)
            closing.callback(client.close)
            server = engine.accept(engine.server(keypair.seed))
            closing.callback(server.close)
            fault = _fault(client, server, keypair.public_key.raw, host)
    except (TlsFailed, AttributeError) as error:  # attributes: functions that this version does not have
        fault = str(error)
    if fault is not None:
        raise NoEngine(f"{engine.name} was tried and fails: {fault}")


def _fault(client: ISession, server: ISession, key: bytes, host: str) -> str | None:
    """What is wrong with these two."""
    for _ in range(_ROUNDS):
        client.handshake()
        server.feed(client.take())
        server.handshake()
        client.feed(server.take())
    if not (client.handshake() and server.handshake()):
        return "the handshake does not end"
    if client.peer_key() != key:
        return "the key of the server is not the one that it was given"
    if server.name != host:
        return "the server does not hear who is asked for"
    for one, other in ((client, server), (server, client)):
        one.send(host.encode())
        other.feed(one.take())
        if other.receive() != host.encode():
            return "what is sent does not arrive"
    return None
