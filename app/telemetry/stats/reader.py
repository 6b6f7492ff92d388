"""Reads statistics: reads the buckets of a query from the store and adds them up, and yields to other work meanwhile."""

from collections.abc import Iterable, Iterator
from typing import Any

from app.clock import Clock
from app.serving.fairness import TimeSlice
from app.telemetry.stats.store import RollupStore
from app.telemetry.stats.summary import Summary, query_from


class StatsReader:
    """Answers GET /api/telemetry/stats."""

    def __init__(self, store: RollupStore, clock: Clock):
        self._store = store
        self._clock = clock

    def answer(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the answer for the loaded StatsQuerySchema. Raises ApiError `bad_request`, and StorageUnavailable."""
        query = query_from(arguments, self._clock())
        summary = Summary(query)
        for bucket in _with_pauses(self._store.read(query.level_ms, query.app, query.env, query.since, query.until)):
            summary.add(bucket)
        return {**summary.head(), "buckets": list(_with_pauses(summary.rows()))}


def _with_pauses(items: Iterable) -> Iterator:
    time_slice = TimeSlice.of_loop_iteration()
    for item in items:
        yield item
        time_slice.yield_if_over()
