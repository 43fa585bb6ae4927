"""What the reference project's own tests assert of a homeserver, asked over HTTP, a line at a time.

`tests/behaviours.txt` tells which test is for which line.
"""

import re
from base64 import b64decode
from collections.abc import Mapping
from typing import Any

import pytest
import pytest_twisted
from attrs import frozen
from blake3 import blake3
from twisted.internet.defer import Deferred, gatherResults

from pkarr.keys import Keypair
from pubky_homeserver.core.quotas import UserQuota
from tests.web.client import Answer
from tests.web.served import Granted, Served, User, served
from tests.web.sockets import turns, until
from tests.web.streams import following, sending

MIB = 1024 * 1024


@frozen
class At:
    """Somebody at a homeserver, with short words for requests."""

    server: Served
    who: User | Granted

    @property
    def key(self) -> str:
        """Whose files."""
        return self.who.pubky

    async def ask(self, method: str, path: str, body: bytes | None = None, **fields: str) -> Answer:
        """A request for a path of the own storage, in the newer form."""
        return await self.server.ask(method, f"/storage/{self.key}{path}", dict(self.who.headers) | fields, body)

    async def put(self, path: str, body: bytes = b"hello") -> int:
        """Write; the status."""
        answer = await self.ask("PUT", path, body)
        self.server.clock.advance(0)  # wake the feed
        return answer.status

    async def delete(self, path: str) -> int:
        """Delete; the status."""
        answer = await self.ask("DELETE", path)
        self.server.clock.advance(0)
        return answer.status

    async def get(self, path: str) -> bytes | None:
        """Read; None if nothing is there."""
        answer = await self.ask("GET", path)
        return answer.body if answer.status == 200 else None

    async def lines(self, query: str) -> list[str]:
        """A listing: what stands after the key, line by line."""
        answer = await self.ask("GET", query)
        assert answer.status == 200, answer
        return [line.removeprefix(f"pubky://{self.key}") for line in answer.text.split("\n") if line]

    async def used(self) -> int:
        """Bytes that the account uses."""
        account = await self.server.store.account(self.key)
        assert account is not None
        return account.used


async def somebody(server: Served, capabilities: str = "/:rw") -> At:
    """A new user."""
    return At(server, await server.sign_up(capabilities))


async def status(server: Served, method: str, target: str, headers: Mapping[str, str] | None = None) -> int:
    """The status of a request."""
    return (await server.ask(method, target, dict(headers or {}), b"x" if method == "PUT" else None)).status


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
            assert await status(server, "PUT", target + query, cookie | fields) == 201
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


@pytest_twisted.ensureDeferred
async def test_nothing_private_shows() -> None:
    """Who may not read a private path gets one answer, whether something is there or not, for every method."""
    async with served() as server:
        alice = At(server, await server.sign_up_by_grant("/priv/app/:rw"))
        narrow = (
            await server.sign_in_by_grant(alice.who.user, "/priv/else/:rw") if isinstance(alice.who, Granted) else None
        )
        stranger = await server.sign_up_by_grant()
        assert narrow is not None
        assert await alice.put("/priv/app/there") == 201
        tag = (await alice.ask("HEAD", "/priv/app/there")).header("etag") or ""
        for path in ("/priv/app/there", "/priv/app/absent", "/priv/app/", "/priv/none/"):
            target = f"/storage/{alice.key}{path}"
            for method in ("GET", "HEAD", *(() if path.endswith("/") else ("PUT", "DELETE"))):
                body = b"x" if method == "PUT" else None
                anonymous = await server.ask(method, target, {"If-None-Match": tag}, body)
                assert (anonymous.status, anonymous.header("etag")) == (401, None), (method, path)
                assert anonymous.header("cache-control") == "no-store"
                for other in (narrow, stranger):
                    refused = await server.ask(method, target, other.headers, body)
                    assert (refused.status, refused.header("etag")) == (403, None), (method, path)
        assert await alice.get("/priv/app/there") == b"hello"
        assert (await alice.ask("GET", "/priv/app/absent")).status == 404
        nobody = Keypair(bytes([200]) * 32).public_key.z32
        assert await status(server, "GET", f"/storage/{nobody}/priv/a") == 401
        assert await status(server, "GET", f"/storage/{nobody}/pub/a") == 404


