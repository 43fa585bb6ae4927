"""DNS records, and the small DNS message in which a key's owner publishes them (RFC 1035, RFC 9460).

The codec is ours, for packets must be made and judged as the official programs do, and a general library does not:
dnspython (tried; our tests compare with it) writes `A.foo` as a pointer to an earlier `a.foo`, refuses service
records that clients use (parameters in alias mode, compressed targets), and looks for a Python module on disk for
each record type that a sender invents. What is taken here was compared with the official parser on 180,000 damaged
messages: it took none that we refuse, and we took some that it refuses, only with questions or with broken data of
types that nobody uses here.

Of a message only the answers mean anything. The rest is checked and dropped, and so are bytes after its end.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address

from attrs import define, field, frozen

A, NS, CNAME, SOA, PTR, HINFO, MX, TXT, AAAA, SRV, OPT, SVCB, HTTPS = 1, 2, 5, 6, 12, 13, 15, 16, 28, 33, 41, 64, 65
IN = 1  # the class of all useful records

# Keys of service parameters (RFC 9460, 14.3.2).
MANDATORY, ALPN, PORT, IPV4HINT, ECH, IPV6HINT = 0, 1, 3, 4, 5, 6
HTTP_PORT = 65280  # private: the plain HTTP port behind the host name `localhost`, 2 bytes

DEFAULT_TTL = 3600  # seconds, of every record that official homeservers and clients write

_MAX_NAME = 255  # bytes of a name with its length bytes (RFC 1035, 2.3.4)
_MAX_LABEL = 63  # bytes
_MAX_STRING = 255  # bytes of one string of a TXT record
_MAX_POINTER = 0x3FFF  # the farthest byte that a compressed name can point to
_REPLY = 0x8000  # flags of a message we write
_RESERVED = 0x0040  # a flag that must be zero (RFC 1035, 4.1.1)
_CACHE_FLUSH = 0x8000  # multicast DNS's use of the highest bit of a class, ignored
_CLASSES = frozenset({IN, 2, 3, 4, 254})
# How the data of a type begins: so many bytes, n for a name, s for a string with its length.
_SHAPES: dict[int, tuple[int | str, ...]] = {
    A: (4,),
    NS: ("n",),
    CNAME: ("n",),
    SOA: ("n", "n", 20),
    PTR: ("n",),
    HINFO: ("s", "s"),
    MX: (2, "n"),
    AAAA: (16,),
    SRV: (6, "n"),
    SVCB: (2, "n"),
    HTTPS: (2, "n"),
}
# Service parameters that are lists of things of so many bytes.
_UNITS: dict[int, int] = {MANDATORY: 2, IPV4HINT: 4, IPV6HINT: 16}

_INCOMPLETE = "Incomplete dns packet"
_NOT_DNS = "Provided information is not a valid DNS packet"


class InvalidDns(ValueError):
    """Bytes that are no DNS message, in the official library's words, or a record that fits in none, in ours."""


@frozen
class Service:
    """What an SVCB or HTTPS record says. `target` is absolute, without final dot, `.` for the owner's own name."""

    priority: int
    target: str
    parameters: Mapping[int, bytes] = field(hash=False)


@frozen
class Record:
    """One DNS record. `name` is absolute, without final dot; `ttl` in seconds; names in `data` are uncompressed."""

    name: str
    type: int
    ttl: int
    data: bytes
    dns_class: int = IN

    @property
    def address(self) -> IPv4Address | IPv6Address | None:
        """The address of an A or AAAA record."""
        if self.type == A and self.data:
            return IPv4Address(self.data[:4])
        if self.type == AAAA and self.data:
            return IPv6Address(self.data[:16])
        return None

    @property
    def alias(self) -> str | None:
        """The target of a CNAME record, without final dot."""
        return str(_Reader(self.data).name()) if self.type == CNAME and self.data else None

    @property
    def text(self) -> str | None:
        """The strings of a TXT record as one."""
        if self.type != TXT:
            return None
        reader, strings = _Reader(self.data), []
        while reader.has_more:
            strings.append(reader.take(reader.number(1)))
        return b"".join(strings).decode("utf-8", "replace")

    @property
    def service(self) -> Service | None:
        """Priority, target and parameters of an SVCB or HTTPS record."""
        if self.type not in (SVCB, HTTPS) or not self.data:
            return None
        reader = _Reader(self.data)
        priority, target, parameters = reader.number(2), str(reader.name()), {}
        while reader.has_more:
            key = reader.number(2)
            parameters[key] = reader.take(reader.number(2))
        return Service(priority, target or ".", parameters)


def address(name: str, ip: IPv4Address | IPv6Address, ttl: int = DEFAULT_TTL) -> Record:
    """An A or AAAA record. In this and the next functions `name` is relative to the key that will sign."""
    return Record(name, A if ip.version == 4 else AAAA, ttl, ip.packed)


