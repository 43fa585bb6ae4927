"""How a node fares: what its parts say about themselves, for the operator."""

from attrs import frozen


@frozen
class Publication:
    """What became of the homeserver's own PKARR record."""

    published: float | None = None
    """When it was last taken by the network (seconds since the epoch); None if it never was."""
    failure: str | None = None
    """Why the newest try failed, in one line; None if it did not."""


@frozen
class Check:
    """What one part of the node says when it is asked."""

    ok: bool
    detail: str
    """One line."""
    age: int | None = None
    """Seconds since it last succeeded, where that is of interest."""

    def to_json(self) -> dict[str, object]:
        """Its JSON form; the age only where there is one."""
        shown: dict[str, object] = {"ok": self.ok, "detail": self.detail}
        if self.age is not None:
            shown["age"] = self.age
        return shown
