"""What a store in memory has, to put it back later: as a Redis does that lost its newest writes."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import attrs

from pubky_homeserver.store.memory import MemoryStore

CONNECTED = {"_wakes", "_hearers", "_listeners"}
"""Who is connected to it, which is no part of it."""


def _parts(store: MemoryStore) -> Iterator[tuple[Any, str]]:
    """Whatever a store keeps: the object that has it, and its name there."""
    for one in (
        *(store, store._blobs, store.copies, store.shelf, store.moves, store.packets),
        *(store.erasures, store.takedowns, store.grants, store.locks, store.chronicle),
    ):
        for field in attrs.fields(type(one)):
            is_ours = field.name.startswith("_") and field.name not in CONNECTED
            if is_ours and isinstance(getattr(one, field.name), dict | list | set | int):
                yield one, field.name


def back_up(store: MemoryStore) -> list[Any]:
    """All of it."""
    values = [getattr(one, name) for one, name in _parts(store)]
    return deepcopy([[*value] if isinstance(value, list) else value for value in values])


def put_back(store: MemoryStore, backup: list[Any]) -> None:
    """Let it have that again. Those who are connected to it stay so, and are woken."""
    for (one, name), value in zip(_parts(store), deepcopy(backup), strict=True):
        here = getattr(one, name)
        if isinstance(here, dict | set):
            here.clear()
            here.update(value)
        elif isinstance(here, list):
            here[:] = value
        else:
            setattr(one, name, value)
    for wake in store._wakes:
        store.clock.callLater(0, store._wake, wake)
