"""Where a Redis is, from a URL: `redis://`, `rediss://` (TLS), `unix://` or `sentinel://`."""

from typing import Any, Self
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from attrs import field, frozen
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import optionsForClientTLS

from pubky_homeserver.store.sentinel import SentinelEndpoint

PORT = 6379
"""Redis' own."""

CONNECT_TIMEOUT = 5
"""Seconds for one attempt to connect: two of them fit into the wait of a start."""

MAX_SOCKET_PATH = 107
"""Bytes of a unix socket's path (Linux, `sun_path`)."""

ALLOWED = (
    "write redis://[user:password@]host[:port][/database], the same with rediss:// for TLS, "
    "unix://[user:password@]/path/to/redis.sock[?db=database], "
    "or sentinel://[user:password@]host[:port][,host[:port] …]/service[/database]"
)

SENTINEL_PORT = 26379
"""Sentinel's own."""


@frozen
class RedisAddress:
    """One Redis server, the database in it and who we are there."""

    host: str = "127.0.0.1"
    port: int = PORT
    path: str | None = None
    """Of a unix socket; then host, port and TLS mean nothing."""
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    sentinels: tuple[tuple[str, int], ...] = ()
    """Host and port of those who know the master; then host, port, path and TLS mean nothing."""
    service: str = ""
    """Under which name they know it."""

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read a URL. Raises `ValueError` with a sentence that says what is allowed, and does not repeat a password."""
        if url.startswith("sentinel://"):
            return cls._parse_sentinel(url)
        try:
            parts = urlsplit(url)
            port = parts.port or PORT
        except ValueError as error:
            raise ValueError(f"not the address of a Redis ({error}): {ALLOWED}") from None
        if parts.fragment:
            raise ValueError(f"not the address of a Redis (has a #): {ALLOWED}")
        username = unquote(parts.username) if parts.username else None
        password = unquote(parts.password) if parts.password else None
        if parts.scheme == "unix":
            return cls(
                path=_socket_path(parts),
                database=_database(_query(parts).get("db", "")),
                username=username,
                password=password,
            )
        if parts.scheme not in {"redis", "rediss"} or not parts.hostname or parts.query:
            raise ValueError(f"not the address of a Redis: {ALLOWED}")
        return cls(
            host=parts.hostname,
            port=port,
            database=_database(parts.path.removeprefix("/")),
            username=username,
            password=password,
            tls=parts.scheme == "rediss",
        )

    @classmethod
    def _parse_sentinel(cls, url: str) -> Self:
        parts = urlsplit(url)
        credentials, _, hosts = parts.netloc.rpartition("@")
        username, _, password = credentials.partition(":")
        service, _, database = parts.path.removeprefix("/").partition("/")
        if not hosts or not service or parts.query or parts.fragment:
            raise ValueError(f"not the address of a Redis: {ALLOWED}")
        return cls(
            sentinels=tuple(map(_sentinel, hosts.split(","))),
            service=unquote(service),
            database=_database(database),
            username=unquote(username) or None,
            password=unquote(password) or None,
        )

    def __str__(self) -> str:
        """As a URL, without the user and the password."""
        if self.sentinels:
            hosts = ",".join(f"{host}:{port}" for host, port in self.sentinels)
            return f"sentinel://{hosts}/{self.service}/{self.database}"
        if self.path is not None:
            return f"unix://{self.path}" + (f"?db={self.database}" if self.database else "")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis{'s' * self.tls}://{host}:{self.port}/{self.database}"

    def endpoint(self, reactor: Any) -> IStreamClientEndpoint:
        """The way to connect. With TLS the certificate must be valid for the host."""
        if self.sentinels:
            return SentinelEndpoint(reactor, self.sentinels, self.service, CONNECT_TIMEOUT)
        if self.path is not None:
            return UNIXClientEndpoint(reactor, self.path, timeout=CONNECT_TIMEOUT)
        endpoint = HostnameEndpoint(reactor, self.host, self.port, timeout=CONNECT_TIMEOUT)
        return wrapClientTLS(optionsForClientTLS(self.host), endpoint) if self.tls else endpoint


def _sentinel(text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port or SENTINEL_PORT
    except ValueError as error:
        raise ValueError(f"not the address of a sentinel ({error}): {ALLOWED}") from None
    if not host or parts.path or parts.username is not None:
        raise ValueError(f"not the address of a sentinel: {ALLOWED}")
    return host, port


def _query(parts: SplitResult) -> dict[str, str]:
    given = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    if given.keys() - {"db"}:
        raise ValueError(f"not the address of a Redis (unknown: {', '.join(sorted(given.keys() - {'db'}))}): {ALLOWED}")
    return given


def _socket_path(parts: SplitResult) -> str:
    path = unquote(parts.path)
    if parts.hostname or not path.startswith("/") or "\0" in path:
        raise ValueError(f"the path of a Redis socket must be absolute: {ALLOWED}")
    if len(path.encode()) > MAX_SOCKET_PATH:
        raise ValueError(f"the path of a Redis socket has more than {MAX_SOCKET_PATH} bytes: {path}")
    return path


def _database(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        raise ValueError(f"the database of a Redis is a number, not {text!r}: {ALLOWED}")
    return int(text)
