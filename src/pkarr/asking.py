"""Asking networks: each within its time, and several at once."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pkarr.interfaces import INetwork, NetworkError, Unavailable

PATIENCE = 30.0  # seconds for one network; each has shorter limits of its own

T = TypeVar("T")

_log = Logger()


async def attempt(
    network: INetwork, work: Coroutine[Any, Any, T], clock: IReactorTime, patience: float = PATIENCE
) -> T:
    """What a network does, within its time. Whatever goes wrong is a `NetworkError`, or we were cancelled."""

    def late(_result: object, _seconds: float) -> T:
        raise Unavailable(f"no answer within {patience:g} s")

    try:
        return await Deferred.fromCoroutine(work).addTimeout(patience, clock, late)
    except (CancelledError, NetworkError):
        raise
    except Exception:  # a fault of one network must not take the others' answers along
        _log.failure("Unexpected failure at {network}", network=network)
        raise Unavailable("failed; the log tells why") from None


async def all_of(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all, which run at once and to their ends; then, if any failed, the first failure.

    Whoever cancels it cancels them.
    """
    ended: list[tuple[bool, Any]]
    ended = await DeferredList([Deferred.fromCoroutine(work) for work in works], consumeErrors=True)
    for succeeded, result in ended:
        if not succeeded:
            result.raiseException()
    return [result for _, result in ended]
