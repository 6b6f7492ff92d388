"""Makes lines durable, many callers with one fsync.

The promises: (1) when `append` returns, its bytes are fsynced in a file whose directory entry is fsynced; (2) when it
raises, what was written of them is cut off again, or stands as a torn last line that readers pass over; (3) the folder
never grows past `max_bytes`.

The sync runs in a thread, so that a slow disk holds up nobody who does not wait for it.
"""

import errno
import fcntl
import os
from pathlib import Path

import gevent

from app.clock import system_clock
from app.telemetry.group_commit import GroupCommit
from app.telemetry.sinks import SinkFull, SinkUnavailable
from app.telemetry.spool.segment import new_name, segments, size_of

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class SegmentWriter:
    def __init__(self, folder: Path, *, max_bytes: int, segment_bytes: int, clock=system_clock, sync=os.fsync):
        self._folder = folder
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        self._clock = clock
        self._sync = sync
        self._commits = GroupCommit(self._commit, lanes=1, enough=segment_bytes)
        self._fd: int | None = None
        self._size = 0
        self.folder_bytes = 0
        self.last_error: str | None = None

    def append(self, lines: bytes) -> None:
        """Raises SinkFull where there is no room, SinkUnavailable for any other trouble with the disk."""
        self._commits.submit(lines, len(lines))

    def measure(self) -> None:
        """Look again at how much lies in the folder: other processes write there and remove from it, too."""
        self.folder_bytes = sum(size_of(path) for path in segments(self._folder))

    def close(self) -> None:
        """Ends the current segment; the next append begins another."""
        with self._commits.pause():
            self._close()

    def _commit(self, chunks: list[bytes]) -> list[None]:
        data = b"".join(chunks)
        try:
            self._make_room(len(data))
            self._write(data)
        except SinkFull as error:
            self.last_error = str(error)
            raise
        except OSError as error:
            self.last_error = f"{self._folder}: {error.strerror}"
            raise (SinkFull if error.errno in NO_ROOM else SinkUnavailable)(self.last_error) from error
        self.last_error = None
        return [None] * len(chunks)

    def _make_room(self, length: int) -> None:
        if self.folder_bytes + length > self._max_bytes:
            self.measure()
        if self.folder_bytes + length > self._max_bytes:
            raise SinkFull(f"{self._folder}: {self.folder_bytes} of {self._max_bytes} bytes are used (SPOOL_MAX_BYTES)")
        if self._fd is not None and self._size + length > self._segment_bytes and self._size > 0:
            self._close()
        if self._fd is None:
            self._open()

    def _write(self, data: bytes) -> None:
        try:
            remaining = memoryview(data)
            while remaining:
                remaining = remaining[os.write(self._fd, remaining) :]
            gevent.get_hub().threadpool.apply(self._sync, (self._fd,))
        except OSError:
            self._take_back()
            raise
        self._size += len(data)
        self.folder_bytes += len(data)

    def _take_back(self) -> None:
        """After a failed sync nobody knows what is on disk; so this segment ends here, at its last good byte."""
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            pass  # then a torn or unanswered line stays, which readers pass over or find by its _id
        finally:
            self._close()

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / new_name(self._clock())
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o640)
        self._size = 0
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # while it is held, others know that a writer lives
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
