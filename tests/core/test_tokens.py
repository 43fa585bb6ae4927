"""Sign-in tokens, signup tokens, session records, secrets and cookies, against what official programs make of them."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkarr.keys import Keypair
from pubky_homeserver.core.capabilities import format_capabilities, parse_capabilities
from pubky_homeserver.core.errors import InvalidAuthToken, InvalidSignupToken
from pubky_homeserver.core.postcard import encode_text
from pubky_homeserver.core.tokens import (
    MAX_CAPABILITIES,
    AuthToken,
    InvalidSessionRecord,
    check_signup_token,
    crockford_decode,
    decode_session,
    encode_session,
    is_secure_host,
    new_secret,
    new_signup_token,
    removal_cookie,
    session_cookie,
    session_id,
    sign_auth_token,
)

VECTORS = Path(__file__).parents[1] / "vectors"
TOKENS = json.loads((VECTORS / "auth_token.json").read_text())
RECORDS = json.loads((VECTORS / "session_record.json").read_text())

ALICE = Keypair(b"\x42" * 32)
NOW = 1_764_000_000_000_000
SECOND = 1_000_000
ENDED = "Hit the end of buffer, expected more data"
UNREADABLE = "Serde Deserialization Error"


def signed(unsigned: bytes) -> bytes:
    """A token with a right signature over whatever follows it."""
    return ALICE.sign(unsigned[1:]) + unsigned


def token(capabilities: str = "/:rw", timestamp: int = NOW) -> bytes:
    """An honest token."""
    return sign_auth_token(ALICE, capabilities, timestamp)


def altered(index: int, bit: int = 1) -> bytes:
    """An honest token of which one bit was changed after signing."""
    changed = bytearray(token())
    changed[index] ^= bit
    return bytes(changed)


OFFICIAL_CASES: dict[str, bytes] = {
    "empty body": b"",
    **{f"truncated to {length} bytes": token()[:length] for length in (1, 64, 74, 75, 83, 100, 115)},
    "version byte 1": token()[:74] + b"\x01" + token()[75:],
    "version byte 255": token()[:74] + b"\xff" + token()[75:],
    "timestamp now+179s": token(timestamp=NOW + 179 * SECOND),
    "timestamp now+181s": token(timestamp=NOW + 181 * SECOND),
    "timestamp now-179s": token(timestamp=NOW - 179 * SECOND),
    "timestamp now-181s": token(timestamp=NOW - 181 * SECOND),
    "timestamp 0": token(timestamp=0),
    "signature bit flipped": altered(0),
    "caps altered after signing": token().replace(b"/:rw", b"/:rr"),
    "first namespace byte altered after signing (not covered by signature)": altered(64),
    "other namespace, correctly signed": signed(b"OTHER:AUTH" + token()[74:]),
    "trailing bytes, signed": signed(token()[64:] + b"more"),
    "trailing byte, unsigned": token() + b"\x00",
    **{
        f'invalid caps text "{text}"': token(text)
        for text in (
            "pub/a:rw",
            "/pub/a",
            "/pub/a:",
            "/pub/a:x",
            "/:rw,",
            "/:rw, /pub/:r",
            "/pub//a:r",
            "/pub/../a:r",
            "/pub/a:r:w",
            " /:rw",
        )
    },
    "public key bytes not a curve point (32x02)": token()[:83] + b"\x02" * 32 + token()[115:],
    "caps not utf-8": signed(token("")[64:-1] + b"\x02\xff\xfe"),
}

DELIBERATE = {
    "first namespace byte altered after signing (not covered by signature)": "Invalid namespace",
    "other namespace, correctly signed": "Invalid namespace",
}
"""The official server takes these: it never looks at the namespace. Here a token must say what it is for."""


def refusal_of(encoded: bytes, now: int = NOW) -> str:
    """What is said against a token."""
    with pytest.raises(InvalidAuthToken) as refusal:
        AuthToken.parse(encoded).verify(now)
    return str(refusal.value)


@pytest.mark.parametrize("case", TOKENS["valid"], ids=lambda case: case["name"])
def test_official_tokens(case: dict[str, Any]) -> None:
    """Tokens made by the official client are read and accepted; the same fields give the same bytes here."""
    encoded = bytes.fromhex(case["token_hex"])
    read = AuthToken.parse(encoded)
    read.verify(case["timestamp_us"])
    keypair = Keypair(bytes.fromhex(case["signer_secret_hex"]))
    assert read.public_key == keypair.public_key
    assert read.pubky == keypair.public_key.z32
    assert read.timestamp == case["timestamp_us"]
    assert format_capabilities(read.capabilities) == case["caps_canonical"]
    assert sign_auth_token(keypair, case["caps_text"], case["timestamp_us"]) == encoded
    assert len(encoded) == case["len"]


@pytest.mark.parametrize("case", TOKENS["verify_cases"], ids=lambda case: case["case"])
def test_official_verification(case: dict[str, Any]) -> None:
    """Every official verdict holds here, but for the namespace, where ours is stricter on purpose."""
    encoded, verdict = OFFICIAL_CASES[case["case"]], case["official_verify"]
    if case["case"] in DELIBERATE:
        assert verdict["ok"]
        assert refusal_of(encoded) == DELIBERATE[case["case"]]
    elif "err" in verdict:
        assert refusal_of(encoded) == verdict["err"]
    else:
        read = AuthToken.parse(encoded)
        read.verify(NOW)
        assert format_capabilities(read.capabilities) == verdict["caps"]


def test_every_official_case_is_replayed() -> None:
    """The table above and the vectors name the same cases."""
    assert set(OFFICIAL_CASES) == {case["case"] for case in TOKENS["verify_cases"]}


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"\x00" * 64 + b"OTHER:AUTH\x01", "Unknown version"),
        (b"\x00" * 64 + b"OTHER:AUTH\x00", "Invalid namespace"),
        (token()[:83] + b"\x02" * 32, UNREADABLE),
        (token()[:115] + b"\x80" * 10, "Found a varint that didn't terminate. Is the usize too big for this platform?"),
        (token("/x", 0), UNREADABLE),
        (
            altered(0)[:75] + bytes(8) + token()[83:],
            "AuthToken has a timestamp that is more than 3 minutes in the past",
        ),
        (token(timestamp=2**64 - 1), "AuthToken has a timestamp that is more than 3 minutes in the future"),
    ],
)
def test_the_first_fault_is_named(encoded: bytes, reason: str) -> None:
    """Version before namespace before fields, key before capabilities, time before signature."""
    assert refusal_of(encoded) == reason


@pytest.mark.parametrize("offset", [-180 * SECOND, 0, 180 * SECOND])
def test_the_window_includes_its_ends(offset: int) -> None:
    """A token holds for exactly three minutes before and after its time; one microsecond more is too much."""
    encoded = token(timestamp=NOW + offset)
    AuthToken.parse(encoded).verify(NOW)
    if offset:
        beyond = 1 if offset < 0 else -1
        assert "more than 3 minutes" in refusal_of(encoded, NOW + beyond)


@pytest.mark.parametrize("index", [i for i in range(120) if not 64 <= i < 75])
def test_no_byte_can_be_changed(index: int) -> None:
    """One changed bit anywhere spoils the token, whatever the reason is called."""
    refusal_of(altered(index), NOW)


def test_every_truncation_is_a_refusal() -> None:
    """A token that is cut off anywhere is refused with the text for it."""
    encoded = token("/pub/a/:rw,/pub/ü/:r")
    for length in range(len(encoded)):
        assert refusal_of(encoded[:length]) == ENDED


@given(st.binary(max_size=200), st.sampled_from([0, 64, 75, 83, 115, 116]))
def test_any_bytes_are_refused(noise: bytes, start: int) -> None:
    """No bytes make the reader fail in another way than by its own refusal."""
    with pytest.raises(InvalidAuthToken):
        AuthToken.parse(token()[:start] + noise).verify(NOW + 400 * SECOND)


def test_capabilities_are_bounded() -> None:
    """Capabilities are read before the signature is checked, so their length has a limit."""
    entry = "/pub/a:r,"
    longest = entry * (MAX_CAPABILITIES // len(entry))
    AuthToken.parse(token(longest[:-1])).verify(NOW)
    assert refusal_of(token(longest + entry[:-1])) == UNREADABLE


def test_ids() -> None:
    """Tokens of one key and one time share their id, whatever else they say; others do not."""
    one = AuthToken.parse(token("/:rw")).id
    assert one == AuthToken.parse(token("/pub/:r")).id
    assert one != AuthToken.parse(token(timestamp=NOW + 1)).id
    assert one != AuthToken.parse(sign_auth_token(Keypair(b"\x07" * 32), "/:rw", NOW)).id


def test_a_token_in_a_log_cannot_be_used() -> None:
    """The text form of a token holds neither its signature nor the signed bytes."""
    encoded = token()
    shown = repr(AuthToken.parse(encoded))
    assert repr(encoded[:64])[2:-1] not in shown
    assert "PUBKY:AUTH" not in shown


# --- signup tokens ------------------------------------------------------------------------------------------------


def test_new_signup_tokens() -> None:
    """Four upper-case Crockford digits three times, seven random bytes in them, accepted by the check."""
    made = {new_signup_token() for _ in range(50)}
    assert len(made) == 50
    for text in made:
        assert re.fullmatch(r"[0-9A-HJKMNP-TV-Z]{4}(-[0-9A-HJKMNP-TV-Z]{4}){2}", text)
        assert len(crockford_decode(text.replace("-", ""))) == 7
        check_signup_token(text)


@pytest.mark.parametrize(
    "text", ["JZY0-D6MY-ZFNG", "jzy0-d6my-zfng", "ILOi-looL-1O0I", "JZY0D6MYZFNGAB", "--------------", "JZY0-D6M--ZFNG"]
)
def test_texts_of_the_right_form(text: str) -> None:
    """The form is loose, as the official one: case, confusable letters and hyphens do not matter, the length does."""
    check_signup_token(text)


@pytest.mark.parametrize(
    "text",
    ["", "JZY0-D6MY-ZFN", "JZY0-D6MY-ZFNGA", "JZY0-D6MY-ZFNU", "JZY0 D6MY ZFNG", "JZY0-D6MY-ZFNé", "JZY0_D6MY_ZFNG"],
)
def test_texts_of_the_wrong_form(text: str) -> None:
    """Anything else is refused with one text."""
    with pytest.raises(InvalidSignupToken) as refusal:
        check_signup_token(text)
    assert str(refusal.value) == "Invalid signup token format: Invalid signup code id"


# --- sessions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case", RECORDS["records"], ids=lambda case: f"{case['key']}-{case['name']}-{case['created_at']}"
)
def test_official_records(case: dict[str, Any]) -> None:
    """The record of a session has the official bytes, and reads back."""
    keypair = {"x42": ALICE, "zeros": Keypair(bytes(32))}[case["key"]]
    pubky = keypair.public_key.z32
    capabilities = parse_capabilities(",".join(case["capabilities"]))
    assert keypair.public_key.raw.hex() == case["public_hex"]
    assert encode_session(pubky, case["created_at"], capabilities).hex() == case["hex"]
    assert decode_session(bytes.fromhex(case["hex"])) == (pubky, case["created_at"], capabilities)


def test_an_official_record_with_names() -> None:
    """Name and user agent, which old servers filled, are skipped."""
    case = RECORDS["with_user_agent"]
    _, created, capabilities = decode_session(bytes.fromhex(case["hex"]))
    assert (created, format_capabilities(capabilities)) == (case["created_at"], "/:rw")


@pytest.mark.parametrize("case", RECORDS["decode_cases"], ids=lambda case: case["case"])
def test_official_decoding(case: dict[str, Any]) -> None:
    """The official reader's verdicts: nothing, a newer version, a cut, and bytes that follow."""
    if case["result"] == "ok":
        decode_session(bytes.fromhex(case["hex"]))
        return
    with pytest.raises(InvalidSessionRecord) as refusal:
        decode_session(bytes.fromhex(case["hex"]))
    assert str(refusal.value) == case["result"]["err"]


