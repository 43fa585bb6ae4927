"""Sign-up, sign-in and sessions over HTTP, beyond the recorded answers: cookies, tokens, limits, CORS, counts."""

import pytest
import pytest_twisted

from pkarr.keys import Keypair
from pubky_homeserver.core.records import SignupToken
from pubky_homeserver.core.tokens import decode_session, sign_auth_token
from tests.web.served import HOMESERVER, NOW, Served, User, served

TOKEN = "AAAA-BBBB-CCCC"
CORS_VARY = "origin, access-control-request-method, access-control-request-headers"


async def who_am_i(server: Served, user: User, headers: list[tuple[str, str]]) -> int:
    """The status of the session that these headers show."""
    return (await server.ask("GET", "/session", [("pubky-host", user.pubky), *headers])).status


@pytest_twisted.ensureDeferred
async def test_cookies() -> None:
    """The cookie is found among others, in several lines, percent-encoded; the last of its name counts, exactly."""
    async with served() as server:
        user = await server.sign_up()
        name, _, secret = user.cookie.partition("=")
        encoded = "".join(f"%{ord(one):02X}" for one in secret)
        for cookies, status in (
            ([f"a=b; {name}={secret}; c=d"], 200),
            (["a=b", f"{name}={secret}"], 200),
            ([f"{name}=wrong; {name}={secret}"], 200),
            ([f"{name}={secret}; {name}=wrong"], 401),
            ([f"{name}={encoded}"], 200),
            ([f'{name}="{secret}"'], 401),
            ([f"{name}={secret.lower()}"], 401),
            ([f"{name}={secret[:-1]}"], 401),
            ([f"x{name}={secret}"], 401),
            ([f"{name}"], 401),
            ([], 401),
        ):
            assert await who_am_i(server, user, [("Cookie", one) for one in cookies]) == status, cookies


@pytest_twisted.ensureDeferred
async def test_sessions_live_side_by_side() -> None:
    """Each sign-in is a session of its own; signing one out leaves the others, and its credential is dead at once."""
    async with served() as server:
        first = await server.sign_up()
        second = await server.sign_in(Keypair((1).to_bytes(32, "big")), "/pub/a/:wr,/pub/b:r")
        body = (await server.ask("GET", "/session", second.headers)).body
        pubky, created, capabilities = decode_session(body)
        assert (pubky, [str(one) for one in capabilities]) == (first.pubky, ["/pub/a/:rw", "/pub/b:r"])
        assert created == int(NOW), "seconds here"
        out = await server.ask("DELETE", "/session", second.headers)
        assert (out.status, out.body) == (200, b"")
        assert out.header("set-cookie") == (
            f"{first.pubky}=; HttpOnly; Path=/; Max-Age=0; Expires=Sat, 22 Nov 2025 22:49:07 GMT"
        )
        assert await who_am_i(server, first, [("Cookie", second.cookie)]) == 401
        assert await who_am_i(server, first, [("Cookie", first.cookie)]) == 200
        target = f"/storage/{first.pubky}/pub/a/x"
        assert (await server.ask("PUT", target, {"Cookie": second.cookie}, b"")).status == 401


@pytest_twisted.ensureDeferred
async def test_secrets_rest_as_hashes() -> None:
    """What the store keeps of a session does not open it."""
    async with served() as server:
        user = await server.sign_up()
        secret = user.cookie.partition("=")[2]
        assert secret not in repr(server.store._sessions)
        assert user.session.id in server.store._sessions


@pytest_twisted.ensureDeferred
async def test_a_token_is_burned_even_if_nothing_comes_of_it() -> None:
    """A sign-in token works once, also where the sign-in itself is refused."""
    async with served() as server:
        token = sign_auth_token(Keypair(bytes([5]) * 32), "/:rw", int(NOW * 1_000_000))
        assert (await server.ask("POST", "/session", body=token)).status == 404
        again = await server.ask("POST", "/signup", body=token)
        assert (again.status, again.text) == (400, "AuthToken already used")
        server.clock.advance(359)
        assert (await server.ask("POST", "/signup", body=token)).text == (
            "AuthToken has a timestamp that is more than 3 minutes in the past"
        )


