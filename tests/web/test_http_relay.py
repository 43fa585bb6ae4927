"""The http relay: what the official one answered, asked of ours again; and its bounds in number, size and time."""

from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from pubky_homeserver.web.http_relay import (
    INBOX_TTL,
    INBOX_WAIT,
    LINK_TTL,
    LINK_WAIT,
    MAX_TYPE,
    MAX_WAITING,
    SWEEP,
    HttpRelay,
    Mailboxes,
    Message,
    Refusal,
)
from tests.web.relaying import Relaying, body_of, compare, recorded, relaying
from tests.web.sockets import turns

AHEAD = {"post": "get waits then receives", "delete": "await", "link get second": "link post first"}
"""Request → the one that was sent before it and waited for it; they are recorded in the order of their answers."""


def started(**settings: Any) -> AbstractAsyncContextManager[Relaying]:
    """A relay that has just started."""
    return relaying(HttpRelay(Clock(), **settings))


def in_order() -> list[dict[str, Any]]:
    """The recorded requests as they were sent."""
    records = {record["name"]: record for record in recorded("http_relay_transcripts.json")}
    order = list(records)
    for name, earlier in AHEAD.items():
        order.remove(earlier)
        order.insert(order.index(name), earlier)
    return [records[name] for name in order]


@pytest_twisted.ensureDeferred
async def test_transcripts() -> None:
    """Every recorded request is answered as the official relay did: status, all headers, body. Nothing differs."""
    async with started(cors=True) as relay:
        records = in_order()
        waiting = []
        for record in records:
            request = record["request"]
            answer = await relay.begin(request["method"], request["path"], body_of(request), request["headers"])
            waiting.append((record, answer))
            if record["response"]["status"] == 408:
                assert not answer.called
                relay.clock.advance(LINK_WAIT if request["path"].startswith("/link") else INBOX_WAIT)
        for record, answer in waiting:
            compare(record, await answer, {})
        assert len(records) == 31


@pytest_twisted.ensureDeferred
async def test_waiting_ends_with_its_time() -> None:
    """An inbox lets a client wait 25 s, a link 600 s: neither less nor more."""
    async with started() as relay:
        for target, seconds in (("/inbox/a", INBOX_WAIT), ("/link/a", LINK_WAIT)):
            waiting = await relay.begin("GET", target)
            relay.clock.advance(seconds - 1)
            await turns()
            assert not waiting.called
            relay.clock.advance(1)
            answer = await waiting
            assert (answer.status, answer.text, answer.header("deprecation")) == (408, "Request timed out", None)
        assert relay.clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_message_lives_for_its_time() -> None:
    """A message of an inbox is there for 300 s, acknowledged or not; after that nothing is known of it."""
    async with started() as relay:
        await relay.ask("POST", "/inbox/a", b"a")
        await relay.ask("POST", "/inbox/b", b"b")
        assert (await relay.ask("DELETE", "/inbox/b")).status == 200
        relay.clock.advance(INBOX_TTL)
        assert (await relay.ask("GET", "/inbox/a")).text == "a"
        assert (await relay.ask("GET", "/inbox/a/ack")).text == "false"
        assert (await relay.ask("GET", "/inbox/b/ack")).text == "true"
        relay.clock.advance(0.5)
        for name in "ab":
            for method, target in (
                ("GET", f"/inbox/{name}/ack"),
                ("GET", f"/inbox/{name}/await"),
                ("DELETE", f"/inbox/{name}"),
            ):
                answer = await relay.ask(method, target)
                assert (answer.status, answer.text) == (404, "Not found")
        waiting = await relay.begin("GET", "/inbox/a")
        relay.clock.advance(SWEEP)
        await turns()
        assert not waiting.called, "the sweep concerns messages that were there when the client came, no others"


def test_nothing_is_left_behind() -> None:
    """An id is forgotten with its message and the last who waits there, and with the last id the sweeping ends."""
    clock = Clock()
    boxes = Mailboxes(clock, 10)
    message = Message(b"x", b"a/b")
    boxes.leave(b"inbox", message, INBOX_TTL)
    boxes.leave(b"link", message, LINK_TTL)
    late, gone, served = (Deferred.fromCoroutine(boxes.fetch(name, True, 30)) for name in (b"1", b"2", b"3"))
    ends = [late.addErrback(lambda reason: reason.trap(Refusal)), gone.addErrback(lambda r: r.trap(CancelledError))]
    boxes.leave(b"3", message, INBOX_TTL)
    assert len(boxes) == 5
    gone.cancel()
    assert len(boxes) == 4
    clock.advance(30)
    assert len(boxes) == 3
    assert served.result is message
    assert [end.result for end in ends] == [Refusal, CancelledError]
    clock.pump([SWEEP] * int(INBOX_TTL / SWEEP))
    assert len(boxes) == 1
    clock.pump([SWEEP] * int((LINK_TTL - INBOX_TTL) / SWEEP))
    assert len(boxes) == 0
    assert clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_sweeping_tells_those_who_wait() -> None:
    """Who waits at an id whose message is swept away hears of it within 15 s, before the own time is up."""
    async with started() as relay:
        await relay.ask("POST", "/inbox/read", b"x")
        await relay.ask("DELETE", "/inbox/read")
        await relay.ask("POST", "/inbox/unread", b"x")
        relay.clock.advance(INBOX_TTL - 1)
        reader = await relay.begin("GET", "/inbox/read")
        awaiting = await relay.begin("GET", "/inbox/unread/await")
        relay.clock.advance(SWEEP + 1)
        for waiting in (reader, awaiting):
            answer = await waiting
            assert (answer.status, answer.text) == (404, "Entry expired")


