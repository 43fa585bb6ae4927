"""Our client of the DHT, as a program like `mainline-client.rs`: see there for its arguments and what it prints."""

import sys
import time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.stdio import StandardIO
from twisted.internet.task import react
from twisted.protocols.basic import LineOnlyReceiver

from pkarr.dht.items import MutableItem, signable
from pkarr.dht.node import Dht, Settings
from pkarr.interfaces import Policy
from pkarr.keys import Keypair

POLICIES = {"newest": Policy.NETWORK_ONLY, "agreed": Policy.CACHE_FIRST}
VALUE = b"10:some value"


class Lines(LineOnlyReceiver):
    """What the bench says."""

    delimiter = b"\n"

    def __init__(self) -> None:
        self.heard: Deferred[bytes] = Deferred()

    def lineReceived(self, line: bytes) -> None:
        """Tell who waits."""
        heard, self.heard = self.heard, Deferred()
        heard.callback(line)


def key(seed: int, number: int) -> Keypair:
    """One of many keys."""
    return Keypair(number.to_bytes(4, "big") + bytes([seed]) * 28)


async def main(reactor: Any, port: str, work: str, seed: str, count: str) -> None:
    """Join, wait for a line, work, wait for another one."""
    lines = Lines()
    StandardIO(lines, reactor=reactor)
    bootstrap = (("127.0.0.1", int(port)),)
    # Behind a port of its own, as a client: it answers nobody, like the other one.
    settings = Settings(0, False, "127.0.0.1", None, bootstrap, False, is_private=True, rate=1e6, total_rate=1e6)
    dht = Dht(reactor, settings)
    dht.startService()
    await dht.when_joined()
    print("ready", dht.addresses[0][1], flush=True)
    await lines.heard
    for number in range(int(count)):
        keypair = key(int(seed), number)
        began = time.perf_counter()
        if work == "publish":
            item = MutableItem(keypair.public_key.raw, 1, VALUE, keypair.sign(signable(1, VALUE)))
            await dht.put(item)
        elif await dht.get(keypair.public_key.raw, policy=POLICIES[work]) is None:
            raise SystemExit("not found")
        print(f"{(time.perf_counter() - began) * 1000:.1f}", flush=True)
    print("end", flush=True)
    await lines.heard
    await dht.stopService()


if __name__ == "__main__":
    react(main, sys.argv[1:])
