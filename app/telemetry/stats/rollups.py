"""What a worker knows about its events until the next flush.

`note` is all that happens while a request waits: it keeps the batch's list. `fold` turns the lists into counters, apart for each
write key, `flush` turns the counters into deltas and gives them to the store, each until the store has taken it, in order; then a
delta that was applied although its answer was lost is recognised by its number.

What can fill up: lists that wait to be folded (the request that brings one too many folds them, by turns with others) and counters
(then each write key has an equal part of them, and within it each application: `shares`).
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
from app.telemetry.stats.bucket import BUCKETS_A_DELTA, Delta
from app.telemetry.stats.counters import Counters, Names, slices
from app.telemetry.stats.grouping import MAX_APPS, Grouping, fitted
from app.telemetry.stats.store import RollupStore

log = get_logger(__name__)

FOLD_EVERY_S = 0.2
RECALL_AGAIN_S = 5.0
EVENTS_A_SLICE = 1000  # about half a millisecond, then everybody else has a turn
MAX_WAITING_BATCHES = 5000
MAX_COUNTERS = 20_000


class Rollups:
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
        self._worker: str | None = None  # made by the process that flushes, so that a fork has a name of its own
        self._seq = 0
        self._deltas: deque[Delta] = deque()  # made, and not known to be in the store
        self.failure: str | None = None  # why the last flush did not reach the store
        self._is_closed = False
        self._flushing = BoundedSemaphore(1)  # a flush yields: a lock of threading would block the thread that both flushes run in

    def note(self, events: list[StoredEvent], known: Sequence[int] = (), key: str = "") -> None:
        """These came with the write key of this name and were saved; those at the places `known` had been saved before."""
        if known:
            known = set(known)
            events = [event for place, event in enumerate(events) if place not in known]
        self._waiting.append((key, events))
        if len(self._waiting) > self._max_waiting:
            self.fold()
        if self._is_closed:
            self.flush()

    def run(self, stop: Event) -> None:
        """The background task; its last act is a flush."""
        gevent.spawn(self._recall, stop)
        flush_in_s = self._flush_every_s
        while not stop.wait(min(FOLD_EVERY_S, self._flush_every_s)):
            self.fold()
            flush_in_s -= FOLD_EVERY_S
            if flush_in_s <= 0:
                self.flush()
                flush_in_s = self._flush_every_s
        self._is_closed = True  # a request that is answered later than this flushes by itself
        self.flush()

    def _recall(self, stop: Event) -> None:
        """Beside the flushes: a store that is away must not hold them up."""
        while not stop.is_set():
            try:
                self._grouping.keep(self._store.apps(MAX_APPS))
                return
            except StorageUnavailable:  # the flushes report it
                stop.wait(RECALL_AGAIN_S)

    def fold(self) -> None:
        """Yields by the fair turn, since the queue may be long; what others bring meanwhile is folded, too."""
        time_slice = TimeSlice.of_loop_iteration()
        for key, events in self._slices():
            self._add(key, events)
            time_slice.yield_if_over()

    def flush(self) -> None:
        """Never raises for a store that is away; then everything is kept for the next flush."""
        with self._flushing:
            self.fold()
            try:
                self._send()
                if self._counters:
                    self._deltas.extend(self._take())
                    self._send()
            except StorageUnavailable as error:
                self._note_failure(str(error))
            else:
                self._note_success()

    def check(self) -> dict[str, Any]:
        """For health."""
        found = self._store.check()
        return found if self.failure is None else {**found, "state": "degraded", "error": self.failure}

    def _send(self) -> None:
        while self._deltas:
            self._store.apply(self._deltas[0])
            self._deltas.popleft()

    def _take(self) -> list[Delta]:
        """Invariant: counters are taken out before they are worked on, so that what is counted meanwhile goes into others."""
        by_key, self._counters = self._counters, {}
        whole = Counters()
        for key, counters in by_key.items():
            whole.merge(self._bounded(key, counters))
        buckets = whole.buckets()
        return [self._delta(buckets[start : start + BUCKETS_A_DELTA]) for start in range(0, len(buckets), BUCKETS_A_DELTA)]

    def _delta(self, buckets) -> Delta:
        if self._worker is None:
            self._worker = os.urandom(6).hex()
        self._seq += 1
        return Delta(self._worker, self._seq, self._clock(), buckets)

    def _slices(self) -> Iterator[tuple[str, list[StoredEvent]]]:
        """What waits, in lists of about EVENTS_A_SLICE of one key."""
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
            fitting, lost = fitted(self._bounded(key, counters), share // 2, TimeSlice().yield_if_over)
            self._metrics.telemetry_rollups_lost_total.inc(lost)
            counters = self._counters.setdefault(key, Counters())
            counters.merge(fitting)
        counters.add(events)

    def _bounded(self, key: str, counters: Counters) -> Counters:
        now = self._clock()
        return counters.bounded(self._names.at(now), partial(self._grouping.at(now).of, key), TimeSlice().yield_if_over)

    def _note_failure(self, reason: str) -> None:
        if self.failure is None:
            log.warning("rollups_not_flushed", error=reason)
        self.failure = reason

    def _note_success(self) -> None:
        if self.failure is not None:
            log.info("rollups_flushed_again")
        self.failure = None
