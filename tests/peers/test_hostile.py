"""A peer that lies, or never ends: nothing is taken over, it is named, and nobody else waits for it.

Its record says that an account lives there, so it is asked; everything that it answers is wrong in one way.
"""

import json
from base64 import b64encode
from collections.abc import Callable, Coroutine
from itertools import count
from random import Random
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from blake3 import blake3
from twisted.internet.task import deferLater

from pkarr.builder import Builder
from pkarr.keys import Keypair
from pubky_homeserver.core.digests import EMPTY, fold, mark
from pubky_homeserver.core.peers import ALL
from pubky_homeserver.peers import mirror
from pubky_homeserver.web.request import ClientGone, Request
from tests.peers.judge import check_copy, entries
from tests.peers.worlds import NOW, User, World

LOG = "ab" * 16
VICTIM, LIAR = (Keypair(bytes([number]) * 32).public_key.z32 for number in (7, 8))
"""An account that lives at an honest peer, and one that the liar may speak for."""


def base64(data: bytes) -> str:
    """As answers have it."""
    return b64encode(data).decode()


def standing(seq: int, digest: bytes = EMPTY, **more: Any) -> dict[str, Any]:
    """Where a log stands."""
    return {
        "log_id": LOG,
        "seq": seq,
        "id": seq,
        "digest": base64(digest),
        "reigns": [[LOG, 1]],
        "floor": 0,
        "used": 0,
    } | more


def listed(path: str, body: bytes = b"x", seq: int = 1, **more: Any) -> dict[str, Any]:
    """A file of a list."""
    return {
        "path": path,
        "hash": base64(blake3(body).digest()),
        "length": len(body),
        "type": "text/plain",
        "modified": 5,
        "seq": seq,
    } | more


def mark_of(path: str, body: bytes = b"x") -> bytes:
    """The mark of such a file."""
    return mark(path, blake3(body).digest(), len(body), 5, "text/plain")


@define
class Liar:
    """Answers well, but for what a case says. Each answer is a function of the request."""

    world: World
    lies: "dict[str, Callable[[Liar, Request], Any]]"
    """Last part of a path → what is answered instead: a JSON value, bytes, or nothing (it answered itself)."""
    asked: list[str] = field(factory=list)

    async def answer(self, request: Request) -> None:
        """One request."""
        name = request.path.rpartition(b"/")[2].decode()
        name = "packets" if b"/packets/" in request.path else name
        self.asked.append(name)
        told = self.lies.get(name, getattr(Liar, f"honest_{name}", Liar.honest))(self, request)
        if isinstance(told, Coroutine):
            told = await told
        if told is not None:
            request.finish_with(told if isinstance(told, bytes) else json.dumps(told).encode())

    def honest(self, request: Request) -> None:
        """It knows nothing else."""
        request.setResponseCode(404)
        request.finish_with(b"")

    def honest_accounts(self, request: Request) -> Any:
        """One account with two files."""
        return {"accounts": [{"pubky": LIAR, "term": 1, "pub": standing(2, fold(EMPTY, *map(mark_of, FILES)))}],
                "next": None}  # fmt: skip

    def honest_entries(self, request: Request) -> Any:
        """Both, then nothing."""
        files = (
            [] if b"after=%2F" in request.query else [listed(path, seq=number + 1) for number, path in enumerate(FILES)]
        )
        return {"standing": standing(2, fold(EMPTY, *map(mark_of, FILES))), "entries": files}

    def honest_events(self, request: Request) -> Any:
        """None more."""
        return {"reigns": [[LOG, 1]], "events": []}

    def honest_body(self, request: Request) -> Any:
        """The body of each."""
        return b"x"

    async def honest_changes(self, request: Request) -> None:
        """It listens, and says that it has said all."""
        request.stream()
        await request.write(b"event: epoch\ndata: e\n\n")
        await self._drip(request, b"event: beat\ndata: 1\n\n", 5)

    async def _drip(self, request: Request, piece: bytes, seconds: float) -> None:
        try:
            while True:
                await request.write(piece)
                await deferLater(self.world.clock, seconds)
        except ClientGone:
            pass


FILES = ("/pub/a", "/pub/b")


def endless(path: Callable[[int], str], **more: Any) -> Callable[[Liar, Request], Any]:
    """Pages of a list that never end."""
    numbers = count(1)

    def page(liar: Liar, request: Request) -> Any:
        return {"standing": standing(0), "entries": [listed(path(next(numbers)), **more) for _ in range(250)]}

    return page


def dripping(piece: bytes, seconds: float = 10) -> Callable[[Liar, Request], Any]:
    """An answer that never ends, a little at a time."""

    async def answer(liar: Liar, request: Request) -> None:
        request.stream()
        await liar._drip(request, piece, seconds)

    return answer


