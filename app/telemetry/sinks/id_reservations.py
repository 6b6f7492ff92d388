"""The ids that any process of a data directory has reserved, so that an event which several workers get at once counts once.

    DATA_DIR/spool/.ids     one record for each id: `+` reserves it, `-` gives it back

Invariant: of all processes that reserve an id, exactly one is told that it is free, until it gives the id back. It holds because
a process reads what the others have appended and appends its own records under one lock (`.ids.lock`), without yielding.

A reservation is no promise that the event is durable: its process may die before. So the others write a copy of the event, too,
before they answer; a copy is neither counted nor read twice. The file is not synced: it only concerns processes that live. The
first one that opens it while no other has it open empties it; where it grows too large a new file takes its place.
"""

import fcntl
import os
import time
from collections.abc import Collection, Sequence
from pathlib import Path

import gevent

from app.logs import get_logger
from app.storage.disk import make_folder, open_lock, private
from app.storage.segments.segment import lock_alone, lock_to_read
from app.telemetry.batch import KNOWN_ID_CHARS
from app.telemetry.sinks.recent_ids import RecentIds

log = get_logger(__name__)

RECORD = 1 + KNOWN_ID_CHARS
PATIENCE_S = 1.0
POLL_S = 0.001


class IdReservations:
    """`size` ids are remembered at least. Trouble with the disk costs the exact count of an event that several processes get at
    once, and nothing else."""

    def __init__(self, folder: Path, size: int):
        self._path, self._lock_path = folder / ".ids", folder / ".ids.lock"
        self._max_bytes = 2 * RECORD * size
        self._taken = RecentIds(size)
        self._file = self._lock = -1
        self._read = 0  # so much of the file is known
        self._is_failing = False

    def reserve(self, ids: Sequence[str]) -> list[str]:
        """Those that another process has reserved; the others are ours."""
        if not self._begin_turn():
            return []
        try:
            taken = self._taken.among(ids)
            self._append("+", ids if not taken else set(ids).difference(taken))
            return taken
        except OSError as error:
            return self._failed(error)
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def give_back(self, ids: Collection[str]) -> None:
        """They were reserved and could not be written."""
        if ids and self._begin_turn():
            try:
                self._append("-", ids)
            except OSError as error:
                self._failed(error)
            finally:
                fcntl.flock(self._lock, fcntl.LOCK_UN)

    def close(self) -> None:
        for fd in (self._file, self._lock):
            if fd >= 0:
                os.close(fd)
        self._file = self._lock = -1

    def _begin_turn(self) -> bool:
        """True when the lock is ours and all that other processes have appended is known."""
        try:
            if self._lock < 0:
                make_folder(self._path.parent)
                self._lock = open_lock(self._lock_path)
            if not lock_alone(self._lock) and not self._waited_for_lock():
                return False
        except OSError as error:
            self._failed(error)
            return False
        try:
            self._catch_up()
            return True
        except OSError as error:
            self._failed(error)
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            return False

    def _waited_for_lock(self) -> bool:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            gevent.sleep(POLL_S)
            if lock_alone(self._lock):
                return True
        return False  # a process that was stopped holds it

    def _catch_up(self) -> None:
        if self._file < 0:
            self._open()
        found = os.fstat(self._file)
        if found.st_nlink == 0:
            os.close(self._file)
            self._open()
            found = os.fstat(self._file)
        if found.st_size > self._read:
            self._take_in(os.pread(self._file, found.st_size - self._read, self._read).decode("ascii", "replace"))
        if self._read > self._max_bytes:
            os.unlink(self._path)
            os.close(self._file)
            self._open()

    def _open(self) -> None:
        self._file, self._read = open_lock(self._path), 0
        if lock_alone(self._file):
            os.truncate(self._path, 0)
        lock_to_read(self._file)  # for as long as it is open

    def _take_in(self, text: str) -> None:
        whole = len(text) - len(text) % RECORD  # the rest was cut off by a full disk or a kill, and is written over
        for start in range(0, whole, RECORD):
            (self._taken.add if text[start] == "+" else self._taken.discard)((text[start + 1 : start + RECORD],))
        self._read += whole

    def _append(self, sign: str, ids: Collection[str]) -> None:
        if not ids:
            return
        records = (sign + sign.join(ids)).encode()
        if len(records) == RECORD * len(ids):  # else one of them was not made here
            written = self._write(records)
            self._read += written - written % RECORD

    def _write(self, records: bytes) -> int:
        """By a descriptor of its own, since one that is held for long can only read (`open_lock`). The name is that of `_file`: only
        the holder of the lock gives it to another file."""
        fd = private(self._path, os.O_WRONLY)
        try:
            return os.pwrite(fd, records, self._read)
        finally:
            os.close(fd)

    def _failed(self, error: OSError) -> list[str]:
        """Nothing is known of other processes."""
        if not self._is_failing:
            log.warning("ids_not_shared", file=str(self._path), error=error.strerror)
        self._is_failing = True
        return []
