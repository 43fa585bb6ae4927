"""What the contract tests talk about: a store, and records in few words."""

from collections.abc import Iterable
from typing import Any

from blake3 import blake3
from twisted.internet.defer import Deferred, gatherResults

from pubky_homeserver.core.capabilities import parse_capabilities
from pubky_homeserver.core.quotas import UserQuota
from pubky_homeserver.core.records import Account, Entry, Event, Session
from pubky_homeserver.store.memory import MemoryStore
from pubky_homeserver.store.redis import RedisStore

Store = MemoryStore | RedisStore

ALICE, BOB = "a" * 52, "b" * 52
"""Accounts; the store does not look into keys."""


def entry(path: str, body: bytes = b"hello", **other: Any) -> Entry:
    """An entry with a small body."""
    facts: dict[str, Any] = {
        "content_hash": blake3(body).digest(),
        "length": len(body),
        "content_type": "text/plain",
        "modified": 1_764_000_000_123_456,
        "body": body,
    }
    return Entry(path=path, **(facts | other))


def session(pubky: str, number: int = 1, capabilities: str = "/pub/app/:rw,/:r") -> Session:
    """A session."""
    return Session(f"{number:064x}", pubky, parse_capabilities(capabilities), 1_764_000_000_000_000 + number)


async def sign_up(store: Store, pubky: str, **quota: Any) -> None:
    """Make an account, by a token nobody needs, with its own quota if one is given."""
    await store.sign_up(Account(pubky, 1_764_000_000_000_001, quota=UserQuota(**quota)), None, None, False)


async def put(store: Store, pubky: str, path: str, body: bytes = b"hello", **other: Any) -> Event:
    """Keep a small file."""
    return await store.put(pubky, entry(path, body, **other), None, announced=True)


async def put_all(store: Store, writes: Iterable[tuple[str, str, bytes]]) -> list[Event]:
    """Keep small files (account, path, body), in this order and without waiting in between."""
    started = [Deferred.fromCoroutine(put(store, *write)) for write in writes]
    return await gatherResults(started)
