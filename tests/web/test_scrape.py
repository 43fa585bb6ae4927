"""The metrics port."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from attrs import define
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet import reactor as _reactor
from twisted.logger import capturedLogs

from pubky_homeserver.metrics import ServerMetrics
from pubky_homeserver.web.channel import HTTPFactory
from pubky_homeserver.web.scrape import MetricsSite
from tests.web.client import Answer, ask

reactor: Any = _reactor


@define(eq=False)
class BrokenMetrics(ServerMetrics):
    """Numbers that cannot be written."""

    broken: bool = False

    def render(self) -> bytes:
        """See `ServerMetrics`."""
        if self.broken:
            raise ValueError("a bad number")
        return ServerMetrics.render(self)


@define
class Scraper:
    """Somebody at the metrics port."""

    metrics: BrokenMetrics
    port: int

    async def ask(self, method: str, target: str) -> Answer:
        """One request."""
        return await ask(reactor, self.port, method, target, {"Origin": "https://a.example"})


@pytest_twisted.async_yield_fixture
async def scraper() -> AsyncIterator[Scraper]:
    """A metrics port."""
    metrics = BrokenMetrics()
    factory = HTTPFactory(MetricsSite(metrics).answer, reactor)
    listening = reactor.listenTCP(0, factory, interface="127.0.0.1")
    yield Scraper(metrics, listening.getHost().port)
    await listening.stopListening()
    await factory.drain(1)


@pytest_twisted.ensureDeferred
async def test_scrape(scraper: Scraper) -> None:
    """Prometheus gets text that its own parser reads, without a password and without CORS."""
    scraper.metrics.signups.inc()
    scraper.metrics.signups.inc()
    answer = await scraper.ask("GET", "/metrics")
    assert (answer.status, answer.header("content-type")) == (200, "text/plain; charset=utf-8")
    assert 'signup_count_total{otel_scope_name="pubky_homeserver"} 2' in answer.text.splitlines()
    assert {family.name for family in text_string_to_metric_families(answer.text)} == {"signup_count", "target_info"}
    assert answer.header("access-control-allow-origin") is None
    head = await scraper.ask("HEAD", "/metrics")
    assert (head.status, head.header("content-length")) == (200, str(len(answer.body)))


@pytest.mark.parametrize("path", ["/", "/metrics/", "/info"])
@pytest_twisted.ensureDeferred
async def test_nothing_else(scraper: Scraper, path: str) -> None:
    """Any other path is 404."""
    answer = await scraper.ask("GET", path)
    assert (answer.status, answer.body) == (404, b"")


@pytest.mark.parametrize("method", ["POST", "OPTIONS", "DELETE"])
@pytest_twisted.ensureDeferred
async def test_read_only(scraper: Scraper, method: str) -> None:
    """Numbers are read and nothing else."""
    answer = await scraper.ask(method, "/metrics")
    assert (answer.status, answer.header("allow"), answer.body) == (405, "GET,HEAD", b"")


@pytest_twisted.ensureDeferred
async def test_failure(scraper: Scraper) -> None:
    """Numbers that cannot be written are a 500 that Prometheus reads as a comment, and a line in the log."""
    scraper.metrics.broken = True
    with capturedLogs() as events:
        answer = await scraper.ask("GET", "/metrics")
    assert (answer.status, answer.text) == (500, "# Failed to render metrics: a bad number")
    assert [event["log_failure"].type for event in events if "log_failure" in event] == [ValueError]
