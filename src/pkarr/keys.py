"""Ed25519 keys: who somebody is, and the name by which the Pubky network knows them.

A public key is written in z-base-32, 52 lower-case characters ("z32"), short enough for one label of a host name.
Text from users and from other machines comes in many dresses (`pk:<z32>`, `https://_pubky.<z32>/path`); the reader
for it, `PublicKey.parse`, undresses it by the same fixed steps as the official programs, so that both sides always
find the same key, or none, in the same text.

Which 32 bytes are a key: those that ed25519-dalek, the official programs' library, decompresses to a point of the
curve. It is more generous than RFC 8032 (y may exceed the field's prime; the sign bit of x = 0 is ignored), and
libsodium's own test is stricter (it refuses points of small order), so the test here is our own arithmetic.

Which signatures are valid: those that libsodium accepts. It and ed25519-dalek's plain `verify` both demand a
canonical S and compare R without the cofactor; tried, they disagree in one thing only. libsodium refuses keys of
small order, keys written with a y above the prime, and an R of small order. For such a key anybody can make
signatures, and an honest signer never makes such an R, so the refusal costs no user anything.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import lru_cache

from attrs import field, frozen
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from pkarr.base32 import Z_BASE_32

KEY_LENGTH = 32  # bytes, of a public key and of a secret seed
SIGNATURE_LENGTH = 64  # bytes
Z32_LENGTH = 52  # characters: 256 bits, five a character
PREFIX = "pubky"  # what people see before a key; no machine accepts it
_CACHED_KEYS = 8192  # parsed keys kept in memory, well under 1 KiB each

_HEXADECIMAL = frozenset("0123456789abcdefABCDEF")

_PRIME = 2**255 - 19  # of the curve's field
_D = -121665 * pow(121666, -1, _PRIME) % _PRIME  # of the curve's equation: -x² + y² = 1 + d·x²·y²


class InvalidPublicKey(ValueError):
    """Text or bytes that are no public key. Its text is the official library's, and goes into HTTP answers."""


class InvalidSecretKey(ValueError):
    """A secret key file that does not hold 64 hexadecimal digits. Its text never quotes the file."""


class InvalidSignature(ValueError):
    """A signature that its key did not make over this message."""

    def __init__(self) -> None:
        super().__init__("signature error")


