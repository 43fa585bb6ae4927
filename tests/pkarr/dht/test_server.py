"""What a node answers, keeps and refuses."""

from attrs import evolve

from pkarr.dht.contacts import IPV4, IPV6, Contact
from pkarr.dht.items import ImmutableItem, Item, MutableItem, signable
from pkarr.dht.krpc import Error, FindNode, Get, GetPeers, Ping, Put, Query, Reply, Request, decode, encode
from pkarr.dht.routing import K, RoutingTable
from pkarr.dht.server import FEWEST, ITEM_LIFETIME, TOKEN_LIFETIME, Limits, Server, Stored, Tokens
from pkarr.keys import Keypair

OWN, ASKER = b"\x11" * 20, b"\x22" * 20
HOME = ("9.9.9.9", 6881)
KEYPAIR = Keypair(b"\x06" * 32)
NOW = 1000.0


def item(seq: int, v: bytes = b"5:hello", salt: bytes = b"", keypair: Keypair = KEYPAIR) -> MutableItem:
    """A valid item."""
    return MutableItem(keypair.public_key.raw, seq, v, keypair.sign(signable(seq, v, salt)), salt)


def server() -> Server:
    """A node that knows thirty nodes of each kind."""
    tables = {IPV4: RoutingTable(OWN), IPV6: RoutingTable(OWN)}
    for number in range(30):
        tables[IPV4].replied(Contact(bytes([number * 8] * 20), (f"9.8.{number}.1", 1)), NOW)
        tables[IPV6].replied(Contact(bytes([number * 8] * 20), (f"2600:{number}::1", 1)), NOW)
    return Server(tables, Stored())


def ask(server: Server, request: Request, now: float = NOW, host: str = HOME[0]) -> Reply:
    """The reply to a request, which is no error."""
    answer = server.answer(Query(b"aa", ASKER, request), (host, 6881), IPV4, now)
    assert isinstance(answer, Reply)
    return answer


def put(server: Server, item: Item, cas: int | None = None) -> int | None:
    """Put with a good token; None or the code of the error."""
    token = ask(server, Get(item.target)).token
    assert token is not None
    answer = server.answer(Query(b"aa", ASKER, Put(token, item, cas)), HOME, IPV4, NOW)
    return answer.code if isinstance(answer, Error) else None


def test_ping() -> None:
    """An answer says who we are, and where we see who asked (BEP 42)."""
    assert ask(server(), Ping()) == Reply(b"aa", OWN, receiver=HOME)


def test_nodes() -> None:
    """Nodes near the target are named, of the kinds that are wanted (BEP 32)."""
    node = server()
    assert [contact.family for contact in ask(node, FindNode(ASKER)).nodes] == [IPV4] * K
    assert {contact.family for contact in ask(node, FindNode(ASKER, (IPV6,))).nodes} == {IPV6}
    assert {contact.family for contact in ask(node, Get(ASKER, None, (IPV4, IPV6))).nodes} == {IPV4, IPV6}
    peers = ask(node, GetPeers(ASKER))
    assert peers.nodes == ask(node, FindNode(ASKER)).nodes
    assert peers.token
    only_v4 = Server({IPV4: RoutingTable(OWN)}, Stored())
    assert ask(only_v4, FindNode(ASKER, (IPV6,))).nodes == ()


def test_put_and_get() -> None:
    """What was put is got, mutable or not."""
    node = server()
    for kept in (item(7), ImmutableItem(b"li1ee")):
        assert put(node, kept) is None
        assert ask(node, Get(kept.target)).item == kept
    assert ask(node, Get(ASKER)).item is None
    assert len(node.stored) == 2


def test_known_value_is_not_sent_again() -> None:
    """Who has an item of that number or a newer one gets the number only."""
    node = server()
    put(node, item(7))
    for seq, expected in ((6, item(7)), (7, None), (8, None)):
        reply = ask(node, Get(item(7).target, seq))
        assert (reply.item, reply.seq) == (expected, 7)
        assert reply.nodes


def test_answers_fit_into_one_packet() -> None:
    """An answer is no larger than what goes through the network whole, if there are nodes of one kind in it."""
    node = server()
    for size in (0, 100, 500, 1000):
        big = item(size + 1, b"%d:%b" % (size, bytes(size)))
        put(node, big)
        reply = ask(node, Get(big.target))
        assert len(reply.nodes) >= FEWEST
        assert len(encode(reply)) <= 1440
        assert decode(encode(reply)) == reply


