"""Brings files of events into MongoDB on request, and leaves the files as they are.

Several chunks are under way at once; they are counted off in their order, so that the progress, by which an interrupted import
goes on instead of beginning at the beginning, never passes a chunk that was not acknowledged. Whether that progress still holds
for a file is decided when it is opened (see spool/progress.py).

Events that are new there are counted in the statistics, but for those that a server wrote to its spool: it counted them
when it took them, and its numbers have a way of their own.
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
from app.telemetry.importing.line_reader import LineReader
from app.telemetry.importing.source import OpenSource, Piece, Source
from app.telemetry.sinks.mongo import Inserted, MongoSink
from app.telemetry.spool.chunks import MAX_CHUNK_BYTES, Chunk, chunk_of
from app.telemetry.spool.progress import PrefixDigest, Progress

LINES_A_CHUNK = 500
TIMEOUT_S = 30.0
WAITS_S = (0.5, 1, 2, 4, 8)  # between attempts, when MongoDB stops answering in the middle
SAVE_EVERY_S = 0.5
IMPORTED, COUNTED, KNOWN, REJECTED_LINES = "imported", "counted", "known", "rejected"
COUNTS = (IMPORTED, COUNTED, KNOWN, REJECTED_LINES)


class Work(NamedTuple):
    """One chunk of a file; `digest` is of the bytes before its end, empty where reading cannot go on from there."""

    source: Source
    inode: int
    read: int  # bytes on disk since the last one
    chunk: Chunk
    digest: str
    rejected: RejectedFile
    is_counted: bool
    outcome: gevent.Greenlet  # gives (known, refused)


class Importer:
    """`is_rehearsal` reads, compares (where there is a sink) and counts, and writes nothing anywhere. `note` is told of the events
    that are new, of every file where `counts` is True, of none where it is False; None leaves out those of segments of a spool.
    `rejects` is the folder for lines that cannot be used, else each file's own. `say` is told what a person should know."""

    def __init__(
        self,
        sink: MongoSink | None,
        progress: Progress,
        *,
        concurrency: int,
        reader: LineReader,
        note: Callable[[list[StoredEvent]], None],
        counts: bool | None = None,
        is_rehearsal: bool = False,
        rejects: Path | None = None,
        stdin_rejects: Path = Path(),
        say: Callable[[str], None] = lambda _: None,
    ):
        self._sink = sink
        self._progress = progress
        self._reader = reader
        self._note = note
        self._counts = counts
        self._concurrency = concurrency
        self._is_rehearsal = is_rehearsal
        self._rejects = rejects
        self._stdin_rejects = stdin_rejects
        self._say = say
        self._saved_at = time.monotonic()
        self._collection_id = ""
        self._done: Counter[str] = Counter()
        self.rejected_to: dict[Source, Path] = {}  # where lines of this run were kept
        self.damaged: dict[str, str] = {}  # by the source as it is shown: what is wrong with it as a whole

    def run(self, sources: list[Source], advance: Callable[[int], None]) -> dict[str, int]:
        """How many lines were imported, how many of these were counted, how many were known already and how many rejected: by
        this run. `advance` is told of every byte that is done. Raises StorageUnavailable, OSError; then the same call goes on from
        there."""
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
            if not self._is_rehearsal:
                self._progress.save()
        return {name: self._done[name] for name in COUNTS}

    def _chunks(self, source: Source, advance: Callable[[int], None]) -> Iterator[Work]:
        with source.open() as opened:
            start, prefix = self._start(source, opened)
            rejected = RejectedFile(source.path, self._rejects or (self._stdin_rejects if source.is_stream else None))
            is_counted = not source.is_of_a_spool if self._counts is None else self._counts
            advance(start)
            put, read, inode = self._compare if self._is_rehearsal else self._put, start, opened.inode
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
        """Where to read on: at what was noted, if the file and the collection are still those that it was noted for."""
        done, prefix = self._progress.done(source.path), PrefixDigest()
        if done is None or not opened.can_resume:
            return 0, prefix
        if prefix.at(opened.raw.fileno(), done.offset) != done.digest:
            self._say(f"{source.shown} is another file than the one that was interrupted: it is imported from its beginning.")
        elif not self._sink.holds(done.collection, done.witness):
            self._say(f"MongoDB has lost what was imported of {source.shown}: it is imported from its beginning.")
        else:
            return done.offset, prefix
        self._progress.forget(source.path)
        return 0, PrefixDigest()

    def _settle(self, work: Work) -> int:
        """The bytes that are done, when it is."""
        known, refused = work.outcome.get()
        unusable = work.chunk.unusable + [(work.chunk.lines[index], reason) for index, reason in sorted(refused.items())]
        if not self._is_rehearsal:
            work.rejected.add(unusable)
            if unusable:
                self.rejected_to[work.source] = work.rejected.path
        new = len(work.chunk.lines) - known - len(refused)
        counts = {IMPORTED: new, COUNTED: new if work.is_counted else 0, KNOWN: known, REJECTED_LINES: len(unusable)}
        self._done.update(counts)
        if not self._is_rehearsal:
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
