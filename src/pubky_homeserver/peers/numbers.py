"""What the metrics port says of copies and peers. No label names a user, a peer or a path: anybody may read it."""

from collections import Counter
from collections.abc import Iterable, Iterator

from attrs import frozen

from pubky_homeserver.conflicts import Waiting
from pubky_homeserver.copies import Copies
from pubky_homeserver.metrics import Asked
from pubky_homeserver.peers.tally import Counted, Tally

STATES = ("current", "stale", "bootstrapping")


@frozen
class Numbers:
    """The numbers of one process. A new one of `Counted` gets its line in `counted`."""

    copies: Copies
    tally: Tally
    shelved: Waiting

    def read(self) -> Iterator[Asked]:
        """All of them, as they are now."""
        copies, now = self.copies.all(), self.copies.clock.seconds()
        states = Counter(map(self.copies.state, copies))
        confirmed = [at for copy in copies if (at := self.copies.confirmed(copy))]
        ages: Iterable[float] = (now - at for at in confirmed)
        shown: list[tuple[str, str, float]] = [
            ("mirror_lag_seconds", "For how long the copy that is behind longest has been behind",
             max(map(self.copies.behind_for, copies), default=0)),
            ("mirror_lag_events", "Events that primaries have and their copies here have not",
             sum(map(self.copies.lag, copies))),
            ("mirror_confirmed_age_seconds", "Time since the primary confirmed the copy that was confirmed longest ago",
             max(0.0, max(ages, default=0))),
            ("mirror_bytes", "Bytes that copies take, as quotas count them", sum(copy.used for copy in copies)),
            ("mirror_bodies_missing", "Files of copies whose body is not here", sum(copy.missing for copy in copies)),
            ("mirror_claims", "Copies at which their users signed up, without a record yet",
             sum(1 for copy in copies if copy.claimed)),
            ("mirror_braked", "Copies whose comparison waits for the operator",
             sum(1 for copy in copies if copy.braked)),
        ]  # fmt: skip
        yield Asked("mirror_copies", "Copies by state", {state: states[state] for state in STATES}, "state")
        for name, meaning, value in shown:
            yield Asked(name, meaning, {"": value})
        if self.shelved.things is not None:
            yield Asked("mirror_conflicts", "Things on the conflict shelf", {"": self.shelved.things})
        yield from counted(self.tally)


def counted(tally: Tally) -> Iterator[Asked]:
    """What happened in this process."""
    of = tally.of
    applied = (Counted.PUT, Counted.DEL)
    yield Asked("mirror_applied_total", "Events applied to copies", {one: of(one) for one in applied}, "operation")
    compared = (Counted.FORKED, Counted.COMPACTED, Counted.DIGEST, Counted.LIST)
    yield Asked(
        "mirror_comparisons_total",
        "Copies compared with their primaries",
        {one: of(one) for one in compared},
        "reason",
    )
    yield Asked("mirror_hash_mismatch_total", "Bodies that were not what they were named", {"": of(Counted.WRONG_BODY)})
    yield Asked(
        "mirror_rotten_total",
        "Bodies kept here that were lost or had another hash when they were verified",
        {"": of(Counted.ROTTEN)},
    )
    yield Asked(
        "mirror_healed_total",
        "Missing bodies that another homeserver than the primary gave",
        {"": of(Counted.HEALED)},
    )
    yield Asked("mirror_fenced_total", "Accounts that were shut by their users' records", {"": of(Counted.FENCED)})
    yield Asked(
        "mirror_turned_away_total",
        "Writes and sign-ins that were refused because the account lives elsewhere",
        {"": of(Counted.TURNED_AWAY)},
    )
    yield Asked(
        "mirror_records_total",
        "Records of peers and of users of copies that the network was to be reminded of",
        {"published": of(Counted.REMINDED), "failed": of(Counted.NOT_REMINDED)},
        "outcome",
    )
