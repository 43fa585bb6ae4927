"""Where others see us, and whether strangers reach us; what is kept of that and of others over a restart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkarr.dht.contacts import IPV4, IPV6, Contact
from pkarr.dht.routing import RoutingTable
from pkarr.dht.saved import MAX_LENGTH, InvalidSaved, Saved
from pkarr.dht.standing import PROBATION, QUORUM, Standing

from .thorough import THOROUGHLY

HERE, THERE = ("9.9.9.9", 6881), ("8.8.8.8", 6881)


def test_majority() -> None:
    """Our address is what most of enough owners of addresses say; nobody votes twice."""
    standing = Standing()
    assert not any(standing.vote("1.1.1.1", HERE) for _ in range(QUORUM))
    for number in range(2, QUORUM):
        assert not standing.vote(f"1.1.1.{number}", HERE)
    assert standing.vote("1.1.1.99", HERE)
    assert standing.address == HERE
    assert not standing.vote("1.1.1.98", HERE), "no news"


def test_liars_are_outvoted() -> None:
    """While less than half lie, they change nothing; when we move, the new address wins in time."""
    standing = Standing()
    for number in range(15):
        standing.vote(f"1.1.1.{number}", HERE)
    assert not any(standing.vote(f"2.1.1.{number}", THERE) for number in range(14))
    moved = [standing.vote(f"3.1.1.{number}", THERE) for number in range(30)]
    assert moved.count(True) == 1
    assert standing.address == THERE


def test_reachable() -> None:
    """Strangers reach us when our own ping has arrived over a quarter of an hour, without a failure between."""
    standing = Standing()
    reached: list[bool] = []
    for proof, since in (
        (0.0, 0.0),
        (PROBATION, PROBATION),
        (None, PROBATION + 60),
        (PROBATION + 120, PROBATION + 120),
    ):
        if proof is not None:
            standing.prove(proof)
        standing.judge(since)
        reached.append(standing.is_reachable)
    assert reached == [False, True, False, False]


def test_a_new_address_must_be_proved() -> None:
    """What was reachable at the old address need not be at the new one."""
    standing = Standing()
    standing.prove(0.0)
    standing.prove(PROBATION)
    for number in range(QUORUM):
        standing.vote(f"1.1.1.{number}", HERE)
    assert not standing.is_reachable


def test_saved() -> None:
    """Ids and nodes of both kinds come back as they were."""
    tables = {IPV4: RoutingTable(b"\x01" * 20), IPV6: RoutingTable(b"\x02" * 20)}
    for number in range(50):
        tables[IPV4].replied(Contact(bytes([number * 5] * 20), (f"9.8.{number}.1", 1)), 0.0)
        tables[IPV6].replied(Contact(bytes([number * 5] * 20), (f"2600:{number + 1}::1", 1)), 0.0)
    saved = Saved.of(tables)
    again = Saved.parse(bytes(saved))
    assert (again.ids, set(again.nodes)) == (saved.ids, set(saved.nodes))
    assert again.id(IPV4) == b"\x01" * 20
    assert set(again.contacts(IPV6)) == set(tables[IPV6])
    assert Saved.parse(bytes(Saved())) == Saved()
    assert Saved().id(IPV4) is None


@pytest.mark.parametrize(
    "raw", [b"", b"le", b"d3:id43:abce", b"d3:id420:" + bytes(20) + b"e", b"de" + bytes(MAX_LENGTH)]
)
def test_spoilt(raw: bytes) -> None:
    """What was not saved is not read."""
    with pytest.raises(InvalidSaved):
        Saved.parse(raw)


@THOROUGHLY
@given(st.binary(max_size=100), st.integers(0, 20), st.integers(0, 60))
def test_anything(raw: bytes, id_length: int, nodes_length: int) -> None:
    """The reader raises nothing but its own error."""
    fields = b"d3:id4%d:%b6:nodes4%d:%be" % (id_length, bytes(id_length), nodes_length, bytes(nodes_length))
    for spoilt in (raw, fields):
        try:
            Saved.parse(spoilt)
        except InvalidSaved:
            pass
