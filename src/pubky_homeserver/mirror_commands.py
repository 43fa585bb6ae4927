"""`homeserver mirror …`: the copies of other homeservers' accounts."""

import json
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from pubky_homeserver.command import Place, at_a_place, console, examples, plain_table, run, some, waiting
from pubky_homeserver.remote import CommandFailed

EVERY = 2.0
"""Seconds from one look at the node to the next while it is watched."""

SHOWN = 10
"""Moves that are shown; --json has more."""

LOOK = 0.5
"""Seconds from one look to the next how far a verification is."""

_COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TextColumn("{task.fields[files]} files, {task.fields[megabytes]} MB"),
)

_COLOURS = {"current": "green", "stale": "bold red", "bootstrapping": "yellow"}


@click.group(epilog=examples("homeserver mirror status", "homeserver mirror status --json"))
def mirror() -> None:
    """Look after the copies of other homeservers' accounts.

    Which homeservers are followed, and which accounts of ours they may follow, stands in the settings: [peers.NAME].
    """


@mirror.command(
    "status",
    epilog=examples(
        "homeserver mirror status",
        "homeserver mirror status --watch",
        "homeserver mirror status --json | jq '.copies[] | select(.state != \"current\")'",
    ),
)
@click.option("--watch", "is_watched", is_flag=True, help="Show it again every two seconds, until Ctrl-C.")
@at_a_place
def status(place: Place, as_json: bool, is_watched: bool) -> None:
    """Show every peer that is followed, and every copy: how new it is, its size, and what is missing."""
    if is_watched and (as_json or not sys.stdout.isatty()):
        raise click.UsageError("--watch is for a terminal, without --json.")

    async def work(reactor: Any) -> None:
        if is_watched:
            with Live(console=console(), auto_refresh=False) as live:
                reactor.addSystemEventTrigger("before", "shutdown", live.stop)  # Ctrl-C ends nothing else
                await watch(place.node(reactor).mirrors, lambda view: live.update(view, refresh=True), reactor)
        found = await place.node(reactor).mirrors()
        try:
            exposure = await place.node(reactor).exposure()
        except CommandFailed:
            exposure = None  # it trusts nobody, or leaves that to another process
        if as_json:
            if exposure is not None:
                found["exposure"] = exposure
            click.echo(json.dumps(found, indent=2))
            return
        out = console()
        if found["peers"]:
            out.print(show_peers(found["peers"]))
        else:
            click.echo(
                'No homeserver is followed. Name one in the settings: [peers.NAME] with follow = "all".', err=True
            )
        if found["copies"]:
            out.print()
            out.print(show_copies(found["copies"], time.time()))
        if conflicts := found.get("conflicts"):
            out.print()
            out.print(f"{conflicts} writes lie on the conflict shelf: see homeserver conflicts list.")
        if found.get("forks"):
            out.print()
            out.print(show_forks(found["forks"], time.time()))
        if found.get("moves"):
            out.print()
            out.print(show_moves(found["moves"], time.time()))
        if found.get("orders"):
            out.print()
            out.print(show_orders(found["orders"]))
        if exposure is not None:
            out.print()
            out.print(show_exposure(exposure))

    run(work)


def show_forks(forks: list[dict[str, Any]], now: float) -> Table:
    """Accounts of which another homeserver has another history: what one of the two lacks is on a conflict shelf."""
    table = plain_table("two histories", "here and at", "last seen")
    for one in forks:
        table.add_row(Text(one["pubky"], style="yellow"), Text(one["peer"][:8] + "…"), Text(_ago(one["at"], now)))
    return table


def show_moves(moves: list[dict[str, Any]], now: float) -> Table:
    """The newest accounts that moved, the newest first."""
    table = plain_table("moved", "what", "other homeserver", "when")
    for one in reversed(moves[-SHOWN:]):
        what = Text(f"{one['what']}, back" if one["is_back"] else one["what"], style="yellow" if one["is_back"] else "")
        other = one["other"][:8] + "…" if one["other"] else "-"
        table.add_row(Text(one["pubky"]), what, Text(other), Text(_ago(one["at"], now)))
    return table


def show_orders(orders: list[dict[str, Any]]) -> Table:
    """The orders to erase copies."""
    table = plain_table("erase", "at", "obeyed")
    for one in orders:
        done = Text("yes", style="green") if one["receipt"] else Text(one["failure"] or "not yet", style="yellow")
        table.add_row(Text(one["pubky"]), Text(one["peer"]), done)
    return table


async def watch(
    ask: Callable[[], Awaitable[dict[str, Any]]], show: Callable[[RenderableType], None], clock: IReactorTime
) -> None:
    """Show how copies fare again and again; a node that does not answer is asked on."""
    while True:
        try:
            found = await ask()
            show(Group(show_peers(found["peers"]), Text(), show_progress(found["copies"], time.time())))
        except CommandFailed as failure:
            show(Text(str(failure), style="red"))
        await deferLater(clock, EVERY)


