"""The client API over TLS by public key, as it runs: `twistd` as a process, found by nothing but its key."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from pkarr.keys import Keypair, PublicKey
from pkarr.packet import SignedPacket
from pkarr.records import address, at_port, hinting, https
from pkarr.tls.session import TlsFailed
from tests.by_key import KeyConnection, KeySocket
from tests.pkarr.tls.installed import NAMES, installed
from tests.process import Node, Person, node_in, sign_up_token, until

SERVICE = "client API by key"
HUNG = 300  # clients that begin a handshake and say no more
BOUND = 1.0  # seconds that a request may take beside them
LARGE = 30_000_000  # bytes


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A homeserver that runs, and that stops in order."""
    with node_in(tmp_path / "node") as node:
        node.start()
        yield node
        node.stop()


def key_of(node: Node) -> PublicKey:
    """The homeserver's key."""
    return Keypair.from_file_text((node.data / "secret").read_text()).public_key


def connect(node: Node, host: str = "", engine: str = "gnutls", preface: bytes = b"") -> KeyConnection:
    """A connection by key."""
    return KeyConnection(node.ports[SERVICE], key_of(node), host, installed(engine), preface)


def ask(
    connection: KeyConnection, method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] = {}
) -> tuple[int, bytes, Any]:
    """One request on a connection that stays: status, body, head."""
    connection.request(method, target, body, dict(headers))
    answer = connection.getresponse()
    return answer.status, answer.read(), answer


def sign_up(connection: KeyConnection) -> Person:
    """A new user."""
    status, body, answer = ask(connection, "POST", "/signup", sign_up_token())
    assert status == 200, body
    cookie = (answer.getheader("Set-Cookie") or "").partition(";")[0]
    return Person(cookie.partition("=")[0], cookie)


@pytest.mark.parametrize("engine", NAMES)
def test_the_whole_client_api(node: Node, engine: str) -> None:
    """Both ports are one homeserver: who signs up and writes at one is known, and read, at the other."""
    connection = connect(node, engine=engine)
    person = sign_up(connection)
    body = os.urandom(LARGE)
    assert ask(connection, "PUT", person.path("/pub/large"), body, person.headers)[0] == 201
    assert node.put(person, "/pub/small", b"by domain") == 201
    assert node.get(person, "/pub/large") == body
    by_user = connect(node, f"_pubky.{person.pubky}", engine)
    assert ask(by_user, "GET", person.path("/pub/small"))[:2] == (200, b"by domain")
    assert ask(by_user, "GET", person.path("/pub/large"))[:2] == (200, body)
    assert ask(by_user, "DELETE", person.path("/pub/large"), None, person.headers)[0] == 204
    assert node.get(person, "/pub/large") is None
    connection.close()
    by_user.close()


def test_what_it_says_of_itself(node: Node) -> None:
    """The log and the operator's page name the address; the library that does it is in the log."""
    assert f"Serving the {SERVICE} at https://127.0.0.1:{node.ports[SERVICE]}" in node.log()
    assert "speaks TLS by public key" in node.log()
    facts = json.loads(node.ask("GET", "/info", headers={"X-Admin-Password": "open sesame"}, service="admin API")[1])
    assert facts["pkarr_pubky_address"] == f"127.0.0.1:{node.ports[SERVICE]}"


def test_events(node: Node) -> None:
    """A live stream by key has an event at once, and ends, with a goodbye, when the homeserver stops."""
    connection = connect(node)
    person = sign_up(connection)
    connection.request("GET", f"/events-stream?user={person.pubky}&live=true")
    answer = connection.getresponse()
    assert node.put(person, "/pub/file", b"news") == 201
    lines = [answer.readline() for _ in range(4)]
    assert lines[:2] == [b"event: PUT\n", f"data: pubky://{person.pubky}/pub/file\n".encode()]
    assert node.process is not None
    node.process.send_signal(signal.SIGTERM)
    answer.read()
    connection.close()
    assert node.process.wait(30) == 0
    node.start()


def test_somebody_else(node: Node) -> None:
    """A client that means another key does not talk to this one; the homeserver goes on."""
    with pytest.raises(AssertionError):
        KeySocket(node.ports[SERVICE], Keypair.random().public_key, "", installed("gnutls"))
    plain = socket.create_connection(("127.0.0.1", node.ports[SERVICE]), timeout=10)
    plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert plain.recv(100)[:1] in (b"\x15", b"")
    plain.close()
    connection = connect(node)
    assert ask(connection, "GET", "/")[0] == 200
    connection.close()


