"""A peer with all that is done with it from here."""

from collections.abc import Callable

from attrs import frozen

from pubky_homeserver.core.peers import Peer
from pubky_homeserver.interfaces import IFollower, IPeer
from pubky_homeserver.peers.bodies import Bodies
from pubky_homeserver.peers.exchange import Exchange
from pubky_homeserver.peers.mirror import Mirror


@frozen
class Neighbour:
    """A peer that can be asked."""

    peer: Peer
    source: IPeer
    follower: IFollower
    bodies: Bodies
    may_keep: Callable[[int], bool]
    """Whether what comes from it may take so many more bytes."""
    exchange: Exchange
    mirror: Mirror | None
    """None if none of its accounts are followed."""