@mirror.command("erase", epilog=examples("homeserver mirror erase PUBKY", "homeserver mirror erase PUBKY --yes --json"))
@click.argument("pubky")
@click.option("--yes", is_flag=True, help="Do not ask.")
@at_a_place
def erase(place: Place, as_json: bool, pubky: str, yes: bool) -> None:
    """Order every homeserver that may have a copy of an account of ours to erase it.

    They hide it at once, and wipe it after three days. The order waits for who is down; `homeserver mirror status`
    shows the receipts. The account itself stays, and is not followed any more by who has erased it.
    """
    if not yes:
        click.confirm(f"Erase all copies of {pubky}?", abort=True, err=True)

    async def work(reactor: Any) -> None:
        found = await place.node(reactor).erase_copies(pubky)
        if as_json:
            click.echo(json.dumps(found, indent=2))
        else:
            click.echo(f"Ordered of {some(found['ordered'], 'peer')}; see homeserver mirror status.", err=True)

    run(work)


@mirror.command("repair", epilog=examples("homeserver mirror repair PUBKY"))
@click.argument("pubky")
@at_a_place
def repair(place: Place, as_json: bool, pubky: str) -> None:
    """Let the comparison of a copy with its primary go on, though it removes many files here.

    The primary lacks so many of them that it has perhaps lost them. What goes is on the conflict shelf for 30 days.
    """

    async def work(reactor: Any) -> None:
        permitted = await place.node(reactor).repair(pubky)
        if as_json:
            click.echo(json.dumps({"pubky": pubky, "permitted": permitted}, indent=2))
        elif permitted:
            click.echo(f"The comparison goes on, and removes up to {some(permitted, 'file')}.", err=True)
        else:
            click.echo("No comparison of this account waits.", err=True)

    run(work)


@mirror.command("verify", epilog=examples("homeserver mirror verify", "homeserver mirror verify PUBKY --json"))
@click.argument("pubky", required=False)
@click.option("--status", "is_asked", is_flag=True, help="Begin nothing: show how far the newest one is.")
@at_a_place
def verify(place: Place, as_json: bool, pubky: str | None, is_asked: bool) -> None:
    """Read every body that is kept here again, of one account or of all, and compare lists with the primaries'.

    A body that is lost, or is not what it shall be, is fetched again from who has it. The node does this by itself once
    a week; it goes on if you leave. Ends with exit code 1 if something is not well.
    """

    async def work(reactor: Any) -> None:
        node = place.node(reactor)
        found = await (node.verification() if is_asked else node.verify(pubky))
        if not is_asked:
            with Progress(
                *_COLUMNS, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
            ) as progress:
                reactor.addSystemEventTrigger("before", "shutdown", progress.stop)  # Ctrl-C leaves nothing there
                going = progress.add_task("Verifying", total=None, files=0, megabytes="0")
                while not found["ended"]:
                    await deferLater(reactor, LOOK)
                    found = await node.verification()
                    megabytes = f"{found['bytes'] / 1_000_000:.0f}"
                    done, total = found["accounts"], found["of"] or None
                    progress.update(going, completed=done, total=total, files=found["files"], megabytes=megabytes)
        if as_json:
            click.echo(json.dumps(found, indent=2))
        else:
            console().print(show_verification(found))
        if found["wrong"] or found["different"] or found["missing"] or found["faults"]:
            raise SystemExit(1)

    run(work)


@mirror.command("open", epilog=examples("homeserver mirror open PUBKY", "homeserver mirror open PUBKY --incomplete"))
@click.argument("pubky")
@click.option("--incomplete", is_flag=True, help="Open it with the files that are here, though some are missing.")
@at_a_place
def open_copy(place: Place, as_json: bool, pubky: str, incomplete: bool) -> None:
    """Open the account of a copy whose newest record names this homeserver.

    That happens by itself when the record is here and the list of files is whole. If its old homeserver is gone for
    good, and the list is not whole, --incomplete opens it with what is here.
    """

    async def work(reactor: Any) -> None:
        with waiting(reactor, "Its old homeserver and other peers are asked for what they have"):
            found = await place.node(reactor).open_copy(pubky, incomplete)
        if as_json:
            click.echo(json.dumps(found, indent=2))
            return
        click.echo(f"{found['pubky']} lives here now." if found["opened"] else f"{found['pubky']} did not open.")

    run(work)


@mirror.command(
    "promote-check",
    epilog=examples(
        "homeserver mirror promote-check",
        "homeserver mirror promote-check --json | jq '.copies[] | select(.ready | not)'",
    ),
)
@click.argument("pubky", required=False)
@at_a_place
def promote_check(place: Place, as_json: bool, pubky: str | None) -> None:
    """Say of every copy, or of one, what would become of it if its user moved here now."""

    async def work(reactor: Any) -> None:
        found = await place.node(reactor).check_copies(pubky)
        if as_json:
            click.echo(json.dumps(found, indent=2))
            return
        table = plain_table("account", "ready", "why")
        for one in found["copies"]:
            ready = Text("yes", style="green") if one["ready"] else Text("no", style="red")
            table.add_row(Text(one["pubky"]), ready, Text(one["why"]))
        if found["copies"]:
            console().print(table)
        else:
            click.echo("There is no copy here.", err=True)

    run(work)


