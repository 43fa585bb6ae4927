"""What the reference project's own tests assert of collisions, quotas and listings, asked over HTTP.

`tests/behaviours.toml` tells which test is for which line.
"""

import pytest
import pytest_twisted
from attrs import evolve

from pubky_homeserver.core.quotas import UserQuota
from tests.web.served import served
from tests.web.sockets import until
from tests.web.somebody import At, somebody, status
from tests.web.streams import sending

MIB = 1024 * 1024


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
        assert await alice.put("/pub/a/b", bytes(10_000)) == 409
        assert (await alice.used(), await alice.get("/pub/a/b")) == (used, None)
        assert not server.blobs._kept
        assert len(await server.store.events(0, 10, True)) == 2
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
            before = await alice.used(), set(server.blobs._kept)
            assert await alice.put(path, bytes(length)) == expected, (path, length)
            assert expected == 201 or (await alice.used(), set(server.blobs._kept)) == before
        assert await alice.get("/pub/a") == bytes(600_000)
        chunked = {"Transfer-Encoding": "chunked", **alice.who.headers}
        large = b"%x\r\n%b\r\n0\r\n\r\n" % (MIB, bytes(MIB))
        before = await alice.used(), set(server.blobs._kept)
        assert (await server.ask("PUT", f"/storage/{alice.key}/pub/a", chunked, large)).status == 507
        assert (await alice.used(), set(server.blobs._kept)) == before
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


@pytest_twisted.ensureDeferred
async def test_without_a_limit() -> None:
    """Ten gigabytes may be announced where nothing limits an account."""
    async with served() as server:
        alice = await somebody(server)
        headers = {**alice.who.headers, "Content-Length": str(10 * 1024 * MIB), "Expect": "100-continue"}
        client = await sending(server.port, "PUT", f"/storage/{alice.key}/pub/a", headers)
        await until(lambda: client.received)
        assert client.received == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert client.transport is not None
        client.transport.loseConnection()
        await until(lambda: client.ended)


@pytest.mark.parametrize(
    ("allowed", "refused"),
    [((), ["/pub/a/x", "/pub/b", "/priv/c"]), (("/pub/a/",), ["/pub/b", "/priv/c"]), (("/pub/b",), ["/pub/a/x"])],
)
@pytest_twisted.ensureDeferred
async def test_files_beyond_the_allowed_paths(allowed: tuple[str, ...], refused: list[str]) -> None:
    """What an account wrote before it was confined it can still read, and no longer overwrite or delete."""
    async with served() as server:
        alice = await somebody(server)
        for path in ("/pub/a/x", "/pub/b", "/priv/c"):
            assert await alice.put(path) == 201
        files = server.store._accounts[alice.key]
        files.account = evolve(files.account, quota=UserQuota(allowed_write_paths=allowed))
        for path in refused:
            for method in ("PUT", "DELETE"):
                answer = await alice.ask(method, path, b"x" if method == "PUT" else None)
                assert (answer.status, answer.text) == (403, "Write to this path is not allowed")
            assert await alice.get(path) == b"hello"
        if not allowed:
            assert await alice.put("/pub/new") == 403


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
