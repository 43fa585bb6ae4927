"""Recovery files: a secret key locked with a passphrase, for people to keep.

    "pubky.org/recovery" LF nonce[24] box[48]

The box is NaCl's secretbox (XSalsa20-Poly1305) over the 32 secret bytes; its key comes from the passphrase by
Argon2id (RFC 9106) with the fixed salt "recovery". libsodium's Argon2id insists on salts of 16 bytes, so that one
step is OpenSSL's. Each call takes 19 MiB and tens of milliseconds: not for the reactor's thread.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from pkarr.keys import KEY_LENGTH, Keypair

_SPEC = b"pubky.org/recovery"
_OLD_SPEC = b"pkarr.org/recovery"  # read, no longer written
_MAX_LENGTH = 4096  # bytes of a file we look at; ours have 91, others may carry a longer first line
_SALT = b"recovery"
_MEMORY = 19456  # KiB; with the two numbers below OWASP's second choice for Argon2id
_PASSES = 2
_LANES = 1


class InvalidRecoveryFile(ValueError):
    """No recovery file, or not under this passphrase. Its text is the official library's where there is one."""


def create_recovery_file(keypair: Keypair, passphrase: str, nonce: bytes | None = None) -> bytes:
    """Lock a secret key: 91 bytes. `nonce` is for tests; by default it is random, as it must be."""
    return _SPEC + b"\n" + SecretBox(_key(passphrase)).encrypt(keypair.seed, nonce)


def open_recovery_file(content: bytes, passphrase: str) -> Keypair:
    """Unlock a secret key. InvalidRecoveryFile if the form is wrong, the passphrase is, or a byte has changed."""
    if len(content) > _MAX_LENGTH:
        raise InvalidRecoveryFile(f"Recovery file should have at most {_MAX_LENGTH} bytes")
    spec, newline, locked = content.partition(b"\n")
    if not newline or not spec.startswith((_SPEC, _OLD_SPEC)):
        raise InvalidRecoveryFile("Recovery file should start with a spec line, followed by a new line character")
    if not locked:
        raise InvalidRecoveryFile("Recovery file should contain an encrypted secret key after the new line character")
    if len(locked) < SecretBox.NONCE_SIZE:
        raise InvalidRecoveryFile(
            f"Encrypted message too small, expected at least {SecretBox.NONCE_SIZE} bytes nonce, "
            f"received {len(locked)} bytes"
        )
    try:
        seed = SecretBox(_key(passphrase)).decrypt(locked)
    except CryptoError:
        raise InvalidRecoveryFile("aead::Error") from None
    if len(seed) != KEY_LENGTH:
        raise InvalidRecoveryFile(f"Recovery file should contain a secret key of {KEY_LENGTH} bytes")
    return Keypair(seed)


def _key(passphrase: str) -> bytes:
    """Stretch a passphrase to the key of the box. Any text is a passphrase, the empty one included."""
    derivation = Argon2id(salt=_SALT, length=SecretBox.KEY_SIZE, iterations=_PASSES, lanes=_LANES, memory_cost=_MEMORY)
    return derivation.derive(passphrase.encode("utf-8", "surrogatepass"))
