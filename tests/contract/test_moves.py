"""What every store does with accounts that move: one place takes writes, nothing is lost on the way, books balance."""

from typing import Any

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet.defer import Deferred, DeferredList
from zope.interface.verify import verifyObject

from pubky_homeserver.core.copies import Copy, LogStanding, Position, Reign
from pubky_homeserver.core.errors import NotFound, NotHereYet, NotPrimary, Refused, UserExists
from pubky_homeserver.core.moves import Kept
from pubky_homeserver.core.records import Account, Operation, SignupToken
from pubky_homeserver.interfaces import IMoveStore
from tests.contract.copying import OTHER, PRIMARY, begin_whole, deletion, digest_of, event_of, standing
from tests.contract.store import ALICE, BOB, Store, entry, put, session, sign_up
from tests.contract.test_packets import packet

ELSEWHERE = "e" * 52
LATER = 1_764_000_000_000_001
"""When accounts of these tests sign up: microseconds."""


def test_keeps_the_port(store: Store) -> None:
    """The store has every method of the port, with its arguments."""
    verifyObject(IMoveStore, store.moves)


async def fence(store: Store, timestamp: int = LATER + 1) -> Kept:
    """A packet says that Alice lives elsewhere."""
    return await store.packets.keep_packet(ALICE, packet(timestamp), ELSEWHERE)


async def claim(store: Store, **more: Any) -> None:
    """Alice signs up where there is a copy."""
    facts = {"session": None, "token": None, "token_required": False, "may_claim": True, **more}
    await store.sign_up(Account(ALICE, LATER + 7), **facts)


async def open_here(store: Store, timestamp: int = LATER + 2, incomplete: bool = False) -> bool:
    """A packet says that Alice lives here, and so it is."""
    await store.packets.keep_packet(ALICE, packet(timestamp))
    return await store.moves.open(ALICE, packet(timestamp), LATER + 8, incomplete)


async def announce(store: Store, limit: int = 250) -> None:
    """Tell all, in parts."""
    for _ in range(100):
        if await store.moves.announce(ALICE, limit):
            return
    raise AssertionError("it does not end")


async def copy_of(store: Store) -> Copy:
    """What is known of Alice's copy."""
    copy = await store.copies.copy(ALICE)
    assert copy is not None
    return copy


async def standing_of(store: Store, private: bool = False) -> LogStanding:
    """Where Alice's log stands."""
    standing = await store.logs.standing(ALICE, private)
    assert standing is not None
    return standing


# --- the fence ----------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_fence(store: Store) -> None:
    """A newer packet that names another homeserver shuts an account, and its logs go on as a whole copy's."""
    await sign_up(store, ALICE)
    await put(store, ALICE, "/pub/a", b"one")
    await put(store, ALICE, "/priv/b", b"two")
    public, private = await standing_of(store), await standing_of(store, True)
    assert await fence(store) is Kept.FENCED
    copy = await copy_of(store)
    assert (copy.primary, copy.used, copy.missing, copy.claimed) == (ELSEWHERE, 6 + 2 * 256, 0, 0)
    assert copy.public.is_whole
    assert copy.private.is_whole
    assert (copy.public.position, copy.private.position) == (public.position, private.position)
    assert (copy.public.reigns, copy.private.reigns) == (public.reigns, private.reigns)
    assert await standing_of(store) == public
    assert await store.logs.standings(0, 10) == ([], None)
    totals = await store.totals()
    assert (totals.users, totals.used) == (1, 0)
    assert await fence(store, LATER + 2) is Kept.KEPT
    one = await store.entry(ALICE, "/pub/a")
    assert one is not None
    assert one.body == b"one"


@pytest_twisted.ensureDeferred
async def test_nothing_is_written_behind_a_fence(store: Store) -> None:
    """Every write and sign-in names the homeserver where the account lives, also when that has changed since."""
    await sign_up(store, ALICE)
    await put(store, ALICE, "/pub/a")
    await fence(store)
    writes: list[Any] = [
        lambda: put(store, ALICE, "/pub/b"),
        lambda: store.delete(ALICE, "/pub/a"),
        lambda: store.check_put(ALICE, "/pub/b", 1, None),
        lambda: store.check_put(ALICE, "/pub/b", None, None),
        lambda: store.check_delete(ALICE, "/pub/a"),
        lambda: store.sign_in(session(ALICE)),
    ]
    for primary in (ELSEWHERE, "f" * 52):
        for write in writes:
            with pytest.raises(NotPrimary) as refused:
                await write()
            assert refused.value.primary == primary
        await store.packets.keep_packet(ALICE, packet(LATER + 2), "f" * 52)
    assert (await copy_of(store)).primary == "f" * 52
    assert len(await store.events(0, 10, True)) == 1


