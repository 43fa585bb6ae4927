"""Base-32 in both alphabets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkarr.base32 import CROCKFORD, Z_BASE_32, Base32

BOTH = [Z_BASE_32, CROCKFORD]


@given(base32=st.sampled_from(BOTH), raw=st.binary(max_size=64))
def test_decoding_undoes_encoding(base32: Base32, raw: bytes) -> None:
    """Every sequence of bytes has a spelling, and the spelling leads back to it."""
    assert base32.decode(base32.encode(raw)) == raw


@given(base32=st.sampled_from(BOTH), text=st.text(max_size=64))
def test_any_text_decodes_or_is_a_value_error(base32: Base32, text: str) -> None:
    """A reader meets any text at all; whatever it is, n characters make 5n/8 whole bytes or a ValueError."""
    try:
        raw = base32.decode(text)
    except ValueError:
        assert not set(text) <= set(base32.alphabet) | set(base32.aliases)
    else:
        assert len(raw) == len(text) * 5 // 8


@pytest.mark.parametrize("base32", BOTH, ids=["z", "crockford"])
@pytest.mark.parametrize("text", ["_1", "1_1", " 1", "1\n", "-1", "+1", "0b1=", "1=", "é", "\ud800", "\u0661"])
def test_nothing_but_the_alphabet_is_a_digit(base32: Base32, text: str) -> None:
    """What Python's own number reader forgives (blanks, signs, underscores, foreign digits) is refused here."""
    with pytest.raises(ValueError, match="alphabet"):
        base32.decode(text)


def test_surplus_bits_are_dropped() -> None:
    """Two texts that differ only in bits that make no whole byte are the same bytes."""
    assert Z_BASE_32.decode("yy") == Z_BASE_32.decode("yd") == b"\0"
    assert Z_BASE_32.encode(b"\0") == "yy"


def test_case() -> None:
    """z-base-32 is lower case only; Crockford's reads any case and forgives I, L and O, but not U."""
    with pytest.raises(ValueError, match="alphabet"):
        Z_BASE_32.decode("YY")
    assert CROCKFORD.decode("iIlLoO") == CROCKFORD.decode("111100")
    assert CROCKFORD.decode("abcdefgh") == CROCKFORD.decode("ABCDEFGH")
    for letter in "Uu":
        with pytest.raises(ValueError, match="alphabet"):
            CROCKFORD.decode(letter)
