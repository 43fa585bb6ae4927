"""Bodies that lie elsewhere and are offered to the client as it reads, over real sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from pubky_homeserver.web.request import ClientGone, Request
from pubky_homeserver.web.wire import TURN, UNSENT
from tests.web.sockets import Served, reactor, turns, until

Serve = Callable[..., Served]
MEBIBYTE = 1 << 20
BODY = memoryview(os.urandom(20 * MEBIBYTE))
GET = b"GET / HTTP/1.1\r\n\r\n"


async def offers(request: Request, size: int = MEBIBYTE // 2) -> None:
    """Answers with the body, in offers of this size."""
    request.stream(len(BODY))
    offset = 0
    while offset < len(BODY):
        await request.drained()
        offset += request.offer(BODY[offset : offset + size])
    request.finish()


@pytest.mark.parametrize("size", [1000, 64 << 10, MEBIBYTE // 2, len(BODY)])
@pytest_twisted.ensureDeferred
async def test_all_of_it_arrives(serve: Serve, size: int) -> None:
    """What the client did not take is offered again, and nothing is sent twice; then the next request is served."""

    async def answer(request: Request) -> None:
        await offers(request, size)

    client = await serve(answer).client(GET + GET)
    for _ in range(2):
        assert (await client.answer()).body == BODY


@pytest_twisted.ensureDeferred
async def test_client_that_does_not_read_costs_no_memory(serve: Serve) -> None:
    """Of an offered body nothing waits in this process; the client that reads nothing for 60 seconds is cut."""
    gone: list[type[BaseException]] = []
    pending: list[int] = []

    async def answer(request: Request) -> None:
        request.stream(len(BODY))
        try:
            while True:
                await request.drained()
                request.offer(BODY[:MEBIBYTE])
                pending.append(request.pending)
        except BaseException as error:
            gone.append(type(error))
            raise

    with capturedLogs() as events:
        served = serve(answer)
        client = await served.client()
        client.transport.pauseProducing()
        client.send(GET)
        await until(lambda: pending)
        await served.pass_time(58)
        assert served.factory.open_connections == 1
        assert not gone
        await served.pass_time(5)
        await until(lambda: served.factory.open_connections == 0)
    assert gone == [ClientGone]
    assert set(pending) == {0}
    assert not [event for event in events if "log_failure" in event]


@pytest_twisted.ensureDeferred
async def test_client_that_reads_slowly_gets_all_of_it(serve: Serve) -> None:
    """A client that takes a little now and then is not cut, however long it needs."""
    served = serve(offers)
    client = await served.client()
    client.transport.pauseProducing()
    client.transport.bufferSize = 512 << 10
    client.send(GET)
    await until(lambda: served.factory.requests)
    for _ in range(3):
        await served.pass_time(50)
        client.transport.doRead()
    assert served.factory.open_connections == 1
    client.transport.resumeProducing()
    assert (await client.answer()).body == BODY


@pytest_twisted.ensureDeferred
async def test_a_fast_client_leaves_turns_to_others(serve: Serve) -> None:
    """However fast a client reads, a turn of the reactor ends after a bounded part of its answer."""
    sent, turn, most = 0, 0, 0
    over: Deferred[None] = Deferred()

    class Endless:
        """A socket that takes everything, as that of a client on a very fast network does."""

        def send(self, data: memoryview | bytes) -> int:
            nonlocal sent
            sent += len(data)
            return len(data)

    def count() -> None:
        nonlocal turn, most
        most, turn = max(most, sent - turn), sent
        if not over.called:
            reactor.callLater(0, count)

    async def answer(request: Request) -> None:
        (channel,) = served.factory._channels
        channel.wire._socket = Endless()  # type: ignore[assignment]  # the half of a socket that is used
        count()
        await offers(request)
        over.callback(None)

    served = serve(answer)
    await served.client(GET)
    await over
    assert sent >= len(BODY)
    assert most <= 2 * TURN


@pytest_twisted.ensureDeferred
async def test_client_that_vanishes(serve: Serve) -> None:
    """A client that resets its connection ends the offers."""
    gone: list[type[BaseException]] = []

    async def answer(request: Request) -> None:
        try:
            await offers(request)
        except BaseException as error:
            gone.append(type(error))
            raise

    served = serve(answer)
    client = await served.client()
    client.transport.pauseProducing()
    client.send(GET)
    await until(lambda: served.factory.requests)
    await turns()
    client.vanish()
    await until(lambda: gone)
    assert gone == [ClientGone]


@pytest_twisted.ensureDeferred
async def test_more_than_announced(serve: Serve) -> None:
    """An offer that passes the announced length is an error of the handler, before any of it is sent."""

    async def answer(request: Request) -> None:
        request.stream(10)
        assert request.offer(BODY[:4]) == 4
        with pytest.raises(RuntimeError):
            request.offer(BODY[:7])
        assert request.offer(BODY[4:10]) == 6
        request.finish()
        with pytest.raises(RuntimeError):
            request.offer(BODY[:0])

    client = await serve(answer).client(GET)
    assert (await client.answer()).body == BODY[:10]


@pytest_twisted.ensureDeferred
async def test_the_kernel_keeps_little_for_a_client_that_does_not_read(serve: Serve) -> None:
    """What the kernel takes for a client that does not read is bounded, too: it has not enough for hundreds of them."""
    served = serve(offers)
    client = await served.client()
    client.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.transport.pauseProducing()
    client.send(GET)
    await until(lambda: served.factory.requests)
    await turns(100)
    (channel,) = served.factory._channels
    assert channel.choked
    assert UNSENT <= channel.wire.unacknowledged <= UNSENT + MEBIBYTE // 2
