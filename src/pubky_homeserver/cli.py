"""`homeserver`: the operator's command line. It asks the running node over its admin port.

Where that port is and what its password is, it reads where the node reads it: from the settings and the data
directory. A result goes to stdout, as a table or as JSON; what went wrong is one line on stderr that says what to do
next, and exit code 1. A mistake in the command line is exit code 2.
"""

import json
import re
import sys
import time
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from pkarr.keys import InvalidSecretKey, Keypair
from pubky_homeserver.command import Place, at_a_place, console, examples, plain_table, run
from pubky_homeserver.conflict_commands import conflicts
from pubky_homeserver.core.capabilities import parse_capabilities
from pubky_homeserver.core.errors import CannotStart, InvalidCapability, UnprocessableRequest
from pubky_homeserver.core.quotas import MalformedQuota, UserQuota
from pubky_homeserver.core.records import TokenState
from pubky_homeserver.core.tokens import sign_auth_token
from pubky_homeserver.directory import read_small
from pubky_homeserver.durable import write_whole
from pubky_homeserver.mirror_commands import mirror
from pubky_homeserver.peer_commands import peer
from pubky_homeserver.record_commands import record
from pubky_homeserver.remote import PAGE, CommandFailed
from pubky_homeserver.takedown_commands import takedown

MAX_COUNT = 1000
"""Signup tokens made by one command."""


# --- what is shown ------------------------------------------------------------------------------------------------


def show_health(readiness: dict[str, Any]) -> Table:
    """A lamp for each check."""
    table = plain_table()
    for name, check in readiness["checks"].items():
        lamp = Text("ok", style="green") if check["ok"] else Text("FAILS", style="bold red")
        detail = Text(check["detail"])
        if "age" in check:
            detail.append(f" ({'' if check['ok'] else 'last worked '}{timedelta(seconds=check['age'])} ago)")
        table.add_row(lamp, Text(name), detail)
    return table


def show_info(info: dict[str, Any]) -> Table:
    """The node's numbers."""
    table = plain_table()
    rows = {
        "key": info["public_key"],
        "version": info["version"],
        "address": info["pkarr_icann_domain"] or "none",
        "users": f"{info['num_users']} ({info['num_disabled_users']} disabled)",
        "stored": f"{info['total_disk_used_mb']} MB",
        "signup tokens": f"{info['num_signup_codes']} ({info['num_unused_signup_codes']} unused)",
    }
    for name, value in rows.items():
        table.add_row(name, Text(value))
    return table


def show_tokens(items: list[dict[str, Any]]) -> Table:
    """A line for each signup token."""
    table = plain_table("token", "made (UTC)", "used (UTC)", "by", "quota")
    for column in table.columns[:3]:
        column.no_wrap = True  # the texts of these have one length, and are copied
    for item in items:
        quota = " ".join(f"{name}={_spell(value)}" for name, value in item["quota"].items())
        row = (item["token"], item["created_at"][:16], (item["used_at"] or "-")[:16], item["used_by"] or "-", quota)
        table.add_row(*map(Text, row))
    return table


def _spell(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value)) or "none"
    return str(value)


# --- commands -----------------------------------------------------------------------------------------------------