@pytest_twisted.ensureDeferred
async def test_signup_tokens_are_spent_once() -> None:
    """The last of a repeated parameter counts; a used token lets nobody else in; its quota is the account's."""
    async with served(token_required=True) as server:
        await server.store.add_signup_token(SignupToken(TOKEN, 1))
        token = sign_auth_token(Keypair(bytes([5]) * 32), "/:rw", int(NOW * 1_000_000))
        url = f"/signup?signup_token=ABCD-EFGH-JKMN&signup_token={TOKEN}"
        assert (await server.ask("POST", url, body=token)).status == 200
        server.clock.advance(1)
        other = sign_auth_token(Keypair(bytes([6]) * 32), "/:rw", int((NOW + 1) * 1_000_000))
        refused = await server.ask("POST", f"/signup?signup_token={TOKEN}", body=other)
        assert (refused.status, refused.text) == (401, "Token already used")
        status = await server.ask("GET", f"/signup_tokens/{TOKEN}")
        assert '"status":"used"' in status.text


@pytest_twisted.ensureDeferred
async def test_look_ups_of_signup_tokens_are_limited() -> None:
    """Ten in a minute for an address, then 429 with the time to wait; HEAD is not counted, other paths are free."""
    async with served(token_required=True) as server:
        for _ in range(5):
            assert (await server.ask("HEAD", f"/signup_tokens/{TOKEN}")).status == 405
        for _ in range(10):
            assert (await server.ask("GET", f"/signup_tokens/{TOKEN}")).status == 404
        limited = await server.ask("GET", f"/signup_tokens/{TOKEN}", {"Origin": "https://a.example"})
        assert (limited.status, limited.text) == (429, "Rate limit exceeded")
        assert limited.header("retry-after") == "6"
        assert limited.header("access-control-expose-headers") == "retry-after,lock-token,timeout"
        assert (await server.ask("GET", "/info")).status == 200
        server.clock.advance(6)
        assert (await server.ask("GET", f"/signup_tokens/{TOKEN}")).status == 404
        assert (await server.ask("GET", f"/signup_tokens/{TOKEN}")).status == 429


@pytest.mark.parametrize("path", ["/", "/session", "/storage/x", f"/storage/{HOMESERVER}/pub/x", "/pub/x", "/any"])
@pytest_twisted.ensureDeferred
async def test_cors(path: str) -> None:
    """Any `OPTIONS` is 200 and allows what was asked for; any other answer may be read by the page that asked."""
    async with served() as server:
        asked = {
            "Origin": "https://app.example",
            "Access-Control-Request-Method": "PUT",
            "Access-Control-Request-Headers": "x-a,x-b",
        }
        answer = await server.ask("OPTIONS", path, asked)
        assert (answer.status, answer.body) == (200, b"")
        for name, value in (
            ("access-control-allow-origin", "https://app.example"),
            ("access-control-allow-methods", "PUT"),
            ("access-control-allow-headers", "x-a,x-b"),
            ("access-control-allow-credentials", "true"),
            ("access-control-expose-headers", None),
        ):
            assert answer.header(name) == value
        plain = await server.ask("GET", path, {"Origin": "https://app.example"})
        assert plain.header("access-control-allow-origin") == "https://app.example"
        assert plain.all("vary")[-1] == CORS_VARY
        assert (await server.ask("GET", path)).header("access-control-allow-origin") is None


@pytest_twisted.ensureDeferred
async def test_storage_requests_are_counted() -> None:
    """One sample for each combination of labels, and none for what names no account."""
    async with served() as server:
        user, other = await server.sign_up(), await server.sign_up()
        path = f"/storage/{user.pubky}/pub/x"
        await server.ask("PUT", f"{path}?pubky-host={user.pubky}", user.headers, b"")
        await server.ask("GET", "/pub/x", {"pubky-host": user.pubky})
        await server.ask("GET", path, {"pubky-host": other.pubky})
        await server.ask("GET", f"/pub/x?pubky-host={user.pubky}")
        await server.ask("GET", "/favicon.ico")
        lines = [
            one for one in server.metrics.render().decode().splitlines() if one.startswith("storage_request_count")
        ]
        scope = 'otel_scope_name="pubky_homeserver"} 1'
        assert sorted(line.partition("{")[2] for line in lines) == sorted(
            f'addressing_mode="{mode}",auth_method="{auth}",pubky_host_header="{header}",pubky_host_query="{query}",{scope}'
            for mode, auth, header, query in (
                ("path", "cookie", "matching", "true"),
                ("legacy", "none", "matching", "false"),
                ("path", "none", "other", "false"),
                ("legacy", "none", "absent", "true"),
            )
        )
        text = server.metrics.render().decode()
        assert user.pubky not in text
        assert 'signup_count_total{otel_scope_name="pubky_homeserver"} 2' in text
