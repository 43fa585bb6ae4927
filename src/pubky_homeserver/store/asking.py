"""A short conversation with a Redis: is it there, is it loading, whose is it, please stop.

Only for the process that keeps a Redis alive; the store itself speaks through txredisapi.
"""

from collections import deque

import hiredis
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IReactorProcess, IReactorTime, IReactorUNIX
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

PATIENCE = 5  # seconds for an answer; a Redis that loads gives them between two parts of its log


class IRedisReactor(IReactorProcess, IReactorTime, IReactorUNIX):
    """What a Redis of our own needs of the reactor."""


class Refusal(Exception):
    """Redis answered with an error; its text."""


@define(eq=False)
class Conversation(Protocol):
    """Questions and answers in order, over one connection."""

    _clock: IReactorTime
    _reader: hiredis.Reader = field(factory=hiredis.Reader, init=False)
    _waiting: deque[Deferred[object]] = field(factory=deque, init=False)
    # Questions without an answer yet, the oldest first.

    def ask(self, *words: str) -> Deferred[object]:
        """Send a command; its answer (bytes, numbers, lists). Fails with `Refusal`, or as the connection does."""
        answer: Deferred[object] = Deferred(lambda _: self.close())
        self._waiting.append(answer)
        parts = [word.encode("utf-8", "surrogateescape") for word in words]
        lines = [b"*%d\r\n" % len(parts), *(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)]
        assert self.transport is not None
        self.transport.write(b"".join(lines))
        return answer.addTimeout(PATIENCE, self._clock)

    async def info(self, section: str) -> dict[str, str]:
        """What `INFO` says of itself in a section."""
        text = await self.ask("INFO", section)
        assert isinstance(text, bytes)
        lines = (line.partition(":") for line in text.decode("utf-8", "replace").splitlines())
        return {name: value for name, _, value in lines}

    def close(self) -> None:
        """Hang up."""
        if self.transport is not None:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        """Hand answers to who waits for them."""
        self._reader.feed(data)
        while self._waiting and (answer := self._reader.gets()) is not False:
            waiting = self._waiting.popleft()
            if waiting.called:
                continue
            if isinstance(answer, hiredis.ReplyError):
                waiting.errback(Refusal(str(answer)))
            else:
                waiting.callback(answer)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Nobody will answer any more."""
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.called:  # by its own time-out, which hung up
                waiting.errback(reason)


async def converse(reactor: IRedisReactor, socket: str) -> Conversation:
    """Connect to the Redis behind a socket. Raises `twisted.internet.error.ConnectError` and `TimeoutError`."""
    factory = Factory.forProtocol(lambda: Conversation(reactor))
    factory.noisy = False
    conversation = await UNIXClientEndpoint(reactor, socket, timeout=PATIENCE).connect(factory)
    assert isinstance(conversation, Conversation)
    return conversation
