"""The operator's command line, as a program of its own against a real admin port."""

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import define, frozen
from click.testing import CliRunner
from twisted.internet import reactor as _reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.utils import getProcessOutputAndValue

from pkarr.builder import Builder
from pkarr.keys import Keypair
from pubky_homeserver.cli import main
from pubky_homeserver.command import reachable
from pubky_homeserver.core.health import Publication
from pubky_homeserver.core.quotas import UserQuota
from pubky_homeserver.core.records import Account, SignupToken
from pubky_homeserver.core.verification import Verification
from pubky_homeserver.values import Socket
from tests.pkarr.networks import Simulated
from tests.web.operator import KEY, KEYPAIR, NOW, PASSWORD, Operator, operator

reactor: Any = _reactor


@frozen
class Ran:
    """What came of a command."""

    out: str
    err: str
    code: int


@define
class Shell:
    """A shell of the operator: a working directory, an environment, and a node's data directory."""

    folder: Path
    environment: dict[str, str]

    @property
    def data_dir(self) -> Path:
        """The node's."""
        return self.folder / "data"

    def settle(self, port: int, password: str | None = PASSWORD) -> None:
        """Make the node's data directory as the node does."""
        self.data_dir.mkdir()
        (self.data_dir / "homeserver.toml").write_text(f'[admin]\nlisten_socket = "127.0.0.1:{port}"\n')
        if password is not None:
            (self.data_dir / "admin-password").write_text(password + "\n")

    async def run(self, *arguments: str, placed: bool = True) -> Ran:
        """Run `homeserver` with these arguments, and the node's data directory unless told otherwise."""
        command = [*arguments, *(["--data-dir", str(self.data_dir)] if placed else [])]
        out, err, code = await getProcessOutputAndValue(
            str(Path(sys.executable).parent / "homeserver"), command, self.environment, str(self.folder)
        )
        return Ran(out.decode(), err.decode(), code)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A shell in an empty directory."""
    return Shell(tmp_path, {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"})


@pytest_twisted.async_yield_fixture
async def node(shell: Shell) -> AsyncIterator[Operator]:
    """A running node that the shell's data directory belongs to."""
    async with operator() as one:
        shell.settle(one.port)
        yield one


# --- status -------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_status(shell: Shell, node: Operator) -> None:
    """A lamp for each check, and the node's numbers."""
    await node.accounts.new_signup_token(UserQuota())
    await node.store.sign_up(Account("a", 1), None, None, False)
    node.publication = Publication(published=NOW - 90)
    ran = await shell.run("status")
    assert (ran.code, ran.err) == (0, "")
    lines = [line.split() for line in ran.out.splitlines()]
    assert ["ok", "store", "answers"] in lines
    assert ["ok", "disk", "has", "room"] in lines
    assert ["ok", "record", "published", "(0:01:30", "ago)"] in lines
    assert ["key", KEY] in lines
    assert ["users", "1", "(0", "disabled)"] in lines
    assert ["signup", "tokens", "1", "(1", "unused)"] in lines
    assert "\x1b" not in ran.out
    node.publication = Publication(published=NOW - 7200, failure="no relay answers")
    ran = await shell.run("status")
    assert ran.code == 0
    assert "record  no relay answers (last worked 2:00:00 ago)" in ran.out


@pytest_twisted.ensureDeferred
async def test_status_as_json(shell: Shell, node: Operator) -> None:
    """Programs get the checks and the numbers as the node gives them."""
    node.rooms["disk"] = False
    ran = await shell.run("status", "--json")
    shown = json.loads(ran.out)
    assert (ran.code, shown["ready"], shown["checks"]["disk"]["ok"]) == (0, True, False)
    assert shown["info"]["public_key"] == KEY


@pytest_twisted.ensureDeferred
async def test_status_of_a_node_that_is_not_ready(shell: Shell, node: Operator) -> None:
    """Without its store a node has no numbers; the lamps show why, and the exit code tells scripts."""
    node.store.mood = "away"
    ran = await shell.run("status")
    assert ran.code == 1
    assert ran.out.split()[:2] == ["FAILS", "store"]
    assert ran.err == f"homeserver: The node at 127.0.0.1:{node.port} is not ready to serve; look into its log.\n"
    ran = await shell.run("status", "--json")
    assert (ran.code, json.loads(ran.out)["info"]) == (1, None)


