"""Remembers of each segment which times it holds, so that a page of the newest events reads one file and not all.

What is remembered is one small row a file; a file is read again only when it has grown.
"""

from pathlib import Path
from typing import NamedTuple

import gevent

from app.spool.segment import size_of, whole_lines
from app.telemetry.event import StoredEvent
from app.telemetry.fields import MAX_MS
from app.telemetry.query import EventQuery, Page, matches, page_from
from app.telemetry.spool.segment import Unusable, decode, segments

LINES_BETWEEN_PAUSES = 500


class _Range(NamedTuple):
    size: int
    oldest: int
    newest: int


class SpoolIndex:
    def __init__(self, folder: Path):
        self._folder = folder
        self._ranges: dict[Path, _Range] = {}

    def find(self, query: EventQuery) -> Page:
        """The newest matching events, each once. Reads cooperatively: a long scan delays nobody."""
        wanted = query.limit + 1
        best: dict[tuple, StoredEvent] = {}
        for path in reversed(segments(self._folder)):
            if self._can_skip(path, query, best, wanted):
                continue
            for event in self._scan(path):
                if matches(event, query):
                    best[event.position] = event
                    if len(best) >= 4 * wanted:
                        best = _newest(best, wanted)
            best = _newest(best, wanted)
        return page_from([best[place] for place in sorted(best, reverse=True)], query.limit)

    def _can_skip(self, path: Path, query: EventQuery, best: dict, wanted: int) -> bool:
        known = self._ranges.get(path)
        if known is None or known.size != size_of(path):
            return False
        if query.since is not None and known.newest < query.since:
            return True
        if query.until is not None and known.oldest >= query.until:
            return True
        return len(best) >= wanted and known.newest < min(best)[0]

    def _scan(self, path: Path):
        size, oldest, newest = 0, MAX_MS, 0
        for count, line in enumerate(whole_lines(path), 1):
            size += len(line)
            if count % LINES_BETWEEN_PAUSES == 0:
                gevent.sleep(0)
            try:
                event = decode(line)
            except Unusable:
                continue  # it is not an event; the import names such lines and keeps them
            oldest, newest = min(oldest, event.ts), max(newest, event.ts)
            yield event
        self._ranges[path] = _Range(size, oldest, newest)

    def forget(self, path: Path) -> None:
        self._ranges.pop(path, None)


def _newest(best: dict[tuple, StoredEvent], wanted: int) -> dict[tuple, StoredEvent]:
    if len(best) <= wanted:
        return best
    return {place: best[place] for place in sorted(best, reverse=True)[:wanted]}
