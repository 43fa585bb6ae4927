"""The DNS message: what is one and what is none, and what is in it."""

import sys
from ipaddress import IPv4Address

import dns.message
import dns.rdatatype
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pkarr import records
from pkarr.records import (
    InvalidDns,
    Record,
    Service,
    address,
    at_port,
    cname,
    decode,
    encode,
    hinting,
    https,
    svcb,
    txt,
)

from .vectors import load

MESSAGES = [bytes.fromhex(vector["dns_hex"]) for vector in load("pkarr_packets")["packets"]]
NAME = b"\x01a\x03foo\x00"  # at byte 12 of a message
AGAIN = b"\xc0\x0c"  # a pointer to it
INVALID = "Provided information is not a valid DNS packet"
INCOMPLETE = "Incomplete dns packet"
LABEL = "Provied service name contains invalid label"


def frame(rdtype: int, data: bytes, name: bytes = NAME, rdclass: int = 1, ttl: int = 5) -> bytes:
    """A record on the wire."""
    head = rdtype.to_bytes(2, "big") + rdclass.to_bytes(2, "big") + ttl.to_bytes(4, "big")
    return name + head + len(data).to_bytes(2, "big") + data


def message(*answers: bytes, flags: int = 0x8000, counts: tuple[int, int, int, int] | None = None) -> bytes:
    """A DNS message of these answers; `counts` are questions, answers, authorities, additional ones."""
    numbers = (0, flags, *(counts or (0, len(answers), 0, 0)))
    return b"".join(number.to_bytes(2, "big") for number in numbers) + b"".join(answers)


A = frame(1, bytes([127, 0, 0, 1]))


@pytest.mark.parametrize(
    ("packet", "error"),
    [
        (b"", INCOMPLETE),
        (b"\0\0\0", INCOMPLETE),
        (b"\0\0\0\x40", "Provided header information is invalid"),
        (message()[:11], INCOMPLETE),
        (message(counts=(0, 1, 0, 0)), INCOMPLETE),
        (message(counts=(0, 65535, 0, 0)), INCOMPLETE),
        (message(A, counts=(0, 1, 1, 0)), INCOMPLETE),
        (message(A, counts=(0, 1, 0, 1)), INCOMPLETE),
        (message(NAME, counts=(1, 0, 0, 0)), INCOMPLETE),
        (message(A[:-1]), INCOMPLETE),
        (message(frame(1, b"abc")), INCOMPLETE),
        (message(frame(28, bytes(15))), INCOMPLETE),
        (message(frame(1, b"abcd", rdclass=5)), "Provided class is invalid: 5"),
        (message(frame(1, b"abcd", rdclass=0x8000)), "Provided class is invalid: 0"),
        (message(frame(1, b"abcd", name=b"\x40" + b"a" * 64 + b"\0")), LABEL),
        (message(frame(1, b"abcd", name=b"\x80a")), LABEL),
        (message(frame(1, b"abcd", name=(b"\x3f" + b"a" * 63) * 4 + b"\0")), INVALID),
        (message(frame(1, b"abcd", name=b"\xc0\x0c")), INVALID),  # a pointer to itself
        (message(frame(1, b"abcd", name=b"\xc0\x0e")), INVALID),  # forward
        (message(frame(1, b"abcd", name=b"\x01a\xc0\x0c")), INVALID),  # round and round
        (message(frame(5, b"\x01a")), INCOMPLETE),
        (message(frame(16, b"\x05abc")), INCOMPLETE),
        (message(frame(15, b"\0\x01\x09a")), INCOMPLETE),
        (message(frame(13, b"\x01a\x03b")), INCOMPLETE),
        (message(frame(65, b"\0")), INCOMPLETE),
        (message(frame(65, b"\0\x01\0\0\x03\0\x01a")), INCOMPLETE),  # half a port
        (message(frame(65, b"\0\x01\0\0\x03\0\x03aa")), INCOMPLETE),  # longer than the record
        (message(frame(65, b"\0\x01\0\0\x04\0\x05abcde")), INCOMPLETE),  # an address and a bit
        (message(frame(65, b"\0\x01\0\0\x06\0\x04abcd")), INCOMPLETE),
        (message(frame(65, b"\0\x01\0\0\x00\0\x01a")), INCOMPLETE),
        (message(frame(65, b"\0\x01\0\0\x01\0\x02\x09a")), INCOMPLETE),
        (message(frame(65, b"\0\x01\0\0\x05\0\x01a")), INCOMPLETE),
        (message(frame(65, b"\0\x01\0\0\x05\0\x04\0\x05ab")), INVALID),
        (message(frame(64, b"\0\x01\0\0\x03\0\x02ab\0\x03\0\x02ab")), INVALID),  # twice
        (message(frame(64, b"\0\x01\0\x01\0\0\0\0\x03\0\x02ab")), INVALID),  # out of order
    ],
    ids=lambda value: value.hex() if isinstance(value, bytes) else "",
)
def test_what_is_no_dns_packet(packet: bytes, error: str) -> None:
    """Broken messages are refused in the official library's words, misspelled as they are."""
    with pytest.raises(InvalidDns) as caught:
        decode(packet)
    assert str(caught.value) == error


