"""Grants and proofs of possession: the official vectors, the order of refusals, and what no input may do."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkarr.keys import Keypair
from pubky_homeserver.core.errors import GrantRefused, MalformedGrant
from pubky_homeserver.core.grants import (
    GRANT_TYPE,
    POP_TYPE,
    check_proof,
    check_time,
    is_grant_id,
    read_grant,
    sign_jws,
)
from pubky_homeserver.core.records import Grant

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "grant_jws.json").read_text())
USER = Keypair(bytes.fromhex(VECTORS["user_secret_hex"]))
CLIENT = Keypair(bytes.fromhex(VECTORS["client_secret_hex"]))
HOMESERVER = Keypair(bytes.fromhex(VECTORS["homeserver_secret_hex"])).public_key.z32
POP: dict[str, Any] = VECTORS["pop"]


def a_grant(**claims: object) -> Grant:
    """A grant of the vectors' user for the vectors' proof."""
    whole = {**VECTORS["grants"][0]["claims"], "jti": POP["claims"]["gid"], **claims}
    return read_grant(sign_jws(USER, GRANT_TYPE, whole))


@pytest.mark.parametrize("vector", VECTORS["grants"], ids=lambda vector: vector["name"])
def test_grants_read_as_recorded(vector: dict[str, Any]) -> None:
    """Every recorded grant gives its claims."""
    grant, claims = read_grant(vector["jws"]), vector["claims"]
    assert (grant.pubky, grant.client_id, grant.client_key) == (claims["iss"], claims["client_id"], claims["cnf"])
    assert [str(one) for one in grant.capabilities] == claims["caps"]
    assert (grant.id, grant.issued_at, grant.expires_at) == (claims["jti"], claims["iat"], claims["exp"])


@pytest.mark.parametrize("vector", VECTORS["grants"], ids=lambda vector: vector["name"])
def test_grants_are_signed_as_recorded(vector: dict[str, Any]) -> None:
    """The same claims in the same order give the recorded bytes."""
    assert sign_jws(USER, GRANT_TYPE, json.loads(vector["payload_json"])) == vector["jws"]


@pytest.mark.parametrize("case", VECTORS["claims_json_cases"], ids=lambda case: case["case"])
def test_claims(case: dict[str, Any]) -> None:
    """Claims are accepted and refused as recorded, whoever signed them."""
    text = sign_jws(USER, GRANT_TYPE, case["payload"])
    if case["result"] == "ok":
        assert read_grant(text).id == case["payload"]["jti"]
    else:
        with pytest.raises(MalformedGrant, match=r"^Invalid grant: invalid grant format$"):
            read_grant(text)


@pytest.mark.parametrize("case", VECTORS["client_id_cases"], ids=lambda case: case["input"][:20])
def test_client_ids(case: dict[str, Any]) -> None:
    """A client id has 1 to 253 bytes, whatever they are."""
    name, _, times = case["input"].partition("*")
    client_id = name.strip("'") * int(times) if times else case["input"]
    if case.get("ok"):
        assert a_grant(client_id=client_id).client_id == client_id
    else:
        with pytest.raises(MalformedGrant):
            a_grant(client_id=client_id)


@pytest.mark.parametrize("case", VECTORS["random_id_cases"], ids=lambda case: case["input"])
def test_ids(case: dict[str, Any]) -> None:
    """An id has 1 to 22 characters of base64url."""
    assert is_grant_id(case["input"]) == bool(case.get("ok"))


def test_the_recorded_proof() -> None:
    """The recorded proof is one at its time, and gives its nonce."""
    assert check_proof(POP["jws"], a_grant(), HOMESERVER, POP["claims"]["iat"]) == POP["claims"]["nonce"]
    assert sign_jws(CLIENT, POP_TYPE, json.loads(POP["payload_json"])) == POP["jws"]


@pytest.mark.parametrize(
    ("header", "refusal"),
    [
        ({"alg": "none"}, "invalid grant signature"),
        ({"alg": "HS256"}, "invalid grant signature"),
        ({"alg": "Ed25519"}, "invalid grant signature"),
        ({"alg": None}, "invalid grant signature"),
        ({"typ": "PUBKY-GRANT"}, "invalid grant header type, expected pubky-grant"),
        ({"typ": None}, "invalid grant header type, expected pubky-grant"),
        ({"crit": ["x"], "kid": "1"}, None),
    ],
)
def test_headers_of_grants(header: dict[str, object], refusal: str | None) -> None:
    """`alg` is exactly EdDSA, then `typ` is exactly a grant's, and nothing else of the header is looked at."""
    text = sign_jws(USER, GRANT_TYPE, VECTORS["grants"][0]["claims"], header)
    if refusal is None:
        read_grant(text)
    else:
        with pytest.raises((GrantRefused, MalformedGrant), match=f"^Invalid grant: {refusal}$"):
            read_grant(text)


