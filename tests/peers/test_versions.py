"""Homeservers that are upgraded at different times: an older one lacks what came later, a newer one says more than we
understand. `hello` names what each can. Following goes on, and so do moves; what is missing is said in words.

Both nodes are of today. Between them lies a translator: to each the other one looks like one of another version.
"""

import json
from collections.abc import Callable
from random import Random
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from pkarr.keys import Keypair
from pubky_homeserver.core.paths import is_public
from pubky_homeserver.peers.bodies import LEAST
from pubky_homeserver.peers.erasing import ERASE
from pubky_homeserver.peers.exchange import FEATURE as EXCHANGE
from pubky_homeserver.peers.handing import RANGES
from pubky_homeserver.peers.late import LATE
from pubky_homeserver.peers.messages import HOLDINGS
from pubky_homeserver.peers.peering import Peering
from pubky_homeserver.peers.probing import Probe, probe
from pubky_homeserver.peers.web import FEATURES, VERSION
from pubky_homeserver.web.request import Request
from tests.peers.judge import check_copy, check_nothing_lost
from tests.peers.worlds import Node, User, World, mutual, run

BATCHES = "batches"
FIRST = frozenset({"accounts", "changes", "entries", "events", "bodies", "packets"})
"""What every version understands."""
LATER = (BATCHES, RANGES, HOLDINGS, EXCHANGE, LATE, ERASE)
"""What came after it, each by itself."""

USERS = 8
"""Of one of the two: so many that several of their logs are asked for at once."""

REST = 700.0
"""Seconds after which everybody has tried again."""

NOBODY = "nobody"
"""A host at which nothing is understood."""


def feature_of(method: str, path: str, headers: Headers) -> str | None:
    """Which of what came later a request needs."""
    name = path.rpartition("/")[2]
    if headers.hasHeader(b"range"):
        return RANGES
    known = {"/peer/v1/copies": HOLDINGS, "/peer/v1/events": BATCHES, "/peer/v1/packets": EXCHANGE}
    return known.get(path) or {"late": LATE, "erase": ERASE}.get(name if method == "POST" else "")


@implementer(IAgent)
@define(eq=False)
class Translator:
    """Lets the other side look like one of another version."""

    inner: IAgent
    lacks: frozenset[str]
    """What it does not understand."""
    translate: Callable[[Any], Any]
    """What it says, from what one of today does."""
    asked: list[str]
    """What of all that came later it was asked for."""

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> "Deferred[IResponse]":
        """See `IAgent`."""
        url, fields = urlsplit(uri.decode("ascii")), (headers or Headers()).copy()
        feature = feature_of(method.decode("ascii"), url.path, fields)
        if feature is not None:
            self.asked.append(feature)
        if feature in self.lacks:
            if feature == RANGES:
                fields.removeHeader(b"range")  # whoever does not know it sends everything
            else:
                uri = url._replace(netloc=NOBODY).geturl().encode("ascii")
        answering: Deferred[IResponse] = self.inner.request(method, uri, fields, bodyProducer)
        answering.addCallback(lambda response: cast(IResponse, Translated(response, self.translate)))
        return answering


class Translated:
    """An answer, in the words of another version."""

    def __init__(self, response: Any, translate: Callable[[Any], Any]) -> None:
        self.response, self.translate = response, translate

    def __getattr__(self, name: str) -> Any:
        return getattr(self.response, name)

    def deliverBody(self, protocol: Protocol) -> None:
        """See `IResponse`."""
        kind = (self.response.headers.getRawHeaders("content-type") or [""])[0]
        if kind == "application/json":
            protocol = Whole(protocol, lambda data: said_as(data, self.translate))
        elif kind == "text/event-stream":
            protocol = Frames(protocol, lambda data: frames_as(data, self.translate))
        self.response.deliverBody(protocol)


class Frames(Protocol):
    """What comes, each piece translated: on our wire no event of a stream is cut."""

    def __init__(self, reader: Protocol, translate: Callable[[bytes], bytes]) -> None:
        self.reader, self.translate = reader, translate

    def connectionMade(self) -> None:
        """See `Protocol`."""
        self.reader.makeConnection(self.transport)

    def dataReceived(self, data: bytes) -> None:
        """See `Protocol`."""
        self.reader.dataReceived(self.translate(data))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See `Protocol`."""
        self.reader.connectionLost(reason)


class Whole(Frames):
    """What came, translated when all is there."""

    data = b""

    def dataReceived(self, data: bytes) -> None:
        """See `Protocol`."""
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See `Protocol`."""
        self.reader.dataReceived(self.translate(self.data))
        self.reader.connectionLost(reason)


