"""Whether all is well in a world at rest, for histories that are told one by one: what is in the stores."""

from collections.abc import Sequence

from attrs import frozen

from pubky_homeserver.core.digests import EMPTY, fold, mark
from pubky_homeserver.core.errors import DirectoryNotFound
from pubky_homeserver.core.quotas import ENTRY_OVERHEAD
from pubky_homeserver.core.records import Entry
from tests.peers.simulated import hash_of
from tests.peers.worlds import Acknowledged, Node


@frozen
class File:
    """A file as somebody who reads it finds it."""

    content_hash: bytes
    length: int
    content_type: str
    modified: int
    body: bytes


async def files(node: Node, pubky: str, folder: str) -> dict[str, File]:
    """All files below a folder, read whole."""
    return {entry.path: await _read(node, entry) for entry in await entries(node, pubky, folder)}


async def entries(node: Node, pubky: str, folder: str) -> list[Entry]:
    """All that lies below a folder."""
    try:
        paths = await node.store.listing(pubky, folder, "", 1000, False, False)
    except DirectoryNotFound:
        return []
    found = [await node.store.entry(pubky, path) for path in paths]
    return [entry for entry in found if entry is not None]


async def _read(node: Node, entry: Entry) -> File:
    body = entry.body
    if body is None:
        assert entry.blob is not None, f"{node.name} lacks the body of {entry.path}"
        reader = await node.blobs.open(entry.blob)
        assert reader is not None, f"{node.name} lost the body of {entry.path}"
        body = await reader.read(0, reader.length)
    assert hash_of(body) == entry.content_hash, f"the body of {entry.path} at {node.name} is another one"
    return File(entry.content_hash, entry.length, entry.content_type, entry.modified, body)


async def check_copy(primary: Node, copy: Node, pubky: str, private: bool = False, was_home: bool = False) -> None:
    """I1, I14, I15: a copy at rest is its primary, body for body; private files only by consent; bytes add up.

    A node that was the user's home once keeps the private files of that time, with the bodies that it had.
    """
    kept = await copy.store.copies.copy(pubky)
    assert kept is not None, f"{copy.name} has no copy"
    used = 0
    missing = 0
    for folder, is_private in (("/pub/", False), ("/priv/", True)):
        if is_private and not private:
            left = await entries(copy, pubky, folder)
            assert was_home or left == [], f"{copy.name} has private files"
            used += sum(entry.length + ENTRY_OVERHEAD for entry in left)
            missing = sum(entry.body is None and entry.blob is None for entry in left)
            continue
        here, there = await files(copy, pubky, folder), await files(primary, pubky, folder)
        assert here == there, f"{copy.name} differs from {primary.name} below {folder}"
        state = await primary.store.log_state(pubky, is_private)
        position = (kept.private if is_private else kept.public).position
        assert state is not None
        assert position is not None
        assert (position.seq, position.digest) == (state.seq, state.digest)
        standing = await primary.store.logs.standing(pubky, is_private)
        assert standing is not None  # a reign without events yet is not known to who stands before it
        assert position.log_id in [reign.log_id for reign in standing.reigns]
        digest = EMPTY
        for path, one in here.items():
            digest = fold(digest, mark(path, one.content_hash, one.length, one.modified, one.content_type))
            used += one.length + ENTRY_OVERHEAD
        assert digest == position.digest
    assert (kept.used, kept.missing) == (used, missing)
    assert kept.public.is_whole


async def check_nothing_lost(nodes: Sequence[Node], primary: Node, acknowledged: Sequence[Acknowledged]) -> None:
    """I9: each acknowledged write is what its path holds, was followed by another one, or lies on a shelf.

    Another one that follows is one that was acknowledged later, wherever.
    """
    last = {(one.pubky, one.path): one for one in acknowledged}
    shelved = {
        (pubky, one.path, None if one.entry is None else one.entry.content_hash)
        for node in nodes
        for pubky in await node.store.shelf.shelves("", 500)
        for one in await node.store.shelf.shelf(pubky, "", 100)
    }
    for one in last.values():
        wanted = None if one.body is None else hash_of(one.body)
        entry = await primary.store.entry(one.pubky, one.path)
        held = None if entry is None else entry.content_hash
        assert held == wanted or (one.pubky, one.path, wanted) in shelved, f"{one} is lost"
