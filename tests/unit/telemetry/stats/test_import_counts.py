"""The statistics of an import: few counters at once, and a reason when they cannot be stored."""

import pytest

from app.telemetry.stats.bucket import MINUTE_MS
from app.telemetry.stats.import_counts import EVENTS_A_FLUSH, ImportedCounts
from app.telemetry.stats.rollups import MAX_COUNTERS
from tests.apps import NOW, Clock
from tests.unit.telemetry.spool.test_chunks import event


@pytest.fixture
def counts(store, metrics):
    return ImportedCounts(store, Clock(), metrics, flush_every_s=3600, waits_s=(0, 0, 0))


def stored(store):
    return sum(sum(names.values()) for bucket in store.read(MINUTE_MS, "web", None, 0, NOW + 1) for names in bucket.counts.values())


def test_events_of_years_of_minutes_are_all_counted_although_a_server_would_not_keep_so_many_counters(counts, store, metrics):
    total = MAX_COUNTERS + 5000
    for start in range(0, total, 500):
        at = range(start, start + 500)
        counts.note([event("a", type="api", ts=NOW - n * MINUTE_MS, props={"ok": False, "ms": n}) for n in at])
    assert counts.finish() is None
    assert stored(store) == total
    assert metrics.telemetry_rollups_lost_total._value.get() == 0


def test_a_number_of_waiting_events_starts_a_flush(counts, store):
    counts.note([event("a")] * (EVENTS_A_FLUSH - 1))
    assert stored(store) == 0
    counts.note([event("a")])
    assert stored(store) == EVENTS_A_FLUSH


def test_the_last_flush_is_retried_and_then_returns_the_reason(counts, store):
    counts.note([event("a")])
    store.failures = 2
    assert counts.finish() is None
    counts.note([event("a")])
    store.failures = 3
    assert counts.finish() == "on request"
    assert stored(store) == 1
