"""What the reference project's own tests assert of addresses, rights and every answer, asked over HTTP.

`tests/behaviours.toml` tells which test is for which line.
"""

import re

import pytest
import pytest_twisted

from pkarr.keys import Keypair
from tests.web.served import Served, served
from tests.web.sockets import until
from tests.web.somebody import At, somebody, status
from tests.web.streams import following

# --- A7, B: addressing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "alias", ["/pub/report%20", "/pub/report%C2%A0", "/pub/report%E3%80%80", "/pub/s/%5C..%5Creport"]
)
@pytest_twisted.ensureDeferred
async def test_aliases(alias: str) -> None:
    """A path that is not canonical is no other way to write a file that is."""
    async with served() as server:
        alice = await somebody(server)
        await alice.put("/pub/report", b"1")
        await alice.put("/pub/s/report", b"2")
        for method in ("PUT", "DELETE"):
            assert await status(server, method, f"/storage/{alice.key}{alias}", alice.who.headers) == 400
            assert await status(server, method, alias, alice.who.headers) == 400
        assert (await alice.get("/pub/report"), await alice.get("/pub/s/report")) == (b"1", b"2")


@pytest_twisted.ensureDeferred
async def test_addressing() -> None:
    """The path's owner counts in the newer form whatever else names somebody; in the older one the header does."""
    async with served() as server:
        alice, bob = await somebody(server), await somebody(server)
        target = f"/storage/{alice.key}/pub/a"
        cookie = {"Cookie": alice.who.headers["Cookie"]}
        assert await status(server, "PUT", target) == 401
        for fields, query in (
            ({}, ""),
            ({"pubky-host": bob.key}, ""),
            ({}, f"?pubky-host={bob.key}"),
            ({"pubky-host": bob.key}, f"?pubky-host={bob.key}"),
        ):
            assert await status(server, "PUT", target + query, cookie | fields, bob.key) == 201
            for method in ("GET", "HEAD"):
                answer = await server.ask(method, target + query, fields, host=bob.key)
                assert (answer.status, "pubky-host" in str(answer.all("vary"))) == (200, False)
        assert await bob.get("/pub/a") is None
        legacy = await server.ask("GET", "/pub/a", {"pubky-host": alice.key})
        assert (legacy.body, "pubky-host" in str(legacy.all("vary"))) == (b"x", True)
        assert await status(server, "PUT", "/pub/b", alice.who.headers) == 201
        assert await alice.get("/pub/b") == b"x"
        assert await status(server, "DELETE", "/pub/b", alice.who.headers) == 204
        assert await alice.get("/pub/b") is None
        assert await alice.delete("/pub/a") == 204
        assert await status(server, "GET", "/pub/a", {"pubky-host": alice.key}) == 404


@pytest.mark.parametrize(
    "target",
    ["/storage", "/storage/", "/storage/short", "/storage/short/pub/x", "/storage/pubky{k}/pub/x", "/storage/{k}/"],
)
@pytest_twisted.ensureDeferred
async def test_addresses_that_are_none(target: str) -> None:
    """A malformed address is 400, and a page may read that."""
    async with served() as server:
        alice = await somebody(server)
        for one in (target.replace("{k}", alice.key), f"/storage/{'0' * 52}/pub/x"):
            answer = await server.ask("GET", one, {"Origin": "https://app.example"})
            assert (answer.status, answer.header("access-control-allow-origin")) == (400, "https://app.example")


@pytest_twisted.ensureDeferred
async def test_what_is_counted() -> None:
    """One sample for each combination of labels; a request that names nobody adds none; no label names anybody."""
    async with served() as server:
        alice, bob = await somebody(server), await somebody(server)
        cookie = {"Cookie": alice.who.headers["Cookie"]}
        new = f"/storage/{alice.key}/pub/a"
        assert await status(server, "GET", "/favicon.ico") == 400
        await server.ask("PUT", f"{new}?pubky-host={alice.key}", cookie | {"pubky-host": alice.key}, b"x")
        await server.ask("GET", "/pub/a", {"pubky-host": alice.key})
        await server.ask("GET", new, {"pubky-host": bob.key})
        await server.ask("GET", f"/pub/a?pubky-host={alice.key}")
        text = server.metrics.render().decode()
        samples = re.findall(r"storage_request_count_total\{(.*),otel.*\} 1", text)
        assert sorted(samples) == sorted(
            f'addressing_mode="{mode}",auth_method="{auth}",pubky_host_header="{header}",pubky_host_query="{query}"'
            for mode, auth, header, query in (
                ("path", "cookie", "matching", "true"),
                ("legacy", "none", "matching", "false"),
                ("path", "none", "other", "false"),
                ("legacy", "none", "absent", "true"),
            )
        )
        assert 'signup_count_total{otel_scope_name="pubky_homeserver"} 2' in text
        for secret in (alice.key, bob.key, "/pub/a", cookie["Cookie"].partition("=")[2]):
            assert secret not in text