def cname(name: str, target: str, ttl: int = DEFAULT_TTL) -> Record:
    """A CNAME record to an absolute name."""
    return Record(name, CNAME, ttl, _wire(_labels(target)))


def txt(name: str, text: str, ttl: int = DEFAULT_TTL) -> Record:
    """A TXT record; text of more than 255 bytes becomes several strings."""
    raw = text.encode()
    strings = [raw[start : start + _MAX_STRING] for start in range(0, len(raw), _MAX_STRING)] or [b""]
    return Record(name, TXT, ttl, b"".join(bytes([len(string)]) + string for string in strings))


def https(
    name: str, priority: int, target: str, parameters: Mapping[int, bytes] | None = None, ttl: int = DEFAULT_TTL
) -> Record:
    """An HTTPS record. `target` is absolute, `.` for the owner's own name; parameters by key in wire form."""
    return Record(name, HTTPS, ttl, _service(priority, target, parameters or {}))


def svcb(
    name: str, priority: int, target: str, parameters: Mapping[int, bytes] | None = None, ttl: int = DEFAULT_TTL
) -> Record:
    """An SVCB record, in everything else like an HTTPS record."""
    return Record(name, SVCB, ttl, _service(priority, target, parameters or {}))


def at_port(port: int) -> dict[int, bytes]:
    """The service parameter `port`."""
    return {PORT: port.to_bytes(2, "big")}


def hinting(ip: IPv4Address | IPv6Address) -> dict[int, bytes]:
    """The service parameter `ipv4hint` or `ipv6hint`."""
    return {IPV4HINT if ip.version == 4 else IPV6HINT: ip.packed}


def _service(priority: int, target: str, parameters: Mapping[int, bytes]) -> bytes:
    fields = b"".join(struct.pack(">HH", key, len(value)) + value for key, value in sorted(parameters.items()))
    _check_parameters(_Reader(fields))
    return struct.pack(">H", priority) + _wire(_labels(target)) + fields


def encode(records: Iterable[Record]) -> bytes:
    """Write records of absolute names as a DNS reply, in their order. InvalidDns if a name or data is too long.

    Owners and CNAME targets are compressed: the rest of a name that stood before, letter by letter, is a pointer.
    Names in other data are not, which for service records is the rule (RFC 9460, 2.2).
    """
    message, seen, count = bytearray(12), dict[tuple[bytes, ...], int](), 0
    for record in records:
        _append_name(message, _labels(record.name), seen)
        message += struct.pack(">HHIH", record.type, record.dns_class, record.ttl, 0)
        start = len(message)
        if record.type == CNAME and record.data:
            _append_name(message, _Reader(record.data).name().labels, seen)
        else:
            message += record.data
        length = len(message) - start
        if length > 0xFFFF:
            raise InvalidDns(f"a record of {length} bytes")
        struct.pack_into(">H", message, start - 2, length)
        count += 1
    struct.pack_into(">HHHHHH", message, 0, 0, _REPLY, 0, count, 0, 0)
    return bytes(message)


def _append_name(message: bytearray, labels: tuple[bytes, ...], seen: dict[tuple[bytes, ...], int]) -> None:
    """Write a name; `seen` maps what was written before to its place."""
    for index, label in enumerate(labels):
        rest = labels[index:]
        if rest in seen:
            message += struct.pack(">H", 0xC000 | seen[rest])
            return
        if len(message) <= _MAX_POINTER:
            seen[rest] = len(message)
        message += bytes([len(label)]) + label
    message += b"\0"


def _labels(name: str) -> tuple[bytes, ...]:
    """What stands between the dots of a name, whatever it is."""
    labels = tuple(label.encode() for label in name.split(".") if label)
    if any(len(label) > _MAX_LABEL for label in labels) or len(_wire(labels)) > _MAX_NAME:
        raise InvalidDns("a label of a name has at most 63 bytes, all of them with their lengths at most 255")
    return labels


def _wire(labels: tuple[bytes, ...]) -> bytes:
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def decode(message: bytes) -> tuple[Record, ...]:
    """Read the answers of a DNS message in their order. InvalidDns if any section is broken."""
    reader = _Reader(message)
    _identifier = reader.number(2)
    if reader.number(2) & _RESERVED:
        raise InvalidDns("Provided header information is invalid")
    questions, answers, authorities, additional = (reader.number(2) for _ in range(4))
    for _ in range(questions):
        reader.name()
        reader.take(4)  # type and class
    records = tuple(_read_record(reader) for _ in range(answers))
    for _ in range(authorities + additional):
        _read_record(reader)
    return records