@pytest.mark.parametrize(
    ("packet", "names"),
    [
        (message(A) + b"more", ["a.foo"]),
        (message(A, flags=0xFFBF), ["a.foo"]),
        (message(A, frame(1, b"abcd", AGAIN)), ["a.foo", "a.foo"]),
        (message(A, frame(1, b"abcd", b"\x01b\xc0\x0e")), ["a.foo", "b.foo"]),
        (message(frame(1, b"abcd", b"\0")), [""]),
        (message(frame(1, b"abcd", b"\x02\xff.\0")), ["\ufffd."]),
        (message(frame(1, b"abcd", rdclass=0x8001)), ["a.foo"]),
        (message(A, NAME + bytes(4), counts=(0, 1, 0, 0)), ["a.foo"]),
        (message(NAME + bytes(4), A, counts=(1, 1, 0, 0)), ["a.foo"]),
        (message(A, A, A, counts=(0, 1, 1, 1)), ["a.foo"]),
    ],
    ids=lambda value: value.hex() if isinstance(value, bytes) else "",
)
def test_what_is_one_nevertheless(packet: bytes, names: list[str]) -> None:
    """Bytes after the end, any flags but the reserved one, other sections and odd names do no harm."""
    assert [record.name for record in decode(packet)] == names


@pytest.mark.parametrize(
    "wire",
    [
        frame(1, b""),
        frame(1, b"abcde"),
        frame(1, b"abcd", rdclass=3),
        frame(99, b"xyz"),
        frame(65535, b""),
        frame(41, b"\0\x01\0\0", rdclass=1232),
        frame(65, b""),
        frame(65, b"\0\x01\0\0\x00\0\x02\0\x09"),  # requires a parameter that is not there
        frame(65, b"\0\x01\0\0\x05\0\x04\0\x02ab"),  # an ECH that holds nothing
        frame(65, b"\0\0\0\0\x03\0\x02ab"),  # an alias with a port
        frame(16, b""),
        frame(16, b"\x02\xff\xfe"),
        frame(13, b"\x01a\x02bc"),
        frame(5, b""),
    ],
    ids=lambda wire: bytes(wire).hex(),
)
def test_strange_records_are_kept(wire: bytes) -> None:
    """A well framed record of odd content stays in its place, comes out as it went in, and can be asked anything."""
    packet = message(wire, frame(1, b"abcd", AGAIN))
    odd, usual = decode(packet)
    assert odd.type == int.from_bytes(wire[7:9], "big")
    assert odd.data == wire[17:]
    assert usual.name == "a.foo"
    assert encode([odd, usual]) == packet
    ask(odd)


def test_compressed_names_in_data_are_followed() -> None:
    """Names in data may point back into the message; they are kept written out, so that they mean the same anywhere."""
    packet = message(
        frame(5, AGAIN),
        frame(65, b"\0\x01" + AGAIN + b"\0\x03\0\x02ab"),
        frame(15, b"\0\x0a\x01b" + AGAIN),
        frame(6, AGAIN + AGAIN + bytes(20)),
    )
    alias, service, mail, zone = decode(packet)
    assert alias.alias == "a.foo"
    assert service.service == Service(1, "a.foo", {3: b"ab"})
    assert mail.data == b"\0\x0a\x01b" + NAME
    assert zone.data == NAME + NAME + bytes(20)
    assert decode(encode([zone, mail, service, alias])) == (zone, mail, service, alias)


