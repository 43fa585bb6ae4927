"""What every entry store does with writes that come at the same time: one order, and nothing counted twice."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from pubky_homeserver.core.errors import Collision, NotFound, PreconditionFailed, QuotaExceeded, Refused
from pubky_homeserver.core.records import Operation
from tests.contract.store import ALICE, Store, entry, put, sign_up

ROUNDS = 20


async def outcomes(*attempts: Awaitable[Any]) -> list[type[Refused] | None]:
    """What became of attempts that were all made before any was answered: None, or the refusal."""

    async def outcome(attempt: Awaitable[Any]) -> type[Refused] | None:
        try:
            await attempt
        except Refused as refusal:
            return type(refusal)
        return None

    return await gatherResults([Deferred.fromCoroutine(outcome(attempt)) for attempt in attempts])


async def used(store: Store) -> int:
    """Bytes that the account uses."""
    account = await store.account(ALICE)
    assert account is not None
    return account.used


@pytest_twisted.ensureDeferred
async def test_a_file_and_a_folder_of_one_name(store: Store) -> None:
    """Of writes whose paths exclude each other exactly those of one kind succeed."""
    await sign_up(store, ALICE)
    for number in range(ROUNDS):
        name = f"/pub/{number}"
        paths = [name, f"{name}/a", name, f"{name}/b/c"]
        if number % 2:
            paths.reverse()
        seen = await outcomes(*(put(store, ALICE, path) for path in paths))
        won = {path for path, refusal in zip(paths, seen, strict=True) if refusal is None}
        assert set(seen) == {None, Collision}
        assert won in ({name}, {f"{name}/a", f"{name}/b/c"})
        assert await store.listing(ALICE, "/pub/", f"/pub/{number}", 10, False, False) == sorted(won - {name})
        assert (await store.entry(ALICE, name) is not None) is (won == {name})
        for path in won:
            await store.delete(ALICE, path)
    assert await used(store) == 0


@pytest_twisted.ensureDeferred
async def test_deletes_of_one_file(store: Store) -> None:
    """One deletes it, the others find nothing: one event, its bytes given back once."""
    await sign_up(store, ALICE)
    await put(store, ALICE, "/pub/other")
    for _ in range(ROUNDS):
        await put(store, ALICE, "/pub/a")
        seen = await outcomes(*(store.delete(ALICE, "/pub/a") for _ in range(5)))
        assert sorted(seen, key=str) == [NotFound] * 4 + [None]
        assert await used(store) == 256 + 5
    told = [event.operation for event in await store.events(0, 1000, True)][1:]
    assert told == [Operation.PUT, Operation.DEL] * ROUNDS


Write = Callable[[Store, str], Awaitable[Any]]
CONTESTED: list[tuple[Write, type[Refused]]] = [
    (lambda store, path: store.put(ALICE, entry(path), 1000, True), QuotaExceeded),
    (lambda store, path: store.put(ALICE, entry("/pub/a"), None, True, None, True), PreconditionFailed),
]


@pytest.mark.parametrize(("write", "refusal"), CONTESTED, ids=["quota", "if none match"])
@pytest_twisted.ensureDeferred
async def test_no_more_than_fit(store: Store, write: Write, refusal: type[Refused]) -> None:
    """Writes that each would be allowed alone are judged one after the other."""
    await sign_up(store, ALICE)
    seen = await outcomes(*(write(store, f"/pub/{number}") for number in range(10)))
    fit = 1 if refusal is PreconditionFailed else 1000 // (256 + 5)
    assert sorted(seen, key=str) == sorted([None] * fit + [refusal] * (10 - fit), key=str)
    assert await used(store) == fit * (256 + 5)
    assert len(await store.events(0, 100, True)) == fit
