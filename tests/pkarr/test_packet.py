"""Signed packets: bytes, verification, order."""

from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from pkarr.keys import Keypair, PublicKey
from pkarr.packet import (
    MAX_DNS,
    InvalidSignedPacket,
    SignedPacket,
    absolute_name,
    dht_target,
    newest_of,
    signable,
)
from pkarr.records import (
    AAAA,
    CNAME,
    DEFAULT_TTL,
    HTTP_PORT,
    HTTPS,
    IPV4HINT,
    PORT,
    SVCB,
    TXT,
    A,
    Record,
    Service,
    address,
    at_port,
    cname,
    encode,
    hinting,
    https,
    svcb,
    txt,
)

from .vectors import load

VECTORS = load("pkarr_packets")
PACKETS = {vector["name"]: vector for vector in VECTORS["packets"]}
OWNER = Keypair(b"\x42" * 32)
TESTNET = Keypair(bytes(32)).public_key
NOW = 1_764_000_000_123_456
LOCALHOST, PUBLIC, V6 = IPv4Address("127.0.0.1"), IPv4Address("203.0.113.7"), IPv6Address("2001:db8::7")
OTHER = IPv4Address("192.0.2.1")
TYPES = {A: "A", CNAME: "CNAME", TXT: "TXT", AAAA: "AAAA", SVCB: "SVCB", HTTPS: "HTTPS"}

RECORDS: dict[str, list[Record]] = {
    "homeserver_ipv4_localhost": [
        https(".", 1, ".", at_port(6287) | hinting(LOCALHOST)),
        https(".", 10, "localhost", {HTTP_PORT: (6286).to_bytes(2, "big")}),
        address(".", LOCALHOST),
    ],
    "homeserver_ipv4_domain": [
        https("", 1, ".", hinting(PUBLIC) | at_port(6287)),
        https("@", 10, "homeserver.example.com."),
        address(".", PUBLIC),
    ],
    "homeserver_ipv6_domain": [
        https(".", 1, ".", at_port(443) | hinting(V6)),
        https(".", 10, "hs.example.org"),
        address(".", V6),
    ],
    "homeserver_ipv4_no_domain": [https(".", 1, ".", at_port(8443) | hinting(OTHER)), address(".", OTHER)],
    "user_pubky_record": [https("_pubky", 0, TESTNET.z32)],
    "user_pubky_plus_txt": [txt("foo", "hello=world", 30), https("_pubky", 0, TESTNET.z32)],
    "user_pubky_as_svcb_type64": [svcb("_pubky", 0, TESTNET.z32)],
    "empty": [],
    "misc_names": [
        cname("www", "example.com", 30),
        address("@", IPv4Address("1.1.1.1"), 10),
        address(OWNER.public_key.z32, IPv6Address("::1"), 1_000_000),
    ],
}


@pytest.mark.parametrize("vector", VECTORS["packets"], ids=lambda vector: str(vector["name"]))
def test_packets_are_the_official_ones(vector: dict[str, Any]) -> None:
    """Records, key and time give the recorded bytes: DNS message, signed text, signature, packet, relay payload."""
    keypair = Keypair(bytes.fromhex(vector["secret_hex"]))
    packet = SignedPacket.sign(keypair, RECORDS[vector["name"]], vector["timestamp_us"])
    assert packet.dns.hex() == vector["dns_hex"]
    assert len(packet.dns) == vector["dns_len"]
    assert signable(packet.timestamp, packet.dns) == vector["signable_prefix"].encode() + packet.dns
    assert packet.signature.hex() == vector["signature_hex"]
    assert bytes(packet).hex() == vector["packet_hex"]
    assert packet.relay_payload.hex() == vector["relay_payload_hex"]
    assert packet.ttl() == vector["ttl_clamped_300_86400"]


@pytest.mark.parametrize("vector", VECTORS["packets"], ids=lambda vector: str(vector["name"]))
def test_official_packets_are_read(vector: dict[str, Any]) -> None:
    """A recorded packet has the recorded records in their order, and signing these again gives the same bytes."""
    packet = SignedPacket.parse(bytes.fromhex(vector["packet_hex"]))
    assert packet == SignedPacket.from_relay_payload(packet.public_key, bytes.fromhex(vector["relay_payload_hex"]))
    assert packet.public_key.z32 == vector["public_z32"]
    assert packet.timestamp == vector["timestamp_us"]
    read = [(record.name, record.ttl, TYPES[record.type]) for record in packet.records]
    assert read == [
        (record["name"], record["ttl"], record["rdata_debug"].partition("(")[0]) for record in vector["records"]
    ]
    keypair = Keypair(bytes.fromhex(vector["secret_hex"]))
    assert bytes(SignedPacket.sign(keypair, packet.records, packet.timestamp)).hex() == vector["packet_hex"]


def test_what_records_say() -> None:
    """A homeserver's record in numbers and words: services with their parameters, its address."""
    packet = SignedPacket.parse(bytes.fromhex(PACKETS["homeserver_ipv4_localhost"]["packet_hex"]))
    assert [record.service for record in packet.records] == [
        Service(1, ".", {PORT: (6287).to_bytes(2, "big"), IPV4HINT: LOCALHOST.packed}),
        Service(10, "localhost", {HTTP_PORT: (6286).to_bytes(2, "big")}),
        None,
    ]
    assert [record.address for record in packet.records] == [None, None, LOCALHOST]


