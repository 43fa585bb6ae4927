"""A homeserver behind proxies, as a process: whose requests are limited is who the preface names, on both ports."""

from collections.abc import Iterator
from http.client import HTTPConnection
from socket import create_connection
from typing import Any

import pytest

from pkarr.keys import Keypair
from tests.by_key import KeyConnection
from tests.pkarr.tls.installed import installed
from tests.process import START, Node, node_in, until

IDENTITY = {"mode": "proxy_protocol", "trusted_proxies": ["127.0.0.1/32"]}
LOOK_UP = "/signup_tokens/AAAA-BBBB-CCCC"
"""What an address may ask ten times a minute."""


class ByProxy(HTTPConnection):
    """A connection that begins with a preface."""

    def __init__(self, port: int, preface: bytes) -> None:
        super().__init__("127.0.0.1", port, timeout=START)
        self._preface = preface

    def connect(self) -> None:
        """Say who it is from."""
        self.sock: Any = create_connection((self.host, self.port), timeout=START)
        self.sock.sendall(self._preface)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A homeserver that only proxies reach."""
    settings: dict[str, dict[str, object]] = {
        "general": {"signup_mode": "token_required"},
        "drive": {"icann_client_identity": IDENTITY, "pubky_client_identity": IDENTITY},
    }
    with node_in(tmp_path_factory.mktemp("node"), settings) as node:
        node.start()
        yield node
        node.stop()


def through(node: Node, service: str, preface: bytes) -> HTTPConnection:
    """A connection from whom the preface names; by key the preface comes before TLS."""
    if service == "client API":
        return ByProxy(node.ports[service], preface)
    key = Keypair.from_file_text((node.data / "secret").read_text()).public_key
    return KeyConnection(node.ports[service], key, "", installed("gnutls"), preface)


@pytest.mark.parametrize(("service", "network"), [("client API", "192.0.2"), ("client API by key", "198.51.100")])
def test_limits_are_by_the_address_that_the_preface_names(node: Node, service: str, network: str) -> None:
    """Requests on new connections for one address are counted together, and another address is free."""

    def look_up(host: int) -> int:
        connection = through(node, service, f"PROXY TCP4 {network}.{host} 127.0.0.1 50000 443\r\n".encode())
        connection.request("GET", LOOK_UP, headers={"X-Forwarded-For": f"203.0.113.{host}"})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status

    assert [look_up(1) for _ in range(10)] == [404] * 10
    until(lambda: look_up(1) == 429)  # at once, unless the machine is so busy that six seconds went by
    assert look_up(2) == 404
