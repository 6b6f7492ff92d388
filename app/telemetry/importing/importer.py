"""Imports the events of files, and leaves the files as they are.

Several chunks are under way at once. They are acknowledged in the order of the file, so that a checkpoint never passes a chunk that
MongoDB has not acknowledged. New events are added to the statistics, except those of a spool: the server that wrote it counted them when
it accepted them.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import gevent

from app.serving.fairness import TimeSlice
from app.storage.segments.rejected import RejectedFile
from app.telemetry.event import StoredEvent
from app.telemetry.importing.checkpoints import Checkpoints
from app.telemetry.importing.destination import Destination
from app.telemetry.importing.json_pieces import Piece
from app.telemetry.importing.line_reader import LineReader
from app.telemetry.importing.source import OpenSource, Source
from app.telemetry.spool.chunks import MAX_CHUNK_BYTES, Chunk, chunk_of
from app.telemetry.spool.progress import PrefixDigest

LINES_A_CHUNK = 500
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
    outcome: gevent.Greenlet  # returns an Outcome


class Importer:
    """`checkpoints` is None for a dry run: then no file is written. Rejected lines go to the folder `rejects`, or beside their file;
    those of a stream to `stdin_rejects`."""

    def __init__(
        self,
        destination: Destination,
        checkpoints: Checkpoints | None,
        reader: LineReader,
        *,
        concurrency: int,
        is_counting: bool = True,
        rejects: Path | None = None,
        stdin_rejects: Path = Path(),
    ):
        self._destination = destination
        self._checkpoints = checkpoints
        self._reader = reader
        self._concurrency = concurrency
        self._is_counting = is_counting
        self._rejects = rejects
        self._stdin_rejects = stdin_rejects
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
            if self._checkpoints is not None:
                self._checkpoints.save()
        return {name: self._done[name] for name in COUNTS}

    def _chunks(self, source: Source, advance: Callable[[int], None]) -> Iterator[Work]:
        with source.open() as opened:
            start, prefix = (0, PrefixDigest()) if self._checkpoints is None else self._checkpoints.start(source, opened)
            rejected = RejectedFile(source.path, self._rejects or (self._stdin_rejects if source.is_stream else None))
            is_counted = self._is_counting and not source.is_of_a_spool
            advance(start)
            read, inode = start, opened.inode
            for chunk in self._read(source, opened, start):
                digest = opened.digest(prefix, chunk.end)
                now_read = chunk.end if opened.can_resume else opened.read_so_far()
                outcome = gevent.spawn(self._destination.put, chunk, is_counted)
                yield Work(source, inode, now_read - read, chunk, digest, rejected, is_counted, outcome)
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

    def _settle(self, work: Work) -> int:
        """Wait for the chunk, note it, and return its bytes."""
        known, refused = work.outcome.get()
        unusable = work.chunk.unusable + [(work.chunk.lines[index], reason) for index, reason in sorted(refused.items())]
        new = len(work.chunk.lines) - known - len(refused)
        counts = {IMPORTED: new, COUNTED: new if work.is_counted else 0, KNOWN: known, REJECTED_LINES: len(unusable)}
        if self._checkpoints is not None:
            work.rejected.add(unusable)
            if unusable:
                self.rejected_to[work.source] = work.rejected.path
            if work.digest:
                self._checkpoints.note(work.source, work.inode, work.digest, work.chunk, refused)
            self._checkpoints.count(counts)
        self._done.update(counts)
        return work.read
