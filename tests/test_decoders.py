"""Every reader of foreign bytes: it reads or says why not, soon, and with a bounded amount of memory."""

import gc
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress

import pytest
from attrs import field, frozen
from hypothesis import given
from hypothesis import strategies as st

from pkarr.builder import Builder
from pkarr.dht import bencode, krpc
from pkarr.dht.contacts import Contact
from pkarr.dht.items import MutableItem
from pkarr.dht.saved import MAX_LENGTH, InvalidSaved, Saved
from pkarr.keys import Keypair
from pkarr.packet import MAX_DNS, InvalidSignedPacket, SignedPacket, signable
from pkarr.records import InvalidDns, decode
from pkarr.tls.hello import server_name
from pubky_homeserver.core.copies import Hint, Listed, LoggedEvent, LogStanding, Offered, Position, Reign
from pubky_homeserver.core.prefaces import SIGNATURE, InvalidPreface, read_preface
from pubky_homeserver.core.records import Entry, Event, Operation
from pubky_homeserver.peers import messages, reading
from pubky_homeserver.peers.shapes import Malformed, to_json
from pubky_homeserver.peers.signatures import BadSignature, Head, sign, verify
from tests.pkarr.dht.thorough import THOROUGHLY

PER_BYTE = 80
"""Bytes of memory for a byte of input, at most: an empty dictionary takes 64, and two bytes to write."""

FIXED = 65_536
"""Bytes of memory that any reader may take besides."""

SOON = 1.0
"""Seconds of the processor for one input; usual are tens of microseconds."""

KEYPAIR = Keypair(b"\x05" * 32)
PACKET: SignedPacket = (
    Builder().https(".", 1, ".", port=6287).address(".", "127.0.0.1").txt("_x", "some text").cname("www", "example.com")
).sign(KEYPAIR, 1_764_000_000_000_000)
ITEM = MutableItem(KEYPAIR.public_key.raw, 7, b"%d:%b" % (len(PACKET.dns), PACKET.dns), bytes(64))
CONTACTS = tuple(Contact(bytes([number]) * 20, ("192.0.2.7", 6881)) for number in range(8))
ID = b"i" * 20

NAME = bytes.fromhex("0000000d000b000008") + b"_a.bcdef"  # the extension that names the server
HELLO_BODY = bytes.fromhex("0303") + bytes(32) + bytes.fromhex("00000213010100") + len(NAME).to_bytes(2, "big") + NAME
HELLO = b"\x01" + len(HELLO_BODY).to_bytes(3, "big") + HELLO_BODY

PUBKY = KEYPAIR.public_key.z32
NOW = 1_795_387_747
SIGNED = sign(KEYPAIR, PUBKY, "POST", "/peer/v1/x?y", NOW, b"body")
STANDING = LogStanding(Position("1" * 32, 7, 70, bytes(16)), (Reign("0" * 32, 1), Reign("1" * 32, 5)), 3, 9)
PUT = Event(70, Operation.PUT, PUBKY, "/pub/a", 7, bytes(16), bytes(32), 3, "text/plain", 70_000_000)
FILE = Entry("/pub/a", bytes(32), 3, "text/plain", 70, seq=7)


def verified(field: str) -> Callable[[bytes], object]:
    """Verifies a request in which one field is what a test says."""

    def read(data: bytes) -> object:
        fields = {name.lower(): [value] for name, value in SIGNED.items()} | {field: [data.decode("latin-1")]}
        return verify(Head("POST", "/peer/v1/x?y", fields, True), PUBKY, {PUBKY}, NOW)

    return read


def sign_and_read(dns: bytes) -> object:
    """A packet whose owner signed anything at all: only the DNS in it can be wrong."""
    signature = KEYPAIR.sign(signable(1, dns[:MAX_DNS]))
    return SignedPacket.parse(KEYPAIR.public_key.raw + signature + (1).to_bytes(8, "big") + dns[:MAX_DNS])


@frozen
class Reader:
    """A reader, its own error, and what it reads."""

    read: Callable[[bytes], object]
    error: type[Exception] | tuple[()]
    samples: tuple[bytes, ...] = field(repr=False)
    longest: int
    """Bytes that can come in."""


