"""Events in files: durable after one fsync, readable, bounded. The store where there is no MongoDB.

A repeated `eventId` is recognised among the last SPOOL_KNOWN_IDS of this process and of what it found at its start; one
that is older than that stands twice on disk and is still read, and later imported, once, because both have the same `_id`.
"""

import os
from collections import OrderedDict
from datetime import timedelta
from pathlib import Path
from typing import Any

from app.clock import system_clock, to_datetime
from app.telemetry.batch import is_known_id
from app.telemetry.event import StoredEvent
from app.telemetry.query import EventQuery, Page
from app.telemetry.sinks import Written
from app.telemetry.spool.index import SpoolIndex
from app.telemetry.spool.segment import Unusable, decode, encode, segments, whole_lines
from app.telemetry.spool.writer import SegmentWriter

NEARLY_FULL = 0.9


class SpoolSink:
    def __init__(self, folder: Path, *, max_bytes: int, segment_bytes: int, known_ids: int, ttl_days: int, metrics, clock=system_clock):
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_known = known_ids
        self._ttl = timedelta(days=ttl_days)
        self._metrics = metrics
        self._clock = clock
        self._known: OrderedDict[str, None] = OrderedDict()
        self._writer = SegmentWriter(folder, max_bytes=max_bytes, segment_bytes=segment_bytes, clock=clock)
        self._index = SpoolIndex(folder)

    def open(self) -> None:
        """After the fork: measure what is there and remember its newest ids."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self.tend()
        for path in reversed(segments(self._folder)):
            if len(self._known) >= self._max_known:
                break
            self._remember(_ids_in(path))

    def write(self, events: list[StoredEvent]) -> Written:
        """Raises SinkFull, SinkUnavailable."""
        fresh = {event.id: event for event in events if event.id not in self._known}
        if fresh:
            self._writer.append(encode(list(fresh.values())))
            self._remember(id_ for id_ in fresh if is_known_id(id_))
            self._metrics.spool_events_total.inc(len(fresh))
            self._metrics.spool_bytes.set(self._writer.folder_bytes)
        return Written("spool", len(events) - len(fresh))

    def find(self, query: EventQuery) -> Page:
        return self._index.find(query)

    def tend(self) -> None:
        """Now and then: drop segments whose every event is older than the TTL, and measure the folder."""
        if self._ttl:
            too_old = (to_datetime(self._clock()) - self._ttl).timestamp()
            for path in segments(self._folder):
                if _modified(path) < too_old:
                    path.unlink(missing_ok=True)
                    self._index.forget(path)
        self._writer.measure()
        self._metrics.spool_bytes.set(self._writer.folder_bytes)

    def close(self) -> None:
        self._writer.close()

    def check(self) -> dict[str, Any]:
        used = self._writer.folder_bytes
        if self._writer.last_error or not os.access(self._folder if self._folder.exists() else self._folder.parent, os.W_OK):
            state = "down"
        else:
            state = "degraded" if used > NEARLY_FULL * self._max_bytes else "up"
        details = {"bytes": used, "maxBytes": self._max_bytes, "segments": len(segments(self._folder))}
        return {"state": state, **details, **({"error": self._writer.last_error} if self._writer.last_error else {})}

    def _remember(self, ids) -> None:
        for id_ in ids:
            self._known[id_] = None
        while len(self._known) > self._max_known:
            self._known.popitem(last=False)


def _ids_in(path: Path):
    for line in whole_lines(path):
        try:
            id_ = decode(line).id
        except Unusable:
            continue  # found and named by the import
        if is_known_id(id_):
            yield id_


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")  # gone in the meantime, so nothing to drop
