"""Records as bytes: how an entry, an event and a session lie in Redis. The sizes are what a million files cost.

    stat    hash 32 | modified 7 | length n
    entry   head 1 | mark 16 | stat | seq s | type | the body, 16 bytes of blob id, or nothing
    event   head 1 | digest 16 | stat, of a PUT only | seq s | type, of a PUT only | path

Numbers are big-endian. The head tells what it is and how long the numbers are: `kind << 6 | n << 3 | s`. Kinds of
entries are `INLINE`, `BLOB` and `NEITHER`, of events `DEL` and `PUT`. A type is its number in `TYPES`, one byte; or 0,
one byte of length and the text. The number in the log (`seq`) is the script's to give, so what stands around it is
packed apart.
"""

import json
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Sequence

from pubky_homeserver.core.capabilities import format_capabilities, parse_capabilities
from pubky_homeserver.core.copies import Position, Reign
from pubky_homeserver.core.digests import MARK_LENGTH
from pubky_homeserver.core.quotas import UserQuota
from pubky_homeserver.core.records import Entry, Event, Grant, KeptGrant, Operation, Session, SignupToken

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

HASH = 32
MODIFIED = 7  # bytes of a time: until the year 4253, and beyond what Lua can hold
STAT = HASH + MODIFIED
"""Bytes of a stat without its length."""
SIGNATURE = 64
"""Bytes of a signed packet that say nothing about its age; the rest sorts as packets do."""

INLINE, BLOB, NEITHER = 0, 1, 2
DEL, PUT = 0, 1

_DEL, _PUT = Operation.DEL, Operation.PUT  # looking up a member of an enumeration takes longer than building a string

_NUMBER = 7  # bytes of an event id or a number below 2^53
_REIGN_SEQ = 5
REIGN = 16 + _REIGN_SEQ
"""Bytes of a reign: log id and first number."""


def pack_reign(log_id: bytes) -> bytes:
    """The first reign of a log."""
    return log_id + (1).to_bytes(_REIGN_SEQ, "big")


def unpack_reigns(packed: bytes) -> tuple[Reign, ...]:
    """Read the reigns of a log."""
    return tuple(
        Reign(packed[at : at + 16].hex(), int.from_bytes(packed[at + 16 : at + REIGN], "big"))
        for at in range(0, len(packed), REIGN)
    )


def pack_reigns(reigns: Sequence[Reign]) -> bytes:
    """The reigns of a log."""
    return b"".join(bytes.fromhex(reign.log_id) + reign.first.to_bytes(_REIGN_SEQ, "big") for reign in reigns)


def pack_position(position: Position) -> bytes:
    """A position: number and event id with 7 bytes each, digest, log id."""
    numbers = (number.to_bytes(_NUMBER, "big") for number in (position.seq, position.event_id))
    return b"".join((*numbers, position.digest, bytes.fromhex(position.log_id)))


def unpack_position(packed: bytes) -> Position:
    """Read a position."""
    digest_at, id_at = 2 * _NUMBER, 2 * _NUMBER + MARK_LENGTH
    return Position(
        packed[id_at:].hex(),
        int.from_bytes(packed[:_NUMBER], "big"),
        int.from_bytes(packed[_NUMBER:digest_at], "big"),
        packed[digest_at:id_at],
    )


