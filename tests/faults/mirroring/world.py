"""Several homeservers that know each other: processes of their own, each with its Redis, and proxies between them."""

import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

from attrs import define, field, frozen
from blake3 import blake3

from pkarr.builder import Builder
from pkarr.keys import Keypair
from pubky_homeserver.core.tokens import sign_auth_token
from tests.faults.mirroring.checker import Dump, Shown, Violation, check_equal
from tests.faults.mirroring.history import Client, History
from tests.faults.mirroring.proxy import FaultProxy, Wires
from tests.process import TWISTD, Node, node_in, until

PATIENCE = 60.0  # seconds; a copy needs less than one, after a failure a few, on a busy machine more
SETTLED = 2.0  # seconds within which homeservers are quiet after the last write

Link = tuple[str, str]
"""Who follows, whom."""

_EVENT = re.compile(
    r"event: (PUT|DEL)\ndata: pubky://\w+(/[^\n]+)\ndata: cursor: \d+\n(?:data: content_hash: (\S+)\n)?\n"
)

_RELAY = """
import sys
from twisted.internet import reactor
from pubky_homeserver.web.channel import HTTPFactory
from pubky_homeserver.web.pkarr_relay import PkarrRelay
port = reactor.listenTCP(0, HTTPFactory(PkarrRelay(reactor).answer, reactor), interface="127.0.0.1")
print(port.getHost().port, flush=True)
reactor.run()
"""


@frozen
class Somebody:
    """A user, with a session at some homeservers."""

    keypair: Keypair
    cookies: dict[str, str] = field(factory=dict)
    """Name of a homeserver → cookie."""

    @property
    def pubky(self) -> str:
        """The user's key."""
        return self.keypair.public_key.z32