@pytest_twisted.ensureDeferred
async def test_what_does_not_fence(store: Store) -> None:
    """The first packet known fences nobody if it is older than the sign-up, nor does one that is not the newest."""
    await sign_up(store, ALICE)
    assert await fence(store, LATER - 1) is Kept.KEPT
    assert await fence(store, LATER - 1) is Kept.OLD
    await put(store, ALICE, "/pub/a")
    assert await store.packets.keep_packet(ALICE, packet(LATER + 5)) is Kept.KEPT
    assert await fence(store, LATER + 4) is Kept.OLD
    await put(store, ALICE, "/pub/b")
    assert await fence(store, LATER + 6) is Kept.FENCED


@pytest_twisted.ensureDeferred
async def test_a_packet_before_any_other(store: Store) -> None:
    """The first packet known fences if it was signed after the sign-up: the user has moved on."""
    await sign_up(store, ALICE)
    assert await fence(store, LATER) is Kept.FENCED


@pytest_twisted.ensureDeferred
async def test_packets_of_others(store: Store) -> None:
    """Packets of copies and peers are kept too, of nobody else."""
    await store.copies.begin(BOB, PRIMARY, 1)
    assert await store.packets.keep_packet(BOB, packet(1), ELSEWHERE) is Kept.KEPT
    bob = await store.copies.copy(BOB)
    assert bob is not None
    assert bob.primary == ELSEWHERE
    assert await store.packets.keep_packet("p" * 52, packet(1), is_peer=True) is Kept.KEPT
    with pytest.raises(NotFound):
        await store.packets.keep_packet("q" * 52, packet(1), ELSEWHERE)


@pytest_twisted.ensureDeferred
async def test_sessions_end_with_a_fence(store: Store) -> None:
    """Everybody who was signed in is signed out, and those who serve them hear of it; nobody else is."""
    await sign_up(store, ALICE)
    await sign_up(store, BOB)
    mine, others = session(ALICE, 1), session(BOB, 2)
    await store.sign_in(mine)
    await store.sign_in(others)
    assert await store.session(mine.id) == mine
    await fence(store)
    assert await store.session(mine.id) is None
    assert await store.session(others.id) == others


@pytest_twisted.ensureDeferred
async def test_a_silent_feed(store: Store) -> None:
    """What a fenced account did here stays in every feed, and what its copy takes over since is in none."""
    await sign_up(store, ALICE)
    first = await put(store, ALICE, "/pub/a")
    await fence(store)
    two = evolve(entry("/pub/b"), seq=2)
    done = event_of(two, first.id + 10, digest_of(entry("/pub/a"), two))
    assert await store.copies.apply(ALICE, False, done, two)
    assert await store.entry(ALICE, "/pub/b") is not None
    assert await store.events(0, 10, True) == [first]
    for reverse in (False, True):
        assert await store.account_events(ALICE, None, 10, reverse, True, True) == [first]
        assert await store.account_events(ALICE, first.id + 20, 10, reverse, True, True) == [first] * reverse
    assert [one.event.seq for one in await store.logs.logged(ALICE, False, 0, 10)] == [1, 2]


@pytest_twisted.ensureDeferred
async def test_nothing_commits_after_the_fence(store: Store) -> None:
    """Of writes around a fence each one is in the copy's log, or was refused (I8)."""
    await sign_up(store, ALICE)
    started = []
    for number in range(60):
        started.append(Deferred.fromCoroutine(put(store, ALICE, f"/pub/{number}")))
        if number == 30:
            fenced = Deferred.fromCoroutine(fence(store))
    answers: list[Any] = await DeferredList(started, consumeErrors=True)
    assert await fenced is Kept.FENCED
    numbers = sorted(answer.seq for done, answer in answers if done)
    position = (await copy_of(store)).public.position
    assert position is not None
    assert numbers == [*range(1, position.seq + 1)]
    assert position.seq == 31
    assert all(done or answer.check(NotPrimary) for done, answer in answers)


