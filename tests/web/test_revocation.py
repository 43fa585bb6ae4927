"""Signing out ends what is open: private streams end with the credential that they were opened with, and only they."""

import json
from collections.abc import Mapping
from urllib.parse import quote

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from pkarr.keys import Keypair
from pubky_homeserver.store.memory import MemoryStore
from tests.web.served import Granted, Served, User, served
from tests.web.sockets import turns, until
from tests.web.streams import following

PRIVATE = "path=/priv/&live=true"


def cookie(user: User) -> Mapping[str, str]:
    """A stream is asked of the homeserver, not of the user: the cookie alone."""
    return {"Cookie": user.cookie}


async def put(server: Served, who: User | Granted, path: str) -> None:
    """Write a file."""
    assert (await server.ask("PUT", f"/storage/{who.pubky}{path}", who.headers, b"x")).status == 201
    server.clock.advance(0)  # wake the feed


async def refused(server: Served, query: str, headers: Mapping[str, str]) -> tuple[int, str]:
    """What a stream is refused with."""
    answer = await server.ask("GET", f"/events-stream?{query}", dict(headers))
    return answer.status, answer.text


@pytest_twisted.ensureDeferred
async def test_a_cookie() -> None:
    """Sign-out ends the private streams of that session, mixed ones whole; other sessions and public streams go on."""
    async with served() as server:
        user = await server.sign_up()
        server.clock.advance(1)
        other = await server.sign_in(Keypair((1).to_bytes(32, "big")))
        await put(server, user, "/priv/old")
        query = f"user={user.pubky}&{PRIVATE}"
        async with (
            following(server.port, query, cookie(user)) as private,
            following(server.port, f"{query}&path=/pub/", cookie(user)) as mixed,
            following(server.port, query, cookie(other)) as others,
            following(server.port, f"user={user.pubky}&live=true", cookie(user)) as public,
        ):
            await until(lambda: private.has("/priv/old") and mixed.has("/priv/old") and others.has("/priv/old"))
            assert (await server.ask("DELETE", "/session", user.headers)).status == 200
            await until(lambda: private.ended and mixed.ended)
            assert not others.ended
            await put(server, other, "/priv/new")
            await put(server, other, "/pub/new")
            await until(lambda: others.has("/priv/new") and public.has("/pub/new"))
            assert not private.has("/priv/new")
            assert not mixed.has("/pub/new")
            assert await refused(server, query, cookie(user)) == (
                401,
                "Authentication required to read private storage",
            )


@pytest.mark.parametrize("way", ["bearer", "proof", "list"])
@pytest_twisted.ensureDeferred
async def test_a_grant(way: str) -> None:
    """Revoking a grant, in each of the three ways, ends its private streams; another grant's go on."""
    async with served() as server:
        granted = await server.sign_up_by_grant()
        other = await server.sign_in_by_grant(granted.user, "/:rw")
        query = f"user={granted.pubky}&{PRIVATE}"
        async with (
            following(server.port, query, granted.headers) as private,
            following(server.port, query, other.headers) as others,
        ):
            await put(server, granted, "/priv/a")
            await until(lambda: private.has("/priv/a") and others.has("/priv/a"))
            if way == "bearer":
                answer = await server.ask("DELETE", "/auth/grant/session", granted.headers)
            elif way == "proof":
                answer = await server.send_grant("DELETE", "/auth/grant/session", granted.grant, granted.client)
            else:
                answer = await server.ask("DELETE", f"/auth/grant/session/{granted.grant_id}", other.headers)
            assert (answer.status, answer.body) == (200, b"")
            await until(lambda: private.ended)
            await put(server, other, "/priv/b")
            await until(lambda: others.has("/priv/b"))
            assert not private.has("/priv/b")
            assert (await server.ask("GET", f"/storage/{granted.pubky}/priv/a", granted.headers)).status == 401


@pytest_twisted.ensureDeferred
async def test_what_does_not_end_a_stream() -> None:
    """A new bearer of the same grant, the bearer's hour, and disabling the account leave open streams open."""
    async with served() as server:
        granted = await server.sign_up_by_grant()
        query = f"user={granted.pubky}&{PRIVATE}"
        async with following(server.port, query, granted.headers) as private:
            answer = await server.send_grant("POST", "/auth/grant/session", granted.grant, granted.client)
            fresh = Granted(granted.user, granted.client, granted.grant, granted.grant_id, _token(answer.body))
            await put(server, fresh, "/priv/a")
            await until(lambda: private.has("/priv/a"))
            assert (await refused(server, query, granted.headers))[0] == 401, "the old bearer opens none"
            server.clock.advance(4000)
            await server.store.set_disabled(granted.pubky, True)
            await turns()
            assert not private.ended
            assert (await refused(server, query, fresh.headers))[0] == 401


