"""What the reference project's own tests assert of events, asked over HTTP.

`tests/behaviours.toml` tells which test is for which line.
"""

import re
from collections.abc import Mapping

import pytest_twisted
from twisted.internet.defer import Deferred

from pkarr.keys import Keypair
from pubky_homeserver.feed import POLL, EventStream, Feed
from tests.web.served import Served, served
from tests.web.sockets import turns, until
from tests.web.somebody import somebody
from tests.web.streams import following

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
        await alice.put("/pub/my%25folder/a")
        await alice.put("/priv/files/a")
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
        assert await events(server, f"user={alice.key}&path=/pub/my%25folder/") == ["PUT /pub/my%folder/a"]
        overlapping = f"user={bob.key}&path=/pub/files/&path=/pub/files/1&path=/pub/"
        assert await events(server, overlapping) == await events(server, f"user={bob.key}")
        assert len(await events(server, f"user={bob.key}")) == 5
        unfiltered = await events(server, f"user={alice.key}&user={bob.key}")
        assert len(unfiltered) == 19
        assert not [event for event in unfiltered if "/priv/" in event], "without a filter only what is public"
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
        assert await events(server, f"user={alice.key}") == ["PUT /pub/a"]
        narrow = await server.sign_in_by_grant(Keypair((1).to_bytes(32, "big")), "/priv/app/:r")
        live = f"user={alice.key}&path=/pub/&path=/priv/app/&live=true"
        public = f"user={alice.key}&live=true"
        async with (
            following(server.port, live, narrow.headers) as stream,
            following(server.port, public, {}) as anonymous,
            following(server.port, public, cookie) as unasked,
        ):
            await alice.put("/priv/other/y")
            await alice.put("/priv/app/z")
            await alice.put("/pub/z")
            await until(lambda: stream.has("/pub/z"))
            assert stream.has("/priv/app/z")
            assert not stream.has("/priv/other/y")
            await until(lambda: anonymous.has("/pub/z") and unasked.has("/pub/z"))
            assert b"/priv/" not in anonymous.received + unasked.received


@pytest_twisted.ensureDeferred
async def test_hints_that_are_lost() -> None:
    """What no hint told a poll finds, all of it and in order; a feed that starts again tells nothing anew."""
    async with served() as server:
        alice = await somebody(server)
        assert await alice.put("/pub/old") == 201
        server.feed.stopService()
        server.feed = Feed(server.store, server.store, server.clock)
        server.feed.startService()
        begin = await server.store.last_event_id()
        stream = await server.feed.stream({alice.key: str(begin)}, ("/pub/",), live=True)
        assert await _soon(server, stream, 1) == []
        server.store._wakes.clear()
        for number in range(150):
            assert await alice.put(f"/pub/{number}") == 201
        assert await _soon(server, stream, POLL - 2) == []
        seen = await _soon(server, stream, POLL)
        while more := await _soon(server, stream, 0.01):
            seen += more
        assert seen == [f"/pub/{number}" for number in range(150)]
        stream.close()


async def _soon(server: Served, stream: EventStream, seconds: float) -> list[str]:
    """The paths that a stream tells within some seconds of the test's clock."""
    waiting = Deferred.fromCoroutine(stream.batch(seconds))
    await turns()
    server.clock.advance(seconds)
    return [event.path for event in await waiting or []]


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
