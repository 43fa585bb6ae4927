"""The body of an entry on its way to a client: from memory in one write, or from its file as fast as it is read."""

from pubky_homeserver.core.records import Entry
from pubky_homeserver.interfaces import IBlobReader
from pubky_homeserver.storage import Storage
from pubky_homeserver.web.conditions import Range
from pubky_homeserver.web.request import Request

PIECE = 512 * 1024
"""Bytes of a body read at a time."""

LEAST = 64 * 1024
"""Bytes that are offered at least to a client that takes little."""


async def send_entry(
    request: Request, storage: Storage, owner: str, entry: Entry, part: Range | None = None
) -> bytes | None:
    """Answer with the body of an entry, or a part of it. Returns it if it is small, else None when it was sent.

    Raises as `Storage.open`.
    """
    part = part or Range(0, entry.length)
    if entry.body is not None:
        return entry.body[part.start : part.start + part.length]
    reader = await storage.open(entry, owner)
    try:
        if request.method == b"HEAD":
            request.setHeader(b"Content-Length", b"%d" % part.length)
            return b""
        request.stream(part.length)
        await _send(request, reader, part)
        request.finish()
    finally:
        reader.close()
    return None


async def _send(request: Request, reader: IBlobReader, part: Range) -> None:
    """Pass on what is in memory as the client takes it; only what the disk had to be asked for may wait here."""
    offset, end, size = part.start, part.start + part.length, PIECE
    while offset < end:
        await request.drained()
        size = min(size, end - offset)
        at_hand = reader.at_hand(offset, size)
        if at_hand is not None:
            sent, length = request.offer(at_hand), len(at_hand)
        else:
            piece = await reader.read(offset, size)
            await request.write(piece)
            sent = length = len(piece)
        if not length:
            return  # shorter than it should be: the answer is cut, so that nobody takes it for whole
        offset += sent
        size = min(PIECE, max(LEAST, 2 * sent))
