"""How far files have been moved, remembered so that a restart does not begin at the beginning.

It only ever says less than what is done: it is noted after the acknowledgement and written every second or so, and what is
moved again is found by its `_id`. So it needs no fsync, only never to be half a file.

Invariant: an offset holds only for the bytes before it and for the collection that has their events. So it is noted with a
digest of these bytes, with what identifies the collection, and with the last event that went there; the file may have been
written anew under its name, and the database dropped or put back from a backup. In any doubt the offset is 0.
"""

import os
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from app.logs import get_logger
from app.storage.disk import private

log = get_logger(__name__)
BLOCK_BYTES = 1_048_576


class Done(NamedTuple):
    """`digest` is of the bytes before the offset, `collection` where their events are, `witness` the `_id` of the last of them."""

    inode: int
    offset: int
    digest: str = ""
    collection: str = ""
    witness: str = ""


class PrefixDigest:
    """Of the bytes of a file up to an offset, which only grows; each byte is read once."""

    def __init__(self):
        self._hash = blake2b(digest_size=16)
        self._at = 0

    def at(self, fd: int, offset: int) -> str:
        while self._at < offset and (block := os.pread(fd, min(BLOCK_BYTES, offset - self._at), self._at)):
            self._hash.update(block)
            self._at += len(block)
        return self._hash.hexdigest()


class Progress:
    def __init__(self, path: Path, target: str):
        self._path = path
        self._target = target
        self._files: dict[str, Done] = {}
        self.state: dict[str, Any] = {}  # what else is to be known afterwards, or by others meanwhile
        self._is_saved = True

    def load(self) -> None:
        """From the file; nothing, where it is not there, cannot be read, or speaks of another database."""
        self._files, self.state = {}, {}
        with suppress(OSError, ValueError, TypeError, LookupError, AttributeError):
            found: dict[str, Any] = orjson.loads(self._path.read_bytes())
            if found["target"] == self._target:
                files = {str(name): _done(*row) for name, row in found["files"].items()}
                self._files, self.state = files, dict(found["state"])

    def offset(self, path: Path, inode: int) -> int:
        """For showing it. Whoever reads on from there compares what else was noted."""
        done = self.done(path)
        return done.offset if done is not None and done.inode == inode else 0

    def done(self, path: Path) -> Done | None:
        return self._files.get(_name(path))

    def note(self, path: Path, inode: int, offset: int, digest: str = "", collection: str = "", witness: str = "") -> None:
        """Everything before `offset` is acknowledged."""
        self._files[_name(path)] = Done(inode, offset, digest, collection, witness)
        self._is_saved = False

    def count(self, name: str, more: int) -> None:
        self.say(name, self.state.get(name, 0) + more)

    def say(self, name: str, value: Any) -> None:
        if self.state.get(name) != value:
            self.state[name] = value
            self._is_saved = False

    def forget(self, path: Path) -> None:
        self._forget(_name(path))

    def _forget(self, name: str) -> None:
        self._is_saved = self._files.pop(name, None) is None and self._is_saved

    def keep_only(self, paths: list[Path]) -> None:
        """Forget the files that are not there any more."""
        for name in self._files.keys() - {_name(path) for path in paths}:
            self._forget(name)

    def save(self) -> None:
        """Trouble with the disk costs time after a restart and nothing else."""
        if self._is_saved:
            return
        half = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        files = {name: list(done) for name, done in self._files.items()}
        try:
            with open(half, "wb", opener=private) as file:
                file.write(orjson.dumps({"target": self._target, "files": files, "state": self.state}))
            half.rename(self._path)
            self._is_saved = True
        except OSError as error:
            log.warning("progress_not_saved", file=str(self._path), error=error.strerror)

    def remove(self) -> None:
        """The work is finished."""
        self._files, self.state, self._is_saved = {}, {}, True
        self._path.unlink(missing_ok=True)


def _name(path: Path) -> str:
    """As text, also where it is not UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _done(inode: Any, offset: Any, digest: Any = "", collection: Any = "", witness: Any = "") -> Done:
    return Done(int(inode), int(offset), str(digest), str(collection), str(witness))
