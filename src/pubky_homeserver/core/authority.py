"""Whose word counts for an account: that of the homeserver that its newest signed packet names."""

from pkarr.packet import SignedPacket
from pkarr.records import HTTPS, SVCB

POINTER = "_pubky"
"""The name in a user's packet whose record names the homeserver."""


def homeserver_of(packet: SignedPacket) -> str | None:
    """The homeserver that a user's packet names, as it is written there; None if it names none."""
    services = [record.service for record in packet.lookup(POINTER) if record.type in (HTTPS, SVCB)]
    return services[0].target if services and services[0] is not None else None
