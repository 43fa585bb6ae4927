"""The operator's settings: TOML, `.env` and the environment become one frozen `Config`.

The environment wins over `.env` (in the working directory), that over the TOML file, that over the defaults. Every
setting is a field here: its name, its default, how it is read, and what is allowed. A setting that nobody knows, or a
value that makes no sense, is a `ConfigError` that names file, key and what is allowed; nothing is ever ignored.
"""

import ipaddress
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from io import StringIO
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from attrs import Attribute, evolve, field, fields, frozen, has
from dotenv import dotenv_values

from pkarr.dht.node import PORT, RATE, TOTAL_RATE
from pkarr.dht.server import MAX_ITEMS
from pubky_homeserver.core.quotas import MEGABYTE
from pubky_homeserver.store.address import RedisAddress

T = TypeVar("T")

ENVIRONMENT = ("PUBKY_API_KEY", "HOMESERVER_URL", "PKARR_ENDPOINT")
"""The settings that also have a name in the environment and in `.env`."""

DEFAULT_DATA_DIR = Path("~/.pubky-homeserver")
"""Where a homeserver keeps everything unless it is told otherwise; `~` is the home of who starts it."""

MAX_FILE = 1 << 20
"""Bytes of a file of settings; the longest sensible one has a few thousand."""

MAX_SHOWN = 100
"""Characters of a wrong value that an error shows."""

PUBLIC_RELAYS = ("https://pkarr.pubky.app", "https://pkarr.pubky.org")
"""The relays that the official clients ask."""

NOT_HERE = {
    "general.database_url": "this homeserver keeps its state in Redis: see redis.url",
    "general.user_storage_quota_mb": "its name is storage.default_quota_mb",
    "storage.type": "bodies are files below the data directory",
    "storage.bucket_name": "bodies are files below the data directory",
    "storage.credential": "bodies are files below the data directory",
    "logging.module_levels": "logging.level is for all modules",
}
"""Settings of the official homeserver that mean nothing here, and what to do instead."""


class ConfigError(Exception):
    """A setting that cannot be used; the text is one line for the operator."""


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


def _setting(default: T, read: Callable[[object], T], allowed: str) -> T:
    """A field with its reader and the words for what it takes."""
    return field(default=default, metadata={"read": read, "allowed": allowed})


def _secret(read: Callable[[object], object], allowed: str) -> Any:
    """A field that is not shown, and not set by default."""
    return field(default=None, repr=False, metadata={"read": read, "allowed": allowed})


def _whole(default: int | None, low: int, high: int, unit: str) -> Any:
    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(value)
        return _within(value, low, high)

    return _setting(default, read, f"a whole number of {unit} from {low} to {high}")


def _flag(default: bool) -> bool:
    def read(value: object) -> bool:
        if not isinstance(value, bool):
            raise ValueError(value)
        return value

    return _setting(default, read, "true or false")


def _choice(default: str, *choices: str) -> str:
    def read(value: object) -> str:
        if not isinstance(value, str) or value.lower() not in choices:
            raise ValueError(value)
        return value.lower()

    return _setting(default, read, "one of " + ", ".join(choices))


def _listen(default: str) -> Socket:
    return _setting(Socket.parse(default), Socket.parse, f"an address and a port, such as {default}")


_USER = re.compile(r"//.*@")
_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")


def read_domain(value: object) -> str:
    """A host name (RFC 1123, 2.1), at most 253 characters and no IP address; raises `ValueError`."""
    if not isinstance(value, str) or len(value) > 253 or not all(map(_LABEL.fullmatch, value.split("."))):
        raise ValueError(value)
    if value.rpartition(".")[2].isdigit():
        raise ValueError(value)
    return value


def _read_text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(value)
    return value


def _read_ip(value: object) -> str:
    return str(ipaddress.ip_address(_read_text(value)))


def _read_relays(value: object) -> tuple[str, ...]:
    urls = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(urls, list):
        raise ValueError(value)
    for url in urls:
        parts = urlsplit(_read_text(url))
        is_plain = not (parts.username or parts.password or parts.query or parts.fragment)
        if parts.scheme not in ("http", "https") or not parts.hostname or not is_plain:
            raise ValueError(url)
    return tuple(url.rstrip("/") for url in urls)


def _read_nodes(value: object) -> tuple[tuple[str, int], ...]:
    """Nodes of the DHT as `host:port`; raises `ValueError`."""
    if not isinstance(value, list):
        raise ValueError(value)
    return tuple(_read_node(_read_text(one)) for one in value)


def _read_node(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) == 0:
        raise ValueError(text)
    if host.startswith("[") or host.rpartition(".")[2].isdigit():
        address = Socket.parse(text)
        return address.host, address.port
    return read_domain(host), _within(int(port), 1, 65535)


