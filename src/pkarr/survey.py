"""What each of several networks knows of a key, for people: a client of all of them only tells the newest."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pkarr.client import PATIENCE
from pkarr.interfaces import ICounting, INetwork, NetworkError, Policy, Unavailable
from pkarr.keys import PublicKey
from pkarr.packet import SignedPacket

_log = Logger()


@frozen
class Sighting:
    """What one network has of a key."""

    network: INetwork
    packet: SignedPacket | None = None
    """Its newest packet; None if it has none."""
    nodes: int | None = None
    """On how many nodes that packet was found; None if the network does not count."""
    failure: NetworkError | None = None
    """Why nothing is known; None if something is."""


async def survey(key: PublicKey, networks: Iterable[INetwork], clock: IReactorTime) -> tuple[Sighting, ...]:
    """Ask every network for its newest packet of a key, all at once; each has `PATIENCE` seconds, and fails alone."""
    looks = [Deferred.fromCoroutine(_look(key, network, clock)) for network in networks]
    return tuple(await gatherResults(looks, consumeErrors=True))


async def _look(key: PublicKey, network: INetwork, clock: IReactorTime) -> Sighting:
    def late(_result: object, _seconds: float) -> Sighting:
        raise Unavailable(f"no answer within {PATIENCE:g} s")

    try:
        return await Deferred.fromCoroutine(_see(key, network)).addTimeout(PATIENCE, clock, late)
    except NetworkError as error:
        return Sighting(network, failure=error)
    except CancelledError:
        raise
    except Exception:
        _log.failure("Unexpected failure at {network}", network=network)
        return Sighting(network, failure=Unavailable("failed; the log tells why"))


async def _see(key: PublicKey, network: INetwork) -> Sighting:
    if ICounting.providedBy(network):
        packet, nodes = await network.count(key)
        return Sighting(network, packet, nodes)
    return Sighting(network, await network.resolve(key, Policy.NETWORK_ONLY))
