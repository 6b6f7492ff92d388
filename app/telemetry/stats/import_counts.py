"""The numbers of an import: what it has stored is added to the statistics as it goes, as a server's events are.

An import may bring years of minutes at once, so it is flushed by how much there is, too, and never comes near the number of
counters at which a worker stops counting.
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

MAX_APPS = 10_000  # an operator imports what is known to be right
EVENTS_A_FLUSH = 5000  # up to three counters each
WAITS_S = (0, 0.5, 1, 2, 4, 8)  # before each attempt at the last flush


class ImportedCounts:
    """Who is killed loses what was stored since the last flush: at most `flush_every_s`, or EVENTS_A_FLUSH and one chunk."""

    def __init__(self, store: RollupStore, clock: Clock, metrics: Metrics, *, flush_every_s: float, waits_s: Sequence[float] = WAITS_S):
        self._rollups = Rollups(store, clock, metrics, flush_every_s=flush_every_s, grouping=Grouping(near_ms=None, max_apps=MAX_APPS))
        self._flush_every_s = flush_every_s
        self._waits_s = waits_s
        self._waiting = 0
        self._flushed_at = time.monotonic()

    def note(self, events: list[StoredEvent]) -> None:
        """These are stored, and were not before."""
        self._rollups.note(events)
        self._waiting += len(events)
        if self._waiting >= EVENTS_A_FLUSH or time.monotonic() - self._flushed_at > self._flush_every_s:
            self._waiting, self._flushed_at = 0, time.monotonic()
            self._rollups.flush()

    def finish(self) -> str | None:
        """None where all of it is in the store, else why some of it never will be."""
        for wait_s in self._waits_s:
            gevent.sleep(wait_s)
            self._rollups.flush()
            if self._rollups.failure is None:
                return None
        return self._rollups.failure
