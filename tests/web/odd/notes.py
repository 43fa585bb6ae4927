"""Odd sign-in tokens, grants and proofs, and whoever passes for somebody else."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from pkarr.keys import Keypair
from pubky_homeserver.core.grants import GRANT_TYPE, POP_TYPE, sign_jws
from pubky_homeserver.core.tokens import sign_auth_token
from tests.web.odd.parts import (
    HOST,
    MALLORY,
    STRANGER,
    WITNESS,
    Draw,
    Fields,
    Known,
    M,
    Odd,
    W,
    choice,
    edited,
    fresh,
    seldom,
    spelled,
    spoiled_bearer,
    spoiled_cookie,
)
from tests.web.served import HOMESERVER, NOW

# --- sign-in tokens -----------------------------------------------------------------------------------------------

_SIGNER = choice(WITNESS, WITNESS, MALLORY, STRANGER)
_TIME = st.integers(0, 2**64 - 1)
_LISTS = choice(
    "/:rw", "/pub/:r", "", "/:rwe", "/pub/a:r,/pub/a:w", "/é:r", "/priv/x:w", ",", "/:", ":rw", "/pub/../:r", "/\\:r"
)  # fmt: skip
_TEXT = st.text(st.sampled_from("/:,rwe.pubx \u00e9\u0000"), max_size=30)
_HOW_MANY = choice(3, 50, 400, 3000)
_TRAIL = choice(b"", b"\xff", b"tail")
_WRONG_LENGTH = choice(b"\xff" * 9 + b"\x01", b"\xff" * 20, b"", b"\x80\x80\x80\x80\x80\x40", b"\x7f")
_ENTRANCE = choice(
    b"/session",
    b"/session",
    b"/signup",
    b"/signup?signup_token=AAAA-BBBB-CCCC",
    b"/signup?signup_token=%ff",
    b"/signup?signup_token=-&signup_token",
)
_BYTES = st.binary(max_size=200)


def _capabilities(draw: Draw) -> str:
    if seldom(draw, 8):
        return ",".join(["/pub/:r"] * _HOW_MANY(draw))
    return draw(_TEXT) if seldom(draw, 3) else _LISTS(draw)


def tokens(draw: Draw, known: Known) -> Odd:
    """Sign-in tokens: the witness's and others' with something changed, and odd ones signed by somebody else."""
    now = int(NOW * 1_000_000) + fresh(draw)
    refused, trusted = True, False
    if seldom(draw, 4):
        body, refused, trusted = sign_auth_token(MALLORY, _capabilities(draw), now), False, True
    elif seldom(draw, 5):
        body = draw(_BYTES)
    elif seldom(draw, 4):
        whole = sign_auth_token(STRANGER, _capabilities(draw), now)
        forged = whole[:83] + WITNESS.public_key.raw + whole[115:]
        body = STRANGER.sign(forged[65:]) + forged[64:]
    elif seldom(draw, 3):
        text = _capabilities(draw).encode() + _TRAIL(draw)
        length = bytes([len(text)]) if len(text) < 128 else _WRONG_LENGTH(draw)
        rest = b"\0" + draw(_TIME).to_bytes(8, "big") + MALLORY.public_key.raw + length + text
        body = MALLORY.sign(b"UBKY:AUTH" + rest) + b"PUBKY:AUTH" + rest
    else:
        body = edited(draw, sign_auth_token(_SIGNER(draw), "/:rw", now))
    return Odd((spelled(b"POST", _ENTRANCE(draw), [(b"Host", HOST(draw))], body),), (b"POST",), trusted, refused)


# --- grants and proofs --------------------------------------------------------------------------------------------

_PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=12),
    st.sampled_from([W.decode(), M.decode(), "pubky" + W.decode(), int(NOW) + 3600, 2**63, "a" * 254, "\ud800"]),
)
_JSON = st.one_of(_PLAIN, st.lists(_PLAIN, max_size=3), st.dictionaries(st.text(max_size=5), _PLAIN, max_size=2))
_ALPHABET = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.="
_CHANGES = st.integers(0, 3)
_POSITION = st.integers(0, 9)
_SIGNUP = choice("pubky.signup", "app.example")
_DOTTED = choice("a.b.c", "..", "e30.e30.", "")
_SHORT_TEXT = st.text(max_size=20)
_JSON_TYPE = choice(b"application/x+json; charset=x", b"text/json", b"", b"application/+json")
_JSON_SYNTAX = b'{}[]",: \\u\xff\x00'
_ASKED = choice(
    (b"POST", b"/auth/grant/session"),
    (b"POST", b"/auth/grant/session"),
    (b"DELETE", b"/auth/grant/session"),
    (b"POST", b"/auth/grant/signup"),
    (b"POST", b"/auth/grant/signup?signup_token=x&signup_token=y"),
)


def _encoded(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _nonce(draw: Draw) -> str:
    return f"nonce-{fresh(draw):08}"


def claims_of(jws: str) -> dict[str, Any]:
    """The claims of a JWS."""
    part = jws.split(".")[1]
    found: dict[str, Any] = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def _jws(header: Any, claims: Any, keypair: Keypair) -> str:
    message = _encoded(json.dumps(header).encode()) + "." + _encoded(json.dumps(claims).encode())
    return message + "." + _encoded(keypair.sign(message.encode()))


def _changed(draw: Draw, claims: dict[str, Any]) -> dict[str, Any]:
    """These claims, with some of them odd, missing or new."""
    found = dict(claims)
    names = [*claims, "nbf"]
    for _ in range(draw(_CHANGES)):
        name = names[draw(_POSITION) % len(names)]
        if seldom(draw, 4):
            found.pop(name, None)
        else:
            found[name] = draw(_JSON)
    return found


def _proof(draw: Draw, grant_id: object) -> dict[str, Any]:
    return {"aud": HOMESERVER, "gid": grant_id, "nonce": _nonce(draw), "iat": int(NOW)}


_HEADER = {"alg": "EdDSA", "typ": GRANT_TYPE, "kid": "x"}
_POP_HEADER = {"alg": "EdDSA", "typ": POP_TYPE}


def _almost_theirs(draw: Draw, known: Known) -> tuple[str, str]:
    """The witness's grant and a good proof, one of them a few letters away."""
    grant = known.witness_grant
    pop = sign_jws(known.witness_client, POP_TYPE, _proof(draw, claims_of(grant)["jti"]))
    if seldom(draw, 2):
        return edited(draw, grant.encode(), 2, _ALPHABET).decode(), pop
    return grant, edited(draw, pop.encode(), 2, _ALPHABET).decode()


