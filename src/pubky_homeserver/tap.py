"""`twistd homeserver`: its options, and the start as far as it can be checked at once.

Settings, the data directory and the ports are checked in `makeService`, which leaves with one line on stderr and exit
code 1 if something is wrong. `node.py` then starts the parts in their order.
"""

import os
import resource
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from pubky_homeserver import testnet
from pubky_homeserver.config import DEFAULT_DATA_DIR, Config, ConfigError, Socket, load
from pubky_homeserver.core.errors import CannotStart
from pubky_homeserver.directory import DataDirectory
from pubky_homeserver.listening import Listener, bind
from pubky_homeserver.logs import observe
from pubky_homeserver.node import Homeserver
from pubky_homeserver.store.address import RedisAddress
from pubky_homeserver.store.process import EmbeddedRedis

ROLES = ("all", "web", "background")


class Options(UsageOptions):
    """The command line of `twistd homeserver`."""

    synopsis = "[options]"
    longdesc = (
        "Run a Pubky homeserver. Without options it keeps everything, its private Redis included, in "
        f"{DEFAULT_DATA_DIR} and serves the client API on 127.0.0.1:6286. Settings come from the environment "
        "(PUBKY_API_KEY, HOMESERVER_URL, PKARR_ENDPOINT), from a .env file in the working directory, and from "
        "homeserver.toml in the data directory; conf/homeserver.toml explains each."
    )
    optParameters: ClassVar = [
        ["data-dir", "d", None, f"Where everything is kept. [default: {DEFAULT_DATA_DIR}]"],
        ["config", "c", None, "The settings, a TOML file. [default: homeserver.toml in the data directory]"],
        ["role", None, "all", "all; or, one of several on an outside Redis: web (serve), background (publish, sweep)."],
    ]
    optFlags: ClassVar = [
        ["testnet", None, "Run a test network: well-known key and ports, open sign-up, relays. Forgotten at the end."],
    ]

    def postOptions(self) -> None:
        """Check what needs no file."""
        if self["role"] not in ROLES:
            raise UsageError(f"--role must be one of: {', '.join(ROLES)}")
        if self["testnet"] and self["role"] != "all":
            raise UsageError("--testnet is one process: it has no --role")


def makeService(options: Options) -> Homeserver:
    """The homeserver that the options describe. Leaves with one line and exit code 1 if it cannot be."""
    from twisted.internet import reactor  # the one that twistd chose

    raise_file_limit()
    try:
        return build(options, reactor, dict(os.environ))
    except (ConfigError, CannotStart) as error:
        raise SystemExit(f"homeserver: {error}") from None


def build(options: Options, reactor: Any, environment: Mapping[str, str]) -> Homeserver:
    """Check what can be checked now, take directory and ports, and put the parts together.

    Raises `ConfigError` and `CannotStart`.
    """
    is_test = bool(options["testnet"])
    is_passing = is_test and options["data-dir"] is None
    folder = Path(options["data-dir"] or DEFAULT_DATA_DIR).expanduser().absolute()
    config = _settings(options, folder, environment)
    observer = observe(options.parent, config.logging.level, reactor) if options.parent is not None else None
    listeners = _bind(config, options["role"], is_test)
    with ExitStack() as undo:
        if is_passing:
            folder = Path(tempfile.mkdtemp(prefix="pubky-testnet-"))
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
        directory = DataDirectory.open(folder)
        keypair = directory.keypair(testnet.KEYPAIR if is_test else None)
        directory.folder("blobs", "the bodies of files")
        redis = _redis(config, options["role"], directory, reactor)
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
        redis=redis,
        works=options["role"] != "web",
        relays=testnet.Relays(reactor) if is_test else None,
        is_passing=is_passing,
        observer=observer,
    )


def raise_file_limit() -> None:
    """Allow as many open files as the system allows: each connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _settings(options: Options, folder: Path, environment: Mapping[str, str]) -> Config:
    file = Path(options["config"]).expanduser() if options["config"] else folder / "homeserver.toml"
    named = file if options["config"] or file.exists() else None
    if options["testnet"]:
        return load(named, Path(os.devnull), {}, testnet.CONFIG)
    return load(named, Path(".env"), environment, Config())


def _bind(config: Config, role: str, is_test: bool) -> dict[str, Listener]:
    """Take every port, so that a taken one is told before anything is started."""
    wanted: dict[str, tuple[str, Socket]] = {}
    if role != "background":
        wanted["client"] = "drive.icann_listen_socket", config.drive.icann_listen_socket
        if config.admin.enabled:
            wanted["admin"] = "admin.listen_socket", config.admin.listen_socket
        if config.metrics.enabled:
            wanted["metrics"] = "metrics.listen_socket", config.metrics.listen_socket
    if is_test:
        wanted["pkarr relay"] = "the test network's PKARR relay", testnet.PKARR_RELAY
        wanted["http relay"] = "the test network's http relay", testnet.HTTP_RELAY
    return {name: bind(where, setting) for name, (setting, where) in wanted.items()}


def _redis(config: Config, role: str, directory: DataDirectory, reactor: Any) -> EmbeddedRedis | RedisAddress:
    if config.redis.url is not None:
        return config.redis.url
    if role != "all":
        raise CannotStart(f"--role {role} needs an outside Redis that the processes share: set redis.url")
    return EmbeddedRedis.prepare(reactor, directory.folder("redis", "all accounts"), config.redis.appendfsync)
