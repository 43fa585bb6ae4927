"""What a client shows to be let in: the sign-in token, the signup token, the session's secret and its cookie.

A **sign-in token** ("AuthToken") is a note signed by a user's key: who, when, and with which capabilities a session
shall begin. It names no server, and holds for three minutes around its time. Its bytes, all of a fixed length but the
last two:

    signature 64 | namespace 10, "PUBKY:AUTH" | version 1, zero | time 8, microseconds, big-endian | public key 32 |
    length of the capabilities, a varint | capabilities, joined with commas

The signature is over everything from the *second* letter of the namespace on: the official programs leave the first
one out, by mistake, and all have to do it alike. They never look at the namespace either; here another one is refused
with `Invalid namespace`, lest a signature made for something else opens an account. Bytes after the capabilities are
signed but mean nothing.

Signing in is answered with the session's **record**, and from then on the client sends the session's **secret** in a
cookie named like the user's key. The bytes of both are fixed by the clients in use.
"""

import re
import secrets
from collections.abc import Iterable
from email.utils import formatdate
from hashlib import sha256
from typing import Self

from attrs import field, frozen

from pkarr.base32 import CROCKFORD
from pkarr.keys import InvalidPublicKey, InvalidSignature, Keypair, PublicKey
from pubky_homeserver.core.capabilities import Capability, parse_capabilities
from pubky_homeserver.core.errors import InvalidAuthToken, InvalidCapability, InvalidSignupToken
from pubky_homeserver.core.postcard import Malformed, Reader, encode_number, encode_text

NAMESPACE = b"PUBKY:AUTH"
VERSION = 0

WINDOW = 180 * 1_000_000
"""Microseconds that a sign-in token's time may lie before or after now (the protocol's three minutes)."""

REMEMBERED = 360
"""Seconds to remember a used token: both sides of its window."""

MAX_CAPABILITIES = 16_384
"""Characters of the capabilities in a sign-in token. They are read before the signature: anybody can send them."""

SECRET_BYTES = 16
"""Random bytes of a session's secret; 26 characters."""

SIGNUP_TOKEN_BYTES = 7
"""Random bytes of a signup token; 12 characters and two hyphens."""

COOKIE_LIFETIME = 365 * 86_400
"""Seconds that a client keeps its cookie. The session itself does not end by time."""

_SIGNATURE = slice(0, 64)
_SIGNED = slice(65, None)
_NAMESPACE = slice(64, 74)
_VERSION = 74
_UNSPEAKABLE = re.compile(r"[\x00-\x20\x7f-\U0010ffff#%/:<>?@\[\\\]^|]")
"""What no domain name holds (WHATWG URL, forbidden domain code points); hosts reach us in ASCII."""

_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")


@frozen
class AuthToken:
    """A sign-in token that was read. It proves nothing before `verify`."""

    public_key: PublicKey
    timestamp: int
    """Microseconds since the Unix epoch."""
    capabilities: tuple[Capability, ...]
    _signature: bytes = field(repr=False)
    _signed: bytes = field(repr=False)

    @classmethod
    def parse(cls, encoded: bytes) -> Self:
        """Read a token. Raises `InvalidAuthToken` with the text that clients know."""
        if len(encoded) <= _VERSION:
            raise InvalidAuthToken("Hit the end of buffer, expected more data")
        if encoded[_VERSION] > VERSION:
            raise InvalidAuthToken("Unknown version")
        if encoded[_NAMESPACE] != NAMESPACE:
            raise InvalidAuthToken("Invalid namespace")
        fields = Reader(encoded, _VERSION + 1)
        try:
            timestamp = int.from_bytes(fields.take(8), "big")
            public_key = PublicKey(fields.take(32))
            text = fields.text()
            if len(text) > MAX_CAPABILITIES:
                raise InvalidCapability("too many capabilities")
            capabilities = parse_capabilities(text)
        except Malformed as error:
            raise InvalidAuthToken(str(error)) from None
        except (InvalidPublicKey, InvalidCapability):
            raise InvalidAuthToken("Serde Deserialization Error") from None
        return cls(public_key, timestamp, capabilities, encoded[_SIGNATURE], encoded[_SIGNED])

    @property
    def pubky(self) -> str:
        """The user."""
        return self.public_key.z32

    @property
    def id(self) -> bytes:
        """What tells tokens apart: no two that are accepted may have the same time and the same key."""
        return self.timestamp.to_bytes(8, "big") + self.public_key.raw

    def verify(self, now: int) -> None:
        """Return if the user signed it, at about `now` (microseconds). Raises `InvalidAuthToken`."""
        if self.timestamp - now > WINDOW:
            raise InvalidAuthToken("AuthToken has a timestamp that is more than 3 minutes in the future")
        if self.timestamp - now < -WINDOW:
            raise InvalidAuthToken("AuthToken has a timestamp that is more than 3 minutes in the past")
        try:
            self.public_key.verify(self._signed, self._signature)
        except InvalidSignature:
            raise InvalidAuthToken("Invalid Signature") from None


