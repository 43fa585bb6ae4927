"""The messages of the DHT: one bencoded dictionary in one datagram (BEP 5, 32, 42, 43, 44).

    query   who asks, its method and what goes with it; the answer repeats its transaction
    reply   who answers, nodes nearer to the target, a token to put with, an item
    error   a code and a sentence

A record holds what we understand of a message; all else in it is dropped. What stands where it must not, or is of
the wrong kind or length, makes the whole message invalid.
"""

from __future__ import annotations

from attrs import Factory, field, frozen

from pkarr.dht import bencode
from pkarr.dht.bencode import Encodable, InvalidBencode, Value
from pkarr.dht.contacts import (
    ID_LENGTH,
    IPV4,
    IPV6,
    Address,
    Contact,
    InvalidContact,
    pack_address,
    pack_contacts,
    unpack_address,
    unpack_contacts,
)
from pkarr.dht.items import MAX_SEQ, MIN_SEQ, ImmutableItem, Item, MutableItem
from pkarr.keys import KEY_LENGTH, SIGNATURE_LENGTH

MAX_MESSAGE = 4096  # bytes: a value, 20 nodes of each kind of address and the rest stay below
MAX_CONTACTS = 20  # of each kind of address in one reply: a bucket of the largest size that is used
MAX_TOKEN = 128  # bytes; programs in use write 4 to 20
MAX_TRANSACTION = 32  # bytes; programs in use write 2 to 8
_MAX_TEXT = 256  # bytes of an error's sentence that we keep

# Codes of errors (BEP 5, BEP 44).
GENERIC, SERVER, PROTOCOL, METHOD_UNKNOWN = 201, 202, 203, 204
TOO_BIG, INVALID_SIGNATURE, SALT_TOO_BIG = 205, 206, 207
CAS_MISMATCH, SEQ_TOO_OLD = 301, 302

_NODES = {IPV4: b"nodes", IPV6: b"nodes6"}
_WANT = {IPV4: b"n4", IPV6: b"n6"}


@frozen
class Ping:
    """Is anybody there?"""


@frozen
class FindNode:
    """Which nodes are nearest to a target? `want`: kinds of addresses, 4 and 6; none means that of the datagram."""

    target: bytes
    want: tuple[int, ...] = ()


@frozen
class GetPeers:
    """Who shares a torrent? We answer with nodes only."""

    info_hash: bytes
    want: tuple[int, ...] = ()


@frozen
class Get:
    """Which item is under a target? An item whose number is not above `seq` need not be sent."""

    target: bytes
    seq: int | None = None
    want: tuple[int, ...] = ()


@frozen
class Put:
    """Keep an item, for one who has a token; only in place of the one numbered `cas`, if that is given."""

    token: bytes
    item: Item
    cas: int | None = None


Request = Ping | FindNode | GetPeers | Get | Put


@frozen
class Query:
    """A request of the node `sender`. A node that is read-only does not answer queries (BEP 43)."""

    transaction: bytes
    sender: bytes
    request: Request
    read_only: bool = False


@frozen
class Reply:
    """An answer of the node `sender`, whatever was asked.

    `seq` is the number of its item, which comes along unless the asker has it. `receiver` is where it sees us.
    """

    transaction: bytes
    sender: bytes
    nodes: tuple[Contact, ...] = ()
    token: bytes | None = field(default=None, repr=False)
    item: Item | None = None
    seq: int | None = None
    receiver: Address | None = None


@frozen
class Error:
    """An answer that nothing came of it."""

    transaction: bytes
    code: int
    text: bytes
    receiver: Address | None = None


Message = Query | Reply | Error
Fields = dict[bytes, Value]


class InvalidMessage(ValueError):
    """Bytes that are no message. `answer` is what its sender should hear, if it wanted to ask something."""

    def __init__(self, text: str, answer: Error | None = None) -> None:
        super().__init__(text)
        self.answer = answer