def said_as(data: bytes, translate: Callable[[Any], Any]) -> bytes:
    """JSON, translated; half of it as it is."""
    try:
        return json.dumps(translate(json.loads(data))).encode()
    except ValueError:
        return data


def frames_as(data: bytes, translate: Callable[[Any], Any]) -> bytes:
    """The JSON within a stream, translated, and events between that nobody here has heard of."""
    lines = [
        b"data: " + said_as(line[6:], translate) if line.startswith(b"data: {") else line for line in data.split(b"\n")
    ]
    return b"\n".join(lines).replace(b"\n\n", b"\n\nid: 7\nevent: news\ndata: {}\ndata: more\n\n: a word\n\n")


def older(lacks: frozenset[str]) -> Callable[[Any], Any]:
    """`hello` without these; everything else was so from the beginning."""

    def translate(said: Any) -> Any:
        if "features" in said:
            said["features"] = [one for one in said["features"] if one not in lacks]
        return said

    return translate


def newer(said: Any) -> Any:
    """In everything that is said there is something more, and `hello` names another version."""
    if isinstance(said, list):
        return [newer(one) for one in said]
    if not isinstance(said, dict):
        return said
    more = {name: newer(value) for name, value in said.items()}
    if "features" in more:
        more |= {"version": VERSION + 6, "features": [*more["features"], "telepathy", "time:travel/2"]}
    return {"": None, "news": [{"path": "../../etc"}, 1e300], **more, "zeal": {"seq": -1, "log": {}}}


async def _know_nothing(request: Request) -> None:
    request.setResponseCode(404)
    request.finish_with(b"Not Found")


def made(lacks: frozenset[str], translate: Callable[[Any], Any]) -> tuple[World, list[str]]:
    """Two homeservers that take each other for one of another version, and what they ask of all that came later."""
    asked: list[str] = []
    world = World(Random(1), mutual("a", "b"), between=lambda agent: Translator(agent, lacks, translate, asked))
    world.wires.sites[NOBODY] = _know_nothing
    return world, asked


async def _live(world: World, takes_late: bool = True) -> dict[str, object]:
    """Both have users, who write much; one moves while her old home does not know it yet; one is to be forgotten.

    What one of them said, before that, would be lost with it.
    """
    mover, forgotten, *rest = users = [User(Keypair(bytes([1 + number]) * 32)) for number in range(USERS)]
    for user in users:
        await world.sign_up(user, "a")
    at_b = User(Keypair(b"\x20" * 32))
    await world.sign_up(at_b, "b")
    for name in world.nodes:
        await world.start(name)
    world.wires.weather.cut, world.wires.weather.reach = 0.5, 4 * LEAST
    for _ in range(20):
        for user in (*users, at_b):
            await world.act(user)
        await world.put(mover, "/pub/large", world.random.randbytes(3 * LEAST))
        world.pass_time(2)
    world.wires.calm()
    world.pass_time(REST)
    a, b = world.nodes.values()
    for user in users:
        await check_copy(a, b, user.pubky)
    await check_copy(b, a, at_b.pubky)
    assert a.peering is not None
    losing = Deferred.fromCoroutine(a.peering.overview.exposure())
    world.pass_time(1)
    lost = await losing

    world.wires.cut_off("a", "b")
    await world.put(mover, "/pub/just/before", b"y")
    assert await world.claim(mover, "b")
    await world.point(mover, "b")
    world.pass_time(120)
    assert await world.put(mover, "/pub/large", b"z")
    world.wires.broken.clear()
    await world.act(mover)
    world.pass_time(2 * REST)
    await check_copy(b, a, mover.pubky, was_home=True)
    assert await b.store.copies.copy(mover.pubky) is None
    # Private files stay where they were if the new home does not understand how they are handed over.
    moved = [one for one in world.acknowledged if one.pubky == mover.pubky and (takes_late or is_public(one.path))]
    await check_nothing_lost([a, b], b, moved)
    await check_nothing_lost(
        [a, b], a, [one for one in world.acknowledged if one.pubky not in (mover.pubky, at_b.pubky)]
    )

    ordering = Deferred.fromCoroutine(a.peering.orders.erase(forgotten.pubky))
    world.pass_time(60)
    await ordering
    for user in rest:
        await world.act(user)
    world.pass_time(REST)
    for user in rest:
        await check_copy(a, b, user.pubky)
    assert not world.wires.faults
    return lost


