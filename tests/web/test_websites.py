"""A user's site by `Host`: which requests are for a site, which file is shown, and what every answer carries."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_twisted
from attrs import evolve

from pkarr.keys import Keypair
from pubky_homeserver.core.errors import InvalidRequest
from pubky_homeserver.web.request import Request
from pubky_homeserver.web.websites import Page, page_of, site_of
from tests.contract.copying import END, digest_of
from tests.contract.store import entry
from tests.web.client import Answer
from tests.web.served import HOMESERVER, Served, User, served
from tests.web.test_claims import PRIMARY, copied

KEY = Keypair(bytes([7]) * 32).public_key.z32
CORS_VARY = "origin, access-control-request-method, access-control-request-headers"


def a_request(method: str, target: str, host: str | None) -> Request:
    """A request without a connection."""
    fields = [] if host is None else [(b"host", host.encode("latin-1"))]
    return Request(None, method.encode(), target.encode("latin-1"), fields, False, True)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("host", "label"),
    [
        (KEY, "_"),
        (f"blog.{KEY}", "blog"),
        (f"My-Blog.{KEY.upper()}.:6287", "my-blog"),
        (f"{KEY}.", "_"),
        (f"{KEY}:6287", "_"),
        (f"_pubky.{KEY}", None),
        (f"_.{KEY}", None),
        (f"a.b.{KEY}", None),
        (f"-a.{KEY}", None),
        (f"a-.{KEY}", None),
        (f".{KEY}", None),
        (f"{'a' * 64}.{KEY}", None),
        (f"{'a' * 63}.{KEY}", "a" * 63),
        (f"pubky{KEY}", None),
        (f"x@{KEY}", None),
        (HOMESERVER, None),
        (f"blog.{HOMESERVER}", None),
        ("example.com", None),
        ("", None),
        (f"{KEY[:-1]}{'b' if KEY[-1] == 'y' else 'n'}", None),
    ],
)
def test_hosts(host: str, label: str | None) -> None:
    """A host is a canonical key with at most one label of a domain name before it; ours shows no site."""
    assert site_of(host, HOMESERVER) == (None if label is None else (KEY, label))


@pytest.mark.parametrize(
    ("method", "target", "host", "file"),
    [
        ("GET", "/a/%2e%2e/b%20c.html", f"blog.{KEY}", "/pub/website/blog/b c.html"),
        ("HEAD", "//evil.com", f"blog.{KEY}", "/pub/website/blog/evil.com"),
        ("GET", "/signup-page/", KEY, "/pub/website/_/signup-page/index.html"),
        ("GET", "/", KEY, "/pub/website/_/index.html"),
        ("GET", "/docs", KEY, "/pub/website/_/docs"),
        ("GET", "/docs/?a=b", KEY, "/pub/website/_/docs/index.html"),
        ("GET", "/session", KEY, None),
        ("GET", "/pub/file.txt", KEY, None),
        ("GET", "/events/", KEY, None),
        ("GET", "/storage/x/pub/y", KEY, None),
        ("GET", "/info", KEY, None),
        ("GET", "/auth/grant/session", KEY, None),
        ("PUT", "/index.html", KEY, None),
        ("GET", "/index.html", "example.com", None),
        ("GET", "/index.html", None, None),
    ],
)
def test_pages(method: str, target: str, host: str | None, file: str | None) -> None:
    """Only reads, and only paths that are not the API's, are for a site; the file lies in the site's folder."""
    page = page_of(a_request(method, target, host), HOMESERVER)
    assert (page.file if page is not None else None) == file


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("/a/%2e%2e%2F..%2Fpriv", "Invalid website path: path traverses above root"),
        ("/%5Cevil.com", "Invalid website path: path must not contain a backslash"),
        ("/%FF", "Website path is not valid UTF-8"),
        ("/" + "/".join(["a" * 239] * 4), "Invalid website path: path is 974 bytes; maximum is 972"),
    ],
)
def test_bad_pages(target: str, text: str) -> None:
    """A path that leaves the site, or cannot be one of its files, is refused; the folder's own length counts."""
    with pytest.raises(InvalidRequest) as refused:
        page_of(a_request("GET", target, KEY), HOMESERVER)
    assert str(refused.value) == text


