"""`homeserver takedown …`: accounts of which nobody may read anything here."""

import json
from datetime import UTC, datetime
from typing import Any

import click
from rich.text import Text

from pubky_homeserver.command import Place, at_a_place, console, examples, plain_table, run


@click.group(epilog=examples("homeserver takedown add PUBKY", "homeserver takedown lift PUBKY"))
def takedown() -> None:
    """Take accounts down, or copies of accounts that live elsewhere.

    Whoever asks for a file gets 451, the owner too, and nothing can be added. The files stay; their owner may delete
    them, or move away. Homeservers that copy an account which lives here show it no more either; if it moves, its new
    home decides for itself.
    """


@takedown.command("list", epilog=examples("homeserver takedown list", "homeserver takedown list --json"))
@at_a_place
def list_all(place: Place, as_json: bool) -> None:
    """List what is taken down here."""

    async def work(reactor: Any) -> None:
        found = await place.node(reactor).takedowns()
        if as_json:
            click.echo(json.dumps(found, indent=2))
        elif found["takedowns"]:
            table = plain_table("account", "since (UTC)")
            for one in found["takedowns"]:
                since = datetime.fromtimestamp(one["since"], UTC)
                table.add_row(Text(one["pubky"]), Text(f"{since:%Y-%m-%d %H:%M:%S}"))
            console().print(table)
        else:
            click.echo("Nothing is taken down.", err=True)

    run(work)


@takedown.command("add", epilog=examples("homeserver takedown add PUBKY", "homeserver takedown add PUBKY --json"))
@click.argument("pubky")
@at_a_place
def add(place: Place, as_json: bool, pubky: str) -> None:
    """Take an account down, or the copy of one. It can be undone."""
    _decide(place, as_json, pubky, is_down=True)


@takedown.command("lift", epilog=examples("homeserver takedown lift PUBKY", "homeserver takedown lift PUBKY --json"))
@click.argument("pubky")
@at_a_place
def lift(place: Place, as_json: bool, pubky: str) -> None:
    """Show an account, or a copy, again. A copy stays down that was taken down where it lives."""
    _decide(place, as_json, pubky, is_down=False)


def _decide(place: Place, as_json: bool, pubky: str, is_down: bool) -> None:
    async def work(reactor: Any) -> None:
        done = await place.node(reactor).take_down(pubky, is_down)
        if as_json:
            click.echo(json.dumps(done, indent=2))
        elif is_down:
            click.echo("Taken down." if done["changed"] else "It was taken down already.", err=True)
        else:
            click.echo("Shown again." if done["changed"] else "It was not taken down here.", err=True)

    run(work)