# --- invitations --------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_invite_new(shell: Shell, node: Operator) -> None:
    """One token on one line, and nothing else, for a pipe."""
    ran = await shell.run("invite", "new")
    assert (ran.code, ran.err) == (0, "")
    (token,) = ran.out.splitlines()
    kept = await node.store.signup_token(token)
    assert kept is not None
    assert kept.quota == UserQuota()


@pytest_twisted.ensureDeferred
async def test_invite_new_with_a_quota(shell: Shell, node: Operator) -> None:
    """Several tokens at once, each with the quota of the options."""
    options = ["--quota-mb", "500", "--rate-read", "10MB/s", "--rate-read-burst", "20", "--write-path", "/pub/app/"]
    ran = await shell.run("invite", "new", "--json", "--count", "3", *options, "--rate-write", "unlimited")
    assert (ran.code, ran.err) == (0, "")
    shown = json.loads(ran.out)
    quota = {
        "storage_quota_mb": 500,
        "rate_read": "10mb/s",
        "rate_write": "unlimited",
        "rate_read_burst": 20,
        "allowed_write_paths": ["/pub/app/"],
    }
    assert shown["quota"] == quota
    assert len(set(shown["tokens"])) == 3
    for text in shown["tokens"]:
        token = await node.store.signup_token(text)
        assert token is not None
        assert token.quota.to_json() == quota


@pytest_twisted.ensureDeferred
async def test_invite_list(shell: Shell, node: Operator) -> None:
    """A line for each token, whole also in a pipe: when it was made, by whom it was used, its quota."""
    day = 1_792_663_872_123_456
    await node.store.add_signup_token(SignupToken("AAAA-AAAA-AAAA", day, UserQuota(storage_quota_mb=5)))
    await node.store.add_signup_token(SignupToken("BBBB-BBBB-BBBB", day, UserQuota(allowed_write_paths=())))
    await node.store.sign_up(Account(KEY, day), None, "AAAA-AAAA-AAAA", True)
    ran = await shell.run("invite", "list")
    assert (ran.code, ran.err) == (0, "")
    time = "2026-10-22T10:11"
    assert [line.split() for line in ran.out.splitlines()[1:]] == [
        ["AAAA-AAAA-AAAA", time, time, KEY, "storage_quota_mb=5"],
        ["BBBB-BBBB-BBBB", time, "-", "-", "allowed_write_paths=none"],
    ]
    ran = await shell.run("invite", "list", "--state", "unused", "--json")
    assert [item["token"] for item in json.loads(ran.out)["items"]] == ["BBBB-BBBB-BBBB"]


@pytest_twisted.ensureDeferred
async def test_invite_list_over_pages(shell: Shell, node: Operator) -> None:
    """More tokens than one page of the node has are gathered; what a limit leaves out is said."""
    for number in range(1500):
        await node.store.add_signup_token(SignupToken(f"0000-0000-{number:04}", 1))
    ran = await shell.run("invite", "list", "--json", "--limit", "1200")
    items = json.loads(ran.out)["items"]
    assert [item["token"] for item in items] == [f"0000-0000-{number:04}" for number in range(1200)]
    assert ran.err == "There are more than these 1200: ask with a larger --limit.\n"
    ran = await shell.run("invite", "list", "--json", "--limit", "1500")
    assert (len(json.loads(ran.out)["items"]), ran.err) == (1500, "")


@pytest_twisted.ensureDeferred
async def test_invite_list_of_none(shell: Shell, node: Operator) -> None:
    """An empty list says how to begin, where it is in nobody's way."""
    ran = await shell.run("invite", "list")
    assert (ran.code, ran.out, ran.err) == (0, "", "No signup tokens. Make one: homeserver invite new\n")


# --- where the node is --------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_password_from_the_environment(shell: Shell, node: Operator) -> None:
    """PUBKY_API_KEY wins over the data directory's file, as it does in the node; `.env` is read too."""
    (shell.data_dir / "admin-password").write_text("old\n")
    config = ["--config", str(shell.data_dir / "homeserver.toml")]
    (shell.folder / ".env").write_text(f'PUBKY_API_KEY="{PASSWORD}"\n')
    assert (await shell.run("status", *config, placed=False)).code == 0
    (shell.folder / ".env").unlink()
    shell.environment["PUBKY_API_KEY"] = PASSWORD
    assert (await shell.run("status", *config, placed=False)).code == 0
    shell.environment["PUBKY_API_KEY"] = "wrong"
    assert (await shell.run("status")).code == 1


