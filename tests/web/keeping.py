"""What a store keeps, in a form that can be compared: to see that nothing has changed."""

from contextlib import suppress
from typing import Any, Protocol

from attrs import frozen

from pubky_homeserver.core.errors import DirectoryNotFound
from pubky_homeserver.core.quotas import ENTRY_OVERHEAD
from pubky_homeserver.store.memory import MemoryStore
from pubky_homeserver.testing import MemoryBlobs
from tests.store.server import RedisServer
from tests.web.served import Granted, User

RECORD = 3072
"""Bytes of memory that an event, an account, a session, a capability may take in a store of plain objects."""


class Keeping(Protocol):
    """What is kept."""

    def of(self, user: User, granted: Granted) -> Any:
        """All that is a user's: facts, files, logs, events, sessions, grants."""

    def of_all(self) -> Any:
        """All that is anybody's, but for locks that end by themselves."""

    def weight(self) -> int:
        """Bytes of this process's memory that it may take."""


@frozen
class KeptInMemory:
    """In plain objects."""

    store: MemoryStore
    blobs: MemoryBlobs

    def of(self, user: User, granted: Granted) -> Any:
        """See `Keeping`."""
        store, pubky = self.store, user.pubky
        home = store._accounts[pubky]
        return (
            home.account,
            dict(home.files.entries),
            tuple(home.files.paths),
            dict(home.logs),
            tuple(home.files.events),
            {key: one for key, one in store._sessions.items() if one.pubky == pubky},
            {key: one for key, one in store.grants._grants.items() if one.grant.pubky == pubky},
            {key: one for key, one in store.grants._bearers.items() if one.pubky == pubky},
            {key: one for key, one in store.locks._locks.items() if key[0] == pubky},
        )

    def of_all(self) -> Any:
        """See `Keeping`."""
        store = self.store
        return (
            {
                key: (one.account, dict(one.files.entries), len(one.files.events))
                for key, one in store._accounts.items()
            },
            dict(store._sessions),
            dict(store._tokens),
            dict(store._burned),
            dict(store.grants._grants),
            dict(store.grants._bearers),
            dict(store.locks._locks),
            len(store._events),
            set(store._blobs._known),
            set(self.blobs._kept),
        )

    def weight(self) -> int:
        """See `Keeping`."""
        records = sum(part if isinstance(part, int) else len(part) for part in self.of_all())
        records += sum(len(session.capabilities) for session in self.store._sessions.values())
        return RECORD * records + sum(len(kept.body) for kept in self.blobs._kept.values())


DIGEST = """
local function held(key)
    local kind = redis.call("TYPE", key).ok
    if kind == "string" then return {redis.call("GET", key)} end
    if kind == "zset" then return redis.call("ZRANGE", key, 0, -1, "WITHSCORES") end
    if kind == "stream" then
        local flat = {}
        for _, item in ipairs(redis.call("XRANGE", key, "-", "+")) do
            flat[#flat + 1] = item[1] .. "=" .. table.concat(item[2], ",")
        end
        return flat
    end
    local members = redis.call(kind == "set" and "SMEMBERS" or "HGETALL", key)
    if kind == "hash" then
        local pairs = {}
        for at = 1, #members, 2 do pairs[#pairs + 1] = members[at] .. "=" .. members[at + 1] end
        members = pairs
    end
    table.sort(members)
    return members
end
local all = {}
for _, pattern in ipairs(ARGV) do
    local keys = redis.call("KEYS", pattern)
    table.sort(keys)
    for _, key in ipairs(keys) do
        if not key:find("}:lock:", 1, true) then all[#all + 1] = key .. ":" .. table.concat(held(key), ";") end
    end
end
return {#all, redis.sha1hex(table.concat(all, "|"))}
"""
"""How many keys there are of these patterns, and a hash of all that is in them, whatever the order in memory."""


@frozen
class KeptInRedis:
    """In a redis-server that nobody else uses. Locks end there while nobody looks, so they do not count."""

    server: RedisServer
    blobs: MemoryBlobs

    def of(self, user: User, granted: Granted) -> Any:
        """See `Keeping`."""
        patterns = (f"*{user.pubky}*", f"*session:{user.session.id}", f"*grant:{granted.grant_id}")
        return self.server.ask("EVAL", DIGEST, 0, *patterns)

    def of_all(self) -> Any:
        """See `Keeping`."""
        return self.server.ask("EVAL", DIGEST, 0, "*"), set(self.blobs._kept)

    def weight(self) -> int:
        """See `Keeping`: the bodies alone are here."""
        return sum(RECORD + len(kept.body) for kept in self.blobs._kept.values())


async def adds_up(store: Any, pubky: str) -> bool:
    """Whether an account's usage is that of the files that its listings show."""
    account = await store.account(pubky)
    entries = []
    for root in ("/pub/", "/priv/"):
        with suppress(DirectoryNotFound):
            paths = await store.listing(pubky, root, "", 1000, False, False)
            entries += [await store.entry(pubky, path) for path in paths]
    assert None not in entries
    used: bool = account.used == sum(entry.length + ENTRY_OVERHEAD for entry in entries)
    return used
