"""Keeps the progress of an import, so that an interrupted one continues where it stopped.

A checkpoint holds only while the file has the same bytes before the offset, and the collection has the last event that was stored from
them (see spool/progress.py). Otherwise the file is imported from its beginning.
"""

import time
from collections.abc import Callable

from app.telemetry.importing.source import OpenSource, Source
from app.telemetry.sinks.mongo import MongoSink
from app.telemetry.spool.chunks import Chunk
from app.telemetry.spool.progress import PrefixDigest, Progress

SAVE_EVERY_S = 0.5


class Checkpoints:
    """`report` is called with sentences for the operator."""

    def __init__(self, progress: Progress, sink: MongoSink, report: Callable[[str], None]):
        self._progress = progress
        self._sink = sink
        self._report = report
        self._collection_id = ""
        self._saved_at = time.monotonic()

    def start(self, source: Source, opened: OpenSource) -> tuple[int, PrefixDigest]:
        """Return the offset from which to import, with the digest of the bytes before it. Raises StorageUnavailable, OSError."""
        done, prefix = self._progress.done(source.path), PrefixDigest()
        if done is None or not opened.can_resume:
            return 0, prefix
        if opened.digest(prefix, done.offset) != done.digest:
            self._report(f"{source.shown} has changed since the import was interrupted: it is imported from its beginning.")
        elif not self._sink.holds(done.collection, done.witness):
            self._report(f"MongoDB has lost events that were imported from {source.shown}: it is imported from its beginning.")
        else:
            return done.offset, prefix
        self._progress.forget(source.path)
        return 0, PrefixDigest()

    def note(self, source: Source, inode: int, digest: str, chunk: Chunk, refused: dict[int, str]) -> None:
        """Note that MongoDB acknowledged a chunk. `digest` covers the bytes before its end. Raises StorageUnavailable."""
        self._collection_id = self._collection_id or self._sink.collection_id()
        stored = [event.id for index, event in enumerate(chunk.events) if index not in refused]
        before = self._progress.done(source.path)
        witness = stored[-1] if stored else before.witness if before else ""
        self._progress.note(source.path, inode, chunk.end, digest, self._collection_id, witness)

    def count(self, counts: dict[str, int]) -> None:
        """Add to the numbers in the progress, and save it every SAVE_EVERY_S."""
        for name, more in counts.items():
            self._progress.count(name, more)
        if time.monotonic() - self._saved_at > SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Write the progress to its file."""
        self._progress.save()
        self._saved_at = time.monotonic()
