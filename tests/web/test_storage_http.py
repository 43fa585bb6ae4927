"""Files over HTTP: addressing, the order of refusals, what an answer carries, conditions, ranges, quotas, trouble."""

from base64 import b64encode
from typing import Any

import pytest
import pytest_twisted
from blake3 import blake3

from pkarr.keys import Keypair
from pubky_homeserver.core.errors import StoreAway
from pubky_homeserver.core.quotas import UserQuota
from pubky_homeserver.core.records import SignupToken
from pubky_homeserver.web.files import is_inert
from tests.web.client import Answer
from tests.web.served import HOMESERVER, Served, User, served

STRANGER = Keypair(bytes([9]) * 32).public_key.z32
CORS_VARY = "origin, access-control-request-method, access-control-request-headers"
LARGE = bytes(range(256)) * 400  # 100 KB: a file of its own

pytestmark = [pytest.mark.usefixtures("family"), pytest.mark.parametrize("family", ["cookie", "grant"], indirect=True)]
"""Both families of sign-in, side by side."""


def tag(body: bytes) -> str:
    """The entity tag of a body."""
    return f'"{b64encode(blake3(body).digest()).decode()}"'


async def put(server: Served, user: User, path: str, body: bytes = b"hello", **headers: str) -> Answer:
    """Store a file in the newer form."""
    return await server.ask("PUT", f"/storage/{user.pubky}{path}", {**user.headers, **headers}, body)


async def get(server: Served, user: User, path: str, **headers: str) -> Answer:
    """Read a file in the newer form, as anybody."""
    return await server.ask("GET", f"/storage/{user.pubky}{path}", {k.replace("_", "-"): v for k, v in headers.items()})


