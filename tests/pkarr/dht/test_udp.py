"""One socket: answers find their queries, time-outs adapt, noise is dropped."""

from time import process_time
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from pkarr.dht.contacts import Address
from pkarr.dht.krpc import MAX_MESSAGE, Error, Ping, Query, Reply, decode, encode
from pkarr.dht.server import Limits
from pkarr.dht.udp import QUICKEST, TIMEOUT, Pace, Refusal, Silence, Socket

OWN, OTHER = b"\x01" * 20, b"\x02" * 20
THERE = ("9.9.9.9", 6881)


@define
class Wire:
    """A transport that notes what is sent, or refuses it as a system without a network."""

    sent: list[tuple[bytes, Address]] = field(factory=list)
    is_cut: bool = False

    def write(self, datagram: bytes, address: Address) -> None:
        """Note it."""
        if self.is_cut:
            raise OSError("Network is unreachable")
        self.sent.append((datagram, address))


@define
class Bench:
    """A socket without a network."""

    rate: float = 1000.0
    clock: Clock = field(factory=Clock)
    wire: Any = field(factory=Wire)
    socket: Socket = field(init=False)
    queries: list[tuple[Query, Address]] = field(factory=list)

    @socket.default
    def _make(self) -> Socket:
        socket = Socket(OWN, self.clock, Limits(self.rate, 2000.0), self._answer, is_read_only=False)
        socket.transport = self.wire
        return socket

    def _answer(self, query: Query, address: Address) -> Reply:
        self.queries.append((query, address))
        return Reply(query.transaction, OWN)

    def ask(self) -> tuple[Deferred[Reply], bytes, list[float]]:
        """Send a ping. Returns its answer, its transaction, and when it was found slow."""
        slow: list[float] = []
        answer = self.socket.query(THERE, Ping(), lambda: slow.append(self.clock.seconds()))
        query = decode(self.wire.sent[-1][0])
        assert isinstance(query, Query)
        return answer, query.transaction, slow

    def receive(self, message: Reply | Error | Query, address: Address = THERE) -> None:
        """Let a message arrive."""
        self.socket.datagramReceived(encode(message), address)


def result_of(answer: Deferred[Any]) -> Any:
    """What an answer has become: a value, an exception, or None if it has not come."""
    results: list[Any] = []
    answer.addCallbacks(results.append, lambda failure: results.append(failure.value))
    return results[0] if results else None


def test_answers() -> None:
    """A reply or an error to a query under way is its answer, once."""
    bench = Bench()
    for message, expected in (
        (lambda transaction: Reply(transaction, OTHER), Reply),
        (lambda transaction: Error(transaction, 203, b"no"), Refusal),
    ):
        answer, transaction, _slow = bench.ask()
        bench.receive(message(transaction))
        bench.receive(message(transaction))
        assert isinstance(result_of(answer), expected)
    assert not bench.clock.getDelayedCalls()


def test_forged_answers() -> None:
    """An answer from elsewhere, or to another query, is none."""
    bench = Bench()
    answer, transaction, _slow = bench.ask()
    bench.receive(Reply(transaction, OTHER), ("9.9.9.8", 6881))
    bench.receive(Reply(transaction, OTHER), ("9.9.9.9", 6882))
    bench.receive(Reply(bytes(4), OTHER))
    assert not answer.called
    bench.clock.advance(TIMEOUT)
    bench.clock.advance(0)
    assert isinstance(result_of(answer), Silence)


def test_silence() -> None:
    """Who does not answer is slow first, then has failed; a late answer in between counts."""
    bench = Bench()
    late, transaction, slow_late = bench.ask()
    silent, _transaction, slow = bench.ask()
    bench.clock.advance(1.0)
    assert (slow, slow_late) == ([1.0], [1.0])
    bench.receive(Reply(transaction, OTHER))
    assert result_of(late)
    bench.clock.advance(TIMEOUT - 1.01)
    assert not silent.called
    bench.clock.advance(0.01)
    assert isinstance(result_of(silent), Silence)


def test_patience_adapts() -> None:
    """In a quick network a node is slow soon; in one that is slower, later; never after the limit."""
    bench = Bench()
    for seconds, patience in ((0.01, QUICKEST), (0.3, 0.42), (5.0, TIMEOUT)):
        pace = Pace()
        for number in range(50):
            pace.took(seconds + number % 2 * seconds / 5)
        bench.socket.pace = pace
        answer, _transaction, slow = bench.ask()
        start = bench.clock.seconds()
        while not slow:
            bench.clock.advance(0.01)
        assert slow[0] - start == pytest.approx(patience, abs=0.1)
        bench.clock.advance(TIMEOUT)
        assert isinstance(result_of(answer), Silence)