def failed(ran: Ran) -> str:
    """The one line of a failure."""
    assert (ran.code, ran.out) == (1, "")
    (line,) = ran.err.splitlines()
    assert line.startswith("homeserver: ")
    return line.removeprefix("homeserver: ")


@pytest_twisted.ensureDeferred
async def test_wrong_password(shell: Shell, node: Operator) -> None:
    """A wrong password says where the right one comes from, and does not show the wrong one."""
    (shell.data_dir / "admin-password").write_text("secret mistake\n")
    for command in (["status"], ["invite", "list"]):
        line = failed(await shell.run(*command))
        assert "has another password: set PUBKY_API_KEY" in line
        assert "secret mistake" not in line


@pytest_twisted.ensureDeferred
async def test_no_password(shell: Shell) -> None:
    """Without a password nothing is asked."""
    shell.settle(1, password=None)
    line = failed(await shell.run("status"))
    assert line.startswith(f"No password: there is no {shell.data_dir}/admin-password.")
    assert "set PUBKY_API_KEY" in line


@pytest_twisted.ensureDeferred
async def test_unreadable_password(shell: Shell) -> None:
    """A password that cannot be read is told with the way around."""
    shell.settle(1, password=None)
    (shell.data_dir / "admin-password").mkdir()
    line = failed(await shell.run("status"))
    assert line.startswith(f"{shell.data_dir}/admin-password cannot be read (Is a directory): run this as")


@pytest_twisted.ensureDeferred
async def test_no_node(shell: Shell) -> None:
    """A node that does not run is told with the way to start it."""
    port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
    number = port.getHost().port
    shell.settle(number)
    await port.stopListening()
    line = failed(await shell.run("invite", "new"))
    assert line.startswith(f"Nothing answers at 127.0.0.1:{number}: start the node (script/run")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("[admin]\nenabled = false\n", "set admin.enabled = true in"),
        ("[admin]\ncolour = 1\n", "admin.colour: no such setting"),
        ("[admin\n", "is not valid TOML"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_bad_settings(shell: Shell, settings: str, words: str) -> None:
    """Settings that the node would refuse, or that give it no admin port, are told as the node tells them."""
    shell.settle(1)
    (shell.data_dir / "homeserver.toml").write_text(settings)
    line = failed(await shell.run("status"))
    assert words in line
    assert str(shell.data_dir / "homeserver.toml") in line


@pytest_twisted.ensureDeferred
async def test_no_settings_file(shell: Shell) -> None:
    """A settings file that was named must be there."""
    line = failed(await shell.run("status", "--config", "nowhere.toml"))
    assert line == "nowhere.toml: cannot be read: No such file or directory"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "is not the admin port of a homeserver"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "is not the admin port of a homeserver"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "is not the admin port of a homeserver"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "broke off"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 9_000_000, "broke off"),
        (b"220 mail.example ESMTP\r\n", "broke off"),
        (b"", "broke off"),
    ],
    ids=["404", "list", "empty", "short", "endless", "mail", "silent"],
)
@pytest_twisted.ensureDeferred
async def test_a_stranger(shell: Shell, answer: bytes, words: str) -> None:
    """Something else on the port, or a node that goes away, is one line and never a traceback."""

    class Stranger(Protocol):
        def dataReceived(self, data: bytes) -> None:
            assert self.transport is not None
            self.transport.write(answer)
            self.transport.loseConnection()

    port = reactor.listenTCP(0, Factory.forProtocol(Stranger), interface="127.0.0.1")
    shell.settle(port.getHost().port)
    try:
        assert words in failed(await shell.run("status"))
    finally:
        await port.stopListening()


@pytest.mark.parametrize(
    ("listening", "found"),
    [
        ("127.0.0.1:1", "127.0.0.1:1"),
        ("0.0.0.0:1", "127.0.0.1:1"),
        ("[::]:1", "[::1]:1"),
        ("[2001:db8::1]:1", "[2001:db8::1]:1"),
    ],
)
def test_reachable(listening: str, found: str) -> None:
    """A node that listens everywhere is found on the loopback."""
    assert str(reachable(Socket.parse(listening))) == found


