"""Where the protocol's pages are silent the official homeserver has spoken: ours says the same, or it is listed why."""

import json
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from pkarr.keys import Keypair
from pubky_homeserver.copies import Copies
from pubky_homeserver.core.peers import ALL, Peer
from pubky_homeserver.packets import Packets
from pubky_homeserver.peers.exchange import Knowledge
from pubky_homeserver.peers.web import PeerSite
from pubky_homeserver.storage import Storage
from pubky_homeserver.store.memory import MemoryStore
from tests.differential.questions import Asking, questions
from tests.web.client import Answer
from tests.web.served import HOMESERVER, served

ANSWERS: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("answers.json").read_text())

DIFFERENT: dict[str, str] = {}
"""Questions that are answered differently on purpose, and why."""


def test_every_question_was_asked() -> None:
    """The recording is of these questions."""
    assert [one.name for one in questions()] == list(ANSWERS)


def _trusting(clock: Clock, store: MemoryStore, storage: Storage) -> Any:
    """A site for a peer that may follow everybody here."""
    friend = Keypair(b"\x0f" * 32).public_key.z32
    peers = {friend: Peer("friend", friend, follow=ALL, offer=ALL, private=True)}
    packets = Packets(store.packets, HOMESERVER, frozenset(peers))
    knowledge = Knowledge(HOMESERVER, peers, store.logs, Copies(store.copies, clock), packets)
    return PeerSite(
        HOMESERVER, peers, store.logs, storage, knowledge, clock, lambda: "epoch", integrity=store.integrity
    ).answer


def _copies(clock: Clock) -> Copies:
    """What is kept of others: nobody who is asked about here."""
    return Copies(MemoryStore(clock).copies, clock)


@pytest.mark.parametrize("is_mirrored", [False, True], ids=["alone", "mirrored"])
@pytest_twisted.ensureDeferred
async def test_our_answers(is_mirrored: bool) -> None:
    """Status, fields and body of every answer are the official ones, whether or not a peer follows all accounts."""
    mirroring: dict[str, Any] = {"copies": _copies, "peers": _trusting} if is_mirrored else {}
    async with served(**mirroring) as server:

        def ask(method: str, target: str, fields: dict[str, str], body: bytes | None) -> "Deferred[Answer]":
            return Deferred.fromCoroutine(server.ask(method, target, fields, body))

        ours = await (await Asking.begin(ask, server.clock.seconds, HOMESERVER)).all()
    asked = {one.name: one for one in questions()}
    wrong = [name for name, theirs in ANSWERS.items() if (ours[name] != theirs) != (name in DIFFERENT)]
    told = [f"{asked[name]}\n  theirs {ANSWERS[name]}\n  ours   {ours[name]}" for name in wrong]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(ANSWERS)}", *told])
