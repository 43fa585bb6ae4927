"""The preface with which a proxy tells whom a connection is from (the PROXY protocol, versions 1 and 2).

A line of text, or a signature and binary addresses; then the connection's own bytes follow. Only connections of
somebody are taken: a proxy that says it does not know, or that it asks for itself, is refused.
"""

import re
from ipaddress import IPv6Address, ip_address

from attrs import frozen

MAX_PREFACE = 4096
"""Bytes of a preface of version 2, with all that a proxy may add."""

MAX_LINE = 107
"""Bytes of one of version 1, its line end included."""

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
"""How version 2 begins."""

_HEAD = 16  # bytes of signature, version and command, family, length
_PROXY = 0x21  # version 2, on somebody's behalf
_FAMILIES = {0x11: 4, 0x21: 16}  # TCP over IPv4 and over IPv6 → bytes of an address
_LINE = re.compile(rb"PROXY (TCP4|TCP6) ([0-9A-Fa-f:.]{2,39}) ([0-9A-Fa-f:.]{2,39}) (\d{1,5}) (\d{1,5})\r\n")


class InvalidPreface(ValueError):
    """Bytes that no preface begins with, or one that says nobody."""


@frozen
class Preface:
    """Who is connected."""

    source: str
    """IP address; IPv4 that is written as IPv6 is IPv4."""
    port: int
    length: int
    """Bytes of the preface: what comes after them is the connection's own."""


def read_preface(data: bytes) -> Preface | None:
    """The preface at the beginning of what came so far; None if more is needed. Raises `InvalidPreface`."""
    if data[: len(SIGNATURE)] == SIGNATURE[: len(data)]:
        return _read_binary(data)
    if data[:6] == b"PROXY "[: len(data)]:
        return _read_line(data)
    raise InvalidPreface("no preface")


def plain_ip(text: str) -> str:
    """An IP address in its one spelling; IPv4 that is written as IPv6 is IPv4. ValueError for anything else."""
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def _read_line(data: bytes) -> Preface | None:
    end = data.find(b"\n", 0, MAX_LINE)
    if end < 0:
        if len(data) >= MAX_LINE:
            raise InvalidPreface("the line is too long")
        return None
    found = _LINE.fullmatch(data[: end + 1])
    if found is None:
        raise InvalidPreface("not a line of version 1")
    family, source, target, port, target_port = (part.decode("ascii") for part in found.groups())
    try:
        versions = {ip_address(source).version, ip_address(target).version}
        if versions != {4 if family == "TCP4" else 6} or max(int(port), int(target_port)) > 65535:
            raise ValueError
        return Preface(plain_ip(source), int(port), end + 1)
    except ValueError:
        raise InvalidPreface("an address that is none") from None


def _read_binary(data: bytes) -> Preface | None:
    if len(data) < _HEAD:
        return None
    command, family = data[12], data[13]
    length = _HEAD + int.from_bytes(data[14:16], "big")
    size = _FAMILIES.get(family)
    if command != _PROXY or size is None or length > MAX_PREFACE or length < _HEAD + 2 * size + 4:
        raise InvalidPreface("not a connection of somebody over TCP")
    if len(data) < length:
        return None
    source = str(ip_address(data[_HEAD : _HEAD + size]))
    port_at = _HEAD + 2 * size
    return Preface(plain_ip(source), int.from_bytes(data[port_at : port_at + 2], "big"), length)
