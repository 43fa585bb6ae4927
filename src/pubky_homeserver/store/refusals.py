"""What scripts refuse: they return the name of the error, and after a blank what it is made with."""

from typing import Any

from pubky_homeserver.core import errors
from pubky_homeserver.core.errors import Refused
from pubky_homeserver.store.connection import Reply


def checked(reply: Reply) -> Any:
    """The reply of a script, unless it is the name of a refusal, which is raised."""
    if isinstance(reply, bytes):
        raise refusal_of(reply)
    return reply


def refusal_of(reply: bytes) -> Refused:
    """The refusal that a script names."""
    name, *rest = reply.decode().split()
    refusal: Refused = getattr(errors, name)(*rest)
    return refusal
