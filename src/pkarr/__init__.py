"""Public keys as addresses: Ed25519 keys, DNS records signed by them, and where to publish and find them (PKARR).

These names do no I/O and need no Twisted. The networks are next door, such as `pkarr.relay.Relay`.
"""

from pkarr.builder import Builder
from pkarr.interfaces import INetwork, NetworkError, Policy
from pkarr.keys import InvalidPublicKey, InvalidSecretKey, InvalidSignature, Keypair, PublicKey
from pkarr.packet import InvalidSignedPacket, SignedPacket, dht_target
from pkarr.records import InvalidDns, Record, Service
from pkarr.timestamps import Timestamps

__all__ = [
    "Builder",
    "INetwork",
    "InvalidDns",
    "InvalidPublicKey",
    "InvalidSecretKey",
    "InvalidSignature",
    "InvalidSignedPacket",
    "Keypair",
    "NetworkError",
    "Policy",
    "PublicKey",
    "Record",
    "Service",
    "SignedPacket",
    "Timestamps",
    "dht_target",
]
