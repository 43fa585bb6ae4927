"""What every entry store lists: which paths, in which order, in which pages."""

import pytest
import pytest_twisted

from pubky_homeserver.core.errors import DirectoryNotFound
from tests.contract.store import ALICE, BOB, Store, put_all, sign_up

PATHS = [
    "/priv/z",
    "/pub/a_b/x",
    "/pub/axb/y",
    "/pub/example.com/a.txt",
    "/pub/example.com/b/c/d.txt",
    "/pub/example.com/b/e.txt",
    "/pub/example.com0",
    "/pub/example.con-file",
    "/pub/example.con/f.txt",
    "/pub/example.con/g.txt",
    "/pub/file",
    "/pub/file2",
    "/pub/g(h[+%/i",
    "/pub/ü/\U0001f600",
    "/pub/ü/\uffff",
]


async def fill(store: Store, paths: list[str]) -> None:
    """An account with these files."""
    await sign_up(store, ALICE)
    await put_all(store, ((ALICE, path, b"") for path in paths))


def expected(paths: list[str], directory: str, after: str, limit: int, reverse: bool, shallow: bool) -> list[str]:
    """The rule itself, on whole lists of texts and their bytes."""
    items = [path for path in paths if path.startswith(directory)]
    if shallow:
        items = [path[: (path + "/").index("/", len(directory)) + 1] if "/" in path[len(directory) :] else path
                 for path in items]  # fmt: skip
    ordered = sorted(set(items), key=str.encode, reverse=reverse)
    if after and reverse:
        ordered = [item for item in ordered if item.encode() < after.encode()]
    elif after:
        ordered = [item for item in ordered if item.encode() > after.encode()]
    return ordered[:limit]


@pytest_twisted.ensureDeferred
async def test_every_cursor_in_every_mode(store: Store) -> None:
    """Deep and shallow, forwards and backwards, after any text: exactly the paths that the rule names."""
    await fill(store, PATHS)
    await sign_up(store, BOB)
    cursors = {
        "",
        "/",
        "/pub",
        "/pub/",
        "/pub0",
        "/a",
        "/z",
        "/pub/example.com/b/c/",
        "/pub/fil",
        "/pub/file/",
        "/pub/\x7f",
    }
    cursors |= {path[:end] for path in PATHS for end in range(0, len(path) + 1, 3)} | set(PATHS)
    cursors |= {path + more for path in PATHS for more in ("/", "/x", "!", "0")}
    for directory in ("/", "/pub/", "/pub/example.com/", "/pub/example.con/", "/pub/g(h[+%/", "/priv/", "/pub/ü/"):
        for reverse in (False, True):
            for shallow in (False, True):
                for cursor in sorted(cursors):
                    found = await store.listing(ALICE, directory, cursor, 1000, reverse, shallow)
                    question = (directory, cursor, 1000, reverse, shallow)
                    assert found == expected(PATHS, *question), question


@pytest_twisted.ensureDeferred
async def test_the_order_of_the_protocol(store: Store) -> None:
    """A shallow listing is ordered by what it shows, and a folder is shown once, beside a file of its name or not."""
    await fill(store, ["/pub/" + name for name in ("example.com/a", "example.com/b/c", "example.con-file",
                                                   "example.con/d", "file", "file2")])  # fmt: skip
    assert await store.listing(ALICE, "/pub/", "", 10, False, True) == [
        "/pub/example.com/",
        "/pub/example.con-file",
        "/pub/example.con/",
        "/pub/file",
        "/pub/file2",
    ]


@pytest_twisted.ensureDeferred
async def test_a_cursor_inside_a_folder(store: Store) -> None:
    """Shallow, a cursor in a folder comes after the folder's line: forwards it goes on, backwards it shows the line."""
    await fill(store, ["/pub/a", "/pub/f/m", "/pub/z"])
    for cursor in ("/pub/f/", "/pub/f/a", "/pub/f/m", "/pub/f/z", "/pub/f/z/z"):
        assert await store.listing(ALICE, "/pub/", cursor, 10, False, True) == ["/pub/z"]
    for cursor in ("/pub/f/a", "/pub/f/m", "/pub/f/z/z"):
        assert await store.listing(ALICE, "/pub/", cursor, 10, True, True) == ["/pub/f/", "/pub/a"]
    assert await store.listing(ALICE, "/pub/", "/pub/f/", 10, True, True) == ["/pub/a"]
    assert await store.listing(ALICE, "/pub/", "/pub/f", 10, False, True) == ["/pub/f/", "/pub/z"]


@pytest_twisted.ensureDeferred
async def test_an_empty_directory_is_not_there(store: Store) -> None:
    """Without a file below it a directory is not found, whatever cursor and limit; with one, a page may be empty."""
    await fill(store, ["/pub/a/b", "/pub/c"])
    for directory in ("/pub/c/", "/pub/a/b/", "/pub/A/", "/priv/", "/pub/a b/"):
        for limit in (0, 10):
            with pytest.raises(DirectoryNotFound):
                await store.listing(ALICE, directory, "", limit, False, True)
    with pytest.raises(DirectoryNotFound):
        await store.listing(BOB, "/pub/", "", 10, False, False)
    for reverse, cursor in ((False, "/pub/a/b"), (False, "/q"), (True, "/pub/a/b"), (True, "/a")):
        for shallow in (False, True):
            assert await store.listing(ALICE, "/pub/a/", cursor, 10, reverse, shallow) == []
            assert await store.listing(ALICE, "/pub/a/", "", 0, reverse, shallow) == []
    await store.delete(ALICE, "/pub/a/b")
    with pytest.raises(DirectoryNotFound):
        await store.listing(ALICE, "/pub/a/", "", 10, False, False)


@pytest_twisted.ensureDeferred
async def test_pages_are_whole(store: Store) -> None:
    """A page has up to 1000 paths, and pages put together by the last line of each are the whole list."""
    paths = sorted(f"/pub/{'f' * (number % 3)}{number:04}/{number % 7}" for number in range(600))
    paths += sorted(f"/pub/x{number:04}" for number in range(600))
    await fill(store, paths)
    for shallow in (False, True):
        for reverse in (False, True):
            items = expected(paths, "/pub/", "", 2000, reverse, shallow)
            assert len(items) == 1200
            assert await store.listing(ALICE, "/pub/", "", 5000, reverse, shallow) == items[:1000]
            for limit in (1, 499, 500, 501, 1000):
                found: list[str] = []
                while limit > 1 or len(found) < 5:
                    page = await store.listing(ALICE, "/pub/", found[-1] if found else "", limit, reverse, shallow)
                    assert len(page) == min(limit, 1200 - len(found))
                    found += page
                    if not page:
                        break
                assert found == items[: len(found)]
