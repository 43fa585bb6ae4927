"""How often a client may ask. Each limit is a leaky bucket (GCRA): one number per client, no timers."""

import math

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from pubky_homeserver.core.errors import TooManyRequests

MAX_CLIENTS = 100_000
"""Clients remembered at once; above, those whose bucket is full again are forgotten first."""

NANOSECOND = 1e-9
"""Below this a bucket counts as full: sums of intervals are not exact."""


@define
class RequestLimit:
    """`requests` in each `window` (seconds), in one burst if need be."""

    requests: int
    window: float
    clock: IReactorTime
    _full_at: dict[str, float] = field(factory=dict, init=False)
    # Client → when its bucket is full again.

    def charge(self, client: str) -> None:
        """Count a request. Raises `TooManyRequests`, and then counts nothing."""
        now = self.clock.seconds()
        interval = self.window / self.requests
        full_at = max(self._full_at.get(client, now), now) + interval
        wait = full_at - now - self.window
        if wait > NANOSECOND:
            raise TooManyRequests(max(1, math.floor(wait)))
        if len(self._full_at) >= MAX_CLIENTS and client not in self._full_at:
            self._forget(now)
        self._full_at[client] = full_at

    def _forget(self, now: float) -> None:
        self._full_at = {client: at for client, at in self._full_at.items() if at > now}
        if len(self._full_at) >= MAX_CLIENTS:
            self._full_at.pop(min(self._full_at, key=self._full_at.__getitem__))
