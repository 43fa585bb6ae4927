"""The body of a request, as it arrives."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred

CHUNK_COST = 64
"""Bytes of Python object around a piece of a body: many tiny pieces count as what they occupy."""


class BodyBroken(Exception):
    """The request's body ended before it was complete: the client vanished or broke its framing."""


class Source(Protocol):
    """What a body needs of its connection."""

    def send_continue(self) -> None:
        """Ask the client for the body that it holds back."""

    def body_awaited(self) -> None:
        """A handler waits for bytes from now on."""

    def flow(self) -> None:
        """There is room: read on if reading was stopped for that."""


class Body:
    """A request's body in the order of arrival: an async iterator of non-empty `bytes`, to be read once.

    Within the parser it is only fed and marked (`complete`, `broken`); `wake` follows when the parser has returned.
    """

    __slots__ = ("_chunks", "_dropped", "_expects", "_source", "_waiter", "broken", "complete", "held", "received")

    def __init__(self, source: Source, expects: bool = False, complete: bool = False) -> None:
        """`expects`: the client waits for `100 Continue`."""
        self._source = source
        self._expects = expects
        self._chunks: list[bytes] = []
        self._waiter: Deferred[None] | None = None
        self._dropped = False
        self.complete = complete  # every byte has arrived
        self.broken = False  # what is missing will never arrive
        self.held = 0  # bytes of memory that unread pieces occupy
        self.received = 0  # bytes that arrived

    @property
    def awaited(self) -> bool:
        """Whether a handler waits for bytes that have not arrived."""
        return self._waiter is not None

    @property
    def withheld(self) -> bool:
        """Whether the client waits for a `100 Continue` that was not sent."""
        return self._expects

    def feed(self, data: bytes) -> None:
        """Keep bytes that arrived."""
        self._expects = False  # it did not wait, so it need not be told
        self.received += len(data)
        if not self._dropped:
            self._chunks.append(data)
            self.held += len(data) + CHUNK_COST

    def drop(self) -> None:
        """Forget what arrived and what will: the answer is given."""
        self._dropped = True
        self._chunks.clear()
        self.held = 0

    def wake(self) -> None:
        """Let a waiting handler go on if there is something to tell it."""
        waiter = self._waiter
        if waiter is not None and (self._chunks or self.complete or self.broken):
            self._waiter = None
            waiter.callback(None)

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        """All bytes that are there, after waiting for the first. Raises `BodyBroken`."""
        while not self._chunks:
            if self.broken:
                raise BodyBroken
            if self.complete:
                raise StopAsyncIteration
            if self._expects:
                self._expects = False
                self._source.send_continue()
            self._waiter = Deferred()
            self._source.body_awaited()
            try:
                await self._waiter
            finally:
                self._waiter = None
        chunks, self._chunks, self.held = self._chunks, [], 0
        self._source.flow()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)
