"""Signed packets: up to 1000 bytes of DNS records under an Ed25519 key, which makes the key an address (PKARR).

A packet is a mutable item of the BitTorrent DHT (BEP 44): the records are the value v, the time of signing in
microseconds is the sequence number seq, there is no salt. The owner's key in z-base-32 is the top-level domain of
all names in it. Whoever holds a packet can pass it on unchanged; nobody but the key's owner can make another.

    packet         public key[32]  signature[64]  timestamp[8]  DNS message[0 to 1000]
    relay payload                  signature[64]  timestamp[8]  DNS message
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from attrs import evolve, field, frozen

from pkarr.keys import KEY_LENGTH, SIGNATURE_LENGTH, InvalidPublicKey, InvalidSignature, Keypair, PublicKey
from pkarr.records import InvalidDns, Record, decode, encode
from pkarr.timestamps import LENGTH as TIMESTAMP_LENGTH

MAX_DNS = 1000  # bytes of v in BEP 44
HEAD = KEY_LENGTH + SIGNATURE_LENGTH + TIMESTAMP_LENGTH  # bytes of a packet before its records
MAX_PACKET = HEAD + MAX_DNS  # bytes
MAX_RELAY_PAYLOAD = MAX_PACKET - KEY_LENGTH  # bytes

SHORTEST_TTL = 300  # seconds that a packet may be cached at least, whatever its records say
LONGEST_TTL = 86_400  # and at most


class InvalidSignedPacket(ValueError):
    """Bytes that are no packet, or records that fit in none. The text is the official library's."""


@frozen
class SignedPacket:
    """A packet whose signature holds and whose records can be read: there are no others.

    The constructor takes the parts of one that came from elsewhere and raises InvalidSignedPacket;
    `sign` makes a new one. `timestamp` is in microseconds and may lie in the future.
    """

    public_key: PublicKey
    signature: bytes = field(repr=False)
    timestamp: int
    dns: bytes = field(repr=False)
    records: tuple[Record, ...] = field(init=False, eq=False)

    @records.default
    def _check(self) -> tuple[Record, ...]:
        _check_length(HEAD + len(self.dns))
        try:
            self.public_key.verify(signable(self.timestamp, self.dns), self.signature)
            return decode(self.dns)
        except (InvalidSignature, InvalidDns) as error:
            raise InvalidSignedPacket(str(error)) from None

    @classmethod
    def sign(cls, keypair: Keypair, records: Iterable[Record], timestamp: int) -> SignedPacket:
        """Sign records in their order. Names are relative to the key; InvalidSignedPacket if they are too much."""
        owner = keypair.public_key
        try:
            dns = encode(evolve(record, name=absolute_name(record.name, owner)) for record in records)
        except InvalidDns as error:
            raise InvalidSignedPacket(str(error)) from None
        if len(dns) > MAX_DNS:
            raise _too_large(len(dns))
        return cls(owner, keypair.sign(signable(timestamp, dns)), timestamp, dns)

    @classmethod
    def parse(cls, packet: bytes) -> SignedPacket:
        """Read a packet of 104 to 1104 bytes: length, key, signature, records are checked in that order."""
        _check_length(len(packet))
        try:
            key = PublicKey(packet[:KEY_LENGTH])
        except InvalidPublicKey as error:
            raise InvalidSignedPacket(str(error)) from None
        return cls.from_relay_payload(key, packet[KEY_LENGTH:])

    @classmethod
    def from_relay_payload(cls, key: PublicKey, payload: bytes) -> SignedPacket:
        """Read what a relay keeps under a key. Lengths in errors count the key too."""
        _check_length(KEY_LENGTH + len(payload))
        head = SIGNATURE_LENGTH + TIMESTAMP_LENGTH
        timestamp = int.from_bytes(payload[SIGNATURE_LENGTH:head], "big")
        return cls(key, payload[:SIGNATURE_LENGTH], timestamp, payload[head:])

    def __bytes__(self) -> bytes:
        return self.public_key.raw + self.relay_payload

    @property
    def relay_payload(self) -> bytes:
        """The packet without its key, as the body of a relay's PUT and GET."""
        return self.signature + self.timestamp.to_bytes(TIMESTAMP_LENGTH, "big") + self.dns

    def lookup(self, name: str) -> list[Record]:
        """Records of a name relative to the key, in their order; `*` in front stands for one label or part of one."""
        wanted = absolute_name(name, self.public_key)
        if not wanted.startswith("*"):
            return [record for record in self.records if record.name == wanted]
        rest = wanted[1:]
        return [
            record for record in self.records if record.name.endswith(rest) and "." not in record.name[: -len(rest)]
        ]

    def ttl(self, shortest: int = SHORTEST_TTL, longest: int = LONGEST_TTL) -> int:
        """Seconds that this packet may be cached: its records' smallest, within the two bounds."""
        return min(max(min((record.ttl for record in self.records), default=shortest), shortest), longest)

    def more_recent_than(self, other: SignedPacket) -> bool:
        """Whether this packet replaces another of the same key: signed later, or then too but larger in its bytes."""
        return (self.timestamp, self.dns) > (other.timestamp, other.dns)


def newest_of(packets: Iterable[SignedPacket | None]) -> SignedPacket | None:
    """The most recent of some packets of one key; None if there is none."""
    newest: SignedPacket | None = None
    for packet in packets:
        if packet is not None and (newest is None or packet.more_recent_than(newest)):
            newest = packet
    return newest


def signable(timestamp: int, value: bytes) -> bytes:
    """The bytes that a signature covers (BEP 44, mutable items without salt)."""
    return b"3:seqi%de1:v%d:%b" % (timestamp, len(value), value)


def dht_target(key: PublicKey) -> bytes:
    """Where the DHT keeps a key's packet: SHA-1 of the key (BEP 44)."""
    return hashlib.sha1(key.raw, usedforsecurity=False).digest()


def absolute_name(name: str, owner: PublicKey) -> str:
    """A name with its owner's key as last label. `@`, `.` and nothing mean the key itself."""
    name = name.removesuffix(".")
    last = name.rpartition(".")[2]
    if last == owner.z32:
        return name
    return owner.z32 if last in ("@", "") else f"{name}.{owner.z32}"


def _check_length(length: int) -> None:
    if length < HEAD:
        raise InvalidSignedPacket(
            f"Invalid SignedPacket bytes length, expected at least {HEAD} bytes but got: {length}"
        )
    if length > MAX_PACKET:
        raise _too_large(length)


def _too_large(length: int) -> InvalidSignedPacket:
    return InvalidSignedPacket(f"DNS Packet is too large, expected max {MAX_DNS} bytes but got: {length}")
