"""Odd requests: whatever a client says, the answer is one of the protocol's, and nothing is changed by it."""

from typing import Any

import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogLevel, globalLogPublisher
from zope.interface import provider

from pkarr.keys import Keypair
from tests.web.client import Answer
from tests.web.served import Served, User, served
from tests.web.sockets import reactor

KEY = Keypair((1).to_bytes(32, "big")).public_key.z32
"""The first user who signs up."""

METHODS = st.sampled_from(["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "LOCK", "UNLOCK", "PROPFIND"])
PIECES = st.sampled_from(
    ["/", "//", "..", ".", "%2e%2e", "%00", "%FF", "%", "%zz", "%2F", "pub", "priv", "storage", "events",
     "events-stream", "session", "signup", "signup_tokens", "info", "auth", "grant", KEY, KEY.upper(),
     "pubky" + KEY, "x", "a" * 300, "~", "%F0%9F%8C%8D", "%C2%85", "%5C", ":", "website", "index.html", "-_."]
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(["", "0", "1", "-1", "65536", "18446744073709551616", "true", "yes", "abc", KEY, f"{KEY}:1",
                     f"pubky://{KEY}/pub/x", "/priv/", "/pub/", "%FF", "+", "0" * 13, "A" * 14, "AAAA-AAAA-AAAA"]),
    st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#&=? "), max_size=20),
)  # fmt: skip
NAMES = st.sampled_from(
    ["limit", "cursor", "user", "path", "live", "reverse", "shallow", "pubky-host", "signup_token", "x", ""]
)
HEADERS = st.sampled_from(
    ["Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If", "Lock-Token", "Timeout", "Cookie",
     "Authorization", "pubky-host", "Origin", "Content-Type", "Access-Control-Request-Method"]
)  # fmt: skip
TARGETS = st.builds(
    lambda pieces, pairs: "/" + "".join(pieces) + ("?" if pairs else "") + "&".join(f"{a}={b}" for a, b in pairs),
    st.lists(PIECES, max_size=8),
    st.lists(st.tuples(NAMES, VALUES), max_size=4),
)
LIVE = "live="
"""A live stream does not end: it is left out here."""


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, list[tuple[str, str]], bytes | None, bool]:
    """Method, target, header fields, body, and whether the user's session comes along."""
    target = draw(TARGETS.filter(lambda one: LIVE not in one))
    headers = draw(st.lists(st.tuples(HEADERS, VALUES), max_size=4))
    return draw(METHODS), target, headers, draw(st.none() | st.binary(max_size=200)), draw(st.booleans())


async def ask(server: Served, user: User, request: tuple[Any, ...]) -> Answer:
    """Send it, from a host that names nobody or a user's website."""
    method, target, headers, body, signed_in = request
    fields = [*headers, ("Cookie", user.cookie)] if signed_in else headers
    return await server.ask(method, target, fields, body, host=KEY if len(target) % 3 == 0 else "127.0.0.1")


@pytest_twisted.ensureDeferred
async def test_no_request_is_a_failure() -> None:
    """Nothing that can be said over HTTP is answered with a 500 or leaves a traceback; strangers change nothing."""
    failures: list[Any] = []

    @provider(ILogObserver)
    def watch(event: Any) -> None:
        if event.get("log_level") in (LogLevel.critical, LogLevel.error):
            failures.append(event)

    async with served() as server:
        user = await server.sign_up()
        events = [0]  # how many there were after each request
        globalLogPublisher.addObserver(watch)
        try:

            @settings(max_examples=600)
            @given(requests())
            def once(request: tuple[Any, ...]) -> None:
                answers: list[Any] = []
                Deferred.fromCoroutine(ask(server, user, request)).addBoth(answers.append)
                while not answers:
                    reactor.iterate(0.01)
                answer = answers[0]
                assert isinstance(answer, Answer), answer
                assert answer.status < 500, (request, answer)
                assert failures == []
                after = len(server.store._events)
                assert request[4] or after == events[-1], "a stranger changed something"
                events.append(after)

            once()
        finally:
            globalLogPublisher.removeObserver(watch)