def test_rules_of_replacement() -> None:
    """Higher numbers replace lower ones; of one number the larger value stays; what is known is refreshed."""
    node = server()
    assert put(node, item(5)) is None
    assert put(node, item(5)) is None
    assert put(node, item(4)) == 302
    assert put(node, item(5, b"5:hella")) == 302
    assert put(node, item(5, b"5:hellp")) is None
    assert put(node, item(6), cas=4) == 301
    assert put(node, item(6), cas=5) is None
    assert put(node, item(6), cas=5) == 301
    assert put(node, item(1, salt=b"x"), cas=5) is None, "nothing to compare with"
    assert node.stored.get(item(6).target, NOW) == item(6)


def test_refused() -> None:
    """Nothing invalid or too large is kept, and nothing without a token for this address."""
    node = server()
    largest, larger = b"1000:" + bytes(1000), b"1001:" + bytes(1001)
    assert put(node, evolve(item(5), seq=6)) == 206
    assert put(node, evolve(item(5), salt=b"x")) == 206
    assert put(node, item(5, larger)) == 205
    assert put(node, ImmutableItem(larger)) == 205
    assert put(node, ImmutableItem(b"l" + largest + b"e")) == 205
    assert put(node, item(5, salt=bytes(65))) == 207
    for token in (b"", b"12345678", ask(node, Get(ASKER), host="9.9.9.8").token or b""):
        answer = node.answer(Query(b"aa", ASKER, Put(token, item(5))), HOME, IPV4, NOW)
        assert answer == Error(b"aa", 203, b"Bad token", HOME)
    assert len(node.stored) == 0
    assert put(node, item(5, largest)) is None
    assert put(node, item(5, salt=bytes(64))) is None


def test_tokens_expire() -> None:
    """A token is good for five minutes at least and ten at most, at its address, from any port."""
    tokens, other = Tokens(), Tokens()
    token = tokens.make("9.9.9.9", NOW)
    assert tokens.is_good(token, "9.9.9.9", NOW + TOKEN_LIFETIME)
    assert not tokens.is_good(token, "9.9.9.9", NOW + 2 * TOKEN_LIFETIME)
    assert not tokens.is_good(token, "9.9.9.8", NOW)
    assert not other.is_good(token, "9.9.9.9", NOW)


def test_memory_is_bounded() -> None:
    """Of more items than fit, those that were used longest ago go; each kind has its own room."""
    stored = Stored(3)
    kept = [item(number, salt=bytes([number])) for number in range(1, 6)]
    for one in kept[:3]:
        stored.put(one, None, NOW)
    stored.get(kept[0].target, NOW)
    for number in range(10):
        stored.put(ImmutableItem(b"i%de" % number), None, NOW)
    for one in kept[3:]:
        stored.put(one, None, NOW)
    assert [stored.get(one.target, NOW) for one in kept] == [kept[0], None, None, kept[3], kept[4]]
    assert len(stored) == 6


def test_items_expire() -> None:
    """An item that nobody refreshes is forgotten."""
    stored = Stored()
    stored.put(item(1), None, NOW)
    stored.put(item(1), None, NOW + 10)
    assert stored.get(item(1).target, NOW + ITEM_LIFETIME + 10) == item(1)
    assert stored.get(item(1).target, NOW + ITEM_LIFETIME + 11) is None
    assert len(stored) == 0


def test_rate_of_one_owner() -> None:
    """Each owner of addresses is heard so often a second, the rest is dropped; after a pause again."""
    limits = Limits(rate=10, total_rate=1000, burst=2)
    assert sum(limits.allow("9.9.9.9", NOW) for _ in range(100)) == 20
    assert sum(limits.allow("9.9.9.9", NOW + 1) for _ in range(100)) == 10
    assert limits.allow("9.9.9.8", NOW)
    assert sum(limits.allow(f"2600::{number:x}", NOW) for number in range(100)) == 20


def test_rate_of_all() -> None:
    """However many addresses a flood names, no more is read than the limit for all, and little remembered."""
    limits = Limits(rate=10, total_rate=50, burst=2, remembered=30)
    assert sum(limits.allow(f"9.9.{number >> 8}.{number & 255}", NOW) for number in range(10_000)) == 100
    assert len(limits._buckets) <= 30
    assert limits.allow("9.9.9.9", NOW + 1)