@pytest_twisted.ensureDeferred
async def test_a_private_file_from_beginning_to_end() -> None:
    """The owner writes, reads, lists and deletes below `/priv/` as below `/pub/`."""
    async with served() as server:
        alice = await somebody(server)
        assert await alice.put("/priv/app/a") == 201
        assert await alice.get("/priv/app/a") == b"hello"
        assert await alice.lines("/priv/app/") == ["/priv/app/a"]
        assert await alice.lines("/priv/") == ["/priv/app/a"]
        assert await alice.delete("/priv/app/a") == 204
        assert (await alice.ask("GET", "/priv/app/a")).status == 404


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


# --- D: files -----------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_files() -> None:
    """New, overwritten, empty, large, with odd names, of two users: each is what was put there last."""
    async with served() as server:
        alice, bob = await somebody(server), await somebody(server)
        assert [await alice.put("/pub/a", body) for body in (b"1", b"2")] == [201, 201]
        assert await alice.get("/pub/a") == b"2"
        assert [await alice.delete("/pub/a"), await alice.delete("/pub/a")] == [204, 404]
        assert [(await alice.ask(method, "/pub/a")).status for method in ("GET", "HEAD")] == [404, 404]
        events = await server.store.account_events(alice.key, None, 100, False, True, True)
        assert [event.operation for event in events] == ["PUT", "PUT", "DEL"], "a delete of nothing is no event"
        large = bytes(range(256)) * 4096
        assert await alice.put("/pub/large", large) == 201
        assert await alice.get("/pub/large") == large
        assert await alice.put("/pub/empty", b"") == 201
        assert (await alice.ask("HEAD", "/pub/empty")).header("content-length") == "0"
        for path, body in (("/pub/a%2520b", b"percent"), ("/pub/a%20b", b"space")):
            assert await alice.put(path, body) == 201
        assert (await alice.get("/pub/a%2520b"), await alice.get("/pub/a%20b")) == (b"percent", b"space")
        assert [await alice.put("/pub/same", b"a"), await bob.put("/pub/same", b"b")] == [201, 201]
        assert (await alice.get("/pub/same"), await bob.get("/pub/same")) == (b"a", b"b")


@pytest.mark.parametrize("length", [10, 10_000])
@pytest_twisted.ensureDeferred
async def test_equal_bytes_are_different_files(length: int) -> None:
    """What one user deletes another one keeps, though the bytes are the same; the feed tells all in order."""
    async with served() as server:
        alice, bob = await somebody(server), await somebody(server)
        assert [await alice.put("/pub/a", b"x" * length), await bob.put("/pub/a", b"x" * length)] == [201, 201]
        assert await alice.delete("/pub/a") == 204
        assert await bob.get("/pub/a") == b"x" * length
        feed = (await server.ask("GET", "/events/")).text.splitlines()[:-1]
        assert feed == [
            f"PUT pubky://{alice.key}/pub/a",
            f"PUT pubky://{bob.key}/pub/a",
            f"DEL pubky://{alice.key}/pub/a",
        ]


@pytest_twisted.ensureDeferred
async def test_types_and_tags() -> None:
    """The type comes from the content, then from the name; the tag is the hash that the event tells."""
    async with served() as server:
        alice = await somebody(server)
        png = b"\x89PNG\r\n\x1a\n" + bytes(32)
        for path, body, expected in (
            ("/pub/foo", png, "image/png"),
            ("/pub/text.txt", b"hello", "text/plain"),
            ("/pub/x.json", b"{}", "application/json"),
            ("/pub/unknown", b"hello", "application/octet-stream"),
        ):
            assert await alice.put(path, body) == 201
            head = await alice.ask("HEAD", path)
            assert (head.header("content-type"), head.body) == (expected, b"")
            assert head.header("content-length") == str(len(body))
            events = await server.store.account_events(alice.key, None, 100, False, True, True)
            assert events[-1].content_hash == blake3(body).digest()
            assert await _hash_in_tag(head) == events[-1].content_hash


async def _hash_in_tag(head: Answer) -> bytes:
    return b64decode((head.header("etag") or "").strip('"'))


