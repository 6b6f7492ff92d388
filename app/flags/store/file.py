"""Flags in one JSON file that a person may edit while the server runs: `{"flags": [{"key": …, "enabled": …, …}]}`.

A write reads the file anew under its lock, changes one record and replaces the whole file. A file that cannot be
understood is never written over.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from marshmallow import ValidationError

from app.errors import ApiError, flatten_messages
from app.flags.flag import Flag
from app.flags.schemas import read_record
from app.flags.store.memory import MemoryFlagStore
from app.storage.json_file import JsonFile


class FileFlagStore:
    def __init__(self, path: Path):
        self._file = JsonFile(path)
        self._last_read: tuple[bytes, list[Flag]] = (b"", [])

    def list_all(self) -> list[Flag]:
        """No file is no flags. Bytes that were read before are not parsed again."""
        found = self._file.read()
        if found is None:
            return []
        content, written_at = found
        if content != self._last_read[0]:
            self._last_read = (content, self._parse(content, written_at))
        return list(self._last_read[1])

    def by_key(self) -> dict[str, Flag]:
        return {flag.key: flag for flag in self.list_all()}

    def get(self, key: str) -> Flag:
        return MemoryFlagStore(*self.list_all()).get(key)

    def create(self, flag: Flag) -> None:
        with self._changing() as flags:
            flags.create(flag)

    def replace(self, flag: Flag, expected_version: int) -> None:
        with self._changing() as flags:
            flags.replace(flag, expected_version)

    def delete(self, key: str, expected_version: int | None) -> None:
        """Deleting makes room and must not fail for want of it: what a hand had left out of the other flags stays out then."""
        try:
            with self._changing() as flags:
                flags.delete(key, expected_version)
        except ApiError as error:
            if error.code != "limit_exceeded":
                raise
            self._take_out(key, expected_version)

    @contextmanager
    def _changing(self) -> Iterator[MemoryFlagStore]:
        """The flags of the file, to be changed; written back where the caller did not raise."""
        with self._file.locked():
            flags = MemoryFlagStore(*self.list_all())
            yield flags
            self._file.write({"flags": [flag.record for flag in flags.list_all()]})

    def _take_out(self, key: str, expected_version: int | None) -> None:
        with self._file.locked():
            MemoryFlagStore(*self.list_all()).delete(key, expected_version)
            records = self._file.parse(self._last_read[0])["flags"]
            self._file.write({"flags": [record for record in records if record["key"] != key]})

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

    def _flag(self, index: int, record, written_at: int) -> Flag:
        try:
            return read_record(record, written_at)
        except ValidationError as error:
            key = record.get("key") if isinstance(record, dict) else None
            first = flatten_messages(error.normalized_messages(), f"flags.{index}")[0]
            raise self._file.unusable(f"{self._file.name}, flag {key}: {first['path']}: {first['message']}") from None
