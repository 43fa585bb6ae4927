"""The numbers for Prometheus: names, labels and text as the official homeserver has them."""

import pytest
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.task import Clock

from pubky_homeserver.metrics import ServerMetrics

QUERY_BOUNDS = [str(bound) for bound in (0, 5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000)]
QUERY_BOUNDS.append("+Inf")
SCOPE = 'otel_scope_name="pubky_homeserver"'


def lines(metrics: ServerMetrics, name: str) -> list[str]:
    """The sample lines of a name, without its buckets, sum and count."""
    text = metrics.render().decode()
    return [line for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} "))]


def record_everything(metrics: ServerMetrics) -> None:
    """Make every series appear."""
    metrics.signups.inc()
    metrics.storage_request("path", "cookie", "matching", True)
    metrics.events_query(3)
    metrics.stream_query(3)
    with metrics.stream(Clock()):
        pass
    metrics.stream_cut_off()
    metrics.stream_half_full()
    metrics.record_try("published", 1_764_000_000.5)
    metrics.user_record("moved")
    metrics.user_records_round(1.5)
    metrics.user_records_late()


def test_nothing_before_the_first_record() -> None:
    """A series appears with its first record; before, only the process is described."""
    families = list(text_string_to_metric_families(ServerMetrics().render().decode()))
    assert [family.name for family in families] == ["target_info"]
    (target,) = families[0].samples
    assert target.value == 1
    assert target.labels["service_name"] == "unknown_service:pubky-homeserver"
    assert set(target.labels) == {
        "service_name",
        "telemetry_sdk_language",
        "telemetry_sdk_name",
        "telemetry_sdk_version",
    }


def test_all_names_and_types() -> None:
    """Exactly the official names and types, and ours; what Prometheus' own parser reads agrees."""
    metrics = ServerMetrics()
    record_everything(metrics)
    text = metrics.render().decode()
    types = dict(line.split()[2:4] for line in text.splitlines() if line.startswith("# TYPE"))
    assert types == {
        "events_db_query_duration_ms": "histogram",
        "event_stream_db_query_duration_ms": "histogram",
        "event_stream_active_connections": "gauge",
        "event_stream_connection_duration_ms": "histogram",
        "event_stream_broadcast_lagged_count_total": "counter",
        "event_stream_broadcast_half_full_count_total": "counter",
        "signup_count_total": "counter",
        "storage_request_count_total": "counter",
        "record_publish_count_total": "counter",
        "record_published_timestamp_seconds": "gauge",
        "user_record_count_total": "counter",
        "user_record_late_round_count_total": "counter",
        "user_record_round_seconds": "gauge",
        "target_info": "gauge",
    }
    helped = {line.split()[2] for line in text.splitlines() if line.startswith("# HELP")}
    assert helped == set(types)
    families = {family.name: family.type for family in text_string_to_metric_families(text)}
    assert families == {name.removesuffix("_total"): kind for name, kind in types.items()}


def test_scope_on_every_sample() -> None:
    """Every sample but the description of the process names its scope."""
    metrics = ServerMetrics()
    record_everything(metrics)
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            assert (sample.labels.get("otel_scope_name") == "pubky_homeserver") is (sample.name != "target_info")


def test_a_counter_as_the_protocol_shows_it() -> None:
    """Whole numbers have no fraction, and nothing like a time of creation is added."""
    metrics = ServerMetrics()
    metrics.signups.inc()
    metrics.signups.inc()
    assert lines(metrics, "signup_count_total") == [f"signup_count_total{{{SCOPE}}} 2"]
    assert "_created" not in metrics.render().decode()


def test_labels_in_order() -> None:
    """The metric's own labels by alphabet, then the scope, then a histogram's bound."""
    metrics = ServerMetrics()
    metrics.storage_request("legacy", "none", "other", False)
    metrics.stream_query(12)
    assert lines(metrics, "storage_request_count_total") == [
        'storage_request_count_total{addressing_mode="legacy",auth_method="none",pubky_host_header="other",'
        f'pubky_host_query="false",{SCOPE}}} 1'
    ]
    buckets = lines(metrics, "event_stream_db_query_duration_ms_bucket")
    assert buckets[2] == f'event_stream_db_query_duration_ms_bucket{{{SCOPE},le="10"}} 0'
    assert buckets[3] == f'event_stream_db_query_duration_ms_bucket{{{SCOPE},le="25"}} 1'


def test_one_series_per_combination() -> None:
    """Storage requests are counted apart by how they address the account, and together when they do so alike."""
    metrics = ServerMetrics()
    kinds = [
        ("path", "cookie", "matching", True),
        ("legacy", "none", "matching", False),
        ("path", "none", "other", False),
        ("legacy", "none", "absent", True),
    ]
    for kind in [*kinds, kinds[0]]:
        metrics.storage_request(*kind)
    samples = lines(metrics, "storage_request_count_total")
    assert len(samples) == len(kinds)
    assert [line.rpartition(" ")[2] for line in samples] == ["2", "1", "1", "1"]


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("events_db_query_duration_ms", QUERY_BOUNDS),
        ("event_stream_db_query_duration_ms", QUERY_BOUNDS),
        ("event_stream_connection_duration_ms", ["10", "100", "1000", "10000", "100000", "+Inf"]),
    ],
)
def test_buckets(name: str, bounds: list[str]) -> None:
    """The bounds are the official ones, written as whole numbers."""
    metrics = ServerMetrics()
    record_everything(metrics)
    assert [line.split('le="')[1].split('"')[0] for line in lines(metrics, f"{name}_bucket")] == bounds


def test_whole_milliseconds() -> None:
    """Durations are cut to whole milliseconds, and a clock that was set back counts as no time."""
    metrics = ServerMetrics()
    metrics.events_query(4.9)
    metrics.events_query(-3.0)
    assert lines(metrics, "events_db_query_duration_ms_sum") == [f"events_db_query_duration_ms_sum{{{SCOPE}}} 4"]
    assert lines(metrics, "events_db_query_duration_ms_count") == [f"events_db_query_duration_ms_count{{{SCOPE}}} 2"]


def test_open_streams() -> None:
    """The gauge follows streams as they open and close, also those that fail, and each leaves its duration."""
    metrics, clock = ServerMetrics(), Clock()

    def open_now() -> str:
        return lines(metrics, "event_stream_active_connections")[0].rpartition(" ")[2]

    def break_off() -> None:
        with metrics.stream(clock):
            assert open_now() == "2"
            clock.advance(0.25)
            raise ConnectionError

    with metrics.stream(clock):
        with pytest.raises(ConnectionError):
            break_off()
        assert open_now() == "1"
        clock.advance(1)
    assert open_now() == "0"
    sums = lines(metrics, "event_stream_connection_duration_ms_sum")
    assert sums == [f"event_stream_connection_duration_ms_sum{{{SCOPE}}} 1500"]


def test_two_homeservers_do_not_share_numbers() -> None:
    """Each instance counts for itself."""
    one, other = ServerMetrics(), ServerMetrics()
    one.signups.inc()
    assert lines(other, "signup_count_total") == []
