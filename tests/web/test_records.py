"""What the operator may ask of records in the network, and publishing our own."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from zope.interface import implementer

from pkarr.builder import Builder
from pkarr.interfaces import ICounting
from pkarr.keys import PublicKey
from pkarr.packet import SignedPacket
from pkarr.records import Record
from tests.pkarr.networks import Simulated
from tests.web.operator import KEY, KEYPAIR, NOW, Operator, operator

MICROSECONDS = 1_000_000


@implementer(ICounting)
class Counting(Simulated):
    """A DHT: it knows on how many nodes a packet is."""

    async def count(self, key: PublicKey) -> tuple[SignedPacket | None, int]:
        """Find a packet, on three nodes."""
        packet = await self.resolve(key)
        return packet, 3 if packet else 0


@pytest_twisted.async_yield_fixture
async def node() -> AsyncIterator[Operator]:
    """An operator's port, with a relay and a DHT."""
    async with operator() as one:
        one.networks += [Simulated(one.clock, "relay"), Counting(one.clock, "the DHT")]
        yield one


def packet(seconds: float, *records: Record) -> SignedPacket:
    """A packet of ours signed so long ago."""
    return SignedPacket.sign(KEYPAIR, records, int((NOW - seconds) * MICROSECONDS))


async def show(node: Operator, key: str = KEY) -> dict[str, Any]:
    """What is said of a key."""
    answer = await node.command("GET", f"/records/{key}")
    assert (answer.status, answer.header("content-type")) == (200, "application/json")
    told: dict[str, Any] = json.loads(answer.body)
    return told


@pytest_twisted.ensureDeferred
async def test_records(node: Operator) -> None:
    """Records as people read them, how old they are, and for each network what it has, and on how many nodes."""
    relay, dht = node.networks
    newest = (
        Builder()
        .https(".", 1, ".", port=6287)
        .https(".", 10, "localhost", parameters={65280: b"\x18\x8e", 4: bytes([127, 0, 0, 1]), 7: b"\x01"})
        .address(".", "127.0.0.1")
        .address("six", "::1")
        .txt("_said", "some \x1b text")
        .cname("www", "example.com")
        .add(Record("odd", 99, 60, b"\xab"))
        .sign(KEYPAIR, int((NOW - 90) * MICROSECONDS))
    )
    old = packet(1000)
    relay.packets[KEYPAIR.public_key.raw], dht.packets[KEYPAIR.public_key.raw] = old, newest
    told = await show(node)
    assert (told["key"], told["timestamp"], told["age"]) == (KEY, newest.timestamp, 90)
    assert [tuple(record.values()) for record in told["records"]] == [
        (KEY, "HTTPS", 3600, "1 . port=6287"),
        (KEY, "HTTPS", 3600, "10 localhost ipv4hint=127.0.0.1 key7=01 http-port=6286"),
        (KEY, "A", 3600, "127.0.0.1"),
        (f"six.{KEY}", "AAAA", 3600, "::1"),
        (f"_said.{KEY}", "TXT", 3600, "some \x1b text"),
        (f"www.{KEY}", "CNAME", 3600, "example.com"),
        (f"odd.{KEY}", "TYPE99", 60, "ab"),
    ]
    assert told["found"] == [
        {"network": "relay", "timestamp": old.timestamp, "nodes": None, "failure": None},
        {"network": "the DHT", "timestamp": newest.timestamp, "nodes": 3, "failure": None},
    ]


@pytest_twisted.ensureDeferred
async def test_nobody_has_any(node: Operator) -> None:
    """A key without records is no error; a network that is away is told as that."""
    node.networks[0].is_away = True
    assert await show(node, f"pk:{KEY}") == {
        "key": KEY,
        "timestamp": None,
        "age": None,
        "records": None,
        "found": [
            {"network": "relay", "timestamp": None, "nodes": None, "failure": "away"},
            {"network": "the DHT", "timestamp": None, "nodes": 0, "failure": None},
        ],
    }


@pytest.mark.parametrize("key", ["", "x", "a" * 52, "%ff"])
@pytest_twisted.ensureDeferred
async def test_no_key(node: Operator, key: str) -> None:
    """What is no key is refused."""
    answer = await node.command("GET", f"/records/{key}")
    assert (answer.status, answer.text.partition(":")[0]) == (400, "Not a public key")


@pytest_twisted.ensureDeferred
async def test_publishing(node: Operator) -> None:
    """Every network gets our record; what each did is told."""
    node.networks[0].is_away = True
    answer = await node.command("POST", "/record/publish")
    assert (answer.status, json.loads(answer.body)) == (
        200,
        {
            "published": True,
            "outdated": False,
            "networks": [
                {"network": "relay", "nodes": None, "failure": "away"},
                {"network": "the DHT", "nodes": 20, "failure": None},
            ],
        },
    )
    node.networks[1].is_away = True
    told = json.loads((await node.command("POST", "/record/publish")).body)
    assert (told["published"], told["outdated"]) == (False, False)


@pytest_twisted.ensureDeferred
async def test_publishing_what_is_outdated(node: Operator) -> None:
    """A record does not count as published where as many networks know a newer one as took it."""
    node.networks[1].packets[KEYPAIR.public_key.raw] = packet(-60)
    told = json.loads((await node.command("POST", "/record/publish")).body)
    assert (told["published"], told["outdated"]) == (False, True)
    assert [one["failure"] for one in told["networks"]] == [None, "a newer one is here"]


@pytest.mark.parametrize(("method", "path"), [("GET", f"/records/{KEY}"), ("POST", "/record/publish")])
@pytest_twisted.ensureDeferred
async def test_the_password_is_needed(node: Operator, method: str, path: str) -> None:
    """Nobody else makes the node ask around."""
    assert (await node.ask(method, path)).status == 401
    other = "POST" if method == "GET" else "GET"
    assert (await node.command(other, path)).status == 405