# --- addressing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/storage", "Missing storage owner or path"),
        ("/storage/", "Missing storage owner or path"),
        ("/storage/short", "Missing storage path"),
        ("/storage/{key}", "Missing storage path"),
        ("/storage/{key}/", "Missing storage path"),
        ("/storage/short/pub/x", "Invalid storage owner public key"),
        ("/storage/pubky{key}/pub/x", "Invalid storage owner public key"),
        ("/storage/" + "0" * 52 + "/pub/x", "Invalid storage owner public key"),
        ("/storage//pub/x", "Invalid storage owner public key"),
        ("/storage/{key}/pub/%FF", "Storage path is not valid UTF-8"),
        ("/storage/{key}/../x", "Invalid storage path: path traverses above root"),
        ("/storage/{key}/pub/%5Cx", "Invalid storage path: path must not contain a backslash"),
        ("/storage/{key}/pub/x%20", "Invalid storage path: path must not end in whitespace"),
        ("/storage/{key}/pub/%00", "Invalid storage path: path contains a control character"),
        ("/storage/{key}/pub/" + "a" * 256, "Invalid storage path: path segment is 256 bytes; maximum is 255"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_malformed_storage_paths(method: str, path: str, text: str) -> None:
    """A malformed `/storage…` is 400 before anything else, whatever the method, and a page may read it."""
    async with served() as server:
        answer = await server.ask(method, path.replace("{key}", STRANGER), {"Origin": "https://a.example"})
        assert (answer.status, answer.text) == (400, "" if method == "HEAD" else text)
        assert answer.header("access-control-allow-origin") == "https://a.example"


@pytest_twisted.ensureDeferred
async def test_both_addressings_name_the_same_files() -> None:
    """A file written in one form is read in the other; `/storage/` looks at no header, the older one at three."""
    async with served() as server:
        user, other = await server.sign_up(), await server.sign_up()
        assert (await put(server, user, "/pub/a", b"new", **{"pubky-host": other.pubky})).status == 201
        for headers, query, host in (
            ({"pubky-host": user.pubky}, "", "127.0.0.1"),
            ({}, "", f"_pubky.{user.pubky}"),
            ({}, f"?pubky-host={user.pubky}", "127.0.0.1"),
            ({"pubky-host": "nonsense"}, "", f"_pubky.{user.pubky}"),
            ({"pubky-host": user.pubky}, "", f"_pubky.{other.pubky}"),
            ({"pubky-host": f"pubky{user.pubky}"}, f"?pubky-host=x&pubky-host={user.pubky}", "127.0.0.1"),
        ):
            answer = await server.ask("GET", f"/pub/a{query}", headers, host=host)
            assert (answer.status, answer.body) == (200, b"new"), (headers, query, host)
        assert (await server.ask("PUT", "/pub/b", user.headers, b"old")).status == 201
        for host in (other.pubky, HOMESERVER, "127.0.0.1"):
            answer = await server.ask("GET", f"/storage/{user.pubky}/pub/b?pubky-host={other.pubky}", host=host)
            assert answer.body == b"old"
        assert (await server.ask("GET", "/pub/b", host=f"{user.pubky}:6287")).text == "Missing request tenant"
        assert (await server.ask("DELETE", "/pub/b", user.headers)).status == 204
        assert (await get(server, user, "/pub/b")).status == 404


@pytest_twisted.ensureDeferred
async def test_paths_are_decoded_once() -> None:
    """`%2F` separates, `%2e%2e` leads up, `%252F` is text; names that look encoded are names of their own."""
    async with served() as server:
        user = await server.sign_up()
        for sent, stored in (
            ("/pub/a%2Fb", "/pub/a/b"),
            ("/pub/x/%2e%2e/c", "/pub/c"),
            ("/pub/%252F", "/pub/%2F"),
            ("/pub//d/./e", "/pub/d/e"),
            ("/priv/../pub/f%20g", "/pub/f g"),
            ("/pub/%C3%BC%F0%9F%8C%8D", "/pub/ü🌍"),
            ("/pub/a:b,c", "/pub/a:b,c"),
        ):
            assert (await put(server, user, sent)).status == 201
            assert await server.store.entry(user.pubky, stored) is not None, stored
        bad = await server.ask("GET", "/pub/%FF", user.headers)
        assert (bad.status, bad.text) == (400, "Invalid URL: Invalid UTF-8 in `path`")
        bad = await server.ask("GET", "/pub/../../x", user.headers)
        assert (bad.status, bad.text) == (400, "Invalid URL: path traverses above root")
        for alias in ("/pub/c%20", "/pub/c%C2%A0", "/pub/c%E3%80%80", "/pub/x/%5C..%5Cc"):
            for method in ("PUT", "DELETE"):
                assert (await server.ask(method, alias, user.headers, b"")).status == 400
        assert (await get(server, user, "/pub/c")).body == b"hello"


# --- who may --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capabilities", "path", "status", "text"),
    [
        ("/:rw", "/pub/x", 201, ""),
        ("/:rw", "/priv/x", 201, ""),
        ("/:rw", "/foo/x", 403, "Writing to directories other than '/pub/' and '/priv/' is forbidden"),
        ("/:rw", "/pub", 403, "Writing to directories other than '/pub/' and '/priv/' is forbidden"),
        ("/:rw", "/pub/x/", 400, "Target path must be a file"),
        ("/:rw", "/", 400, None),
        ("/pub/app/:rw", "/pub/app/x/y", 201, ""),
        ("/pub/app/:rw", "/pub/app", 403, "Session does not have write access to path"),
        ("/pub/app/:rw", "/pub/other/x", 403, "Session does not have write access to path"),
        ("/pub/app:rw", "/pub/app", 201, ""),
        ("/pub/app:rw", "/pub/app-evil", 403, "Session does not have write access to path"),
        ("/:r", "/pub/x", 403, "Session does not have write access to path"),
        ("/:e", "/pub/x", 403, "Session does not have write access to path"),
        ("", "/pub/x", 403, "Session does not have write access to path"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_rights_to_write(capabilities: str, path: str, status: int, text: str | None) -> None:
    """A write needs a file below the two roots, and a capability for it; nobody without a session writes."""
    async with served() as server:
        user = await server.sign_up(capabilities)
        for method, done in (("PUT", 201), ("DELETE", 204)):
            answer = await server.ask(
                method, f"/storage/{user.pubky}{path}", user.headers, b"" if done == 201 else None
            )
            expected = (done, "") if status == 201 else (status, text)
            assert answer.status == expected[0]
            if text is not None:
                assert answer.text == expected[1]
            anonymous = await server.ask(method, f"/storage/{user.pubky}{path}", {}, b"" if done == 201 else None)
            if path != "/":
                assert (anonymous.status, anonymous.text) == (401, "No authenticated session found")


@pytest_twisted.ensureDeferred
async def test_a_write_in_the_older_form_asks_for_the_session_first(family: str) -> None:
    """Without a session 401 comes before a missing tenant and a bad path; with one a folder is no path."""
    async with served() as server:
        user = await server.sign_up()
        assert (await server.ask("PUT", "/pub/x", {}, b"")).status == 401
        assert (await server.ask("PUT", "/pub/%FF", {"pubky-host": user.pubky}, b"")).status == 401
        folder = await server.ask("PUT", "/pub/x/", user.headers, b"")
        assert (folder.status, folder.text) == (400, "Invalid URL: target path must be a file")
        stranger = await server.ask("PUT", f"/storage/{STRANGER}/pub/x", user.headers, b"")
        assert stranger.status == (401 if family == "cookie" else 403), "a cookie of another user is not considered"


@pytest_twisted.ensureDeferred
async def test_private_files_have_no_oracle() -> None:
    """Whoever may not read a private path gets one answer, whether something is there or not, and never a 304."""
    async with served() as server:
        user = await server.sign_up()
        scoped = await server.sign_in(Keypair((1).to_bytes(32, "big")), "/priv/app/:r,/pub/:rw")
        assert (await put(server, user, "/priv/there")).status == 201
        assert (await put(server, user, "/priv/app/mine")).status == 201
        cases: list[tuple[dict[str, str], int, str]] = [
            ({}, 401, "Authentication required to read private storage"),
            (scoped.headers, 403, "Session does not have read access to path"),
        ]
        for headers, status, text in cases:
            seen = set()
            for path in ("/priv/there", "/priv/absent", "/priv/", "/priv/nothing/"):
                for condition in ({}, {"If-None-Match": tag(b"hello")}):
                    answer = await server.ask("GET", f"/storage/{user.pubky}{path}", {**headers, **condition})
                    assert (answer.status, answer.text) == (status, text)
                    seen.add(tuple((k, v) for k, v in answer.headers if k != "date"))
            assert len(seen) == 1
        assert (await server.ask("GET", f"/storage/{user.pubky}/priv/app/mine", scoped.headers)).body == b"hello"
        assert (await server.ask("GET", f"/storage/{user.pubky}/priv/there", user.headers)).body == b"hello"
        assert (await server.ask("GET", f"/storage/{STRANGER}/priv/x")).status == 401
        outside = await server.ask("GET", f"/storage/{user.pubky}/foo")
        assert (outside.status, outside.text) == (
            403,
            "Reading from directories other than '/pub/' and '/priv/' is forbidden",
        )


@pytest_twisted.ensureDeferred
async def test_disabled_accounts() -> None:
    """A disabled account is not written to; reads, listings and deletes go on."""
    async with served() as server:
        user = await server.sign_up()
        await put(server, user, "/pub/x")
        await server.store.set_disabled(user.pubky, True)
        refused = await put(server, user, "/pub/y")
        assert (refused.status, refused.text) == (403, "User is disabled")
        assert (await get(server, user, "/pub/x")).status == 200
        assert (await get(server, user, "/pub/")).status == 200
        assert (await server.ask("DELETE", f"/storage/{user.pubky}/pub/x", user.headers)).status == 204


# --- what an answer carries -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"hello", LARGE], ids=len)
@pytest_twisted.ensureDeferred
async def test_a_file(body: bytes) -> None:
    """What was put is got, with length, type, tag and time; HEAD says the same; after a delete there is nothing."""
    async with served() as server:
        user = await server.sign_up()
        created = await put(server, user, "/pub/foo.txt", body)
        assert (created.status, created.body, created.header("etag"), created.header("location")) == (
            201,
            b"",
            None,
            None,
        )
        for _ in range(2):
            answer = await get(server, user, "/pub/foo.txt")
            assert (answer.status, answer.body, answer.header("content-type")) == (200, body, "text/plain")
            assert (answer.header("content-length"), answer.header("etag")) == (str(len(body)), tag(body))
            assert answer.header("last-modified") == "Sun, 22 Nov 2026 22:49:07 GMT"
            assert answer.header("cache-control") == "private, must-revalidate"
            assert answer.header("x-content-type-options") == "nosniff"
            head = await server.ask("HEAD", f"/storage/{user.pubky}/pub/foo.txt")
            assert (head.status, head.body) == (200, b"")
            assert sorted(head.headers) == sorted(answer.headers)
            assert (await put(server, user, "/pub/foo.txt", body)).status == 201
        assert (await server.ask("DELETE", f"/storage/{user.pubky}/pub/foo.txt", user.headers)).status == 204
        for method in ("GET", "HEAD"):
            assert (await server.ask(method, f"/storage/{user.pubky}/pub/foo.txt")).status == 404
        again = await server.ask("DELETE", f"/storage/{user.pubky}/pub/foo.txt", user.headers)
        assert (again.status, again.text) == (404, "Not Found")
        assert (await server.ask("HEAD", f"/storage/{user.pubky}/pub/")).status == 404
        assert (await get(server, user, "/pub/folder-only")).status == 404


@pytest.mark.parametrize(
    ("legacy", "path", "method", "cache", "vary"),
    [
        (False, "/pub/x", "GET", "private, must-revalidate", []),
        (False, "/pub/x", "HEAD", "private, must-revalidate", []),
        (False, "/pub/", "GET", None, []),
        (False, "/pub/none", "GET", None, []),
        (False, "/priv/x", "GET", "no-store", ["Authorization, Cookie"]),
        (False, "/priv/", "GET", "no-store", ["Authorization, Cookie"]),
        (False, "/priv/none", "GET", "no-store", ["Authorization, Cookie"]),
        (False, "/priv/x", "PATCH", "no-store", ["Authorization, Cookie"]),
        (False, "/priv/y", "PUT", "no-store", ["Authorization, Cookie"]),
        (False, "/pub/../priv/x", "GET", "no-store", ["Authorization, Cookie"]),
        (True, "/pub/x", "GET", "private, must-revalidate", ["pubky-host"]),
        (True, "/pub/x", "HEAD", "private, must-revalidate", ["pubky-host"]),
        (True, "/pub/", "GET", None, ["pubky-host"]),
        (True, "/pub/none", "GET", None, []),
        (True, "/pub/y", "PUT", None, []),
        (True, "/priv/x", "GET", "no-store", ["pubky-host, Authorization, Cookie"]),
        (True, "/priv/none", "GET", "no-store", ["pubky-host, Authorization, Cookie"]),
        (True, "/pub/../priv/x", "GET", "no-store", ["pubky-host, Authorization, Cookie"]),
        (True, "/pub/%2e%2e/priv/x", "GET", "no-store", ["pubky-host, Authorization, Cookie"]),
        (True, "/priv/%00", "GET", "no-store", ["pubky-host, Authorization, Cookie"]),
        (True, "/priv", "GET", None, []),
        (True, "/privstuff/x", "GET", None, []),
        (True, "/../../priv/x", "GET", None, []),
    ],
)
@pytest_twisted.ensureDeferred
async def test_caching(legacy: bool, path: str, method: str, cache: str | None, vary: list[str]) -> None:
    """Public files are revalidated, private answers never kept; the older form varies with its header."""
    async with served() as server:
        user = await server.sign_up()
        for file in ("/pub/x", "/priv/x"):
            assert (await put(server, user, file)).status == 201
        target = path if legacy else f"/storage/{user.pubky}{path}"
        answer = await server.ask(method, target, user.headers, b"" if method in ("PUT", "PATCH") else None)
        assert answer.header("cache-control") == cache
        assert answer.all("vary") == [*vary, CORS_VARY]
        if answer.status >= 400:
            assert answer.header("etag") is answer.header("last-modified") is None


@pytest.mark.parametrize(
    ("path", "body", "kind", "sandbox"),
    [
        ("/pub/foo", b"\x89PNG\r\n\x1a\n", "image/png", False),
        ("/pub/text.txt", b"text", "text/plain", False),
        ("/pub/a.json", b"{}", "application/json", False),
        ("/pub/nothing", b"plain", "application/octet-stream", False),
        ("/pub/page", b"<!DOCTYPE html><p>", "text/html", True),
        ("/pub/a.svg", b"<svg/>", "image/svg+xml", True),
        ("/pub/a.rss", b"<rss/>", "application/rss+xml", True),
    ],
)
@pytest_twisted.ensureDeferred
async def test_types(path: str, body: bytes, kind: str, sandbox: bool) -> None:
    """The type comes from the content, then from the name, never from the client; scripts run in a sandbox."""
    async with served() as server:
        user = await server.sign_up()
        await put(server, user, path, body, **{"Content-Type": "text/evil"})
        answer = await get(server, user, path)
        assert answer.header("content-type") == kind
        assert (answer.header("content-security-policy") == "sandbox") is sandbox


@pytest.mark.parametrize(
    ("content_type", "inert"),
    [
        ("text/plain; charset=utf-8", True),
        ("application/vnd.oasis.opendocument.text", True),
        ("video/mp4", True),
        ("text/html; charset=utf-8", False),
        ("TEXT/HTML", False),
        (" text/html", False),
        ("text/plain, text/html", False),
        ("text/plain; charset=utf-8, text/html", False),
        ("application/rdf+xml", False),
        ("multipart/x-mixed-replace; boundary=x", False),
        ("nonsense", False),
        ("", False),
    ],
)
def test_types_of_other_homeservers(content_type: str, inert: bool) -> None:
    """What another homeserver calls a file that is copied here runs no scripts either, however it is written."""
    assert is_inert(content_type) is inert


@pytest_twisted.ensureDeferred
async def test_other_methods() -> None:
    """Each path says which methods it has; nobody's session is needed for that."""
    async with served() as server:
        for method, path, allow in (
            ("PATCH", f"/storage/{STRANGER}/pub/x", "GET, HEAD, PUT, DELETE, LOCK, UNLOCK"),
            ("POST", "/pub/x", "GET,HEAD,PUT,DELETE"),
            ("LOCK", "/pub/x", "GET,HEAD,PUT,DELETE"),
            ("POST", "/", "GET,HEAD"),
            ("DELETE", "/info", "GET,HEAD"),
            ("POST", "/events/", "GET,HEAD"),
            ("HEAD", "/events-stream", "GET"),
            ("GET", "/signup", "POST"),
        ):
            answer = await server.ask(method, path, {})
            assert (answer.status, answer.header("allow"), answer.body) == (405, allow, b"")
            options = await server.ask("OPTIONS", path, {})
            assert options.status == 200


# --- conditions and ranges ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-None-Match": "{tag}"}, 304),
        ({"If-None-Match": 'x, {tag} ,"y"'}, 304),
        ({"If-None-Match": "*"}, 200),
        ({"If-None-Match": "W/{tag}"}, 200),
        ({"If-None-Match": '"other"', "If-Modified-Since": "{date}"}, 200),
        ({"If-Modified-Since": "{date}"}, 304),
        ({"If-Modified-Since": "Sunday, 22-Nov-26 22:49:07 GMT"}, 304),
        ({"If-Modified-Since": "Sun Nov 22 22:49:07 2026"}, 304),
        ({"If-Modified-Since": "Sun, 22 Nov 2026 22:49:06 GMT"}, 200),
        ({"If-Modified-Since": "yesterday"}, 200),
        ({}, 200),
    ],
)
@pytest_twisted.ensureDeferred
async def test_conditional_reads(method: str, headers: dict[str, str], status: int) -> None:
    """A current copy is not sent again; a tag decides alone if one is given, and only when it is the very same."""
    async with served() as server:
        user = await server.sign_up()
        await put(server, user, "/pub/x")
        first = await get(server, user, "/pub/x")
        words = {"{tag}": first.header("etag") or "", "{date}": first.header("last-modified") or ""}
        filled = {name: words.get(value, value.replace("{tag}", words["{tag}"])) for name, value in headers.items()}
        answer = await server.ask(method, f"/storage/{user.pubky}/pub/x", filled)
        assert answer.status == status
        if status == 304:
            names = {name for name, _ in answer.headers} - {"date", "vary"}
            assert {name for name in names if not name.startswith("access-")} == {
                "etag",
                "last-modified",
                "cache-control",
            }


@pytest.mark.parametrize("body", [LARGE[:1000], LARGE], ids=["small", "large"])
@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=10-19", 10, 19),
        ("bytes=990-", 990, None),
        ("bytes=-5", -5, None),
        ("bytes=-999999999", 0, None),
        ("bytes=0-999999999", 0, None),
    ],
)
@pytest_twisted.ensureDeferred
async def test_ranges(body: bytes, asked: str, first: int, last: int | None) -> None:
    """One range of bytes is answered with that part and its place."""
    async with served() as server:
        user = await server.sign_up()
        await put(server, user, "/pub/x", body)
        answer = await get(server, user, "/pub/x", range=asked)
        part = body[first:] if last is None else body[first : last + 1]
        start = first if first >= 0 else len(body) + first
        assert (answer.status, answer.body) == (206, part)
        assert answer.header("content-range") == f"bytes {start}-{start + len(part) - 1}/{len(body)}"
        head = await server.ask("HEAD", f"/storage/{user.pubky}/pub/x", {"Range": asked})
        assert (head.status, head.header("content-length")) == (200, str(len(body)))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Range": "bytes=1000-"}, 416),
        ({"Range": "bytes=-0"}, 416),
        ({"Range": "bytes=5-4"}, 200),
        ({"Range": "bytes=a-b"}, 200),
        ({"Range": "bytes=-"}, 200),
        ({"Range": "lines=1-2"}, 200),
        ({"Range": "bytes=0-1,3-4"}, 200),
        ({"Range": "bytes=0-1", "If-Range": "{tag}"}, 206),
        ({"Range": "bytes=0-1", "If-Range": '"other"'}, 200),
        ({"Range": "bytes=0-1", "If-Range": "W/{tag}"}, 200),
        ({"Range": "bytes=0-1", "If-Range": "Sun, 22 Nov 2026 22:49:07 GMT"}, 206),
        ({"Range": "bytes=0-1", "If-Range": "Sun, 22 Nov 2026 22:49:08 GMT"}, 200),
        ({"Range": "bytes=0-1", "If-None-Match": "{tag}"}, 304),
    ],
)
@pytest_twisted.ensureDeferred
async def test_ranges_that_are_none(headers: dict[str, str], status: int) -> None:
    """What is malformed, several, or meant for another version gets the whole file; beyond the end is 416."""
    async with served() as server:
        user = await server.sign_up()
        body = LARGE[:1000]
        await put(server, user, "/pub/x", body)
        filled = {name: value.replace("{tag}", tag(body)) for name, value in headers.items()}
        answer = await server.ask("GET", f"/storage/{user.pubky}/pub/x", filled)
        assert answer.status == status
        if status == 416:
            assert (answer.header("content-range"), answer.body) == ("bytes */1000", b"")


