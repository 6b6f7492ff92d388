"""Overrides in memory, gone with the process: for tests, and the plainest reading of what a store promises."""

from app.telemetry.config.store import Overrides, no_such_overrides


class MemoryConfigStore:
    def __init__(self):
        self._overrides: dict[str, Overrides] = {}

    def read_all(self) -> dict[str, Overrides]:
        return dict(self._overrides)

    def put(self, app: str, overrides: Overrides) -> None:
        self._overrides[app] = overrides

    def delete(self, app: str) -> None:
        if self._overrides.pop(app, None) is None:
            raise no_such_overrides(app)
