"""Messages of the DHT: their form on the wire, and that nothing else is taken for one."""

from socket import AF_INET6, inet_ntop
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from pkarr.dht import bencode
from pkarr.dht.contacts import Contact
from pkarr.dht.items import ImmutableItem, MutableItem
from pkarr.dht.krpc import (
    MAX_CONTACTS,
    MAX_MESSAGE,
    METHOD_UNKNOWN,
    PROTOCOL,
    Error,
    FindNode,
    Get,
    GetPeers,
    InvalidMessage,
    Message,
    Ping,
    Put,
    Query,
    Reply,
    decode,
    encode,
)

from .thorough import THOROUGHLY

ID, OTHER = b"abcdefghij0123456789", b"mnopqrstuvwxyz123456"
NEAR, NEAR6 = Contact(ID, ("203.0.113.7", 6881)), Contact(OTHER, ("2001:db8::7", 51413))
SIGNED = MutableItem(b"k" * 32, 7, b"5:hello", b"s" * 64)

# As in the examples of BEP 5, 32, 42, 43 and 44, whose texts leave out some of the bytes.
EXAMPLES: list[tuple[bytes, Message]] = [
    (b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe", Query(b"aa", ID, Ping())),
    (b"d1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re", Reply(b"aa", OTHER)),
    (b"d1:eli201e23:A Generic Error Ocurrede1:t2:aa1:y1:ee", Error(b"aa", 201, b"A Generic Error Ocurred")),
    (
        b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q9:find_node1:t2:aa1:y1:qe",
        Query(b"aa", ID, FindNode(OTHER)),
    ),
    (
        b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz123456e1:q9:get_peers1:t2:aa1:y1:qe",
        Query(b"aa", ID, GetPeers(OTHER)),
    ),
    (
        b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz1234564:wantl2:n42:n6ee1:q9:find_node1:t2:aa1:y1:qe",
        Query(b"aa", ID, FindNode(OTHER, (4, 6))),
    ),
    (
        b"d1:rd2:id20:mnopqrstuvwxyz1234565:nodes26:abcdefghij0123456789\xcb\x00\x71\x07\x1a\xe1e1:t2:aa1:y1:re",
        Reply(b"aa", OTHER, (NEAR,)),
    ),
    (
        b"d2:ip6:\xcb\x00\x71\x07\x1a\xe11:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re",
        Reply(b"aa", OTHER, receiver=("203.0.113.7", 6881)),
    ),
    (
        b"d1:ad2:id20:abcdefghij01234567893:seqi6e6:target20:mnopqrstuvwxyz123456e1:q3:get2:roi1e1:t2:aa1:y1:qe",
        Query(b"aa", ID, Get(OTHER, 6), read_only=True),
    ),
    (
        b"d1:rd2:id20:mnopqrstuvwxyz1234561:k32:" + b"k" * 32 + b"3:seqi7e3:sig64:" + b"s" * 64 + b"5:token1:t"
        b"1:v5:helloe1:t2:aa1:y1:re",
        Reply(b"aa", OTHER, token=b"t", item=SIGNED, seq=7),
    ),
    (
        b"d1:ad3:casi6e2:id20:abcdefghij01234567891:k32:" + b"k" * 32 + b"4:salt1:x3:seqi7e3:sig64:" + b"s" * 64 + b""
        b"5:token1:t1:v5:helloe1:q3:put1:t2:aa1:y1:qe",
        Query(b"aa", ID, Put(b"t", evolve(SIGNED, salt=b"x"), 6)),
    ),
    (
        b"d1:ad2:id20:abcdefghij01234567895:token1:t1:vli1eee1:q3:put1:t2:aa1:y1:qe",
        Query(b"aa", ID, Put(b"t", ImmutableItem(b"li1ee"))),
    ),
]


def _with(*fields: bytes) -> bytes:
    """A reply with these fields, in bencode, beside the id."""
    return b"d1:rd2:id20:mnopqrstuvwxyz123456" + b"".join(fields) + b"e1:t2:aa1:y1:re"


_K, _SIG, _V = b"1:k32:" + b"k" * 32, b"3:sig64:" + b"s" * 64, b"1:v0:"

WRONG: dict[str, bytes] = {
    "no dictionary": b"le",
    "empty": b"de",
    "no kind": b"d1:t2:aae",
    "unknown kind": b"d1:t2:aa1:y1:xe",
    "no transaction": _with().replace(b"1:t2:aa", b""),
    "long transaction": _with().replace(b"2:aa", b"33:" + b"t" * 33),
    "transaction that is a number": _with().replace(b"2:aa", b"i1e"),
    "reply without values": b"d1:t2:aa1:y1:re",
    "short id": b"d1:rd2:id19:mnopqrstuvwxyz12345e1:t2:aa1:y1:re",
    "half a contact": _with(b"5:nodes25:", bytes(25)),
    "contacts that are a list": _with(b"5:nodesle"),
    "seq above 64 bits": _with(b"3:seqi9223372036854775808e"),
    "key of 31 bytes": _with(b"1:k31:", b"k" * 31, b"3:seqi1e", _SIG, _V),
    "signature of 63 bytes": _with(_K, b"3:seqi1e", b"3:sig63:", b"s" * 63, _V),
    "signed without seq": _with(_K, _SIG, _V),
    "long token": _with(b"5:token129:", b"t" * 129),
    "error without text": b"d1:eli201ee1:t2:aa1:y1:ee",
    "error that is a string": b"d1:e3:2011:t2:aa1:y1:ee",
}

HALF_UNDERSTOOD: dict[str, tuple[bytes, int]] = {
    "announce_peer": (b"d1:ad2:id20:abcdefghij0123456789e1:q13:announce_peer1:t2:aa1:y1:qe", METHOD_UNKNOWN),
    "no method": (b"d1:ad2:id20:abcdefghij0123456789e1:t2:aa1:y1:qe", METHOD_UNKNOWN),
    "method that is a list": (b"d1:ad2:id20:abcdefghij0123456789e1:qle1:t2:aa1:y1:qe", METHOD_UNKNOWN),
    "no arguments": (b"d1:q4:ping1:t2:aa1:y1:qe", PROTOCOL),
    "no id": (b"d1:ade1:q4:ping1:t2:aa1:y1:qe", PROTOCOL),
    "no target": (b"d1:ad2:id20:abcdefghij0123456789e1:q3:get1:t2:aa1:y1:qe", PROTOCOL),
    "put of nothing": (b"d1:ad2:id20:abcdefghij01234567895:token1:te1:q3:put1:t2:aa1:y1:qe", PROTOCOL),
    "put without token": (b"d1:ad2:id20:abcdefghij01234567891:v0:e1:q3:put1:t2:aa1:y1:qe", PROTOCOL),
}

IDS = st.binary(min_size=20, max_size=20)
SEQS = st.integers(-(2**63), 2**63 - 1)
PORTS = st.integers(0, 65535)
ADDRESSES = st.tuples(st.ip_addresses(v=4).map(str), PORTS) | st.tuples(
    st.binary(min_size=16, max_size=16).map(lambda raw: inet_ntop(AF_INET6, raw)), PORTS
)
V4 = st.builds(Contact, IDS, st.tuples(st.ip_addresses(v=4).map(str), PORTS))
WANTS = st.sampled_from([(), (4,), (6,), (4, 6)])
VALUES = st.binary(max_size=100).map(bencode.encode) | st.lists(st.integers(0, 9), max_size=3).map(bencode.encode)
MUTABLE = st.builds(MutableItem, st.binary(min_size=32, max_size=32), SEQS, VALUES, st.binary(min_size=64, max_size=64))
IMMUTABLE = st.builds(ImmutableItem, VALUES)
SALTED = st.builds(lambda item, salt: evolve(item, salt=salt), MUTABLE, st.binary(max_size=80))
REQUESTS: Any = st.one_of(
    st.just(Ping()),
    st.builds(FindNode, IDS, WANTS),
    st.builds(GetPeers, IDS, WANTS),
    st.builds(Get, IDS, st.none() | SEQS, WANTS),
    st.builds(Put, st.binary(max_size=20), IMMUTABLE | SALTED, st.none() | SEQS),
)
TRANSACTIONS = st.binary(max_size=8)


def _reply(item: Any, **fields: Any) -> Reply:
    """A reply as it comes: the number of a mutable item is given with it."""
    return Reply(item=item, seq=item.seq if isinstance(item, MutableItem) else None, **fields)


MESSAGES: Any = st.one_of(
    st.builds(Query, TRANSACTIONS, IDS, REQUESTS, st.booleans()),
    st.builds(
        _reply,
        item=st.none() | IMMUTABLE | MUTABLE,
        transaction=TRANSACTIONS,
        sender=IDS,
        nodes=st.lists(V4, max_size=20).map(tuple),
        token=st.none() | st.binary(max_size=20),
        receiver=st.none() | ADDRESSES,
    ),
    st.builds(Error, TRANSACTIONS, st.integers(0, 999), st.binary(max_size=256), st.none() | ADDRESSES),
)


@pytest.mark.parametrize(("raw", "message"), EXAMPLES)
def test_examples(raw: bytes, message: Message) -> None:
    """Messages are on the wire as their BEPs show them."""
    assert decode(raw) == message
    assert encode(message) == raw


@pytest.mark.parametrize("raw", WRONG.values(), ids=WRONG)
def test_invalid(raw: bytes) -> None:
    """What is not wholly understood is no message, and is not answered."""
    with pytest.raises(InvalidMessage) as refusal:
        decode(raw)
    assert refusal.value.answer is None


@pytest.mark.parametrize(("raw", "code"), HALF_UNDERSTOOD.values(), ids=HALF_UNDERSTOOD)
def test_queries_that_are_answered_with_an_error(raw: bytes, code: int) -> None:
    """Who asks what we do not know, or asks it wrongly, is told."""
    with pytest.raises(InvalidMessage) as refusal:
        decode(raw)
    answer = refusal.value.answer
    assert answer is not None
    assert (answer.transaction, answer.code) == (b"aa", code)


def test_both_kinds_of_nodes() -> None:
    """Contacts with IPv6 addresses stand in a field of their own (BEP 32)."""
    reply = Reply(b"aa", OTHER, (NEAR, NEAR6))
    raw = encode(reply)
    assert b"5:nodes26:" in raw
    assert b"6:nodes638:" in raw
    assert decode(raw) == reply


def test_number_of_contacts_is_bounded() -> None:
    """Of more contacts than a bucket holds, the first ones count."""
    contacts = tuple(Contact(bytes([n]) * 20, ("203.0.113.7", 1000 + n)) for n in range(MAX_CONTACTS + 5))
    message = decode(encode(Reply(b"aa", OTHER, contacts)))
    assert isinstance(message, Reply)
    assert message.nodes == contacts[:MAX_CONTACTS]


def test_length_is_bounded() -> None:
    """A datagram longer than any message is not read."""
    filler = b"1:x%d:" % (MAX_MESSAGE - 70)
    raw = b"d1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:r" + filler + b"x" * (MAX_MESSAGE - 70) + b"e"
    assert len(raw) <= MAX_MESSAGE
    assert decode(raw) == Reply(b"aa", OTHER)
    with pytest.raises(InvalidMessage, match="too long"):
        decode(raw.replace(b"2:aa", b"9:aaaaaaaaa") + b"x" * 60)


def test_unreadable_receiver_is_ignored() -> None:
    """Where somebody sees us is a courtesy; a reply does not depend on it."""
    assert decode(b"d2:ip3:abc1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re") == Reply(b"aa", OTHER)


@given(MESSAGES)
def test_round_trip(message: Message) -> None:
    """What is written is read as the same."""
    assert decode(encode(message)) == message


@given(MESSAGES)
def test_truncations(message: Message) -> None:
    """No beginning of a message is a message."""
    raw = encode(message)
    for length in range(len(raw)):
        with pytest.raises(InvalidMessage):
            decode(raw[:length])


@THOROUGHLY
@given(
    st.sampled_from([raw for raw, _ in EXAMPLES]),
    st.lists(st.tuples(st.integers(0, 250), st.sampled_from(b"deil:0123456789\x00\xff")), max_size=4),
)
def test_damaged(raw: bytes, damages: list[tuple[int, int]]) -> None:
    """Damaged messages raise nothing but the reader's own error; what is still read can be written."""
    damaged = bytearray(raw)
    for place, byte in damages:
        damaged[place % len(raw)] = byte
    _read(bytes(damaged))


FIELDS = st.sampled_from(
    [
        b"t",
        b"y",
        b"q",
        b"r",
        b"a",
        b"e",
        b"id",
        b"k",
        b"v",
        b"sig",
        b"seq",
        b"token",
        b"nodes",
        b"nodes6",
        b"want",
        b"ip",
    ]
)
CONTENTS = st.one_of(
    st.sampled_from([b"q", b"r", b"e", b"get", b"put", b"ping", b"find_node", b"aa", ID]), st.integers(), st.binary()
)
INSIDE = st.dictionaries(FIELDS, CONTENTS, max_size=6)


@given(st.dictionaries(FIELDS, CONTENTS | st.lists(CONTENTS, max_size=3) | INSIDE, max_size=6))
def test_anything_in_the_known_fields(fields: Any) -> None:
    """Values of any kind in any known field raise nothing but the reader's own error."""
    _read(bencode.encode(fields))


@THOROUGHLY
@given(st.binary(max_size=200))
def test_anything(raw: bytes) -> None:
    """Bytes raise nothing but the reader's own error."""
    _read(raw)


def _read(raw: bytes) -> None:
    try:
        message = decode(raw)
    except InvalidMessage as error:
        if error.answer is not None:
            encode(error.answer)
        return
    assert decode(encode(message)) == message
