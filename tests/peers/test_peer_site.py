"""What homeservers tell each other, over a real socket: who may ask, what is offered, and which history goes on."""

from collections.abc import AsyncIterator
from functools import partial
from urllib.parse import quote

import pytest
import pytest_twisted
from attrs import evolve, field, frozen

from pkarr.builder import Builder
from pkarr.keys import Keypair
from pubky_homeserver.core.copies import Known, Logged, LoggedEvent, LogStanding, Position, Question, Reign
from pubky_homeserver.core.errors import BodyGone, LogCompacted, LogForked, PeerAway, PeerBroken, PeerRefused
from pubky_homeserver.core.peers import NONE, Selection
from pubky_homeserver.core.records import Event, Operation
from pubky_homeserver.peers.asked import PAGE
from pubky_homeserver.peers.logs import MAX_BODIES
from pubky_homeserver.peers.shapes import base64
from pubky_homeserver.peers.signatures import sign
from pubky_homeserver.store.memory import MemoryStore
from tests.peers.peering import FOLLOWER, OWNER, Peering, content, hash_of, peering
from tests.web.client import ask
from tests.web.served import HOMESERVER, NOW, reactor, served

STRANGER = Keypair(b"\x0e" * 32)
ELSEWHERE = Keypair(b"\x0d" * 32).public_key.z32
UNKNOWN = Keypair(b"\x0c" * 32).public_key.z32


@pytest_twisted.async_yield_fixture
async def pair() -> AsyncIterator[Peering]:
    """A homeserver and its peer."""
    async with peering() as both:
        yield both


def targets(pubky: str) -> list[str]:
    """One of each kind, for an account."""
    log = f"/peer/v1/accounts/{pubky}/pub"
    digest, content_hash = quote("A" * 22 + "==", safe=""), quote("A" * 43 + "=", safe="")
    return [
        "/peer/v1/hello",
        "/peer/v1/accounts",
        "/peer/v1/changes",
        f"/peer/v1/packets/{pubky}",
        f"{log}/events?log_id={'0' * 32}&seq=0&id=0&digest={digest}",
        f"{log}/entries?after=",
        f"{log}/body?path=/pub/a&hash={content_hash}",
    ]


# --- who may ask --------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_strangers_learn_nothing(pair: Peering) -> None:
    """Whoever is no peer, or does not prove it, gets 403 for everything that is and is not there."""
    for target in (*targets(pair.owner.pubky), *targets(UNKNOWN), "/peer/v1/", "/peer/v1/secret"):
        for keypair in (None, STRANGER):
            answer = await pair.ask(target, keypair=keypair)
            assert answer.status == 403, target
            assert answer.header("cache-control") == "no-store"
            assert answer.header("access-control-allow-origin") is None


@pytest_twisted.ensureDeferred
async def test_a_signature_is_for_one_request(pair: Peering) -> None:
    """A signature for another target or method opens nothing."""
    good = await pair.ask("/peer/v1/hello")
    assert good.status == 200
    for method, target in (("GET", "/peer/v1/accounts"), ("POST", "/peer/v1/hello"), ("GET", "/peer/v1/hello?a")):
        signed = sign(FOLLOWER, HOMESERVER, method, target, NOW)
        assert (await pair.ask("/peer/v1/hello", keypair=None, headers=signed)).status == 403
    signed = sign(FOLLOWER, ELSEWHERE, "GET", "/peer/v1/hello", NOW)
    assert (await pair.ask("/peer/v1/hello", keypair=None, headers=signed)).status == 403


@pytest_twisted.ensureDeferred
async def test_a_clock_that_is_wrong_is_told(pair: Peering) -> None:
    """The refusal says that it is the clock, and what time it is here."""
    signed = sign(FOLLOWER, HOMESERVER, "GET", "/peer/v1/hello", pair.home.clock.seconds() - 3600)
    answer = await pair.ask("/peer/v1/hello", keypair=None, headers=signed)
    assert answer.status == 403
    assert answer.text.startswith("The date is more than 300 s from this homeserver's clock")
    assert answer.header("date") is not None


@pytest_twisted.ensureDeferred
async def test_what_is_not_there_for_a_peer(pair: Peering) -> None:
    """Unknown paths are 404, other methods 405 with those that there are."""
    for target in (
        "/peer/v1/",
        "/peer/v1/x",
        "/peer/v1/accounts/",
        f"/peer/v1/accounts/{UNKNOWN}/pub",
        "/peer/v1/hello/",
    ):
        assert (await pair.ask(target)).status == 404, target
    refused = await pair.ask("/peer/v1/hello", "POST")
    assert (refused.status, refused.header("allow")) == (405, "GET")
    assert (await pair.ask("/peer/v1/hello", "OPTIONS")).status == 405


