"""A file in which a server kept something while it had no MongoDB: brought into MongoDB by the first start with one, once.

Only what MongoDB does not have is added, and then the file is renamed to NAME.moved. Workers take turns by the file's
lock; where MongoDB is away or the file cannot be understood it stays as it is, and is tried again.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.errors import ApiError
from app.logs import get_logger
from app.storage.disk import sync_folder
from app.storage.json_file import JsonFile

log = get_logger(__name__)
THERE_ALREADY = ("conflict", "precondition_failed")


class EmbeddedFile:
    """`read` gives what is in the file by its key, and `add` puts one of them into MongoDB where nothing has its key; both
    raise ApiError."""

    def __init__(self, path: Path, read: Callable[[], dict[str, Any]], add: Callable[[str, Any], None]):
        self._path = path
        self.name = path.name
        self._read = read
        self._add = add
        self._is_failing = False

    def recall(self) -> tuple[dict[str, Any], int] | None:
        """What waits in it, and when it was written (epoch milliseconds); None where nothing does. May raise."""
        if not self._path.exists():
            return None
        return self._read(), self._path.stat().st_mtime_ns // 1_000_000

    def move(self) -> None:
        """Never raises for what a disk, a hand or MongoDB may do to it."""
        if not self._path.exists():
            return
        try:
            with JsonFile(self._path).locked():
                if self._path.exists():  # else another worker was faster
                    self._move()
            self._is_failing = False
        except (ApiError, OSError) as error:
            if not self._is_failing:
                reason = error.summary if isinstance(error, ApiError) else str(error)
                log.warning("embedded_file_not_moved", file=str(self._path), reason=reason)
            self._is_failing = True

    def _move(self) -> None:
        there_already = [key for key, value in self._read().items() if not self._is_added(key, value)]
        moved = self._path.with_name(f"{self._path.name}.moved")
        self._path.rename(moved)
        sync_folder(self._path.parent)
        log.info("embedded_file_moved", file=str(moved), there_already=there_already)

    def _is_added(self, key: str, value: Any) -> bool:
        try:
            self._add(key, value)
        except ApiError as error:
            if error.code not in THERE_ALREADY:
                raise
            return False
        return True
