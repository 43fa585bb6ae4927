"""Sign-up where a copy of the account is: who may, what it changes, and what waits for the user's record."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_twisted
from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from pkarr.builder import Builder
from pkarr.keys import Keypair
from pubky_homeserver.claims import LOOKS_A_SECOND, WAIT
from pubky_homeserver.copies import Copies
from pubky_homeserver.core.copies import LogStanding, Position, Reign
from pubky_homeserver.core.digests import EMPTY
from pubky_homeserver.core.erasing import Obeyed
from pubky_homeserver.core.peers import Claim, Peer
from pubky_homeserver.core.quotas import UserQuota
from pubky_homeserver.core.records import Account
from pubky_homeserver.core.tokens import sign_auth_token
from pubky_homeserver.store.memory import MemoryStore
from tests.web.client import Answer
from tests.web.served import HOMESERVER, Served, served
from tests.web.sockets import turns, until
from tests.web.streams import following

PRIMARY = Keypair(b"\x08" * 32).public_key.z32
USER = Keypair(b"\x01" * 32)
LOG_ID = "ab" * 16


@define
class Copied:
    """A homeserver at which somebody's account is a copy, with no files."""

    home: Served
    store: MemoryStore
    pubky: str = USER.public_key.z32

    async def sign(self, path: str, capabilities: str = "/:rw", token: str | None = None) -> Answer:
        """The user signs up or in."""
        self.home.clock.advance(0.001)
        body = sign_auth_token(USER, capabilities, int(self.home.clock.seconds() * 1_000_000))
        return await self.home.ask("POST", path + ("" if token is None else f"?signup_token={token}"), body=body)

    async def ask(self, method: str, path: str, cookie: str = "", body: bytes | None = None) -> Answer:
        """One request about the account, while time passes."""
        headers = {"Cookie": cookie} if cookie else {}
        asking = Deferred.fromCoroutine(self.home.ask(method, f"/storage/{self.pubky}{path}", headers, body))
        while not asking.called:
            await turns(5)
            self.home.clock.advance(0.25)
        return await asking

    async def name(self, homeserver: str, timestamp: int = 1) -> None:
        """The user's record comes."""
        packet = Builder().https("_pubky", 0, homeserver).sign(USER, timestamp)
        assert self.home.claims is not None
        await self.home.claims.packets.learn(packet)

    async def open(self) -> None:
        """The account opens here."""
        packet = await self.store.packets.packet(self.pubky)
        assert packet is not None
        assert await self.store.moves.open(self.pubky, packet, int(self.home.clock.seconds() * 1_000_000))


@asynccontextmanager
async def copied(claim: Claim = Claim.ALLOW) -> AsyncIterator[Copied]:
    """Such a homeserver."""
    stores: list[MemoryStore] = []

    def copies(clock: Clock) -> Copies:
        return Copies(stores[0].copies, clock)

    clock = Clock()
    stores.append(MemoryStore(clock))
    peers = {PRIMARY: Peer("alice", PRIMARY, claim=claim)}
    async with served(store=stores[0], copies=copies, trusting=peers) as home:
        stores[0].clock = home.clock
        store, pubky = stores[0], USER.public_key.z32
        standing = LogStanding(Position(LOG_ID, 0, 0, EMPTY), (Reign(LOG_ID, 1),), 0)
        await store.copies.begin(pubky, PRIMARY, 1)
        await store.copies.begin_list(pubky, False, standing)
        assert await store.copies.end_list(pubky, False, standing)
        assert home.copies is not None
        await home.copies.load()
        yield Copied(home, store)


def cookie_of(answer: Answer) -> str:
    """What a client keeps of a sign-up."""
    return (answer.header("set-cookie") or "").partition(";")[0]


@pytest_twisted.ensureDeferred
async def test_a_claim_moves_nothing() -> None:
    """The sign-up works and says how new the copy is; a write waits, and is told to come back."""
    async with copied() as one:
        answer = await one.sign("/signup")
        assert answer.status == 200
        assert answer.header("pubky-mirror") == "seq=0; confirmed=0; state=stale"
        cookie = cookie_of(answer)
        assert (await one.sign("/session")).status == 200
        for method, path in (("PUT", "/pub/a"), ("DELETE", "/pub/a"), ("GET", "/priv/a")):
            before = one.home.clock.seconds()
            answer = await one.ask(method, path, cookie, b"x" if method == "PUT" else None)
            assert (answer.status, answer.header("retry-after")) == (503, "1"), method
            assert one.home.clock.seconds() - before >= WAIT
        assert (await one.ask("GET", "/pub/a")).status == 404
        assert (await one.sign("/signup")).status == 409


