"""Time-outs, limits per client, and the end of a server, over real sockets and a clock that moves when told."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network

import pytest
import pytest_twisted
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from pubky_homeserver.web.channel import HTTPFactory, Limits
from pubky_homeserver.web.request import Request
from tests.web.sockets import Gate, Served, turns, until

Serve = Callable[..., Served]
GET = b"GET / HTTP/1.1\r\n\r\n"


async def fine(request: Request) -> None:
    """Reads the body and answers."""
    await request.read(1 << 22)
    request.finish_with(b"fine")


@pytest.mark.parametrize(
    ("begin", "more"), [(b"G", b""), (b"GET /", b"x"), (b"GET / HTTP/1.1\r\nA: b\r\n", b"x"), (b"\r\nGET /", b"")]
)
@pytest_twisted.ensureDeferred
async def test_slow_head(serve: Serve, begin: bytes, more: bytes) -> None:
    """A head that began has ten seconds to be complete, however much of it trickles in; then 408, and the end."""
    served = serve(fine)
    client = await served.client(begin)
    for _ in range(9):
        await served.pass_time(1)
        client.send(more)
    await turns()
    assert client.received == b""
    await served.pass_time(2)
    answer = await client.answer()
    assert (answer.code, answer.body, answer[b"connection"]) == (408, b"", b"close")
    assert await client.until_closed() == b""


@pytest_twisted.ensureDeferred
async def test_slow_head_after_a_request(serve: Serve) -> None:
    """The time for a head counts from its first byte, not from the request before it."""
    served = serve(fine)
    client = await served.client(GET)
    await client.answer()
    await served.pass_time(60)
    client.send(GET[:10])
    await served.pass_time(8)
    client.send(GET[10:])
    assert (await client.answer()).body == b"fine"


@pytest.mark.parametrize("used", [False, True])
@pytest_twisted.ensureDeferred
async def test_idle_connection(serve: Serve, used: bool) -> None:
    """Between requests, and before the first, a connection may rest for 75 seconds; then it is closed in silence."""
    served = serve(fine)
    client = await served.client()
    await until(lambda: served.factory.open_connections)
    await served.pass_time(50)
    if used:
        client.send(GET)
        await client.answer()
        await served.pass_time(73)
    else:
        await served.pass_time(23)
    assert not client.ended
    await served.pass_time(3)
    assert await client.until_closed() == b""
    await until(lambda: served.factory.open_connections == 0)


@pytest_twisted.ensureDeferred
async def test_stalled_upload(serve: Serve) -> None:
    """A client whose body does not move for 60 seconds is cut; one that sends a byte now and then is not."""
    ends: list[str] = []

    async def read(request: Request) -> None:
        try:
            await request.read(100)
        finally:
            ends.append("ended")

    served = serve(read)
    client = await served.client(b"PUT / HTTP/1.1\r\nContent-Length: 50\r\n\r\n")
    await until(lambda: served.factory.requests)
    for _ in range(4):
        await served.pass_time(55)
        client.send(b"x")
    await turns()
    assert not client.ended
    await served.pass_time(62)
    await until(lambda: client.closed)
    assert ends == ["ended"]


@pytest_twisted.ensureDeferred
async def test_handler_may_take_its_time(serve: Serve) -> None:
    """No time-out runs while a handler works, nor on a stream that has nothing to say; the body's begins when asked."""
    gate = Gate()

    async def slow(request: Request) -> None:
        await gate.passed()
        await fine(request)

    served = serve(slow)
    client = await served.client(b"PUT / HTTP/1.1\r\nContent-Length: 2\r\n\r\na")
    await until(lambda: served.factory.requests)
    await served.pass_time(1000)
    gate.open()
    await served.pass_time(55)
    client.send(b"b")
    assert (await client.answer()).body == b"fine"


@pytest_twisted.ensureDeferred
async def test_stream_that_rests(serve: Serve) -> None:
    """A live stream may be silent for hours and then speak."""
    gate = Gate()

    async def live(request: Request) -> None:
        request.stream()
        await request.write(b"a")
        await gate.passed()
        await request.write(bytes(8 << 20))
        request.finish()

    served = serve(live)
    client = await served.client(GET)
    await client.head()
    await served.pass_time(500)
    client.transport.pauseProducing()
    gate.open()
    await served.pass_time(55)
    assert served.factory.open_connections == 1
    client.transport.resumeProducing()
    await until(lambda: len(client.received) > 8 << 20)


