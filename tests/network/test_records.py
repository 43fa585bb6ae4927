"""Homeservers as nodes of a DHT: their records there, and the neighbours that they remember."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pkarr.dht.saved import Saved
from tests.process import Node, node_in, until

PRIVATE: Mapping[str, object] = {
    "enabled": True,
    "private_network": True,
    "addresses": ["127.0.0.1"],
    "port": 0,
    "rate_limit": 100_000,
    "total_rate_limit": 100_000,
}
"""A network of nodes that all have the same address."""


def joining(*bootstrap: str) -> dict[str, dict[str, object]]:
    """The settings of a node that begins with these others."""
    return {"dht": dict(PRIVATE), "pkdns": {"dht_bootstrap_nodes": [*bootstrap]}}


def address_of(node: Node) -> str:
    """Where its node of the DHT is."""
    found = re.search(r"A node of the DHT at ([\d.:]+) \(UDP\)", node.log())
    assert found is not None, node.written()
    return found[1]


def checks_of(node: Node) -> dict[str, Any]:
    """What `/readyz` says."""
    checks: dict[str, Any] = json.loads(node.ask("GET", "/readyz", service="admin API")[1])["checks"]
    return checks


def asked(node: Node, method: str, path: str) -> dict[str, Any]:
    """What the operator is told."""
    password = {"X-Admin-Password": "open sesame"}
    answer, body = node.ask(method, path, headers=password, service="admin API")
    assert answer.status == 200, body
    told: dict[str, Any] = json.loads(body)
    return told


def test_neighbours_are_remembered(tmp_path: Path) -> None:
    """A node finds the network again without a bootstrap node, under the id that it had."""
    with node_in(tmp_path / "first", joining()) as first:
        first.start()
        with node_in(tmp_path / "second", joining(address_of(first))) as second:
            second.start()
            until(lambda: checks_of(second)["dht"] == {"ok": True, "detail": "1 other node known"})
            until(lambda: checks_of(second)["record"]["ok"], why=second.written)
            second.stop()
            saved = Saved.parse((second.data / "dht").read_bytes())
            assert [f"{host}:{port}" for host, port in (one.address for one in saved.nodes)] == [address_of(first)]
        with node_in(tmp_path / "second", joining()) as second:
            second.start()
            until(lambda: checks_of(second)["dht"]["ok"], why=second.written)
            second.stop()
            assert Saved.parse((second.data / "dht").read_bytes()).ids == saved.ids
        first.stop()


@pytest.mark.parametrize("damage", [b"", b"d3:id420:short", b"x" * 20_000])
def test_a_damaged_memory_is_none(tmp_path: Path, damage: bytes) -> None:
    """A file that says nothing about neighbours costs a line in the log; the node joins as a new one does."""
    with node_in(tmp_path, joining()) as node:
        node.start()
        node.stop()
        (node.data / "dht").write_bytes(damage)
        node.start()
        assert "The nodes of the DHT in" in node.log()
        node.stop()


def test_a_network_that_is_not_there(tmp_path: Path) -> None:
    """Without a DHT and a relay a node serves; `/readyz` says what is missing."""
    nobody = {"pkdns": {"dht_bootstrap_nodes": ["127.0.0.1:9"], "dht_relay_nodes": ["http://127.0.0.1:9"]}}
    with node_in(tmp_path, joining(), nobody) as node:
        (tmp_path / "homeserver.toml").write_text(node.settings.read_text().replace("private_network = true", ""))
        node.start()
        record = until(lambda: (record := checks_of(node)["record"])["detail"].count(";") and record)
        assert not record["ok"]
        assert re.fullmatch(r"http://127.0.0.1:9: .*refused.*; the DHT: No .*", record["detail"]), record
        assert checks_of(node)["dht"] == {"ok": False, "detail": "no other nodes known"}
        person = node.sign_up()
        assert node.put(person, "/pub/file", b"here") == 201
        node.stop()


def test_the_record_is_on_every_node(tmp_path: Path) -> None:
    """In a small network both nodes keep the record, the publishing one included; both operators see it there."""
    with node_in(tmp_path / "first", joining()) as first:
        first.start()
        with node_in(tmp_path / "second", joining(address_of(first))) as second:
            second.start()
            until(lambda: "Our record is published at the DHT, on 2 nodes" in second.log(), why=second.written)
            key = asked(second, "GET", "/info")["public_key"]
            for node in (first, second):
                seen = asked(node, "GET", f"/records/{key}")
                (at_dht,) = seen["found"]
                assert at_dht == {"network": "the DHT", "timestamp": seen["timestamp"], "nodes": 2, "failure": None}
                assert {record["type"] for record in seen["records"]} >= {"A", "HTTPS"}
            assert asked(second, "POST", "/record/publish") == {
                "published": True,
                "outdated": False,
                "networks": [{"network": "the DHT", "nodes": 2, "failure": None}],
            }
            second.stop()
        first.stop()