# --- claims -------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_claim(store: Store) -> None:
    """Who signs up at a copy that may be claimed can sign in; it goes on to be a copy, and nobody else can claim it."""
    await begin_whole(store)
    with pytest.raises(UserExists):
        await claim(store, may_claim=False)
    mine = session(ALICE)
    await claim(store, session=mine)
    assert (await copy_of(store)).claimed == LATER + 7
    assert await store.session(mine.id) == mine
    await store.sign_in(session(ALICE, 2))
    assert await store.moves.is_admitted(ALICE)
    assert not await store.moves.has_lived_here(ALICE)
    assert (await store.totals()).users == 1
    with pytest.raises(UserExists):
        await claim(store)
    with pytest.raises(NotPrimary):
        await put(store, ALICE, "/pub/a")
    assert await store.account_events(ALICE, None, 10, False, True, True) == []
    one = evolve(entry("/pub/a"), seq=1)
    assert await store.copies.apply(ALICE, False, event_of(one, 10, digest_of(one)), one)
    assert await store.account_events(ALICE, None, 10, False, True, True) == []


@pytest_twisted.ensureDeferred
async def test_a_claim_that_comes_to_nothing(store: Store) -> None:
    """No account is left of it, nor a session; its signup token is as new, and the copy as before."""
    await begin_whole(store)
    before, totals = await copy_of(store), await store.totals()
    token = SignupToken("T" * 14, 5)
    await store.add_signup_token(token)
    mine = session(ALICE)
    await claim(store, session=mine, token=token.token, token_required=True)
    assert (await store.totals()).unused_tokens == 0
    assert await store.moves.void_claim(ALICE)
    assert not await store.moves.void_claim(ALICE)
    assert await copy_of(store) == before
    assert await store.account(ALICE) is None
    assert not await store.moves.is_admitted(ALICE)
    assert await store.session(mine.id) is None
    assert await store.signup_token(token.token) == token
    assert await store.totals() == evolve(totals, tokens=1, unused_tokens=1)
    assert await store.accounts(0, 10) == ([], None)
    await claim(store, token=token.token, token_required=True)


@pytest_twisted.ensureDeferred
async def test_coming_back_lifts_no_limit(store: Store) -> None:
    """Who lived here under a limit has it when they come back, and after a claim in vain."""
    await sign_up(store, ALICE, storage_quota_mb=1)
    before = await store.account(ALICE)
    assert before is not None
    await fence(store)
    await claim(store)
    await store.moves.void_claim(ALICE)
    await claim(store)
    assert await open_here(store)
    assert await store.moves.has_lived_here(ALICE)
    assert not await store.moves.has_lived_here(BOB)
    account = await store.account(ALICE)
    assert account is not None
    assert account.quota == before.quota


@pytest_twisted.ensureDeferred
async def test_where_an_account_lived_before(store: Store) -> None:
    """Every homeserver that a copy followed before the account opened is remembered, once, over moves; the newest."""
    assert await store.moves.lived_at(ALICE) == []
    await sign_up(store, ALICE)
    assert await store.moves.lived_at(ALICE) == []
    homes, time = ["h" * 52, "i" * 52, "j" * 52], 2**53
    for expected, path in (([homes[0], homes[1]], [0, 1, 1]), ([homes[0], homes[1], homes[2]], [1, 2])):
        for home in path:
            time += 1
            await store.packets.keep_packet(ALICE, bytes(64) + time.to_bytes(8, "big"), homes[home])
        back = bytes(64) + (time := time + 1).to_bytes(8, "big")
        await store.packets.keep_packet(ALICE, back)
        assert await store.moves.open(ALICE, back, 1)
        assert await store.moves.lived_at(ALICE) == expected
    for _ in range(2):
        await store.moves.note_home(ALICE, OTHER)
    assert await store.moves.lived_at(ALICE) == [*homes, OTHER]
    await store.moves.note_home(BOB, OTHER)
    for _ in range(2):
        await store.copies.begin(BOB, homes[0], 1)
    await store.moves.note_home(BOB, OTHER)
    assert await store.moves.lived_at(BOB) == []
    for number in range(25):
        await store.copies.begin(BOB, f"{number:052}", 1)
    packet = bytes(64) + (time + 1).to_bytes(8, "big")
    await store.packets.keep_packet(BOB, packet)
    assert await store.moves.open(BOB, packet, 1, incomplete=True)
    assert await store.moves.lived_at(BOB) == [f"{number:052}" for number in range(5, 25)]


