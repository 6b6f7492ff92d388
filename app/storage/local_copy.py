"""What MongoDB last said of something small, kept under DATA_DIR for a process that starts while MongoDB is away.

It is written when something changed and touched when nothing did, so its time says until when it was known to be true.
Several workers share it: each compares what it has read with what stands there. Nothing depends on it while MongoDB
answers, so trouble with it is a warning and no more.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.errors import ApiError
from app.json_values import to_iso
from app.logs import get_logger
from app.storage.disk import make_folder
from app.storage.errors import StorageUnavailable
from app.storage.json_file import JsonFile

log = get_logger(__name__)


class LocalCopy:
    """`of` names the database, so that the copy of another one is not taken for this one's. `from_json` may raise anything
    for what `to_json` would not have made. `before` is recalled from where there is no copy yet."""

    def __init__(
        self,
        path: Path,
        of: str,
        to_json: Callable[[Any], Any],
        from_json: Callable[[Any], Any],
        before: Callable[[], tuple[Any, int] | None] = lambda: None,
    ):
        self._before = before
        self._path = path
        self._file = JsonFile(path)
        self._of = of
        self._to_json = to_json
        self._from_json = from_json
        self._kept: tuple[bytes | None, Any] = (None, None)  # the bytes that stood there last, and what they mean
        self._is_failing = False

    def keep(self, value: Any) -> None:
        """Durable when it returns, as far as the disk allows. Never raises."""
        try:
            self._bring_up_to_date({"of": self._of, "content": self._to_json(value)})
            self._is_failing = False
        except (ApiError, OSError) as error:
            if not self._is_failing:
                log.warning("local_copy_not_written", file=str(self._path), reason=str(error))
            self._is_failing = True

    def recall(self) -> tuple[Any, int] | None:
        """The value, and until when it was known to be true (epoch milliseconds); None where there is none that can be used."""
        try:
            found = self._file.read()
            recalled = self._before() if found is None else (self._understand(found[0]), found[1])
        except Exception as error:  # whatever somebody made of the file, the server starts without it
            log.warning("local_copy_ignored", file=str(self._path), reason=f"{type(error).__name__}: {str(error)[:200]}")
            return None
        if recalled:
            log.warning("local_copy_used", file=str(self._path), as_of=to_iso(recalled[1]))
        return recalled

    def _bring_up_to_date(self, document: dict[str, Any]) -> None:
        if (self._bytes(), document) != self._kept:
            make_folder(self._path.parent)
            with self._file.locked():
                if not self._says(document):
                    self._file.write(document)
                self._kept = (self._bytes(), document)
        os.utime(self._path)

    def _bytes(self) -> bytes | None:
        found = self._file.read()
        return found and found[0]

    def _says(self, document: dict[str, Any]) -> bool:
        try:
            content = self._bytes()
            return content is not None and self._file.parse(content) == document
        except StorageUnavailable:
            return False  # it is ours to write over, whatever became of it

    def _understand(self, content: bytes) -> Any:
        document = self._file.parse(content)
        if document["of"] != self._of:
            raise self._file.unusable(f"it is a copy of {document['of']}, and this is {self._of}")
        return self._from_json(document["content"])


class NoCopy:
    """For what is on this disk anyway."""

    def keep(self, value: Any) -> None:
        pass

    def recall(self) -> None:
        return None
