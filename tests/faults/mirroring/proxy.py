"""A TCP port that leads to another one, with whatever can go wrong on the way.

All proxies of a test share one event loop in a thread of its own; what goes wrong is set by attributes at any time, and
holds for connections that are there too, where nothing else is said.
"""

import asyncio
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from attrs import define, field

PIECE = 16384  # bytes read at a time
TICK = 0.005  # seconds between two looks whether a direction flows again

_REQUEST = re.compile(rb"(?:GET|POST|PUT|DELETE|HEAD) \S+ HTTP/1\.1\r\n")
_ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: the end of the connection is a reset


def _nothing() -> int | None:
    return None


def _same(data: bytes) -> bytes:
    return data


@define(eq=False)
class Wires:
    """The loop of all proxies of a test."""

    _loop: asyncio.AbstractEventLoop = field(factory=asyncio.new_event_loop, init=False)
    _thread: threading.Thread = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def do(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the loop, and wait for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def lead(self, target: Callable[[], int]) -> "FaultProxy":
        """A new proxy to a port, which may change."""
        proxy = FaultProxy(self, target)
        self.do(proxy.listen())
        return proxy

    def close(self) -> None:
        """End the loop and all that is in it."""
        self.do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@define(eq=False)
class FaultProxy:
    """One way between two programs. "Up" is towards the server."""

    wires: Wires
    target: Callable[[], int]
    latency: float = field(default=0.0, init=False)
    """Seconds that each piece takes besides, each way."""
    rate: float | None = field(default=None, init=False)
    """Bytes a second of a connection, each way; None: as fast as it goes."""
    refuses: bool = field(default=False, init=False)
    """Whether new connections are reset at once."""
    holds_up: bool = field(default=False, init=False)
    """Whether what goes up waits on the way: with one of the two a one-way partition, with both a full one."""
    holds_down: bool = field(default=False, init=False)
    cut: Callable[[], int | None] = field(default=_nothing, init=False)
    """Asked for each new connection: after how many bytes down it is reset; None: never."""
    alter: Callable[[bytes], bytes] = field(default=_same, init=False)
    """What becomes of each piece on its way down."""
    doubles: bool = field(default=False, init=False)
    """Whether a new connection is made twice: the server gets every request a second time; that answer is dropped."""
    requests: list[tuple[float, bytes]] = field(factory=list, init=False)
    """When (monotonic seconds) a piece with the head of a request went up, and that piece."""
    passed: int = field(default=0, init=False)
    """Bytes that went through, both ways."""
    cuts: int = field(default=0, init=False)
    """Connections that were cut."""
    port: int = field(default=0, init=False)
    _open: set[asyncio.StreamWriter] = field(factory=set, init=False)
    _server: asyncio.Server | None = field(default=None, init=False)

    async def listen(self) -> None:
        """Open the port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def heal(self) -> None:
        """Nothing goes wrong any more."""
        self.latency, self.rate = 0.0, None
        self.refuses = self.holds_up = self.holds_down = self.doubles = False
        self.cut, self.alter = _nothing, _same

    def split(self) -> None:
        """A full partition: what is there waits, and nothing new is accepted."""
        self.refuses = self.holds_up = self.holds_down = True

    def reset(self) -> None:
        """Reset every connection that is there."""
        self.wires.do(self._reset())

    def asked(self, since: float) -> list[str]:
        """The targets of the requests that went up since then."""
        heads = [head for moment, head in self.requests if moment >= since]
        return [line.split()[1].decode() for head in heads for line in _REQUEST.findall(head)]

    async def _reset(self) -> None:
        for writer in [*self._open]:
            _abort(writer)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine = [writer]
        tasks: list[asyncio.Future[None]] = []
        self._open.add(writer)
        try:
            if self.refuses:
                return
            limit = self.cut()
            for _ in range(2 if self.doubles else 1):
                far, up = await asyncio.open_connection("127.0.0.1", self.target())
                mine.append(up)
                self._open.add(up)
                answers = self._down(far, writer, limit) if len(mine) == 2 else _drop(far)
                tasks.append(asyncio.ensure_future(answers))
            tasks[0].add_done_callback(lambda _task: _abort(writer))
            await self._up(reader, mine[1:])
            await tasks[0]
        except (OSError, KeyError, asyncio.CancelledError):
            pass  # one of the two is away, or it is over
        finally:
            for task in tasks:
                task.cancel()
            for one in mine:
                self._open.discard(one)
                _abort(one)

    async def _up(self, reader: asyncio.StreamReader, writers: list[asyncio.StreamWriter]) -> None:
        while data := await reader.read(PIECE):
            if _REQUEST.search(data):
                self.requests.append((time.monotonic(), data))
            await self._delay(data, down=False)
            for writer in writers:
                writer.write(data)
                await writer.drain()
        for writer in writers:
            writer.write_eof()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None) -> None:
        passed = 0
        with suppress(OSError):
            while data := await reader.read(PIECE):
                await self._delay(data, down=True)
                if limit is not None and passed + len(data) > limit:
                    writer.write(data[: limit - passed])
                    await writer.drain()
                    self.cuts += 1
                    return
                passed += len(data)
                writer.write(self.alter(data))
                await writer.drain()
            writer.write_eof()
            await writer.drain()
            await asyncio.sleep(0.05)  # lest the reset overtakes the end

    async def _delay(self, data: bytes, down: bool) -> None:
        self.passed += len(data)
        wait = self.latency + (len(data) / self.rate if self.rate else 0.0)
        if wait:
            await asyncio.sleep(wait)
        while self.holds_down if down else self.holds_up:
            await asyncio.sleep(TICK)


async def _drop(reader: asyncio.StreamReader) -> None:
    with suppress(OSError):
        while await reader.read(PIECE):
            pass


def _abort(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None and not writer.transport.is_closing():
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    writer.transport.abort()
