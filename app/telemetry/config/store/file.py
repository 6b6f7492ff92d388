"""Overrides in one JSON file that a person may edit while the server runs: `{"apps": {"web": {"sampleRate": 0.5, …}, …}}`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from marshmallow import ValidationError

from app.errors import flatten_messages
from app.storage.json_file import JsonFile
from app.telemetry.config.schemas import dump_apps, load_apps
from app.telemetry.config.store import Overrides
from app.telemetry.config.store.memory import MemoryConfigStore


class FileConfigStore:
    def __init__(self, path: Path):
        self._file = JsonFile(path)
        self._last_read: tuple[bytes, dict[str, Overrides]] = (b"", {})

    def read_all(self) -> dict[str, Overrides]:
        """No file is no overrides. Bytes that were read before are not parsed again."""
        found = self._file.read()
        if found is None:
            return {}
        if found[0] != self._last_read[0]:
            self._last_read = (found[0], self._understand(self._file.parse(found[0])))
        return dict(self._last_read[1])

    def put(self, app: str, overrides: Overrides, expected: Overrides | None = None) -> None:
        with self._changing() as apps:
            apps.put(app, overrides, expected)

    def delete(self, app: str, expected: Overrides | None = None) -> None:
        with self._changing() as apps:
            apps.delete(app, expected)

    @contextmanager
    def _changing(self) -> Iterator[MemoryConfigStore]:
        """What the file has, to be changed; written back where the caller did not raise."""
        with self._file.locked():
            apps = MemoryConfigStore(self.read_all())
            yield apps
            self._file.write({"apps": dump_apps(apps.read_all())})

    def _understand(self, document: Any) -> dict[str, Overrides]:
        apps = document.get("apps") if isinstance(document, dict) else None
        if not isinstance(apps, dict) or set(document) != {"apps"}:
            raise self._file.unusable(f'{self._file.name} is not of the form {{"apps": {{…}}}}')
        try:
            return load_apps(apps)
        except ValidationError as error:
            first = flatten_messages(error.normalized_messages())[0]
            raise self._file.unusable(f"{self._file.name}: {first['path']}: {first['message']}") from None
