"""The walk from a host to its places."""

import random
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from zope.interface import implementer

from pkarr.builder import Builder
from pkarr.endpoints import MAX_PACKETS, Endpoint, Endpoints
from pkarr.interfaces import INetwork, NetworkError, Policy, Unavailable
from pkarr.keys import InvalidPublicKey, Keypair, PublicKey
from pkarr.packet import SignedPacket
from pkarr.records import SVCB
from pkarr.tls.agent import Place

from .test_client import now
from .vectors import load

VECTORS = {vector["name"]: vector for vector in load("pkarr_packets")["packets"]}
KEYS = [Keypair(bytes([number]) * 32) for number in range(1, 12)]
Z32 = [keypair.public_key.z32 for keypair in KEYS]
IP, OTHER_IP, V6 = IPv4Address("203.0.113.7"), IPv4Address("192.0.2.1"), IPv6Address("2001:db8::7")


@implementer(INetwork)
@define
class Known:
    """A network that has these packets, and errors for some keys."""

    packets: dict[PublicKey, SignedPacket | NetworkError] = field(factory=dict)
    asked: list[tuple[PublicKey, Policy]] = field(factory=list)

    async def publish(self, packet: SignedPacket, replaces: int | None = None) -> int:
        """Keep it."""
        self.packets[packet.public_key] = packet
        return 1

    async def resolve(self, key: PublicKey, policy: Policy = Policy.CACHE_FIRST) -> SignedPacket | None:
        """Find it."""
        self.asked.append((key, policy))
        found = self.packets.get(key)
        if isinstance(found, NetworkError):
            raise found
        return found


def known(*builders: Builder) -> Known:
    """The first key signs the first packet, the second the second, …"""
    packets = [builder.sign(keypair, 1) for keypair, builder in zip(KEYS, builders, strict=False)]
    return Known({packet.public_key: packet for packet in packets})


def walk(network: Known, host: str, record_type: int | None = None) -> list[tuple[str, str, int | None]]:
    """Whose packet named it, where it is, its port."""
    endpoints = Endpoints(network) if record_type is None else Endpoints(network, record_type=record_type)
    return [
        (
            endpoint.key.z32,
            endpoint.domain or " ".join(map(str, endpoint.addresses)),
            endpoint.port,
        )
        for endpoint in now(endpoints.find(host))
    ]


def test_from_a_user_to_the_address() -> None:
    """The official packets of a user and a homeserver: its address by key first, then its domain; it is its key."""
    packets = [SignedPacket.parse(bytes.fromhex(VECTORS[name]["packet_hex"])) for name in ("user_pubky_record",)]
    homeserver = SignedPacket.parse(bytes.fromhex(VECTORS["homeserver_ipv4_localhost"]["packet_hex"]))
    network = Known({packet.public_key: packet for packet in (*packets, homeserver)})
    key, user = homeserver.public_key.z32, packets[0].public_key.z32
    expected = [(key, "127.0.0.1", 6287), (key, "localhost", None)]
    assert walk(network, f"_pubky.{user}") == expected
    assert network.asked == [(packets[0].public_key, Policy.CACHE_FIRST), (homeserver.public_key, Policy.CACHE_FIRST)]
    assert walk(network, key) == walk(network, f"{key}.") == expected
    assert walk(network, user) == walk(network, f"www.{user}") == walk(network, f"x._pubky.{user}") == []
    assert walk(network, f"_pubky.{user}", SVCB) == []
    places = now(Endpoints(network).places(f"_pubky.{user}"))
    assert places == [Place(homeserver.public_key, "127.0.0.1", 6287)]


def test_service_bindings_when_asked() -> None:
    """HTTPS records are walked over unless SVCB ones are asked for, all the way."""
    network = known(
        Builder().svcb("_pubky", 0, Z32[1]).https("_pubky", 1, "wrong.example"),
        Builder().svcb(".", 1, "right.example").https(".", 1, "wrong.example"),
    )
    assert walk(network, f"_pubky.{Z32[0]}", SVCB) == [(Z32[1], "right.example", None)]


def test_lower_numbers_first() -> None:
    """Priority 0 comes before 1; a record of another key's packet takes the place of the one that led there."""
    network = known(
        Builder().https(".", 3, "last.example").https(".", 0, "first.example", port=1).https(".", 1, f"x.{Z32[1]}"),
        Builder().https("x", 9, "third.example").https("x", 8, "second.example").https(".", 0, "wrong.example"),
    )
    assert walk(network, Z32[0]) == [
        (Z32[0], "first.example", 1),
        (Z32[1], "second.example", None),
        (Z32[1], "third.example", None),
        (Z32[0], "last.example", None),
    ]


