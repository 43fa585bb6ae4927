"""What the operator is told of a peer that was asked."""

import pytest_twisted
from attrs import evolve

from pubky_homeserver.core.peers import ALL, NONE, Selection
from pubky_homeserver.peers.probing import probe
from tests.peers.peering import FOLLOWER, Peering, peering


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
