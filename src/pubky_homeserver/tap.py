"""`twistd homeserver`: its options, and the start as far as it can be checked at once.

Settings, the data directory and the ports are checked in `makeService`, which leaves with one line on stderr and exit
code 1 if something is wrong. `node.py` then starts the parts in their order.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from twisted.python.usage import Options as UsageOptions

from pkarr.tls.engines import find
from pkarr.tls.session import IEngine, NoEngine
from pubky_homeserver import testnet
from pubky_homeserver.config import DEFAULT_DATA_DIR, Config, ConfigError, load
from pubky_homeserver.core.errors import CannotStart
from pubky_homeserver.core.roles import Role
from pubky_homeserver.descriptors import client_connections, raise_limit
from pubky_homeserver.directory import DataDirectory
from pubky_homeserver.listening import Listener, bind
from pubky_homeserver.logs import observe
from pubky_homeserver.networks import Networks
from pubky_homeserver.node import Homeserver
from pubky_homeserver.store.address import RedisAddress
from pubky_homeserver.store.process import EmbeddedRedis
from pubky_homeserver.values import Socket

INTRODUCTION = f"""\
Run a Pubky homeserver: it keeps people's files under their own keys, over HTTP.

  twistd -n homeserver             in the foreground, until Ctrl+C
  twistd homeserver                in the background: log in twistd.log,
                                   process id in twistd.pid
  twistd -n homeserver --testnet   for app developers, at the addresses that the
                                   official clients know: homeserver 6286, by key
                                   6287, with open sign-up, admin API 6288 with
                                   password admin, DHT 6881, PKARR relay 15411,
                                   http relay 15412

Everything, a private Redis included, is in {DEFAULT_DATA_DIR}; the client API is
at http://127.0.0.1:6286. The first start makes the key that is the homeserver's
name. Who wants to sign up needs a token: `homeserver invite new` makes one.

Settings come from the environment (PUBKY_API_KEY, HOMESERVER_URL,
PKARR_ENDPOINT), else from a .env file in the working directory, else from the
TOML file. All of them are explained in
{{manual}}

