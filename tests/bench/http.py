"""Our homeserver against the official one, side by side: the same load, alternately, in one run.

    .venv/bin/python -m tests.bench.http [--rounds 3] [--seconds 5] [--only put,get]

Both are started here with their durable defaults: ours with its own Redis, the official one (crate `pubky-homeserver`,
built once below ~/.cache, which takes a quarter of an hour) with a PostgreSQL of its own (Debian: postgresql). The load
is `wrk` (Debian: wrk) and curl on the same machine, so only the ratios mean something.
"""

import argparse
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

from attrs import define, field, frozen

from pkarr.keys import Keypair
from pubky_homeserver.core.tokens import sign_auth_token

VERSION = "0.17.1"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "pubky-homeserver-bench"
BODY = b"x" * 300
LARGE = 200 * 1024 * 1024


@frozen
class User:
    """Somebody signed up at a server."""

    pubky: str
    cookie: str


@define
class Server:
    """A server under load."""

    name: str
    port: int
    users: list[User] = field(factory=list)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def sign_up(self, number: int) -> None:
        """A new user, with the key of that number."""
        keypair = Keypair(number.to_bytes(32, "big"))
        token = sign_auth_token(keypair, "/:rw", int(time.time() * 1_000_000))
        with urlopen(Request(f"{self.url}/signup", token, method="POST"), timeout=10) as answer:
            cookie = answer.headers["Set-Cookie"].partition(";")[0]
        self.users.append(User(keypair.public_key.z32, cookie))

    def put(self, user: User, path: str, body: bytes) -> None:
        """Store a file."""
        headers = {"Cookie": user.cookie}
        request = Request(f"{self.url}/storage/{user.pubky}{path}", body, headers, method="PUT")
        with urlopen(request, timeout=30):
            pass


# --- starting them ------------------------------------------------------------------------------------------------


