"""Locks in a Redis that is killed and started again."""

from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as _reactor

from pubky_homeserver.core.errors import Locked
from pubky_homeserver.core.records import Account, Lock
from pubky_homeserver.store import schema
from pubky_homeserver.store.redis import RedisStore
from tests.contract.store import ALICE, entry
from tests.store.server import PROGRAMS, RedisServer

reactor: Any = _reactor

TOKEN = "opaquelocktoken:one"


async def started(server: RedisServer) -> RedisStore:
    """A store on a server that has just been started."""
    store = RedisStore(server.address, reactor)
    await store.start()
    return store


@pytest.mark.parametrize("program", PROGRAMS)
@pytest_twisted.ensureDeferred
async def test_locks_survive(program: str, tmp_path: Path) -> None:
    """A lock that was granted holds after a crash, until its old time is over, and a freed path stays free."""
    server = RedisServer(tmp_path, program=program)
    server.start()
    try:
        store = await started(server)
        await store.sign_up(Account(ALICE, 1), None, None, False)
        for path in ("/pub/a", "/pub/b"):
            await store.locks.lock(ALICE, path, Lock(TOKEN, 60))
        await store.locks.unlock(ALICE, "/pub/b", TOKEN)
        until = server.ask("PTTL", schema.lock(ALICE, "/pub/a")) + server_time(server)
        await store.stop()
        server.kill()
        server.start()
        store = await started(server)
        assert abs(server.ask("PTTL", schema.lock(ALICE, "/pub/a")) + server_time(server) - until) < 1000
        with pytest.raises(Locked):
            await store.put(ALICE, entry("/pub/a"), None, True)
        await store.put(ALICE, entry("/pub/a"), None, True, tokens=[TOKEN])
        await store.put(ALICE, entry("/pub/b"), None, True)
        await store.stop()
    finally:
        server.kill()


def server_time(server: RedisServer) -> int:
    """Milliseconds since the epoch on the clock of Redis."""
    seconds, microseconds = server.ask("TIME")
    return int(seconds) * 1000 + int(microseconds) // 1000
