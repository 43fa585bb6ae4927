"""What odd requests are made of."""

from collections.abc import Callable
from typing import TypeVar
from urllib.parse import quote_from_bytes

from attrs import frozen
from hypothesis import strategies as st

from pkarr.keys import Keypair
from tests.web.served import HOMESERVER

T = TypeVar("T")
Draw = st.DrawFn
Fields = list[tuple[bytes, bytes]]

WITNESS, MALLORY, STRANGER = (Keypair(number.to_bytes(32, "big")) for number in (1, 2, 77))
"""Who keeps still, who misbehaves, and who has no account."""
W, M, S = (keypair.public_key.z32.encode() for keypair in (WITNESS, MALLORY, STRANGER))


@frozen
class Odd:
    """Bytes for one connection."""

    pieces: tuple[bytes, ...]
    """Sent one after the other."""
    methods: tuple[bytes, ...] | None = None
    """Of the requests in them; None where nobody can say what they are."""
    trusted: bool = False
    """Whether somebody's credentials are in them. Never the witness's."""
    refused: bool = False
    """Whether every answer must be a refusal (4xx)."""

    @property
    def live(self) -> bool:
        """Whether this may ask for a stream without end: our half-close ends it at once, perhaps before its answer."""
        return any(b"live" in piece for piece in self.pieces)


@frozen
class Known:
    """What odd requests may use: valid credentials, of the witness only to be spoiled."""

    cookie: bytes
    bearer: bytes
    grant: str
    client: Keypair
    witness_cookie: bytes
    witness_bearer: bytes
    witness_grant: str
    witness_client: Keypair
    lock: str
    """The token of a lock of the witness."""
    tags: tuple[bytes, ...]
    """Entity tags of public files."""


def choice(*options: T) -> Callable[[Draw], T]:
    """One of these."""
    strategy = st.sampled_from(options)
    return lambda draw: draw(strategy)


_DICE = {sides: st.integers(0, sides - 1) for sides in range(2, 24)}


def seldom(draw: Draw, sides: int) -> bool:
    """Whether a dice with so many sides shows its last."""
    return draw(_DICE[sides]) == sides - 1


def fresh(draw: Draw) -> int:
    """A number below 64 million that hardly comes twice: of a wide range hypothesis likes some numbers too much."""
    return sum(draw(_DICE[20]) * 20**place for place in range(6))


def spelled(method: bytes, target: bytes, fields: Fields, body: bytes | None = None, version: bytes = b"1.1") -> bytes:
    """A request; a body gets its length, unless a field says how it is framed."""
    framed = {name.lower() for name, _ in fields} & {b"content-length", b"transfer-encoding"}
    if body is not None and not framed:
        fields = [*fields, (b"Content-Length", b"%d" % len(body))]
    lines = [b"%b %b HTTP/%b" % (method, target, version), *(b"%b: %b" % one for one in fields), b"", b""]
    return b"\r\n".join(lines) + (body or b"")


# --- edits --------------------------------------------------------------------------------------------------------

_OFFSET = st.integers(0, 4095)
_FEW = st.integers(1, 8)
_MANY = st.integers(1, 40)
_BYTES = st.binary(min_size=1, max_size=4)
_EDIT = choice("replace", "insert", "delete", "cut", "repeat", "flip")


def edited(draw: Draw, whole: bytes, most: int = 3, alphabet: bytes | None = None) -> bytes:
    """A few edits away from this, and never this. `alphabet`: the bytes that come in, if not any."""
    found = whole
    for _ in range(draw(_DICE[most + 1]) or 1):
        at = draw(_OFFSET) % (len(found) + 1)
        match _EDIT(draw):
            case "replace":
                found = found[:at] + _new(draw, alphabet)[:1] + found[at + 1 :]
            case "insert":
                found = found[:at] + _new(draw, alphabet) + found[at:]
            case "delete":
                found = found[:at] + found[at + draw(_FEW) :]
            case "cut":
                found = found[:at]
            case "repeat":
                found = found[: at + draw(_MANY)] + found[at:]
            case "flip" if at < len(found) and alphabet is None:
                found = found[:at] + bytes([found[at] ^ (1 << draw(_DICE[8]))]) + found[at + 1 :]
    return found if found != whole else found + _new(draw, alphabet)


def _new(draw: Draw, alphabet: bytes | None) -> bytes:
    raw = draw(_BYTES)
    return raw if alphabet is None else bytes(alphabet[one % len(alphabet)] for one in raw)


# --- values -------------------------------------------------------------------------------------------------------

