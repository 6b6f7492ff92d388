"""Makes lines durable, many callers with one fsync.

The promises: (1) when `append` returns, its bytes are fsynced in a file whose directory entry is fsynced, and which was
still there after the sync; (2) when it raises, what was written of them is cut off again, or stands as a torn last line
that readers pass over; (3) the folder does not grow past `max_bytes` by more than `max_bytes`/64, or one commit where that
is more, for each other process that writes there: each measures again before it has itself added so much.

The sync runs in a thread, so that a slow disk holds up nobody who does not wait for it.
"""

import errno
import os
import time
from contextlib import suppress
from pathlib import Path

from app.clock import system_clock
from app.serving.fairness import TimeSlice
from app.storage.disk import make_folder, private, sync_folder
from app.storage.errors import StorageUnavailable
from app.storage.group_commit import GroupCommit, Interrupted
from app.storage.segments.segment import lock_alone, new_name, segments, size_of
from app.storage.thread_pool import in_thread

PROBE_BYTES = 65_536
MEASURED_FOR_S = 1.0
UNMEASURED_SHARE = 64
BYTES_A_WRITE = 262_144  # then others have their turn: a group may have many megabytes
ATTEMPTS = 3  # at a segment that nobody deletes while it is written
MEASURING_SHARE = 100  # measuring thousands of files is done rarely enough to stay below a hundredth of the time

# The data and the size that finds it, without the times of the file; macOS has only the whole.
DATA_SYNC = getattr(os, "fdatasync", os.fsync)


class SegmentWriter:
    """`kind` is how its files are called, `limit` the setting that `max_bytes` comes from, for the sentence that says it is reached."""

    def __init__(self, folder: Path, kind: str, limit: str, *, max_bytes: int, segment_bytes: int, clock=system_clock, sync=DATA_SYNC):
        self._folder = folder
        self._kind = kind
        self._limit = limit
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        self._clock = clock
        self._sync = sync
        self._commits = GroupCommit(self._commit, lanes=1, enough=segment_bytes)
        self._fd: int | None = None
        self._path: Path | None = None
        self._size = 0
        self._unmeasured = 0  # bytes that were added since the folder was measured
        self._lacked = 0  # bytes for which there was no room within the limit
        self._used_at = self._measured_until = 0.0  # monotonic seconds
        self.folder_bytes = 0
        self.last_error: str | None = None

    def append(self, lines: bytes) -> Path:
        """Return the segment that holds them. Raises StorageUnavailable where the disk or the limit has no room, or the disk fails."""
        try:
            return self._commits.submit(lines, len(lines))
        except Interrupted as error:
            raise _refusal(f"{self._folder}: {error}") from error

    def measure(self) -> None:
        """Look again at how much lies in the folder: other processes write there and remove from it, too."""
        started = time.monotonic()
        self.folder_bytes = sum(size_of(path) for path in segments(self._folder, self._kind))
        took = time.monotonic() - started
        self._unmeasured = 0
        self._measured_until = started + max(MEASURED_FOR_S, MEASURING_SHARE * took)

    def close(self) -> None:
        """Ends the current segment; the next append begins another."""
        with self._commits.pause():
            self._close()

    @property
    def lacks_room(self) -> bool:
        """True while what was refused last would be refused again."""
        return self._lacked > 0 and self.folder_bytes + self._lacked > self._max_bytes

    def close_unused(self, for_s: float) -> None:
        """The same where nothing was appended for so long."""
        if self._fd is not None and time.monotonic() - self._used_at >= for_s:
            self.close()

    def try_again(self) -> None:
        """At the start and after trouble: see whether the disk takes something, and forget the trouble if it does."""
        probe = self._folder / f".probe-{os.getpid()}"
        try:
            make_folder(self._folder)
            fd = private(probe, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            try:
                lock_alone(fd)
                os.write(fd, bytes(PROBE_BYTES))
                self._sync_in_a_thread(fd)
            finally:
                os.close(fd)
            self.last_error = None
        except OSError as error:
            self.last_error = f"{self._folder}: {error.strerror}"
        finally:
            with suppress(OSError):
                probe.unlink()

    def _commit(self, chunks: list[bytes]) -> list[Path]:
        data = b"".join(chunks)
        try:
            self._make_room(len(data))
            self._write(data)
        except OSError as error:
            self.last_error = f"{self._folder}: {error.strerror}"
            raise _refusal(self.last_error) from error
        self.last_error, self._lacked = None, 0
        return [self._path] * len(chunks)

    def _make_room(self, length: int) -> None:
        if self._fd is not None and (self._size + length > self._segment_bytes or not _is_at(self._path, self._fd)):
            self._close()
        if self._must_measure(length):
            self.measure()
        if self.folder_bytes + length > self._max_bytes:
            self._lacked = length
            raise _refusal(f"{self._folder}: {self.folder_bytes} of {self._max_bytes} bytes are used ({self._limit})")

    def _must_measure(self, length: int) -> bool:
        """Often enough to keep the limit together with others who write there, and before saying that it is reached."""
        return (
            self._fd is None
            or self._unmeasured + length > self._max_bytes // UNMEASURED_SHARE
            or self.folder_bytes + length > self._max_bytes
            or time.monotonic() > self._measured_until
        )

    def _write(self, data: bytes) -> None:
        """Again, into a new segment, where this one was deleted meanwhile."""
        for _ in range(ATTEMPTS):
            if self._fd is None:
                self._open()
            if self._put(data):
                break
            self._close()
        else:
            raise OSError(errno.ESTALE, "the segments are deleted while they are written")
        self._size += len(data)
        self.folder_bytes += len(data)
        self._unmeasured += len(data)
        self._used_at = time.monotonic()

    def _put(self, data: bytes) -> bool:
        """Durable in the segment when it returns; False where that is not in the folder any more."""
        try:
            remaining, time_slice = memoryview(data), TimeSlice()
            while remaining:
                remaining = remaining[os.write(self._fd, remaining[:BYTES_A_WRITE]) :]
                time_slice.yield_if_over()
            self._sync_in_a_thread(self._fd)
            return _is_at(self._path, self._fd)
        except OSError:
            self._take_back()
            raise
        except BaseException:
            self._close()  # killed in the middle: what was written stays, and no later failure may cut behind it
            raise

    def _sync_in_a_thread(self, fd: int) -> None:
        in_thread(self._sync, fd)

    def _take_back(self) -> None:
        """After a failed sync nobody knows what is on disk; so this segment ends here, at its last good byte."""
        try:
            os.ftruncate(self._fd, self._size)
            if self._size == 0:
                self._path.unlink()  # or a full disk would gather an empty file for every request
        except OSError:
            pass  # then a torn or unanswered line stays, which readers pass over or find by its _id
        finally:
            self._close()

    def _open(self) -> None:
        """The file gets its name only when it is locked: nobody can find it and take it for one whose writer is gone."""
        make_folder(self._folder)
        path = self._folder / new_name(self._kind, self._clock())
        nameless = path.with_name(f".{path.name}")
        fd = private(nameless, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
        try:
            lock_alone(fd)
            nameless.rename(path)
            sync_folder(self._folder)
        except BaseException:
            os.close(fd)
            nameless.unlink(missing_ok=True)
            raise
        self._fd, self._path, self._size, self._used_at = fd, path, 0, time.monotonic()

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _refusal(reason: str) -> StorageUnavailable:
    return StorageUnavailable(reason, code="storage_full")


def _is_at(path: Path, fd: int) -> bool:
    """False where somebody emptied the folder, or put another in its place, under us: what is written to a file without a
    name is lost with this process."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False
