"""The operator's settings: which source wins, what is allowed, and what is said when it is not."""

import re
import tomllib
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from pubky_homeserver.config import (
    ENVIRONMENT,
    MAX_FILE,
    MAX_SHOWN,
    NOT_HERE,
    PUBLIC_RELAYS,
    Config,
    ConfigError,
    Pkdns,
    load,
    settings,
)
from pubky_homeserver.core.peers import ALL, NONE, Claim, Peer, Selection
from pubky_homeserver.store.address import RedisAddress
from pubky_homeserver.values import Socket

MANUAL = Path(__file__).parents[1] / "conf" / "homeserver.toml"
EXAMPLE = Path(__file__).parents[1] / "example.env"
SECRET = "correct-horse"
SETTINGS = dict(settings(Config))

KEY = "8pinxxgqs41n4aididenw5apqp1urfmzdztr8jt4abrkdn435ewo"
OTHER_KEY = "ybndrfg8ejkmcpqxot1uwisza345h769ybndrfg8ejkmcpqxot1y"

Load = Callable[..., Config]


@pytest.fixture
def load_with(tmp_path: Path) -> Load:
    """Loads settings from texts."""

    def load_with(toml: str | bytes | None = None, dotenv: str | None = None, **environment: str) -> Config:
        file, env = tmp_path / "homeserver.toml", tmp_path / ".env"
        if toml is not None:
            file.write_bytes(toml.encode() if isinstance(toml, str) else toml)
        if dotenv is not None:
            env.write_text(dotenv)
        return load(None if toml is None else file, env, environment, Config())

    return load_with


def spelled(key: str, value: str) -> str:
    """A setting as a TOML file has it."""
    section, _, name = key.rpartition(".")
    return f"[{section}]\n{name} = {value}\n"


# --- the manual ---------------------------------------------------------------------------------------------------


def taken() -> str:
    """The manual with the # taken from every line that has a setting or names a table."""
    return re.sub(r"(?m)^#(?=\w+ = |\[)", "", MANUAL.read_text())


def flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a table and those below it by their dotted keys; what settings read as a table is a value."""
    found: dict[str, Any] = {}
    for name, value in table.items():
        key = prefix + name
        found |= flat(value, f"{key}.") if isinstance(value, dict) and key not in SETTINGS else {key: value}
    return found


def value_of(config: Config, key: str) -> object:
    """What a setting is; that of a named table is the first one's."""
    place, _, name = key.partition("NAME.")
    return getattr(config.peers[0], name) if name else attrgetter(place)(config)


def test_every_setting_is_in_the_manual_and_none_besides() -> None:
    """The file of settings is the manual: what is not there cannot be found, what is not here stops the start."""
    assert flat(tomllib.loads(taken())).keys() == SETTINGS.keys()


def test_the_manual_shows_the_defaults(tmp_path: Path) -> None:
    """Taking the # from every line changes nothing but what has no default."""
    file = tmp_path / "homeserver.toml"
    file.write_text(taken())
    config = load(file, tmp_path / ".env", {}, Config())
    for key, setting in SETTINGS.items():
        if setting.default is not None:
            assert value_of(config, key) == setting.default, key
        else:
            assert value_of(config, key) is not None, key


def test_the_manual_as_it_is_changes_nothing(tmp_path: Path) -> None:
    """The file can be copied first and edited later."""
    assert load(MANUAL, tmp_path / ".env", {}, Config()) == Config()


def test_the_example_of_the_environment_names_every_variable(tmp_path: Path) -> None:
    """So does `example.env`, which changes nothing until a # is taken."""
    text = EXAMPLE.read_text()
    assert re.findall(r"(?m)^#([A-Z_]+)=", text) == list(ENVIRONMENT)
    assert load(None, EXAMPLE, {}, Config()) == Config()
    changed = tmp_path / ".env"
    changed.write_text(re.sub(r"(?m)^#(?=[A-Z_]+=)", "", text))
    assert load(None, changed, {}, Config()).pkdns.icann_domain == "homeserver.example.com"


