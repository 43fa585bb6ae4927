"""The JSON of an account's quota: what each field takes, how a patch merges, and the sentences of its rules."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubky_homeserver.core.errors import UnprocessableRequest
from pubky_homeserver.core.quotas import (
    MAX_NUMBER,
    MEGABYTE,
    UNLIMITED,
    MalformedQuota,
    QuotaPatch,
    UserQuota,
    parse_rate,
)

FULL = {
    "storage_quota_mb": 1024,
    "rate_read": "200mb/m",
    "rate_write": "unlimited",
    "rate_read_burst": 10,
    "allowed_write_paths": ["/pub/tokens/", "/priv/note.txt"],
}


def test_fresh_is_empty() -> None:
    """A quota of defaults only is `{}`, both ways; absent and null are the same where a quota is made."""
    assert UserQuota().to_json() == {}
    assert UserQuota.from_json({}) == UserQuota()
    assert UserQuota.from_json(dict.fromkeys([*FULL, "rate_write_burst"])) == UserQuota()


def test_echo() -> None:
    """What an operator sets is shown back as it was written."""
    assert UserQuota.from_json(FULL).to_json() == FULL
    assert UserQuota.from_json({"allowed_write_paths": []}).to_json() == {"allowed_write_paths": []}


def test_unknown_members_are_ignored() -> None:
    """A newer client may say more than this server knows."""
    assert UserQuota.from_json({"colour": "blue"}) == UserQuota()


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("10mb/s", "10mb/s"),
        ("5MB/h", "5mb/h"),
        ("1Kb/d", "1kb/d"),
        ("4294967295gb/m", "4294967295gb/m"),
        ("007kb/s",) * 2,
    ],
)
def test_rates(written: str, canonical: str) -> None:
    """A rate is a number from 1, a unit in any case and a time in lower case, and is printed in lower case."""
    assert parse_rate(written) == canonical.lstrip("0")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "10mb",
        "mb/s",
        "0mb/s",
        "-1mb/s",
        "+1mb/s",
        "1.5mb/s",
        "10mb/S",
        "10mb/w",
        "10b/s",
        "10tb/s",
        "100r/m",
        " 10mb/s",
        "10mb/s\n",
        "10 mb/s",
        "4294967296kb/s",
        "١mb/s",
        "9" * 5000 + "kb/s",
    ],
)
def test_no_rates(text: str) -> None:
    """Whatever else is no rate, request rates included."""
    with pytest.raises(ValueError, match="invalid rate"):
        parse_rate(text)
    with pytest.raises(MalformedQuota, match="rate_read"):
        UserQuota.from_json({"rate_read": text})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("storage_quota_mb", -1),
        ("storage_quota_mb", 1.5),
        ("storage_quota_mb", 1.0),
        ("storage_quota_mb", True),
        ("storage_quota_mb", "10"),
        ("storage_quota_mb", "Unlimited"),
        ("storage_quota_mb", 2**64),
        ("storage_quota_mb", []),
        ("rate_read", 10),
        ("rate_write", ["10mb/s"]),
        ("rate_read_burst", 0),
        ("rate_read_burst", -5),
        ("rate_read_burst", "unlimited"),
        ("rate_read_burst", False),
        ("rate_write_burst", 2**32),
        ("allowed_write_paths", "/pub/"),
        ("allowed_write_paths", {"/pub/": True}),
        ("allowed_write_paths", ["/pub/", None]),
        ("allowed_write_paths", ["pub/x"]),
        ("allowed_write_paths", ["/a//b"]),
        ("allowed_write_paths", ["/a/../b"]),
        ("allowed_write_paths", ["/a\ud800"]),
    ],
)
def test_wrong_types(field: str, value: object) -> None:
    """A value that is not of its field's type is an error that names the field."""
    with pytest.raises(MalformedQuota, match=rf"^{field}"):
        QuotaPatch.from_json({"rate_read": "1mb/s", "rate_write": "1mb/s", field: value})


@pytest.mark.parametrize("value", [None, [], "unlimited", 5, True])
def test_no_object(value: object) -> None:
    """A quota is an object."""
    with pytest.raises(MalformedQuota):
        UserQuota.from_json(value)


