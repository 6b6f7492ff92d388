"""Work that one process does for all: whoever holds the lock. Others ask again, or say that it is being done."""

from pathlib import Path
from typing import BinaryIO

from app.disk import private
from app.spool.segment import lock_alone


class Duty:
    """A lock that the kernel takes from whoever dies. Two who hold it by mistake do some work twice and no harm."""

    def __init__(self, path: Path):
        self._path = path
        self._file: BinaryIO | None = None

    @property
    def is_ours(self) -> bool:
        return self._file is not None

    def take(self) -> bool:
        """Raises OSError."""
        file = open(self._path, "ab", opener=private)  # noqa: SIM115 - it stays open for as long as the duty lasts
        try:
            if lock_alone(file.fileno()):
                self._file = file
        finally:
            if not self.is_ours:
                file.close()
        return self.is_ours

    def end(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
