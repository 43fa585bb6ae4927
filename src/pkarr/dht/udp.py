"""One UDP socket of a node: queries and their answers, and what is done with everything else that arrives.

How long an answer may take is learned from those that came, as TCP does it (RFC 6298): who takes longer than nearly
all others is called slow, so that somebody else can be asked meanwhile; who takes longer than a fixed time has failed.

Everybody can send us datagrams, under any address. Before one is read it must look like a message and come from
somebody whom we asked, or who has not sent too many lately.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.error import MessageLengthError
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger

from pkarr.dht.contacts import Address
from pkarr.dht.krpc import (
    MAX_MESSAGE,
    Error,
    InvalidMessage,
    Message,
    Query,
    Reply,
    Request,
    decode,
    encode,
)
from pkarr.dht.server import Limits

TIMEOUT = 2.0  # seconds after which a query has failed, as the official programs
QUICKEST = 0.1  # seconds: nobody is slow before

_FIRST = 1.0  # seconds: slow, as long as nothing is known (RFC 6298, 2.1)
_TRANSACTION = 4  # bytes: nobody who does not see our queries guesses one within their time


class Silence(Exception):
    """No answer in time."""


class Refusal(Exception):
    """The answer is an error with this code."""

    def __init__(self, code: int, text: bytes) -> None:
        super().__init__(f"{code} {text.decode('utf-8', 'replace')}")
        self.code = code


@define(eq=False)
class Pace:
    """How long answers take: their mean and their mean deviation, in seconds. `timeout` is the longest of all."""

    timeout: float = TIMEOUT
    _mean: float | None = field(default=None, init=False)
    _deviation: float = field(default=0.0, init=False)

    def took(self, seconds: float) -> None:
        """An answer came after so long."""
        if self._mean is None:
            self._mean, self._deviation = seconds, seconds / 2
            return
        self._deviation += (abs(self._mean - seconds) - self._deviation) / 4
        self._mean += (seconds - self._mean) / 8

    @property
    def slow_after(self) -> float:
        """Seconds after which an answer is late."""
        usual = _FIRST if self._mean is None else self._mean + 4 * self._deviation
        return min(max(usual, QUICKEST), self.timeout)


@define(eq=False)
class _Pending:
    """A query under way."""

    address: Address
    answer: Deferred[Reply]
    asked: float
    on_slow: Callable[[], None]
    timer: IDelayedCall | None = None


@define(eq=False)
class Socket(DatagramProtocol):
    """Sends queries as the node `own`, and hands those of others to `on_query`, which answers or gives None.

    `counts` says how many datagrams came in (`received`), were dropped unread because there are too many
    (`excess`) or because they look like nothing (`noise`), were read in vain (`invalid`), and went out (`sent`).
    """

    own: bytes
    clock: IReactorTime
    limits: Limits
    on_query: Callable[[Query, Address], Reply | Error | None]
    pace: Pace = field(factory=Pace)
    is_read_only: bool = True
    counts: Counter[str] = field(factory=Counter, init=False)
    _pending: dict[bytes, _Pending] = field(factory=dict, init=False)
    # Maps transactions to queries.
    _asked: Counter[Address] = field(factory=Counter, init=False)
    # Counts queries under way by address.
    noisy = False
    log = Logger()

    def query(self, address: Address, request: Request, on_slow: Callable[[], None] = lambda: None) -> Deferred[Reply]:
        """Ask something. Fails with `Silence` or `Refusal`; `on_slow` is called before, if the answer is late."""
        transaction = secrets.token_bytes(_TRANSACTION)
        answer: Deferred[Reply] = Deferred(self._canceller(transaction))
        pending = _Pending(address, answer, self.clock.seconds(), on_slow)
        self._pending[transaction] = pending
        self._asked[address] += 1
        pending.timer = self.clock.callLater(self.pace.slow_after, self._late, transaction)
        self._send(Query(transaction, self.own, request, self.is_read_only), address)
        return answer

    def has_asked(self, transaction: bytes) -> bool:
        """Whether a query under way is this one."""
        return transaction in self._pending

    def close(self) -> None:
        """Give up all queries."""
        for transaction in list(self._pending):
            self._fail(transaction)

    def datagramReceived(self, datagram: bytes, address: tuple[str, int]) -> None:
        """Look at what came in, as little as possible."""
        self.counts["received"] += 1
        host, port = address[:2]
        if len(datagram) > MAX_MESSAGE or datagram[:1] != b"d" or datagram[-1:] != b"e" or not port or "%" in host:
            self.counts["noise"] += 1
        elif (host, port) not in self._asked and not self.limits.allow(host, self.clock.seconds()):
            self.counts["excess"] += 1
        else:
            self._read(datagram, (host, port))

    def _read(self, datagram: bytes, address: Address) -> None:
        try:
            message = decode(datagram)
        except InvalidMessage as error:
            self.counts["invalid"] += 1
            if error.answer is not None and not self.is_read_only:
                self._send(error.answer, address)
            return
        if isinstance(message, Query):
            answer = self.on_query(message, address)
            if answer is not None:
                self._send(answer, address)
        else:
            self._take(message, address)

    def _take(self, message: Reply | Error, address: Address) -> None:
        """An answer; nothing happens unless it is one to a query under way, from where that went."""
        pending = self._pending.get(message.transaction)
        if pending is None or pending.address != address:
            return
        self._forget(message.transaction)
        self.pace.took(self.clock.seconds() - pending.asked)
        if isinstance(message, Reply):
            pending.answer.callback(message)
        else:
            pending.answer.errback(Refusal(message.code, message.text))

    def _late(self, transaction: bytes) -> None:
        pending = self._pending[transaction]
        rest = pending.asked + self.pace.timeout - self.clock.seconds()
        pending.timer = self.clock.callLater(max(0.0, rest), self._fail, transaction)
        pending.on_slow()

    def _fail(self, transaction: bytes) -> None:
        pending = self._forget(transaction)
        if pending is not None:
            pending.answer.errback(Silence("no answer"))

    def _canceller(self, transaction: bytes) -> Callable[[Deferred[Reply]], None]:
        def cancel(_answer: Deferred[Reply]) -> None:
            self._forget(transaction)

        return cancel

    def _forget(self, transaction: bytes) -> _Pending | None:
        pending = self._pending.pop(transaction, None)
        if pending is None:
            return None
        self._asked[pending.address] -= 1
        if not self._asked[pending.address]:
            del self._asked[pending.address]
        if pending.timer is not None and pending.timer.active():
            pending.timer.cancel()
        return pending

    def _send(self, message: Message, address: Address) -> None:
        """Send, or not: a datagram that the system does not take is as one that got lost."""
        if self.transport is None:
            return
        self.counts["sent"] += 1
        try:
            self.transport.write(encode(message), address)
        except (OSError, MessageLengthError):
            self.log.debug("A datagram could not be sent to {host}", host=address[0])
