"""One connection to Redis that is always there or says that it is not.

Commands are written at once and answered in order, so whoever calls in the same moment shares a round trip. While there
is no connection, calls fail at once; when answers stop, all calls fail within ten seconds and the connection is made
anew. Each new connection is prepared (who we are, which database, scripts, the owner's own checks) before anybody else
uses it.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import hiredis
import txredisapi
from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from pubky_homeserver.core.errors import CannotStart, StorageFull, StoreAway
from pubky_homeserver.store.address import RedisAddress
from pubky_homeserver.store.scripts import Script

STALL = 5.0
"""Seconds between two looks whether answers come: nobody waits longer than two of them."""

STEP = 500
"""Entries that one script or command handles: Redis does nothing else meanwhile."""

FIRST_RETRY = 0.05
"""Seconds before the first attempt to connect again; doubles up to `LAST_RETRY`."""

LAST_RETRY = 1.0

Word = str | bytes | int

Reply = Any
"""bytes, int, None or a list of replies."""

_FULL = re.compile(r"(?:^|[ -])OOM ")
_AWAY = re.compile(r"(?:^|[ -])(LOADING|MISCONF|READONLY|MASTERDOWN|NOREPLICAS|CLUSTERDOWN|TRYAGAIN|BUSY) ")
"""Refusals that pass: the server loads its data, cannot write to its disk, is a replica, or runs somebody's script."""


def refusal_of(error: Exception) -> Exception:
    """What an error reply means: `StorageFull`, `StoreAway`, or the error itself, which is a mistake of ours.

    In Redis 6.2 the errors of commands that a script calls stand in the middle of a sentence.
    """
    text = str(error)
    if _FULL.search(text):
        return StorageFull()
    if _AWAY.search(text):
        return StoreAway()
    return error


def _checked(reply: Reply) -> Reply:
    if not isinstance(reply, txredisapi.RedisError):
        return reply
    meaning = refusal_of(reply) if isinstance(reply, txredisapi.ResponseError) else StoreAway()
    raise meaning from (None if meaning is reply else reply)


def _pack(words: Sequence[Word]) -> bytes:
    # The library's own way takes a dozen times as long for the twenty words of a write.
    return bytes(hiredis.pack_command(tuple(words)))  # type: ignore[arg-type] # its stub means one word


class _Talker(txredisapi.RedisProtocol):
    """Counts answers, and leaves them as they are."""

    answers = 0
    lost: BaseException | None = None
    """Why the connection ended."""

    def connectionLost(self, why: Failure) -> None:
        """The connection has ended."""
        self.lost = why.value
        super().connectionLost(why)

    def tryConvertData(self, data: Reply) -> Reply:
        """Nothing is converted here; the library would walk through each list to find that out."""
        return data

    def replyReceived(self, reply: Reply) -> None:
        """One answer has come."""
        self.answers += 1
        super().replyReceived(reply)


class _Listener(txredisapi.SubscriberProtocol):
    """Counts answers and hears messages."""

    answers = 0
    lost: BaseException | None = None
    heard: Callable[[bytes, bytes], None]

    def connectionLost(self, why: Failure) -> None:
        """The connection has ended."""
        self.lost = why.value
        super().connectionLost(why)

    def replyReceived(self, reply: Reply) -> None:
        """An answer or a message has come."""
        self.answers += 1
        super().replyReceived(reply)

    def messageReceived(self, pattern: Reply, channel: Reply, message: Reply) -> None:
        """A message came on a channel."""
        self.heard(channel, message)


