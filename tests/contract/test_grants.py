"""What every grant store does: grants, the one live bearer of each, and who is told when they are revoked."""

import pytest
import pytest_twisted
from attrs import evolve
from blake3 import blake3
from twisted.internet import reactor
from twisted.internet.task import deferLater
from zope.interface.verify import verifyObject

from pubky_homeserver.core.capabilities import parse_capabilities
from pubky_homeserver.core.copies import Change
from pubky_homeserver.core.digests import fold, mark
from pubky_homeserver.core.errors import GrantExpired, GrantOfAnother, GrantRevoked, NotFound, NotPrimary
from pubky_homeserver.core.paths import revocation_of
from pubky_homeserver.core.records import Grant, KeptGrant
from pubky_homeserver.interfaces import IGrantStore
from tests.contract.copying import PRIMARY, begin_whole, digest_of, event_of
from tests.contract.store import ALICE, BOB, Store, entry, put, session, sign_up

NOW = 1_900_000_000
"""Unix seconds; the store's own clock is not asked."""


def kept(pubky: str = ALICE, grant_id: str = "one", expires: int = NOW + 10_000, created: int = 1) -> KeptGrant:
    """A grant to keep."""
    capabilities = parse_capabilities("/pub/a b+ü/:rw,/:r")
    return KeptGrant(Grant(pubky, "app\n.example", capabilities, "k" * 52, grant_id, NOW, expires), created)


def bearer(number: int) -> str:
    """The id of a bearer."""
    return f"{number:064x}"


def test_keeps_the_port(store: Store) -> None:
    """The store has every method of the port, with its arguments."""
    verifyObject(IGrantStore, store.grants)


@pytest_twisted.ensureDeferred
async def test_an_exchange_gives_a_session(store: Store) -> None:
    """The session has the grant's account and capabilities, and its bearer's time, and is found by the bearer."""
    await sign_up(store, ALICE)
    one = kept()
    given = await store.grants.exchange(one, bearer(1), NOW, 3600)
    assert (given.id, given.pubky, given.capabilities) == (bearer(1), ALICE, one.grant.capabilities)
    assert (given.grant, given.created, given.expires) == (one, one.created, NOW + 3600)
    assert await store.grants.bearer(bearer(1)) == given
    assert await store.grants.bearer(bearer(2)) is None
    assert await store.grants.grant("one") == one
    assert await store.grants.grant("two") is None
    assert await store.session(bearer(1)) is None, "a bearer is no cookie"


@pytest_twisted.ensureDeferred
async def test_one_bearer_at_a_time(store: Store) -> None:
    """A new bearer ends the one before, and shows the grant as it was first kept, whatever the client shows now."""
    await sign_up(store, ALICE)
    first = kept()
    await store.grants.exchange(first, bearer(1), NOW, 3600)
    assert await store.grants.bearer(bearer(1)) is not None
    changed = evolve(first, created=99, grant=evolve(first.grant, capabilities=(), expires_at=NOW + 5))
    given = await store.grants.exchange(changed, bearer(2), NOW + 1, 3600)
    assert given.grant == first
    assert given.expires == NOW + 1 + 3600
    assert await store.grants.bearer(bearer(1)) is None
    assert await store.grants.bearer(bearer(2)) == given
    assert await store.grants.grants(ALICE) == [first]


@pytest_twisted.ensureDeferred
async def test_a_bearer_lives_no_longer_than_its_grant(store: Store) -> None:
    """A bearer's time ends with its grant's."""
    await sign_up(store, ALICE)
    given = await store.grants.exchange(kept(expires=NOW + 20), bearer(1), NOW, 3600)
    assert given.expires == NOW + 20


