"""One JSON file under DATA_DIR that several processes change and a person may edit while they run.

A change reads the file anew under a lock and replaces the whole of it, so that nobody loses what another one wrote and a
crash leaves the old file or the new one. A file that cannot be read, because somebody is in the middle of editing it,
is never written over: that is for the caller, who reads before it writes.
"""

import codecs
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from app.errors import ApiError
from app.storage import disk
from app.storage.disk import private, sync_folder
from app.storage.errors import StorageUnavailable

LOCK_PATIENCE_S = 5.0
LOCK_POLL_S = 0.01
MAX_FILE_BYTES = 16 * 1024 * 1024  # more is no file for hands; neither read nor written


class JsonFile:
    """Every method may raise StorageUnavailable."""

    def __init__(self, path: Path):
        self._path = Path(os.path.realpath(path))  # a link stays a link: what it points to is replaced
        self.name = self._path.name

    def read(self) -> tuple[bytes, int] | None:
        """The bytes, and when they were written in epoch milliseconds; None where there is no file."""
        try:
            with open(self._path, "rb") as file:
                stat = os.fstat(file.fileno())
                if stat.st_size > MAX_FILE_BYTES:
                    raise self.unusable(f"{self.name} has more than {MAX_FILE_BYTES} bytes")
                return file.read(), stat.st_mtime_ns // 1_000_000
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._cannot("be read", error) from None

    def parse(self, content: bytes) -> Any:
        try:
            return orjson.loads(content.removeprefix(codecs.BOM_UTF8))
        except orjson.JSONDecodeError as error:
            raise self.unusable(f"{self.name} is not JSON: {error}") from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Waits for another process in small steps, so that one which is stuck costs a 503 and not a stuck server."""
        try:
            lock = open(f"{self._path}.lock", "ab", opener=private)  # noqa: SIM115 - closed below, which gives the lock back
        except OSError as error:
            raise self._cannot("be locked", error) from None
        with lock:
            deadline = time.monotonic() + LOCK_PATIENCE_S
            while not self._is_held(lock):
                if time.monotonic() > deadline:
                    raise self.unusable(f"{self.name} is locked by another process")
                time.sleep(LOCK_POLL_S)
            yield

    def write(self, document: Any) -> None:
        """Durable when it returns. Only under the lock. Raises limit_exceeded for what `read` would refuse afterwards."""
        content = self._fitting(document)
        unfinished = self._path.with_name(f"{self.name}.tmp")  # one name: the lock is held, and a crash leaves no litter
        try:
            with open(unfinished, "wb", opener=private) as file:
                if self._path.exists():
                    os.fchmod(file.fileno(), self._path.stat().st_mode & 0o777)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, self._path)
            sync_folder(self._path.parent)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            raise self._cannot("be written", error) from None

    def _fitting(self, document: Any) -> bytes:
        """With line breaks for hands, without them where they would take it over the limit: a hand may not have made any."""
        for layout in (orjson.OPT_INDENT_2, 0):
            content = orjson.dumps(document, option=layout | orjson.OPT_APPEND_NEWLINE)
            if len(content) <= MAX_FILE_BYTES:
                return content
        raise ApiError("limit_exceeded", f"{self.name} would have more than {MAX_FILE_BYTES} bytes.")

    def _is_held(self, lock) -> bool:
        try:
            return disk.lock(lock.fileno())
        except OSError as error:
            raise self._cannot("be locked", error) from None

    def unusable(self, reason: str) -> StorageUnavailable:
        """Return the error for a file that cannot be used; clients read the reason, too, since it names no folder."""
        return StorageUnavailable(reason, message=f"A file of the server cannot be used: {reason}")

    def _cannot(self, what: str, error: OSError) -> StorageUnavailable:
        return self.unusable(f"{self.name} cannot {what}: {error.strerror}")