def test_chance_among_equals() -> None:
    """Of two records of one priority each comes first at times."""
    network = known(Builder().https(".", 1, "a.example").https(".", 1, "b.example").https(".", 0, "c.example"))

    def seen(seed: int) -> str:
        found = now(Endpoints(network, shuffle=random.Random(seed).shuffle).find(Z32[0]))
        return " ".join(str(endpoint.domain) for endpoint in found)

    assert {seen(seed) for seed in range(20)} == {
        "c.example a.example b.example",
        "c.example b.example a.example",
    }


def test_addresses() -> None:
    """A key's own place is at its apex, whatever the record's name; hints count only without addresses there."""
    network = known(
        Builder()
        .https("x", 1, ".", port=443, hints=[OTHER_IP])
        .address(".", IP)
        .address(".", V6)
        .address("x", "1.1.1.1"),
        Builder().https(".", 1, ".", port=443, hints=[V6, OTHER_IP]).address("x", IP),
        Builder().https(".", 1, "."),
    )
    assert walk(network, f"x.{Z32[0]}") == [(Z32[0], f"{IP} {V6}", 443)]
    assert walk(network, Z32[1]) == [(Z32[1], f"{OTHER_IP} {V6}", 443)]
    assert walk(network, Z32[2]) == [(Z32[2], "", None)]
    assert now(Endpoints(network).places(Z32[2])) == []
    assert now(Endpoints(network).places(f"x.{Z32[0]}")) == [
        Place(KEYS[0].public_key, str(IP), 443),
        Place(KEYS[0].public_key, str(V6), 443),
    ]


def chain(length: int) -> list[Builder]:
    """Packets that lead from one to the next, and the last to a domain."""
    links = [Builder().https(".", 0, Z32[number + 1]).https(".", 1, "aside.example") for number in range(length - 1)]
    return [*links, Builder().https(".", 0, "end.example")]


def test_seven_packets_and_no_more() -> None:
    """A chain of seven packets leads to its end; the eighth is not asked for and ends the walk, siblings and all."""
    network = known(*chain(MAX_PACKETS))
    found = walk(network, Z32[0])
    assert found[0] == (Z32[6], "end.example", None)
    assert [domain for _, domain, _ in found[1:]] == ["aside.example"] * 6
    network = known(*chain(MAX_PACKETS + 1))
    assert walk(network, Z32[0]) == []
    assert len(network.asked) == 7


def test_rounds_end() -> None:
    """Keys that lead to each other are a walk like any other: it has an end."""
    network = known(Builder().https(".", 0, Z32[1]), Builder().https(".", 0, Z32[0]))
    assert walk(network, Z32[0]) == []
    assert len(network.asked) == 7


@pytest.mark.parametrize("failure", [None, Unavailable("away")])
def test_a_dead_end_ends_the_walk(failure: NetworkError | None) -> None:
    """What stood before a key that has no packet, or cannot be asked for, counts; what stands after it does not."""
    network = known(Builder().https(".", 1, "before.example").https(".", 2, Z32[1]).https(".", 3, "after.example"))
    if failure is not None:
        network.packets[KEYS[1].public_key] = failure
    assert walk(network, Z32[0]) == [(Z32[0], "before.example", None)]


def test_the_host_itself() -> None:
    """A key without packet has no endpoints; one that cannot be asked for is an error, and so is a host without key."""
    network = known()
    assert walk(network, Z32[0]) == []
    network.packets[KEYS[0].public_key] = Unavailable("away")
    with pytest.raises(Unavailable):
        walk(network, f"_pubky.{Z32[0]}")
    with pytest.raises(InvalidPublicKey):
        walk(network, "example.com")


def test_the_policy_goes_along() -> None:
    """Every packet of a walk is looked for as hard as the first."""
    network = known(*chain(2))
    now(Endpoints(network, Policy.NETWORK_ONLY).find(Z32[0]))
    assert [policy for _, policy in network.asked] == [Policy.NETWORK_ONLY] * 2


TARGETS = st.sampled_from([*Z32[:4], *[f"x.{z32}" for z32 in Z32[:4]], ".", "a.example", "b.example"])
PACKETS = st.lists(
    st.lists(st.tuples(st.sampled_from([".", "x"]), st.integers(0, 3), TARGETS), max_size=4), min_size=4, max_size=4
)


@given(PACKETS)
def test_any_web_of_records(packets: Iterable[list[tuple[str, int, str]]]) -> None:
    """Whatever leads wherever, a walk ends, asks for seven packets at most, and names only places of those it saw."""
    builders = []
    for services in packets:
        builder = Builder()
        for name, priority, target in services:
            builder = builder.https(name, priority, target, port=1)
        builders.append(builder)
    network = known(*builders)
    found: list[Endpoint] = now(Endpoints(network).find(Z32[0]))
    asked = {key for key, _ in network.asked}
    assert len(network.asked) <= 7
    assert {endpoint.key for endpoint in found} <= asked
    assert all(endpoint.domain in (None, "a.example", "b.example") for endpoint in found)
