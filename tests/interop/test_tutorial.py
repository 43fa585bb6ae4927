"""The tutorial with the official clients: they read at every stage of it, and two people with wallets live through it.

Each step is a new process that is told nothing but a key and where records are found: for the Rust client that is a
node of the DHT, for the JavaScript client a relay. Readers hold public keys alone.
"""

import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet import reactor as _reactor
from twisted.internet.threads import deferToThread

from pkarr.keys import Keypair
from pubky_homeserver.web.channel import HTTPFactory
from pubky_homeserver.web.pkarr_relay import PkarrRelay
from tests.interop.crate import Programs
from tests.interop.javascript import run
from tests.network.test_mirrors import ALICE, BOB
from tests.network.test_tutorial import Story, steps, story

reactor: Any = _reactor

Act = Callable[..., Awaitable[str]]
"""A step of somebody: a key, what to do, and with what; what was printed, without the end of its last line."""

AT_ALICE, AT_BOB = ALICE.public_key.z32, BOB.public_key.z32
FIRST, SECOND, THIRD = (f"/pub/notes/{number}.txt" for number in (1, 2, 3))


@define
class Wallet:
    """Somebody with an official client."""

    act: Act
    keypair: Keypair = field(factory=Keypair.random)

    async def do(self, *step: str) -> None:
        """Something for which it takes the secret key, and no more than that."""
        await self.act(self.keypair.seed.hex(), *step)

    @property
    def key(self) -> str:
        """What others know."""
        return self.keypair.public_key.z32


@define
class Readers:
    """What the official clients do and find at each stage of the story."""

    told: Story
    wallets: dict[str, Wallet]

    async def after_restart_both(self) -> None:
        """The two with wallets come to Alice's."""
        for name, wallet in self.wallets.items():
            await wallet.do("signup", AT_ALICE)
            await wallet.do("put", FIRST, f"first of {name}")

    async def after_wait_for_the_copy(self) -> None:
        """The key leads to Alice, who is no mirror; Bob, if he is named, serves the same and says that he is one."""
        for name, wallet, reader in self.pairs():
            await self.told.until_read_of(self.told.bob, wallet.key, FIRST)
            assert await reader.act(wallet.key, "through", AT_BOB, FIRST) == f"mirror\nfirst of {name}"
            assert await reader.act(self.told.pubky, "read", FIRST) == "first"
            assert await reader.act(self.told.pubky, "through", AT_ALICE, FIRST) == "null\nfirst"
            assert await reader.act(self.told.pubky, "through", AT_BOB, FIRST) == "mirror\nfirst"

    async def after_burn_alice(self) -> None:
        """Her users' files are to be had from Bob; the two with wallets decide to move there."""
        for wallet in self.wallets.values():
            assert await wallet.act(self.told.pubky, "through", AT_BOB, SECOND) == "mirror\nsecond"
        for name, wallet in self.wallets.items():
            await wallet.do("signup", AT_BOB)
            await wallet.do("put", SECOND, f"second of {name}")

    async def after_writing_at_bob(self) -> None:
        """The public key alone leads to Bob, for all three, and with nothing but the secret key one writes there."""
        secret = self.told.user.seed.hex()
        for name, wallet, reader in self.pairs():
            assert await reader.act(wallet.key, "read", FIRST) == f"first of {name}"
            assert await reader.act(wallet.key, "read", SECOND) == f"second of {name}"
            assert await reader.act(self.told.pubky, "read", SECOND) == "second"
            assert await reader.act(self.told.pubky, "through", AT_BOB, THIRD) == "null\nthird"
            await wallet.act(secret, "put", f"/pub/notes/{name}.txt", f"by {name}")
            assert await reader.act(self.told.pubky, "read", f"/pub/notes/{name}.txt") == f"by {name}"
        javascript = self.wallets["JavaScript"]
        listed = await javascript.act(javascript.key, "list", "/pub/notes/")
        assert listed == "\n".join(f"pubky://{javascript.key}{path}" for path in (FIRST, SECOND))

    async def after_wait_for_alice(self) -> None:
        """Alice keeps the copies now, of all three."""
        for name, wallet, reader in self.pairs():
            path = f"/pub/notes/{name}.txt"
            await self.told.until_read(self.told.alice, path)
            await self.told.until_read_of(self.told.alice, wallet.key, SECOND)
            assert await reader.act(self.told.pubky, "through", AT_ALICE, path) == f"mirror\nby {name}"
            assert await reader.act(wallet.key, "through", AT_ALICE, SECOND) == f"mirror\nsecond of {name}"

    def pairs(self) -> Iterator[tuple[str, Wallet, Wallet]]:
        """Each with a wallet, and the other one, who reads."""
        (first, one), (second, other) = self.wallets.items()
        yield first, one, other
        yield second, other, one

    def at(self, who: str, what: str) -> Callable[[], Awaitable[None]] | None:
        """What they do after a step of the text."""
        if who == "you" and what.startswith("echo 'third'"):
            return self.after_writing_at_bob
        found: Callable[[], Awaitable[None]] | None = getattr(self, f"after_{what.replace(' ', '_')}", None)
        return found if who == "do" else None


@asynccontextmanager
async def relay(told: Story) -> AsyncIterator[str]:
    """A relay in front of the DHT, as browsers need one: its address."""
    factory = HTTPFactory(PkarrRelay(reactor, told.network).answer, reactor)
    listening = reactor.listenTCP(0, factory, interface="127.0.0.1")
    try:
        yield f"http://127.0.0.1:{listening.getHost().port}"
    finally:
        await listening.stopListening()
        await factory.drain(0)


def with_rust(told: Story, programs: Programs) -> Act:
    """Steps of the Rust client."""

    async def act(key: str, *step: str) -> str:
        command = [str(programs.mover), told.replaced["BOOTSTRAP"], key, *step]
        done = await deferToThread(subprocess.run, command, capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 0, f"{step}: {done.stdout}{done.stderr}{told.written()}"
        printed: str = done.stdout
        return printed.rstrip("\n")

    return act


def with_javascript(told: Story) -> Act:
    """Steps of the JavaScript client. The relay of each has seen nothing yet: a record counts for minutes there."""

    async def act(key: str, *step: str) -> str:
        async with relay(told) as url:
            printed: str = await deferToThread(run, "node", "mover.mjs", url, key, *step, seconds=60)
        return printed.rstrip("\n")

    return act


@pytest.mark.usefixtures("client")
@pytest_twisted.ensureDeferred
async def test_the_tutorial_with_official_clients(programs: Programs, tmp_path: Path) -> None:
    """They read through the copy, find an account that has moved by its key alone, and write there with that."""
    async with story(tmp_path) as told:
        readers = Readers(
            told, {"Rust": Wallet(with_rust(told, programs)), "JavaScript": Wallet(with_javascript(told))}
        )
        met = []
        for who, what in steps():
            await (told.do(what) if who == "do" else told.run(who, what))
            stage = readers.at(who, what)
            if stage is not None:
                met.append(stage.__name__)
                await stage()
        assert met == [name for name in vars(Readers) if name.startswith("after_")], "no stage is left out"
        read = [printed for command, printed in told.said if "curl -sS --fail https://" in command]
        assert read == ["first\n", "second\n", "third\n"]