@pytest_twisted.ensureDeferred
async def test_refusals(store: Store) -> None:
    """No account, somebody else's grant, another client's, a revoked one, one that is over; nothing is changed."""
    with pytest.raises(NotFound):
        await store.grants.exchange(kept(), bearer(1), NOW, 3600)
    await sign_up(store, ALICE)
    await sign_up(store, BOB)
    one = kept()
    given = await store.grants.exchange(one, bearer(1), NOW, 3600)
    for other in (evolve(one.grant, pubky=BOB), evolve(one.grant, client_key="l" * 52)):
        with pytest.raises(GrantOfAnother):
            await store.grants.exchange(evolve(one, grant=other), bearer(2), NOW, 3600)
    for expires in (NOW, 0, 1 << 63, (1 << 64) - 1):
        with pytest.raises(GrantExpired):
            await store.grants.exchange(kept(grant_id="late", expires=expires), bearer(2), NOW, 3600)
    assert await store.grants.grant("late") is None
    assert await store.grants.bearer(bearer(1)) == given
    assert await store.grants.bearer(bearer(2)) is None
    await store.grants.revoke("one")
    with pytest.raises(GrantRevoked):
        await store.grants.exchange(one, bearer(2), NOW, 3600)


@pytest_twisted.ensureDeferred
async def test_a_revoked_grant(store: Store) -> None:
    """Its bearer means nothing any more, it stays known as revoked, and is listed no longer; others live on."""
    await sign_up(store, ALICE)
    await store.grants.exchange(kept(), bearer(1), NOW, 3600)
    second = await store.grants.exchange(kept(grant_id="two", created=2), bearer(2), NOW, 3600)
    assert await store.grants.bearer(bearer(1)) is not None
    await store.grants.revoke("one")
    await store.grants.revoke("one")
    await store.grants.revoke("unknown")
    assert await store.grants.bearer(bearer(1)) is None
    assert await store.grants.bearer(bearer(2)) == second
    assert await store.grants.grant("one") == evolve(kept(), revoked=True)
    assert await store.grants.grants(ALICE) == [kept(grant_id="two", created=2)]


@pytest_twisted.ensureDeferred
async def test_a_list_in_the_order_of_arrival(store: Store) -> None:
    """An account's grants are listed as they came, nobody else's among them."""
    await sign_up(store, ALICE)
    await sign_up(store, BOB)
    for number, name in enumerate("zmab"):
        await store.grants.exchange(kept(grant_id=name, created=number + 1), bearer(number), NOW, 60)
    await store.grants.exchange(kept(BOB, "bobs"), bearer(9), NOW, 60)
    assert [one.grant.id for one in await store.grants.grants(ALICE)] == list("zmab")
    assert [one.grant.id for one in await store.grants.grants(BOB)] == ["bobs"]


@pytest_twisted.ensureDeferred
async def test_who_hears_of_revocations(store: Store) -> None:
    """Each revocation is told once, by the credential that the session has; nothing is told of what did not happen."""
    await sign_up(store, ALICE)
    heard: list[str | None] = []
    stop = store.hear_revocations(heard.append)
    while not store.hears_revocations():
        await deferLater(reactor, 0.001)
    await store.sign_in(session(ALICE, 1))
    given = await store.grants.exchange(kept(), bearer(1), NOW, 3600)
    await store.grants.exchange(kept(), bearer(2), NOW, 3600)
    await store.sign_out(session(ALICE, 7).id)
    await store.sign_out(session(ALICE, 1).id)
    await store.sign_out(session(ALICE, 1).id)
    await store.grants.revoke("one")
    await store.grants.revoke("one")
    await store.grants.revoke("unknown")
    while len(heard) < 2:
        await deferLater(reactor, 0.001)
    assert heard == [session(ALICE, 1).credential, given.credential]
    stop()
    await store.sign_in(session(ALICE, 2))
    await store.sign_out(session(ALICE, 2).id)
    await deferLater(reactor, 0.05)
    assert len(heard) == 2


