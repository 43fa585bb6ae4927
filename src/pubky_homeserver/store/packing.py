"""Records as bytes: how an entry, an event and a session lie in Redis. The sizes are what a million files cost.

    stat    hash 32 | length 6 | modified 7 | type
    entry   seq 5 | mark 16 | kind 1 | stat | body (kind `i`), 16 bytes of blob id (`b`) or nothing (`n`)
    event   operation 1 (`P`, `D`) | seq 5 | digest 16 | stat, of a `P` only | path

Numbers are big-endian. A type is its number in `TYPES`, one byte; or 0, one byte of length and the text. Scripts take
the fixed parts by position and put `seq` and `digest` in, so the parts come from here one by one.
"""

import json
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Sequence

from attrs import frozen

from pubky_homeserver.core.capabilities import format_capabilities, parse_capabilities
from pubky_homeserver.core.digests import MARK_LENGTH
from pubky_homeserver.core.quotas import UserQuota
from pubky_homeserver.core.records import Entry, Event, Operation, Session, SignupToken

TYPES = (
    "",
    "application/octet-stream",
    "application/json",
    "text/plain",
    "text/markdown",
    "text/html",
    "text/css",
    "text/javascript",
    "application/javascript",
    "text/csv",
    "text/xml",
    "text/calendar",
    "text/x-vcard",
    "text/x-yaml",
    "text/x-toml",
    "application/pdf",
    "application/zip",
    "application/gzip",
    "application/epub+zip",
    "application/wasm",
    "application/manifest+json",
    "application/rss+xml",
    "application/atom+xml",
    "application/vnd.sqlite3",
    "image/png",
    "image/jpeg",
    "image/gif",
    "image/webp",
    "image/avif",
    "image/heif",
    "image/svg+xml",
    "image/bmp",
    "image/tiff",
    "image/x-icon",
    "image/vnd.microsoft.icon",
    "audio/mpeg",
    "audio/mp4",
    "audio/m4a",
    "audio/ogg",
    "audio/opus",
    "audio/webm",
    "audio/x-flac",
    "audio/x-wav",
    "audio/wav",
    "audio/aac",
    "video/mp4",
    "video/webm",
    "video/quicktime",
    "video/x-matroska",
    "video/x-m4v",
    "font/woff2",
    "font/ttf",
    "application/font-woff",
    "application/font-sfnt",
)
"""Common types by number. Append only: the numbers are in the data. The first means "not in this table"."""

_NUMBERS = {text: number for number, text in enumerate(TYPES) if number}

_HASH = 32
_LENGTH = 6  # bytes of a length: 256 TiB
_MODIFIED = 7  # bytes of a time: until the year 4253, and beyond what Lua can hold
_SEQ = 5  # bytes of a sequence number: 10^12 writes to one log
_FIXED = _HASH + _LENGTH + _MODIFIED

_INLINE, _BLOB, _NEITHER = b"i", b"b", b"n"
_PUT = ord("P")

REIGN = 16 + _SEQ
"""Bytes of a reign: log id and first number."""


def pack_reign(log_id: bytes) -> bytes:
    """The first reign of a log."""
    return log_id + (1).to_bytes(_SEQ, "big")


def pack_stat(entry: Entry) -> bytes:
    """What an entry and its event say alike."""
    number = _NUMBERS.get(entry.content_type, 0)
    if number:
        content_type = bytes((number,))
    else:
        text = entry.content_type.encode()
        content_type = bytes((0, len(text))) + text
    return b"".join(
        (
            entry.content_hash,
            entry.length.to_bytes(_LENGTH, "big"),
            entry.modified.to_bytes(_MODIFIED, "big"),
            content_type,
        )
    )


def pack_body(entry: Entry) -> tuple[bytes, bytes]:
    """Where the body is: the kind, and what stands after the stat."""
    if entry.body is not None:
        return _INLINE, entry.body
    if entry.blob is not None:
        return _BLOB, bytes.fromhex(entry.blob)
    return _NEITHER, b""


