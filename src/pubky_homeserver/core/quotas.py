"""What an account may use: bytes, rates and paths. Arithmetic and the JSON form only.

Each field of a quota is a value, `UNLIMITED`, or None for "the server's default". Its JSON is read in two steps, as
their errors differ: `QuotaPatch.from_json` looks at each field by itself (`MalformedQuota`: not of its type), then the
rules that a type cannot say apply (`UnprocessableRequest`, with the protocol's sentence). A patch keeps apart what a
document does not name (stays) from what it names as null (back to the default); where a quota is made, both are the
default.
"""

import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final

from attrs import evolve, fields, frozen

from pubky_homeserver.core.errors import InvalidPath, UnprocessableRequest
from pubky_homeserver.core.paths import parse_path

ENTRY_OVERHEAD = 256
"""Bytes that each file costs besides its length."""

MEGABYTE = 1_048_576

MAX_NUMBER = 2_147_483_647
"""The protocol's largest quota or burst (31 bits). A larger quota counts as this, a larger burst is refused."""

MAX_JSON_QUOTA = 0xFFFF_FFFF_FFFF_FFFF
MAX_JSON_BURST = 0xFFFF_FFFF
"""Above these a number is not of its type any more (64 and 32 bits)."""


class Unlimited(Enum):
    """The type of `UNLIMITED`."""

    UNLIMITED = "unlimited"


UNLIMITED: Final = Unlimited.UNLIMITED


class MalformedQuota(ValueError):
    """JSON that is no quota; the text names the field and what it takes."""


_RATE = re.compile(r"0*([1-9][0-9]{0,9})([kmg]b)/([smhd])", re.ASCII | re.IGNORECASE)


def parse_rate(text: str) -> str:
    """The canonical form of a bandwidth such as `10mb/s`. Raises `ValueError`."""
    match = _RATE.fullmatch(text)
    if match is None or not match[3].islower() or int(match[1]) > 0xFFFF_FFFF:
        raise ValueError(f"invalid rate {text[:40]!r}")
    return f"{match[1]}{match[2].lower()}/{match[3]}"


@frozen
class UserQuota:
    """What the operator set for one account; None means the server's default."""

    storage_quota_mb: int | Unlimited | None = None
    rate_read: str | Unlimited | None = None
    rate_write: str | Unlimited | None = None
    rate_read_burst: int | None = None
    rate_write_burst: int | None = None
    allowed_write_paths: tuple[str, ...] | None = None
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
        """Read the JSON of a whole quota. Raises `MalformedQuota`, then `UnprocessableRequest`."""
        return QuotaPatch.from_json(value).applied_to(cls())


@frozen
class QuotaPatch:
    """Changes to a quota: what is not in it stays."""

    changes: Mapping[str, Any]
    """Name of a field → its new value, None for the default."""

    @classmethod
    def from_json(cls, value: object) -> "QuotaPatch":
        """Read its JSON; unknown members are ignored. Raises `MalformedQuota`, then `UnprocessableRequest`."""
        if not isinstance(value, Mapping):
            raise MalformedQuota("expected an object with the fields of a quota")
        changes: dict[str, Any] = {}
        for name, member in value.items():
            if name in _READERS:
                changes[name] = None if member is None else _READERS[name](name, member)
        _check_bursts(changes)
        _check_paths(changes.get("allowed_write_paths") or ())
        return cls(changes)

    def applied_to(self, quota: UserQuota) -> UserQuota:
        """The quota with these changes. Raises `UnprocessableRequest` if it has a burst without a rate."""
        merged = evolve(quota, **self.changes)
        for rate, burst in (("rate_read", "rate_read_burst"), ("rate_write", "rate_write_burst")):
            if getattr(merged, burst) is not None and not isinstance(getattr(merged, rate), str):
                raise UnprocessableRequest(f"{burst} requires the corresponding rate to be set to a value")
        return merged


def _check_bursts(changes: Mapping[str, Any]) -> None:
    for name in ("rate_read_burst", "rate_write_burst"):
        number = changes.get(name)
        if number is not None and number > MAX_NUMBER:
            raise UnprocessableRequest(f"{name} value {number} exceeds maximum ({MAX_NUMBER})")


def _check_paths(paths: tuple[str, ...]) -> None:
    seen: set[str] = set()
    for index, path in enumerate(paths):
        if path == "/":
            raise UnprocessableRequest(
                f"allowed_write_paths[{index}] must not be '/'; use null for unrestricted access"
            )
        if path in seen:
            raise UnprocessableRequest(f'allowed_write_paths[{index}] is a duplicate: "{path}"')
        seen.add(path)


def _read_number(name: str, value: object, lowest: int, highest: int, also: str = "") -> int:
    # In Python true is 1 and 1.0 equals 1; in JSON neither is a whole number.
    if type(value) is not int or not lowest <= value <= highest:
        raise MalformedQuota(f"{name}: expected a whole number from {lowest} to {highest}{also} or null")
    return value


def _read_quota(name: str, value: object) -> int | Unlimited:
    if value == "unlimited":
        return UNLIMITED
    return min(_read_number(name, value, 0, MAX_JSON_QUOTA, ', "unlimited"'), MAX_NUMBER)


def _read_rate(name: str, value: object) -> str | Unlimited:
    if value == "unlimited":
        return UNLIMITED
    try:
        if isinstance(value, str):
            return parse_rate(value)
    except ValueError:
        pass
    raise MalformedQuota(f'{name}: expected a rate such as "10mb/s" (kb, mb, gb per s, m, h, d), "unlimited" or null')


def _read_burst(name: str, value: object) -> int:
    return _read_number(name, value, 1, MAX_JSON_BURST)


def _read_paths(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise MalformedQuota(f"{name}: expected a list of paths or null")
    paths = []
    for index, path in enumerate(value):
        if not isinstance(path, str):
            raise MalformedQuota(f"{name}[{index}]: expected a path")
        try:
            paths.append(parse_path(path))
        except InvalidPath as error:
            raise MalformedQuota(f"{name}[{index}]: {error}") from None
    return tuple(paths)


_READERS: Final[Mapping[str, Callable[[str, object], Any]]] = {
    "storage_quota_mb": _read_quota,
    "rate_read": _read_rate,
    "rate_write": _read_rate,
    "rate_read_burst": _read_burst,
    "rate_write_burst": _read_burst,
    "allowed_write_paths": _read_paths,
}