def test_first_wrong_field_is_named() -> None:
    """Of several wrong fields the first in the document is named."""
    with pytest.raises(MalformedQuota, match=r"^rate_write_burst"):
        UserQuota.from_json(json.loads('{"rate_write_burst": 0, "storage_quota_mb": -1}'))


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (
            {"rate_read": "1mb/s", "rate_read_burst": MAX_NUMBER + 1},
            "rate_read_burst value 2147483648 exceeds maximum (2147483647)",
        ),
        ({"rate_read_burst": 5}, "rate_read_burst requires the corresponding rate to be set to a value"),
        (
            {"rate_write": "unlimited", "rate_write_burst": 5, "rate_read": "1mb/s"},
            "rate_write_burst requires the corresponding rate to be set to a value",
        ),
        (
            {"allowed_write_paths": ["/pub/", "/"]},
            "allowed_write_paths[1] must not be '/'; use null for unrestricted access",
        ),
        (
            {"allowed_write_paths": ["/pub/a", "/pub/b", "/pub/a"]},
            'allowed_write_paths[2] is a duplicate: "/pub/a"',
        ),
    ],
)
def test_rules(value: object, sentence: str) -> None:
    """What no type can say is refused with the protocol's sentence."""
    with pytest.raises(UnprocessableRequest) as refused:
        UserQuota.from_json(value)
    assert str(refused.value) == sentence


def test_largest_numbers() -> None:
    """A burst may have 31 bits; a storage quota above that counts as the largest."""
    quota = UserQuota.from_json({"storage_quota_mb": 2**64 - 1, "rate_write": "1kb/s", "rate_write_burst": MAX_NUMBER})
    assert quota.storage_quota_mb == MAX_NUMBER
    assert quota.rate_write_burst == MAX_NUMBER


def test_storage_limit() -> None:
    """The default counts only where nothing is set; 0 is no storage and unlimited is no limit."""
    assert UserQuota().storage_limit(7) == 7
    assert UserQuota(storage_quota_mb=0).storage_limit(7) == 0
    assert UserQuota(storage_quota_mb=2).storage_limit(7) == 2 * MEGABYTE
    assert UserQuota(storage_quota_mb=UNLIMITED).storage_limit(7) is None


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ({}, {"storage_quota_mb": 5, "rate_read": "1mb/s", "rate_read_burst": 3, "allowed_write_paths": ["/pub/"]}),
        (
            {"storage_quota_mb": None, "rate_write": "2kb/s"},
            {"rate_read": "1mb/s", "rate_read_burst": 3, "rate_write": "2kb/s", "allowed_write_paths": ["/pub/"]},
        ),
        (
            {"rate_read": None, "rate_read_burst": None, "storage_quota_mb": "unlimited", "allowed_write_paths": []},
            {"storage_quota_mb": "unlimited", "allowed_write_paths": []},
        ),
        (
            {"allowed_write_paths": None},
            {"storage_quota_mb": 5, "rate_read": "1mb/s", "rate_read_burst": 3},
        ),
    ],
)
def test_patch(patch: dict[str, Any], expected: dict[str, Any]) -> None:
    """Absent keeps, null resets, unlimited and values set."""
    before = UserQuota.from_json(
        {"storage_quota_mb": 5, "rate_read": "1mb/s", "rate_read_burst": 3, "allowed_write_paths": ["/pub/"]}
    )
    assert QuotaPatch.from_json(patch).applied_to(before).to_json() == expected


@pytest.mark.parametrize("rate", [None, "unlimited"])
def test_patch_that_takes_the_rate_of_a_burst(rate: str | None) -> None:
    """The rule about bursts holds for the merged quota; to clear such a rate both fields are sent."""
    before = UserQuota.from_json({"rate_read": "1mb/s", "rate_read_burst": 3})
    patch = QuotaPatch.from_json({"rate_read": rate})
    with pytest.raises(UnprocessableRequest, match="rate_read_burst requires the corresponding rate"):
        patch.applied_to(before)
    assert QuotaPatch.from_json({"rate_read_burst": 7}).applied_to(before).rate_read_burst == 7


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(FULL)), inner, max_size=3),
    max_leaves=8,
)


@given(_JSON)
def test_any_json(value: object) -> None:
    """Any JSON is a quota that reads back as itself, or one of our two errors."""
    try:
        quota = UserQuota.from_json(value)
    except (MalformedQuota, UnprocessableRequest):
        return
    assert UserQuota.from_json(quota.to_json()) == quota