def test_every_section_and_setting_has_words() -> None:
    """What a setting takes is said when it is refused, so it must be known."""
    for key, setting in SETTINGS.items():
        assert setting.metadata["allowed"], key


# --- precedence ---------------------------------------------------------------------------------------------------


def test_sources_in_their_order(load_with: Load) -> None:
    """The environment wins over `.env`, that over the TOML file, that over the defaults."""
    toml = spelled("admin.admin_password", '"from toml"') + "[pkdns]\nicann_domain = 'toml.example'\n"
    dotenv = "PUBKY_API_KEY=from-env-file\nHOMESERVER_URL=https://dotenv.example\n"
    assert load_with().admin.admin_password is None
    assert load_with(toml).admin.admin_password == "from toml"
    assert load_with(toml, dotenv).admin.admin_password == "from-env-file"
    config = load_with(toml, dotenv, PUBKY_API_KEY="from the environment")
    assert config.admin.admin_password == "from the environment"
    assert config.pkdns.icann_domain == "dotenv.example"
    assert config.pkdns.public_ip == Pkdns().public_ip


@pytest.mark.parametrize("name", ENVIRONMENT)
def test_an_empty_variable_is_none(load_with: Load, name: str) -> None:
    """`PUBKY_API_KEY=` in a file or a shell says nothing: an empty password would open the admin port."""
    assert load_with(None, f"{name}=\n", **{name: ""}) == Config()


def test_env_file_is_not_a_program(load_with: Load) -> None:
    """A password with a dollar sign is that password."""
    assert load_with(None, "PUBKY_API_KEY='a${HOME}b'\n").admin.admin_password == "a${HOME}b"


def test_other_variables_are_not_ours(load_with: Load) -> None:
    """A `.env` file may be shared with other programs."""
    assert load_with(None, "OTHER=1\nexport MORE='x'\n", THIRD="y") == Config()


# --- values -------------------------------------------------------------------------------------------------------

GOOD: list[tuple[str, str, object]] = [
    ("general.signup_mode", '"OPEN"', "open"),
    ("drive.icann_listen_socket", '"0.0.0.0:80"', Socket("0.0.0.0", 80)),
    ("drive.icann_listen_socket", '"[::1]:6286"', Socket("::1", 6286)),
    ("drive.icann_listen_socket", '"127.0.0.1:0"', Socket("127.0.0.1", 0)),
    ("storage.default_quota_mb", "0", 0),
    ("storage.inline_limit", "65536", 65536),
    ("redis.url", '"redis://host"', RedisAddress("host")),
    ("redis.url", '"rediss://user:word@host:7/3"', RedisAddress("host", 7, None, 3, "user", "word", True)),
    ("redis.url", '"unix:///run/redis.sock"', RedisAddress(path="/run/redis.sock")),
    ("pkdns.public_ip", '"2001:DB8::1"', "2001:db8::1"),
    ("pkdns.dht_relay_nodes", "[]", ()),
    ("pkdns.dht_relay_nodes", '["http://localhost:15411/"]', ("http://localhost:15411",)),
    ("pkdns.dht_bootstrap_nodes", "[]", ()),
    (
        "pkdns.dht_bootstrap_nodes",
        '["router.example:6881", "127.0.0.1:1", "[::1]:65535"]',
        (("router.example", 6881), ("127.0.0.1", 1), ("::1", 65535)),
    ),
    ("dht.addresses", '["::", "127.0.0.1"]', ("::", "127.0.0.1")),
    ("pkdns.icann_domain", '"xn--bcher-kva.example"', "xn--bcher-kva.example"),
    ("logging.level", '"WARN"', "warn"),
]


@pytest.mark.parametrize(("key", "value", "read"), GOOD)
def test_good_values(load_with: Load, key: str, value: str, read: object) -> None:
    """What is allowed is read."""
    assert attrgetter(key)(load_with(spelled(key, value))) == read


