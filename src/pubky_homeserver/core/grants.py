"""Grants, and proofs of possession: how an app signs in on a user's behalf.

A **grant** is a note signed by a user's key: this client key may do these things until then. It names no server. A
**proof of possession** is a note signed by the client key: I am here, at this server, now, with this grant. Both are
JSON Web Signatures in compact form (RFC 7515) with Ed25519, unpadded base64url, and their own `typ`.

The reading is the protocol's own, which common libraries do not share: `alg` is exactly `EdDSA`, other members of the
header (`crit` too) are ignored, padding is refused, and the claims are judged before the signature.
"""

import json
import re
from base64 import urlsafe_b64encode
from binascii import Error as NotBase64
from binascii import a2b_base64
from collections.abc import Callable, Mapping
from secrets import token_bytes
from typing import Any, Self

from attrs import frozen

from pkarr.keys import InvalidPublicKey, InvalidSignature, Keypair, PublicKey
from pubky_homeserver.core.capabilities import Capability, has_root
from pubky_homeserver.core.errors import Forbidden, GrantRefused, InvalidCapability, InvalidRequest, MalformedGrant
from pubky_homeserver.core.records import Grant

GRANT_TYPE = "pubky-grant"
POP_TYPE = "pubky-pop"

ALGORITHM = "EdDSA"

POP_WINDOW = 180
"""Seconds that a proof's time may lie before or after now."""

NONCE_REMEMBERED = 360
"""Seconds to remember a proof's nonce: both sides of its window."""

BEARER_LIFETIME = 3600
"""Seconds that a bearer lives, if its grant does."""

SIGNUP_CLIENT = "pubky.signup"
"""What a grant for signing up names as its client."""

SIGNUP_LIFETIME = 300
"""Seconds that such a grant may be valid."""

MAX_CLIENT_ID = 253
"""Bytes of a client's id, which normally is a domain name."""

MAX_JWS = 65_536
"""Characters of a grant or a proof: it is read before its signature is checked. Room for a thousand capabilities."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,22}", re.ASCII)
"""What grants and nonces are named with: up to 16 random bytes in base64url."""

_BASE64URL = re.compile(rb"[A-Za-z0-9_-]*", re.ASCII)
_U64 = 1 << 64


def new_bearer() -> str:
    """A random bearer: 43 characters."""
    return _encoded(token_bytes(32)).decode("ascii")


def is_grant_id(text: str) -> bool:
    """Whether the text can be a grant's id."""
    return _ID.fullmatch(text) is not None