READERS = {
    "bencode": Reader(
        bencode.decode,
        bencode.InvalidBencode,
        (b"d1:ai1e1:bli2ei3eee", b"l" * 4 + b"0:" * 9 + b"e" * 4, b"l" + b"de" * 100 + b"e", b"i-12e", b"3:abc"),
        MAX_LENGTH,
    ),
    "krpc": Reader(
        krpc.decode,
        krpc.InvalidMessage,
        tuple(
            krpc.encode(message)
            for message in (
                krpc.Query(b"aa", ID, krpc.Ping()),
                krpc.Query(b"aa", ID, krpc.FindNode(ID)),
                krpc.Query(b"aa", ID, krpc.Get(ID, 3)),
                krpc.Query(b"aa", ID, krpc.Put(b"token", ITEM, None)),
                krpc.Reply(b"aa", ID, nodes=CONTACTS, token=b"token", item=ITEM),
                krpc.Error(b"aa", 203, b"no"),
            )
        ),
        2048,
    ),
    "signed packet": Reader(SignedPacket.parse, InvalidSignedPacket, (bytes(PACKET),), 1200),
    "what an owner signs": Reader(sign_and_read, InvalidSignedPacket, (PACKET.dns,), 1000),
    "dns": Reader(decode, InvalidDns, (PACKET.dns, PACKET.dns[:12] + b"\xc0\x0c" * 300), 1000),
    "client hello": Reader(server_name, (), (HELLO,), 20_000),
    "proxy head": Reader(
        read_preface,
        InvalidPreface,
        (
            b"PROXY TCP4 192.0.2.7 127.0.0.1 50000 6286\r\n",
            b"PROXY UNKNOWN\r\n",
            SIGNATURE + bytes.fromhex("2111000c") + bytes(12),
            SIGNATURE + bytes.fromhex("21210024") + bytes(36) + b"GET",
        ),
        1000,
    ),
    "saved neighbours": Reader(
        Saved.parse, InvalidSaved, (bytes(Saved(((4, ID),), CONTACTS)), b"d3:id40:6:nodes40:e"), MAX_LENGTH + 1
    ),
    "accounts of a peer": Reader(
        reading.read_accounts,
        Malformed,
        (to_json(messages.pack_accounts([Offered(PUBKY, 5, STANDING, STANDING)], "7")),),
        messages.MAX_ANSWER,
    ),
    "events of a peer": Reader(
        lambda data: reading.read_events(data, PUBKY, False),
        Malformed,
        (
            to_json(messages.pack_events(STANDING.reigns, [LoggedEvent(PUT, b"one")], 9)),
            b'{"events":[[[[{}]]]]}',
        ),
        messages.MAX_ANSWER,
    ),
    "files of a peer": Reader(
        lambda data: reading.read_entries(data, False),
        Malformed,
        (to_json(messages.pack_entries(Listed((FILE,), STANDING))),),
        messages.MAX_ANSWER,
    ),
    "hint of a peer": Reader(reading.read_hint, Malformed, (to_json(messages.pack_hint(Hint(PUBKY, False, 7))),), 1024),
    "what a peer signs": Reader(
        verified("signature-input"), BadSignature, (SIGNED["Signature-Input"].encode(),), 16_384
    ),
    "signature of a peer": Reader(verified("signature"), BadSignature, (SIGNED["Signature"].encode(),), 16_384),
}


@st.composite
def damaged(draw: st.DrawFn, samples: tuple[bytes, ...]) -> bytes:
    """A sample of which pieces are replaced, doubled, taken away or exchanged with another's; or anything."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=300))
    data = draw(st.sampled_from(samples))
    for _ in range(draw(st.integers(1, 4))):
        start, length = draw(st.integers(0, len(data))), draw(st.integers(0, 12))
        piece = draw(st.one_of(st.binary(max_size=4), st.just(data[start : start + length] * 2)))
        data = data[:start] + piece + data[start + draw(st.integers(0, length)) :]
    return data * draw(st.sampled_from([1, 1, 1, 1, 20]))


@pytest.mark.parametrize("name", READERS)
def test_bounded(name: str) -> None:
    """No input makes a reader raise another error than its own, take long, or take much memory."""
    reader = READERS[name]

    @THOROUGHLY
    @given(damaged(reader.samples))
    def read(data: bytes) -> None:
        data = data[: reader.longest]
        gc.disable()  # what it frees and calls back is not of this input, nor is the time that it takes
        tracemalloc.start(1)
        began = time.thread_time()
        try:
            reader.read(data)
        except reader.error:
            pass
        finally:
            took = time.thread_time() - began
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            gc.enable()
        assert took < SOON
        assert peak < FIXED + PER_BYTE * len(data)

    for sample in reader.samples:  # the first time, what it needs is loaded
        with suppress(*([reader.error] if isinstance(reader.error, type) else [])):
            reader.read(sample)
    read()


@pytest.mark.parametrize("name", READERS)
def test_samples_are_read(name: str) -> None:
    """The first sample of each is whole: what comes of it is damage to something good."""
    assert READERS[name].read(READERS[name].samples[0]) is not None