def pack_stat(entry: Entry) -> bytes:
    """What an entry and its event say alike."""
    length = entry.length
    return b"".join(
        (
            entry.content_hash,
            entry.modified.to_bytes(MODIFIED, "big"),
            length.to_bytes((length.bit_length() + 7) // 8, "big"),
        )
    )


def pack_type(content_type: str) -> bytes:
    """A content type of at most 255 bytes."""
    if number := _NUMBERS.get(content_type):
        return bytes((number,))
    text = content_type.encode()
    return bytes((0, len(text))) + text


def pack_body(entry: Entry) -> tuple[int, bytes]:
    """Where the body is: the kind, and what stands at the end."""
    if entry.body is not None:
        return INLINE, entry.body
    if entry.blob is not None:
        return BLOB, bytes.fromhex(entry.blob)
    return NEITHER, b""


def pack_entry(entry: Entry, mark: bytes) -> bytes:
    """An entry without its path."""
    kind, body = pack_body(entry)
    stat = pack_stat(entry)
    seq = entry.seq.to_bytes(max(1, (entry.seq.bit_length() + 7) // 8), "big")
    head = kind << 6 | (len(stat) - STAT) << 3 | len(seq)
    return b"".join((bytes((head,)), mark, stat, seq, pack_type(entry.content_type), body))


def unpack_entry(member: bytes) -> Entry:
    """Read a member of an account's entries: path, NUL, packed entry."""
    head_at = member.index(0) + 1
    head = member[head_at]
    stat_at = head_at + 1 + MARK_LENGTH
    modified_at = stat_at + HASH
    length_at = stat_at + STAT
    seq_at = length_at + (head >> 3 & 7)
    type_at = seq_at + (head & 7)
    content_type, end = _unpack_type(member, type_at)
    kind = head >> 6
    return Entry(
        path=member[: head_at - 1].decode(),
        content_hash=member[stat_at:modified_at],
        length=int.from_bytes(member[length_at:seq_at], "big"),
        content_type=content_type,
        modified=int.from_bytes(member[modified_at:length_at], "big"),
        body=member[end:] if kind == INLINE else None,
        blob=member[end:].hex() if kind == BLOB else None,
        seq=int.from_bytes(member[seq_at:type_at], "big"),
    )


def unpack_event(event_id: int, pubky: str, packed: bytes) -> Event:
    """Read an event."""
    head = packed[0]
    stat_at = 1 + MARK_LENGTH
    digest = packed[1:stat_at]
    if head >> 6 == DEL:
        path_at = stat_at + (head & 7)
        seq = int.from_bytes(packed[stat_at:path_at], "big")
        return Event(event_id, _DEL, pubky, packed[path_at:].decode(), seq, digest)
    length_at = stat_at + STAT
    seq_at = length_at + (head >> 3 & 7)
    type_at = seq_at + (head & 7)
    content_type, path_at = _unpack_type(packed, type_at)
    return Event(
        event_id,
        _PUT,
        pubky,
        packed[path_at:].decode(),
        int.from_bytes(packed[seq_at:type_at], "big"),
        digest,
        packed[stat_at : stat_at + HASH],
        int.from_bytes(packed[length_at:seq_at], "big"),
        content_type,
        int.from_bytes(packed[stat_at + HASH : length_at], "big"),
    )


def unpack_events(pubky: str, entries: list[tuple[bytes, list[bytes]]]) -> list[Event]:
    """Read events of one account as XRANGE answers them: id and, of one field, name and value."""
    return [unpack_event(int(stream_id[:-2]), pubky, fields[1]) for stream_id, fields in entries]


def _unpack_type(packed: bytes, start: int) -> tuple[str, int]:
    """The type that begins at `start`, and where it ends."""
    if number := packed[start]:
        return TYPES[number], start + 1
    end = start + 2 + packed[start + 1]
    return packed[start + 2 : end].decode(), end


def pack_session(session: Session) -> str:
    """A session without its id. No part holds a line's end: scopes are canonical paths."""
    return f"{session.pubky}\n{session.created}\n{format_capabilities(session.capabilities)}"


def unpack_session(session_id: str, packed: bytes) -> Session:
    """Read a session."""
    pubky, created, capabilities = packed.decode().split("\n")
    return Session(session_id, pubky, parse_capabilities(capabilities), int(created))


def pack_grant(grant: Grant) -> str:
    """What a grant says, as JSON."""
    return json.dumps(
        {
            "id": grant.id,
            "pubky": grant.pubky,
            "client_id": grant.client_id,
            "capabilities": format_capabilities(grant.capabilities),
            "client_key": grant.client_key,
            "issued_at": grant.issued_at,
            "expires_at": grant.expires_at,
        }
    )


def unpack_grant(packed: bytes) -> Grant:
    """Read a grant."""
    facts = json.loads(packed)
    return Grant(**(facts | {"capabilities": parse_capabilities(facts["capabilities"])}))


def unpack_bearer(packed: bytes) -> tuple[KeptGrant, int]:
    """Read a bearer: its grant, and when it expires."""
    expires, created, facts = packed.split(b"\n", 2)
    return KeptGrant(unpack_grant(facts), int(created)), int(expires)


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
    return found if len(found) == HASH and tag == f'"{b64encode(found).decode()}"' else None
