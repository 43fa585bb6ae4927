"""The kinds of values that settings take: each with its reader, which raises `ValueError`, and the words for it.

A setting is a field of a record in `config.py`, declared by one of the functions here.
"""

import ipaddress
import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

from attrs import field, frozen

from pkarr.keys import PublicKey
from pubky_homeserver.core.peers import ALL, NONE, Selection
from pubky_homeserver.store.address import RedisAddress

T = TypeVar("T")

UNITS = {"kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "tb": 1 << 40}
"""Bytes of each unit."""

MAX_SIZE = 1 << 53
"""Bytes: the largest whole number that Redis' scripts count exactly."""


@frozen
class Socket:
    """An address to listen on."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, value: object) -> "Socket":
        """Read `127.0.0.1:6286` or `[::1]:6286`; raises `ValueError`."""
        host, _, port = str(value).rpartition(":")
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        if (address.version == 6) != host.startswith("[") or not port.isascii() or not port.isdigit():
            raise ValueError(value)
        return cls(str(address), _within(int(port), 0, 65535))


def _within(value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise ValueError(value)
    return value


def setting(default: T, read: Callable[[object], T], allowed: str) -> T:
    """A field with its reader and the words for what it takes."""
    return field(default=default, metadata={"read": read, "allowed": allowed})


def secret(read: Callable[[object], object], allowed: str) -> Any:
    """A field that is not shown, and not set by default."""
    return field(default=None, repr=False, metadata={"read": read, "allowed": allowed})


def whole(default: int | None, low: int, high: int, unit: str) -> Any:
    """A whole number from `low` to `high`."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(value)
        return _within(value, low, high)

    return setting(default, read, f"a whole number of {unit} from {low} to {high}")


def flag(default: bool) -> bool:
    """True or false."""

    def read(value: object) -> bool:
        if not isinstance(value, bool):
            raise ValueError(value)
        return value

    return setting(default, read, "true or false")


def choice(default: str, *choices: str) -> str:
    """One of a few words, in whatever case."""

    def read(value: object) -> str:
        if not isinstance(value, str) or value.lower() not in choices:
            raise ValueError(value)
        return value.lower()

    return setting(default, read, "one of " + ", ".join(choices))


def listen(default: str) -> Socket:
    """An address to listen on."""
    return setting(Socket.parse(default), Socket.parse, f"an address and a port, such as {default}")


_SIZE = re.compile(r"([0-9]{1,16}) ?(kb|mb|gb|tb)", re.ASCII)
_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")


def read_domain(value: object) -> str:
    """A host name (RFC 1123, 2.1), at most 253 characters and no IP address; raises `ValueError`."""
    if not isinstance(value, str) or len(value) > 253 or not all(map(_LABEL.fullmatch, value.split("."))):
        raise ValueError(value)
    if value.rpartition(".")[2].isdigit():
        raise ValueError(value)
    return value


def read_text(value: object) -> str:
    """A text that is not empty; raises `ValueError`."""
    if not isinstance(value, str) or not value:
        raise ValueError(value)
    return value


def read_ip(value: object) -> str:
    """An IP address in its usual form; raises `ValueError`."""
    return str(ipaddress.ip_address(read_text(value)))


def read_relays(value: object) -> tuple[str, ...]:
    """Addresses of relays, as a list or separated by commas; raises `ValueError`."""
    urls = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(urls, list):
        raise ValueError(value)
    for url in urls:
        parts = urlsplit(read_text(url))
        is_plain = not (parts.username or parts.password or parts.query or parts.fragment)
        if parts.scheme not in ("http", "https") or not parts.hostname or not is_plain:
            raise ValueError(url)
    return tuple(url.rstrip("/") for url in urls)


def read_nodes(value: object) -> tuple[tuple[str, int], ...]:
    """Nodes of the DHT as `host:port`; raises `ValueError`."""
    if not isinstance(value, list):
        raise ValueError(value)
    return tuple(_read_node(read_text(one)) for one in value)


def _read_node(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) == 0:
        raise ValueError(text)
    if host.startswith("[") or host.rpartition(".")[2].isdigit():
        address = Socket.parse(text)
        return address.host, address.port
    return read_domain(host), _within(int(port), 1, 65535)


def read_addresses(value: object) -> tuple[str, ...]:
    """IP addresses, at most one of each kind; raises `ValueError`."""
    if not isinstance(value, list) or not value:
        raise ValueError(value)
    addresses = [ipaddress.ip_address(read_text(one)) for one in value]
    if len({address.version for address in addresses}) < len(addresses):
        raise ValueError(value)
    return tuple(map(str, addresses))


def read_key(value: object) -> str:
    """A public key in z-base-32; raises `ValueError`."""
    return PublicKey.from_z32(read_text(value)).z32


def read_selection(value: object) -> Selection:
    """`none`, `all`, or a list of accounts; raises `ValueError`."""
    if isinstance(value, list):
        return Selection(keys=frozenset(map(read_key, value)))
    return {"all": ALL, "none": NONE}.get(read_text(value)) or _no(value)


def read_peer_url(value: object) -> str:
    """`https://domain`, or on this machine `http://127.0.0.1:port`; raises `ValueError`."""
    url = read_text(value).removesuffix("/")
    scheme, _, place = url.partition("://")
    if scheme == "http":
        socket = Socket.parse(place)
        if not ipaddress.ip_address(socket.host).is_loopback or not socket.port:
            raise ValueError(value)
        return f"http://{socket}"
    return f"https://{read_domain(place).lower()}" if scheme == "https" else _no(value)


def read_size(value: object) -> int:
    """Bytes: a whole number, or one with a unit; raises `ValueError`."""
    if isinstance(value, int) and not isinstance(value, bool):
        return _within(value, 0, MAX_SIZE)
    match = _SIZE.fullmatch(read_text(value).lower())
    return _no(value) if match is None else _within(int(match[1]) * UNITS[match[2]], 0, MAX_SIZE)


def _no(value: object) -> NoReturn:
    raise ValueError(value)


def read_redis(value: object) -> RedisAddress:
    """Where a Redis is; raises `ValueError`."""
    return RedisAddress.parse(read_text(value))


@frozen
class ClientIdentity:
    """Whom a connection is from."""

    proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    """The proxies that say so in a preface; none if the one who connects is the client."""

    @classmethod
    def parse(cls, value: object) -> "ClientIdentity":
        """Read `{ mode = "direct" }` or `{ mode = "proxy_protocol", trusted_proxies = [...] }`; raises `ValueError`."""
        if not isinstance(value, dict) or value.keys() - {"mode", "trusted_proxies"}:
            raise ValueError(value)
        trusted, mode = value.get("trusted_proxies"), value.get("mode", "direct")
        if mode == "direct" and trusted is None:
            return cls()
        if mode != "proxy_protocol" or not isinstance(trusted, list) or not trusted:
            raise ValueError(value)
        return cls(tuple(ipaddress.ip_network(read_text(one)) for one in trusted))


def identity() -> ClientIdentity:
    """Whom connections are from."""
    allowed = '{ mode = "direct" } or { mode = "proxy_protocol", trusted_proxies = ["127.0.0.1/32"] }'
    return setting(ClientIdentity(), ClientIdentity.parse, allowed)
