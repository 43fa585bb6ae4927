"""What the metrics port says of copies."""

from random import Random
from typing import Any

import pytest
import pytest_twisted

from pkarr.keys import Keypair
from pubky_homeserver.conflicts import COUNT
from pubky_homeserver.core.errors import NotPrimary
from pubky_homeserver.core.peers import ALL
from pubky_homeserver.core.shelf import Reason, Shelved
from pubky_homeserver.metrics import ServerMetrics
from pubky_homeserver.peers.numbers import Numbers
from pubky_homeserver.peers.reminding import FIRST, INTERVAL
from tests.peers.worlds import User, World

SCOPE = 'otel_scope_name="pubky_homeserver"'


def _lines(metrics: ServerMetrics) -> dict[str, float]:
    lines = [line.rsplit(" ", 1) for line in metrics.render().decode().splitlines() if line.startswith("mirror_")]
    return {name.replace(SCOPE, "").replace(",}", "}").replace("{}", ""): float(value) for name, value in lines}


@pytest_twisted.ensureDeferred
async def test_a_copy_in_numbers() -> None:
    """What happens to a copy is counted, its lag grows while the primary is away, and nobody is named."""
    world = World(Random(1), {"a": {"b": {"offer": ALL}}, "b": {"a": {"follow": ALL}}})
    user = User(Keypair(b"\x07" * 32))
    await world.sign_up(user, "a")
    await world.put(user, "/pub/a", b"x" * 1000)
    for name in ("a", "b"):
        await world.start(name)
    world.pass_time(10)
    await world.put(user, "/pub/b", b"yy")
    await world.put(user, "/pub/b", b"yyy")
    world.pass_time(10)
    peering = world.nodes["b"].peering
    assert peering is not None
    metrics = ServerMetrics()
    metrics.ask(Numbers(peering.copies, peering.tally, peering.shelved).read)
    shown = _lines(metrics)
    assert shown['mirror_copies{state="current"}'] == 1
    assert shown['mirror_applied_total{operation="put"}'] == 2
    assert (shown["mirror_lag_events"], shown["mirror_lag_seconds"]) == (0, 0)
    assert (shown["mirror_bytes"], shown["mirror_bodies_missing"]) == (1000 + 3 + 2 * 256, 0)
    assert shown["mirror_hash_mismatch_total"] == 0
    assert shown["mirror_confirmed_age_seconds"] < 10
    (copy,) = peering.copies.all()
    peering.copies.hear_of(user.pubky, False, 10)
    peering.copies.fall_behind(user.pubky)
    world.clock.advance(5)
    shown = _lines(metrics)
    assert copy.public.position is not None
    assert (shown["mirror_lag_events"], shown["mirror_lag_seconds"]) == (10 - copy.public.position.seq, 5)
    assert (shown["mirror_conflicts"], shown["mirror_turned_away_total"]) == (0, 0)
    late = Shelved(user.pubky, "0" * 40, Reason.LATE, copy.primary, "/pub/c", None, None, 1, 1)
    await world.nodes["b"].store.shelf.shelve(late)
    with pytest.raises(NotPrimary):
        await peering.claims.settle(user.pubky)
    world.pass_time(COUNT)
    shown = _lines(metrics)
    assert (shown["mirror_conflicts"], shown["mirror_turned_away_total"]) == (1, 1)
    assert [peering.overview.status()[name] for name in ("conflicts", "turned_away")] == [1, 1]
    world.network.packets.clear()
    world.pass_time(FIRST + 10)
    world.network.is_away = True
    world.pass_time(INTERVAL)
    records = [_lines(metrics)[f'mirror_records_total{{outcome="{outcome}"}}'] for outcome in ("published", "failed")]
    assert records == [1, 1]
    peers: Any = peering.overview.status()["peers"]
    (peer,) = peers
    assert peer["traffic"]["received"] > 1000
    assert peer["traffic"]["requests"] > 3
    for secret in (user.pubky, copy.primary, peering.knowledge.homeserver, "/pub/", "_created"):
        assert secret not in metrics.render().decode()
    for name in ("a", "b"):
        await world.kill(name)
