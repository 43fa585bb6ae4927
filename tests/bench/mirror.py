"""What a copy costs: how fast it begins, how late it is, how soon it opens, and what its primary pays.

    .venv/bin/python -m tests.bench.mirror [--only bootstrap,lag] [--accounts 2000] [--seconds 10]

Real homeservers with their durable defaults, each with its Redis, on this machine, which also makes the load: absolute
figures are those of one busy machine. The limit of a first copy is `rsync` (Debian: rsync) of the same files.
"""

import argparse
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pkarr.cache import CAPACITY
from tests.faults.mirroring.history import Client, History
from tests.faults.mirroring.world import Somebody, World, world
from tests.process import Node, until

SMALL, LARGE = 4000, 12  # files
SMALL_LENGTH, LARGE_LENGTH = 300, 20_000_000  # bytes
RATE, WRITERS = 200, 4  # writes a second of all writers, and how many these are
PROMOTIONS = 5
BEATS = 4  # of five seconds each
TURNS = 8  # of four parts, two with a follower: a machine's pace changes by more than a follower costs


@contextmanager
def pair(folder: Path, *, direct: bool = True) -> Iterator[World]:
    """Bob follows Alice; without a proxy between them if `direct`."""
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = {"url": f"http://127.0.0.1:{port}"} if direct else {}
    listen: Any = {"alice": {"drive": {"icann_listen_socket": f"127.0.0.1:{port}"}}} if direct else {}
    with world(folder, random.Random(0), {("bob", "alice"): place}, changes=listen) as here:
        yield here


def client(here: World, user: Somebody, node: str) -> Client:
    """A client whose calls nobody keeps."""
    found = here.client(user, node)
    found.history = History()
    return found


def until_current(here: World, user: Somebody, files: int, length: int, within: float = 300) -> float:
    """Wait until Bob has the account with all its bodies; when that was."""
    wanted = files * (length + 256)

    def is_there() -> float | None:
        time.sleep(0.01)
        copy = here.copy("bob", user)
        whole = copy and copy["state"] == "current" and not copy["missing"] and copy["used"] == wanted
        return time.monotonic() if whole else None

    found: float = until(is_there, within, lambda: here.nodes["bob"].written()[-2000:])
    return found