@pytest_twisted.ensureDeferred
async def test_conditional_writes() -> None:
    """`If-Match` and `If-None-Match: *` are judged in the commit: 412, and nothing has changed."""
    async with served() as server:
        user = await server.sign_up()
        path = f"/storage/{user.pubky}/pub/x"
        steps: list[tuple[str, dict[str, str], bytes | None, int]] = [
            ("PUT", {"If-Match": "*"}, b"1", 412),
            ("PUT", {"If-Match": tag(b"1")}, b"1", 412),
            ("PUT", {"If-None-Match": "*"}, b"1", 201),
            ("PUT", {"If-None-Match": "*"}, b"2", 412),
            ("PUT", {"If-None-Match": '"tag"'}, b"1", 201),
            ("PUT", {"If-Match": tag(b"0")}, b"2", 412),
            ("PUT", {"If-Match": f'"a", {tag(b"1")}'}, b"2", 201),
            ("PUT", {"If-Match": tag(b"2")}, LARGE, 201),
            ("PUT", {"If-Match": tag(b"2")}, LARGE, 412),
            ("DELETE", {"If-Match": tag(b"2")}, None, 412),
            ("DELETE", {"If-Match": tag(LARGE)}, None, 204),
            ("DELETE", {"If-Match": "*"}, None, 404),
        ]
        for method, headers, body, status in steps:
            assert (await server.ask(method, path, {**user.headers, **headers}, body)).status == status, (
                method,
                headers,
            )


