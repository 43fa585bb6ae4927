"""What TLS by public key costs: `python -m tests.bench.tls [connections]`.

First each library with itself, in memory: pairs of handshakes a second, and megabytes a second encrypted and decrypted
again. Then a server of channels in a process of its own, over plain HTTP and behind each library, with a client of one
thread that shares the machine: connections with a handshake and a small GET each, GETs on a kept connection, 200 MB
each way; and the memory of the server after the first tenth and after all of so many connections. Only ratios mean
anything.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor

from pkarr.keys import Keypair
from pkarr.tls.endpoint import TlsFactory
from pkarr.tls.session import IEngine, ISession
from pubky_homeserver.web.channel import HTTPFactory
from pubky_homeserver.web.request import Request
from tests.by_key import KeyConnection
from tests.pkarr.tls.installed import NAMES, installed

reactor: Any = _reactor
KEY = Keypair(bytes(32))
HOST = f"_pubky.{KEY.public_key.z32}"
PIECE = bytes(1 << 20)
LARGE = 200  # pieces
SECONDS = 2.0


async def answer(request: Request) -> None:
    """`/large` is large, a body is dropped, everything else is small."""
    if request.method == b"PUT":
        async for _ in request.body:
            pass
        request.finish_with(b"")
    elif request.path == b"/large":
        request.stream(LARGE * len(PIECE))
        for _ in range(LARGE):
            await request.write(PIECE)
        request.finish()
    else:
        request.finish_with(b"x" * 300)


def serve(name: str) -> None:
    """Serve until somebody ends the process; the port is the first line of the output."""
    factory: Any = HTTPFactory(answer, reactor)
    if name != "plain":
        factory = TlsFactory(factory, installed(name), KEY.seed, reactor)
    print(reactor.listenTCP(0, factory, interface="127.0.0.1").getHost().port, flush=True)
    reactor.run()


@contextmanager
def served(name: str) -> Iterator[tuple[int, int]]:
    """A server in its process: its port, its process id."""
    with subprocess.Popen([sys.executable, "-m", "tests.bench.tls", name], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline()), process.pid
        process.terminate()


def shaken(engine: IEngine, shared: object) -> tuple[ISession, ISession]:
    """A client and a server whose handshake is done."""
    client, server = engine.connect(HOST), engine.accept(shared)
    client.handshake()
    server.feed(client.take())
    server.handshake()
    client.feed(server.take())
    client.handshake()
    server.feed(client.take())
    server.handshake()
    return client, server


def rate(work: Callable[[], object]) -> float:
    """How often a second something can be done."""
    began, count = time.perf_counter(), 0
    while (took := time.perf_counter() - began) < SECONDS:
        work()
        count += 1
    return count / took


def in_memory(name: str) -> None:
    """A library with itself."""
    engine = installed(name)
    shared = engine.server(KEY.seed)

    def shake() -> None:
        for session in shaken(engine, shared):
            session.close()

    client, server = shaken(engine, shared)

    def carry() -> None:
        client.send(PIECE)
        server.feed(client.take())
        while server.receive():
            pass

    print(f"{engine.name:>14}: {rate(shake):6.0f} handshake pairs/s, {rate(carry):6.0f} MB/s there and back")


def over_sockets(name: str, connections: int) -> None:
    """A server of channels."""
    with served(name) as (port, process):

        def connect() -> HTTPConnection:
            if name == "plain":
                return HTTPConnection("127.0.0.1", port)
            return KeyConnection(port, KEY.public_key, HOST, installed(name))

        def get(connection: HTTPConnection, target: str = "/") -> None:
            connection.request("GET", target)
            answer = connection.getresponse()
            while answer.read(1 << 20):
                pass

        def once() -> None:
            connection = connect()
            get(connection)
            connection.close()

        def put(connection: HTTPConnection) -> None:
            connection.putrequest("PUT", "/")
            connection.putheader("Content-Length", str(LARGE * len(PIECE)))
            connection.endheaders()
            for _ in range(LARGE):
                connection.send(PIECE)
            connection.getresponse().read()

        kept = connect()
        print(
            f"{name:>14}: {rate(once):6.0f} connections with a GET/s, {rate(lambda: get(kept)):6.0f} kept GETs/s",
            end="",
        )
        for word, transfer in (("down", lambda: get(kept, "/large")), ("up", lambda: put(kept))):
            began = time.perf_counter()
            transfer()
            print(f", {LARGE / (time.perf_counter() - began):5.0f} MB/s {word}", end="")
        kept.close()
        for _ in range(connections // 10):
            once()
        early = resident(process)
        for _ in range(connections * 9 // 10):
            once()
        print(f"; {early / 1e6:.1f} MB, after {connections} connections {resident(process) / 1e6:.1f} MB")


def resident(process: int) -> int:
    """Bytes of memory of a process."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main(arguments: list[str]) -> None:
    """Everything, or one server."""
    if arguments and not arguments[0].isdigit():
        serve(arguments[0])
        return
    for name in NAMES:
        in_memory(name)
    for name in ("plain", *NAMES):
        over_sockets(name, int(arguments[0]) if arguments else 10_000)


if __name__ == "__main__":
    main(sys.argv[1:])