BAD = {
    "general.signup_mode": ['"closed"', "true", '""'],
    "drive.icann_listen_socket": ["6286", '"6286"', '":6286"', '"localhost:1"', '"1.2.3.4:65536"', '"::1:80"', "[]"],
    "storage.default_quota_mb": ["-1", "1.5", '"1"', "true", "2147483648"],
    "storage.inline_limit": ["-1", "65537", "inf"],
    "storage.reserve_mb": ["-1", "1048577", "2020-01-01"],
    "blobs.grace": ["-1", "31536001", '"1h"'],
    "blobs.erased_grace": ["-1", "31536001", '"72h"'],
    "blobs.sweep_interval": ["0", "59", "{}"],
    "redis.url": ['""', '"localhost:6379"', '"http://h"', '"redis://h:99999"', '"redis://h/x"', '"unix:r.sock"', "1"],
    "redis.appendfsync": ['"no"', "true"],
    "admin.enabled": ['"true"', "1"],
    "admin.listen_socket": ['"*:1"', '"127.0.0.1"'],
    "admin.admin_password": ['""', "12345", '["x"]'],
    "metrics.enabled": ["0"],
    "drive.websites": ['"yes"'],
    "drive.pubky_listen_socket": ['"6287"'],
    "drive.pubky_client_identity": ['"direct"'],
    "pkdns.public_pubky_tls_port": ["0"],
    "drive.icann_client_identity": [
        '"direct"',
        '{ mode = "direct", trusted_proxies = ["127.0.0.1/32"] }',
        '{ trusted_proxies = ["127.0.0.1/32"] }',
        '{ mode = "proxy_protocol" }',
        '{ mode = "proxy_protocol", trusted_proxies = [] }',
        '{ mode = "proxy_protocol", trusted_proxies = ["127.0.0.1/33"] }',
        '{ mode = "proxy_protocol", trusted_proxies = ["127.0.0.1/32"], other = 1 }',
    ],
    "metrics.listen_socket": ['"127.0.0.1:"', '"127.0.0.1:٣"'],
    "pkdns.public_ip": ['"localhost"', '"1.2.3"', "1"],
    "pkdns.public_icann_http_port": ["0", "65536", '"80"'],
    "pkdns.icann_domain": ['""', '"a..b"', '"a_b"', '"1.2.3.4"', '"-a.b"', '"a.b."', '"bücher.de"', f'"{"a." * 130}b"'],
    "pkdns.dht_relay_nodes": [
        '["ftp://x"]',
        '["https://a:b@x"]',
        '["https://"]',
        "[1]",
        '"x"',
        '["https://x?a"]',
        '["http://[x"]',
        "1",
    ],
    "pkdns.dht_bootstrap_nodes": ['"x:1"', '["x"]', '["x:0"]', '["x:65536"]', '["a_b:1"]', '["1.2.3:1"]', "[1]"],
    "pkdns.dht_request_timeout_ms": ["0", "600001"],
    "pkdns.relay_request_timeout_ms": ["0", "600001"],
    "pkdns.user_keys_republisher_interval": ["-1", "604801", '"4h"'],
    "dht.enabled": ["1"],
    "dht.addresses": ["[]", '"0.0.0.0"', '["0.0.0.0", "127.0.0.1"]', '["localhost"]'],
    "dht.port": ["-1", "65536"],
    "dht.private_network": ["0"],
    "dht.rate_limit": ["0", "1000001"],
    "dht.total_rate_limit": ["0", "1000001"],
    "dht.max_items": ["-1", "1000001"],
    "peers.NAME.key": ['""', "1", f'"{KEY[:-1]}"', f'"pubky{KEY}"', f'"{"a" * 5000}"'],
    "peers.NAME.url": [
        '"alice.example"',
        '"https://alice.example:443"',
        '"https://alice.example/x"',
        '"https://a@alice.example"',
        '"https://192.168.0.1"',
        '"http://alice.example:80"',
        '"http://192.168.0.1:80"',
        '"http://127.0.0.1"',
        '"http://127.0.0.1:0"',
        '"ftp://alice.example"',
        '""',
        "1",
    ],
    "peers.NAME.follow": ['"some"', "[1]", '["x"]', "true", f'"{KEY}"', '""'],
    "peers.NAME.offer": ['"some"', "[1]", '["x"]', "{}"],
    "peers.NAME.private": ['"yes"', "1"],
    "peers.NAME.max_bytes": ["-1", "1.5", '"20"', '"gb"', '"-1gb"', '"1 pb"', '"9007199254740993tb"', "true"],
    "peers.NAME.claim": ['"maybe"', "true"],
    "peers.NAME.official": ['"yes"', "1"],
    "peers.NAME.paused": ['"yes"', "1"],
    "logging.level": ['"verbose"', "3"],
}


