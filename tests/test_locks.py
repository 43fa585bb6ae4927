"""Who may touch the lock of a path."""

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from pubky_homeserver.core.capabilities import parse_capabilities
from pubky_homeserver.core.errors import Forbidden, InvalidRequest, NotFound, Refused, Unauthorized, UserDisabled
from pubky_homeserver.core.records import Account, Session
from pubky_homeserver.locks import Locks, Place
from pubky_homeserver.store.memory import MemoryStore

ALICE, BOB, GONE = "a" * 52, "b" * 52, "c" * 52


def session(pubky: str, capabilities: str = "/:rw") -> Session:
    """A session."""
    return Session("0" * 64, pubky, parse_capabilities(capabilities), 0)


@pytest.mark.parametrize(
    ("who", "owner", "path", "refusal", "text"),
    [
        (None, ALICE, "/pub/", Unauthorized, "Unauthorized"),
        (session(BOB), ALICE, "/x/", InvalidRequest, "Target path must be a file"),
        (session(BOB), ALICE, "/x", Forbidden, "Writing to directories other than '/pub/' and '/priv/' is forbidden"),
        (session(BOB, ""), ALICE, "/pub/a", Forbidden, "Session user does not match target tenant"),
        (session(GONE, "/pub/:r"), GONE, "/pub/a", Forbidden, "Session does not have write access to path"),
        (session(GONE), GONE, "/pub/a", NotFound, "Not Found"),
        (session(BOB), BOB, "/pub/a", UserDisabled, "User is disabled"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_refusals(who: Session | None, owner: str, path: str, refusal: type[Refused], text: str) -> None:
    """Each refusal comes before all below it, the account's state last; giving back is for disabled ones too."""
    store = MemoryStore(Clock())
    for pubky in (ALICE, BOB):
        await store.sign_up(Account(pubky, 1), None, None, False)
    await store.set_disabled(BOB, True)
    locks = Locks(store, store.locks)
    with pytest.raises(refusal) as caught:
        await locks.place(who, owner, path)
    assert (caught.type, str(caught.value)) == (refusal, text)
    if refusal is UserDisabled:
        assert await locks.place(who, owner, path, disabled=True) == Place(owner, path)
    else:
        with pytest.raises(refusal):
            await locks.place(who, owner, path, disabled=True)
