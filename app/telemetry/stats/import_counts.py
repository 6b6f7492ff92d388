"""Adds the events of an import to the statistics while it runs, as a server does with those that it accepts.

An import may have years of minutes at once. So it also flushes by the number of events, and never comes near the number of counters
at which a server's worker stops counting under own names.
"""

import time
from collections.abc import Sequence

import gevent

from app.clock import Clock
from app.metrics import Metrics
from app.telemetry.event import StoredEvent
from app.telemetry.stats.grouping import Grouping
from app.telemetry.stats.rollups import Rollups
from app.telemetry.stats.store import RollupStore

MAX_APPS = 10_000  # an operator imports files that are known to be right
EVENTS_A_FLUSH = 5000  # up to three counters each
WAITS_S = (0, 0.5, 1, 2, 4, 8)  # before each attempt at the last flush


class ImportedCounts:
    """A process that is killed loses the counts since the last flush: of at most `flush_every_s`, or EVENTS_A_FLUSH and one chunk."""

    def __init__(self, store: RollupStore, clock: Clock, metrics: Metrics, *, flush_every_s: float, waits_s: Sequence[float] = WAITS_S):
        self._rollups = Rollups(store, clock, metrics, flush_every_s=flush_every_s, grouping=Grouping(near_ms=None, max_apps=MAX_APPS))
        self._flush_every_s = flush_every_s
        self._waits_s = waits_s
        self._waiting = 0
        self._flushed_at = time.monotonic()

    @property
    def failure(self) -> str | None:
        """Why the last flush did not reach the store; None where it did."""
        return self._rollups.failure

    def note(self, events: list[StoredEvent]) -> None:
        """Count events that were stored and are new."""
        self._rollups.note(events)
        self._waiting += len(events)
        if self._waiting >= EVENTS_A_FLUSH or time.monotonic() - self._flushed_at > self._flush_every_s:
            self._waiting, self._flushed_at = 0, time.monotonic()
            self._rollups.flush()

    def finish(self) -> str | None:
        """Flush until the store has everything, with a limit; then return the `failure`."""
        for wait_s in self._waits_s:
            gevent.sleep(wait_s)
            self._rollups.flush()
            if self.failure is None:
                break
        return self.failure
