"""What the reference project's own tests assert of one file, asked over HTTP.

`tests/behaviours.toml` tells which test is for which line.
"""

import socket
import struct
from base64 import b64decode
from typing import Any

import pytest
import pytest_twisted
from blake3 import blake3
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import capturedLogs

from pubky_homeserver.core.errors import StoreAway
from tests.web.client import Answer
from tests.web.served import served
from tests.web.sockets import turns, until
from tests.web.somebody import somebody
from tests.web.streams import Follower, sending

MIB = 1024 * 1024

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


def vanish(client: Follower) -> None:
    """Reset a connection, as a crashed machine does in the end: who only closes may still read an answer."""
    transport: Any = client.transport
    transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abortConnection()


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
        vanish(client)
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


@pytest.mark.parametrize("length", [10, 10_000])
@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("crash", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_during_its_upload(length: int, there: bool, crash: bool) -> None:
    """A body that does not come to its end changes nothing, and leaves nothing behind."""
    async with served() as server:
        alice = await somebody(server)
        assert not there or await alice.put("/pub/a", b"old" * 2000) == 201
        used, kept = await alice.used(), set(server.blobs._kept)
        headers = {**alice.who.headers, "Content-Length": str(length + 1), "Expect": "100-continue"}
        client = await sending(server.port, "PUT", f"/storage/{alice.key}/pub/a", headers)
        await until(lambda: b"100 Continue" in client.received)
        assert client.transport is not None
        client.transport.write(bytes(length))
        await turns()
        if crash:
            vanish(client)
        else:
            client.transport.loseConnection()
        await until(lambda: client.ended)
        await turns()
        assert await alice.get("/pub/a") == (b"old" * 2000 if there else None)
        assert (await alice.used(), set(server.blobs._kept)) == (used, kept)
        assert len(await server.store.events(0, 10, True)) == there


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest_twisted.ensureDeferred
async def test_a_reader_sees_one_version(method: str) -> None:
    """Who began to read a file gets that file to its end, though it is replaced or deleted and swept meanwhile."""
    async with served() as server:
        alice = await somebody(server)
        old = b"old!" * (4 * MIB)
        assert await alice.put("/pub/a", old) == 201
        reader = await sending(server.port, "GET", f"/storage/{alice.key}/pub/a", {"Connection": "close"})
        await until(lambda: reader.received)
        transport: Any = reader.transport
        transport.pauseProducing()
        assert len(reader.received) < len(old)
        assert await (alice.put("/pub/a", b"new!" * 3000) if method == "PUT" else alice.delete("/pub/a")) in (201, 204)
        await server.blobs.remove(await server.store.expired_blobs(2**53 - 1, 10))
        transport.resumeProducing()
        await until(lambda: reader.ended)
        assert reader.received.partition(b"\r\n\r\n")[2] == old
        assert await alice.get("/pub/a") == (b"new!" * 3000 if method == "PUT" else None)


@pytest.mark.parametrize("error", [StoreAway, ZeroDivisionError])
@pytest.mark.parametrize(("method", "length"), [("PUT", 10), ("PUT", 10_000), ("DELETE", 0)])
@pytest_twisted.ensureDeferred
async def test_a_commit_that_fails(
    method: str, length: int, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write or delete whose commit fails is a 5xx; file, usage and events are as they were."""
    async with served() as server:
        alice = await somebody(server)
        assert await alice.put("/pub/a", b"old" * 2000) == 201
        used = await alice.used()

        async def fail(*_: Any, **__: Any) -> None:
            raise error

        with monkeypatch.context() as broken, capturedLogs() as logs:
            broken.setattr(type(server.store), method.lower(), fail)
            answer = await alice.ask(method, "/pub/a", bytes(length) if method == "PUT" else None)
            assert answer.status == (503 if error is StoreAway else 500)
        assert [event["log_failure"].type for event in logs if "log_failure" in event] == (
            [] if error is StoreAway else [error]
        )
        assert await alice.get("/pub/a") == b"old" * 2000
        assert await alice.used() == used
        assert len(await server.store.events(0, 10, True)) == 1
        assert await alice.put("/pub/a", b"new") == 201


@pytest_twisted.ensureDeferred
async def test_a_body_that_cannot_be_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A delete and an overwrite do not wait for the old body to go: that it cannot be removed is no refusal."""
    async with served() as server:
        alice = await somebody(server)
        for path in ("/pub/a", "/pub/b"):
            assert await alice.put(path, bytes(10_000)) == 201

        async def fail(*_: Any) -> None:
            raise PermissionError

        monkeypatch.setattr(type(server.blobs), "remove", fail)
        assert [await alice.delete("/pub/a"), await alice.put("/pub/b", b"new")] == [204, 201]
        assert (await alice.get("/pub/a"), await alice.get("/pub/b")) == (None, b"new")
        assert await alice.used() == 256 + 3
