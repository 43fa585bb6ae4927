"""One node among others, in an internet in memory: joining, keeping up, our own address; to whom nothing is sent."""

from collections.abc import Iterator

import pytest

from pkarr.dht.contacts import Address, Contact
from pkarr.dht.family import MAX_CHECKS, UPKEEP, Family
from pkarr.dht.krpc import Error, FindNode, Ping, Query, Reply, decode, encode
from pkarr.dht.routing import is_secure
from pkarr.dht.standing import PROBATION
from pkarr.dht.walks import Search

from .world import World

FIRST = ("9.0.0.1", 6881)
OURS = ("9.9.9.9", 6881)
NOT_FOR_US = [
    Contact(bytes([number + 1]) * 20, address)
    for number, address in enumerate(
        [
            ("127.0.0.1", 80),
            ("10.0.0.1", 53),
            ("192.168.1.1", 1900),
            ("169.254.169.254", 80),
            ("224.0.0.251", 5353),
            ("255.255.255.255", 9),
            ("0.0.0.0", 6881),
            ("8.8.8.8", 0),
            ("2600::1", 6881),
        ]
    )
]


@pytest.fixture
def world() -> World:
    """An empty internet."""
    return World()


@pytest.fixture
def many(world: World) -> Iterator[list[Family]]:
    """Thirty nodes that know each other."""
    nodes = [world.family(f"9.0.0.{number}", [FIRST]) for number in range(1, 31)]
    for node in nodes:
        node.start([])
    world.wait(5 * UPKEEP)
    yield nodes
    for node in nodes:
        node.stop()


def liar(world: World, address: Address, nodes: tuple[Contact, ...]) -> None:
    """A node that names others, whatever it is asked."""

    def answer(datagram: bytes, source: Address) -> None:
        query = decode(datagram)
        if isinstance(query, Query):
            reply = Reply(query.transaction, b"\x99" * 20, nodes, b"token", receiver=source)
            world.carry(encode(reply), address, source)

    world.listen(address, answer)


def test_join(world: World, many: list[Family]) -> None:
    """Who asks one node gets to know its neighbours, and they get to know it; then it is quiet."""
    node = world.family(OURS[0], [FIRST])
    node.start([])
    world.wait(10)
    assert node.joined.called
    assert len(node.table) >= 20
    assert sum(OURS in {contact.address for contact in other.table} for other in many) >= 20
    before = len(world.sent)
    world.wait(10 * UPKEEP)
    assert len(world.sent) - before < 100, "thirty-one nodes"
    node.stop()


def test_nobody_to_join(world: World) -> None:
    """Without anybody there a node tries again, ever more rarely; and joins when somebody comes."""
    node = world.family(OURS[0], [FIRST])
    node.start([])
    world.wait(600)
    assert 15 < len(world.sent) < 60
    first = world.family(FIRST[0])
    first.start([])
    world.wait(UPKEEP + 5)
    assert node.joined.called
    assert [contact.address for contact in node.table] == [FIRST]
    node.stop()
    first.stop()
    world.wait(600)
    assert not world.clock.getDelayedCalls()


def test_outage(world: World, many: list[Family]) -> None:
    """After hours without a network a node still knows the others, and finds its way at once."""
    for other in many:
        other.stop()  # they only answer from now on
    node = world.family(OURS[0], [FIRST])
    node.start([])
    world.wait(10)
    before = len(node.table)
    world.is_down = True
    world.wait(3 * 3600)
    world.is_down = False
    assert len(node.table) == before
    search = Search(node.lookup(b"\x77" * 20), FindNode(b"\x77" * 20), node.ask, node.usable)
    search.step()
    world.wait(3)
    assert len(search.lookup.nearest()) == 20
    node.stop()


def test_nodes_that_go_are_forgotten(world: World, many: list[Family]) -> None:
    """Who is gone is no longer known after an hour or so, without anybody searching."""
    for node in many[10:]:
        node.stop()
        world.listen((f"9.0.0.{many.index(node) + 1}", 6881), lambda datagram, address: None)
    world.wait(2 * 3600)
    gone = {f"9.0.0.{number}" for number in range(11, 31)}
    for node in many[:10]:
        hosts = {contact.address[0] for contact in node.table}
        assert not hosts & gone
        assert len(hosts) >= 8


