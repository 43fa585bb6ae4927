"""What scripts refuse: they return the name of the error."""

from typing import Any

from pubky_homeserver.core import errors
from pubky_homeserver.store.connection import Reply


def checked(reply: Reply) -> Any:
    """The reply of a script, unless it is the name of a refusal, which is raised."""
    if isinstance(reply, bytes):
        raise getattr(errors, reply.decode())
    return reply
