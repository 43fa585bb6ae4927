"""The networks of a homeserver: one that publishes, and those of processes that only ask."""

from pathlib import Path

from attrs import evolve
from twisted.internet.testing import MemoryReactorClock

from pkarr.dht.saved import Saved
from pubky_homeserver.config import Config
from pubky_homeserver.networks import Networks, settings_of


def test_who_only_asks() -> None:
    """It has a port that nobody waits for, and answers nobody, on a private network either."""
    pkdns, node = Config().pkdns, evolve(Config().dht, port=6881, private_network=True)
    ours, asking = settings_of(pkdns, node), settings_of(pkdns, node, only_asks=True)
    assert (ours.port, ours.serves) == (6881, True)
    assert (asking.port, asking.serves) == (0, False)
    assert evolve(asking, port=ours.port, serves=ours.serves) == ours


def test_what_is_remembered(tmp_path: Path) -> None:
    """Who publishes has the id again under which others know it; who only asks begins without one."""
    pkdns, node, file = Config().pkdns, Config().dht, tmp_path / "dht"
    file.write_bytes(bytes(Saved(((4, b"\x01" * 20),))))
    ours, asking = (Networks(MemoryReactorClock(), pkdns, node, place).dht for place in (file, None))
    assert ours is not None
    assert asking is not None
    assert (ours.settings.serves, ours.saved.id(4)) == (None, b"\x01" * 20)
    assert (asking.settings.serves, asking.saved.id(4)) == (False, None)
