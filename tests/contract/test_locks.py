"""What every store does with locks: keep one for a while, let writes pass that name it, and no others."""

from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from zope.interface.verify import verifyObject

from pubky_homeserver.core.errors import (
    Collision,
    Locked,
    LockLost,
    LockUnknown,
    NotFound,
    NotPrimary,
    PreconditionFailed,
    QuotaExceeded,
    Refused,
    UserDisabled,
    WriteNotAllowed,
)
from pubky_homeserver.core.locks import HELD_SECONDS, new_token
from pubky_homeserver.core.records import Lock
from pubky_homeserver.interfaces import ILockStore
from pubky_homeserver.store import schema
from pubky_homeserver.store.redis import RedisStore
from tests.contract.store import ALICE, BOB, Store, entry, put, sign_up
from tests.contract.test_packets import packet

reactor: Any = _reactor

ELSEWHERE = "e" * 52
PATH = "/pub/app/a"
PATIENCE = 10
"""Seconds that a lock of one second may take to be over."""


async def taken(store: Store, seconds: int = 20, pubky: str = ALICE, path: str = PATH) -> str:
    """The token of a new lock."""
    token = new_token()
    await store.locks.lock(pubky, path, Lock(token, seconds))
    return token


async def left(store: Store, pubky: str = ALICE, path: str = PATH) -> float:
    """Seconds that the lock of a path still lives; 0 without one."""
    if isinstance(store, RedisStore):
        rest = int(await store._redis.call("PTTL", schema.lock(pubky, path)))
        return max(rest, 0.5) / 1000 if rest >= 0 else 0  # in its last millisecond it still lives
    kept = store.locks._live(pubky, path)
    return 0 if kept is None else float(kept.until - store.clock.seconds())


async def over(store: Store, path: str = PATH) -> None:
    """Wait for the end of a lock."""
    end = monotonic() + PATIENCE
    while await left(store, path=path):
        assert monotonic() < end, "the lock does not end"
        await deferLater(reactor, 0.02)


def write(store: Store, tokens: list[str] | None, path: str = PATH, body: bytes = b"hello") -> Awaitable[Any]:
    """A put that names tokens."""
    return store.put(ALICE, entry(path, body), None, True, tokens=tokens)


WRITES: dict[str, Callable[[Store, Any], Awaitable[Any]]] = {
    "check_put": lambda store, tokens: store.check_put(ALICE, PATH, 5, None, tokens),
    "put": write,
    "check_delete": lambda store, tokens: store.check_delete(ALICE, PATH, tokens),
    "delete": lambda store, tokens: store.delete(ALICE, PATH, tokens=tokens),
}


def test_keeps_the_port(store: Store) -> None:
    """The locks of the store have every method of the port, with its arguments."""
    verifyObject(ILockStore, store.locks)


@pytest_twisted.ensureDeferred
async def test_a_lock_is_exclusive(store: Store) -> None:
    """Nobody takes a lock that lives, not even who holds it; other paths and accounts are free."""
    token = await taken(store)
    for other in (token, new_token()):
        with pytest.raises(Locked):
            await store.locks.lock(ALICE, PATH, Lock(other, 60))
    assert 19 < await left(store) <= 20
    for pubky, path in ((BOB, PATH), (ALICE, PATH + "b"), (ALICE, "/pub/app/b"), (ALICE, "/priv/app/a")):
        assert await taken(store, pubky=pubky, path=path) != token


@pytest_twisted.ensureDeferred
async def test_unlock(store: Store) -> None:
    """A lock ends when somebody gives its token back, and by no other token, path or account."""
    token, other = await taken(store), await taken(store, path="/pub/b")
    for pubky, path, named in (
        (ALICE, PATH, new_token()),
        (ALICE, PATH, other),
        (ALICE, PATH, ""),
        (ALICE, PATH, token[:-1]),
        (ALICE, "/pub/b", token),
        (ALICE, "/pub/free", token),
        (BOB, PATH, token),
    ):
        with pytest.raises(LockUnknown):
            await store.locks.unlock(pubky, path, named)
    await store.locks.unlock(ALICE, PATH, token)
    assert await left(store) == 0
    with pytest.raises(LockUnknown):
        await store.locks.unlock(ALICE, PATH, token)
    assert await taken(store) != token
    assert await left(store, path="/pub/b") > 0


@pytest_twisted.ensureDeferred
async def test_refresh(store: Store) -> None:
    """A refresh gives the lock a new end, later or earlier, and says which of the tokens holds it."""
    token, other = await taken(store), new_token()
    assert await store.locks.refresh(ALICE, PATH, [other, token], 60) == Lock(token, 60)
    assert 59 < await left(store) <= 60
    assert await store.locks.refresh(ALICE, PATH, [token, other], 5) == Lock(token, 5)
    assert 4 < await left(store) <= 5