def test_no_pointer_reaches_too_far() -> None:
    """A pointer has 14 bits: a name that stands farther back than these can say is written out each time."""
    long = [txt("far", "x" * 40_000), *[address("late.name", IPv4Address("1.2.3.4"))] * 2]
    packet = encode(long)
    assert packet.count(b"\x04late\x04name\0") == 2
    assert decode(packet) == tuple(long)


def test_letters_of_either_case_are_different() -> None:
    """A name is compressed only against the same letters, or it would come out in another case than it went in."""
    ip = IPv4Address("1.2.3.4")
    names = ["a.foo", "A.foo", "a.Foo", "a.foo"]
    packet = encode([address(name, ip) for name in names])
    assert [record.name for record in decode(packet)] == names


def test_owners_are_compressed_targets_never() -> None:
    """The second owner is a pointer of two bytes, the target of a service record is written out (RFC 9460, 2.2)."""
    packet = encode([https("a.foo", 1, "a.foo"), https("a.foo", 2, "a.foo")])
    assert packet == message(frame(65, b"\0\x01" + NAME, ttl=3600), frame(65, b"\0\x02" + NAME, AGAIN, ttl=3600))


def test_service_parameters_are_sorted() -> None:
    """Parameters are written by ascending key in whatever order they were given."""
    ip = IPv4Address("1.2.3.4")
    one = https("a.foo", 1, ".", {65280: b"x"} | hinting(ip) | at_port(80))
    other = https("a.foo", 1, ".", at_port(80) | hinting(ip) | {65280: b"x"})
    wire = b"\0\x01\0" + b"\0\x03\0\x02\0\x50" + b"\0\x04\0\x04\x01\x02\x03\x04" + b"\xff\0\0\x01x"
    assert encode([one]) == encode([other]) == message(frame(65, wire, ttl=3600))


@pytest.mark.parametrize("parameters", [{3: b"x"}, {0: b"\0"}, {4: b"abc"}, {5: b"abc"}, {1: b"\x02a"}], ids=str)
def test_no_senseless_service_record_is_made(parameters: dict[int, bytes]) -> None:
    """What a reader would refuse is not written."""
    for build in (https, svcb):
        with pytest.raises(InvalidDns):
            build("a", 1, ".", parameters)


def test_long_text_becomes_several_strings() -> None:
    """A TXT record holds any text, cut into strings of at most 255 bytes; no text is one empty string."""
    text = "é" * 300
    record = txt("a", text)
    assert [record.data[place] for place in (0, 256, 512)] == [255, 255, 90]
    assert len(record.data) == 603
    assert record.text == text
    assert txt("a", "").data == b"\0"
    assert txt("a", "").text == ""


def test_only_its_own_type_has_an_answer() -> None:
    """Asking a record for what it does not hold gives None."""
    ip = IPv4Address("1.2.3.4")
    answers = {
        (record.address, record.alias, record.text, record.service)
        for record in (address("a", ip), cname("a", "b.c."), txt("a", "text"), https("a", 0, "."))
    }
    assert answers == {
        (ip, None, None, None),
        (None, "b.c", None, None),
        (None, None, "text", None),
        (None, None, None, Service(0, ".", {})),
    }


def test_a_record_too_long_for_its_length_field() -> None:
    """Data of more than 65535 bytes is an error of ours."""
    with pytest.raises(InvalidDns, match="65536 bytes"):
        encode([Record("a", 99, 1, bytes(65536))])


LABELS = st.text("abcdefghijklmnopqrstuvwxyz0123456789_-", min_size=1, max_size=20)
NAMES = st.lists(LABELS, min_size=1, max_size=3).map(".".join)
TTLS = st.integers(0, 2**31 - 1)
PRIORITIES = st.integers(1, 65535)
USUAL = (
    st.builds(address, NAMES, st.ip_addresses(), TTLS)
    | st.builds(txt, NAMES, st.text(max_size=300), TTLS)
    | st.builds(cname, NAMES, NAMES, TTLS)
    | st.builds(svcb, NAMES, PRIORITIES, NAMES, st.ip_addresses().map(hinting), TTLS)
    | st.builds(https, NAMES, PRIORITIES, NAMES, st.integers(0, 65535).map(at_port), TTLS)
)


