"""One connection to Redis that is always there or says that it is not.

Commands are written at once and answered in order, so whoever calls in the same moment shares a round trip. While there
is no connection, calls fail at once; when answers stop, all calls fail within ten seconds and the connection is made
anew. Each new connection is prepared (who we are, which database, scripts, the owner's own checks) before anybody else
uses it.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import txredisapi
from attrs import define, field
from twisted.application.internet import ClientService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from pubky_homeserver.core.errors import CannotStart, StorageFull, StoreAway
from pubky_homeserver.store.address import RedisAddress
from pubky_homeserver.store.scripts import Script

STALL = 5.0
"""Seconds without an answer after which a connection is suspected; after twice as many it is cut."""

FIRST_RETRY = 0.05
"""Seconds before the first attempt to connect again; doubles up to `LAST_RETRY`."""

LAST_RETRY = 1.0

Reply = Any
"""bytes, int, None or a list of replies."""

_FULL = re.compile(r"(?:^|[ -])OOM ")
_AWAY = re.compile(
    r"(?:^|[ -])(LOADING|MISCONF|READONLY|MASTERDOWN|NOREPLICAS|CLUSTERDOWN|TRYAGAIN|BUSY|NOAUTH|UNBLOCKED) "
)
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


class _Protocol(txredisapi.RedisProtocol):
    """Counts answers, and tells when it is gone."""

    replies = 0
    gone: Callable[[], None] | None = None

    def replyReceived(self, reply: Reply) -> None:
        """One answer has come."""
        self.replies += 1
        super().replyReceived(reply)

    def connectionLost(self, why: Failure) -> None:
        """Fail whatever still waits."""
        if self.gone is not None:
            self.gone()
        super().connectionLost(why)


class _Listener(txredisapi.SubscriberProtocol):
    """A connection that hears messages."""

    heard: Callable[[], None]

    def messageReceived(self, pattern: Reply, channel: Reply, message: Reply) -> None:
        """A message came on a channel."""
        self.heard()


@define(eq=False)
class Commands:
    """One live connection: commands and scripts, answers in the types of Redis."""

    _protocol: Any
    _scripts: Mapping[str, Script]

    async def call(self, *words: str | bytes | int) -> Reply:
        """Send one command. Raises `StoreAway`, `StorageFull`."""
        try:
            return await self._protocol.execute_command(*words)
        except txredisapi.ConnectionError as error:
            raise StoreAway from error
        except txredisapi.ResponseError as error:
            raise refusal_of(error) from error

    async def run(self, name: str, keys: Sequence[str], arguments: Sequence[str | bytes | int]) -> Reply:
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
        for script in self._scripts.values():
            await self.call("SCRIPT", "LOAD", script.text)


@define(eq=False)
class Connection:
    """Keeps one connection alive. `prepare` is called with each new one, and fails to refuse it."""

    address: RedisAddress
    reactor: Any
    scripts: Mapping[str, Script]
    prepare: Callable[[Commands], Awaitable[None]]
    _service: ClientService = field(init=False)
    _commands: Commands | None = field(default=None, init=False)
    _protocol: Any = field(default=None, init=False)
    _first: Deferred[None] | None = field(default=None, init=False)
    # Who waits for the first connection.
    _reason: str = field(default="no answer", init=False)
    # Why there is none yet.
    _watch: IDelayedCall | None = field(default=None, init=False)

    log = Logger()

    @_service.default
    def _make_service(self) -> ClientService:
        return _service(self.address, self.reactor, self._build, self._connected)

    async def start(self, patience: float) -> None:
        """Connect. Raises `CannotStart`, also if there is no connection after `patience` seconds."""
        self._first = Deferred()
        self._first.addTimeout(patience, self.reactor, self._timed_out)
        self._service.startService()
        self._service.whenConnected(failAfterFailures=1).addErrback(self._note)
        try:
            await self._first
        except BaseException:
            await self.stop()
            raise
        finally:
            self._first = None

    async def stop(self) -> None:
        """Close the connection and make no other."""
        await self._service.stopService()

    @property
    def commands(self) -> Commands:
        """The live connection. Raises `StoreAway` if there is none."""
        if self._commands is None:
            raise StoreAway
        return self._commands

    def _build(self) -> _Protocol:
        protocol = _Protocol(charset=None, convertNumbers=False)
        protocol.gone = self._lost
        return protocol

    async def _connected(self, protocol: _Protocol) -> None:
        self._protocol = protocol
        self._look_after(protocol, protocol.replies, suspected=False)
        commands = Commands(protocol, self.scripts)
        try:
            await commands.identify(self.address)
            await commands.teach()
            await self.prepare(commands)
        except Exception as error:
            self._refuse(error)
            raise
        self._commands = commands
        if self._first is not None:
            self._first.callback(None)
        else:
            self.log.info("Connected to Redis at {address}", address=self.address)

    def _refuse(self, error: Exception) -> None:
        """A new connection is of no use: at the start that is the end, later it is tried again."""
        self._reason = str(error)
        if self._first is None:
            self.log.error("Redis at {address} is of no use: {error}", address=self.address, error=error)
        elif not isinstance(error, StoreAway):
            first, self._first = self._first, None
            first.errback(error)

    def _lost(self) -> None:
        self._protocol = None
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._commands is not None:
            self._commands = None
            self.log.warn("The connection to Redis at {address} is lost", address=self.address)

    def _look_after(self, protocol: _Protocol, replies: int, suspected: bool) -> None:
        """Cut a connection on which calls wait and nothing was answered between two looks."""
        silent = bool(protocol.replyQueue.waiting) and protocol.replies == replies
        if silent and suspected:
            self._watch = None
            self.log.error("Redis at {address} does not answer", address=self.address)
            protocol.transport.abortConnection()
            return
        self._watch = self.reactor.callLater(STALL, self._look_after, protocol, protocol.replies, silent)

    def _note(self, failure: Failure) -> None:
        self._reason = failure.getErrorMessage()

    def _timed_out(self, _result: object, patience: float) -> None:
        raise CannotStart(f"Redis at {self.address} cannot be reached within {patience:g} s: {self._reason}")


@define(eq=False)
class Subscription:
    """Calls `wake` soon after messages on a channel, and once after each reconnection, for some may be lost."""

    address: RedisAddress
    reactor: Any
    channel: str
    wake: Callable[[], None]
    _service: ClientService = field(init=False)
    _soon: IDelayedCall | None = field(default=None, init=False)

    @_service.default
    def _make_service(self) -> ClientService:
        return _service(self.address, self.reactor, self._build, self._connected)

    def start(self) -> None:
        """Begin to listen."""
        self._service.startService()

    async def stop(self) -> None:
        """Listen no more."""
        await self._service.stopService()
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None

    def _build(self) -> _Listener:
        protocol = _Listener(charset=None, convertNumbers=False)
        protocol.heard = self._heard
        return protocol

    async def _connected(self, protocol: _Listener) -> None:
        commands = Commands(protocol, {})
        await commands.identify(self.address)
        await commands.call("SUBSCRIBE", self.channel)
        self._heard()

    def _heard(self) -> None:
        """Many messages of one moment are one wake-up."""
        if self._soon is None:
            self._soon = self.reactor.callLater(0, self._now)

    def _now(self) -> None:
        self._soon = None
        self.wake()


def _service(
    address: RedisAddress, reactor: Any, build: Callable[[], Any], connected: Callable[[Any], Awaitable[None]]
) -> ClientService:
    factory = Factory.forProtocol(build)
    factory.noisy = False
    return ClientService(
        address.endpoint(reactor),
        factory,
        retryPolicy=lambda failures: min(FIRST_RETRY * 2 ** min(failures, 10), LAST_RETRY),
        clock=reactor,
        prepareConnection=lambda protocol: Deferred.fromCoroutine(connected(protocol)),  # type: ignore[arg-type]
    )