@pytest_twisted.ensureDeferred
async def test_users_keep_their_paths(pair: Peering) -> None:
    """Where the host names a user the path is the user's, as before; where it is our own key it is ours."""
    pubky = pair.owner.pubky
    async with served() as plain:
        for host, headers in ((pubky, {}), (UNKNOWN, {}), ("127.0.0.1", {"pubky-host": pubky})):
            today = await ask(reactor, plain.port, "GET", "/peer/v1/hello", headers, None, host)
            answer = await pair.ask("/peer/v1/hello", keypair=None, host=host, headers=headers)
            assert (answer.status, answer.body) == (today.status, today.body)
            assert answer.headers == today.headers
    assert (await pair.ask("/peer/v1/hello", host=HOMESERVER)).status == 200


@pytest_twisted.ensureDeferred
async def test_without_peers_nothing_changes() -> None:
    """A homeserver that trusts nobody answers below these paths as below any other."""
    async with served() as plain:
        for method in ("GET", "PUT", "OPTIONS", "POST"):
            ours = await plain.ask(method, "/peer/v1/hello", body=b"x" if method == "PUT" else None)
            other = await plain.ask(method, "/poor/v1/hello", body=b"x" if method == "PUT" else None)
            assert (ours.status, ours.body) == (other.status, other.body)
            assert ours.headers == other.headers


# --- what is offered ----------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_hello(pair: Peering) -> None:
    """A peer learns what is understood here."""
    hello = await pair.client.greet()
    assert (hello.version, hello.epoch) == (1, "e1")
    assert "events" in hello.features


@pytest_twisted.ensureDeferred
async def test_what_is_not_offered_is_as_if_it_were_not_there(pair: Peering) -> None:
    """Word for word what is said of an account that nobody has."""
    await pair.put("/pub/a", b"one")
    for offer in (NONE, Selection(keys=frozenset({UNKNOWN}))):
        pair.set(offer=offer)
        assert await pair.client.offered("") == ([], None)
        for mine, nobodys in zip(targets(pair.owner.pubky)[3:], targets(UNKNOWN)[3:], strict=True):
            hidden, absent = await pair.ask(mine), await pair.ask(nobodys)
            assert hidden.status == absent.status == 404, mine
            assert hidden.body == absent.body
        assert await pair.client.packet(pair.owner.pubky) is None
        with pytest.raises(PeerRefused):
            await pair.client.entries(pair.owner.pubky, False, "")


@pytest_twisted.ensureDeferred
async def test_one_account_may_be_offered(pair: Peering) -> None:
    """A list of accounts offers these and no others."""
    other = await pair.home.sign_up()
    pair.set(offer=Selection(keys=frozenset({other.pubky, UNKNOWN})))
    offered, following = await pair.client.offered("")
    assert ([one.pubky for one in offered], following) == ([other.pubky], None)
    assert (await pair.client.offered(other.pubky))[0] == []
    with pytest.raises(PeerRefused):
        await pair.client.entries(pair.owner.pubky, False, "")
    assert (await pair.client.entries(other.pubky, False, "")).entries == ()


@pytest_twisted.ensureDeferred
async def test_private_files_are_for_who_may_read_them(pair: Peering) -> None:
    """Without `private` nothing tells that there is a second log: no number, no time, no name."""
    await pair.put("/priv/secret", b"my diary")
    await pair.put("/pub/a", b"one")
    pubky = pair.owner.pubky
    (offered,), _ = await pair.client.offered("")
    assert offered.private is None
    assert (offered.public.position.seq, offered.public.used) == (1, 0)
    for target in targets(pubky)[4:]:
        assert (await pair.ask(target.replace("/pub/", "/priv/"))).status == 404
    through = (
        f"/peer/v1/accounts/{pubky}/pub/body?path=/priv/secret&hash={quote(base64(hash_of(b'my diary')), safe='')}"
    )
    assert (await pair.ask(through)).status == 404
    whole = await pair.ask(f"/peer/v1/accounts/{pubky}/pub/entries")
    assert b"secret" not in whole.body
    assert b'"used":0' in whole.body
    pair.set(private=True)
    (offered,), _ = await pair.client.offered("")
    assert offered.private is not None
    assert (offered.private.position.seq, offered.private.used) == (1, 8 + 3 + 2 * 256)
    listed = await pair.client.entries(pubky, True, "")
    assert [one.path for one in listed.entries] == ["/priv/secret"]
    body = await pair.client.body(pubky, True, "/priv/secret", hash_of(b"my diary"))
    assert await content(body) == b"my diary"


