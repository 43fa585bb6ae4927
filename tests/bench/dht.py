"""Our client of the DHT beside that of the official crate `mainline`, in one network on the loopback.

    python -m tests.bench.dht [--nodes 200] [--keys 20] [--rounds 5] [--shortest 20] [--longest 200]

The network has 200 nodes of ours in this process, each of which hears what is sent to it 20 to 200 ms late. The clients
are processes of their own, new ones for each line of the table in each round; they take turns, and each looks up what
the other has published. `newest` asks all of the nearest nodes; `agreed` is content when three have the same item: the
other client leaves it to its caller to count them (one that takes any answer has it sooner, from one node that may be
behind). `cold` is the first key after joining.
Packets are counted where they arrive, from when a client has joined; `join` is what that costs. Without delays the
table shows what the programs and the network need for themselves.
"""

import argparse
import random
import statistics
import sys
from collections import Counter, defaultdict
from typing import Any

from attrs import define, evolve, field
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import DatagramProtocol, ProcessProtocol
from twisted.internet.task import deferLater, react

from pkarr.dht.contacts import Address
from pkarr.dht.node import Dht, Settings
from tests.interop.crate import build_programs

reactor: Any = _reactor

SEED = 8
QUIET = 0.5  # seconds after which what a client sent has arrived, and been answered


@define
class Slow:
    """A reactor whose sockets hear late, each by its own delay, and that counts who sends how much to them."""

    chance: random.Random
    shortest: float  # seconds
    longest: float
    sent: Counter[Address] = field(factory=Counter)
    is_slow: bool = False

    def listenUDP(self, port: int, protocol: DatagramProtocol, interface: str, size: int) -> IListeningPort:
        """Listen, and hear late."""
        received, delay = protocol.datagramReceived, self.chance.uniform(self.shortest, self.longest)

        def hear(datagram: bytes, addr: Address) -> None:
            self.sent[addr] += 1
            if self.is_slow:
                reactor.callLater(delay, received, datagram, addr)
            else:
                received(datagram, addr)

        protocol.datagramReceived = hear  # type: ignore[method-assign]  # what distance does
        listening: IListeningPort = reactor.listenUDP(port, protocol, interface, size)
        return listening

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


@define(eq=False)
class Client(ProcessProtocol):
    """One of the two programs at work."""

    network: Slow
    ready: Deferred[None] = field(factory=Deferred)
    ended: Deferred[None] = field(factory=Deferred)
    gone: Deferred[None] = field(factory=Deferred)
    address: Address = ("", 0)
    times: list[float] = field(factory=list)
    _rest: bytes = b""

    def outReceived(self, data: bytes) -> None:
        """Read what it says."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"ready"):
                self.address = "127.0.0.1", int(line.split()[1])
                self.ready.callback(None)
            elif line == b"end":
                self.ended.callback(None)
            else:
                self.times.append(float(line))

    def errReceived(self, data: bytes) -> None:
        """Show what went wrong."""
        sys.stderr.write(data.decode("utf-8", "replace"))

    def processEnded(self, reason: Any) -> None:
        """It is over."""
        for waiting in (self.ready, self.ended):
            if not waiting.called:
                waiting.errback(reason)
        self.gone.callback(None)

    def say(self) -> None:
        """Tell it to go on."""
        assert self.transport is not None
        self.transport.write(b"\n")


@define
class Figures:
    """What was measured of one program and one kind of work. `cold` are those of `times` that were the first."""

    times: list[float] = field(factory=list)
    cold: list[float] = field(factory=list)
    packets: int = 0
    joins: list[int] = field(factory=list)

    @property
    def each(self) -> float:
        """Packets for one key."""
        return self.packets / len(self.times)

    @property
    def late(self) -> float:
        """Milliseconds that nine of ten keep below."""
        return statistics.quantiles(self.times, n=10)[-1]


async def measure(network: Slow, command: list[str], figures: Figures) -> None:
    """Run one program through its work."""
    client = Client(network)
    reactor.spawnProcess(client, command[0], command, env=None)
    await client.ready
    await deferLater(reactor, QUIET)
    before = network.sent[client.address]
    figures.joins.append(before)
    client.say()
    await client.ended
    await deferLater(reactor, QUIET)
    figures.packets += network.sent[client.address] - before
    figures.times += client.times
    figures.cold.append(client.times[0])
    client.say()
    await client.gone
    del network.sent[client.address]  # the next one may have the same


async def start(network: Slow, count: int) -> list[Dht]:
    """The nodes, joined."""
    settings = Settings(0, False, "127.0.0.1", None, (), serves=True, is_private=True, rate=1e6, total_rate=1e6)
    first = Dht(network, settings)
    first.startService()
    nodes = [first]
    while len(nodes) < count:
        some = [Dht(network, evolve(settings, bootstrap=tuple(first.addresses))) for _ in range(20)]
        for node in some:
            node.startService()
        await gatherResults([node.when_joined() for node in some])
        nodes += some
    return nodes[:count]


async def main(_reactor: Any, nodes: int, keys: int, rounds: int, shortest: float, longest: float) -> None:
    """Run everything, and print the table."""
    official = str(build_programs().mainline)
    programs = {"ours": [sys.executable, "-m", "tests.bench.dht_client"], "mainline": [official]}
    network = Slow(random.Random(SEED), shortest / 1000, longest / 1000)
    running = await start(network, nodes)
    print(f"{nodes} nodes, each hears after {shortest:g} to {longest:g} ms; {rounds} times {keys} keys each")
    network.is_slow = True
    port = str(running[0].addresses[0][1])
    table: defaultdict[tuple[str, str], Figures] = defaultdict(Figures)
    for number in range(rounds):
        seeds = {name: str(2 * number + at) for at, name in enumerate(programs)}
        for work in ("publish", "newest", "agreed"):
            for name, command in programs.items():
                owner = name if work == "publish" else next(other for other in programs if other != name)
                await measure(network, [*command, port, work, seeds[owner], str(keys)], table[work, name])
    await DeferredList([node.stopService() for node in running])
    show(table)


def show(table: dict[tuple[str, str], Figures]) -> None:
    """Print the figures, and ours as parts of the other's."""
    print(f"{'':14}{'mainline':>24}{'ours':>24}{'ours : mainline':>24}")
    print(f"{'':14}" + f"{'p50 ms':>8}{'p90':>8}{'packets':>8}" * 3)
    for work in ("publish", "newest", "agreed"):
        theirs, ours = table[work, "mainline"], table[work, "ours"]
        rows = [(statistics.median(one.times), one.late, one.each) for one in (theirs, ours)]
        ratios = [mine / other for other, mine in zip(*rows, strict=True)]
        cells = "".join(f"{median:8.0f}{late:8.0f}{each:8.1f}" for median, late, each in rows)
        print(f"{work:14}{cells}" + "".join(f"{ratio:8.2f}" for ratio in ratios))
        first, second = (statistics.median(one.cold) for one in (theirs, ours))
        print(f"{work + ', cold':14}{first:8.0f}{second:24.0f}{second / first:24.2f}")
    first, second = (
        statistics.mean(count for (_, name), one in table.items() if name == wanted for count in one.joins)
        for wanted in ("mainline", "ours")
    )
    print(f"{'join':14}{first:24.1f}{second:24.1f}{second / first:24.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--keys", type=int, default=20, help="that each client process works through")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shortest", type=float, default=20.0, help="milliseconds until a node hears")
    parser.add_argument("--longest", type=float, default=200.0)
    arguments = parser.parse_args()
    react(main, tuple(vars(arguments).values()))
