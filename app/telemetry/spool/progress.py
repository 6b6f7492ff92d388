"""How far files have been moved, remembered so that a restart does not begin anew.

It only ever says less than what is done: it is noted after the acknowledgement and written now and then, and what is
moved again is found by its `_id`. So it needs no fsync, only never to be half a file. An offset counts for the very file
(by its inode) and the very database it was noted for; in any doubt it is 0.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from app.disk import private
from app.logs import get_logger

log = get_logger(__name__)


class Progress:
    def __init__(self, path: Path, target: str):
        self._path = path
        self._target = target
        self._files: dict[str, list[int]] = {}
        self.state: dict[str, Any] = {}  # what else is to be known afterwards, or by others meanwhile
        self._is_saved = True

    def load(self) -> None:
        """From the file; nothing, where it is not there, cannot be read, or speaks of another database."""
        self._files, self.state = {}, {}
        with suppress(OSError, ValueError, TypeError, LookupError, AttributeError):
            found: dict[str, Any] = orjson.loads(self._path.read_bytes())
            if found["target"] == self._target:
                files = {str(name): [int(inode), int(offset)] for name, (inode, offset) in found["files"].items()}
                self._files, self.state = files, dict(found["state"])

    def offset(self, path: Path, inode: int) -> int:
        noted_inode, offset = self._files.get(str(path), (None, 0))
        return offset if noted_inode == inode else 0

    def note(self, path: Path, inode: int, offset: int) -> None:
        """Everything before `offset` is acknowledged."""
        self._files[str(path)] = [inode, offset]
        self._is_saved = False

    def count(self, name: str, more: int) -> None:
        self.say(name, self.state.get(name, 0) + more)

    def say(self, name: str, value: Any) -> None:
        if self.state.get(name) != value:
            self.state[name] = value
            self._is_saved = False

    def forget(self, path: Path) -> None:
        self._is_saved = self._files.pop(str(path), None) is None and self._is_saved

    def keep_only(self, paths: list[Path]) -> None:
        """Forget the files that are not there any more."""
        for name in self._files.keys() - {str(path) for path in paths}:
            self.forget(Path(name))

    def save(self) -> None:
        """Trouble with the disk costs time after a restart and nothing else."""
        if self._is_saved:
            return
        half = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            with open(half, "wb", opener=private) as file:
                file.write(orjson.dumps({"target": self._target, "files": self._files, "state": self.state}))
            half.rename(self._path)
            self._is_saved = True
        except OSError as error:
            log.warning("progress_not_saved", file=str(self._path), error=error.strerror)

    def remove(self) -> None:
        """The work is finished."""
        self._files, self.state, self._is_saved = {}, {}, True
        self._path.unlink(missing_ok=True)
