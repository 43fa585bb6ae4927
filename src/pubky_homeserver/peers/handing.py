"""Bodies for peers: those that paths have, and while their grace runs those that they had."""

from http import HTTPStatus

from attrs import frozen

from pubky_homeserver.core.errors import NotFound, NotHereYet
from pubky_homeserver.core.records import Entry
from pubky_homeserver.interfaces import IIntegrityStore
from pubky_homeserver.storage import Storage
from pubky_homeserver.web.conditions import Unsatisfiable, range_of
from pubky_homeserver.web.request import Request
from pubky_homeserver.web.sending import send_entry
from pubky_homeserver.web.texts import PLAIN

RANGES = "ranges"
"""What a homeserver understands that sends the rest of a body which was cut (RFC 9110, 14.2)."""


@frozen
class Handing:
    """Answers with a body by its path and hash. Whether the peer may have it was asked before."""

    storage: Storage
    integrity: IIntegrityStore

    async def answer(self, request: Request, pubky: str, path: str, content_hash: bytes) -> bytes | None:
        """The body, or the range of it that is wanted. 200, 206; 410, 416."""
        entry = await self._had(pubky, path, content_hash)
        if entry is not None:
            request.setHeader(b"Content-Type", b"application/octet-stream")
            try:
                return await self._send(request, pubky, entry)
            except (NotFound, NotHereYet):
                pass
        request.setResponseCode(HTTPStatus.GONE)
        request.setHeader(b"Content-Type", PLAIN)
        return b"This body is not here"

    async def _had(self, pubky: str, path: str, content_hash: bytes) -> Entry | None:
        """What a path holds, or held until lately, if it has this hash."""
        entry = await self.storage.entries.entry(pubky, path)
        if entry is not None and entry.content_hash == content_hash:
            return entry
        blob = await self.integrity.in_grace(pubky, path, content_hash)
        reader = None if blob is None else await self.storage.blobs.open(blob)
        if reader is None:
            return None
        length = reader.length
        reader.close()
        return Entry(path, content_hash, length, "", 0, blob=blob)

    async def _send(self, request: Request, pubky: str, entry: Entry) -> bytes | None:
        try:
            part = range_of(request, "", 0, entry.length)
        except Unsatisfiable:
            request.setResponseCode(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            request.setHeader(b"Content-Range", b"bytes */%d" % entry.length)
            return b""
        if part is not None:
            request.setResponseCode(HTTPStatus.PARTIAL_CONTENT)
            last = part.start + part.length - 1
            request.setHeader(b"Content-Range", b"bytes %d-%d/%d" % (part.start, last, entry.length))
        return await send_entry(request, self.storage, pubky, entry, part)
