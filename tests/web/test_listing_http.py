"""Listings over HTTP: order, cursors, limits, shallow and reverse, and what is not there."""

from urllib.parse import quote

import pytest
import pytest_twisted

from pkarr.keys import Keypair
from tests.web.served import Served, User, served

STRANGER = Keypair(bytes([9]) * 32).public_key.z32
DEEP = ["a.wrong/a.txt", "example.com/a.txt", "example.com/b.txt", "example.com/c.txt", "example.com/cc-nested/z.txt",
        "example.com/d.txt", "example.wrong/a.txt", "z.wrong/a.txt"]  # fmt: skip
SHALLOW = ["a.com/a.txt", *(f"example.com/{one}.txt" for one in "abcd"), "example.con/d.txt", "example.con-file",
           "file", "file2", "z.com/a.txt"]  # fmt: skip


async def fill(server: Served, names: list[str]) -> User:
    """A user with these files below `/pub/`, put there in no good order."""
    user = await server.sign_up()
    for name in sorted(names, key=lambda one: one[::-1]):
        answer = await server.ask("PUT", f"/storage/{user.pubky}/pub/{quote(name)}", user.headers, b"")
        assert answer.status == 201, name
    return user


async def names(server: Served, user: User, folder: str, query: str = "") -> list[str]:
    """What a listing shows, without the part that all share."""
    answer = await server.ask("GET", f"/storage/{user.pubky}/pub/{folder}{query.replace('{key}', user.pubky)}")
    assert (answer.status, answer.header("content-type")) == (200, "text/plain")
    assert answer.header("etag") is None
    prefix = f"pubky://{user.pubky}/pub/"
    lines = answer.text.split("\n") if answer.body else []
    assert all(line.startswith(prefix) for line in lines)
    return [line.removeprefix(prefix) for line in lines]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["a.txt", "b.txt", "c.txt", "cc-nested/z.txt", "d.txt"]),
        ("?limit=2", ["a.txt", "b.txt"]),
        ("?limit=2&cursor={key}/pub/example.com/a.txt", ["b.txt", "c.txt"]),
        ("?limit=2&cursor=pubky://{key}/pub/example.com/a.txt", ["b.txt", "c.txt"]),
        (f"?cursor={STRANGER}/pub/example.com/c.txt", ["cc-nested/z.txt", "d.txt"]),
        ("?cursor={key}/pub/zzz", []),
        ("?cursor={key}/aaa", ["a.txt", "b.txt", "c.txt", "cc-nested/z.txt", "d.txt"]),
        ("?limit=0", []),
        ("?limit=", ["a.txt", "b.txt", "c.txt", "cc-nested/z.txt", "d.txt"]),
        ("?limit=x&limit=1", ["a.txt"]),
        ("?limit=70000", ["a.txt", "b.txt", "c.txt", "cc-nested/z.txt", "d.txt"]),
        ("?reverse", ["d.txt", "cc-nested/z.txt", "c.txt", "b.txt", "a.txt"]),
        ("?reverse=yes&limit=1&cursor={key}/pub/example.com/c.txt", ["b.txt"]),
        ("?shallow", ["a.txt", "b.txt", "c.txt", "cc-nested/", "d.txt"]),
        ("?shallow=TRUE&reverse=1&limit=2", ["d.txt", "cc-nested/"]),
        ("?shallow=false&reverse=No", ["a.txt", "b.txt", "c.txt", "cc-nested/z.txt", "d.txt"]),
    ],
)
@pytest_twisted.ensureDeferred
async def test_one_folder(query: str, found: list[str]) -> None:
    """Files in byte order, after a cursor of any key and path, a hundred if nothing is said, either way round."""
    async with served() as server:
        user = await fill(server, DEEP)
        assert await names(server, user, "example.com/", query) == [f"example.com/{one}" for one in found]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["a.com/", "example.com/", "example.con-file", "example.con/", "file", "file2", "z.com/"]),
        ("&limit=2", ["a.com/", "example.com/"]),
        ("&limit=2&cursor={key}/pub/example.com/", ["example.con-file", "example.con/"]),
        ("&limit=2&cursor={key}/pub/example.com/a.txt", ["example.con-file", "example.con/"]),
        ("&limit=3&cursor={key}/pub/example.com/", ["example.con-file", "example.con/", "file"]),
        ("&reverse&limit=3", ["z.com/", "file2", "file"]),
        ("&reverse&cursor={key}/pub/example.con/", ["example.con-file", "example.com/", "a.com/"]),
    ],
)
@pytest_twisted.ensureDeferred
async def test_direct_children(query: str, found: list[str]) -> None:
    """Folders stand once, with a slash, where that puts them in byte order; cursors and limits count what is shown."""
    async with served() as server:
        user = await fill(server, SHALLOW)
        assert await names(server, user, "", f"?shallow{query}") == found


@pytest_twisted.ensureDeferred
async def test_pages_make_the_whole() -> None:
    """Going on after the last line of each page shows everything once."""
    async with served() as server:
        user = await fill(server, [f"{number:03}/{number}" for number in range(150)])
        for mode, total in (("", 150), ("&shallow", 150), ("&reverse", 150)):
            seen: list[str] = []
            while page := await names(
                server, user, "", f"?limit=40{mode}" + (f"&cursor={{key}}/pub/{seen[-1]}" if seen else "")
            ):
                seen += page
            assert (len(seen), len(set(seen))) == (total, total)
        assert len(await names(server, user, "")) == 100


@pytest_twisted.ensureDeferred
async def test_names_are_no_patterns() -> None:
    """Only what lies below the very folder is shown, whatever characters it has; lines show decoded names."""
    odd = ["a_b/x", "axb/x", "a%b/x", "a+b/(/x", "a.b/[/x", "ü 🌍/x y"]
    async with served() as server:
        user = await fill(server, odd)
        for name in odd:
            folder = name.partition("/")[0] + "/"
            assert await names(server, user, quote(folder)) == [name]
            assert len(await names(server, user, quote(folder), "?shallow")) == 1


@pytest.mark.parametrize(
    ("folder", "query", "status", "text"),
    [
        ("none/", "", 404, "Directory Not Found"),
        ("none/", "?cursor=bad", 404, "Directory Not Found"),
        ("none/", "?limit=0", 404, "Directory Not Found"),
        ("file/", "", 404, "Directory Not Found"),
        ("", "?cursor=bad", 400, "Invalid cursor"),
        ("", "?cursor=bad/pub/x", 400, "Invalid cursor"),
        ("", "?cursor={key}", 400, "Invalid cursor"),
        ("", "?cursor=pubky{key}/pub/x", 400, "Invalid cursor"),
        ("", "?cursor={key}/pub//x", 400, "Invalid cursor"),
        ("", "?shallow=maybe", 400, "Invalid boolean parameter"),
        ("file", "?reverse=maybe", 400, "Invalid boolean parameter"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_is_refused(folder: str, query: str, status: int, text: str) -> None:
    """A folder without files is no folder, which is said before a cursor is looked at; flags are looked at first."""
    async with served() as server:
        user = await fill(server, ["file"])
        query = query.replace("{key}", user.pubky)
        answer = await server.ask("GET", f"/storage/{user.pubky}/pub/{folder}{query}")
        assert (answer.status, answer.text) == (status, text)
        nobody = await server.ask("GET", f"/storage/{STRANGER}/pub/")
        assert (nobody.status, nobody.text) == (404, "Directory Not Found")
        head = await server.ask("HEAD", f"/storage/{user.pubky}/pub/file?reverse=maybe")
        assert head.status == 200
