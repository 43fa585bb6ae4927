"""What a TLS library has to do: sessions over memory. Nobody but its own module knows the library."""

# mypy: disable-error-code="empty-body"

from __future__ import annotations

from zope.interface import Attribute, Interface

SPKI = bytes.fromhex("302a300506032b6570032100")
"""Before the 32 bytes of an Ed25519 key: SubjectPublicKeyInfo (RFC 8410). This is what the wire shows of a key."""

PKCS8 = bytes.fromhex("302e020100300506032b657004220420")
"""Before the 32 bytes of an Ed25519 seed: PrivateKeyInfo (RFC 8410)."""


class NoEngine(Exception):
    """There is no library on this machine that speaks TLS with raw public keys; the text says what to install."""


class TlsFailed(Exception):
    """A session that cannot go on. What has to be said to the peer is in `take`."""


class ISession(Interface):
    """One end of a connection, over memory. Not thread-safe. `close` it once, and never from within a call of it."""

    name: str | None = Attribute(
        "The host name that a client asked for, as it stood on the wire; None if it named none."
    )

    def feed(data: bytes) -> None:
        """Bytes that came from the peer."""

    def handshake() -> bool:
        """Go on with the handshake as far as the bytes allow; True when it is done. Raises `TlsFailed`."""

    def peer_key() -> bytes | None:
        """The 32 bytes of the server's key, after the handshake; None if it showed something else than one key."""

    def receive() -> bytes | None:
        """What the peer sent next; empty when it said goodbye, None if more bytes are needed. Raises `TlsFailed`."""

    def send(data: bytes) -> None:
        """Encrypt. Raises `TlsFailed`."""

    def refuse() -> None:
        """Tell the peer that its key is not the one."""

    def bye() -> None:
        """Tell the peer that nothing more comes."""

    def take() -> bytes:
        """Bytes that must go to the peer; each is given once."""

    def close() -> None:
        """Free it."""


class IEngine(Interface):
    """A library that speaks TLS 1.3 with raw public keys."""

    name: str = Attribute("The library and its version, for people.")

    def server(seed: bytes) -> object:
        """What sessions of a server with this Ed25519 seed share; give it to `accept`."""

    def accept(shared: object) -> ISession:
        """A server's end of a new connection."""

    def connect(host: str) -> ISession:
        """A client's end; `host` is the name to ask for, empty for none. Check `peer_key` before sending anything."""