def test_a_page_knows_its_folder() -> None:
    """A folder shows its index."""
    assert Page(KEY, "/pub/website/_/", "/a/").file == "/pub/website/_/a/index.html"


FILES = {
    "/pub/website/_/index.html": b"<!DOCTYPE html><title>home</title>",
    "/pub/website/_/docs/index.html": b"<!DOCTYPE html><title>docs</title>",
    "/pub/website/_/404.html": b"<!DOCTYPE html><title>nothing</title>",
    "/pub/website/_/assets/a.mjs": b"let a;",
    "/pub/website/_/a b/index.html": b"<!DOCTYPE html><title>blank</title>",
    "/pub/website/_/film.bin": bytes(100_000),
    "/pub/website/blog/index.html": b"<!DOCTYPE html><title>blog</title>",
    "/pub/x.txt": b"data",
}


@asynccontextmanager
async def a_site(websites: bool = True) -> AsyncIterator[tuple[Served, User]]:
    """A user with two sites."""
    async with served(websites=websites) as server:
        user = await server.sign_up()
        for path, body in FILES.items():
            target = f"/storage/{user.pubky}{path.replace(' ', '%20')}"
            assert (await server.ask("PUT", target, user.headers, body)).status == 201
        yield server, user


def check_site_answer(answer: Answer) -> None:
    """Every answer of a site is revalidated, not sniffed, sets no cookie and does not depend on `pubky-host`."""
    assert answer.header("cache-control") == "no-cache"
    assert answer.header("x-content-type-options") == "nosniff"
    assert answer.all("vary") == [CORS_VARY]
    assert answer.header("set-cookie") is None


@pytest_twisted.ensureDeferred
async def test_a_site() -> None:
    """Files, folders with an index, redirects to folders, and the site's own page for what is not there."""
    async with a_site() as (server, user):
        cases: list[tuple[str, str, int, bytes | None, str | None]] = [
            ("", "/", 200, FILES["/pub/website/_/index.html"], None),
            ("", "/index.html", 200, FILES["/pub/website/_/index.html"], None),
            ("", "/docs/", 200, FILES["/pub/website/_/docs/index.html"], None),
            ("", "/docs", 301, b"", "/docs/"),
            ("", "/docs?lang=en", 301, b"", "/docs/?lang=en"),
            ("", "/a%20b", 301, b"", "/a%20b/"),
            ("", "//docs", 301, b"", "/docs/"),
            ("", "/film.bin", 200, FILES["/pub/website/_/film.bin"], None),
            ("", "/nope.html", 404, FILES["/pub/website/_/404.html"], None),
            ("", "/assets/", 404, FILES["/pub/website/_/404.html"], None),
            ("blog.", "/", 200, FILES["/pub/website/blog/index.html"], None),
            ("blog.", "/nope.html", 404, b"Not Found", None),
            ("other.", "/", 404, b"Not Found", None),
        ]
        for label, path, status, body, location in cases:
            for headers in ({}, user.headers, {"pubky-host": HOMESERVER}):
                answer = await server.ask("GET", path, dict(headers), host=f"{label}{user.pubky}")
                assert (answer.status, answer.body, answer.header("location")) == (status, body, location), path
                check_site_answer(answer)
                assert (answer.header("etag") is not None) is (status == 200)
            head = await server.ask("HEAD", path, host=f"{label}{user.pubky}")
            assert (head.status, head.header("content-length")) == (status, str(len(body or b"")))
            check_site_answer(head)
        assert server.metrics.render().decode().count('addressing_mode="path"') == 1, "only the writes are counted"


@pytest_twisted.ensureDeferred
async def test_conditions_and_types_of_a_site() -> None:
    """A current copy is not sent again, on GET and HEAD; types are those of the files."""
    async with a_site() as (server, user):
        answer = await server.ask("GET", "/", host=user.pubky)
        for method in ("GET", "HEAD"):
            again = await server.ask(method, "/", {"If-None-Match": answer.header("etag") or ""}, host=user.pubky)
            assert (again.status, again.body, again.header("etag")) == (304, b"", answer.header("etag"))
            check_site_answer(again)
        script = await server.ask("GET", "/assets/a.mjs", host=user.pubky)
        assert script.header("content-type") == "application/javascript"
        missing = await server.ask("GET", "/nope", {"If-None-Match": answer.header("etag") or ""}, host=user.pubky)
        assert (missing.status, missing.header("content-type")) == (404, "text/html")
        assert missing.header("last-modified") is None