@define(eq=False)
class World:
    """The homeservers, the ways between them, and all that clients were told."""

    random: random.Random
    nodes: dict[str, Node]
    keys: dict[str, Keypair]
    ways: dict[Link, FaultProxy]
    """From a homeserver to another one, or to `relay`."""
    relay: int
    """The port of the relay that everybody knows, which stands for the network of records."""
    history: History = field(factory=History)

    # --- people ---------------------------------------------------------------------------------------------------

    def somebody(self, home: str) -> Somebody:
        """A new user, who lives at a homeserver and has a record that says so."""
        user = Somebody(Keypair.random())
        self.publish(user, home)
        self.sign_up(user, home)
        return user

    def publish(self, user: Somebody, home: str, ahead: float = 0.0) -> None:
        """The user signs a record that names a homeserver, `ahead` seconds in the future."""
        packet = Builder().https("_pubky", 0, self.keys[home].public_key.z32).sign(user.keypair, _now(ahead))
        request = Request(f"http://127.0.0.1:{self.relay}/{user.pubky}", packet.relay_payload, method="PUT")
        with urlopen(request, timeout=10) as answer:
            assert answer.status == 204

    def sign_up(self, user: Somebody, node: str, where: str = "/signup") -> int:
        """Sign up; the status."""
        answer, _ = self.nodes[node].ask("POST", where, sign_auth_token(user.keypair, "/:rw", _now(0)))
        if answer.status == 200:
            user.cookies[node] = (answer.getheader("Set-Cookie") or "").partition(";")[0]
        return answer.status

    def sign_in(self, user: Somebody, node: str) -> int:
        """Sign in; the status."""
        return self.sign_up(user, node, "/session")

    def client(self, user: Somebody, node: str) -> Client:
        """Somebody at a homeserver: signed in, if the user was."""
        port = partial(_port, self.nodes, node)
        return Client(self.history, node, port, user.pubky, user.cookies.get(node, ""))

    # --- what is seen ---------------------------------------------------------------------------------------------

    def operator(self, node: str, target: str, method: str = "GET") -> Any:
        """What an admin port says."""
        answer, body = self.nodes[node].ask(method, target, None, {"X-Admin-Password": "open sesame"}, "admin API")
        assert answer.status == 200, body
        return json.loads(body)

    def copy(self, node: str, user: Somebody) -> dict[str, Any] | None:
        """What the operator is told of a copy."""
        copies = self.operator(node, "/mirrors")["copies"]
        return next((one for one in copies if one["pubky"] == user.pubky), None)

    def shelf(self, node: str, user: Somebody) -> set[tuple[str, bytes | None]]:
        """What lies on the conflict shelf of a homeserver: path, and hash or None for a delete."""
        found: set[tuple[str, bytes | None]] = set()
        after: str | None = ""
        while after is not None:
            page = self.operator(node, f"/conflicts?pubky={user.pubky}&after={quote(after)}")
            for item in page["items"]:
                entry = item["entry"]
                found.add((item["path"], None if entry is None else b64decode(entry["etag"].strip('"'))))
            after = page["next"]
        return found

    def dump(self, node: str, user: Somebody) -> Dump:
        """All that a homeserver shows of an account."""
        client = self.client(user, node)
        client.history, client.cookie = History(), ""
        paths: list[str] = []
        page: tuple[str, ...] | None = None
        mirror: str | None = None
        while page is None or len(page) == 1000:
            cursor = f"&cursor={user.pubky}{quote(paths[-1])}" if paths else ""
            listing = client.call("GET", "/pub/", query=f"?limit=1000{cursor}")
            mirror, page = listing.headers.get("pubky-mirror"), listing.lines
            paths += page
        files, refused = {}, {}
        for path in paths:
            call = client.get(path)
            if call.found is None:
                refused[path] = call.status
                continue
            head = tuple(call.headers.get(name) for name in ("etag", "last-modified", "content-type"))
            files[path] = Shown(call.found, int(call.headers["content-length"]), head)
        client.close()
        events = () if mirror is not None else self._events(node, user)
        return Dump(node, tuple(paths), files, refused, events, self.copy(node, user), mirror)

    def _events(self, node: str, user: Somebody) -> tuple[tuple[str, str, bytes | None], ...]:
        answer, body = self.nodes[node].ask("GET", f"/events-stream?user={user.pubky}")
        if answer.status == 404:
            return ()
        found = _EVENT.findall(body.decode())
        return tuple((operation, path, b64decode(told) if told else None) for operation, path, told in found)

    def until(self, holds: Callable[[], Any], within: float = PATIENCE) -> Any:
        """Wait until something holds."""
        return until(holds, within, lambda: "\n".join(node.written()[-3000:] for node in self.nodes.values()))

    def until_equal(self, user: Somebody, home: str, *copies: str, moved: bool = False, unseen: int = 0) -> list[Dump]:
        """Wait until homeservers show the same of an account, and all bodies are there; what they show."""
        said: list[str] = []

        def look() -> list[Dump] | None:
            standing = [self.copy(name, user) for name in copies]
            if not all(one and one["state"] == "current" and not one["missing"] for one in standing):
                said[:] = [f"copies stand at {standing}"]
                time.sleep(0.05)  # how often it is asked again
                return None
            dumps = [self.dump(name, user) for name in (home, *copies)]
            try:
                for one in dumps[1:]:
                    check_equal(dumps[0], one, moved, unseen)
            except (Violation, KeyError) as violation:
                said[:] = [str(violation)]
                time.sleep(0.1)  # how often it is asked again
                return None
            return dumps

        def why() -> str:
            return f"{said}\n" + "\n".join(node.written()[-3000:] for node in self.nodes.values())

        found: list[Dump] = until(look, PATIENCE, why)
        return found

    def heal(self) -> None:
        """Every way works."""
        for way in self.ways.values():
            way.heal()

    def start(self, name: str, *, shift: float = 0.0) -> None:
        """Start a homeserver, with a clock that is `shift` seconds ahead."""
        node = self.nodes[name]
        places = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
        if shift:
            folder = node.folder / "clock"
            folder.mkdir(exist_ok=True)
            (folder / "sitecustomize.py").write_text(
                "import time\n_time, _time_ns = time.time, time.time_ns\n"
                f"time.time = lambda: _time() + {shift!r}\n"
                f"time.time_ns = lambda: _time_ns() + int({shift!r} * 1_000_000_000)\n"
            )
            places.insert(0, str(folder))
        node.start(environment={"PYTHONPATH": os.pathsep.join(places)} if places else {})


def _now(ahead: float) -> int:
    return time.time_ns() // 1000 + int(ahead * 1_000_000)