async def move(pair: Peering, to: str) -> bytes:
    """Keep a packet of the user that names another homeserver; returns it."""
    packet = Builder().https("_pubky", 0, to).sign(OWNER, int(NOW * 1_000_000))
    await pair.home.store.packets.keep_packet(pair.owner.pubky, packet.relay_payload)
    return packet.relay_payload


@pytest_twisted.ensureDeferred
async def test_accounts_that_live_here(pair: Peering) -> None:
    """An account is offered with the time of the packet that names us."""
    assert (await pair.client.offered(""))[0][0].term == 0
    payload = await move(pair, HOMESERVER)
    assert (await pair.client.offered(""))[0][0].term == int.from_bytes(payload[64:72], "big")
    assert await pair.client.packet(pair.owner.pubky) == payload


@pytest_twisted.ensureDeferred
async def test_accounts_that_live_elsewhere(pair: Peering) -> None:
    """Who is not the primary any more offers nothing; the packet tells where the account went."""
    payload = await move(pair, ELSEWHERE)
    assert await pair.client.offered("") == ([], None)
    assert await pair.client.packet(pair.owner.pubky) == payload
    with pytest.raises(PeerRefused):
        await pair.client.entries(pair.owner.pubky, False, "")


@pytest_twisted.ensureDeferred
async def test_an_account_that_lives_at_the_peer(pair: Peering) -> None:
    """Its new primary may read what the old one has."""
    await pair.put("/pub/a", b"one")
    await move(pair, FOLLOWER.public_key.z32)
    assert await pair.client.offered("") == ([], None)
    listed = await pair.client.entries(pair.owner.pubky, False, "")
    assert [one.path for one in listed.entries] == ["/pub/a"]


@pytest_twisted.ensureDeferred
async def test_an_account_that_is_about_to_open(pair: Peering) -> None:
    """A copy is not told as the account's own logs, though its record names us; what everybody reads, a peer may, too.

    What its last primary has more is on its way: who compared himself with us would take it for lost.
    """
    await pair.put("/pub/a", b"one")
    pubky = pair.owner.pubky
    before = await pair.client.entries(pubky, False, "")
    away, packet = (
        Builder().https("_pubky", 0, home).sign(OWNER, int(NOW + 60 + number) * 1_000_000)
        for number, home in enumerate((ELSEWHERE, HOMESERVER))
    )
    await pair.home.store.packets.keep_packet(pubky, away.relay_payload, ELSEWHERE)
    await pair.home.store.packets.keep_packet(pubky, packet.relay_payload)
    assert await pair.client.offered("") == ([], None)
    with pytest.raises(PeerAway, match="503"):
        await pair.client.entries(pubky, False, "")
    with pytest.raises(PeerAway, match="503"):
        await pair.client.events(pubky, False, before.standing.position)
    questions = [Question(pubky, private, before.standing.position) for private in (False, True)]
    answers = await pair.client._events_of_many(questions)
    assert answers is not None
    assert [type(answer) for answer in answers] == [PeerAway, PeerRefused]
    assert await content(await pair.client.body(pubky, False, "/pub/a", hash_of(b"one"))) == b"one"
    await pair.home.store.moves.open(pubky, packet.relay_payload, int(NOW + 62) * 1_000_000)
    assert (await pair.client.entries(pubky, False, "")).entries == before.entries
    assert [one.pubky for one in (await pair.client.offered(""))[0]] == [pubky]