def _theirs_with_my_proof(draw: Draw, known: Known) -> tuple[str, str]:
    """The witness's grant, and a proof by somebody else."""
    claims = _changed(draw, _proof(draw, claims_of(known.witness_grant)["jti"]))
    return known.witness_grant, _jws(_POP_HEADER, claims, known.client)


def _forged(draw: Draw, known: Known) -> tuple[str, str]:
    """A grant in the witness's name that she did not sign."""
    claims = _changed(draw, claims_of(known.witness_grant) | {"cnf": known.client.public_key.z32})
    claims |= {"iss": W.decode(), "client_id": _SIGNUP(draw)}
    return _jws(_HEADER, claims, MALLORY), _jws(_POP_HEADER, _proof(draw, claims.get("jti")), known.client)


def _mine(draw: Draw, known: Known) -> tuple[str, str]:
    """An own grant, odd or not, perhaps with the id of the witness's."""
    claims = claims_of(known.grant)
    if seldom(draw, 4):
        claims["jti"] = claims_of(known.witness_grant)["jti"]
    elif not seldom(draw, 4):
        claims["jti"] = _nonce(draw)
    if seldom(draw, 2):
        claims["client_id"] = _SIGNUP(draw)
    if seldom(draw, 2):
        claims = _changed(draw, claims)
    grant = _jws(_changed(draw, _HEADER) if seldom(draw, 4) else _HEADER, claims, MALLORY)
    proof = _proof(draw, claims.get("jti"))
    if seldom(draw, 3):
        proof = _changed(draw, proof)
    return grant, _jws(_changed(draw, _POP_HEADER) if seldom(draw, 5) else _POP_HEADER, proof, known.client)


