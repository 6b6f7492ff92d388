"""The catalogue of metrics: one row each. A metric that is not a row here cannot be counted, and the type checker finds it.

Under gunicorn the gauges of all workers are merged into one: their sum, or the largest or smallest value as `merge` says. Every
mode begins with "live", so that the last value of an ended worker does not count. With `liveall` the workers stay apart, by a
label `pid`.
"""

from dataclasses import dataclass
from typing import cast

from prometheus_client import Counter, Gauge, Histogram


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric: its kind, the help text, the names of its labels and, for a gauge, how the workers' values are merged."""

    kind: type[Counter] | type[Gauge] | type[Histogram]
    help: str
    labels: tuple[str, ...]
    merge: str = "livesum"


def counter(help: str, *labels: str) -> Counter:
    """Return a row for the catalogue; an instance of `Metrics` has a Counter under its name."""
    return cast(Counter, MetricRow(Counter, help, labels))


def gauge(help: str, *labels: str, merge: str = "livesum") -> Gauge:
    """Return a row for the catalogue; an instance of `Metrics` has a Gauge under its name."""
    return cast(Gauge, MetricRow(Gauge, help, labels, merge))


def histogram(help: str, *labels: str) -> Histogram:
    """Return a row for the catalogue; an instance of `Metrics` has a Histogram under its name."""
    return cast(Histogram, MetricRow(Histogram, help, labels))


class Catalogue:
    """Every metric, as a row under its name."""

    http_requests_total = counter("HTTP answers, by method, route and status.", "method", "route", "status")
    http_request_seconds = histogram("Time from the first byte of the request to the finished answer.", "route")
    http_rate_limited_total = counter("Requests rejected by the rate limit.")
    http_rejected_total = counter("Connections rejected or closed at a limit: connections of one address, unfinished bytes.", "reason")
    telemetry_batches_total = counter("Answered batches, by outcome: saved, refused, unavailable.", "outcome")
    telemetry_events_total = counter("Events, by fate: saved, duplicate, rejected.", "fate")
    telemetry_limited_total = counter(
        "Batches and parts of batches rejected because a share is used up, by limit: address, key, app, spool.", "limit"
    )
    telemetry_writes_total = counter("Writes, by the rung of the storage ladder that took them: mongo, spool, full.", "rung")
    telemetry_write_seconds = histogram("Time of one durable write, by rung.", "rung")
    telemetry_rollups_lost_total = counter(
        "Events stored but not counted in the statistics, because their app has used up its share of counters."
    )
    spool_bytes = gauge("Bytes on disk in the spool of this data directory.", merge="livemax")
    spool_events_total = counter("Events appended to the spool.")
    spool_backlog_bytes = gauge("Bytes in the spool that are not yet in MongoDB.", merge="livemax")
    spool_oldest_age_seconds = gauge("Age of the oldest event that is not yet in MongoDB.", merge="livemax")
    spool_drained_events_total = counter("Events moved from the spool into MongoDB.")
    spool_rejected_lines_total = counter("Lines of the spool that are not events, moved to a .rejected file.")
    flags_evaluated_total = counter("Flag evaluations, by result: on, off.", "result")
    flags_snapshot_age_seconds = gauge("Seconds since the flag snapshot was last known to be current.", merge="livemax")
    realtime_connections = gauge("Open connections on /realtime.")
    realtime_subscriptions = gauge("Subscriptions of all connections.")
    realtime_published_total = counter("Messages appended to a topic log.")
    realtime_delivered_total = counter("Messages passed to a connection.")
    realtime_resends_total = counter("Windows sent again because the client acknowledged nothing in time.")
    realtime_delivery_failed_total = counter("Subscriptions that continue without acknowledgements after the last resend.")
    realtime_window_stalls_total = counter("Times that a full acknowledgement window held back messages.")
    realtime_slow_consumers_total = counter("Connections closed because they read too slowly.")
    realtime_replays_total = counter("Subscriptions that gave a position, by recovered: yes, or the reason why not.", "recovered")
    realtime_archived_total = counter(
        "Messages of durable topics, by fate: stored in MongoDB, spooled on disk first, refused, dropped.", "fate"
    )
    realtime_archive_backlog_bytes = gauge("Bytes of durable topics on disk that are not yet in MongoDB.", merge="livemax")
    realtime_errors_total = counter("Error frames sent, by code.", "code")
    realtime_send_queue_bytes = gauge("Bytes in the server that are not yet sent to the clients of /realtime.")
    process_cpu_seconds_total = counter("User and system CPU time of all workers, including ended ones.")
    process_resident_memory_bytes = gauge("Resident memory of all workers; a page shared by several counts in each.")
    process_open_fds = gauge("Open files and sockets of all workers.")
    process_max_fds = gauge("Files and sockets that all workers may open; 0 means no limit.")
    process_start_time_seconds = gauge("Start time of the oldest worker, in epoch seconds.", merge="livemin")
    worker_cpu_seconds = gauge("User and system CPU time of each worker, by the label `pid`.", merge="liveall")
    worker_resident_memory_bytes = gauge("Resident memory of each worker, by the label `pid`.", merge="liveall")
    worker_open_fds = gauge("Open files and sockets of each worker, by the label `pid`.", merge="liveall")
    dependency_up = gauge("1 while the dependency answers, 0 while it does not.", "dependency", merge="livemin")


CATALOGUE: dict[str, MetricRow] = {name: row for name, row in vars(Catalogue).items() if isinstance(row, MetricRow)}
