"""The digest of an account's log: one 16-byte value for the set of its files.

Each live entry has a **mark**; the digest is the XOR of all marks. A write folds the old mark out and the new one in,
so two homeservers with the same files have the same digest, in whatever order the writes came. It guards against
accidents, not against malice: who chooses the contents can find two sets with one XOR.
"""

from blake3 import blake3

MARK_LENGTH = 16
EMPTY = bytes(MARK_LENGTH)
"""The digest of a log without entries."""


def mark(path: str, content_hash: bytes, length: int, modified: int, content_type: str) -> bytes:
    """The mark of an entry: the first 16 bytes of BLAKE3(path, NUL, hash, length, modified, type).

    Both numbers have 8 bytes, big-endian. Paths hold no NUL and the rest up to the type has a fixed length, so no two
    entries give the same text.
    """
    text = b"".join(
        (
            path.encode(),
            b"\0",
            content_hash,
            length.to_bytes(8, "big"),
            modified.to_bytes(8, "big"),
            content_type.encode(),
        )
    )
    return blake3(text).digest(MARK_LENGTH)


def fold(digest: bytes, *marks: bytes) -> bytes:
    """The digest after marks went in or out (both are the same step)."""
    value = int.from_bytes(digest, "big")
    for one in marks:
        value ^= int.from_bytes(one, "big")
    return value.to_bytes(MARK_LENGTH, "big")
