"""The channel over other streams than plain TCP: a unix socket, TLS, a wrapper."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL.crypto import X509, PKey
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock
from twisted.protocols.policies import WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory

from pubky_homeserver.web.channel import HTTPFactory
from pubky_homeserver.web.request import Request
from tests.web.sockets import Client, reactor, turns, until

# Twisted 26.10 hands pyOpenSSL the objects that pyOpenSSL 26.4 wants no more.
pytestmark = pytest.mark.filterwarnings("ignore:.*pyOpenSSL:DeprecationWarning")

MEBIBYTE = 1 << 20
OFFERED = os.urandom(5 * MEBIBYTE)
seen: list[tuple[str, bool]] = []


async def answer(request: Request) -> None:
    """Refuses, streams, or tells how long the body is."""
    seen.append((request.client_address, request.is_tls))
    if request.path == b"/refuse":
        request.setResponseCode(401)
        request.finish_with(b"no")
    elif request.path == b"/stream":
        await request.send([bytes(256 << 10)] * 20)
    elif request.path == b"/offers":
        await offer(request, OFFERED)
    else:
        length = 0
        async for chunk in request.body:
            length += len(chunk)
        request.finish_with(b"%d" % length)


async def offer(request: Request, body: bytes) -> None:
    """Answers with the body as the client takes it."""
    request.stream(len(body))
    offset = 0
    while offset < len(body):
        await request.drained()
        offset += request.offer(memoryview(body)[offset : offset + MEBIBYTE])
        assert request.pending < MEBIBYTE
    request.finish()


@pytest.fixture(scope="module")
def certificate() -> CertificateOptions:
    """A certificate that nobody trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(datetime(2020, 1, 1)).not_valid_after(datetime(2100, 1, 1))
    signed = builder.sign(key, hashes.SHA256())
    return CertificateOptions(PKey.from_cryptography_key(key), X509.from_cryptography(signed))


@pytest_twisted.async_yield_fixture(params=["unix", "tls", "wrapped"])
async def connect(
    request: pytest.FixtureRequest, tmp_path: Path, certificate: CertificateOptions
) -> AsyncIterator[tuple[Callable[[], Any], HTTPFactory, str]]:
    """Connects to a channel over one of the streams."""
    factory = HTTPFactory(answer, Clock())
    clients: list[Client] = []
    if request.param == "unix":
        port = reactor.listenUNIX(str(tmp_path / "s"), factory)
        endpoint: Any = UNIXClientEndpoint(reactor, str(tmp_path / "s"))
    else:
        wrapped = (
            TLSMemoryBIOFactory(certificate, False, factory) if request.param == "tls" else WrappingFactory(factory)
        )
        port = reactor.listenTCP(0, wrapped, interface="127.0.0.1")
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        if request.param == "tls":
            endpoint = wrapClientTLS(CertificateOptions(), endpoint)

    async def connected() -> Client:
        client = Client()
        await connectProtocol(endpoint, client)
        clients.append(client)
        return client

    yield connected, factory, request.param
    for client in clients:
        if client.closed is None:
            client.transport.abortConnection()
    await port.stopListening()
    await until(lambda: factory.open_connections == 0)


Connect = tuple[Callable[[], Any], HTTPFactory, str]


@pytest_twisted.ensureDeferred
async def test_requests_of_all_kinds(connect: Connect) -> None:
    """Pipelined requests, bodies and streams larger than every buffer, keep-alive."""
    connected, _, kind = connect
    client = await connected()
    seen.clear()
    client.send(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n")
    assert [(await client.answer()).body for _ in range(2)] == [b"0", b"0"]
    client.send(b"PUT / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (5 * MEBIBYTE) + bytes(5 * MEBIBYTE))
    assert (await client.answer()).body == b"%d" % (5 * MEBIBYTE)
    client.send(b"GET /stream HTTP/1.1\r\n\r\nGET /offers HTTP/1.1\r\n\r\nGET / HTTP/1.0\r\n\r\n")
    assert len((await client.answer()).body) == 5 * MEBIBYTE
    assert (await client.answer()).body == OFFERED
    assert (await client.answer()).body == b"0"
    assert await client.until_closed() == b""
    assert set(seen) == {("" if kind == "unix" else "127.0.0.1", kind == "tls")}


@pytest_twisted.ensureDeferred
async def test_early_answer(connect: Connect) -> None:
    """A refusal reaches a client that still sends."""
    connected, factory, _ = connect
    client = await connected()
    client.send(b"PUT /refuse HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n" + bytes(3 * MEBIBYTE))
    answered = await client.answer()
    assert (answered.code, answered.body, answered[b"connection"]) == (401, b"no", b"close")
    factory.clock.advance(1)  # type: ignore[attr-defined]  # the tests' Clock
    await until(lambda: client.ended)


@pytest_twisted.ensureDeferred
async def test_stalled_client_is_cut(connect: Connect) -> None:
    """A client that does not read is noticed on every stream."""
    connected, factory, _ = connect
    client = await connected()
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    await client.answer()  # the TLS handshake is over
    client.transport.pauseProducing()
    client.send(b"GET /stream HTTP/1.1\r\n\r\n" * 8)
    (channel,) = factory._channels
    await until(lambda: channel.pending)
    for _ in range(70):
        factory.clock.advance(1)  # type: ignore[attr-defined]  # the tests' Clock
    await until(lambda: factory.open_connections == 0)


@pytest_twisted.ensureDeferred
async def test_client_that_never_says_goodbye(connect: Connect) -> None:
    """A connection that we close ends, whether or not the client's side of the stream (TLS) takes part in it."""
    connected, factory, _ = connect
    client = await connected()
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    await client.answer()
    client.transport.pauseProducing()
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    await until(lambda: factory.requests == 2)
    await turns()
    for _ in range(62):
        factory.clock.advance(1)  # type: ignore[attr-defined]  # the tests' Clock
    await until(lambda: factory.open_connections == 0)