# --- the command line itself --------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["", "status", "invite", "invite new", "invite list", "takedown", "takedown add"])
def test_help(command: str) -> None:
    """Every help text ends in examples, one a line."""
    shown = CliRunner().invoke(main, [*command.split(), "--help"])
    assert shown.exit_code == 0
    _, heading, examples = shown.output.partition("\n  Examples:\n")
    assert heading
    assert all(line.startswith("    ") and "homeserver " in line for line in examples.rstrip().splitlines())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--quota-mb", "many"], "storage_quota_mb: expected a whole number"),
        (["--quota-mb", "-1"], "storage_quota_mb: expected a whole number"),
        (["--quota-mb", "9" * 5000], "storage_quota_mb: expected a whole number"),
        (["--rate-read", "fast"], "rate_read: expected a rate such as"),
        (["--rate-read-burst", "5"], "rate_read_burst requires the corresponding rate"),
        (["--write-path", "pub/x"], "allowed_write_paths[0]: path must be absolute"),
        (["--write-path", "/pub/", "--read-only"], "exclude each other"),
        (["--count", "0"], "--count"),
        (["--count", "1001"], "--count"),
        (["stray"], "unexpected extra argument"),
    ],
)
def test_mistakes(options: list[str], words: str) -> None:
    """A mistake in the command line is told before anything is asked, with exit code 2."""
    shown = CliRunner().invoke(main, ["invite", "new", *options])
    assert shown.exit_code == 2
    assert words in shown.stderr


def test_version() -> None:
    """The version is that of the installed program."""
    shown = CliRunner().invoke(main, ["--version"])
    assert (shown.exit_code, shown.output.split()[:2]) == (0, ["homeserver,", "version"])


# --- records ------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_record_show(shell: Shell, node: Operator) -> None:
    """The records of a key, their age, and who has them; by default of the homeserver, in any spelling."""
    relay, empty = Simulated(node.clock, "http://relay"), Simulated(node.clock, "the DHT")
    node.networks += [relay, empty]
    relay.packets[KEYPAIR.public_key.raw] = (
        Builder().address(".", "127.0.0.1").txt("x", "\x1b[2J").sign(KEYPAIR, int((NOW - 3700) * 1_000_000))
    )
    for arguments in ((), (KEY,), (f"pubky{KEY}",), (f"pk:{KEY}",)):
        ran = await shell.run("record", "show", *arguments)
        assert (ran.code, ran.err) == (0, ""), arguments
        lines = [line.split() for line in ran.out.splitlines()]
        assert lines[0] == [f"{KEY},", "signed", "1:01:40", "ago"]
        assert [KEY, "A", "3600", "127.0.0.1"] in lines
        assert [f"x.{KEY}", "TXT", "3600", "\\x1b[2J"] in lines
        assert ["http://relay", "these", "records", "-"] in lines
        assert ["the", "DHT", "nothing", "-"] in lines
    shown = json.loads((await shell.run("record", "show", "--json")).out)
    assert shown["age"] == 3700


@pytest_twisted.ensureDeferred
async def test_record_show_of_nobody(shell: Shell, node: Operator) -> None:
    """A key without records is exit code 1, with what each network said, and is told from one nobody could ask for."""
    relay, dht = Simulated(node.clock, "http://relay", is_away=True), Simulated(node.clock, "the DHT")
    node.networks += [relay, dht]
    ran = await shell.run("record", "show")
    assert (ran.code, ran.err) == (
        1,
        f"homeserver: No network that answered has a record of {KEY}. Publish it: homeserver record publish\n",
    )
    lines = [line.split() for line in ran.out.splitlines()]
    assert ["http://relay", "away", "-"] in lines
    assert ["the", "DHT", "nothing", "-"] in lines
    other = "y" * 52
    ran = await shell.run("record", "show", other)
    assert (ran.code, ran.err) == (1, f"homeserver: No network that answered has a record of {other}.\n")
    dht.is_away = True
    ran = await shell.run("record", "show", "--json")
    assert ran.code == 1
    assert ran.err.startswith("homeserver: No network answered. ")
    assert json.loads(ran.out)["records"] is None
    ran = await shell.run("record", "show", "nobody")
    assert ran.code == 2
    assert "'nobody' is not a public key" in ran.err


