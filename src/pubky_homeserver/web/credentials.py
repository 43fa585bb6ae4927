"""Who is asking: the credentials that a request carries, and the session that they stand for.

Looking never refuses anybody; the routes decide what they need.
"""

from urllib.parse import unquote

from attrs import frozen

from pubky_homeserver.core.records import Session
from pubky_homeserver.grants import Grants
from pubky_homeserver.sessions import Sessions
from pubky_homeserver.web.request import Request

SECRET_LENGTH = 26
"""Characters of a session's secret."""

BEARER = b"Bearer "
BEARER_LENGTH = 43
"""Bytes of a bearer."""


@frozen
class Visitor:
    """Whoever sent a request."""

    session: Session | None = None
    method: str = "none"
    """How the session was shown: `none`, `cookie`, `grant`."""


NOBODY = Visitor()


@frozen
class Credentials:
    """Finds the session of a request."""

    sessions: Sessions
    grants: Grants

    async def visitor(self, request: Request, pubky: str | None) -> Visitor:
        """Who is asking for something of this account: a good bearer counts, else the account's cookie."""
        bearer = bearer_of(request)
        if bearer is not None:
            session = await self.grants.of(bearer)
            if session is not None:
                return Visitor(session, "grant")
        if pubky is None or (secret := secret_of(request, pubky)) is None:
            return NOBODY
        session = await self.sessions.of(pubky, secret)
        return NOBODY if session is None else Visitor(session, "cookie")

    async def is_good(self, session: Session) -> bool:
        """Whether a session found before still counts, by what the store says now."""
        if session.grant is None:
            return await self.sessions.again(session.id) is not None
        return await self.grants.again(session.id) is not None


def has_bearer(request: Request) -> bool:
    """Whether a bearer is shown, however bad it is."""
    value = request.header(b"authorization")
    return value is not None and value.startswith(BEARER) and len(value) > len(BEARER)


def bearer_of(request: Request) -> str | None:
    """The bearer that is shown, if it has the length of one."""
    value = request.header(b"authorization")
    if value is None or not value.startswith(BEARER) or len(value) != len(BEARER) + BEARER_LENGTH:
        return None
    return value[len(BEARER) :].decode("latin-1")


def secret_of(request: Request, pubky: str) -> str | None:
    """The secret in the cookie named like the account; of several the last one counts."""
    found = None
    for header in request.headers_named(b"cookie"):
        for pair in header.decode("latin-1").split(";"):
            name, _, value = pair.partition("=")
            if name.strip() == pubky:
                found = unquote(value.strip())
    return found if found is not None and len(found.encode()) == SECRET_LENGTH else None