def _read_addresses(value: object) -> tuple[str, ...]:
    """IP addresses, at most one of each kind; raises `ValueError`."""
    if not isinstance(value, list) or not value:
        raise ValueError(value)
    addresses = [ipaddress.ip_address(_read_text(one)) for one in value]
    if len({address.version for address in addresses}) < len(addresses):
        raise ValueError(value)
    return tuple(map(str, addresses))


def _read_redis(value: object) -> RedisAddress:
    return RedisAddress.parse(_read_text(value))


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
        return cls(tuple(ipaddress.ip_network(_read_text(one)) for one in trusted))


def _identity() -> ClientIdentity:
    allowed = '{ mode = "direct" } or { mode = "proxy_protocol", trusted_proxies = ["127.0.0.1/32"] }'
    return _setting(ClientIdentity(), ClientIdentity.parse, allowed)


@frozen
class General:
    """Who may sign up."""

    signup_mode: str = _choice("token_required", "open", "token_required")


@frozen
class Drive:
    """The client API."""

    icann_listen_socket: Socket = _listen("127.0.0.1:6286")
    icann_client_identity: ClientIdentity = _identity()
    pubky_listen_socket: Socket = _listen("127.0.0.1:6287")
    pubky_client_identity: ClientIdentity = _identity()
    websites: bool = _flag(True)


@frozen
class Storage:
    """Files."""

    default_quota_mb: int | None = _whole(None, 0, 2_147_483_647, "megabytes")
    inline_limit: int = _whole(4096, 0, 65536, "bytes")
    reserve_mb: int = _whole(256, 0, 1_048_576, "megabytes")

    @property
    def default_limit(self) -> int | None:
        """Bytes that an account without its own quota may use; None for no limit."""
        return None if self.default_quota_mb is None else self.default_quota_mb * MEGABYTE


@frozen
class Blobs:
    """Bodies above the inline limit."""

    grace: int = _whole(3600, 0, 31_536_000, "seconds")
    sweep_interval: int = _whole(3600, 60, 31_536_000, "seconds")


@frozen
class Redis:
    """Where the state lives."""

    url: RedisAddress | None = _secret(
        _read_redis,
        "redis://host:port/db, rediss://… (TLS), unix:///path/to/redis.sock or sentinel://host:port,host:port/service",
    )
    appendfsync: str = _choice("always", "always", "everysec")


@frozen
class Admin:
    """The operator's API."""

    enabled: bool = _flag(True)
    listen_socket: Socket = _listen("127.0.0.1:6288")
    admin_password: str | None = _secret(_read_text, "a text that is not empty")


@frozen
class Metrics:
    """Numbers for Prometheus."""

    enabled: bool = _flag(False)
    listen_socket: Socket = _listen("127.0.0.1:6289")


@frozen
class Pkdns:
    """What the homeserver's PKARR record says, and where it is published."""

    public_ip: str = _setting("127.0.0.1", _read_ip, "an IP address")
    public_icann_http_port: int | None = _whole(None, 1, 65535, "a port")
    public_pubky_tls_port: int | None = _whole(None, 1, 65535, "a port")
    icann_domain: str | None = _setting("localhost", read_domain, "a host name, such as example.com")
    user_keys_republisher_interval: int = _whole(14_400, 0, 604_800, "seconds")
    dht_bootstrap_nodes: tuple[tuple[str, int], ...] | None = _setting(
        None, _read_nodes, 'a list of nodes, such as ["router.bittorrent.com:6881"]'
    )
    dht_relay_nodes: tuple[str, ...] | None = _setting(None, _read_relays, "a list of http:// or https:// addresses")
    dht_request_timeout_ms: int = _whole(2000, 1, 600_000, "milliseconds")
    relay_request_timeout_ms: int = _whole(5000, 1, 600_000, "milliseconds")

    @property
    def relays(self) -> tuple[str, ...]:
        """The relays to publish at: the public ones, unless others or a network of one's own are named."""
        if self.dht_relay_nodes is not None:
            return self.dht_relay_nodes
        return PUBLIC_RELAYS if self.dht_bootstrap_nodes is None else ()


@frozen
class DhtNode:
    """Our node of the DHT."""

    enabled: bool = _flag(True)
    addresses: tuple[str, ...] = _setting(
        ("0.0.0.0", "::"),  # noqa: S104  # a node of the DHT is for everybody
        _read_addresses,
        'a list of one or two addresses to listen on, such as ["0.0.0.0", "::"]',
    )
    port: int = _whole(PORT, 0, 65535, "a port")
    private_network: bool = _flag(False)
    rate_limit: int = _whole(int(RATE), 1, 1_000_000, "messages a second")
    total_rate_limit: int = _whole(int(TOTAL_RATE), 1, 1_000_000, "messages a second")
    max_items: int = _whole(MAX_ITEMS, 0, 1_000_000, "items")