def sign_auth_token(keypair: Keypair, capabilities: str, timestamp: int) -> bytes:
    """The bytes of a sign-in token, for those who sign in. `capabilities` is the text of a list."""
    unsigned = b"".join(
        (
            NAMESPACE,
            bytes([VERSION]),
            timestamp.to_bytes(8, "big"),
            keypair.public_key.raw,
            encode_text(capabilities),
        )
    )
    return keypair.sign(unsigned[1:]) + unsigned


# --- signup tokens ------------------------------------------------------------------------------------------------


def new_signup_token() -> str:
    """A random signup token, `XXXX-XXXX-XXXX`."""
    spelled = CROCKFORD.encode(secrets.token_bytes(SIGNUP_TOKEN_BYTES))
    return f"{spelled[:4]}-{spelled[4:8]}-{spelled[8:]}"


def check_signup_token(text: str) -> None:
    """Raise `InvalidSignupToken` unless the text has 14 characters, hyphens anywhere and Crockford's digits else.

    That is looser than what `new_signup_token` makes (lower case, any number of hyphens), as in the reference: a text
    of this form that nobody made is answered as unknown, not as malformed.
    """
    try:
        CROCKFORD.decode(text.replace("-", ""))
    except ValueError:
        raise InvalidSignupToken from None
    if len(text) != 14:
        raise InvalidSignupToken


def crockford_decode(text: str) -> bytes:
    """Read Crockford's base 32, the spelling of event cursors too. ValueError for any other character."""
    return CROCKFORD.decode(text)


# --- sessions -----------------------------------------------------------------------------------------------------


def new_secret() -> str:
    """A random session secret: 26 characters."""
    return CROCKFORD.encode(secrets.token_bytes(SECRET_BYTES))


def session_id(secret: str) -> str:
    """What may be kept of a secret: SHA-256 of its text, hex."""
    return sha256(secret.encode()).hexdigest()


class InvalidSessionRecord(ValueError):
    """Bytes that are no session record."""


def encode_session(pubky: str, created: int, capabilities: Iterable[Capability]) -> bytes:
    """The record of a session.

    Version, key (32 bytes), time, two texts that are always empty (name and user agent, once), number of capabilities
    and each as text. The unit of the time depends on the route, so it is the caller's: microseconds when a session
    begins, seconds later on.
    """
    texts = [encode_text(str(capability)) for capability in capabilities]
    head = (encode_number(VERSION), PublicKey.from_z32(pubky).raw, encode_number(created))
    return b"".join((*head, encode_text(""), encode_text(""), encode_number(len(texts)), *texts))


def decode_session(encoded: bytes) -> tuple[str, int, tuple[Capability, ...]]:
    """Key, time and capabilities of a session record, as a client reads it. Raises `InvalidSessionRecord`."""
    if not encoded:
        raise InvalidSessionRecord("Empty payload")
    if encoded[0] > VERSION:
        raise InvalidSessionRecord("Unknown version")
    fields = Reader(encoded, 1)
    try:
        pubky = PublicKey(fields.take(32)).z32
        created = fields.number()
        fields.text()
        fields.text()
        capabilities = tuple([Capability.parse(fields.text()) for _ in range(fields.number())])
    except Malformed as error:
        raise InvalidSessionRecord(str(error)) from None
    except (InvalidPublicKey, InvalidCapability):
        raise InvalidSessionRecord("Serde Deserialization Error") from None
    return pubky, created, capabilities


def session_cookie(pubky: str, secret: str, host: str, now: float) -> str:
    """The `Set-Cookie` that gives a client its secret. `host`: the `Host` it asked; `now`: seconds since the epoch."""
    return _cookie(pubky, secret, host, COOKIE_LIFETIME, now + COOKIE_LIFETIME)


def removal_cookie(pubky: str, host: str, now: float) -> str:
    """The `Set-Cookie` that makes a client forget its secret."""
    return _cookie(pubky, "", host, 0, now - COOKIE_LIFETIME)


def _cookie(name: str, value: str, host: str, lifetime: int, expires: float) -> str:
    secure = "; SameSite=None; Secure" if is_secure_host(host) else ""
    date = formatdate(expires, usegmt=True)
    return f"{name}={value}; HttpOnly{secure}; Path=/; Max-Age={lifetime}; Expires={date}"


def is_secure_host(host: str) -> bool:
    """Whether a browser that asked this `Host` came over TLS: it is a public key, or a domain name with a dot.

    Addresses and names without a dot are the machines of developers and of local networks, where a cookie marked
    `Secure` would be dropped.
    """
    name = host.rpartition("@")[2]
    if name.startswith("["):
        return False
    name = name.partition(":")[0]
    try:
        PublicKey.parse(name)
        return True
    except InvalidPublicKey:
        pass
    last = name.removesuffix(".").rpartition(".")[2]
    return "." in name and not _UNSPEAKABLE.search(name) and not _NUMBER.fullmatch(last)