@pytest.mark.parametrize("streamed", [False, True])
@pytest_twisted.ensureDeferred
async def test_stalled_download(serve: Serve, streamed: bool) -> None:
    """A client that reads nothing of its answer for 60 seconds is cut, whether the handler still writes or not."""
    ends: list[str] = []

    async def answer(request: Request) -> None:
        try:
            if streamed:
                await request.send([bytes(256 << 10)] * 80)
            else:
                request.finish_with(bytes(20 << 20))
        finally:
            ends.append("ended")

    with capturedLogs() as events:
        served = serve(answer)
        client = await served.client()
        client.transport.pauseProducing()
        client.send(GET)
        await until(lambda: served.factory.requests)
        await served.pass_time(58)
        assert served.factory.open_connections == 1
        await served.pass_time(5)
        await until(lambda: served.factory.open_connections == 0)
    assert ends == ["ended"]
    assert not [event for event in events if "log_failure" in event]


@pytest_twisted.ensureDeferred
async def test_slow_download(serve: Serve) -> None:
    """A client that takes a little now and then is served for as long as it needs, though the kernel takes nothing."""

    async def answer(request: Request) -> None:
        request.finish_with(bytes(20 << 20))

    served = serve(answer)
    client = await served.client()
    client.transport.pauseProducing()
    client.transport.bufferSize = 512 << 10
    client.send(GET)
    await until(lambda: served.factory.requests)
    await served.pass_time(50)
    (channel,) = served.factory._channels
    waited = channel.pending
    client.transport.doRead()
    await served.pass_time(50)
    assert channel.pending == waited  # nothing has moved in this process: only the kernel knows
    assert served.factory.open_connections == 1
    client.transport.resumeProducing()
    assert len((await client.answer()).body) == 20 << 20


@pytest_twisted.ensureDeferred
async def test_client_that_never_takes_the_end(serve: Serve) -> None:
    """A connection that is closing is cut when its last answer does not move."""

    async def answer(request: Request) -> None:
        request.finish_with(bytes(20 << 20))

    served = serve(answer)
    client = await served.client()
    client.transport.pauseProducing()
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    await until(lambda: served.factory.requests)
    await served.pass_time(65)
    await until(lambda: served.factory.open_connections == 0)


@pytest_twisted.ensureDeferred
async def test_clock_rests_without_connections(serve: Serve) -> None:
    """Nothing ticks while nobody is connected."""
    served = serve(fine)
    client = await served.client(GET)
    await client.answer()
    assert len(served.clock.getDelayedCalls()) == 1
    client.half_close()
    await until(lambda: served.factory.open_connections == 0)
    await served.pass_time(1)
    assert served.clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_connections_per_address() -> None:
    """A client address has so many connections and no more, until one closes; loopback and exempt networks as many as
    they like. An IPv4 address is the same in its IPv6 form.
    """
    limits = Limits(connections_per_address=2, exempt=(ip_network("10.0.0.0/8"),))
    factory = HTTPFactory(fine, Clock(), limits)

    def connect(address: object) -> bool:
        channel = factory.buildProtocol(address)  # type: ignore[arg-type]  # zope's interfaces and object
        if channel is not None:
            factory.opened(channel)
            channels.append(channel)
        return channel is not None

    channels: list[object] = []
    ours, mapped = IPv4Address("TCP", "192.0.2.1", 1), IPv6Address("TCP", "::ffff:192.0.2.1", 2)
    assert [connect(ours), connect(mapped), connect(ours), connect(mapped)] == [True, True, False, False]
    assert connect(IPv4Address("TCP", "192.0.2.2", 1))
    for host in ("127.0.0.1", "::1", "::ffff:127.0.0.9", "10.1.2.3", "::ffff:10.1.2.3"):
        kind = IPv6Address if ":" in host else IPv4Address
        assert all(connect(kind("TCP", host, port)) for port in range(5))
    assert all(connect(UNIXAddress("/run/x")) for _ in range(5))
    factory.closed(channels[0])  # type: ignore[arg-type]  # a Channel
    assert [connect(ours), connect(ours)] == [True, False]
    assert factory.connections == factory.open_connections + 1