def show_verification(found: dict[str, Any]) -> RenderableType:
    """What a verification found, and what is not well, a line each."""
    table = plain_table("accounts", "files", "MB", "lost or wrong", "other than at the primary", "missing now")
    numbers = (found["wrong"], found["different"], found["missing"])
    marked = [Text(str(number), style="red" if number else "green") for number in numbers]
    of = f"{found['accounts']} of {found['of']}" if not found["ended"] else str(found["accounts"])
    table.add_row(of, str(found["files"]), f"{found['bytes'] / 1_000_000:.1f}", *marked)
    faults = [Text(f"{pubky}: {fault}" if pubky else fault, style="red") for pubky, fault in found["faults"].items()]
    return Group(table, *faults)


def show_exposure(found: dict[str, Any]) -> Text:
    """The sentence that says what no other homeserver has."""
    lost = [
        text
        for count, text in (
            (found["alone"], f"{some(found['alone'], 'account')} of which nobody has a copy"),
            (found["private"], f"the private files of {some(found['private'], 'account')}"),
            (found["changes"], f"{some(found['changes'], 'change')} of {some(found['behind'], 'account')}"),
            (found["bodies"], f"the bodies of {some(found['bodies'], 'file')}"),
        )
        if count
    ]
    live = "lives" if found["accounts"] == 1 else "live"
    nothing = f"nothing of the {some(found['accounts'], 'account')} that {live} here"
    what = ", ".join(lost) if lost else nothing if found["accounts"] else "nothing, for no account lives here"
    named = f" ({', '.join(found['named'])}{', …' if found['alone'] > len(found['named']) else ''})"
    silent = f" Not known: what {' and '.join(found['silent'])} would have." if found["silent"] else ""
    text = f"If this machine died now you would lose at most: {what}{named if found['named'] else ''}.{silent}"
    return Text(text, style="red" if lost else "green")


def show_peers(peers: list[dict[str, Any]]) -> Table:
    """A line for each peer."""
    table = plain_table("peer", "key", "asked", "failed", "MB received", "state")
    for one in peers:
        failure = "paused" if one["paused"] else one["failure"] or one["trouble"]
        traffic = one["traffic"]
        state = Text("followed", style="green") if failure is None else Text(failure, style="red")
        asked, failed, received = traffic["requests"], traffic["failures"], f"{traffic['received'] / 1_000_000:.1f}"
        table.add_row(Text(one["name"]), Text(one["key"]), Text(str(asked)), Text(str(failed)), Text(received), state)
    return table


def show_progress(copies: list[dict[str, Any]], now: float) -> RenderableType:
    """How far the copies are, and a line for each: first those that something is to be done for."""
    whole, missing = sum(map(_is_whole, copies)), sum(one["missing"] for one in copies)
    total = Text(f"{whole} of {len(copies)} copies are whole and current; bodies missing: {missing}")
    return Group(total, Text(), show_copies(sorted(copies, key=_is_whole), now))


def _is_whole(copy: dict[str, Any]) -> bool:
    return copy["state"] == "current" and not (copy["missing"] or copy["braked"] or copy["lag"])


def show_copies(copies: list[dict[str, Any]], now: float) -> Table:
    """A line for each copy."""
    table = plain_table("account", "at", "state", "confirmed", "change", "behind", "MB", "bodies missing", "verified")
    for one in copies:
        table.add_row(
            Text(one["pubky"]),
            Text(one["primary"][:8] + "…"),
            _state(one),
            Text(_ago(one["confirmed"], now)),
            Text(str(one["seq"])),
            Text(_lag(one["behind"], one["lag"])),
            Text(f"{one['used'] / 1_000_000:.1f}"),
            Text(str(one["missing"])),
            Text(_ago(one["verified"], now)),
        )
    return table


def _state(one: dict[str, Any]) -> Text:
    """How a copy is, and what waits for the operator."""
    if one["braked"]:
        return Text(f"waits for you: {some(one['braked'], 'file')} would go", style="bold red")
    return Text(one["state"] + (", taken down" if one["taken_down"] else ""), style=_COLOURS.get(one["state"], ""))


def _ago(at: int, now: float) -> str:
    return f"{timedelta(seconds=max(0, int(now - at)))} ago" if at else "never"


def _lag(seconds: int, events: int) -> str:
    """How far a copy is behind its primary, as far as that has said."""
    if not events:
        return "-" if not seconds else f"{timedelta(seconds=seconds)}"
    return f"{timedelta(seconds=seconds)}, {events} changes"
