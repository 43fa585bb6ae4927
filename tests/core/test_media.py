"""Content types: the answers of the two crates that the reference asks, replayed.

`media_cases.json` was written by a program over these crates. For every signature it holds a sample, the cuts at which
the answer changes, and near misses with one bit changed; for containers also what random assembly found.
"""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pubky_homeserver.core import media
from pubky_homeserver.core.media import SNIFFED, UNKNOWN, content_type, guess
from pubky_homeserver.core.signatures import sniff

CASES: dict[str, Any] = json.loads(Path(__file__).with_name("media_cases.json").read_text())


def read(spelled: str) -> bytes:
    """Bytes from hexadecimal parts, of which `00*9` is nine times the same."""
    parts = [part.partition("*") for part in spelled.split()]
    return b"".join(bytes.fromhex(digits) * int(times or 1) for digits, _, times in parts)


@pytest.mark.parametrize("official", CASES["types"], ids=lambda name: name or "none")
def test_official_sniffing(official: str) -> None:
    """Every sample, cut and near miss has the type that the reference finds, or none."""
    wrong = {
        spelled: found for spelled in CASES["types"][official] if (found := sniff(read(spelled))) != (official or None)
    }
    assert wrong == {}


@pytest.mark.parametrize("path", CASES["names"], ids=ascii)
def test_official_names(path: str) -> None:
    """What follows the last dot decides, in any case, also by Unicode's folding; dots at the beginning do not count."""
    assert guess(path) == (CASES["names"][path] or None)


def test_all_official_endings() -> None:
    """The table holds exactly the reference's endings with exactly its types."""
    lines = Path(media.__file__).with_name("mime.types").read_text().splitlines()
    endings = [ending for line in lines if not line.startswith("#") for ending in line.split()[1:]]
    answers = "\n".join(f"{ending} {guess('/x.' + ending)}" for ending in sorted(endings))
    assert len(set(endings)) == len(endings) == CASES["endings"]
    assert sha256(answers.encode()).hexdigest() == CASES["endings_sha256"]


@pytest.mark.parametrize(
    ("head", "path", "expected"),
    [
        (b"\x89PNG\r\n", "/pub/foo", "image/png"),
        (b"\x89PNG\r\n", "/pub/foo.txt", "image/png"),
        (b"hello", "/pub/text.txt", "text/plain"),
        (b"", "/pub/empty.json", "application/json"),
        (b"hello", "/pub/foo", UNKNOWN),
        (b"", "/pub/foo", UNKNOWN),
        (b'<?xml version="1.0"?><svg>', "/pub/a.svg", "text/xml"),
        (b"<svg>", "/pub/a.svg", "image/svg+xml"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(5000), "/pub/a.doc", "application/x-ole-storage"),
    ],
)
def test_bytes_come_before_names(head: bytes, path: str, expected: str) -> None:
    """What the body says wins, then the name, then nothing is known."""
    assert content_type(head, path) == expected


def test_only_the_beginning_is_looked_at() -> None:
    """A byte beyond the first 4 KiB changes nothing, however much of the body the caller has at hand."""
    folder = b"PK\x03\x04" + bytes(26) + b"docProps" + bytes(200)
    names = b"".join(b"PK\x03\x04" + bytes(26) + b"word/" + bytes(60) for _ in range(3))
    body = folder + bytes(SNIFFED - len(folder) - 200) + names
    assert sniff(body) != content_type(body, "/pub/x")
    assert content_type(body, "/pub/x") == content_type(body[:SNIFFED], "/pub/x") == "application/zip"


BEGINNINGS = [read(spelled) for spelled in CASES["types"][""] + CASES["types"]["application/msword"]]


@given(st.sampled_from(BEGINNINGS), st.binary(max_size=600), st.integers(0, 1600))
@example(b"PK\x03\x04", b"", 0)
def test_any_bytes_are_sniffed(beginning: bytes, noise: bytes, cut: int) -> None:
    """No bytes make the table fail; containers that lie about their lengths included."""
    assert sniff(beginning[:cut] + noise) in {*CASES["types"], None}
