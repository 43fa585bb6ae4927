"""`homeserver peer …`: the homeservers that this one trusts."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from pubky_homeserver.command import Place, at_a_place, console, examples, plain_table, run, waiting
from pubky_homeserver.config import Config, ConfigError, load
from pubky_homeserver.core.peers import Claim, Selection
from pubky_homeserver.peer_settings import add_peer, pause_peer, remove_peer
from pubky_homeserver.remote import CommandFailed

_RESTART = "Restart the node, so that it takes this up."


@click.group(epilog=examples("homeserver peer list", "homeserver peer test alice"))
def peer() -> None:
    """Look after the homeservers that are trusted: whose accounts are copied here, and who may copy ours.

    Both operators list each other. What is set here stands in the settings: [peers.NAME].
    """


@peer.command("list", epilog=examples("homeserver peer list", "homeserver peer list --json"))
@at_a_place
def list_peers(place: Place, as_json: bool) -> None:
    """List the peers of the settings, and how the running node gets on with those that it follows."""

    async def work(reactor: Any) -> None:
        try:
            file = place.settings if place.config or place.settings.is_file() else None
            peers = load(file, Path(".env"), os.environ, Config()).peers
        except ConfigError as error:
            raise CommandFailed(str(error)) from None
        failure, running = None, {}
        try:
            running = {one["key"]: one for one in (await place.node(reactor).mirrors())["peers"]}
        except CommandFailed as error:
            failure = error
        rows = [
            {
                "name": one.name,
                "key": one.key,
                "url": one.url,
                "follow": _selected(one.follow),
                "offer": _selected(one.offer),
                "private": one.private,
                "max_bytes": one.max_bytes,
                "claim": one.claim.value,
                "official": one.official,
                "paused": one.paused,
                "running": running.get(one.key),
            }
            for one in peers
        ]
        if as_json:
            click.echo(json.dumps({"peers": rows}, indent=2))
        elif rows:
            _show(rows)
        else:
            click.echo("There is no peer. Add one: homeserver peer add NAME KEY --follow all --offer all", err=True)
        if failure is not None:
            raise failure

    run(work)


@peer.command("test", epilog=examples("homeserver peer test alice", "homeserver peer test alice --json"))
@click.argument("name")
@at_a_place
def test_peer(place: Place, as_json: bool, name: str) -> None:
    """Let the running node ask the peer NAME now who it is and what it offers. Exit code 1 if something is wrong."""

    async def work(reactor: Any) -> None:
        with waiting(reactor, f"Asking {name}"):
            found = await place.node(reactor).test_peer(name)
        if as_json:
            click.echo(json.dumps(found, indent=2))
        elif found["well"]:
            more = " or more" if found["more"] else ""
            are = "is" if found["offered"] == 1 and not more else "are"
            counts = f"{found['offered']}{more} {are} offered, {found['wanted']} of them followed."
            click.echo(f"{name}: {found['says']} {counts}")
        if not found["well"]:
            raise CommandFailed(f"{name}: {found['says']}")

    run(work)


@peer.command(
    "add",
    epilog=examples(
        "homeserver peer add alice 8pinxxgqs41n4aididenw5apqp1urfmzdztr8jt4abrkdn435ewo --follow all --offer all"
    ),
)
@click.argument("name")
@click.argument("key")
@click.option("--url", help="Where it answers: https://domain.  [default: where its key's record leads]")
@click.option("--follow", help="Accounts of its to copy: all, none, or keys with commas between.  [default: none]")
@click.option("--offer", help="Accounts of ours that it may copy, likewise.  [default: none]")
@click.option("--private", is_flag=True, help="Private files too; its operator can read them then.")
@click.option("--official", is_flag=True, help="It is the official homeserver: --follow must list keys.")
@click.option("--max-bytes", help='Space for its accounts, such as "20gb".  [default: 20gb]')
@click.option(
    "--claim",
    type=click.Choice([one.value for one in Claim]),
    help="Whether users of copies may move here.  [default: token]",
)
@at_a_place
def add(place: Place, as_json: bool, name: str, key: str, **options: Any) -> None:
    """Add the homeserver with the public key KEY to the settings, under a NAME of your choice."""
    settings: dict[str, object] = {"key": key.removeprefix("pubky") if len(key) > 52 else key}
    for option, value in options.items():
        if value:
            settings[option] = _keys(value) if option in ("follow", "offer") else value
    added = _edit(lambda: add_peer(place.settings, name, settings), place)
    if as_json:
        click.echo(json.dumps({"name": added.name, "key": added.key, "file": str(place.settings)}, indent=2))
    else:
        click.echo(f"Added [peers.{name}] to {place.settings}. {_RESTART}")


@peer.command("pause", epilog=examples("homeserver peer pause alice"))
@click.argument("name")
@at_a_place
def pause(place: Place, as_json: bool, name: str) -> None:
    """Leave the peer NAME alone: nothing of it is followed until you resume it. It may still follow this node."""
    _pause(place, as_json, name, True)


@peer.command("resume", epilog=examples("homeserver peer resume alice"))
@click.argument("name")
@at_a_place
def resume(place: Place, as_json: bool, name: str) -> None:
    """Follow the peer NAME again, from where it was left."""
    _pause(place, as_json, name, False)


@peer.command("remove", epilog=examples("homeserver peer remove alice"))
@click.argument("name")
@at_a_place
def remove(place: Place, as_json: bool, name: str) -> None:
    """Take the peer NAME out of the settings. Copies of its accounts stay, and are not followed any more."""
    _edit(lambda: remove_peer(place.settings, name), place)
    if as_json:
        click.echo(json.dumps({"name": name, "file": str(place.settings)}, indent=2))
    else:
        click.echo(f"Removed [peers.{name}] from {place.settings}. {_RESTART}")


def _pause(place: Place, as_json: bool, name: str, paused: bool) -> None:
    """Write it into the settings, and tell the running node."""
    _edit(lambda: pause_peer(place.settings, name, paused), place)

    async def work(reactor: Any) -> None:
        told = True
        try:
            await place.node(reactor).pause_peer(name, paused)
        except CommandFailed as failure:
            told = False
            click.echo(f"The settings are changed; the node was not told: {failure}", err=True)
        if as_json:
            click.echo(json.dumps({"name": name, "paused": paused, "told": told}, indent=2))
        elif told:
            click.echo(f"{name} is {'left alone' if paused else 'followed again'}.")

    run(work)


def _edit(step: Callable[[], Any], place: Place) -> Any:
    try:
        return step()
    except ConfigError as error:
        click.echo(f"homeserver: {error}", err=True)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        click.echo(f"homeserver: {place.settings} cannot be changed: {reason}", err=True)
    raise SystemExit(1)


def _keys(text: str) -> str | list[str]:
    return text if text in ("all", "none") else [one.strip() for one in text.split(",")]


def _selected(selection: Selection) -> str | list[str]:
    return "all" if selection.all else sorted(selection.keys) or "none"


def _show(rows: list[dict[str, Any]]) -> None:
    table = plain_table("peer", "key", "follow", "offer", "private", "state")
    for one in rows:
        running = one["running"]
        failure = running and (running["failure"] or running["trouble"])
        if one["paused"] or (running and running["paused"]):
            failure = "paused"
        state = Text("-") if running is None else Text(failure or "followed", style="red" if failure else "green")
        follow, offer = (
            text if isinstance(text, str) else f"{len(text)} accounts" for text in (one["follow"], one["offer"])
        )
        private = "yes" if one["private"] else "no"
        table.add_row(Text(one["name"]), Text(one["key"]), Text(follow), Text(offer), Text(private), state)
    console().print(table)
