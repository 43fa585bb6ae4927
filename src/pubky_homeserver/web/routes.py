"""A path and its methods: the entries of the tables that the sites are."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import cast

from attrs import frozen
from klein import Klein

Handler = Callable[..., Awaitable[bytes | None]]


@frozen
class Route:
    """The methods of one path."""

    methods: dict[bytes, Handler]
    allow: bytes
    """What a 405 says."""
    options: bytes
    """What `OPTIONS` says: there every GET has its HEAD."""
    private: bool = False
    """Whether every answer, refusals included, depends on who asks."""


def route(app: Klein, endpoints: Mapping[str, str], private: bool = False, separator: bytes = b",") -> Route:
    """A route to endpoints of a bound Klein app, by method."""
    methods = {
        method.encode("ascii"): cast(Handler, partial(app.execute_endpoint, endpoint))
        for method, endpoint in endpoints.items()
    }
    options = [method for method in methods if method != b"HEAD"]
    if b"GET" in methods:
        options.insert(options.index(b"GET") + 1, b"HEAD")
    return Route(methods, separator.join(methods), b",".join(options), private)
