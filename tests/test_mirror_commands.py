"""Copies that are watched on a terminal."""

from typing import Any

from rich.console import Console, RenderableType
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from pubky_homeserver.mirror_commands import EVERY, watch
from pubky_homeserver.remote import CommandFailed


def test_a_node_that_is_watched() -> None:
    """What it says is shown anew; that it does not answer is shown, and ends nothing."""
    traffic = {"requests": 1, "failures": 0, "received": 0}
    peer = {"name": "alice", "key": "k", "failure": None, "trouble": None, "paused": False, "traffic": traffic}
    answers: list[dict[str, Any]] = [{"peers": [peer], "copies": []}, {}, {"peers": [], "copies": []}]
    shown: list[str] = []
    terminal = Console(width=100)

    async def ask() -> dict[str, Any]:
        if not (answer := answers.pop(0)):
            raise CommandFailed("No answer")
        return answer

    def show(view: RenderableType) -> None:
        with terminal.capture() as captured:
            terminal.print(view)
        shown.append(captured.get())

    clock = Clock()
    watching = Deferred.fromCoroutine(watch(ask, show, clock))
    for _ in range(2):
        clock.advance(EVERY)
    assert [("alice" in text, "No answer" in text) for text in shown] == [(True, False), (False, True), (False, False)]
    watching.addErrback(lambda _failure: None)
    watching.cancel()
    assert not clock.getDelayedCalls()
