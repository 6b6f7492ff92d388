"""Counts the events of a worker, and flushes the counts into the store every few seconds.

While a request waits, `note` only queues its events. `fold` counts the queued events, separately for each write key. `flush` turns the
counters into numbered deltas, and the store applies them in that order. It repeats a delta until the store has confirmed it, and a
store recognizes by the number one that it has applied already.

Limits: when more than MAX_WAITING_BATCHES are queued, the request that brings the next one counts them, and yields to other work
meanwhile. When there are more than MAX_COUNTERS, each write key has an equal part of them, and so has each of its applications
(`grouping`).
"""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore

from app.clock import Clock
from app.logs import get_logger
from app.metrics import Metrics
from app.serving.fairness import TimeSlice
from app.storage.errors import StorageUnavailable
from app.telemetry.event import StoredEvent
from app.telemetry.stats.bucket import BUCKETS_A_DELTA, Bucket, Delta
from app.telemetry.stats.counters import Counters, Names, slices
from app.telemetry.stats.grouping import MAX_APPS, Grouping, fitted
from app.telemetry.stats.store import RollupStore

log = get_logger(__name__)

FOLD_EVERY_S = 0.2
RETRY_APPS_S = 5.0
EVENTS_A_SLICE = 1000  # takes about half a millisecond; then other work may run
MAX_WAITING_BATCHES = 5000
MAX_COUNTERS = 20_000


class Rollups:
    """`flush_every_s` is the time between two flushes. The limits and the `grouping` are parameters for tests and the import."""

    def __init__(
        self,
        store: RollupStore,
        clock: Clock,
        metrics: Metrics,
        *,
        flush_every_s: float,
        max_waiting: int = MAX_WAITING_BATCHES,
        max_counters: int = MAX_COUNTERS,
        grouping: Grouping | None = None,
    ):
        self._max_waiting = max_waiting
        self._max_counters = max_counters
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._flush_every_s = flush_every_s
        self._waiting: deque[tuple[str, list[StoredEvent]]] = deque()
        self._counters: dict[str, Counters] = {}  # by write key
        self._grouping = grouping or Grouping()
        self._names = Names()
        self._worker: str | None = None  # made at the first flush, so that each forked process has a name of its own
        self._seq = 0
        self._deltas: deque[Delta] = deque()  # that the store has not confirmed
        self.failure: str | None = None  # why the last flush did not reach the store
        self._is_closed = False
        self._flushing = BoundedSemaphore(1)  # a flush yields: a lock of threading would block the thread that both run in

    def note(self, events: list[StoredEvent], known: Sequence[int] = (), key: str = "") -> None:
        """Queue events that were saved and came with the write key of this name. Those at the indexes `known` are not counted."""
        if known:
            skipped = set(known)
            events = [event for index, event in enumerate(events) if index not in skipped]
        self._waiting.append((key, events))
        if len(self._waiting) > self._max_waiting:
            self.fold()
        if self._is_closed:
            self.flush()

    def run(self, stop: Event) -> None:
        """Run in the background until `stop` is set, and flush once more at the end."""
        gevent.spawn(self._keep_known_apps, stop)
        flush_in_s = self._flush_every_s
        while not stop.wait(min(FOLD_EVERY_S, self._flush_every_s)):
            self.fold()
            flush_in_s -= FOLD_EVERY_S
            if flush_in_s <= 0:
                self.flush()
                flush_in_s = self._flush_every_s
        self._is_closed = True  # from now on each request flushes its own events
        self.flush()

    def _keep_known_apps(self, stop: Event) -> None:
        """Ask the store for its applications, in a greenlet of its own: a store that does not answer must not delay the flushes."""
        while not stop.is_set():
            try:
                self._grouping.keep(self._store.apps(MAX_APPS))
                return
            except StorageUnavailable:  # the next flush reports it
                stop.wait(RETRY_APPS_S)

    def fold(self) -> None:
        """Count the queued events, also those that are queued meanwhile. Yields to other work, since the queue may be long."""
        time_slice = TimeSlice.of_loop_iteration()
        for key, events in self._slices():
            self._add(key, events)
            time_slice.yield_if_over()

    def flush(self) -> None:
        """Send all counts to the store. If it does not answer, keep them for the next flush; `failure` has the reason."""
        with self._flushing:
            self.fold()
            try:
                self._send()
                if self._counters:
                    self._deltas.extend(self._make_deltas())
                    self._send()
            except StorageUnavailable as error:
                self._note_failure(str(error))
            else:
                self._note_success()

    def check(self) -> dict[str, Any]:
        """Return the state of the store for health, `degraded` if the last flush did not reach it."""
        found = self._store.check()
        return found if self.failure is None else {**found, "state": "degraded", "error": self.failure}

    def _send(self) -> None:
        while self._deltas:
            self._store.apply(self._deltas[0])
            self._deltas.popleft()

    def _make_deltas(self) -> list[Delta]:
        """Invariant: the counters are replaced first, so that events which are counted meanwhile go into the new ones."""
        by_key, self._counters = self._counters, {}
        whole = Counters()
        for key, counters in by_key.items():
            whole.merge(self._limited(key, counters))
        buckets = whole.buckets()
        return [self._delta(buckets[start : start + BUCKETS_A_DELTA]) for start in range(0, len(buckets), BUCKETS_A_DELTA)]

    def _delta(self, buckets: list[Bucket]) -> Delta:
        if self._worker is None:
            self._worker = os.urandom(6).hex()
        self._seq += 1
        return Delta(self._worker, self._seq, self._clock(), buckets)

    def _slices(self) -> Iterator[tuple[str, list[StoredEvent]]]:
        """Yield the queued events, in lists of about EVENTS_A_SLICE events of one write key."""
        while self._waiting:
            by_key: dict[str, list[list[StoredEvent]]] = {}
            while self._waiting:
                key, events = self._waiting.popleft()
                by_key.setdefault(key, []).append(events)
            for key, batches in by_key.items():
                for events in slices(batches, EVENTS_A_SLICE):
                    yield key, events

    def _add(self, key: str, events: list[StoredEvent]) -> None:
        counters = self._counters.setdefault(key, Counters())
        share = self._max_counters // len(self._counters)
        if len(counters) > share:
            del self._counters[key]
            fitting, lost = fitted(self._limited(key, counters), share // 2, TimeSlice().yield_if_over)
            self._metrics.telemetry_rollups_lost_total.inc(lost)
            counters = self._counters.setdefault(key, Counters())
            counters.merge(fitting)
        counters.add(events)

    def _limited(self, key: str, counters: Counters) -> Counters:
        now = self._clock()
        return counters.limited(self._names.at(now), partial(self._grouping.at(now).group_of, key), TimeSlice().yield_if_over)

    def _note_failure(self, reason: str) -> None:
        if self.failure is None:
            log.warning("rollups_not_flushed", error=reason)
        self.failure = reason

    def _note_success(self) -> None:
        if self.failure is not None:
            log.info("rollups_flushed_again")
        self.failure = None
