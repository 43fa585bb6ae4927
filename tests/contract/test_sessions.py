"""What every session store does: sessions, and sign-in tokens that count once."""

import pytest
import pytest_twisted
from zope.interface.verify import verifyObject

from pubky_homeserver.core.errors import NotFound
from pubky_homeserver.interfaces import ISessionStore
from tests.contract.store import ALICE, BOB, Store, session, sign_up


def test_keeps_the_port(store: Store) -> None:
    """The store has every method of the port, with its arguments."""
    verifyObject(ISessionStore, store)


@pytest.mark.parametrize("capabilities", ["", "/:rw", "/pub/a b+c%/:r,/pub/ü,:w".replace(",:", ":")])
@pytest_twisted.ensureDeferred
async def test_a_session_is_as_it_was_kept(store: Store, capabilities: str) -> None:
    """A session comes back with its capabilities in their order, by its id only."""
    await sign_up(store, ALICE)
    kept = session(ALICE, 1, capabilities)
    await store.sign_in(kept)
    assert await store.session(kept.id) == kept
    assert await store.session(session(ALICE, 2).id) is None


@pytest_twisted.ensureDeferred
async def test_no_session_without_an_account(store: Store) -> None:
    """Who has no account here cannot sign in."""
    with pytest.raises(NotFound):
        await store.sign_in(session(ALICE))
    assert await store.session(session(ALICE).id) is None


@pytest_twisted.ensureDeferred
async def test_sign_out_ends_one_session(store: Store) -> None:
    """Signing out ends that session and no other, and says whether there was one."""
    await sign_up(store, ALICE)
    await sign_up(store, BOB)
    for one in (session(ALICE, 1), session(ALICE, 2), session(BOB, 3)):
        await store.sign_in(one)
    assert await store.sign_out(session(ALICE, 1).id) is True
    assert await store.sign_out(session(ALICE, 1).id) is False
    assert await store.session(session(ALICE, 1).id) is None
    assert await store.session(session(ALICE, 2).id) == session(ALICE, 2)
    assert await store.session(session(BOB, 3).id) == session(BOB, 3)


@pytest_twisted.ensureDeferred
async def test_a_sign_in_token_counts_once(store: Store) -> None:
    """A sign-in token is taken the first time it is seen; another one is another one."""
    assert await store.burn(b"\0one", 60) is True
    assert await store.burn(b"\0one", 60) is False
    assert await store.burn(b"\0two", 60) is True
    assert await store.burn(b"\0one", 60) is False