@pytest_twisted.ensureDeferred
async def test_record_publish(shell: Shell, node: Operator) -> None:
    """The record goes out now; it is an error if no network takes it."""
    dht = Simulated(node.clock, "the DHT")
    node.networks += [Simulated(node.clock, "http://relay", is_away=True), dht]
    ran = await shell.run("record", "publish")
    assert (ran.code, ran.err) == (0, "")
    lines = [line.split() for line in ran.out.splitlines()]
    assert ["http://relay", "away", "-"] in lines
    assert ["the", "DHT", "published", "20"] in lines
    assert len(dht.published) == 1
    dht.is_away = True
    ran = await shell.run("record", "publish", "--json")
    assert ran.code == 1
    assert json.loads(ran.out)["published"] is False
    assert ran.err.startswith("homeserver: No network took the record. ")


@pytest_twisted.ensureDeferred
async def test_record_publish_of_what_is_outdated(shell: Shell, node: Operator) -> None:
    """A newer record of the key elsewhere is an error of its own: nothing is wrong with the network."""
    dht = Simulated(node.clock, "the DHT")
    dht.packets[KEYPAIR.public_key.raw] = Builder().sign(KEYPAIR, int((NOW + 60) * 1_000_000))
    node.networks.append(dht)
    ran = await shell.run("record", "publish")
    assert ran.code == 1
    assert "the DHT" in ran.out
    assert ran.err.startswith("homeserver: A newer record of this key is in the network. ")


OTHER = Keypair(b"\x0e" * 32).public_key.z32


# --- mirrors ------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_mirror_status(shell: Shell, node: Operator) -> None:
    """A line for each peer that is followed and for each copy; without any it says how to begin."""
    ran = await shell.run("mirror", "status")
    assert (ran.code, ran.out) == (0, "")
    assert "[peers.NAME]" in ran.err
    copy = {"pubky": "b" * 52, "primary": KEY, "seq": 7, "confirmed": 0, "used": 1_500_000, "missing": 2}
    copy |= {"behind": 75, "lag": 3, "verified": 0, "braked": 0, "taken_down": False}
    traffic = {"requests": 12, "failures": 1, "received": 2_500_000}
    node.mirrored = {
        "peers": [
            {"name": "alice", "key": KEY, "failure": None, "trouble": None, "traffic": traffic, "paused": False},
            {
                "name": "carol",
                "key": "c" * 52,
                "failure": "no answer within 20 s",
                "trouble": None,
                "traffic": traffic,
                "paused": False,
            },
        ],
        "copies": [
            {**copy, "state": "stale"},
            {**copy, "state": "current", "pubky": "y" * 52, "taken_down": True},
            {**copy, "state": "current", "pubky": "n" * 52, "braked": 1},
        ],
    }
    ran = await shell.run("mirror", "status")
    assert (ran.code, ran.err) == (0, "")
    lines = [line.split() for line in ran.out.splitlines()]
    assert ["alice", KEY, "12", "1", "2.5", "followed"] in lines
    assert ["carol", "c" * 52, "12", "1", "2.5", "no", "answer", "within", "20", "s"] in lines
    assert ["b" * 52, "8pinxxgq…", "stale", "never", "7", "0:01:15,", "3", "changes", "1.5", "2", "never"] in lines
    assert f"{'y' * 52} 8pinxxgq… current, taken down" in " ".join(ran.out.split())
    assert f"{'n' * 52} 8pinxxgq… waits for you: 1 file would go" in " ".join(ran.out.split())
    assert "would lose" not in ran.out
    assert json.loads((await shell.run("mirror", "status", "--json")).out) == node.mirrored
    lost: dict[str, Any] = {"accounts": 7, "alone": 0, "behind": 0, "changes": 0, "bodies": 0, "private": 0}
    node.exposed = lost | {"named": [], "silent": ["carol"]}
    said = " ".join((await shell.run("mirror", "status")).out.split())
    assert said.endswith("at most: nothing of the 7 accounts that live here. Not known: what carol would have.")
    node.exposed |= {"alone": 2, "behind": 1, "changes": 30, "named": [KEY, OTHER]}
    said = " ".join((await shell.run("mirror", "status")).out.split())
    assert f"2 accounts of which nobody has a copy, 30 changes of 1 account ({KEY}, {OTHER})." in said
    assert json.loads((await shell.run("mirror", "status", "--json")).out)["exposure"] == node.exposed
    assert (await shell.run("mirror", "status", "--watch")).code == 2, "no terminal"
    assert (await node.ask("GET", "/mirrors")).status == 401