@frozen
class _Fields:
    """The fields of a dictionary, checked as they are taken."""

    fields: Fields = Factory(dict)

    def string(self, name: bytes, shortest: int, longest: int) -> bytes:
        """A byte string that must be there, of a length in bytes."""
        value = self.fields.get(name)
        if not isinstance(value, bytes) or not shortest <= len(value) <= longest:
            raise InvalidMessage(f"{name.decode()} must be {shortest} to {longest} bytes")
        return value

    def id(self, name: bytes) -> bytes:
        """A node's id or a target."""
        return self.string(name, ID_LENGTH, ID_LENGTH)

    def integer(self, name: bytes) -> int:
        """An integer of 64 bits with sign that must be there."""
        value = self.fields.get(name)
        if not isinstance(value, int) or not MIN_SEQ <= value <= MAX_SEQ:
            raise InvalidMessage(f"{name.decode()} must be an integer of 64 bits")
        return value

    def dictionary(self, name: bytes) -> _Fields:
        """A dictionary that must be there."""
        value = self.fields.get(name)
        if not isinstance(value, dict):
            raise InvalidMessage(f"{name.decode()} must be a dictionary")
        return _Fields(value)

    def optional_integer(self, name: bytes) -> int | None:
        """An integer, or None if it is not there."""
        return self.integer(name) if name in self.fields else None

    def want(self) -> tuple[int, ...]:
        """The kinds of addresses that are asked for; unknown ones are ignored (BEP 32)."""
        value = self.fields.get(b"want")
        return tuple(kind for kind, name in _WANT.items() if isinstance(value, list) and name in value)

    def item(self, salt: bytes = b"") -> Item | None:
        """The item: mutable if there is a key, else immutable; None if there is no value."""
        if b"v" not in self.fields:
            return None
        v = bencode.encode(self.fields[b"v"])
        if b"k" not in self.fields:
            return ImmutableItem(v)
        k = self.string(b"k", KEY_LENGTH, KEY_LENGTH)
        sig = self.string(b"sig", SIGNATURE_LENGTH, SIGNATURE_LENGTH)
        return MutableItem(k, self.integer(b"seq"), v, sig, salt)

    def contacts(self) -> tuple[Contact, ...]:
        """The first nodes of each kind of address."""
        found: list[Contact] = []
        for kind, name in _NODES.items():
            if name in self.fields:
                try:
                    found += unpack_contacts(self.string(name, 0, MAX_MESSAGE), kind, MAX_CONTACTS)
                except InvalidContact as error:
                    raise InvalidMessage(str(error)) from None
        return tuple(found)

    def receiver(self) -> Address | None:
        """Where the sender sees us; None also if that is not readable, for it is a courtesy (BEP 42)."""
        value = self.fields.get(b"ip")
        try:
            return unpack_address(value) if isinstance(value, bytes) else None
        except InvalidContact:
            return None


def decode(datagram: bytes) -> Message:
    """Read a message. InvalidMessage otherwise, also if it is longer than MAX_MESSAGE."""
    if len(datagram) > MAX_MESSAGE:
        raise InvalidMessage("too long")
    try:
        value = bencode.decode(datagram)
    except InvalidBencode as error:
        raise InvalidMessage(str(error)) from None
    if not isinstance(value, dict):
        raise InvalidMessage("no dictionary")
    fields = _Fields(value)
    transaction = fields.string(b"t", 0, MAX_TRANSACTION)
    kind = value.get(b"y")
    if kind == b"q":
        return _query(transaction, fields)
    if kind == b"r":
        return _reply(transaction, fields)
    if kind == b"e":
        return _error(transaction, fields)
    raise InvalidMessage("neither query, reply nor error")


def _query(transaction: bytes, fields: _Fields) -> Query:
    method = fields.fields.get(b"q")
    read = _READERS.get(method) if isinstance(method, bytes) else None
    if read is None:
        raise InvalidMessage("unknown method", Error(transaction, METHOD_UNKNOWN, b"Method Unknown"))
    try:
        arguments = fields.dictionary(b"a")
        sender = arguments.id(b"id")
        request = read(arguments)
    except InvalidMessage as error:
        raise InvalidMessage(str(error), Error(transaction, PROTOCOL, str(error).encode())) from None
    return Query(transaction, sender, request, fields.fields.get(b"ro") == 1)


