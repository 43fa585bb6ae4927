"""Bencode: one spelling of every value, and nothing else is one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkarr.dht.bencode import MAX_DEPTH, Encodable, InvalidBencode, Value, decode, encode

from .thorough import THOROUGHLY

VALUES = st.recursive(
    st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=64),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.binary(max_size=8), inner, max_size=4),
    max_leaves=20,
)
"""Values that are at most as deep as can be read, in practice."""

# Close to bencode, so that the reader gets further than the first byte.
NEARLY = st.text("dlie:-019a\xff", max_size=40).map(lambda text: text.encode("latin-1"))

SPELLINGS: list[tuple[bytes, Encodable]] = [
    (b"i0e", 0),
    (b"i-42e", -42),
    (b"i18446744073709551615e", 2**64 - 1),
    (b"0:", b""),
    (b"4:spam", b"spam"),
    (b"le", []),
    (b"l4:spami7ee", [b"spam", 7]),
    (b"de", {}),
    (b"d1:ai1e2:abli2eee", {b"ab": [2], b"a": 1}),
]

WRONG = [
    b"",
    b"i",
    b"ie",
    b"i-e",
    b"i-0e",
    b"i01e",
    b"i+1e",
    b"i 1e",
    b"i1_0e",
    b"i123456789012345678901e",
    b"i1",
    b"-1:",
    b":",
    b"1:",
    b"01:a",
    b"00:",
    b"1a:",
    b"99999999:a",
    b"2:a",
    b"l",
    b"li1e",
    b"d",
    b"d1:a",
    b"d1:ae",
    b"di1ei2ee",
    b"d1:ai1e1:ai2ee",
    b"i1ei1e",
    b"4:spam\n",
    b"x",
    b"e",
    "i٣e".encode(),
]


@pytest.mark.parametrize(("raw", "value"), SPELLINGS)
def test_spelling(raw: bytes, value: Value) -> None:
    """Values are written as BEP 3 says, and read from that."""
    assert encode(value) == raw
    assert decode(raw) == value


@pytest.mark.parametrize("raw", WRONG)
def test_refused(raw: bytes) -> None:
    """What has a second spelling, or no end, is no value."""
    with pytest.raises(InvalidBencode):
        decode(raw)


def test_keys_in_any_order_are_read() -> None:
    """Some programs do not sort keys; they are understood."""
    assert decode(b"d1:bi1e1:ai2ee") == {b"a": 2, b"b": 1}


def test_depth_is_bounded() -> None:
    """A datagram full of brackets costs no more than the first few of them."""
    decode(b"l" * MAX_DEPTH + b"e" * MAX_DEPTH)
    for opening in (b"l", b"d1:a"):
        with pytest.raises(InvalidBencode, match="deep"):
            decode(opening * 5000)


@given(VALUES)
def test_round_trip(value: Value) -> None:
    """What is written is read as the same value, and written again as the same bytes."""
    raw = encode(value)
    assert decode(raw) == value
    assert encode(decode(raw)) == raw


@given(VALUES)
def test_truncations(value: Value) -> None:
    """No beginning of a value is a value."""
    raw = encode(value)
    for length in range(len(raw)):
        with pytest.raises(InvalidBencode):
            decode(raw[:length])


@THOROUGHLY
@given(st.binary(max_size=64) | NEARLY)
def test_anything(raw: bytes) -> None:
    """The reader raises nothing but its own error."""
    try:
        value = decode(raw)
    except InvalidBencode:
        return
    assert decode(encode(value)) == value
