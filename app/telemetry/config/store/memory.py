"""Overrides in memory, gone with the process: for tests, and the plainest reading of what a store promises."""

from app.errors import ApiError
from app.telemetry.config.store import Overrides, no_such_overrides


class MemoryConfigStore:
    def __init__(self, overrides: dict[str, Overrides] | None = None):
        self._overrides = dict(overrides or {})

    def read_all(self) -> dict[str, Overrides]:
        return dict(self._overrides)

    def put(self, app: str, overrides: Overrides, expected: Overrides | None = None) -> None:
        self._expect(app, expected)
        self._overrides[app] = overrides

    def delete(self, app: str, expected: Overrides | None = None) -> None:
        if app not in self._overrides:
            raise no_such_overrides(app)
        self._expect(app, expected)
        del self._overrides[app]

    def _expect(self, app: str, expected: Overrides | None) -> None:
        if expected is not None and self._overrides.get(app, {}) != expected:
            raise ApiError("precondition_failed")
