"""Locks over HTTP: who gets one, what it says, and what it does to writes."""

import re
from typing import Any

import pytest
import pytest_twisted
from attrs import define
from twisted.internet import reactor as _reactor
from twisted.internet.protocol import ClientFactory

from pubky_homeserver.core.quotas import UserQuota
from pubky_homeserver.core.records import SignupToken
from tests.web.client import Answer
from tests.web.served import Served, User, served
from tests.web.sockets import Client, turns, until

reactor: Any = _reactor

PATH = "pub/app/a"
STALE = "opaquelocktoken:00000000-0000-4000-8000-000000000000"
NOT_LIVE = "The If header does not name the live lock on this path"
EXCLUSIVE = (
    b'<?xml version="1.0"?><D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope>'
    b"<D:locktype><D:write/></D:locktype><D:owner>shared</D:owner></D:lockinfo>"
)
SHARED = EXCLUSIVE.replace(b"exclusive", b"shared")

pytestmark = [pytest.mark.usefixtures("family"), pytest.mark.parametrize("family", ["cookie", "grant"], indirect=True)]
"""Both families of sign-in, side by side."""


@define
class Owner:
    """Somebody who writes at one path."""

    server: Served
    user: User
    path: str = PATH

    async def ask(
        self, method: str, body: bytes | None = None, token: str | None = None, legacy: bool = False, **headers: str
    ) -> Answer:
        """One request; `token` is named in `If`."""
        fields = self.user.headers | {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            fields["If"] = f"(<{token}>)"
        target = f"/{self.path}" if legacy else f"/storage/{self.user.pubky}/{self.path}"
        return await self.server.ask(method, target, fields, body)

    async def lock(self, seconds: int = 30) -> str:
        """The token of a new lock."""
        answer = await self.ask("LOCK", Timeout=f"Second-{seconds}")
        assert answer.status == 200, answer
        return (answer.header("lock-token") or "")[1:-1]

    async def unlock(self, token: str) -> Answer:
        """Give a lock back."""
        return await self.ask("UNLOCK", Lock_Token=f"<{token}>")

    async def is_locked(self) -> bool:
        """Whether a write without token is refused; looking changes nothing."""
        answer = await self.ask("PUT", b"", If_None_Match="*", If_Match='"none"')
        assert answer.status in (412, 423), answer
        return answer.status == 423

    async def content(self) -> bytes | None:
        """What the file holds."""
        answer = await self.ask("GET")
        return answer.body if answer.status == 200 else None


async def owner(server: Served, path: str = PATH) -> Owner:
    """A new user."""
    return Owner(server, await server.sign_up(), path)


@define
class Upload:
    """A PUT whose body comes when the test wants it."""

    client: Client

    async def finish(self, rest: bytes) -> int:
        """Send what is missing; the status of the answer."""
        self.client.send(rest)
        return (await self.client.answer()).code


async def upload(owner: Owner, length: int, token: str | None = None) -> Upload:
    """Begin a PUT; it is let in when this returns."""
    client = Client()
    factory = ClientFactory.forProtocol(lambda: client)
    factory.noisy = False
    reactor.connectTCP("127.0.0.1", owner.server.port, factory)
    await until(lambda: client.transport is not None)
    lines = [
        f"PUT /storage/{owner.user.pubky}/{owner.path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Cookie: {owner.user.cookie}",
        f"Content-Length: {length}",
        "Expect: 100-continue",
        "Connection: close",
    ]
    if token is not None:
        lines.append(f"If: (<{token}>)")
    client.send("\r\n".join([*lines, "", ""]).encode())
    assert (await client.answer()).code == 100
    return Upload(client)


def refused(answer: Answer, status: int, text: str) -> None:
    """An answer is this refusal, in plain text."""
    assert (answer.status, answer.text) == (status, text)
    assert answer.header("content-type") == "text/plain; charset=utf-8"


@pytest_twisted.ensureDeferred
async def test_a_new_lock() -> None:
    """LOCK tells token, time and path, in fields that a script may read and in XML; it creates nothing."""
    async with served() as server:
        alice = await owner(server, "pub/./app//a%26%20b")
        answer = await alice.ask("LOCK")
        assert answer.status == 200
        found = re.fullmatch(r"<(opaquelocktoken:[0-9a-f-]{36})>", answer.header("lock-token") or "")
        assert found
        assert answer.header("timeout") == "Second-30"
        assert answer.header("content-type") == "application/xml; charset=utf-8"
        assert answer.text == (
            '<?xml version="1.0" encoding="utf-8"?><D:prop xmlns:D="DAV:"><D:lockdiscovery><D:activelock>'
            "<D:locktype><D:write/></D:locktype><D:lockscope><D:exclusive/></D:lockscope><D:depth>0</D:depth>"
            f"<D:timeout>Second-30</D:timeout><D:locktoken><D:href>{found[1]}</D:href></D:locktoken>"
            f"<D:lockroot><D:href>/storage/{alice.user.pubky}/pub/./app//a%26%20b</D:href></D:lockroot>"
            "</D:activelock></D:lockdiscovery></D:prop>"
        )
        exposed = (answer.header("access-control-expose-headers") or "").split(",")
        assert {"lock-token", "timeout"} <= set(exposed)
        assert await alice.content() is None
        assert await server.store.events(0, 10, True) == []
        refused(await Owner(server, alice.user, "pub/app/a&%20b").ask("LOCK"), 423, "Resource is locked")


@pytest.mark.parametrize(
    ("timeout", "granted"),
    [
        (None, 30),
        ("Second-10", 10),
        ("Second-99999", 60),
        ("Infinite, Second-10", 60),
        ("Second--5", 1),
        ("nonsense", 30),
        ("ü", 30),
    ],
)
@pytest_twisted.ensureDeferred
async def test_time_granted(timeout: str | None, granted: int) -> None:
    """A lock lives as long as was granted and no longer."""
    async with served() as server:
        alice = await owner(server)
        headers: dict[str, Any] = {} if timeout is None else {"Timeout": timeout}
        answer = await alice.ask("LOCK", **headers)
        assert answer.header("timeout") == f"Second-{granted}"
        assert f"<D:timeout>Second-{granted}</D:timeout>" in answer.text
        server.clock.advance(granted - 0.01)
        assert await alice.is_locked()
        server.clock.advance(0.01)
        assert not await alice.is_locked()


@pytest.mark.parametrize("body", [b"", EXCLUSIVE, b"<exclusive/><write/>", EXCLUSIVE.ljust(16_384)])
@pytest_twisted.ensureDeferred
async def test_lockinfo(body: bytes) -> None:
    """A lock may be asked for in XML, up to 16 KiB."""
    async with served() as server:
        alice = await owner(server)
        assert (await alice.ask("LOCK", body)).status == 200
        refused(await alice.ask("LOCK", body), 423, "Resource is locked")


@pytest.mark.parametrize("body", [SHARED, b"<D:lockinfo/>", b"\xff", b" ", b"{}"])
@pytest_twisted.ensureDeferred
async def test_other_locks(body: bytes) -> None:
    """What does not ask for an exclusive write lock is refused, also while the path is locked."""
    async with served() as server:
        alice = await owner(server)
        refused(await alice.ask("LOCK", body), 400, "Only exclusive write locks are supported")
        assert not await alice.is_locked()
        await alice.lock()
        refused(await alice.ask("LOCK", body), 400, "Only exclusive write locks are supported")


@pytest_twisted.ensureDeferred
async def test_large_lockinfo() -> None:
    """More than 16 KiB of XML is too much, announced or not; but who may not lock hears that first."""
    async with served() as server:
        alice = await owner(server)
        body = EXCLUSIVE.ljust(16_385)
        refused(await alice.ask("LOCK", body), 413, "lockinfo body too large")
        chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        refused(await alice.ask("LOCK", chunked, Transfer_Encoding="chunked"), 413, "lockinfo body too large")
        target = f"/storage/{alice.user.pubky}/{PATH}"
        refused(await server.ask("LOCK", target, body=body), 401, "Unauthorized")
        assert (await alice.ask("PATCH", body)).status == 405
        await server.store.set_disabled(alice.user.pubky, True)
        refused(await alice.ask("LOCK", body), 403, "User is disabled")
        assert (await alice.ask("LOCK", body, STALE)).status == 403


@pytest.mark.parametrize("legacy", [False, True])
@pytest_twisted.ensureDeferred
async def test_writes_under_a_lock(legacy: bool) -> None:
    """While a lock lives only its token writes, on both families of routes; a write does not end it."""
    async with served() as server:
        alice = await owner(server)
        token = await alice.lock()
        refused(await alice.ask("PUT", b"1", legacy=legacy), 423, "Resource is locked")
        refused(await alice.ask("DELETE", legacy=legacy), 423, "Resource is locked")
        refused(await alice.ask("LOCK"), 423, "Resource is locked")
        refused(await alice.ask("PUT", b"1", STALE, legacy), 412, NOT_LIVE)
        refused(await alice.ask("DELETE", None, STALE, legacy), 412, NOT_LIVE)
        assert await alice.content() is None
        assert (await alice.ask("PUT", b"1", token, legacy)).status == 201
        assert await alice.is_locked()
        assert (await alice.ask("HEAD", legacy=legacy)).status == 200
        assert await alice.content() == b"1"
        assert (await alice.ask("DELETE", None, token, legacy)).status == 204
        assert (await alice.ask("DELETE", None, token, legacy)).status == 404
        assert (await alice.ask("PUT", b"2", token, legacy)).status == 201
        assert await alice.is_locked()
        assert (await alice.unlock(token)).status == 204
        refused(await alice.ask("PUT", b"3", token, legacy), 412, NOT_LIVE)
        refused(await alice.ask("DELETE", None, token, legacy), 412, NOT_LIVE)
        assert await alice.content() == b"2"
        assert (await alice.ask("DELETE", legacy=legacy)).status == 204


@pytest.mark.parametrize(
    "condition",
    [
        "(<{token}>)",
        "(<{stale}>) (<{token}>)",
        "<http://x/a> (Not <{stale}> [\"etag\"]) (<{token}>)",
        "(Not <{token}>)",
        "(< {token} >)",
    ],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_if_names_the_lock(condition: str) -> None:
    """Any token in `If` that is the live lock's lets a write pass, whatever stands around it."""
    async with served() as server:
        alice = await owner(server)
        token = await alice.lock()
        assert (await alice.ask("PUT", b"1", If=condition.format(token=token, stale=STALE))).status == 201


@pytest.mark.parametrize(
    ("condition", "locked", "free"),
    [
        ("", 423, 201),
        ('(["etag"])', 423, 201),
        ("(<urn:uuid:1>)", 423, 201),
        ("(<{token}", 423, 201),
        ("({token})", 423, 201),
        ("<x (<{token}>)", 423, 201),
        ("(<{stale}>)", 412, 412),
        ("(<{token}0>)", 412, 412),
        ("(<opaquelocktoken:>)", 412, 412),
        ("(<opaquelocktoken:*>) (<*>)", 412, 412),
    ],
)
@pytest_twisted.ensureDeferred
async def test_if_names_another_lock_or_none(condition: str, locked: int, free: int) -> None:
    """A write that names no token needs a free path; one that names another's fails on any."""
    async with served() as server:
        alice = await owner(server)
        token = await alice.lock()
        condition = condition.format(token=token, stale=STALE)
        assert (await alice.ask("PUT", b"1", If=condition)).status == locked
        await alice.unlock(token)
        assert (await alice.ask("PUT", b"1", If=condition)).status == free


@pytest_twisted.ensureDeferred
async def test_several_if_lines() -> None:
    """Tokens of all `If` lines count."""
    async with served() as server:
        alice = await owner(server)
        token = await alice.lock()
        fields = [*alice.user.headers.items(), ("If", f"(<{STALE}>)"), ("If", f"(<{token}>)")]
        target = f"/storage/{alice.user.pubky}/{PATH}"
        assert (await server.ask("PUT", target, fields, b"1")).status == 201


@pytest_twisted.ensureDeferred
async def test_expiry() -> None:
    """When its time is over a lock is gone: the path is free, its token stale, and a new lock another one."""
    async with served() as server:
        alice = await owner(server)
        token = await alice.lock(1)
        server.clock.advance(1.5)
        refused(await alice.ask("PUT", b"1", token), 412, NOT_LIVE)
        assert (await alice.ask("PUT", b"1")).status == 201
        refused(await alice.unlock(token), 409, "No lock with this token on this path")
        refused(await alice.ask("LOCK", None, token), 412, NOT_LIVE)
        assert await alice.lock() != token


@pytest_twisted.ensureDeferred
async def test_refresh() -> None:
    """LOCK with a token in `If` gives the lock a new time, later or earlier; its body means nothing."""
    async with served() as server:
        alice = await owner(server)
        token = await alice.lock(60)
        answer = await alice.ask("LOCK", SHARED, token, Timeout="Second-10")
        assert answer.status == 200
        assert answer.header("lock-token") is None
        assert answer.header("timeout") == "Second-10"
        assert answer.header("content-type") == "application/xml; charset=utf-8"
        assert f"<D:href>{token}</D:href>" in answer.text
        server.clock.advance(9)
        assert (await alice.ask("LOCK", None, token)).header("timeout") == "Second-30"
        server.clock.advance(29)
        assert await alice.is_locked()
        server.clock.advance(1)
        assert not await alice.is_locked()
        for stale in (token, STALE):
            refused(await alice.ask("LOCK", None, stale), 412, NOT_LIVE)
        assert not await alice.is_locked()
        await alice.lock()
        refused(await alice.ask("LOCK", None, token), 412, NOT_LIVE)


@pytest_twisted.ensureDeferred
async def test_unlock() -> None:
    """UNLOCK ends the lock whose token it names, in brackets or bare."""
    async with served() as server:
        alice = await owner(server)
        token = await alice.lock()
        malformed = "Missing or malformed Lock-Token header"
        refused(await alice.ask("UNLOCK"), 400, malformed)
        for header in ("", "<urn:x>", f"<urn:x> <{token}>", f"<{token}", token[16:]):
            refused(await alice.ask("UNLOCK", Lock_Token=header), 400, malformed)
        refused(await alice.unlock(STALE), 409, "No lock with this token on this path")
        assert await alice.is_locked()
        answer = await alice.ask("UNLOCK", b"anything", Lock_Token=token)
        assert (answer.status, answer.body) == (204, b"")
        refused(await alice.unlock(token), 409, "No lock with this token on this path")
        assert not await alice.is_locked()


@pytest_twisted.ensureDeferred
async def test_a_token_is_good_for_its_path_only() -> None:
    """On a sibling path, or on the same path of somebody else, a token is a stale one; no lock changes."""
    async with served() as server:
        alice = await owner(server)
        sibling, bob = Owner(server, alice.user, PATH + "2"), await owner(server)
        token = await alice.lock()
        for other in (sibling, bob):
            for _ in range(2):  # free, then locked
                refused(await other.ask("PUT", b"1", token), 412, NOT_LIVE)
                refused(await other.ask("LOCK", None, token), 412, NOT_LIVE)
                refused(await other.unlock(token), 409, "No lock with this token on this path")
                if not await other.is_locked():
                    await other.lock()
        assert await alice.is_locked()
        assert (await alice.ask("PUT", b"1", token)).status == 201


@pytest.mark.parametrize("method", ["LOCK", "UNLOCK"])
@pytest_twisted.ensureDeferred
async def test_who_may_lock(method: str, family: str) -> None:
    """The first of: path, session, folder, root, capability, account; knowing a token helps nobody."""
    async with served() as server:
        alice, mallory = await owner(server), await owner(server)
        narrow = Owner(server, await server.sign_up("/pub/app/b:rw,/pub/app/a:r"))
        token = await alice.lock()
        target = f"/storage/{alice.user.pubky}/{PATH}"
        named = {"Lock-Token": f"<{token}>"}

        async def ask(headers: dict[str, str], target: str = target) -> Answer:
            return await server.ask(method, target, headers | named)

        refused(await ask({}), 401, "Unauthorized")
        foreign = (401, "Unauthorized") if family == "cookie" else (403, "Session user does not match target tenant")
        refused(await ask(mallory.user.headers), *foreign)
        storage = f"/storage/{alice.user.pubky}/"
        refused(await ask({}, storage + "pub/../.."), 400, "Invalid storage path: path traverses above root")
        for path in ("pub/app/", "other/"):
            refused(await ask(alice.user.headers, storage + path), 400, "Target path must be a file")
        outside = "Writing to directories other than '/pub/' and '/priv/' is forbidden"
        for path in ("other/x", "pub", "public/x"):
            refused(await ask(alice.user.headers, storage + path), 403, outside)
        refused(await narrow.ask(method, Lock_Token=f"<{token}>"), 403, "Session does not have write access to path")
        assert await alice.is_locked()
        assert (await alice.unlock(token)).status == 204


@pytest_twisted.ensureDeferred
async def test_disabled_users() -> None:
    """Who is disabled takes and refreshes no lock, but gives one back; DELETE under it works."""
    async with served() as server:
        alice = await owner(server)
        token = await alice.lock()
        assert (await alice.ask("PUT", b"1", token)).status == 201
        await server.store.set_disabled(alice.user.pubky, True)
        for named in (None, token, STALE):
            refused(await alice.ask("LOCK", None, named), 403, "User is disabled")
            refused(await alice.ask("PUT", b"2", named), 403, "User is disabled")
        refused(await alice.ask("DELETE"), 423, "Resource is locked")
        assert (await alice.ask("DELETE", None, token)).status == 204
        refused(await alice.ask("UNLOCK"), 400, "Missing or malformed Lock-Token header")
        assert (await alice.unlock(token)).status == 204


@pytest_twisted.ensureDeferred
async def test_what_a_lock_does_not_ask() -> None:
    """Quota, allowed paths and collisions are the write's affair: LOCK does not look at them."""
    async with served(token_required=True) as server:
        quota = UserQuota(storage_quota_mb=0, allowed_write_paths=("/pub/b/",))
        await server.store.add_signup_token(SignupToken("AKG0-6AGW-9EP0", 1, quota))
        alice = Owner(server, await server.sign_up(token="AKG0-6AGW-9EP0"))
        token = await alice.lock()
        refused(await alice.ask("PUT", b"1", token), 507, "Disk space quota exceeded")
        refused(await alice.ask("DELETE", None, token), 404, "Not Found")


@pytest_twisted.ensureDeferred
async def test_order_of_refusals_of_a_put() -> None:
    """The announced length comes before the lock, the lock before allowed paths and collisions."""
    async with served(default_limit=5000) as server:
        alice = await owner(server, "pub/a")
        assert (await Owner(server, alice.user, "pub/a/b").ask("PUT", b"1")).status == 201
        for length, without, stale in ((4, 423, 412), (4743, 507, 507)):
            token = await alice.lock()
            assert (await alice.ask("PUT", bytes(length))).status == without
            assert (await alice.ask("PUT", bytes(length), STALE)).status == stale
            assert (await alice.unlock(token)).status == 204
        token = await alice.lock()
        refused(await alice.ask("PUT", bytes(4), token), 409, "File/folder path collision")


@pytest_twisted.ensureDeferred
async def test_methods() -> None:
    """Only `/storage/…` has the two methods; refusals and preflights say which there are."""
    async with served() as server:
        alice = await owner(server)
        for method in ("PATCH", "POST", "PROPFIND"):
            answer = await alice.ask(method)
            assert (answer.status, answer.body) == (405, b"")
            assert answer.all("allow") == ["GET, HEAD, PUT, DELETE, LOCK, UNLOCK"]
        for method in ("LOCK", "UNLOCK"):
            answer = await alice.ask(method, legacy=True)
            assert (answer.status, answer.body) == (405, b"")
            assert answer.all("allow") == ["GET,HEAD,PUT,DELETE"]
            assert (await server.ask(method, "/info")).status == 405
        for legacy in (False, True):
            assert (await alice.ask("OPTIONS", legacy=legacy)).header("allow") == "GET,HEAD,PUT,DELETE"
        assert '"webdav-locks"' in (await server.ask("GET", "/info")).text


@pytest_twisted.ensureDeferred
async def test_private_paths(family: str) -> None:
    """Answers about locks of private paths stay out of caches, as all others about them."""
    async with served() as server:
        alice = await owner(server, "priv/a")
        locked = await alice.ask("LOCK")
        answers = [locked, await alice.ask("LOCK"), await alice.ask("UNLOCK"), await alice.ask("PUT", b"1")]
        answers.append(await alice.ask("UNLOCK", Lock_Token=locked.header("lock-token") or ""))
        assert [answer.status for answer in answers] == [200, 423, 400, 423, 204]
        for answer in answers:
            assert answer.header("cache-control") == "no-store"
            assert answer.all("vary")[0] == "Authorization, Cookie"
        rendered = server.metrics.render().decode()
        sample = rf'storage_request_count_total\{{addressing_mode="path",auth_method="{family}",.*\}} 5\n'
        assert re.search(sample, rendered)


@pytest.mark.parametrize("length", [10, 5000])
@pytest_twisted.ensureDeferred
async def test_a_slow_upload_keeps_its_lock(length: int) -> None:
    """The lock lives half a minute from the start of a write and from every ten seconds of it, and no longer."""
    async with served() as server:
        alice = await owner(server)
        token = await alice.lock(1)
        slow = await upload(alice, length, token)
        for _ in range(12):
            server.clock.advance(9.5)
            await turns()
            assert await alice.is_locked()
        assert await slow.finish(bytes(length)) == 201
        assert await alice.content() == bytes(length)
        server.clock.advance(19)  # at most ten seconds since it was last held
        assert await alice.is_locked()
        server.clock.advance(11)
        assert not await alice.is_locked()


@pytest_twisted.ensureDeferred
async def test_an_upload_that_breaks_off_lets_its_lock_go() -> None:
    """When the client of a slow upload is gone its lock lives out its time."""
    async with served() as server:
        alice = await owner(server)
        slow = await upload(alice, 10, await alice.lock(1))
        server.clock.advance(20)
        await turns()
        assert await alice.is_locked()
        calls = len(server.clock.getDelayedCalls())
        slow.client.vanish()
        await until(lambda: len(server.clock.getDelayedCalls()) < calls)
        for _ in range(4):
            server.clock.advance(10)
            await turns()
        assert not await alice.is_locked()
        assert await alice.content() is None


@pytest.mark.parametrize("length", [10, 5000])
@pytest.mark.parametrize("taken", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_lock_lost_while_the_body_comes(length: int, taken: bool) -> None:
    """A write whose lock is gone at its end changes nothing, whoever holds the path now, and leaves no body behind."""
    async with served() as server:
        alice = await owner(server)
        token = await alice.lock()
        assert (await alice.ask("PUT", b"old", token)).status == 201
        slow = await upload(alice, length, token)
        assert (await alice.unlock(token)).status == 204
        if taken:
            await alice.lock()
        server.clock.advance(10)
        await turns()
        assert await slow.finish(bytes(length)) == 412
        assert await alice.content() == b"old"
        assert await alice.is_locked() == taken
        assert await server.blobs.older_than(0, "", 10) == []


@pytest_twisted.ensureDeferred
async def test_an_unlocked_upload_lands() -> None:
    """A write that found the path free is not stopped by a lock that somebody takes while its body comes."""
    async with served() as server:
        alice = await owner(server)
        slow = await upload(alice, 5000)
        token = await alice.lock()
        assert await slow.finish(bytes(5000)) == 201
        assert await alice.content() == bytes(5000)
        assert (await alice.ask("PUT", b"1", token)).status == 201


@pytest_twisted.ensureDeferred
async def test_a_write_does_not_shorten_a_lock() -> None:
    """Half a minute is the least: what lives longer already is left alone."""
    async with served() as server:
        alice = await owner(server)
        token = await alice.lock(60)
        assert (await alice.ask("PUT", b"1", token)).status == 201
        server.clock.advance(59)
        assert await alice.is_locked()
        assert (await alice.ask("DELETE", None, token)).status == 204
        server.clock.advance(29)
        assert await alice.is_locked()
