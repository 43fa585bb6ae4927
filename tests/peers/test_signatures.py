"""Signed requests between homeservers: what a signature covers, and what is refused."""

import re
from base64 import b64decode, b64encode, urlsafe_b64decode
from datetime import UTC, datetime
from email.utils import formatdate
from types import SimpleNamespace

import pytest
from attrs import evolve
from http_message_signatures import HTTPMessageSigner
from hypothesis import given
from hypothesis import strategies as st

from pkarr.keys import InvalidSignature, Keypair, PublicKey
from pubky_homeserver.peers.signatures import (
    COVERED,
    DIGEST,
    MAX_TARGET,
    WINDOW,
    BadSignature,
    Ed25519,
    Head,
    Signed,
    _created_plainly,
    sign,
    verify,
)

ALICE, BOB, MALLORY = (Keypair(bytes([number]) * 32) for number in (1, 2, 3))
HERE = BOB.public_key.z32
PEERS = frozenset({ALICE.public_key.z32})
NOW = 1_795_387_747.25
TARGET = "/peer/v1/accounts?after=a%20b&x"

TARGETS = st.from_regex(
    re.compile(r"/[a-z0-9/._~-]{0,20}(\?([a-z0-9=&_-]|%[0-9A-F]{2}){0,20})?", re.ASCII), fullmatch=True
)
BODIES = st.one_of(st.just(b""), st.binary(min_size=1, max_size=50))


def head_of(signed: dict[str, str], method: str = "GET", target: str = TARGET, body: bytes = b"") -> Head:
    """A request as it arrives."""
    return Head(method, target, {name.lower(): [value] for name, value in signed.items()}, bool(body))


def accept(head: Head, body: bytes = b"", now: float = NOW) -> Signed:
    """What the receiver does."""
    signed = verify(head, HERE, PEERS, now)
    signed.check(body)
    return signed


# --- RFC 9421 -----------------------------------------------------------------------------------------------------


def test_the_example_of_the_rfc() -> None:
    """Our keys sign the RFC's own message as the RFC does (RFC 9421, B.1.4 and B.2.6)."""
    secret, public = "n4Ni-HpISpVObnQMW0wOhCKROaIKqKtW_2ZYb2p9KcU", "JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs"
    keypair = Keypair(urlsafe_b64decode(secret + "="))
    assert keypair.public_key.raw == urlsafe_b64decode(public + "=")
    request = SimpleNamespace(
        method="POST",
        url="https://example.com/foo?param=Value&Pet=dog",
        headers={
            "Date": "Tue, 20 Apr 2021 02:07:55 GMT",
            "Content-Type": "application/json",
            "Content-Length": "18",
        },
    )
    prepared = HTTPMessageSigner(signature_algorithm=Ed25519).prepare(
        request,
        key_id="test-key-ed25519",
        created=datetime.fromtimestamp(1618884473, UTC),
        covered_component_ids=("date", "@method", "@path", "@authority", "content-type", "content-length"),
        include_alg=False,
    )
    signature = Ed25519(private_key=keypair).sign(prepared.signature_base)
    expected = "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="
    assert signature == b64decode(expected)
    Ed25519(public_key=keypair.public_key).verify(signature, prepared.signature_base)
    with pytest.raises(InvalidSignature):
        Ed25519(public_key=ALICE.public_key).verify(signature, prepared.signature_base)


def test_how_a_signed_request_looks() -> None:
    """The fields are those that another implementation would write from the specification."""
    signed = sign(ALICE, HERE, "POST", TARGET, NOW, b"body")
    sender = ALICE.public_key.z32
    assert signed.pop("Signature").startswith("sig1=:")
    assert signed == {
        "Date": formatdate(int(NOW), usegmt=True),
        "Pubky-Peer": sender,
        "Pubky-Receiver": HERE,
        "Content-Digest": "sha-256=:Iw2DWNyOiJC0xY3utikS7i8gNXrpKlzIYbmOaP4xrLU=:",
        "Signature-Input": 'sig1=("@method" "@path" "@query" "date" "pubky-peer" "pubky-receiver" "content-digest")'
        f';created=1795387747;keyid="{sender}";alg="ed25519";tag="pubky-peer"',
    }


# --- what is covered ----------------------------------------------------------------------------------------------


@given(st.sampled_from(["GET", "POST"]), TARGETS, BODIES, st.floats(-WINDOW + 1, WINDOW - 1))
def test_what_a_peer_signs_is_accepted(method: str, target: str, body: bytes, late: float) -> None:
    """Any request, within the time that clocks may be apart."""
    signed = sign(ALICE, HERE, method, target, NOW, body)
    assert accept(head_of(signed, method, target, body), body, NOW + late).sender == ALICE.public_key.z32


@given(TARGETS, TARGETS)
def test_another_target_is_refused(target: str, other: str) -> None:
    """Path and query as sent: whatever a proxy or a thief makes of them. An empty query is none."""
    signed = sign(ALICE, HERE, "GET", target, NOW)
    if target.removesuffix("?") == other.removesuffix("?"):
        other += "!"
    with pytest.raises(BadSignature):
        accept(head_of(signed, target=other))