async def _many_hints(liar: Liar, request: Request) -> None:
    """Hints at accounts that nobody knows."""
    request.stream()
    await request.write(b"event: epoch\ndata: e\n\n")
    random = Random(1)
    alphabet = "ybndrfg8ejkmcpqxot1uwisza345h769"
    for _ in range(300):
        pubky = "".join(random.choices(alphabet, k=51)) + "y"
        hint = json.dumps({"pubky": pubky, "log": "pub", "seq": 1}).encode()
        await request.write(b"event: change\ndata: " + hint + b"\n\n")
    await liar._drip(request, b"event: beat\ndata: 1\n\n", 5)


def others_accounts(liar: Liar, request: Request) -> Any:
    """The victim's account, as if it lived at the liar."""
    return {"accounts": [{"pubky": VICTIM, "term": 2**63, "pub": standing(9)}], "next": None}


async def again(liar: Liar, request: Request) -> Any:
    """There is always one more page of accounts."""
    await deferLater(liar.world.clock, 0.1)
    return {"accounts": [], "next": "again"}


def page_of(*files: dict[str, Any], **more: Any) -> Callable[[Liar, Request], Any]:
    """A page with these files, whatever is asked."""
    return lambda _liar, _request: {"standing": standing(2, **more), "entries": files}


def event(**more: Any) -> Callable[[Liar, Request], Any]:
    """One event after the two files."""
    facts = {"seq": 3, "id": 30, "op": "PUT", "digest": base64(fold(EMPTY, *map(mark_of, (*FILES, "/pub/c"))))}
    said = listed("/pub/c", seq=3) | facts | more
    return lambda _liar, _request: {"reigns": [[LOG, 1]], "events": [said]}


LIES: dict[str, dict[str, Callable[[Liar, Request], Any]]] = {
    "no JSON": {"entries": lambda _liar, _request: b"{"},
    "deep JSON": {"entries": lambda _liar, _request: b"[" * 100_000},
    "another shape": {"entries": lambda _liar, _request: {"entries": 5}},
    "nine megabytes": {"entries": lambda _liar, _request: b" " * (9 << 20)},
    "a page of accounts of nine megabytes": {"accounts": lambda _liar, _request: b" " * (9 << 20)},
    "an answer that drips": {"entries": dripping(b" ")},
    "accounts that drip": {"accounts": dripping(b" ")},
    "a list without end": {"entries": endless(lambda number: f"/pub/{number:012}")},
    "the same page for ever": {"entries": page_of(*(listed(path) for path in FILES))},
    "paths out of order": {"entries": page_of(listed("/pub/b"), listed("/pub/a"))},
    "private paths in the public log": {"entries": page_of(listed("/priv/a"))},
    "paths outside": {"entries": page_of(listed("/etc/passwd"))},
    "paths that climb": {"entries": page_of(listed("/pub/../priv/a"))},
    "a negative length": {"entries": page_of(listed("/pub/a", length=-1))},
    "a number beyond 2^53": {"entries": page_of(listed("/pub/a", modified=2**60))},
    "another digest": {
        "entries": lambda liar, request: {**liar.honest_entries(request), "standing": standing(2, b"\1" * 16)}
    },
    "reigns of another log": {"entries": page_of(reigns=[["cd" * 16, 1]])},
    "ten thousand reigns": {"events": lambda _liar, _request: {"reigns": [[LOG, 1]] * 10_000, "events": []}},
    "a number left out": {"events": event(seq=5)},
    "an old number": {"events": event(seq=1)},
    "an event of another digest": {"events": event(digest=base64(b"\2" * 16))},
    "an event of next year": {"events": event(id=int((NOW + 3e7) * 1e6))},
    "an event of a private path": {"events": event(path="/priv/c")},
    "an event nobody knows": {"events": event(op="MOVE")},
    "another body": {"body": lambda _liar, _request: b"y"},
    "a body that drips": {"body": dripping(b"")},
    "a body without end": {"body": dripping(b"y" * 65536, 0.01)},
    "somebody else's account": {"accounts": others_accounts},
    "accounts without end": {"accounts": again},
    "hints without end": {"changes": _many_hints},
    "a line without end": {"changes": dripping(b"x" * 600)},
    "a stream of nonsense": {"changes": dripping(b"event: change\ndata: {}\n\n", 1)},
    "a packet that is none": {"packets": lambda _liar, _request: b"\0" * 200},
    "a packet of a megabyte": {"packets": lambda _liar, _request: b"\0" * (1 << 20)},
}
"""What is wrong, and where."""

UNSEEN = {"another body", "a body without end", "a body that drips", "somebody else's account",
          "an answer that drips", "accounts that drip", "a packet that is none",
          "accounts without end"}  # fmt: skip
"""What cannot be told from bad luck, or is nothing that we would have to believe."""


