"""Turns a query into a range of whole buckets, and stored buckets into the answer. Pure.

The most frequent names of the whole range are listed, and every bucket lists the same ones, so that a chart has the same lines from end
to end. `other` is the number of all other events. A rate of no events is null.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from app.errors import ApiError
from app.json_values import MAX_TIMESTAMP_MS, to_iso
from app.telemetry.event_types import CAN_FAIL, ERRORS
from app.telemetry.stats.bucket import DAY_MS, HOUR_MS, LEVELS_MS, MINUTE_MS, Bucket
from app.telemetry.stats.counters import OTHER
from app.telemetry.stats.sketch import percentiles

BUCKETS_MS = {"1m": MINUTE_MS, "5m": 5 * MINUTE_MS, "15m": 15 * MINUTE_MS, "1h": HOUR_MS, "6h": 6 * HOUR_MS, "1d": DAY_MS}
MAX_BUCKETS = 1500  # a day by minutes, four years by days
USUAL_BUCKETS = 120  # at most, where the query has no `bucket`
USUAL_RANGE_MS = HOUR_MS
SHARES = {"p50": 0.50, "p75": 0.75, "p95": 0.95, "p99": 0.99}


class StatsQuery(NamedTuple):
    """`since` and `until` are edges of buckets, in epoch milliseconds; `top` is how many names are listed."""

    app: str
    env: str | None
    since: int
    until: int
    bucket_ms: int
    top: int

    @property
    def level_ms(self) -> int:
        """The widest stored level of which a bucket is a multiple."""
        return max(level_ms for level_ms in LEVELS_MS if self.bucket_ms % level_ms == 0)


def query_from(arguments: dict[str, Any], now: int) -> StatsQuery:
    """Make a query from the loaded StatsQuerySchema: of the last hour where no range is given; a given range is widened to whole
    buckets. Raises ApiError `bad_request` for a range that is empty or has too many buckets."""
    until = arguments.get("until", now)
    since = arguments.get("since", max(0, until - USUAL_RANGE_MS))
    if since >= until:
        path = "from" if "since" in arguments else "to"
        raise _bad(path, "Must be before `to`." if path == "from" else "Must be after `from`.")
    bucket_ms = BUCKETS_MS[arguments["bucket"]] if "bucket" in arguments else usual_bucket_ms(until - since)
    since, until = since - since % bucket_ms, until + -until % bucket_ms
    if until > MAX_TIMESTAMP_MS:
        raise _bad("to", "Must be before the last day of the year 9999.")
    if (until - since) // bucket_ms > MAX_BUCKETS:
        raise _bad("bucket", f"The range has more than {MAX_BUCKETS} buckets: ask for wider ones or a shorter range.")
    return StatsQuery(arguments["app"], arguments.get("env"), since, until, bucket_ms, arguments["top"])


def usual_bucket_ms(range_ms: int) -> int:
    """Return the narrowest bucket of which the range has at most USUAL_BUCKETS; a day where it has more."""
    return next((bucket_ms for bucket_ms in BUCKETS_MS.values() if range_ms <= USUAL_BUCKETS * bucket_ms), DAY_MS)


class Summary:
    """Use: `add` the buckets of the query's level in any order, then call `head`, then `rows`."""

    def __init__(self, query: StatsQuery):
        self._query = query
        self._buckets = {at: Bucket(query.app, query.env, at) for at in range(query.since, query.until, query.bucket_ms)}
        self._total = Bucket(query.app, query.env, query.since)
        self._names: list[tuple] = []
        self._measured: list[tuple] = []

    def add(self, bucket: Bucket) -> None:
        """Add a stored bucket to the bucket of the answer that it belongs to."""
        self._buckets[bucket.at - bucket.at % self._query.bucket_ms].add(bucket)
        self._total.add(bucket)

    def head(self) -> dict[str, Any]:
        """Return the answer without its buckets."""
        query = self._query
        names = {(type_, name): n for type_, names in self._total.counts.items() for name, n in names.items()}
        self._names, self._measured = _top(names, query.top), _top(_sizes(self._total), query.top)
        return {
            "app": query.app,
            **({} if query.env is None else {"env": query.env}),
            "from": to_iso(query.since),
            "to": to_iso(query.until),
            "bucketMs": query.bucket_ms,
            "totals": _numbers(self._total, self._names, self._measured),
        }

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the buckets of the answer. Call `head` first: it chooses the names."""
        for bucket in self._buckets.values():
            yield {"at": to_iso(bucket.at), **_numbers(bucket, self._names, self._measured)}


def _numbers(bucket: Bucket, names: list[tuple], measured: list[tuple]) -> dict[str, Any]:
    by_type = {type_: sum(counts.values()) for type_, counts in bucket.counts.items()}
    count, failed = sum(by_type.values()), sum(bucket.failed.values())
    api, errors = (sum(by_type.get(type_, 0) for type_ in types) for types in (CAN_FAIL, ERRORS))
    rows = [{"type": type_, "name": name, "count": bucket.counts.get(type_, {}).get(name, 0)} for type_, name in names]
    return {
        "count": count,
        "byType": by_type,
        "byName": [row for row in rows if row["count"]],
        "other": count - sum(row["count"] for row in rows),
        "errorRate": _rate(errors, count),
        "api": {"count": api, "failed": failed, "failureRate": _rate(failed, api)},
        "values": [_values(bucket, *key) for key in measured if key[1] in bucket.values.get(key[0], {})],
    }


def _values(bucket: Bucket, type_: str, name: str) -> dict[str, Any]:
    sketch = bucket.values[type_][name]
    found = percentiles(sketch, SHARES.values())
    rounded = {label: float(f"{value:.4g}") for label, value in zip(SHARES, found, strict=True)}
    return {"type": type_, "name": name, "count": sum(sketch.values()), **rounded}


def _sizes(total: Bucket) -> dict[tuple, int]:
    return {(type_, name): sum(sketch.values()) for type_, sketches in total.values.items() for name, sketch in sketches.items()}


def _top(counts: dict[tuple, int], top: int) -> list[tuple]:
    """Return the most frequent keys. The name OTHER is never one of them: its events belong to `other`."""
    named = [key for key in counts if key[1] != OTHER]
    return sorted(named, key=lambda key: (-counts[key], key))[:top]


def _rate(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None


def _bad(path: str, message: str) -> ApiError:
    return ApiError("bad_request", "The request has the wrong shape; see details.", details=[{"path": path, "message": message}])
