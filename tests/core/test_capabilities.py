"""Capabilities: their text, what they cover, and the official parser's every word."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubky_homeserver.core.capabilities import (
    KEYS,
    READ,
    WRITE,
    Capability,
    allows,
    format_capabilities,
    has_root,
    normalize_capabilities,
    parse_capabilities,
)
from pubky_homeserver.core.errors import InvalidCapability

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "capabilities.json").read_text())

DESCRIBED = [case for case in VECTORS["single"] if case["input"].startswith(("'/'", "scope of"))]
"""Four long inputs that the vectors describe in words."""
SPELLED_OUT = [case for case in VECTORS["single"] if case not in DESCRIBED]


def refusal_of(text: str) -> str:
    """What the parser of one capability says against a text."""
    with pytest.raises(InvalidCapability) as refusal:
        Capability.parse(text)
    return str(refusal.value)


@pytest.mark.parametrize("case", SPELLED_OUT, ids=lambda case: repr(case["input"]))
def test_official_capabilities(case: dict[str, Any]) -> None:
    """One capability: its canonical text, its scope, whether it is root, or the exact refusal."""
    if "err" in case:
        assert refusal_of(case["input"]) == case["err"]
        return
    capability = Capability.parse(case["input"])
    expected = case["ok"]
    assert str(capability) == expected["canonical"]
    assert capability.scope == expected["scope"]
    assert capability.scope.endswith("/") is expected["is_dir"]
    assert capability.is_root is expected["is_root"]


def test_official_lengths() -> None:
    """The limits of a scope are those of a path."""
    assert len(DESCRIBED) == 4
    long = "/" + "/".join(["a" * 96] * 9)
    assert str(Capability.parse("/" + "a" * 255 + ":r")) == "/" + "a" * 255 + ":r"
    assert refusal_of("/" + "a" * 256 + ":r") == DESCRIBED[1]["err"]
    longest = f"{long}/{'b' * 98}"
    assert len(longest) == 972
    assert Capability.parse(f"{longest}:r") == Capability(longest, "r")
    assert refusal_of(f"{longest}b:r") == DESCRIBED[3]["result"]


@pytest.mark.parametrize("case", VECTORS["lists"], ids=lambda case: repr(case["input"]))
def test_official_lists(case: dict[str, Any]) -> None:
    """Lists are split at commas without trimming; a refusal names position and entry."""
    if "err" in case:
        with pytest.raises(InvalidCapability) as refusal:
            parse_capabilities(case["input"])
        assert str(refusal.value) == case["err"]
        return
    capabilities = parse_capabilities(case["input"])
    assert len(capabilities) == case["ok"]["count"]
    assert format_capabilities(capabilities) == case["ok"]["text"]
    assert format_capabilities(normalize_capabilities(capabilities)) == case["ok"]["normalized"]


@pytest.mark.parametrize("case", VECTORS["normalize"], ids=lambda case: case["input"])
def test_official_normalizing(case: dict[str, str]) -> None:
    """Equal scopes are merged, and what another capability gives anyway is left out."""
    capabilities = normalize_capabilities(parse_capabilities(case["input"]))
    assert format_capabilities(capabilities) == case["normalized"]


@pytest.mark.parametrize("case", VECTORS["covers"], ids=lambda case: f"{case['scope']} {case['path']}")
def test_official_coverage(case: dict[str, Any]) -> None:
    """A capability allows its action exactly where its scope reaches."""
    capability = Capability.parse(f"{case['scope']}:r")
    assert capability.allows(case["path"], READ) is case["covers"]
    assert not capability.allows(case["path"], WRITE)


@pytest.mark.parametrize(
    ("capabilities", "path", "action", "allowed"),
    [
        ("", "/pub/x", WRITE, False),
        ("/pub/:r", "/pub/x", WRITE, False),
        ("/:e", "/pub/x", WRITE, False),
        ("/:e", "/pub/x", READ, False),
        ("/:e", "/pub/x", KEYS, True),
        ("/:rw", "/pub/x", WRITE, True),
        ("/:rw", "/priv/x", WRITE, True),
        ("/pub/my.app/:rw", "/pub/my.app/x/y", WRITE, True),
        ("/pub/my.app/:rw", "/pub/other/x", WRITE, False),
        ("/pub/app:rw", "/pub/app", WRITE, True),
        ("/pub/app:rw", "/pub/app-evil/file", WRITE, False),
        ("/pub/app:rw", "/pub/app/foo", WRITE, False),
        ("/pub/app/:rw", "/pub/app", WRITE, False),
        ("/priv/app/:w", "/priv/app/x", READ, False),
        ("/priv/app/:r", "/priv/app/x", READ, True),
        ("/priv/app/:r", "/priv/other/x", READ, False),
        ("/priv/app/:r", "/priv/", READ, False),
        ("/:r", "/priv/", READ, True),
        ("/pub/a/:r,/pub/b/:w", "/pub/b/x", WRITE, True),
        ("/pub/a/:r,/pub/b/:w", "/pub/a/x", WRITE, False),
    ],
)
def test_what_a_list_allows(capabilities: str, path: str, action: str, allowed: bool) -> None:
    """A request needs one capability that covers its path and has its action."""
    assert allows(parse_capabilities(capabilities), path, action) is allowed


@pytest.mark.parametrize(
    ("capabilities", "root"),
    [("", False), ("/:r", False), ("/:r,/:w", False), ("/pub/:rw", False), ("/pub/:r,/:rwe", True)],
)
def test_root(capabilities: str, root: bool) -> None:
    """Root is one capability on `/` with both `r` and `w`; two halves do not make it."""
    assert has_root(parse_capabilities(capabilities)) is root


scopes = st.lists(st.sampled_from(["a", "b", "..c", "ü"]), max_size=3).flatmap(
    lambda names: st.sampled_from(["/" + "/".join(names), "/" + "".join(f"{name}/" for name in names)])
)
lists = st.lists(
    st.builds(
        lambda scope, actions: f"{scope}:{''.join(actions)}", scopes, st.permutations("rwe").map(lambda p: p[:2])
    ),
    max_size=5,
)


@given(lists)
def test_a_canonical_list_reads_back_as_itself(entries: list[str]) -> None:
    """The canonical text of a list is a fixed point, and keeps count and order."""
    capabilities = parse_capabilities(",".join(entries))
    assert parse_capabilities(format_capabilities(capabilities)) == capabilities
    assert [one.scope for one in capabilities] == [entry.split(":")[0] for entry in entries]


@given(lists, scopes, st.sampled_from("rwe"))
def test_normalizing_gives_and_takes_nothing(entries: list[str], path: str, action: str) -> None:
    """The shortest list allows exactly what the long one does, and cannot be made shorter."""
    capabilities = parse_capabilities(",".join(entries))
    shortest = normalize_capabilities(capabilities)
    assert allows(shortest, path, action) == allows(capabilities, path, action)
    assert normalize_capabilities(shortest) == shortest


@given(st.text(max_size=30))
def test_any_text_parses_or_is_refused(text: str) -> None:
    """No text makes the parser fail in another way than by its own refusal."""
    try:
        capabilities = parse_capabilities(text)
    except InvalidCapability:
        return
    assert len(capabilities) == (text.count(",") + 1 if text else 0)
