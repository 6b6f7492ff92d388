"""The catalogue of metrics. What is not a row here cannot be counted: `metrics.anything_else` is an AttributeError.

Under gunicorn every worker writes into the files of PROMETHEUS_MULTIPROC_DIR (set by gunicorn.conf.py before this is
imported) and whichever worker is asked adds them up; alone, the process answers from memory.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from app import metrics_files

WITH_OTHERS = metrics_files.use()
FAST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


@dataclass(frozen=True, slots=True)
class MetricRow:
    """`merge` says how the workers' gauges become one: always in a live way, or the last word of a dead worker counts for ever.
    With `liveall` they stay apart, by a label `pid`."""

    kind: type
    help: str
    labels: tuple[str, ...] = ()
    merge: str = "livesum"


CATALOGUE: dict[str, MetricRow] = {
    "http_requests_total": MetricRow(Counter, "Answers by route and status.", ("method", "route", "status")),
    "http_request_seconds": MetricRow(Histogram, "Time from the first byte of the request to the finished answer.", ("route",)),
    "http_rate_limited_total": MetricRow(Counter, "Requests refused by the rate limit."),
    "http_turned_away_total": MetricRow(
        Counter, "Connections refused or ended for lack of room: connections of one address, unfinished bytes.", ("reason",)
    ),
    "telemetry_batches_total": MetricRow(Counter, "Batches answered, by outcome: saved, refused, unavailable.", ("outcome",)),
    "telemetry_events_total": MetricRow(Counter, "Events by fate: saved, duplicate, rejected.", ("fate",)),
    "telemetry_limited_total": MetricRow(
        Counter, "Batches and parts of batches refused because a share is used up, by limit: address, key, app, spool.", ("limit",)
    ),
    "telemetry_writes_total": MetricRow(Counter, "The ladder: writes by rung (mongo, spool, full) that took them.", ("rung",)),
    "telemetry_write_seconds": MetricRow(Histogram, "Time of one durable write, by rung.", ("rung",)),
    "telemetry_rollups_lost_total": MetricRow(
        Counter, "Events stored and not counted in the statistics, because their app has more counters than its share."
    ),
    "spool_bytes": MetricRow(Gauge, "Bytes on disk in the spool of this data directory.", (), "livemax"),
    "spool_events_total": MetricRow(Counter, "Events appended to the spool."),
    "spool_backlog_bytes": MetricRow(Gauge, "Bytes in the spool that still wait for MongoDB.", (), "livemax"),
    "spool_oldest_age_seconds": MetricRow(Gauge, "Age of the oldest event that still waits for MongoDB.", (), "livemax"),
    "spool_drained_events_total": MetricRow(Counter, "Events moved from the spool into MongoDB."),
    "spool_rejected_lines_total": MetricRow(Counter, "Lines of the spool that are no events, moved to a .rejected file."),
    "flags_evaluated_total": MetricRow(Counter, "Flag evaluations answered.", ("result",)),
    "flags_snapshot_age_seconds": MetricRow(Gauge, "Seconds since the flag snapshot was last known to be current.", (), "livemax"),
    "realtime_connections": MetricRow(Gauge, "Open connections on /realtime."),
    "realtime_subscriptions": MetricRow(Gauge, "Subscriptions of all connections."),
    "realtime_published_total": MetricRow(Counter, "Messages appended to a topic log."),
    "realtime_delivered_total": MetricRow(Counter, "Messages handed to a connection."),
    "realtime_resends_total": MetricRow(Counter, "Windows sent again because nothing was acknowledged in time."),
    "realtime_delivery_failed_total": MetricRow(Counter, "Subscriptions that continue without acknowledgements after the last resend."),
    "realtime_window_stalls_total": MetricRow(Counter, "Times that a full window held back messages."),
    "realtime_slow_consumers_total": MetricRow(Counter, "Connections closed because they read too slowly."),
    "realtime_replays_total": MetricRow(Counter, "Subscriptions with a position by recovered: yes, or why not.", ("recovered",)),
    "realtime_archived_total": MetricRow(
        Counter, "Messages of durable topics by fate: stored in MongoDB, spooled on disk first, refused, dropped.", ("fate",)
    ),
    "realtime_archive_backlog_bytes": MetricRow(Gauge, "Bytes of durable topics on disk that wait for MongoDB.", (), "livemax"),
    "realtime_errors_total": MetricRow(Counter, "Error frames sent, by code.", ("code",)),
    "realtime_send_queue_bytes": MetricRow(Gauge, "Bytes that wait in the server to be sent to the clients of /realtime."),
    "process_cpu_seconds_total": MetricRow(Counter, "User and system CPU time of all workers, including ended ones."),
    "process_resident_memory_bytes": MetricRow(Gauge, "Resident memory of all workers; a page shared by several counts in each."),
    "process_open_fds": MetricRow(Gauge, "Files and sockets that all workers have open."),
    "process_max_fds": MetricRow(Gauge, "Files and sockets that all workers may have open; 0 is no limit."),
    "process_start_time_seconds": MetricRow(Gauge, "When the oldest worker started, in seconds since 1970.", (), "livemin"),
    "worker_cpu_seconds": MetricRow(Gauge, "User and system CPU time of each worker, by the label `pid`.", (), "liveall"),
    "worker_resident_memory_bytes": MetricRow(Gauge, "Resident memory of each worker, by the label `pid`.", (), "liveall"),
    "worker_open_fds": MetricRow(Gauge, "Files and sockets that each worker has open, by the label `pid`.", (), "liveall"),
    "dependency_up": MetricRow(Gauge, "1 while the dependency answers, 0 while it does not.", ("dependency",), "livemin"),
}


class Metrics:
    """Each row as an attribute, on a registry of its own so that several applications can live in one process."""

    def __init__(self):
        self._registry = CollectorRegistry()
        for name, row in CATALOGUE.items():
            setattr(self, name, self._make(name, row))
        self._samples: list[Callable[[], None]] = []

    def _make(self, name, row):
        options = {"registry": self._registry}
        if row.kind is Gauge:
            options["multiprocess_mode"] = row.merge
        if row.kind is Histogram:
            options["buckets"] = FAST_SECONDS
        return row.kind(name, row.help, row.labels, **options)

    def on_render(self, sample: Callable[[], None]) -> None:
        """For what nobody counts as it happens."""
        self._samples.append(sample)

    def render(self) -> bytes:
        """Prometheus text of all workers together."""
        for sample in self._samples:
            sample()
        if not WITH_OTHERS:
            return generate_latest(self._registry)
        self.look_after_files()
        merged = CollectorRegistry()
        merged.register(metrics_files.AllWorkers())
        return generate_latest(merged)

    def look_after_files(self) -> None:
        """Something may have removed them; what this worker has counted goes on being counted."""
        if WITH_OTHERS:
            with suppress(OSError):
                metrics_files.restore()


class ByLabel(dict):
    """What a metric counts under each value of its one label: looked up in the library once, which would cost as much as
    counting. For values that are our own words; those that a client chooses have no end."""

    def __init__(self, metric):
        super().__init__()
        self._metric = metric

    def __missing__(self, value: str):
        counter = self[value] = self._metric.labels(value)
        return counter
