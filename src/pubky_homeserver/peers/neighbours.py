"""A peer with all that is done with it from here."""

from attrs import frozen

from pubky_homeserver.core.peers import Peer
from pubky_homeserver.interfaces import IPeer
from pubky_homeserver.peers.exchange import Exchange
from pubky_homeserver.peers.following import Follower
from pubky_homeserver.peers.mirror import Mirror


@frozen
class Neighbour:
    """A peer that can be asked."""

    peer: Peer
    source: IPeer
    follower: Follower
    exchange: Exchange
    mirror: Mirror | None
    """None if none of its accounts are followed."""
