"""What every account store does: accounts, their totals, signup tokens."""

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet.defer import Deferred, gatherResults
from zope.interface.verify import verifyObject

from pubky_homeserver.core.digests import EMPTY
from pubky_homeserver.core.errors import (
    NotFound,
    QuotaExceeded,
    SignupTokenRequired,
    SignupTokenUnknown,
    SignupTokenUsed,
    UserExists,
    WriteNotAllowed,
)
from pubky_homeserver.core.quotas import UNLIMITED, UserQuota
from pubky_homeserver.core.records import Account, SignupToken, TokenState
from pubky_homeserver.interfaces import IAccountStore
from tests.contract.store import ALICE, BOB, Store, entry, put, session, sign_up

TOKEN = SignupToken(
    "JZY0-D6MY-ZFNG",
    1_764_000_000_000_007,
    UserQuota(storage_quota_mb=1, rate_read="10mb/s", rate_read_burst=7, allowed_write_paths=("/pub/a/", "/pub/b")),
)


def test_keeps_the_port(store: Store) -> None:
    """The store has every method of the port, with its arguments."""
    verifyObject(IAccountStore, store)


@pytest_twisted.ensureDeferred
async def test_an_account_is_as_it_was_made(store: Store) -> None:
    """A new account has its creation and its quota; it is open and empty."""
    quota = UserQuota(storage_quota_mb=UNLIMITED, rate_write=UNLIMITED, allowed_write_paths=())
    await store.sign_up(Account(ALICE, 1_764_000_000_123_456, disabled=True, used=9, quota=quota), None, None, False)
    assert await store.account(ALICE) == Account(ALICE, 1_764_000_000_123_456, quota=quota)
    assert await store.account(BOB) is None


@pytest_twisted.ensureDeferred
async def test_sign_up_keeps_the_first_session(store: Store) -> None:
    """The session that comes with a sign-up is kept in the same step."""
    await store.sign_up(Account(ALICE, 1), session(ALICE), None, False)
    assert await store.session(session(ALICE).id) == session(ALICE)


@pytest_twisted.ensureDeferred
async def test_an_account_is_made_once(store: Store) -> None:
    """A second sign-up is `UserExists`, which comes before anything about tokens, and changes nothing."""
    await store.add_signup_token(TOKEN)
    await sign_up(store, ALICE)
    for token, required in ((None, False), (None, True), ("unknown", True), (TOKEN.token, True)):
        with pytest.raises(UserExists):
            await store.sign_up(Account(ALICE, 2), session(ALICE), token, required)
    assert (await store.account(ALICE)) == Account(ALICE, 1_764_000_000_000_001)
    assert await store.session(session(ALICE).id) is None
    assert await store.signup_token(TOKEN.token) == TOKEN
    assert (await store.totals()).users == 1


@pytest_twisted.ensureDeferred
async def test_a_token_is_spent_once(store: Store) -> None:
    """A required token must be given, known and unused; its quota becomes the account's."""
    await store.add_signup_token(TOKEN)
    with pytest.raises(SignupTokenRequired):
        await store.sign_up(Account(ALICE, 5), session(ALICE), None, True)
    with pytest.raises(SignupTokenUnknown):
        await store.sign_up(Account(ALICE, 5), session(ALICE), TOKEN.token.lower(), True)
    assert await store.account(ALICE) is None

    await store.sign_up(Account(ALICE, 5), session(ALICE), TOKEN.token, True)
    assert await store.account(ALICE) == Account(ALICE, 5, quota=TOKEN.quota)
    assert await store.signup_token(TOKEN.token) == evolve(TOKEN, used=5, used_by=ALICE)
    with pytest.raises(SignupTokenUsed):
        await store.sign_up(Account(BOB, 6), session(BOB, 2), TOKEN.token, True)
    assert await store.account(BOB) is None
    assert await store.session(session(BOB, 2).id) is None


@pytest_twisted.ensureDeferred
async def test_the_quota_of_a_token_rules_writes(store: Store) -> None:
    """What the token allows is what the account's writes are checked against."""
    await store.add_signup_token(TOKEN)
    await store.sign_up(Account(ALICE, 5), None, TOKEN.token, True)
    await put(store, ALICE, "/pub/a/x")
    await put(store, ALICE, "/pub/b")
    with pytest.raises(WriteNotAllowed):
        await put(store, ALICE, "/pub/bb")
    with pytest.raises(QuotaExceeded):
        await store.put(ALICE, entry("/pub/a/y", length=1_048_576), None, announced=True)


@pytest_twisted.ensureDeferred
async def test_a_token_that_is_not_required_is_left_alone(store: Store) -> None:
    """In open mode a token is neither checked nor spent, and its quota means nothing."""
    await store.add_signup_token(TOKEN)
    await store.sign_up(Account(ALICE, 5), None, TOKEN.token, False)
    await store.sign_up(Account(BOB, 5), None, "unknown", False)
    assert await store.account(ALICE) == Account(ALICE, 5)
    assert await store.signup_token(TOKEN.token) == TOKEN


@pytest_twisted.ensureDeferred
async def test_a_known_token_stays_as_it_is(store: Store) -> None:
    """A token that is made again is not unused again."""
    await store.add_signup_token(TOKEN)
    await store.sign_up(Account(ALICE, 5), None, TOKEN.token, True)
    await store.add_signup_token(TOKEN)
    assert await store.signup_token(TOKEN.token) == evolve(TOKEN, used=5, used_by=ALICE)
    assert (await store.totals()).tokens == 1


