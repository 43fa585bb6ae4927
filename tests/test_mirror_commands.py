"""Commands about mirroring: that all of them speak JSON, and how copies are watched on a terminal."""

from io import StringIO
from typing import Any

import pytest
from click import Group
from rich.console import Console, RenderableType
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from pubky_homeserver.command import waiting
from pubky_homeserver.conflict_commands import conflicts
from pubky_homeserver.mirror_commands import EVERY, SHOWN, mirror, show_forks, show_moves, watch
from pubky_homeserver.peer_commands import peer
from pubky_homeserver.remote import CommandFailed
from pubky_homeserver.takedown_commands import takedown

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
"""What makes the cursor of a terminal go and come."""


@pytest.mark.parametrize("group", [peer, mirror, conflicts, takedown], ids=lambda group: str(group.name))
def test_every_command_is_for_programs_too(group: Group) -> None:
    """Each has `--json`, says what it does in its help, and shows how it is called."""
    assert group.commands
    for name, command in group.commands.items():
        assert "--json" in [option for one in command.params for option in one.opts], name
        assert command.help, name
        assert f"homeserver {group.name} {name}" in (command.epilog or ""), name


def test_something_that_takes_its_time() -> None:
    """A terminal shows what goes on, and no trace of it afterwards; elsewhere nothing is written."""
    shown, plain = StringIO(), StringIO()
    with waiting(reactor, "Asking alice", Console(file=shown, force_terminal=True, width=40)):
        assert HIDE in shown.getvalue()
    assert "Asking alice" in shown.getvalue()
    assert shown.getvalue().count(HIDE) == shown.getvalue().count(SHOW) == 1
    with waiting(reactor, "Asking alice", Console(file=plain, width=40)):
        pass
    assert plain.getvalue() == ""


def test_a_node_that_is_watched() -> None:
    """What it says is shown anew; that it does not answer is shown, and ends nothing."""
    traffic = {"requests": 1, "failures": 0, "received": 0}
    alice = {"name": "alice", "key": "k", "failure": None, "trouble": None, "paused": False, "traffic": traffic}
    copy = {"primary": "k" * 52, "seq": 7, "confirmed": 0, "used": 0, "behind": 0, "verified": 0, "taken_down": False}
    copies = [
        {**copy, "pubky": "y", "state": "current", "missing": 0, "braked": 0, "lag": 0},
        {**copy, "pubky": "n", "state": "current", "missing": 5, "braked": 0, "lag": 0},
    ]
    answers: list[dict[str, Any]] = [{"peers": [alice], "copies": copies}, {}, {"peers": [], "copies": []}]
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
    assert "1 of 2 copies are whole and current; bodies missing: 5" in shown[0]
    assert shown[0].index("\nn ") < shown[0].index("\ny "), "what is under way comes first"
    watching.addErrback(lambda _failure: None)
    watching.cancel()
    assert not clock.getDelayedCalls()


def test_what_happened_is_shown() -> None:
    """Accounts with two histories, and the newest moves, the newest first; one that went back is told apart."""
    terminal = Console(width=200)
    keys = [letter * 52 for letter in "abc"]
    moves = [
        {
            "pubky": keys[number % 2],
            "what": "opened",
            "other": keys[2] if number else "",
            "at": number,
            "is_back": False,
        }
        for number in range(SHOWN + 1)
    ]
    moves[-1]["is_back"] = True
    with terminal.capture() as captured:
        terminal.print(show_forks([{"pubky": keys[0], "peer": keys[2], "at": 40}], 100))
        terminal.print(show_moves(moves, 100))
    lines = captured.get().splitlines()
    assert [keys[0] in line and "cccccccc…" in line and "0:01:00 ago" in line for line in lines].count(True) == 1
    shown = [line for line in lines if "opened" in line]
    assert len(shown) == SHOWN
    assert "opened, back" in shown[0]
    assert [number for number, line in enumerate(shown) if "back" in line] == [0]