# --- logs ---------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_events_after_a_position(pair: Peering) -> None:
    """What follows a position comes in order, with bodies that are small."""
    await pair.put("/pub/a", b"one")
    await pair.put("/pub/b", b"x" * 5000)
    await pair.put("/pub/ü \"'\\u2028".replace("\\u2028", ""), b"")
    await pair.delete("/pub/a")
    (offered,), following = await pair.client.offered("")
    assert following is None
    standing = offered.public.position
    start = evolve(standing, seq=0, event_id=0, digest=bytes(16))
    page = await pair.client.events(pair.owner.pubky, False, start)
    assert page.reigns == offered.public.reigns
    events = page.events
    assert [(one.event.operation.value, one.event.path, one.body) for one in events] == [
        ("PUT", "/pub/a", None),
        ("PUT", "/pub/b", None),
        ("PUT", "/pub/ü \"'", b""),
        ("DEL", "/pub/a", None),
    ]
    assert [one.event.seq for one in events] == [1, 2, 3, 4]
    assert events[-1].event.digest == standing.digest
    stored = await pair.home.store.account_events(pair.owner.pubky, None, 10, False, True, False)
    assert [one.event for one in events] == stored
    middle = Position(standing.log_id, 2, stored[1].id, stored[1].digest)
    assert await pair.client.events(pair.owner.pubky, False, middle) == Logged(page.reigns, events[2:], page.end)
    assert await pair.client.events(pair.owner.pubky, False, standing) == Logged(page.reigns, (), page.end)


LOG_IDS = ("1" * 32, "2" * 32, "3" * 32)


@frozen
class Written:
    """A log as a test wants it: two reigns, the second from event 5 on, and all before event 3 compacted."""

    pubky: str
    seq: int = 8
    floor: int = 3
    reigns: tuple[Reign, ...] = (Reign(LOG_IDS[0], 1), Reign(LOG_IDS[1], 5))
    gone: frozenset[int] = frozenset({1, 2})
    body: bytes = field(default=b"", repr=False)

    async def standing(self, pubky: str, private: bool) -> LogStanding | None:
        """See `ILogStore`."""
        last = self.event(self.seq)
        return LogStanding(Position(self.reigns[-1].log_id, self.seq, last.id, last.digest), self.reigns, self.floor)

    async def known(self, pubky: str, private: bool, position: Position, limit: int) -> Known:
        """See `ILogStore`."""
        events = await self.logged(pubky, private, max(position.event_id - 1, 0), limit)
        return Known(None, await self.standing(pubky, private), tuple(events))

    async def event_numbered(self, pubky: str, private: bool, seq: int) -> Event | None:
        """See `ILogStore`."""
        return None if seq in self.gone or seq > self.seq else self.event(seq)

    async def logged(self, pubky: str, private: bool, after: int, limit: int) -> list[LoggedEvent]:
        """See `ILogStore`."""
        numbers = [seq for seq in range(1, self.seq + 1) if seq not in self.gone and seq * 10 > after][:limit]
        return [LoggedEvent(self.event(seq), self.body) for seq in numbers]

    def event(self, seq: int) -> Event:
        """One of them."""
        return Event(
            seq * 10, Operation.PUT, self.pubky, f"/pub/{seq}", seq, bytes([seq % 251] * 16), bytes(32), 1, "x/y", 1
        )


POSITIONS: list[tuple[int, int, int | None, type[Exception] | None]] = [
    (0, 3, None, None),
    (0, 4, None, None),
    (1, 4, None, None),
    (1, 5, None, None),
    (1, 8, None, None),
    (0, 2, None, LogCompacted),
    (0, 0, None, LogCompacted),
    (0, 5, None, LogForked),
    (0, 8, None, LogForked),
    (1, 3, None, LogForked),
    (1, 9, None, LogForked),
    (2, 4, None, LogForked),
    (1, 6, 61, LogForked),
    (1, 6, 50, LogForked),
]
"""Number of the reign, seq, id if it is another one than the event's, and the answer."""


@pytest.mark.parametrize(("reign", "seq", "event_id", "refusal"), POSITIONS)
@pytest_twisted.ensureDeferred
async def test_which_histories_go_on(
    reign: int, seq: int, event_id: int | None, refusal: type[Exception] | None
) -> None:
    """An event of ours goes on; one before the floor is compared; anything else is a fork."""
    async with peering(logs=lambda _store, pubky: Written(pubky)) as pair:
        log = Written(pair.owner.pubky)
        event = log.event(seq)
        position = Position(LOG_IDS[reign], seq, event.id if event_id is None else event_id, event.digest)
        if refusal is None:
            found = await pair.client.events(pair.owner.pubky, False, position)
            assert found.reigns == log.reigns
            assert [one.event.seq for one in found.events] == list(range(seq + 1, 9))
        else:
            with pytest.raises(refusal) as caught:
                await pair.client.events(pair.owner.pubky, False, position)
            assert getattr(caught.value, "reigns", log.reigns) == log.reigns
        spoilt = evolve(position, digest=bytes(15) + b"\xff")
        with pytest.raises((LogForked, LogCompacted)):
            await pair.client.events(pair.owner.pubky, False, spoilt)