@define(eq=False)
class Commands:
    """One live connection: commands and scripts, answers in the types of Redis."""

    _protocol: Any
    _scripts: Mapping[str, Script]

    async def call(self, *words: Word) -> Reply:
        """Send one command. Raises `StoreAway`, `StorageFull`, and `ResponseError` for a mistake of ours."""
        if not self._protocol.connected:
            raise StoreAway
        self._protocol.transport.write(_pack(words))
        return _checked(await self._protocol.replyQueue.get())

    async def pipeline(self, commands: Sequence[Sequence[Word]]) -> list[Reply]:
        """Send commands in one go; they take effect in order, but others' may come in between. Raises as `call`."""
        if not self._protocol.connected:
            raise StoreAway
        self._protocol.transport.write(b"".join(map(_pack, commands)))
        answers = [self._protocol.replyQueue.get() for _ in commands]
        return [_checked(await answer) for answer in answers]

    async def run(self, name: str, keys: Sequence[str], arguments: Sequence[Word]) -> Reply:
        """Run a script, and give it to a Redis that has forgotten it. Raises as `call`."""
        script = self._scripts[name]
        try:
            return await self.call("EVALSHA", script.sha, len(keys), *keys, *arguments)
        except txredisapi.ResponseError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
        return await self.call("EVAL", script.text, len(keys), *keys, *arguments)

    async def identify(self, address: RedisAddress) -> None:
        """Say who we are and choose the database. Raises `CannotStart`."""
        try:
            if address.password is not None:
                user = (address.username,) if address.username else ()
                await self.call("AUTH", *user, address.password)
            if address.database:
                await self.call("SELECT", address.database)
            await self.call("PING")
        except txredisapi.ResponseError as error:
            raise CannotStart(f"Redis at {address} does not let us in: {error}") from None

    async def teach(self) -> None:
        """Give Redis all scripts, so that no first call has to."""
        await self.pipeline([("SCRIPT", "LOAD", script.text) for script in self._scripts.values()])


