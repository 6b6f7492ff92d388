"""Lines that cannot become events, kept beside the file they stood in: `<file>.rejected`, a JSON object `{line, reason}` each.

Nothing is thrown away because we could not read it, and nothing waits behind it either. A line that is there already
is not added again, so that work which is done twice after a crash leaves one copy.
"""

import errno
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

import gevent

from app.storage.disk import private, sync_folder
from app.storage.segments.segment import lock_alone

REJECTED = ".rejected"
LOCK_PATIENCE_S = 5.0
LOCK_POLL_S = 0.005


class RejectedFile:
    """The one beside `path`, or in `folder`; made with its first line.

    Invariant: a process changes the file only while it holds the file's lock, and while the file has its name in the folder. Under
    the lock it first cuts off a last row without a newline, which a crash left, and reads the rows of other processes. So no
    process cuts into a row that another one writes, and every row that `add` has returned for stays.
    """

    def __init__(self, path: Path, folder: Path | None = None):
        self.path = (folder or path.parent) / (path.name + REJECTED)
        self._seen: set[bytes] = set()
        self._read_of: tuple[int, int] = (0, 0)  # inode, and how many bytes of it

    def add(self, lines: list[tuple[bytes, str]]) -> int:
        """Durable when it returns; how many of them are new. Raises OSError."""
        if not lines:
            return 0
        with self._locked() as file:
            self._catch_up(file)
            fresh = {key: row for key, row in ((_key(line), _row(line, reason)) for line, reason in lines) if key not in self._seen}
            if fresh:
                is_new = file.tell() == 0
                file.write(b"".join(fresh.values()))
                file.flush()
                os.fsync(file.fileno())
                if is_new:
                    sync_folder(self.path.parent)
                self._seen.update(fresh)
                self._read_of = (self._read_of[0], file.tell())
        return len(fresh)

    def without(self, lines: list[bytes]) -> list[bytes]:
        """Those that are not in it. Raises OSError."""
        if not self.path.exists():
            return lines
        with self._locked() as file:
            self._catch_up(file)
        return [line for line in lines if _key(line) not in self._seen]

    def _catch_up(self, file: BinaryIO) -> None:
        """Leaves the file at its end, which is the end of a row."""
        inode, read = self._read_of
        found = os.fstat(file.fileno())
        if found.st_ino != inode or found.st_size < read:
            self._seen, read = set(), 0
        file.seek(read)
        text = file.read()
        rows = text[: text.rfind(b"\n") + 1]
        if len(rows) < len(text):
            file.truncate(read + len(rows))
        file.seek(read + len(rows))
        self._seen.update(_key(line) for line in map(_line_of, rows.splitlines()) if line is not None)
        self._read_of = (found.st_ino, read + len(rows))

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        deadline = time.monotonic() + LOCK_PATIENCE_S
        while True:
            with open(private(self.path, os.O_RDWR | os.O_CREAT), "rb+") as file:
                if lock_alone(file.fileno()) and _is_at(self.path, file):
                    yield file
                    return
            if time.monotonic() > deadline:
                raise OSError(errno.EAGAIN, f"{self.path.name} is locked by another process")
            gevent.sleep(LOCK_POLL_S)


def _is_at(path: Path, file: BinaryIO) -> bool:
    """False where another process has removed it since it was opened."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _row(line: bytes, reason: str) -> bytes:
    """Bytes that are no UTF-8 become lone surrogates, as Python itself writes them, and come back from there."""
    text = line.rstrip(b"\n").decode("utf-8", "surrogateescape")
    return json.dumps({"line": text, "reason": reason}).encode() + b"\n"


def _line_of(row: bytes) -> bytes | None:
    """As it stood in the file; None where somebody edited the row beyond recognition."""
    try:
        return json.loads(row)["line"].encode("utf-8", "surrogateescape")
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def _key(line: bytes) -> bytes:
    return blake2b(line.rstrip(b"\n"), digest_size=16).digest()
