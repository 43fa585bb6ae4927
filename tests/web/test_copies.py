"""What a copy answers: public reads with a word of how new they are, and to everything else where its account lives."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from attrs import define, evolve, field
from blake3 import blake3
from twisted.internet import reactor as _reactor

from pkarr.keys import Keypair
from pubky_homeserver.copies import STALE, Copies
from pubky_homeserver.core.copies import CopiedLog, Copy, Position
from pubky_homeserver.core.digests import EMPTY
from pubky_homeserver.core.records import Entry
from tests.web.client import Answer, ask
from tests.web.served import NOW, Served, User, served

reactor: Any = _reactor

PRIMARY = Keypair(b"\x08" * 32).public_key.z32
WHOLE = CopiedLog(Position("ab" * 16, 7, 70, EMPTY), is_whole=True, confirmed=int(NOW - 30) * 1_000_000)


@define(eq=False)
class Shelf:
    """A store of copies that a test fills."""

    kept: dict[str, Copy] = field(factory=dict)

    async def copy(self, pubky: str) -> Copy | None:
        """See `ICopyStore`."""
        return self.kept.get(pubky)

    async def copies(self, after: str, limit: int) -> list[Copy]:
        """See `ICopyStore`."""
        return [copy for pubky, copy in sorted(self.kept.items()) if pubky > after][:limit]


@define
class Mirroring:
    """A homeserver on which somebody's files are a copy."""

    home: Served
    shelf: Any
    copies: Copies
    owner: User

    async def set(self, **changes: Any) -> None:
        """Change what is known of the copy's public log."""
        pubky = self.owner.pubky
        copy = self.shelf.kept.get(pubky) or Copy(pubky, PRIMARY, 0, 77, 0, WHOLE, CopiedLog())
        self.shelf.kept[pubky] = evolve(copy, public=evolve(copy.public, **changes))
        await self.copies.refresh(pubky)

    async def ask(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
        """One request about the account, in the form with the key in the path."""
        target = f"/storage/{self.owner.pubky}{path}"
        return await ask(reactor, self.home.port, method, target, headers, body or None, "127.0.0.1")


@pytest_twisted.async_yield_fixture
async def one() -> AsyncIterator[Mirroring]:
    """An owner with files, which are a copy from then on."""
    shelf: Any = Shelf()
    async with served(copies=lambda clock: Copies(shelf, clock)) as home:
        owner = await home.sign_up()
        for path, body in (("/pub/a.txt", b"one"), ("/pub/d/b.txt", b"two"), ("/priv/c.txt", b"three")):
            answer = await home.ask("PUT", f"/storage/{owner.pubky}{path}", owner.headers, body)
            assert answer.status == 201
        assert home.copies is not None
        mirroring = Mirroring(home, shelf, home.copies, owner)
        await mirroring.set()
        yield mirroring


def told(answer: Answer) -> tuple[str | None, str | None, str | None]:
    """What an answer says of the copy."""
    return answer.header("pubky-role"), answer.header("pubky-primary"), answer.header("pubky-mirror")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest_twisted.ensureDeferred
async def test_public_reads(one: Mirroring, method: str) -> None:
    """A file is as at its primary, and the answer says how new it is; scripts in browsers may read that."""
    answer = await one.ask(method, "/pub/a.txt", {"Origin": "https://app.example"})
    assert (answer.status, answer.body) == (200, b"one" if method == "GET" else b"")
    assert answer.header("etag")
    assert answer.header("last-modified")
    assert told(answer) == ("mirror", PRIMARY, f"seq=7; confirmed={int(NOW - 30)}; state=current")
    exposed = (answer.header("access-control-expose-headers") or "").split(",")
    assert {"pubky-role", "pubky-primary", "pubky-mirror", "retry-after"} <= set(exposed)


@pytest_twisted.ensureDeferred
async def test_the_older_form(one: Mirroring) -> None:
    """So it is where the account stands in a header."""
    answer = await one.home.ask("GET", "/pub/a.txt", {"pubky-host": one.owner.pubky})
    assert (answer.status, answer.body) == (200, b"one")
    assert told(answer)[0] == "mirror"


@pytest_twisted.ensureDeferred
async def test_listings(one: Mirroring) -> None:
    """A listing is as at the primary, in the same order."""
    answer = await one.ask("GET", "/pub/")
    owner = one.owner.pubky
    assert answer.text == f"pubky://{owner}/pub/a.txt\npubky://{owner}/pub/d/b.txt"
    assert told(answer)[0] == "mirror"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/pub/a.txt"),
        ("PUT", "/pub/new"),
        ("PUT", "/priv/new"),
        ("DELETE", "/pub/a.txt"),
        ("LOCK", "/pub/a.txt"),
        ("UNLOCK", "/pub/a.txt"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_writes_are_sent_to_the_primary(one: Mirroring, method: str, path: str) -> None:
    """Whoever writes, session or not, learns in one sentence where the account lives; nothing changes here."""
    for headers in ({}, one.owner.headers):
        answer = await one.ask(method, path, headers, b"new" if method == "PUT" else b"")
        assert (answer.status, answer.header("cache-control")) == (421, "no-store")
        assert PRIMARY in answer.text
        assert told(answer)[:2] == ("mirror", PRIMARY)
    assert (await one.ask("GET", "/pub/a.txt")).body == b"one"
    assert (await one.ask("GET", "/pub/new")).status == 404


@pytest_twisted.ensureDeferred
async def test_a_body_is_not_waited_for(one: Mirroring) -> None:
    """A write is refused by its head: who announces a long body need not send it."""
    answer = await one.ask("PUT", "/pub/large", {"Content-Length": "1000000", "Expect": "100-continue"})
    assert answer.status == 421


@pytest_twisted.ensureDeferred
async def test_other_methods(one: Mirroring) -> None:
    """A method that storage does not have is refused as ever."""
    assert (await one.ask("POST", "/pub/a.txt")).status == 405


@pytest.mark.parametrize("path", ["/priv/c.txt", "/priv/"])
@pytest_twisted.ensureDeferred
async def test_private_files_are_shown_to_nobody(one: Mirroring, path: str) -> None:
    """A backup of private files is no way to them: not even for a session of their owner that is left here."""
    for headers in ({}, one.owner.headers):
        answer = await one.ask("GET", path, headers)
        assert answer.status == 401
        assert b"three" not in answer.body


@pytest_twisted.ensureDeferred
async def test_nothing_is_missing_before_the_list_is_whole(one: Mirroring) -> None:
    """Until then a listing, and a path that is not here, are 503 with a time to come back; what is here is shown."""
    await one.set(is_whole=False, position=None)
    for path in ("/pub/", "/pub/d/", "/pub/none/", "/pub/none"):
        answer = await one.ask("GET", path)
        assert (answer.status, answer.header("retry-after")) == (503, "1"), path
        assert told(answer)[2] == f"seq=0; confirmed={int(NOW - 30)}; state=bootstrapping"
    assert (await one.ask("GET", "/pub/a.txt")).body == b"one"
    await one.set(is_whole=True)
    for path in ("/pub/none/", "/pub/none"):
        answer = await one.ask("GET", path)
        assert answer.status == 404
        assert told(answer)[0] == "mirror"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest_twisted.ensureDeferred
async def test_a_body_that_is_on_its_way(one: Mirroring, method: str) -> None:
    """An entry without body is not a file that is gone: 503."""
    entry = Entry("/pub/late", blake3(b"late").digest(), 4, "text/plain", 1)
    await one.home.store.put(one.owner.pubky, entry, None, True)
    answer = await one.ask(method, "/pub/late")
    assert (answer.status, answer.header("retry-after")) == (503, "1")


@pytest_twisted.ensureDeferred
async def test_how_new_it_is(one: Mirroring) -> None:
    """Ten minutes without a word of the primary and the copy says so, and serves on."""

    async def state() -> str:
        answer = await one.ask("GET", "/pub/a.txt")
        assert answer.body == b"one"
        return (told(answer)[2] or "").partition("confirmed=")[2]

    one.copies.keep_up(one.owner.pubky)
    one.home.clock.advance(STALE)
    assert await state() == f"{int(NOW - 30)}; state=stale"
    one.copies.hear("somebody else")
    assert await state() == f"{int(NOW - 30)}; state=stale"
    one.copies.hear(PRIMARY)
    assert await state() == f"{int(NOW + STALE)}; state=current"
    one.copies.fall_behind(one.owner.pubky)
    assert await state() == f"{int(NOW - 30)}; state=stale"


@pytest_twisted.ensureDeferred
async def test_others_are_not_concerned(one: Mirroring) -> None:
    """An account that lives here answers as if there were no copies."""
    other = await one.home.sign_up()
    path = f"/storage/{other.pubky}/pub/a.txt"
    assert (await one.home.ask("PUT", path, other.headers, b"mine")).status == 201
    answer = await one.home.ask("GET", path)
    assert (answer.status, answer.body, told(answer)) == (200, b"mine", (None, None, None))


@pytest_twisted.ensureDeferred
async def test_a_copy_that_is_gone(one: Mirroring) -> None:
    """Once it is forgotten nothing is said of it."""
    one.shelf.kept.clear()
    assert one.copies.all() != []
    assert one.copies.used_by(PRIMARY) == 77
    assert await one.copies.refresh(one.owner.pubky) is None
    assert one.copies.all() == []
    assert one.copies.used_by(PRIMARY) == 0
    assert told(await one.ask("GET", "/pub/a.txt")) == (None, None, None)


@pytest_twisted.ensureDeferred
async def test_copies_are_read_at_the_start(one: Mirroring) -> None:
    """A process that starts knows all copies, page by page, and that it has not heard of their primaries yet."""
    copies = Copies(one.shelf, one.home.clock)
    assert copies.of(one.owner.pubky) is None
    await copies.load()
    assert copies.of(one.owner.pubky) == one.shelf.kept[one.owner.pubky]
    copies.hear(PRIMARY)
    (copy,) = copies.all()
    assert copies.confirmed(copy) == int(NOW - 30)