RECORD = encode_session(ALICE.public_key.z32, NOW, parse_capabilities("/pub/a/:rw,/priv/ü:e"))


@pytest.mark.parametrize("length", range(len(RECORD)))
def test_every_truncation_of_a_record_is_a_refusal(length: int) -> None:
    """A record that is cut off is refused by its own error."""
    with pytest.raises(InvalidSessionRecord, match=ENDED if length else "Empty payload"):
        decode_session(RECORD[:length])


@pytest.mark.parametrize(
    "encoded",
    [b"\x00" + b"\x02" * 32 + bytes(4), b"\x00" + ALICE.public_key.raw + b"\x00\x00\x00\x01" + encode_text("/x")],
    ids=["key", "capability"],
)
def test_records_with_impossible_fields(encoded: bytes) -> None:
    """A key that is no point and a capability that does not parse are refused by the record's error."""
    with pytest.raises(InvalidSessionRecord, match=UNREADABLE):
        decode_session(encoded)


def test_secrets() -> None:
    """A secret is 16 random bytes in 26 characters; its id does not show it and is the same each time."""
    made = [new_secret() for _ in range(50)]
    assert len(set(made)) == 50
    for secret in made:
        assert re.fullmatch(r"[0-9A-HJKMNP-TV-Z]{26}", secret)
        assert len(crockford_decode(secret)) == 16
    assert session_id("0" * 26) == "575b83480d348cd3168ffbb874e26156b7d94842cd6c667dba6867976e62d38d"


