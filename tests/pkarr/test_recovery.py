"""Recovery files."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.secret import SecretBox

from pkarr.keys import Keypair
from pkarr.recovery import InvalidRecoveryFile, create_recovery_file, open_recovery_file

from .vectors import load

VECTOR = load("recovery_file")
CONTENT = bytes.fromhex(VECTOR["file_hex"])
PASSPHRASE = VECTOR["passphrase"]
SECRET = VECTOR["secret_hex"]


def test_the_file_is_the_official_one() -> None:
    """Key, passphrase and nonce give the recorded 91 bytes."""
    content = create_recovery_file(Keypair(bytes.fromhex(SECRET)), PASSPHRASE, bytes.fromhex(VECTOR["nonce_hex"]))
    assert content == CONTENT
    assert len(content) == VECTOR["file_len"]


@pytest.mark.parametrize(
    "content",
    [
        CONTENT,
        bytes.fromhex(VECTOR["legacy_prefix_file_hex"]),
        bytes.fromhex(VECTOR["random_nonce_file_hex"]),
        CONTENT.replace(b"\n", b" and more\n", 1),
    ],
    ids=["ours", "old name", "random nonce", "longer first line"],
)
def test_recorded_files_open(content: bytes) -> None:
    """Files of the official library, also of its older versions, give their key back."""
    assert open_recovery_file(content, PASSPHRASE).seed.hex() == SECRET


def test_a_new_file_opens_and_differs() -> None:
    """A file opens under its passphrase, and two of one key differ, for the nonce is random."""
    keypair = Keypair.random()
    first, second = create_recovery_file(keypair, "é ☃"), create_recovery_file(keypair, "é ☃")
    assert open_recovery_file(first, "é ☃").seed == open_recovery_file(second, "é ☃").seed == keypair.seed
    assert first != second


BROKEN = {
    "wrong passphrase": (CONTENT, "wrong"),
    "no newline": (CONTENT.replace(b"\n", b""), PASSPHRASE),
    "other spec line": (CONTENT.replace(b"pubky", b"other"), PASSPHRASE),
    "empty ciphertext": (b"pubky.org/recovery\n", PASSPHRASE),
    "short ciphertext": (b"pubky.org/recovery\nabc", PASSPHRASE),
    "empty passphrase other": (CONTENT, ""),
}


@pytest.mark.parametrize("failure", VECTOR["failures"], ids=lambda failure: str(failure["case"]))
def test_recorded_failures(failure: dict[str, Any]) -> None:
    """What is wrong is said in the official words."""
    content, passphrase = BROKEN[failure["case"]]
    with pytest.raises(InvalidRecoveryFile) as caught:
        open_recovery_file(content, passphrase)
    assert str(caught.value) == failure["result"]["err"]


@settings(max_examples=30)  # each costs 19 MiB of Argon2
@given(st.integers(0, len(CONTENT) - 1), st.integers(1, 255))
def test_no_changed_file_opens(position: int, change: int) -> None:
    """A file with a byte changed, or cut there, is refused, unless the change is in the free part of line one."""
    broken = bytearray(CONTENT)
    broken[position] ^= change
    for content in (bytes(broken), CONTENT[:position]):
        with pytest.raises(InvalidRecoveryFile):
            open_recovery_file(content, PASSPHRASE)


@given(st.binary(max_size=60))
def test_any_content_is_refused(content: bytes) -> None:
    """Whatever the file holds, the only error is ours."""
    with pytest.raises(InvalidRecoveryFile):
        open_recovery_file(content, PASSPHRASE)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_what_is_locked_must_be_a_secret_key(length: int) -> None:
    """A box that opens but does not hold 32 bytes is refused."""
    box = SecretBox(bytes.fromhex(VECTOR["derived_key_hex"])).encrypt(bytes(length))
    with pytest.raises(InvalidRecoveryFile, match="a secret key of 32 bytes"):
        open_recovery_file(b"pubky.org/recovery\n" + box, PASSPHRASE)


def test_a_large_file_is_not_read() -> None:
    """A file of megabytes is refused before anything is derived from it."""
    with pytest.raises(InvalidRecoveryFile, match="at most"):
        open_recovery_file(b"pubky.org/recovery\n" + bytes(5_000_000), PASSPHRASE)