async def _world(lies: dict[str, Callable[[Liar, Request], Any]]) -> tuple[World, User, Liar]:
    """Three homeservers: one follows an honest one and a liar."""
    world = World(
        Random(1),
        {
            "us": {"good": {"follow": ALL}, "evil": {"follow": ALL, "max_bytes": 1 << 20}},
            "good": {"us": {"offer": ALL}},
            "evil": {"us": {"offer": ALL}},
        },
    )
    victim = User(Keypair(b"\x07" * 32))
    await world.sign_up(victim, "good")
    await world.put(victim, "/pub/mine", b"body")
    evil = world.nodes["evil"]
    await world.network.publish(Builder().https("_pubky", 0, evil.key).sign(Keypair(b"\x08" * 32), int(NOW * 1e6)))
    await world.start("good")
    liar = Liar(world, lies)
    world.wires.sites["evil"] = liar.answer
    await world.start("us")
    return world, victim, liar


@pytest_twisted.ensureDeferred
async def test_the_honest_answers() -> None:
    """Without a lie the account of the liar is copied: the cases test what they say."""
    world, victim, _ = await _world({})
    world.pass_time(30)
    copy = await world.nodes["us"].store.copies.copy(LIAR)
    assert copy is not None
    assert (copy.public.is_whole, copy.missing) == (True, 0)
    assert [entry.path for entry in await entries(world.nodes["us"], LIAR, "/pub/")] == [*FILES]
    await check_copy(world.nodes["good"], world.nodes["us"], victim.pubky)
    for name in ("us", "good"):
        await world.kill(name)


@pytest.mark.parametrize("case", LIES)
@pytest_twisted.ensureDeferred
async def test_lies(case: str) -> None:
    """No lie becomes a file or replaces one; the liar is named; the honest peer's changes are here within a second."""
    world, victim, liar = await _world(LIES[case])
    for number in range(12):
        world.pass_time(10)
        await world.put(victim, "/pub/mine", b"body %d" % number)
        world.pass_time(1)
        await check_copy(world.nodes["good"], world.nodes["us"], victim.pubky)
    us = world.nodes["us"]
    for entry in await entries(us, LIAR, "/pub/") + await entries(us, LIAR, "/priv/"):
        assert (entry.blob, entry.body) in ((None, None), (None, b"x")), entry
    assert await entries(us, LIAR, "/priv/") == []
    assert us.peering is not None
    peers: Any = us.peering.overview.status()["peers"]
    (told,) = [one for one in peers if one["name"] == "evil"]
    assert case in UNSEEN or told["failure"] or told["trouble"], told
    (honest,) = [one for one in peers if one["name"] == "good"]
    assert (honest["failure"], honest["trouble"]) == (None, None)
    assert len(liar.asked) < 5000, "it is asked without end"
    for name in ("us", "good"):
        await world.kill(name)


LARGE: dict[str, Callable[[Liar, Request], Any]] = {
    "a number": page_of(listed("/pub/a", length=2**42 + 1)),
    "its files are larger than files can be": endless(lambda number: f"/pub/{number:012}", length=2**42),
    "its log has more events than there can have been": lambda _liar, _request: {
        "standing": standing(2**39),
        "entries": [],
    },
}
"""What is said of it, and a list."""


@pytest.mark.parametrize("said", LARGE)
@pytest_twisted.ensureDeferred
async def test_numbers_that_nobody_has(said: str) -> None:
    """What could not be counted on from, or added up, once the account opens here, is not followed at all."""
    world, _, _ = await _world({"entries": LARGE[said]})
    world.pass_time(30)
    us = world.nodes["us"]
    assert us.peering is not None
    peers: Any = us.peering.overview.status()["peers"]
    (told,) = [one["trouble"] for one in peers if one["name"] == "evil"]
    assert str(told).endswith(said)
    for name in ("us", "good"):
        await world.kill(name)


@pytest_twisted.ensureDeferred
async def test_what_is_kept_in_mind_of_a_peer_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hints at accounts without end are forgotten beyond a bound; accounts that are real are followed all the same."""
    monkeypatch.setattr(mirror, "MOST", 100)
    world, victim, _ = await _world({"changes": _many_hints})
    us = world.nodes["us"]
    assert us.peering is not None
    (mind,) = [one for one in us.peering.mirrors if one.peer.name == "evil"]
    for _ in range(60):
        world.pass_time(5)
        assert len(mind._due) + len(mind._waiting) + len(mind._failures) <= 100 + 2 * mirror.AT_ONCE + 100
    await check_copy(world.nodes["good"], us, victim.pubky)
    for name in ("us", "good"):
        await world.kill(name)


@pytest_twisted.ensureDeferred
async def test_accounts_without_end_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who offers more accounts than anybody has is not asked for more."""
    monkeypatch.setattr(mirror, "MOST", 100)
    world, _, liar = await _world({"accounts": again})
    world.pass_time(60)
    us = world.nodes["us"]
    assert us.peering is not None
    peers: Any = us.peering.overview.status()["peers"]
    assert [one["failure"] for one in peers] == [None, "it offers more than 100 accounts"]
    asked = len(liar.asked)
    world.pass_time(60)
    assert len(liar.asked) == asked
    for name in ("us", "good"):
        await world.kill(name)