def test_every_setting_refuses_something() -> None:
    """The table above knows all settings."""
    assert BAD.keys() == SETTINGS.keys()


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in BAD.items() for value in values])
def test_bad_values(load_with: Load, tmp_path: Path, key: str, value: str) -> None:
    """A value that makes no sense is one line: the file, the key, what is allowed."""
    with pytest.raises(ConfigError) as caught:
        load_with(spelled(key, value))
    line = str(caught.value)
    assert line.startswith(f"{tmp_path / 'homeserver.toml'}: {key}")
    assert line.endswith(f": must be {SETTINGS[key].metadata['allowed']}")
    assert line.isprintable()


UNKNOWN = [
    ("[general]\nsign_up = 1", "general.sign_up: no such setting; known here: general.signup_mode"),
    ("top = 1", "top: no such setting; known here: general, drive,"),
    ("[generel]", "generel: no such setting; known here: general, drive,"),
    ("[redis.tls]\nca = 1", "redis.tls: no such setting; known here: redis.url, redis.appendfsync"),
    ("general = 1", "general: must be a table, such as [general]"),
    ("[[general]]", "general: must be a table, such as [general]"),
    ('[general]\n"a\\nb" = 1', "general.'a\\nb': no such setting"),
]


@pytest.mark.parametrize(("toml", "says"), UNKNOWN)
def test_unknown_settings(load_with: Load, toml: str, says: str) -> None:
    """A typo is never ignored; the names that were meant are shown."""
    with pytest.raises(ConfigError) as caught:
        load_with(toml)
    assert says in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(("key", "hint"), NOT_HERE.items())
def test_settings_of_the_official_server_have_a_hint(load_with: Load, key: str, hint: str) -> None:
    """Who brings the official server's file is told what to do instead."""
    with pytest.raises(ConfigError, match=re.escape(f"{key}: no such setting; {hint}")) as caught:
        load_with(spelled(key, f'"{SECRET}"'))
    assert SECRET not in str(caught.value)


FILES: list[tuple[bytes, str]] = [
    (b"[general", "is not valid TOML: "),
    (b"a = 1\na = 2\n", "is not valid TOML: "),
    (b"a = '\xff'", "is not UTF-8 text"),
    (b"#" * (MAX_FILE + 1), f"is larger than {MAX_FILE} bytes"),
]