BINARY = st.binary(max_size=60)
BODY = st.none() | BINARY
VISIBLE = st.binary(max_size=24).map(lambda raw: bytes(one for one in raw if one >= 32))
"""What may stand in a field."""
SAFE = bytes(range(33, 127))

METHOD = choice(
    *b"GET GET GET GET HEAD HEAD PUT PUT PUT DELETE DELETE POST POST OPTIONS LOCK UNLOCK".split(),
    *b"PATCH PROPFIND TRACE MKCOL COPY".split(),
)
ROUTE = choice(
    *b"/ /info /signup /session /auth/grant/signup /auth/grant/session /auth/grant/sessions".split(),
    b"/auth/grant/session/abc",
    *b"/events/ /events-stream /signup_tokens/AAAA-BBBB-CCCC /pub/a.txt /pub/ /priv/ /priv/a.txt /index.html".split(),
    *(b"/storage/" + W + path for path in (b"/pub/a.txt", b"/priv/a.txt", b"/pub/")),
    *(b"/storage/" + M + path for path in (b"/pub/large", b"/pub/dir/")),
    b"/storage/" + S + b"/pub/a",
)
HOST = choice(b"127.0.0.1", W, M, b"_pubky." + W, b"blog." + M, W + b":80", HOMESERVER.encode(), b"x.y", b"")

_ODD_NUMBER = choice(b"0", b"1", b"-1", b"65535", b"65536", b"1001", b"+5", b"05", b"1.0", b"1e3", b" 1", b"\xd9\xa3")
_SMALL, _LARGE, _HUGE = st.integers(0, 21_000), st.integers(-(10**9), 2**54), st.integers(2**60, 2**70)


def number(draw: Draw) -> bytes:
    """A number, or what looks like one."""
    match draw(_DICE[6]):
        case 0:
            return b"%d" % draw(_HUGE)
        case 1:
            return b"%d" % draw(_LARGE)
        case 2:
            return _ODD_NUMBER(draw)
        case 3:
            return b"%d" % draw(_DICE[6])
    return b"%d" % draw(_SMALL)


def percent(draw: Draw, raw: bytes) -> bytes:
    """Bytes as a target may hold them, in one of the ways to encode them."""
    match draw(_DICE[4]):
        case 0:
            return quote_from_bytes(raw, safe="/").encode()
        case 1:
            return b"".join(b"%%%02x" % one for one in raw)
        case 2:
            return quote_from_bytes(raw.replace(b"/", b"%2F"), safe="%").encode()
    return bytes(one for one in raw if 33 <= one < 127 and one not in b"#")


# --- credentials --------------------------------------------------------------------------------------------------


def credentials(draw: Draw, known: Known) -> tuple[Fields, bool]:
    """Somebody's, nobody's, or the witness's spoiled; and whether they are good."""
    match draw(_DICE[8]):
        case 0 | 1:
            return [(b"Cookie", known.cookie)], True
        case 2 | 3:
            return [(b"Authorization", b"Bearer " + known.bearer)], True
        case 4:
            return [(b"Cookie", known.cookie), (b"Authorization", spoiled_bearer(draw, known))], True
        case 5:
            return [(b"Cookie", spoiled_cookie(draw, known))], False
        case 6:
            return [(b"Authorization", spoiled_bearer(draw, known))], False
    return [], False


def spoiled_cookie(draw: Draw, known: Known) -> bytes:
    """The witness's cookie, but not quite."""
    name, _, secret = known.witness_cookie.partition(b"=")
    match draw(_DICE[6]):
        case 0:
            return b"a=b; %b=%b; %b=%b" % (name, secret, name, b"A" * 26)
        case 1:
            wrong = edited(draw, name, 2, SAFE)
            return b"x=y" if name in wrong else b"%b=%b" % (wrong, secret)
        case 2:
            return name + b"=" + known.cookie.partition(b"=")[2]
        case 3:
            return b'%b="%b"' % (name, secret)
    wrong = edited(draw, secret, 2, SAFE)
    return name + b"=" + (b"" if secret in wrong else wrong)


def spoiled_bearer(draw: Draw, known: Known) -> bytes:
    """The witness's bearer, but not quite."""
    whole = b"Bearer " + known.witness_bearer
    match draw(_DICE[6]):
        case 0:
            return whole.swapcase()
        case 1:
            return whole.replace(b" ", b"  ")
        case 2:
            return b"Basic dTpw"
    wrong = edited(draw, whole, 3, SAFE)
    return b"Bearer" if whole in wrong else wrong