def _nothing(draw: Draw, known: Known) -> tuple[str, str]:
    """No grant and no proof."""
    return draw(_SHORT_TEXT), _DOTTED(draw)


_NOTES: Callable[[Draw], Callable[[Draw, Known], tuple[str, str]]] = choice(
    _almost_theirs, _theirs_with_my_proof, _forged, _mine, _mine, _mine, _nothing
)


def grants(draw: Draw, known: Known) -> Odd:
    """Grants and proofs: valid ones with something changed, odd ones, the witness's with another's proof."""
    note = _NOTES(draw)
    grant, pop = note(draw, known)
    trusted = note is _mine
    refused = not trusted
    body = json.dumps({"grant": grant, "pop": pop}).encode()
    if seldom(draw, 5):
        body = edited(draw, body, 2, _JSON_SYNTAX)
    method, target = _ASKED(draw)
    content_type = _JSON_TYPE(draw) if seldom(draw, 10) else b"application/json"
    whole = spelled(method, target, [(b"Host", HOST(draw)), (b"Content-Type", content_type)], body)
    return Odd((whole,), (method,), trusted, refused)


# --- impostors ----------------------------------------------------------------------------------------------------

_FOR_HER_ONLY = choice(
    *((method, b"/storage/" + W + b"/priv/a.txt") for method in (b"GET", b"HEAD", b"PUT", b"DELETE", b"LOCK")),
    *((method, b"/priv/a.txt") for method in (b"GET", b"HEAD", b"PUT", b"DELETE")),
    *((method, b"/storage/" + W + b"/pub/a.txt") for method in (b"PUT", b"DELETE", b"LOCK")),
    (b"PUT", b"/storage/" + W + b"/pub/new"),
    (b"GET", b"/storage/" + W + b"/priv/"),
    (b"UNLOCK", b"/storage/" + W + b"/pub/locked"),
    (b"GET", b"/events-stream?user=" + W + b"&path=/priv/"),
    (b"GET", b"/session"),
    (b"GET", b"/auth/grant/sessions"),
    (b"GET", b"/auth/grant/session"),
    (b"DELETE", b"/auth/grant/session/"),
)


def impostors(draw: Draw, known: Known) -> Odd:
    """Whatever only the witness may do, with credentials that are almost hers, or another's."""
    trusted = seldom(draw, 4)
    if trusted:
        shown = (b"Authorization", b"Bearer " + known.bearer)
    elif seldom(draw, 8):
        shown = (b"Cookie", known.cookie.replace(M, W))
    elif seldom(draw, 2):
        shown = (b"Cookie", spoiled_cookie(draw, known))
    else:
        shown = (b"Authorization", spoiled_bearer(draw, known))
    method, target = _FOR_HER_ONLY(draw)
    if target.endswith(b"session/"):
        target += claims_of(known.witness_grant)["jti"].encode()
    fields: Fields = [(b"Host", HOST(draw)), (b"pubky-host", W), shown]
    if method == b"UNLOCK":
        fields.append((b"Lock-Token", b"<" + known.lock.encode() + b">"))
    own = trusted and target in (b"/auth/grant/sessions", b"/auth/grant/session")
    body = b"changed" if method == b"PUT" else None
    return Odd((spelled(method, target, fields, body),), (method,), trusted, refused=not own)
