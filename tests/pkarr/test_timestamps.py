"""Timestamps: their generator and their text forms."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from pkarr.timestamps import Timestamps, from_text, to_http_date, to_text

from .vectors import load

VECTORS = load("keys")["timestamps"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["micros"]))
def test_texts_are_the_official_ones(vector: dict[str, Any]) -> None:
    """Crockford text and HTTP date of a timestamp are byte for byte what the official library writes."""
    assert to_text(vector["micros"]) == vector["crockford"]
    assert from_text(vector["crockford"]) == vector["micros"]
    assert to_http_date(vector["micros"]) == vector["http_date"]


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_texts_sort_as_the_times(one: int, other: int) -> None:
    """Timestamps as text keep their order, so they can be names of things that sort by age."""
    assert (to_text(one) < to_text(other)) == (one < other)


@pytest.mark.parametrize("text", ["", "0", "000000000000", "00000000000000", "000000000000U", "0" * 26])
def test_other_texts_are_refused(text: str) -> None:
    """Only 13 characters of the alphabet are a timestamp."""
    with pytest.raises(ValueError, match=r"timestamp|alphabet"):
        from_text(text)


def test_values_grow_on_a_clock_that_does_not() -> None:
    """A clock that stands still or is set back never makes a value that is not larger than the one before."""
    clock = Clock()
    clock.advance(1_764_000_000.123456)
    timestamps = Timestamps(clock.seconds)
    values = [timestamps.next() for _ in range(100)]
    clock.rightNow -= 3600
    values += [timestamps.next() for _ in range(100)]
    clock.advance(7200)
    values += [timestamps.next() for _ in range(100)]
    assert values == sorted(set(values))
    assert abs(values[0] - 1_764_000_000_123_456) < 512


def test_two_programs_differ() -> None:
    """Two generators that ask at the same microsecond get different values as long as their ids differ."""
    clock = Clock()
    clock.advance(256 * 1000 / 1_000_000)
    assert [Timestamps(clock.seconds, own_id).next() for own_id in (0, 1, 255)] == [256_000, 256_001, 256_255]