@pytest.mark.parametrize("is_private", [False, True])
def test_private_addresses(world: World, is_private: bool) -> None:
    """A node of the public network sends nothing to private, local and multicast addresses that an answer names."""
    liar(world, FIRST, tuple(NOT_FOR_US))
    node = world.family(OURS[0], [FIRST], is_private=is_private)
    node.start([])
    world.wait(10)
    asked = set(world.asked(OURS))
    if is_private:
        assert len(asked) == 8
        assert not asked & {("8.8.8.8", 0), ("2600::1", 6881)}
    else:
        assert asked == {FIRST}
    node.stop()


def test_strangers_at_private_addresses_are_not_asked_back(world: World) -> None:
    """A query with a forged private source makes us send no ping there."""
    node = world.family(OURS[0])
    node.start([])
    for contact in NOT_FOR_US[:7]:
        node.socket.datagramReceived(encode(Query(b"aa", contact.id, Ping())), contact.address)
    world.wait(10)
    assert world.asked(OURS) == []
    node.stop()


def test_strangers_are_asked_back(world: World) -> None:
    """Who asks becomes known only if it answers; a flood of strangers makes us send few pings."""
    node = world.family(OURS[0])
    node.start([])
    for number in range(1000):
        query = Query(b"aa", number.to_bytes(20, "big"), Ping())
        node.socket.datagramReceived(encode(query), (f"9.1.{number >> 8}.{number & 255}", 1))
    assert len(world.asked(OURS)) == MAX_CHECKS
    world.wait(10)
    assert len(node.table) == 0
    node.stop()


def test_read_only_strangers_are_not_asked_back(world: World) -> None:
    """Who says that it is read-only does not become known (BEP 43)."""
    node = world.family(OURS[0])
    node.start([])
    node.socket.datagramReceived(encode(Query(b"aa", b"\x05" * 20, Ping(), read_only=True)), FIRST)
    world.wait(10)
    assert world.asked(OURS) == []
    assert len(world.sent) == 1, "but it is answered"
    node.stop()


@pytest.mark.usefixtures("many")
def test_own_address(world: World) -> None:
    """Behind a translator a node learns its address from the others, and takes an id that is bound to it (BEP 42)."""
    outside = ("8.7.6.5", 6881)
    world.translated[OURS] = outside
    node = world.family("9.9.9.9", [FIRST], serves=None)
    world.listen(outside, node.socket.datagramReceived)
    before = node.table.own
    node.start([])
    world.wait(10)
    assert node.standing.address == outside
    assert node.table.own != before
    assert node.socket.own == node.table.own
    assert is_secure(Contact(node.table.own, outside))
    assert len(node.table) >= 20, "nobody was forgotten"
    node.stop()


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("is_open", [True, False])
def test_read_only_until_reachable(world: World, is_open: bool) -> None:
    """A node answers queries only when strangers reach it: after a quarter of an hour of pings to its own address."""
    outside = ("8.7.6.5", 6881)
    world.translated[OURS] = outside
    node = world.family("9.9.9.9", [FIRST], serves=None)
    if is_open:
        world.listen(outside, node.socket.datagramReceived)
    node.start([])
    world.wait(PROBATION - UPKEEP)
    assert node.socket.is_read_only
    assert all(message.read_only for come, _to, message in world.sent if come == OURS and isinstance(message, Query))
    world.wait(3 * UPKEEP)
    assert node.socket.is_read_only is not is_open
    world.listen(outside, lambda datagram, address: None)
    world.wait(2 * UPKEEP)
    assert node.socket.is_read_only, "the door was closed again"
    node.stop()


def test_noise_changes_nothing(world: World) -> None:
    """Datagrams that are nothing, wrong queries, answers that nobody asked for: nothing is kept, known or asked."""
    node = world.family(OURS[0])
    node.start([])
    for number in range(2000):
        source = (f"9.{number & 3}.1.1", 1024 + number)
        for datagram in (
            world.chance.randbytes(60),
            b"d" + world.chance.randbytes(60) + b"e",
            encode(Reply(world.chance.randbytes(4), b"\x09" * 20, tuple(NOT_FOR_US))),
            encode(Error(world.chance.randbytes(4), 201, b"no")),
            b"d1:ad2:id3:abce1:q4:ping1:t2:aa1:y1:qe",
        ):
            node.socket.datagramReceived(datagram, source)
    world.wait(10)
    assert world.asked(OURS) == []
    assert len(node.table) == len(node.server.stored) == 0
    node.stop()