@given(st.lists(USUAL, max_size=8))
def test_another_library_reads_the_same(written: list[Record]) -> None:
    """Dnspython finds in our messages the records that we put in, and we find the same in what it writes."""
    packet = encode(written)
    theirs = dns.message.from_wire(packet, one_rr_per_rrset=True)
    read = [
        Record(rrset.name.to_text(omit_final_dot=True), rrset.rdtype, rrset.ttl, rrset[0].to_wire() or b"")
        for rrset in theirs.answer
    ]
    assert read == written
    assert decode(theirs.to_wire(max_size=65535)) == tuple(written)


def test_the_numbers_of_types() -> None:
    """Our names of record types are those of the registry."""
    for name in ("A", "NS", "CNAME", "SOA", "PTR", "HINFO", "MX", "TXT", "AAAA", "SRV", "OPT", "SVCB", "HTTPS"):
        assert getattr(records, name) == dns.rdatatype.RdataType[name]


@settings(max_examples=500)
@given(st.sampled_from(MESSAGES), st.data())
def test_no_damage_raises_another_error(whole: bytes, data: st.DataObject) -> None:
    """A message cut, with bytes replaced or pointed elsewhere, gives records or InvalidDns."""
    broken = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    del broken[data.draw(st.integers(0, len(broken))) :]
    check(bytes(broken))


@given(st.binary(max_size=300).map(lambda rest: b"\0\0\x80\0\0\0\0\x03\0\0\0\0" + rest))
@example(message(b"\xc0\x0c" * 400))
def test_no_garbage_raises_another_error(raw: bytes) -> None:
    """Garbage behind a fine header gives records or InvalidDns."""
    check(raw)


def check(raw: bytes) -> None:
    """Decode, and look at what came out."""
    try:
        found = decode(raw)
    except InvalidDns:
        return
    for record in found:
        assert 0 <= record.ttl < 2**32
        ask(record)


def ask(record: Record) -> None:
    """Ask a record everything that it can be asked."""
    assert record.address is None or record.type in (1, 28)
    assert record.alias is None or record.type == 5
    assert record.text is None or record.type == 16
    assert record.service is None or record.type in (64, 65)


def pointer(place: int) -> bytes:
    """A pointer to a byte of the message."""
    return (0xC000 | place).to_bytes(2, "big")


def chained(link: bytes, count: int) -> bytes:
    """A record in whose data a name goes on by so many links with pointers, and as many records as fit behind it."""
    ends = [23, *range(24, 24 + (len(link) + 2) * count, len(link) + 2)]
    first = frame(99, b"\0" + b"".join(link + pointer(place) for place in ends[:-1]), name=b"\0")
    rest = [frame(1, b"abcd", pointer(ends[-2] if count > 1 else 23))] * ((988 - len(first)) // 16)
    return message(first, *rest)


LONG = b"\x01a" * 126 + b"\0"
HOSTILE = {
    "pointers to pointers": chained(b"", 230),
    "a label, a pointer, a label": chained(b"\x01a", 118),
    "many owners of many labels": message(frame(1, b"abcd", LONG), *[frame(1, b"abcd", AGAIN)] * 44),
    "many targets of many labels": message(frame(1, b"abcd", LONG), *[frame(2, AGAIN, AGAIN)] * 51),
    "many questions of many labels": message(LONG + bytes(4), *[AGAIN + bytes(4)] * 120, counts=(121, 0, 0, 0)),
    "many strings": message(frame(16, bytes(960))),
    "many parameters": message(
        frame(65, b"\0\1\0" + b"".join(key.to_bytes(2, "big") + b"\0\0" for key in range(7, 247)))
    ),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_reading_takes_little_whatever_is_read(hostile: bytes) -> None:
    """A thousand bytes made to be slow take a few calls a byte, and what comes of them is small."""
    assert 900 < len(hostile) <= 1000
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        found = decode(hostile)
    finally:
        sys.setprofile(None)
    assert calls <= 10 * len(hostile)
    assert sum(len(record.name) + len(record.data) for record in found) <= 100 * 510


def test_a_chain_of_pointers_is_read() -> None:
    """A name that is reached over many pointers is that name."""
    assert [record.name for record in decode(chained(b"", 230))] == [""] * (1 + (988 - 11 - 1 - 460) // 16)
    assert decode(chained(b"\x01a", 118))[-1].name == ".".join("a" * 117)