# --- space ----------------------------------------------------------------------------------------------------------


async def used(server: Served, user: User) -> int:
    """Bytes that the account uses."""
    account = await server.store.account(user.pubky)
    assert account is not None
    return account.used


@pytest_twisted.ensureDeferred
async def test_usage() -> None:
    """A file costs its length and 256 bytes, once."""
    async with served() as server:
        user = await server.sign_up()
        for body, cost in ((bytes(10), 266), (bytes(20), 276), (LARGE, len(LARGE) + 256), (b"", 256)):
            assert (await put(server, user, "/pub/x", body)).status == 201
            assert await used(server, user) == cost
        await server.ask("DELETE", f"/storage/{user.pubky}/pub/x", user.headers)
        assert await used(server, user) == 0


@pytest.mark.parametrize("chunked", [False, True])
@pytest_twisted.ensureDeferred
async def test_quota(chunked: bool) -> None:
    """What fits exactly is taken, one byte more is 507 and changes nothing, also if the length was not announced."""
    async with served(default_limit=1000) as server:
        user = await server.sign_up()

        async def store(path: str, length: int) -> Answer:
            body = bytes(length)
            if not chunked:
                return await put(server, user, path, body)
            framed = b"%x\r\n%b\r\n0\r\n\r\n" % (length, body)
            return await put(server, user, path, framed, **{"Transfer-Encoding": "chunked"})

        refused = await store("/pub/x", 745)
        assert (refused.status, refused.text) == (507, "Disk space quota exceeded")
        assert (await store("/pub/x", 744)).status == 201
        assert (await store("/pub/y", 1)).status == 507
        assert (await store("/pub/x", 745)).status == 507
        assert (await store("/pub/x", 700)).status == 201
        assert await used(server, user) == 956
        assert len((await get(server, user, "/pub/x")).body) == 700


