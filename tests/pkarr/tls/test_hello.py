"""The look at a hello before the library reads it: at any bytes, and at any hello, in the library's own buffer."""

import os
import struct
from functools import cache
from itertools import pairwise
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from pkarr.keys import Keypair
from pkarr.tls.hello import Found, server_name
from pkarr.tls.session import ISession, TlsFailed

from .installed import installed

EXAMPLES = 10_000 if os.environ.get("HYPOTHESIS_PROFILE") == "ci" else 1000
KEY = Keypair(bytes(range(32)))
SERVER_NAME, POINT_FORMATS, KEY_EXCHANGE_MODES = 0, 11, 45
NAMES = ["example.com", f"_pubky.{KEY.public_key.z32}", "_", "_" * 255, "a_b_c.d-e", "\0_", "x" * 254 + "_", "é_"]
HEAD = b"\x03\x03" + bytes(32) + b"\x00\x00\x02\x13\x01\x01\x00"  # of a hello without extensions


def one_name(name: bytes, kind: int = 0) -> bytes:
    """An extension's list of one name."""
    entry = struct.pack("!BH", kind, len(name)) + name
    return struct.pack("!H", len(entry)) + entry


def hello(*extensions: tuple[int, bytes]) -> bytes:
    """A hello with these extensions."""
    body = b"".join(struct.pack("!HH", kind, len(data)) + data for kind, data in extensions)
    return HEAD + struct.pack("!H", len(body)) + body


def split(said: bytes) -> tuple[bytes, list[tuple[int, bytes]]]:
    """What stands before the extensions in a hello with its head, and the extensions."""
    at = 4 + 34
    at += 1 + said[at]
    at += 2 + int.from_bytes(said[at : at + 2], "big")
    at += 1 + said[at]
    head, at, found = said[4:at], at + 2, []
    while at < len(said):
        kind, length = struct.unpack_from("!HH", said, at)
        found.append((kind, said[at + 4 : at + 4 + length]))
        at += 4 + length
    return head, found


def joined(head: bytes, extensions: list[tuple[int, bytes]]) -> bytes:
    """The reverse."""
    body = b"".join(struct.pack("!HH", kind, len(data)) + data for kind, data in extensions)
    whole = head + struct.pack("!H", len(body) & 0xFFFF) + body
    return b"\x01" + len(whole).to_bytes(3, "big") + whole


def test_where_the_name_is() -> None:
    """The name is found with its place, with and without the message's head, before and behind other extensions."""
    name = b"_pubky.example"
    for others in ([], [(10, b"xx")]):
        said = hello(*others, (SERVER_NAME, one_name(name)), (16, b""))
        found = server_name(said)
        assert found is not None
        assert (found.text, said[found.start : found.end]) == (name.decode(), name)
        message = b"\x01" + len(said).to_bytes(3, "big") + said
        assert server_name(message) == Found(found.text, found.start + 4, found.end + 4)


def test_no_name() -> None:
    """A hello without a name, with one of another kind, an empty, a too long or a foreign one, asks for nobody."""
    none: list[tuple[tuple[int, bytes], ...]] = [
        (),
        ((10, b"ab"),),
        ((SERVER_NAME, b""),),
        ((SERVER_NAME, b"\x00\x00"),),
        ((SERVER_NAME, one_name(b"a", kind=1)),),
        ((SERVER_NAME, one_name(b"")),),
        ((SERVER_NAME, one_name(b"a" * 256)),),
        ((SERVER_NAME, one_name("é".encode())),),
        ((SERVER_NAME, one_name(b"abc")[:-1]),),
    ]
    for extensions in none:
        assert server_name(hello(*extensions)) is None


def test_every_truncation() -> None:
    """A hello that is cut anywhere asks for nobody, or for the whole name: nothing beyond the end is looked at."""
    said = hello((10, b"xx"), (SERVER_NAME, one_name(b"_pubky.example")), (45, b"\x01\x01"))
    whole = server_name(said)
    for length in range(len(said)):
        assert server_name(said[:length]) in (None, whole)


@settings(max_examples=10_000)
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes(data: bytes, behind_a_head: bool) -> None:
    """The search for a name never fails, and never finds one beyond the bytes that there are."""
    said = HEAD + data if behind_a_head else data
    found = server_name(said)
    assert found is None or (said[found.start : found.end] == found.text.encode() and found.end <= len(said))


@cache
def real(host: str) -> tuple[bytes, tuple[tuple[int, bytes], ...]]:
    """A client's hello, split."""
    session = installed("gnutls").connect(host)
    session.handshake()
    head, extensions = split(session.take()[5:])
    session.close()
    return head, tuple(extensions)


@cache
def shared(engine: str) -> object:
    """A server's settings."""
    return installed(engine).server(KEY.seed)


ASKED = st.sampled_from(["", "example.com", f"_pubky.{KEY.public_key.z32}"])
SEEDS = st.integers(0, 1 << 32)
LISTS = st.builds(one_name, st.sampled_from([name.encode() for name in NAMES]) | st.binary(max_size=300))
EXTRAS = st.lists(
    st.tuples(st.just(SERVER_NAME), LISTS | st.binary(max_size=40))
    | st.tuples(st.sampled_from([POINT_FORMATS, KEY_EXCHANGE_MODES]), st.binary(max_size=4))
    | st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=40)),
    max_size=4,
)


@st.composite
def hellos(draw: st.DrawFn) -> bytes:
    """A client's hello with extensions left out, repeated, moved or put in, names of all kinds, and bytes changed."""
    head, found = real(draw(ASKED))
    extensions = list(found)
    extras = draw(EXTRAS)
    chance = Random(draw(SEEDS))  # what is not worth shrinking, and ten times as fast
    for extra in extras:
        extensions.insert(chance.randint(0, len(extensions)), extra)
    for _ in range(chance.randint(0, 2)):
        del extensions[chance.randrange(len(extensions))]
    if chance.randint(0, 1):
        chance.shuffle(extensions)
    said = bytearray(joined(head, extensions))
    for _ in range(chance.randint(0, 3)):
        said[chance.randrange(len(said))] = chance.randint(0, 255)
    return bytes(said)


def records(said: bytes, cuts: list[int]) -> bytes:
    """A message in records that end at the cuts."""
    ends = sorted({0, len(said), *(cut % len(said) for cut in cuts)})
    return b"".join(struct.pack("!BHH", 22, 0x0301, end - start) + said[start:end] for start, end in pairwise(ends))


def answered(server: ISession, said: bytes) -> None:
    """A server hears this: it waits, refuses or goes on, and says no more than a flight."""
    server.feed(said)
    try:
        assert server.handshake() is False
    except TlsFailed:
        pass
    assert len(server.take()) < 2000
    assert server.name is None or len(server.name) <= 255


@settings(max_examples=EXAMPLES)
@given(hellos(), st.lists(st.integers(0, 2000), max_size=3))
def test_any_hello(said: bytes, cuts: list[int]) -> None:
    """No hello makes a server of GnuTLS, whose buffer the look goes into, do anything but wait, refuse, or go on."""
    engine = installed("gnutls")
    sessions = getattr(engine, "_calls").sessions  # noqa: B009 # the type knows nothing of it
    before = len(sessions)
    server = engine.accept(shared("gnutls"))
    answered(server, records(said, cuts))
    server.close()
    assert len(sessions) == before


@settings(max_examples=EXAMPLES // 10)
@given(hellos())
def test_any_hello_at_the_other(said: bytes) -> None:
    """Nor one of OpenSSL."""
    engine = installed("openssl")
    server = engine.accept(shared("openssl"))
    answered(server, records(said, []))
    server.close()
