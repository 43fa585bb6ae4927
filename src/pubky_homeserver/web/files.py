"""The files of all accounts: `/storage/<key>/<path>`, and in the older form `/<path>`."""

import re
from functools import lru_cache
from typing import ClassVar

from attrs import frozen
from klein import Klein

from pubky_homeserver.core.errors import InvalidCursor, InvalidPath, InvalidRequest, NoSession
from pubky_homeserver.core.paths import is_directory, is_public, parse_path
from pubky_homeserver.core.records import Entry
from pubky_homeserver.storage import Storage
from pubky_homeserver.web.conditions import Unsatisfiable, not_modified, range_of, write_conditions
from pubky_homeserver.web.credentials import Visitor
from pubky_homeserver.web.queries import flag_of, limit_of, pairs_of
from pubky_homeserver.web.request import Request
from pubky_homeserver.web.sending import send_entry
from pubky_homeserver.web.target import Target, key_in
from pubky_homeserver.web.texts import entity_tag, http_date

_INERT = re.compile(
    r"(?:application|audio|font|image|model|text|video)/(?!.*(?:html|xml|xsl))[a-z0-9.+_-]+(?:; ?charset=[a-z0-9-]+)?"
)


@frozen
class Files:
    """Reads and writes of files. `visitor` is who is asking."""

    storage: Storage
    app: ClassVar[Klein] = Klein()

    @app.route("/storage/<owner>/<path:path>", methods=["GET"])
    async def get(self, request: Request, target: Target, visitor: Visitor) -> bytes | None:
        """A file, a part of it, or a page of a listing. 200, 206, 304; 400, 401, 403, 404, 416."""
        owner, path = _located(target)
        query = dict(pairs_of(request.query))
        reverse, shallow = flag_of(query, "reverse"), flag_of(query, "shallow")
        if not is_directory(path):
            return await self._file(request, owner, path, visitor)
        after, limit = _cursor(query.get("cursor", "")), limit_of(query)
        paths = await self.storage.listing(visitor.session, owner, path, after or "", max(limit, 1), reverse, shallow)
        if after is None:  # what is not there is refused first
            raise InvalidCursor
        del paths[limit:]
        request.setHeader(b"Content-Type", b"text/plain")
        return "\n".join(f"pubky://{owner}{one}" for one in paths).encode()

    @app.route("/storage/<owner>/<path:path>", methods=["HEAD"])
    async def head(self, request: Request, target: Target, visitor: Visitor) -> bytes | None:
        """What GET says of a file, without the file. A folder is never listed: 404."""
        owner, path = _located(target)
        return await self._file(request, owner, path, visitor)

    @app.route("/storage/<owner>/<path:path>", methods=["PUT"])
    async def put(self, request: Request, target: Target, visitor: Visitor) -> bytes:
        """Keep the body at a path. 201; 400, 401, 403, 404 (no account), 409 (collision), 412, 507 (quota)."""
        owner, path = _writable(target, visitor)
        await self.storage.put(
            visitor.session, owner, path, request.body, request.content_length, write_conditions(request)
        )
        request.setResponseCode(201)
        return b""

    @app.route("/storage/<owner>/<path:path>", methods=["DELETE"])
    async def delete(self, request: Request, target: Target, visitor: Visitor) -> bytes:
        """Remove the file at a path. 204; 400, 401, 403, 404, 412."""
        owner, path = _writable(target, visitor)
        await self.storage.delete(visitor.session, owner, path, write_conditions(request))
        request.setResponseCode(204)
        return b""

    async def _file(self, request: Request, owner: str, path: str, visitor: Visitor) -> bytes | None:
        entry = await self.storage.get(visitor.session, owner, path)
        tag, modified = entity_tag(entry.content_hash), entry.modified // 1_000_000
        request.setHeader(b"ETag", tag.encode("ascii"))
        request.setHeader(b"Last-Modified", http_date(entry.modified).encode("ascii"))
        if is_public(path):
            request.setHeader(b"Cache-Control", b"private, must-revalidate")
        if not_modified(request, tag, modified):
            request.setResponseCode(304)
            return b""
        _describe(request, entry)
        try:
            part = range_of(request, tag, modified, entry.length) if request.method == b"GET" else None
        except Unsatisfiable:
            request.setResponseCode(416)
            request.setHeader(b"Content-Range", b"bytes */%d" % entry.length)
            return b""
        if part is not None:
            request.setResponseCode(206)
            last = part.start + part.length - 1
            request.setHeader(b"Content-Range", b"bytes %d-%d/%d" % (part.start, last, entry.length))
        return await send_entry(request, self.storage, owner, entry, part)


@lru_cache(maxsize=256)
def is_inert(content_type: str) -> bool:
    """Whether no browser runs scripts of this type, however it reads it; all others get a sandbox in the API's origin.

    Of an account that is copied here another homeserver has said what the types are.
    """
    return _INERT.fullmatch(content_type) is not None


def _describe(request: Request, entry: Entry) -> None:
    request.setHeader(b"Content-Type", entry.content_type.encode("ascii"))
    request.setHeader(b"Accept-Ranges", b"bytes")
    request.setHeader(b"X-Content-Type-Options", b"nosniff")
    if not is_inert(entry.content_type):
        request.setHeader(b"Content-Security-Policy", b"sandbox")


def _located(target: Target) -> tuple[str, str]:
    """The account and the path of a read."""
    if target.tenant is None:
        raise InvalidRequest("Missing request tenant")
    if target.path is None:
        raise InvalidRequest(target.error)
    return target.tenant, target.path


def _writable(target: Target, visitor: Visitor) -> tuple[str, str]:
    """The account and the path of a write; in the older form a folder is no path, and who asks is looked at first."""
    if visitor.session is None:
        raise NoSession
    owner, path = _located(target)
    if target.legacy and is_directory(path):
        raise InvalidRequest("Invalid URL: target path must be a file")
    return owner, path


def _cursor(text: str) -> str | None:
    """The path of a listing's cursor, `[pubky://]<key><path>`; empty for none, None if it makes no sense."""
    if not text:
        return ""
    key, slash, path = text.removeprefix("pubky://").partition("/")
    if not slash or key_in(key.encode()) is None:
        return None
    try:
        return parse_path(slash + path)
    except InvalidPath:
        return None
