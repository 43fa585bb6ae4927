"""What the homeserver counts, in Prometheus' text format.

Names, types, buckets and labels are those of the official homeserver, so that its dashboards work here. It counts
through OpenTelemetry, which shows in three ways: every sample names its scope in a label after the metric's own, a
series appears with its first record and not before, and `target_info` describes the process. No label holds a key, a
path, a token or a cookie.

A number of our own gets a field here and a method that records it; nobody else touches the registry. What somebody
knows anyway is not recorded but asked for (`ask`) whenever the numbers are wanted.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version

from attrs import define, field, frozen
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from twisted.internet.interfaces import IReactorTime

SCOPE_LABEL = "otel_scope_name"
SCOPE = "pubky_homeserver"

QUERY_BUCKETS = (0, 5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000)
"""Upper bounds in milliseconds of how long a query took."""

CONNECTION_BUCKETS = (10, 100, 1000, 10000, 100000)
"""Upper bounds in milliseconds of how long a stream was open."""

STORAGE_LABELS = ("addressing_mode", "auth_method", "pubky_host_header", "pubky_host_query")


@frozen
class Asked:
    """A number as it is now, with one label at most."""

    name: str
    """Of one that only grows it ends in `_total`."""
    meaning: str
    values: Mapping[str, float]
    """By the value of the label; by the empty text if there is none."""
    label: str | None = None


@define(eq=False)
class ServerMetrics:
    """The numbers of one process, in a registry of its own. Durations are in milliseconds."""

    _registry: CollectorRegistry = field(factory=lambda: CollectorRegistry(auto_describe=False), init=False)
    _signups: Counter = field(init=False)
    _storage_requests: Counter = field(init=False)
    _events_queries: Histogram = field(init=False)
    _stream_queries: Histogram = field(init=False)
    _open_streams: Gauge = field(init=False)
    _stream_durations: Histogram = field(init=False)
    _streams_cut_off: Counter = field(init=False)
    _streams_half_full: Counter = field(init=False)
    _record_tries: Counter = field(init=False)
    _record_published: Gauge = field(init=False)
    _user_records: Counter = field(init=False)
    _user_records_late: Counter = field(init=False)
    _user_records_round: Gauge = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._signups = self._counter("signup_count", "Successful sign-ups")
        self._storage_requests = self._counter(
            "storage_request_count", "Requests to storage whose account is known", STORAGE_LABELS
        )
        self._events_queries = self._histogram(
            "events_db_query_duration_ms", "How long the query of a page of the text feed took", QUERY_BUCKETS
        )
        self._stream_queries = self._histogram(
            "event_stream_db_query_duration_ms", "How long a query of an event stream's history took", QUERY_BUCKETS
        )
        self._open_streams = self._gauge("event_stream_active_connections", "Event streams that are open")
        self._stream_durations = self._histogram(
            "event_stream_connection_duration_ms", "How long an event stream was open", CONNECTION_BUCKETS
        )
        self._streams_cut_off = self._counter(
            "event_stream_broadcast_lagged_count", "Event streams that ended because their reader was too slow"
        )
        self._streams_half_full = self._counter(
            "event_stream_broadcast_half_full_count", "Times that a stream's queue was half full when it was read"
        )
        self._count_records()
        self._describe_target()

    def _count_records(self) -> None:
        """What is ours: the official homeserver shows nothing of PKARR."""
        self._record_tries = self._counter(
            "record_publish_count", "Tries to publish the homeserver's record, at each network", ("outcome",)
        )
        self._record_published = self._gauge(
            "record_published_timestamp_seconds", "When a network last took the homeserver's record"
        )
        self._user_records = self._counter(
            "user_record_count", "Records of users that were to be published again", ("outcome",)
        )
        self._user_records_late = self._counter(
            "user_record_late_round_count", "Rounds over all users that took longer than the interval"
        )
        self._user_records_round = self._gauge(
            "user_record_round_seconds", "How long the last round over all users took"
        )

    @property
    def signups(self) -> Counter:
        """Successful sign-ups; to be increased, for asking makes the series appear."""
        return self._signups.labels(SCOPE)

    def storage_request(
        self, addressing_mode: str, auth_method: str, pubky_host_header: str, pubky_host_query: bool
    ) -> None:
        """Count a request to storage whose account is known.

        `addressing_mode`: path or legacy; `auth_method`: none, cookie or grant; `pubky_host_header`: absent, matching
        or other; `pubky_host_query`: whether the query has a key of that name.
        """
        query = "true" if pubky_host_query else "false"
        self._storage_requests.labels(addressing_mode, auth_method, pubky_host_header, query, SCOPE).inc()

    def events_query(self, milliseconds: float) -> None:
        """A page of the text feed was read from the store."""
        _observe(self._events_queries, milliseconds)

    def stream_query(self, milliseconds: float) -> None:
        """A part of an event stream's history was read from the store."""
        _observe(self._stream_queries, milliseconds)

    @contextmanager
    def stream(self, clock: IReactorTime) -> Iterator[None]:
        """Count an event stream as open until the end of the block, however it ends."""
        open_streams = self._open_streams.labels(SCOPE)
        open_streams.inc()
        began = clock.seconds()
        try:
            yield
        finally:
            open_streams.dec()
            _observe(self._stream_durations, (clock.seconds() - began) * 1000)

    def stream_cut_off(self) -> None:
        """An event stream was ended because its reader was too slow."""
        self._streams_cut_off.labels(SCOPE).inc()

    def stream_half_full(self) -> None:
        """Live events were taken from a queue that was at least half full."""
        self._streams_half_full.labels(SCOPE).inc()

    def record_try(self, outcome: str, now: float) -> None:
        """The homeserver's record was `published` at a network, `failed`, or is `outdated` there."""
        self._record_tries.labels(outcome, SCOPE).inc()
        if outcome == "published":
            self._record_published.labels(SCOPE).set(now)

    def user_record(self, outcome: str) -> None:
        """A user's record was looked after."""
        self._user_records.labels(outcome, SCOPE).inc()

    def user_records_round(self, seconds: float) -> None:
        """All users' records were."""
        self._user_records_round.labels(SCOPE).set(seconds)

    def user_records_late(self) -> None:
        """A round over all users takes longer than the interval."""
        self._user_records_late.labels(SCOPE).inc()

    def ask(self, read: Callable[[], Iterable[Asked]]) -> None:
        """Show these numbers too, as they are then."""
        self._registry.register(_Asking(read))

    def render(self) -> bytes:
        """All series as Prometheus' text format 0.0.4."""
        return "".join(_render(self._registry.collect())).encode()

    def _counter(self, name: str, meaning: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(name, meaning, (*labels, SCOPE_LABEL), registry=self._registry)

    def _gauge(self, name: str, meaning: str) -> Gauge:
        return Gauge(name, meaning, (SCOPE_LABEL,), registry=self._registry)

    def _histogram(self, name: str, meaning: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(name, meaning, (SCOPE_LABEL,), registry=self._registry, buckets=buckets)

    def _describe_target(self) -> None:
        target = {
            "service_name": "unknown_service:pubky-homeserver",
            "telemetry_sdk_language": "python",
            "telemetry_sdk_name": "prometheus-client",
            "telemetry_sdk_version": version("prometheus-client"),
        }
        Gauge("target_info", "What is measured, and with what", tuple(target), registry=self._registry).labels(
            **target
        ).set(1)


@frozen(eq=False)
class _Asking(Collector):
    """Brings numbers of somebody else into the registry."""

    _read: Callable[[], Iterable[Asked]]

    def collect(self) -> Iterator[Metric]:
        """The numbers as they are now."""
        for one in self._read():
            kind = "counter" if one.name.endswith("_total") else "gauge"
            metric = Metric(one.name.removesuffix("_total"), one.meaning, kind)
            for value, number in one.values.items():
                labels = {} if one.label is None else {one.label: value}
                metric.add_sample(one.name, {**labels, SCOPE_LABEL: SCOPE}, float(number))
            yield metric


def _observe(histogram: Histogram, milliseconds: float) -> None:
    # Whole milliseconds, as the official homeserver; never below 0, where a clock that was set back would lead.
    histogram.labels(SCOPE).observe(max(0, int(milliseconds)))


def _render(metrics: Iterable[Metric]) -> Iterator[str]:
    """Lines of text. The library's own text sorts all labels and adds a time of creation to each series."""
    for metric in metrics:
        samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
        if not samples:
            continue
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        yield f"# HELP {name} {metric.documentation}\n# TYPE {name} {metric.type}\n"
        yield from map(_line, samples)


def _line(sample: Sample) -> str:
    labels = ",".join(f'{name}="{_label(name, value)}"' for name, value in sample.labels.items())
    return f"{sample.name}{{{labels}}} {_number(sample.value)}\n"


def _label(name: str, value: str) -> str:
    if name == "le":
        return _number(float(value))
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if value.is_integer() else repr(value)