@pytest_twisted.ensureDeferred
async def test_the_floor_itself_may_be_written_again() -> None:
    """Where the event of a position is gone nobody can say whether it was the same: lists are compared."""
    async with peering(logs=lambda _store, pubky: Written(pubky, gone=frozenset({1, 2, 3}))) as pair:
        event = Written(pair.owner.pubky).event(3)
        with pytest.raises(LogCompacted):
            await pair.client.events(pair.owner.pubky, False, Position(LOG_IDS[0], 3, event.id, event.digest))


@pytest_twisted.ensureDeferred
async def test_a_log_that_is_shortened_while_it_is_read() -> None:
    """A page never leaves out an event."""
    async with peering(logs=lambda _store, pubky: Written(pubky, floor=0, gone=frozenset({5}))) as pair:
        event = Written(pair.owner.pubky).event(4)
        with pytest.raises(LogCompacted):
            await pair.client.events(pair.owner.pubky, False, Position(LOG_IDS[1], 4, event.id, event.digest))


@pytest_twisted.ensureDeferred
async def test_the_beginning_is_one_place() -> None:
    """The position before the first event has no id and no files."""
    async with peering(logs=lambda _store, pubky: Written(pubky, floor=0, gone=frozenset())) as pair:
        pubky = pair.owner.pubky
        page = await pair.client.events(pubky, False, Position(LOG_IDS[0], 0, 0, bytes(16)))
        assert len(page.events) == 8
        for other in (Position(LOG_IDS[0], 0, 1, bytes(16)), Position(LOG_IDS[0], 0, 0, b"\x01" * 16)):
            with pytest.raises(LogForked):
                await pair.client.events(pubky, False, other)


def _written(body: bytes, _store: MemoryStore, pubky: str) -> Written:
    """A log of 300 events with this body each."""
    return Written(pubky, 300, 0, gone=frozenset(), body=body)


