"""Remembers of each segment which times it holds, so that a page of the newest events reads one file and not all.

What is remembered is one small row a file; a file is read again only when it has grown.
"""

from heapq import nlargest
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from app.json_values import MAX_TIMESTAMP_MS
from app.serving.fairness import TimeSlice
from app.storage.segments.segment import size_of, whole_lines
from app.telemetry.batch import is_known_id
from app.telemetry.event import StoredEvent
from app.telemetry.query import EventQuery, Page, matches, page_from
from app.telemetry.sinks.recent_ids import RecentIds
from app.telemetry.spool.event_lines import Unusable, decode, segments

LINES_A_CHECK = 50  # of the turn; most lines take two microseconds, the longest a hundred
REMEMBERED_IDS = 100_000  # of earlier pages: an event is sent again within minutes, so its copies are near each other
_position = attrgetter("position")


class _Range(NamedTuple):
    size: int
    oldest: int
    newest: int


class SpoolIndex:
    def __init__(self, folder: Path):
        self._folder = folder
        self._ranges: dict[Path, _Range] = {}

    def find(self, query: EventQuery) -> Page:
        """The newest matching events, each id once: where it stands several times, the copy with the newest time. Yields
        by the fair turn: a scan of a million events takes seconds."""
        seen_before: set[str] = set()
        while True:
            newest, on_earlier_pages = self._newest_of(query, seen_before)
            again = {event.id for event in newest if event.id in on_earlier_pages}
            if not again:
                return page_from(newest, query.limit)
            seen_before |= again  # each took the place of another event

    def _newest_of(self, query: EventQuery, without: set[str]) -> tuple[list[StoredEvent], set[str]]:
        """One more than the page has, in order; and which of their ids stand on an earlier page, with a newer time."""
        wanted, earlier, time_slice = query.limit + 1, RecentIds(REMEMBERED_IDS), TimeSlice.of_loop_iteration()
        best: dict[str, StoredEvent] = {}
        for path in reversed(segments(self._folder)):
            time_slice.yield_if_over()
            if self._can_skip(path, query, best, wanted):
                continue
            for event in self._scan(path, time_slice):
                if query.after is not None and event.position >= query.after:
                    if is_known_id(event.id):
                        earlier.add((event.id,))
                elif matches(event, query) and event.id not in without:
                    known = best.get(event.id)
                    if known is None or known.position < event.position:
                        best[event.id] = event
                    if len(best) >= 4 * wanted:
                        best = _newest(best, wanted)
            best = _newest(best, wanted)
        return sorted(best.values(), key=_position, reverse=True), set(earlier.among(best))

    def _can_skip(self, path: Path, query: EventQuery, best: dict, wanted: int) -> bool:
        known = self._ranges.get(path)
        if known is None or known.size != size_of(path):
            return False
        if query.since is not None and known.newest < query.since:
            return True
        if query.until is not None and known.oldest >= query.until:
            return True
        return len(best) >= wanted and known.newest < min(event.ts for event in best.values())

    def _scan(self, path: Path, time_slice: TimeSlice):
        size, oldest, newest = 0, MAX_TIMESTAMP_MS, 0
        for count, line in enumerate(whole_lines(path), 1):
            size += len(line)
            if count % LINES_A_CHECK == 0:
                time_slice.yield_if_over()
            try:
                event = decode(line)
            except Unusable:
                continue  # it is not an event; the import names such lines and keeps them
            oldest, newest = min(oldest, event.ts), max(newest, event.ts)
            yield event
        self._ranges[path] = _Range(size, oldest, newest)

    def forget(self, path: Path) -> None:
        self._ranges.pop(path, None)


def _newest(best: dict[str, StoredEvent], wanted: int) -> dict[str, StoredEvent]:
    if len(best) <= wanted:
        return best
    return {event.id: event for event in nlargest(wanted, best.values(), key=_position)}