@pytest.mark.parametrize("path", ["/priv/a", "/pub/a"])
@pytest_twisted.ensureDeferred
async def test_private_files_that_a_new_primary_may_lack(store: Store, path: str) -> None:
    """Who leaves with private files owes them, until they are handed over; a mere copy owes nothing."""
    before = bytes(72)
    await store.copies.begin(BOB, OTHER, 1)
    await sign_up(store, ALICE)
    await store.packets.keep_packet(ALICE, before)
    await put(store, ALICE, path)
    await fence(store)
    found = [await store.copies.copy(pubky) for pubky in (ALICE, BOB)]
    owes = path == "/priv/a"
    assert [one.owes for one in found if one is not None] == [owes, False]
    assert await store.copies.named(ALICE) == (before if owes else None)
    await store.copies.hand_over(ALICE)
    assert await store.copies.named(ALICE) is None
    await store.copies.hand_over("x" * 52)
    copy = await store.copies.copy(ALICE)
    assert copy is not None
    assert not copy.owes
    assert await store.copies.copy("x" * 52) is None


@pytest_twisted.ensureDeferred
async def test_a_copy_that_was_forgotten(store: Store) -> None:
    """Who lived here before, and of whom nothing is left, signs up as somebody new."""
    await sign_up(store, ALICE)
    await put(store, ALICE, "/pub/a")
    await fence(store)
    while not await store.copies.forget(ALICE, 10):
        pass
    await claim(store)
    assert await store.entry(ALICE, "/pub/a") is None
    assert (await put(store, ALICE, "/pub/b")).seq == 1
    assert (await store.totals()).users == 1


@pytest_twisted.ensureDeferred
async def test_who_lived_here_may_come_back(store: Store) -> None:
    """An account that was fenced may be claimed whatever is allowed; a claim in vain leaves it fenced."""
    await sign_up(store, ALICE)
    await put(store, ALICE, "/pub/a")
    await fence(store)
    await claim(store, may_claim=False)
    assert await store.moves.has_lived_here(ALICE)
    assert await store.moves.void_claim(ALICE)
    assert await store.moves.is_admitted(ALICE)
    assert await store.moves.has_lived_here(ALICE)
    assert (await store.totals()).users == 1
    with pytest.raises(NotPrimary):
        await store.sign_in(session(ALICE))


# --- opening ------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_an_account_opens(store: Store) -> None:
    """A copy becomes an account that goes on where it was: bytes, numbers, digests, in a new reign."""
    await begin_whole(store)
    one = evolve(entry("/pub/a"), seq=1)
    await store.copies.apply(ALICE, False, event_of(one, 10, digest_of(one)), one)
    before = await copy_of(store)
    await claim(store)
    assert await open_here(store)
    assert await store.copies.copy(ALICE) is None
    account = await store.account(ALICE)
    assert account is not None
    assert account.used == before.used
    assert (await store.totals()).used == before.used
    standing = await standing_of(store)
    assert standing.reigns[:-1] == before.public.reigns
    assert (standing.reigns[-1].first, standing.reigns[-1].log_id) == (2, standing.position.log_id)
    assert (standing.position.seq, standing.position.event_id, standing.position.digest) == (1, 10, digest_of(one))
    written = await put(store, ALICE, "/pub/b")
    assert (written.seq, written.digest) == (2, digest_of(one, entry("/pub/b")))
    assert written.id > 10
    assert (await standing_of(store, True)).reigns[-1].first == 1
    assert not await open_here(store, LATER + 3)


@pytest_twisted.ensureDeferred
async def test_there_and_back(store: Store) -> None:
    """An account that moved away and came back has all of its reigns, and counts once."""
    await sign_up(store, ALICE)
    await put(store, ALICE, "/pub/a")
    first = await standing_of(store)
    await fence(store)
    await claim(store)
    assert await open_here(store)
    second = await standing_of(store)
    assert second.reigns[:1] == first.reigns
    assert len(second.reigns) == 2
    totals = await store.totals()
    assert (totals.users, totals.used) == (1, 5 + 256)
    await store.sign_in(session(ALICE))
    await put(store, ALICE, "/pub/b")
    assert await fence(store, LATER + 3) is Kept.FENCED
    assert (await copy_of(store)).public.reigns == second.reigns


