"""Keys: their forms, what the parser finds in text, signatures."""

import hashlib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nacl.bindings import crypto_scalarmult_ed25519_base_noclamp as times_base

from pkarr.keys import (
    InvalidPublicKey,
    InvalidSecretKey,
    InvalidSignature,
    Keypair,
    PublicKey,
    is_prefixed,
)

from .vectors import load

VECTORS = load("keys")
SOME = VECTORS["keypairs"][4]["z32"]
PRIME = 2**255 - 19


@pytest.mark.parametrize("vector", VECTORS["keypairs"], ids=lambda vector: str(vector["name"]))
def test_forms_of_a_key(vector: dict[str, Any]) -> None:
    """A secret gives the same public key, and that the same text, as in the official library."""
    keypair = Keypair(bytes.fromhex(vector["secret_hex"]))
    key = keypair.public_key
    assert key.raw.hex() == bytes(key).hex() == vector["public_hex"] == vector["postcard_hex"]
    assert key.z32 == str(key) == vector["z32"] == vector["json"]
    assert PublicKey.from_z32(vector["z32"]) == PublicKey.parse(vector["pk_uri"]) == PublicKey(key.raw) == key
    assert is_prefixed(vector["display"])


@pytest.mark.parametrize("case", VECTORS["parse_cases"], ids=lambda case: repr(case["input"]))
def test_the_parser_finds_what_the_official_one_finds(case: dict[str, Any]) -> None:
    """Which key is in a text, or the exact words of why there is none, is as recorded."""
    expected = case["z32_parser"]
    if "ok" in expected:
        assert PublicKey.parse(case["input"]).z32 == expected["ok"]
    else:
        with pytest.raises(InvalidPublicKey) as caught:
            PublicKey.parse(case["input"])
        assert str(caught.value) == expected["err"]
    assert is_prefixed(case["input"]) == case["is_pubky_prefixed"]


@pytest.mark.parametrize("case", VECTORS["parse_cases"], ids=lambda case: repr(case["input"]))
def test_a_host_names_a_tenant_unless_prefixed(case: dict[str, Any]) -> None:
    """The two tests together, as a server uses them on a host, select the recorded tenant."""
    try:
        tenant = None if is_prefixed(case["input"]) else PublicKey.parse(case["input"]).z32
    except InvalidPublicKey:
        tenant = None
    assert tenant == case["legacy_tenant_from_host_or_pubky_host"]


@pytest.mark.parametrize(
    "dressed",
    [
        f"//{SOME}",
        f"https://user:password@{SOME}",
        f"https://{SOME}:80/pub/x",
        f"https://{SOME}?a=b/c",
        f"https://{SOME}#a?b",
        f"..a.{SOME}..",
        f"a:b@c.{SOME}.:1/2?3#4",
    ],
)
def test_every_step_of_undressing(dressed: str) -> None:
    """Scheme, slashes, user, port, path, query, fragment, dots and labels are taken off in that order."""
    assert PublicKey.parse(dressed).z32 == SOME


@pytest.mark.parametrize("strange", [f"pk:{SOME}", f"a.{SOME}", f"{SOME}.", f" {SOME}", SOME.upper(), SOME[:-1]])
def test_plain_z32_has_nothing_around_it(strange: str) -> None:
    """Where the protocol wants the bare key, no dress is taken off."""
    with pytest.raises(InvalidPublicKey):
        PublicKey.from_z32(strange)


@given(st.text(max_size=200) | st.text("ybndrfg8.:/@?#pk", max_size=200).map(lambda text: text + SOME))
@example("\ud800" * 60)
@example("é." + SOME)
def test_any_text_parses_or_is_refused(text: str) -> None:
    """No header value makes the parser raise anything but its own error."""
    try:
        key = PublicKey.parse(text)
    except InvalidPublicKey:
        return
    assert PublicKey.from_z32(key.z32) == key


@given(st.integers(0, len(SOME) - 1), st.characters(min_codepoint=33, max_codepoint=126))
def test_a_changed_character_is_another_key_or_none(position: int, character: str) -> None:
    """A key with a character replaced is never read as the same key, but for the four idle bits of the last one."""
    changed = SOME[:position] + character + SOME[position + 1 :]
    try:
        key = PublicKey.from_z32(changed)
    except InvalidPublicKey:
        return
    same = changed[:-1] == SOME[:-1] and changed[-1] in "ybndrfg8ejkmcpqx"  # the values with the first bit of SOME's
    assert (key.z32 == SOME) == same