@pytest_twisted.ensureDeferred
async def test_open_streams_are_counted() -> None:
    """The gauge follows the clients that come and go."""

    def gauge(server: Served) -> str:
        found = re.search(r"event_stream_active_connections\{.*\} (\S+)", server.metrics.render().decode())
        return found[1] if found else ""

    async with served() as server:
        alice = await somebody(server)
        query = f"user={alice.key}&live=true"
        async with following(server.port, query, {}):
            async with following(server.port, query, {}):
                await until(lambda: gauge(server) in ("2", "2.0"))
            await until(lambda: gauge(server) in ("1", "1.0"))
        await until(lambda: gauge(server) in ("0", "0.0"))
        assert await status(server, "GET", f"/events-stream?user={alice.key}:x") == 400
        assert gauge(server) in ("0", "0.0")


# --- C: who may ---------------------------------------------------------------------------------------------------

RIGHTS: list[tuple[str, str, str, int]] = [
    ("", "PUT", "/pub/a", 403),
    ("/pub/:r", "PUT", "/pub/a", 403),
    ("/pub/:e,/priv/:e", "PUT", "/pub/a", 403),
    ("/pub/:e,/priv/:e", "GET", "/priv/a", 403),
    ("/:rw", "PUT", "/pub/x/y", 201),
    ("/:rw", "PUT", "/priv/x/y", 201),
    ("/pub/my.app/:rw", "PUT", "/pub/my.app/x/y", 201),
    ("/pub/my.app/:rw", "PUT", "/pub/other/x", 403),
    ("/pub/app:rw", "PUT", "/pub/app", 201),
    ("/pub/app:rw", "PUT", "/pub/app-evil/file", 403),
    ("/pub/app:rw", "PUT", "/pub/app/foo", 403),
    ("/pub/app/:rw", "PUT", "/pub/app", 403),
    ("/:rw", "PUT", "/foo/x", 403),
    ("/:rw", "LOCK", "/other/x", 403),
    ("/:rw", "PUT", "/pub/x/", 400),
    ("/:rw", "DELETE", "/pub/x/", 400),
    ("/priv/:w", "GET", "/priv/a", 403),
    ("/priv/:r", "GET", "/priv/a", 404),
    ("/:rw", "GET", "/priv/a", 404),
    ("/priv/app/:r", "GET", "/priv/other/x", 403),
    ("/priv/app/:r", "GET", "/priv/", 403),
    ("/:rw", "GET", "/foo/x", 403),
    ("", "GET", "/pub/a", 404),
]


@pytest.mark.parametrize("family", ["cookie", "grant"], indirect=True)
@pytest.mark.parametrize(("capabilities", "method", "path", "expected"), RIGHTS)
@pytest_twisted.ensureDeferred
async def test_rights(capabilities: str, method: str, path: str, expected: int, family: str) -> None:
    """A capability reaches as far as its scope says, in both families of sign-in."""
    async with served() as server:
        alice = await somebody(server, capabilities)
        answer = await alice.ask(method, path, b"x" if method == "PUT" else None)
        assert answer.status == expected, answer


PRIVATE_ANSWER = (None, None, "no-store", "Authorization, Cookie")
"""Tag, time, caching and variation of any refusal about a private path."""


@pytest_twisted.ensureDeferred
async def test_nothing_private_shows() -> None:
    """Who may not read a private path gets one answer, whether something is there or not, for every method."""
    async with served() as server:
        owner = await server.sign_up_by_grant("/priv/app/:rw")
        alice = At(server, owner)
        narrow = await server.sign_in_by_grant(owner.user, "/priv/else/:rw")
        stranger = await server.sign_up_by_grant()
        assert await alice.put("/priv/app/there") == 201
        tag = (await alice.ask("HEAD", "/priv/app/there")).header("etag") or ""
        for headers, expected in (({}, 401), (narrow.headers, 403), (stranger.headers, 403)):
            for method in ("GET", "HEAD", "PUT", "DELETE"):
                paths = ["/priv/app/there", "/priv/app/absent"]
                if method in ("GET", "HEAD"):
                    paths += ["/priv/app/", "/priv/none/"]
                seen = set()
                for path in paths:
                    for condition in ({}, {"If-None-Match": tag}):
                        body = b"x" if method == "PUT" else None
                        answer = await server.ask(method, f"/storage/{alice.key}{path}", headers | condition, body)
                        names = ("etag", "last-modified", "cache-control", "vary")
                        assert tuple(map(answer.header, names)) == PRIVATE_ANSWER, (method, path)
                        fields = tuple(field for field in answer.headers if field[0] != "date")
                        seen.add((answer.status, answer.body, fields))
                assert {one[0] for one in seen} == {expected}
                assert len(seen) == 1, (method, seen)
        assert await alice.get("/priv/app/there") == b"hello"
        nobody = Keypair(bytes([200]) * 32).public_key.z32
        assert await status(server, "GET", f"/storage/{nobody}/priv/a") == 401
        assert await status(server, "GET", f"/storage/{nobody}/pub/a") == 404


