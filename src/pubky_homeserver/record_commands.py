"""`homeserver record …`: what the network knows of a key, and our own record once more."""

import json
from datetime import timedelta
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from pkarr.keys import InvalidPublicKey, PublicKey
from pubky_homeserver.command import Place, at_a_place, console, examples, plain_table, run
from pubky_homeserver.remote import CommandFailed

_REACHING = "see that it may send UDP, or set pkdns.dht_relay_nodes to a relay that it reaches."


@click.group(
    epilog=examples(
        "homeserver record show",
        "homeserver record show pubky8pinxxgqs41n4aididenw5apqp1urfmzdztr8jt4abrkdn435ewo",
        "homeserver record publish",
    )
)
def record() -> None:
    """Look at PKARR records in the network, and publish our own.

    A record turns a key into an address. That of this homeserver is published when it starts and every hour; those of
    its users every few hours.
    """


@record.command(
    "show",
    epilog=examples(
        "homeserver record show",
        "homeserver record show 8pinxxgqs41n4aididenw5apqp1urfmzdztr8jt4abrkdn435ewo",
        "homeserver record show --json | jq '.found[].nodes'",
    ),
)
@click.argument("key", required=False)
@at_a_place
def show(place: Place, as_json: bool, key: str | None) -> None:
    """Show the records of KEY, how old they are, and where they were found: by default those of the homeserver.

    KEY is a public key, z-base-32, with or without pubky or pk: before it. Every network is asked now. Exit code 1 if
    no network has a record.
    """
    if key is not None:
        try:
            key = PublicKey.parse(key.removeprefix("pubky") if len(key) > 52 else key).z32
        except InvalidPublicKey as error:
            raise click.UsageError(f"{key!r} is not a public key: {error}.") from None

    async def work(reactor: Any) -> None:
        node = place.node(reactor)
        own = (await node.info())["public_key"]
        wanted = key or own
        found = await node.record(wanted)
        if as_json:
            click.echo(json.dumps(found, indent=2))
        else:
            out = console()
            if found["records"] is not None:
                out.print(Text(f"{found['key']}, signed {_ago(found['age'])}"))
                out.print()
                out.print(show_records(found["records"]))
                out.print()
            out.print(show_networks(found["found"], found["timestamp"]))
        if found["records"] is None:
            raise CommandFailed(_nothing(wanted, own, found["found"]))

    run(work)


@record.command("publish", epilog=examples("homeserver record publish", "homeserver record publish --json"))
@at_a_place
def publish(place: Place, as_json: bool) -> None:
    """Publish the homeserver's own record now, at every network, and read it back.

    This is done every hour anyway. Exit code 1 if no network took it, or as many know a newer one as took it.
    """

    async def work(reactor: Any) -> None:
        done = await place.node(reactor).publish_record()
        if as_json:
            click.echo(json.dumps(done, indent=2))
        elif done["networks"]:
            console().print(show_outcomes(done["networks"]))
        if done["outdated"]:
            raise CommandFailed(
                "A newer record of this key is in the network. See that no other server runs with this key and that "
                "the clock is right, then restart the node, which signs a new record."
            )
        if not done["published"]:
            raise CommandFailed(f"No network took the record. The node keeps trying; {_REACHING}")

    run(work)


def show_records(records: list[dict[str, Any]]) -> Table:
    """A line for each record."""
    table = plain_table("name", "type", "ttl", "value")
    for one in records:
        table.add_row(*(Text(_printable(str(one[name]))) for name in ("name", "type", "ttl", "value")))
    return table


def show_networks(found: list[dict[str, Any]], newest: int | None) -> Table:
    """A line for each network: whether it has the newest packet, an older one, or none."""
    table = plain_table("network", "has", "nodes")
    for one in found:
        if one["failure"] is not None:
            has = Text(_printable(one["failure"]), style="red")
        elif one["timestamp"] is None:
            has = Text("nothing")
        elif one["timestamp"] == newest:
            has = Text("these records", style="green")
        else:
            has = Text("older ones", style="yellow")
        table.add_row(Text(one["network"]), has, Text("-" if one["nodes"] is None else str(one["nodes"])))
    return table


def show_outcomes(networks: list[dict[str, Any]]) -> Table:
    """A line for each network: whether it took the record."""
    table = plain_table("network", "record", "nodes")
    for one in networks:
        if one["failure"] is None:
            table.add_row(Text(one["network"]), Text("published", style="green"), Text(str(one["nodes"])))
        else:
            table.add_row(Text(one["network"]), Text(_printable(one["failure"]), style="red"), Text("-"))
    return table


def _nothing(wanted: str, own: str, found: list[dict[str, Any]]) -> str:
    """Why there are no records to show, and what to do about it."""
    if all(one["failure"] is not None for one in found):
        return f"No network answered. Ask the node again later; if that is of no use, {_REACHING}"
    advice = " Publish it: homeserver record publish" if wanted == own else ""
    return f"No network that answered has a record of {wanted}.{advice}"


def _ago(seconds: int) -> str:
    """How long ago that was; a clock may be wrong, and anybody may sign any time."""
    shown = timedelta(seconds=abs(seconds)) if abs(seconds) < 10**12 else f"{abs(seconds)} s"
    return f"{shown} ago" if seconds >= 0 else f"{shown} in the future"


def _printable(text: str) -> str:
    """Text that strangers wrote, without what would move a terminal's cursor."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
