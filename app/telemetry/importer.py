"""Brings files of events into MongoDB by hand, and leaves the files as they are.

Several chunks are under way at once; they are counted off in their order, so that the progress, which is what makes an
interrupted import go on instead of beginning anew, never passes a chunk that was not acknowledged.

Events that are new there are counted in the statistics, but for those that a server wrote to its spool: it counted them
when it took them, and its numbers have a way of their own.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import gevent

from app.spool.rejected import RejectedFile
from app.spool.segment import lock_to_read
from app.telemetry.event import StoredEvent
from app.telemetry.sinks import SinkUnavailable
from app.telemetry.sinks.mongo import Inserted, MongoSink
from app.telemetry.spool.progress import Progress
from app.telemetry.spool.reading import Chunk, ReadLine, read_chunk
from app.telemetry.spool.segment import is_segment

LINES_A_CHUNK = 500
TIMEOUT_S = 30.0
WAITS_S = (0.5, 1, 2, 4, 8)  # between attempts, when MongoDB stops answering in the middle
SAVE_EVERY_S = 0.5
IMPORTED, COUNTED, KNOWN, REJECTED_LINES = "imported", "counted", "known", "rejected"


class Work(NamedTuple):
    path: Path
    inode: int
    start: int
    chunk: Chunk
    rejected: RejectedFile
    is_counted: bool
    outcome: gevent.Greenlet  # gives (known, refused)


class Importer:
    """`is_rehearsal` reads, compares and counts, and writes nothing anywhere. `note` is told of the events that are new, of
    every file where `counts` is True, of none where it is False; None leaves out those of segments of a spool."""

    def __init__(
        self,
        sink: MongoSink,
        progress: Progress,
        *,
        concurrency: int,
        read_line: ReadLine,
        note: Callable[[list[StoredEvent]], None],
        counts: bool | None = None,
        is_rehearsal: bool = False,
    ):
        self._sink = sink
        self._progress = progress
        self._read_line = read_line
        self._note = note
        self._counts = counts
        self._concurrency = concurrency
        self._is_rehearsal = is_rehearsal
        self._saved_at = time.monotonic()

    def run(self, paths: list[Path], advance: Callable[[int], None]) -> dict[str, int]:
        """How many lines were imported, how many of these were counted, how many were known already and how many rejected;
        those of an interrupted run before included. `advance` is told of every byte that is done. Raises SinkUnavailable,
        OSError; then the same call goes on from there."""
        under_way: deque[Work] = deque()
        try:
            for path in paths:
                for work in self._chunks(path, advance):
                    under_way.append(work)
                    if len(under_way) >= self._concurrency:
                        advance(self._settle(under_way.popleft()))
            while under_way:
                advance(self._settle(under_way.popleft()))
        finally:
            gevent.killall([work.outcome for work in under_way])
            if not self._is_rehearsal:
                self._progress.save()
        return {name: self._progress.state.get(name, 0) for name in (IMPORTED, COUNTED, KNOWN, REJECTED_LINES)}

    def _chunks(self, path: Path, advance: Callable[[int], None]) -> Iterator[Work]:
        with open(path, "rb") as file:
            is_complete, inode = lock_to_read(file.fileno()), os.fstat(file.fileno()).st_ino
            offset, rejected = self._progress.offset(path, inode), RejectedFile(path)
            is_counted = not is_segment(path) if self._counts is None else self._counts
            advance(offset)
            while True:
                chunk = read_chunk(file, offset, is_complete=is_complete, max_lines=LINES_A_CHUNK, read_line=self._read_line)
                if chunk.end == offset:
                    return
                put = self._compare if self._is_rehearsal else self._put
                yield Work(path, inode, offset, chunk, rejected, is_counted, gevent.spawn(put, chunk, is_counted))
                offset = chunk.end

    def _settle(self, work: Work) -> int:
        """The bytes that are done, when it is."""
        known, refused = work.outcome.get()
        unusable = work.chunk.unusable + [(work.chunk.lines[index], reason) for index, reason in sorted(refused.items())]
        if not self._is_rehearsal:
            work.rejected.add(unusable)
        new = len(work.chunk.lines) - known - len(refused)
        self._progress.count(IMPORTED, new)
        self._progress.count(COUNTED, new if work.is_counted else 0)
        self._progress.count(KNOWN, known)
        self._progress.count(REJECTED_LINES, len(unusable))
        self._progress.note(work.path, work.inode, work.chunk.end)
        if not self._is_rehearsal and time.monotonic() - self._saved_at > SAVE_EVERY_S:
            self._progress.save()
            self._saved_at = time.monotonic()
        return work.chunk.end - work.start

    def _put(self, chunk: Chunk, is_counted: bool) -> tuple[int, dict[int, str]]:
        inserted = self._insert(chunk) if chunk.documents else Inserted([], {})
        if is_counted:
            old = {*inserted.duplicates, *inserted.refused}
            self._note([event for place, event in enumerate(chunk.events) if place not in old])
        return len(inserted.duplicates), inserted.refused

    def _insert(self, chunk: Chunk) -> Inserted:
        waits = iter(WAITS_S)
        while True:
            try:
                return self._sink.insert(chunk.documents, TIMEOUT_S)
            except SinkUnavailable:
                wait_s = next(waits, None)
                if wait_s is None:
                    raise
                gevent.sleep(wait_s)

    def _compare(self, chunk: Chunk, is_counted: bool) -> tuple[int, dict[int, str]]:
        return (self._sink.known([event.id for event in chunk.events]) if chunk.events else 0), {}