@pytest_twisted.ensureDeferred
async def test_pages_of_events_are_bounded() -> None:
    """By their number, and by the bytes of their bodies; what follows is there in the next one."""
    for body, expected in ((b"", PAGE), (b"x" * 65536, MAX_BODIES // 65536)):
        async with peering(logs=partial(_written, body)) as pair:
            first = await pair.client.events(pair.owner.pubky, False, Position(LOG_IDS[0], 0, 0, bytes(16)))
            assert [one.event.seq for one in first.events] == list(range(1, expected + 1))
            last = first.events[-1].event
            second = await pair.client.events(
                pair.owner.pubky, False, Position(LOG_IDS[1], last.seq, last.id, last.digest)
            )
            assert second.events[0].event.seq == expected + 1


BAD_QUERIES = [
    "",
    "log_id=&seq=0&id=0",
    "log_id=&seq=0&id=0&digest=AAAA",
    "log_id=&seq=-1&id=0&digest=" + quote("A" * 22 + "==", safe=""),
    "log_id=&seq=0&id=x&digest=" + quote("A" * 22 + "==", safe=""),
    "log_id=&seq=99999999999999999999&id=0&digest=" + quote("A" * 22 + "==", safe=""),
    "log_id=&seq=0&id=0&digest=" + "A" * 22 + "*=",
]


@pytest.mark.parametrize("query", BAD_QUERIES)
@pytest_twisted.ensureDeferred
async def test_questions_that_are_none(query: str) -> None:
    """A position that cannot be read is the asker's mistake."""
    async with peering() as pair:
        answer = await pair.ask(f"/peer/v1/accounts/{pair.owner.pubky}/pub/events?{query}")
        assert answer.status == 400
        assert answer.text.startswith("Invalid ")
        assert (await pair.ask(f"/peer/v1/accounts/{pair.owner.pubky}/pub/body?path=/pub/a")).status == 400
        assert (await pair.ask("/peer/v1/accounts?after=x")).status == 400
        assert (await pair.ask("/peer/v1/changes?after=x")).status == 400


@pytest_twisted.ensureDeferred
async def test_the_list_of_files(pair: Peering) -> None:
    """All live files in byte order, and where the log stood: nothing of other logs."""
    for path in ("/pub/b", "/pub/a/ü", "/pub/a/z", "/priv/x", "/pub/gone"):
        await pair.put(path, path.encode())
    await pair.delete("/pub/gone")
    listed = await pair.client.entries(pair.owner.pubky, False, "")
    assert [one.path for one in listed.entries] == ["/pub/a/z", "/pub/a/ü", "/pub/b"]
    assert [one.content_hash for one in listed.entries] == [hash_of(one.path.encode()) for one in listed.entries]
    assert [one.seq for one in listed.entries] == [3, 2, 1]
    assert all(one.body is None and one.blob is None for one in listed.entries)
    assert listed.standing.position.seq == 5
    rest = await pair.client.entries(pair.owner.pubky, False, "/pub/a/ü")
    assert [one.path for one in rest.entries] == ["/pub/b"]
    assert (await pair.client.entries(pair.owner.pubky, False, "/pub/b")).entries == ()


# --- bodies -------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_bodies(pair: Peering) -> None:
    """Any body that a path has, whole: none, small, and large ones as they are read."""
    for number, body in enumerate((b"", b"small", bytes(range(256)) * 8192)):
        await pair.put(f"/pub/{number} +&?", body)
        pieces = await pair.client.body(pair.owner.pubky, False, f"/pub/{number} +&?", hash_of(body))
        assert await content(pieces) == body


@pytest_twisted.ensureDeferred
async def test_parts_of_bodies(pair: Peering) -> None:
    """The rest of a body from any byte on, small or large; beyond its end 416, which no peer asks for."""
    for number, body in enumerate((b"small", bytes(range(256)) * 8192)):
        path = f"/pub/{number}"
        await pair.put(path, body)
        for start in (1, len(body) - 1):
            pieces = await pair.client.body(pair.owner.pubky, False, path, hash_of(body), start)
            assert await content(pieces) == body[start:]
        with pytest.raises(PeerBroken, match="416"):
            await pair.client.body(pair.owner.pubky, False, path, hash_of(body), len(body))


@pytest_twisted.ensureDeferred
async def test_bodies_in_grace(pair: Peering) -> None:
    """A large body that was replaced or deleted can be had until its grace is over; of another path it is not."""
    first, second = b"1" * 9000, b"2" * 9000
    await pair.put("/pub/a", first)
    await pair.put("/pub/a", second)
    await pair.delete("/pub/a")
    for body in (first, second):
        assert await content(await pair.client.body(pair.owner.pubky, False, "/pub/a", hash_of(body))) == body
        assert (
            await content(await pair.client.body(pair.owner.pubky, False, "/pub/a", hash_of(body), 8000)) == body[8000:]
        )
        with pytest.raises(BodyGone):
            await pair.client.body(pair.owner.pubky, False, "/pub/b", hash_of(body))
    expired = await pair.home.store.expired_blobs(2**62, 500)
    await pair.home.blobs.remove(expired)
    await pair.home.store.forget_blobs(expired)
    with pytest.raises(BodyGone):
        await pair.client.body(pair.owner.pubky, False, "/pub/a", hash_of(first))


@pytest_twisted.ensureDeferred
async def test_bodies_that_everybody_may_read(pair: Peering) -> None:
    """A peer to which an account is not offered gets its public bodies by their hash, as anybody does."""
    await pair.put("/pub/a", b"public")
    await pair.put("/priv/a", b"private")
    await pair.put("/pub/old", b"x" * 9000)
    await pair.delete("/pub/old")
    pair.set(offer=NONE)
    assert await content(await pair.client.body(pair.owner.pubky, False, "/pub/a", hash_of(b"public"))) == b"public"
    for private, path, body in (
        (False, "/pub/a", b"other"),
        (False, "/pub/old", b"x" * 9000),
        (False, "/priv/a", b"private"),
        (True, "/priv/a", b"private"),
        (True, "/pub/a", b"public"),
    ):
        with pytest.raises(PeerRefused):
            await pair.client.body(pair.owner.pubky, private, path, hash_of(body))


@pytest_twisted.ensureDeferred
async def test_bodies_that_are_gone(pair: Peering) -> None:
    """A body that the path no longer has is gone, and another one is not sent in its place."""
    await pair.put("/pub/a", b"one")
    await pair.put("/pub/a", b"two")
    await pair.put("/pub/b", b"x" * 9000)
    for path, body in (("/pub/a", b"one"), ("/pub/none", b"one"), ("/pub/", b"")):
        with pytest.raises(BodyGone):
            await pair.client.body(pair.owner.pubky, False, path, hash_of(body))
    entry = await pair.home.store.entry(pair.owner.pubky, "/pub/b")
    assert entry is not None
    assert entry.blob is not None
    await pair.home.blobs.remove([entry.blob])
    with pytest.raises(BodyGone):
        await pair.client.body(pair.owner.pubky, False, "/pub/b", entry.content_hash)
