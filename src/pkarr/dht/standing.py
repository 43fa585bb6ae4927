"""How we stand in the network: where others see us, and whether strangers reach us.

Every answer says from where our question came (BEP 42). Where most of those who answered agree, that is our address,
behind whatever translates addresses. A node that strangers cannot reach must not offer itself to others (BEP 43), so
until it is known better we are read-only. The proof: a ping that we send to our own address arrives.
"""

from __future__ import annotations

from collections import Counter, OrderedDict

from attrs import define, field

from pkarr.dht.contacts import Address, owner

VOTERS = 32  # owners of addresses whose last word counts
QUORUM = 4  # who must agree at least
PROBATION = 900.0  # seconds from the first proof to the last before we serve: who only passes by stays read-only


@define(eq=False)
class Standing:
    """What is known of our own address. Times are seconds of any clock."""

    address: Address | None = field(default=None, init=False)
    _votes: OrderedDict[bytes, Address] = field(factory=OrderedDict, init=False)
    # Maps owners of addresses to where they see us, the latest last.
    _first_proof: float | None = field(default=None, init=False)
    _last_proof: float = field(default=float("-inf"), init=False)

    def vote(self, voter: str, seen: Address) -> bool:
        """Somebody who answered sees us at an address. Whether that changed what we know."""
        whose = owner(voter)
        self._votes[whose] = seen
        self._votes.move_to_end(whose)
        if len(self._votes) > VOTERS:
            self._votes.popitem(last=False)
        agreed, count = Counter(self._votes.values()).most_common(1)[0]
        if agreed == self.address or count < QUORUM or count * 2 <= len(self._votes):
            return False
        self.address, self._first_proof = agreed, None
        return True

    def prove(self, now: float) -> None:
        """A stranger's datagram would have arrived: ours to our own address has."""
        if self._first_proof is None:
            self._first_proof = now
        self._last_proof = now

    def judge(self, since: float) -> None:
        """A ping to our own address was sent at a time: without proof since then we may have become unreachable."""
        if self._last_proof < since:
            self._first_proof = None

    @property
    def is_reachable(self) -> bool:
        """Whether strangers reach us, for long enough."""
        return self._first_proof is not None and self._last_proof - self._first_proof >= PROBATION
