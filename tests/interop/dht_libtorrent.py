"""Nodes of libtorrent, the library under qBittorrent, Deluge and others."""

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

import libtorrent
import pytest
from attrs import define, field
from twisted.internet.task import deferLater

from pkarr.keys import Keypair
from tests.pkarr.dht.swarm import reactor

PATIENCE = 20.0  # seconds that anything here may take

# Its rules against many nodes on one address switched off, and everything that is not the DHT.
SETTINGS = {
    "listen_interfaces": "127.0.0.1:0",
    "enable_dht": True,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "dht_restrict_routing_ips": False,
    "dht_restrict_search_ips": False,
    "dht_prefer_verified_node_ids": False,
    "dht_enforce_node_id": False,
    "dht_ignore_dark_internet": False,
    "dht_block_ratelimit": 1_000_000,
    "dht_upload_rate_limit": 100_000_000,
    "alert_mask": libtorrent.alert.category_t.dht_notification | libtorrent.alert.category_t.status_notification,
}

Found = TypeVar("Found")


@define
class Libtorrent:
    """Several nodes; the last of them puts and gets."""

    nodes: list[libtorrent.session] = field(factory=list)

    async def start(self, count: int, bootstrap: int | None) -> int:
        """Start so many nodes, that know each other and what is at a port. Returns the port of the first."""
        for _ in range(count):
            known = bootstrap or (self.nodes[0].listen_port() if self.nodes else None)
            settings: Any = {**SETTINGS, "dht_bootstrap_nodes": f"127.0.0.1:{known}" if known else ""}
            self.nodes.append(libtorrent.session(settings))
        for node in self.nodes:
            for other in self.nodes:
                if other is not node:
                    node.add_dht_node(("127.0.0.1", other.listen_port()))
        return self.nodes[0].listen_port()

    async def stop(self) -> None:
        """Stop all."""
        self.nodes.clear()

    async def put(self, key: Keypair, _seq: int, value: bytes, salt: bytes = b"") -> int:
        """Put a string under a key; libtorrent chooses the number. Returns how many nodes keep it."""
        self.nodes[-1].dht_put_mutable_item(_expanded(key.seed), key.public_key.raw, value, salt)

        def read(alert: Any) -> int | None:
            is_ours = isinstance(alert, libtorrent.dht_put_alert) and alert.public_key == key.public_key.raw
            return alert.num_success if is_ours else None

        return await self._heard(read)

    async def get(self, key: Keypair, salt: bytes = b"") -> tuple[int, bytes]:
        """The newest number and value under a key, when it has asked everybody."""
        self.nodes[-1].dht_get_mutable_item(key.public_key.raw, salt)

        def read(alert: Any) -> tuple[int, bytes] | None:
            is_ours = isinstance(alert, libtorrent.dht_mutable_item_alert) and alert.key == key.public_key.raw
            return (alert.seq, alert.item) if is_ours and alert.authoritative else None

        return await self._heard(read)

    async def _heard(self, read: Callable[[Any], Found | None]) -> Found:
        """What is read in an alert. It must be read before the next ones are taken."""
        for _ in range(int(PATIENCE / 0.02)):
            for alert in self.nodes[-1].pop_alerts():
                found = read(alert)
                if found is not None:
                    return found
            await deferLater(reactor, 0.02)
        pytest.fail("libtorrent did not say it")


def _expanded(seed: bytes) -> bytes:
    """A secret key as libtorrent wants it: hashed and clamped (RFC 8032, 5.1.5)."""
    digest = bytearray(hashlib.sha512(seed).digest())
    digest[0] &= 248
    digest[31] = digest[31] & 63 | 64
    return bytes(digest)
