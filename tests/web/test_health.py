"""`/healthz` and `/readyz`: what supervisors and load balancers may rely on."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from pubky_homeserver.core.health import Publication
from tests.web.operator import NOW, Operator, operator
from tests.web.sockets import turns


@pytest_twisted.async_yield_fixture
async def node() -> AsyncIterator[Operator]:
    """An operator's port."""
    async with operator() as one:
        yield one


async def ready(node: Operator) -> tuple[int, dict[str, Any]]:
    """Status and JSON of `/readyz`."""
    answer = await node.ask("GET", "/readyz")
    assert answer.header("content-type") == "application/json"
    return answer.status, json.loads(answer.body)


@pytest.mark.parametrize("mood", ["well", "away", "broken", "silent"])
@pytest_twisted.ensureDeferred
async def test_alive(node: Operator, mood: str) -> None:
    """A process that answers is alive, whatever becomes of its store; nobody needs a password to know."""
    node.store.mood = mood
    answer = await node.ask("GET", "/healthz")
    assert (answer.status, answer.text, answer.header("content-type")) == (200, "ok", "text/plain; charset=utf-8")
    assert (await node.ask("HEAD", "/healthz")).status == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
@pytest_twisted.ensureDeferred
async def test_never_cached(node: Operator, path: str) -> None:
    """Yesterday's health is of no use."""
    assert (await node.ask("GET", path)).header("cache-control") == "no-store"


@pytest_twisted.ensureDeferred
async def test_ready(node: Operator) -> None:
    """With store, room and record all is well."""
    node.publication = Publication(published=NOW - 90.5)
    assert await ready(node) == (
        200,
        {
            "ready": True,
            "checks": {
                "store": {"ok": True, "detail": "answers"},
                "disk": {"ok": True, "detail": "has room"},
                "record": {"ok": True, "detail": "published", "age": 90},
            },
        },
    )


@pytest_twisted.ensureDeferred
async def test_store_away(node: Operator) -> None:
    """Without its store a node is not ready; it says when to ask again."""
    node.store.mood = "away"
    answer = await node.ask("GET", "/readyz")
    assert (answer.status, answer.header("retry-after")) == (503, "1")
    shown = json.loads(answer.body)
    assert shown["ready"] is False
    assert shown["checks"]["store"]["ok"] is False
    assert shown["checks"]["disk"]["ok"] is True


@pytest_twisted.ensureDeferred
async def test_store_broken(node: Operator) -> None:
    """What nobody expected is told in the log, not to whoever asks."""
    node.store.mood = "broken"
    with capturedLogs() as events:
        status, shown = await ready(node)
    assert (status, shown["checks"]["store"]) == (503, {"ok": False, "detail": "failed; the log tells why"})
    (failure,) = [event["log_failure"] for event in events if "log_failure" in event]
    assert failure.check(ZeroDivisionError)


@pytest_twisted.ensureDeferred
async def test_store_silent(node: Operator) -> None:
    """A store that says nothing is away after two seconds: a probe gets an answer before it gives up."""
    node.store.mood = "silent"
    answers: list[tuple[int, dict[str, Any]]] = []

    asked = Deferred.fromCoroutine(ready(node)).addCallback(answers.append)
    while not node.clock.getDelayedCalls():
        await turns(1)
    node.clock.advance(1.9)
    await turns()
    assert answers == []
    node.clock.advance(0.2)
    await asked
    status, shown = answers[0]
    assert (status, shown["checks"]["store"]) == (503, {"ok": False, "detail": "no answer within 2 s"})


@pytest_twisted.ensureDeferred
async def test_no_room(node: Operator) -> None:
    """A full disk shows, and the node stays in service: reading and deleting go on."""
    node.rooms["disk"] = False
    status, shown = await ready(node)
    assert (status, shown["ready"]) == (200, True)
    assert shown["checks"]["disk"] == {"ok": False, "detail": "the reserve is reached: writes are refused"}


@pytest.mark.parametrize(
    ("publication", "check"),
    [
        (None, None),
        (Publication(), {"ok": False, "detail": "not published yet"}),
        (Publication(failure="no relay answered"), {"ok": False, "detail": "no relay answered"}),
        (
            Publication(published=NOW - 7200, failure="no relay answered"),
            {"ok": False, "detail": "no relay answered", "age": 7200},
        ),
        (Publication(published=NOW + 5), {"ok": True, "detail": "published", "age": 0}),
    ],
)
@pytest_twisted.ensureDeferred
async def test_record(node: Operator, publication: Publication | None, check: dict[str, Any] | None) -> None:
    """A record that is not published shows, with its age if it ever was; the node stays in service."""
    node.publication = publication
    status, shown = await ready(node)
    assert (status, shown["ready"], shown["checks"].get("record")) == (200, True, check)