@pytest_twisted.ensureDeferred
async def test_quota_comes_before_the_body() -> None:
    """A large upload that cannot fit is refused before it is read."""
    async with served(default_limit=1000) as server:
        user = await server.sign_up()
        headers = {**user.headers, "Content-Length": "10000000", "Expect": "100-continue"}
        answer = await server.ask("PUT", f"/storage/{user.pubky}/pub/x", headers)
        assert (answer.status, answer.text) == (507, "Disk space quota exceeded")


@pytest_twisted.ensureDeferred
async def test_allowed_write_paths() -> None:
    """The operator can confine an account's writes; reads are as ever, and a missing file is missing anywhere."""
    async with served(token_required=True) as server:
        quota = UserQuota(allowed_write_paths=("/pub/tokens/", "/pub/profile.json"))
        await server.store.add_signup_token(SignupToken("AAAA-AAAA-AAAA", 1, quota))
        user = await server.sign_up(token="AAAA-AAAA-AAAA")
        for path, status in (
            ("/pub/tokens/x", 201),
            ("/pub/tokens/a/b", 201),
            ("/pub/tokenstore/x", 403),
            ("/pub/tokens", 403),
            ("/pub/profile.json", 201),
            ("/pub/profile.jsonx", 403),
        ):
            answer = await put(server, user, path)
            assert answer.status == status, path
            if status == 403:
                assert answer.text == "Write to this path is not allowed"
        assert (await server.ask("DELETE", f"/storage/{user.pubky}/pub/tokens/x", user.headers)).status == 204
        assert (await server.ask("DELETE", f"/storage/{user.pubky}/pub/none", user.headers)).status == 404


