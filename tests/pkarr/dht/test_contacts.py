"""Contacts in compact form, and the addresses that are written to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkarr.dht.contacts import (
    IPV4,
    IPV6,
    Contact,
    InvalidContact,
    is_public,
    owner,
    pack_address,
    pack_contacts,
    unpack_address,
    unpack_contacts,
)

V4 = Contact(b"a" * 20, ("198.51.100.1", 6881))
V6 = Contact(b"b" * 20, ("2001:db8::1", 1))

PUBLIC = ["1.1.1.1", "93.184.216.34", "2606:4700::1111"]
NOT_PUBLIC = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "169.254.1.1",
    "172.16.0.1",
    "192.168.1.1",
    "198.18.0.1",
    "203.0.113.7",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:1.1.1.1",
    "2001::1",
    "2001:db8::1",
    "2002:a00:1::1",
    "fc00::1",
    "fe80::1",
    "ff02::1",
]


def test_compact_form() -> None:
    """A contact is its id, its address, its port, without anything between (BEP 5, BEP 32)."""
    assert pack_contacts((V4,)) == b"a" * 20 + bytes([198, 51, 100, 1]) + b"\x1a\xe1"
    assert pack_contacts((V6,)) == b"b" * 20 + bytes.fromhex("20010db8000000000000000000000001") + b"\0\1"
    assert unpack_contacts(pack_contacts((V4, V4)), IPV4, 20) == (V4, V4)
    assert unpack_contacts(pack_contacts((V6,)), IPV6, 20) == (V6,)
    assert unpack_contacts(pack_contacts((V4, V4, V4)), IPV4, 2) == (V4, V4)
    assert (V4.family, V6.family) == (IPV4, IPV6)


@given(st.binary(max_size=200), st.sampled_from([IPV4, IPV6]))
def test_anything(raw: bytes, kind: int) -> None:
    """Bytes are contacts if their number is right; nothing else happens."""
    try:
        contacts = unpack_contacts(raw, kind, 100)
    except InvalidContact:
        assert len(raw) % {IPV4: 26, IPV6: 38}[kind]
        return
    assert pack_contacts(contacts) == raw


@pytest.mark.parametrize("length", [*range(6), *range(7, 18), 19])
def test_wrong_length(length: int) -> None:
    """An address has 6 bytes or 18."""
    with pytest.raises(InvalidContact):
        unpack_address(bytes(length))


@pytest.mark.parametrize("host", PUBLIC)
def test_public(host: str) -> None:
    """Hosts of the internet may be written to."""
    assert is_public(host)


@pytest.mark.parametrize("host", NOT_PUBLIC)
def test_not_public(host: str) -> None:
    """Private, local, reserved and multicast addresses are not, nor those of IPv6 that hide one of IPv4."""
    assert not is_public(host)


def test_owners() -> None:
    """A customer has at least 64 bits of IPv6 addresses, but may have a single IPv4 address."""
    assert owner("2001:db8::1") == owner("2001:db8::ffff:1")
    assert owner("2001:db8::1") != owner("2001:db8:0:1::1")
    assert owner("198.51.100.1") != owner("198.51.100.2")
    assert owner("198.51.100.1") == pack_address(V4.address)[:4]