@pytest_twisted.ensureDeferred
async def test_only_the_packet_that_was_seen_opens(store: Store) -> None:
    """If a newer packet came meanwhile the account stays away; so does one whose list is not whole."""
    await begin_whole(store)
    await claim(store)
    await store.packets.keep_packet(ALICE, packet(LATER + 2))
    await store.packets.keep_packet(ALICE, packet(LATER + 3), ELSEWHERE)
    assert not await store.moves.open(ALICE, packet(LATER + 2), LATER)
    assert (await copy_of(store)).primary == ELSEWHERE
    await store.copies.begin(BOB, PRIMARY, 1)
    await store.packets.keep_packet(BOB, packet(1))
    with pytest.raises(NotHereYet):
        await store.moves.open(BOB, packet(1), LATER)
    assert await store.moves.open(BOB, packet(1), LATER, incomplete=True)
    await put(store, BOB, "/pub/a")


@pytest_twisted.ensureDeferred
async def test_two_openings(store: Store) -> None:
    """Of two openings at once one opens."""
    await begin_whole(store)
    await claim(store)
    await store.packets.keep_packet(ALICE, packet(LATER + 2))
    opening = [Deferred.fromCoroutine(store.moves.open(ALICE, packet(LATER + 2), LATER)) for _ in range(3)]
    assert sorted(done for _, done in await DeferredList(opening)) == [False, False, True]


@pytest_twisted.ensureDeferred
async def test_a_follower_goes_on_through_a_new_reign(store: Store) -> None:
    """Reigns that continue ours are noted where we stand, others never; a position between two belongs to both."""
    await begin_whole(store)
    state = (await copy_of(store)).public
    assert state.position is not None
    old = state.reigns
    further = (*old, Reign("12" * 16, 3))
    assert await store.copies.keep_reigns(ALICE, False, state.position, further)
    found = (await copy_of(store)).public
    assert found.reigns == further
    assert found.position == state.position
    one, two = evolve(entry("/pub/a"), seq=1), evolve(entry("/pub/b"), seq=2)
    await store.copies.apply(ALICE, False, event_of(one, 10, digest_of(one)), one)
    assert not await store.copies.keep_reigns(ALICE, False, state.position, further)
    await store.copies.apply(ALICE, False, event_of(two, 11, digest_of(one, two)), two)
    assert (await copy_of(store)).public.position == Position("12" * 16, 2, 11, digest_of(one, two))
    position = (await copy_of(store)).public.position
    assert position is not None
    for wrong in (further[1:], (*further, Reign("34" * 16, 2))):
        with pytest.raises(ValueError):
            await store.copies.keep_reigns(ALICE, False, position, wrong)


# --- the feed after a move ----------------------------------------------------------------------------------------


async def consume(store: Store, after: int) -> dict[str, bytes]:
    """What somebody holds who had the right files at an event, and reads on; paths and hashes."""
    held: dict[str, bytes] = {}
    for event in await store.events(0, 1000, True):
        if event.pubky != ALICE or (event.id <= after and event.operation is Operation.DEL and event.path not in held):
            continue
        if event.content_hash is None:
            held.pop(event.path, None)
        else:
            held[event.path] = event.content_hash
    return held