def test_clients_that_hang(node: Node) -> None:
    """Beside hundreds that do not end their handshake, requests by key and by domain are answered within a second.

    When the homeserver stops it does not wait for them.
    """
    person = node.sign_up()
    hello = installed("gnutls").connect("")
    hello.handshake()
    said = hello.take()
    hung = []
    for number in range(HUNG):
        one = socket.create_connection(("127.0.0.1", node.ports[SERVICE]), timeout=10)
        one.sendall(said[: number % len(said)])
        hung.append(one)
    for _ in range(5):
        began = time.monotonic()
        assert node.put(person, "/pub/file", b"x") == 201
        connection = connect(node)
        assert ask(connection, "GET", person.path("/pub/file"))[:2] == (200, b"x")
        connection.close()
        assert time.monotonic() - began < 2 * BOUND
    node.stop(within=5)
    for one in hung:
        one.close()
    node.start()


def test_behind_a_proxy(tmp_path: Path) -> None:
    """With trusted proxies each connection by key must begin with a preface, before TLS."""
    identity = {"mode": "proxy_protocol", "trusted_proxies": ["127.0.0.1/32"]}
    with node_in(tmp_path / "node", {"drive": {"pubky_client_identity": identity}}) as node:
        node.start()
        with pytest.raises((ConnectionError, TlsFailed)):
            ask(connect(node), "GET", "/")
        connection = connect(node, preface=b"PROXY TCP4 192.0.2.7 127.0.0.1 50000 6287\r\n")
        assert ask(connection, "GET", "/")[0] == 200
        connection.close()
        assert node.ask("GET", "/")[0].status == 200, "the other port asks for none"
        node.stop()


@pytest.fixture
def relay() -> Iterator[tuple[str, list[bytes]]]:
    """A relay that keeps what is published; its address."""
    kept: list[bytes] = []

    class Keep(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            kept.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Keep) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", kept
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("port", [None, 443])
def test_the_record(tmp_path: Path, relay: tuple[str, list[bytes]], port: int | None) -> None:
    """The published record leads native clients to the port by key first: the one that is bound, or the one outside."""
    url, kept = relay
    pkdns: dict[str, object] = {"dht_relay_nodes": [url], "public_ip": "127.0.0.1", "icann_domain": "example.com"}
    if port is not None:
        pkdns["public_pubky_tls_port"] = port
    with node_in(tmp_path / "node", {"pkdns": pkdns}) as node:
        node.start()
        until(lambda: kept)
        packet = SignedPacket.from_relay_payload(key_of(node), kept[0])
        ip = IPv4Address("127.0.0.1")
        expected = [
            https(".", 1, ".", at_port(port or node.ports[SERVICE]) | hinting(ip)),
            https(".", 10, "example.com", {}),
            address(".", ip),
        ]
        assert packet == SignedPacket.sign(
            Keypair.from_file_text((node.data / "secret").read_text()), expected, packet.timestamp
        )
        node.stop()


def test_no_library(tmp_path: Path) -> None:
    """Where no library can do it the homeserver says what is missing, and serves by domain; its record agrees."""
    forbidding, old = tmp_path / "gnutls.conf", tmp_path / "openssl.cnf"
    forbidding.write_text("[overrides]\ndisabled-version = tls1.3\n")
    old.write_text(
        "openssl_conf = all\n[all]\nssl_conf = tls\n[tls]\nsystem_default = most\n[most]\nMaxProtocol = TLSv1.2\n"
    )
    environment = {"GNUTLS_SYSTEM_PRIORITY_FILE": str(forbidding), "OPENSSL_CONF": str(old)}
    with node_in(tmp_path / "node") as node:
        node.start(environment=environment)
        assert "TLS by public key needs OpenSSL 3.2 or newer, or GnuTLS (Debian: apt install libgnutls30)" in node.log()
        assert SERVICE not in node.ports
        person = node.sign_up()
        assert node.put(person, "/pub/file", b"x") == 201
        password = {"X-Admin-Password": "open sesame"}
        facts = json.loads(node.ask("GET", "/info", headers=password, service="admin API")[1])
        assert facts["pkarr_pubky_address"] is None
        node.stop()