@frozen
class _Signed:
    """A compact JWS in parts; nothing of it is verified."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    message: bytes
    """What is signed."""
    signature: bytes

    @classmethod
    def split(cls, text: str) -> Self:
        """Take a JWS apart. ValueError for what is none."""
        if len(text) > MAX_JWS:
            raise ValueError("too long")
        header, claims, signature = text.encode("ascii").split(b".")
        message = header + b"." + claims
        return cls(_object(_decoded(header)), _object(_decoded(claims)), message, _decoded_or_nothing(signature))

    def is_by(self, key: PublicKey) -> bool:
        """Whether the key signed it, with the one algorithm there is."""
        if self.header.get("alg") != ALGORITHM:
            return False
        try:
            key.verify(self.message, self.signature)
        except InvalidSignature:
            return False
        return True


def read_grant(text: str) -> Grant:
    """Read a grant and check its signature and type, not its time.

    Raises, in this order: `MalformedGrant` (format), `GrantRefused` (signature), `MalformedGrant` (type).
    """
    try:
        signed = _Signed.split(text)
        claims = signed.claims
        issuer = _key(claims["iss"])
        grant = Grant(
            pubky=issuer.z32,
            client_id=_client_id(claims["client_id"]),
            capabilities=tuple(Capability.parse(_text(one)) for one in _list(claims["caps"])),
            client_key=_key(claims["cnf"]).z32,
            id=_random_id(claims["jti"]),
            issued_at=_seconds(claims["iat"]),
            expires_at=_seconds(claims["exp"]),
        )
    except (KeyError, ValueError, InvalidCapability):
        raise MalformedGrant("Invalid grant: invalid grant format") from None
    if not signed.is_by(issuer):
        raise GrantRefused("Invalid grant: invalid grant signature")
    if signed.header.get("typ") != GRANT_TYPE:
        raise MalformedGrant("Invalid grant: invalid grant header type, expected pubky-grant")
    return grant


def check_time(grant: Grant, now: int) -> None:
    """Raise `GrantRefused` unless the grant is valid at `now` (Unix seconds)."""
    if grant.expires_at <= now:
        raise GrantRefused("Invalid grant: grant has expired")


def check_signup(grant: Grant, now: int) -> None:
    """Check that a grant is one for signing up at `now` (Unix seconds): short-lived, fresh, for everything.

    Raises, in this order, `InvalidRequest` (client), `Forbidden` (capabilities), `InvalidRequest` (times).
    """
    if grant.client_id != SIGNUP_CLIENT:
        raise InvalidRequest("signup grants must use client_id pubky.signup")
    if not has_root(grant.capabilities):
        raise Forbidden("Root capability required")
    if grant.issued_at > now + POP_WINDOW:
        raise InvalidRequest("signup grant iat is too far in the future")
    if grant.expires_at - grant.issued_at > SIGNUP_LIFETIME:
        raise InvalidRequest("signup grant lifetime exceeds 5 minutes")


def check_proof(text: str, grant: Grant, audience: str, now: int) -> str:
    """Check a proof of possession of a grant, made for the server `audience` at about `now` (Unix seconds).

    Returns its nonce, which must not have been used before. Raises `GrantRefused`.
    """
    refusal: Callable[[str], GrantRefused] = lambda reason: GrantRefused(f"Invalid PoP proof: {reason}")  # noqa: E731
    try:
        signed = _Signed.split(text)
        claims = signed.claims
        aud, gid = _key(claims["aud"]).z32, _random_id(claims["gid"])
        nonce, issued_at = _random_id(claims["nonce"]), _seconds(claims["iat"])
    except (KeyError, ValueError):
        raise refusal("invalid PoP signature") from None
    if not signed.is_by(PublicKey.from_z32(grant.client_key)):
        raise refusal("invalid PoP signature")
    if signed.header.get("typ") != POP_TYPE:
        raise refusal("invalid PoP header type, expected pubky-pop")
    if aud != audience:
        raise refusal("PoP audience mismatch")
    if gid != grant.id:
        raise refusal("PoP grant ID mismatch")
    if abs(now - issued_at) > POP_WINDOW:
        raise refusal("PoP timestamp out of range")
    return nonce


def sign_jws(
    keypair: Keypair, typ: str, claims: Mapping[str, object], header: Mapping[str, object] | None = None
) -> str:
    """A JWS as the official clients write it; `header` overrides or adds members. For those who sign in."""
    members = {"alg": ALGORITHM, "typ": typ, **(header or {})}
    parts = [_spelled(members), _spelled(claims)]
    message = b".".join(map(_encoded, parts))
    return (message + b"." + _encoded(keypair.sign(message))).decode("ascii")


def _spelled(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _encoded(raw: bytes) -> bytes:
    return urlsafe_b64encode(raw).rstrip(b"=")


def _decoded(text: bytes) -> bytes:
    """Unpadded base64url, whose surplus bits are zero. ValueError for anything else."""
    if not _BASE64URL.fullmatch(text):
        raise ValueError("not base64url")
    try:
        raw = a2b_base64(text.replace(b"-", b"+").replace(b"_", b"/") + b"=" * (-len(text) % 4), strict_mode=True)
    except NotBase64 as error:
        raise ValueError(str(error)) from None
    if _encoded(raw) != text:
        raise ValueError("not canonical base64url")
    return raw


def _decoded_or_nothing(text: bytes) -> bytes:
    """A signature that cannot be read is a wrong one."""
    try:
        return _decoded(text)
    except ValueError:
        return b""


def _object(raw: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_members)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a member stands there twice")
    return members


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise ValueError("not a list")
    return value


def _seconds(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _U64:
        raise ValueError("not an unsigned integer")
    return value


def _key(value: object) -> PublicKey:
    try:
        return PublicKey.parse(_text(value))
    except InvalidPublicKey as error:
        raise ValueError(str(error)) from None


def _client_id(value: object) -> str:
    text = _text(value)
    if not 0 < len(text.encode()) <= MAX_CLIENT_ID:
        raise ValueError("a client id has 1 to 253 bytes")
    return text


def _random_id(value: object) -> str:
    text = _text(value)
    if not is_grant_id(text):
        raise ValueError("not an id")
    return text
