"""Stores the events of files in MongoDB, and leaves the files as they are.

Several chunks are under way at once. They are acknowledged in their order, so that the progress from which an interrupted import
continues never passes a chunk that MongoDB has not acknowledged. Whether the progress still holds for a file is decided when the file
is opened (see spool/progress.py).

New events are added to the statistics, except those of a spool: the server that wrote it counted them when it accepted them.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import gevent

from app.serving.fairness import TimeSlice
from app.storage.errors import StorageUnavailable
from app.storage.segments.rejected import RejectedFile
from app.telemetry.event import StoredEvent
from app.telemetry.importing.json_pieces import Piece
from app.telemetry.importing.line_reader import LineReader
from app.telemetry.importing.source import OpenSource, Source
from app.telemetry.sinks.mongo import Inserted, MongoSink
from app.telemetry.spool.chunks import MAX_CHUNK_BYTES, Chunk, chunk_of
from app.telemetry.spool.progress import PrefixDigest, Progress

LINES_A_CHUNK = 500
TIMEOUT_S = 30.0
WAITS_S = (0.5, 1, 2, 4, 8)  # between the attempts at one chunk
SAVE_EVERY_S = 0.5
IMPORTED, COUNTED, KNOWN, REJECTED_LINES = "imported", "counted", "known", "rejected"
COUNTS = (IMPORTED, COUNTED, KNOWN, REJECTED_LINES)


class Work(NamedTuple):
    """One chunk of a file. `digest` covers the bytes before its end; it is empty where reading cannot continue from there."""

    source: Source
    inode: int
    read: int  # bytes on disk since the chunk before
    chunk: Chunk
    digest: str
    rejected: RejectedFile
    is_counted: bool
    outcome: gevent.Greenlet  # returns (known, refused)


class Importer:
    """`sink` is None for a dry run without MongoDB; `is_dry_run` reads, compares and counts, and writes nothing. `note` is called with
    the new events that are added to the statistics, `report` with sentences for the operator. Rejected lines go to the folder
    `rejects`, or beside their file; those of a stream to `stdin_rejects`."""

    def __init__(
        self,
        sink: MongoSink | None,
        progress: Progress,
        *,
        concurrency: int,
        reader: LineReader,
        note: Callable[[list[StoredEvent]], None],
        is_counting: bool = True,
        is_dry_run: bool = False,
        rejects: Path | None = None,
        stdin_rejects: Path = Path(),
        report: Callable[[str], None] = lambda _: None,
    ):
        self._sink = sink
        self._progress = progress
        self._reader = reader
        self._note = note
        self._is_counting = is_counting
        self._concurrency = concurrency
        self._is_dry_run = is_dry_run
        self._rejects = rejects
        self._stdin_rejects = stdin_rejects
        self._report = report
        self._saved_at = time.monotonic()
        self._collection_id = ""
        self._done: Counter[str] = Counter()
        self.rejected_to: dict[Source, Path] = {}  # the files of the lines that this run rejected
        self.damaged: dict[str, str] = {}  # by the shown name of the source: why it is not whole

    def run(self, sources: list[Source], advance: Callable[[int], None]) -> dict[str, int]:
        """Return the numbers of this run by the names in COUNTS. `advance` is called with the bytes of each chunk that is done.
        Raises StorageUnavailable and OSError; the same call continues from there."""
        under_way: deque[Work] = deque()
        try:
            for source in sources:
                for work in self._chunks(source, advance):
                    under_way.append(work)
                    if len(under_way) >= self._concurrency:
                        advance(self._settle(under_way.popleft()))
            while under_way:
                advance(self._settle(under_way.popleft()))
        finally:
            gevent.killall([work.outcome for work in under_way])
            if not self._is_dry_run:
                self._progress.save()
        return {name: self._done[name] for name in COUNTS}

    def _chunks(self, source: Source, advance: Callable[[int], None]) -> Iterator[Work]:
        with source.open() as opened:
            start, prefix = self._start(source, opened)
            rejected = RejectedFile(source.path, self._rejects or (self._stdin_rejects if source.is_stream else None))
            is_counted = self._is_counting and not source.is_of_a_spool
            advance(start)
            put, read, inode = self._compare if self._is_dry_run else self._put, start, opened.inode
            for chunk in self._read(source, opened, start):
                digest = prefix.at(opened.raw.fileno(), chunk.end) if opened.can_resume else ""
                now_read = chunk.end if opened.can_resume else opened.read_so_far()
                yield Work(source, inode, now_read - read, chunk, digest, rejected, is_counted, gevent.spawn(put, chunk, is_counted))
                read = now_read
            if opened.trouble:
                self.damaged[source.shown] = opened.trouble

    def _read(self, source: Source, opened: OpenSource, start: int) -> Iterator[Chunk]:
        pieces: list[Piece] = []
        name = opened.name or source.name
        for piece in opened.pieces(start):
            pieces.append(piece)
            if len(pieces) >= LINES_A_CHUNK or piece.end - pieces[0].start >= MAX_CHUNK_BYTES:
                yield self._chunk(pieces, name)
                pieces = []
        if pieces:
            yield self._chunk(pieces, name)

    def _chunk(self, pieces: list[Piece], name: bytes) -> Chunk:
        events, unusable = [], []
        for piece in pieces:
            if not piece.text.strip():
                continue
            for line, found in self._reader.read(piece.text, name, piece.start):
                if isinstance(found, StoredEvent):
                    events.append((line, found))
                else:
                    unusable.append((line, str(found)))
        return chunk_of(events, unusable, pieces[-1].end, TimeSlice.of_loop_iteration())

    def _start(self, source: Source, opened: OpenSource) -> tuple[int, PrefixDigest]:
        """Return the noted offset, or 0 where the file or the collection is another one than when it was noted."""
        done, prefix = self._progress.done(source.path), PrefixDigest()
        if done is None or not opened.can_resume:
            return 0, prefix
        if prefix.at(opened.raw.fileno(), done.offset) != done.digest:
            self._report(f"{source.shown} is not the file that was interrupted: it is imported from its beginning.")
        elif not self._sink.holds(done.collection, done.witness):
            self._report(f"MongoDB has lost what was imported of {source.shown}: it is imported from its beginning.")
        else:
            return done.offset, prefix
        self._progress.forget(source.path)
        return 0, PrefixDigest()

    def _settle(self, work: Work) -> int:
        """Wait for the chunk, note it, and return its bytes."""
        known, refused = work.outcome.get()
        unusable = work.chunk.unusable + [(work.chunk.lines[index], reason) for index, reason in sorted(refused.items())]
        if not self._is_dry_run:
            work.rejected.add(unusable)
            if unusable:
                self.rejected_to[work.source] = work.rejected.path
        new = len(work.chunk.lines) - known - len(refused)
        counts = {IMPORTED: new, COUNTED: new if work.is_counted else 0, KNOWN: known, REJECTED_LINES: len(unusable)}
        self._done.update(counts)
        if not self._is_dry_run:
            self._keep_progress(work, counts, sorted(refused))
        return work.read

    def _keep_progress(self, work: Work, counts: dict[str, int], refused: list[int]) -> None:
        for name, more in counts.items():
            self._progress.count(name, more)
        if work.digest:
            self._collection_id = self._collection_id or self._sink.collection_id()
            stored = [event.id for index, event in enumerate(work.chunk.events) if index not in refused]
            before = self._progress.done(work.source.path)
            witness = stored[-1] if stored else before.witness if before else ""
            self._progress.note(work.source.path, work.inode, work.chunk.end, work.digest, self._collection_id, witness)
        if time.monotonic() - self._saved_at > SAVE_EVERY_S:
            self._progress.save()
            self._saved_at = time.monotonic()

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
            except StorageUnavailable:
                wait_s = next(waits, None)
                if wait_s is None:
                    raise
                gevent.sleep(wait_s)

    def _compare(self, chunk: Chunk, is_counted: bool) -> tuple[int, dict[int, str]]:
        ids = [event.id for event in chunk.events]
        return (self._sink.known(ids) if ids and self._sink is not None else 0), {}