@pytest_twisted.ensureDeferred
async def test_mirror_verify(shell: Shell, node: Operator) -> None:
    """The command waits for the end, shows what was found, and its exit code says whether all is well."""
    done: dict[str, Any] = {"ended": 2, "accounts": 3, "of": 3, "files": 40, "bytes": 5_000_000}
    node.verifications = [Verification(None, 1, **done)]
    ran = await shell.run("mirror", "verify")
    assert (ran.code, ran.err) == (0, "")
    assert ["3", "40", "5.0", "0", "0", "0"] in [line.split() for line in ran.out.splitlines()]
    bad = Verification(KEY, 1, **done, wrong=2, missing=1, faults={KEY: "2 bodies were lost; 1 bodies are missing"})
    node.verifications = [Verification(KEY, 1), bad]
    ran = await shell.run("mirror", "verify", KEY)
    assert (ran.code, ran.err) == (1, "")
    assert f"{KEY}: 2 bodies were lost" in " ".join(ran.out.split())
    assert node.verified == [None, KEY]
    ran = await shell.run("mirror", "verify", "--status", "--json")
    assert (ran.code, json.loads(ran.out)["wrong"]) == (1, 2)
    assert (await node.ask("POST", "/mirrors/verify")).status == 401
    assert (await shell.run("mirror", "verify", "nobody")).code == 1


@pytest_twisted.ensureDeferred
async def test_mirror_erase(shell: Shell, node: Operator) -> None:
    """The order is given to all peers that may have a copy."""
    ran = await shell.run("mirror", "erase", KEY, "--yes")
    assert (ran.code, ran.err) == (0, "Ordered of 2 peers; see homeserver mirror status.\n")
    assert json.loads((await shell.run("mirror", "erase", KEY, "--yes", "--json")).out) == {"pubky": KEY, "ordered": 2}
    assert node.erased == [KEY, KEY]
    assert (await shell.run("mirror", "erase", "nobody", "--yes")).code == 1
    assert (await node.ask("POST", f"/mirrors/erase?pubky={KEY}")).status == 401


@pytest_twisted.ensureDeferred
async def test_promote_check(shell: Shell, node: Operator) -> None:
    """A line for each copy: whether its user could move here now, and why not."""
    ran = await shell.run("mirror", "promote-check")
    assert (ran.code, ran.out, ran.err) == (0, "", "There is no copy here.\n")
    node.checked = [
        {"pubky": KEY, "ready": True, "why": "nothing is lost"},
        {"pubky": OTHER, "ready": False, "why": "its list is not whole"},
    ]
    lines = [line.split() for line in (await shell.run("mirror", "promote-check")).out.splitlines()]
    assert [KEY, "yes", "nothing", "is", "lost"] in lines
    assert [OTHER, "no", "its", "list", "is", "not", "whole"] in lines
    ran = await shell.run("mirror", "promote-check", OTHER, "--json")
    assert json.loads(ran.out) == {"copies": node.checked[1:]}
    assert (await node.ask("GET", "/mirrors/check")).status == 401
    assert (await shell.run("mirror", "promote-check", "nobody")).code == 1


@pytest_twisted.ensureDeferred
async def test_open_a_copy(shell: Shell, node: Operator) -> None:
    """A copy opens, or the reason is told; with --incomplete also if its list is not whole."""
    ran = await shell.run("mirror", "open", KEY)
    assert ran.code == 1
    assert "not complete yet" in ran.err
    ran = await shell.run("mirror", "open", KEY, "--incomplete")
    assert (ran.code, ran.out) == (0, f"{KEY} lives here now.\n")
    assert json.loads((await shell.run("mirror", "open", KEY, "--incomplete", "--json")).out)["opened"]
    assert node.opened == [(KEY, False), (KEY, True), (KEY, True)]
    assert (await node.ask("POST", f"/mirrors/open?pubky={KEY}")).status == 401
    assert (await shell.run("mirror", "open", "nobody")).code == 1


@pytest_twisted.ensureDeferred
async def test_nobody_is_followed() -> None:
    """A homeserver without peers says so."""
    async with operator(has_peers=False) as one:
        for method, target in (("POST", f"/mirrors/open?pubky={KEY}"), ("GET", "/mirrors/check")):
            answer = await one.command(method, target)
            assert (answer.status, "follows no homeserver" in answer.text) == (503, True)


