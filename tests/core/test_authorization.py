"""Who may read and write what: the matrix, and that the first refusal is always the protocol's first."""

import pytest

from pubky_homeserver.core.authorization import authorize_read, authorize_write
from pubky_homeserver.core.capabilities import parse_capabilities
from pubky_homeserver.core.errors import Forbidden, InvalidRequest, NoSession, Refused
from pubky_homeserver.core.records import Session

OWNER = "owner"

NO_SESSION = (NoSession, "No authenticated session found")
NOT_A_FILE = (InvalidRequest, "Target path must be a file")
WRITE_OUTSIDE = (Forbidden, "Writing to directories other than '/pub/' and '/priv/' is forbidden")
READ_OUTSIDE = (Forbidden, "Reading from directories other than '/pub/' and '/priv/' is forbidden")
OTHER_USER = (Forbidden, "Session user does not match target tenant")
NO_WRITE = (Forbidden, "Session does not have write access to path")
NO_READ = (Forbidden, "Session does not have read access to path")
PRIVATE = (NoSession, "Authentication required to read private storage")
SEVERAL = (Forbidden, "A private read must be scoped to exactly one user")


def session(capabilities: str, pubky: str = OWNER) -> Session:
    """A session of the owner, or of somebody else."""
    return Session("id", pubky, parse_capabilities(capabilities), 0)


def mallory(capabilities: str = "/:rw") -> Session:
    """A session of another user, who may do everything at home."""
    return session(capabilities, "mallory")


@pytest.mark.parametrize(
    ("asking", "path"),
    [
        (session("/:rw"), "/pub/x"),
        (session("/:rw"), "/priv/x"),
        (session("/pub/my.app/:rw"), "/pub/my.app/x/y"),
        (session("/pub/app:rw"), "/pub/app"),
        (session("/pub/a/:r,/pub/b/:w"), "/pub/b/x"),
    ],
)
def test_writes_that_are_allowed(asking: Session, path: str) -> None:
    """The owner writes wherever one capability says so."""
    authorize_write(asking, OWNER, path)


@pytest.mark.parametrize(
    ("asking", "path", "refusal"),
    [
        (None, "/pub/x", NO_SESSION),
        (None, "/pub/", NO_SESSION),
        (None, "/foo/x", NO_SESSION),
        (session("/:rw"), "/pub/", NOT_A_FILE),
        (session("/:rw"), "/foo/", NOT_A_FILE),
        (mallory(), "/pub/", NOT_A_FILE),
        (session("/:rw"), "/foo/x", WRITE_OUTSIDE),
        (session("/:rw"), "/pub", WRITE_OUTSIDE),
        (session("/:rw"), "/public/x", WRITE_OUTSIDE),
        (mallory(), "/foo/x", WRITE_OUTSIDE),
        (mallory(), "/pub/x", OTHER_USER),
        (mallory(""), "/pub/x", OTHER_USER),
        (session(""), "/pub/x", NO_WRITE),
        (session("/:r"), "/pub/x", NO_WRITE),
        (session("/:e"), "/pub/x", NO_WRITE),
        (session("/pub/my.app/:rw"), "/pub/other/x", NO_WRITE),
        (session("/pub/app:rw"), "/pub/app-evil/file", NO_WRITE),
        (session("/pub/app:rw"), "/pub/app/foo", NO_WRITE),
        (session("/pub/app/:rw"), "/pub/app", NO_WRITE),
        (session("/pub/:rw"), "/priv/x", NO_WRITE),
    ],
)
def test_writes_that_are_refused(asking: Session | None, path: str, refusal: tuple[type[Refused], str]) -> None:
    """Session, then shape, then root, then user, then capability: the first that fails is the answer."""
    kind, text = refusal
    with pytest.raises(kind) as refused:
        authorize_write(asking, OWNER, path)
    assert str(refused.value) == text


@pytest.mark.parametrize(
    ("asking", "owner", "path"),
    [
        (None, OWNER, "/pub/x"),
        (None, OWNER, "/pub/"),
        (None, None, "/pub/x"),
        (mallory(""), OWNER, "/pub/x"),
        (session("/priv/app/:r"), OWNER, "/priv/app/x"),
        (session("/priv/app/:r"), OWNER, "/priv/app/"),
        (session("/:rw"), OWNER, "/priv/"),
    ],
)
def test_reads_that_are_allowed(asking: Session | None, owner: str | None, path: str) -> None:
    """Everybody reads what is public; the owner reads private files with a capability for them."""
    authorize_read(asking, owner, path)


@pytest.mark.parametrize(
    ("asking", "owner", "path", "refusal"),
    [
        (None, OWNER, "/", READ_OUTSIDE),
        (session("/:rw"), OWNER, "/pub", READ_OUTSIDE),
        (None, OWNER, "/priv", READ_OUTSIDE),
        (mallory(), OWNER, "/privstuff/x", READ_OUTSIDE),
        (None, OWNER, "/priv/x", PRIVATE),
        (None, OWNER, "/priv/", PRIVATE),
        (None, None, "/priv/", PRIVATE),
        (session("/:rw"), None, "/priv/", SEVERAL),
        (mallory(), OWNER, "/priv/x", OTHER_USER),
        (session("/:w"), OWNER, "/priv/x", NO_READ),
        (session("/:e"), OWNER, "/priv/x", NO_READ),
        (session("/priv/app/:r"), OWNER, "/priv/other/x", NO_READ),
        (session("/priv/app/:r"), OWNER, "/priv/", NO_READ),
        (session("/pub/:rw"), OWNER, "/priv/x", NO_READ),
    ],
)
def test_reads_that_are_refused(
    asking: Session | None, owner: str | None, path: str, refusal: tuple[type[Refused], str]
) -> None:
    """Root, then session, then user, then capability; a private path is the same to outsiders whatever is there."""
    kind, text = refusal
    with pytest.raises(kind) as refused:
        authorize_read(asking, owner, path)
    assert str(refused.value) == text