@pytest_twisted.ensureDeferred
async def test_headers_of_files() -> None:
    """What may be kept, for whom, and by what it varies: of files, listings and refusals, in both forms."""
    async with served() as server:
        alice = await somebody(server)
        for path in ("/pub/a", "/priv/a"):
            assert await alice.put(path) == 201
        head = await alice.ask("HEAD", "/priv/a")
        tag = {"If-None-Match": head.header("etag") or ""}
        current = {"If-Modified-Since": head.header("last-modified") or ""}
        for form, extra, vary in (
            (f"/storage/{alice.key}", {"Cookie": alice.who.headers["Cookie"]}, "Authorization, Cookie"),
            ("", alice.who.headers, "pubky-host, Authorization, Cookie"),
        ):
            for more, expected in (({}, 200), (tag, 304), (current, 304), ({"If-None-Match": '"x"'} | current, 200)):
                for method in ("GET", "HEAD"):
                    answer = await server.ask(method, form + "/priv/a", extra | more)
                    assert answer.status == expected
                    assert answer.header("cache-control") == "no-store"
                    assert answer.all("vary")[0] == vary
                    assert answer.header("etag")
                    assert answer.header("last-modified")
            listing = await server.ask("GET", form + "/priv/", extra)
            assert (listing.header("cache-control"), listing.all("vary")[0]) == ("no-store", vary)
            nobody = {name: value for name, value in extra.items() if name != "Cookie"}
            for path, who, refusal in (("/priv/a", nobody, 401), ("/priv/none", extra, 404)):
                refused = await server.ask("GET", form + path, who)
                assert (refused.status, refused.header("cache-control")) == (refusal, "no-store")
                assert refused.all("vary")[0] == vary
                assert (refused.header("etag"), refused.header("last-modified")) == (None, None)
            public = await server.ask("GET", form + "/pub/a", extra)
            assert public.header("cache-control") == "private, must-revalidate"
            assert (public.all("vary")[0] == "pubky-host") is (form == "")
            folder = await server.ask("GET", form + "/pub/", extra)
            assert folder.header("cache-control") is None
            assert (folder.all("vary")[0] == "pubky-host") is (form == "")