# --- peers --------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_peers(shell: Shell, node: Operator) -> None:
    """They are added to the settings, listed with what the running node says of them, and removed."""
    ran = await shell.run("peer", "list")
    assert (ran.code, ran.out) == (0, "")
    assert "peer add" in ran.err
    before = (shell.data_dir / "homeserver.toml").read_text()
    ran = await shell.run(
        "peer", "add", "alice", OTHER, "--follow", "all", "--offer", f"{KEY}, {OTHER}", "--claim", "token"
    )
    assert ran.code == 0
    assert "estart the node" in ran.out
    assert (shell.data_dir / "homeserver.toml").read_text().startswith(before)
    ran = await shell.run("peer", "list")
    assert ["alice", OTHER, "all", "2", "accounts", "no", "-"] in [line.split() for line in ran.out.splitlines()]
    node.mirrored = {"peers": [{"key": OTHER, "failure": None, "trouble": "it lies"}], "copies": []}
    (told,) = json.loads((await shell.run("peer", "list", "--json")).out)["peers"]
    assert (told["follow"], told["offer"], told["claim"]) == ("all", sorted([KEY, OTHER]), "token")
    assert told["running"]["trouble"] == "it lies"
    assert (await shell.run("peer", "add", "alice", KEY)).code == 1
    assert (await shell.run("peer", "remove", "alice")).code == 0
    ran = await shell.run("peer", "remove", "alice")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert (shell.data_dir / "homeserver.toml").read_text().rstrip() == before.rstrip()


@pytest_twisted.ensureDeferred
async def test_peer_test(shell: Shell, node: Operator) -> None:
    """What the node finds is said in words; the exit code says whether all is well."""
    base = {"name": "alice", "key": OTHER, "features": [], "offered": 3, "wanted": 2, "more": False}
    node.probed["alice"] = {**base, "well": True, "says": "It answers and offers accounts."}
    node.probed["bob"] = {**base, "well": False, "says": "It cannot be reached."}
    ran = await shell.run("peer", "test", "alice")
    assert (ran.code, ran.err) == (0, "")
    assert "3 are offered, 2 of them followed" in ran.out
    ran = await shell.run("peer", "test", "bob")
    assert (ran.code, ran.err) == (1, "homeserver: bob: It cannot be reached.\n")
    assert (await shell.run("peer", "test", "nobody")).code == 1
    assert (await node.ask("POST", "/peers/test?name=alice")).status == 401


@pytest_twisted.ensureDeferred
async def test_takedown(shell: Shell, node: Operator) -> None:
    """An account is taken down and shown again; what is down is listed; what is not here cannot be."""
    account = Keypair(b"\x0a" * 32).public_key.z32
    await node.store.sign_up(Account(account, 1), None, None, False)
    assert (await shell.run("takedown", "list")).err == "Nothing is taken down.\n"
    assert (await shell.run("takedown", "add", account)).err == "Taken down.\n"
    assert (await shell.run("takedown", "add", account)).err == "It was taken down already.\n"
    assert account in (await shell.run("takedown", "list")).out
    (listed,) = json.loads((await shell.run("takedown", "list", "--json")).out)["takedowns"]
    assert listed["pubky"] == account
    ran = await shell.run("takedown", "lift", account, "--json")
    assert json.loads(ran.out) == {"pubky": account, "changed": True}
    assert (await shell.run("takedown", "lift", account)).err == "It was not taken down here.\n"
    ran = await shell.run("takedown", "add", Keypair(b"\x0b" * 32).public_key.z32)
    assert (ran.code, "No account" in ran.err) == (1, True)


@pytest_twisted.ensureDeferred
async def test_peer_pause(shell: Shell, node: Operator) -> None:
    """The settings say it for the next start, and the node does it now; if it does not run, it will."""
    assert (await shell.run("peer", "add", "alice", OTHER, "--follow", "all")).code == 0
    node.probed["alice"] = {}
    assert (await shell.run("peer", "pause", "alice")).out == "alice is left alone.\n"
    assert "paused = true" in (shell.data_dir / "homeserver.toml").read_text()
    ran = await shell.run("peer", "resume", "alice", "--json")
    assert json.loads(ran.out) == {"name": "alice", "paused": False, "told": True}
    assert node.paused == [("alice", True), ("alice", False)]
    node.probed.clear()
    ran = await shell.run("peer", "pause", "alice")
    assert (ran.code, ran.out) == (0, "")
    assert "was not told" in ran.err
    assert (await shell.run("peer", "pause", "nobody")).code == 1
    assert (await node.ask("POST", "/peers/pause?name=alice")).status == 401