@pytest.mark.parametrize(
    ("changes", "key", "typ", "offset", "refusal"),
    [
        ({}, CLIENT, POP_TYPE, 180, None),
        ({}, CLIENT, POP_TYPE, -180, None),
        ({}, CLIENT, POP_TYPE, 181, "PoP timestamp out of range"),
        ({}, CLIENT, POP_TYPE, -181, "PoP timestamp out of range"),
        ({}, USER, POP_TYPE, 0, "invalid PoP signature"),
        ({"nonce": "no nonce"}, CLIENT, POP_TYPE, 0, "invalid PoP signature"),
        ({"iat": "1"}, CLIENT, POP_TYPE, 0, "invalid PoP signature"),
        ({}, CLIENT, GRANT_TYPE, 0, "invalid PoP header type, expected pubky-pop"),
        ({"aud": USER.public_key.z32}, CLIENT, POP_TYPE, 0, "PoP audience mismatch"),
        ({"gid": "other"}, CLIENT, POP_TYPE, 0, "PoP grant ID mismatch"),
        ({"gid": "other", "aud": USER.public_key.z32}, CLIENT, POP_TYPE, 999, "PoP audience mismatch"),
        ({"gid": "other"}, CLIENT, POP_TYPE, 999, "PoP grant ID mismatch"),
    ],
)
def test_proofs(changes: dict[str, object], key: Keypair, typ: str, offset: int, refusal: str | None) -> None:
    """A proof is judged in order: signature, type, server, grant, time."""
    text = sign_jws(key, typ, {**POP["claims"], **changes})
    now = POP["claims"]["iat"] + offset
    if refusal is None:
        check_proof(text, a_grant(), HOMESERVER, now)
    else:
        with pytest.raises(GrantRefused, match=f"^Invalid PoP proof: {refusal}$"):
            check_proof(text, a_grant(), HOMESERVER, now)


def test_time_of_a_grant() -> None:
    """A grant is valid until the second before its end, and not looked at for its beginning."""
    grant = a_grant(iat=5000, exp=1000)
    check_time(grant, 999)
    with pytest.raises(GrantRefused, match=r"^Invalid grant: grant has expired$"):
        check_time(grant, 1000)


def test_padding_is_refused() -> None:
    """Padded base64url is no base64url: in the signature a wrong one, elsewhere a wrong format."""
    text = VECTORS["grants"][0]["jws"]
    with pytest.raises(GrantRefused, match="signature"):
        read_grant(text + "==")
    header, _, rest = text.partition(".")
    with pytest.raises(MalformedGrant, match="format"):
        read_grant(f"{header}=.{rest}")


def test_a_claim_that_stands_twice_is_refused() -> None:
    """Two readers could take different ones of two equal members."""
    header, payload, _ = VECTORS["grants"][0]["jws"].split(".")
    claims = urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    twice = urlsafe_b64encode(claims[:-1] + b',"exp":1}').rstrip(b"=")
    message = header.encode() + b"." + twice
    signature = urlsafe_b64encode(USER.sign(message)).rstrip(b"=")
    with pytest.raises(MalformedGrant, match="format"):
        read_grant((message + b"." + signature).decode())


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text makes the reader raise anything but its own errors."""
    with pytest.raises((MalformedGrant, GrantRefused)):
        read_grant(text)


@given(st.data())
def test_a_damaged_grant_is_refused(data: st.DataObject) -> None:
    """No single change of a character leaves a grant valid, and none raises anything else."""
    text = VECTORS["grants"][0]["jws"]
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(codec="ascii").filter(lambda one: one != text[at]))
    with pytest.raises((MalformedGrant, GrantRefused)):
        read_grant(text[:at] + other + text[at + 1 :])
