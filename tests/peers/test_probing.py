"""What the operator is told of a peer that was asked."""

import re

import pytest_twisted
from attrs import evolve
from twisted.internet.task import Clock

from pubky_homeserver.core.peers import ALL, NONE, Selection
from pubky_homeserver.peers.probing import probe
from tests.peers.peering import FOLLOWER, Peering, peering, reactor


async def _says(pair: Peering) -> tuple[bool, str]:
    found = await probe(pair.client.peer, pair.client)
    return found.well, found.says


@pytest_twisted.ensureDeferred
async def test_what_may_be_wrong() -> None:
    """Whatever is wrong has words that say who can mend it."""
    async with peering() as pair:
        found = await probe(pair.client.peer, pair.client)
        assert (found.well, found.offered, found.wanted, found.more) == (True, 1, 1, False)
        assert found.features
        late = Clock()
        late.advance(pair.home.clock.seconds() - 400)
        apart = round(reactor.seconds() - late.seconds())  # its channel writes the Date by the real clock
        found = await probe(pair.client.peer, evolve(pair.client, clock=late))
        assert not found.well
        told = re.search(r"it is (\d+) s (ahead of|behind) ours", found.says)
        assert told is not None
        assert abs(int(told[1]) - abs(apart)) <= 5
        assert told[2] == ("ahead of" if apart > 0 else "behind")
        pair.set(offer=NONE)
        well, says = await _says(pair)
        assert (well, "must set `offer`" in says) == (False, True)
        pair.set(offer=ALL)
        pair.client = evolve(pair.client, peer=evolve(pair.client.peer, follow=Selection()))
        assert (await _says(pair))[0]
        pair.client = evolve(pair.client, peer=evolve(pair.client.peer, follow=Selection(keys=frozenset(["y" * 52]))))
        well, says = await _says(pair)
        assert (well, "no account that the settings follow" in says) == (False, True)
        pair.settings.pop(FOLLOWER.public_key.z32)
        well, says = await _says(pair)
        assert (well, "must list our key" in says) == (False, True)
        pair.client = evolve(pair.client, peer=evolve(pair.client.peer, url="http://127.0.0.1:1"))
        well, says = await _says(pair)
        assert (well, "cannot be reached" in says) == (False, True)
