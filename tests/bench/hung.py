"""Small requests beside 500 clients that hang: what they cost the others.

    .venv/bin/python -m tests.bench.hung [--rounds 3] [--seconds 5]

One homeserver with its durable defaults, and `wrk` (Debian: wrk) on the same machine with 4 connections: GET of 300
bytes, without and with 500 others (`tests/hanging.py`) that are idle, send a head or a body byte by byte, or do not
read a large file or the events that they asked for. Alternately; the medians of the rounds are printed.
"""

import argparse
import os
import re
import statistics
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from attrs import frozen

from tests.bench.http import BODY, Server, gets, ours, relay
from tests.hanging import Hanging, hanging_at

EACH = 125  # of each of the four kinds
LARGE = 32 * 1024 * 1024  # bytes of the file that is not read
PAUSE = 0.5  # seconds between two bytes of a slow client
UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


@frozen
class Measured:
    """What `wrk` saw: milliseconds, and requests a second."""

    p50: float
    p99: float
    rate: float


def measure(server: Server, seconds: int) -> Measured:
    """Small GETs for so many seconds."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(gets())
        script.flush()
        target = f"{server.url}/storage/{server.users[0].pubky}/pub/small"
        command = ["wrk", "-t1", "-c4", f"-d{seconds}s", "--latency", "-s", script.name, target]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "Non-2xx" not in text, text
    found = {name: float(value) * UNITS[unit] for name, value, unit in re.findall(r"(50|99)%\s+([\d.]+)(\w+)", text)}
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    assert rate is not None, text
    return Measured(found["50"], found["99"], float(rate[1]))


@contextmanager
def tended(hanging: Hanging) -> Iterator[None]:
    """Meanwhile the slow ones go on."""
    over = threading.Event()

    def tend() -> None:
        while not over.wait(PAUSE):
            hanging.tend()

    thread = threading.Thread(target=tend)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    parser.add_argument("--seconds", type=int, default=5, help="how long each time")
    options = parser.parse_args()
    results: dict[bool, list[Measured]] = {False: [], True: []}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pubky-bench-")))
        home = folder / "ours"
        home.mkdir()
        server = stack.enter_context(ours(home, stack.enter_context(relay(folder))))
        server.sign_up(1)
        user = server.users[0]
        server.put(user, "/pub/small", BODY)
        server.put(user, "/pub/large", os.urandom(LARGE))
        measure(server, 1)
        for _ in range(options.rounds):
            results[False].append(measure(server, options.seconds))
            with hanging_at(server.port, user.pubky, user.cookie, "/pub/large") as hanging:
                hanging.gather(EACH)
                with tended(hanging):
                    results[True].append(measure(server, options.seconds))
    print(f"{'GET 300 B, 4 connections':32}{'p50':>10}{'p99':>10}{'rate':>12}")
    for beside, measured in results.items():
        p50, p99, rate = (statistics.median(getattr(one, name) for one in measured) for name in ("p50", "p99", "rate"))
        print(f"{f'beside {4 * EACH} that hang' if beside else 'alone':32}{p50:>7.2f} ms{p99:>7.2f} ms{rate:>10.0f} /s")


if __name__ == "__main__":
    main()
