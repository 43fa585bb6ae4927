"""Answers that never change, kept in memory: full pages of the feed, which only grows at its end."""

from collections import OrderedDict
from collections.abc import Hashable

from attrs import define, field

MAX_BYTES = 8 * 1024 * 1024
"""Of all pages together, with what each costs."""

COST = 400
"""Bytes of Python objects around a page: its key, its place in the order. Small pages are mostly that."""


@define
class Pages:
    """Pages by what was asked for. The one that was not asked for the longest goes first."""

    max_bytes: int = MAX_BYTES
    _pages: OrderedDict[Hashable, bytes] = field(factory=OrderedDict, init=False)
    _bytes: int = field(default=0, init=False)

    def get(self, key: Hashable) -> bytes | None:
        """The page, if it is kept."""
        page = self._pages.get(key)
        if page is not None:
            self._pages.move_to_end(key)
        return page

    def keep(self, key: Hashable, page: bytes) -> None:
        """Keep a page, and let others go for it. An empty one is not worth its place."""
        if key in self._pages or not page or COST + len(page) > self.max_bytes:
            return
        self._pages[key] = page
        self._bytes += COST + len(page)
        while self._bytes > self.max_bytes:
            _, gone = self._pages.popitem(last=False)
            self._bytes -= COST + len(gone)
