"""A fence among many writers, each on a connection of its own: no write commits behind it, none before it is lost."""

from random import Random
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from pubky_homeserver.core.errors import NotFound, NotPrimary
from pubky_homeserver.core.moves import Kept
from pubky_homeserver.core.records import Event
from pubky_homeserver.store.redis import RedisStore
from tests.contract.conftest import empty_store
from tests.contract.store import ALICE, put, sign_up
from tests.contract.test_packets import packet
from tests.store.server import PROGRAMS, RedisServer

ELSEWHERE = "e" * 52
LATER = 1_764_000_000_000_001
WRITERS, WRITES, ROUNDS = 6, 12, 8


async def write(store: RedisStore, random: Random, name: str, done: list[Event]) -> type[Exception] | None:
    """Write one thing after the other; what was acknowledged, in `done`, and what ended it."""
    for number in range(WRITES):
        path = f"/pub/{name}/{number}" if random.random() < 0.5 else f"/pub/shared/{random.randrange(3)}"
        try:
            if random.random() < 0.2:
                done.append(await store.delete(ALICE, path))
            else:
                done.append(await put(store, ALICE, path, random.randbytes(random.randrange(200))))
        except NotFound:
            continue
        except NotPrimary as refused:
            return type(refused)
    return None


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("seed", range(ROUNDS))
@pytest_twisted.ensureDeferred
async def test_a_fence_among_writers(servers: dict[str, RedisServer], program: str, seed: int) -> None:
    """I8: the log ends where it stood at the fence, and holds exactly what was acknowledged, in one order."""
    random = Random(seed)
    first = await empty_store(servers[program])
    stores = [first, *(RedisStore(servers[program].address, reactor) for _ in range(WRITERS))]
    for store in stores[1:]:
        await store.start()
    try:
        await sign_up(first, ALICE)
        done: list[Event] = []
        running = [
            Deferred.fromCoroutine(write(store, Random(random.random()), str(number), done))
            for number, store in enumerate(stores[1:])
        ]
        fenced = await _fence(first, random.randrange(WRITERS * WRITES // 2), done)
        assert fenced is Kept.FENCED
        copy = await first.copies.copy(ALICE)
        assert copy is not None
        assert copy.public.position is not None
        ended: list[Any] = await DeferredList(running, consumeErrors=True)
        assert not any(isinstance(result, Failure) for _, result in ended), ended
        assert any(result is NotPrimary for _, result in ended), "the fence came among the writes"
        logged = [one.event for one in await first.logs.logged(ALICE, False, 0, 1000)]
        assert [one.seq for one in logged] == [*range(1, copy.public.position.seq + 1)]
        assert logged[-1].digest == copy.public.position.digest
        told = {(one.seq, one.path, one.content_hash) for one in done}
        assert told == {(one.seq, one.path, one.content_hash) for one in logged}
        now = await first.copies.copy(ALICE)
        assert now is not None
        assert now.public.position == copy.public.position
    finally:
        for store in stores:
            await store.stop()


async def _fence(store: RedisStore, after: int, done: list[Event]) -> Kept:
    """Shut the account when so many writes were acknowledged."""
    while len(done) <= after:
        await store.entry(ALICE, "/pub/none")  # whatever: the writers go on meanwhile
    return await store.packets.keep_packet(ALICE, packet(LATER + 1), ELSEWHERE)