@contextmanager
def world(
    folder: Path,
    chance: random.Random,
    links: Mapping[Link, Mapping[str, object]],
    *,
    shifts: Mapping[str, float] | None = None,
    changes: Mapping[str, Mapping[str, Mapping[str, object]]] | None = None,
    by_key: bool = False,
    program: tuple[str, ...] = (TWISTD,),
) -> Iterator[World]:
    """Homeservers that run. `links`: who follows whom, and what else the follower sets for that peer.

    `shifts`: how far clocks are ahead (seconds). `changes`: other settings of a homeserver. `by_key`: they know only
    each other's keys, and speak TLS by these; then one way leads to a homeserver, whoever comes. `program`: what
    is run.
    """
    names = sorted({name for link in links for name in link})
    with ExitStack() as stack:
        wires = Wires()
        stack.callback(wires.close)
        relay = stack.enter_context(_relay(folder))
        keys = {name: Keypair(blake3(name.encode()).digest()) for name in names}
        nodes: dict[str, Node] = {}
        ways: dict[Link, FaultProxy] = {}
        doors = {name: wires.lead(partial(_port, nodes, name, "client API by key")) for name in names if by_key}
        for name in names:
            for other in names:
                if other != name and ((name, other) in links or (other, name) in links):
                    ways[name, other] = doors[other] if by_key else wires.lead(partial(_port, nodes, other))
            ways[name, "relay"] = wires.lead(lambda: relay)
            (folder / name / "data").mkdir(parents=True, exist_ok=True)
            (folder / name / "data" / "secret").write_text(keys[name].to_file_text())
            settings: dict[str, Mapping[str, object]] = {
                "peers": {other: _peer(name, other, keys, ways, links) for other in names if (name, other) in ways},
                "pkdns": {
                    "dht_relay_nodes": [ways[name, "relay"].url],
                    **({"public_pubky_tls_port": doors[name].port} if by_key else {}),
                },
            }
            for peer in settings["peers"].values() if by_key else ():
                assert isinstance(peer, dict)
                del peer["url"]
            nodes[name] = stack.enter_context(node_in(folder / name, settings, (changes or {}).get(name, {})))
            nodes[name].program = program
        here = World(chance, nodes, keys, ways, relay)
        threads = [
            threading.Thread(target=here.start, args=(name,), kwargs={"shift": (shifts or {}).get(name, 0.0)})
            for name in names
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(node.is_serving() for node in nodes.values()), [node.written() for node in nodes.values()]
        yield here


def _port(nodes: Mapping[str, Node], name: str, service: str = "client API") -> int:
    return nodes[name].ports.get(service, 0)  # nobody is at port 0


def _peer(
    name: str,
    other: str,
    keys: Mapping[str, Keypair],
    ways: Mapping[Link, FaultProxy],
    links: Mapping[Link, Mapping[str, object]],
) -> dict[str, object]:
    """What a homeserver has set for another one."""
    return {
        "key": keys[other].public_key.z32,
        "url": ways[name, other].url,
        "follow": "all" if (name, other) in links else "none",
        "offer": "all" if (other, name) in links else "none",
        "claim": "allow",
        **links.get((name, other), {}),
    }


@contextmanager
def _relay(folder: Path) -> Iterator[int]:
    with (folder / "relay.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _RELAY], cwd=folder, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL
        )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


# --- load ---------------------------------------------------------------------------------------------------------


@define(eq=False)
class Load:
    """Writes to paths of its own, one write after the other, until it is over."""

    client: Client
    random: random.Random
    paths: tuple[str, ...]
    pause: float = 0.0
    """Seconds between two writes."""
    longest: int = 6000
    """Bytes of a body, at most: those above the inline limit lie in files."""
    deletes: float = 0.25
    """The share of deletes."""
    over: threading.Event = field(factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def write(self) -> None:
        """One write."""
        path = self.random.choice(self.paths)
        if self.random.random() < self.deletes:
            self.client.delete(path)
        else:
            self.client.put(path, self.random.randbytes(self.random.randrange(self.longest)))

    def _run(self) -> None:
        while not self.over.wait(self.pause):
            self.write()

    def __enter__(self) -> "Load":
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.over.set()
        assert self._thread is not None
        self._thread.join(60)
        assert not self._thread.is_alive()


@define(eq=False)
class Reader:
    """Reads files and the listing of a copy, again and again, until it is over. Port by port, if it is restarted."""

    client: Client
    random: random.Random
    paths: tuple[str, ...]
    pause: float = 0.002
    over: threading.Event = field(factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def _run(self) -> None:
        while not self.over.wait(self.pause):
            self.client.get("/pub/" if self.random.random() < 0.2 else self.random.choice(self.paths))

    def __enter__(self) -> "Reader":
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.over.set()
        assert self._thread is not None
        self._thread.join(60)
        assert not self._thread.is_alive()