@pytest_twisted.ensureDeferred
async def test_a_write_that_waits_goes_through() -> None:
    """When the account opens while a write waits, the write is done here."""
    async with copied() as one:
        cookie = cookie_of(await one.sign("/signup"))
        await one.name(HOMESERVER)
        waiting = Deferred.fromCoroutine(one.ask("PUT", "/pub/a", cookie, b"one"))
        await turns(30)
        assert not waiting.called
        await one.open()
        assert (await waiting).status == 201
        assert (await one.ask("GET", "/pub/a")).body == b"one"
        assert (await one.ask("GET", "/pub/a")).header("pubky-role") is None


@pytest_twisted.ensureDeferred
async def test_a_session_for_less_than_everything_claims_nothing() -> None:
    """Sign-in tokens are for no homeserver in particular: one that an app got must not move an account."""
    async with copied() as one:
        assert (await one.sign("/signup", "/pub/app/:rw")).status == 409


@pytest_twisted.ensureDeferred
async def test_what_the_operator_allows() -> None:
    """`deny`: 409 as ever. `token`: with a signup token of this homeserver, though others need none."""
    async with copied(Claim.DENY) as one:
        assert (await one.sign("/signup")).status == 409
    async with copied(Claim.TOKEN) as one:
        assert (await one.sign("/signup")).status == 400
        token = await one.home.accounts.new_signup_token(UserQuota())
        assert (await one.sign("/signup", token=token.token)).status == 200


