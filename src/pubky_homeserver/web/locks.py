"""Locks over HTTP: `LOCK` and `UNLOCK` of `/storage/<key>/<path>` (the part of RFC 4918 that the protocol has)."""

from typing import ClassVar

from attrs import frozen
from klein import Klein

from pubky_homeserver.core.errors import BodyTooLarge
from pubky_homeserver.core.locks import (
    MAX_LOCKINFO,
    check_lockinfo,
    describe,
    granted_seconds,
    lock_token,
    timeout_header,
)
from pubky_homeserver.locks import Locks, Place
from pubky_homeserver.web import request as http
from pubky_homeserver.web.conditions import lock_tokens
from pubky_homeserver.web.credentials import Visitor
from pubky_homeserver.web.request import Request
from pubky_homeserver.web.target import Target


@frozen
class FileLocks:
    """Takes, refreshes and ends the locks of files."""

    locks: Locks
    app: ClassVar[Klein] = Klein()

    @app.route("/storage/<owner>/<path:path>", methods=["LOCK"])
    async def lock(self, request: Request, target: Target, visitor: Visitor) -> bytes:
        """Lock a path, or refresh the lock that `If` names. 200; 400, 401, 403, 404, 412 (refresh), 413, 423."""
        place = await self._place(target, visitor)
        seconds = granted_seconds(_text(request, b"timeout"))
        tokens = lock_tokens(request)
        if tokens:
            lock = await self.locks.refresh(place, tokens, seconds)
        else:
            check_lockinfo(await _lockinfo(request))
            lock = await self.locks.lock(place, seconds)
            request.setHeader(b"Lock-Token", b"<%b>" % lock.token.encode("ascii"))
        request.setHeader(b"Timeout", timeout_header(lock).encode("ascii"))
        request.setHeader(b"Content-Type", b"application/xml; charset=utf-8")
        return describe(lock, request.path.decode("latin-1"))

    @app.route("/storage/<owner>/<path:path>", methods=["UNLOCK"])
    async def unlock(self, request: Request, target: Target, visitor: Visitor) -> bytes:
        """End the lock that `Lock-Token` names. 204; 400, 401, 403, 404, 409 (no such lock)."""
        place = await self._place(target, visitor, disabled=True)
        await self.locks.unlock(place, lock_token(_text(request, b"lock-token")))
        request.setResponseCode(204)
        return b""

    async def _place(self, target: Target, visitor: Visitor, disabled: bool = False) -> Place:
        assert target.tenant is not None  # a path below /storage/ names both
        assert target.path is not None
        return await self.locks.place(visitor.session, target.tenant, target.path, disabled)


async def _lockinfo(request: Request) -> bytes:
    try:
        return await request.read(MAX_LOCKINFO)
    except http.BodyTooLarge:
        raise BodyTooLarge("lockinfo body too large") from None


def _text(request: Request, name: bytes) -> str | None:
    header = request.header(name)
    return None if header is None else header.decode("latin-1")
