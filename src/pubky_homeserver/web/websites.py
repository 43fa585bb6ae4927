"""A user's static site by `Host`: `<key>` shows `/pub/website/_/`, `<label>.<key>` shows `/pub/website/<label>/`.

A site is files like others, put there through the API; here they are read only. Paths of the API keep their meaning on
every host, so a site cannot stand in their way. The site of a copy is shown as its files are.
"""

import re
from typing import ClassVar
from urllib.parse import unquote_to_bytes

from attrs import frozen
from klein import Klein

from pkarr.keys import InvalidPublicKey, PublicKey
from pubky_homeserver.accounts import Accounts
from pubky_homeserver.copies import Copies
from pubky_homeserver.core.errors import InvalidPath, InvalidRequest, NotFound, NotHereYet, TakenDown, UserDisabled
from pubky_homeserver.core.paths import is_directory, normalize_path, url_encode
from pubky_homeserver.core.records import Entry
from pubky_homeserver.storage import Storage
from pubky_homeserver.takedowns import Takedowns
from pubky_homeserver.web.conditions import not_modified
from pubky_homeserver.web.request import Request
from pubky_homeserver.web.sending import send_entry
from pubky_homeserver.web.texts import entity_tag, http_date

ROOT = "/pub/website/"
INDEX = "index.html"
MISSING = "404.html"

API = frozenset(
    (
        b"auth",
        b"events",
        b"events-stream",
        b"info",
        b"priv",
        b"pub",
        b"session",
        b"signup",
        b"signup_tokens",
        b"storage",
    )
)
"""First segments of paths that are the API's on every host."""

KEY_LENGTH = 52
_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)", re.ASCII)
"""A label of a host name (RFC 1123), in lower case."""


@frozen
class Page:
    """What a request to a website is about."""

    owner: str
    site: str
    """The folder of the site, with its slash."""
    path: str
    """The canonical path that was asked for, within the site."""

    @property
    def file(self) -> str:
        """The file that shows it."""
        return self.site + self.path[1:] + (INDEX if is_directory(self.path) else "")


def page_of(request: Request, homeserver: str) -> Page | None:
    """The page that a request asks for; None if it is no request to a website. Raises `InvalidRequest`.

    `homeserver`: this homeserver's own key, whose host shows no website.
    """
    if request.method not in (b"GET", b"HEAD") or request.path[1:].partition(b"/")[0] in API:
        return None
    host = request.header(b"host") or request.authority
    if len(host) < KEY_LENGTH or (found := site_of(host.decode("latin-1"), homeserver)) is None:
        return None
    owner, label = found
    try:
        text = unquote_to_bytes(request.path).decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest("Website path is not valid UTF-8") from None
    try:
        page = Page(owner, f"{ROOT}{label}/", normalize_path(text))
        normalize_path(page.file)  # its length counts with the site's folder
    except InvalidPath as error:
        raise InvalidRequest(f"Invalid website path: {error}") from None
    return page


def site_of(host: str, homeserver: str) -> tuple[str, str] | None:
    """The key and the label in a `Host`; None if it names no website."""
    name = host.lower().partition(":")[0].removesuffix(".")
    label, dot, key = name.rpartition(".")
    if len(key) != KEY_LENGTH or key == homeserver or (dot and not _LABEL.fullmatch(label)):
        return None
    try:
        canonical = PublicKey.from_z32(key).z32
    except InvalidPublicKey:
        return None
    return (key, label or "_") if canonical == key else None


@frozen
class Websites:
    """The sites of all accounts."""

    accounts: Accounts
    storage: Storage
    takedowns: Takedowns
    copies: Copies | None = None
    """The sites of copies are shown as well; None if there are none."""
    app: ClassVar[Klein] = Klein()

    @app.route("/<path:path>", methods=["GET", "HEAD"])
    async def show(self, request: Request, page: Page) -> bytes | None:
        """A page of a site. 200, 304; 301 to the folder; 403, 404 (the site's own page if there is one), 451, 503."""
        if self.takedowns.has(page.owner):
            raise TakenDown
        copy = None if self.copies is None else self.copies.of(page.owner)
        account = await self.accounts.account(page.owner)
        if account is None and copy is None:
            raise NotFound
        if account is not None and account.disabled:
            raise UserDisabled
        entry = await self.storage.look_up(page.owner, page.file)
        if entry is not None:
            return await self._file(request, page.owner, entry)
        if copy is not None and not copy.public.is_whole:
            raise NotHereYet
        if not is_directory(page.path) and await self.storage.look_up(page.owner, f"{page.file}/{INDEX}") is not None:
            query = b"?" + request.query if request.query else b""
            request.setResponseCode(301)
            request.setHeader(b"Location", url_encode(page.path).encode("ascii") + b"/" + query)
            return b""
        missing = await self.storage.look_up(page.owner, page.site + MISSING)
        if missing is None:
            raise NotFound
        request.setResponseCode(404)
        request.setHeader(b"Content-Type", missing.content_type.encode("ascii"))
        return await send_entry(request, self.storage, page.owner, missing)

    async def _file(self, request: Request, owner: str, entry: Entry) -> bytes | None:
        tag = entity_tag(entry.content_hash)
        request.setHeader(b"ETag", tag.encode("ascii"))
        request.setHeader(b"Last-Modified", http_date(entry.modified).encode("ascii"))
        if not_modified(request, tag, entry.modified // 1_000_000):
            request.setResponseCode(304)
            return b""
        request.setHeader(b"Content-Type", entry.content_type.encode("ascii"))
        return await send_entry(request, self.storage, owner, entry)