@pytest.mark.parametrize(
    ("claim", "capabilities", "refused"),
    [
        (Claim.ALLOW, "/pub/app/:rw", 409),
        (Claim.DENY, "/:rw", 409),
        (Claim.TOKEN, "/:rw", 400),
        (Claim.ALLOW, "/:rw", None),
        (Claim.TOKEN, "/:rw", None),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_is_hidden_is_shown_to_those_who_may_claim_it(
    claim: Claim, capabilities: str, refused: int | None
) -> None:
    """A copy that is erased is seen again when its user signs up, but not for a sign-up that is refused."""
    async with copied(claim) as one:
        store, claims = one.store, one.home.claims
        shown: list[str] = []

        async def show(pubky: str) -> bool:
            shown.append(pubky)
            return await store.erasures.show(pubky)

        assert claims is not None
        claims.show, claims.hidden = show, store.erasures.hidden
        assert await store.erasures.hide(one.pubky, PRIMARY, LOG_ID, 0, 2**52, "name") is Obeyed.HIDDEN
        await claims.copies.refresh(one.pubky)
        token, used = [await one.home.accounts.new_signup_token(UserQuota()) for _ in range(2)]
        await store.sign_up(Account(PRIMARY, 1), None, used.token, True)
        if refused is not None:
            for text in (None, "AAAA-AAAA-AAAA", used.token):
                assert (await one.sign("/signup", capabilities, text)).status in (refused, 401)
            assert shown == []
            assert (await one.ask("GET", "/pub/a")).header("pubky-role") is None
        else:
            assert (await one.sign("/signup", capabilities, token.token)).status == 200
            assert shown == [one.pubky]
            assert (await one.ask("GET", "/pub/a")).header("pubky-role") == "mirror"


@pytest.mark.parametrize("path", ["/session"])
@pytest_twisted.ensureDeferred
async def test_sign_in_is_for_the_primary(path: str) -> None:
    """Nobody signs in at a copy: 421, and where the account lives."""
    async with copied() as one:
        answer = await one.sign(path)
        assert (answer.status, answer.header("pubky-primary")) == (421, PRIMARY)
        assert answer.header("cache-control") == "no-store"
        assert (await one.home.ask("GET", "/session", {"pubky-host": one.pubky})).status == 401


@pytest_twisted.ensureDeferred
async def test_the_record_is_looked_up_before_a_write_is_sent_away() -> None:
    """What is known may be old: the network is asked, once a minute at most."""
    async with copied() as one:
        looks: list[str] = []

        async def look(pubky: str) -> None:
            looks.append(pubky)
            if len(looks) == 2:
                await one.name(HOMESERVER)

        assert one.home.claims is not None
        one.home.claims.look = look
        assert (await one.ask("PUT", "/pub/a", body=b"x")).status == 421
        assert (await one.ask("PUT", "/pub/a", body=b"x")).status == 421
        assert looks == [one.pubky]
        one.home.clock.advance(61)
        assert (await one.ask("PUT", "/pub/a", body=b"x")).status == 503, "it is about to open"
        assert len(looks) == 2


@pytest_twisted.ensureDeferred
async def test_looks_are_few() -> None:
    """Whoever sends writes to many copies makes this homeserver ask the network five times a second, no more."""
    async with copied() as one:
        looks: list[str] = []

        async def look(pubky: str) -> None:
            looks.append(pubky)

        claims = one.home.claims
        assert claims is not None
        claims.look = look
        pubkys = [Keypair(bytes([100 + number]) * 32).public_key.z32 for number in range(12)]
        for pubky in pubkys:
            await one.store.copies.begin(pubky, PRIMARY, 1)
            await claims.copies.refresh(pubky)
        for expected in (LOOKS_A_SECOND, 2 * LOOKS_A_SECOND, 12):
            for pubky in pubkys:
                assert (await one.home.ask("PUT", f"/storage/{pubky}/pub/a", {}, b"x")).status == 421
            assert len(looks) == len(set(looks)) == expected
            one.home.clock.advance(1)


@pytest_twisted.ensureDeferred
async def test_back_at_an_earlier_home() -> None:
    """Whoever lived here before may come back, whatever the operator says of others."""
    async with copied(Claim.DENY) as one:
        user = await one.home.sign_up()
        packet = Builder().https("_pubky", 0, PRIMARY).sign(Keypair((1).to_bytes(32, "big")), 10**18)
        assert one.home.claims is not None
        await one.home.claims.packets.learn(packet)
        await one.home.claims.copies.refresh(user.pubky)
        target = f"/storage/{user.pubky}/pub/a"
        answer = await one.home.ask("PUT", target, user.headers, b"x")
        assert (answer.status, answer.header("pubky-primary")) == (421, PRIMARY)
        await one.home.sign_in(Keypair((1).to_bytes(32, "big")), path="/signup")


@pytest_twisted.ensureDeferred
async def test_a_grant_is_given_back_where_the_account_lives() -> None:
    """Nobody else would hear of it: 421 where the account lived once, 503 where it is about to open."""
    async with copied() as one:
        home, path = one.home, "/auth/grant/session"
        user = await home.sign_up()
        granted = await home.sign_in_by_grant(Keypair((1).to_bytes(32, "big")))
        packet = Builder().https("_pubky", 0, PRIMARY).sign(Keypair((1).to_bytes(32, "big")), 10**18)
        assert home.claims is not None
        await home.claims.packets.learn(packet)
        await home.claims.copies.refresh(user.pubky)
        answer = await home.send_grant("DELETE", path, granted.grant, granted.client)
        assert (answer.status, answer.header("pubky-primary")) == (421, PRIMARY)
        kept = await one.store.grants.grant(granted.grant_id)
        assert kept is not None
        assert not kept.revoked
        cookie = (await home.sign_in(Keypair((1).to_bytes(32, "big")), path="/signup")).cookie
        for method, target in (("DELETE", path), ("DELETE", f"{path}/{granted.grant_id}")):
            if target == path:
                asking = Deferred.fromCoroutine(home.send_grant(method, path, granted.grant, granted.client))
            else:
                headers = {"Cookie": cookie, "pubky-host": user.pubky}
                asking = Deferred.fromCoroutine(home.ask(method, target, headers))
            while not asking.called:
                await turns(5)
                home.clock.advance(0.25)
            assert ((await asking).status, target) == (503, target)
        assert await one.store.grants.grant(granted.grant_id) == kept


@pytest_twisted.ensureDeferred
async def test_the_fence_ends_what_is_private() -> None:
    """When the account moves away its sessions and private streams end; a stream over several users goes on."""
    async with copied() as one:
        home = one.home
        user, other = await home.sign_up(), await home.sign_up()
        granted = await home.sign_in_by_grant(Keypair((1).to_bytes(32, "big")))
        for who, path in ((user, "/priv/old"), (user, "/pub/old"), (other, "/pub/old")):
            assert (await home.ask("PUT", f"/storage/{who.pubky}{path}", who.headers, b"x")).status == 201
        home.clock.advance(0)
        private = f"user={user.pubky}&path=/priv/&live=true"
        async with (
            following(home.port, private, {"Cookie": user.cookie}) as by_cookie,
            following(home.port, private, granted.headers) as by_grant,
            following(home.port, f"user={user.pubky}&user={other.pubky}&live=true", {}) as public,
        ):
            await until(lambda: by_cookie.has("/priv/old") and by_grant.has("/priv/old") and public.has("/pub/old"))
            packet = Builder().https("_pubky", 0, PRIMARY).sign(Keypair((1).to_bytes(32, "big")), 10**18)
            assert home.claims is not None
            await home.claims.packets.learn(packet)
            await home.claims.copies.refresh(user.pubky)
            await until(lambda: by_cookie.ended and by_grant.ended)
            assert (await home.ask("PUT", f"/storage/{other.pubky}/pub/new", other.headers, b"x")).status == 201
            home.clock.advance(0)
            await until(lambda: public.has("/pub/new"))
        for headers in (user.headers, {**granted.headers, "pubky-host": user.pubky}):
            assert (await home.ask("GET", "/session", headers)).status == 401
            answer = await home.ask("GET", f"/storage/{user.pubky}/priv/old", headers)
            assert answer.status == 401
        assert (await home.ask("GET", f"/storage/{user.pubky}/pub/old")).body == b"x"


@pytest_twisted.ensureDeferred
async def test_events_of_a_claimed_copy() -> None:
    """An account that never lived here is unknown to streams until it opens; then they tell of it."""
    async with copied() as one:
        target = f"/events-stream?user={one.pubky}"
        assert (await one.home.ask("GET", target)).status == 404
        cookie = cookie_of(await one.sign("/signup"))
        other = await one.home.sign_up()
        for more in ("", f"&user={other.pubky}", "&live=true"):
            assert (await one.home.ask("GET", target + more)).status == 404
        await one.name(HOMESERVER)
        await one.open()
        await one.ask("PUT", "/pub/a", cookie, b"x")
        answer = await one.home.ask("GET", target)
        assert answer.status == 200
        assert b"/pub/a" in answer.body


@pytest_twisted.ensureDeferred
async def test_private_events_wait_for_the_record() -> None:
    """Who claims an account at an earlier home of it reads nothing private before the record says so; then they do."""
    async with copied() as one:
        home, keypair = one.home, Keypair((1).to_bytes(32, "big"))
        user = await home.sign_up()
        for path in ("/priv/old", "/pub/old"):
            assert (await home.ask("PUT", f"/storage/{user.pubky}{path}", user.headers, b"x")).status == 201
        assert home.claims is not None
        await home.claims.packets.learn(Builder().https("_pubky", 0, PRIMARY).sign(keypair, 10**18))
        await home.claims.copies.refresh(user.pubky)
        again = await home.sign_in(keypair, path="/signup")
        await home.claims.copies.refresh(user.pubky)
        public = await home.ask("GET", f"/events-stream?user={user.pubky}")
        assert b"/pub/old" in public.body

        async def private() -> Answer:
            asking = Deferred.fromCoroutine(
                home.ask("GET", f"/events-stream?user={user.pubky}&path=/priv/", again.headers)
            )
            began = home.clock.seconds()
            while not asking.called:
                await turns(5)
                home.clock.advance(0.25)
                assert home.clock.seconds() - began < 2 * WAIT
            return await asking

        answer = await private()
        assert (answer.status, answer.header("retry-after")) == (503, "1")
        assert b"/priv/old" not in answer.body
        packet = Builder().https("_pubky", 0, HOMESERVER).sign(keypair, 10**18 + 1)
        await home.claims.packets.learn(packet)
        assert await one.store.moves.open(user.pubky, packet.relay_payload, int(home.clock.seconds() * 1_000_000))
        answer = await private()
        assert answer.status == 200
        assert b"/priv/old" in answer.body
