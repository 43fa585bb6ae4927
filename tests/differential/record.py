"""Ask the official homeserver, and write down what it answers.

    .venv/bin/python -m tests.differential.record

It is built from crates.io (a quarter of an hour, once) and started with a PostgreSQL from Debian's packages.
"""

import json
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred

from pkarr.keys import Keypair
from tests.bench.http import official, relay
from tests.differential.questions import Asking
from tests.web.client import Answer, ask

ANSWERS = Path(__file__).with_name("answers.json")


async def record(reactor: Any, port: int, homeserver: str) -> None:
    """Ask everything."""

    def sending(method: str, target: str, fields: dict[str, str], body: bytes | None) -> "Deferred[Answer]":
        return Deferred.fromCoroutine(ask(reactor, port, method, target, fields, body)).addTimeout(40, reactor)

    answers = await (await Asking.begin(sending, time.time, homeserver)).all()
    ANSWERS.write_text(json.dumps(answers, indent=1, ensure_ascii=False) + "\n")
    print(f"{len(answers)} answers in {ANSWERS.name}")


def main() -> None:
    """Start everything, ask, stop."""
    with ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2)]
        server = stack.enter_context(official(folders[0], stack.enter_context(relay(folders[1]))))
        seed = bytes.fromhex((folders[0] / "data" / "secret").read_text().strip())
        homeserver = Keypair(seed).public_key.z32
        task.react(lambda reactor: Deferred.fromCoroutine(record(reactor, server.port, homeserver)))


if __name__ == "__main__":
    main()
