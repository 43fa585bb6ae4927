"""What users say of where they live: kept, never taken back, and told to who listens."""

from collections.abc import Callable
from typing import Any

import pytest_twisted
from twisted.internet.task import Clock

from pkarr.builder import Builder
from pkarr.keys import Keypair
from pkarr.packet import SignedPacket
from pubky_homeserver.core.moves import Kept
from pubky_homeserver.core.records import Account
from pubky_homeserver.packets import Packets, home_of
from pubky_homeserver.store.memory import MemoryStore

US, THEM, USER, STRANGER = (Keypair(bytes([number]) * 32) for number in range(1, 5))


def record(timestamp: int, homeserver: Keypair | None = US, user: Keypair = USER) -> SignedPacket:
    """What somebody says of where they live."""
    builder = Builder()
    if homeserver is not None:
        builder = builder.https("_pubky", 0, homeserver.public_key.z32)
    return builder.sign(user, timestamp)


async def room(peers: bool = True) -> tuple[Packets, MemoryStore, list[tuple[SignedPacket, Kept]]]:
    """With one account, and somebody who listens."""
    store, heard = MemoryStore(Clock()), []
    await store.sign_up(Account(USER.public_key.z32, 5), None, None, False)
    packets = Packets(store.packets, US.public_key.z32, frozenset([THEM.public_key.z32] if peers else []))
    packets.listen(lambda packet, kept: heard.append((packet, kept)))
    return packets, store, heard


@pytest_twisted.ensureDeferred
async def test_only_news_is_told() -> None:
    """The newest packet rules; what is older or the same changes nothing, and nobody hears of it."""
    packets, _, heard = await room()
    assert await packets.learn(record(10)) is Kept.KEPT
    assert await packets.learn(record(9)) is Kept.OLD
    assert await packets.learn(record(10)) is Kept.OLD
    assert await packets.learn(record(11)) is Kept.KEPT
    assert [packet.timestamp for packet, _ in heard] == [10, 11]
    newest = await packets.of(USER.public_key.z32)
    assert newest == record(11)


@pytest_twisted.ensureDeferred
async def test_whose_packets_matter() -> None:
    """Those of accounts, of peers, and our own; of nobody else."""
    packets, _, heard = await room()
    for owner in (US, THEM):
        assert await packets.learn(record(1, None, owner)) is Kept.KEPT
    assert await packets.learn(record(1, US, STRANGER)) is None
    assert len(heard) == 2


@pytest_twisted.ensureDeferred
async def test_who_moves_away_is_fenced() -> None:
    """A newer record that names another homeserver shuts the account; one that names nobody changes nothing."""
    packets, _, heard = await room()
    assert await packets.learn(record(10)) is Kept.KEPT
    assert await packets.learn(record(11, None)) is Kept.KEPT
    assert await packets.learn(record(12, THEM)) is Kept.FENCED
    assert [kept for _, kept in heard] == [Kept.KEPT, Kept.KEPT, Kept.FENCED]


@pytest_twisted.ensureDeferred
async def test_without_peers_nobody_is_fenced() -> None:
    """A homeserver alone does what it did before there were copies."""
    packets, _, _ = await room(peers=False)
    assert await packets.learn(record(10, THEM)) is Kept.KEPT
    packets.fences = True  # there are copies, of peers that were removed
    assert await packets.learn(record(11, THEM)) is Kept.FENCED


def test_what_a_packet_names() -> None:
    """A homeserver is a key; anything else is nobody."""
    assert home_of(record(1, THEM)) == THEM.public_key.z32
    assert home_of(record(1, None)) is None
    for other in ("example.com", "a" * 52, "."):
        packet = Builder().https("_pubky", 0, other).sign(USER, 1)
        assert home_of(packet) is None


@pytest_twisted.ensureDeferred
async def test_who_listens_no_more_hears_nothing() -> None:
    """Whoever stops is not called."""
    packets, _, _ = await room()
    told: list[Any] = []
    stop: Callable[[], None] = packets.listen(lambda packet, kept: told.append(kept))
    stop()
    await packets.learn(record(1))
    assert told == []