@pytest.mark.parametrize("act", ["refresh", "hold"])
@pytest_twisted.ensureDeferred
async def test_tokens_of_other_locks(store: Store, act: str) -> None:
    """A token is good for its own path and account only, and does nothing elsewhere."""
    await sign_up(store, ALICE)
    token = await taken(store)
    other = await taken(store, path="/pub/b")
    await taken(store, pubky=BOB)

    def name(pubky: str, path: str, tokens: list[str]) -> Awaitable[Any]:
        if act == "hold":
            return store.locks.hold(pubky, path, tokens)
        return store.locks.refresh(pubky, path, tokens, 60)

    async def attempt(pubky: str, path: str, tokens: list[str]) -> None:
        with pytest.raises(LockLost):
            await name(pubky, path, tokens)

    await attempt(ALICE, PATH, [other, new_token(), "opaquelocktoken:", token + "x", token[:-1], "*"])
    await attempt(BOB, PATH, [token])
    await attempt(ALICE, "/pub/b", [token])
    await attempt(ALICE, "/pub/free", [token])
    for pubky, path in ((ALICE, PATH), (BOB, PATH), (ALICE, "/pub/b")):
        assert 19 < await left(store, pubky, path) <= 20
    assert await left(store, path="/pub/free") == 0


@pytest.mark.parametrize("name", WRITES)
@pytest_twisted.ensureDeferred
async def test_writes_of_a_locked_path(store: Store, name: str) -> None:
    """Without token: locked. With a wrong one: lost. With the right one, or let in before: it passes."""
    attempt = WRITES[name]
    await sign_up(store, ALICE)
    await put(store, ALICE, PATH, b"old")
    token = await taken(store)
    with pytest.raises(Locked):
        await attempt(store, ())
    for wrong in (new_token(), await taken(store, path="/pub/b"), await taken(store, pubky=BOB), token[:-1], "*", ""):
        with pytest.raises(LockLost):
            await attempt(store, [wrong])
    assert await store.entry(ALICE, PATH) == entry(PATH, b"old", seq=1)
    assert await left(store) <= 20
    await attempt(store, [new_token(), token])
    assert await left(store) > 20
    await put(store, ALICE, "/pub/other")
    if "delete" not in name:
        await attempt(store, None)


@pytest.mark.parametrize("name", WRITES)
@pytest_twisted.ensureDeferred
async def test_writes_of_a_free_path(store: Store, name: str) -> None:
    """Who names a lock writes under that lock or not at all; who names none is free to write."""
    attempt = WRITES[name]
    await sign_up(store, ALICE)
    await put(store, ALICE, PATH, b"old")
    with pytest.raises(LockLost):
        await attempt(store, [new_token()])
    gone = await taken(store)
    await store.locks.unlock(ALICE, PATH, gone)
    with pytest.raises(LockLost):
        await attempt(store, [gone])
    assert await store.entry(ALICE, PATH) == entry(PATH, b"old", seq=1)
    await attempt(store, ())


@pytest.mark.parametrize("name", [*WRITES, "hold"])
@pytest_twisted.ensureDeferred
async def test_a_held_lock_lives_on(store: Store, name: str) -> None:
    """A write under a lock lets it live half a minute from then on; a longer life is not made shorter."""
    attempt = WRITES.get(name, lambda store, tokens: store.locks.hold(ALICE, PATH, tokens))
    await sign_up(store, ALICE)
    for seconds, least, most in ((1, HELD_SECONDS - 1, HELD_SECONDS), (60, 59, 60)):
        await put(store, ALICE, PATH)
        token = await taken(store, seconds)
        await attempt(store, [token])
        assert least < await left(store) <= most
        await store.locks.unlock(ALICE, PATH, token)


@pytest_twisted.ensureDeferred
async def test_a_write_does_not_end_a_lock(store: Store) -> None:
    """Put, delete and put again under one lock, which is still there after that."""
    await sign_up(store, ALICE)
    token = await taken(store)
    await write(store, [token])
    await store.delete(ALICE, PATH, tokens=[token])
    await write(store, [token], body=b"again")
    with pytest.raises(Locked):
        await write(store, [])
    with pytest.raises(Locked):
        await taken(store)
    assert await store.entry(ALICE, PATH) == entry(PATH, b"again", seq=3)