@pytest.mark.parametrize("case", VECTORS["relay_payload_verify"], ids=lambda case: str(case["case"]))
def test_payloads_are_judged_as_recorded(case: dict[str, Any]) -> None:
    """A payload is taken, or refused for the recorded reason: the first in the order length, signature, DNS."""
    text = case["payload_hex"]
    payload = bytes(int(text.split()[0])) if text.endswith("zero bytes") else bytes.fromhex(text)
    if case["result"] == "ok":
        assert SignedPacket.from_relay_payload(OWNER.public_key, payload).relay_payload == payload
    else:
        with pytest.raises(InvalidSignedPacket) as caught:
            SignedPacket.from_relay_payload(OWNER.public_key, payload)
        assert str(caught.value) == case["result"]["err"]


def test_a_key_that_is_no_point_is_refused() -> None:
    """In whole packets the key comes first, and must be one."""
    with pytest.raises(InvalidSignedPacket, match="Cannot decompress Edwards point"):
        SignedPacket.parse(b"\x02" * 200)


@pytest.mark.parametrize("case", VECTORS["size_limit"], ids=lambda case: str(case["txt_chars"]))
def test_the_size_limit(case: dict[str, Any]) -> None:
    """1000 bytes of DNS are the most a packet carries; what does not fit is said with its size."""
    records = [txt("x", "x" * case["txt_chars"])]
    if "err" in case:
        with pytest.raises(InvalidSignedPacket) as caught:
            SignedPacket.sign(OWNER, records, NOW)
        assert str(caught.value) == case["err"]
    else:
        assert len(SignedPacket.sign(OWNER, records, NOW).dns) == case["dns_len"]


@pytest.mark.parametrize(
    "records", [[address("a" * 64, LOCALHOST)], [address("a." * 102, LOCALHOST)], [txt("x", "x" * 70_000)]]
)
def test_what_dns_cannot_say_is_not_signed(records: list[Record]) -> None:
    """Names with too long labels, too long names and huge messages are errors of ours, not of the DNS library."""
    with pytest.raises(InvalidSignedPacket):
        SignedPacket.sign(OWNER, records, NOW)


def test_which_of_two_is_more_recent() -> None:
    """The later one; of two at the same microsecond the one with larger bytes; of two identical ones neither."""
    first, second, third = VECTORS["more_recent"]
    left, right = (signed(bytes.fromhex(first[f"{side}_dns"])) for side in ("left", "right"))
    assert left.more_recent_than(right) == first["left_more_recent"]
    assert right.more_recent_than(left) == first["right_more_recent"]
    later = signed(left.dns, left.timestamp + 1)
    assert left.more_recent_than(later) == second["left_more_recent"]
    assert later.more_recent_than(left) == second["right_more_recent"]
    assert later.more_recent_than(right)  # time counts before bytes
    assert left.more_recent_than(signed(left.dns)) == third["left_more_recent"]


def test_the_newest_of_some() -> None:
    """The one that replaces all others, wherever it stands; nobody has one: none."""
    one, later = SignedPacket.sign(OWNER, [], NOW), SignedPacket.sign(OWNER, [], NOW + 1)
    for packets in ([one, later], [later, one], [None, later, None, one]):
        assert newest_of(packets) == later
    assert newest_of([]) is newest_of([None]) is None


@pytest.mark.parametrize("case", VECTORS["name_selection_on_user_pubky_plus_txt"], ids=lambda case: str(case["query"]))
def test_lookup_by_name(case: dict[str, Any]) -> None:
    """A name finds the records of exactly that name, a star those that differ in one label."""
    packet = SignedPacket.parse(bytes.fromhex(PACKETS["user_pubky_plus_txt"]["packet_hex"]))
    assert [record.name for record in packet.lookup(case["query"])] == case["matches"]


def test_lookup_keeps_case_and_counts_dots() -> None:
    """Names are compared as text: case matters, and a star never reaches over a dot or to the apex."""
    records = [address(name, LOCALHOST) for name in (".", "a.foo", "b.c.foo", "A.foo", "foo")]
    packet = SignedPacket.sign(OWNER, records, NOW)
    z32 = OWNER.public_key.z32

    def found(name: str) -> list[str]:
        return [record.name.removesuffix(z32) for record in packet.lookup(name)]

    assert found("a.foo") == found(f"a.foo.{z32}.") == ["a.foo."]
    assert found("*.foo") == ["a.foo.", "A.foo."]
    assert found("*.c.foo") == ["b.c.foo."]
    assert found("*") == ["foo."]
    assert found("@") == found("") == found(".") == found(z32) == [""]
    assert found("foo.@") == [""]


