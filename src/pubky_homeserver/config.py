"""The operator's settings: TOML, `.env` and the environment become one frozen `Config`.

The environment wins over `.env` (in the working directory), that over the TOML file, that over the defaults. Every
setting is a field here: its name, its default, how it is read, and what is allowed. A setting that nobody knows, or a
value that makes no sense, is a `ConfigError` that names file, key and what is allowed; nothing is ever ignored.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attrs import Attribute, evolve, field, fields, frozen, has
from dotenv import dotenv_values

from pkarr.dht.node import PORT, RATE, TOTAL_RATE
from pkarr.dht.server import MAX_ITEMS
from pubky_homeserver.core.peers import GIGABYTE, NONE, Claim, Peer, Selection
from pubky_homeserver.core.quotas import MEGABYTE
from pubky_homeserver.store.address import RedisAddress
from pubky_homeserver.values import (
    ClientIdentity,
    Socket,
    choice,
    flag,
    identity,
    listen,
    read_addresses,
    read_domain,
    read_ip,
    read_key,
    read_nodes,
    read_peer_url,
    read_redis,
    read_relays,
    read_selection,
    read_size,
    read_text,
    secret,
    setting,
    whole,
)

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


_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)
_USER = re.compile(r"//.*@")


class ConfigError(Exception):
    """A setting that cannot be used; the text is one line for the operator."""


@frozen
class General:
    """Who may sign up."""

    signup_mode: str = choice("token_required", "open", "token_required")


@frozen
class Drive:
    """The client API."""

    icann_listen_socket: Socket = listen("127.0.0.1:6286")
    icann_client_identity: ClientIdentity = identity()
    pubky_listen_socket: Socket = listen("127.0.0.1:6287")
    pubky_client_identity: ClientIdentity = identity()
    websites: bool = flag(True)


@frozen
class Storage:
    """Files."""

    default_quota_mb: int | None = whole(None, 0, 2_147_483_647, "megabytes")
    inline_limit: int = whole(4096, 0, 65536, "bytes")
    reserve_mb: int = whole(256, 0, 1_048_576, "megabytes")

    @property
    def default_limit(self) -> int | None:
        """Bytes that an account without its own quota may use; None for no limit."""
        return None if self.default_quota_mb is None else self.default_quota_mb * MEGABYTE


@frozen
class Blobs:
    """Bodies above the inline limit."""

    grace: int = whole(3600, 0, 31_536_000, "seconds")
    erased_grace: int = whole(259_200, 0, 31_536_000, "seconds")
    sweep_interval: int = whole(3600, 60, 31_536_000, "seconds")


@frozen
class Redis:
    """Where the state lives."""

    url: RedisAddress | None = secret(
        read_redis,
        "redis://host:port/db, rediss://… (TLS), unix:///path/to/redis.sock or sentinel://host:port,host:port/service",
    )
    appendfsync: str = choice("always", "always", "everysec")


@frozen
class Admin:
    """The operator's API."""

    enabled: bool = flag(True)
    listen_socket: Socket = listen("127.0.0.1:6288")
    admin_password: str | None = secret(read_text, "a text that is not empty")


@frozen
class Metrics:
    """Numbers for Prometheus."""

    enabled: bool = flag(False)
    listen_socket: Socket = listen("127.0.0.1:6289")


@frozen
class Pkdns:
    """What the homeserver's PKARR record says, and where it is published."""

    public_ip: str = setting("127.0.0.1", read_ip, "an IP address")
    public_icann_http_port: int | None = whole(None, 1, 65535, "a port")
    public_pubky_tls_port: int | None = whole(None, 1, 65535, "a port")
    icann_domain: str | None = setting("localhost", read_domain, "a host name, such as example.com")
    user_keys_republisher_interval: int = whole(14_400, 0, 604_800, "seconds")
    dht_bootstrap_nodes: tuple[tuple[str, int], ...] | None = setting(
        None, read_nodes, 'a list of nodes, such as ["router.bittorrent.com:6881"]'
    )
    dht_relay_nodes: tuple[str, ...] | None = setting(None, read_relays, "a list of http:// or https:// addresses")
    dht_request_timeout_ms: int = whole(2000, 1, 600_000, "milliseconds")
    relay_request_timeout_ms: int = whole(5000, 1, 600_000, "milliseconds")

    @property
    def relays(self) -> tuple[str, ...]:
        """The relays to publish at: the public ones, unless others or a network of one's own are named."""
        if self.dht_relay_nodes is not None:
            return self.dht_relay_nodes
        return PUBLIC_RELAYS if self.dht_bootstrap_nodes is None else ()


