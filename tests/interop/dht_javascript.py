"""Nodes of npm's bittorrent-dht, in a process of Node.js that `js/dht.mjs` runs."""

import json
import shutil
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from pkarr.keys import Keypair
from tests.interop.javascript import FOLDER, install_client
from tests.pkarr.dht.swarm import reactor

PATIENCE = 20.0  # seconds that anything here may take


@define(eq=False)
class _Node(ProcessProtocol):
    """The process: a line in, a line out."""

    waiting: list[Deferred[Any]] = field(factory=list)
    ended: Deferred[None] = field(factory=Deferred)
    _lines: bytes = b""
    _errors: bytes = b""

    def outReceived(self, data: bytes) -> None:
        """Answers."""
        *lines, self._lines = (self._lines + data).split(b"\n")
        for line in lines:
            self.waiting.pop(0).callback(json.loads(line))

    def errReceived(self, data: bytes) -> None:
        """What went wrong."""
        self._errors += data

    def processEnded(self, reason: Failure) -> None:
        """Nobody waits any longer."""
        for waiter in self.waiting:
            waiter.callback([False, f"Node.js ended: {self._errors.decode()}"])
        self.ended.callback(None)


@define
class JavaScript:
    """Several nodes; the last of them puts and gets."""

    process: _Node = field(factory=_Node)

    async def start(self, count: int, bootstrap: int | None) -> int:
        """Start so many nodes, that know each other and what is at a port. Returns the port of the first."""
        install_client()
        program = shutil.which("node")
        assert program is not None
        reactor.spawnProcess(self.process, program, [program, "dht.mjs"], {"NO_COLOR": "1"}, str(FOLDER))
        number: int = await self._ask("start", count=count, bootstrap=bootstrap)
        return number

    async def stop(self) -> None:
        """End the process."""
        assert self.process.transport is not None
        self.process.transport.closeStdin()
        await self.process.ended.addTimeout(PATIENCE, reactor)

    async def put(self, key: Keypair, seq: int, value: bytes, salt: bytes = b"") -> int:
        """Put a string under a key. Returns how many nodes keep it."""
        number: int = await self._ask(
            "put", seed=key.seed.hex(), k=key.public_key.raw.hex(), v=value.hex(), seq=seq, salt=salt.hex()
        )
        return number

    async def get(self, key: Keypair, salt: bytes = b"") -> tuple[int, bytes]:
        """The newest number and value under a key, when it has asked everybody."""
        item = await self._ask("get", k=key.public_key.raw.hex(), salt=salt.hex())
        assert item is not None
        return item["seq"], bytes.fromhex(item["v"])

    async def _ask(self, command: str, **options: Any) -> Any:
        answer: Deferred[Any] = Deferred()
        self.process.waiting.append(answer)
        assert self.process.transport is not None
        self.process.transport.write(json.dumps([command, options]).encode() + b"\n")
        is_good, result = await answer.addTimeout(PATIENCE, reactor)
        if not is_good:
            pytest.fail(result)
        return result