COOKIES = [
    (
        lambda host: session_cookie("k", "S3CRET", host, 1_795_387_742.9),
        "k=S3CRET; HttpOnly{}; Path=/; Max-Age=31536000; Expires=Mon, 22 Nov 2027 22:49:02 GMT",
    ),
    (
        lambda host: removal_cookie("k", host, 1_795_387_742.9),
        "k=; HttpOnly{}; Path=/; Max-Age=0; Expires=Sat, 22 Nov 2025 22:49:02 GMT",
    ),
]


@pytest.mark.parametrize(("make", "text"), COOKIES, ids=["session", "removal"])
@pytest.mark.parametrize(("host", "attributes"), [("localhost:6286", ""), ("a.example", "; SameSite=None; Secure")])
def test_cookies(make: Callable[[str], str], text: str, host: str, attributes: str) -> None:
    """Attributes, their order and their dates are the official ones."""
    assert make(host) == text.format(attributes)


@pytest.mark.parametrize(
    "host",
    [
        ALICE.public_key.z32,
        f"_pubky.{ALICE.public_key.z32}",
        f"{ALICE.public_key.z32}:6287",
        "example.com",
        "EXAMPLE.com:443",
        "localhost.",
        "user@example.com",
        "a.0xg",
        "a.9z",
        "ex_ample.com",
    ],
)
def test_secure_hosts(host: str) -> None:
    """Keys and names with a dot are reached over TLS."""
    assert is_secure_host(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost",
        "localhost:6286",
        "homeserver",
        "127.0.0.1",
        "127.0.0.1:80",
        "127.1",
        "1.2.3.4.",
        "a.1",
        "0x7f.0x1",
        "999.999",
        "[2001:db8::1]:80",
        "[::ffff:1.2.3.4]",
        "a b.c",
        "a<b.c",
        "bücher.example",
    ],
)
def test_hosts_that_are_not_secure(host: str) -> None:
    """Addresses, names without a dot and what no URL could hold are not."""
    assert not is_secure_host(host)
