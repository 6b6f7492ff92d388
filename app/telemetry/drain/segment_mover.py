"""Moves the events of one segment (a file of the spool) into MongoDB, and deletes the segment when it is empty.

The promise: a segment is deleted only when MongoDB has acknowledged each of its events, or the line is in the segment's `.rejected`
file, and no writer is left that could add another one. A process may die at any moment before that. Then the next one moves some
events again, and MongoDB recognizes them by their `_id`.

MongoDB may be restored from a backup meanwhile. So it is asked whether it has the events before the offset (`lost_events`): where
this process did not note the offset itself since MongoDB last failed, and before a segment is deleted.
"""

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from gevent.event import Event

from app.logs import get_logger
from app.metrics import Metrics
from app.storage.segments.rejected import RejectedFile
from app.storage.segments.segment import lock_to_read
from app.telemetry.drain.lost_events import missing_before
from app.telemetry.drain.pace import Pace
from app.telemetry.sinks.mongo import MongoSink
from app.telemetry.sinks.spool import SpoolSink
from app.telemetry.spool.chunks import Chunk, read_chunk
from app.telemetry.spool.progress import PrefixDigest, Progress

log = get_logger(__name__)
SAVE_EVERY_S = 1.0


class _Memory:
    """Facts about a segment that this process knows. `is_sure`: the offset is our own, and MongoDB has not failed since."""

    def __init__(self) -> None:
        self.prefix = PrefixDigest()
        self.is_sure = False
        self.was_restarted = False


class SegmentMover:
    """`is_busy` tells whether live events arrive; `on_acknowledged` is called after each chunk."""

    def __init__(
        self,
        spool: SpoolSink,
        sink: MongoSink,
        progress: Progress,
        pace: Pace,
        metrics: Metrics,
        *,
        is_busy: Callable[[], bool],
        on_acknowledged: Callable[[], None],
    ):
        self._spool = spool
        self._sink = sink
        self._progress = progress
        self._pace = pace
        self._metrics = metrics
        self._is_busy = is_busy
        self._on_acknowledged = on_acknowledged
        self._saved_at = 0.0
        self._memories: dict[Path, _Memory] = {}

    def keep_only(self, paths: Iterable[Path]) -> None:
        """Forget the segments that are gone."""
        self._memories = {path: self._memories[path] for path in paths if path in self._memories}

    def doubt_offsets(self) -> None:
        """Ask MongoDB again about the events before each offset: it failed, or another process moved events."""
        for memory in self._memories.values():
            memory.is_sure = False

    def move(self, path: Path, stop: Event) -> None:
        """Move the events after the offset, until `stop` is set. Raises StorageUnavailable, SinkRefused, OSError."""
        memory = self._memories.setdefault(path, _Memory())
        with open(path, "rb") as file:
            is_complete = lock_to_read(file.fileno())
            inode = os.fstat(file.fileno()).st_ino
            offset, rejected = self._progress.offset(path, inode), RejectedFile(path)
            if not memory.is_sure and not (self._is_unchanged(path, file, memory) and self._is_stored(file, offset, rejected, memory)):
                offset, memory.prefix = 0, PrefixDigest()
            memory.is_sure = True
            while not stop.is_set():
                started = time.monotonic()
                chunk = read_chunk(file, offset, is_complete=is_complete, max_lines=self._pace.chunk)
                if chunk.end > offset:
                    self._store(chunk, rejected)
                    offset = chunk.end
                    self._progress.note(path, inode, offset, memory.prefix.at(file.fileno(), offset))
                    self._save_progress()
                    stop.wait(self._pace.worked(len(chunk.lines), time.monotonic() - started, self._is_busy()))
                elif not is_complete:
                    return
                elif self._is_stored(file, offset, rejected, memory):
                    self._delete(path)
                    return
                else:
                    offset, memory.prefix = 0, PrefixDigest()

    def _is_unchanged(self, path: Path, file: BinaryIO, memory: _Memory) -> bool:
        """Return False where the segment was rewritten since its offset was noted."""
        done, memory.prefix = self._progress.done(path), PrefixDigest()
        return done is None or memory.prefix.at(file.fileno(), done.offset) == done.digest

    def _is_stored(self, file: BinaryIO, offset: int, rejected: RejectedFile, memory: _Memory) -> bool:
        """Return False where MongoDB lacks events before the offset. A segment is restarted once at most: events that MongoDB
        acknowledged and lacks again were deleted on purpose. Raises StorageUnavailable, OSError."""
        if not offset or memory.was_restarted:
            return True
        missing = missing_before(file, offset, rejected, self._sink.known)
        if missing:
            name, consequence = Path(file.name).name, "the segment is moved again from its start"
            log.warning("drained_events_missing", segment=name, missing=missing, consequence=consequence)
            memory.was_restarted = True
        return not missing

    def _store(self, chunk: Chunk, rejected: RejectedFile) -> None:
        """Insert the events, and keep in the `.rejected` file the lines that MongoDB will never take."""
        refused = self._sink.insert(chunk.documents).refused if chunk.documents else {}
        self._on_acknowledged()
        unusable = chunk.unusable + [(chunk.lines[index], reason) for index, reason in sorted(refused.items())]
        kept = rejected.add(unusable)
        if kept:
            log.error("spool_lines_rejected", count=kept, file=str(rejected.path), reason=unusable[0][1][:200])
        drained = len(chunk.lines) - len(refused)
        self._progress.count("drained", drained)
        self._progress.count("rejected", kept)
        self._metrics.spool_drained_events_total.inc(drained)
        self._metrics.spool_rejected_lines_total.inc(kept)

    def _save_progress(self) -> None:
        if not 0 <= time.monotonic() - self._saved_at < SAVE_EVERY_S:
            self._progress.save()
            self._saved_at = time.monotonic()

    def _delete(self, path: Path) -> None:
        """All events are stored, and the lock that we hold keeps every writer out."""
        self._spool.drop(path)
        self._progress.forget(path)
        self._memories.pop(path, None)
