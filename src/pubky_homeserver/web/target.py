"""Which account and which path a request is about.

There are two ways to say it. `/storage/<key>/<path>` says all in the path, and neither headers nor query are looked at.
Every other path is about the account whose key stands in `Host` or, overriding it, in `pubky-host`; a browser that can
set neither may say `?pubky-host=<key>`. A key that cannot be read there is as good as none.
"""

from urllib.parse import unquote_to_bytes

from attrs import frozen

from pkarr.keys import InvalidPublicKey, PublicKey, is_prefixed
from pubky_homeserver.core.errors import InvalidPath, InvalidRequest
from pubky_homeserver.core.paths import is_private, normalize_path
from pubky_homeserver.web.request import Request

STORAGE = b"/storage/"
Z32_LENGTH = 52


@frozen
class Target:
    """The account and the path of a request."""

    tenant: str | None
    """The account's key; None if the request names none."""
    path: str | None = None
    """Canonical storage path; None if there is no such path (`error` tells why), or the route is no storage route."""
    legacy: bool = True
    """Whether the account stands in the headers, not in the path."""
    private: bool = False
    """Whether the answer may be about `/priv/`, and must stay out of caches."""
    error: str | None = None


def addressed(request: Request) -> Target | None:
    """The target of a `/storage/…` request; None for any other path. Raises `InvalidRequest`."""
    path = request.path
    if not path.startswith(STORAGE):
        if path == b"/storage":
            raise InvalidRequest("Missing storage owner or path")
        return None
    rest = path[len(STORAGE) :]
    if not rest:
        raise InvalidRequest("Missing storage owner or path")
    owner, _, below = rest.partition(b"/")
    if not below:
        raise InvalidRequest("Missing storage path")
    tenant = _owner(owner)
    try:
        text = _decoded(below)
    except UnicodeDecodeError:
        raise InvalidRequest("Storage path is not valid UTF-8") from None
    try:
        canonical = normalize_path("/" + text)
    except InvalidPath as error:
        raise InvalidRequest(f"Invalid storage path: {error}") from None
    return Target(tenant, canonical, legacy=False, private=is_private(canonical))


def _owner(segment: bytes) -> str:
    try:
        text = segment.decode("ascii")
        if len(text) != Z32_LENGTH:
            raise InvalidRequest("Invalid storage owner public key")
        return PublicKey.parse(text).z32
    except (UnicodeDecodeError, InvalidPublicKey):
        raise InvalidRequest("Invalid storage owner public key") from None


def relative(request: Request) -> Target:
    """The target of a request to the older storage routes, whose path is the account's own."""
    raw = request.path
    tenant = tenant_of(request)
    private = raw.startswith(b"/priv/")
    try:
        text = _decoded(raw)
    except UnicodeDecodeError:
        return Target(tenant, private=private, error="Invalid URL: Invalid UTF-8 in `path`")
    private = private or is_private(text)
    try:
        canonical = normalize_path(text)
    except InvalidPath as error:
        return Target(tenant, private=private, error=f"Invalid URL: {error}")
    return Target(tenant, canonical, private=private or is_private(canonical))


def tenant_of(request: Request) -> str | None:
    """The account that the headers or the query name."""
    tenant = None
    for name in (b"host", b"pubky-host"):
        value = request.header(name)
        if value is not None and len(value) >= Z32_LENGTH:
            tenant = key_in(value) or tenant
    if tenant is None and b"pubky-host=" in request.query:
        for pair in request.query.split(b"&"):
            name, _, value = pair.partition(b"=")
            if name == b"pubky-host" and (tenant := key_in(value)):
                break
    return tenant


def key_in(value: bytes) -> str | None:
    """The key that a header or a query names, as z-base-32; None for anything that is not one."""
    try:
        text = value.decode("ascii")
        return None if is_prefixed(text) else PublicKey.parse(text).z32
    except (UnicodeDecodeError, InvalidPublicKey):
        return None


def _decoded(path: bytes) -> str:
    """Percent-decoded once. Raises `UnicodeDecodeError`."""
    return (unquote_to_bytes(path) if b"%" in path else path).decode("utf-8")