@pytest.mark.parametrize(("content", "says"), FILES)
def test_files_that_are_no_settings(load_with: Load, tmp_path: Path, content: bytes, says: str) -> None:
    """The line names the file and what is wrong with it, and where."""
    with pytest.raises(ConfigError) as caught:
        load_with(content)
    assert str(caught.value).startswith(f"{tmp_path / 'homeserver.toml'}: {says}")
    assert str(caught.value).isprintable()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A file that was named must be there."""
    with pytest.raises(ConfigError, match=r"no\.toml: cannot be read: No such file or directory"):
        load(tmp_path / "no.toml", tmp_path / ".env", {}, Config())
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory"):
        load(tmp_path, tmp_path / ".env", {}, Config())
    (tmp_path / ".env").write_bytes(b"PUBKY_API_KEY=\xff\n")
    with pytest.raises(ConfigError, match=r"\.env: is not UTF-8 text"):
        load(None, tmp_path / ".env", {}, Config())


# --- peers --------------------------------------------------------------------------------------------------------


def test_a_peer_that_is_only_named(load_with: Load) -> None:
    """Who is listed by its key gets nothing and gives nothing, until the operator says what."""
    peers = load_with(f'[peers.alice]\nkey = "{KEY}"\n').peers
    assert peers == (Peer("alice", KEY),)
    assert not peers[0].follows(KEY)
    assert not peers[0].may_read(KEY, private=False)


def test_peers_as_they_are_written(load_with: Load) -> None:
    """Each table is a peer, in the order of the file."""
    alice = f"""
        [peers.alice]
        key = "{KEY}"
        url = "https://Alice.example/"
        follow = "all"
        offer = ["{OTHER_KEY}", "{KEY}"]
        private = true
        max_bytes = "2 TB"
        claim = "allow"
    """
    bob = f"""
        [peers.b-0_b]
        key = "{OTHER_KEY}"
        url = "http://127.0.0.1:6286"
        max_bytes = 5
    """
    assert load_with(alice + bob).peers == (
        Peer(
            "alice",
            KEY,
            "https://alice.example",
            ALL,
            Selection(keys=frozenset((KEY, OTHER_KEY))),
            True,
            2 << 40,
            Claim.ALLOW,
        ),
        Peer("b-0_b", OTHER_KEY, "http://127.0.0.1:6286", NONE, NONE, False, 5, Claim.TOKEN),
    )


NO_PEERS = [
    ("[peers.alice]", "peers.alice.key: is missing: must be a homeserver's public key, 52 characters"),
    (
        f'[peers.alice]\nkey = "{KEY}"\n[peers.bob]\nkey = "{KEY}"',
        "peers.bob.key: is that of peers.alice too",
    ),
    ('[peers."a.b"]', "peers: 'a.b' is no name: 1 to 32 letters"),
    (f"[peers.{'a' * 33}]", "is no name: 1 to 32 letters"),
    ('[peers."a\\nb"]', "peers: 'a\\nb' is no name"),
    ("[peers]\nalice = 1", "peers.alice: must be a table, such as [peers.alice]"),
    (
        f'[peers.alice]\nkey = "{KEY}"\nofficial = true\nfollow = "all"',
        'peers.alice.follow = "all": an official homeserver does not say who lives there: list the keys of the '
        "accounts",
    ),
    (
        f'[peers.alice]\nkey = "{KEY}"\nofficial = true\nprivate = true',
        "peers.alice.private: an official homeserver shows nobody what is private",
    ),
    ("peers = []", "peers: must be a table, such as [peers]"),
    (f'[peers.alice]\nkey = "{KEY}"\nfolow = "all"', "peers.alice.folow: no such setting; known here: peers.alice.key"),
]


@pytest.mark.parametrize(("toml", "says"), NO_PEERS)
def test_peers_that_are_none(load_with: Load, toml: str, says: str) -> None:
    """A peer without a key, twice, or under a name that cannot be shown, stops the start."""
    with pytest.raises(ConfigError) as caught:
        load_with(toml)
    assert says in str(caught.value)
    assert str(caught.value).isprintable()


# --- the environment ----------------------------------------------------------------------------------------------


ADDRESSES: list[tuple[str, str, int | None]] = [
    ("https://example.com", "example.com", None),
    ("https://Example.COM/", "example.com", None),
    ("http://localhost:6286", "localhost", 6286),
    ("http://localhost:80/", "localhost", 80),
]


@pytest.mark.parametrize(("url", "domain", "port"), ADDRESSES)
def test_public_addresses(load_with: Load, url: str, domain: str, port: int | None) -> None:
    """`HOMESERVER_URL` is a domain with HTTPS at 443, or a port of this machine: what a record can say."""
    pkdns = load_with(HOMESERVER_URL=url).pkdns
    assert (pkdns.icann_domain, pkdns.public_icann_http_port) == (domain, port)


NO_ADDRESSES = [
    "example.com",
    "http://example.com",
    "https://example.com:443",
    "https://example.com:8443",
    "https://localhost",
    "https://192.168.0.1",
    "https://[::1]",
    "http://localhost",
    "http://localhost:0",
    "http://localhost:99999",
    "http://127.0.0.1:6286",
    "https://example.com/path",
    "https://example.com?query",
    "https://example.com#part",
    f"https://user:{SECRET}@example.com",
    "https://a_b.com",
    "https://",
    "ftp://example.com",
    "https://[x",
]


@pytest.mark.parametrize("url", NO_ADDRESSES)
def test_addresses_that_nobody_would_find(load_with: Load, url: str) -> None:
    """Everything else is refused with both forms, wherever it was said, and without the password in it."""
    with pytest.raises(ConfigError) as caught:
        load_with(HOMESERVER_URL=url)
    line = str(caught.value)
    assert line.startswith("environment: HOMESERVER_URL = '")
    assert "https://domain without a port" in line
    assert "http://localhost:port" in line
    assert SECRET not in line
    with pytest.raises(ConfigError, match=r"\.env: HOMESERVER_URL = "):
        load_with(None, f"HOMESERVER_URL='{url}'\n")


def test_relays_are_separated_by_commas(load_with: Load) -> None:
    """`PKARR_ENDPOINT` is a list in one text."""
    config = load_with(PKARR_ENDPOINT=" https://a.example/, http://b.example:1/x ")
    assert config.pkdns.dht_relay_nodes == ("https://a.example", "http://b.example:1/x")


def test_a_network_of_ones_own_has_no_public_relays(load_with: Load) -> None:
    """Who names bootstrap nodes means another network: the public relays are asked only if they are named too."""
    nodes = '[pkdns]\ndht_bootstrap_nodes = ["127.0.0.1:6881"]\n'
    assert Config().pkdns.relays == PUBLIC_RELAYS
    assert load_with(nodes).pkdns.relays == ()
    assert load_with(nodes + 'dht_relay_nodes = ["http://a.example"]\n').pkdns.relays == ("http://a.example",)
    assert load_with("[pkdns]\ndht_relay_nodes = []\n").pkdns.relays == ()


@pytest.mark.parametrize("endpoints", ["a.example", "https://a.example,", ",", f"gopher://me:{SECRET}@b"])
def test_relays_that_are_none(load_with: Load, endpoints: str) -> None:
    """One bad relay of many is an error."""
    with pytest.raises(ConfigError, match=r"environment: PKARR_ENDPOINT = .*: must be a list of http") as caught:
        load_with(PKARR_ENDPOINT=endpoints)
    assert SECRET not in str(caught.value)


# --- secrets ------------------------------------------------------------------------------------------------------


def test_secrets_are_not_shown(load_with: Load) -> None:
    """A configuration in a log or a traceback opens nothing."""
    config = load_with(spelled("redis.url", f'"redis://me:{SECRET}@host"'), PUBKY_API_KEY=SECRET)
    assert config.admin.admin_password == SECRET
    assert config.redis.url is not None
    assert config.redis.url.password == SECRET
    assert SECRET not in repr(config)
    assert SECRET not in str(config.redis.url)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("admin.admin_password", f'["{SECRET}"]'),
        ("redis.url", f'"redis://me:{SECRET}@host:port"'),
        ("redis.url", f'"{SECRET}"'),
        ("pkdns.dht_relay_nodes", f'["https://me:{SECRET}@host/?x"]'),
        ("pkdns.dht_relay_nodes", f'["https://me:{SECRET}/@host/?x"]'),
    ],
)
def test_secrets_are_not_in_errors(load_with: Load, key: str, value: str) -> None:
    """Nor does the line about a bad value."""
    with pytest.raises(ConfigError, match=re.escape(key)) as caught:
        load_with(spelled(key, value))
    assert SECRET not in str(caught.value)


def test_long_values_are_cut(load_with: Load) -> None:
    """A line stays a line."""
    with pytest.raises(ConfigError) as caught:
        load_with(spelled("general.signup_mode", f'"{"x" * 5000}"'))
    assert f" = '{'x' * (MAX_SHOWN - 1)}…: must be" in str(caught.value)


# --- sockets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["127.0.0.1:6286", "[::1]:6286", "0.0.0.0:0"])
def test_sockets_print_as_they_are_written(text: str) -> None:
    """What the log shows can be copied into the file."""
    assert str(Socket.parse(text)) == text