@click.group(
    epilog=examples(
        "homeserver status                       how the node is",
        "homeserver invite new                   a signup token for one person",
        "homeserver invite new --quota-mb 500    one whose account may store 500 MB",
        "homeserver invite list --state unused   tokens that nobody used yet",
        "homeserver record show                  where the network finds this homeserver",
        "homeserver peer test alice              whether all is well between a trusted homeserver and this one",
        "homeserver mirror status                the copies of other homeservers' accounts",
        "homeserver conflicts list               writes that an account's history lacks",
        "PUBKY_API_KEY=admin homeserver status   a test network (script/run --testnet)",
    ),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(version("pubky-homeserver"), prog_name="homeserver")
def main() -> None:
    """Look after a running Pubky homeserver.

    It asks the node over its admin port. Address and password are read where the node reads them: the environment
    (PUBKY_API_KEY), a .env file here, homeserver.toml, and admin-password in the data directory.

    To start a node: script/run, or twistd -n homeserver.
    """


main.add_command(record)
main.add_command(mirror)
main.add_command(peer)
main.add_command(conflicts)
main.add_command(takedown)


@main.command(
    epilog=examples(
        "homeserver status",
        "homeserver status --data-dir /var/lib/pubky-homeserver",
        "homeserver status --json | jq .checks.record",
    )
)
@at_a_place
def status(place: Place, as_json: bool) -> None:
    """Show how the node is: its health, its numbers, its key.

    Exit code 0 if the node is ready to serve, else 1.
    """

    async def work(reactor: Any) -> None:
        node = place.node(reactor)
        readiness = await node.readiness()
        info = await node.info() if readiness["ready"] else None
        if as_json:
            click.echo(json.dumps({**readiness, "info": info}, indent=2))
        else:
            out = console()
            out.print(show_health(readiness))
            if info is not None:
                out.print()
                out.print(show_info(info))
        if not readiness["ready"]:
            raise CommandFailed(f"The node at {node.address} is not ready to serve; look into its log.")

    run(work)


@main.group(
    epilog=examples(
        "homeserver invite new --count 10 > tokens.txt",
        "homeserver invite list --state used",
    )
)
def invite() -> None:
    """Make and list signup tokens: who has one can make an account here."""


@invite.command(
    "new",
    epilog=examples(
        "homeserver invite new",
        "homeserver invite new --count 10 --quota-mb 500",
        "homeserver invite new --quota-mb unlimited --rate-read 10mb/s",
        "homeserver invite new --write-path /pub/example.org/",
    ),
)
@click.option("--count", type=click.IntRange(1, MAX_COUNT), default=1, show_default=True, help="How many tokens.")
@click.option("--quota-mb", metavar="MB", help="Megabytes that the account may store, or unlimited.")
@click.option("--rate-read", metavar="RATE", help="How fast it may be read, such as 10mb/s, or unlimited.")
@click.option("--rate-read-burst", metavar="N", type=int, help="Burst of that, in its own unit.")
@click.option("--rate-write", metavar="RATE", help="How fast it may be written, such as 5mb/s, or unlimited.")
@click.option("--rate-write-burst", metavar="N", type=int, help="Burst of that, in its own unit.")
@click.option("--write-path", metavar="PATH", multiple=True, help="Where it may write; several times for several.")
@click.option("--read-only", is_flag=True, help="It may write nowhere.")
@at_a_place
def invite_new(place: Place, as_json: bool, count: int, **limits: Any) -> None:
    """Make signup tokens, each for one account, and print them one a line.

    What no option limits is as the server's settings say.
    """
    quota = quota_of(**limits)

    async def work(reactor: Any) -> None:
        node = place.node(reactor)
        made: list[str] = []
        try:
            with Progress(
                console=Console(stderr=True), transient=True, disable=count == 1 or not sys.stderr.isatty()
            ) as progress:
                counting = progress.add_task("Making tokens", total=count)
                for _ in range(count):
                    made.append(await node.new_token(quota))
                    progress.advance(counting)
        finally:  # what was made counts, whatever happened then
            if as_json:
                click.echo(json.dumps({"tokens": made, "quota": quota.to_json()}, indent=2))
            elif made:
                click.echo("\n".join(made))

    run(work)


def quota_of(
    quota_mb: str | None,
    rate_read: str | None,
    rate_read_burst: int | None,
    rate_write: str | None,
    rate_write_burst: int | None,
    write_path: tuple[str, ...],
    read_only: bool,
) -> UserQuota:
    """The quota that the options describe. Raises `click.UsageError`."""
    if read_only and write_path:
        raise click.UsageError("--read-only and --write-path exclude each other.")
    number = int(quota_mb) if quota_mb and re.fullmatch(r"[0-9]{1,20}", quota_mb) else quota_mb
    try:
        return UserQuota.from_json(
            {
                "storage_quota_mb": number,
                "rate_read": rate_read,
                "rate_read_burst": rate_read_burst,
                "rate_write": rate_write,
                "rate_write_burst": rate_write_burst,
                "allowed_write_paths": list(write_path) if write_path or read_only else None,
            }
        )
    except (MalformedQuota, UnprocessableRequest) as error:
        raise click.UsageError(str(error)) from None


@invite.command(
    "list",
    epilog=examples(
        "homeserver invite list",
        "homeserver invite list --state unused",
        "homeserver invite list --json | jq -r '.items[] | select(.used_by) | .used_by'",
    ),
)
@click.option(
    "--state", type=click.Choice([state.value for state in TokenState]), default="all", show_default=True,
    help="Which tokens.",
)  # fmt: skip
@click.option("--limit", type=click.IntRange(1), default=PAGE, show_default=True, help="How many at most.")
@at_a_place
def invite_list(place: Place, as_json: bool, state: str, limit: int) -> None:
    """List signup tokens by their text: when they were made, and who used them."""

    async def work(reactor: Any) -> None:
        tokens = await place.node(reactor).tokens(TokenState(state), limit)
        if as_json:
            click.echo(json.dumps(tokens, indent=2))
        elif tokens["items"]:
            console().print(show_tokens(tokens["items"]))
        else:
            click.echo("No signup tokens. Make one: homeserver invite new", err=True)
        if tokens["next_cursor"] is not None:
            click.echo(f"There are more than these {limit}: ask with a larger --limit.", err=True)

    run(work)


@main.command(
    "auth-token",
    epilog=examples(
        "homeserver auth-token alice.key | curl --data-binary @- -c alice.jar http://localhost:6286/signup",
        "homeserver auth-token alice.key --pubky",
    ),
)
@click.argument("keyfile", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--capabilities", default="/:rw", show_default=True, help="What the session may do.")
@click.option("--pubky", is_flag=True, help="Print the public key instead.")
def auth_token(keyfile: Path, capabilities: str, pubky: bool) -> None:
    """Sign in with curl: write a sign-in token, 120 bytes or so, to stdout. It works once, for three minutes.

    KEYFILE holds a user's secret key, 64 hex digits; it is made if it is missing. For trying things out: people's keys
    belong into their wallet.
    """
    try:
        if not keyfile.exists():
            write_whole(keyfile, Keypair.random().to_file_text().encode())
        keypair = Keypair.from_file_text(read_small(keyfile) or "")
        parse_capabilities(capabilities)
    except (OSError, CannotStart, InvalidSecretKey, InvalidCapability) as error:
        raise click.ClickException(f"{keyfile}: {error}") from None
    if pubky:
        click.echo(keypair.public_key.z32)
    else:
        click.echo(sign_auth_token(keypair, capabilities, int(time.time() * 1_000_000)), nl=False)