@pytest_twisted.ensureDeferred
async def test_a_lock_ends_by_itself(store: Store) -> None:
    """After its time everything is as if there had been no lock, and its token opens nothing any more."""
    await sign_up(store, ALICE)
    token = await taken(store, 1)
    with pytest.raises(Locked):
        await write(store, [])
    await over(store)
    with pytest.raises(LockLost):
        await write(store, [token])
    with pytest.raises(LockLost):
        await store.locks.refresh(ALICE, PATH, [token], 60)
    with pytest.raises(LockLost):
        await store.locks.hold(ALICE, PATH, [token])
    with pytest.raises(LockUnknown):
        await store.locks.unlock(ALICE, PATH, token)
    await write(store, [])
    assert await taken(store) != token


@pytest.mark.parametrize("expired", [False, True])
@pytest_twisted.ensureDeferred
async def test_one_wins(store: Store, expired: bool) -> None:
    """Of many who want the lock of a free path, or of one whose lock is just over, exactly one gets it."""
    if expired:
        await taken(store, 1)
        await over(store)

    async def attempt() -> str | None:
        try:
            return await taken(store)
        except Locked:
            return None

    tokens = await gatherResults([Deferred.fromCoroutine(attempt()) for _ in range(50)])
    won = [token for token in tokens if token is not None]
    assert len(won) == 1
    await store.locks.unlock(ALICE, PATH, won[0])


@pytest_twisted.ensureDeferred
async def test_order_of_refusals(store: Store) -> None:
    """A client sees the first of: account, disabled, announced length, lock, allowed paths, collision, conditions."""
    with pytest.raises(NotFound):
        await write(store, [new_token()])
    with pytest.raises(NotFound):
        await store.delete(ALICE, PATH, tokens=[new_token()])
    await sign_up(store, ALICE, allowed_write_paths=("/pub/app/",))
    token = await taken(store, path="/pub/app")
    lost = [new_token()]

    async def refusal(attempt: Awaitable[Any]) -> type[Refused]:
        with pytest.raises(Refused) as caught:
            await attempt
        return caught.type

    await put(store, ALICE, PATH)

    def attempt(length: int, announced: bool, tokens: list[str]) -> Awaitable[Any]:
        return store.put(ALICE, entry("/pub/app", length=length), 1000, announced, [], tokens=tokens)

    assert await refusal(attempt(2000, True, lost)) is QuotaExceeded
    assert await refusal(attempt(2000, False, lost)) is LockLost
    assert await refusal(attempt(2000, False, [])) is Locked
    assert await refusal(attempt(2000, False, [token])) is WriteNotAllowed
    await taken(store, path="/pub/app/a/b")
    assert await refusal(write(store, [], "/pub/app/a/b")) is Locked
    assert await refusal(write(store, [], "/pub/app/a/c")) is Collision
    token = await taken(store)
    assert await refusal(store.delete(ALICE, PATH, [], lost)) is LockLost
    assert await refusal(store.delete(ALICE, PATH, [], [])) is Locked
    assert await refusal(store.delete(ALICE, PATH, [], [token])) is PreconditionFailed
    await taken(store, path="/pub/app/missing")
    assert await refusal(store.delete(ALICE, "/pub/app/missing")) is Locked
    assert await refusal(store.delete(ALICE, "/pub/app/missing2")) is NotFound
    await store.set_disabled(ALICE, True)
    assert await refusal(write(store, lost)) is UserDisabled
    assert await refusal(store.delete(ALICE, PATH)) is Locked
    await store.delete(ALICE, PATH, tokens=[token])


@pytest_twisted.ensureDeferred
async def test_locks_of_an_account_that_lives_elsewhere(store: Store) -> None:
    """None is taken or lives longer behind a fence, whoever has let the request in; it can be given back, and ends."""
    await sign_up(store, ALICE)
    token = await taken(store)
    await store.packets.keep_packet(ALICE, packet(1_764_000_000_000_002), ELSEWHERE)
    attempts: list[Awaitable[Any]] = [
        taken(store, path="/pub/free"),
        taken(store),
        store.locks.refresh(ALICE, PATH, [token], 60),
        store.locks.refresh(ALICE, PATH, [new_token()], 60),
        store.locks.hold(ALICE, PATH, [token]),
        store.locks.hold(ALICE, "/pub/free", [token]),
    ]
    for attempt in attempts:
        with pytest.raises(NotPrimary) as refused:
            await attempt
        assert refused.value.primary == ELSEWHERE
    assert await left(store) <= 20
    assert await left(store, path="/pub/free") == 0
    assert await taken(store, pubky=BOB)
    await store.locks.unlock(ALICE, PATH, token)
    assert await left(store) == 0