@contextmanager
def process(command: list[str], folder: Path, name: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A child in a process group of its own, its output in a file."""
    with (folder / f"{name}.log").open("wb") as log:
        child = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, start_new_session=True, env={**os.environ, **environment}
        )
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM if name != "official" else signal.SIGINT)
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)


def wait_for(url: str, log: Path, seconds: float = 30) -> None:
    """Until somebody answers."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"{url} does not answer; its log:\n{log.read_text()[-2000:]}")


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def ours(folder: Path, relay: int) -> Iterator[Server]:
    """Our homeserver with its defaults."""
    server = Server("ours", free_port())
    (folder / "homeserver.toml").write_text(
        f'[general]\nsignup_mode = "open"\n[drive]\nicann_listen_socket = "127.0.0.1:{server.port}"\n'
        f'[admin]\nenabled = false\n[pkdns]\ndht_relay_nodes = ["http://127.0.0.1:{relay}"]\n'
        'dht_bootstrap_nodes = []\n[dht]\naddresses = ["127.0.0.1"]\nport = 0\n'
    )
    twistd = str(Path(sys.executable).parent / "twistd")
    command = [twistd, "-n", "--pidfile=", "homeserver", "--data-dir", str(folder / "data")]
    command += ["--config", str(folder / "homeserver.toml")]
    with process(command, folder, "ours"):
        wait_for(server.url, folder / "ours.log")
        yield server


@contextmanager
def official(folder: Path, relay: int) -> Iterator[Server]:
    """The official homeserver with its defaults, on a PostgreSQL of its own."""
    server = Server("official", free_port())
    data = folder / "data"
    data.mkdir()
    with postgres(folder) as database:
        (data / "config.toml").write_text(
            f'[general]\nsignup_mode = "open"\ndatabase_url = "{database}"\n'
            f'[drive]\nicann_listen_socket = "127.0.0.1:{server.port}"\n'
            f'pubky_listen_socket = "127.0.0.1:{free_port()}"\n'
            f'[admin]\nenabled = false\n[pkdns]\ndht_relay_nodes = ["http://127.0.0.1:{relay}"]\n'
            f'dht_bootstrap_nodes = ["127.0.0.1:{free_port()}"]\n[logging]\nlevel = "warn"\nmodule_levels = []\n'
        )
        with process([str(build_official()), "--data-dir", str(data)], folder, "official"):
            wait_for(server.url, folder / "official.log", 60)
            yield server


def build_official() -> Path:
    """The official server's program, built if it is not there."""
    program = CACHE / "bin" / "pubky-homeserver"
    if not program.exists():
        print(f"Building pubky-homeserver {VERSION} into {CACHE} …", flush=True)
        command = ["cargo", "install", "pubky-homeserver", "--version", VERSION, "--locked", "--root", str(CACHE)]
        subprocess.run(command, check=True, env={**os.environ, "CARGO_TARGET_DIR": str(CACHE / "target")})
    return program


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A PostgreSQL with its default settings, which are durable; the URL of an empty database."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        sys.exit("PostgreSQL is missing (Debian: apt install postgresql)")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="postgres-") as place:  # not below a folder that root keeps to itself
        home = Path(place)
        drop: list[str] = []
        if os.getuid() == 0:
            shutil.chown(home, "postgres")
            drop = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        initdb = [*drop, str(programs[-1] / "initdb"), "-D", str(home / "data"), "-A", "trust", "-U", "postgres"]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd=home)
        options = ["-D", str(home / "data"), "-p", str(port), "-k", str(home), "-c", "listen_addresses=127.0.0.1"]
        with process([*drop, str(programs[-1] / "postgres"), *options], folder, "postgres"):
            psql = ["psql", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-qc", "create database pubky"]
            for _ in range(200):
                if subprocess.run(psql, check=False, capture_output=True).returncode == 0:
                    break
                time.sleep(0.05)  # how often it is asked whether it is up
            yield f"postgres://postgres@127.0.0.1:{port}/pubky"


@contextmanager
def relay(folder: Path) -> Iterator[int]:
    """A PKARR relay, without which the official server does not start."""
    port = free_port()
    code = (
        "from twisted.internet import reactor\n"
        "from pubky_homeserver.web.channel import HTTPFactory\n"
        "from pubky_homeserver.web.pkarr_relay import PkarrRelay\n"
        f"reactor.listenTCP({port}, HTTPFactory(PkarrRelay(reactor).answer, reactor), interface='127.0.0.1')\n"
        "reactor.run()\n"
    )
    with process([sys.executable, "-c", code], folder, "relay"):
        wait_for(f"http://127.0.0.1:{port}/", folder / "relay.log")
        yield port


# --- the load -----------------------------------------------------------------------------------------------------


def wrk(server: Server, connections: int, seconds: int, script: str, path: str = "/") -> float:
    """Requests a second that were answered well."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", file.name, server.url + path]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if refused := re.search(r"Non-2xx or 3xx responses: (\d+)", text):
        sys.exit(f"{server.name}: {refused[1]} requests were refused at {path}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", text)
    assert found is not None, text
    return float(found[1])


def puts(server: Server, users: int) -> str:
    """A script that stores 300 bytes at a new path with each request."""
    table = ",".join(f'{{"{user.pubky}","{user.cookie}"}}' for user in server.users[:users])
    return f"""
        local users, n = {{{table}}}, {time.time_ns()}
        request = function()
            n = n + 1
            local user = users[n % #users + 1]
            local path = string.format("/storage/%s/pub/bench/%d.txt", user[1], n)
            return wrk.format("PUT", path, {{Cookie = user[2]}}, string.rep("x", {len(BODY)}))
        end"""


def gets(headers: dict[str, str] | None = None) -> str:
    """A script that asks for the path of the command line."""
    return "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, value in (headers or {}).items())


def upload(server: Server, folder: Path) -> float:
    """Megabytes a second, one large file up."""
    user = server.users[0]
    return _curl(server, ["-T", str(folder / "large"), "-H", f"Cookie: {user.cookie}"], "up")


def download(server: Server, folder: Path) -> float:
    """Megabytes a second, the same file down."""
    return _curl(server, [], "down")


def _curl(server: Server, options: list[str], way: str) -> float:
    target = f"{server.url}/storage/{server.users[0].pubky}/pub/large.bin"
    command = ["curl", "-sSf", "-o", os.devnull, "-w", "%{time_total}", *options, target]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return LARGE / 1_000_000 / float(out)


def measures(seconds: int, folder: Path) -> dict[str, tuple[str, float, Callable[[Server], float]]]:
    """Name → unit, goal (ratio), and how to measure it."""

    def first(server: Server) -> User:
        return server.users[0]

    return {
        "PUT 300 B, 1 user, 16 connections": ("/s", 10, lambda one: wrk(one, 16, seconds, puts(one, 1))),
        "PUT 300 B, 32 users, 64 connections": ("/s", 10, lambda one: wrk(one, 64, seconds, puts(one, 32))),
        "GET 300 B, 64 connections": (
            "/s", 3, lambda one: wrk(one, 64, seconds, gets(), f"/storage/{first(one).pubky}/pub/list/500.txt"),
        ),
        "GET 300 B, 1 connection": (
            "/s", 3, lambda one: wrk(one, 1, seconds, gets(), f"/storage/{first(one).pubky}/pub/list/500.txt"),
        ),
        "list 100 of 1,000": (
            "/s", 5, lambda one: wrk(one, 16, seconds, gets(), f"/storage/{first(one).pubky}/pub/list/"),
        ),
        "/events/ of 100": ("/s", 4, lambda one: wrk(one, 16, seconds, gets(), "/events/?limit=100")),
        "GET /session": (
            "/s", 2,
            lambda one: wrk(
                one, 16, seconds, gets({"Cookie": first(one).cookie, "pubky-host": first(one).pubky}), "/session"
            ),
        ),
        "PUT 200 MB": ("MB/s", 1, lambda one: upload(one, folder)),
        "GET 200 MB": ("MB/s", 1, lambda one: download(one, folder)),
    }  # fmt: skip


def main() -> None:
    """Measure, and print a table of medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each load runs at each server")
    parser.add_argument("--seconds", type=int, default=5, help="how long a load runs")
    parser.add_argument("--only", default="", help="parts of names of loads, separated by commas")
    options = parser.parse_args()
    build_official()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pubky-bench-")))
        (folder / "large").write_bytes(os.urandom(LARGE))
        port = stack.enter_context(relay(folder))
        servers = []
        for start in (official, ours):
            home = folder / start.__name__
            home.mkdir()
            servers.append(stack.enter_context(start(home, port)))
        for server in servers:
            for number in range(1, 33):
                server.sign_up(number)
            for number in range(1000):
                server.put(server.users[0], f"/pub/list/{number}.txt", BODY)
        wanted = [part for part in options.only.lower().split(",") if part]
        print(f"{'':38}{'official':>12}{'ours':>12}{'ratio':>8}{'goal':>7}")
        for name, (unit, goal, measure) in measures(options.seconds, folder).items():
            if wanted and not any(part in name.lower() for part in wanted):
                continue
            results: dict[str, list[float]] = {server.name: [] for server in servers}
            for _ in range(options.rounds):
                for server in servers:
                    results[server.name].append(measure(server))
            theirs, mine = (statistics.median(results[server.name]) for server in servers)
            print(f"{name:38}{theirs:>9.0f} {unit:3}{mine:>8.0f} {unit:3}{mine / theirs:>7.1f}×{goal:>6}×", flush=True)


if __name__ == "__main__":
    main()