async def _end(world: World) -> None:
    for name in world.nodes:
        await world.kill(name)


def _peering(node: Node) -> Peering:
    assert node.peering is not None
    return node.peering


def _orders(world: World) -> list[tuple[bool, str]]:
    """Whether each order was obeyed, and why not."""
    told = _peering(world.nodes["a"]).orders.status()
    return [(bool(one["receipt"]), str(one["failure"])) for one in told]


async def _probe(world: World) -> Probe:
    (neighbour,) = _peering(world.nodes["a"]).neighbours.values()
    probing = Deferred.fromCoroutine(probe(neighbour.peer, neighbour.source))
    world.pass_time(1)
    return await probing


def test_what_came_later_is_known_here() -> None:
    """Whatever `hello` says is in one of the two lists: so what is new is tried with those who lack it, too."""
    assert {*FEATURES} == {*FIRST, *LATER}


@pytest.mark.parametrize("lacks", [(), *((one,) for one in LATER), LATER], ids=lambda lacks: "+".join(lacks) or "none")
def test_an_older_peer(lacks: tuple[str, ...]) -> None:
    """Who lacks any of what came later is asked for all the rest, and its accounts are followed, and move."""
    world, asked = made(frozenset(lacks), older(frozenset(lacks)))

    async def story() -> None:
        lost = await _live(world, LATE not in lacks)
        silent = HOLDINGS in lacks
        assert (lost["alone"], lost["silent"]) == (USERS * silent, ["b"] * silent), "who does not say has nothing"
        assert {*LATER} - {*lacks} == {*asked} - {*lacks}, "the story is about each of them"
        assert asked.count(BATCHES) > 1 if BATCHES not in lacks else 1 <= asked.count(BATCHES) <= 2, (
            "each learns it once"
        )
        assert not {*asked} & {*lacks} - {BATCHES, RANGES}, "nobody is asked for what he said that he lacks"
        ((obeyed, why),) = _orders(world)
        assert (obeyed, why) == (
            (False, "it erases nothing: its homeserver is too old") if ERASE in lacks else (True, "None")
        )
        found = await _probe(world)
        assert (found.well, found.version, {*found.lacks}) == (True, VERSION, {*lacks})
        assert ("It is older than this homeserver: it does not understand" in found.says) is bool(lacks)
        await _end(world)

    failure = run(story())
    assert failure is None, repr(failure)


def test_a_newer_peer() -> None:
    """Whatever it says besides is skipped."""
    world, _ = made(frozenset(), newer)

    async def story() -> None:
        assert (await _live(world))["alone"] == 0
        assert _orders(world) == [(True, "None")]
        found = await _probe(world)
        assert (found.well, found.version, found.lacks) == (True, VERSION + 6, ())
        assert "telepathy" in found.features
        await _end(world)

    failure = run(story())
    assert failure is None, repr(failure)


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (404, b"Not Found", f"It does not speak version {VERSION} of what peers speak"),
        (410, b"", "one of the two is too old (410: without a reason)"),
        (426, b"version 2 is spoken here", "one of the two is too old (426: version 2 is spoken here)"),
        (200, b"<html>", "no homeserver of our kind"),
        (200, b'{"version":2}', "one of the two is too old"),
    ],
)
def test_one_that_cannot_be_talked_to(status: int, body: bytes, says: str) -> None:
    """The operator reads in one sentence that it is the version, and what it said."""
    world, _ = made(frozenset(), lambda said: said)

    async def answer(request: Request) -> None:
        request.setResponseCode(status)
        request.setHeader(b"Content-Type", b"application/json")
        request.finish_with(body)

    async def story() -> None:
        await world.start("a")
        world.wires.sites["b"] = answer
        found = await _probe(world)
        assert not found.well
        assert says in found.says
        assert found.says.count(". ") == 0
        await world.kill("a")

    failure = run(story())
    assert failure is None, repr(failure)
