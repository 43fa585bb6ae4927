"""`store/packing.py`: records as bytes."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubky_homeserver.core.capabilities import parse_capabilities
from pubky_homeserver.core.quotas import UNLIMITED, UserQuota
from pubky_homeserver.core.records import Entry, Event, Operation, Session
from pubky_homeserver.store.packing import (
    DEL,
    PUT,
    STAT,
    TYPES,
    pack_body,
    pack_quota,
    pack_session,
    pack_stat,
    pack_type,
    unpack_entry,
    unpack_event,
    unpack_quota,
    unpack_session,
)

PATHS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40).map(
    lambda text: "/pub/" + text
)
SEQS = st.integers(1, 2**53 - 1)
ENTRIES = st.builds(
    Entry,
    path=PATHS,
    content_hash=st.binary(min_size=32, max_size=32),
    length=st.one_of(st.integers(0, 300), st.integers(0, 2**48 - 1)),
    content_type=st.one_of(st.sampled_from(TYPES), st.text(max_size=60)),
    modified=st.integers(0, 2**53 - 1),
    body=st.none(),
    blob=st.none(),
    seq=SEQS,
)


def put_together(kind: int, mark: bytes, stat: bytes, seq: int, tail: bytes) -> bytes:
    """What the script makes of the parts."""
    number = seq.to_bytes((seq.bit_length() + 7) // 8, "big")
    return bytes([kind << 6 | max(len(stat) - STAT, 0) << 3 | len(number)]) + mark + stat + number + tail


@given(entry=ENTRIES, body=st.one_of(st.none(), st.binary(max_size=20)), blob=st.binary(min_size=16, max_size=16))
def test_entries(entry: Entry, body: bytes | None, blob: bytes) -> None:
    """An entry is read as it was packed, whatever the sizes of its numbers and wherever its body is."""
    for kept in (
        Entry(entry.path, entry.content_hash, entry.length, entry.content_type, entry.modified, body, None, entry.seq),
        Entry(
            entry.path,
            entry.content_hash,
            entry.length,
            entry.content_type,
            entry.modified,
            None,
            blob.hex(),
            entry.seq,
        ),
    ):
        kind, end = pack_body(kept)
        packed = put_together(kind, b"m" * 16, pack_stat(kept), kept.seq, pack_type(kept.content_type) + end)
        assert unpack_entry(kept.path.encode() + b"\0" + packed) == kept


@given(entry=ENTRIES, event_id=SEQS, digest=st.binary(min_size=16, max_size=16))
def test_events(entry: Entry, event_id: int, digest: bytes) -> None:
    """An event is read as it was packed; a DEL has path, number and digest only."""
    tail = pack_type(entry.content_type) + entry.path.encode()
    packed = put_together(PUT, digest, pack_stat(entry), entry.seq, tail)
    assert unpack_event(event_id, "key", packed) == Event(
        event_id,
        Operation.PUT,
        "key",
        entry.path,
        entry.seq,
        digest,
        entry.content_hash,
        entry.length,
        entry.content_type,
        entry.modified,
    )
    packed = put_together(DEL, digest, b"", entry.seq, entry.path.encode())
    assert unpack_event(event_id, "key", packed) == Event(event_id, Operation.DEL, "key", entry.path, entry.seq, digest)


def test_the_numbers_of_types_stay() -> None:
    """The numbers are in the data of running homeservers: types are only ever added at the end."""
    known = {
        1: "application/octet-stream",
        2: "application/json",
        3: "text/plain",
        24: "image/png",
        44: "audio/aac",
        53: "application/font-sfnt",
    }
    assert {number: TYPES[number] for number in known} == known
    assert len(set(TYPES)) == len(TYPES) < 256


def test_common_types_are_short() -> None:
    """A common type is one byte; any other its text and two."""
    assert pack_type("text/plain") == b"\x03"
    assert pack_type("text/plainer") == b"\0\x0ctext/plainer"
    assert pack_type("") == b"\0\0"


@pytest.mark.parametrize("capabilities", ["", "/:rw", "/pub/a%2C b/:r,/priv/ü:w"])
def test_sessions(capabilities: str) -> None:
    """A session is read as it was packed."""
    session = Session("0" * 64, "key", parse_capabilities(capabilities), 1_764_000_000_123_456)
    assert unpack_session("0" * 64, pack_session(session).encode()) == session


@pytest.mark.parametrize(
    ("quota", "fields"),
    [
        (UserQuota(), {}),
        (UserQuota(storage_quota_mb=0), {"limit": "0"}),
        (UserQuota(storage_quota_mb=2**31 - 1), {"limit": str((2**31 - 1) * 2**20)}),
        (UserQuota(storage_quota_mb=UNLIMITED), {"limit": "-1"}),
        (UserQuota(allowed_write_paths=()), {"paths": ""}),
        (UserQuota(allowed_write_paths=("/pub/a b/", "/ü")), {"paths": "/pub/a b/\n/ü"}),
        (UserQuota(rate_read="10mb/s", rate_read_burst=7, rate_write=UNLIMITED), {}),
    ],
)
def test_quotas(quota: UserQuota, fields: dict[str, str]) -> None:
    """A quota is read as it was packed; scripts get what they need of it, and nothing for the server's default."""
    packed = pack_quota(quota)
    text = packed.pop("quota", None)
    assert packed == fields
    assert unpack_quota(None if text is None else text.encode()) == quota


def test_order_of_members() -> None:
    """The bytes of members are in the order of their paths, whatever their records are."""
    paths = [
        "/pub/a",
        "/pub/a b",
        "/pub/a!",
        "/pub/a-",
        "/pub/a/",
        "/pub/a0",
        "/pub/aa",
        "/pub/ü",
        "/pub/\uffff",
        "/pub/😀",
    ]
    members = [path.encode() + b"\0" + bytes([255 - 20 * index]) * 60 for index, path in enumerate(paths)]
    assert all(one < other for one, other in pairwise(members))
