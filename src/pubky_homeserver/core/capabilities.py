"""Capabilities: what a session may do, and where. `/pub/app/:rw` is to read and write below `/pub/app/`.

A capability is a scope (a canonical path; a directory holds all that lies below it, a file only itself), a
colon and one to three actions: `r` read, `w` write, and `e`, which tells apps to hand over encryption keys
and means nothing here. A list of them is joined with commas, so neither comma nor colon can stand in a
scope. A request is allowed if one capability of the list allows it; lists are kept as they came, never
merged.
"""

from collections.abc import Iterable
from typing import Final, Self

from attrs import frozen

from pubky_homeserver.core.errors import InvalidCapability, InvalidPath
from pubky_homeserver.core.paths import covers, parse_path

READ: Final = "r"
WRITE: Final = "w"
KEYS: Final = "e"
_ACTIONS = READ + WRITE + KEYS
"""In canonical order."""


@frozen
class Capability:
    """One scope and what may be done in it."""

    scope: str
    actions: str
    """One to three of `rwe`, in this order."""

    def __str__(self) -> str:
        """The canonical text."""
        return f"{self.scope}:{self.actions}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `scope:actions`. Raises `InvalidCapability`; actions are judged before the scope."""
        scope, _, actions = text.partition(":")
        if text.count(":") != 1:
            raise InvalidCapability("capability must have format `<scope>:<actions>`")
        if not actions:
            raise InvalidCapability("capability must contain at least one action")
        for action in actions:
            if action not in _ACTIONS:
                raise InvalidCapability(f"invalid capability action `{action}`")
        if "," in scope:
            raise InvalidCapability("capability scope contains reserved delimiter `,`")
        try:
            parse_path(scope)
        except InvalidPath as error:
            raise InvalidCapability(f"invalid capability scope: {error}") from None
        return cls(scope, _in_order(actions))

    @property
    def is_root(self) -> bool:
        """Whether it gives the whole account: `/` with both `r` and `w`."""
        return self.scope == "/" and READ in self.actions and WRITE in self.actions

    def allows(self, path: str, action: str) -> bool:
        """Whether it allows `action` at the canonical path."""
        return action in self.actions and covers(self.scope, path)

    def includes(self, other: "Capability") -> bool:
        """Whether `other` gives nothing that this one does not."""
        return covers(self.scope, other.scope) and set(other.actions) <= set(self.actions)


def parse_capabilities(text: str) -> tuple[Capability, ...]:
    """Read a list joined with commas, without any trimming; the empty text is the empty list.

    Raises `InvalidCapability`, which names the entry and its position, counted from 1.
    """
    if not text:
        return ()
    found = []
    for position, entry in enumerate(text.split(","), 1):
        try:
            found.append(Capability.parse(entry))
        except InvalidCapability as error:
            raise InvalidCapability(f"invalid capability at position {position} (`{entry}`): {error}") from None
    return tuple(found)


def format_capabilities(capabilities: Iterable[Capability]) -> str:
    """The canonical text of a list, in its own order."""
    return ",".join(map(str, capabilities))


def allows(capabilities: Iterable[Capability], path: str, action: str) -> bool:
    """Whether one of the capabilities allows `action` at the canonical path."""
    return any(one.allows(path, action) for one in capabilities)


def has_root(capabilities: Iterable[Capability]) -> bool:
    """Whether one of the capabilities gives the whole account."""
    return any(one.is_root for one in capabilities)


def normalize_capabilities(capabilities: Iterable[Capability]) -> tuple[Capability, ...]:
    """The shortest list that gives the same, in the order of first sight: for those who make tokens."""
    actions: dict[str, str] = {}
    for one in capabilities:
        actions[one.scope] = _in_order(actions.get(one.scope, "") + one.actions)
    merged = [Capability(scope, given) for scope, given in actions.items()]
    return tuple(one for one in merged if not any(other.includes(one) for other in merged if other is not one))


def _in_order(actions: str) -> str:
    return "".join(action for action in _ACTIONS if action in actions)