@given(st.integers(0, 63), st.integers(0, 7))
def test_another_signature_is_refused(at: int, bit: int) -> None:
    """Every bit counts."""
    signed = sign(ALICE, HERE, "GET", TARGET, NOW)
    raw = bytearray(b64decode(signed["Signature"].removeprefix("sig1=:").removesuffix(":")))
    raw[at] ^= 1 << bit
    with pytest.raises(BadSignature):
        accept(head_of(signed | {"Signature": f"sig1=:{b64encode(raw).decode()}:"}))


@given(BODIES, BODIES)
def test_another_body_is_refused(body: bytes, other: bytes) -> None:
    """The head says what the body is."""
    signed = sign(ALICE, HERE, "POST", TARGET, NOW, body)
    if body == other:
        other += b"!"
    with pytest.raises(BadSignature):
        accept(head_of(signed, "POST", body=other), other)


@given(
    st.sampled_from(["Date", "Pubky-Peer", "Pubky-Receiver", "Content-Digest", "Signature-Input", "Signature"]),
    st.data(),
)
def test_fields_that_are_missing_twice_or_other_are_refused(name: str, data: st.DataObject) -> None:
    """Each field is there once, as it was signed."""
    signed = sign(ALICE, HERE, "POST", TARGET, NOW, b"body")
    head = head_of(signed, "POST", body=b"body")
    text = data.draw(st.text(st.characters(codec="latin-1"), max_size=600).filter(lambda one: one != signed[name]))
    for values in ([], [signed[name]] * 2, [text]):
        with pytest.raises(BadSignature):
            accept(evolve(head, fields={**head.fields, name.lower(): values}), b"body")


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200))
def test_any_other_input_is_refused(text: str) -> None:
    """What a signature claims to cover is bounded, parsed and checked; nothing but a refusal comes out."""
    signed = sign(ALICE, HERE, "GET", TARGET, NOW)
    at = len(text) % len(signed["Signature-Input"])
    spoilt = signed["Signature-Input"][:at] + text
    if spoilt != signed["Signature-Input"]:
        with pytest.raises(BadSignature):
            accept(head_of(signed | {"Signature-Input": spoilt}))


def forged(keypair: Keypair = ALICE, sender: str | None = None, created: int = int(NOW), **options: object) -> Head:
    """A request signed otherwise than `sign` does."""
    fields = {
        "date": formatdate(int(NOW), usegmt=True),
        "pubky-peer": sender or keypair.public_key.z32,
        "pubky-receiver": HERE,
    }
    chosen = {
        "key_id": keypair.public_key.z32,
        "created": datetime.fromtimestamp(created, UTC),
        "tag": "pubky-peer",
        "label": "sig1",
        "covered_component_ids": ("@method", "@path", "@query", "date", "pubky-peer", "pubky-receiver"),
        "use_existing_digest": False,
    } | options
    message = SimpleNamespace(method="GET", url="https://x" + TARGET, headers=dict(fields))
    signer = HTTPMessageSigner(signature_algorithm=Ed25519)
    prepared = signer.prepare(message, **chosen)  # type: ignore[arg-type]  # options of several types
    signer.apply(message, prepared, keypair.sign(prepared.signature_base))
    return Head("GET", TARGET, {name.lower(): [value] for name, value in message.headers.items()})


def test_a_forgery_would_be_accepted_if_it_were_none() -> None:
    """Or the refusals below say nothing."""
    assert accept(forged()).sender == ALICE.public_key.z32


FORGED = [
    (forged(MALLORY), "does not know the sender"),
    (forged(MALLORY, ALICE.public_key.z32), "Unable to resolve"),
    (forged(MALLORY, ALICE.public_key.z32, key_id=ALICE.public_key.z32), "signature error"),
    (forged(created=int(NOW) - 1), "another time than the date"),
    (forged(created=int(NOW) - WINDOW - 1), "more than 300 s"),
    (forged(expires=datetime.fromtimestamp(NOW - 10, UTC)), "expired"),
    (forged(tag="other"), "No signatures found"),
    (forged(tag=None), "No signatures found"),
    *(
        (
            forged(
                covered_component_ids=tuple(
                    one
                    for one in ("@method", "@path", "@query", "date", "pubky-peer", "pubky-receiver")
                    if one != left_out
                )
            ),
            "was not covered",
        )
        for left_out in ("@method", "@path", "@query", "date", "pubky-peer", "pubky-receiver")
    ),
]


@pytest.mark.parametrize(("head", "says"), FORGED)
def test_forgeries(head: Head, says: str) -> None:
    """A signature counts if it is the sender's, for this use, covers everything and is new."""
    with pytest.raises(BadSignature, match=says):
        accept(head)


@pytest.mark.parametrize("late", [-WINDOW - 2, WINDOW + 1, 10**9, -(10**9)])
def test_old_and_future_requests(late: float) -> None:
    """A request of another time is refused with the words that let an operator see it is the clock."""
    signed = sign(ALICE, HERE, "GET", TARGET, NOW)
    with pytest.raises(
        BadSignature, match=re.escape("more than 300 s from this homeserver's clock: see the field Date")
    ):
        accept(head_of(signed), now=NOW + late)