@pytest.mark.parametrize("limit", [1, 3, 250])
@pytest_twisted.ensureDeferred
async def test_the_feed_tells_what_came(store: Store, limit: int) -> None:
    """What was removed elsewhere and all files are told in the feed, once each, in parts, around the user's writes."""
    await sign_up(store, ALICE)
    for name in ("a", "b", "c"):
        await put(store, ALICE, f"/pub/{name}", name.encode())
    await put(store, ALICE, "/priv/p", b"private")
    await fence(store)
    state = (await copy_of(store)).public
    assert state.position is not None
    digest, event_id = state.position.digest, state.position.event_id
    gone = deletion("/pub/a", 4, event_id + 10, digest_of(entry("/pub/b", b"b"), entry("/pub/c", b"c")))
    assert await store.copies.apply(ALICE, False, gone, None)
    await claim(store)
    assert await open_here(store)
    assert await store.moves.announcing("", 10) == await store.moves.announcing(ALICE[:-1], 1) == [ALICE]
    assert await store.moves.announcing(ALICE, 10) == []
    await store.moves.announce(ALICE, limit)
    await put(store, ALICE, "/pub/c", b"new")
    await announce(store, limit)
    assert await store.moves.announcing("", 10) == []
    files = {}
    for path in ("/pub/a", "/pub/b", "/pub/c", "/priv/p"):
        found = await store.entry(ALICE, path)
        if found is not None:
            files[path] = found.content_hash
    assert [*files] == ["/pub/b", "/pub/c", "/priv/p"]
    assert await consume(store, 0) == files
    standing = await standing_of(store)
    logged = [one.event for one in await store.logs.logged(ALICE, False, 0, 100)]
    assert [one.seq for one in logged] == [*range(1, standing.position.seq + 1)]
    assert logged[-1].digest == standing.position.digest != digest
    assert len({one.id for one in logged}) == len(logged)
    bodies = {one.event.path: one.body for one in await store.logs.logged(ALICE, False, event_id, 100) if one.body}
    assert bodies == {"/pub/b": b"b", "/pub/c": b"new"}


@pytest_twisted.ensureDeferred
async def test_nothing_to_announce(store: Store) -> None:
    """An account that came from nowhere, or that left again, has nothing to tell."""
    await sign_up(store, ALICE)
    assert await store.moves.announce(ALICE, 10)
    await put(store, ALICE, "/pub/a")
    await fence(store)
    await claim(store)
    await open_here(store)
    await fence(store, LATER + 9)
    await announce(store)
    assert await store.moves.announcing("", 10) == []
    with pytest.raises(Refused):
        await put(store, ALICE, "/pub/b")


@pytest.mark.parametrize("limit", [1, 2, 250])
@pytest_twisted.ensureDeferred
async def test_a_path_that_was_removed_again_and_again(store: Store, limit: int) -> None:
    """The feed says once that it is gone; and once more if it was there and gone again before the next opening."""
    await sign_up(store, ALICE)
    for _ in range(3):
        await put(store, ALICE, "/pub/a")
        await store.delete(ALICE, "/pub/a")
    before = len(await store.events(0, 1000, True))
    for number in (2, 4):
        await fence(store, LATER + number)
        await claim(store)
        assert await open_here(store, LATER + number + 1)
        await announce(store, limit)
        told = (await store.events(0, 1000, True))[before:]
        assert [(one.operation, one.path) for one in told] == [(Operation.DEL, "/pub/a")]
        before += 1


# --- bodies -------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_bodies_that_follow(store: Store) -> None:
    """What an account lacks when it opens is filled in there, or overwritten, or deleted; none is counted twice."""
    files = [entry(f"/pub/{name}", b"x", seq=seq) for seq, name in enumerate("abc", 1)]
    there = standing(3, 30, digest_of(*files))
    await store.copies.begin(ALICE, PRIMARY, 1)
    await store.copies.begin_list(ALICE, False, there)
    await store.copies.keep_listed(ALICE, False, files, "/pub/c")
    assert await store.copies.end_list(ALICE, False, there)
    assert (await copy_of(store)).missing == 3
    assert await open_here(store)
    assert [one.path for one in await store.copies.missing(ALICE, "", 10)] == ["/pub/a", "/pub/b", "/pub/c"]
    assert await store.copies.fill(ALICE, files[0])
    assert await store.copies.fill(ALICE, files[0])
    assert [one.path for one in await store.copies.missing(ALICE, "", 10)] == ["/pub/b", "/pub/c"]
    await put(store, ALICE, "/pub/b", b"new")
    assert not await store.copies.fill(ALICE, files[1])
    assert [one.path for one in await store.copies.missing(ALICE, "/pub/b", 10)] == ["/pub/c"]
    await fence(store, LATER + 3)
    assert (await copy_of(store)).missing == 1
    assert await open_here(store, LATER + 4)
    await store.delete(ALICE, "/pub/c")
    assert await store.copies.missing(ALICE, "", 10) == []
    await fence(store, LATER + 5)
    assert (await copy_of(store)).missing == 0