@define(eq=False)
class _Link:
    """One connection after the other: `use` gets each, and may refuse it; then or when it is gone, the next is made.

    Twisted's `ClientService` leaves a connection open, and its own states behind, if preparing it fails or is stopped.
    """

    address: RedisAddress
    reactor: Any
    build: Callable[[], Any]
    use: Callable[[Any], Awaitable[None]]
    failed: Callable[[Exception], None]
    """Called with the reason if a connection cannot be made or is refused."""
    gone: Callable[[], None]
    """Called when a connection that was used has ended."""
    stall: float
    _running: Deferred[None] | None = field(default=None, init=False)
    _stopped: bool = field(default=False, init=False)
    _look: IDelayedCall | None = field(default=None, init=False)

    log = Logger()

    def start(self) -> None:
        """Begin to connect."""
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addErrback(self._ended)

    async def stop(self) -> None:
        """Close the connection and make no other."""
        self._stopped = True
        if self._running is not None:
            self._running.cancel()
            await self._running

    async def _run(self) -> None:
        factory = Factory.forProtocol(self.build)
        factory.noisy = False
        endpoint = self.address.endpoint(self.reactor)
        delay = FIRST_RETRY
        while True:
            try:
                await self._once(await endpoint.connect(factory))
                delay = FIRST_RETRY
            except CancelledError:
                raise
            except Exception as error:
                if self._stopped:
                    return  # an endpoint that is cancelled while it connects has an error of its own
                self.failed(error)
                delay = min(2 * delay, LAST_RETRY)
            await deferLater(self.reactor, delay)

    async def _once(self, protocol: Any) -> None:
        self._watch(protocol, protocol.answers, suspected=False)
        try:
            await self.use(protocol)
            if protocol.connected:
                await protocol.whenDisconnected()
            self.gone()
        except StoreAway as error:
            if protocol.lost is None:
                raise
            raise error from protocol.lost  # with TLS this is where a bad certificate is told
        finally:
            if protocol.connected:
                closed = protocol.whenDisconnected()
                protocol.transport.abortConnection()
                await closed
            if self._look is not None:
                self._look.cancel()
                self._look = None

    def _watch(self, protocol: Any, answers: int, suspected: bool) -> None:
        """Cut a connection on which calls wait and nothing was answered between two looks; ask if nobody else does."""
        self._look = None
        waiting = bool(protocol.replyQueue.waiting)
        silent = waiting and protocol.answers == answers
        if silent and suspected:
            self.log.error("Redis at {address} does not answer", address=self.address)
            protocol.transport.abortConnection()
            return
        if not waiting:
            protocol.execute_command("PING").addErrback(lambda _: None)
        self._look = self.reactor.callLater(self.stall, self._watch, protocol, protocol.answers, silent)

    def _ended(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("No more connections to Redis are made", failure=failure)


@define(eq=False)
class Connection:
    """Keeps one connection alive. `prepare` is called with each new one, and fails to refuse it."""

    address: RedisAddress
    reactor: Any
    scripts: Mapping[str, Script]
    prepare: Callable[[Commands], Awaitable[None]]
    stall: float = STALL
    _link: _Link = field(init=False)
    _commands: Commands | None = field(default=None, init=False)
    _first: Deferred[None] | None = field(default=None, init=False)
    # Who waits for the first connection.
    _reason: str = field(default="no answer", init=False)
    # Why there is none.

    log = Logger()

    @_link.default
    def _make_link(self) -> _Link:
        return _Link(self.address, self.reactor, _make_talker, self._use, self._failed, self._gone, self.stall)

    async def start(self, patience: float) -> None:
        """Connect. Raises `CannotStart`, also if there is no connection after `patience` seconds."""
        self._first = Deferred()
        self._first.addTimeout(patience, self.reactor, self._timed_out)
        self._link.start()
        try:
            await self._first
        except BaseException:
            await self.stop()
            raise
        finally:
            self._first = None

    async def stop(self) -> None:
        """Close the connection and make no other. Calls that wait fail."""
        await self._link.stop()
        self._commands = None

    @property
    def commands(self) -> Commands:
        """The live connection. Raises `StoreAway` if there is none."""
        if self._commands is None:
            raise StoreAway
        return self._commands

    async def _use(self, protocol: _Talker) -> None:
        commands = Commands(protocol, self.scripts)
        await commands.identify(self.address)
        await commands.teach()
        await self.prepare(commands)
        self._commands = commands
        self._reason = ""
        if self._first is not None:
            self.reactor.callLater(0, self._settle, None)
        else:
            self.log.info("Connected to Redis at {address} again", address=self.address)

    def _settle(self, result: Failure | None) -> None:
        """Tell who waits for the start; not from within the link's own coroutine, for he may stop it at once."""
        if self._first is not None and not self._first.called:
            self._first.callback(result)

    def _gone(self) -> None:
        self._commands = None
        self.log.warn("The connection to Redis at {address} is lost", address=self.address)

    def _failed(self, error: Exception) -> None:
        """At the start a refusal is the end; later it is tried again, and said again only when the reason changes."""
        reason = str(error.__cause__ or error) if isinstance(error, StoreAway) else str(error)
        if self._first is None and reason != self._reason:
            self.log.error("Redis at {address} cannot be used: {reason}", address=self.address, reason=reason)
        self._reason = reason
        if self._first is not None and isinstance(error, CannotStart):
            self.reactor.callLater(0, self._settle, Failure(error))

    def _timed_out(self, _result: object, patience: float) -> None:
        raise CannotStart(f"Redis at {self.address} cannot be reached within {patience:g} s: {self._reason}")


@define(eq=False)
class Subscription:
    """Listens on channels.

    Calls `wake` soon after messages on the first, and once after each connection, for some may be lost. Passes on at
    once each message of the others.
    """

    address: RedisAddress
    reactor: Any
    channel: str
    wake: Callable[[], None]
    others: Mapping[str, Callable[[str], None]]
    began: Callable[[], None]
    """Called when a connection listens on all channels."""
    ended: Callable[[], None]
    """Called when it is lost."""
    is_listening: bool = field(default=False, init=False)
    _link: _Link = field(init=False)
    _soon: IDelayedCall | None = field(default=None, init=False)

    @_link.default
    def _make_link(self) -> _Link:
        return _Link(self.address, self.reactor, self._build, self._use, lambda _: None, self._gone, STALL)

    def start(self) -> None:
        """Begin to listen."""
        self._link.start()

    async def stop(self) -> None:
        """Listen no more."""
        await self._link.stop()
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None

    def _build(self) -> _Listener:
        protocol = _Listener(charset=None, convertNumbers=False)
        protocol.heard = self._heard
        return protocol

    async def _use(self, protocol: _Listener) -> None:
        commands = Commands(protocol, {})
        await commands.identify(self.address)
        for channel in (*self.others, self.channel):
            await commands.call("SUBSCRIBE", channel)
        self.is_listening = True
        self.began()
        self._wake_soon()

    def _gone(self) -> None:
        self.is_listening = False
        self.ended()

    def _heard(self, channel: bytes, message: bytes) -> None:
        tell = self.others.get(channel.decode())
        if tell is None:
            self._wake_soon()
        else:
            tell(message.decode())

    def _wake_soon(self) -> None:
        """Many messages of one moment are one wake-up."""
        if self._soon is None:
            self._soon = self.reactor.callLater(0, self._now)

    def _now(self) -> None:
        self._soon = None
        self.wake()


def _make_talker() -> _Talker:
    return _Talker(charset=None, convertNumbers=False)
