"""The grammar of storage paths. The tables are what the official parsers accept, refuse and say."""

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pubky_homeserver.core.errors import InvalidPath
from pubky_homeserver.core.paths import (
    ancestors,
    covers,
    is_directory,
    is_private,
    is_public,
    normalize_path,
    parse_path,
    url_encode,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "capabilities.json").read_text())

ABSOLUTE = "path must be absolute"
EMPTY = "path contains an empty segment"
CURRENT = "path contains a `.` segment"
PARENT = "path contains a `..` segment"
ABOVE = "path traverses above root"
CONTROL = "path contains a control character"
BACKSLASH = "path must not contain a backslash"
WHITESPACE = "path must not end in whitespace"
SEGMENT_256 = "path segment is 256 bytes; maximum is 255"
PATH_973 = "path is 973 bytes; maximum is 972"

LONGEST = "/" + "/".join(["a" * 193] * 4 + ["b" * 195])
"""972 bytes."""

CANONICAL = [
    "/",
    "/pub/file.txt",
    "/priv/app/",
    "/pub/My File/über",
    "/pub/My%20File/%C3%BCber",
    "/pub/a:b,c",
    "/a..",
    "/.hidden",
    "/...",
    "/a/..b/.c/",
    "/%2E/%2E%2E/%2F",
    "/My File",
    "/ leading",
    "/directory /file",
    "/dir /",
    "/pub/?#~[]^`{|}",
    "/pub/\U0001f600/\u3000/x",
    "/" + "a" * 255,
    "/" + "ü" * 127 + "a",
    LONGEST,
]

REFUSED_BY_BOTH = [
    ("", ABSOLUTE),
    ("pub/file", ABSOLUTE),
    (" /pub/file", ABSOLUTE),
    ("/" + "a" * 256, SEGMENT_256),
    ("/" + "ü" * 128, SEGMENT_256),
    ("/" + "a" * 256 + "/b", SEGMENT_256),
    ("/" + "a" * 255 + "\n", SEGMENT_256),
    (LONGEST + "b", PATH_973),
    (LONGEST + "/", PATH_973),
    ("/a\nb", CONTROL),
    ("/a\x00b", CONTROL),
    ("/a\x7fb", CONTROL),
    ("/a\x85b", CONTROL),
    ("/a\\b\n", CONTROL),
    ("/a\n", CONTROL),
    ("/a\\b", BACKSLASH),
    ("/pub/app/\\..\\secret", BACKSLASH),
    ("/a\\b ", BACKSLASH),
    ("/pub/report ", WHITESPACE),
    ("/pub/report\u00a0", WHITESPACE),
    ("/pub/report\u3000", WHITESPACE),
    ("/ ", WHITESPACE),
    ("/a/ ", WHITESPACE),
    ("/a\ud800", "path is not valid UTF-8"),
]

REFUSED_BY_STRICT = [
    ("//", EMPTY),
    ("/a//b", EMPTY),
    ("/a//", EMPTY),
    ("///", EMPTY),
    ("/.", CURRENT),
    ("/a/./", CURRENT),
    ("/..", PARENT),
    ("/a/../b", PARENT),
    ("/" + "/" * 972, PATH_973),
    ("/a\n//", CONTROL),
    ("//a\n", EMPTY),
]

NORMALIZED = [
    ("/a//b", "/a/b"),
    ("/a///b/", "/a/b/"),
    ("//", "/"),
    ("///", "/"),
    ("/.", "/"),
    ("/./", "/"),
    ("/a/.", "/a/"),
    ("/a/./b", "/a/b"),
    ("/a/b/..", "/a/"),
    ("/a/b/../", "/a/"),
    ("/a/b/../c", "/a/c"),
    ("/a/..", "/"),
    ("/a/../", "/"),
    ("/a/b/../..", "/"),
    ("/a/..//b", "/b"),
    ("/a/name..", "/a/name.."),
    ("/.hidden/...", "/.hidden/..."),
    ("/a/%2E%2E/b", "/a/%2E%2E/b"),
    ("/pub/../priv/x", "/priv/x"),
    ("/a/ /..", "/a/"),
    ("/" * 2000 + "a", "/a"),
]

REFUSED_BY_NORMALIZER = [
    ("/..", ABOVE),
    ("/./..", ABOVE),
    ("/a/../..", ABOVE),
    ("/a/../../b", ABOVE),
    ("/" + "a" * 256 + "/..", SEGMENT_256),
    ("/a\nb/..", CONTROL),
    ("/a\\b/..", BACKSLASH),
    ("/../a\n", ABOVE),
    ("/a\n/../..", CONTROL),
]


@pytest.mark.parametrize("path", CANONICAL)
def test_canonical_paths_stay_as_they_are(path: str) -> None:
    """Both parsers give a canonical path back unchanged."""
    assert parse_path(path) == path
    assert normalize_path(path) == path


