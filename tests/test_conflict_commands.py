"""`homeserver conflicts …` and `mirror repair`, as a program of its own against a real admin port."""

import json
from typing import Any

import pytest
import pytest_twisted
from attrs import evolve
from blake3 import blake3
from click.testing import CliRunner

from pubky_homeserver.cli import main
from pubky_homeserver.core.records import Account, Entry
from pubky_homeserver.core.shelf import Reason, Shelved, id_of
from tests.test_cli import OTHER, Shell
from tests.test_cli import node as node
from tests.test_cli import shell as shell
from tests.web.operator import KEY, Operator

WRITTEN = 1_800_000_000_000_000  # microseconds: after everything that happens at the node


def thing(path: str, body: bytes | None, **other: Any) -> Shelved:
    """Something on the shelf."""
    entry = None
    if body is not None:
        entry = Entry(path, blake3(body).digest(), len(body), "text/plain", WRITTEN, body, seq=3)
    shelved_id = id_of(path, 3, None if entry is None else entry.content_hash)
    return evolve(Shelved(KEY, shelved_id, Reason.LATE, OTHER, path, entry, None, WRITTEN, WRITTEN), **other)


@pytest_twisted.ensureDeferred
async def test_list_and_show(shell: Shell, node: Operator) -> None:
    """A line for each thing, and all that is known of one, with its body."""
    ran = await shell.run("conflicts", "list")
    assert (ran.code, ran.out, ran.err) == (0, "", "Nothing lies on the conflict shelf.\n")
    late, gone = thing("/pub/late", b"late\n"), thing("/pub/gone", None, reason=Reason.REPLACED)
    for one in (late, gone):
        await node.store.shelf.shelve(one)
    lines = [line.split() for line in (await shell.run("conflicts", "list")).out.splitlines()]
    assert [KEY, late.id, "late", "PUT", "/pub/late", "2027-01-15", "08:00:00", "yes"] in lines
    assert [KEY, gone.id, "replaced", "DEL", "/pub/gone", "2027-01-15", "08:00:00", "yes"] in lines
    items = json.loads((await shell.run("conflicts", "list", KEY, "--json")).out)["items"]
    assert {item["id"]: item["origin"] for item in items} == {late.id: OTHER, gone.id: OTHER}
    assert (await shell.run("conflicts", "list", OTHER)).out == ""
    ran = await shell.run("conflicts", "show", KEY, late.id)
    assert (ran.code, ran.err) == (0, "")
    assert "5 bytes, text/plain" in ran.out
    assert (await shell.run("conflicts", "show", KEY, late.id, "--body")).out == "late\n"
    assert (await shell.run("conflicts", "show", KEY, gone.id, "--body")).code == 1
    assert (await shell.run("conflicts", "show", KEY, "0" * 40)).code == 1
    assert (await node.ask("GET", "/conflicts")).status == 401


@pytest_twisted.ensureDeferred
async def test_apply(shell: Shell, node: Operator) -> None:
    """One thing is written whatever its path holds; with --untouched those whose paths nobody changed since."""
    await node.store.sign_up(Account(KEY, 1), None, None, False)
    old = Entry("/pub/old", blake3(b"old").digest(), 3, "text/plain", 1, b"old")
    await node.store.put(KEY, old, None, True)
    new, touched = thing("/pub/new", b"new"), thing("/pub/old", b"late", written=1)
    for one in (new, touched, thing("/pub/nothing", None)):
        await node.store.shelf.shelve(one)
    ran = await shell.run("conflicts", "apply", KEY, "--untouched")
    assert ran.code == 0
    assert "Left: /pub/old: The path was changed since" in ran.err
    assert "2 applied, 1 left" in ran.err
    entry = await node.store.entry(KEY, "/pub/new")
    assert entry is not None
    assert entry.body == b"new"
    done = json.loads((await shell.run("conflicts", "apply", KEY, touched.id, "--json")).out)
    assert ([item["path"] for item in done["applied"]], done["left"]) == (["/pub/old"], [])
    entry = await node.store.entry(KEY, "/pub/old")
    assert entry is not None
    assert entry.body == b"late"
    assert await node.store.shelf.shelves("", 10) == []
    assert [event.path for event in await node.store.events(0, 10, False)] == ["/pub/old", "/pub/new", "/pub/old"]


@pytest_twisted.ensureDeferred
async def test_apply_where_nobody_lives(shell: Shell, node: Operator) -> None:
    """What cannot be written stays on the shelf, and the reason is told."""
    one = thing("/pub/file", b"x")
    await node.store.shelf.shelve(one)
    ran = await shell.run("conflicts", "apply", KEY, one.id)
    assert ran.code == 1
    assert "It was not applied" in ran.err
    assert await node.store.shelf.shelved(KEY, one.id) == one


@pytest_twisted.ensureDeferred
async def test_drop(shell: Shell, node: Operator) -> None:
    """What is dropped is gone, one by one or all."""
    things = [thing(f"/pub/{number}", None) for number in range(3)]
    for one in things:
        await node.store.shelf.shelve(one)
    ran = await shell.run("conflicts", "drop", KEY, things[0].id)
    assert (ran.code, ran.err) == (0, "1 dropped.\n")
    assert (await shell.run("conflicts", "drop", KEY, things[0].id)).code == 1
    assert json.loads((await shell.run("conflicts", "drop", KEY, "--all", "--json")).out) == {"dropped": 2}
    assert await node.store.shelf.shelves("", 10) == []


@pytest_twisted.ensureDeferred
async def test_repair(shell: Shell, node: Operator) -> None:
    """A comparison that waits may go on; without one that is said."""
    node.waiting[KEY] = 12
    ran = await shell.run("mirror", "repair", KEY)
    assert (ran.code, ran.err) == (0, "The comparison goes on, and removes up to 12 files.\n")
    ran = await shell.run("mirror", "repair", KEY)
    assert (ran.code, ran.err) == (0, "No comparison of this account waits.\n")
    assert (await shell.run("mirror", "repair", "nobody")).code == 1


@pytest.mark.parametrize("command", ["apply", "drop"])
@pytest.mark.parametrize("which", [[], ["0" * 40, "--untouched"], ["0" * 40, "--all"]])
def test_mistakes(command: str, which: list[str]) -> None:
    """It must be said what is meant, and only once."""
    assert CliRunner().invoke(main, ["conflicts", command, KEY, *which]).exit_code == 2


@pytest.mark.parametrize("command", [[], ["list"], ["show"], ["apply"], ["drop"]])
def test_help(command: list[str]) -> None:
    """Every help text ends in examples."""
    shown = CliRunner().invoke(main, ["conflicts", *command, "--help"])
    assert (shown.exit_code, "\n  Examples:\n" in shown.output) == (0, True)
