"""How fast the store is and what a file costs: `python -m tests.bench.store [entries]`, against a real redis-server.

Prints calls per second with one and with many callers, and bytes of Redis' memory for each file (path of 60 bytes, the
body not counted) and each event. Figures move with the machine: compare those of one run only.
"""

import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from blake3 import blake3
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from pubky_homeserver.core.records import Account, Entry
from pubky_homeserver.store.redis import RedisStore
from tests.store.server import RedisServer

reactor: Any = _reactor
PUBKY = "a" * 52
BODY = b"x" * 300
CALLS = 2000


def path_of(number: int) -> str:
    """A path of 60 bytes; a thousand of them in one folder."""
    return f"/pub/example.com/{number // 1000:06}/".ljust(52, "p") + f"{number:08}"


def entry(number: int, body: bytes | None) -> Entry:
    """A small JSON file."""
    content_hash = blake3(b"%d" % number).digest()
    return Entry(path_of(number), content_hash, 300, "application/json", 1_764_000_000_000_000 + number, body=body)


async def rate(server: RedisServer, name: str, callers: int, calls: int, call: Callable[[int], Awaitable[Any]]) -> None:
    """Print how many calls a second so many callers get done, and the CPU time of a call here and in Redis."""
    numbers = iter(range(calls))

    async def caller() -> None:
        for number in numbers:
            await call(number)

    theirs, ours, start = redis_time(server), process_time(), perf_counter()
    await gatherResults([Deferred.fromCoroutine(caller()) for _ in range(callers)])
    seconds, ours, theirs = perf_counter() - start, process_time() - ours, redis_time(server) - theirs
    print(
        f"  {name:22} {callers:4} callers {calls / seconds:9.0f}/s"
        f"   CPU: {ours / calls * 1e6:5.0f} us here, {theirs / calls * 1e6:5.0f} us Redis"
    )


def redis_time(server: RedisServer) -> float:
    """Seconds of CPU time that Redis has used."""
    lines = (line.partition(b":") for line in server.ask("INFO", "cpu").split())
    return sum(float(value) for name, _, value in lines if name in {b"used_cpu_sys", b"used_cpu_user"})


async def memory(server: RedisServer) -> int:
    """Bytes that Redis uses."""
    return int(server.ask("INFO", "memory").split(b"used_memory:")[1].split()[0])


async def cost(store: RedisStore, server: RedisServer, entries: int) -> None:
    """Print what files and events cost."""
    server.ask("CONFIG", "SET", "appendfsync", "everysec")
    before = await memory(server)
    await rate(server, "put, no fsync", 64, entries, lambda n: store.put(PUBKY, entry(n, None), None, True))
    after = await memory(server)

    def usage(*keys: str) -> float:
        return sum(int(server.ask("MEMORY", "USAGE", key, "SAMPLES", 0)) for key in keys) / entries

    print(f"  {(after - before) / entries:.0f} bytes a file in all, {entries} files")
    print(f"    entry {usage(f'{{0}}:entries:{PUBKY}'):.0f}, event {usage(f'{{0}}:log:pub:{PUBKY}'):.0f}, "
          f"pointer {usage('{0}:feed:pub'):.0f}")  # fmt: skip
    server.ask("CONFIG", "SET", "appendfsync", "always")


async def bench(entries: int) -> None:
    """Run it all."""
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder))
        server.start()
        store = RedisStore(server.address, reactor)
        try:
            await store.start()
            await measure(store, server, entries)
        finally:
            await store.stop()
            server.kill()


async def measure(store: RedisStore, server: RedisServer, entries: int) -> None:
    """Costs first, then rates on what lies there."""
    await store.sign_up(Account(PUBKY, 1), None, None, False)
    await cost(store, server, entries)
    print("appendfsync always")
    for callers in (1, 16, 64):
        calls = CALLS if callers > 1 else CALLS // 4
        await rate(server, "put, 300 bytes", callers, calls, lambda n: store.put(PUBKY, entry(n, BODY), None, True))
    newest = await store.last_event_id()
    events = await store.account_events(PUBKY, newest, 101, True, True, False)
    for callers in (1, 64):
        await rate(server, "get", callers, CALLS, lambda n: store.entry(PUBKY, path_of(n)))
        await rate(server, "session", callers, CALLS, lambda n: store.session("0" * 64))
        await rate(server, "check_put", callers, CALLS, lambda n: store.check_put(PUBKY, path_of(n), 300, None))
        for shallow in (False, True):
            await rate(server, f"list 100{', shallow' * shallow}", callers, CALLS // 4, lister(store, shallow))
        await rate(server, "feed, 100 events", callers, CALLS // 4, lambda n: store.events(events[-1].id, 100, False))
        await rate(server, "account, 100 events", callers, CALLS // 4,
                   lambda n: store.account_events(PUBKY, events[-1].id, 100, False, True, False))  # fmt: skip


def lister(store: RedisStore, shallow: bool) -> Callable[[int], Awaitable[list[str]]]:
    """Lists the first hundred of a folder's thousand files."""
    return lambda _: store.listing(PUBKY, path_of(0)[:24], "", 100, False, shallow)


if __name__ == "__main__":
    react(lambda _: Deferred.fromCoroutine(bench(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)))
