"""Where the protocol's pages are silent the official homeserver has spoken: ours says the same, or it is listed why."""

import json
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet.defer import Deferred

from tests.differential.questions import Asking, questions
from tests.web.client import Answer
from tests.web.served import HOMESERVER, served

ANSWERS: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("answers.json").read_text())

DIFFERENT: dict[str, str] = {}
"""Questions that are answered differently on purpose, and why."""


def test_every_question_was_asked() -> None:
    """The recording is of these questions."""
    assert [one.name for one in questions()] == list(ANSWERS)


@pytest_twisted.ensureDeferred
async def test_our_answers() -> None:
    """Status, fields and body of every answer are the official ones."""
    async with served() as server:

        def ask(method: str, target: str, fields: dict[str, str], body: bytes | None) -> "Deferred[Answer]":
            return Deferred.fromCoroutine(server.ask(method, target, fields, body))

        ours = await (await Asking.begin(ask, server.clock.seconds, HOMESERVER)).all()
    asked = {one.name: one for one in questions()}
    wrong = [name for name, theirs in ANSWERS.items() if (ours[name] != theirs) != (name in DIFFERENT)]
    told = [f"{asked[name]}\n  theirs {ANSWERS[name]}\n  ours   {ours[name]}" for name in wrong]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(ANSWERS)}", *told])