@pytest_twisted.ensureDeferred
async def test_api_paths_stay_the_apis() -> None:
    """On a site's host the API's paths answer as everywhere, and so do the hosts that show no site."""
    async with a_site() as (server, user):
        data = await server.ask("GET", "/pub/x.txt", host=user.pubky)
        assert (data.body, data.header("vary")) == (b"data", "pubky-host")
        assert (await server.ask("GET", "/", host=HOMESERVER)).body == b"Pubky Homeserver"
        assert (await server.ask("GET", "/", host=f"_pubky.{user.pubky}")).body == b"Pubky Homeserver"
        put = await server.ask("PUT", "/pub/website/_/b.html", user.headers, b"<p>", host=user.pubky)
        assert put.status == 201
        bad = await server.ask("GET", "/%5Cevil", host=user.pubky)
        assert (bad.status, bad.header("cache-control")) == (400, None)


@pytest_twisted.ensureDeferred
async def test_sites_of_nobody_and_of_disabled_users() -> None:
    """A site of an unknown user is 404, that of a disabled one 403."""
    async with a_site() as (server, user):
        nobody = await server.ask("GET", "/", host=KEY)
        assert (nobody.status, nobody.body) == (404, b"Not Found")
        check_site_answer(nobody)
        await server.store.set_disabled(user.pubky, True)
        disabled = await server.ask("GET", "/", host=user.pubky)
        assert (disabled.status, disabled.body) == (403, b"User is disabled")
        check_site_answer(disabled)


@pytest_twisted.ensureDeferred
async def test_sites_can_be_switched_off() -> None:
    """Without websites every host is the API's, and `/info` does not promise them."""
    async with a_site(websites=False) as (server, user):
        assert (await server.ask("GET", "/", host=user.pubky)).body == b"Pubky Homeserver"
        assert "websites" not in (await server.ask("GET", "/info")).text
    async with served() as server:
        assert '"websites"' in (await server.ask("GET", "/info")).text


@pytest.mark.parametrize("is_claimed", [False, True])
@pytest_twisted.ensureDeferred
async def test_the_site_of_a_copy(is_claimed: bool) -> None:
    """It is shown, and says how new it is; what is not here yet is not called missing (I10)."""
    async with copied() as one:
        home, store, pubky = one.home, one.store, one.pubky
        assert home.copies is not None
        if is_claimed:
            assert (await one.sign("/signup")).status == 200
        standing = await store.logs.standing(pubky, False)
        assert standing is not None

        async def check(cases: list[tuple[str, int]], state: str) -> None:
            for path, status in cases:
                for method in ("GET", "HEAD"):
                    answer = await home.ask(method, path, host=pubky)
                    assert answer.status == status, path
                    check_site_answer(answer)
                    assert answer.header("pubky-role") == "mirror"
                    assert answer.header("pubky-primary") == PRIMARY
                    assert (answer.header("pubky-mirror") or "").endswith(state)
                    assert (answer.header("retry-after") is not None) is (status == 503)

        await check([("/", 404)], "state=stale")
        page = entry("/pub/website/_/docs/index.html", seq=1)
        files = [evolve(one, body=None) for one in (page, entry("/pub/website/_/film", b"x" * 9, seq=2))]
        far = evolve(standing, position=evolve(standing.position, seq=2, event_id=2, digest=digest_of(*files)))
        await store.copies.begin_list(pubky, False, far)
        await store.copies.keep_listed(pubky, False, files, files[-1].path)
        assert await store.copies.fill(pubky, page)
        await home.copies.refresh(pubky)
        known = [("/docs/", 200), ("/film", 503)]
        await check([*known, ("/", 503), ("/docs", 503), ("/nope", 503)], "state=bootstrapping")
        await store.copies.keep_listed(pubky, False, [], END)
        assert await store.copies.end_list(pubky, False, far)
        await home.copies.refresh(pubky)
        await check([*known, ("/", 404), ("/docs", 301), ("/nope", 404)], "state=stale")
        other = await home.ask("GET", "/", host=KEY)
        assert (other.status, other.header("pubky-role")) == (404, None)
