"""`homeserver conflicts …`: what was acknowledged somewhere, and is not in the winning history of an account."""

import json
from datetime import UTC, datetime
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from pubky_homeserver.command import Place, at_a_place, console, examples, plain_table, run, waiting
from pubky_homeserver.remote import CommandFailed


@click.group(
    epilog=examples(
        "homeserver conflicts list",
        "homeserver conflicts show PUBKY ID --body > file",
        "homeserver conflicts apply PUBKY --untouched",
        "homeserver conflicts drop PUBKY ID",
    )
)
def conflicts() -> None:
    """Look after the conflict shelf.

    A write that a homeserver acknowledged, and that the account's history lacks, lies there for 30 days: after a
    restored backup, or a move that an old homeserver learned of late. Nothing is applied by itself.
    """


@conflicts.command(
    "list", epilog=examples("homeserver conflicts list", "homeserver conflicts list --json | jq '.items[].path'")
)
@click.argument("pubky", required=False)
@at_a_place
def list_all(place: Place, as_json: bool, pubky: str | None) -> None:
    """List what lies on the shelf, of all accounts or of PUBKY."""

    async def work(reactor: Any) -> None:
        node = place.node(reactor)
        accounts = await node.conflicted() if pubky is None else [pubky]
        items = [item for account in accounts for item in await node.conflicts(account)]
        if as_json:
            click.echo(json.dumps({"items": items}, indent=2))
        elif items:
            console().print(show_items(sorted(items, key=lambda item: (item["pubky"], item["path"], item["written"]))))
        else:
            click.echo("Nothing lies on the conflict shelf.", err=True)

    run(work)


@conflicts.command(
    "show", epilog=examples("homeserver conflicts show PUBKY ID", "homeserver conflicts show PUBKY ID --body")
)
@click.argument("pubky")
@click.argument("shelved_id", metavar="ID")
@click.option("--body", is_flag=True, help="Write the body to stdout instead.")
@click.option("--ours", is_flag=True, help="With --body: of what the path held when this was shelved.")
@at_a_place
def show(place: Place, as_json: bool, pubky: str, shelved_id: str, body: bool, ours: bool) -> None:
    """Show one thing: what it is, where it comes from, and what its path held instead."""

    async def work(reactor: Any) -> None:
        node = place.node(reactor)
        if body:
            click.echo(await node.conflict_body(pubky, shelved_id, ours), nl=False)
            return
        found = [item for item in await node.conflicts(pubky) if item["id"] == shelved_id]
        if not found:
            raise CommandFailed("This does not lie on the shelf. See what does: homeserver conflicts list")
        if as_json:
            click.echo(json.dumps(found[0], indent=2))
        else:
            console().print(show_item(found[0]))

    run(work)


@conflicts.command(
    "apply", epilog=examples("homeserver conflicts apply PUBKY ID", "homeserver conflicts apply PUBKY --untouched")
)
@click.argument("pubky")
@click.argument("shelved_id", metavar="[ID]", required=False)
@click.option("--untouched", is_flag=True, help="All whose paths nobody changed since.")
@at_a_place
def apply(place: Place, as_json: bool, pubky: str, shelved_id: str | None, untouched: bool) -> None:
    """Write what lies there to its path, as the user would: with an event, within the quota. Then it is off the shelf.

    Exit code 1 if ID could not be written.
    """
    if untouched is (shelved_id is not None):
        raise click.UsageError("Name one thing by its ID, or say --untouched.")

    async def work(reactor: Any) -> None:
        with waiting(reactor, "Writing"):
            done = await place.node(reactor).apply_conflicts(pubky, shelved_id)
        if as_json:
            click.echo(json.dumps(done, indent=2))
        else:
            for item in done["left"]:
                click.echo(f"Left: {printable(item['path'])}: {item['failure']}", err=True)
            click.echo(f"{len(done['applied'])} applied, {len(done['left'])} left.", err=True)
        if shelved_id is not None and done["left"]:
            raise CommandFailed(f"It was not applied: {done['left'][0]['failure']}")

    run(work)


@conflicts.command(
    "drop", epilog=examples("homeserver conflicts drop PUBKY ID", "homeserver conflicts drop PUBKY --all")
)
@click.argument("pubky")
@click.argument("shelved_id", metavar="[ID]", required=False)
@click.option("--all", "everything", is_flag=True, help="All of the account.")
@at_a_place
def drop(place: Place, as_json: bool, pubky: str, shelved_id: str | None, everything: bool) -> None:
    """Throw away what lies there, with its bodies. It cannot be had back."""
    if everything is (shelved_id is not None):
        raise click.UsageError("Name one thing by its ID, or say --all.")

    async def work(reactor: Any) -> None:
        done = await place.node(reactor).drop_conflicts(pubky, shelved_id)
        click.echo(json.dumps(done, indent=2) if as_json else f"{done['dropped']} dropped.", err=not as_json)

    run(work)


def show_items(items: list[dict[str, Any]]) -> Table:
    """A line for each thing."""
    table = plain_table("account", "id", "what", "path", "written (UTC)", "untouched")
    table.columns[0].no_wrap = table.columns[1].no_wrap = True  # these are copied
    for item in items:
        what = f"{item['reason']} {item['operation']}"
        untouched = Text("yes", style="green") if item["untouched"] else Text("no", style="yellow")
        words = (item["pubky"], item["id"], what, printable(item["path"]), _time(item["written"]))
        table.add_row(*map(Text, words), untouched)
    return table


def show_item(item: dict[str, Any]) -> Table:
    """All that is known of one."""
    table = plain_table()
    rows = {
        "account": item["pubky"],
        "id": item["id"],
        "path": printable(item["path"]),
        "what": f"{item['reason']} {item['operation']}",
        "from": item["origin"],
        "written (UTC)": _time(item["written"]),
        "shelved (UTC)": _time(item["shelved"]),
        "its file": _file(item["entry"]),
        "instead": _file(item["ours"]),
        "untouched": "yes" if item["untouched"] else "no",
    }
    for name, value in rows.items():
        table.add_row(name, Text(value))
    return table


def printable(text: str) -> str:
    """Text that strangers wrote, without what would move a terminal's cursor."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _file(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return "none"
    return f"{entry['length']} bytes, {entry['type'] or 'no type'}, {entry['etag']}" + (
        "" if entry["here"] else " (no body)"
    )


def _time(microseconds: int) -> str:
    return f"{datetime.fromtimestamp(microseconds / 1_000_000, UTC):%Y-%m-%d %H:%M:%S}"