@frozen
class DhtNode:
    """Our node of the DHT."""

    enabled: bool = flag(True)
    addresses: tuple[str, ...] = setting(
        ("0.0.0.0", "::"),  # noqa: S104  # a node of the DHT is for everybody
        read_addresses,
        'a list of one or two addresses to listen on, such as ["0.0.0.0", "::"]',
    )
    port: int = whole(PORT, 0, 65535, "a port")
    private_network: bool = flag(False)
    rate_limit: int = whole(int(RATE), 1, 1_000_000, "messages a second")
    total_rate_limit: int = whole(int(TOTAL_RATE), 1, 1_000_000, "messages a second")
    max_items: int = whole(MAX_ITEMS, 0, 1_000_000, "items")


@frozen
class PeerTable:
    """A homeserver that is trusted: `[peers.NAME]`, with a name of the operator's choice."""

    key: str | None = setting(None, read_key, "a homeserver's public key, 52 characters")
    url: str | None = setting(
        None, read_peer_url, "https://domain without a port, or http://127.0.0.1:port on this machine"
    )
    follow: Selection = setting(NONE, read_selection, '"none", "all" or a list of public keys')
    offer: Selection = setting(NONE, read_selection, '"none", "all" or a list of public keys')
    private: bool = flag(False)
    max_bytes: int = setting(
        20 * GIGABYTE, read_size, 'a whole number of bytes, or one with a unit (kb, mb, gb, tb), such as "20gb"'
    )
    claim: str = choice(Claim.TOKEN.value, *Claim)
    official: bool = flag(False)
    paused: bool = flag(False)

    def named(self, name: str) -> Peer:
        """The peer with this name. Raises `ValueError` without a key."""
        if self.key is None:
            raise ValueError(name)
        claim = Claim(self.claim)
        return Peer(
            *(name, self.key, self.url, self.follow, self.offer, self.private, self.max_bytes, claim),
            official=self.official,
            paused=self.paused,
        )


@frozen
class Logging:
    """What is written to the log."""

    level: str = choice("info", "debug", "info", "warn", "error", "critical")


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
    peers: tuple[Peer, ...] = field(default=(), metadata={"named": PeerTable})
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


def read_settings(text: str, source: str) -> Config:
    """The settings of a file whose text this is, without environment. Raises `ConfigError`."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: is not valid TOML: {error}") from None
    config: Config = _read_table(Config(), tables, source, "")
    return config


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
    """Every setting with its dotted key; in a table with a name of the operator's choice that is `NAME`."""
    for one in fields(section):
        if "named" in one.metadata:
            yield from settings(one.metadata["named"], f"{prefix}{one.name}.NAME.")
        elif isinstance(one.default, object) and has(type(one.default)) and "read" not in one.metadata:
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
        elif isinstance(value, dict) and "named" in known[name].metadata:
            changes[name] = _read_peers(value, source, key)
        elif isinstance(value, dict):
            changes[name] = _read_table(getattr(record, name), value, source, f"{key}.")
        else:
            raise ConfigError(f"{source}: {key}: must be a table, such as [{key}]")
    return evolve(record, **changes)


def _read_peers(tables: Mapping[str, Any], source: str, key: str) -> tuple[Peer, ...]:
    peers: dict[str, Peer] = {}
    for name, table in tables.items():
        if not _NAME.fullmatch(name):
            shown = _shown(name)
            raise ConfigError(f"{source}: {key}: {shown} is no name: 1 to 32 letters, digits, hyphens and underscores")
        place = f"{key}.{name}"
        if not isinstance(table, dict):
            raise ConfigError(f"{source}: {place}: must be a table, such as [{place}]")
        try:
            peer = _read_table(PeerTable(), table, source, f"{place}.").named(name)
        except ValueError:
            allowed = fields(PeerTable).key.metadata["allowed"]
            raise ConfigError(f"{source}: {place}.key: is missing: must be {allowed}") from None
        if peer.official and peer.follow.all:
            raise ConfigError(
                f'{source}: {place}.follow = "all": an official homeserver does not say who lives there: '
                "list the keys of the accounts"
            )
        if peer.official and peer.private:
            raise ConfigError(f"{source}: {place}.private: an official homeserver shows nobody what is private")
        if peer.key in peers:
            raise ConfigError(f"{source}: {place}.key: is that of {key}.{peers[peer.key].name} too")
        peers[peer.key] = peer
    return tuple(peers.values())


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