@pytest.mark.parametrize(
    ("path", "private"),
    [
        ("/priv/secret.txt", True),
        ("/pub/../priv/x", True),
        ("/pub/%2e%2e/priv/x", True),
        ("/priv/%00", True),
        ("/pub/file", False),
        ("/priv", False),
        ("/privstuff", False),
        ("/../../priv", False),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_is_private_is_decided_on_the_path_that_is_meant(path: str, private: bool) -> None:
    """Whatever the spelling, the answer about a private path is kept by nobody."""
    async with served() as server:
        alice = await somebody(server)
        answer = await server.ask("GET", path, {"pubky-host": alice.key})
        assert (answer.header("cache-control") == "no-store") is private


@pytest_twisted.ensureDeferred
async def test_writes_at_the_same_time() -> None:
    """Of two that cannot both be one wins; of two deletes there is one event; many uploads all land."""
    async with served() as server:
        alice, bob = await somebody(server), await somebody(server)

        async def all_of(*work: Any) -> list[int]:
            return list(await gatherResults([Deferred.fromCoroutine(one) for one in work]))

        assert sorted(await all_of(alice.put("/pub/x"), alice.put("/pub/x/y"))) == [201, 409]
        assert 204 in await all_of(bob.delete("/pub/x"), alice.delete("/pub/x"), alice.delete("/pub/x/y"))
        assert await alice.put("/pub/z") == 201
        assert sorted(await all_of(alice.delete("/pub/z"), alice.delete("/pub/z")))[0] == 204
        events = await server.store.account_events(alice.key, None, 100, False, True, True)
        assert [event.operation for event in events if event.path == "/pub/z"] == ["PUT", "DEL"]
        assert await alice.used() == 0
        body = b"x" * 50_000
        assert set(await all_of(*(one.put(f"/pub/{number}", body) for one in (alice, bob) for number in range(5)))) == {
            201
        }
        assert await alice.used() == 5 * (50_000 + 256)


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest_twisted.ensureDeferred
async def test_a_write_whose_client_left(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that goes away while its write is committed does not undo it: entry, usage and event are there."""
    async with served() as server:
        alice = await somebody(server)
        assert method == "PUT" or await alice.put("/pub/a") == 201
        gate: Deferred[None] = Deferred()
        reached: list[str] = []
        commit = getattr(type(server.store), method.lower())

        async def slow(store: Any, *asked: Any, **more: Any) -> Any:
            reached.append(method)
            await gate
            return await commit(store, *asked, **more)

        monkeypatch.setattr(type(server.store), method.lower(), slow)
        body = b"hello" if method == "PUT" else b""
        client = await sending(server.port, method, f"/storage/{alice.key}/pub/a", alice.who.headers, body)
        await until(lambda: reached)
        assert client.transport is not None
        client.transport.loseConnection()
        await until(lambda: client.ended)
        await turns()
        gate.callback(None)
        await turns()
        assert await alice.get("/pub/a") == (b"hello" if method == "PUT" else None)
        assert await alice.used() == (261 if method == "PUT" else 0)
        events = await server.store.account_events(alice.key, None, 100, False, True, True)
        assert events[-1].operation == ("PUT" if method == "PUT" else "DEL")


@pytest_twisted.ensureDeferred
async def test_written_again_after_a_delete() -> None:
    """A file that is written again after its delete stays, when the grace of the old body is over too."""
    async with served() as server:
        alice = await somebody(server)
        body = b"x" * 10_000
        assert [await alice.put("/pub/a", body), await alice.delete("/pub/a"), await alice.put("/pub/a", body)] == [
            201,
            204,
            201,
        ]
        expired = await server.store.expired_blobs(int(server.clock.seconds() * 1_000_000) + 10**12, 100)
        assert len(expired) == 1
        await server.blobs.remove(expired)
        assert await alice.get("/pub/a") == body


# --- E, F, G: collisions, quota, allowed paths --------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_collisions() -> None:
    """A path is a file or a folder, of each user by itself; what only begins alike is a neighbour."""
    async with served() as server:
        alice, bob = await somebody(server), await somebody(server)
        assert await alice.put("/pub/a") == 201
        used = await alice.used()
        assert await alice.put("/pub/a/b") == 409
        assert await alice.put("/pub/a") == 201
        assert (await alice.used(), await alice.get("/pub/a/b")) == (used, None)
        assert await bob.put("/pub/a/b") == 201
        assert [await alice.delete("/pub/a"), await alice.put("/pub/a/b"), await alice.put("/pub/a")] == [204, 201, 409]
        assert [await alice.delete("/pub/a/b"), await alice.put("/pub/a")] == [204, 201]
        assert await alice.put("/pub/test/sub1") == 201
        for neighbour in ("/pub/test/sub1.", "/pub/test/sub10", "/pub/test/sub1-x", "/pub/test/SUB1/1.txt"):
            assert await alice.put(neighbour) == 201
        assert await alice.delete("/pub/test/sub1") == 204
        for child in ("/pub/test/sub1/!", "/pub/test/sub1/Z", "/pub/test/sub1/%F0%9F%98%80"):
            assert await alice.put(child) == 201
            assert await alice.put("/pub/test/sub1") == 409
            assert await alice.delete(child) == 204


@pytest_twisted.ensureDeferred
async def test_usage_and_quota() -> None:
    """Each file costs its length and 256 bytes; what fits exactly is taken, and no byte more, announced or not."""
    async with served(default_limit=MIB) as server:
        alice = await somebody(server)
        seen = []
        for body in (bytes(10), bytes(20)):
            assert await alice.put("/pub/a", body) == 201
            seen.append(await alice.used())
        assert await alice.delete("/pub/a") == 204
        assert [*seen, await alice.used()] == [266, 276, 0]
        steps = (
            ("/pub/a", 100, 201),
            ("/pub/a", MIB, 507),
            ("/pub/a", MIB - 255, 507),
            ("/pub/a", MIB - 256, 201),
            ("/pub/a", 600_000, 201),
            ("/pub/a", 600_000, 201),
            ("/pub/b", 600_000, 507),
            ("/pub/a", 1_100_000, 507),
        )
        for path, length, expected in steps:
            before = await alice.used()
            assert await alice.put(path, bytes(length)) == expected, (path, length)
            assert expected == 201 or await alice.used() == before
        assert await alice.get("/pub/a") == bytes(600_000)
        chunked = {"Transfer-Encoding": "chunked", **alice.who.headers}
        large = b"%x\r\n%b\r\n0\r\n\r\n" % (MIB, bytes(MIB))
        assert (await server.ask("PUT", f"/storage/{alice.key}/pub/a", chunked, large)).status == 507
        small = b"5\r\nhello\r\n0\r\n\r\n"
        assert (await server.ask("PUT", f"/storage/{alice.key}/pub/a", chunked, small)).status == 201
        assert await alice.delete("/pub/a") == 204
        assert [await alice.put("/pub/a", bytes(length)) for length in (1025 * 1024 - 256, MIB - 256)] == [507, 201]


@pytest.mark.parametrize(
    ("allowed", "path", "expected"),
    [
        (None, "/pub/a", 201),
        ((), "/pub/a", 403),
        (("/pub/tokens/",), "/pub/tokens/x", 201),
        (("/pub/tokens/",), "/pub/tokens/a/b", 201),
        (("/pub/tokens/",), "/pub/tokenstore/x", 403),
        (("/pub/tokens/",), "/pub/tokens", 403),
        (("/pub/profile.json",), "/pub/profile.json", 201),
        (("/pub/profile.json",), "/pub/profile.jsonx", 403),
        (("/pub/profile.json",), "/pub/profile.json/x", 403),
        (("/pub/profile.json", "/pub/tokens/"), "/pub/tokens/x", 201),
        (("/pub/profile.json", "/pub/tokens/"), "/pub/profile.json", 201),
        (("/pub/profile.json", "/pub/tokens/"), "/pub/else", 403),
    ],
)
@pytest_twisted.ensureDeferred
async def test_allowed_paths(allowed: tuple[str, ...] | None, path: str, expected: int) -> None:
    """Where an account may write is what the operator says: a folder with all below it, or just one file."""
    async with served(token_required=True) as server:
        token = await server.accounts.new_signup_token(UserQuota(allowed_write_paths=allowed))
        alice = At(server, await server.sign_up(token=token.token))
        assert await alice.put(path) == expected
        assert (await alice.ask("GET", path)).status == (200 if expected == 201 else 404)
        assert await alice.delete(path) == (204 if expected == 201 else 404)


# --- H: listings --------------------------------------------------------------------------------------------------

DEEP = (
    "a.wrong/a.txt",
    "example.com/d.txt",
    "example.com/a.txt",
    "example.com/cc-nested/z.txt",
    "example.com/c.txt",
    "example.com/b.txt",
    "example.wrong/a.txt",
    "z.wrong/a.txt",
)
SHALLOW = (
    "a.com/a.txt",
    "example.com/a.txt",
    "example.com/b.txt",
    "example.con/d.txt",
    "example.con-file",
    "file",
    "file2",
    "z.com/a.txt",
)
TREE = ("1.txt", "2.txt", "3.txt", "sub1/1/1.txt", "sub1/2.txt", "sub2/1.txt", "sub2/2.txt")


@pytest.mark.parametrize(
    ("files", "folder", "query", "shown"),
    [
        (DEEP, "example.com/", "", "a.txt b.txt c.txt cc-nested/z.txt d.txt"),
        (DEEP, "example.com/", "limit=2", "a.txt b.txt"),
        (DEEP, "example.com/", "limit=2&cursor={k}/pub/example.com/a.txt", "b.txt c.txt"),
        (DEEP, "example.com/", "limit=2&cursor=pubky://{k}/pub/example.com/a.txt", "b.txt c.txt"),
        (SHALLOW, "", "shallow", "a.com/ example.com/ example.con-file example.con/ file file2 z.com/"),
        (SHALLOW, "", "shallow&limit=2", "a.com/ example.com/"),
        (SHALLOW, "", "shallow&limit=2&cursor={k}/pub/example.com/", "example.con-file example.con/"),
        (SHALLOW, "", "shallow&limit=2&cursor={k}/pub/example.com/a.txt", "example.con-file example.con/"),
        (SHALLOW, "", "shallow&limit=3&cursor={k}/pub/example.com/", "example.con-file example.con/ file"),
        (TREE, "", "shallow", "1.txt 2.txt 3.txt sub1/ sub2/"),
        (TREE, "", "shallow&limit=2", "1.txt 2.txt"),
        (TREE, "", "shallow&limit=2&cursor={k}/pub/2.txt", "3.txt sub1/"),
        (TREE, "", "shallow&limit=2&cursor={k}/pub/sub1/", "sub2/"),
        (TREE, "", "shallow&reverse", "sub2/ sub1/ 3.txt 2.txt 1.txt"),
        (TREE, "", "shallow&reverse&cursor={k}/pub/sub1/", "3.txt 2.txt 1.txt"),
        (TREE, "", "", " ".join(TREE)),
        (TREE, "", "cursor={k}/pub/3.txt", "sub1/1/1.txt sub1/2.txt sub2/1.txt sub2/2.txt"),
        (TREE, "", "cursor={k}/pub/3.txt&limit=1", "sub1/1/1.txt"),
        (TREE, "", "reverse&limit=2", "sub2/2.txt sub2/1.txt"),
        (TREE, "", "limit=1", "1.txt"),
        (TREE, "", "limit=1&cursor={k}/pub/1.txt", "2.txt"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_listings(files: tuple[str, ...], folder: str, query: str, shown: str) -> None:
    """What a listing shows, and in which order, for any cursor and limit."""
    async with served() as server:
        alice = await somebody(server)
        for path in files:
            assert await alice.put(f"/pub/{path}") == 201
        lines = await alice.lines(f"/pub/{folder}?{query.replace('{k}', alice.key)}")
        assert lines == [f"/pub/{folder}{name}" for name in shown.split()]
        assert await status(server, "GET", f"/storage/{alice.key}/pub/{files[0]}/") == 404, "a file is no folder"


# --- K, L: events -------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_the_text_feed() -> None:
    """Every public write in the order of commits, page by page; what is read in it can be read."""
    async with served() as server:
        alice = await somebody(server)
        lines = []
        for number in range(12):
            assert await alice.put(f"/pub/{number}") == 201
            assert await alice.put(f"/priv/{number}") == 201
            lines.append(f"PUT pubky://{alice.key}/pub/{number}")
            newest = (await server.ask("GET", "/events/?limit=1000")).text.splitlines()[-2]
            assert newest == lines[-1], "it is there as soon as the write is answered"
            assert await alice.get(f"/pub/{number}") == b"hello"
        for number in range(12):
            assert await alice.delete(f"/pub/{number}") == 204
            lines.append(f"DEL pubky://{alice.key}/pub/{number}")
        seen: list[str] = []
        cursor = ""
        while page := (await server.ask("GET", f"/events/?limit=10&cursor={cursor}")).text:
            *some, last = page.split("\n")
            assert re.fullmatch(r"cursor: \d+", last)
            cursor = last.removeprefix("cursor: ")
            seen += some
        assert seen == lines
        assert (await server.ask("GET", "/events/?cursor=999999999999999999")).body == b""


async def events(server: Served, query: str, headers: Mapping[str, str] | None = None) -> list[str]:
    """The events of a stream that ends, as operation and path."""
    answer = await server.ask("GET", f"/events-stream?{query}", dict(headers or {}))
    assert answer.status == 200, answer
    return [
        f"{operation} {path}" for operation, path in re.findall(r"event: (\w+)\ndata: pubky://\w+(\S+)", answer.text)
    ]


@pytest_twisted.ensureDeferred
async def test_a_batch() -> None:
    """All events of an account in order, or so many, or backwards, and then the end."""
    async with served() as server:
        alice, silent = await somebody(server), await somebody(server)
        expected = []
        for number in range(250):
            await alice.put(f"/pub/{number}")
            expected.append(f"PUT /pub/{number}")
        for number in range(5):
            await alice.delete(f"/pub/{number}")
            expected.append(f"DEL /pub/{number}")
        assert await events(server, f"user={alice.key}") == expected
        assert await events(server, f"user={alice.key}&limit=50") == expected[:50]
        assert await events(server, f"user={alice.key}&reverse=true") == expected[::-1]
        assert await events(server, f"user={silent.key}") == []
        last_put = (await server.store.account_events(alice.key, None, 250, False, True, False))[-1].id
        query = f"user={alice.key}:{last_put}&live=true"
        async with following(server.port, query, {}) as live, following(server.port, query + "&limit=7", {}) as seven:
            await until(lambda: live.has("/pub/4") and seven.has("/pub/4"))
            for path in ("/pub/new", "/pub/newer", "/pub/newest"):
                await alice.put(path)
            await until(lambda: live.has("/pub/newest") and seven.ended)
            assert not seven.has("/pub/newest")
            assert live.received.count(b"event: ") == 8
            assert live.received.count(b"content_hash") == 3, "of writes only"


@pytest_twisted.ensureDeferred
async def test_filters() -> None:
    """Streams of folders, files and several accounts, each after its own cursor."""
    async with served() as server:
        alice, bob, carol = [await somebody(server) for _ in range(3)]
        for number in range(5):
            await alice.put(f"/pub/files/doc_{number}")
            await alice.put(f"/pub/noise/{number}")
            await bob.put(f"/pub/files/{number}")
        await alice.delete("/pub/files/doc_0")
        await alice.put("/pub/my_folder/a")
        await alice.put("/pub/myfolder/a")
        await carol.put("/pub/files/c")
        folder = "path=/pub/files/"
        mine = await events(server, f"user={alice.key}&{folder}")
        assert len(mine) == 6
        page = await server.ask("GET", f"/events-stream?user={alice.key}&{folder}&limit=4")
        cursor = re.findall(r"cursor: (\d+)", page.text)[-1]
        assert await events(server, f"user={alice.key}:{cursor}&{folder}") == mine[4:]
        both = f"user={alice.key}&user={bob.key}&{folder}"
        assert len(await events(server, both)) == 11
        assert (await events(server, both + "&reverse=true"))[0] == "DEL /pub/files/doc_0"
        assert await events(server, f"user={alice.key}&path=/pub/my_folder/") == ["PUT /pub/my_folder/a"]
        assert await events(server, f"user={alice.key}&path=pub/myfolder/") == ["PUT /pub/myfolder/a"]
        assert await events(server, f"user={alice.key}&path=&path=/pub/myfolder/a") == ["PUT /pub/myfolder/a"]
        assert await events(server, f"user={bob.key}&path=/pub/files/1&path=/pub/files/1") == ["PUT /pub/files/1"]
        ends = [
            (await server.store.account_events(one.key, None, 3, False, True, False))[-1].id for one in (bob, carol)
        ]
        rest = await events(server, f"user={bob.key}:{ends[0]}&user={carol.key}:{ends[1]}")
        assert rest == ["PUT /pub/files/3", "PUT /pub/files/4"]


@pytest_twisted.ensureDeferred
async def test_filters_of_private_paths() -> None:
    """A folder is itself and what lies below it, a file just itself; look-alikes are neither."""
    async with served() as server:
        alice = await somebody(server)
        cookie = {"Cookie": alice.who.headers["Cookie"]}
        for path in ("/priv/app/x", "/priv/app/sub/y", "/priv/app-evil/x", "/priv/other/x", "/priv/ap", "/pub/a"):
            await alice.put(path)
        assert await events(server, f"user={alice.key}&path=/priv/app/", cookie) == [
            "PUT /priv/app/x",
            "PUT /priv/app/sub/y",
        ]
        assert await events(server, f"user={alice.key}&path=/priv/app", cookie) == []
        union = await events(server, f"user={alice.key}&path=/pub/&path=/priv/ap", cookie)
        assert union == ["PUT /priv/ap", "PUT /pub/a"]
        assert await events(server, f"user={alice.key}", cookie) == ["PUT /pub/a"], (
            "without a filter only what is public"
        )
        narrow = await server.sign_in_by_grant(Keypair((1).to_bytes(32, "big")), "/priv/app/:r")
        live = f"user={alice.key}&path=/pub/&path=/priv/app/&live=true"
        async with following(server.port, live, narrow.headers) as stream:
            await alice.put("/priv/other/y")
            await alice.put("/priv/app/z")
            await alice.put("/pub/z")
            await until(lambda: stream.has("/pub/z"))
            assert stream.has("/priv/app/z")
            assert not stream.has("/priv/other/y")


@pytest_twisted.ensureDeferred
async def test_users_of_a_stream() -> None:
    """Who is unknown is 404, what is no key is 400, more than fifty are too many."""
    async with served() as server:
        alice = await somebody(server)
        stranger = Keypair(bytes([201]) * 32).public_key.z32
        for query, expected, text in (
            ("", 400, "user parameter is required"),
            (f"user={stranger}", 404, "Not Found"),
            (f"user={alice.key}&user={stranger}", 404, "Not Found"),
            (f"user={alice.key}&user=bad", 400, "Invalid public key: bad"),
            ("user=bad&user=worse", 400, "Invalid public key: bad"),
            ("&".join([f"user={alice.key}"] * 51), 400, "Too many users. Maximum allowed: 50"),
            (f"user={alice.key}&live=true&reverse=true", 400, "Cannot use live mode with reverse ordering"),
            (f"user={alice.key}:abc", 400, "Invalid cursor: abc"),
            (f"user={alice.key}:-100", 400, "Invalid cursor: -100"),
            (f"user={alice.key}:999999999999999999", 200, ""),
            (f"user={alice.key}&limit=0", 400, "limit must be at least 1"),
        ):
            answer = await server.ask("GET", f"/events-stream?{query}")
            assert (answer.status, answer.text) == (expected, text), query


# --- P: HTTP ------------------------------------------------------------------------------------------------------


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