@pytest_twisted.ensureDeferred
async def test_tokens_are_listed_in_order(store: Store) -> None:
    """Tokens come ascending by their text, above a text that need not be one, by state, up to a limit."""
    assert await store.signup_tokens(TokenState.ALL, "", 10) == []
    for number in (3, 1, 4, 0, 2):
        await store.add_signup_token(SignupToken(f"T{number}", number))
    for number in (1, 2):
        await store.sign_up(Account(f"{number}" * 52, 9), None, f"T{number}", True)

    async def texts(state: TokenState, after: str, limit: int) -> str:
        return " ".join(token.token for token in await store.signup_tokens(state, after, limit))

    assert await texts(TokenState.ALL, "", 10) == "T0 T1 T2 T3 T4"
    assert await texts(TokenState.USED, "", 10) == "T1 T2"
    assert await texts(TokenState.UNUSED, "", 10) == "T0 T3 T4"
    assert await texts(TokenState.ALL, "T1", 2) == "T2 T3"
    assert await texts(TokenState.ALL, "T15", 10) == "T2 T3 T4"
    assert await texts(TokenState.UNUSED, "T4", 10) == ""
    assert await texts(TokenState.ALL, "", 0) == ""
    assert (await store.signup_tokens(TokenState.USED, "", 1))[0] == SignupToken("T1", 1, used=9, used_by="1" * 52)


@pytest_twisted.ensureDeferred
async def test_a_thousand_tokens_and_one(store: Store) -> None:
    """A page has up to 1001 tokens, whatever is asked for, used and unused ones mixed right."""
    for number in range(1005):
        await store.add_signup_token(SignupToken(f"T{number:04}", number))
        if number % 3 == 0:
            await store.sign_up(Account(f"{number:052}", 9), None, f"T{number:04}", True)
    listed = await store.signup_tokens(TokenState.ALL, "", 5000)
    assert [token.token for token in listed] == [f"T{number:04}" for number in range(1001)]
    assert len(await store.signup_tokens(TokenState.USED, "", 5000)) == 335


@pytest_twisted.ensureDeferred
async def test_an_account_is_shut_and_opened(store: Store) -> None:
    """Disabling is a state, not a count: doing it twice is doing it once."""
    with pytest.raises(NotFound):
        await store.set_disabled(ALICE, True)
    await sign_up(store, ALICE)
    for disabled in (False, True, True, False, False):
        await store.set_disabled(ALICE, disabled)
        account = await store.account(ALICE)
        assert account is not None
        assert account.disabled == disabled
        assert (await store.totals()).disabled == disabled


@pytest_twisted.ensureDeferred
async def test_totals(store: Store) -> None:
    """Totals are the sums over all accounts and tokens, zero without any."""
    totals = await store.totals()
    assert (totals.users, totals.disabled, totals.used, totals.tokens, totals.unused_tokens) == (0, 0, 0, 0, 0)
    await store.add_signup_token(SignupToken("T1", 1))
    await store.add_signup_token(SignupToken("T2", 1))
    await store.sign_up(Account(ALICE, 1), None, "T1", True)
    await sign_up(store, BOB)
    await put(store, ALICE, "/pub/a", b"12345")
    await put(store, BOB, "/priv/a", b"1")
    await put(store, BOB, "/pub/a", b"")
    await store.delete(BOB, "/pub/a")
    await put(store, ALICE, "/pub/a", b"123")
    totals = await store.totals()
    assert (totals.users, totals.used, totals.tokens, totals.unused_tokens) == (2, 256 + 3 + 256 + 1, 2, 1)


@pytest_twisted.ensureDeferred
async def test_new_logs(store: Store) -> None:
    """An account begins with two empty logs under random names."""
    assert await store.log_state(ALICE, False) is None
    names = set()
    for pubky in (ALICE, BOB):
        await sign_up(store, pubky)
        for private in (False, True):
            log = await store.log_state(pubky, private)
            assert log is not None
            assert (log.seq, log.event_id, log.digest, log.floor) == (0, 0, EMPTY, 0)
            assert len(bytes.fromhex(log.log_id)) == 16
            names.add(log.log_id)
    assert len(names) == 4


@pytest_twisted.ensureDeferred
async def test_accounts_are_listed_in_pages(store: Store) -> None:
    """All accounts, each once, in the order of sign-up, also those that are disabled; the last page says so."""
    assert await store.accounts(0, 10) == ([], None)
    names = [f"{(number * 7) % 11:052}" for number in range(11)]
    for pubky in names:
        await sign_up(store, pubky)
    await store.set_disabled(names[3], True)
    for limit in (1, 3, 11, 12, 500):
        found: list[str] = []
        place: int | None = 0
        while place is not None:
            page, place = await store.accounts(place, limit)
            assert len(page) <= limit
            found += page
        assert found == names
    assert await store.accounts(11, 10) == ([], None)


@pytest_twisted.ensureDeferred
async def test_a_page_of_accounts_has_an_end(store: Store) -> None:
    """However many are asked for, a page has 500."""
    names = [f"{number:052}" for number in range(502)]
    await gatherResults([Deferred.fromCoroutine(sign_up(store, pubky)) for pubky in names])
    first, place = await store.accounts(0, 100_000)
    assert place is not None
    second, end = await store.accounts(place, 100_000)
    assert (len(first), len(second), end) == (500, 2, None)
    assert sorted(first + second) == names
