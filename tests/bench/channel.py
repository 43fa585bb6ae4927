"""What a request costs before anybody works on it: `python tests/bench/channel.py [seconds]`.

Each server runs in a process of its own and is driven by `wrk -t1 -c16` (Debian's package) for so many seconds; the
same round is run three times and the best of each counts, for the load generator shares the machine. Only the ratios
mean anything. `site` is a plain resource on Twisted's own server; `queued` is the channel without direct writes;
`waiting` has a handler that waits once, as one does that asks Redis. The last lines compare the objects that a request
is made of.
"""

import re
import subprocess
import sys
import timeit
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.web.resource import Resource
from twisted.web.server import Request as SiteRequest
from twisted.web.server import Site

from pubky_homeserver.web.channel import HTTPFactory
from pubky_homeserver.web.request import Request

reactor: Any = _reactor
PORT = 8097
BODY = b"x" * 300
PIECE = bytes(256 << 10)
LARGE = 200 << 20  # bytes

FIELDS = [(b"host", b"127.0.0.1:8097"), (b"user-agent", b"bench"), (b"accept", b"*/*")]


class Fixed(Resource):
    """The answer, as Twisted's server gives it."""

    isLeaf = True

    def render_GET(self, request: SiteRequest) -> bytes:
        """The body."""
        request.setHeader(b"content-type", b"text/plain")
        return BODY


async def fixed(request: Request) -> None:
    """The answer, as the channel gives it."""
    request.setHeader(b"content-type", b"text/plain")
    request.finish_with(BODY)


async def waiting(request: Request) -> None:
    """The same after a turn of the reactor."""
    turn: Deferred[None] = Deferred()
    reactor.callLater(0, turn.callback, None)
    await turn
    await fixed(request)


async def large(request: Request) -> None:
    """200 MB out, or as many in as come."""
    if request.method == b"GET":
        await request.send([PIECE] * (LARGE // len(PIECE)), LARGE)
        return
    async for _ in request.body:
        pass
    request.finish_with()


def queued() -> Factory:
    """The channel on what every transport can do."""

    class Queued(HTTPFactory):
        def opened(self, channel: Any) -> float:
            channel.wire._socket = None
            return super().opened(channel)

    return Queued(fixed, reactor)


SERVERS: dict[str, Callable[[], Any]] = {
    "site": lambda: Site(Fixed()),
    "queued": queued,
    "waiting": lambda: HTTPFactory(waiting, reactor),
    "channel": lambda: HTTPFactory(fixed, reactor),
    "large": lambda: HTTPFactory(large, reactor),
}


def serve(name: str) -> None:
    """Be one of the servers."""
    reactor.listenTCP(PORT, SERVERS[name](), interface="127.0.0.1")
    reactor.callWhenRunning(say, "listening")
    reactor.run()


def measured(name: str, *command: str) -> str:
    """The output of a client of this server."""
    server = subprocess.Popen([sys.executable, __file__, "--serve", name], stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        server.stdout.readline()
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    finally:
        server.terminate()
        server.wait()


def requests_per_second(name: str, seconds: int) -> float:
    """Of wrk with 16 connections."""
    output = measured(name, "wrk", "-t1", "-c16", f"-d{seconds}", f"http://127.0.0.1:{PORT}/a")
    found = re.search(r"Requests/sec:\s+([\d.]+)", output)
    assert found, output
    return float(found[1])


def megabytes_per_second(upload: bool) -> float:
    """Of curl with one large body."""
    url = f"http://127.0.0.1:{PORT}/"
    if upload:
        script = f"head -c {LARGE} /dev/zero | curl -s -T - -o /dev/null -w '%{{speed_upload}}' {url}"
    else:
        script = f"curl -s -o /dev/null -w '%{{speed_download}}' {url}"
    return float(measured("large", "sh", "-c", script)) / 1e6


class Nowhere:
    """A connection for either kind of request that sends nothing."""

    site = factory = Site(Fixed())
    date_line = b""
    transport = None

    def continues_after(self, request: Request) -> bool:
        """It does."""
        return True

    def getPeer(self, *_: object) -> None:
        """Nobody; and whatever else is called, nothing happens."""

    getHost = isSecure = write = writeHeaders = writeSequence = requestDone = loseConnection = getPeer


def construct() -> tuple[float, float]:
    """Microseconds to make a Twisted request and one of ours, and to answer it to a connection that does nothing."""
    connection: Any = Nowhere()

    def theirs() -> None:
        request = SiteRequest(connection, False)
        request.method, request.uri, request.path, request.clientproto = b"GET", b"/a", b"/a", b"HTTP/1.1"
        for name, value in FIELDS:
            request.requestHeaders.addRawHeader(name, value)
        request.setHeader(b"content-type", b"text/plain")
        request.setHeader(b"content-length", b"%d" % len(BODY))
        request.write(BODY)
        request.finish()

    def ours() -> None:
        request = Request(connection, b"GET", b"/a", FIELDS, False, True)
        request.setHeader(b"content-type", b"text/plain")
        request.finish_with(BODY)

    number = 100_000
    return timeit.timeit(theirs, number=number) * 1e6 / number, timeit.timeit(ours, number=number) * 1e6 / number


def start() -> tuple[float, float]:
    """Microseconds to run a coroutine that waits for nothing: as a Deferred, and by hand."""

    async def nothing() -> None:
        return None

    def wrapped() -> None:
        Deferred.fromCoroutine(nothing())

    def by_hand() -> None:
        try:
            nothing().send(None)
        except StopIteration:
            pass

    number = 100_000
    return timeit.timeit(wrapped, number=number) * 1e6 / number, timeit.timeit(by_hand, number=number) * 1e6 / number


def main() -> None:
    """Run everything."""
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    best = dict.fromkeys(("site", "queued", "waiting", "channel"), 0.0)
    for _ in range(3):
        for name in best:
            best[name] = max(best[name], requests_per_second(name, seconds))
    for name, rate in best.items():
        say(f"{name:10}{rate:8.0f}/s  {rate / best['site']:.1f} x")
    say(f"GET 200 MB {megabytes_per_second(upload=False):7.0f} MB/s")
    say(f"PUT 200 MB {megabytes_per_second(upload=True):7.0f} MB/s")
    theirs, ours = construct()
    say(f"request    {theirs:7.1f} µs, ours {ours:.1f} µs, {theirs / ours:.1f} x")
    wrapped, by_hand = start()
    say(f"coroutine  {wrapped:7.1f} µs, by hand {by_hand:.1f} µs")


def say(line: str) -> None:
    """A line of the report."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2])
    else:
        main()
