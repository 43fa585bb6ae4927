"""Request bodies in JSON, and how the protocol refuses those that are none."""

import json
from typing import NoReturn

from pubky_homeserver.core.errors import InvalidRequest, UnprocessableRequest, UnsupportedContentType
from pubky_homeserver.web.request import Request

MAX_JSON = 2 * 1024 * 1024
"""Bytes of a body (the protocol's)."""


async def read_json(request: Request) -> object:
    """The body's value. Raises, in this order, `UnsupportedContentType`, `BodyTooLarge`, `InvalidRequest`."""
    if not _is_json(request.header(b"content-type") or b""):
        raise UnsupportedContentType("Expected request with `Content-Type: application/json`")
    body = await request.read(MAX_JSON)
    try:
        return json.loads(body.decode(), parse_constant=_refuse_constant)
    except RecursionError:
        reason = "recursion limit exceeded"
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at line {error.lineno} column {error.colno}"
    except ValueError as error:
        # Not UTF-8, a constant that JSON does not have, or a number of thousands of digits.
        reason = "invalid text" if isinstance(error, UnicodeDecodeError) else str(error)
    raise InvalidRequest(f"Failed to parse the request body as JSON: {reason}")


def misfit(error: ValueError) -> UnprocessableRequest:
    """The refusal of JSON that does not have the shape or the types that the route reads."""
    return UnprocessableRequest(f"Failed to deserialize the JSON body into the target type: {error}")


def _is_json(content_type: bytes) -> bool:
    """Whether this is `application/json` or `application/…+json`, whatever its parameters."""
    essence = content_type.partition(b";")[0].strip().lower()
    kind, _, subtype = essence.partition(b"/")
    return kind == b"application" and (subtype == b"json" or (subtype.endswith(b"+json") and len(subtype) > 5))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"unexpected {name}")