@frozen
class _Name:
    """A name: uncompressed without its final zero, as people write it, and up to where it takes the message."""

    wire: bytes = b""
    dotted: bytes = b""
    reach: int = 0

    def after(self, labels: list[bytes], reach: int) -> _Name:
        """The name that has these labels in front of this one."""
        wire = b"".join(bytes([len(label)]) + label for label in labels) + self.wire
        dotted = b".".join((*labels, self.dotted) if self.wire else labels)
        return _Name(wire, dotted, max(reach, self.reach))

    @property
    def labels(self) -> tuple[bytes, ...]:
        """What stands between the dots."""
        return tuple(_Reader(self.wire + b"\0").part_of_name(0)[0])

    def __str__(self) -> str:
        return self.dotted.decode("utf-8", "replace")


@define
class _Reader:
    """A place in a DNS message. `end` is where reading stops: the message's end or that of one record's data."""

    message: bytes
    place: int = 0
    end: int = field()
    _names: dict[int, _Name] = field(factory=dict)
    # Maps places of the message to the names that begin there. Without it many records that point into one long name
    # would cost as much as their square.

    @end.default
    def _all(self) -> int:
        return len(self.message)

    @property
    def has_more(self) -> bool:
        return self.place < self.end

    def take(self, length: int) -> bytes:
        """The next bytes."""
        start, self.place = self.place, self.place + length
        if self.place > self.end:
            raise InvalidDns(_INCOMPLETE)
        return self.message[start : self.place]

    def number(self, width: int) -> int:
        """The next bytes as a number."""
        return int.from_bytes(self.take(width), "big")

    def part(self, length: int) -> _Reader:
        """A reader of the next bytes; this one goes on after them."""
        start = self.place
        self.take(length)
        return _Reader(self.message, start, self.place, self._names)

    def name(self) -> _Name:
        """A name, its pointers followed. Each points backward and names have a limit, so the way has an end."""
        parts: list[tuple[int, list[bytes], int]] = []
        reader, length, name = self, 0, _Name()
        while True:
            start = reader.place
            labels, pointer = reader.part_of_name(length)
            length += sum(map(len, labels)) + len(labels)
            parts.append((start, labels, reader.place))
            if pointer is None:
                break
            if pointer >= reader.place - 2:
                raise InvalidDns(_NOT_DNS)
            known = self._names.get(pointer)
            if known is not None and known.reach <= self.end:
                if length + len(known.wire) >= _MAX_NAME:
                    raise InvalidDns(_NOT_DNS)
                name = known
                break
            reader = _Reader(self.message, pointer, self.end)
        for start, labels, reach in reversed(parts):
            self._names[start] = name = name.after(labels, reach)
        return name

    def part_of_name(self, before: int) -> tuple[list[bytes], int | None]:
        """The labels up to the end of a name, or to a pointer, and that; so many bytes of the name came before."""
        labels: list[bytes] = []
        while length := self.number(1):
            if length >= 0xC0:
                return labels, (length & 0x3F) << 8 | self.number(1)
            before += 1 + length
            if before >= _MAX_NAME:
                raise InvalidDns(_NOT_DNS)
            if length > _MAX_LABEL:
                raise InvalidDns("Provied service name contains invalid label")
            labels.append(self.take(length))
        return labels, None


def _read_record(reader: _Reader) -> Record:
    name = str(reader.name())
    rdtype, dns_class, ttl, length = (reader.number(width) for width in (2, 2, 4, 2))
    data = reader.part(length)
    content = _read_data(rdtype, data) if length else b""
    dns_class &= ~_CACHE_FLUSH
    if rdtype != OPT and dns_class not in _CLASSES:
        raise InvalidDns(f"Provided class is invalid: {dns_class}")
    return Record(name, rdtype, ttl, content, dns_class)


def _read_data(rdtype: int, data: _Reader) -> bytes:
    """A record's data with names uncompressed. InvalidDns if it breaks the frame of its type."""
    parts = []
    for step in _SHAPES.get(rdtype, ()):
        if isinstance(step, int):
            parts.append(data.take(step))
        elif step == "n":
            parts.append(data.name().wire + b"\0")
        else:
            length = data.take(1)
            parts.append(length + data.take(length[0]))
    rest = data.take(data.end - data.place)
    if rdtype == TXT:
        _check_strings(_Reader(rest))
    elif rdtype in (SVCB, HTTPS):
        _check_parameters(_Reader(rest))
    return b"".join(parts) + rest


def _check_strings(reader: _Reader) -> None:
    while reader.has_more:
        reader.take(reader.number(1))


def _check_parameters(reader: _Reader) -> None:
    """Refuse service parameters out of order, twice, or with values that are too short (RFC 9460, 2.2)."""
    last = -1
    while reader.has_more:
        key = reader.number(2)
        value = reader.part(reader.number(2))
        length = value.end - value.place
        if key == ALPN:
            _check_strings(value)
        elif key == PORT:
            value.take(2)
        elif key == ECH:
            if value.number(2) != length - 2:
                raise InvalidDns(_NOT_DNS)
        elif length % _UNITS.get(key, 1):
            raise InvalidDns(_INCOMPLETE)
        if key <= last:
            raise InvalidDns(_NOT_DNS)
        last = key
