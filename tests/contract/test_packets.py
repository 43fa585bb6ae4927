"""What every store does with packets: the newest of each account stays, compared as bytes."""

from typing import Any

import pytest
import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread, deferToThread
from zope.interface.verify import verifyObject

from pubky_homeserver.core.errors import NotFound
from pubky_homeserver.core.moves import Kept
from pubky_homeserver.interfaces import IPacketStore
from tests.contract.store import ALICE, BOB, Store, sign_up

reactor: Any = _reactor


def packet(timestamp: int, message: bytes = b"", signature: bytes = b"s") -> bytes:
    """A packet."""
    return signature * 64 + timestamp.to_bytes(8, "big") + message


def test_keeps_the_port(store: Store) -> None:
    """The store has every method of the port, with its arguments."""
    verifyObject(IPacketStore, store.packets)


@pytest_twisted.ensureDeferred
async def test_each_account_has_its_own(store: Store) -> None:
    """A packet is kept as it came, for accounts of this store only."""
    await sign_up(store, ALICE)
    await sign_up(store, BOB)
    assert await store.packets.packet(ALICE) is None
    whole = packet(5, bytes(range(256)) * 3)
    assert await store.packets.keep_packet(ALICE, whole) is Kept.KEPT
    assert await store.packets.packet(ALICE) == whole
    assert await store.packets.packet(BOB) is None
    with pytest.raises(NotFound):
        await store.packets.keep_packet("c" * 52, whole)
    assert await store.packets.packet("c" * 52) is None


STAIRS = [
    packet(0),
    packet(0, b"\0"),
    packet(0, b"\0\0"),
    packet(0, b"A"),
    packet(0, b"B"),
    packet(0, b"a"),
    packet(0, b"\x80"),
    packet(0, b"\xff"),
    packet(1),
    packet(0x7F),
    packet(0x80, b"x"),
    packet(2**53, b"z"),
    packet(2**53 + 1),
    packet(2**63 - 1),
    packet(2**63),
    packet(2**64 - 1, b"\xff" * 1000),
]
"""Each more recent than the one before."""


@pytest_twisted.ensureDeferred
async def test_the_newest_stays(store: Store) -> None:
    """Later times win, also beyond what Lua counts; at one time larger bytes; the same again changes nothing."""
    await sign_up(store, ALICE)
    for number, one in enumerate(STAIRS):
        assert await store.packets.keep_packet(ALICE, one) is Kept.KEPT
        for older in STAIRS[: number + 1]:
            assert await store.packets.keep_packet(ALICE, older) is Kept.OLD
        same = await store.packets.keep_packet(ALICE, b"t" * 64 + one[64:])
        assert same is Kept.OLD, "the signature does not count"
        assert await store.packets.packet(ALICE) == one


PACKETS = st.builds(packet, st.integers(0, 3) | st.integers(0, 2**64 - 1), st.binary(max_size=3))


@pytest_twisted.ensureDeferred
async def test_any_two(store: Store) -> None:
    """Of any packets in any order the largest one stays."""
    names = iter(range(10_000))

    async def keep(packets: list[bytes]) -> None:
        pubky = f"{next(names):052}"
        await sign_up(store, pubky)
        for one in packets:
            before = await store.packets.packet(pubky)
            is_newer = before is None or one > before
            assert await store.packets.keep_packet(pubky, one) is (Kept.KEPT if is_newer else Kept.OLD)
        assert await store.packets.packet(pubky) == max(packets)

    @settings(max_examples=50)
    @given(st.lists(PACKETS, min_size=1, max_size=6))
    def examples(packets: list[bytes]) -> None:
        blockingCallFromThread(reactor, run, packets)

    def run(packets: list[bytes]) -> Deferred[Any]:
        return Deferred.fromCoroutine(keep(packets))

    await deferToThread(examples)