@pytest_twisted.ensureDeferred
async def test_oldest_message_makes_room() -> None:
    """Above the capacity the message that was left first goes, and who waits for its receipt is told."""
    async with started(capacity=2) as relay:
        await relay.ask("POST", "/inbox/a", b"a")
        await relay.ask("POST", "/inbox/b", b"b")
        await relay.ask("POST", "/inbox/a", b"again")
        awaiting = await relay.begin("GET", "/inbox/b/await")
        await relay.ask("POST", "/inbox/c", b"c")
        assert (await awaiting).text == "Entry expired"
        assert (await relay.ask("GET", "/inbox/b/ack")).status == 404
        assert (await relay.ask("GET", "/inbox/a")).text == "again"
        assert (await relay.ask("GET", "/inbox/c")).text == "c"


@pytest_twisted.ensureDeferred
async def test_ten_may_wait() -> None:
    """Ten clients may wait at an id for a message, and ten for its receipt; the next one is sent away."""
    async with started() as relay:
        for target in ("/inbox/a", "/inbox/a/await"):
            waiting = [await relay.begin("GET", target) for _ in range(MAX_WAITING)]
            refused = await relay.ask("GET", target)
            assert (refused.status, refused.text) == (503, "Too many concurrent requests")
            assert not any(one.called for one in waiting)
            await relay.ask("POST" if target == "/inbox/a" else "DELETE", "/inbox/a", b"for all")
            assert {(await one).status for one in waiting} == {200}


@pytest_twisted.ensureDeferred
async def test_vanished_client_waits_no_more() -> None:
    """A client that vanishes gives its place in the queue back, and never gets a message that others wait for."""
    async with started() as relay:
        gone = await relay.connect(b"GET /link/a HTTP/1.1\r\nHost: a\r\n\r\n")
        waiting = [await relay.begin("GET", "/link/a") for _ in range(MAX_WAITING - 1)]
        assert (await relay.ask("GET", "/link/a")).status == 503
        await relay.vanish(gone)
        waiting.append(await relay.begin("GET", "/link/a"))
        assert not any(one.called for one in waiting)
        await relay.ask("POST", "/inbox/c", b"x")
        gone = await relay.connect(b"GET /inbox/c/await HTTP/1.1\r\nHost: a\r\n\r\n")
        for _ in range(MAX_WAITING - 1):
            await relay.begin("GET", "/inbox/c/await")
        assert (await relay.ask("GET", "/inbox/c/await")).status == 503
        await relay.vanish(gone)
        assert not (await relay.begin("GET", "/inbox/c/await")).called
        only = await relay.connect(b"GET /link/b HTTP/1.1\r\nHost: a\r\n\r\n")
        await relay.vanish(only)
        handing_over = await relay.begin("POST", "/link/b", b"message")
        assert not handing_over.called
        assert (await relay.ask("GET", "/link/b")).text == "message"
        assert (await handing_over).status == 200