@pytest.mark.parametrize(
    ("name", "absolute"),
    [
        *[("", "K"), (".", "K"), ("@", "K"), ("@.", "K"), ("K", "K"), ("K.", "K"), ("a.@", "K"), ("a..", "K")],
        *[("a", "a.K"), ("a.", "a.K"), ("a.K", "a.K"), ("a.K.", "a.K"), ("K.a", "K.a.K"), ("_pubky.", "_pubky.K")],
    ],
)
def test_names_end_in_their_key(name: str, absolute: str) -> None:
    """Every way to write a name leads to the one absolute name under its owner's key."""
    z32 = OWNER.public_key.z32
    assert absolute_name(name.replace("K", z32), OWNER.public_key) == absolute.replace("K", z32)


def test_ttl_is_the_smallest_within_bounds() -> None:
    """A packet lives as long as its shortest record, never less than five minutes, never more than a day."""

    def ttl(*ttls: int) -> int:
        return SignedPacket.sign(OWNER, [txt(str(ttl), "", ttl) for ttl in ttls], NOW).ttl()

    assert [ttl(), ttl(0), ttl(301), ttl(900, 800), ttl(2**31)] == [300, 300, 301, 800, 86_400]


@pytest.mark.parametrize("vector", load("keys")["keypairs"], ids=lambda vector: str(vector["name"]))
def test_the_dht_target(vector: dict[str, Any]) -> None:
    """A key's packet lies in the DHT at the SHA-1 of the key."""
    assert dht_target(PublicKey.from_z32(vector["z32"])).hex() == vector["dht_target_sha1_hex"]


@pytest.mark.parametrize("timestamp", [0, 1, NOW, 2**63, 2**64 - 1])
def test_any_time_is_valid(timestamp: int) -> None:
    """A packet of the year 1970 or of a far future is a packet like any other."""
    packet = SignedPacket.sign(OWNER, [], timestamp)
    assert SignedPacket.parse(bytes(packet)).timestamp == timestamp


def test_nothing_secret_or_long_in_its_repr() -> None:
    """A packet in a log is its key, its time and its records, not a kilobyte of signed bytes."""
    packet = SignedPacket.sign(OWNER, [txt("x", "hello")], NOW)
    assert OWNER.public_key.z32 in repr(packet)
    assert "hello" in repr(packet)
    assert repr(packet.dns) not in repr(packet)


def signed(dns: bytes, timestamp: int = NOW) -> SignedPacket:
    """A packet around any DNS bytes."""
    return SignedPacket(OWNER.public_key, OWNER.sign(signable(timestamp, dns)), timestamp, dns)


WHOLE = [bytes.fromhex(vector["packet_hex"]) for vector in VECTORS["packets"]]


@given(st.sampled_from(WHOLE), st.integers(0, 8 * 1104), st.binary(max_size=3))
def test_a_changed_packet_is_refused(whole: bytes, bit: int, tail: bytes) -> None:
    """A packet with a bit flipped, cut anywhere or with bytes added is no packet: nobody else can make one."""
    position = bit // 8 % len(whole)
    flipped = whole[:position] + bytes([whole[position] ^ 1 << bit % 8]) + whole[position + 1 :]
    for broken in (flipped, whole[:position], *([whole + tail] if tail else [])):
        with pytest.raises(InvalidSignedPacket):
            SignedPacket.parse(broken)


@given(st.binary(max_size=1200))
def test_any_bytes_are_refused(raw: bytes) -> None:
    """Whatever comes in, the only error is ours."""
    with pytest.raises(InvalidSignedPacket):
        SignedPacket.parse(raw)


LABELS = st.text("abcdefghijklmnopqrstuvwxyz0123456789_-", min_size=1, max_size=20)
NAMES = st.lists(LABELS, max_size=3).map(".".join)
TTLS = st.integers(0, 2**31 - 1)
ANY_RECORD = (
    st.builds(address, NAMES, st.ip_addresses(), TTLS)
    | st.builds(txt, NAMES, st.text(max_size=60), TTLS)
    | st.builds(cname, NAMES, NAMES, TTLS)
    | st.builds(svcb, NAMES, st.integers(0, 65535), NAMES, st.ip_addresses().map(hinting), TTLS)
    | st.builds(https, NAMES, st.integers(0, 65535), NAMES, st.integers(0, 65535).map(at_port), TTLS)
)


@given(st.lists(ANY_RECORD, max_size=6), st.integers(0, 2**64 - 1))
def test_what_was_signed_is_read(records: list[Record], timestamp: int) -> None:
    """Records come out of a packet as they went in: order, names, times to live, data."""
    absolute = [evolve(record, name=absolute_name(record.name, OWNER.public_key)) for record in records]
    if len(encode(absolute)) > MAX_DNS:
        with pytest.raises(InvalidSignedPacket, match="expected max 1000 bytes"):
            SignedPacket.sign(OWNER, records, timestamp)
    else:
        packet = SignedPacket.parse(bytes(SignedPacket.sign(OWNER, records, timestamp)))
        assert packet.records == tuple(absolute)
        assert packet.timestamp == timestamp


def test_the_usual_ttl() -> None:
    """Records last an hour unless said otherwise, as those of the official programs do."""
    assert address(".", LOCALHOST).ttl == DEFAULT_TTL == 3600