def unpack_entry(member: bytes) -> Entry:
    """Read a member of an account's entries."""
    path, _, packed = member.partition(b"\0")
    kind_at = _SEQ + MARK_LENGTH
    stat, end = _unpack_stat(packed, kind_at + 1)
    kind = packed[kind_at : kind_at + 1]
    return Entry(
        path=path.decode(),
        content_hash=stat.content_hash,
        length=stat.length,
        content_type=stat.content_type,
        modified=stat.modified,
        body=packed[end:] if kind == _INLINE else None,
        blob=packed[end:].hex() if kind == _BLOB else None,
        seq=int.from_bytes(packed[:_SEQ], "big"),
    )


def unpack_event(event_id: int, pubky: str, packed: bytes) -> Event:
    """Read an event."""
    seq = int.from_bytes(packed[1 : 1 + _SEQ], "big")
    end = 1 + _SEQ + MARK_LENGTH
    digest = packed[1 + _SEQ : end]
    if packed[0] != _PUT:
        return Event(event_id, Operation.DEL, pubky, packed[end:].decode(), seq, digest)
    stat, end = _unpack_stat(packed, end)
    return Event(
        event_id,
        Operation.PUT,
        pubky,
        packed[end:].decode(),
        seq,
        digest,
        stat.content_hash,
        stat.length,
        stat.content_type,
        stat.modified,
    )


def pack_session(session: Session) -> str:
    """A session without its id. No part holds a line's end: scopes are canonical paths."""
    return f"{session.pubky}\n{session.created}\n{format_capabilities(session.capabilities)}"


def unpack_session(session_id: str, packed: bytes) -> Session:
    """Read a session."""
    pubky, created, capabilities = packed.decode().split("\n")
    return Session(session_id, pubky, parse_capabilities(capabilities), int(created))


def pack_quota(quota: UserQuota) -> dict[str, str]:
    """The fields of a quota that is not the server's default, with what scripts need of it."""
    shown = quota.to_json()
    packed = {"quota": json.dumps(shown)} if shown else {}
    if quota.storage_quota_mb is not None:
        limit = quota.storage_limit(None)
        packed["limit"] = str(-1 if limit is None else limit)
    if quota.allowed_write_paths is not None:
        packed["paths"] = "\n".join(quota.allowed_write_paths)
    return packed


def unpack_quota(packed: bytes | None) -> UserQuota:
    """Read a quota; None is the server's default."""
    return UserQuota() if packed is None else UserQuota.from_json(json.loads(packed))


def unpack_token(text: str, facts: Sequence[bytes | None]) -> SignupToken:
    """Read a signup token: `created`, `quota`, `used`, `by`."""
    created, quota, used, by = facts
    return SignupToken(
        text,
        int(created or 0),
        unpack_quota(quota),
        None if used is None else int(used),
        None if by is None else by.decode(),
    )


def pack_condition(if_match: Sequence[str] | None) -> bytes:
    """Entity tags as scripts read them: the hashes that they name. A tag that names none matches nothing."""
    if if_match is None:
        return b""
    if "*" in if_match:
        return b"*"
    return b"=" + b"".join(filter(None, map(_hash_of, if_match)))


def _hash_of(tag: str) -> bytes | None:
    try:
        found = b64decode(tag[1:-1], validate=True)
    except (NotBase64, ValueError):
        return None
    # Several texts decode to one hash; only one of them is the entity tag.
    return found if len(found) == _HASH and tag == f'"{b64encode(found).decode()}"' else None


@frozen
class _Stat:
    content_hash: bytes
    length: int
    modified: int
    content_type: str


def _unpack_stat(packed: bytes, start: int) -> tuple[_Stat, int]:
    """The stat that begins at `start`, and where it ends."""
    length_at = start + _HASH
    modified_at = length_at + _LENGTH
    type_at = start + _FIXED
    end = type_at + 1
    if number := packed[type_at]:
        content_type = TYPES[number]
    else:
        end += 1 + packed[end]
        content_type = packed[type_at + 2 : end].decode()
    return _Stat(
        packed[start:length_at],
        int.from_bytes(packed[length_at:modified_at], "big"),
        int.from_bytes(packed[modified_at:type_at], "big"),
        content_type,
    ), end
