"""What all of the operator's commands share: where the node is, how a command runs, how tables look."""

import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import click
from attrs import frozen
from rich.console import Console
from rich.table import Table
from treq.client import HTTPClient
from twisted.internet.task import react
from twisted.web.client import Agent, HTTPConnectionPool

from pubky_homeserver.config import DEFAULT_DATA_DIR, Config, ConfigError, load
from pubky_homeserver.remote import CommandFailed, Node
from pubky_homeserver.values import Socket

MAX_PASSWORD = 4096
"""Bytes that are read of the file with the password."""

WIDE = 250
"""Columns of a table that no terminal shows: wide enough for every line to stay whole."""


@frozen
class Place:
    """Where a node keeps its settings and its password."""

    config: Path | None
    data_dir: Path

    @property
    def settings(self) -> Path:
        """The file with its settings; it need not be there."""
        return self.config or self.data_dir.expanduser().absolute() / "homeserver.toml"

    def node(self, reactor: Any) -> Node:
        """The node that lives here. Raises `CommandFailed`."""
        folder = self.data_dir.expanduser().absolute()
        file = self.settings
        try:
            found = file if self.config or file.is_file() else None
            admin = load(found, Path(".env"), os.environ, Config()).admin
            password = admin.admin_password or read_password(folder / "admin-password")
        except ConfigError as error:
            raise CommandFailed(str(error)) from None
        if not admin.enabled:
            raise CommandFailed(f"The node has no admin port: set admin.enabled = true in {file} and restart it.")
        if not password:
            raise CommandFailed(
                f"No password: there is no {folder / 'admin-password'}. Name the node's data directory with "
                "--data-dir, or set PUBKY_API_KEY."
            )
        pool = HTTPConnectionPool(reactor, persistent=False)
        return Node(HTTPClient(Agent(reactor, pool=pool)), reactor, str(reachable(admin.listen_socket)), password)


def read_password(file: Path) -> str:
    """The password in a file; empty if there is none. Raises `CommandFailed`."""
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_PASSWORD).decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise CommandFailed(
            f"{file} cannot be read ({error.strerror}): run this as the user that runs the node, or set PUBKY_API_KEY."
        ) from None


def reachable(listening: Socket) -> Socket:
    """Where to find a node on this machine that listens there: "every address" is none to connect to."""
    address = ip_address(listening.host)
    if address.is_unspecified:
        return Socket("127.0.0.1" if address.version == 4 else "::1", listening.port)
    return listening


def run(work: Callable[[Any], Awaitable[None]]) -> None:
    """Run a command on the reactor and end the program; if it fails with one line and exit code 1."""

    async def main(reactor: Any) -> None:
        try:
            await work(reactor)
        except CommandFailed as failure:
            raise SystemExit(f"homeserver: {failure}") from None

    react(main)


def console() -> Console:
    """Where results go."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)


@contextmanager
def waiting(reactor: Any, what: str, out: Console | None = None) -> Iterator[None]:
    """Show on a terminal that something takes its time, as long as it does; Ctrl-C leaves nothing of it there."""
    out = out or Console(stderr=True)
    if not out.is_terminal:
        yield
        return
    with out.status(what) as status:
        reactor.addSystemEventTrigger("before", "shutdown", status.stop)
        yield


def plain_table(*headings: str) -> Table:
    """A table without lines; what a narrow terminal has no room for is folded, never cut off."""
    table = Table(box=None, pad_edge=False, show_header=bool(headings), header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def some(number: int, what: str) -> str:
    """A number of things: `1 file`, `2 files`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def at_a_place(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that every command has; it gets `place` and `as_json`."""

    @wraps(command)
    def placed(config: Path | None, data_dir: Path, **rest: Any) -> None:
        command(place=Place(config, data_dir), **rest)

    path = click.Path(path_type=Path)
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs."),
        click.option(
            "--data-dir", type=path, default=DEFAULT_DATA_DIR, show_default=True, help="The node's data directory."
        ),
        click.option(
            "--config", type=path, help="The node's settings.  [default: homeserver.toml in the data directory]"
        ),
    ):
        placed = option(placed)
    return placed


def examples(*lines: str) -> str:
    """The end of a help text; the mark keeps click from filling the lines."""
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))