def _is_point(raw: bytes) -> bool:
    """Whether a point of the curve has this y: whether (y² - 1) / (d·y² + 1) is a square, zero included.

    Euler's criterion, on numerator times denominator, which is a square exactly if their quotient is one.
    """
    y = int.from_bytes(raw, "little") & ((1 << 255) - 1)
    numerator, denominator = (y * y - 1) % _PRIME, (_D * y * y + 1) % _PRIME
    return pow(numerator * denominator, (_PRIME - 1) // 2, _PRIME) in (0, 1)


@frozen(repr=False, order=True)
class PublicKey:
    """An Ed25519 public key: 32 bytes that are a point of the curve. InvalidPublicKey if they are not."""

    raw: bytes = field()
    z32: str = field(init=False, eq=False, order=False)

    @raw.validator
    def _check(self, _attribute: object, raw: bytes) -> None:
        if len(raw) != KEY_LENGTH:
            raise InvalidPublicKey(f"Invalid PublicKey length, expected 32 bytes but got: {len(raw)}")
        if not _is_point(raw):
            raise InvalidPublicKey("Invalid Ed25519 publickey; Cannot decompress Edwards point")

    @z32.default
    def _spell(self) -> str:
        return Z_BASE_32.encode(self.raw)

    @staticmethod
    def from_z32(text: str) -> PublicKey:
        """Read plain z-base-32 and nothing around it. InvalidPublicKey otherwise."""
        return _cached(text)

    @staticmethod
    def parse(text: str) -> PublicKey:
        """Read the key in a host, a header, a URL or a `pk:` URI. InvalidPublicKey if there is none.

        Of `a:b` only `b` is looked at, so a host with a port has no key here: take the port off before. The form
        with `PREFIX` is not understood either.
        """
        return _cached(_undressed(text))

    def verify(self, message: bytes, signature: bytes) -> None:
        """Return if this key signed the message; InvalidSignature if not, or if the signature is malformed."""
        try:
            VerifyKey(self.raw).verify(message, signature)
        except (BadSignatureError, ValueError):
            raise InvalidSignature from None

    def __bytes__(self) -> bytes:
        return self.raw

    def __str__(self) -> str:
        return self.z32

    def __repr__(self) -> str:
        return f"PublicKey({self.z32})"


@lru_cache(_CACHED_KEYS)
def _cached(text: str) -> PublicKey:
    """The key that text spells. A request names the same key often, and the test for a curve point costs 0.1 ms.

    Only keys are remembered, never errors, so nothing longer than 52 characters stays in memory.
    """
    try:
        raw = Z_BASE_32.decode(text)
    except ValueError:
        raise InvalidPublicKey("Invalid PublicKey encoding") from None
    return PublicKey(raw)


def is_prefixed(text: str) -> bool:
    """Whether text has the form shown to people, `pubky` and 52 bytes, whatever these are."""
    return text.startswith(PREFIX) and len(_utf8(text)) == len(PREFIX) + Z32_LENGTH


def _undressed(text: str) -> str:
    """Peel off what surrounds a key, step by step, until no more than 52 bytes are left."""
    rest = _utf8(text)
    for peel in _PEELS:
        if len(rest) <= Z32_LENGTH:
            break
        rest = peel(rest)
    return rest.decode("utf-8", "surrogatepass")


def _after(mark: bytes) -> Callable[[bytes], bytes]:
    return lambda text: text.split(mark, 1)[-1]


def _before(mark: bytes) -> Callable[[bytes], bytes]:
    return lambda text: text.split(mark, 1)[0]


def _last_label(text: bytes) -> bytes:
    return (text.strip(b".") if text.endswith(b".") else text).rsplit(b".", 1)[-1]


# Scheme, slashes, user, port, path, query, fragment, the labels before the last one.
_PEELS: tuple[Callable[[bytes], bytes], ...] = (
    _after(b":"),
    lambda text: text.removeprefix(b"//"),
    _after(b"@"),
    _before(b":"),
    _before(b"/"),
    _before(b"?"),
    _before(b"#"),
    _last_label,
)


def _utf8(text: str) -> bytes:
    """The bytes that the official parser counts and cuts. Lone surrogates, which it never meets, pass through."""
    return text.encode("utf-8", "surrogatepass")


def _checked_seed(seed: bytes) -> bytes:
    if len(seed) != KEY_LENGTH:
        raise InvalidSecretKey(f"a secret key has {KEY_LENGTH} bytes, this one has {len(seed)}")
    return seed


@frozen(repr=False, eq=False)
class Keypair:
    """A secret key and its public key. Neither `repr` nor an error message shows the secret.

    `seed` is the secret key of RFC 8032: 32 random bytes.
    """

    seed: bytes = field(converter=_checked_seed)
    _signing_key: SigningKey = field(init=False)
    public_key: PublicKey = field(init=False)

    @_signing_key.default
    def _expand(self) -> SigningKey:
        return SigningKey(self.seed)

    @public_key.default
    def _derive(self) -> PublicKey:
        return PublicKey(bytes(self._signing_key.verify_key))

    @classmethod
    def random(cls) -> Keypair:
        """A new key from the system's random numbers."""
        return cls(secrets.token_bytes(KEY_LENGTH))

    @classmethod
    def from_file_text(cls, text: str) -> Keypair:
        """Read what a secret key file holds: 64 hexadecimal digits, blanks around them. InvalidSecretKey otherwise."""
        digits = text.strip()
        if len(digits) != 2 * KEY_LENGTH or not set(digits) <= _HEXADECIMAL:
            raise InvalidSecretKey(f"a secret key file holds {2 * KEY_LENGTH} hexadecimal digits")
        return cls(bytes.fromhex(digits))

    def to_file_text(self) -> str:
        """What a secret key file holds. It is the secret: write it with mode 0600 and nowhere else."""
        return self.seed.hex()

    def sign(self, message: bytes) -> bytes:
        """An Ed25519 signature of 64 bytes; the same message always gives the same one (RFC 8032)."""
        return self._signing_key.sign(message).signature

    def __repr__(self) -> str:
        return f"Keypair({self.public_key.z32})"
