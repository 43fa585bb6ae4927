"""Who is asking: the credentials that a request carries, and the session that they stand for.

Looking never refuses anybody; the routes decide what they need.
"""

from urllib.parse import unquote

from attrs import frozen

from pubky_homeserver.core.records import Session
from pubky_homeserver.sessions import Sessions
from pubky_homeserver.web.request import Request

SECRET_LENGTH = 26
"""Characters of a session's secret."""


@frozen
class Visitor:
    """Whoever sent a request."""

    session: Session | None = None
    method: str = "none"
    """How the session was shown: `none`, `cookie`."""


NOBODY = Visitor()


@frozen
class Credentials:
    """Finds the session of a request."""

    sessions: Sessions

    async def visitor(self, request: Request, pubky: str | None) -> Visitor:
        """Who is asking for something of this account."""
        if pubky is None or (secret := secret_of(request, pubky)) is None:
            return NOBODY
        session = await self.sessions.of(pubky, secret)
        return NOBODY if session is None else Visitor(session, "cookie")


def secret_of(request: Request, pubky: str) -> str | None:
    """The secret in the cookie named like the account; of several the last one counts."""
    found = None
    for header in request.headers_named(b"cookie"):
        for pair in header.decode("latin-1").split(";"):
            name, _, value = pair.strip().partition("=")
            if name == pubky:
                found = unquote(value)
    return found if found is not None and len(found.encode()) == SECRET_LENGTH else None
