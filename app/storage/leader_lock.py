"""Work that one process does for all: whoever holds the lock. Others ask again, or say that it is being done."""

import os
from pathlib import Path

from app.storage.disk import open_lock
from app.storage.segments.segment import lock_alone


class LeaderLock:
    """A lock that the kernel takes from whoever dies. Two who hold it by mistake do some work twice and no harm."""

    def __init__(self, path: Path):
        self._path = path
        self._fd: int | None = None

    @property
    def is_held(self) -> bool:
        return self._fd is not None

    def acquire(self) -> bool:
        """Raises OSError."""
        fd = open_lock(self._path)
        try:
            if lock_alone(fd):
                self._fd = fd
        finally:
            if not self.is_held:
                os.close(fd)
        return self.is_held

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