@pytest_twisted.ensureDeferred
async def test_collisions() -> None:
    """A path is a file or a folder; names that only begin alike are neighbours."""
    async with served() as server:
        user = await server.sign_up()
        assert (await put(server, user, "/pub/a")).status == 201
        for body in (b"", LARGE):
            refused = await put(server, user, "/pub/a/b", body)
            assert (refused.status, refused.text) == (409, "File/folder path collision")
        assert (await server.ask("DELETE", f"/storage/{user.pubky}/pub/a", user.headers)).status == 204
        assert (await put(server, user, "/pub/a/b")).status == 201
        assert (await put(server, user, "/pub/a")).status == 409
        for neighbour in ("/pub/a0", "/pub/a.", "/pub/a-x", "/pub/A/1.txt", "/pub/a/b"):
            assert (await put(server, user, neighbour)).status == 201


# --- trouble --------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_full_disk() -> None:
    """Without room writes are 507; reads and deletes go on."""
    async with served() as server:
        user = await server.sign_up()
        await put(server, user, "/pub/x")
        server.blobs.room = False
        for body in (b"small", LARGE):
            refused = await put(server, user, "/pub/y", body)
            assert (refused.status, refused.text) == (507, "Server storage full")
        assert (await get(server, user, "/pub/x")).status == 200
        assert (await server.ask("DELETE", f"/storage/{user.pubky}/pub/x", user.headers)).status == 204