@pytest.mark.parametrize("family", ["cookie", "grant"], indirect=True)
@pytest_twisted.ensureDeferred
async def test_a_private_file_from_beginning_to_end(family: str) -> None:
    """The owner writes, reads, lists and deletes below `/priv/` as below `/pub/`; what is not there is 404."""
    async with served() as server:
        alice = await somebody(server)
        assert await alice.put("/pub/b") == 201
        for path in ("/priv/app/a", "/pub/app/a"):
            for method in ("GET", "HEAD", "DELETE"):
                assert (await alice.ask(method, path)).status == 404
            assert await alice.put(path) == 201
            assert await alice.get(path) == b"hello"
            assert (await alice.ask("HEAD", path)).status == 200
        assert await alice.lines("/priv/app/") == ["/priv/app/a"]
        assert await alice.lines("/priv/") == ["/priv/app/a"]
        assert await alice.lines("/pub/") == ["/pub/app/a", "/pub/b"]
        assert await alice.delete("/priv/app/a") == 204
        assert (await alice.ask("GET", "/priv/app/a")).status == 404
        assert (await alice.ask("GET", "/priv/app/")).status == 404


@pytest_twisted.ensureDeferred
async def test_a_revoked_credential_opens_nothing() -> None:
    """After sign-out, or after its grant was revoked, a credential is worth nothing at the next request."""
    async with served() as server:
        alice = await somebody(server)
        granted = At(server, await server.sign_up_by_grant())
        await server.ask("DELETE", "/session", alice.who.headers)
        await server.ask("DELETE", "/auth/grant/session", granted.who.headers)
        for one in (alice, granted):
            assert (await one.ask("GET", "/priv/a")).status == 401
            assert await one.put("/pub/a") == 401


# --- P: HTTP ------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_what_a_client_says_of_its_address_means_nothing() -> None:
    """Without a trusted proxy a limit is by the connection's address, whatever the fields of forwarding say."""
    async with served(token_required=True) as server:
        statuses = []
        for number in range(11):
            claimed = dict.fromkeys(("X-Forwarded-For", "X-Real-IP"), f"192.0.2.{number}")
            claimed["Forwarded"] = f"for=192.0.2.{number}"
            statuses.append(await status(server, "GET", "/signup_tokens/AAAA-BBBB-CCCC", claimed))
        assert statuses == [404] * 10 + [429]


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("HEAD", "/signup_tokens/invalid", 405),
        ("DELETE", "/signup_tokens/invalid", 405),
        ("HEAD", "/events-stream", 405),
        ("DELETE", "/events-stream", 405),
        ("GET", "/", 200),
        ("GET", "/info", 200),
        ("GET", "/storage", 400),
        ("GET", "/session", 401),
    ],
)
@pytest_twisted.ensureDeferred
async def test_every_answer_may_be_read_by_a_page(method: str, target: str, expected: int) -> None:
    """Refusals too carry the fields of CORS; a path without HEAD says what it has."""
    async with served() as server:
        answer = await server.ask(method, target, {"Origin": "https://app.example"})
        assert answer.status == expected
        assert answer.header("access-control-allow-origin") == "https://app.example"
        assert answer.header("access-control-expose-headers") == "retry-after,lock-token,timeout"
        if expected == 405:
            assert (answer.header("allow"), answer.body) == ("GET", b"")


# --- J: websites --------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_types_of_a_site() -> None:
    """Each kind of file of a site has its type; HEAD says the same as GET, and sends nothing."""
    async with served() as server:
        alice = await somebody(server)
        for name, kind in (
            ("a.html", "text/html"),
            ("a.css", "text/css"),
            ("a.js", "text/javascript"),
            ("a.mjs", "application/javascript"),
            ("a.wasm", "application/wasm"),
            ("a.svg", "image/svg+xml"),
        ):
            assert await alice.put(f"/pub/website/_/{name}", b"a" * 10) == 201
            answers = [await server.ask(method, f"/{name}", host=alice.key) for method in ("GET", "HEAD")]
            for answer in answers:
                assert (answer.status, answer.header("content-type")) == (200, kind)
                assert answer.header("content-length") == "10"
            assert answers[0].header("etag") == answers[1].header("etag") is not None
            assert [answer.body for answer in answers] == [b"a" * 10, b""]


@pytest_twisted.ensureDeferred
async def test_older_reads_by_host() -> None:
    """A host that names a user, of its site or of its data, is still read in the older form."""
    async with served() as server:
        alice = await somebody(server)
        assert await alice.put("/pub/a") == 201
        for host in (alice.key, f"_pubky.{alice.key}"):
            for fields in ({}, {"pubky-host": alice.key}):
                answer = await server.ask("GET", "/pub/a", fields, host=host)
                assert (answer.status, answer.body, answer.all("vary")[0]) == (200, b"hello", "pubky-host")
