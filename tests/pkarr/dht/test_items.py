"""What the DHT keeps: targets, signatures, order; against the test vectors of BEP 44 and our packets."""

import pytest
from attrs import evolve

from pkarr.dht.items import ImmutableItem, MutableItem, length_of, signable, string_in
from pkarr.packet import SignedPacket, dht_target
from pkarr.packet import signable as packet_signable
from tests.pkarr.vectors import load

# The key and signatures of the test vectors in BEP 44.
K = bytes.fromhex("77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548")
UNSALTED = MutableItem(
    K,
    1,
    b"12:Hello World!",
    bytes.fromhex(
        "305ac8aeb6c9c151fa120f120ea2cfb923564e11552d06a5d856091e5e853cff"
        "1260d3f39e4999684aa92eb73ffd136e6f4f3ecbfda0ce53a1608ecd7ae21f01"
    ),
)
SALTED = MutableItem(
    K,
    1,
    b"12:Hello World!",
    bytes.fromhex(
        "6834284b6b24c3204eb2fea824d82f88883a3d95e8b4a21b8c0ded553d17d17d"
        "df9a8a7104b1258f30bed3787e6cb896fca78c58f8e03b5f18f14951a87d9a08"
    ),
    b"foobar",
)


def test_vectors_of_the_standard() -> None:
    """Targets and signatures are those of BEP 44."""
    assert signable(1, b"12:Hello World!") == b"3:seqi1e1:v12:Hello World!"
    assert signable(1, b"12:Hello World!", b"foobar") == b"4:salt6:foobar3:seqi1e1:v12:Hello World!"
    assert UNSALTED.target.hex() == "4a533d47ec9c7d95b1ad75f576cffc641853b750"
    assert SALTED.target.hex() == "411eba73b6f087ca51a3795d9c8c938d365e32c1"
    assert UNSALTED.is_valid()
    assert SALTED.is_valid()
    assert ImmutableItem(b"12:Hello World!").target.hex() == "e5f96f6f38320f0f33959cb4d3d656452117aadb"


@pytest.mark.parametrize(
    "changed",
    [
        evolve(SALTED, salt=b""),
        evolve(UNSALTED, salt=b"foobar"),
        evolve(UNSALTED, seq=2),
        evolve(UNSALTED, v=b"12:Hello World?"),
        evolve(UNSALTED, sig=bytes(64)),
        evolve(UNSALTED, sig=UNSALTED.sig[:-1]),
        evolve(UNSALTED, k=bytes(32)),
        evolve(UNSALTED, k=K[:-1]),
    ],
)
def test_changed_items_are_not_valid(changed: MutableItem) -> None:
    """A signature covers salt, number and value, and is of one key."""
    assert not changed.is_valid()


def test_packets_are_items() -> None:
    """A signed packet is the item whose value is its DNS message as a string."""
    for vector in load("pkarr_packets")["packets"]:
        packet = SignedPacket.parse(bytes.fromhex(vector["packet_hex"]))
        v = b"%d:%b" % (len(packet.dns), packet.dns)
        item = MutableItem(packet.public_key.raw, packet.timestamp, v, packet.signature)
        assert item.is_valid()
        assert item.target == dht_target(packet.public_key)
        assert signable(item.seq, item.v) == packet_signable(packet.timestamp, packet.dns)
        assert (string_in(v), length_of(v)) == (packet.dns, len(packet.dns))


def test_order() -> None:
    """The higher number is newer, then the larger string, as among packets: `b` is larger than `aa`."""
    low, high = evolve(UNSALTED, v=b"2:aa"), evolve(UNSALTED, v=b"1:b")
    assert high.is_newer_than(low)
    assert not low.is_newer_than(high)
    assert not low.is_newer_than(low)
    assert evolve(low, seq=2).is_newer_than(high)


def test_other_values() -> None:
    """A value need not be a string; then all of its bencode counts."""
    assert string_in(b"li1ee") is None
    assert string_in(b"no") is None
    assert length_of(b"li1ee") == 5
