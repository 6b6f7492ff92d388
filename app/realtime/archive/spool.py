"""Stores the messages of durable topics in files, DATA_DIR/realtime/messages-….jsonl, until MongoDB accepts them.

Messages leave in the order in which they came. A file is deleted when all its messages have been moved and no process writes to it.
The topics and numbers in each file are remembered, so that a replay reads only the files that it needs.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from app.clock import Clock
from app.logs import get_logger
from app.realtime.archive.message_lines import decode, encode
from app.realtime.archive.mongo import Known
from app.realtime.log import Message
from app.serving.fairness import TimeSlice
from app.storage.disk import make_folder
from app.storage.leader_lock import LeaderLock
from app.storage.segments.rejected import RejectedFile
from app.storage.segments.segment import lines_from, lock_to_read, segments, size_of, whole_lines
from app.storage.segments.writer import SegmentWriter

log = get_logger(__name__)

KIND = "messages"
SEGMENT_BYTES = 1_048_576  # small, since a replay reads a whole segment
LONGEST_LINE_BYTES = 16_777_216  # the limit of a MongoDB document
UNUSED_S = 1.0


class Chunk(NamedTuple):
    """The messages to move next: those of a file up to the offset `end`."""

    path: Path
    messages: list[Message]
    end: int


class _Places(NamedTuple):
    """(topic, epoch) -> (first, last) of a file that had this size."""

    size: int
    spans: dict[tuple[str, str], tuple[int, int]]


class MessageSpool:
    """The spool of one process. Several processes may share its folder; one of them moves the messages."""

    def __init__(self, folder: Path, max_bytes: int, clock: Clock):
        self.folder = self._folder = folder
        self._writer = SegmentWriter(folder, KIND, "RT_DURABLE_SPOOL_BYTES", max_bytes=max_bytes, segment_bytes=SEGMENT_BYTES, clock=clock)
        self._lock = LeaderLock(folder / ".drainer.lock")
        self._moved: dict[Path, int] = {}  # how far; after a restart a file is moved again, which changes nothing
        self._places: dict[Path, _Places] = {}

    def is_empty(self) -> bool:
        return not segments(self._folder, KIND)

    def waiting_bytes(self) -> int:
        """Return the bytes that all processes of this data directory still have to move."""
        return sum(size_of(path) - self._moved.get(path, 0) for path in segments(self._folder, KIND))

    def append(self, messages: list[Message]) -> None:
        """They are durable when it returns. Raises StorageUnavailable."""
        self._writer.append(b"".join(encode(message) for message in messages))

    def next_chunk(self, limit: int) -> Chunk | None:
        """From the oldest file that has more; None where nothing is to be moved, or another process does it. A file that we write
        to ourselves ends here when all of it was moved. Raises OSError."""
        if not self._lock.is_held and not self._acquire_lock():
            self._writer.close_unused(UNUSED_S)  # so that the other one can be done with it
            return None
        chunk = self._first_chunk(limit)
        if chunk is None:
            self._writer.close()
            chunk = self._first_chunk(limit)
        return chunk

    def _first_chunk(self, limit: int) -> Chunk | None:
        for path in segments(self._folder, KIND):
            with suppress(FileNotFoundError), open(path, "rb") as file:
                is_complete = lock_to_read(file.fileno())
                chunk = self._read(file, path, is_complete, limit)
                if chunk.messages:
                    return chunk
                if is_complete:
                    self._drop(path)
        return None

    def moved(self, chunk: Chunk) -> None:
        self._moved[chunk.path] = chunk.end

    def close(self) -> None:
        """Another process may move what is here."""
        self._writer.close()
        self._lock.release()

    def find(self, topic: str, epoch: str, after: int, last: int | None = None) -> dict[int, Message]:
        """By seq: those with `after` < seq <= `last`. Yields by the fair turn."""
        found: dict[int, Message] = {}
        for path in segments(self._folder, KIND):
            if self._may_hold(path, topic, epoch, after, last):
                for message in self._scan(path):
                    if (message.topic, message.epoch) == (topic, epoch) and message.seq > after and (last is None or message.seq <= last):
                        found[message.seq] = message
        return found

    def newest(self, limit: int) -> list[Known]:
        """About as many of the messages published last, oldest first; whole files are read."""
        found: list[Known] = []
        for path in reversed(segments(self._folder, KIND)):
            if len(found) >= limit:
                break
            found = [Known(each.topic, each.epoch, each.seq, each.id, each.user) for each in self._scan(path)] + found
        return found

    def _acquire_lock(self) -> bool:
        make_folder(self._folder)
        return self._lock.acquire()

    def _read(self, file: BinaryIO, path: Path, is_complete: bool, limit: int) -> Chunk:
        chunk = Chunk(path, [], self._moved.get(path, 0))
        for end, line in lines_from(file, chunk.end, is_complete=is_complete, longest=LONGEST_LINE_BYTES):
            chunk = chunk._replace(end=end)
            try:
                chunk.messages.append(decode(line))
            except ValueError as error:
                log.error("archive_line_rejected", file=str(path), error=str(error)[:200])
                RejectedFile(path).add([(line, str(error))])
            if len(chunk.messages) >= limit:
                break
        return chunk

    def _drop(self, path: Path) -> None:
        os.unlink(path)
        self._moved.pop(path, None)
        self._places.pop(path, None)

    def _may_hold(self, path: Path, topic: str, epoch: str, after: int, last: int | None) -> bool:
        places = self._places.get(path)
        if places is None or places.size != size_of(path):
            return True
        first_there, last_there = places.spans.get((topic, epoch), (0, 0))
        return last_there > after and (last is None or first_there <= last)

    def _scan(self, path: Path):
        size, spans, time_slice = 0, {}, TimeSlice.of_loop_iteration()
        for line in whole_lines(path):
            size += len(line)
            time_slice.yield_if_over()
            with suppress(ValueError):
                message = decode(line)
                first, _ = spans.get(key := (message.topic, message.epoch), (message.seq, 0))
                spans[key] = (first, message.seq)
                yield message
        self._places[path] = _Places(size, spans)
