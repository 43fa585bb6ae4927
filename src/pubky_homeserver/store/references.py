"""Which blobs are in use: an entry refers to them, or the grace of a replaced or deleted one runs."""

import re
from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter

from pubky_homeserver.store import schema
from pubky_homeserver.store.connection import STEP, Commands

_BLOB = re.compile("[0-9a-f]{32}")


async def known(redis: Commands, blobs: Iterable[str]) -> set[str]:
    """Those of the blobs that are in use."""
    groups: list[list[str]] = []
    for _, same in groupby(sorted(_blobs(blobs)), itemgetter(slice(2))):
        group = list(same)
        groups += [group[at : at + STEP] for at in range(0, len(group), STEP)]
    replies = await redis.pipeline(
        [("SMISMEMBER", schema.blobs(int(group[0][:2], 16)), *map(bytes.fromhex, group)) for group in groups]
    )
    return {
        blob
        for group, reply in zip(groups, replies, strict=True)
        for blob, is_member in zip(group, reply, strict=True)
        if is_member
    }


async def expired(redis: Commands, now: int, limit: int) -> list[str]:
    """Up to `limit` blobs whose grace is over."""
    found = await redis.call("ZRANGE", schema.GRACES, "-inf", now, "BYSCORE", "LIMIT", 0, limit)
    return [blob.hex() for blob in found]


async def forget(redis: Commands, blobs: Iterable[str]) -> None:
    """Drop the memory of blobs in their grace."""
    packed = [bytes.fromhex(blob) for blob in _blobs(blobs)]
    for at in range(0, len(packed), STEP):
        await redis.run("forget_blobs", (schema.GRACES, schema.GRACED), (schema.BLOBS, *packed[at : at + STEP]))


def _blobs(names: Iterable[str]) -> list[str]:
    """Those of the names that are ids of blobs."""
    return [name for name in names if _BLOB.fullmatch(name)]
