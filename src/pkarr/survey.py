"""What each of several networks knows of a key, for people: a client of all of them only tells the newest."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from pkarr.asking import all_of, attempt
from pkarr.interfaces import ICounting, INetwork, NetworkError, Policy
from pkarr.keys import PublicKey
from pkarr.packet import SignedPacket


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
    return tuple(await all_of(_look(key, network, clock) for network in networks))


async def _look(key: PublicKey, network: INetwork, clock: IReactorTime) -> Sighting:
    try:
        return await attempt(network, _see(key, network), clock)
    except NetworkError as error:
        return Sighting(network, failure=error)


async def _see(key: PublicKey, network: INetwork) -> Sighting:
    if ICounting.providedBy(network):
        packet, nodes = await network.count(key)
        return Sighting(network, packet, nodes)
    return Sighting(network, await network.resolve(key, Policy.NETWORK_ONLY))