@pytest_twisted.ensureDeferred
async def test_revoked_while_a_stream_opens() -> None:
    """A revocation between the first look at the session and the first event is not missed."""
    async with served() as server:
        user = await server.sign_up()
        await put(server, user, "/priv/a")
        query = f"user={user.pubky}&{PRIVATE}"
        gate: Deferred[None] = Deferred()
        accounts = server.store.account

        async def account(pubky: str) -> object:
            await gate
            return await accounts(pubky)

        server.feed.accounts = _Gated(server.store, account)  # type: ignore[assignment]
        opening = Deferred.fromCoroutine(server.ask("GET", f"/events-stream?{query}", dict(cookie(user))))
        await turns()
        assert not gate.called
        assert (await server.ask("DELETE", "/session", user.headers)).status == 200
        gate.callback(None)
        answer = await opening
        assert answer.status == 200
        assert answer.body == b""


@pytest_twisted.ensureDeferred
async def test_while_revocations_cannot_be_heard() -> None:
    """Then private streams end and new ones are refused with 503; public ones are served; afterwards all is well."""
    async with served() as server:
        user = await server.sign_up()
        query = f"user={user.pubky}&{PRIVATE}"
        async with (
            following(server.port, query, cookie(user)) as private,
            following(server.port, f"user={user.pubky}&live=true", {}) as public,
        ):
            server.store.is_deaf = True
            server.store._tell(None)
            await until(lambda: private.ended)
            answer = await server.ask("GET", f"/events-stream?{query}", dict(cookie(user)))
            assert (answer.status, answer.text) == (503, "Private event streams are temporarily unavailable")
            assert answer.header("cache-control") == "no-store"
            await put(server, user, "/pub/a")
            await until(lambda: public.has("/pub/a"))
            server.store.is_deaf = False
            async with following(server.port, query, cookie(user)) as again:
                await put(server, user, "/priv/a")
                await until(lambda: again.has("/priv/a"))


@pytest_twisted.ensureDeferred
async def test_credentials_of_a_stream() -> None:
    """Private streams take a bearer or the cookie of the one user; a bearer that is shown, good or bad, rules alone."""
    async with served() as server:
        user, granted = await server.sign_up(), await server.sign_up_by_grant("/priv/app/:r,/pub/:rw")
        mine = f"user={granted.pubky}&path=/priv/app/"
        missing = (401, "Authentication required to read private storage")
        both = {"Cookie": user.cookie, "pubky-host": user.pubky}
        for bad in ("Bearer x", "Bearer " + "A" * 43, "Bearer \xff"):
            shown = both | {"Authorization": bad}
            assert await refused(server, f"user={user.pubky}&path=/priv/", shown) == missing
        for other in ("Basic x", "bearer " + granted.bearer, "Bearer"):
            assert (await refused(server, f"user={user.pubky}&path=/priv/", both | {"Authorization": other}))[0] == 200
        assert (await refused(server, mine, granted.headers))[0] == 200
        assert await refused(server, f"user={granted.pubky}&path=/priv/", granted.headers) == (
            403,
            "Session does not have read access to path",
        )
        assert await refused(server, f"user={user.pubky}&path=/priv/app/", granted.headers) == (
            403,
            "Session user does not match target tenant",
        )
        two = f"{mine}&user={user.pubky}"
        assert await refused(server, two, granted.headers) == (
            403,
            "A private read must be scoped to exactly one user",
        )
        assert await refused(server, f"user={user.pubky}&user={user.pubky}&path=/priv/", both) == missing
        assert await refused(server, mine, {"Cookie": f"{granted.pubky}={user.cookie.partition('=')[2]}"}) == missing
        union = f"{mine}&path={quote('/pub/')}"
        assert (await refused(server, union, granted.headers))[0] == 200


class _Gated:
    """A store whose accounts are slow."""

    def __init__(self, store: MemoryStore, account: object) -> None:
        self.store, self.account = store, account


def _token(body: bytes) -> str:
    return str(json.loads(body)["token"])