def processor(node: Node) -> float:
    """Seconds of processor time that a homeserver and its Redis have used."""
    threads = [thread for process in node.processes() for thread in Path(f"/proc/{process}/task").iterdir()]
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def resident(node: Node) -> int:
    """Bytes of memory of a homeserver, without its Redis."""
    assert node.process is not None
    status = Path(f"/proc/{node.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def redis_memory(node: Node) -> int:
    """Bytes of memory of its Redis."""
    status = Path(f"/proc/{node.redis()}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def show(name: str, value: float, unit: str, goal: str = "", rest: str = "") -> None:
    """A line of the table."""
    print(f"{name:52}{value:>10.1f} {unit:9}{goal:>12}  {rest}", flush=True)


# --- the measures -------------------------------------------------------------------------------------------------


def bootstrap(folder: Path, _options: argparse.Namespace) -> None:
    """A first copy of many small files, and of a few large ones."""
    with pair(folder) as here:
        bob = here.nodes["bob"]
        for name, files, length in (("small", SMALL, SMALL_LENGTH), ("large", LARGE, LARGE_LENGTH)):
            bob.stop()
            user = here.somebody("alice")
            writer, tree = client(here, user, "alice"), folder / name
            tree.mkdir()
            for number in range(files):
                body = os.urandom(length)
                (tree / str(number)).write_bytes(body)
                assert writer.put(f"/pub/{number}", body) == 201
            os.sync()
            began = time.monotonic()
            here.start("bob")
            served = time.monotonic()
            ended = until_current(here, user, files, length)
            took, whole = ended - served, ended - began
            began = time.monotonic()
            subprocess.run(["rsync", "-a", "--fsync", f"{tree}/", f"{folder / name}-copy"], check=True)
            limit = time.monotonic() - began
            told = f"rsync {{:.0f}}; {limit / took:.2f} of it; {whole:.1f} s with the start"
            if name == "small":
                show(f"bootstrap, {files} files of {length} B", files / took, "files/s", "", told.format(files / limit))
            else:
                total = files * length / 1e6
                show(f"bootstrap, {files} files of 20 MB", total / took, "MB/s", "", told.format(total / limit))


def load(here: World, users: list[Somebody], seconds: float, hear: Callable[[Somebody, str, float], None]) -> int:
    """Write at Alice's, at the fixed rate; how many there were. `hear` is told of each when it is acknowledged."""
    counts = [0] * WRITERS
    begin = time.monotonic() + 0.1

    def write(number: int) -> None:
        user = users[number % len(users)]
        writer = client(here, user, "alice")
        at = begin + number / RATE
        while at < begin + seconds:
            time.sleep(max(at - time.monotonic(), 0))
            path = f"/pub/{number}/{counts[number]}"
            assert writer.put(path, b"x" * SMALL_LENGTH) == 201
            hear(user, path, time.monotonic())
            counts[number] += 1
            at += WRITERS / RATE

    threads = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts)


def lag(folder: Path, options: argparse.Namespace) -> None:
    """How long after its acknowledgement a write can be read at the copy, of some writes."""
    with pair(folder) as here:
        users = [here.somebody("alice") for _ in range(WRITERS)]
        for user in users:
            client(here, user, "alice").put("/pub/first", b"x")
            until_current(here, user, 1, 1)
        newest: list[tuple[Somebody, str, float]] = []
        over, lags = threading.Event(), []

        def look() -> None:
            readers = {user.pubky: client(here, user, "bob") for user in users}
            while not over.is_set():
                newest.clear()
                time.sleep(random.uniform(0, 0.2))  # or each would be the first one after a look of the primary
                if not newest:
                    continue
                user, path, acknowledged = newest.pop()
                while readers[user.pubky].get(path).status != 200:
                    time.sleep(0.001)
                lags.append(time.monotonic() - acknowledged)

        looking = threading.Thread(target=look)
        looking.start()
        load(here, users, options.seconds, lambda *one: newest.append(one))
        over.set()
        looking.join()
        lags.sort()
        show(f"lag at {RATE} writes/s, p50", statistics.median(lags) * 1000, "ms", "< 100", f"{len(lags)} samples")
        show(f"lag at {RATE} writes/s, p99", lags[int(len(lags) * 0.99)] * 1000, "ms", "< 1000")


def price(folder: Path, options: argparse.Namespace) -> None:
    """What a follower adds to the primary's processor time for a write."""
    with pair(folder) as here:
        users = [here.somebody("alice") for _ in range(WRITERS)]
        alice, alone, more = here.nodes["alice"], [], []
        load(here, users, options.seconds, lambda *_one: None)
        for _ in range(TURNS):
            spent = {False: 0.0, True: 0.0}
            for follows in (False, True, True, False):
                here.operator("bob", f"/peers/pause?name=alice&paused={str(not follows).lower()}", "POST")
                time.sleep(2)  # what is behind is fetched
                before = processor(alice)
                writes = load(here, users, options.seconds / 2, lambda *_one: None)
                spent[follows] += (processor(alice) - before) / writes * 500
            alone.append(spent[False])
            more.append((spent[True] / spent[False] - 1) * 100)
        show(f"primary's processor time at {RATE} writes/s, alone", statistics.median(alone), "ms/write")
        more.sort()
        show("what a follower adds", statistics.median(more), "%", "≤ 10", f"{more[0]:.0f} to {more[-1]:.0f}")


def promotion(folder: Path, _options: argparse.Namespace) -> None:
    """From a burned primary to the first write at the copy: sign-up, record, opening."""
    with pair(folder) as here:
        users = [here.somebody("alice") for _ in range(PROMOTIONS)]
        for user in users:
            writer = client(here, user, "alice")
            for number in range(200):
                writer.put(f"/pub/{number}", b"x" * SMALL_LENGTH)
            until_current(here, user, 200, SMALL_LENGTH)
        here.nodes["alice"].kill()
        times = []
        for user in users:
            began = time.monotonic()
            assert here.sign_up(user, "bob") == 200
            here.publish(user, "bob")
            writer = client(here, user, "bob")
            until(lambda writer=writer: writer.put("/pub/new", b"x") == 201, 120)
            times.append(time.monotonic() - began)
        show(
            "promotion of a current copy, 200 files", statistics.median(times), "s", "< 5", f"longest {max(times):.1f}"
        )


def room(folder: Path, options: argparse.Namespace) -> None:
    """Memory of the follower, and bytes on the wire, for accounts that do nothing."""
    with pair(folder, direct=False) as here:
        bob = here.nodes["bob"]
        alone = beats(here)
        warm = CAPACITY + 200  # accounts whose memory is not counted: then what is remembered of the newest is full
        before = store = 0
        for number in range(options.accounts + warm):
            user = here.somebody("alice")
            writer = client(here, user, "alice")
            assert writer.put("/pub/file", b"x") == 201
            writer.close()
            if number == warm - 1:
                until(lambda: count(here) == warm, 300)
                before, store = resident(bob), redis_memory(bob)
        until(lambda: count(here) == options.accounts + warm, 600)  # their records are looked up ten a second
        mine, theirs = (
            (now - then) / options.accounts for now, then in ((resident(bob), before), (redis_memory(bob), store))
        )
        show(
            f"memory of a followed account, of {options.accounts}",
            mine / 1000,
            "kB",
            "< 2",
            f"Redis besides {theirs / 1000:.1f} kB",
        )
        idle = (beats(here) - alone) * 3600 / (options.accounts + warm)
        show("traffic of an idle account", max(idle, 0), "B/hour", "0", f"all of the beats: {alone:.0f} B/s")


def beats(here: World) -> float:
    """Bytes a second between two that have nothing to tell each other, from one beat to another, some later."""
    way = here.ways["bob", "alice"]
    time.sleep(3)  # what the last writes set off is over by then

    def next_beat() -> tuple[int, float]:
        passed = way.passed
        until(lambda: way.passed > passed, 30)
        return passed, time.monotonic()

    (passed, began), (now, ended) = next_beat(), [next_beat() for _ in range(BEATS)][-1]
    return (now - passed) / (ended - began)


def count(here: World) -> int:
    """Accounts that Bob has."""
    time.sleep(0.2)
    return sum(copy["state"] == "current" for copy in here.operator("bob", "/mirrors")["copies"])


MEASURES = {one.__name__: one for one in (bootstrap, lag, price, promotion, room)}


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help=f"some of {', '.join(MEASURES)}, separated by commas")
    parser.add_argument("--accounts", type=int, default=2000, help="idle accounts that are followed")
    parser.add_argument("--seconds", type=float, default=10, help="how long the load runs")
    options = parser.parse_args()
    wanted = [name for name in options.only.split(",") if name] or [*MEASURES]
    if not {*wanted} <= MEASURES.keys():
        sys.exit(f"there are {', '.join(MEASURES)}")
    print(f"{'':52}{'':>20}{'goal':>12}")
    with tempfile.TemporaryDirectory(prefix="pubky-bench-") as folder:
        for name in wanted:
            MEASURES[name](Path(folder) / name, options)


if __name__ == "__main__":
    main()