def test_queries_are_answered() -> None:
    """A query gets what the node says to it; one that is wrong gets an error."""
    bench = Bench()
    bench.receive(Query(b"aa", OTHER, Ping()))
    assert bench.queries == [(Query(b"aa", OTHER, Ping()), THERE)]
    bench.socket.datagramReceived(b"d1:ad2:id20:aaaaaaaaaaaaaaaaaaaae1:q4:vote1:t2:bb1:y1:qe", THERE)
    assert [decode(datagram) for datagram, _address in bench.wire.sent] == [
        Reply(b"aa", OWN),
        Error(b"bb", 204, b"Method Unknown"),
    ]
    bench.socket.is_read_only = True
    bench.socket.datagramReceived(b"d1:ad2:id20:aaaaaaaaaaaaaaaaaaaae1:q4:vote1:t2:bb1:y1:qe", THERE)
    assert len(bench.wire.sent) == 2, "read-only nodes do not answer (BEP 43)"


@pytest.mark.parametrize(
    ("datagram", "host", "port"),
    [
        (b"", "9.9.9.9", 1),
        (b"GET / HTTP/1.1", "9.9.9.9", 1),
        (b"d" + bytes(100), "9.9.9.9", 1),
        (b"d1:x%d:" % MAX_MESSAGE + bytes(MAX_MESSAGE) + b"e", "9.9.9.9", 1),
        (encode(Query(b"aa", OTHER, Ping())), "9.9.9.9", 0),
        (encode(Query(b"aa", OTHER, Ping())), "fe80::1%eth0", 1),
    ],
)
def test_noise(datagram: bytes, host: str, port: int) -> None:
    """What cannot be a message is dropped unread."""
    bench = Bench()
    bench.socket.datagramReceived(datagram, (host, port))
    assert bench.socket.counts == {"received": 1, "noise": 1}
    assert not bench.wire.sent


def test_too_many() -> None:
    """Who sends too much is not read, except where we wait for an answer from there."""
    bench = Bench(rate=5.0)
    for _ in range(100):
        bench.socket.datagramReceived(b"d1:xe", THERE)
    assert bench.socket.counts["invalid"] == 10
    assert bench.socket.counts["excess"] == 90
    answer, transaction, _slow = bench.ask()
    bench.receive(Reply(transaction, OTHER))
    assert result_of(answer)


def test_without_network() -> None:
    """A datagram that the system does not take is as good as lost."""
    bench = Bench()
    bench.wire.is_cut = True
    answer = bench.socket.query(THERE, Ping())
    bench.receive(Query(b"aa", OTHER, Ping()))
    bench.clock.advance(TIMEOUT)
    bench.clock.advance(0)
    assert isinstance(result_of(answer), Silence)
    bench.socket.transport = None
    bench.receive(Query(b"aa", OTHER, Ping()))


def test_end() -> None:
    """A socket that closes leaves no query waiting and no timer running; a cancelled query neither."""
    bench = Bench()
    answer, _transaction, _slow = bench.ask()
    unwanted, _transaction, _slow = bench.ask()
    unwanted.addErrback(lambda _failure: None)
    unwanted.cancel()
    bench.socket.close()
    assert isinstance(result_of(answer), Silence)
    assert not bench.clock.getDelayedCalls()
    assert not bench.socket._asked


def test_a_flood_costs_little() -> None:
    """A hundred thousand datagrams from all over the world are dropped in no time, whatever they look like."""
    bench = Bench()
    bench.socket.limits = Limits(20.0, 500.0)
    nonsense = [encode(Query(b"aa", OTHER, Ping())), encode(Reply(b"aaaa", OTHER)), b"d" + bytes(1000) + b"e", b"x"]
    start = process_time()
    for number in range(100_000):
        bench.socket.datagramReceived(nonsense[number & 3], (f"9.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1))
    assert process_time() - start < 5.0, "0.05 ms each, on a machine that is busy with other things"
    assert len(bench.wire.sent) <= 1000
    assert bench.socket.counts["excess"] > 70_000
    assert not bench.clock.getDelayedCalls()
