"""Cross-origin requests: every origin may do everything, with credentials (Fetch standard, CORS protocol)."""

from pubky_homeserver.web.request import Request

VARY = b"origin, access-control-request-method, access-control-request-headers"


def add_cors(request: Request, expose: bytes | None = None) -> None:
    """Add the fields that every answer carries; `expose` lists the answer's fields that a script may read."""
    request.addHeader(b"Vary", VARY)
    request.setHeader(b"Access-Control-Allow-Credentials", b"true")
    if expose is not None:
        request.setHeader(b"Access-Control-Expose-Headers", expose)
    origin = request.header(b"origin")
    if origin is not None:
        request.setHeader(b"Access-Control-Allow-Origin", origin)


def answer_options(request: Request, allow: bytes | None = None) -> None:
    """Answer any `OPTIONS`, preflight or not: what was asked for is allowed. `allow`: the methods of the path."""
    add_cors(request)
    for asked, allowed in (
        (b"access-control-request-method", b"Access-Control-Allow-Methods"),
        (b"access-control-request-headers", b"Access-Control-Allow-Headers"),
    ):
        value = request.header(asked)
        if value is not None:
            request.setHeader(allowed, value)
    if allow is not None:
        request.setHeader(b"Allow", allow)
    request.finish_with()