@pytest_twisted.ensureDeferred
async def test_a_revocation_is_in_the_log(store: Store) -> None:
    """Who follows the account learns that a grant is revoked; clients see nothing of that, however they look."""
    await sign_up(store, ALICE)
    first = await put(store, ALICE, "/pub/a")
    await store.grants.exchange(kept(), bearer(1), NOW, 60)
    name = revocation_of(kept().grant.id)
    await store.grants.revoke(kept().grant.id)
    await store.grants.revoke(kept().grant.id)
    last = await put(store, ALICE, "/pub/b")
    logged = [one.event for one in await store.logs.logged(ALICE, False, 0, 10)]
    assert [(event.seq, event.path) for event in logged] == [(1, "/pub/a"), (2, name), (3, "/pub/b")]
    assert logged[1].digest == fold(logged[0].digest, mark(name, blake3().digest(), 0, 0, ""))
    listed = await store.logs.listed(ALICE, False, "", 10)
    assert listed is not None
    assert [entry.path for entry in listed.entries] == ["/pub/a", "/pub/b", name]
    account = await store.account(ALICE)
    assert account is not None
    assert account.used == 2 * 5 + 2 * 256
    assert await store.logs.changed(first.id, 1, True) == (
        [Change(ALICE, False, logged[1].id, 3)],
        logged[1].id,
    )
    for limit in (1, 2, 10):
        assert await store.events(0, limit, True) == [first, last][:limit]
        assert await store.account_events(ALICE, None, limit, False, True, True) == [first, last][:limit]
        assert await store.account_events(ALICE, None, limit, True, True, True) == [last, first][:limit]
    assert await store.events(first.id, 1, False) == [last]
    for directory in ("/", "/pub/"):
        assert await store.listing(ALICE, directory, "", 10, False, False) == ["/pub/a", "/pub/b"]
    assert await store.copies.missing(ALICE, "", 10) == []


@pytest_twisted.ensureDeferred
async def test_a_revoked_grant_stays_dead_after_a_move(store: Store) -> None:
    """Where an account came to with a revocation in its log the grant is refused, though nobody has seen it there."""
    await begin_whole(store)
    name = revocation_of(kept().grant.id)
    one = evolve(entry(name, b"", content_type="", modified=0), seq=1)
    assert await store.copies.apply(ALICE, False, event_of(one, 10, digest_of(one)), one)
    packet = bytes(72)
    await store.packets.keep_packet(ALICE, packet)
    assert await store.moves.open(ALICE, packet, NOW)
    while not await store.moves.announce(ALICE, 10):
        pass
    assert await store.events(0, 10, True) == []
    with pytest.raises(GrantRevoked):
        await store.grants.exchange(kept(), bearer(1), NOW, 60)
    other = evolve(kept(), grant=evolve(kept().grant, id="another"))
    await store.grants.exchange(other, bearer(2), NOW, 60)


@pytest_twisted.ensureDeferred
async def test_a_grant_that_was_revoked_elsewhere(store: Store) -> None:
    """It need not be known to be revoked for good; one that is known here ends; one of somebody else stays."""
    await sign_up(store, ALICE)
    await sign_up(store, BOB)
    await store.grants.forbid(ALICE, "one")
    await store.grants.forbid(ALICE, "one")
    with pytest.raises(GrantRevoked):
        await store.grants.exchange(kept(), bearer(1), NOW, 60)
    await store.grants.exchange(kept(grant_id="two"), bearer(2), NOW, 60)
    await store.grants.forbid(ALICE, "two")
    assert await store.grants.bearer(bearer(2)) is None
    await store.grants.exchange(kept(BOB, "bobs"), bearer(3), NOW, 60)
    await store.grants.forbid(ALICE, "bobs")
    assert await store.grants.bearer(bearer(3)) is not None
    logged = [one.event.path for one in await store.logs.logged(ALICE, False, 0, 10)]
    assert logged == [revocation_of("one"), revocation_of("two")]


@pytest.mark.parametrize("is_claimed", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_grant_of_an_account_that_lives_elsewhere(store: Store, is_claimed: bool) -> None:
    """It is revoked there, where it is noted, and not here; who revoked it before is told nothing new."""
    await sign_up(store, ALICE)
    await store.grants.exchange(kept(), bearer(1), NOW, 60)
    await store.grants.exchange(kept(grant_id="old"), bearer(2), NOW, 60)
    await store.grants.revoke("old")
    await store.packets.keep_packet(ALICE, bytes(64) + b"\x7f" + bytes(7), PRIMARY)
    if is_claimed:
        account = await store.account(ALICE)
        assert account is not None
        await store.sign_up(account, None, None, False, True)
        await store.grants.exchange(kept(), bearer(3), NOW, 60)
    with pytest.raises(NotPrimary, match=PRIMARY):
        await store.grants.revoke("one")
    with pytest.raises(NotPrimary):
        await store.grants.forbid(ALICE, "unknown")
    await store.grants.revoke("old")
    assert (await store.grants.bearer(bearer(3)) is not None) is is_claimed
    assert [one.grant.id for one in await store.grants.grants(ALICE)] == ["one"]
