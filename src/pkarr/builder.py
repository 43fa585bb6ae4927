"""A packet put together, one record a call.

    packet = Builder().address(".", "203.0.113.7").https(".", 1, ".", port=6287).sign(keypair, timestamps.next())

Names are relative to the key that signs: `.` or `@` is the key itself, `www` is `www.<key>`. The first record that
cannot be written, or is one too many, is an `InvalidSignedPacket` when the packet is signed; a number out of range is
a `ValueError` at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address

from attrs import evolve, frozen

from pkarr import records
from pkarr.keys import Keypair
from pkarr.packet import SignedPacket
from pkarr.records import ALPN, DEFAULT_TTL, IPV4HINT, IPV6HINT, PORT, Record

_LONGEST_TTL = 2**32 - 1  # seconds: what four bytes hold
_LAST = 2**16 - 1  # port or priority

Ip = IPv4Address | IPv6Address


@frozen
class Builder:
    """Records in their order. Every method returns a new builder with one record more; ttl in seconds."""

    records: tuple[Record, ...] = ()

    @classmethod
    def of(cls, packet: SignedPacket) -> Builder:
        """Begin with the records of a packet, to make its successor."""
        return cls(packet.records)

    def without(self, prefix: str) -> Builder:
        """Drop the records whose names begin with a text, such as `_pubky`."""
        return Builder(tuple(record for record in self.records if not record.name.startswith(prefix)))

    def address(self, name: str, ip: Ip | str, ttl: int = DEFAULT_TTL) -> Builder:
        """An A or AAAA record, as the address is."""
        return self.add(records.address(name, ip_address(ip) if isinstance(ip, str) else ip, ttl))

    def cname(self, name: str, target: str, ttl: int = DEFAULT_TTL) -> Builder:
        """A CNAME record to an absolute name."""
        return self.add(records.cname(name, target, ttl))

    def txt(self, name: str, text: str, ttl: int = DEFAULT_TTL) -> Builder:
        """A TXT record; text of more than 255 bytes becomes several strings."""
        return self.add(records.txt(name, text, ttl))

    def https(
        self,
        name: str,
        priority: int,
        target: str,
        *,
        port: int | None = None,
        hints: Iterable[Ip] = (),
        alpn: Iterable[str] = (),
        parameters: Mapping[int, bytes] | None = None,
        ttl: int = DEFAULT_TTL,
    ) -> Builder:
        """An HTTPS record to an absolute name, or to `.` for its own; priority 0 makes it an alias (RFC 9460).

        `parameters`: others, by key, in wire form.
        """
        said = _parameters(port, hints, alpn) | dict(parameters or {})
        return self.add(records.https(name, _within(priority, _LAST), target, said, ttl))

    def svcb(
        self,
        name: str,
        priority: int,
        target: str,
        *,
        port: int | None = None,
        hints: Iterable[Ip] = (),
        alpn: Iterable[str] = (),
        parameters: Mapping[int, bytes] | None = None,
        ttl: int = DEFAULT_TTL,
    ) -> Builder:
        """An SVCB record, in everything else like an HTTPS record."""
        said = _parameters(port, hints, alpn) | dict(parameters or {})
        return self.add(records.svcb(name, _within(priority, _LAST), target, said, ttl))

    def add(self, record: Record) -> Builder:
        """Any record."""
        _within(record.ttl, _LONGEST_TTL)
        return evolve(self, records=(*self.records, record))

    def sign(self, keypair: Keypair, timestamp: int) -> SignedPacket:
        """The packet; `timestamp` in microseconds, as of `Timestamps.next`. Raises `InvalidSignedPacket`."""
        return SignedPacket.sign(keypair, self.records, timestamp)


def _parameters(port: int | None, hints: Iterable[Ip], alpn: Iterable[str]) -> dict[int, bytes]:
    """Service parameters; those that say nothing are left out."""
    hints = tuple(hints)
    said = {
        ALPN: b"".join(bytes([len(one.encode())]) + one.encode() for one in alpn),
        PORT: b"" if port is None else _within(port, _LAST).to_bytes(2, "big"),
        IPV4HINT: b"".join(hint.packed for hint in hints if hint.version == 4),
        IPV6HINT: b"".join(hint.packed for hint in hints if hint.version == 6),
    }
    return {key: value for key, value in said.items() if value}


def _within(number: int, most: int) -> int:
    if not 0 <= number <= most:
        raise ValueError(f"{number} is not from 0 to {most}")
    return number