def test_times_that_are_none() -> None:
    """A number that is no date is refused like any other."""
    for number in ("999999999999999", "-999999999999999", "1.5", '"1"', "?1"):
        signed = sign(ALICE, HERE, "GET", TARGET, NOW)
        spoilt = signed["Signature-Input"].replace(f"created={int(NOW)}", f"created={number}")
        with pytest.raises(BadSignature):
            accept(head_of(signed | {"Signature-Input": spoilt}))


def test_a_request_for_another_homeserver() -> None:
    """What was meant for Bob is of no use elsewhere: nobody can pass it on."""
    signed = sign(ALICE, MALLORY.public_key.z32, "GET", TARGET, NOW)
    with pytest.raises(BadSignature, match="not for this homeserver"):
        accept(head_of(signed))


def test_two_signatures() -> None:
    """Which one counts is never a question."""
    signed = sign(ALICE, HERE, "GET", TARGET, NOW)
    doubled = {
        name: f"{signed[name]}, {signed[name].replace('sig1', 'sig2')}" for name in ("Signature", "Signature-Input")
    }
    with pytest.raises(BadSignature):
        accept(head_of(signed | doubled))


def test_a_body_without_a_digest() -> None:
    """What is not covered is not read."""
    signed = sign(ALICE, HERE, "POST", TARGET, NOW)
    with pytest.raises(BadSignature, match="no digest"):
        verify(evolve(head_of(signed, "POST"), has_body=True), HERE, PEERS, NOW)


@pytest.mark.parametrize("target", ["", "*", "x", "/a#b", "/a b", "/ä", "/" + "a" * MAX_TARGET, "/%", "https://x/"])
def test_targets_that_are_none(target: str) -> None:
    """Only the form that is signed is read."""
    signed = sign(ALICE, HERE, "GET", TARGET, NOW)
    with pytest.raises(BadSignature):
        accept(head_of(signed, target=target))


def test_a_key_that_everybody_can_sign_with() -> None:
    """A key of small order in the settings opens nothing: no signature of it counts."""
    weak = PublicKey(bytes([1]) + bytes(31))
    signed = sign(ALICE, HERE, "GET", TARGET, NOW)
    spoilt = {name: value.replace(ALICE.public_key.z32, weak.z32) for name, value in signed.items()}
    with pytest.raises(BadSignature):
        verify(head_of(spoilt), HERE, {weak.z32}, NOW)


# --- the form that nearly all have --------------------------------------------------------------------------------


@given(method=st.sampled_from(["GET", "POST"]), target=TARGETS, body=BODIES, at=st.integers(0, 2**33))
def test_the_usual_form_needs_no_library(method: str, target: str, body: bytes, at: int) -> None:
    """What `sign` makes is seen to be right without the library, and each change of what it covers to be wrong."""
    head = head_of(sign(ALICE, HERE, method, target, at, body), method, target, body)
    found = {name: values[0] for name, values in head.fields.items()}
    required = (*COVERED, DIGEST) if body else COVERED
    sender = ALICE.public_key.z32
    assert _created_plainly(head, found, sender, required) == at
    assert _created_plainly(evolve(head, method="PUT"), found, sender, required) is None
    assert _created_plainly(evolve(head, target=target + "x"), found, sender, required) is None
    for name in found.keys() - {"signature", "signature-input"}:
        for other in ({name: found[name] + " "}, {name: found[name][:-1]}):
            assert _created_plainly(head, found | other, sender, required) is None
        less = {one: value for one, value in found.items() if one != name}
        assert _created_plainly(head, less, sender, required) is None
    later = found["signature-input"].replace(f"created={at}", f"created={at + 1}")
    assert _created_plainly(head, found | {"signature-input": later}, sender, required) is None
    assert _created_plainly(head, found, MALLORY.public_key.z32, required) is None


def test_another_form_is_left_to_the_library() -> None:
    """Who writes the same parameters in another order, under another label, is understood all the same."""
    added = {"Date": formatdate(int(NOW), usegmt=True), "Pubky-Peer": ALICE.public_key.z32, "Pubky-Receiver": HERE}
    covered = " ".join(f'"{name}"' for name in COVERED)
    parameters = f'({covered});keyid="{ALICE.public_key.z32}";created={int(NOW)};tag="pubky-peer";alg="ed25519"'
    path, _, query = TARGET.partition("?")
    values = ("GET", path, f"?{query}", *added.values())
    lines = [f'"{name}": {value}' for name, value in zip(COVERED, values, strict=True)]
    base = "\n".join((*lines, f'"@signature-params": {parameters}'))
    signature = b64encode(ALICE.sign(base.encode())).decode()
    signed = {**added, "Signature-Input": f"x={parameters}", "Signature": f"x=:{signature}:"}
    assert accept(head_of(signed)).sender == ALICE.public_key.z32