@pytest.mark.parametrize(("text", "reason"), REFUSED_BY_BOTH + REFUSED_BY_STRICT)
def test_the_strict_parser_says_which_rule_is_broken(text: str, reason: str) -> None:
    """Text that is not canonical is refused with the first rule in the protocol's order."""
    with pytest.raises(InvalidPath) as refusal:
        parse_path(text)
    assert str(refusal.value) == reason


@pytest.mark.parametrize(("text", "reason"), REFUSED_BY_BOTH + REFUSED_BY_NORMALIZER)
def test_the_normalizer_says_which_rule_is_broken(text: str, reason: str) -> None:
    """What cannot be made canonical is refused; a segment that `..` would remove is judged too."""
    with pytest.raises(InvalidPath) as refusal:
        normalize_path(text)
    assert str(refusal.value) == reason


@pytest.mark.parametrize(("text", "path"), NORMALIZED)
def test_normalizing(text: str, path: str) -> None:
    """Empty and `.` segments go, `..` takes the segment before it along, a percent sign is only a character."""
    assert normalize_path(text) == path


@pytest.mark.parametrize("case", VECTORS["storage_path_normalize"], ids=lambda case: repr(case["input"]))
def test_official_normalizing(case: dict[str, str]) -> None:
    """The official normaliser's answers, and its URL encoding."""
    if "err" in case:
        with pytest.raises(InvalidPath) as refusal:
            normalize_path(case["input"])
        assert str(refusal.value) == case["err"]
    else:
        assert normalize_path(case["input"]) == case["ok"]
        assert url_encode(case["ok"]) == case["url_encoded"]


def is_canonical(text: str) -> bool:
    """The definition, word for word; says nothing of speed."""
    segments = text.removesuffix("/").split("/")[1:] if text != "/" else []
    return (
        text.startswith("/")
        and len(text.encode()) <= 972
        and not text[-1].isspace()
        and all(
            segment not in {"", ".", ".."}
            and len(segment.encode()) <= 255
            and "\\" not in segment
            and not any(unicodedata.category(character) == "Cc" for character in segment)
            for segment in segments
        )
    )


pathlike = st.one_of(
    st.text("/.a ~\\\n", max_size=24),
    st.lists(st.sampled_from(["", ".", "..", "...", "a", " ", "ü", "é ", "a" * 255, "ü" * 128]), max_size=6).map(
        lambda segments: "/" + "/".join(segments)
    ),
    st.text(max_size=40).map(lambda text: "/" + text),
)


@given(pathlike)
@example("/" * 972)
def test_the_strict_parser_is_the_definition(text: str) -> None:
    """A text is accepted if and only if it is canonical by the definition, by the quick way or the long one."""
    if text and is_canonical(text):
        assert parse_path(text) == text
    else:
        with pytest.raises(InvalidPath):
            parse_path(text)


@given(pathlike)
def test_normalizing_twice_changes_nothing(text: str) -> None:
    """What the normaliser gives is canonical, so a second time it stays."""
    try:
        path = normalize_path(text)
    except InvalidPath:
        return
    assert is_canonical(path)
    assert normalize_path(path) == path


@given(pathlike)
def test_a_later_segment_does_not_change_how_earlier_ones_are_resolved(text: str) -> None:
    """Appending a plain name to a directory stays below what the directory was resolved to."""
    try:
        path = normalize_path(text + "/")
        below = normalize_path(text + "/ü")
    except InvalidPath:
        return
    assert below == path + "ü"


def test_shapes() -> None:
    """A trailing slash makes a directory; the two roots are prefixes with their slash."""
    assert [is_directory(path) for path in ("/", "/pub/", "/pub/file")] == [True, True, False]
    assert [is_public(path) for path in ("/pub/", "/pub/x", "/pub", "/public/x", "/priv/x", "/")] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]
    assert [is_private(path) for path in ("/priv/", "/priv/x", "/priv", "/privstuff/x", "/pub/x", "/")] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize("case", VECTORS["covers"], ids=lambda case: f"{case['scope']} {case['path']}")
def test_official_coverage(case: dict[str, str | bool]) -> None:
    """A directory covers itself and all below it, a file only itself; no prefix of a name counts."""
    assert covers(str(case["scope"]), str(case["path"])) is case["covers"]


@pytest.mark.parametrize(
    ("path", "folders"),
    [
        ("/pub/a/b/c", ["/pub/a/b", "/pub/a", "/pub"]),
        ("/pub/a/", ["/pub"]),
        ("/pub/a", ["/pub"]),
        ("/pub", []),
        ("/pub/", []),
        ("/", []),
    ],
)
def test_ancestors(path: str, folders: list[str]) -> None:
    """Every folder above a path, as the file-shaped path that it would collide with."""
    assert ancestors(path) == folders


@pytest.mark.parametrize(
    ("path", "encoded"),
    [
        ("/pub/My%20 File/über", "/pub/My%2520%20File/%C3%BCber"),
        ("/AZaz09-._~/:,?#@/%", "/AZaz09-._~/%3A%2C%3F%23%40/%25"),
    ],
)
def test_url_encoding(path: str, encoded: str) -> None:
    """Everything that a URL could misread is encoded, the percent sign of the name too."""
    assert url_encode(path) == encoded