def _reply(transaction: bytes, fields: _Fields) -> Reply:
    values = fields.dictionary(b"r")
    return Reply(
        transaction,
        values.id(b"id"),
        values.contacts(),
        values.string(b"token", 0, MAX_TOKEN) if b"token" in values.fields else None,
        values.item(),
        values.optional_integer(b"seq"),
        fields.receiver(),
    )


def _error(transaction: bytes, fields: _Fields) -> Error:
    match fields.fields.get(b"e"):
        case [int(code), bytes(text), *_]:
            return Error(transaction, code, text[:_MAX_TEXT], fields.receiver())
        case _:
            raise InvalidMessage("e must be a code and a sentence")


def _read_ping(arguments: _Fields) -> Request:
    return Ping()


def _read_find_node(arguments: _Fields) -> Request:
    return FindNode(arguments.id(b"target"), arguments.want())


def _read_get_peers(arguments: _Fields) -> Request:
    return GetPeers(arguments.id(b"info_hash"), arguments.want())


def _read_get(arguments: _Fields) -> Request:
    return Get(arguments.id(b"target"), arguments.optional_integer(b"seq"), arguments.want())


def _read_put(arguments: _Fields) -> Request:
    token = arguments.string(b"token", 0, MAX_TOKEN)
    salt = arguments.string(b"salt", 0, MAX_MESSAGE) if b"salt" in arguments.fields else b""
    item = arguments.item(salt)
    if item is None:
        raise InvalidMessage("v is missing")
    return Put(token, item, arguments.optional_integer(b"cas"))


_READERS = {
    b"ping": _read_ping,
    b"find_node": _read_find_node,
    b"get_peers": _read_get_peers,
    b"get": _read_get,
    b"put": _read_put,
}


def encode(message: Message) -> bytes:
    """Write a message."""
    fields: dict[bytes, Encodable] = {b"t": message.transaction}
    if isinstance(message, Query):
        method, arguments = _arguments(message.request)
        fields |= {b"y": b"q", b"q": method, b"a": {b"id": message.sender, **arguments}}
        if message.read_only:
            fields[b"ro"] = 1
        return bencode.encode(fields)
    if isinstance(message, Reply):
        fields |= {b"y": b"r", b"r": _values(message)}
    else:
        fields |= {b"y": b"e", b"e": [message.code, message.text]}
    if message.receiver is not None:
        fields[b"ip"] = pack_address(message.receiver)
    return bencode.encode(fields)


def _arguments(request: Request) -> tuple[bytes, dict[bytes, Encodable]]:
    """The method of a request and what goes with it."""
    match request:
        case Ping():
            return b"ping", {}
        case FindNode(target, want):
            return b"find_node", {b"target": target} | _wanting(want)
        case GetPeers(info_hash, want):
            return b"get_peers", {b"info_hash": info_hash} | _wanting(want)
        case Get(target, seq, want):
            return b"get", {b"target": target} | _numbered(b"seq", seq) | _wanting(want)
        case Put(token, item, cas):
            return b"put", {b"token": token} | _parts(item) | _salted(item) | _numbered(b"cas", cas)


def _values(reply: Reply) -> dict[bytes, Encodable]:
    values: dict[bytes, Encodable] = {b"id": reply.sender} | _numbered(b"seq", reply.seq)
    for kind, name in _NODES.items():
        if nodes := tuple(contact for contact in reply.nodes if contact.family == kind):
            values[name] = pack_contacts(nodes)
    if reply.token is not None:
        values[b"token"] = reply.token
    if reply.item is not None:
        values |= _parts(reply.item)
    return values


def _parts(item: Item) -> dict[bytes, Encodable]:
    v = bencode.decode(item.v)
    if isinstance(item, ImmutableItem):
        return {b"v": v}
    return {b"k": item.k, b"seq": item.seq, b"sig": item.sig, b"v": v}


def _salted(item: Item) -> dict[bytes, Encodable]:
    return {b"salt": item.salt} if isinstance(item, MutableItem) and item.salt else {}


def _numbered(name: bytes, number: int | None) -> dict[bytes, Encodable]:
    return {} if number is None else {name: number}


def _wanting(want: tuple[int, ...]) -> dict[bytes, Encodable]:
    return {b"want": [_WANT[kind] for kind in want]} if want else {}