@pytest_twisted.ensureDeferred
async def test_a_store_that_is_away(monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    """While the store is away everything that needs it is 503 and says when to come back."""
    async with served() as server:
        user = await server.sign_up()

        async def away(*_: Any, **__: Any) -> None:
            raise StoreAway

        for name in ("session", "entry", "put", "check_put", "listing", "events", "account"):
            monkeypatch.setattr(type(server.store), name, away)
        monkeypatch.setattr(type(server.store.grants), "bearer", away)
        for method, path in (
            ("GET", f"/storage/{user.pubky}/pub/x"),
            ("GET", f"/storage/{user.pubky}/pub/"),
            ("PUT", f"/storage/{user.pubky}/pub/x"),
            ("GET", "/session"),
            ("GET", "/events/"),
            ("GET", f"/events-stream?user={user.pubky}"),
        ):
            answer = await server.ask(method, path, user.headers, b"" if method == "PUT" else None)
            assert (answer.status, answer.header("retry-after")) == (503, "1"), path
        assert (await server.ask("GET", "/info")).status == 200


@pytest_twisted.ensureDeferred
async def test_a_broken_body_leaves_nothing() -> None:
    """A body that breaks off is 400, the old file stays, and no bytes are left."""
    async with served() as server:
        user = await server.sign_up()
        await put(server, user, "/pub/x", b"old")
        for begin in (b"", LARGE):
            broken = b"%x\r\n%b\r\nzz\r\n" % (len(begin), begin) if begin else b"zz\r\n"
            answer = await put(server, user, "/pub/x", broken, **{"Transfer-Encoding": "chunked"})
            assert (answer.status, answer.text) == (400, "Stream broken")
        assert (await get(server, user, "/pub/x")).body == b"old"
        assert not server.blobs._kept


@pytest_twisted.ensureDeferred
async def test_a_missing_body_is_a_missing_file() -> None:
    """An entry whose file is gone is 404, and can be deleted or written anew."""
    async with served() as server:
        user = await server.sign_up()
        await put(server, user, "/pub/x", LARGE)
        server.blobs._kept.clear()
        assert (await get(server, user, "/pub/x")).status == 404
        assert (await put(server, user, "/pub/x", LARGE)).status == 201
        assert (await get(server, user, "/pub/x")).body == LARGE