@pytest.mark.parametrize(
    ("raw", "is_key"),
    [
        (bytes(32), True),  # y = 0, of order four
        (bytes([1]) + bytes(31), True),  # the neutral element
        (bytes([1]) + bytes(30) + b"\x80", True),  # the same with the idle sign of x = 0 set
        ((PRIME - 1).to_bytes(32, "little"), True),  # of order two
        (PRIME.to_bytes(32, "little"), True),  # y = 0, written with a y above the prime
        (b"\xff" * 32, True),  # y = 18
        (b"\x02" * 32, False),
        (b"\x02" + bytes(31), False),
    ],
    ids=lambda value: value.hex() if isinstance(value, bytes) else str(value),
)
def test_which_bytes_are_a_point(raw: bytes, is_key: bool) -> None:
    """The points that ed25519-dalek decompresses are keys, also those that stricter libraries refuse."""
    if is_key:
        assert PublicKey(raw).raw == raw
    else:
        with pytest.raises(InvalidPublicKey, match="Cannot decompress Edwards point"):
            PublicKey(raw)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_has_32_bytes(length: int) -> None:
    """Bytes of another length are refused with the official words."""
    with pytest.raises(InvalidPublicKey, match=f"^Invalid PublicKey length, expected 32 bytes but got: {length}$"):
        PublicKey(bytes(length))


@pytest.mark.parametrize("vector", VECTORS["ed25519"], ids=lambda vector: str(vector["msg_hex"]))
def test_signatures_are_those_of_rfc_8032(vector: dict[str, Any]) -> None:
    """Signing is deterministic and gives the recorded bytes, which the public key verifies."""
    keypair = Keypair(bytes.fromhex(vector["secret_hex"]))
    message, signature = bytes.fromhex(vector["msg_hex"]), bytes.fromhex(vector["sig_hex"])
    assert keypair.sign(message) == signature
    keypair.public_key.verify(message, signature)


@given(st.binary(max_size=100), st.integers(0, 511), st.binary(max_size=100))
def test_a_signature_holds_for_one_message_only(message: bytes, bit: int, other: bytes) -> None:
    """A flipped bit of the signature, another message or another key: InvalidSignature."""
    signer = Keypair(bytes(32))
    signature = signer.sign(message)
    flipped = (int.from_bytes(signature, "big") ^ (1 << bit)).to_bytes(64, "big")
    with pytest.raises(InvalidSignature, match=r"^signature error$"):
        signer.public_key.verify(message, flipped)
    with pytest.raises(InvalidSignature):
        PublicKey.from_z32(SOME).verify(message, signature)
    if other != message:
        with pytest.raises(InvalidSignature):
            signer.public_key.verify(other, signature)


@given(st.binary(max_size=130))
def test_any_bytes_are_a_bad_signature(signature: bytes) -> None:
    """A signature of any length is refused as such, never by another exception."""
    with pytest.raises(InvalidSignature):
        PublicKey.from_z32(SOME).verify(b"message", signature)


def test_a_signature_has_one_form() -> None:
    """The same signature with the group's order added to S is refused: nobody can make a second one from a first."""
    order = 2**252 + 27742317777372353535851937790883648493
    signer = Keypair(bytes(32))
    signature = signer.sign(b"message")
    larger = (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")
    with pytest.raises(InvalidSignature):
        signer.public_key.verify(b"message", signature[:32] + larger)


@pytest.mark.parametrize(
    "raw", [bytes(32), bytes([1]) + bytes(31), (PRIME + 1).to_bytes(32, "little")], ids=["zero", "one", "above"]
)
def test_nobody_signs_for_a_key_of_small_order(raw: bytes) -> None:
    """For a key of small order R = S·B fits without any secret; such signatures are never valid."""
    scalar = (5).to_bytes(32, "little")
    forged = times_base(scalar) + scalar
    for number in range(16):  # for order four, a quarter of all messages fits
        with pytest.raises(InvalidSignature):
            PublicKey(raw).verify(bytes([number]), forged)


def test_the_secret_file() -> None:
    """A secret key file holds 64 hexadecimal digits; blanks around them and their case do not matter."""
    keypair = Keypair(hashlib.sha256(b"a secret").digest())
    text = keypair.to_file_text()
    assert text == keypair.seed.hex()
    for written in (text, f" {text}\r\n", text.upper()):
        assert Keypair.from_file_text(written).seed == keypair.seed


@pytest.mark.parametrize(
    "text", ["", "00", "0" * 63, "0" * 65, "0" * 63 + "g", "0 " * 32, "é" * 64, "٠" * 64, "\ud800" * 64, "0" * 128]
)
def test_other_secret_files_are_refused(text: str) -> None:
    """Anything else is an error that does not quote what stood there."""
    with pytest.raises(InvalidSecretKey) as caught:
        Keypair.from_file_text(text)
    assert not text.strip() or text not in str(caught.value)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_seed_has_32_bytes(length: int) -> None:
    """A secret of another length is refused."""
    with pytest.raises(InvalidSecretKey):
        Keypair(b"s" * length)


def test_the_secret_is_not_shown() -> None:
    """What gets into logs and tracebacks names the public key only."""
    keypair = Keypair.random()
    shown = repr(keypair) + str(keypair) + repr([keypair])
    assert keypair.public_key.z32 in shown
    assert keypair.seed.hex() not in shown
    assert repr(keypair.seed) not in shown


def test_random_keys_differ() -> None:
    """Two new keys are not the same one."""
    assert Keypair.random().public_key != Keypair.random().public_key
