"""Stores flags in one JSON file, open to manual edits while the server runs: `{"flags": [{"key": …, "enabled": …, …}]}`.

A write reads the file again under its lock, changes one record and replaces the whole file. A file with mistakes is
never replaced.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from marshmallow import ValidationError

from app.errors import flatten_messages
from app.flags.flag import Flag
from app.flags.schemas import read_record
from app.flags.store.memory import MemoryFlagStore
from app.storage.json_file import JsonFile


class FileFlagStore:
    """The flags of the file at `path`; no file means no flags."""

    def __init__(self, path: Path):
        self._file = JsonFile(path)
        self._last_read: tuple[bytes, list[Flag]] = (b"", [])

    def list_all(self) -> list[Flag]:
        """Return the flags in the order of the file, which is parsed only when it changed."""
        found = self._file.read()
        if found is None:
            return []
        content, written_at = found
        if content != self._last_read[0]:
            self._last_read = (content, self._parse(content, written_at))
        return list(self._last_read[1])

    def by_key(self) -> dict[str, Flag]:
        """Return the flags by their keys, for their move into MongoDB."""
        return {flag.key: flag for flag in self.list_all()}

    def get(self, key: str) -> Flag:
        """Return one flag. Raises not_found."""
        return MemoryFlagStore(*self.list_all()).get(key)

    def create(self, flag: Flag) -> None:
        """Add a flag at the end of the file. Raises conflict and limit_exceeded."""
        with self._changing() as flags:
            flags.create(flag)

    def replace(self, flag: Flag, expected_version: int) -> None:
        """Replace a flag in its place. Raises not_found, precondition_failed and limit_exceeded."""
        with self._changing() as flags:
            flags.replace(flag, expected_version)

    def delete(self, key: str, expected_version: int | None) -> None:
        """Delete a flag. Raises not_found and precondition_failed."""
        with self._changing() as flags:
            flags.delete(key, expected_version)

    @contextmanager
    def _changing(self) -> Iterator[MemoryFlagStore]:
        """Yield the flags of the file, and write them back unless the caller raised."""
        with self._file.locked():
            flags = MemoryFlagStore(*self.list_all())
            yield flags
            self._file.write({"flags": [flag.record for flag in flags.list_all()]})

    def _parse(self, content: bytes, written_at: int) -> list[Flag]:
        document, name = self._file.parse(content), self._file.name
        records = document.get("flags") if isinstance(document, dict) else None
        if not isinstance(records, list) or set(document) != {"flags"}:
            raise self._file.unusable(f'{name} is not of the form {{"flags": […]}}')
        flags = [self._flag(index, record, written_at) for index, record in enumerate(records)]
        keys = [flag.key for flag in flags]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise self._file.unusable(f"{name} has the flag {twice} twice")
        return flags

    def _flag(self, index: int, record: Any, written_at: int) -> Flag:
        try:
            return read_record(record, written_at)
        except ValidationError as error:
            key = record.get("key") if isinstance(record, dict) else None
            first = flatten_messages(error.normalized_messages(), f"flags.{index}")[0]
            raise self._file.unusable(f"{self._file.name}, flag {key}: {first['path']}: {first['message']}") from None