@frozen
class Logging:
    """What is written to the log."""

    level: str = _choice("info", "debug", "info", "warn", "error", "critical")


@frozen
class Config:
    """Every setting of the homeserver. Made by `load`."""

    general: General = General()
    drive: Drive = Drive()
    storage: Storage = Storage()
    blobs: Blobs = Blobs()
    redis: Redis = Redis()
    admin: Admin = Admin()
    metrics: Metrics = Metrics()
    pkdns: Pkdns = Pkdns()
    dht: DhtNode = DhtNode()
    logging: Logging = Logging()


def load(file: Path | None, dotenv: Path, environment: Mapping[str, str], defaults: Config) -> Config:
    """The settings of a TOML file (None: there is none), of a `.env` file and of the environment, over `defaults`.

    Raises `ConfigError`.
    """
    config = defaults
    if file is not None:
        config = _read_table(config, _parse(file), str(file), "")
    if dotenv.is_file():
        values = dotenv_values(stream=StringIO(_read(dotenv)), interpolate=False)
        config = _read_environment(config, {name: value for name, value in values.items() if value}, str(dotenv))
    return _read_environment(config, environment, "environment")


def _read(file: Path) -> str:
    """The text of a file of settings. Raises `ConfigError`."""
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_FILE + 1)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    if len(content) > MAX_FILE:
        raise ConfigError(f"{file}: is larger than {MAX_FILE} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: is not UTF-8 text") from None


def _parse(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_read(file))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: is not valid TOML: {error}") from None


def settings(section: type, prefix: str = "") -> Iterator[tuple[str, "Attribute[Any]"]]:
    """Every setting with its dotted key."""
    for one in fields(section):
        if isinstance(one.default, object) and has(type(one.default)) and "read" not in one.metadata:
            yield from settings(type(one.default), f"{prefix}{one.name}.")
        else:
            yield prefix + one.name, one


def _read_table(record: Any, table: Mapping[str, Any], source: str, prefix: str) -> Any:
    known = {one.name: one for one in fields(type(record))}
    changes: dict[str, Any] = {}
    for name, value in table.items():
        key = prefix + name
        if name not in known:
            key = prefix + (name if name.isprintable() else repr(name))
            hint = NOT_HERE.get(key) or "known here: " + ", ".join(prefix + one for one in known)
            raise ConfigError(f"{source}: {key}: no such setting; {hint}")
        read = known[name].metadata.get("read")
        if read is not None:
            changes[name] = _read_value(known[name], value, source, key)
        elif isinstance(value, dict):
            changes[name] = _read_table(getattr(record, name), value, source, f"{key}.")
        else:
            raise ConfigError(f"{source}: {key}: must be a table, such as [{key}]")
    return evolve(record, **changes)


def _read_value(setting: "Attribute[Any]", value: object, source: str, key: str) -> Any:
    try:
        return setting.metadata["read"](value)
    except (ValueError, TypeError):
        shown = "" if setting.repr is False else f" = {_shown(value)}"
        raise ConfigError(f"{source}: {key}{shown}: must be {setting.metadata['allowed']}") from None


def _shown(value: object) -> str:
    """A value as an error quotes it: short, on one line, and without what stands before the @ of an address."""
    text = _USER.sub("//…@", repr(value))
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"


def _read_environment(config: Config, values: Mapping[str, str], source: str) -> Config:
    if key := values.get("PUBKY_API_KEY"):
        config = evolve(config, admin=evolve(config.admin, admin_password=key))
    if url := values.get("HOMESERVER_URL"):
        config = evolve(config, pkdns=_public_address(config.pkdns, url, source))
    if endpoints := values.get("PKARR_ENDPOINT"):
        setting = fields(Pkdns).dht_relay_nodes
        relays = _read_value(setting, endpoints, source, "PKARR_ENDPOINT")
        config = evolve(config, pkdns=evolve(config.pkdns, dht_relay_nodes=relays))
    return config


def _public_address(pkdns: Pkdns, url: str, source: str) -> Pkdns:
    """`https://domain` or `http://localhost:port`: clients find nothing else."""
    allowed = (
        f"{source}: HOMESERVER_URL = {_shown(url)}: must be https://domain without a port (clients use 443), "
        "or http://localhost:port for this machine only"
    )
    try:
        parts = urlsplit(url)
        port = parts.port
        domain = read_domain(parts.hostname)
    except ValueError:
        raise ConfigError(allowed) from None
    if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
        raise ConfigError(allowed)
    if parts.scheme == "http" and domain == "localhost" and port:
        return evolve(pkdns, icann_domain="localhost", public_icann_http_port=port)
    if parts.scheme == "https" and domain != "localhost" and port is None:
        return evolve(pkdns, icann_domain=domain)
    raise ConfigError(allowed)