@pytest_twisted.ensureDeferred
async def test_vanished_sender_leaves_its_message() -> None:
    """A message that was left can be fetched, whatever becomes of the client that left it."""
    async with started() as relay:
        sender = await relay.connect(b"POST /link/a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
        before = len(relay.clock.getDelayedCalls())
        await relay.vanish(sender)
        assert len(relay.clock.getDelayedCalls()) == before - 1
        assert (await relay.ask("GET", "/link/a")).text == "hi"


@pytest_twisted.ensureDeferred
async def test_next_message_takes_the_place() -> None:
    """A second message under an id is not received yet, and who waited for the first one's receipt is told."""
    async with started() as relay:
        handing_over = await relay.begin("POST", "/link/a", b"first")
        awaiting = await relay.begin("GET", "/inbox/a/await")
        await relay.ask("POST", "/inbox/a", b"second")
        told = await handing_over
        assert (told.status, told.text, told.header("deprecation")) == (404, "Entry expired", "true")
        assert (await awaiting).text == "Entry expired"
        await relay.ask("DELETE", "/inbox/a")
        await relay.ask("POST", "/inbox/a", b"third")
        assert (await relay.ask("GET", "/inbox/a/ack")).text == "false"
        assert (await relay.ask("GET", "/inbox/a")).text == "third"


@pytest_twisted.ensureDeferred
async def test_link_and_inbox_share_messages() -> None:
    """A link fetches, and so erases, what was left in an inbox; an inbox shows what a link waits to hand over."""
    async with started() as relay:
        await relay.ask("POST", "/inbox/a", b"x")
        assert (await relay.ask("GET", "/link/a")).text == "x"
        assert (await relay.ask("GET", "/inbox/a/ack")).text == "true"
        handing_over = await relay.begin("POST", "/link/b", b"y")
        assert (await relay.ask("GET", "/inbox/b")).text == "y"
        assert not handing_over.called
        await relay.ask("DELETE", "/inbox/b")
        assert (await handing_over).status == 200


@pytest_twisted.ensureDeferred
async def test_one_fetches_all_look() -> None:
    """Of several links that wait, the last to come gets a message; the inboxes that wait all see it."""
    async with started() as relay:
        older, newer = await relay.begin("GET", "/link/a"), await relay.begin("GET", "/link/a")
        lookers = [await relay.begin("GET", "/inbox/a") for _ in range(2)]
        assert (await relay.ask("POST", "/link/a", b"one")).status == 200
        assert [(await one).text for one in (newer, *lookers)] == ["one"] * 3
        assert not older.called
        assert (await relay.ask("POST", "/link/a", b"two")).status == 200
        assert (await older).text == "two"


@pytest_twisted.ensureDeferred
async def test_head_takes_nothing() -> None:
    """To ask for the head alone leaves the message where it is, also at a link."""
    async with started() as relay:
        await relay.ask("POST", "/inbox/a", b"xyz", {"Content-Type": "text/x"})
        head = await relay.ask("HEAD", "/link/a")
        assert (head.status, head.header("content-length"), head.header("content-type"), head.body) == (
            200,
            "3",
            "text/x",
            b"",
        )
        assert (await relay.ask("GET", "/link/a")).text == "xyz"


@pytest_twisted.ensureDeferred
async def test_ids_are_compared_decoded() -> None:
    """An id is what a path spells: percent signs are another spelling, and 256 bytes are counted after decoding."""
    async with started() as relay:
        await relay.ask("POST", "/inbox/a%2Fb", b"x")
        assert (await relay.ask("GET", "/inbox/%61%2fb")).text == "x"
        assert (await relay.ask("POST", "/inbox/" + "%61" * 256, b"y")).status == 200
        assert (await relay.ask("GET", "/inbox/" + "a" * 256)).text == "y"
        for method in ("GET", "POST"):
            answer = await relay.ask(method, "/link/" + "a" * 257)
            assert (answer.status, answer.text) == (400, "Channel ID too long")


@pytest_twisted.ensureDeferred
async def test_content_type_is_bounded() -> None:
    """The content type that is kept with a message is as bounded as the message."""
    async with started() as relay:
        longest = "a/" + "b" * (MAX_TYPE - 2)
        assert (await relay.ask("POST", "/inbox/a", b"x", {"Content-Type": longest})).status == 200
        assert (await relay.ask("GET", "/inbox/a")).header("content-type") == longest
        refused = await relay.ask("POST", "/inbox/a", b"y", {"Content-Type": longest + "b"})
        assert (refused.status, refused.text) == (400, "Content-Type too long")
        assert (await relay.ask("GET", "/inbox/a")).text == "x"


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("method", "target", "status", "allow"),
    [
        ("POST", "/", 405, "GET,HEAD"),
        ("POST", "/inbox/a/ack", 405, "GET,HEAD"),
        ("DELETE", "/inbox/a/await", 405, "GET,HEAD"),
        ("DELETE", "/link/a", 405, "GET,HEAD,POST"),
        ("GET", "/inbox", 404, None),
        ("GET", "/inbox/", 404, None),
        ("GET", "/inbox/a/", 404, None),
        ("GET", "/inbox/a/acknowledged", 404, None),
        ("GET", "/link/a/ack", 404, None),
        ("GET", "/link/a/b/c", 404, None),
        ("GET", "/elsewhere/a", 404, None),
    ],
)
async def test_other_paths_and_methods(method: str, target: str, status: int, allow: str | None) -> None:
    """What is no path of the protocol is 404, what is none of a path's methods 405, both without a body."""
    async with started() as relay:
        answer = await relay.ask(method, target)
    assert (answer.status, answer.header("allow"), answer.body) == (status, allow, b"")


@pytest_twisted.ensureDeferred
async def test_without_cors_no_page_may_ask() -> None:
    """A relay that is not set up for pages of other origins never says that they may use it."""
    async with started() as relay:
        origin = {"Origin": "https://a.b", "Access-Control-Request-Method": "POST"}
        asked = await relay.ask("OPTIONS", "/inbox/a", headers=origin)
        assert (asked.status, asked.header("allow")) == (405, "GET,HEAD,POST,DELETE")
        left = await relay.ask("POST", "/inbox/a", b"x", origin)
        assert left.status == 200
        assert not [
            name for name, _ in (*asked.headers, *left.headers) if name.startswith("access-control") or name == "vary"
        ]
