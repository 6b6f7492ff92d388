"""Flags in one JSON file that a person may edit while the server runs: `{"flags": [{"key": …, "enabled": …, …}]}`.

A write reads the file anew under a lock, changes one record and replaces the whole file, so that several processes
lose nothing of one another and a crash leaves the old file or the new one. A file that cannot be read, because
somebody is in the middle of editing it, is never written over.
"""

import codecs
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
from marshmallow import ValidationError

from app.errors import flatten_messages
from app.flags.flag import Flag
from app.flags.schemas import read_record
from app.flags.store import StoreUnavailable
from app.flags.store.memory import MemoryFlagStore

LOCK_PATIENCE_S = 2.0
LOCK_POLL_S = 0.01
MAX_FILE_BYTES = 16 * 1024 * 1024  # more is no file for hands; refused before it is read


class FileFlagStore:
    def __init__(self, path: Path):
        self._path = Path(os.path.realpath(path))  # a link stays a link: what it points to is replaced
        self._last_read: tuple[bytes, list[Flag]] = (b"", [])

    def list_all(self) -> list[Flag]:
        """No file is no flags. Bytes that were read before are not parsed again."""
        try:
            with open(self._path, "rb") as file:
                stat = os.fstat(file.fileno())
                if stat.st_size > MAX_FILE_BYTES:
                    raise StoreUnavailable(f"{self._path.name} has more than {MAX_FILE_BYTES} bytes")
                content = file.read()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._cannot("be read", error) from None
        if content != self._last_read[0]:
            self._last_read = (content, self._parse(content, written_at=stat.st_mtime_ns // 1_000_000))
        return list(self._last_read[1])

    def get(self, key: str) -> Flag:
        return MemoryFlagStore(*self.list_all()).get(key)

    def create(self, flag: Flag) -> None:
        with self._changing() as flags:
            flags.create(flag)

    def replace(self, flag: Flag, expected_version: int) -> None:
        with self._changing() as flags:
            flags.replace(flag, expected_version)

    def delete(self, key: str, expected_version: int | None) -> None:
        with self._changing() as flags:
            flags.delete(key, expected_version)

    @contextmanager
    def _changing(self) -> Iterator[MemoryFlagStore]:
        """The flags of the file, to be changed; written back where the caller did not raise."""
        with self._locked():
            flags = MemoryFlagStore(*self.list_all())
            yield flags
            self._write(flags.list_all())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Waits for another process in small steps, so that one which is stuck costs a 503 and not a stuck server."""
        try:
            lock = open(f"{self._path}.lock", "ab")  # noqa: SIM115 - closed below, which gives the lock back
        except OSError as error:
            raise self._cannot("be locked", error) from None
        with lock:
            deadline = time.monotonic() + LOCK_PATIENCE_S
            while not _try_lock(lock):
                if time.monotonic() > deadline:
                    raise StoreUnavailable(f"{self._path.name} is locked by another process")
                time.sleep(LOCK_POLL_S)
            yield

    def _write(self, flags: list[Flag]) -> None:
        content = orjson.dumps({"flags": [flag.record for flag in flags]}, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        unfinished = self._path.with_name(f"{self._path.name}.tmp")  # one name: the lock is held, and a crash leaves no litter
        try:
            with open(unfinished, "wb") as file:
                if self._path.exists():
                    os.fchmod(file.fileno(), self._path.stat().st_mode & 0o777)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, self._path)
            _sync_directory(self._path.parent)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            raise self._cannot("be written", error) from None

    def _parse(self, content: bytes, written_at: int) -> list[Flag]:
        try:
            document = orjson.loads(content.removeprefix(codecs.BOM_UTF8))
        except orjson.JSONDecodeError as error:
            raise StoreUnavailable(f"{self._path.name} is not JSON: {error}") from None
        records = document.get("flags") if isinstance(document, dict) else None
        if not isinstance(records, list) or set(document) != {"flags"}:
            raise StoreUnavailable(f'{self._path.name} is not of the form {{"flags": […]}}')
        flags = [self._flag(index, record, written_at) for index, record in enumerate(records)]
        keys = [flag.key for flag in flags]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise StoreUnavailable(f"{self._path.name} has the flag {twice} twice")
        return flags

    def _flag(self, index: int, record, written_at: int) -> Flag:
        try:
            return read_record(record, written_at)
        except ValidationError as error:
            key = record.get("key") if isinstance(record, dict) else None
            first = flatten_messages(error.normalized_messages(), f"flags.{index}")[0]
            raise StoreUnavailable(f"{self._path.name}, flag {key}: {first['path']}: {first['message']}") from None

    def _cannot(self, what: str, error: OSError) -> StoreUnavailable:
        return StoreUnavailable(f"{self._path.name} cannot {what}: {error.strerror}")


def _try_lock(file) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sync_directory(path: Path) -> None:
    """A rename is durable only when its directory is."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
