"""Packets put together by calls."""

from ipaddress import IPv4Address, IPv6Address

import pytest

from pkarr.builder import Builder
from pkarr.keys import Keypair
from pkarr.packet import InvalidSignedPacket, SignedPacket
from pkarr.records import ALPN, HTTP_PORT, IPV4HINT, IPV6HINT, PORT, Record, Service, cname, txt

from .vectors import load

VECTORS = {vector["name"]: vector for vector in load("pkarr_packets")["packets"]}
HOMESERVER = Keypair(bytes(32)).public_key.z32
KEYPAIR = Keypair(b"\x42" * 32)
NOW = 1_764_000_000_123_456
V4, V6 = IPv4Address("203.0.113.7"), IPv6Address("2001:db8::7")

BUILT = {
    "homeserver_ipv4_localhost": Builder()
    .https(".", 1, ".", port=6287, hints=[IPv4Address("127.0.0.1")])
    .https(".", 10, "localhost", parameters={HTTP_PORT: (6286).to_bytes(2, "big")})
    .address(".", "127.0.0.1"),
    "homeserver_ipv6_domain": Builder()
    .https(".", 1, ".", port=443, hints=[V6])
    .https(".", 10, "hs.example.org")
    .address(".", V6),
    "user_pubky_plus_txt": Builder().txt("foo", "hello=world", 30).https("_pubky", 0, HOMESERVER),
    "user_pubky_as_svcb_type64": Builder().svcb("_pubky", 0, HOMESERVER),
    "empty": Builder(),
    "misc_names": Builder()
    .cname("www", "example.com", 30)
    .address("@", "1.1.1.1", 10)
    .address(VECTORS["misc_names"]["public_z32"], "::1", 1_000_000),
}


@pytest.mark.parametrize("name", BUILT)
def test_builds_the_official_packets(name: str) -> None:
    """What is put together by calls is, byte for byte, what the official library makes of the same records."""
    vector = VECTORS[name]
    packet = BUILT[name].sign(Keypair(bytes.fromhex(vector["secret_hex"])), vector["timestamp_us"])
    assert bytes(packet).hex() == vector["packet_hex"]


def test_service_parameters() -> None:
    """Port, hints of both kinds and protocols stand in their own parameters; others are added or win."""
    (record,) = (
        Builder()
        .svcb("_x", 1, "example.com", port=8443, hints=[V6, V4, V4], alpn=["h2", "http/1.1"], parameters={9: b"!"})
        .records
    )
    expected = {PORT: b"\x20\xfb", IPV4HINT: V4.packed * 2, IPV6HINT: V6.packed, ALPN: b"\x02h2\x08http/1.1", 9: b"!"}
    assert record.service == Service(1, "example.com", expected)


def test_a_builder_does_not_change() -> None:
    """One beginning can have several continuations."""
    start = Builder().txt("a", "1")
    longer, other = start.txt("b", "2"), start.cname("c", "example.com")
    assert start.records == (txt("a", "1"),)
    assert longer.records == (txt("a", "1"), txt("b", "2"))
    assert other.records == (txt("a", "1"), cname("c", "example.com"))


def test_the_successor_of_a_packet() -> None:
    """A user's new record takes the place of the old one; all others stay as they are, in their order."""
    first = Builder().txt("a", "1").https("_pubky", 0, HOMESERVER).txt("b", "2").txt("_pubky.x", "3").sign(KEYPAIR, NOW)
    second = Builder.of(first).without("_pubky").https("_pubky", 0, KEYPAIR.public_key.z32).sign(KEYPAIR, NOW + 1)
    z32 = KEYPAIR.public_key.z32
    assert [record.name for record in second.records] == [f"a.{z32}", f"b.{z32}", f"_pubky.{z32}"]
    assert second.lookup("_pubky")[0].service == Service(0, z32, {})
    assert second.more_recent_than(first)
    assert Builder.of(second).sign(KEYPAIR, second.timestamp) == second


@pytest.mark.parametrize("number", [-1, 65536])
def test_numbers_out_of_range(number: int) -> None:
    """A port or a priority that two bytes do not hold, or a time to live that four do not, is refused at once."""
    for build in (
        lambda: Builder().https(".", number, "."),
        lambda: Builder().svcb(".", 1, ".", port=number),
        lambda: Builder().txt("a", "b", number * 2**16),
    ):
        with pytest.raises(ValueError, match="is not from 0 to"):
            build()


def test_too_much_for_a_packet() -> None:
    """A thousand bytes is the end, and so is a packet made past the reader of relay payloads."""
    with pytest.raises(InvalidSignedPacket, match="expected max 1000 bytes"):
        Builder((Record("x", 16, 5, b"\xff" + b"x" * 255),) * 5).sign(KEYPAIR, NOW)
    with pytest.raises(InvalidSignedPacket, match="expected max 1000 bytes but got: 1105"):
        SignedPacket(KEYPAIR.public_key, bytes(64), NOW, bytes(1001))