One process is enough for most. Several can be one homeserver on an outside
Redis, with one data directory: any number with --role web, which answer clients,
and one with --role background, which publishes, follows peers, and has the admin
API. Each needs a settings file of its own for its ports.
"""


class Options(UsageOptions):
    """The command line of `twistd homeserver`."""

    synopsis = "[options]"
    optParameters: ClassVar = [
        ["data-dir", "d", None, f"Where everything is kept. [default: {DEFAULT_DATA_DIR}]"],
        ["config", "c", None, "The settings, a TOML file. [default: homeserver.toml in the data directory]"],
        ["role", None, "all", "What this process does: all. Several on one outside Redis: web, and one background."],
    ]
    optFlags: ClassVar = [
        ["testnet", None, "Run a test network for app developers. It forgets everything unless --data-dir is given."],
    ]

    def opt_version(self) -> None:
        """Show the version and exit."""
        print(f"pubky-homeserver {version('pubky-homeserver')}")  # noqa: T201 - what was asked for
        raise SystemExit

    def getUsage(self, width: int | None = None) -> str:
        """The options, and how to begin."""
        return f"{super().getUsage(width)}\n{INTRODUCTION.format(manual=manual())}"


def manual() -> Path:
    """The file that explains every setting: in an installed package, or in a clone."""
    installed = Path(__file__).with_name("homeserver.toml")
    return installed if installed.exists() else Path(__file__).parents[2] / "conf" / "homeserver.toml"


def makeService(options: Options) -> Homeserver:
    """The homeserver that the options describe. Leaves with one line and exit code 1 if it cannot be."""
    from twisted.internet import reactor  # the one that twistd chose

    try:
        return build(options, reactor, dict(os.environ))
    except (ConfigError, CannotStart) as error:
        raise SystemExit(f"homeserver: {error}") from None


def build(options: Options, reactor: Any, environment: Mapping[str, str]) -> Homeserver:
    """Check what can be checked now, take directory and ports, and put the parts together.

    Raises `ConfigError` and `CannotStart`.
    """
    is_test = bool(options["testnet"])
    role = _role(options["role"], is_test)
    is_passing = is_test and options["data-dir"] is None
    folder = Path(options["data-dir"] or DEFAULT_DATA_DIR).expanduser().absolute()
    config = _settings(options, folder, environment)
    observer = observe(options.parent, config.logging.level, reactor) if options.parent is not None else None
    engine = _engine()
    listeners = _bind(config, role, is_test, by_key=not isinstance(engine, str))
    with ExitStack() as undo:
        if is_passing:
            folder = Path(tempfile.mkdtemp(prefix="pubky-testnet-"))
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
        directory = DataDirectory.open(folder, shared=role is not Role.ALL)
        keypair = directory.keypair(testnet.KEYPAIR if is_test else None)
        _check_peers(config, keypair.public_key.z32)
        directory.folder("blobs", "the bodies of files")
        networks = _networks(config, role, directory, reactor)
        redis = _redis(config, role, directory, reactor)
        password = config.admin.admin_password or directory.admin_password()
        directory.confirm()
        undo.pop_all()
    return Homeserver(
        reactor=reactor,
        config=config,
        directory=directory,
        keypair=keypair,
        password=password,
        listeners=listeners,
        engine=engine,
        networks=networks,
        redis=redis,
        role=role,
        connections=client_connections(raise_limit()),
        surroundings=testnet.Surroundings(reactor) if is_test else None,
        is_passing=is_passing,
        observer=observer,
    )


def _role(name: str, is_test: bool) -> Role:
    if name not in [*Role]:
        raise CannotStart(f"--role must be one of: {', '.join(Role)}")
    if is_test and name != Role.ALL:
        raise CannotStart("--testnet is one process: it has no --role")
    return Role(name)


def _settings(options: Options, folder: Path, environment: Mapping[str, str]) -> Config:
    file = Path(options["config"]).expanduser() if options["config"] else folder / "homeserver.toml"
    named = file if options["config"] or file.exists() else None
    if options["testnet"]:
        return load(named, Path(os.devnull), {}, testnet.CONFIG)
    return load(named, Path(".env"), environment, Config())


def _engine() -> IEngine | str:
    """What speaks TLS by public key, or why nothing does."""
    try:
        return find()
    except NoEngine as error:
        return str(error)


def _bind(config: Config, role: Role, is_test: bool, by_key: bool) -> dict[str, Listener]:
    """Take every port, so that a taken one is told before anything is started."""
    wanted: dict[str, tuple[str, Socket]] = {}
    if role.serves:
        wanted["client"] = "drive.icann_listen_socket", config.drive.icann_listen_socket
        if by_key:
            wanted["pubky"] = "drive.pubky_listen_socket", config.drive.pubky_listen_socket
    if role.works and config.admin.enabled:
        wanted["admin"] = "admin.listen_socket", config.admin.listen_socket
    if config.metrics.enabled:
        wanted["metrics"] = "metrics.listen_socket", config.metrics.listen_socket
    if is_test:
        wanted["pkarr relay"] = "the test network's PKARR relay", testnet.PKARR_RELAY
        wanted["http relay"] = "the test network's http relay", testnet.HTTP_RELAY
    return {name: bind(where, setting) for name, (setting, where) in wanted.items()}


def _check_peers(config: Config, key: str) -> None:
    for peer in config.peers:
        if peer.key == key:
            raise CannotStart(f"peers.{peer.name}.key is this homeserver's own key: it must be that of another one")


def _networks(config: Config, role: Role, directory: DataDirectory, reactor: Any) -> Networks | None:
    """Where records are published, or only looked up; None if this process has nothing to look up."""
    if role.works:
        return Networks(reactor, config.pkdns, config.dht, directory.path / "dht")
    return Networks(reactor, config.pkdns, config.dht, None) if config.peers else None


def _redis(config: Config, role: Role, directory: DataDirectory, reactor: Any) -> EmbeddedRedis | RedisAddress:
    if config.redis.url is not None:
        return config.redis.url
    if role is not Role.ALL:
        raise CannotStart(f"--role {role} needs an outside Redis that the processes share: set redis.url")
    return EmbeddedRedis.prepare(reactor, directory.folder("redis", "all accounts"), config.redis.appendfsync)
