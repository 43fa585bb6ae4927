"""How a node fares: what its parts say about themselves, for the operator."""

from attrs import field, frozen


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


@frozen
class Publication:
    """What became of the homeserver's own PKARR record."""

    published: float | None = None
    """When it was last taken by the network (seconds since the epoch); None if it never was."""
    failure: str | None = None
    """Why the newest try failed, in one line; None if it did not."""

    def check(self, now: float) -> Check:
        """What to say of it."""
        age = None if self.published is None else max(0, int(now - self.published))
        if self.failure is not None:
            return Check(False, self.failure, age)
        return Check(True, "published", age) if age is not None else Check(False, "not published yet")


@frozen
class Republication:
    """How the newest round of publishing the users' records goes."""

    began: float
    """When it began (seconds since the epoch)."""
    is_late: bool
    """Whether it takes longer than the time from one round to the next."""
    is_failing: bool
    """Whether more than a tenth of the records cannot be published."""
    summary: str = field(default="", eq=False)
    """What became of the records, in a line."""

    def check(self, now: float) -> Check:
        """What to say of it; the age is that of the round's beginning."""
        words = self.summary + (", and the time for a round is over" if self.is_late else "")
        return Check(not (self.is_late or self.is_failing), words, max(0, int(now - self.began)))
