"""The preface of a proxy: whom it names, and everything that is none."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pubky_homeserver.core.prefaces import MAX_LINE, MAX_PREFACE, SIGNATURE, InvalidPreface, Preface, read_preface


def binary(addresses: bytes, family: int = 0x11, command: int = 0x21, more: bytes = b"") -> bytes:
    """A preface of version 2."""
    return SIGNATURE + bytes((command, family)) + (len(addresses) + len(more)).to_bytes(2, "big") + addresses + more


V4 = bytes((192, 0, 2, 7, 127, 0, 0, 1)) + (50000).to_bytes(2, "big") + (443).to_bytes(2, "big")
V6 = bytes.fromhex("20010db8" + "00" * 11 + "01" + "00" * 15 + "01") + b"\x00\x50\x01\xbb"
MAPPED = bytes(10) + b"\xff\xff\xc0\x00\x02\x07" + bytes(16) + b"\x00\x50\x01\xbb"


@pytest.mark.parametrize(
    ("data", "source", "port"),
    [
        (b"PROXY TCP4 192.0.2.7 127.0.0.1 50000 443\r\n", "192.0.2.7", 50000),
        (b"PROXY TCP6 2001:db8::1 ::1 80 443\r\n", "2001:db8::1", 80),
        (b"PROXY TCP6 2001:0DB8:0:0::1 ::1 80 443\r\n", "2001:db8::1", 80),
        (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 80 443\r\n", "192.0.2.7", 80),
        (binary(V4), "192.0.2.7", 50000),
        (binary(V4, more=b"\x04\x00\x03abc"), "192.0.2.7", 50000),
        (binary(V6, 0x21), "2001:db8::1", 80),
        (binary(MAPPED, 0x21), "192.0.2.7", 80),
        (binary(V4, more=bytes(MAX_PREFACE - 28)), "192.0.2.7", 50000),
    ],
)
def test_whom_it_names(data: bytes, source: str, port: int) -> None:
    """Each form is read however little of it comes at a time, and nothing of what follows is."""
    assert read_preface(data + b"GET / HTTP/1.1\r\n") == Preface(source, port, len(data))
    for end in range(len(data)):
        assert read_preface(data[:end]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01",
        b"proxy TCP4 192.0.2.7 127.0.0.1 1 2\r\n",
        b"PROXY UNKNOWN\r\n",
        b"PROXY TCP4 192.0.2.7 127.0.0.1 1 2\n",
        b"PROXY TCP4 192.0.2.7 127.0.0.1 1 2 \r\n",
        b"PROXY  TCP4 192.0.2.7 127.0.0.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 127.0.0.1 65536 2\r\n",
        b"PROXY TCP4 192.0.2.7 127.0.0.1 1 -2\r\n",
        b"PROXY TCP4 192.0.2.07 127.0.0.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.256 127.0.0.1 1 2\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP6 192.0.2.7 127.0.0.1 1 2\r\n",
        b"PROXY TCP6 :::: ::1 1 2\r\n",
        b"PROXY TCP4 " + b"1" * MAX_LINE,
        binary(V4, command=0x20),
        binary(V4, command=0x11),
        binary(V4, command=0x22),
        binary(V4, family=0x00),
        binary(V4, family=0x12),
        binary(V4, family=0x31),
        binary(V4[:-1]),
        binary(V4, family=0x21),
        binary(V4, more=bytes(MAX_PREFACE - 27)),
    ],
)
def test_what_is_none(data: bytes) -> None:
    """Anything else is refused, also a proxy that names nobody."""
    with pytest.raises(InvalidPreface):
        read_preface(data)


@settings(max_examples=10_000)
@given(st.one_of(st.binary(max_size=200), st.binary(max_size=60).map(lambda tail: SIGNATURE + tail)))
def test_any_bytes(data: bytes) -> None:
    """Any bytes are a preface, the beginning of one, or refused; what waits for more is bounded."""
    try:
        found = read_preface(data)
    except InvalidPreface:
        return
    assert found is None or 0 < found.length <= len(data)
    assert found is not None or len(data) < MAX_PREFACE
