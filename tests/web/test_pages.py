"""Pages that never change are kept, within bounds, and are the ones that the store would give."""

import tracemalloc

import pytest_twisted

from pubky_homeserver.web.pages import COST, Pages
from tests.web.served import served


def test_the_page_not_asked_for_the_longest_goes_first() -> None:
    """All pages together stay within their bytes; a page that alone exceeds them is not kept."""
    pages = Pages(max_bytes=2 * COST + 10)
    pages.keep("a", b"1234")
    pages.keep("b", b"1234")
    assert pages.get("a") == b"1234"
    pages.keep("c", b"1234")
    assert [pages.get(key) for key in "abc"] == [b"1234", None, b"1234"]
    pages.keep("d", bytes(COST + 11))
    assert [pages.get(key) for key in "acd"] == [b"1234", b"1234", None]
    pages.keep("e", bytes(COST + 10))
    assert [pages.get(key) for key in "ace"] == [None, None, bytes(COST + 10)]


def test_small_pages_count_as_what_they_occupy() -> None:
    """However many tiny pages somebody asks for, they stay within the bytes; empty ones are not kept at all."""
    pages = Pages(max_bytes=100 * (COST + 1))
    tracemalloc.start()
    for number in range(10_000):
        pages.keep((number, 1), b"%d" % (number % 10))
        pages.keep((number, 0), b"")
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(pages.get((number, 1)) is not None for number in range(10_000)) == 100
    assert not any(pages.get((number, 0)) == b"" for number in range(10_000))
    assert held < pages.max_bytes


@pytest_twisted.ensureDeferred
async def test_only_full_pages_are_kept() -> None:
    """A page that is full is asked of the store once; one at the end of the feed shows each new event at once."""
    async with served() as server:
        user = await server.sign_up()
        for number in range(4):
            assert (await server.ask("PUT", f"/storage/{user.pubky}/pub/{number}", user.headers, b"")).status == 201
            full = await server.ask("GET", "/events/?limit=2")
            end = await server.ask("GET", "/events/?limit=9")
            assert len(full.text.splitlines()) == min(number + 1, 2) + 1
            assert len(end.text.splitlines()) == number + 2
        queries = 'events_db_query_duration_ms_count{otel_scope_name="pubky_homeserver"} '
        before = server.metrics.render().decode().partition(queries)[2].split()[0]
        for _ in range(3):
            assert (await server.ask("GET", "/events/?limit=2")).body == full.body
        assert server.metrics.render().decode().partition(queries)[2].split()[0] == before
