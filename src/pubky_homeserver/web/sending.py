"""The body of an entry on its way to a client: from memory in one write, or from its file as fast as it is read."""

from collections.abc import AsyncIterator

from pubky_homeserver.core.records import Entry
from pubky_homeserver.interfaces import IBlobReader
from pubky_homeserver.storage import Storage
from pubky_homeserver.web.conditions import Range
from pubky_homeserver.web.request import Request

PIECE = 512 * 1024
"""Bytes of a body read at a time; as many may wait for the client."""


async def send_entry(request: Request, storage: Storage, entry: Entry, part: Range | None = None) -> bytes | None:
    """Answer with the body of an entry, or a part of it. Returns it if it is small, else None when it was sent.

    Raises `NotFound` if the file is gone.
    """
    part = part or Range(0, entry.length)
    if entry.body is not None:
        return entry.body[part.start : part.start + part.length]
    reader = await storage.open(entry)
    try:
        if request.method == b"HEAD":
            request.setHeader(b"Content-Length", b"%d" % part.length)
            return b""
        await request.send(_pieces(reader, part), part.length)
    finally:
        reader.close()
    return None


async def _pieces(reader: IBlobReader, part: Range) -> AsyncIterator[bytes | bytearray]:
    offset, end = part.start, part.start + part.length
    while offset < end:
        piece = await reader.read(offset, min(PIECE, end - offset))
        if not piece:
            return  # shorter than it should be: the answer is cut, so that nobody takes it for whole
        offset += len(piece)
        yield piece
