"""What an account may use: bytes, rates and paths. Arithmetic and the JSON form only.

Each field of a quota is a value, `UNLIMITED`, or None for "the server's default".
"""

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

from attrs import field, fields, frozen

from pubky_homeserver.core.errors import InvalidPath, UnprocessableRequest
from pubky_homeserver.core.paths import parse_path

ENTRY_OVERHEAD = 256
"""Bytes that each file costs besides its length."""

MEGABYTE = 1_048_576

MAX_NUMBER = 2_147_483_647
"""The protocol's largest quota or burst (31 bits)."""


class Unlimited(Enum):
    """The type of `UNLIMITED`."""

    UNLIMITED = "unlimited"


UNLIMITED: Final = Unlimited.UNLIMITED

_RATE = re.compile(r"([0-9]{1,10})([kmg]b)/([smhd])", re.ASCII | re.IGNORECASE)


def parse_rate(text: str) -> str:
    """The canonical form of a rate such as `10mb/s`; raises `UnprocessableRequest`."""
    match = _RATE.fullmatch(text)
    if match is None or not match[3].islower() or not 1 <= int(match[1]) <= 0xFFFF_FFFF:
        raise UnprocessableRequest(f"invalid rate {text!r}: write it like 10mb/s (kb, mb, gb; s, m, h, d)")
    return f"{int(match[1])}{match[2].lower()}/{match[3]}"


@frozen
class UserQuota:
    """What the operator set for one account; None means the server's default."""

    storage_quota_mb: int | Unlimited | None = None
    rate_read: str | Unlimited | None = None
    rate_write: str | Unlimited | None = None
    rate_read_burst: int | None = None
    rate_write_burst: int | None = None
    allowed_write_paths: tuple[str, ...] | None = field(default=None)
    """None: everywhere. Empty: nowhere. A path that ends in a slash covers what lies below it."""

    def storage_limit(self, default: int | None) -> int | None:
        """Bytes that the account may use; None for no limit. `default` is the server's, in bytes."""
        if self.storage_quota_mb is None:
            return default
        if self.storage_quota_mb is UNLIMITED:
            return None
        return self.storage_quota_mb * MEGABYTE

    def to_json(self) -> dict[str, Any]:
        """The fields that are set, as the admin API shows them."""
        shown: dict[str, Any] = {}
        for one in fields(UserQuota):
            value = getattr(self, one.name)
            if value is None:
                continue
            if value is UNLIMITED:
                shown[one.name] = "unlimited"
            elif isinstance(value, tuple):
                shown[one.name] = list(value)
            else:
                shown[one.name] = value
        return shown

    @classmethod
    def from_json(cls, value: object) -> "UserQuota":
        """Read the JSON form; unknown members are ignored. Raises `UnprocessableRequest`."""
        if not isinstance(value, Mapping):
            raise UnprocessableRequest("invalid type: expected a quota object")
        quota = cls(
            storage_quota_mb=_number_or_unlimited(value.get("storage_quota_mb")),
            rate_read=_rate(value, "rate_read"),
            rate_write=_rate(value, "rate_write"),
            rate_read_burst=_burst(value, "rate_read_burst"),
            rate_write_burst=_burst(value, "rate_write_burst"),
            allowed_write_paths=_paths(value.get("allowed_write_paths")),
        )
        quota.check()
        return quota

    def check(self) -> None:
        """Raise `UnprocessableRequest` for what no single field shows: a burst without a rate, bad lists of paths."""
        for rate, burst in (("rate_read", "rate_read_burst"), ("rate_write", "rate_write_burst")):
            if getattr(self, burst) is not None and not isinstance(getattr(self, rate), str):
                raise UnprocessableRequest(f"{burst} requires the corresponding rate to be set to a value")
        seen: set[str] = set()
        for index, path in enumerate(self.allowed_write_paths or ()):
            if path == "/":
                raise UnprocessableRequest(
                    f"allowed_write_paths[{index}] must not be '/'; use null for unrestricted access"
                )
            if path in seen:
                raise UnprocessableRequest(f'allowed_write_paths[{index}] is a duplicate: "{path}"')
            seen.add(path)


def _whole(value: object, name: str, lowest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= 0xFFFF_FFFF_FFFF_FFFF:
        raise UnprocessableRequest(f"{name}: invalid value, expected a whole number of at least {lowest}")
    return value


def _number_or_unlimited(value: object) -> int | Unlimited | None:
    if value is None:
        return None
    if value == "unlimited":
        return UNLIMITED
    return min(_whole(value, "storage_quota_mb", 0), MAX_NUMBER)


def _rate(value: Mapping[str, object], name: str) -> str | Unlimited | None:
    rate = value.get(name)
    if rate is None:
        return None
    if rate == "unlimited":
        return UNLIMITED
    if not isinstance(rate, str):
        raise UnprocessableRequest(f"{name}: invalid type, expected a rate such as 10mb/s")
    try:
        return parse_rate(rate)
    except UnprocessableRequest as error:
        raise UnprocessableRequest(f"{name}: {error}") from None


def _burst(value: Mapping[str, object], name: str) -> int | None:
    burst = value.get(name)
    if burst is None:
        return None
    number = _whole(burst, name, 1)
    if number > MAX_NUMBER:
        raise UnprocessableRequest(f"{name} value {number} exceeds maximum ({MAX_NUMBER})")
    return number


def _paths(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise UnprocessableRequest("allowed_write_paths: invalid type, expected a list of paths")
    for index, path in enumerate(value):
        if not isinstance(path, str):
            raise UnprocessableRequest(f"allowed_write_paths[{index}]: invalid type, expected a path")
        try:
            parse_path(path)
        except InvalidPath as error:
            raise UnprocessableRequest(f"allowed_write_paths[{index}]: {error}") from None
    return tuple(value)
