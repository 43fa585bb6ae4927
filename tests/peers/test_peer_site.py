"""What homeservers tell each other, over a real socket: who may ask, what is offered, and which history goes on."""

from collections.abc import AsyncIterator

import pytest_twisted
from attrs import evolve

from tests.peers.peering import Peering, peering


@pytest_twisted.async_yield_fixture
async def pair() -> AsyncIterator[Peering]:
    """A homeserver and its peer."""
    async with peering() as both:
        yield both


@pytest_twisted.ensureDeferred
async def test_hello(pair: Peering) -> None:
    """A peer learns what is understood here."""
    hello = await pair.client.hello()
    assert hello["version"] == 1
    assert hello["epoch"] == "e1"


@pytest_twisted.ensureDeferred
async def test_events_after_a_position(pair: Peering) -> None:
    """What follows a position comes in order, with bodies that are small."""
    await pair.put("/pub/a", b"one")
    await pair.put("/pub/b", b"x" * 5000)
    offered, following = await pair.client.offered("")
    assert following is None
    assert [one.pubky for one in offered] == [pair.owner.pubky]
    assert offered[0].public.position.seq == 2
    start = evolve(offered[0].public.position, seq=0, event_id=0, digest=bytes(16))
    events = await pair.client.events(pair.owner.pubky, False, start)
    assert [(one.event.path, one.body) for one in events] == [("/pub/a", b"one"), ("/pub/b", None)]
    assert events[-1].event.digest == offered[0].public.position.digest
    assert await pair.client.events(pair.owner.pubky, False, offered[0].public.position) == []
