"""Adds the events of an import to the statistics while it runs, as a server does with the events that it accepts.

The events of an import may be of years of minutes. So it also flushes after a number of events, and stays far below the number of
counters above which a worker of a server counts names under `(other)`.
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

MAX_APPS = 10_000  # more than a server allows: an operator knows the files
EVENTS_A_FLUSH = 5000  # up to three counters each
WAITS_S = (0, 0.5, 1, 2, 4, 8)  # before each attempt at the last flush


class ImportedCounts:
    """A process that is killed loses the counts since the last flush: those of `flush_every_s`, or of EVENTS_A_FLUSH and one chunk."""

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
        """Flush until the store has all counts, or after the last of `waits_s`; then return the `failure`."""
        for wait_s in self._waits_s:
            gevent.sleep(wait_s)
            self._rollups.flush()
            if self.failure is None:
                break
        return self.failure
