"""The encoding of tokens and session records."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubky_homeserver.core.postcard import Malformed, Reader, encode_number, encode_text

ENDED = "Hit the end of buffer, expected more data"
ENDLESS = "Found a varint that didn't terminate. Is the usize too big for this platform?"


@pytest.mark.parametrize(
    ("value", "encoded"),
    [(0, "00"), (127, "7f"), (128, "8001"), (300, "ac02"), (2**64 - 1, "ffffffffffffffffff01")],
)
def test_varints(value: int, encoded: str) -> None:
    """Seven bits a byte, low ones first, the top bit for "more follows"."""
    assert encode_number(value).hex() == encoded
    assert Reader(bytes.fromhex(encoded)).number() == value


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        ("", ENDED),
        ("80", ENDED),
        ("ff" * 9, ENDED),
        ("ff" * 9 + "02", ENDLESS),
        ("ff" * 9 + "80", ENDLESS),
        ("80" * 10 + "00", ENDLESS),
    ],
)
def test_varints_that_are_none(encoded: str, reason: str) -> None:
    """A varint that is cut off, does not end in ten bytes, or exceeds 64 bits is refused in the official words."""
    with pytest.raises(Malformed) as refusal:
        Reader(bytes.fromhex(encoded)).number()
    assert str(refusal.value) == reason


def test_a_longer_spelling_of_a_number_is_read() -> None:
    """Zero bits on top are another spelling, not an error, as in the official library."""
    assert Reader(b"\x80\x80\x00").number() == 0


@given(st.lists(st.one_of(st.integers(0, 2**64 - 1), st.text()), max_size=5), st.data())
def test_fields_read_back_and_every_truncation_is_noticed(fields: list[int | str], data: st.DataObject) -> None:
    """What was written is read; with any number of bytes missing the reader says so, and nothing else."""
    encoded = b"".join(encode_text(one) if isinstance(one, str) else encode_number(one) for one in fields)

    def read(given: bytes) -> list[int | str]:
        reader = Reader(given)
        return [reader.text() if isinstance(one, str) else reader.number() for one in fields]

    assert read(encoded) == fields
    if encoded:
        cut = data.draw(st.integers(0, len(encoded) - 1))
        with pytest.raises(Malformed, match=ENDED):
            read(encoded[:cut])


def test_text_that_is_not_utf8() -> None:
    """A text is UTF-8 or refused."""
    with pytest.raises(Malformed, match="Tried to parse invalid utf-8"):
        Reader(b"\x01\xff").text()
