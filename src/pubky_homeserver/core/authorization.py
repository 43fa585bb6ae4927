"""Who may read and write what: the order of the refusals is the protocol's, for a client sees only the first.

Everything comes before any look at what is there, so that a private path answers an outsider the same whether it
exists or not.
"""

from pubky_homeserver.core.capabilities import READ, WRITE, allows
from pubky_homeserver.core.errors import Forbidden, InvalidRequest, NoSession
from pubky_homeserver.core.paths import is_directory, is_private, is_public
from pubky_homeserver.core.records import Session


def authorize_write(session: Session | None, owner: str, path: str) -> None:
    """Raise unless the session may change the file at a canonical path."""
    if session is None:
        raise NoSession
    if is_directory(path):
        raise InvalidRequest("Target path must be a file")
    if not is_public(path) and not is_private(path):
        raise Forbidden("Writing to directories other than '/pub/' and '/priv/' is forbidden")
    if session.pubky != owner:
        raise Forbidden("Session user does not match target tenant")
    if not allows(session.capabilities, path, WRITE):
        raise Forbidden("Session does not have write access to path")


def authorize_read(session: Session | None, owner: str | None, path: str) -> None:
    """Raise unless the session, or nobody in particular, may read a canonical path.

    `owner` is None if the request reads from several accounts: then nothing private can be read.
    """
    if is_public(path):
        return
    if not is_private(path):
        raise Forbidden("Reading from directories other than '/pub/' and '/priv/' is forbidden")
    if session is None:
        raise NoSession("Authentication required to read private storage")
    if owner is None:
        raise Forbidden("A private read must be scoped to exactly one user")
    if session.pubky != owner:
        raise Forbidden("Session user does not match target tenant")
    if not allows(session.capabilities, path, READ):
        raise Forbidden("Session does not have read access to path")