@pytest_twisted.ensureDeferred
async def test_connections_of_all() -> None:
    """All clients together, however near or trusted, have so many connections; the log tells once that it is full."""
    factory = HTTPFactory(fine, Clock(), Limits(connections=20))
    addresses = [IPv4Address("TCP", "127.0.0.1", 1), UNIXAddress("/run/x")]
    channels = [factory.buildProtocol(addresses[number % 2]) for number in range(20)]

    def is_full() -> list[bool]:
        return [factory.buildProtocol(address) is None for address in addresses]

    with capturedLogs() as events:
        for channel in channels:
            assert channel is not None
            assert is_full() == [False, False]
            factory.opened(channel)
        assert is_full() == [True, True]
        for channel in channels[:3]:  # it opens again, and it is news again when it has been well below
            assert channel is not None
            factory.closed(channel)
            assert is_full() == [False, False]
            factory.opened(channel)
            assert is_full() == [True, True]
        assert len([event for event in events if "refused" in event["log_format"]]) == 1
        for channel in channels[:3]:
            assert channel is not None
            factory.closed(channel)
        assert is_full() == [False, False]
        for channel in channels[:3]:
            assert channel is not None
            factory.opened(channel)
        assert is_full() == [True, True]
        assert len([event for event in events if "refused" in event["log_format"]]) == 2


@pytest_twisted.ensureDeferred
async def test_drain(serve: Serve) -> None:
    """A server that stops closes idle connections, finishes what runs, says so, and takes nothing new."""
    gate = Gate()

    async def answer(request: Request) -> None:
        if request.path == b"/slow":
            await gate.passed()
        request.finish_with(request.path)

    served = serve(answer)
    idle = await served.client(b"GET /idle HTTP/1.1\r\n\r\n")
    await idle.answer()
    begun = await served.client(b"GET /begun HTT")
    slow = await served.client(b"GET /slow HTTP/1.1\r\n\r\nGET /after HTTP/1.1\r\n\r\n")
    await until(lambda: served.factory.requests == 2)
    await until(lambda: served.factory.open_connections == 3)
    drained = Deferred.fromCoroutine(served.factory.drain(10))
    assert await idle.until_closed() == b""
    assert await begun.until_closed() == b""
    late = await served.client(GET)
    assert await late.until_closed() == b""
    await served.pass_time(5)
    gate.open()
    answered = await slow.answer()
    assert (answered.body, answered[b"connection"]) == (b"/slow", b"close")
    assert await slow.until_closed() == b""
    await served.pass_time(2)
    await drained
    assert served.factory.requests == 2


@pytest_twisted.ensureDeferred
async def test_drain_closes_after_an_answer_that_had_begun(serve: Serve) -> None:
    """An answer whose head promised to go on is finished, and then the connection ends nevertheless."""
    gate = Gate()

    async def answer(request: Request) -> None:
        request.stream()
        await gate.passed()
        request.finish()

    served = serve(answer)
    client = await served.client(GET)
    await client.head()
    drained = Deferred.fromCoroutine(served.factory.drain(10))
    gate.open()
    assert await client.until_closed() == b"0\r\n\r\n"
    await drained


@pytest_twisted.ensureDeferred
async def test_drain_cuts_what_does_not_end(serve: Serve) -> None:
    """What still runs after the time is cancelled and its connection cut."""
    ends: list[str] = []

    async def never(request: Request) -> None:
        request.stream()
        try:
            await Deferred()
        except CancelledError:
            ends.append("cancelled")
            raise

    served = serve(never)
    client = await served.client(GET)
    await client.head()
    drained = Deferred.fromCoroutine(served.factory.drain(10))
    await served.pass_time(9)
    assert ends == []
    await served.pass_time(2)
    await drained
    assert ends == ["cancelled"]


@pytest_twisted.ensureDeferred
async def test_drain_of_nothing() -> None:
    """Without connections it is done at once."""
    clock = Clock()
    await HTTPFactory(fine, clock).drain(10)
    assert clock.getDelayedCalls() == []
