"""What the DHT keeps: values under their own hash, and newest values under a public key (BEP 44).

A value v is anything in bencode; records hold it as the bytes that were hashed or signed. A signed packet is the
mutable item whose v is its DNS message as a byte string, without salt.
"""

from __future__ import annotations

import hashlib

from attrs import field, frozen
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from pkarr.dht import bencode
from pkarr.keys import KEY_LENGTH, SIGNATURE_LENGTH

MAX_VALUE = 1000  # bytes of v (BEP 44), not counting the length that stands before a string: so PKARR counts
MAX_SALT = 64  # bytes
MIN_SEQ, MAX_SEQ = -(2**63), 2**63 - 1


@frozen
class ImmutableItem:
    """A value under its own hash. `v` is in bencode."""

    v: bytes = field(repr=False)

    @property
    def target(self) -> bytes:
        """Where the DHT keeps it."""
        return _sha1(self.v)


@frozen
class MutableItem:
    """A value that the owner of a key replaces by one of a higher `seq`. `v` is in bencode, `k` and `sig` raw."""

    k: bytes
    seq: int
    v: bytes = field(repr=False)
    sig: bytes = field(repr=False)
    salt: bytes = b""

    @property
    def target(self) -> bytes:
        """Where the DHT keeps it."""
        return mutable_target(self.k, self.salt)

    def is_valid(self) -> bool:
        """Whether the key's owner signed this value with this number. Takes 0.1 ms."""
        if len(self.k) != KEY_LENGTH or len(self.sig) != SIGNATURE_LENGTH:
            return False
        try:
            VerifyKey(self.k).verify(signable(self.seq, self.v, self.salt), self.sig)
        except (BadSignatureError, ValueError):
            return False
        return True

    def is_newer_than(self, other: MutableItem) -> bool:
        """Whether this one replaces another under the same target.

        BEP 44 does not say what to do with two values of one `seq`. The larger string wins, as among packets, so
        that all nodes end with the same.
        """
        return (self.seq, _content(self.v)) > (other.seq, _content(other.v))


Item = ImmutableItem | MutableItem


def mutable_target(k: bytes, salt: bytes = b"") -> bytes:
    """Where the DHT keeps what a key signs."""
    return _sha1(k + salt)


def signable(seq: int, v: bytes, salt: bytes = b"") -> bytes:
    """The bytes that the signature of a mutable item covers."""
    prefix = b"4:salt%d:%b" % (len(salt), salt) if salt else b""
    return b"%b3:seqi%de1:v%b" % (prefix, seq, v)


def length_of(v: bytes) -> int:
    """How many bytes count against MAX_VALUE."""
    return len(_content(v))


def string_in(v: bytes) -> bytes | None:
    """The byte string that a value is; None if it is another kind of value."""
    try:
        value = bencode.decode(v)
    except bencode.InvalidBencode:
        return None
    return value if isinstance(value, bytes) else None


def _content(v: bytes) -> bytes:
    return v[v.index(b":") + 1 :] if v[:1].isdigit() else v


def _sha1(message: bytes) -> bytes:
    return hashlib.sha1(message, usedforsecurity=False).digest()
