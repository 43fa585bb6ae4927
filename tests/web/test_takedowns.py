"""What nobody may read: every way to the files of an account, or of a copy, that the operator has taken down."""

import json
from collections.abc import AsyncIterator

import pytest
import pytest_twisted
from attrs import evolve

from pkarr.keys import Keypair
from pubky_homeserver.core.records import Account
from tests.web.operator import Operator, operator
from tests.web.served import Served, served
from tests.web.somebody import At, somebody
from tests.web.test_copies import PRIMARY, Mirroring, one, told

__all__ = ["one"]

STRANGER = Keypair(b"\x0b" * 32).public_key.z32


@pytest_twisted.async_yield_fixture
async def node() -> AsyncIterator[Operator]:
    """An operator's port."""
    async with operator() as one:
        yield one


async def with_files(server: Served) -> At:
    """Somebody with a file of each kind, and a site."""
    who = await somebody(server)
    for path in ("/pub/a", "/priv/b", "/pub/website/_/index.html"):
        assert await who.put(path) == 201
    return who


async def decide(server: Served, who: At, is_down: bool) -> None:
    """Another process takes the account down, or lifts that: this one has its hint."""
    takedowns = server.store.takedowns
    assert await (takedowns.take_down(who.key, 1) if is_down else takedowns.lift(who.key))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/pub/a"),
        ("HEAD", "/pub/a"),
        ("GET", "/pub/"),
        ("GET", "/pub/nothing"),
        ("GET", "/priv/b"),
        ("GET", "/priv/"),
        ("PUT", "/pub/a"),
        ("PUT", "/priv/new"),
        ("LOCK", "/pub/a"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_nothing_is_shown_or_taken(method: str, path: str) -> None:
    """Whoever asks, the owner too, in either form: 451 with a sentence, until it is lifted."""
    async with served() as server:
        who = await with_files(server)
        before = (await who.ask("GET", "/pub/a")).status
        await decide(server, who, is_down=True)
        for headers in ({"Origin": "https://app.example"}, {**who.who.headers, "Origin": "https://app.example"}):
            body = b"new" if method == "PUT" else None
            answer = await server.ask(method, f"/storage/{who.key}{path}", headers, body)
            assert answer.status == 451
            assert answer.header("access-control-allow-origin") is not None
            if method != "HEAD":
                assert "has taken this account down" in answer.text
            if method != "LOCK":
                legacy = await server.ask(method, path, {**headers, "pubky-host": who.key}, body)
                assert legacy.status == 451
        await decide(server, who, is_down=False)
        assert (await who.ask("GET", "/pub/a")).status == before == 200
        assert await who.get("/pub/new") is None


@pytest_twisted.ensureDeferred
async def test_what_stays_possible() -> None:
    """The owner is signed in, and may delete; everybody else's files are as before."""
    async with served() as server:
        who, other = await with_files(server), await with_files(server)
        await decide(server, who, is_down=True)
        answer = await server.ask("GET", "/session", dict(who.who.headers))
        assert answer.status == 200
        assert await who.delete("/pub/a") == 204
        assert await other.get("/pub/a") == b"hello"
        assert await other.put("/pub/a", b"new") == 201
        await decide(server, who, is_down=False)
        assert await who.get("/pub/a") is None
        assert await who.get("/priv/b") == b"hello"


@pytest_twisted.ensureDeferred
async def test_a_site() -> None:
    """The user's website goes with it."""
    async with served() as server:
        who = await with_files(server)
        assert (await server.ask("GET", "/", host=who.key)).status == 200
        await decide(server, who, is_down=True)
        answer = await server.ask("GET", "/", host=who.key)
        assert (answer.status, answer.header("x-content-type-options")) == (451, "nosniff")


@pytest.mark.parametrize("is_local", [False, True], ids=["at its primary", "here"])
@pytest_twisted.ensureDeferred
async def test_a_copy(one: Mirroring, is_local: bool) -> None:
    """So it is with a copy, whoever decided; writes are sent to the primary as always."""
    owner = one.owner.pubky
    if is_local:
        await one.home.store.takedowns.take_down(owner, 1)
    else:
        one.shelf.kept[owner] = evolve(one.shelf.kept[owner], taken_down=True)
        await one.copies.refresh(owner)
    for method, path in (("GET", "/pub/a.txt"), ("HEAD", "/pub/a.txt"), ("GET", "/pub/"), ("GET", "/priv/c.txt")):
        answer = await one.ask(method, path, one.owner.headers)
        assert answer.status == 451
        assert told(answer)[:2] == ("mirror", PRIMARY)
    assert (await one.ask("PUT", "/pub/a.txt", one.owner.headers, b"x")).status == 421
    assert (await one.ask("DELETE", "/pub/a.txt", one.owner.headers)).status == 421


@pytest_twisted.ensureDeferred
async def test_the_operator(node: Operator) -> None:
    """Takes an account down, sees what is down, and lifts it; only with the password, only what is here."""
    account = Keypair(b"\x0a" * 32).public_key.z32
    await node.store.sign_up(Account(account, 1), None, None, False)
    assert (await node.ask("POST", f"/takedowns?pubky={account}")).status == 401
    for changed in (True, False):
        answer = await node.command("POST", f"/takedowns?pubky=pk:{account}")
        assert (answer.status, json.loads(answer.body)) == (200, {"pubky": account, "changed": changed})
    listed = json.loads((await node.command("GET", "/takedowns")).body)
    assert listed == {"takedowns": [{"pubky": account, "since": int(node.clock.seconds())}]}
    for changed in (True, False):
        answer = await node.command("DELETE", f"/takedowns?pubky={account}")
        assert (answer.status, json.loads(answer.body)) == (200, {"pubky": account, "changed": changed})
    assert json.loads((await node.command("GET", "/takedowns")).body) == {"takedowns": []}
    for target in ("/takedowns", "/takedowns?pubky=nobody", f"/takedowns?pubky={STRANGER}"):
        assert (await node.command("POST", target)).status == 400
    assert (await node.command("PUT", "/takedowns")).status == 405
